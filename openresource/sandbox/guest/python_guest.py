"""Runs inside the sandbox: loads a typed Python function or class and answers the calls that come over one socket.

Frames both ways: length of the payload (4 bytes), number of the call (4), kind (1), payload. Standard output of the
program goes to standard error, so that a `print` disturbs nobody.
"""

import importlib
import inspect
import json
import os
import queue
import select
import socket
import struct
import sys
import threading
import traceback
from typing import Any

HEADER = struct.Struct(">IIB")
CALL, CALL_RAW, CANCEL = 1, 2, 3
READY, ANSWER, CHUNK, END, REFUSED, FAILED, BROKEN = 10, 11, 12, 13, 14, 15, 16
MESSAGE_CHARACTERS_MAX = 2_000
READ_BYTES = 1 << 18


class Guest:
    """The program and the socket that its calls come from."""

    def __init__(self, connection: socket.socket, app: str) -> None:
        self.connection = connection
        self.app = app
        self.methods: dict[str, Any] = {}
        self.buffer = bytearray()
        self.waiting: list[tuple[int, int, bytes]] = []
        self.cancelled: set[int] = set()
        self.write_lock = threading.Lock()
        self.local = threading.local()

    def send(self, number: int, kind: int, payload: bytes) -> None:
        """One frame out, whole."""
        head = HEADER.pack(len(payload), number, kind)
        with self.write_lock:
            if len(payload) < READ_BYTES:
                self.connection.sendall(head + payload)
            else:
                self.connection.sendall(head)
                self.connection.sendall(payload)

    def frames(self) -> None:
        """Read once and take out what is complete."""
        data = self.connection.recv(READ_BYTES)
        if not data:
            os._exit(0)
        self.buffer += data
        while len(self.buffer) >= HEADER.size:
            length, number, kind = HEADER.unpack_from(self.buffer)
            end = HEADER.size + length
            if len(self.buffer) < end:
                # A large body: read the rest straight into its place.
                self.fill(end)
            payload = bytes(memoryview(self.buffer)[HEADER.size : end])
            del self.buffer[:end]
            if kind == CANCEL:
                self.cancelled.add(number)
            else:
                self.waiting.append((number, kind, payload))

    def fill(self, size: int) -> None:
        """Grow the buffer to a size known beforehand."""
        have = len(self.buffer)
        self.buffer.extend(bytes(size - have))
        with memoryview(self.buffer) as view:
            while have < size:
                count = self.connection.recv_into(view[have:size])
                if count == 0:
                    os._exit(0)
                have += count

    def serve(self, concurrency: int) -> None:
        """Answer calls until the other side hangs up."""
        work: Any = None
        if concurrency > 1:
            work = queue.SimpleQueue()
            for _ in range(concurrency):
                threading.Thread(target=self.work_from, args=(work,), daemon=True).start()
        while True:
            while self.waiting:
                call = self.waiting.pop(0)
                if work is None:
                    self.answer(*call)
                else:
                    work.put(call)
            self.frames()

    def work_from(self, work: Any) -> None:
        """A thread's life."""
        while True:
            self.answer(*work.get())

    def answer(self, number: int, kind: int, payload: bytes) -> None:
        """One call; whatever happens in it becomes a frame."""
        try:
            size = payload[0]
            method = self.methods.get(payload[1 : 1 + size].decode())
            if method is None:
                raise describing.BadInput("there is no such method; there are " + ", ".join(self.methods))
            body = payload[1 + size :]
            arguments = method.raw_argument(body) if kind == CALL_RAW else method.arguments(parsed(body))
            result = method.function(**arguments)
            if inspect.isasyncgen(result):
                self.stream(number, self.from_async(result), result)
            elif inspect.isgenerator(result):
                self.stream(number, result, result)
            else:
                if inspect.isawaitable(result):
                    result = self.loop().run_until_complete(result)
                self.send(number, ANSWER, dumped(result))
        except BrokenPipeError:
            os._exit(0)
        except BaseException as problem:
            self.report(number, problem)
        self.cancelled.discard(number)

    def stream(self, number: int, chunks: Any, generator: Any) -> None:
        """Yielded values, one frame each, until the end or until nobody listens."""
        try:
            for chunk in chunks:
                if self.is_cancelled(number):
                    break
                self.send(number, CHUNK, dumped(chunk))
                if self.is_cancelled(number):
                    break
        finally:
            if inspect.isgenerator(generator):
                generator.close()
            else:
                self.loop().run_until_complete(generator.aclose())
        self.send(number, END, b"")

    def from_async(self, generator: Any) -> Any:
        """An asynchronous generator as a plain one."""
        loop = self.loop()
        while True:
            try:
                yield loop.run_until_complete(generator.__anext__())
            except StopAsyncIteration:
                return

    def is_cancelled(self, number: int) -> Any:
        """Whether the caller has gone; with one thread nobody else reads the socket meanwhile."""
        if (
            threading.current_thread() is threading.main_thread()
            and select.select([self.connection], [], [], 0)[0]
        ):
            self.frames()
        return number in self.cancelled

    def loop(self) -> Any:
        """This thread's event loop."""
        if not hasattr(self.local, "loop"):
            # Half of the time that our own imports take, and most programs are not asynchronous.
            import asyncio

            self.local.loop = asyncio.new_event_loop()
            asyncio.set_event_loop(self.local.loop)
        return self.local.loop

    def report(self, number: int, problem: BaseException) -> None:
        """An exception as a frame: the caller's fault, the program's own no, or its failure."""
        status = getattr(problem, "status", None)
        if isinstance(problem, describing.BadInput):
            self.send(number, REFUSED, self.described(problem, 400, "the input does not fit: "))
        elif isinstance(status, int) and 400 <= status <= 499:
            self.send(number, REFUSED, self.described(problem, status, ""))
        elif isinstance(problem, ValueError):
            self.send(number, REFUSED, self.described(problem, 400, ""))
        else:
            traceback.print_exception(problem, file=sys.stderr)
            if isinstance(problem, SystemExit):
                os._exit(problem.code if isinstance(problem.code, int) else 1)
            self.send(number, FAILED, self.described(problem, 500, ""))

    def described(self, problem: BaseException, status: int, before: str) -> Any:
        """An exception as JSON, without this machine's paths."""
        message = f"{before}{problem}".replace(self.app, "/app")[:MESSAGE_CHARACTERS_MAX]
        return json.dumps({"status": status, "type": type(problem).__name__, "message": message}).encode()


def parsed(body: bytes) -> Any:
    """The JSON of a body; an empty body is an empty object."""
    if not body:
        return {}
    try:
        return json.loads(body)
    except (ValueError, RecursionError) as problem:
        raise describing.BadInput(f"it is not JSON ({problem})") from None


def dumped(value: Any) -> Any:
    """A value as JSON bytes."""
    return json.dumps(value, default=describing.to_json, ensure_ascii=False, separators=(",", ":")).encode(
        "utf-8", "backslashreplace"
    )


def load(entry: str) -> Any:
    """The function, or an object of the class, that `module:name` names, set up."""
    module_name, _, name = entry.partition(":")
    found = getattr(importlib.import_module(module_name), name, None)
    if found is None:
        raise AttributeError(f"{module_name} has no {name}")
    if inspect.isclass(found):
        found = found()
    setup = getattr(found, "setup", None)
    if callable(setup) and not inspect.isroutine(found):
        setup()
    return found


def main() -> None:
    """Take the socket out of the program's sight, load it, say that it is ready, serve."""
    options = json.loads(sys.argv[1])
    # `-S` left this out; packages of a runtime need it for their .pth files.
    import site

    connection = socket.socket(fileno=os.dup(0))
    null = os.open("/dev/null", os.O_RDWR)
    os.dup2(null, 0)
    os.dup2(2, 1)
    os.close(null)
    sys.argv = [options["entry"]]
    guest = Guest(connection, options["app"])
    sys.path.insert(0, options["app"])
    if options["packages"]:
        site.addsitedir(options["packages"])
    sys.path.append(options["modules"])
    try:
        guest.methods = describing.methods_of(load(options["entry"]))
        interface = {"methods": [method.describe() for method in guest.methods.values()]}
    except BaseException as problem:
        traceback.print_exception(problem, file=sys.stderr)
        guest.send(0, BROKEN, guest.described(problem, 500, ""))
        sys.stderr.flush()
        os._exit(1)
    guest.send(0, READY, dumped(interface))
    guest.serve(options["concurrency"])


if __name__ == "__main__":
    # `-I` keeps the program's folder out of the search path while our own module is loaded.
    sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
    import openresource_describing as describing  # type: ignore[import-not-found]

    del sys.path[0]
    main()
