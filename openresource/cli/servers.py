"""Serves an ASGI application of this package on one port until it is told to stop."""

import asyncio
import contextlib
import signal
import socket
from collections.abc import Callable
from typing import Any, Final

from openresource.primitives.errors import Refusal

BACKLOG: Final = 512
KEEP_ALIVE_SECONDS: Final = 75
STOP_SECONDS: Final = 5
CONNECTIONS_MAX: Final = 500


class PortInUse(Refusal):
    template = "Port {port} on {host} cannot be used: {reason}."
    way_out = "Name another with --port, or stop what listens there."


class ServerPartMissing(Refusal):
    template = "The server part is not installed ({module} is missing)."
    way_out = "Install it:  pip install 'openresource[server]'"


def bound_socket(host: str, port: int) -> socket.socket:
    """A listening place; the port is taken when this returns."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # Named as TCP, as asyncio turns Nagle off for no other.
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
    except OSError as error:
        listener.close()
        raise PortInUse(host=host, port=port, reason=error.strerror or str(error)) from None
    listener.setblocking(False)
    return listener


async def serve(
    application: Any,
    listener: socket.socket,
    on_ready: Callable[[], None],
    *,
    on_stop: Callable[[], None] = lambda: None,
) -> None:
    """Serve until SIGINT or SIGTERM; answers that have begun may end, and `on_stop` ends those that never would."""
    try:
        import uvicorn
    except ImportError as error:
        raise ServerPartMissing(module=error.name) from None

    class Server(uvicorn.Server):
        @contextlib.contextmanager
        def capture_signals(self) -> Any:
            yield

    server = Server(
        uvicorn.Config(
            application,
            ws="none",
            lifespan="off",
            interface="asgi3",
            access_log=False,
            log_config=None,
            server_header=False,
            date_header=False,
            proxy_headers=False,
            timeout_keep_alive=KEEP_ALIVE_SECONDS,
            timeout_graceful_shutdown=STOP_SECONDS,
            limit_concurrency=CONNECTIONS_MAX,
            backlog=BACKLOG,
        )
    )

    def stop() -> None:
        server.should_exit = True
        on_stop()

    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop)
    # The socket is bound already: what comes before the server runs waits in the backlog.
    listener.listen(BACKLOG)
    loop.call_soon(on_ready)
    try:
        await server.serve(sockets=[listener])
    finally:
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.remove_signal_handler(number)
