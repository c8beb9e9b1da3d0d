"""The provider's gRPC door: the gateway's calls for gRPC clients, with payment in metadata and the receipt in trailers.

The names in the metadata are those of the HTTP headers, in small letters. Receipts are made over JSON, as everywhere:
the input and the answer as `messages.canonical` writes them, a stream as one such line for each message.
"""

from __future__ import annotations

import asyncio
import base64
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Coroutine
from contextlib import ExitStack, aclosing
from pathlib import Path
from typing import Any, Final

import grpc
import msgspec

from openresource.adapters.grpc.codes import RpcUnknown, TooManyServices
from openresource.adapters.grpc.messages import (
    Mapped,
    NoMessageForAnswer,
    NotAMessage,
    canonical,
    derived_methods,
    own_methods,
)
from openresource.adapters.grpc.servers import GrpcServer, Incoming, RequestTooSlow, TooManyMessages
from openresource.primitives.encoding import parse_json
from openresource.primitives.errors import Refusal
from openresource.provider.answers import Answer
from openresource.provider.calls import Calls, Request, StartedCall
from openresource.provider.gateway import LOAD_HEADER, STREAM_KEPT_BYTES_MAX, Gateway, refusal_json
from openresource.provider.offers import Offer, Offers
from openresource.provider.statuses import (
    BAD_GATEWAY,
    BAD_REQUEST,
    NOT_FOUND,
    PAYMENT_REQUIRED,
    TOO_LARGE,
    http_status,
)
from openresource.provider.statuses import register as register_status
from openresource.sandbox.driver import CEILING, JSON_TYPE, LINES_TYPE, OutputTooLarge, ProgramStream

SERVICE_KEY: Final = "openresource-service"
SESSION_KEY: Final = "openresource-session"
PAYMENT_KEY: Final = "payment-signature"
TEST_KEY: Final = "openresource-test"
RECEIPT_KEY: Final = "openresource-receipt"
LOAD_KEY: Final = LOAD_HEADER.decode()
JSON_DEPTH_MAX: Final = 64
# What gRPC takes by itself; larger inputs have the door that counts bodies before they come.
REQUEST_BYTES_MAX: Final = 4 << 20
DRAIN_SECONDS: Final = 30.0
# Messages up to this size become values where they arrive, as that takes less than going elsewhere.
AT_ONCE_BYTES_MAX: Final = 4 << 10

_log = logging.getLogger("openresource.adapters.grpc")

register_status(RpcUnknown, NOT_FOUND)
register_status(TooManyServices, BAD_REQUEST)
register_status(NotAMessage, BAD_REQUEST)
register_status(NoMessageForAnswer, BAD_GATEWAY)
register_status(TooManyMessages, TOO_LARGE)
register_status(RequestTooSlow, 408)


class ProviderDoor:
    """The gateway as gRPC."""

    def __init__(self, gateway: Gateway, offers: Offers, calls: Calls) -> None:
        self._gateway = gateway
        self._offers = offers
        self._calls = calls
        self._mapped: dict[tuple[str, str], tuple[bytes, list[Mapped]]] = {}
        self._ending: set[asyncio.Task[Any]] = set()
        # One after the other, so that strangers' large requests take one thread and everybody else goes on.
        self._reading = asyncio.Lock()
        self._server = GrpcServer(self._serve, http_status, refusal_json, request_bytes_max=REQUEST_BYTES_MAX)

    @property
    def port(self) -> int:
        """Where it listens."""
        return self._server.port

    async def start(self, host: str, port: int, tls_file: Path) -> None:
        """Listen with the gateway's own key, which the chain names."""
        pem = await asyncio.to_thread(tls_file.read_bytes)
        credentials = grpc.ssl_server_credentials([(pem, pem)])
        await self._server.start(host, port, credentials)

    async def stop(self) -> None:
        """Let calls end, then close."""
        await self._server.stop(DRAIN_SECONDS)
        if self._ending:
            await asyncio.wait(self._ending)

    # ── Routes ───────────────────────────────────────────────────────────────────────────────────────────────

    def _route(self, incoming: Incoming) -> tuple[Offer, Mapped]:
        wanted = _text(incoming, SERVICE_KEY)
        found = [
            (offer, mapped)
            for offer in self._offers
            if wanted in ("", offer.service, f"{offer.service}/{offer.program}")
            for mapped in self._methods(offer)
            if mapped.path == incoming.path
        ]
        services = {offer.service for offer, _ in found}
        if not found:
            raise RpcUnknown(path=incoming.path)
        if len(services) > 1:
            raise TooManyServices(path=incoming.path, services=", ".join(sorted(services)))
        return max(found, key=lambda one: (not one[0].is_draining, one[0].version.published_at_ms))

    def _methods(self, offer: Offer) -> list[Mapped]:
        key = (offer.service, offer.program)
        known = self._mapped.get(key)
        if known is None or known[0] is not offer.interface:
            known = (offer.interface, self._mapped_methods(offer))
            self._mapped[key] = known
            present = {(one.service, one.program) for one in self._offers}
            for gone in self._mapped.keys() - present:
                del self._mapped[gone]
        return known[1]

    def _mapped_methods(self, offer: Offer) -> list[Mapped]:
        told = getattr(offer.runner, "interface", {})
        try:
            if told.get("descriptors"):
                return own_methods(base64.b64decode(told["descriptors"]))
            return derived_methods(offer.name, msgspec.json.decode(offer.interface)["methods"])
        except (Refusal, TypeError, KeyError, ValueError) as problem:
            _log.warning("%s is not served over gRPC: %s", offer.service, problem)
            return []

    # ── Calls ────────────────────────────────────────────────────────────────────────────────────────────────

    async def _serve(self, incoming: Incoming) -> AsyncGenerator[bytes, None]:
        offer, mapped = self._route(incoming)
        with ExitStack() as held:
            # Counted as they come, for whoever ends no request keeps what has come.
            messages = await incoming.messages(
                offer.limits.input_bytes, lambda size: held.enter_context(self._gateway.hold_body(size))
            )
            body = await self._input_of(mapped, messages)
            messages.clear()
            held.close()
            held.enter_context(self._gateway.hold_body(len(body)))
            request = Request(
                offer,
                offer.method_at(f"/{mapped.method}"),
                body,
                session=_text(incoming, SESSION_KEY).encode(),
                payment=_text(incoming, PAYMENT_KEY).encode(),
                test=_text(incoming, TEST_KEY).encode(),
                patience_seconds=incoming.patience_seconds,
            )
            incoming.trailers.append((LOAD_KEY, offer.lane.load_text().decode()))
            try:
                started = await self._calls.begin(request)
                reply = None if isinstance(started, Answer) else await self._calls.run(started)
            except Refusal as refusal:
                if http_status(refusal) == PAYMENT_REQUIRED:
                    _, header = self._gateway.payment_envelope(refusal, request)
                    incoming.trailers.append(("payment-required", header.decode()))
                raise
            if isinstance(started, Answer):
                # Paid before: the same answer again.
                async for part in self._again(incoming, mapped, started):
                    yield part
            elif reply is not None and isinstance(reply.body, bytes):
                yield await self._whole(incoming, mapped, started, reply.body, reply.content_type)
            elif reply is not None and not isinstance(reply.body, bytes):
                async with aclosing(self._stream(incoming, mapped, started, reply.body)) as parts:
                    async for part in parts:
                        yield part

    async def _input_of(self, mapped: Mapped, messages: list[bytes]) -> bytes:
        """The input as text; few bytes can stand for very many values, and nobody has paid yet."""
        if sum(map(len, messages)) <= AT_ONCE_BYTES_MAX:
            return canonical(mapped.value_of(messages))
        async with self._reading:
            return await asyncio.to_thread(lambda: canonical(mapped.value_of(messages)))

    async def _again(self, incoming: Incoming, mapped: Mapped, answer: Answer) -> AsyncIterator[bytes]:
        whole = bool(answer.body_file) or not answer.is_whole
        body = await self._calls.answers.read_body(answer) if whole else answer.body
        incoming.trailers.append((RECEIPT_KEY, answer.receipt_header.decode()))
        for line in body.split(b"\n") if answer.content_type == LINES_TYPE else [body]:
            if line:
                yield mapped.message_of(_value(line))

    async def _whole(
        self, incoming: Incoming, mapped: Mapped, started: StartedCall, body: bytes, content_type: str
    ) -> bytes:
        try:
            if content_type.partition(";")[0].strip() != JSON_TYPE:
                raise NoMessageForAnswer(method=mapped.method, reason=f"it is {content_type}")
            message = mapped.message_of(_value(body))
            said = canonical(mapped.answer_of(message))
        except BaseException:
            self._calls.release(started)
            raise
        await self._completed(incoming, started, said, JSON_TYPE)
        return message

    async def _stream(
        self, incoming: Incoming, mapped: Mapped, started: StartedCall, stream: ProgramStream
    ) -> AsyncGenerator[bytes, None]:
        """Passes a stream on; once a message of it went out the call counts, however it ends for the client."""
        sent: list[bytes] = []
        size = 0
        is_over = False
        try:
            async with aclosing(stream):
                async for value in _values(stream):
                    message = mapped.message_of(value)
                    said = canonical(mapped.answer_of(message)) + b"\n"
                    size += len(said)
                    if size > started.request.offer.limits.output_bytes:
                        raise OutputTooLarge(
                            what="stream", bytes_max=started.request.offer.limits.output_bytes
                        )
                    sent.append(said)
                    yield message
            is_over = True
        except (GeneratorExit, asyncio.CancelledError):
            is_over = True
            if sent:
                # What went out is paid for; nobody waits for the rest.
                self._finish(
                    self._calls.complete(
                        started, b"".join(sent), LINES_TYPE, is_whole=False, is_cancelled=True
                    )
                )
            else:
                self._calls.release(started)
            raise
        finally:
            if not is_over:
                self._calls.release(started)
        await self._completed(incoming, started, b"".join(sent), LINES_TYPE)

    async def _completed(
        self, incoming: Incoming, started: StartedCall, body: bytes, content_type: str
    ) -> None:
        is_whole = content_type == JSON_TYPE or len(body) <= STREAM_KEPT_BYTES_MAX
        work = self._finish(self._calls.complete(started, body, content_type, is_whole=is_whole))
        # A client that leaves now has been answered all the same.
        answer = await asyncio.shield(work)
        incoming.trailers.append((RECEIPT_KEY, answer.receipt_header.decode()))
        if started.account is not None:
            incoming.trailers.append(
                ("payment-response", self._gateway.payment_response(started.account).decode())
            )

    def _finish(self, work: Coroutine[Any, Any, Answer]) -> asyncio.Task[Answer]:
        task = asyncio.ensure_future(work)
        self._ending.add(task)
        task.add_done_callback(self._ending.discard)
        return task


async def open_door(
    gateway: Gateway, offers: Offers, calls: Calls, host: str, port: int, tls: Path
) -> ProviderDoor:
    """What a provider calls once its gateway is there."""
    door = ProviderDoor(gateway, offers, calls)
    await door.start(host, port, tls)
    return door


async def _values(stream: ProgramStream) -> AsyncIterator[Any]:
    """The values of a stream of JSON lines or of events."""
    buffer = bytearray()
    async for chunk in stream:
        buffer += chunk
        while (at := buffer.find(b"\n")) >= 0:
            line = bytes(buffer[:at]).strip()
            del buffer[: at + 1]
            line = line.removeprefix(b"data:").strip()
            if line and line != b"[DONE]":
                yield _value(line)
    if rest := bytes(buffer).removeprefix(b"data:").strip():
        yield _value(rest)


def _value(data: bytes) -> Any:
    return parse_json(data, bytes_max=CEILING.output_bytes, depth_max=JSON_DEPTH_MAX)


def _text(incoming: Incoming, key: str) -> str:
    value = incoming.metadata.get(key, "")
    return value if isinstance(value, str) else ""
