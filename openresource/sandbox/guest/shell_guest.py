"""Opens shells inside a sandbox, several at a time, for the session that asks over standard input and output.

It is run as a script with nothing but the standard library. Each line in is a call, each line out an answer:

    open   {session, command | null, terminal: {name, rows, columns} | null}   → {"pid": …}
    read   {session}               waits for output or the end                 → {"out", "err", "exit" or "signal"}
    write  {session, data, end}    waits until some of it is taken             → {"accepted": …}
    resize {session, rows, columns}, signal {session, name}, hangup {session}  → {}

Bytes travel in base64. Nothing is read from a shell that nobody asks for, so a caller that is slow slows the shell.
"""

from __future__ import annotations

import base64
import contextlib
import errno
import fcntl
import json
import os
import selectors
import signal
import struct
import sys
import termios
import time

# Importing it would cost as much time as all our own work.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

READ_BYTES = 1 << 16
ANSWER_BYTES_MAX = 1 << 17
PENDING_BYTES_MAX = 1 << 18
SESSIONS_MAX = 16
# A caller that waits is answered so often, empty, so that no call is ever late.
WAIT_SECONDS = 10.0
# What a shell's children still say after its end is waited for so long.
DRAIN_SECONDS = 0.3
HANGUP_SECONDS = 2.0
SHELLS = ("/bin/bash", "/usr/bin/bash", "/bin/sh", "/usr/bin/sh")
# What only our own side of a program needs.
OURS = (
    "OPENRESOURCE_BROKER",
    "OPENRESOURCE_SERVICE",
    "PYTHONUNBUFFERED",
    "PYTHONPATH",
    "PYTHONDONTWRITEBYTECODE",
)
SIGNALS = ("HUP", "INT", "QUIT", "TERM", "KILL", "USR1", "USR2", "CONT", "TSTP")


class Session:
    """One shell or command, and the ends of what leads into it."""

    def __init__(self, name: str, pid: int, inward: int, outward: int, complaints: int) -> None:
        self.name = name
        self.pid = pid
        self.inward = inward
        self.readers = {outward: "out"}
        if complaints >= 0:
            self.readers[complaints] = "err"
        self.pending = bytearray()
        self.ends_input = False
        self.status: int | None = None
        self.ended_at = 0.0
        self.hung_up_at = 0.0
        # Calls that wait: (number of the call, since when).
        self.reading: tuple[int, float] | None = None
        self.writing: tuple[int, float] | None = None
        self.tail = {"out": bytearray(), "err": bytearray()}

    @property
    def is_terminal(self) -> bool:
        return self.inward in self.readers


class Computer:
    """All sessions, and the one loop that serves them."""

    def __init__(self) -> None:
        self.sessions: dict[str, Session] = {}
        self.selector = selectors.DefaultSelector()
        self.requests = bytearray()
        self.watched: dict[int, int] = {}
        wake, self.waker = os.pipe()
        for descriptor in (wake, self.waker):
            os.set_blocking(descriptor, False)
        self.wake = wake
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.set_wakeup_fd(self.waker)
        os.set_blocking(0, False)

    def run(self) -> None:
        while True:
            self.watch()
            for key, events in self.selector.select(0.1 if self.needs_clock() else 1.0):
                descriptor = key.fd
                if descriptor == 0:
                    if not self.take_requests():
                        return
                elif descriptor == self.wake:
                    with contextlib.suppress(BlockingIOError):
                        os.read(self.wake, 4096)
                else:
                    session = key.data
                    if events & selectors.EVENT_READ and descriptor in session.readers:
                        self.read_from(session, descriptor)
                    if events & selectors.EVENT_WRITE and descriptor == session.inward:
                        self.write_to(session)
            self.reap()
            for session in list(self.sessions.values()):
                self.serve(session)

    def needs_clock(self) -> bool:
        return any(one.status is not None or one.hung_up_at for one in self.sessions.values())

    def watch(self) -> None:
        """Listen exactly to what somebody waits for."""
        wanted: dict[int, tuple[int, Session | None]] = {
            0: (selectors.EVENT_READ, None),
            self.wake: (selectors.EVENT_READ, None),
        }
        for session in self.sessions.values():
            for descriptor in session.readers:
                if session.reading is not None:
                    wanted[descriptor] = (selectors.EVENT_READ, session)
            if session.pending and session.inward >= 0:
                events = wanted.get(session.inward, (0, session))[0]
                wanted[session.inward] = (events | selectors.EVENT_WRITE, session)
        for descriptor in [one for one in self.watched if one not in wanted]:
            self.forget(descriptor)
        for descriptor, (events, owner) in wanted.items():
            if descriptor not in self.watched:
                self.selector.register(descriptor, events, owner)
            elif self.watched[descriptor] != events:
                self.selector.modify(descriptor, events, owner)
            self.watched[descriptor] = events

    def forget(self, descriptor: int) -> None:
        if self.watched.pop(descriptor, None) is not None:
            self.selector.unregister(descriptor)

    # -- calls --------------------------------------------------------------------------------------------------------

    def take_requests(self) -> bool:
        """Read what was asked; false when nobody asks any more."""
        try:
            data = os.read(0, 1 << 18)
        except BlockingIOError:
            return True
        if not data:
            return False
        self.requests += data
        while (end := self.requests.find(b"\n")) >= 0:
            line = bytes(self.requests[:end])
            del self.requests[: end + 1]
            request = json.loads(line)
            self.take(request["id"], request["method"], request["input"])
        return True

    def take(self, number: int, method: str, given: dict[str, Any]) -> None:
        try:
            session = self.sessions.get(given["session"])
            if method == "open":
                answer(number, self.open(given))
            elif session is None:
                refuse(number, "there is no such session")
            elif method == "read":
                session.reading = (number, time.monotonic())
            elif method == "write":
                session.pending += base64.b64decode(given["data"])
                session.ends_input = session.ends_input or bool(given["end"])
                session.writing = (number, time.monotonic())
                self.write_to(session)
            elif method == "resize":
                resize(session, given["rows"], given["columns"])
                answer(number, {})
            elif method == "signal":
                self.signal(session, given["name"])
                answer(number, {})
            else:
                self.hang_up(session)
                answer(number, {})
        except OSError as problem:
            refuse(number, problem.strerror or str(problem))

    def open(self, given: dict[str, Any]) -> dict[str, int]:
        if len(self.sessions) >= SESSIONS_MAX:
            raise OSError(errno.EMFILE, "too many sessions")
        terminal = given["terminal"]
        words = shell_words(given["command"])
        session = (
            start_at_terminal(given["session"], words, terminal)
            if terminal
            else start(given["session"], words)
        )
        for descriptor in {session.inward, *session.readers}:
            os.set_blocking(descriptor, False)
        self.sessions[session.name] = session
        return {"pid": session.pid}

    def signal(self, session: Session, name: str) -> None:
        if name in SIGNALS and session.status is None:
            group = session.pid
            if session.is_terminal:
                with contextlib.suppress(OSError):
                    group = os.tcgetpgrp(session.inward)
            with contextlib.suppress(ProcessLookupError):
                os.killpg(group, getattr(signal, "SIG" + name))

    def hang_up(self, session: Session) -> None:
        """Nobody is there any more: its processes are told, and killed a little later."""
        if not session.hung_up_at:
            session.hung_up_at = time.monotonic()
            signal_session(session.pid, signal.SIGHUP)
            signal_session(session.pid, signal.SIGCONT)

    # -- bytes --------------------------------------------------------------------------------------------------------

    def read_from(self, session: Session, descriptor: int) -> None:
        try:
            data = os.read(descriptor, READ_BYTES)
        except BlockingIOError:
            return
        except OSError:
            # A terminal whose other side has been closed says so by an error.
            data = b""
        if data:
            session.tail[session.readers[descriptor]] += data
            return
        self.forget(descriptor)
        del session.readers[descriptor]
        if descriptor != session.inward:
            os.close(descriptor)
        elif session.status is not None:
            self.close_input(session)

    def write_to(self, session: Session) -> None:
        while session.pending and session.inward >= 0:
            try:
                count = os.write(session.inward, session.pending[:READ_BYTES])
            except BlockingIOError:
                return
            except OSError:
                # It reads no more; what is written is dropped, as into any closed pipe.
                session.pending.clear()
                self.close_input(session)
                return
            del session.pending[:count]
        if session.ends_input and not session.pending and session.inward >= 0:
            if session.is_terminal:
                session.ends_input = False
                # The character that ends input, as a person would type it.
                os.write(session.inward, b"\x04")
            else:
                self.close_input(session)

    def close_input(self, session: Session) -> None:
        if session.inward >= 0:
            self.forget(session.inward)
            session.readers.pop(session.inward, None)
            os.close(session.inward)
            session.inward = -1

    # -- ends ---------------------------------------------------------------------------------------------------------

    def reap(self) -> None:
        by_pid = {one.pid: one for one in self.sessions.values()}
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            if pid in by_pid:
                by_pid[pid].status = status
                by_pid[pid].ended_at = time.monotonic()

    def serve(self, session: Session) -> None:
        """Answer whoever waits for this session, if there is something to say."""
        now = time.monotonic()
        if session.hung_up_at and now - session.hung_up_at > HANGUP_SECONDS:
            signal_session(session.pid, signal.SIGKILL)
        if session.writing is not None:
            number, since = session.writing
            if len(session.pending) < PENDING_BYTES_MAX or now - since > WAIT_SECONDS:
                session.writing = None
                answer(number, {"waiting": len(session.pending)})
        if session.reading is None:
            return
        number, since = session.reading
        if session.status is not None:
            # What lies in its pipes was said before its end, however late somebody asks for it.
            for descriptor in list(session.readers):
                self.read_from(session, descriptor)
        said: dict[str, Any] = {}
        for name, tail in session.tail.items():
            if tail:
                said[name] = base64.b64encode(bytes(tail[:ANSWER_BYTES_MAX])).decode()
                del tail[:ANSWER_BYTES_MAX]
        is_over = session.status is not None and (
            not session.readers or now - session.ended_at > DRAIN_SECONDS or session.hung_up_at
        )
        if not said and is_over and session.status is not None:
            code = os.waitstatus_to_exitcode(session.status)
            said = {"exit": code} if code >= 0 else {"signal": signal.Signals(-code).name.removeprefix("SIG")}
            self.close(session)
        if said or now - since > WAIT_SECONDS:
            session.reading = None
            answer(number, said)
        if said and session.status is not None:
            session.ended_at = now

    def close(self, session: Session) -> None:
        for descriptor in list(session.readers):
            self.forget(descriptor)
            if descriptor != session.inward:
                os.close(descriptor)
        session.readers.clear()
        if session.inward >= 0:
            self.forget(session.inward)
            os.close(session.inward)
        del self.sessions[session.name]


# -- processes --------------------------------------------------------------------------------------------------------


def shell_words(command: str | None) -> tuple[str, list[str]]:
    """The shell itself, or a command for it."""
    path = next((one for one in SHELLS if os.access(one, os.X_OK)), "/bin/sh")
    name = os.path.basename(path)
    return (path, [f"-{name}"]) if command is None else (path, [name, "-c", command])


def start(name: str, words: tuple[str, list[str]]) -> Session:
    """A command at three pipes."""
    inward_theirs, inward = os.pipe()
    outward, outward_theirs = os.pipe()
    complaints, complaints_theirs = os.pipe()
    pid = os.fork()
    if pid == 0:
        become(words, (inward_theirs, outward_theirs, complaints_theirs), "")
    for descriptor in (inward_theirs, outward_theirs, complaints_theirs):
        os.close(descriptor)
    return Session(name, pid, inward, outward, complaints)


def start_at_terminal(name: str, words: tuple[str, list[str]], terminal: dict[str, Any]) -> Session:
    """A shell at a terminal of its own, which is this sandbox's and nobody else's."""
    ours, theirs = os.openpty()
    set_size(ours, terminal["rows"], terminal["columns"])
    pid = os.fork()
    if pid == 0:
        os.close(ours)
        become(words, (theirs, theirs, theirs), terminal["name"])
    os.close(theirs)
    return Session(name, pid, ours, ours, -1)


def become(words: tuple[str, list[str]], standard: tuple[int, int, int], terminal: str) -> None:
    """In the child: a session of its own, then the command."""
    try:
        os.setsid()
        for number, descriptor in enumerate(standard):
            os.dup2(descriptor, number)
        os.closerange(3, 4096)
        environment = dict(os.environ)
        for name in OURS:
            environment.pop(name, None)
        if terminal:
            fcntl.ioctl(0, termios.TIOCSCTTY, 0)
            environment["TERM"] = terminal
            environment["PS1"] = r"\h:\w\$ "
        os.chdir(environment.get("HOME", "/"))
        for number in (signal.SIGCHLD, signal.SIGPIPE, signal.SIGINT):
            signal.signal(number, signal.SIG_DFL)
        os.execve(words[0], words[1], environment)
    except BaseException as problem:
        os.write(2, f"cannot start {words[0]}: {problem}\n".encode())
    finally:
        os._exit(127)


def signal_session(session_id: int, number: int) -> None:
    """Every process that has not left the session of a shell; its own children may have groups of their own."""
    for name in os.listdir("/proc"):
        if not name.isdigit():
            continue
        try:
            with open(f"/proc/{name}/stat", "rb") as stat:
                fields = stat.read().rpartition(b")")[2].split()
            if int(fields[3]) == session_id:
                os.kill(int(name), number)
        except (OSError, IndexError, ValueError):
            continue


def resize(session: Session, rows: int, columns: int) -> None:
    if session.is_terminal:
        set_size(session.inward, rows, columns)


def set_size(descriptor: int, rows: int, columns: int) -> None:
    fcntl.ioctl(descriptor, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))


# -- answers ----------------------------------------------------------------------------------------------------------


def answer(number: int, output: dict[str, Any]) -> None:
    say({"id": number, "output": output})


def refuse(number: int, reason: str) -> None:
    say({"id": number, "error": reason})


def say(value: dict[str, Any]) -> None:
    data = json.dumps(value).encode() + b"\n"
    while data:
        data = data[os.write(1, data) :]


if __name__ == "__main__":
    Computer().run()
    sys.exit(0)
