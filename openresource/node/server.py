"""The door's socket and its HTTP server."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import functools
import socket
from collections.abc import Iterator, Sequence
from typing import Any

import uvicorn
from starlette.types import ASGIApp

from openresource.node.connections import CONNECTIONS_MAX, KEEP_ALIVE_SECONDS, Connection, Lanes
from openresource.primitives.errors import Refusal

BACKLOG = 1_024
START_SECONDS_MAX = 10.0
STOP_SECONDS_MAX = 5


class PortInUse(Refusal):
    template = "The node cannot listen on {host}:{port}: {reason}."
    way_out = "Name another port with --port (PORT in AI Network's environment), or stop what listens there."


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

    async def start(self, application: ASGIApp, lanes: Lanes | None = None) -> None:
        """Answer requests, those with a lane at once; returns when the first one can come."""
        connection: Any = functools.partial(Connection, lanes=lanes, heads={})
        self._server = _Uvicorn(
            uvicorn.Config(
                application,
                http=connection,
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
