"""The filter of system calls, run on a small BPF machine for both instruction sets, so that arm64 is judged as well."""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from openresource.sandbox import seccomp
from openresource.sandbox.driver import SandboxUnavailable
from openresource.sandbox.seccomp import ALLOW, ARCHITECTURES, ERRNO, KILL, NUMBERS, Wants, filter_program

MACHINES = sorted(ARCHITECTURES)
EVERYTHING = Wants(sockets=True, signals=True, neighbours=True, changes=True, hiding=True)
OWN_PID = 4_242


def answer(machine: str, wants: Wants, number: int, *arguments: int, architecture: int | None = None) -> int:
    """What the filter answers to a system call."""
    made = filter_program(machine, wants)
    code = bytearray(made.code)
    for offset in made.pid_offsets:
        struct.pack_into("=I", code, offset, OWN_PID)
    data = struct.pack(
        "=IIQ", number & 0xFFFFFFFF, ARCHITECTURES[machine] if architecture is None else architecture, 0
    )
    data += b"".join(struct.pack("=Q", argument & (2**64 - 1)) for argument in (*arguments, *[0] * 6)[:6])
    instructions = [struct.unpack_from("=HBBI", code, offset) for offset in range(0, len(code), 8)]
    position = accumulator = steps = 0
    while steps < 10_000:
        steps += 1
        operation, if_true, if_false, value = instructions[position]
        position += 1
        match operation:
            case 0x20:
                accumulator = struct.unpack_from("=I", data, value)[0]
            case 0x15:
                position += if_true if accumulator == value else if_false
            case 0x35:
                position += if_true if accumulator >= value else if_false
            case 0x45:
                position += if_true if accumulator & value else if_false
            case 0x54:
                accumulator &= value
            case 0x06:
                return value
            case _:
                raise AssertionError(f"unknown instruction {operation:#x}")
    raise AssertionError("the filter does not end")


def number(machine: str, name: str) -> int:
    found = NUMBERS[name][0 if machine == "x86_64" else 1]
    assert found is not None
    return found


@pytest.mark.parametrize("machine", MACHINES)
def test_another_instruction_set_is_killed(machine: str) -> None:
    assert answer(machine, Wants(), 0, architecture=0x40000003) == KILL


@pytest.mark.parametrize("machine", MACHINES)
@pytest.mark.parametrize("wants", [Wants(), EVERYTHING])
def test_every_named_call_is_answered_as_it_is_listed(machine: str, wants: Wants) -> None:
    for name, numbers in NUMBERS.items():
        found = numbers[0 if machine == "x86_64" else 1]
        if found is None:
            continue
        if name in seccomp.ABSENT:
            assert answer(machine, wants, found) == ERRNO | errno.ENOSYS, name
        elif name in seccomp.FORBIDDEN:
            assert answer(machine, wants, found) == ERRNO | errno.EPERM, name
        elif name in seccomp.SOCKETS:
            assert answer(machine, wants, found) == (ERRNO | errno.EPERM if wants.sockets else ALLOW), name
        elif name in seccomp.CHANGES:
            assert answer(machine, wants, found) == (ERRNO | errno.EROFS if wants.changes else ALLOW), name


@pytest.mark.parametrize("machine", MACHINES)
def test_calls_that_were_not_reviewed_do_not_exist(machine: str) -> None:
    for unknown in (seccomp.UNKNOWN_FROM, 500, 0x40000000, 0x40000027, 0xFFFFFFFF):
        assert answer(machine, Wants(), unknown) == ERRNO | errno.ENOSYS


@given(st.sampled_from(MACHINES), st.integers(0, seccomp.UNKNOWN_FROM - 1))
def test_what_is_not_named_is_allowed(machine: str, called: int) -> None:
    column = 0 if machine == "x86_64" else 1
    if called not in {numbers[column] for numbers in NUMBERS.values()}:
        assert answer(machine, EVERYTHING, called) == ALLOW


@given(st.sampled_from(MACHINES), st.integers(0, 2**32 - 1))
def test_clone_makes_threads_and_processes_but_no_namespaces(machine: str, flags: int) -> None:
    wanted = ERRNO | errno.EPERM if flags & seccomp.CLONE_NEW_ANYTHING else ALLOW
    assert answer(machine, Wants(), number(machine, "clone"), flags) == wanted


@pytest.mark.parametrize("machine", MACHINES)
def test_terminals_take_no_forged_input_and_personality_only_answers(machine: str) -> None:
    assert answer(machine, Wants(), number(machine, "ioctl"), 0, seccomp.TIOCSTI) == ERRNO | errno.EPERM
    assert answer(machine, Wants(), number(machine, "ioctl"), 0, 0x5401) == ALLOW
    assert answer(machine, Wants(), number(machine, "personality"), 0xFFFFFFFF) == ALLOW
    assert answer(machine, Wants(), number(machine, "personality"), 0x0040000) == ERRNO | errno.EPERM


@pytest.mark.parametrize("machine", MACHINES)
def test_signals_reach_only_the_program_itself(machine: str) -> None:
    for name in ("kill", "tgkill", "prlimit64", "sched_setaffinity"):
        called = number(machine, name)
        assert answer(machine, EVERYTHING, called, OWN_PID, 9) == ALLOW, name
        assert answer(machine, EVERYTHING, called, OWN_PID + 1, 9) == ERRNO | errno.EPERM, name
        assert answer(machine, EVERYTHING, called, -1, 9) == ERRNO | errno.EPERM, name
        assert answer(machine, Wants(), called, 1, 9) == ALLOW, name
    assert answer(machine, EVERYTHING, number(machine, "kill"), 0, 9) == ALLOW
    assert answer(machine, EVERYTHING, number(machine, "fcntl"), 3, seccomp.F_SETOWN) == ERRNO | errno.EPERM
    assert (
        answer(machine, EVERYTHING, number(machine, "prctl"), seccomp.PR_SET_DUMPABLE) == ERRNO | errno.EPERM
    )


@pytest.mark.parametrize("machine", MACHINES)
def test_only_local_streams_are_made_where_there_is_no_network_of_its_own(machine: str) -> None:
    called = number(machine, "socket")
    for family in (1, 2, 10, 16, 17, 40):
        for kind in (1, 2, 3, 5, 1 | 0o2000000, 1 | 0o4000, 2 | 0o4000):
            is_local_stream = family == 1 and kind & 0xF == 1
            assert answer(machine, EVERYTHING, called, family, kind) == (
                ALLOW if is_local_stream else ERRNO | errno.EPERM
            )
            assert answer(machine, Wants(), called, family, kind) == ALLOW


@pytest.mark.parametrize("machine", MACHINES)
def test_opening_is_allowed_and_creating_is_not(machine: str) -> None:
    opened = number(machine, "openat")
    assert answer(machine, EVERYTHING, opened, 0, 0, 0o2) == ALLOW
    for flag in (seccomp.O_CREAT, seccomp.O_TMPFILE_BIT):
        assert answer(machine, EVERYTHING, opened, 0, 0, flag | 0o1) == ERRNO | errno.EROFS


def test_an_unknown_machine_is_refused() -> None:
    with pytest.raises(SandboxUnavailable):
        filter_program("riscv64")


@pytest.mark.skipif(platform.machine() not in ARCHITECTURES, reason="no filter is made for this machine")
def test_the_kernel_takes_the_largest_filter() -> None:
    made = filter_program(wants=EVERYTHING)
    assert len(made.code) // 8 < 4_096
    libc = ctypes.CDLL(None, use_errno=True)
    buffer = ctypes.create_string_buffer(made.code, len(made.code))
    description = ctypes.create_string_buffer(
        struct.pack("@HP", len(made.code) // 8, ctypes.addressof(buffer))
    )
    # Without "no new privileges" the kernel looks at the program, finds it good, and then refuses for want of rights;
    # root is let through, so the installation happens in a child.
    child = os.fork()
    if child == 0:
        libc.prctl(38, 1, 0, 0, 0)
        os._exit(0 if libc.prctl(22, 2, description, 0, 0) == 0 else 1)
    assert os.waitpid(child, 0)[1] == 0
