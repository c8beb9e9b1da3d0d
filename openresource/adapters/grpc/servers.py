"""Listens for gRPC: one handler for all paths, bounded, and every no as a status with its way out."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from contextlib import aclosing
from typing import Any, Final

import grpc
import grpc.aio

from openresource.adapters.grpc.codes import code_of, error_metadata
from openresource.primitives.errors import Refusal

REQUESTS_MAX: Final = 1_000
CONNECTION_STREAMS_MAX: Final = 256
# Requests come before payment: so many at once, each within its bound.
CALLS_MAX: Final = 128
REQUEST_SECONDS_MAX: Final = 60.0
PATIENCE_SECONDS_MAX: Final = 86_400.0
IDLE_MS_MAX: Final = 600_000
METADATA_BYTES_MAX: Final = 64 << 10
DETAILS_CHARACTERS_MAX: Final = 1_000

_log = logging.getLogger("openresource.adapters.grpc")

Metadata = dict[str, str | bytes]


class PortRefused(Refusal):
    template = "The gRPC door cannot listen on {host}:{port}."
    way_out = "Choose another port with --grpc-port, or stop what listens there."


class TooManyMessages(Refusal):
    template = "The request has more than {messages_max} messages or {bytes_max} bytes."
    way_out = "Send less at once."


class RequestTooSlow(Refusal):
    template = "The request's messages did not arrive within {seconds} seconds."
    way_out = "Nothing was charged. Send it again, and end the request when all is sent."


class Incoming:
    """One call as it comes in; `trailers` go out with its status, whatever that is."""

    def __init__(self, path: str, metadata: Metadata, requests: AsyncIterator[bytes], context: Any) -> None:
        self.path = path
        self.metadata = metadata
        self.trailers: list[tuple[str, str | bytes]] = []
        self._requests = requests
        self._context = context

    @property
    def patience_seconds(self) -> float | None:
        """How long the client waits, as far as it says."""
        left: float | None = self._context.time_remaining()
        # The library also says "none" as a very long time.
        return None if left is None or left > PATIENCE_SECONDS_MAX else max(left, 0.0)

    async def messages(self, bytes_max: int, hold: Callable[[int], object] = int) -> list[bytes]:
        """All messages of the request, within bounds; `hold` is told the bytes of each, and may refuse them."""
        found: list[bytes] = []
        size = 0
        try:
            async with asyncio.timeout(REQUEST_SECONDS_MAX):
                async for message in self._requests:
                    hold(len(message))
                    found.append(message)
                    size += len(message)
                    if len(found) > REQUESTS_MAX or size > bytes_max:
                        raise TooManyMessages(messages_max=REQUESTS_MAX, bytes_max=bytes_max)
        except TimeoutError:
            raise RequestTooSlow(seconds=REQUEST_SECONDS_MAX) from None
        return found


Serve = Callable[[Incoming], AsyncGenerator[bytes, None]]


class GrpcServer:
    """A listening door."""

    def __init__(
        self,
        serve: Serve,
        status_of: Callable[[Refusal], int],
        said_of: Callable[[Refusal], dict[str, Any]],
        *,
        request_bytes_max: int,
    ) -> None:
        """`serve` answers a call, `status_of` and `said_of` tell what HTTP would say of a refusal."""
        self.port = 0
        self._serve = serve
        self._status_of = status_of
        self._said_of = said_of
        self._server = grpc.aio.server(
            options=[
                ("grpc.max_receive_message_length", request_bytes_max),
                ("grpc.max_send_message_length", -1),
                ("grpc.max_metadata_size", METADATA_BYTES_MAX),
                ("grpc.max_concurrent_streams", CONNECTION_STREAMS_MAX),
                ("grpc.max_connection_idle_ms", IDLE_MS_MAX),
                ("grpc.so_reuseport", 0),
            ],
            maximum_concurrent_rpcs=CALLS_MAX,
        )
        self._server.add_generic_rpc_handlers((_Handlers(self._answer),))

    async def start(self, host: str, port: int, credentials: Any = None) -> int:
        """Listen; the port."""
        address = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        try:
            if credentials is None:
                self.port = self._server.add_insecure_port(address)
            else:
                self.port = self._server.add_secure_port(address, credentials)
        except RuntimeError:
            raise PortRefused(host=host, port=port) from None
        if self.port == 0:
            raise PortRefused(host=host, port=port)
        await self._server.start()
        return self.port

    async def stop(self, grace_seconds: float) -> None:
        """Take no more calls, let begun ones end within the grace time."""
        await self._server.stop(grace_seconds)

    async def _answer(
        self, path: str, requests: AsyncIterator[bytes], context: Any
    ) -> AsyncGenerator[bytes, None]:
        incoming = Incoming(path, _metadata(context.invocation_metadata()), requests, context)
        try:
            async with aclosing(self._serve(incoming)) as parts:
                async for part in parts:
                    yield part
            context.set_trailing_metadata(tuple(incoming.trailers))
        except Refusal as refusal:
            said = self._said_of(refusal)
            context.set_trailing_metadata((*incoming.trailers, error_metadata(said)))
            details = f"{said['message']} {said['remedy']}".strip()[:DETAILS_CHARACTERS_MAX]
            await context.abort(code_of(self._status_of(refusal)), details)
        except (asyncio.CancelledError, grpc.aio.AbortError, GeneratorExit):
            raise
        except Exception:
            _log.exception("a request failed within the gRPC door")
            await context.abort(
                grpc.StatusCode.INTERNAL, "The gateway failed at this request; nothing was charged."
            )


class _Handlers(grpc.GenericRpcHandler):  # type: ignore[misc]
    """Every path has the same handler; unary calls are streams of one."""

    def __init__(
        self, answer: Callable[[str, AsyncIterator[bytes], Any], AsyncGenerator[bytes, None]]
    ) -> None:
        self._answer = answer

    def service(self, handler_call_details: Any) -> Any:
        """The handler of a path."""
        path = handler_call_details.method

        # The server looks whether a handler is an asynchronous generator: nothing else would do.
        async def handle(requests: AsyncIterator[bytes], context: Any) -> AsyncGenerator[bytes, None]:
            async with aclosing(self._answer(path, requests, context)) as parts:
                async for part in parts:
                    yield part

        return grpc.stream_stream_rpc_method_handler(handle)


def _metadata(pairs: Sequence[tuple[str, str | bytes]] | None) -> Metadata:
    return {str(name): value for name, value in pairs or ()}
