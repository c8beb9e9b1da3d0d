"""The waiting launcher: its children are ours, get exactly their descriptors, and outlive the thread that asked."""

from __future__ import annotations

import fcntl
import json
import os
import signal
import threading
import time
from typing import Any

import pytest

from openresource.sandbox import zygotes
from openresource.sandbox.launching import memory_file
from openresource.sandbox.zygotes import Launched, Zygote, launch_by_zygote, zygote_pid


def plan(*argv: str, **members: Any) -> int:
    """A plan as a file."""
    return memory_file(json.dumps({"argv": list(argv), **members}).encode())


def launched(*argv: str, by: Zygote | None = None, keep: tuple[int, ...] = ()) -> tuple[Launched, str]:
    """A launch with a pipe as standard output, and what came out of it."""
    ours, theirs = os.pipe()
    nothing = os.open(os.devnull, os.O_RDWR)
    file = plan(*argv)
    places = {0: nothing, 1: theirs, 2: nothing, **{number: number for number in keep}}
    child = by.launch(places, file) if by is not None else launch_by_zygote(places, file)
    assert child is not None
    for descriptor in (theirs, nothing, file):
        os.close(descriptor)
    with open(ours) as pipe:
        return child, pipe.read()


def test_a_launched_program_is_our_own_child_and_in_its_own_session() -> None:
    child, said = launched("/bin/sh", "-c", "echo $PPID $$; ps -o sid= -p $$ 2>/dev/null || echo $$")
    parent, own, session = said.split()
    assert int(parent) == os.getpid() and int(own) == child.pid == int(session)
    assert child.wait() == 0 and child.poll() == 0 and child.wait() == 0


def test_it_has_the_descriptors_of_its_plan_and_no_others() -> None:
    extra, other = os.pipe()
    # A number that nobody here has.
    high = fcntl.fcntl(extra, fcntl.F_DUPFD_CLOEXEC, 77)
    try:
        child, said = launched("/bin/ls", "/proc/self/fd", keep=(high,))
        # 3 is the folder that is being listed.
        assert sorted(int(number) for number in said.split()) == [0, 1, 2, 3, high]
        assert child.wait() == 0
    finally:
        for descriptor in (extra, other, high):
            os.close(descriptor)


def test_how_it_ended_is_told_as_for_any_child() -> None:
    child, _ = launched("/bin/sh", "-c", "exit 7")
    assert child.wait() == 7
    child, _ = launched("/bin/sh", "-c", "exec sleep 600 >/dev/null")
    assert child.poll() is None
    child.send_signal(signal.SIGTERM)
    assert child.wait() == -signal.SIGTERM
    child.kill()


def test_a_program_that_cannot_be_started_ends_with_the_launchers_code() -> None:
    child, _ = launched("/nonexistent/program")
    assert child.wait() == 120


def test_programs_outlive_the_thread_that_asked_for_them() -> None:
    pids: list[Launched] = []

    def ask() -> None:
        nothing = os.open(os.devnull, os.O_RDWR)
        # Dies with its parent, as programs do.
        source = "import ctypes,time; ctypes.CDLL(None).prctl(1, 9, 0, 0, 0); time.sleep(600)"
        file = plan("/usr/bin/env", "python3", "-c", source)
        child = launch_by_zygote({0: nothing, 1: nothing, 2: nothing}, file)
        assert child is not None
        pids.append(child)
        os.close(nothing)
        os.close(file)

    # The zygote of this test is made by the thread that asks first.
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(zygotes, "_zygotes", {})
        thread = threading.Thread(target=ask)
        thread.start()
        thread.join()
        deadline = time.monotonic() + 1.0
        while time.monotonic() < deadline:
            assert pids[0].poll() is None
            time.sleep(0.02)
        pids[0].kill()
        assert pids[0].wait() == -signal.SIGKILL


def test_a_zygote_that_was_killed_is_replaced() -> None:
    first = zygote_pid()
    os.kill(first, signal.SIGKILL)
    nothing = os.open(os.devnull, os.O_RDWR)
    file = plan("/bin/true")
    try:
        made = launch_by_zygote({0: nothing, 1: nothing, 2: nothing}, file)
        assert made is None or made.wait() == 0
        again = launch_by_zygote({0: nothing, 1: nothing, 2: nothing}, file)
        assert made is not None or again is not None
        if again is not None:
            again.wait()
        assert zygote_pid() != first
    finally:
        os.close(nothing)
        os.close(file)


def test_a_zygote_ends_with_its_socket() -> None:
    zygote = Zygote()
    child, said = launched("/bin/echo", "hello", by=zygote)
    assert said == "hello\n" and child.wait() == 0
    zygote._ours.close()
    assert zygote.process.wait(60) == 0
