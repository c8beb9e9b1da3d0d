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
import time
import traceback
from typing import Any

HEADER = struct.Struct(">IIB")
CALL, CALL_RAW, CANCEL, SECRET = 1, 2, 3, 4
READY, ANSWER, CHUNK, END, REFUSED, FAILED, BROKEN = 10, 11, 12, 13, 14, 15, 16
MESSAGE_CHARACTERS_MAX = 2_000
READ_BYTES = 1 << 18


class Cancelled(Exception):
    """Nobody waits for this call any more."""


class Guest:
    """The program and the socket that its calls come from."""

    def __init__(self, connection: socket.socket, app: str) -> None:
        self.connection = connection
        self.app = app
        self.methods: dict[str, Any] = {}
        self.buffer = bytearray()
        self.waiting: list[tuple[int, int, bytes]] = []
        self.open: set[int] = set()
        self.cancelled: set[int] = set()
        self.tasks: dict[int, Any] = {}
        # By which the program asks the broker for a call, and the broker's module once there was one.
        self.secrets: dict[int, str] = {}
        self.broker: Any = None
        self.batches: dict[str, Any] = {}
        self.work: Any = None
        self.write_lock = threading.Lock()
        self.local = threading.local()
        # The loop of asynchronous programs; it runs in the main thread.
        self.main_loop: Any = None

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
            if kind == SECRET:
                self.secrets[number] = payload.decode()
            elif kind != CANCEL:
                self.open.add(number)
                self.waiting.append((number, kind, payload))
            elif number in self.open:
                self.cancelled.add(number)
                if number in self.tasks:
                    self.tasks[number].cancel()

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
        if concurrency > 1:
            self.work = queue.SimpleQueue()
            for _ in range(concurrency):
                threading.Thread(target=self.work_from, args=(self.work,), daemon=True).start()
        if any(method.is_async for method in self.methods.values()):
            self.main_loop = self.loop()
            self.main_loop.add_reader(self.connection.fileno(), self.readable)
            self.readable()
            self.main_loop.run_forever()
        while True:
            self.dispatch()
            self.frames()

    def readable(self) -> None:
        """The loop of an asynchronous program has heard something."""
        while select.select([self.connection], [], [], 0)[0]:
            self.frames()
        self.dispatch()

    def dispatch(self) -> None:
        """Give each call that waits to whoever works on such calls."""
        while self.waiting:
            number, kind, payload = call = self.waiting.pop(0)
            name = payload[1 : 1 + payload[0]].decode("utf-8", "replace")
            method = self.methods.get(name)
            if name in self.batches and kind == CALL:
                self.batches[name].waiting.put(call)
            elif self.main_loop is not None and method is not None and method.is_async:
                self.tasks[number] = self.main_loop.create_task(self.answer_async(*call))
            elif self.work is not None:
                self.work.put(call)
            else:
                self.answer(*call)

    def work_from(self, work: Any) -> None:
        """A thread's life."""
        while True:
            self.answer(*work.get())

    def answer(self, number: int, kind: int, payload: bytes) -> None:
        """One call; whatever happens in it becomes a frame."""
        self.name_call(number)
        try:
            if number in self.cancelled:
                raise Cancelled("its caller has gone")
            method, arguments = self.asked(kind, payload)
            result = method.function(**arguments)
            if inspect.isasyncgen(result):
                self.stream(number, self.from_async(result), result)
            elif inspect.isgenerator(result):
                self.stream(number, result, result)
            else:
                if inspect.isawaitable(result):
                    result = self.awaited(result)
                self.send(number, ANSWER, dumped(result))
        except BrokenPipeError:
            os._exit(0)
        except BaseException as problem:
            self.report(number, problem)
        self.done(number)

    async def answer_async(self, number: int, kind: int, payload: bytes) -> None:
        """One call of an asynchronous method, beside others on the same loop; it ends when its caller goes."""
        self.name_call(number)
        try:
            method, arguments = self.asked(kind, payload)
            result = method.function(**arguments)
            if inspect.isasyncgen(result):
                try:
                    async for chunk in result:
                        self.send(number, CHUNK, dumped(chunk))
                finally:
                    await result.aclose()
                self.send(number, END, b"")
            else:
                self.send(number, ANSWER, dumped(await result))
        except BrokenPipeError:
            os._exit(0)
        except BaseException as problem:
            self.report(number, Cancelled("its caller has gone") if number in self.cancelled else problem)
        self.tasks.pop(number, None)
        self.done(number)

    def asked(self, kind: int, payload: bytes) -> Any:
        """The method that a call names, and its arguments."""
        size = payload[0]
        method = self.methods.get(payload[1 : 1 + size].decode())
        if method is None:
            raise describing.BadInput("there is no such method; there are " + ", ".join(self.methods))
        body = payload[1 + size :]
        return method, method.raw_argument(body) if kind == CALL_RAW else method.arguments(parsed(body))

    def done(self, number: int, forget: bool = True) -> None:
        """A call has its last frame."""
        if forget:
            describing.forget_files()
        self.open.discard(number)
        self.cancelled.discard(number)
        self.secrets.pop(number, None)

    def name_call(self, number: int) -> None:
        """What this thread or task asks the broker from now on, it asks for this call."""
        if self.broker is None and number in self.secrets:
            self.broker = importlib.import_module("openresource_broker")
        if self.broker is not None:
            self.broker.set_current(self.secrets.get(number, ""))

    def awaited(self, result: Any) -> Any:
        """What an awaitable gives, from whichever thread asks."""
        if self.main_loop is None:
            return self.loop().run_until_complete(result)
        if threading.current_thread() is threading.main_thread():
            raise TypeError("a method that returns an awaitable must be declared with async def")
        import asyncio

        return asyncio.run_coroutine_threadsafe(whole(result), self.main_loop).result()

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
                self.awaited(generator.aclose())
        self.send(number, END, b"")

    def from_async(self, generator: Any) -> Any:
        """An asynchronous generator as a plain one."""
        while True:
            try:
                yield self.awaited(generator.__anext__())
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
        if isinstance(problem, Cancelled):
            self.send(number, FAILED, self.described(problem, 499, ""))
        elif isinstance(problem, describing.BadInput):
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


class Batch:
    """Joins concurrent calls of one method that takes a list and gives a list: one call, its list shared out again."""

    def __init__(self, guest: Guest, method: Any, size: int, wait_ms: int) -> None:
        self.guest, self.method, self.size = guest, method, size
        self.wait_seconds = wait_ms / 1_000
        self.waiting: Any = queue.SimpleQueue()
        threading.Thread(target=self.live, daemon=True).start()

    def live(self) -> None:
        """Collect, work, share out, again."""
        while True:
            calls = [self.waiting.get()]
            until = time.monotonic() + self.wait_seconds
            while len(calls) < self.size:
                try:
                    calls.append(self.waiting.get(timeout=max(0.0, until - time.monotonic())))
                except queue.Empty:
                    break
            for group in self.groups(calls):
                self.work(group)
            describing.forget_files()

    def groups(self, calls: Any) -> Any:
        """Calls with the same other arguments; what cannot be read is answered at once."""
        groups: list[Any] = []
        for number, kind, payload in calls:
            try:
                if number in self.guest.cancelled:
                    raise Cancelled("its caller has gone")
                _, arguments = self.guest.asked(kind, payload)
                items = arguments.pop(self.method.list_parameter, None)
                if items is None:
                    raise describing.BadInput(f"{self.method.list_parameter} is missing: it is required")
            except BaseException as problem:
                self.guest.report(number, problem)
                self.guest.done(number, forget=False)
                continue
            member = (number, items)
            same = next((group for group in groups if group[0] == arguments), None)
            if same is None:
                groups.append((arguments, [member]))
            else:
                same[1].append(member)
        return groups

    def work(self, group: Any) -> None:
        """One call for several; if it fails, each alone, so that one caller's input spoils no other's."""
        arguments, members = group
        joined = [item for _, items in members for item in items]
        try:
            result = self.call(arguments, joined if len(members) > 1 else members[0][1])
            if len(members) > 1 and len(result) != len(joined):
                raise TypeError(f"a batch of {len(joined)} items gave {len(result)} results")
        except BaseException as problem:
            if len(members) > 1:
                for member in members:
                    self.work((arguments, [member]))
                return
            self.guest.report(members[0][0], problem)
            self.guest.done(members[0][0], forget=False)
            return
        begin = 0
        for number, items in members:
            end = begin + len(items)
            try:
                part = result if len(members) == 1 else result[begin:end]
                self.guest.send(number, ANSWER, dumped(part))
            except BrokenPipeError:
                os._exit(0)
            except BaseException as problem:
                self.guest.report(number, problem)
            self.guest.done(number, forget=False)
            begin = end

    def call(self, arguments: Any, items: Any) -> Any:
        """The method, whether asynchronous or not."""
        result = self.method.function(**{self.method.list_parameter: items}, **arguments)
        return self.guest.awaited(result) if inspect.isawaitable(result) else result


async def whole(awaitable: Any) -> Any:
    """Any awaitable as a coroutine."""
    return await awaitable


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


def load(entry: str, guest: Guest) -> Any:
    """The function, the module, or an object of the class, that `module:name` names, set up."""
    module_name, _, name = entry.partition(":")
    module = importlib.import_module(module_name)
    if name == "*":
        return module
    found = getattr(module, name, None)
    if found is None:
        raise AttributeError(f"{module_name} has no {name}")
    if inspect.isclass(found):
        found = found()
    setup = getattr(found, "setup", None)
    if callable(setup) and not inspect.isroutine(found):
        ready = setup()
        if inspect.isawaitable(ready):
            guest.loop().run_until_complete(ready)
    return found


def batches_of(guest: Guest, batch: Any) -> Any:
    """The methods whose concurrent calls are joined; declared batches that no method can use are a mistake."""
    if not batch:
        return {}
    found = {
        name: Batch(guest, method, *batch) for name, method in guest.methods.items() if method.list_parameter
    }
    if not found:
        raise TypeError("[run] batch is declared, but no method takes a list first and gives a list")
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
    own = [os.path.join(options["app"], part) for part in options.get("paths", "").split(":") if part]
    sys.path[:0] = [*own, options["app"]]
    if options["packages"]:
        site.addsitedir(options["packages"])
    sys.path.append(options["modules"])
    try:
        guest.methods = describing.methods_of(load(options["entry"], guest))
        guest.batches = batches_of(guest, options.get("batch"))
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
