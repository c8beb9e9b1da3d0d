"""Becomes a command on a machine that refuses what is named first, for real: `refuse.py namespaces,landlock -- COMMAND`.

A filter of system calls does what containers and careful distributions do; nothing in the command can undo it.
"""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import struct
import sys

from openresource.sandbox.seccomp import ALLOW, CLONE_NEW_ANYTHING, ERRNO, NUMBERS

COLUMN = 0 if platform.machine() == "x86_64" else 1
LANDLOCK_CREATE_RULESET = 444


def refusal(number: int, error: int) -> list[tuple[int, int, int, int]]:
    """A system call fails."""
    return [(0x15, 0, 1, number), (0x06, 0, 0, ERRNO | error)]


def program(refused: set[str]) -> bytes:
    """The filter for what is refused."""
    code = [(0x20, 0, 0, 0)]
    if "namespaces" in refused:
        for name in ("unshare", "setns", "mount", "pivot_root"):
            number = NUMBERS[name][COLUMN]
            assert number is not None
            code += refusal(number, errno.EPERM)
        code += refusal(435, errno.ENOSYS)
        clone = NUMBERS["clone"][COLUMN]
        assert clone is not None
        code += [
            (0x15, 0, 4, clone),
            (0x20, 0, 0, 16),
            (0x45, 0, 1, CLONE_NEW_ANYTHING),
            (0x06, 0, 0, ERRNO | errno.EPERM),
        ]
        code += [(0x06, 0, 0, ALLOW)]
    if "landlock" in refused:
        code += refusal(LANDLOCK_CREATE_RULESET, errno.ENOSYS)
    code.append((0x06, 0, 0, ALLOW))
    return b"".join(struct.pack("=HBBI", *instruction) for instruction in code)


def main() -> None:
    """Install the filter, become the command."""
    filter_code = program(set(sys.argv[1].split(",")))
    libc = ctypes.CDLL(None, use_errno=True)
    buffer = ctypes.create_string_buffer(filter_code, len(filter_code))
    description = ctypes.create_string_buffer(
        struct.pack("@HP", len(filter_code) // 8, ctypes.addressof(buffer))
    )
    assert libc.prctl(38, 1, 0, 0, 0) == 0
    assert libc.prctl(22, 2, description, 0, 0) == 0, os.strerror(ctypes.get_errno())
    os.execv(sys.argv[2], sys.argv[2:])


if __name__ == "__main__":
    main()
