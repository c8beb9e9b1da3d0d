"""What the kernel tells about a tree of processes: who is in it, what it holds, how long it has computed."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

TICK_MS: Final = 1000 // os.sysconf("SC_CLK_TCK")
PAGE_BYTES: Final = os.sysconf("SC_PAGE_SIZE")
TREE_SIZE_MAX: Final = 4_096
_CPU_CLOCK_OF_PROCESS: Final = 2


@dataclass(frozen=True, slots=True)
class TreeSample:
    """One look at a tree of processes."""

    processes: int
    private_bytes: int
    resident_bytes: int
    cpu_ms: int
    descriptors: int


def descendants(root: int) -> list[int]:
    """Process numbers below one, itself included."""
    found = [root]
    for pid in found:
        if len(found) > TREE_SIZE_MAX:
            break
        found += _children(pid)
    return found


def sample(pids: Sequence[int]) -> TreeSample:
    """Memory, time and descriptors of processes; those that have ended meanwhile count as nothing."""
    private = resident = cpu_ms = descriptors = count = 0
    for pid in pids:
        try:
            with open(f"/proc/{pid}/statm", "rb") as statm:
                pages = statm.read().split()
            with open(f"/proc/{pid}/stat", "rb") as stat:
                fields = stat.read().rpartition(b")")[2].split()
        except OSError:
            continue
        count += 1
        resident += int(pages[1]) * PAGE_BYTES
        # Shared pages are files and tmpfs, which have bounds of their own.
        private += (int(pages[1]) - int(pages[2])) * PAGE_BYTES
        # Its own time, and that of children which have ended and were waited for.
        cpu_ms += sum(int(fields[index]) for index in (11, 12, 13, 14)) * TICK_MS
        descriptors += descriptor_count(pid)
    return TreeSample(count, private, resident, cpu_ms, descriptors)


def proportional_bytes(pids: Sequence[int], *, with_shared: bool = False) -> int:
    """Memory of processes, with pages that several share counted once; slow, so asked only in doubt."""
    members = ("Pss:", "SwapPss:") if with_shared else ("Pss_Anon:", "SwapPss:")
    total = 0
    for pid in pids:
        try:
            text = Path(f"/proc/{pid}/smaps_rollup").read_text()
        except OSError:
            continue
        for line in text.splitlines():
            if line.startswith(members):
                total += int(line.split()[1]) * 1024
    return total


def descriptor_count(pid: int) -> int:
    """How many files a process has open."""
    try:
        # Newer kernels say it in the size.
        return os.stat(f"/proc/{pid}/fd").st_size or len(os.listdir(f"/proc/{pid}/fd"))
    except OSError:
        return 0


def deleted_file_bytes(pids: Sequence[int], device: int) -> int:
    """What files hold that are open on a device and have no name any more."""
    seen: dict[int, int] = {}
    for pid in pids:
        try:
            numbers = os.listdir(f"/proc/{pid}/fd")
        except OSError:
            continue
        for number in numbers:
            try:
                status = os.stat(f"/proc/{pid}/fd/{number}")
            except OSError:
                continue
            if status.st_nlink == 0 and status.st_dev == device:
                seen[status.st_ino] = status.st_blocks * 512
    return sum(seen.values())


def cpu_ns(pid: int) -> int:
    """Processor time of a process (all its threads), to the nanosecond, for the price of one system call."""
    try:
        return time.clock_gettime_ns((~pid << 3) | _CPU_CLOCK_OF_PROCESS)
    except OSError:
        return 0


def tasks_of_uid(uid: int) -> int:
    """How many threads a user has on this machine: what RLIMIT_NPROC counts."""
    count = 0
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                if os.stat(f"/proc/{name}").st_uid == uid:
                    count += len(os.listdir(f"/proc/{name}/task"))
            except OSError:
                continue
    return count


def folder_bytes(folder: Path, entries_max: int) -> tuple[int, int]:
    """Bytes and entries below a folder, counted up to a bound."""
    total = entries = 0
    waiting = [str(folder)]
    while waiting and entries < entries_max:
        try:
            listing = os.scandir(waiting.pop())
        except OSError:
            continue
        with listing:
            for entry in listing:
                entries += 1
                try:
                    if entry.is_dir(follow_symlinks=False):
                        waiting.append(entry.path)
                    total += entry.stat(follow_symlinks=False).st_blocks * 512
                except OSError:
                    continue
    return total, entries


def _children(pid: int) -> list[int]:
    children: list[int] = []
    try:
        for task in os.listdir(f"/proc/{pid}/task"):
            with open(f"/proc/{pid}/task/{task}/children", "rb") as listing:
                children += map(int, listing.read().split())
    except OSError:
        return children
    return children
