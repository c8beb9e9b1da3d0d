"""The system calls that a program may not make, as a BPF program made here for x86-64 and arm64.

What is refused is what could reach around the other limits: namespaces and mounts, other processes' memory, keys, BPF,
io_uring, and memory that no limit counts. System calls younger than this list do not exist for a program.
`filter_program` makes the bytes that the kernel takes; tests run them through a small BPF machine.
"""

from __future__ import annotations

import errno
import platform
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from openresource.sandbox.driver import SandboxUnavailable

ARCHITECTURES: Final = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
# The first number that was not reviewed for this list; it also refuses the x32 numbers of x86-64.
UNKNOWN_FROM: Final = 463

CLONE_NEW_ANYTHING: Final = 0x7E020080  # time, mount, cgroup, uts, ipc, user, pid, network
PERSONALITY_QUERY: Final = 0xFFFFFFFF
TIOCSTI: Final = 0x5412
TIOCLINUX: Final = 0x541C
FIOSETOWN: Final = 0x8901
SIOCSPGRP: Final = 0x8902
F_SETOWN: Final = 8
F_SETSIG: Final = 10
F_SETOWN_EX: Final = 15
PR_SET_DUMPABLE: Final = 4
O_CREAT: Final = 0o100
O_TMPFILE_BIT: Final = 0o20000000

KILL: Final = 0x80000000
ALLOW: Final = 0x7FFF0000
ERRNO: Final = 0x00050000

_LOAD_WORD: Final = 0x20
_JUMP_EQUAL: Final = 0x15
_JUMP_AT_LEAST: Final = 0x35
_JUMP_ANY_BIT: Final = 0x45
_AND: Final = 0x54
_RETURN: Final = 0x06
_NUMBER_OFFSET: Final = 0
_ARCHITECTURE_OFFSET: Final = 4
_ARGUMENTS_OFFSET: Final = 16

# Name: number on x86-64, number on arm64 (None where it does not exist).
NUMBERS: Final[dict[str, tuple[int | None, int | None]]] = {
    "acct": (163, 89), "add_key": (248, 217), "adjtimex": (159, 171), "afs_syscall": (183, None), "bind": (49, 200), "bpf": (321, 280),
    "chroot": (161, 51), "clock_adjtime": (305, 266), "clock_settime": (227, 112), "clone": (56, 220),
    "clone3": (435, 435), "connect": (42, 203), "creat": (85, None), "delete_module": (176, 106),
    "fanotify_init": (300, 262), "fanotify_mark": (301, 263), "fcntl": (72, 25), "finit_module": (313, 273), "fsconfig": (431, 431),
    "fsmount": (432, 432), "fsopen": (430, 430), "fspick": (433, 433), "init_module": (175, 105),
    "io_uring_enter": (426, 426), "io_uring_register": (427, 427), "io_uring_setup": (425, 425), "ioctl": (16, 29),
    "ioperm": (173, None), "ioprio_set": (251, 30), "iopl": (172, None), "kcmp": (312, 272), "kexec_file_load": (320, 294),
    "kexec_load": (246, 104), "keyctl": (250, 219), "kill": (62, 129), "link": (86, None), "linkat": (265, 37),
    "listmount": (458, 458), "lookup_dcookie": (212, 18), "lsm_set_self_attr": (460, 460),
    "map_shadow_stack": (453, 453), "mbind": (237, 235), "memfd_create": (319, 279), "memfd_secret": (447, 447),
    "migrate_pages": (256, 238), "mkdir": (83, None), "mkdirat": (258, 34), "mknod": (133, None),
    "mknodat": (259, 33), "modify_ldt": (154, None), "mount": (165, 40), "mount_setattr": (442, 442),
    "move_mount": (429, 429), "move_pages": (279, 239), "mq_open": (240, 180), "msgget": (68, 186),
    "name_to_handle_at": (303, 264), "nfsservctl": (180, 42), "open": (2, None), "open_by_handle_at": (304, 265),
    "open_tree": (428, 428), "openat": (257, 56), "openat2": (437, 437), "perf_event_open": (298, 241),
    "personality": (135, 92), "pidfd_getfd": (438, 438), "pidfd_send_signal": (424, 424), "pivot_root": (155, 41),
    "prctl": (157, 167), "prlimit64": (302, 261), "process_madvise": (440, 440), "process_mrelease": (448, 448),
    "process_vm_readv": (310, 270), "process_vm_writev": (311, 271), "ptrace": (101, 117), "quotactl": (179, 60),
    "quotactl_fd": (443, 443), "reboot": (169, 142), "rename": (82, None), "renameat": (264, 38),
    "renameat2": (316, 276), "request_key": (249, 218), "rt_sigqueueinfo": (129, 138),
    "rt_tgsigqueueinfo": (297, 240), "sched_setaffinity": (203, 122), "sched_setattr": (314, 274),
    "sched_setparam": (142, 118), "sched_setscheduler": (144, 119), "setpriority": (141, 140), "semget": (64, 190), "set_mempolicy": (238, 237),
    "set_mempolicy_home_node": (450, 450), "setdomainname": (171, 162), "sethostname": (170, 161),
    "setns": (308, 268), "settimeofday": (164, 170), "shmget": (29, 194), "socket": (41, 198),
    "statmount": (457, 457), "swapoff": (168, 225), "swapon": (167, 224), "symlink": (88, None),
    "symlinkat": (266, 36), "syslog": (103, 116), "tgkill": (234, 131), "tkill": (200, 130), "truncate": (76, 45),
    "umount2": (166, 39), "unlink": (87, None), "unlinkat": (263, 35), "unshare": (272, 97), "uselib": (134, None),
    "userfaultfd": (323, 282), "vhangup": (153, 58), "vserver": (236, None),
}  # fmt: skip

# Libraries fall back when these do not exist, and would give up if they were merely forbidden.
ABSENT: Final = (
    "clone3",
    "memfd_create",
    "memfd_secret",
    "io_uring_setup",
    "statmount",
    "listmount",
    "openat2",
)
FORBIDDEN: Final = (
    "acct", "add_key", "adjtimex", "afs_syscall", "bpf", "chroot", "clock_adjtime", "clock_settime", "delete_module",
    "fanotify_init", "fanotify_mark", "finit_module", "fsconfig", "fsmount", "fsopen", "fspick", "init_module",
    "io_uring_enter", "io_uring_register", "ioperm", "iopl", "kcmp", "kexec_file_load", "kexec_load", "keyctl",
    "lookup_dcookie", "lsm_set_self_attr", "map_shadow_stack", "mbind", "migrate_pages", "modify_ldt", "mount",
    "mount_setattr", "move_mount", "move_pages", "mq_open", "msgget", "name_to_handle_at", "nfsservctl",
    "open_by_handle_at", "open_tree", "perf_event_open", "pidfd_getfd", "pivot_root", "process_madvise",
    "process_mrelease", "process_vm_readv", "process_vm_writev", "ptrace", "quotactl", "quotactl_fd", "reboot",
    "request_key", "semget", "set_mempolicy", "set_mempolicy_home_node", "setdomainname", "sethostname", "setns",
    "settimeofday", "shmget", "swapoff", "swapon", "syslog", "umount2", "unshare", "uselib", "userfaultfd", "vhangup",
    "vserver",
)  # fmt: skip
# Without namespaces there is no wall between a program and this machine's sockets: it must not connect to any.
# It may listen at a path in its own folder, as some libraries insist on a server, but reach nobody.
SOCKETS: Final = ("connect",)
AF_UNIX: Final = 1
SOCK_STREAM: Final = 1
SOCK_TYPE_MASK: Final = 0xF
# Where programs share the provider's uid, these would reach its other processes.
NEIGHBOURS: Final = ("ioprio_set", "sched_setattr", "sched_setparam", "sched_setscheduler", "setpriority")
SIGNALS: Final = ("tkill", "pidfd_send_signal", "rt_sigqueueinfo", "rt_tgsigqueueinfo")
# Without Landlock nothing tells folders apart: then nothing at all is created or renamed.
CHANGES: Final = (
    "bind", "creat", "link", "linkat", "mkdir", "mkdirat", "mknod", "mknodat", "rename", "renameat", "renameat2", "symlink",
    "symlinkat", "truncate", "unlink", "unlinkat",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Filter:
    """Bytes for the kernel; at `pid_offsets` stands the program's own process number, once it is known."""

    code: bytes
    pid_offsets: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Wants:
    """What a filter refuses beyond its base."""

    sockets: bool = False  # no network, and no connection to anything
    signals: bool = False  # signals only to itself and its own group
    neighbours: bool = False  # limits and priorities only of itself
    changes: bool = False  # no file is created, renamed or deleted
    hiding: bool = False  # a process may not hide itself from the watch


NAMESPACED: Final = Wants()


def machine_supported() -> bool:
    """Whether this machine's instruction set is one that a filter can be made for."""
    return platform.machine() in ARCHITECTURES


def filter_program(machine: str = "", wants: Wants = NAMESPACED) -> Filter:
    """The filter for a machine (this one if none is named)."""
    machine = machine or platform.machine()
    if machine not in ARCHITECTURES:
        raise SandboxUnavailable(level="any", why_not=f"system calls cannot be filtered on {machine}")
    assembler = _Assembler(0 if machine == "x86_64" else 1)
    assembler.add(_LOAD_WORD, _ARCHITECTURE_OFFSET)
    assembler.add(_JUMP_EQUAL, ARCHITECTURES[machine], 1, 0)
    assembler.add(_RETURN, KILL)
    assembler.add(_LOAD_WORD, _NUMBER_OFFSET)
    assembler.add(_JUMP_AT_LEAST, UNKNOWN_FROM, 0, 1)
    assembler.add(_RETURN, ERRNO | errno.ENOSYS)
    for name in ABSENT:
        assembler.refuse(name, errno.ENOSYS)
    for name in FORBIDDEN:
        assembler.refuse(name, errno.EPERM)
    assembler.refuse_bits("clone", 0, CLONE_NEW_ANYTHING)
    owners = (FIOSETOWN, SIOCSPGRP) if wants.signals else ()
    assembler.refuse_values("ioctl", 1, (TIOCSTI, TIOCLINUX, *owners))
    assembler.allow_values("personality", 0, (0, PERSONALITY_QUERY))
    if wants.hiding:
        assembler.refuse_values("prctl", 0, (PR_SET_DUMPABLE,))
    if wants.sockets:
        for name in SOCKETS:
            assembler.refuse(name, errno.EPERM)
        assembler.allow_local_streams()
    if wants.signals:
        for name in SIGNALS:
            assembler.refuse(name, errno.EPERM)
        assembler.allow_self("kill", also=(0,))
        assembler.allow_self("tgkill", also=())
        assembler.refuse_values("fcntl", 1, (F_SETOWN, F_SETSIG, F_SETOWN_EX))
    if wants.neighbours:
        for name in NEIGHBOURS:
            assembler.refuse(name, errno.EPERM)
        assembler.allow_self("prlimit64", also=(0,))
        assembler.allow_self("sched_setaffinity", also=(0,))
    if wants.changes:
        for name in CHANGES:
            assembler.refuse(name, errno.EROFS)
        assembler.refuse_bits("open", 1, O_CREAT | O_TMPFILE_BIT, errno.EROFS)
        assembler.refuse_bits("openat", 2, O_CREAT | O_TMPFILE_BIT, errno.EROFS)
    assembler.add(_RETURN, ALLOW)
    return Filter(assembler.code(), tuple(assembler.pid_offsets))


class _Assembler:
    """Collects instructions; the system call's number is in the accumulator between rules."""

    def __init__(self, column: int) -> None:
        self._column = column
        self._instructions: list[tuple[int, int, int, int]] = []
        self.pid_offsets: list[int] = []

    def add(self, code: int, value: int, if_true: int = 0, if_false: int = 0) -> None:
        self._instructions.append((code, if_true, if_false, value))

    def code(self) -> bytes:
        return b"".join(struct.pack("=HBBI", *instruction) for instruction in self._instructions)

    def refuse(self, name: str, error: int) -> None:
        number = NUMBERS[name][self._column]
        if number is not None:
            self.add(_JUMP_EQUAL, number, 0, 1)
            self.add(_RETURN, ERRNO | error)

    def refuse_bits(self, name: str, argument: int, bits: int, error: int = errno.EPERM) -> None:
        if self._begin(name, argument, 4):
            self.add(_JUMP_ANY_BIT, bits, 0, 1)
            self.add(_RETURN, ERRNO | error)
            self.add(_RETURN, ALLOW)

    def refuse_values(self, name: str, argument: int, values: Sequence[int]) -> None:
        if self._begin(name, argument, 2 + 2 * len(values)):
            for value in values:
                self.add(_JUMP_EQUAL, value, 0, 1)
                self.add(_RETURN, ERRNO | errno.EPERM)
            self.add(_RETURN, ALLOW)

    def allow_values(self, name: str, argument: int, values: Sequence[int]) -> None:
        if self._begin(name, argument, 2 + 2 * len(values)):
            for value in values:
                self.add(_JUMP_EQUAL, value, 0, 1)
                self.add(_RETURN, ALLOW)
            self.add(_RETURN, ERRNO | errno.EPERM)

    def allow_self(self, name: str, also: Sequence[int]) -> None:
        if self._begin(name, 0, 4 + 2 * len(also)):
            for value in also:
                self.add(_JUMP_EQUAL, value, 0, 1)
                self.add(_RETURN, ALLOW)
            self.pid_offsets.append(8 * len(self._instructions) + 4)
            self.add(_JUMP_EQUAL, 0, 0, 1)
            self.add(_RETURN, ALLOW)
            self.add(_RETURN, ERRNO | errno.EPERM)

    def allow_local_streams(self) -> None:
        """socket: only streams of the local family; datagrams could be sent without connecting."""
        if self._begin("socket", 0, 8):
            self.add(_JUMP_EQUAL, AF_UNIX, 1, 0)
            self.add(_RETURN, ERRNO | errno.EPERM)
            self.add(_LOAD_WORD, _ARGUMENTS_OFFSET + 8)
            self.add(_AND, SOCK_TYPE_MASK)
            self.add(_JUMP_EQUAL, SOCK_STREAM, 1, 0)
            self.add(_RETURN, ERRNO | errno.EPERM)
            self.add(_RETURN, ALLOW)

    def _begin(self, name: str, argument: int, length: int) -> bool:
        """Jumps over the next `length` instructions, one of them made here, unless it is this system call."""
        number = NUMBERS[name][self._column]
        if number is None:
            return False
        self.add(_JUMP_EQUAL, number, 0, length)
        self.add(_LOAD_WORD, _ARGUMENTS_OFFSET + 8 * argument)
        return True
