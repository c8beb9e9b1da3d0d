"""Speaks with a program over its standard input and output, one JSON value a line.

With one method the input stands alone on its line, and so does the answer:

    {"text": "hi"}                                    → {"words": 1}

An answer that is an object with `error` alone refuses the input: `{"error": "too long"}`. A streaming method prints
one value a line and an empty line at the end. With several methods both carry the call's number, and may overtake:

    {"id": 7, "method": "count", "input": {…}}        → {"id": 7, "output": …}   or   {"id": 7, "error": "…"}
                                       streaming      → {"id": 7, "chunk": …} …       {"id": 7, "done": true}
"""

from __future__ import annotations

import asyncio
import os
from collections import deque
from collections.abc import Callable
from typing import Any, Final

import msgspec

from openresource.sandbox.driver import (
    JSON_TYPE,
    LINES_TYPE,
    OutputTooLarge,
    ProgramCall,
    ProgramCrashed,
    ProgramError,
    ProgramRefused,
)
from openresource.sandbox.tickets import Ticket

READ_BYTES: Final = 1 << 18
MESSAGE_CHARACTERS_MAX: Final = 2_000
STATUS_REFUSED: Final = 400
UNREADABLE: Final = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)


class _Answer(msgspec.Struct):
    """A line of a program with several methods."""

    id: int
    output: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    chunk: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    error: Any = msgspec.UNSET
    done: bool = False


_answers: Final = msgspec.json.Decoder(_Answer)
_anything: Final = msgspec.json.Decoder(msgspec.Raw)


class _Refusal(msgspec.Struct, forbid_unknown_fields=True):
    """The one answer of a program with one method that is not its output."""

    error: Any


_refusals: Final = msgspec.json.Decoder(_Refusal)


class LineChannel:
    """Two pipes to one program."""

    def __init__(
        self,
        output_bytes_max: int,
        enveloped: bool,
        streaming: frozenset[str],
        on_lost: Callable[[], None],
        on_fault: Callable[[ProgramError], None],
    ) -> None:
        self._bytes_max = output_bytes_max
        self._enveloped = enveloped
        self._streaming = streaming
        self._on_lost = on_lost
        self._on_fault = on_fault
        self._buffer = bytearray()
        self._searched = 0
        self._tickets: dict[int, Ticket] = {}
        self._order: deque[Ticket] = deque()
        self._methods: dict[int, str] = {}
        self._outgoing = bytearray()
        self._pressure = 0
        self._loop = asyncio.get_running_loop()
        self._stdin = self._stdout = -1
        self._writing = False

    @classmethod
    async def open(cls, stdin: int, stdout: int, *arguments: Any) -> LineChannel:
        """Take over both pipes."""
        channel = cls(*arguments)
        channel._stdin, channel._stdout = stdin, stdout
        for descriptor in (stdin, stdout):
            os.set_blocking(descriptor, False)
        channel._loop.add_reader(stdout, channel._readable)
        return channel

    async def ready(self) -> dict[str, Any]:
        """A program that reads lines is ready when it reads: nothing to wait for."""
        return {}

    def begin(self, ticket: Ticket, call: ProgramCall) -> None:
        """Send a call."""
        try:
            # Also what keeps a caller from smuggling in a second line or members of the envelope.
            value = bytes(_anything.decode(call.body or b"{}")).replace(b"\n", b" ").replace(b"\r", b" ")
        except UNREADABLE as problem:
            ticket.fail(ProgramRefused(reason=f"the input is not JSON ({problem})", status=STATUS_REFUSED))
            return
        self._tickets[ticket.number] = ticket
        self._methods[ticket.number] = call.method
        if self._enveloped:
            method = msgspec.json.encode(call.method)
            secret = b',"call":%s' % msgspec.json.encode(call.secret) if call.secret else b""
            line = b'{"id":%d,"method":%s%s,"input":%s}\n' % (ticket.number, method, secret, value)
        else:
            self._order.append(ticket)
            line = value + b"\n"
        self._outgoing += line
        self._write()

    def cancel(self, ticket: Ticket) -> None:
        """A line that was read cannot be taken back: the answer will be dropped when it comes."""

    def expire(self, ticket: Ticket, error: ProgramError) -> bool:
        """Only the whole program can be ended."""
        return False

    def press(self, pressing: bool) -> None:
        """Stop or resume reading while a caller is slow."""
        before, self._pressure = self._pressure, self._pressure + (1 if pressing else -1)
        if self._stdout < 0:
            return
        if before == 0 and self._pressure > 0:
            self._loop.remove_reader(self._stdout)
        elif before > 0 and self._pressure == 0:
            self._loop.add_reader(self._stdout, self._readable)

    def close(self) -> None:
        """Hang up."""
        if self._stdout >= 0:
            self._loop.remove_reader(self._stdout)
            os.close(self._stdout)
            self._stdout = -1
        self._close_stdin()

    def _close_stdin(self) -> None:
        if self._stdin >= 0:
            self._loop.remove_writer(self._stdin)
            os.close(self._stdin)
            self._stdin = -1
            self._outgoing.clear()

    def _write(self) -> None:
        while self._outgoing and self._stdin >= 0:
            try:
                written = os.write(self._stdin, self._outgoing)
            except BlockingIOError:
                if not self._writing:
                    self._writing = True
                    self._loop.add_writer(self._stdin, self._write)
                return
            except OSError:
                # It no longer reads; if it still writes, its answers count, else its end will be noticed.
                self._close_stdin()
                return
            del self._outgoing[:written]
        if self._writing and self._stdin >= 0:
            self._writing = False
            self._loop.remove_writer(self._stdin)

    def _readable(self) -> None:
        try:
            data = os.read(self._stdout, READ_BYTES)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self._loop.remove_reader(self._stdout)
            self._on_lost()
            return
        buffer = self._buffer
        buffer += data
        while self._stdout >= 0:
            end = buffer.find(b"\n", self._searched)
            if end < 0:
                break
            line = bytes(memoryview(buffer)[:end])
            del buffer[: end + 1]
            self._searched = 0
            self._line(line.rstrip(b"\r"))
        self._searched = len(buffer)
        if len(buffer) > self._bytes_max + 1_024:
            buffer.clear()
            self._searched = 0
            self._on_fault(OutputTooLarge(what="line", bytes_max=self._bytes_max))

    def _line(self, line: bytes) -> None:
        if self._enveloped:
            if line.strip():
                self._envelope(line)
            return
        if not self._order:
            if line.strip():
                self._on_fault(ProgramCrashed(reason="it answered a call that was not made", stderr=""))
            return
        ticket = self._order[0]
        streams = self._methods[ticket.number] in self._streaming
        if not line.strip():
            if streams:
                self._finish(ticket)
                ticket.begin_stream(200, LINES_TYPE)
                ticket.end()
            return
        try:
            _anything.decode(line)
        except UNREADABLE:
            self._on_fault(
                ProgramCrashed(reason=f"it printed a line that is not JSON: {_glimpse(line)}", stderr="")
            )
            return
        if b'"error"' in line:
            try:
                refusal = _refusals.decode(line)
            except UNREADABLE:
                pass
            else:
                self._finish(ticket)
                ticket.fail(ProgramRefused(reason=_message(refusal.error), status=STATUS_REFUSED))
                return
        if streams:
            ticket.begin_stream(200, LINES_TYPE)
            ticket.chunk(line + b"\n")
        else:
            self._finish(ticket)
            ticket.answer(200, JSON_TYPE, line)

    def _envelope(self, line: bytes) -> None:
        try:
            answer = _answers.decode(line)
        except UNREADABLE:
            self._on_fault(
                ProgramCrashed(reason=f"it printed a line without an answer: {_glimpse(line)}", stderr="")
            )
            return
        ticket = self._tickets.get(answer.id)
        if ticket is None:
            self._on_fault(ProgramCrashed(reason="it answered a call that was not made", stderr=""))
        elif not isinstance(answer.chunk, msgspec.UnsetType):
            ticket.begin_stream(200, LINES_TYPE)
            ticket.chunk(bytes(answer.chunk) + b"\n")
        elif answer.error is not msgspec.UNSET:
            self._finish(ticket)
            ticket.fail(ProgramRefused(reason=_message(answer.error), status=STATUS_REFUSED))
        elif answer.done:
            self._finish(ticket)
            ticket.begin_stream(200, LINES_TYPE)
            ticket.end()
        else:
            self._finish(ticket)
            output = b"null" if isinstance(answer.output, msgspec.UnsetType) else bytes(answer.output)
            ticket.answer(200, JSON_TYPE, output)

    def _finish(self, ticket: Ticket) -> None:
        self._tickets.pop(ticket.number, None)
        self._methods.pop(ticket.number, None)
        if self._order and self._order[0] is ticket:
            self._order.popleft()


def _message(error: Any) -> str:
    if isinstance(error, dict):
        error = error.get("message", "")
    return str(error)[:MESSAGE_CHARACTERS_MAX]


def _glimpse(line: bytes) -> str:
    return line[:80].decode("utf-8", "replace")
