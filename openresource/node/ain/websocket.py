"""WebSocket connections, as server and as client, for the event handler and for the links between nodes."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hashlib
import hmac
import logging
import os
import socket
from collections.abc import Awaitable, Callable, Sequence
from typing import Final
from urllib.parse import urlsplit

from openresource.node.ain.frames import (
    CLOSE,
    NORMAL,
    PING,
    PONG,
    TEXT,
    FrameParser,
    FrameRefused,
    Message,
    frame,
)
from openresource.node.server import PortInUse
from openresource.primitives.errors import Refusal

HANDSHAKE_BYTES_MAX: Final = 16 * 1024
HANDSHAKE_SECONDS_MAX: Final = 10.0
CLOSE_SECONDS_MAX: Final = 2.0
# What may wait to be sent to somebody who does not read; then the connection ends.
UNSENT_BYTES_MAX: Final = 64 * 1024 * 1024
READ_BYTES: Final = 64 * 1024
# Open connections of one port, of whomever.
CONNECTIONS_MAX: Final = 512

_GUID: Final = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
_log = logging.getLogger("openresource.node.ain.websocket")


class ConnectFailed(Refusal):
    template = "No WebSocket connection to {url} came about: {reason}."
    way_out = "Check that a node listens there."


class Connection:
    """One open connection; messages are texts."""

    def __init__(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        message_bytes_max: int,
        *,
        is_client: bool,
        remote: str,
        path: str = "/",
        first_bytes_max: int | None = None,
    ) -> None:
        self.remote = remote
        self.path = path
        self._reader = reader
        self._writer = writer
        self._is_client = is_client
        self._parser = FrameParser(
            message_bytes_max, is_masked=not is_client, first_bytes_max=first_bytes_max
        )
        self._waiting: list[Message] = []
        self._is_closed = False

    @property
    def is_open(self) -> bool:
        """Whether something may still be sent."""
        return not self._is_closed and not self._writer.is_closing()

    async def receive(self) -> str | None:
        """The next text; None when the connection has ended."""
        while True:
            while self._waiting:
                message = self._waiting.pop(0)
                if message.opcode == TEXT:
                    return message.text
                if message.opcode == PING:
                    self._write(PONG, message.payload)
                elif message.opcode == CLOSE:
                    self._write(CLOSE, message.payload[:2])
                    self.terminate()
                    return None
            try:
                data = await self._reader.read(READ_BYTES)
            except (OSError, asyncio.IncompleteReadError):
                data = b""
            if not data:
                self.terminate()
                return None
            try:
                self._waiting = self._parser.feed(data)
            except FrameRefused as refusal:
                self._write(CLOSE, refusal.close_code.to_bytes(2, "big"))
                self.terminate()
                return None

    def send(self, text: str) -> None:
        """Sends a text; somebody who does not read loses the connection."""
        self.send_bytes(text.encode("utf-8", "replace"))

    def send_bytes(self, text: bytes) -> None:
        """Sends a text that is UTF-8 already."""
        self._write(TEXT, text)

    async def close(self, code: int = NORMAL) -> None:
        """Ends the connection as the protocol wants it."""
        self._write(CLOSE, code.to_bytes(2, "big"))
        if not self._is_closed:
            self._is_closed = True
            with contextlib.suppress(OSError, TimeoutError, asyncio.CancelledError):
                async with asyncio.timeout(CLOSE_SECONDS_MAX):
                    await self._writer.drain()
        self.terminate()

    def terminate(self) -> None:
        """Ends the connection at once."""
        self._is_closed = True
        self._writer.close()

    def _write(self, opcode: int, payload: bytes) -> None:
        if not self.is_open:
            return
        transport = self._writer.transport
        if transport.get_write_buffer_size() > UNSENT_BYTES_MAX:
            transport.abort()
            self._is_closed = True
            return
        self._writer.write(frame(opcode, payload, os.urandom(4) if self._is_client else b""))


Handler = Callable[[Connection], Awaitable[None]]


class WebsocketServer:
    """Listens on one port at several addresses, and hands every connection to the handler."""

    def __init__(
        self,
        hosts: Sequence[str],
        port: int,
        handler: Handler,
        *,
        message_bytes_max: int,
        first_bytes_max: int | None = None,
    ) -> None:
        self._hosts = hosts
        self._port = port
        self._handler = handler
        self._bytes_max = message_bytes_max
        self._first_bytes_max = first_bytes_max
        self._servers: list[asyncio.Server] = []
        self._tasks: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        """Begins to listen."""
        for listener in listening_sockets(self._hosts, self._port):
            self._servers.append(await asyncio.start_server(self._accept, sock=listener, limit=READ_BYTES))

    async def stop(self) -> None:
        """Ends all connections and listens no longer."""
        for server in self._servers:
            server.close()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        if len(self._tasks) >= CONNECTIONS_MAX:
            # Before it is known who calls: many who say nothing must not use up what the node may open.
            writer.transport.abort()
            return
        self._tasks.add(task)
        try:
            path = await self._handshake(reader, writer)
            if path is None:
                return
            remote = _remote_of(writer)
            connection = Connection(
                reader,
                writer,
                self._bytes_max,
                is_client=False,
                remote=remote,
                path=path,
                first_bytes_max=self._first_bytes_max,
            )
            try:
                await self._handler(connection)
            finally:
                connection.terminate()
        except (OSError, asyncio.CancelledError):
            return
        except Exception:
            _log.exception("a connection failed")
        finally:
            self._tasks.discard(task)
            writer.close()

    async def _handshake(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> str | None:
        try:
            async with asyncio.timeout(HANDSHAKE_SECONDS_MAX):
                line, headers = await _read_head(reader)
        except (TimeoutError, ValueError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            return None
        words = line.split(" ")
        key = headers.get("sec-websocket-key", "")
        if (
            len(words) != 3
            or words[0] != "GET"
            or "websocket" not in headers.get("upgrade", "").lower()
            or headers.get("sec-websocket-version") != "13"
            or not key
        ):
            writer.write(b"HTTP/1.1 426 Upgrade Required\r\nUpgrade: websocket\r\nContent-Length: 0\r\n\r\n")
            return None
        answer = (
            "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            f"Sec-WebSocket-Accept: {_accept_of(key)}\r\n\r\n"
        )
        writer.write(answer.encode("ascii"))
        return words[1]


async def connect(
    url: str,
    *,
    message_bytes_max: int,
    seconds_max: float = HANDSHAKE_SECONDS_MAX,
    first_bytes_max: int | None = None,
) -> Connection:
    """A connection to a ws:// address."""
    parts = urlsplit(url)
    try:
        host, port = parts.hostname, parts.port or 80
    except ValueError:
        host, port = None, 0
    if parts.scheme != "ws" or not host:
        raise ConnectFailed(url=url, reason="it is no ws:// address")
    try:
        async with asyncio.timeout(seconds_max):
            reader, writer = await asyncio.open_connection(host, port, limit=READ_BYTES)
            try:
                key = base64.b64encode(os.urandom(16)).decode("ascii")
                request = (
                    f"GET {parts.path or '/'} HTTP/1.1\r\nHost: {parts.netloc}\r\nUpgrade: websocket\r\n"
                    f"Connection: Upgrade\r\nSec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13\r\n\r\n"
                )
                writer.write(request.encode("ascii"))
                line, headers = await _read_head(reader)
            except BaseException:
                writer.close()
                raise
    except (
        OSError,
        TimeoutError,
        ValueError,
        asyncio.IncompleteReadError,
        asyncio.LimitOverrunError,
    ) as error:
        raise ConnectFailed(url=url, reason=str(error) or type(error).__name__) from None
    accepted = headers.get("sec-websocket-accept", "")
    if line.split(" ")[1:2] != ["101"] or not hmac.compare_digest(
        accepted.encode(), _accept_of(key).encode()
    ):
        writer.close()
        raise ConnectFailed(url=url, reason="what listens there speaks no WebSocket")
    return Connection(
        reader,
        writer,
        message_bytes_max,
        is_client=True,
        remote=f"ws://{host}:{port}",
        path=parts.path,
        first_bytes_max=first_bytes_max,
    )


def listening_sockets(
    hosts: Sequence[str], port: int, *, is_first_needed: bool = True
) -> list[socket.socket]:
    """Listening sockets for one port at several addresses; the first must be there, others need not exist here."""
    sockets: list[socket.socket] = []
    for host in hosts:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        try:
            listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
        except OSError:
            # A machine without this family of addresses.
            continue
        try:
            if family == socket.AF_INET6:
                listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind((host, port))
            listener.listen(128)
        except OSError as error:
            listener.close()
            if sockets or not is_first_needed:
                continue
            raise PortInUse(
                host=host,
                port=port,
                reason=str(error),
                remedy="Set another port in the environment, or stop what listens there.",
            ) from error
        listener.setblocking(False)
        sockets.append(listener)
    return sockets


async def _read_head(reader: asyncio.StreamReader) -> tuple[str, dict[str, str]]:
    raw = await reader.readuntil(b"\r\n\r\n")
    if len(raw) > HANDSHAKE_BYTES_MAX:
        raise ValueError("the head is too long")
    line, *rest = raw.decode("latin-1").split("\r\n")
    headers: dict[str, str] = {}
    for entry in rest:
        name, _, value = entry.partition(":")
        if name:
            headers[name.strip().lower()] = value.strip()
    return line, headers


def _accept_of(key: str) -> str:
    return base64.b64encode(
        hashlib.sha1(key.encode("latin-1") + _GUID, usedforsecurity=False).digest()
    ).decode()


def _remote_of(writer: asyncio.StreamWriter) -> str:
    peer = writer.get_extra_info("peername")
    return f"{peer[0]}:{peer[1]}" if isinstance(peer, tuple) else ""
