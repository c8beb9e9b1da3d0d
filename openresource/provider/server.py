"""Serves the gateway over TLS 1.3: uvicorn's HTTP/1.1 with bounds on what a stranger may make it hold.

uvicorn bounds neither the length of a request's head nor the time that it may take to arrive; this module does.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
from typing import Any

import uvicorn
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle

from openresource.primitives.errors import Refusal

HEAD_BYTES_MAX = 64 * 1024
HEADERS_MAX = 100
# From the connection's or the request's first byte until its whole head and body are here.
REQUEST_SECONDS_MAX = 60.0
# Above the time for which clients keep idle connections in their pools.
KEEP_ALIVE_SECONDS = 75
CONNECTIONS_MAX = 2_000
BACKLOG = 1_024
START_SECONDS_MAX = 10.0


class PortTaken(Refusal):
    template = "The gateway cannot listen on {host}:{port}: {reason}."
    way_out = "Choose another port with --port, or stop what listens there."


class BoundedProtocol(HttpToolsProtocol):
    """uvicorn's HTTP protocol, which closes connections that send too much head or take too long over a request."""

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self._head_bytes = 0
        self._patience: asyncio.TimerHandle | None = None
        self._wait_for_request()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_waiting()
        super().connection_lost(exc)

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._head_bytes = 0
        if self._patience is None:
            self._wait_for_request()

    def on_url(self, url: bytes) -> None:
        self._count(len(url))
        super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        self._count(len(name) + len(value) + 4)
        if len(self.headers) >= HEADERS_MAX:
            self._close()
        super().on_header(name, value)

    def on_message_complete(self) -> None:
        self._stop_waiting()
        super().on_message_complete()

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        task = self.loop.create_task(_answer(cycle, app))
        task.add_done_callback(self.tasks.discard)
        self.tasks.add(task)

    def _count(self, size: int) -> None:
        self._head_bytes += size
        if self._head_bytes > HEAD_BYTES_MAX:
            self._close()

    def _wait_for_request(self) -> None:
        self._patience = self.loop.call_later(REQUEST_SECONDS_MAX, self._close)

    def _stop_waiting(self) -> None:
        if self._patience is not None:
            self._patience.cancel()
            self._patience = None

    def _close(self) -> None:
        if not self.transport.is_closing():
            self.transport.close()


class _OneWrite:
    """The `send` of one request: an answer that is whole leaves in one piece, which TLS makes one record of."""

    __slots__ = ("_cycle", "_start")

    def __init__(self, cycle: RequestResponseCycle) -> None:
        self._cycle = cycle
        self._start: Any = None

    async def __call__(self, message: Any) -> None:
        cycle = self._cycle
        if message["type"] == "http.response.start":
            self._start = message
            return
        start, self._start = self._start, None
        if start is None or message.get("more_body", False):
            if start is not None:
                await cycle.send(start)
            await cycle.send(message)
            return
        if cycle.disconnected:
            return
        if cycle.flow.write_paused:
            await cycle.flow.drain()
        pieces = [STATUS_LINE[start["status"]]]
        for name, value in start["headers"]:
            pieces += (name, b": ", value, b"\r\n")
        pieces.append(b"\r\n" if cycle.keep_alive else b"connection: close\r\n\r\n")
        if cycle.scope["method"] != "HEAD":
            pieces.append(message.get("body", b""))
        cycle.response_started = cycle.response_complete = True
        cycle.transport.write(b"".join(pieces))
        cycle.message_event.set()
        if not cycle.keep_alive:
            cycle.transport.close()
        cycle.on_response()


async def _answer(cycle: RequestResponseCycle, app: Any) -> None:
    """Runs the application for one request; one that is left without an answer ends with its connection."""
    try:
        await app(cycle.scope, cycle.receive, _OneWrite(cycle))
    finally:
        if not cycle.response_complete and not cycle.disconnected:
            cycle.transport.close()
        cycle.on_response = lambda: None


class _Server(uvicorn.Server):
    """Signals belong to the command that runs the provider, not to its server."""

    @contextlib.contextmanager
    def capture_signals(self) -> Any:
        yield


class GatewayServer:
    """A listening gateway; `start` returns when it listens, `stop` when the last answer is out."""

    def __init__(self, app: Any, context: ssl.SSLContext, host: str, port: int) -> None:
        self._socket = _bound_socket(host, port)
        self.port: int = self._socket.getsockname()[1]
        self._server = _Server(
            uvicorn.Config(
                app,
                http=BoundedProtocol,
                ws="none",
                lifespan="off",
                interface="asgi3",
                access_log=False,
                log_config=None,
                server_header=False,
                date_header=False,
                proxy_headers=False,
                timeout_keep_alive=KEEP_ALIVE_SECONDS,
                limit_concurrency=CONNECTIONS_MAX,
                backlog=BACKLOG,
                ssl_context_factory=lambda config, default: context,
            )
        )
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Listens."""
        self._task = asyncio.create_task(self._server.serve(sockets=[self._socket]))
        deadline = asyncio.get_running_loop().time() + START_SECONDS_MAX
        while not self._server.started and not self._task.done():
            if asyncio.get_running_loop().time() > deadline:
                raise PortTaken(host="", port=self.port, reason="the server did not start in time")
            await asyncio.sleep(0.005)
        if self._task.done():
            await self._task

    async def stop(self, grace_seconds: float) -> None:
        """Takes no more connections, lets begun calls end within the grace time, then closes."""
        if self._task is None:
            self._socket.close()
            return
        self._server.config.timeout_graceful_shutdown = max(1, round(grace_seconds))
        self._server.should_exit = True
        await self._task


def _bound_socket(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # Without the protocol's number asyncio leaves small answers to Nagle: 40 ms each.
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
    except OSError as error:
        listener.close()
        raise PortTaken(host=host, port=port, reason=error.strerror or str(error)) from error
    listener.setblocking(False)
    return listener
