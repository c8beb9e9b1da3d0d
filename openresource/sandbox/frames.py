"""Speaks with a Python program inside a sandbox: binary frames over one socket, several calls at a time.

Everything that arrives was written by a stranger: lengths are bounded before anything is kept.
"""

from __future__ import annotations

import asyncio
import json
import socket
import struct
from collections.abc import Callable
from typing import Any, Final, cast

from openresource.sandbox.driver import (
    JSON_TYPE,
    LINES_TYPE,
    OutOfMemory,
    OutputTooLarge,
    ProgramCall,
    ProgramCrashed,
    ProgramDidNotStart,
    ProgramError,
    ProgramFailed,
    ProgramRefused,
)
from openresource.sandbox.tickets import Ticket

HEADER: Final = struct.Struct(">IIB")
CALL, CALL_RAW, CANCEL, SECRET = 1, 2, 3, 4
READY, ANSWER, CHUNK, END, REFUSED, FAILED, BROKEN, USAGE = 10, 11, 12, 13, 14, 15, 16, 17
USAGE_FIGURES: Final = struct.Struct(">QQ")
METHOD_BYTES_MAX: Final = 64
INTERFACE_BYTES_MAX: Final = 256 << 10
MESSAGE_CHARACTERS_MAX: Final = 2_000
# A guest that ends single calls has so long to do it.
KILL_SECONDS_MAX: Final = 5.0


class FrameChannel(asyncio.Protocol):
    """One socket to one Python program."""

    def __init__(
        self,
        output_bytes_max: int,
        memory_bytes: int,
        on_lost: Callable[[], None],
        on_fault: Callable[[ProgramError], None],
        ends_calls: bool = False,
    ) -> None:
        """A guest that `ends_calls` can stop one without hurting the others."""
        self._ends_calls = ends_calls
        self._payload_bytes_max = max(output_bytes_max, INTERFACE_BYTES_MAX)
        self._output_bytes_max = output_bytes_max
        self._memory_bytes = memory_bytes
        self._on_lost = on_lost
        self._on_fault = on_fault
        self._buffer = bytearray()
        self._tickets: dict[int, Ticket] = {}
        self._pressure = 0
        self._transport: asyncio.Transport | None = None
        self._interface: asyncio.Future[dict[str, Any]] = asyncio.get_running_loop().create_future()

    @classmethod
    async def open(cls, connection: socket.socket, *arguments: Any) -> FrameChannel:
        """Take over a connected socket."""
        connection.setblocking(False)
        _, channel = await asyncio.get_running_loop().create_unix_connection(
            lambda: cls(*arguments), sock=connection
        )
        return channel

    async def ready(self) -> dict[str, Any]:
        """The program's interface, once it is loaded and set up."""
        return await asyncio.shield(self._interface)

    def begin(self, ticket: Ticket, call: ProgramCall) -> None:
        """Send a call."""
        name = call.method.encode()[:METHOD_BYTES_MAX]
        kind = CALL if call.content_type.partition(";")[0].strip() in (JSON_TYPE, "") else CALL_RAW
        self._tickets[ticket.number] = ticket
        secret = call.secret.encode()
        head = HEADER.pack(len(secret), ticket.number, SECRET) + secret if secret else b""
        head += HEADER.pack(1 + len(name) + len(call.body), ticket.number, kind) + bytes((len(name),)) + name
        assert self._transport is not None
        if len(call.body) < 1 << 16:
            self._transport.write(head + call.body)
        else:
            self._transport.write(head)
            self._transport.write(call.body)

    def cancel(self, ticket: Ticket) -> None:
        """Tell the program that nobody waits; its thread is free once it says so."""
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(HEADER.pack(0, ticket.number, CANCEL))
            if self._ends_calls:
                asyncio.get_running_loop().call_later(KILL_SECONDS_MAX, self._check_ended, ticket)

    def expire(self, ticket: Ticket, error: ProgramError) -> bool:
        """End one call that is late, where that is possible."""
        if self._ends_calls:
            ticket.fail(error)
            self.cancel(ticket)
        return self._ends_calls

    def _check_ended(self, ticket: Ticket) -> None:
        if self._tickets.get(ticket.number) is ticket and self._transport is not None:
            self._fault(ProgramCrashed(reason="a call could not be stopped", stderr=""))

    def press(self, pressing: bool) -> None:
        """Stop or resume reading while a caller is slow."""
        self._pressure += 1 if pressing else -1
        if self._transport is None or self._transport.is_closing():
            return
        if self._pressure > 0:
            self._transport.pause_reading()
        else:
            self._transport.resume_reading()

    def close(self) -> None:
        """Hang up."""
        if self._transport is not None:
            self._transport.abort()
        if not self._interface.done():
            self._interface.cancel()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # Not an isinstance: uvloop's transports are of a family of their own.
        self._transport = cast(asyncio.Transport, transport)

    def connection_lost(self, error: Exception | None) -> None:
        if not self._interface.done():
            self._interface.set_exception(
                ProgramDidNotStart(reason="it ended before it was ready", stderr="")
            )
            self._interface.exception()
        self._on_lost()

    def data_received(self, data: bytes) -> None:
        buffer = self._buffer
        buffer += data
        while len(buffer) >= HEADER.size:
            length, number, kind = HEADER.unpack_from(buffer)
            if length > self._payload_bytes_max:
                self._fault(OutputTooLarge(what="answer", bytes_max=self._payload_bytes_max))
                return
            end = HEADER.size + length
            if len(buffer) < end:
                return
            payload = bytes(memoryview(buffer)[HEADER.size : end])
            del buffer[:end]
            self._frame(number, kind, payload)

    def _frame(self, number: int, kind: int, payload: bytes) -> None:
        if not self._interface.done():
            self._begin(kind, payload)
            return
        ticket = self._tickets.get(number)
        if ticket is None:
            self._fault(ProgramCrashed(reason="it answered a call that was not made", stderr=""))
            return
        if kind == CHUNK:
            ticket.begin_stream(200, LINES_TYPE)
            ticket.chunk(payload + b"\n")
            return
        if kind == USAGE:
            if len(payload) == USAGE_FIGURES.size:
                ticket.told_cpu_ms, ticket.reply.fuel = USAGE_FIGURES.unpack(payload)
            return
        del self._tickets[number]
        if kind == ANSWER:
            ticket.answer(200, JSON_TYPE, payload)
        elif kind == END:
            ticket.begin_stream(200, LINES_TYPE)
            ticket.end()
        elif kind in (REFUSED, FAILED):
            self._unanswered(ticket, kind, payload)
        else:
            self._fault(ProgramCrashed(reason="it spoke out of turn", stderr=""))

    def _unanswered(self, ticket: Ticket, kind: int, payload: bytes) -> None:
        status, name, message = _problem(payload)
        if name in ("OutOfMemory", "OutputTooLarge") and self._ends_calls:
            # It ended with its process, and its neighbours go on.
            ticket.fail(
                OutOfMemory(memory_bytes=self._memory_bytes, stderr=message)
                if name == "OutOfMemory"
                else OutputTooLarge(what="answer", bytes_max=self._output_bytes_max)
            )
        elif kind == REFUSED:
            ticket.fail(ProgramRefused(reason=message, status=status, error=name))
        elif name == "MemoryError":
            # What it tried is gone, what it holds is not: a fresh start is cheaper than a doubt.
            self._fault(OutOfMemory(memory_bytes=self._memory_bytes))
        else:
            ticket.fail(ProgramFailed(reason=f"{name}: {message}", error=name))

    def _begin(self, kind: int, payload: bytes) -> None:
        if kind == READY:
            try:
                interface = json.loads(payload)
            except (ValueError, RecursionError):
                interface = None
            if isinstance(interface, dict):
                self._interface.set_result(interface)
                return
        _, name, message = _problem(payload)
        self._interface.set_exception(ProgramDidNotStart(reason=f"{name}: {message}", stderr=""))
        self._interface.exception()

    def _fault(self, error: ProgramError) -> None:
        self._buffer.clear()
        self._on_fault(error)


def _problem(payload: bytes) -> tuple[int, str, str]:
    """Status, kind and words of a problem that a program states; nonsense reads as a failure."""
    try:
        value = json.loads(payload)
        status = value["status"] if type(value["status"]) is int else 500
        return status, str(value["type"])[:100], str(value["message"])[:MESSAGE_CHARACTERS_MAX]
    except (ValueError, KeyError, TypeError, RecursionError):
        return 500, "Unreadable", "it described its problem unreadably"
