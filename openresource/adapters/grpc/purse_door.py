"""The buyer's gRPC door: plain loopback gRPC for stock clients, each call paid by the home's wallet over HTTPS.

Price, provider and receipt are in the trailing metadata. The service is found by the rpc's path, or named in the
metadata `openresource-service`.
"""

from __future__ import annotations

import base64
import json
import logging
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from typing import Any, Final

from openresource.adapters.grpc.codes import RpcUnknown, TooManyServices
from openresource.adapters.grpc.messages import (
    Mapped,
    NoMessageForAnswer,
    NotAMessage,
    derived_methods,
    own_methods,
)
from openresource.adapters.grpc.servers import GrpcServer, Incoming, RequestTooSlow, TooManyMessages
from openresource.client.calls import EVENTS_TYPE, Answer, Exchange
from openresource.client.connect import BODY_BYTES_MAX, Connect, status_of
from openresource.client.envelopes import event_value
from openresource.client.facade import AsyncClient
from openresource.client.services import Choice, Interface, Method
from openresource.primitives.encoding import parse_json
from openresource.primitives.errors import Refusal

SERVICE_KEY: Final = "openresource-service"
JSON_DEPTH_MAX: Final = 64
STOP_SECONDS: Final = 5.0
PROGRAMS_KEPT_MAX: Final = 1_000

_log = logging.getLogger("openresource.adapters.grpc")
_STATUSES: Final[Mapping[type[Refusal], int]] = {
    RpcUnknown: 404,
    TooManyServices: 400,
    NotAMessage: 400,
    NoMessageForAnswer: 502,
    TooManyMessages: 413,
    RequestTooSlow: 408,
}


class PurseDoor:
    """`connect` as gRPC."""

    def __init__(self, connect: Connect, client: AsyncClient) -> None:
        self._connect = connect
        self._client = client
        self._mapped: dict[str, list[Mapped]] = {}
        self._server = GrpcServer(
            self._serve,
            lambda refusal: _STATUSES.get(type(refusal)) or status_of(refusal),
            lambda refusal: refusal.to_json(),
            request_bytes_max=BODY_BYTES_MAX,
        )

    async def start(self, host: str, port: int) -> int:
        """Listen; the port."""
        return await self._server.start(host, port)

    async def stop(self) -> None:
        """Close."""
        await self._server.stop(STOP_SECONDS)

    async def _serve(self, incoming: Incoming) -> AsyncGenerator[bytes, None]:
        asked, choice, method, mapped = await self._route(incoming)
        value = mapped.value_of(await incoming.messages(BODY_BYTES_MAX))
        exchange = Exchange()
        body = bytearray()
        # A stream's pieces are events; the answer's own type is known at its end only.
        async with aclosing(self._connect.pieces(asked, choice, method, dict(value), exchange)) as pieces:
            async for piece in pieces:
                body += piece
                while mapped.streams and (at := body.find(b"\n\n")) >= 0:
                    event = bytes(body[:at])
                    del body[: at + 2]
                    if event.startswith(b"data:"):
                        yield mapped.message_of(event_value(event))
        answer = exchange.answer
        assert answer is not None
        incoming.trailers += _trailers(answer)
        if not mapped.streams:
            yield mapped.message_of(_value(bytes(body), answer))
        elif answer.content_type != EVENTS_TYPE:
            # Answered before: it comes whole.
            for line in bytes(body).split(b"\n"):
                if line.strip():
                    yield mapped.message_of(
                        parse_json(line, bytes_max=BODY_BYTES_MAX, depth_max=JSON_DEPTH_MAX)
                    )

    async def _route(self, incoming: Incoming) -> tuple[str, Choice, Method, Mapped]:
        wanted = incoming.metadata.get(SERVICE_KEY, "")
        if isinstance(wanted, str) and wanted:
            choice = await self._client.directory.choose(wanted)
            mapped = await self._rpc(choice, incoming.path)
            if mapped is None:
                raise RpcUnknown(path=incoming.path)
            return (
                wanted,
                choice,
                (await self._interface(choice)).method(mapped.method, choice.service),
                mapped,
            )
        found: list[tuple[Choice, Mapped]] = []
        for listing in await self._client.services():
            if listing.placements and (mapped := await self._rpc(listing.choice, incoming.path)) is not None:
                found.append((listing.choice, mapped))
        if not found:
            raise RpcUnknown(path=incoming.path)
        if len(found) > 1:
            services = ", ".join(choice.service for choice, _ in found)
            raise TooManyServices(path=incoming.path, services=services)
        choice, mapped = found[0]
        return (
            choice.service,
            choice,
            (await self._interface(choice)).method(mapped.method, choice.service),
            mapped,
        )

    async def _interface(self, choice: Choice) -> Interface:
        return await self._client.directory.interface(choice.program)

    async def _rpc(self, choice: Choice, path: str) -> Mapped | None:
        """The rpc of a version at a path."""
        if choice.program not in self._mapped:
            if len(self._mapped) >= PROGRAMS_KEPT_MAX:
                self._mapped.clear()
            try:
                self._mapped[choice.program] = mapped_methods(choice.name, await self._interface(choice))
            except Refusal as refusal:
                # A stranger's service that is not of the form hides no other one.
                _log.info("%s is not served over gRPC: %s", choice.service, refusal.message)
                self._mapped[choice.program] = []
        return next((one for one in self._mapped[choice.program] if one.path == path), None)


def mapped_methods(name: str, interface: Interface) -> list[Mapped]:
    """The rpcs of a service: those of its own .proto, else those that its interface gives."""
    if interface.descriptors:
        return own_methods(interface.descriptors)
    described = [
        {
            "name": method.name,
            "summary": method.summary,
            "input": method.input,
            "output": method.output,
            "stream": method.stream,
        }
        for method in interface.methods
    ]
    return derived_methods(name, described)


def _value(body: bytes, answer: Answer) -> Any:
    if answer.content_type.partition(";")[0].strip() != "application/json":
        raise NoMessageForAnswer(method=answer.service, reason=f"it is {answer.content_type}")
    return parse_json(body, bytes_max=BODY_BYTES_MAX, depth_max=JSON_DEPTH_MAX)


def _trailers(answer: Answer) -> list[tuple[str, str | bytes]]:
    receipt = base64.urlsafe_b64encode(json.dumps(answer.receipt).encode()).rstrip(b"=").decode()
    return [
        ("openresource-price", f"{answer.price} AIN"),
        ("openresource-provider", answer.provider),
        ("openresource-receipt-id", answer.receipt_id),
        ("openresource-receipt", receipt),
    ]
