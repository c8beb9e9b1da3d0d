"""One launcher that has started already and makes the others: a copy of it costs a twentieth of a new interpreter.

The zygote is a plain process of ours that waits on a socket. For each launch it gets a plan and descriptors and makes a
copy of itself that is *our* child, not its own (`CLONE_PARENT`), so that waiting, signals and ends stay as they were. It
ends when its socket does, which is when this process does.
"""

from __future__ import annotations

import array
import json
import os
import queue
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Final

LAUNCHER: Final = Path(__file__).with_name("launcher.py")
REQUEST_BYTES_MAX: Final = 4_096
DESCRIPTORS_MAX: Final = 64
ANSWER_SECONDS_MAX: Final = 20.0


class Launched:
    """A child of ours that somebody else has made."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self.returncode: int | None = None
        self._lock = threading.Lock()

    def poll(self) -> int | None:
        """The exit code, or minus the signal; None while it runs."""
        return self._take(os.WNOHANG)

    def wait(self) -> int:
        """The same, waiting for it."""
        while True:
            code = self._take(0)
            if code is not None:
                return code

    def kill(self) -> None:
        """End it."""
        self.send_signal(signal.SIGKILL)

    def send_signal(self, number: int) -> None:
        """A signal, unless it has ended."""
        if self.poll() is None:
            try:
                os.kill(self.pid, number)
            except ProcessLookupError:
                return

    def _take(self, options: int) -> int | None:
        with self._lock:
            if self.returncode is None:
                try:
                    pid, status = os.waitpid(self.pid, options)
                except ChildProcessError:
                    # Somebody has taken its status already; that it ended is all that is left to know.
                    self.returncode = 0
                else:
                    if pid == self.pid:
                        self.returncode = os.waitstatus_to_exitcode(status)
            return self.returncode


class Zygote:
    """The running launcher of this process."""

    def __init__(self) -> None:
        self._ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._ours.settimeout(ANSWER_SECONDS_MAX)
        with theirs:
            self.process = subprocess.Popen(
                [sys.executable, "-I", "-S", str(LAUNCHER), "serve", str(theirs.fileno())],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                pass_fds=(theirs.fileno(),),
                cwd="/",
                env=launcher_environment(),
                start_new_session=True,
            )

    def launch(self, descriptors: Mapping[int, int], plan: int) -> Launched:
        """A new launcher with these descriptors (ours by the number that it shall have) and its plan."""
        targets = [*descriptors, plan]
        assert len(targets) <= DESCRIPTORS_MAX
        rights = array.array("i", [*descriptors.values(), plan])
        request = json.dumps({"targets": targets, "plan": plan}).encode()
        self._ours.sendmsg([request], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, rights)])
        answer = self._ours.recv(REQUEST_BYTES_MAX)
        if not answer.isdigit():
            raise OSError(answer.decode("utf-8", "replace") or "the zygote has ended")
        return Launched(int(answer))

    def close(self) -> None:
        """End it."""
        self._ours.close()
        self.process.kill()
        self.process.wait()


_lock = threading.Lock()
_zygotes: dict[int, Zygote] = {}


def launch_by_zygote(descriptors: Mapping[int, int], plan: int) -> Launched | None:
    """A launcher by this process's zygote, which is made when first asked for; None where that cannot be done."""
    with _lock:
        own = os.getpid()
        # After a fork the socket would be shared with our parent.
        if own not in _zygotes:
            _zygotes.clear()
            _zygotes[own] = _kept()
        zygote = _zygotes[own]
        try:
            return zygote.launch(descriptors, plan)
        except OSError:
            zygote.close()
            # It may have been killed for want of memory: the next launch makes another.
            del _zygotes[own]
            return None


def _kept() -> Zygote:
    """A zygote made by a thread that never ends: the kernel takes that thread for the parent of every program, and a
    program dies with its parent."""
    made: queue.SimpleQueue[Zygote | OSError] = queue.SimpleQueue()

    def keep() -> None:
        try:
            made.put(Zygote())
        except OSError as problem:
            made.put(problem)
            return
        threading.Event().wait()

    threading.Thread(target=keep, name="zygote-keeper", daemon=True).start()
    outcome = made.get()
    if isinstance(outcome, OSError):
        raise outcome
    return outcome


def zygote_pid() -> int:
    """The process number of the zygote, made now if there is none."""
    with _lock:
        own = os.getpid()
        if own not in _zygotes:
            _zygotes.clear()
            _zygotes[own] = _kept()
        return _zygotes[own].process.pid


def launcher_environment() -> dict[str, str]:
    """Some interpreters find their own library only with its help; the program gets another environment."""
    return {name: os.environ[name] for name in ("LD_LIBRARY_PATH",) if name in os.environ}
