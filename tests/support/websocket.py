"""A WebSocket client of a few lines, for tests of servers: it blocks, and knows texts and their end."""

from __future__ import annotations

import base64
import json
import os
import socket
import struct
import time
from typing import Any
from urllib.parse import urlsplit

TEXT, CLOSE, PING, PONG = 1, 8, 9, 10


class Closed(Exception):
    """The server has ended the connection."""


class Socket:
    """One connection."""

    def __init__(self, url: str, seconds_max: float = 60.0) -> None:
        parts = urlsplit(url)
        assert parts.hostname is not None
        self._socket = socket.create_connection((parts.hostname, parts.port or 80), seconds_max)
        self._rest = b""
        key = base64.b64encode(os.urandom(16)).decode()
        self._socket.sendall(
            f"GET {parts.path or '/'} HTTP/1.1\r\nHost: {parts.netloc}\r\nUpgrade: websocket\r\n"
            f"Connection: Upgrade\r\nSec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13\r\n\r\n".encode()
        )
        deadline = time.monotonic() + seconds_max
        while b"\r\n\r\n" not in self._rest:
            self._more(deadline)
        head, _, self._rest = self._rest.partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 101"), head[:200]

    def send(self, text: str) -> None:
        """Send a text."""
        self._send_frame(TEXT, text.encode())

    def send_json(self, message: Any) -> None:
        """Send a message."""
        self.send(json.dumps(message))

    def receive(self, seconds_max: float) -> str | None:
        """The next text; None if none comes in time, `Closed` if none can come any more."""
        deadline = time.monotonic() + seconds_max
        while True:
            try:
                kind, payload = self._frame(deadline)
            except TimeoutError:
                return None
            if kind == PING:
                self._send_frame(PONG, payload)
            elif kind == CLOSE:
                raise Closed
            elif kind == TEXT:
                return payload.decode()

    def close(self) -> None:
        """End the connection without a word."""
        self._socket.close()

    def _frame(self, deadline: float) -> tuple[int, bytes]:
        # Only a whole frame is taken, so that a timeout in its middle loses nothing.
        while True:
            length, offset = None, 2
            if len(self._rest) >= 2:
                length = self._rest[1] & 127
                if length == 126:
                    offset, length = 4, None
                    if len(self._rest) >= 4:
                        length = struct.unpack(">H", self._rest[2:4])[0]
                elif length == 127:
                    offset, length = 10, None
                    if len(self._rest) >= 10:
                        length = struct.unpack(">Q", self._rest[2:10])[0]
            if length is not None and len(self._rest) >= offset + length:
                kind, payload = self._rest[0] & 15, self._rest[offset : offset + length]
                self._rest = self._rest[offset + length :]
                return kind, payload
            self._more(deadline)

    def _more(self, deadline: float) -> None:
        left = deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError
        self._socket.settimeout(left)
        try:
            part = self._socket.recv(65536)
        except ConnectionError as error:
            raise Closed from error
        if not part:
            raise Closed
        self._rest += part

    def _send_frame(self, kind: int, payload: bytes) -> None:
        mask = os.urandom(4)
        if len(payload) < 126:
            head = bytes((0x80 | kind, 0x80 | len(payload)))
        elif len(payload) < 65536:
            head = bytes((0x80 | kind, 0x80 | 126)) + struct.pack(">H", len(payload))
        else:
            head = bytes((0x80 | kind, 0x80 | 127)) + struct.pack(">Q", len(payload))
        masked = bytes(byte ^ mask[index % 4] for index, byte in enumerate(payload))
        self._socket.sendall(head + mask + masked)
