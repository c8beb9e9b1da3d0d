"""Speaks HTTP/1.1 with a program that listens on $PORT inside its own empty network.

The guest inside connects and hands the socket out, so requests travel without a relay. Whoever made these bytes and
these sockets may be hostile: heads and bodies are bounded, and no read or write here ever waits in the kernel, because
the other end could switch a shared socket back to blocking.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import socket
from collections.abc import Callable
from dataclasses import replace
from typing import Any, Final

from openresource.sandbox.doorways import Broken, Doorway, Ended
from openresource.sandbox.driver import (
    JSON_TYPE,
    LINES_TYPE,
    OutputTooLarge,
    ProgramCall,
    ProgramCrashed,
    ProgramDidNotStart,
    ProgramError,
    ProgramFailed,
    ProgramRefused,
)
from openresource.sandbox.openapi import DOCUMENT_BYTES_MAX, read_openapi
from openresource.sandbox.requests import Outgoing, Requests, wrapped
from openresource.sandbox.tickets import Ticket

HEAD_BYTES_MAX: Final = 32 << 10
CHUNK_LINE_BYTES_MAX: Final = 1 << 10
INTERIM_ANSWERS_MAX: Final = 8
REFUSAL_BYTES_MAX: Final = 16 << 10
READ_BYTES: Final = 1 << 18
IDLE_CONNECTIONS_MAX: Final = 8
HEALTH_PAUSE_SECONDS: Final = 0.02
DOCUMENT_SECONDS_MAX: Final = 10.0
# How soon the kernel closes what waits at the port of a program that ends, and how often to look again.
ENDING_SECONDS_MAX: Final = 2.0
BROKEN_LOOKS_MAX: Final = 3
MESSAGE_CHARACTERS_MAX: Final = 2_000
# By which a program asks the broker for the call that it works on.
SECRET_HEADER: Final = "OpenResource-Call"
STREAM_TYPES: Final = ("text/event-stream", LINES_TYPE)

_TARGET = re.compile(r"/[!-~]{0,8191}")
_CONTENT_TYPE = re.compile(r"[ -~]{0,255}")
_METHOD = re.compile(r"[A-Z]{1,16}")
_STATUS_LINE = re.compile(rb"HTTP/1\.([01]) ([1-5][0-9]{2})(?: |$)")


class Connection:
    """One TCP connection into the program's network."""

    def __init__(self, connection: socket.socket) -> None:
        self._socket = connection
        self._descriptor = connection.fileno()
        self._loop = asyncio.get_running_loop()
        self._waiter: asyncio.Future[None] | None = None
        self.buffer = bytearray()
        self.is_fresh = True

    async def send(self, data: bytes) -> None:
        """All of it."""
        rest = memoryview(data)
        while rest:
            try:
                rest = rest[self._socket.send(rest, socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL) :]
            except BlockingIOError:
                await self._wait(self._loop.add_writer, self._loop.remove_writer)
            except OSError as problem:
                raise Broken(problem.strerror or "broken") from None

    async def more(self) -> bool:
        """Read into the buffer; false at the end."""
        while True:
            try:
                data = self._socket.recv(READ_BYTES, socket.MSG_DONTWAIT)
            except BlockingIOError:
                await self._wait(self._loop.add_reader, self._loop.remove_reader)
                continue
            except OSError as problem:
                raise Broken(problem.strerror or "broken") from None
            with contextlib.suppress(OSError):
                # Programs that write head and body apart would otherwise wait 40 ms for our acknowledgement.
                self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)
            self.buffer += data
            return bool(data)

    def is_usable(self) -> bool:
        """Whether an idle connection is still open and silent."""
        try:
            self._socket.recv(1, socket.MSG_DONTWAIT | socket.MSG_PEEK)
        except BlockingIOError:
            return not self.buffer
        except OSError:
            return False
        return False

    def close(self) -> None:
        """Hang up."""
        self._socket.close()

    async def _wait(self, add: Callable[..., Any], remove: Callable[[int], Any]) -> None:
        waiter: asyncio.Future[None] = self._loop.create_future()
        add(self._descriptor, _wake, waiter)
        try:
            await waiter
        finally:
            remove(self._descriptor)


class HttpChannel:
    """Connections to one HTTP program."""

    def __init__(
        self,
        control: socket.socket,
        output_bytes_max: int,
        port: int,
        health: str,
        streaming: frozenset[str],
        requests: Requests,
        on_lost: Callable[[], None],
        on_fault: Callable[[ProgramError], None],
    ) -> None:
        self._bytes_max = output_bytes_max
        self._port = port
        self._health = health
        self._streaming = streaming
        self._requests = requests
        # What a starting program is asked for that it may not expect.
        self.asked_for = ""
        self._on_fault = on_fault
        self._loop = asyncio.get_running_loop()
        self._doorway = Doorway(control, on_lost, on_fault)
        self._idle: list[Connection] = []
        self._exchanges: dict[int, asyncio.Task[None]] = {}

    async def ready(self) -> dict[str, Any]:
        """Wait until the program's port answers, and its health path too where it has one."""
        await self._doorway.listening()
        while self._health and not await self._is_healthy():
            await asyncio.sleep(HEALTH_PAUSE_SECONDS)
        if not self._requests.document_path:
            return {}
        self.asked_for = self._requests.document_path
        document = await self._document()
        self.asked_for = ""
        methods, routes = read_openapi(document)
        self._requests.learn(routes)
        return {"methods": methods} if methods else {}

    def begin(self, ticket: Ticket, call: ProgramCall) -> None:
        """Start a call."""
        if (
            _TARGET.fullmatch(call.path) is None
            or _CONTENT_TYPE.fullmatch(call.content_type) is None
            or _METHOD.fullmatch(call.http_method) is None
        ):
            ticket.fail(ProgramRefused(reason="the request line holds what HTTP does not allow", status=400))
            return
        try:
            outgoing = self._requests.outgoing(call)
            if call.secret:
                outgoing = replace(outgoing, headers=(*outgoing.headers, (SECRET_HEADER, call.secret)))
        except ProgramRefused as refusal:
            ticket.fail(refusal)
            return
        if _TARGET.fullmatch(outgoing.target) is None:
            ticket.fail(ProgramRefused(reason="path and query are too long", status=400))
            return
        task = self._loop.create_task(self._exchange(ticket, call, outgoing))
        self._exchanges[ticket.number] = task
        task.add_done_callback(lambda _: self._exchanges.pop(ticket.number, None))

    def cancel(self, ticket: Ticket) -> None:
        """Hang up on the program."""
        task = self._exchanges.get(ticket.number)
        if task is not None:
            task.cancel()
        ticket.end()

    def expire(self, ticket: Ticket, error: ProgramError) -> bool:
        """Only the whole program can be ended."""
        return False

    def press(self, pressing: bool) -> None:
        """Each exchange waits for its own caller."""

    def close(self) -> None:
        """Hang up on everything."""
        for task in list(self._exchanges.values()):
            task.cancel()
        for connection in self._idle:
            connection.close()
        self._idle.clear()
        self._doorway.close()

    async def _exchange(self, ticket: Ticket, call: ProgramCall, outgoing: Outgoing) -> None:
        try:
            connection = await self._request(outgoing)
            try:
                await self._respond(ticket, call, outgoing, connection)
            except BaseException:
                connection.close()
                raise
        except Ended as problem:
            ticket.fail(ProgramCrashed(reason=str(problem), stderr=""))
        except Broken as problem:
            ticket.fail(ProgramFailed(reason=f"its HTTP answer broke off ({problem})"))

    async def _request(self, outgoing: Outgoing) -> Connection:
        """A connection on which the request was sent and an answer has begun."""
        given = {name.lower() for name, _ in outgoing.headers}
        lines = [
            f"{outgoing.verb} {outgoing.target} HTTP/1.1",
            f"Host: 127.0.0.1:{self._port}",
            *([] if "accept" in given else ["Accept: */*"]),
            *(f"{name}: {value}" for name, value in outgoing.headers),
            f"Content-Length: {len(outgoing.body)}",
        ]
        data = ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1") + outgoing.body
        while True:
            connection = await self._connection()
            try:
                await connection.send(data)
                if await connection.more():
                    return connection
                raise Broken("no answer")
            except Broken:
                connection.close()
                # An idle connection may be closed by the program at the very moment we use it.
                if connection.is_fresh:
                    raise
            except BaseException:
                connection.close()
                raise

    async def _respond(
        self, ticket: Ticket, call: ProgramCall, outgoing: Outgoing, connection: Connection
    ) -> None:
        status, headers, keeps = await _head(connection)
        content_type = headers.get(b"content-type", b"application/octet-stream").decode("latin-1")[:255]
        plain_type = content_type.partition(";")[0].strip().lower()
        is_answer = status < 300 or outgoing.wraps
        streams = (
            is_answer
            and not outgoing.wraps
            and (call.method in self._streaming or plain_type in STREAM_TYPES)
        )
        lines = Lines() if streams and plain_type == LINES_TYPE else None
        if lines is not None:
            content_type = LINES_TYPE
        if streams:
            ticket.begin_stream(status, content_type)
        body = bytearray()
        bytes_max = self._bytes_max if is_answer else REFUSAL_BYTES_MAX
        async for part in _body(connection, status, headers, outgoing.verb):
            if lines is not None:
                if lines.size + len(part) > bytes_max:
                    self._on_fault(OutputTooLarge(what="answer", bytes_max=bytes_max))
                    return
                for line in lines.take(part):
                    ticket.chunk(line)
                await ticket.drained()
            elif streams:
                ticket.chunk(part)
                await ticket.drained()
            else:
                body += part
                if len(body) > bytes_max:
                    if not is_answer:
                        keeps = False
                        break
                    self._on_fault(OutputTooLarge(what="answer", bytes_max=bytes_max))
                    return
        if (
            keeps
            and not connection.buffer
            and len(self._idle) < IDLE_CONNECTIONS_MAX
            and self._doorway.is_open
        ):
            connection.is_fresh = False
            self._idle.append(connection)
        else:
            connection.close()
        if streams:
            for line in lines.rest() if lines is not None else ():
                ticket.chunk(line)
            ticket.end()
        elif outgoing.wraps:
            ticket.answer(200, JSON_TYPE, wrapped(status, headers, bytes(body)))
        elif status < 300:
            ticket.answer(status, content_type, bytes(body))
        elif 400 <= status < 500:
            ticket.fail(ProgramRefused(reason=_message(body, status), status=status))
        else:
            ticket.fail(ProgramFailed(reason=f"HTTP {status}: {_message(body, status)}", status=status))

    async def _connection(self) -> Connection:
        while self._idle:
            connection = self._idle.pop()
            if connection.is_usable():
                return connection
            connection.close()
        return Connection(await self._doorway.connect())

    async def _is_healthy(self) -> bool:
        try:
            connection = await self._request(Outgoing("GET", self._health, (), b""))
        except Broken:
            return False
        try:
            return (await _head(connection))[0] < 300
        except Broken:
            return False
        finally:
            connection.close()

    async def _document(self) -> bytes:
        """The program's OpenAPI document, or nothing where it has none or takes too long over it."""
        try:
            async with asyncio.timeout(DOCUMENT_SECONDS_MAX):
                connection = await self._request(Outgoing("GET", self._requests.document_path, (), b""))
                try:
                    status, headers, _ = await _head(connection)
                    body = bytearray()
                    async for part in _body(connection, status, headers, "GET"):
                        body += part
                        if status != 200 or len(body) > DOCUMENT_BYTES_MAX:
                            return b""
                    return bytes(body)
                finally:
                    connection.close()
        except TimeoutError:
            return b""
        except Broken:
            pass
        # A server that cannot bear a request which it does not expect must not be started again and again.
        if not await self._still_listens():
            raise ProgramDidNotStart(reason="it ended", stderr="")
        return b""

    async def _still_listens(self) -> bool:
        """Whether the program lives after it broke a connection; the port of one that is just ending still opens."""
        for _ in range(BROKEN_LOOKS_MAX):
            try:
                connection = Connection(await self._doorway.connect())
            except Broken:
                return False
            try:
                async with asyncio.timeout(ENDING_SECONDS_MAX):
                    await connection.more()
            except TimeoutError:
                # It waits for a request, as a server does.
                return True
            except Broken:
                pass
            finally:
                connection.close()
        return True


class Lines:
    """The lines of a body, each one whole, as others take a chunk of them for one value; empty ones say nothing."""

    def __init__(self) -> None:
        self._begun: list[bytes] = []
        self.size = 0

    def take(self, part: bytes) -> list[bytes]:
        """The lines that end in a part, which may be cut anywhere."""
        first, *following = part.split(b"\n")
        if not following:
            self._begun.append(part)
            self.size += len(part)
            return []
        *whole, begun = b"".join((*self._begun, first)), *following
        self._begun, self.size = [begun], len(begun)
        return [line + b"\n" for line in whole if line.strip()]

    def rest(self) -> list[bytes]:
        """The last line, where the program did not end it."""
        return self.take(b"\n")


async def _head(connection: Connection) -> tuple[int, dict[bytes, bytes], bool]:
    """Status, headers (the last of a name counts) and whether the connection may be used again."""
    # Interim answers that never end would keep everybody else's calls from being looked at.
    for _ in range(INTERIM_ANSWERS_MAX + 1):
        while True:
            end = connection.buffer.find(b"\r\n\r\n")
            if end >= 0:
                break
            if len(connection.buffer) > HEAD_BYTES_MAX or not await connection.more():
                raise Broken("no HTTP head")
        lines = bytes(connection.buffer[:end]).split(b"\r\n")
        del connection.buffer[: end + 4]
        match = _STATUS_LINE.match(lines[0])
        if match is None:
            raise Broken("no HTTP status line")
        headers: dict[bytes, bytes] = {}
        for line in lines[1:]:
            name, colon, value = line.partition(b":")
            if not colon:
                raise Broken("a header line without a colon")
            headers[name.strip().lower()] = value.strip()
        status = int(match[2])
        if status >= 200:
            wish = headers.get(b"connection", b"").lower()
            return status, headers, b"close" not in wish and (match[1] == b"1" or b"keep-alive" in wish)
    raise Broken(f"more than {INTERIM_ANSWERS_MAX} interim answers")


async def _body(connection: Connection, status: int, headers: dict[bytes, bytes], method: str) -> Any:
    """The parts of a body as they come."""
    if method == "HEAD" or status in (204, 304):
        return
    buffer = connection.buffer
    if headers.get(b"transfer-encoding", b"").lower().endswith(b"chunked"):
        async for part in _chunks(connection):
            yield part
        return
    length = headers.get(b"content-length")
    if length is not None and not re.fullmatch(rb"[0-9]{1,15}", length):
        raise Broken("no readable content-length")
    rest = None if length is None else int(length)
    while rest is None or rest > 0:
        if not buffer and not await connection.more():
            if rest is None:
                return
            raise Broken("the body is short")
        part = bytes(buffer if rest is None else buffer[:rest])
        del buffer[: len(part)]
        rest = None if rest is None else rest - len(part)
        yield part


async def _chunks(connection: Connection) -> Any:
    buffer = connection.buffer
    while True:
        while (end := buffer.find(b"\r\n")) < 0:
            if len(buffer) > CHUNK_LINE_BYTES_MAX or not await connection.more():
                raise Broken("the chunk has no size")
        size_text = bytes(buffer[:end]).partition(b";")[0].strip()
        if not re.fullmatch(rb"[0-9A-Fa-f]{1,12}", size_text):
            raise Broken("the chunk's size is unreadable")
        rest = int(size_text, 16)
        del buffer[: end + 2]
        is_last = rest == 0
        while rest > 0:
            if not buffer and not await connection.more():
                raise Broken("the chunk is short")
            part = bytes(buffer[:rest])
            del buffer[: len(part)]
            rest -= len(part)
            yield part
        while (end := buffer.find(b"\r\n")) < 0:
            if len(buffer) > HEAD_BYTES_MAX or not await connection.more():
                raise Broken("the chunk has no end")
        if not is_last:
            del buffer[: end + 2]
            continue
        # Trailers end with an empty line.
        while end > 0:
            del buffer[: end + 2]
            while (end := buffer.find(b"\r\n")) < 0:
                if len(buffer) > HEAD_BYTES_MAX or not await connection.more():
                    raise Broken("the body has no end")
        del buffer[:2]
        return


def _wake(waiter: asyncio.Future[None]) -> None:
    if not waiter.done():
        waiter.set_result(None)


def _message(body: bytearray, status: int) -> str:
    """What a program's error page says, in a line."""
    text = bytes(body).decode("utf-8", "replace").strip()
    try:
        value = json.loads(text)
        while isinstance(value, dict):
            value = value.get("message") or value.get("error") or value.get("detail") or ""
        text = str(value) or text
    except (ValueError, RecursionError):
        text = re.sub(r"<[^>]{0,200}>", " ", text)
    return " ".join(text.split())[:MESSAGE_CHARACTERS_MAX] or f"status {status}"
