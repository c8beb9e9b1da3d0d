"""Serves an ASGI or WSGI application on $PORT, for programs that bring an application and no server.

`python -m openresource_serving module:application`, or `module:make()` for a function that makes one. HTTP/1.1 with
kept connections and streamed answers; no web sockets, no TLS: whoever calls is on the other side of a sandbox.
"""

import asyncio
import concurrent.futures
import contextlib
import importlib
import inspect
import io
import os
import sys
import traceback
import typing
import urllib.parse

HEAD_BYTES_MAX = 64 << 10
BODY_BYTES_MAX = 64 << 20
THREADS = 8
STARTUP_SECONDS = 50.0
NO_BODY = (204, 304)
REASONS = {200: "OK", 201: "Created", 204: "No Content", 301: "Moved Permanently", 302: "Found", 304: "Not Modified",
           400: "Bad Request", 404: "Not Found", 405: "Method Not Allowed", 422: "Unprocessable Entity",
           500: "Internal Server Error"}  # fmt: skip


class BadRequest(Exception):
    """What came is no request that is understood here."""


class Request:
    """One request, read whole."""

    def __init__(self, method: str, target: str, headers: list[tuple[bytes, bytes]], body: bytes) -> None:
        self.method, self.headers, self.body = method, headers, body
        path, _, query = target.partition("?")
        self.raw_path, self.query = path, query
        self.path = urllib.parse.unquote(path)

    def header(self, name: bytes) -> bytes:
        """The first header of a name."""
        return next((value for key, value in self.headers if key == name), b"")


class Answer:
    """Writes one answer; the body goes out in chunks unless its length is known before."""

    def __init__(self, writer: asyncio.StreamWriter, request: Request) -> None:
        self.writer, self.request = writer, request
        self.has_begun = self.is_chunked = self.has_body = False

    async def begin(self, status: int, headers: typing.Iterable[tuple[bytes, bytes]]) -> None:
        """Status and headers."""
        self.has_begun = True
        given = [(key.lower(), value) for key, value in headers]
        given = [pair for pair in given if pair[0] not in (b"connection", b"transfer-encoding")]
        self.has_body = status not in NO_BODY and self.request.method != "HEAD"
        self.is_chunked = self.has_body and not any(key == b"content-length" for key, _ in given)
        if self.is_chunked:
            given.append((b"transfer-encoding", b"chunked"))
        lines = [b"HTTP/1.1 %d %s" % (status, REASONS.get(status, "Status").encode())]
        lines += [key + b": " + value for key, value in given]
        self.writer.write(b"\r\n".join(lines) + b"\r\n\r\n")

    async def part(self, data: bytes) -> None:
        """A piece of the body."""
        if data and self.has_body:
            self.writer.write(b"%x\r\n%s\r\n" % (len(data), data) if self.is_chunked else data)
            await self.writer.drain()

    async def end(self) -> None:
        """Nothing follows."""
        if self.is_chunked:
            self.writer.write(b"0\r\n\r\n")
        await self.writer.drain()


class Server:
    """One application and its connections."""

    def __init__(self, application: typing.Any, is_wsgi: bool) -> None:
        self.application, self.is_wsgi = application, is_wsgi
        self.pool = concurrent.futures.ThreadPoolExecutor(THREADS)
        self.state: dict[str, typing.Any] = {}

    async def connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer one request after another."""
        try:
            while (request := await read_request(reader)) is not None:
                answer = Answer(writer, request)
                try:
                    await (self.wsgi if self.is_wsgi else self.asgi)(request, answer)
                except (ConnectionError, asyncio.CancelledError):
                    raise
                except Exception:
                    traceback.print_exc()
                    if answer.has_begun:
                        return
                    await answer.begin(500, [(b"content-type", b"text/plain"), (b"content-length", b"21")])
                    await answer.part(b"Internal Server Error")
                await answer.end()
                if request.header(b"connection").lower() == b"close":
                    return
        except BadRequest as problem:
            text = str(problem).encode()
            writer.write(
                b"HTTP/1.1 400 Bad Request\r\nconnection: close\r\ncontent-length: %d\r\n\r\n" % len(text)
                + text
            )
        except (ConnectionError, asyncio.IncompleteReadError):
            return
        finally:
            with contextlib.suppress(ConnectionError):
                writer.close()

    async def asgi(self, request: Request, answer: Answer) -> None:
        """One call of an ASGI application."""
        messages = [{"type": "http.request", "body": request.body, "more_body": False}]
        gone = asyncio.Event()

        async def receive() -> typing.Any:
            if messages:
                return messages.pop()
            await gone.wait()
            return {"type": "http.disconnect"}

        async def send(message: typing.Any) -> None:
            if message["type"] == "http.response.start":
                headers = [(bytes(key), bytes(value)) for key, value in message.get("headers", ())]
                await answer.begin(message["status"], headers)
            elif message["type"] == "http.response.body":
                await answer.part(bytes(message.get("body", b"")))

        scope = {
            "type": "http", "asgi": {"version": "3.0", "spec_version": "2.3"}, "http_version": "1.1",
            "method": request.method, "scheme": "http", "path": request.path, "raw_path": request.raw_path.encode(),
            "query_string": request.query.encode(), "root_path": "", "headers": request.headers,
            "client": ("127.0.0.1", 0), "server": ("127.0.0.1", port()), "state": dict(self.state),
        }  # fmt: skip
        try:
            await self.application(scope, receive, send)
        finally:
            gone.set()

    async def wsgi(self, request: Request, answer: Answer) -> None:
        """One call of a WSGI application, in a thread of its own."""
        loop = asyncio.get_running_loop()

        def work() -> None:
            started: list[typing.Any] = []

            def start(status: str, headers: typing.Any, problem: typing.Any = None) -> typing.Any:
                started[:] = [int(status.split()[0]), headers]
                return forward

            def forward(data: bytes) -> None:
                if not answer.has_begun:
                    raw = [(key.encode("latin-1"), value.encode("latin-1")) for key, value in started[1]]
                    asyncio.run_coroutine_threadsafe(answer.begin(started[0], raw), loop).result()
                if data:
                    asyncio.run_coroutine_threadsafe(answer.part(data), loop).result()

            result = self.application(wsgi_environment(request), start)
            try:
                for data in result:
                    forward(data)
                if not answer.has_begun:
                    forward(b"")
            finally:
                close = getattr(result, "close", None)
                if close is not None:
                    close()

        await loop.run_in_executor(self.pool, work)

    async def start(self) -> None:
        """Tell an ASGI application that it starts, as far as it listens."""
        if self.is_wsgi:
            return
        loop = asyncio.get_running_loop()
        ready: asyncio.Future[str] = loop.create_future()
        asked: asyncio.Queue[typing.Any] = asyncio.Queue()
        asked.put_nowait({"type": "lifespan.startup"})

        async def send(message: typing.Any) -> None:
            if message["type"].startswith("lifespan.startup") and not ready.done():
                failed = message["type"].endswith("failed")
                ready.set_result(str(message.get("message") or "it failed") if failed else "")

        async def live() -> None:
            scope = {
                "type": "lifespan",
                "asgi": {"version": "3.0", "spec_version": "2.0"},
                "state": self.state,
            }
            try:
                await self.application(scope, asked.get, send)
            finally:
                # An application without a life cycle raises here, and serves all the same.
                if not ready.done():
                    ready.set_result("")

        self.life = loop.create_task(live())
        problem = await asyncio.wait_for(ready, STARTUP_SECONDS)
        if problem:
            raise SystemExit(f"the application did not start: {problem}")


async def read_request(reader: asyncio.StreamReader) -> typing.Any:
    """The next request of a connection, or None at its end."""
    try:
        head = await reader.readuntil(b"\r\n\r\n")
    except asyncio.IncompleteReadError:
        return None
    except asyncio.LimitOverrunError:
        raise BadRequest("the head is too long") from None
    line, *rest = head[:-4].split(b"\r\n")
    words = line.decode("latin-1").split(" ")
    if len(words) != 3 or not words[2].startswith("HTTP/1."):
        raise BadRequest("that is not HTTP/1.1")
    headers = []
    for entry in rest:
        key, separator, value = entry.partition(b":")
        if not separator:
            raise BadRequest("a header has no colon")
        headers.append((key.strip().lower(), value.strip()))
    found = dict(headers)
    if found.get(b"transfer-encoding", b"").lower() == b"chunked":
        body = await read_chunks(reader)
    else:
        length = found.get(b"content-length", b"0")
        if not length.isdigit() or int(length) > BODY_BYTES_MAX:
            raise BadRequest("the body is too long")
        body = await reader.readexactly(int(length))
    return Request(words[0], words[1], headers, body)


async def read_chunks(reader: asyncio.StreamReader) -> bytes:
    """A body that comes in chunks."""
    body = bytearray()
    while True:
        line = await reader.readuntil(b"\r\n")
        try:
            size = int(line.partition(b";")[0], 16)
        except ValueError:
            raise BadRequest("a chunk has no size") from None
        if not 0 <= size <= BODY_BYTES_MAX - len(body):
            raise BadRequest("the body is too long")
        if size == 0:
            while await reader.readuntil(b"\r\n") != b"\r\n":
                continue
            return bytes(body)
        body += await reader.readexactly(size)
        await reader.readexactly(2)


def wsgi_environment(request: Request) -> dict[str, typing.Any]:
    """A request as WSGI writes it."""
    values: dict[str, typing.Any] = {
        "REQUEST_METHOD": request.method, "SCRIPT_NAME": "", "QUERY_STRING": request.query,
        "PATH_INFO": request.path.encode("utf-8", "surrogateescape").decode("latin-1"),
        "SERVER_NAME": "127.0.0.1", "SERVER_PORT": str(port()), "SERVER_PROTOCOL": "HTTP/1.1",
        "REMOTE_ADDR": "127.0.0.1", "CONTENT_LENGTH": str(len(request.body)), "wsgi.version": (1, 0),
        "wsgi.url_scheme": "http", "wsgi.input": io.BytesIO(request.body), "wsgi.errors": sys.stderr,
        "wsgi.multithread": True, "wsgi.multiprocess": False, "wsgi.run_once": False,
    }  # fmt: skip
    for key, value in request.headers:
        name = key.decode("latin-1").upper().replace("-", "_")
        if name == "CONTENT_TYPE":
            values[name] = value.decode("latin-1")
        elif name not in ("CONTENT_LENGTH", "TRANSFER_ENCODING"):
            values[f"HTTP_{name}"] = value.decode("latin-1")
    return values


def load(target: str) -> typing.Any:
    """The application that `module:name` or `module:make()` names."""
    module, _, name = target.partition(":")
    found: typing.Any = importlib.import_module(module)
    for part in name.removesuffix("()").split("."):
        found = getattr(found, part)
    return found() if name.endswith("()") else found


def is_wsgi(application: typing.Any) -> bool:
    """Whether an application is called with two arguments and answers at once."""
    function = application if inspect.isroutine(application) else type(application).__call__
    if inspect.iscoroutinefunction(function):
        return False
    try:
        names = [name for name in inspect.signature(function).parameters if name not in ("self", "cls")]
    except (TypeError, ValueError):
        return True
    return len(names) == 2 or not {"scope", "receive"} & set(names)


def port() -> int:
    """The port that we were told."""
    return int(os.environ["PORT"])


async def main() -> None:
    """Load, start, serve."""
    sys.path.insert(0, os.getcwd())
    application = load(sys.argv[1])
    server = Server(application, is_wsgi(application))
    await server.start()
    listening = await asyncio.start_server(
        server.connected, os.environ.get("HOST", "127.0.0.1"), port(), limit=HEAD_BYTES_MAX
    )
    async with listening:
        await listening.serve_forever()


if __name__ == "__main__":
    asyncio.run(main())
