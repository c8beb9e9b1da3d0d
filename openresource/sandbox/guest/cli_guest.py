"""Runs inside the sandbox beside a command-line program: each call is one process in a fresh folder, then nothing.

Frames both ways as with Python programs: length of the payload (4 bytes), number of the call (4), kind (1), payload.
Everything happens in one thread, so that the program has nearly all processes that it may have to itself.
"""

import base64
import ctypes
import json
import os
import re
import selectors
import signal
import socket
import struct
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from openresource.sandbox.guest.cli_tools import (
        Problem,
        as_text,
        below,
        can_list,
        children,
        decoded,
        is_marked,
        no_constant,
        no_follow,
        parsed,
        readable,
        remove,
        stamp,
    )
else:
    sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
    from cli_tools import (
        Problem,
        as_text,
        below,
        can_list,
        children,
        decoded,
        is_marked,
        no_constant,
        no_follow,
        parsed,
        readable,
        remove,
        stamp,
    )

HEADER = struct.Struct(">IIB")
USAGE_FIGURES = struct.Struct(">QQ")
CALL, CALL_RAW, CANCEL, SECRET = 1, 2, 3, 4
READY, ANSWER, CHUNK, END, REFUSED, FAILED, BROKEN, USAGE = 10, 11, 12, 13, 14, 15, 16, 17
PR_SET_CHILD_SUBREAPER = 36
READ_BYTES = 1 << 16
UNSENT_BYTES_MAX = 1 << 20
STDERR_BYTES_MAX = 64 << 10
LAST_LINES = 5
MESSAGE_CHARACTERS_MAX = 2_000
FILES_MAX = 1_000
LINGER_SECONDS = 0.25
KILL_ROUNDS_MAX = 200
MARK = "OPENRESOURCE_CALL"
# By which a process asks the broker for its call.
SECRET_NAME = "OPENRESOURCE_CALL_SECRET"
# What belongs to the release and not to the program's folder.
NOT_SHOWN = ("openresource.toml", "interface.json", "interface.pb")
MEMORY_WORDS = (
    "MemoryError",
    "heap out of memory",
    "bad_alloc",
    "Cannot allocate memory",
    "out of memory",
    "memory allocation of",
)
NAME = re.compile(r"(?:[A-Za-z0-9_-][A-Za-z0-9._ -]{0,127}/){0,8}[A-Za-z0-9_-][A-Za-z0-9._ -]{0,127}")


class Call:
    """One process and everything that comes out of it."""

    def __init__(self, number: int, method: Any, folder: str) -> None:
        self.number = number
        self.method = method
        self.folder = folder
        self.work = os.path.join(folder, "work")
        self.process: Any = None
        self.stdin = b""
        self.stdout = bytearray()
        self.stderr = bytearray()
        self.pipes: set[Any] = set()
        self.ends_at = 0.0
        self.exit_code: Any = None
        self.is_cancelled = False
        self.problem: Any = None
        self.given: dict[str, Any] = {}
        self.cpu_seconds = 0.0


class Guest:
    """The calls and the socket that they come from."""

    def __init__(self, options: Any) -> None:
        self.options = options
        self.methods = options["methods"]
        self.output_bytes_max = options["output_bytes"]
        self.base = os.path.join(os.environ["HOME"], ".calls")
        self.entries = sorted(name for name in os.listdir(options["app"]) if name not in NOT_SHOWN)
        self.selector = selectors.DefaultSelector()
        self.calls: dict[int, Call] = {}
        self.secrets: dict[int, str] = {}
        # A line that is open already cannot be shared: a process would read what is another's.
        self.broker = os.environ.get("OPENRESOURCE_BROKER", "")
        if self.broker.startswith("fd:"):
            self.broker = ""
        self.incoming = bytearray()
        self.outgoing = bytearray()
        self.is_writing = self.is_held = False
        # Where processes are hidden, those that leave their group cannot be found, and then the guest ends with them.
        self.sees_processes = can_list("/proc")
        self.wake, wake = os.pipe()
        for descriptor in (self.wake, wake):
            os.set_blocking(descriptor, False)
        signal.set_wakeup_fd(wake, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda number, frame: None)
        self.selector.register(self.wake, selectors.EVENT_READ, self.on_wake)
        os.makedirs(self.base, exist_ok=True)
        # Standard input is ours; programs get pipes.
        self.control = socket.socket(fileno=os.dup(0))
        self.control.setblocking(False)
        null = os.open("/dev/null", os.O_RDONLY)
        os.dup2(null, 0)
        os.close(null)
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
        self.selector.register(self.control, selectors.EVENT_READ, self.on_control)

    # ── Frames ───────────────────────────────────────────────────────────────────────────────────────────────

    def send(self, number: int, kind: int, payload: bytes) -> None:
        """One frame out, as soon as the other side takes it."""
        self.outgoing += HEADER.pack(len(payload), number, kind)
        self.outgoing += payload
        self.flush()

    def flush(self) -> None:
        """Send what the socket takes; programs wait while much is unsent."""
        while self.outgoing:
            try:
                with memoryview(self.outgoing) as view:
                    count = self.control.send(view[: 1 << 20])
            except BlockingIOError:
                break
            except OSError:
                os._exit(0)
            del self.outgoing[:count]
        if bool(self.outgoing) != self.is_writing:
            self.is_writing = bool(self.outgoing)
            events = selectors.EVENT_READ | (selectors.EVENT_WRITE if self.is_writing else 0)
            self.selector.modify(self.control, events, self.on_control)
        if (len(self.outgoing) > UNSENT_BYTES_MAX) != self.is_held:
            self.is_held = not self.is_held
            for call in self.calls.values():
                self.hold(call)

    def hold(self, call: Call) -> None:
        """Stop or resume listening to a program's standard output."""
        pipe = call.process.stdout
        if pipe not in call.pipes:
            return
        if self.is_held:
            self.selector.unregister(pipe)
        else:
            self.selector.register(pipe, selectors.EVENT_READ, (self.on_stdout, call))

    def on_control(self, events: int) -> None:
        """The other side has said something, or takes more."""
        if events & selectors.EVENT_WRITE:
            self.flush()
        if not events & selectors.EVENT_READ:
            return
        try:
            data = self.control.recv(1 << 20)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            os._exit(0)
        self.incoming += data
        while len(self.incoming) >= HEADER.size:
            length, number, kind = HEADER.unpack_from(self.incoming)
            end = HEADER.size + length
            if len(self.incoming) < end:
                return
            payload = bytes(memoryview(self.incoming)[HEADER.size : end])
            del self.incoming[:end]
            if kind == CANCEL:
                self.cancel(number)
            elif kind == SECRET:
                self.secrets[number] = payload.decode()
            else:
                self.begin(number, payload)

    def serve(self) -> None:
        """Answer calls until the other side hangs up."""
        interface = {"methods": [{"name": name} for name in self.methods]}
        self.send(0, READY, json.dumps(interface).encode())
        while True:
            waits = [call.ends_at for call in self.calls.values() if call.ends_at]
            seconds = max(0.0, min(waits) - time.monotonic()) if waits else None
            for key, events in self.selector.select(seconds):
                if key.fileobj is self.control:
                    self.on_control(events)
                elif key.fd == self.wake:
                    self.on_wake()
                elif self.selector.get_map().get(key.fd) is key:
                    # Not an event of something that has been closed meanwhile.
                    act, call = key.data
                    act(call)
            for call in list(self.calls.values()):
                if call.ends_at and time.monotonic() >= call.ends_at:
                    call.ends_at = 0.0
                    self.kill(call)
                    self.end(call)

    # ── One call ─────────────────────────────────────────────────────────────────────────────────────────────

    def begin(self, number: int, payload: bytes) -> None:
        """Make the folder, start the process."""
        size = payload[0]
        name = payload[1 : 1 + size].decode()
        folder = os.path.join(self.base, str(number))
        call = Call(number, self.methods.get(name), folder)
        try:
            if call.method is None:
                raise Problem(REFUSED, "NoMethod", f"there is no method {name}", 404)
            value = parsed(payload[1 + size :])
            os.mkdir(folder)
            os.mkdir(call.work)
            os.mkdir(os.path.join(folder, "home"))
            for entry in self.entries:
                os.symlink(os.path.join(self.options["app"], entry), os.path.join(call.work, entry))
            self.start(call, self.words(call, value))
        except Problem as problem:
            self.report(call, problem)
            self.wipe(call)
        except OSError as error:
            self.report(call, Problem(FAILED, "OSError", f"{error.filename or name}: {error.strerror}"))
            self.wipe(call)
        self.secrets.pop(number, None)

    def words(self, call: Call, value: Any) -> list[str]:
        """The command line of a call, and the files that it names."""
        method = call.method
        if method["generic"]:
            for name, text in value.get("files", {}).items():
                self.write(call, name, decoded(text, name))
            call.stdin = value.get("stdin", "").encode()
            return [*self.options["command"], *value.get("args", ())]
        value = {**method["defaults"], **value}
        words: list[str] = list(self.options["command"])
        for parts in method["args"]:
            words += self.word(call, parts, value)
        if method["stdin"] in value:
            call.stdin = self.content(method, method["stdin"], value[method["stdin"]])
        return words

    def word(self, call: Call, parts: Any, value: Any) -> list[str]:
        """One declared word as it is for this input: none, one, or several."""
        if len(parts) == 1 and parts[0]["member"] and not parts[0]["file"]:
            item = value.get(parts[0]["member"])
            if isinstance(item, list):
                return [as_text(one) for one in item]
        word = ""
        for part in parts:
            member, file = part["member"], part["file"]
            if not member:
                word += part["text"]
            elif member == "out" and file:
                word += os.path.join(call.work, file)
            elif member == "app" and not file:
                word += self.options["app"]
            elif value.get(member) is None:
                return []
            elif file:
                word += self.write(call, file, self.content(call.method, member, value[member]))
            else:
                word += as_text(value[member])
        return [word]

    def content(self, method: Any, member: str, item: Any) -> bytes:
        """A member as bytes: decoded where it is base64, else as text."""
        if member in method["binary"]:
            return decoded(item, member)
        return as_text(item).encode()

    def write(self, call: Call, name: str, content: bytes) -> str:
        """A file in the call's folder; it takes the place of one of the release's."""
        if NAME.fullmatch(name) is None or ".." in name.split("/"):
            raise Problem(REFUSED, "FileName", f"{name[:80]!r} cannot be the name of a file")
        if len(call.given) >= FILES_MAX:
            raise Problem(REFUSED, "TooManyFiles", f"at most {FILES_MAX} files are taken")
        path = os.path.join(call.work, name)
        parent = call.work
        for part in name.split("/")[:-1]:
            parent = os.path.join(parent, part)
            if os.path.islink(parent):
                os.unlink(parent)
            if not os.path.isdir(parent):
                os.mkdir(parent)
        if os.path.islink(path):
            os.unlink(path)
        if os.path.isdir(path):
            raise Problem(REFUSED, "FileName", f"{name[:80]!r} is a folder of the program's")
        with open(path, "wb") as file:
            file.write(content)
        call.given[name] = stamp(os.stat(path))
        return path

    def start(self, call: Call, words: list[str]) -> None:
        """The process in a session of its own."""
        home = os.path.join(call.folder, "home")
        environment = {**os.environ, "HOME": home, "TMPDIR": home, MARK: str(call.number)}
        environment["OPENRESOURCE_BROKER"] = self.broker
        secret = self.secrets.pop(call.number, "")
        if secret:
            environment[SECRET_NAME] = secret
        if any("\0" in word for word in words):
            raise Problem(REFUSED, "NulByte", "an argument holds a NUL character")
        try:
            call.process = subprocess.Popen(
                words,
                stdin=subprocess.PIPE if call.stdin else subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                cwd=call.work,
                env=environment,
                start_new_session=True,
                bufsize=0,
            )
        except OSError as problem:
            name = "OutOfMemory" if problem.errno == 12 else "OSError"
            raise Problem(FAILED, name, f"{words[0]}: {problem.strerror}") from None
        self.watch_over(call, call.process)

    def watch_over(self, call: Call, process: Any) -> None:
        """Listen to a process that has just started."""
        call.process = process
        self.calls[call.number] = call
        for pipe, act in ((call.process.stdout, self.on_stdout), (call.process.stderr, self.on_stderr)):
            os.set_blocking(pipe.fileno(), False)
            call.pipes.add(pipe)
            if pipe is not call.process.stdout or not self.is_held:
                self.selector.register(pipe, selectors.EVENT_READ, (act, call))
        if call.stdin:
            os.set_blocking(call.process.stdin.fileno(), False)
            self.selector.register(call.process.stdin, selectors.EVENT_WRITE, (self.on_stdin, call))

    def on_stdin(self, call: Call) -> None:
        """The process takes more of its input."""
        try:
            count = os.write(call.process.stdin.fileno(), call.stdin[: 1 << 20])
            call.stdin = call.stdin[count:]
        except BlockingIOError:
            return
        except OSError:
            call.stdin = b""
        if not call.stdin:
            self.selector.unregister(call.process.stdin)
            call.process.stdin.close()

    def on_stdout(self, call: Call) -> None:
        """The process has written."""
        data = self.read(call, call.process.stdout)
        if not data or call.problem is not None:
            return
        call.stdout += data
        if call.method["stream"]:
            self.chunks(call)
        if len(call.stdout) > self.output_bytes_max:
            self.give_up(call, Problem(FAILED, "OutputTooLarge", "its output is too long"))

    def on_stderr(self, call: Call) -> None:
        """The process has complained: the end of it is kept."""
        call.stderr += self.read(call, call.process.stderr)
        del call.stderr[:-STDERR_BYTES_MAX]

    def read(self, call: Call, pipe: Any) -> bytes:
        """What a pipe holds; a pipe at its end is closed."""
        try:
            data = os.read(pipe.fileno(), READ_BYTES)
        except BlockingIOError:
            return b""
        if not data:
            self.selector.unregister(pipe)
            pipe.close()
            call.pipes.discard(pipe)
            if call.exit_code is not None and not call.pipes:
                self.end(call)
        return data

    def chunks(self, call: Call) -> None:
        """Whole lines of a stream go out at once."""
        while (at := call.stdout.find(b"\n")) >= 0:
            line = bytes(call.stdout[:at])
            del call.stdout[: at + 1]
            self.chunk(call, line)

    def chunk(self, call: Call, line: bytes) -> None:
        """One line of a stream."""
        if call.is_cancelled or call.problem is not None:
            return
        try:
            self.send(call.number, CHUNK, self.shaped(call, line))
        except Problem as problem:
            self.give_up(call, problem)

    def on_wake(self) -> None:
        """Some process has ended."""
        try:
            while os.read(self.wake, READ_BYTES):
                pass
        except BlockingIOError:
            pass
        for call in list(self.calls.values()):
            if call.exit_code is None:
                pid, status, usage = os.wait4(call.process.pid, os.WNOHANG)
                if pid:
                    self.on_exit(call, status, usage)

    def on_exit(self, call: Call, status: int, usage: Any) -> None:
        """The process has ended; what it left behind may write a moment longer."""
        call.process.returncode = call.exit_code = os.waitstatus_to_exitcode(status)
        call.cpu_seconds = usage.ru_utime + usage.ru_stime
        if not call.pipes:
            self.end(call)
        else:
            call.ends_at = time.monotonic() + LINGER_SECONDS

    def cancel(self, number: int) -> None:
        """Nobody waits any more."""
        call = self.calls.get(number)
        if call is not None:
            call.is_cancelled = True
            self.kill(call)

    def give_up(self, call: Call, problem: Problem) -> None:
        """End a call that went wrong before its process ended."""
        if call.problem is None:
            call.problem = problem
            self.kill(call)

    def end(self, call: Call) -> None:
        """Everything is said: answer, and leave nothing."""
        if self.calls.pop(call.number, None) is None:
            return
        for pipe in call.pipes:
            if not (pipe is call.process.stdout and self.is_held):
                self.selector.unregister(pipe)
            pipe.close()
        if call.process.stdin is not None and not call.process.stdin.closed:
            self.selector.unregister(call.process.stdin)
            call.process.stdin.close()
        if self.leaves_anything():
            self.kill(call)
            self.take_group(call)
        self.send(call.number, USAGE, self.usage_of(call))
        try:
            if call.is_cancelled:
                self.send(call.number, END, b"")
            elif call.problem is not None:
                self.report(call, call.problem)
            else:
                self.answer(call)
        except Problem as problem:
            self.report(call, problem)
        except OSError as error:
            self.report(call, Problem(FAILED, "OSError", f"its files: {error.strerror}"))
        self.wipe(call)
        if not self.calls and self.leaves_anything():
            sys.stderr.write("processes of a call cannot be found: starting anew\n")
            self.control.setblocking(True)
            self.control.sendall(self.outgoing)
            os._exit(1)

    def usage_of(self, call: Call) -> bytes:
        """Processor time; nothing here counts fuel."""
        return USAGE_FIGURES.pack(round(call.cpu_seconds * 1000), 0)

    def answer(self, call: Call) -> None:
        """The result of a process that has ended by itself."""
        method = call.method
        if method["generic"]:
            out, encoding = readable(call.stdout)
            value: dict[str, Any] = {
                "exit_code": call.exit_code,
                "stdout": out,
                "stderr": bytes(call.stderr).decode("utf-8", "replace"),
                "files": self.files(call),
            }
            if encoding:
                value["encoding"] = encoding
            self.send(call.number, ANSWER, json.dumps(value).encode())
            return
        if call.exit_code != 0:
            raise self.failure(call)
        if method["stream"]:
            if call.stdout:
                self.chunk(call, bytes(call.stdout))
            if call.problem is not None:
                raise call.problem
            self.send(call.number, END, b"")
        elif method["result"] == "files":
            out, _ = readable(call.stdout)
            answer = {"files": self.files(call), "stdout": out}
            self.send(call.number, ANSWER, json.dumps(answer).encode())
        else:
            self.send(call.number, ANSWER, self.shaped(call, bytes(call.stdout)))

    def shaped(self, call: Call, data: bytes) -> bytes:
        """Standard output, or a line of it, as JSON."""
        if call.method["result"] == "json":
            try:
                json.loads(data, parse_constant=no_constant)
            except (ValueError, RecursionError) as problem:
                raise Problem(FAILED, "NotJson", f"its output is not JSON ({problem})") from None
            return data.strip()
        if call.method["output_is_binary"]:
            return json.dumps(base64.b64encode(data).decode()).encode()
        try:
            text = data.decode()
        except UnicodeDecodeError:
            raise Problem(
                FAILED, "NotText", "its output is no UTF-8 text; declare it with contentEncoding base64"
            ) from None
        return json.dumps(text.removesuffix("\n"), ensure_ascii=False).encode()

    def failure(self, call: Call) -> Problem:
        """Why there is no answer: the last lines that the process said."""
        said = bytes(call.stderr).decode("utf-8", "replace").strip()
        words = "\n".join(said.splitlines()[-LAST_LINES:])[-MESSAGE_CHARACTERS_MAX:]
        if any(text in said for text in MEMORY_WORDS):
            return Problem(FAILED, "OutOfMemory", words)
        code = call.exit_code
        if 0 < code < 126:
            return Problem(REFUSED, f"ExitCode{code}", words or f"it ended with exit code {code}")
        how = f"exit code {code}" if code > 0 else f"signal {signal.Signals(-code).name}"
        return Problem(FAILED, "Ended", f"{how}: {words}" if words else how)

    def files(self, call: Call) -> dict[str, str]:
        """What the process has written into its folder: new files, and given ones that it has changed."""
        found: dict[str, str] = {}
        left = self.output_bytes_max
        folders = [""]
        while folders:
            inside = folders.pop()
            with os.scandir(os.path.join(call.work, inside)) as entries:
                for entry in sorted(entries, key=lambda one: one.name):
                    name = f"{inside}/{entry.name}" if inside else entry.name
                    if entry.is_symlink():
                        continue
                    if entry.is_dir(follow_symlinks=False):
                        folders.append(name)
                        continue
                    status = entry.stat(follow_symlinks=False)
                    if not entry.is_file(follow_symlinks=False) or call.given.get(name) == stamp(status):
                        continue
                    left -= status.st_size * 4 // 3
                    if left < 0 or len(found) >= FILES_MAX:
                        raise Problem(FAILED, "OutputTooLarge", "its files are too large, or too many")
                    with open(entry.path, "rb", opener=no_follow) as file:
                        found[name] = base64.b64encode(file.read(status.st_size)).decode()
        return found

    def report(self, call: Call, problem: Problem) -> None:
        """A call without an answer."""
        text = str(problem)[-MESSAGE_CHARACTERS_MAX:]
        if problem.kind == FAILED:
            # Standard error is for the program's operator.
            sys.stderr.write(f"call {call.number}: {problem.name}: {text}\n")
            sys.stderr.flush()
        payload = {"status": problem.status, "type": problem.name, "message": text}
        self.send(call.number, problem.kind, json.dumps(payload).encode())

    # ── Leaving nothing ──────────────────────────────────────────────────────────────────────────────────────

    def leaves_anything(self) -> bool:
        """Whether we have children: those of running calls, and orphans, which come to us."""
        try:
            os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        except ChildProcessError:
            return False
        return True

    def kill(self, call: Call) -> None:
        """Kill the process and all that it has started, those that have left its session too."""
        try:
            os.killpg(call.process.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        if not self.sees_processes:
            return
        for _ in range(KILL_ROUNDS_MAX):
            others = [other.process.pid for other in self.calls.values() if other is not call]
            kept, own = set(below(others)), set(below([call.process.pid]))
            mark = f"{MARK}={call.number}".encode()
            found = [
                pid
                for pid in below([os.getpid()])
                if pid not in kept and (not others or pid in own or is_marked(pid, mark))
            ]
            for pid in found:
                try:
                    os.kill(pid, signal.SIGKILL)
                except ProcessLookupError:
                    continue
            self.reap(call)
            if not found or found == [call.process.pid]:
                return
            time.sleep(0.002)

    def take_group(self, call: Call) -> None:
        """Take what was killed of an ended call's group."""
        for _ in range(KILL_ROUNDS_MAX):
            try:
                if os.waitpid(-call.process.pid, os.WNOHANG)[0] == 0:
                    time.sleep(0.002)
            except ChildProcessError:
                return

    def reap(self, call: Call) -> None:
        """Take the orphans that have ended; processes of calls are taken when their end is noticed."""
        ours = {other.process.pid for other in self.calls.values()} | {call.process.pid}
        for pid in children():
            if pid not in ours:
                try:
                    os.waitpid(pid, os.WNOHANG)
                except ChildProcessError:
                    continue

    def wipe(self, call: Call) -> None:
        """Remove the call's folder, and whatever else was written once nobody works."""
        remove(call.folder)
        if self.calls:
            return
        for folder in (os.path.dirname(self.base), "/dev/shm"):
            try:
                names = os.listdir(folder)
            except OSError:
                continue
            for name in names:
                path = os.path.join(folder, name)
                if path != self.base:
                    remove(path)


if __name__ == "__main__":
    Guest(json.loads(sys.argv[1])).serve()
