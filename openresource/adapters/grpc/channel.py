"""Speaks gRPC with a program inside a sandbox: a JSON input becomes messages, its messages become JSON."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import AsyncIterator
from typing import Any, Final

import grpc
import grpc.aio
from google.protobuf import json_format
from google.protobuf.message import DecodeError, Message

from openresource.adapters.grpc.descriptors import (
    DESCRIPTORS_BYTES_MAX,
    DESCRIPTORS_FILE,
    GrpcMethod,
    read_methods,
)
from openresource.primitives.errors import Refusal
from openresource.sandbox.doorways import Doorway
from openresource.sandbox.driver import (
    JSON_TYPE,
    LINES_TYPE,
    OutputTooLarge,
    ProgramCall,
    ProgramDidNotStart,
    ProgramError,
    ProgramFailed,
    ProgramRefused,
)
from openresource.sandbox.http import SECRET_HEADER
from openresource.sandbox.relays import Relay
from openresource.sandbox.tickets import Ticket
from openresource.sandbox.tongues import Opening

REASON_CHARACTERS_MAX: Final = 2_000
# Protobuf is denser than JSON; what JSON may hold is bounded by the ticket.
PROTO_BYTES_MAX: Final = 256 << 10
METADATA_BYTES_MAX: Final = 16 << 10
# What a program says of the input, each with the status of the refusal.
REFUSING_CODES: Final = {
    grpc.StatusCode.INVALID_ARGUMENT: 422,
    grpc.StatusCode.OUT_OF_RANGE: 422,
    grpc.StatusCode.FAILED_PRECONDITION: 409,
    grpc.StatusCode.ALREADY_EXISTS: 409,
    grpc.StatusCode.NOT_FOUND: 404,
    grpc.StatusCode.PERMISSION_DENIED: 403,
    grpc.StatusCode.UNAUTHENTICATED: 403,
}


class GrpcChannel:
    """A gRPC client of one program."""

    def __init__(self, opening: Opening, methods: dict[str, GrpcMethod], told: dict[str, Any]) -> None:
        """`told` is what doors need to know besides the methods."""
        self._told = told
        self._methods = methods
        self._limits = opening.limits
        self._loop = asyncio.get_running_loop()
        self._doorway = Doorway(opening.control, opening.on_lost, opening.on_fault)
        self._relay = Relay(self._doorway)
        self._exchanges: dict[int, asyncio.Task[None]] = {}
        self._closing: asyncio.Task[None] | None = None
        self._channel = grpc.aio.insecure_channel(
            f"unix:{self._relay.path}",
            options=[
                ("grpc.max_receive_message_length", opening.limits.output_bytes),
                ("grpc.max_send_message_length", opening.limits.input_bytes),
                ("grpc.max_metadata_size", METADATA_BYTES_MAX),
                ("grpc.enable_http_proxy", 0),
                ("grpc.use_local_subchannel_pool", 1),
            ],
        )

    async def ready(self) -> dict[str, Any]:
        """Wait until the server speaks gRPC; its methods are those of its descriptors."""
        await self._doorway.listening()
        await self._channel.channel_ready()
        return {"methods": [method.described() for method in self._methods.values()], **self._told}

    def begin(self, ticket: Ticket, call: ProgramCall) -> None:
        """Start a call."""
        method = self._methods.get(call.method)
        if method is None:
            ticket.fail(ProgramRefused(reason=f"it has no method {call.method}", status=404))
            return
        task = self._loop.create_task(self._exchange(ticket, method, call))
        self._exchanges[ticket.number] = task
        task.add_done_callback(lambda _: self._exchanges.pop(ticket.number, None))

    def cancel(self, ticket: Ticket) -> None:
        """Cancel the call; gRPC tells the program."""
        task = self._exchanges.get(ticket.number)
        if task is not None:
            task.cancel()
        ticket.end()

    def expire(self, ticket: Ticket, error: ProgramError) -> bool:
        """A server that goes on computing for nobody is ended as a whole."""
        return False

    def press(self, pressing: bool) -> None:
        """Each exchange waits for its own caller."""

    def close(self) -> None:
        """Hang up."""
        for task in list(self._exchanges.values()):
            task.cancel()
        if self._closing is None:
            self._relay.close()
            self._doorway.close()
            self._closing = self._loop.create_task(self._channel.close())

    async def _exchange(self, ticket: Ticket, method: GrpcMethod, call: ProgramCall) -> None:
        try:
            requests = method.requests_of(json.loads(call.body or b"{}"))
        except (json_format.ParseError, ValueError, TypeError, AttributeError, RecursionError) as problem:
            reason = f"the input is no {method.input_class.DESCRIPTOR.name}: {problem}"
            ticket.fail(ProgramRefused(reason=reason[:REASON_CHARACTERS_MAX], status=422))
            return
        try:
            if method.streams_out:
                await self._stream(ticket, method, requests, call)
            else:
                answer = await self._answer(method, requests, call)
                ticket.answer(200, JSON_TYPE, _json(method.value_of(answer)))
        except grpc.aio.AioRpcError as error:
            ticket.fail(self._refusal(error))
        except (DecodeError, json_format.SerializeToJsonError, ValueError) as problem:
            ticket.fail(
                ProgramFailed(reason=f"its answer is no {method.output_class.DESCRIPTOR.name}: {problem}")
            )

    async def _answer(self, method: GrpcMethod, requests: list[Message], call: ProgramCall) -> bytes:
        answer: bytes
        said: Any = {"timeout": call.deadline_seconds, "metadata": _metadata(call)}
        if method.streams_in:
            many = self._channel.stream_unary(method.path, request_serializer=_bytes)
            answer = await many(_each(requests), **said)
        else:
            one = self._channel.unary_unary(method.path, request_serializer=_bytes)
            answer = await one(requests[0], **said)
        return answer

    async def _stream(
        self, ticket: Ticket, method: GrpcMethod, requests: list[Message], call: ProgramCall
    ) -> None:
        said: Any = {"timeout": call.deadline_seconds, "metadata": _metadata(call)}
        if method.streams_in:
            many = self._channel.stream_stream(method.path, request_serializer=_bytes)
            parts = many(_each(requests), **said)
        else:
            one = self._channel.unary_stream(method.path, request_serializer=_bytes)
            parts = one(requests[0], **said)
        ticket.begin_stream(200, LINES_TYPE)
        async for part in parts:
            ticket.chunk(_json(method.value_of(part)) + b"\n")
            await ticket.drained()
        ticket.end()

    def _refusal(self, error: Any) -> ProgramError:
        code, said = error.code(), str(error.details() or "")[:REASON_CHARACTERS_MAX]
        if code in REFUSING_CODES:
            return ProgramRefused(reason=said or code.name, status=REFUSING_CODES[code], error=code.name)
        if code is grpc.StatusCode.RESOURCE_EXHAUSTED and "larger than max" in said:
            return OutputTooLarge(what="answer", bytes_max=self._limits.output_bytes)
        return ProgramFailed(reason=f"{code.name}: {said}" if said else code.name, error=code.name)


def _metadata(call: ProgramCall) -> tuple[tuple[str, str], ...]:
    """By which the program asks the broker for this call, if it may."""
    return ((SECRET_HEADER.lower(), call.secret),) if call.secret else ()


async def open_grpc(opening: Opening) -> GrpcChannel:
    """The channel to a program whose descriptors lie in its release."""
    path = opening.release.folder / DESCRIPTORS_FILE
    try:
        with open(path, "rb") as file:
            data = file.read(DESCRIPTORS_BYTES_MAX + 1)
        told = {"descriptors": base64.b64encode(data).decode(), "proto": _proto(opening)}
        return GrpcChannel(opening, read_methods(data), told)
    except OSError:
        opening.control.close()
        raise ProgramDidNotStart(
            reason=f"the release has no {DESCRIPTORS_FILE}",
            stderr="",
            remedy="Publish it with a version of openresource that compiles .proto files.",
        ) from None
    except Refusal as refusal:
        opening.control.close()
        raise ProgramDidNotStart(reason=refusal.message, stderr="") from None


def _proto(opening: Opening) -> str:
    """The text of the program's own .proto."""
    try:
        with open(opening.release.folder / opening.release.manifest.run.proto, "rb") as file:
            return file.read(PROTO_BYTES_MAX).decode("utf-8", "replace")
    except OSError:
        return ""


def _json(value: Any) -> bytes:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()


def _bytes(message: Message) -> bytes:
    data: bytes = message.SerializeToString(deterministic=True)
    return data


async def _each(requests: list[Message]) -> AsyncIterator[Message]:
    for request in requests:
        yield request
