"""WebSocket frames (RFC 6455) without sockets: bytes become messages, messages become bytes, within bounds."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Final

from openresource.primitives.errors import Refusal

TEXT: Final = 1
BINARY: Final = 2
CLOSE: Final = 8
PING: Final = 9
PONG: Final = 10
CONTINUATION: Final = 0

CONTROL_BYTES_MAX: Final = 125
FRAGMENTS_MAX: Final = 10_000

NORMAL: Final = 1000
GOING_AWAY: Final = 1001
PROTOCOL_ERROR: Final = 1002
NOT_UTF8: Final = 1007
TOO_LARGE: Final = 1009


class FrameRefused(Refusal):
    template = "The WebSocket connection broke the protocol: {reason}."
    way_out = "Send frames as RFC 6455 has them, without extensions, and smaller messages."

    def __init__(self, close_code: int, reason: str) -> None:
        super().__init__(reason=reason)
        self.close_code = close_code


@dataclass(frozen=True, slots=True)
class Message:
    """A whole message or a control frame."""

    opcode: int
    payload: bytes

    @property
    def text(self) -> str:
        """A text message's text."""
        return self.payload.decode()


class FrameParser:
    """Takes bytes as they arrive and gives whole messages; one for each connection."""

    def __init__(
        self, message_bytes_max: int, *, is_masked: bool, first_bytes_max: int | None = None
    ) -> None:
        """`is_masked`: the other side is a client, whose frames must be masked; else none may be.

        `first_bytes_max` bounds the first message, by which somebody unknown says who it is.
        """
        self._later_bytes_max = message_bytes_max
        self._bytes_max = message_bytes_max if first_bytes_max is None else first_bytes_max
        self._is_masked = is_masked
        self._buffer = bytearray()
        self._parts: list[bytes] = []
        self._parts_bytes = 0
        self._opcode = CONTINUATION

    def feed(self, data: bytes) -> list[Message]:
        """The messages that are whole now."""
        self._buffer += data
        messages: list[Message] = []
        while True:
            frame = self._next_frame()
            if frame is None:
                return messages
            message = self._message_of(*frame)
            if message is not None:
                messages.append(message)

    def _next_frame(self) -> tuple[bool, int, bytes] | None:
        buffer = self._buffer
        if len(buffer) < 2:
            return None
        first, second = buffer[0], buffer[1]
        if first & 0x70:
            raise FrameRefused(PROTOCOL_ERROR, "a reserved bit is set")
        is_final, opcode = bool(first & 0x80), first & 0x0F
        if opcode not in (CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG):
            raise FrameRefused(PROTOCOL_ERROR, f"there is no opcode {opcode}")
        if bool(second & 0x80) != self._is_masked:
            raise FrameRefused(PROTOCOL_ERROR, "a frame is masked that must not be, or is not")
        size, at = second & 0x7F, 2
        if opcode >= CLOSE and (size > CONTROL_BYTES_MAX or not is_final):
            raise FrameRefused(PROTOCOL_ERROR, "a control frame is long or in parts")
        if size >= 126:
            width = 2 if size == 126 else 8
            if len(buffer) < at + width:
                return None
            size = int.from_bytes(buffer[at : at + width], "big")
            at += width
        if size + self._parts_bytes > self._bytes_max and opcode < CLOSE:
            raise FrameRefused(TOO_LARGE, f"a message is longer than {self._bytes_max} bytes")
        mask = b""
        if self._is_masked:
            if len(buffer) < at + 4:
                return None
            mask = bytes(buffer[at : at + 4])
            at += 4
        if len(buffer) < at + size:
            return None
        payload = bytes(buffer[at : at + size])
        del buffer[: at + size]
        return is_final, opcode, masked(payload, mask) if mask else payload

    def _message_of(self, is_final: bool, opcode: int, payload: bytes) -> Message | None:
        if opcode >= CLOSE:
            return Message(opcode, payload)
        if (opcode == CONTINUATION) != bool(self._opcode):
            raise FrameRefused(PROTOCOL_ERROR, "a message begins or goes on in the wrong place")
        if opcode != CONTINUATION:
            self._opcode = opcode
        self._parts.append(payload)
        self._parts_bytes += len(payload)
        if len(self._parts) > FRAGMENTS_MAX:
            raise FrameRefused(TOO_LARGE, "a message comes in too many parts")
        if not is_final:
            return None
        whole, kind = b"".join(self._parts), self._opcode
        self._parts, self._parts_bytes, self._opcode = [], 0, CONTINUATION
        self._bytes_max = self._later_bytes_max
        if kind == TEXT:
            try:
                whole.decode()
            except UnicodeDecodeError:
                raise FrameRefused(NOT_UTF8, "a text is not UTF-8") from None
        return Message(kind, whole)


def frame(opcode: int, payload: bytes, mask: bytes = b"") -> bytes:
    """One whole frame; clients mask theirs with four random bytes."""
    flag = 0x80 if mask else 0
    size = len(payload)
    if size < 126:
        head = bytes((0x80 | opcode, flag | size))
    elif size < 1 << 16:
        head = bytes((0x80 | opcode, flag | 126)) + struct.pack(">H", size)
    else:
        head = bytes((0x80 | opcode, flag | 127)) + struct.pack(">Q", size)
    return head + mask + (masked(payload, mask) if mask else payload)


def masked(payload: bytes, mask: bytes) -> bytes:
    """A payload with the mask laid over it, or taken off."""
    size = len(payload)
    repeated = (mask * (size // 4 + 1))[:size]
    return (int.from_bytes(payload, "big") ^ int.from_bytes(repeated, "big")).to_bytes(size, "big")
