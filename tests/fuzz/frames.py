"""What comes over a WebSocket: frames that are broken, and messages to the event handler that are."""

from __future__ import annotations

import asyncio
from typing import Any

from openresource.node.ain.events import EventHandler
from openresource.node.ain.frames import BINARY, CLOSE, CONTINUATION, PING, PONG, TEXT, frame
from openresource.node.ain.websocket import Connection
from tests.fuzz.json_rpc import AinDoorTarget, written

MESSAGE_BYTES_MAX = 65_536
MASK = b"\x01\x02\x03\x04"
MESSAGES: tuple[Any, ...] = (
    {
        "type": "REGISTER_FILTER",
        "data": {"id": "1", "type": "BLOCK_FINALIZED", "config": {"block_number": None}},
    },
    {"type": "REGISTER_FILTER", "data": {"id": 2, "type": "BLOCK_FINALIZED", "config": {"block_number": 5}}},
    {
        "type": "REGISTER_FILTER",
        "data": {
            "id": "3",
            "type": "VALUE_CHANGED",
            "config": {"path": "/apps/a/$x", "event_source": "BLOCK"},
        },
    },
    {
        "type": "REGISTER_FILTER",
        "data": {"id": "4", "type": "TX_STATE_CHANGED", "config": {"tx_hash": "0x" + "ab" * 32}},
    },
    {"type": "DEREGISTER_FILTER", "data": {"id": "1"}},
    {"type": "SET_CUSTOM_CLIENT_ID", "data": {"customClientId": "somebody"}},
    {"type": "PONG", "data": {}},
)


class Writer:
    """What a connection writes to; it counts and forgets."""

    def __init__(self) -> None:
        self.is_closed = False
        self.written_bytes = 0
        self.transport = self

    def get_write_buffer_size(self) -> int:
        """Everything is sent at once."""
        return 0

    def write(self, data: bytes) -> None:
        """Counts."""
        self.written_bytes += len(data)

    def is_closing(self) -> bool:
        """Whether somebody has closed it."""
        return self.is_closed

    def close(self) -> None:
        """Closes."""
        self.is_closed = True

    def abort(self) -> None:
        """Closes."""
        self.is_closed = True


class Target(AinDoorTarget):
    """The event handler of a node, behind the parser of frames."""

    handler: EventHandler

    async def start(self) -> None:
        """Opens the node whose events they are."""
        await super().start()
        handler = self.node.events
        assert handler is not None, "the node has an event handler"
        self.handler = handler

    def make(self) -> Any:
        """The bytes of one connection."""
        chance = self.chance
        data = b""
        for _ in range(chance.choice((1, 1, 2, 3))):
            message = chance.choice(MESSAGES)
            if chance.random() < 0.7:
                message = self.mutator.value(message, MESSAGES)
            payload = written(message)
            if chance.random() < 0.2:
                payload = self.mutator.data(payload, [b"\xed\xa0\x80", b"{}"])
            kind = TEXT if chance.random() < 0.8 else chance.choice((BINARY, CLOSE, PING, PONG, CONTINUATION))
            if kind >= CLOSE:
                payload = payload[: chance.choice((0, 2, 125, 126))]
            if kind == TEXT and chance.random() < 0.1:
                half = len(payload) // 2
                first, second = frame(TEXT, payload[:half], MASK), frame(CONTINUATION, payload[half:], MASK)
                data += bytes((first[0] & 0x7F,)) + first[1:] + second
            else:
                data += frame(kind, payload, MASK)
        if chance.random() < 0.5:
            data = self.mutator.data(data, [data, b"\x81\xff" + b"\xff" * 8, b"\x01\x80" + MASK])
        return data

    async def run(self, request: Any) -> None:
        """One connection from its first byte to its end, in parts as they may arrive."""
        reader: Any = Parts(request, self.chance.choice((1, 7, 64, len(request) + 1)))
        writer: Any = Writer()
        connection = Connection(reader, writer, MESSAGE_BYTES_MAX, is_client=False, remote="127.0.0.1")
        await self.handler._serve(connection)
        # Each filter that is told lives in its channel; none may be left behind.
        assert not self.handler._filters and not self.handler._timeouts, "a filter outlives its channel"
        assert writer.written_bytes < 64 * (len(request) + 4096), "much is said about little"


class Parts:
    """A reader that gives bytes in parts of one size."""

    def __init__(self, data: bytes, size: int) -> None:
        self._data = data
        self._size = size if len(data) < 4_096 else len(data)
        self._at = 0

    async def read(self, count: int) -> bytes:
        """The next part."""
        part = self._data[self._at : self._at + min(count, self._size)]
        self._at += len(part)
        if self._at % 64 == 0:
            await asyncio.sleep(0)
        return part
