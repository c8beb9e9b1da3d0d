"""A started program as processes: the ends of its pipes, its last words, and its end with nothing left behind."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Final, Protocol

from openresource.sandbox import proc
from openresource.sandbox.driver import STDERR_SHOWN_CHARACTERS_MAX
from openresource.sandbox.groups import Groups

STDERR_KEPT_BYTES: Final = 16 << 10
STDERR_READ_BYTES: Final = 1 << 16
END_SECONDS_MAX: Final = 20.0
REMOVE_ATTEMPTS_MAX: Final = 200
REMOVE_PAUSE_SECONDS: Final = 0.005


@dataclass(slots=True)
class Ends:
    """Both ends of everything that leads into a program; theirs are closed once it has started."""

    stderr: int
    child_stdin: int
    child_stdout: int
    child_stderr: int
    stdin: int = -1
    stdout: int = -1
    control: socket.socket | None = None
    _held: list[socket.socket] = field(default_factory=list)

    def close_theirs(self) -> None:
        """Close what the program has copies of."""
        for descriptor in {self.child_stdin, self.child_stdout, self.child_stderr} - {-1}:
            if not any(held.fileno() == descriptor for held in self._held):
                os.close(descriptor)
        for held in self._held:
            held.close()
        self.child_stdin = self.child_stdout = self.child_stderr = -1
        self._held.clear()

    def close_ours(self) -> None:
        """Close what no channel has taken over."""
        for descriptor in (self.stderr, self.stdin, self.stdout):
            if descriptor >= 0:
                os.close(descriptor)
        if self.control is not None:
            self.control.close()
        self.stderr = self.stdin = self.stdout = -1
        self.control = None


def open_ends(wire: str) -> Ends:
    """Pipes for a program that reads lines, a socket for our own guests, standard error for all."""
    stderr, child_stderr = os.pipe()
    if wire == "jsonl":
        child_stdin, stdin = os.pipe()
        stdout, child_stdout = os.pipe()
        return Ends(stderr, child_stdin, child_stdout, child_stderr, stdin, stdout)
    control, theirs = socket.socketpair()
    return Ends(stderr, theirs.fileno(), child_stderr, child_stderr, control=control, _held=[theirs])


class Process(Protocol):
    """A child of this process, however it was made."""

    @property
    def pid(self) -> int: ...

    def poll(self) -> int | None: ...

    def wait(self) -> int: ...

    def kill(self) -> None: ...

    def send_signal(self, number: int, /) -> None: ...


class GuestProcess:
    """The processes of one program: watched, killed as a whole, reaped."""

    def __init__(self, popen: Process, ends: Ends, groups: Groups | None) -> None:
        stderr, ends.stderr = ends.stderr, -1
        self.popen = popen
        self.groups = groups
        # Everything of the program is this process or below it.
        self.root = popen.pid
        self.has_ended = asyncio.Event()
        self.stderr_bytes = 0
        self.on_stderr: Callable[[], None] | None = None
        self.cleanups: list[Callable[[], Awaitable[None]]] = []
        self._main = 0
        self._tail = bytearray()
        self._stderr = stderr
        self._loop = asyncio.get_running_loop()
        self._ending: asyncio.Task[None] | None = None
        self._pidfd = os.pidfd_open(popen.pid)
        os.set_blocking(stderr, False)
        self._loop.add_reader(stderr, self._read_stderr)
        self._loop.add_reader(self._pidfd, self._ended)

    @property
    def exit_code(self) -> int | None:
        """The exit code, or minus the signal; None while it runs."""
        return self.popen.poll()

    def last_words(self) -> str:
        """The end of standard error."""
        if self._stderr >= 0:
            self._read_stderr()
        return self._tail.decode("utf-8", "replace").strip()[-STDERR_SHOWN_CHARACTERS_MAX:]

    def tree(self) -> list[int]:
        """The program's processes."""
        return proc.descendants(self.root)

    def cpu_ns(self) -> int:
        """Processor time so far: of everything where groups count it, else of the main process."""
        total = self.groups.cpu_ns() if self.groups is not None else None
        if total is not None:
            return total
        if not self._main:
            self._main = self.find_main()
        return proc.cpu_ns(self._main) if self._main else 0

    def find_main(self) -> int:
        """The process that runs the program itself."""
        return self.root

    def kill(self) -> None:
        """Kill everything, at once and without asking."""
        self.popen.kill()

    async def reap(self) -> None:
        """Wait until every process has gone, and take what the kernel still holds of them."""
        async with asyncio.timeout(END_SECONDS_MAX):
            await self.has_ended.wait()
        self.popen.wait()

    async def end(self) -> None:
        """Kill, reap and wipe; whoever asks first does it, the others wait for it."""
        if self._ending is None:
            self._ending = self._loop.create_task(self._end())
        await asyncio.shield(self._ending)

    async def _end(self) -> None:
        self.kill()
        try:
            await self.reap()
        finally:
            self._loop.remove_reader(self._pidfd)
            os.close(self._pidfd)
            self._close_stderr()
            if self.groups is not None:
                # Whoever should have ended everything did, unless it was ended itself.
                self.groups.kill()
                await remove_groups(self.groups)
            for cleanup in self.cleanups:
                await cleanup()

    def _ended(self) -> None:
        self._loop.remove_reader(self._pidfd)
        self.has_ended.set()

    def _read_stderr(self) -> None:
        while True:
            try:
                data = os.read(self._stderr, STDERR_READ_BYTES)
            except BlockingIOError:
                return
            if not data:
                self._close_stderr()
                return
            self.stderr_bytes += len(data)
            self._tail += data
            del self._tail[:-STDERR_KEPT_BYTES]
            if self.on_stderr is not None:
                self.on_stderr()
            if len(data) < STDERR_READ_BYTES:
                return

    def _close_stderr(self) -> None:
        if self._stderr >= 0:
            self._loop.remove_reader(self._stderr)
            os.close(self._stderr)
            self._stderr = -1


async def wait_until_gone(pidfd: int, seconds: float) -> None:
    """Wait for the end of a process by its descriptor."""
    loop = asyncio.get_running_loop()
    gone = asyncio.Event()
    loop.add_reader(pidfd, gone.set)
    try:
        async with asyncio.timeout(seconds):
            await gone.wait()
    finally:
        loop.remove_reader(pidfd)


def reap(pid: int) -> None:
    """Take the exit status of a process that the kernel has given to us, if it has."""
    try:
        os.waitpid(pid, os.WNOHANG)
    except ChildProcessError:
        return


def first_words(ends: Ends) -> str:
    """What was said on standard error before anybody listened."""
    os.set_blocking(ends.stderr, False)
    try:
        return os.read(ends.stderr, STDERR_SHOWN_CHARACTERS_MAX).decode("utf-8", "replace").strip()
    except BlockingIOError:
        return ""


def kill_tree(popen: Process) -> None:
    """Kill and reap a process that has not become a program yet, and whatever it has started."""
    tree = proc.descendants(popen.pid)
    for pid in tree:
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            continue
    popen.wait()
    for pid in tree[1:]:
        try:
            # Killed and orphaned, so it has come to us and ends at once.
            os.waitpid(pid, 0)
        except ChildProcessError:
            continue


def signal_name(code: int) -> str:
    """How a process ended, in words."""
    number = -code if code < 0 else code - 128
    try:
        return f"killed by {signal.Signals(number).name}" if code < 0 or code > 128 else f"exit code {code}"
    except ValueError:
        return f"exit code {code}"


async def remove_groups(groups: Groups) -> None:
    """Remove control groups as soon as they are empty."""
    # The kernel empties a group a moment after its last process has been reaped.
    for _ in range(REMOVE_ATTEMPTS_MAX):
        if groups.remove():
            return
        await asyncio.sleep(REMOVE_PAUSE_SECONDS)
