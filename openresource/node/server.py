"""The door's socket and HTTP server, with bounds on what a stranger may make it hold."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import socket
from collections.abc import Iterator, Sequence

import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from openresource.primitives.errors import Refusal

HEAD_BYTES_MAX = 32 * 1024
# The time for a request to arrive whole; answers and streams may take longer.
ARRIVAL_SECONDS_MAX = 60.0
# AI Network's clients count on connections that stay open for ten minutes.
KEEP_ALIVE_SECONDS = 620
CONNECTIONS_MAX = 4_000
BACKLOG = 1_024
START_SECONDS_MAX = 10.0
STOP_SECONDS_MAX = 5


class PortInUse(Refusal):
    template = "The node cannot listen on {host}:{port}: {reason}."
    way_out = "Name another port with --port (PORT in AI Network's environment), or stop what listens there."


class _ArrivalBound(HttpToolsProtocol):
    """Closes connections whose request is too long at its head or takes too long to arrive."""

    _arrival: asyncio.TimerHandle | None = None
    _head_bytes = 0

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._head_bytes = 0
        self._forget_timer()
        self._arrival = self.loop.call_later(ARRIVAL_SECONDS_MAX, self.transport.close)

    def on_url(self, url: bytes) -> None:
        self._grow(len(url))
        super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        self._grow(len(name) + len(value))
        super().on_header(name, value)

    def on_message_complete(self) -> None:
        self._forget_timer()
        super().on_message_complete()

    def connection_lost(self, exc: Exception | None) -> None:
        self._forget_timer()
        super().connection_lost(exc)

    def _grow(self, size: int) -> None:
        self._head_bytes += size
        if self._head_bytes > HEAD_BYTES_MAX:
            self.transport.close()

    def _forget_timer(self) -> None:
        if self._arrival is not None:
            self._arrival.cancel()
            self._arrival = None


class _Uvicorn(uvicorn.Server):
    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        # The service decides what a signal means; a server must not end the process.
        yield


class Server:
    """Listens once it is made; serves from `start` until `stop`."""

    def __init__(self, host: str, port: int, more: Sequence[socket.socket] = ()) -> None:
        """`more` are sockets that listen at further addresses; the server closes them too."""
        self.host = host
        self._socket = _listening_socket(host, port)
        self._more = more
        self.port: int = self._socket.getsockname()[1]
        self._server: _Uvicorn | None = None
        self._task: asyncio.Task[None] | None = None

    async def start(self, application: ASGIApp) -> None:
        """Answer requests; returns when the first one can come."""
        self._server = _Uvicorn(
            uvicorn.Config(
                application,
                http=_ArrivalBound,
                ws="none",
                lifespan="off",
                interface="asgi3",
                access_log=False,
                log_config=None,
                server_header=False,
                proxy_headers=False,
                timeout_keep_alive=KEEP_ALIVE_SECONDS,
                timeout_graceful_shutdown=STOP_SECONDS_MAX,
                limit_concurrency=CONNECTIONS_MAX,
                backlog=BACKLOG,
            )
        )
        self._task = asyncio.create_task(self._server.serve([self._socket, *self._more]), name="door")
        async with asyncio.timeout(START_SECONDS_MAX):
            while not self._server.started and not self._task.done():
                await asyncio.sleep(0.001)
        if self._task.done():
            await self._task

    async def stop(self) -> None:
        """Let answers under way end, then close."""
        if self._server is not None and self._task is not None:
            self._server.should_exit = True
            await self._task
        self._socket.close()
        for listener in self._more:
            listener.close()

    def task(self) -> asyncio.Task[None]:
        """The running server, to notice if it ends by itself."""
        assert self._task is not None, "the server has not been started"
        return self._task


def _listening_socket(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # Without the protocol's number asyncio leaves small answers to Nagle: 40 ms each.
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
        # From here on the port is ours alone; who calls before the node is ready waits instead of being refused.
        listener.listen(BACKLOG)
    except (OSError, OverflowError) as error:
        listener.close()
        is_taken = isinstance(error, OSError) and error.errno == errno.EADDRINUSE
        reason = "another process listens there" if is_taken else str(error)
        raise PortInUse(host=host, port=port, reason=reason) from error
    listener.setblocking(False)
    return listener
