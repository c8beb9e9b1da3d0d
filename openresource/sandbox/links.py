"""One connection between two machines of one provider, and everything that goes over it: calls, parts of bodies, ends.

A frame is its length, its kind and the number of the matter that it belongs to. Bodies travel in parts, so that a large
one does not keep the others waiting; a stream's parts wait for the reader's word that there is room.
"""

from __future__ import annotations

import asyncio
import json
import struct
import time
from dataclasses import dataclass
from typing import Any, Final

from openresource.primitives.errors import Refusal
from openresource.sandbox import driver
from openresource.sandbox.driver import ProgramCrashed, ProgramError

HEADER: Final = struct.Struct(">IBI")
HEAD_BYTES_MAX: Final = 1 << 20
PART_BYTES: Final = 1 << 17
FRAME_BYTES_MAX: Final = 2 << 20
BODY_BYTES_MAX: Final = 64 << 20
# So much of a stream is on its way before the reader has taken it.
WINDOW_BYTES: Final = 1 << 20
PING_SECONDS: Final = 3.0
SILENCE_SECONDS_MAX: Final = 12.0
WRITE_BYTES_MAX: Final = 4 << 20

# From a machine that joins.
HELLO, NEED, LOST = 1, 2, 3
# From the provider that it joins.
WELCOME, START, CALL, CANCEL, STOP, USAGE, TAKEN, BLOCK = 10, 11, 12, 13, 14, 15, 16, 17
# Either way: the beginning, the parts, and the good or bad end of an answer, or of a call's body.
HEAD, PART, DONE, FAILED, PING = 20, 21, 22, 23, 24
KINDS: Final = frozenset((*range(1, 4), *range(10, 18), *range(20, 25)))


class LinkLost(ProgramCrashed):
    template = "The connection to the machine {machine} has ended: {reason}."
    way_out = "Nothing was charged. Try again: another machine takes the call."


@dataclass(frozen=True, slots=True)
class Frame:
    """One frame as it arrived."""

    kind: int
    number: int
    payload: bytes

    def head(self) -> dict[str, Any]:
        """Its payload as an object; whatever else arrives ends the connection."""
        try:
            value = json.loads(self.payload)
        except (ValueError, RecursionError):
            value = None
        if not isinstance(value, dict):
            raise LinkLost(machine="at the other end", reason="it sent what cannot be read")
        return value


class Link:
    """A connection that carries frames both ways; it says itself when the other side has gone silent."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, machine: str) -> None:
        self.machine = machine
        self._reader = reader
        self._writer = writer
        self._heard_at = time.monotonic()
        self._pinging: asyncio.Task[None] | None = None

    def begin(self) -> None:
        """Ping from now on."""
        self._heard_at = time.monotonic()
        self._pinging = asyncio.create_task(self._ping())

    async def receive(self) -> Frame:
        """The next frame that means something."""
        while True:
            try:
                length, kind, number = HEADER.unpack(await self._reader.readexactly(HEADER.size))
                if length > FRAME_BYTES_MAX or kind not in KINDS:
                    raise self.lost("it sent what is no frame")
                payload = await self._reader.readexactly(length) if length else b""
            except (OSError, asyncio.IncompleteReadError) as problem:
                raise self.lost(str(problem) or "it hung up") from None
            self._heard_at = time.monotonic()
            if kind != PING:
                return Frame(kind, number, payload)

    async def send(self, kind: int, number: int, value: dict[str, Any] | None = None) -> None:
        """A frame with an object, or with nothing."""
        await self.send_bytes(kind, number, b"" if value is None else json.dumps(value).encode())

    async def send_bytes(self, kind: int, number: int, data: bytes) -> None:
        """A frame with bytes; waits while too much is on its way."""
        if self._writer.is_closing():
            raise self.lost("it is closed")
        self._writer.write(HEADER.pack(len(data), kind, number) + data)
        try:
            await self._writer.drain()
        except OSError as problem:
            raise self.lost(str(problem) or "it hung up") from None

    async def send_body(self, number: int, body: bytes) -> None:
        """A body in parts, and its end."""
        for start in range(0, len(body), PART_BYTES):
            await self.send_bytes(PART, number, body[start : start + PART_BYTES])

    def lost(self, reason: str) -> LinkLost:
        """The refusal that everything gets which was under way."""
        return LinkLost(machine=self.machine, reason=reason, stderr="")

    def close(self) -> None:
        """Hang up."""
        if self._pinging is not None:
            self._pinging.cancel()
            self._pinging = None
        self._writer.transport.abort()

    async def _ping(self) -> None:
        while True:
            await asyncio.sleep(PING_SECONDS)
            if time.monotonic() - self._heard_at > SILENCE_SECONDS_MAX:
                self._writer.transport.abort()
                return
            try:
                await self.send(PING, 0)
            except LinkLost:
                return


class Window:
    """How much of a stream may be sent before the reader takes some."""

    def __init__(self) -> None:
        self._sent = 0
        self._room = asyncio.Event()
        self._room.set()

    async def wait(self, count: int) -> None:
        """Wait for room, then count."""
        await self._room.wait()
        self._sent += count
        if self._sent > WINDOW_BYTES:
            self._room.clear()

    def taken(self, count: int) -> None:
        """The reader has taken so much."""
        self._sent -= count
        if self._sent <= WINDOW_BYTES:
            self._room.set()


_ERRORS: Final[dict[str, type[ProgramError]]] = {
    name: one for name, one in vars(driver).items() if isinstance(one, type) and issubclass(one, ProgramError)
}


def error_head(refusal: Refusal) -> dict[str, Any]:
    """A refusal as it travels."""
    return {"type": type(refusal).__name__, **refusal.to_json()}


def error_of(head: dict[str, Any]) -> ProgramError:
    """The refusal that travelled; one of a kind that is not known here is a program that failed to start or to answer."""
    facts = head.get("facts")
    shown = {str(name)[:64]: fact for name, fact in facts.items()} if isinstance(facts, dict) else {}
    kind = _ERRORS.get(str(head.get("type")), driver.ProgramDidNotStart)
    message, remedy = str(head.get("message", ""))[:4_000], str(head.get("remedy", ""))[:4_000]
    # It has a place of its own beside the facts.
    shown.pop("remedy", None)
    shown.setdefault("reason", message)
    shown.setdefault("stderr", "")
    return kind(message, remedy=remedy, **shown)
