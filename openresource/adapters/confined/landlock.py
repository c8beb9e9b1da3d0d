"""Landlock, the kernel's own list of what a process may open: which rights this kernel knows and which we give."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterable
from typing import Any, Final

CREATE_RULESET: Final = 444
VERSION_FLAG: Final = 1

EXECUTE, WRITE_FILE, READ_FILE, READ_DIR = 1 << 0, 1 << 1, 1 << 2, 1 << 3
REMOVE_DIR, REMOVE_FILE, MAKE_DIR, MAKE_REGULAR = 1 << 4, 1 << 5, 1 << 7, 1 << 8
MAKE_SOCKET, MAKE_FIFO, MAKE_LINK = 1 << 9, 1 << 10, 1 << 12
REFER, TRUNCATE, DEVICE_CONTROL = 1 << 13, 1 << 14, 1 << 15
FILE_RIGHTS: Final = EXECUTE | WRITE_FILE | READ_FILE | TRUNCATE | DEVICE_CONTROL
READ: Final = EXECUTE | READ_FILE | READ_DIR
WRITE: Final = (
    READ
    | WRITE_FILE
    | REMOVE_DIR
    | REMOVE_FILE
    | MAKE_DIR
    | MAKE_REGULAR
    | MAKE_SOCKET
    | MAKE_FIFO
    | MAKE_LINK
    | REFER
    | TRUNCATE
)
NET_RIGHTS: Final = 0b11
SCOPE_ABSTRACT_SOCKETS_AND_SIGNALS: Final = 0b11
# How many file rights each version of the interface knows; the last holds for all that follow.
RIGHTS_BY_VERSION: Final = (0, 13, 14, 15, 15, 16)
SCOPED_VERSION: Final = 6
NET_VERSION: Final = 4
# Of later versions nothing is used.
VERSION_MAX: Final = 7


def version() -> int:
    """The version of Landlock's interface here, 0 where there is none."""
    libc = ctypes.CDLL(None, use_errno=True)
    return max(0, int(libc.syscall(CREATE_RULESET, None, ctypes.c_size_t(0), VERSION_FLAG)))


def rules(
    abi: int, readable: Iterable[str], writable: Iterable[str], devices: Iterable[str]
) -> dict[str, Any]:
    """The launcher's plan for Landlock at a version of its interface."""
    handled = (1 << RIGHTS_BY_VERSION[min(abi, len(RIGHTS_BY_VERSION) - 1)]) - 1
    paths = [(path, _fitting(path, READ & handled)) for path in readable]
    paths += [(path, WRITE & handled) for path in writable]
    paths += [(path, (READ_FILE | WRITE_FILE | TRUNCATE) & handled) for path in devices]
    return {
        "handled": handled,
        "handled_net": NET_RIGHTS if abi >= NET_VERSION else 0,
        "scoped": SCOPE_ABSTRACT_SOCKETS_AND_SIGNALS if abi >= SCOPED_VERSION else 0,
        "bytes": 24 if abi >= SCOPED_VERSION else 16 if abi >= NET_VERSION else 8,
        "paths": paths,
    }


def _fitting(path: str, rights: int) -> int:
    return rights if os.path.isdir(path) else rights & FILE_RIGHTS
