"""HTTP/1.1 to one address, over connections that are kept: just what a wire to a provider needs, and quick.

One request after the other on each connection, answers read as they come. Whoever answers is a stranger: heads, lines
and numbers have bounds, and whatever is not of the form breaks the connection.
"""

from __future__ import annotations

import asyncio
import re
import ssl
import time
from collections.abc import Mapping
from typing import Final
from urllib.parse import quote

HEAD_BYTES_MAX: Final = 64 * 1024
HEADERS_MAX: Final = 128
LINE_BYTES_MAX: Final = 1_024
PIECE_BYTES_MAX: Final = 64 * 1024
CHUNK_BYTES_MAX: Final = 1 << 40
INTERIM_ANSWERS_MAX: Final = 8
LENGTH_DIGITS_MAX: Final = 15

_STATUS_LINE = re.compile(rb"HTTP/1\.([01]) ([1-5][0-9]{2})(?: [^\r\n]*)?")
_HEADER = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+):[ \t]*([^\r\n\0]*)")
_CHUNK_LINE = re.compile(rb"([0-9a-fA-F]{1,12})[ \t]*(?:;[^\r\n]*)?\r\n")
_FIELD_VALUE = re.compile(r"[\t\x20-\x7e\x80-\xff]*")
# What may stand in a path as it is; everything else is written with %.
_PATH_SAFE: Final = "/%:@!$&'()*+,;=~-._?"


class NotConnected(Exception):
    """No connection came about, so nothing was sent."""


class Broken(Exception):
    """The connection ended, was silent for too long or carried what is not HTTP; the request may have arrived."""


class Connections:
    """Kept connections to one host and port."""

    def __init__(
        self,
        host: str,
        port: int,
        context: ssl.SSLContext | None,
        *,
        connections_max: int,
        idle_seconds: float,
    ) -> None:
        self._host = host
        self._port = port
        self._context = context
        self._idle_seconds = idle_seconds
        self._places = asyncio.Semaphore(connections_max)
        self._idle: list[_Connection] = []
        self._open: set[_Connection] = set()
        shown = f"[{host}]" if ":" in host else host
        self._host_header = (
            f"Host: {shown}:{port}\r\nUser-Agent: openresource\r\nAccept-Encoding: identity\r\n"
        )

    async def close(self) -> None:
        """Close all connections, also those that are being used."""
        for connection in list(self._open):
            self.drop(connection)

    async def send(
        self,
        method: str,
        path: str,
        headers: Mapping[str, str],
        body: bytes,
        *,
        connect_seconds: float,
        seconds: float,
    ) -> Response:
        """Send a request; the answer when its head is here. `seconds` bound every single wait."""
        request = self._request(method, path, headers, body)
        connection = await self._connection(connect_seconds, seconds)
        try:
            return await connection.exchange(request, seconds)
        except BaseException:
            self.drop(connection)
            raise

    def keep(self, connection: _Connection) -> None:
        """Its answer is whole: it may carry the next request."""
        connection.idle_since = time.monotonic()
        self._idle.append(connection)
        self._places.release()

    def drop(self, connection: _Connection) -> None:
        """It is of no more use; asking twice does no harm."""
        if connection in self._open:
            self._open.discard(connection)
            connection.abort()
            if connection in self._idle:
                self._idle.remove(connection)
            else:
                self._places.release()

    def _request(self, method: str, path: str, headers: Mapping[str, str], body: bytes) -> bytes:
        lines = [f"{method} {quote(path, safe=_PATH_SAFE)} HTTP/1.1\r\n", self._host_header]
        for name, value in headers.items():
            assert _FIELD_VALUE.fullmatch(value) and _FIELD_VALUE.fullmatch(name), "headers are made by us"
            lines.append(f"{name}: {value}\r\n")
        if body or method != "GET":
            lines.append(f"Content-Length: {len(body)}\r\n")
        lines.append("\r\n")
        return "".join(lines).encode("latin-1") + body

    async def _connection(self, connect_seconds: float, seconds: float) -> _Connection:
        try:
            async with asyncio.timeout(seconds):
                await self._places.acquire()
        except TimeoutError:
            raise NotConnected("all connections are in use") from None
        try:
            while self._idle:
                connection = self._idle.pop()
                if connection.is_fresh(self._idle_seconds):
                    return connection
                self._open.discard(connection)
                connection.abort()
            async with asyncio.timeout(connect_seconds):
                reader, writer = await asyncio.open_connection(
                    self._host, self._port, ssl=self._context, limit=HEAD_BYTES_MAX
                )
        except (OSError, TimeoutError) as error:
            self._places.release()
            raise NotConnected(str(error) or type(error).__name__) from None
        except BaseException:
            self._places.release()
            raise
        connection = _Connection(self, reader, writer)
        self._open.add(connection)
        return connection


class _Connection:
    """One connection, with at most one request on it."""

    def __init__(
        self, owner: Connections, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        self.owner = owner
        self.reader = reader
        self.idle_since = 0.0
        self._writer = writer

    def is_fresh(self, idle_seconds: float) -> bool:
        """Whether another request may be sent: the other side has not closed it, nor said anything."""
        return (
            not self.reader.at_eof()
            and not self._writer.transport.is_closing()
            and time.monotonic() - self.idle_since < idle_seconds
        )

    def abort(self) -> None:
        self._writer.transport.abort()

    async def exchange(self, request: bytes, seconds: float) -> Response:
        """The head of the answer to a request."""
        try:
            async with asyncio.timeout(seconds):
                self._writer.write(request)
                if len(request) > PIECE_BYTES_MAX:
                    await self._drained()
                for _ in range(INTERIM_ANSWERS_MAX):
                    head = await self.reader.readuntil(b"\r\n\r\n")
                    response = Response(self, head, seconds)
                    if response.status >= 200:
                        return response
        except TimeoutError:
            raise Broken(f"no answer within {seconds:.1f} s") from None
        except (OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError) as error:
            raise Broken(_words(error)) from None
        raise Broken("it answers without end that it goes on")

    async def _drained(self) -> None:
        try:
            await self._writer.drain()
        except OSError:
            # Who closes before it has read everything may have said why.
            return


class Response:
    """An answer whose head is here; its body is read piece by piece."""

    def __init__(self, connection: _Connection, head: bytes, seconds: float) -> None:
        self._connection = connection
        self._seconds = seconds
        self._is_done = False
        first, *lines = head[:-4].split(b"\r\n")
        match = _STATUS_LINE.fullmatch(first)
        if match is None or len(lines) > HEADERS_MAX:
            raise Broken("its answer is not HTTP/1.1")
        self.status = int(match[2])
        self.headers: dict[str, str] = {}
        for line in lines:
            header = _HEADER.fullmatch(line)
            if header is None:
                raise Broken("its answer has a header that is none")
            name = header[1].decode("ascii").lower()
            if name in self.headers and name in ("content-length", "transfer-encoding"):
                raise Broken(f"its answer has {name} twice")
            self.headers.setdefault(name, header[2].decode("latin-1").rstrip(" \t"))
        self._keeps = match[1] == b"1" and "close" not in self.headers.get("connection", "").lower()
        self._is_chunked, self._left = self._framing()

    async def next_piece(self) -> bytes:
        """The next bytes of the body; empty at its end."""
        if self._is_done:
            return b""
        try:
            async with asyncio.timeout(self._seconds):
                piece = await self._read()
        except TimeoutError:
            await self.close()
            raise Broken(f"nothing came for {self._seconds:.1f} s") from None
        except (OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError) as error:
            await self.close()
            raise Broken(_words(error)) from None
        except BaseException:
            await self.close()
            raise
        if not piece:
            self._end()
        return piece

    async def close(self) -> None:
        """Break the connection off, if the body has not ended."""
        if not self._is_done:
            if self._left == 0 and not self._is_chunked:
                self._end()
                return
            self._is_done = True
            self._connection.owner.drop(self._connection)

    def _framing(self) -> tuple[bool, int]:
        """Whether the body comes in chunks, and how many bytes of it are to come; -1 until the connection ends."""
        if self.status < 200 or self.status in (204, 304):
            return False, 0
        coding = self.headers.get("transfer-encoding")
        length = self.headers.get("content-length")
        if coding is not None:
            if coding.lower() != "chunked" or length is not None:
                raise Broken("it says in two ways how long its answer is, or in one that is not known")
            return True, 0
        if length is None:
            self._keeps = False
            return False, -1
        if not length.isascii() or not length.isdigit() or len(length) > LENGTH_DIGITS_MAX:
            raise Broken("its answer has a length that is none")
        return False, int(length)

    async def _read(self) -> bytes:
        reader = self._connection.reader
        if self._is_chunked and self._left == 0:
            self._left = await self._chunk_size()
            if self._left == 0:
                await self._trailers()
                self._is_chunked = False
                return b""
        if self._left == 0:
            return b""
        if self._left < 0:
            return await reader.read(PIECE_BYTES_MAX)
        piece = await reader.read(min(self._left, PIECE_BYTES_MAX))
        if not piece:
            raise Broken("its answer ended before it was whole")
        self._left -= len(piece)
        if self._is_chunked and self._left == 0 and await reader.readexactly(2) != b"\r\n":
            raise Broken("a chunk of its answer has another length than it says")
        return piece

    async def _chunk_size(self) -> int:
        line = await self._connection.reader.readuntil(b"\r\n")
        match = _CHUNK_LINE.fullmatch(line)
        size = int(match[1], 16) if match is not None and len(line) <= LINE_BYTES_MAX else -1
        if not 0 <= size <= CHUNK_BYTES_MAX:
            raise Broken("a chunk of its answer has a length that is none")
        return size

    async def _trailers(self) -> None:
        for _ in range(HEADERS_MAX):
            line = await self._connection.reader.readuntil(b"\r\n")
            if line == b"\r\n":
                return
        raise Broken("its answer has trailers without end")

    def _end(self) -> None:
        self._is_done = True
        if self._keeps:
            self._connection.owner.keep(self._connection)
        else:
            self._connection.owner.drop(self._connection)


def _words(error: BaseException) -> str:
    if isinstance(error, asyncio.IncompleteReadError):
        return "it closed the connection before its answer was whole"
    if isinstance(error, asyncio.LimitOverrunError):
        return "its answer has a head or a line that is too long"
    return str(error) or type(error).__name__
