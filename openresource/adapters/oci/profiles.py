"""The list of system calls that no program may make, as engines read it: the same one as under the other drivers."""

from __future__ import annotations

import errno
import json
import platform
from typing import Any, Final

from openresource.sandbox.seccomp import ABSENT, CLONE_NEW_ANYTHING, FORBIDDEN, TIOCLINUX, TIOCSTI

ARCHITECTURES: Final = {"x86_64": "SCMP_ARCH_X86_64", "aarch64": "SCMP_ARCH_AARCH64"}
# Bits of personality() that weaken a process: fixed addresses, and memory that is executable wherever it is readable.
PERSONALITY_BITS: Final = (0x0040000, 0x0400000)


def seccomp_profile(machine: str = "") -> str:
    """The profile as JSON."""
    rules: list[dict[str, Any]] = [
        _refuse(list(ABSENT), errno.ENOSYS),
        _refuse(list(FORBIDDEN), errno.EPERM),
    ]
    rules += [_refuse(["clone"], errno.EPERM, _has_bit(0, bit)) for bit in _bits(CLONE_NEW_ANYTHING)]
    rules += [_refuse(["personality"], errno.EPERM, _has_bit(0, bit)) for bit in PERSONALITY_BITS]
    rules += [_refuse(["ioctl"], errno.EPERM, _equals(1, value)) for value in (TIOCSTI, TIOCLINUX)]
    known = ARCHITECTURES.get(machine or platform.machine())
    return json.dumps(
        {
            "defaultAction": "SCMP_ACT_ALLOW",
            # Another numbering of system calls is another architecture, and ends the program.
            "architectures": [known] if known else [],
            "syscalls": rules,
        }
    )


def _refuse(names: list[str], error: int, condition: dict[str, Any] | None = None) -> dict[str, Any]:
    rule: dict[str, Any] = {"names": names, "action": "SCMP_ACT_ERRNO", "errnoRet": error}
    return {**rule, "args": [condition]} if condition is not None else rule


def _has_bit(index: int, bit: int) -> dict[str, Any]:
    return {"index": index, "value": bit, "valueTwo": bit, "op": "SCMP_CMP_MASKED_EQ"}


def _equals(index: int, value: int) -> dict[str, Any]:
    return {"index": index, "value": value, "valueTwo": 0, "op": "SCMP_CMP_EQ"}


def _bits(mask: int) -> list[int]:
    return [1 << number for number in range(32) if mask >> number & 1]
