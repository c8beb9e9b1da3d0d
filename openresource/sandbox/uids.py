"""Numbers of users for programs, one each while it runs: the kernel counts processes per user, and never root's."""

from __future__ import annotations

import fcntl
import os
import tempfile
import threading
from pathlib import Path
from typing import Final

from openresource.sandbox import proc
from openresource.sandbox.driver import SandboxUnavailable

# A range that no distribution hands out and that fits below 65,536, which containers often map no further than.
UID_FIRST: Final = 60_578
UID_LAST: Final = 61_183
# How many are looked at together: to look through all processes costs more than the start of a small program.
RESERVED_AT_ONCE: Final = 8
RESERVED_MAX: Final = 64


class Uid:
    """A number that is ours until it is given back or this process ends."""

    def __init__(self, number: int, lock: int, *, is_new: bool) -> None:
        """A new number may still get a process of a provider that was killed while it started one."""
        self.number = number
        self.is_new = is_new
        self._lock = lock

    def release(self) -> None:
        """Give it back; one under which nothing runs any more stays with us for the next program."""
        lock, self._lock = self._lock, -1
        if lock < 0:
            return
        with _pool_lock:
            pool = _own_pool()
            if len(pool) < RESERVED_MAX and proc.tasks_of_uid(self.number) == 0:
                pool.append((self.number, lock, False))
                return
        os.close(lock)


# By the process that holds them: a copy of this process must not use its parent's numbers.
_pools: dict[int, list[tuple[int, int, bool]]] = {}
_pool_lock = threading.Lock()


def take_uid(level: str) -> Uid:
    """A number that no other provider on this machine uses; only root asks."""
    with _pool_lock:
        pool = _own_pool()
        if not pool:
            pool += _reserve(_folder(level))
        if not pool:
            raise SandboxUnavailable(
                level=level, why_not=f"all uids from {UID_FIRST} to {UID_LAST} are in use"
            )
        number, lock, is_new = pool.pop()
        return Uid(number, lock, is_new=is_new)


def _own_pool() -> list[tuple[int, int, bool]]:
    own = os.getpid()
    if own not in _pools:
        _pools.clear()
        _pools[own] = []
    return _pools[own]


def _reserve(folder: Path) -> list[tuple[int, int, bool]]:
    """Numbers that we have locked and under which nothing ran after that."""
    found: list[tuple[int, int, bool]] = []
    count = UID_LAST + 1 - UID_FIRST
    for step in range(count):
        number = UID_FIRST + (os.getpid() + step) % count
        lock = os.open(folder / str(number), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(lock)
            continue
        found.append((number, lock, True))
        if len(found) == RESERVED_AT_ONCE or step == count - 1:
            # What a killed provider left under its numbers takes a moment to be gone; its processes would share ours.
            living = _living_uids()
            for taken in [one for one in found if one[0] in living]:
                found.remove(taken)
                os.close(taken[1])
            if found:
                break
    return found


def _living_uids() -> set[int]:
    """The numbers under which processes run now; those that only wait to be reaped do nothing any more."""
    living: set[int] = set()
    for entry in os.scandir("/proc"):
        if not entry.name.isdigit():
            continue
        try:
            with open(f"/proc/{entry.name}/status", "rb") as file:
                lines = dict(line.split(b":", 1) for line in file.read(4096).splitlines() if b":" in line)
        except OSError:
            continue  # It ended while we looked.
        if not lines.get(b"State", b"").strip().startswith(b"Z"):
            living.update(int(number) for number in lines.get(b"Uid", b"").split())
    return living


def _folder(level: str) -> Path:
    for parent in (Path("/run"), Path("/var/run"), Path(tempfile.gettempdir())):
        folder = parent / "openresource-uids"
        try:
            folder.mkdir(mode=0o700, exist_ok=True)
            status = folder.lstat()
        except OSError:
            continue
        # Somebody else's folder would let them hold our numbers.
        if status.st_uid == 0 and status.st_mode & 0o077 == 0 and not folder.is_symlink():
            return folder
    raise SandboxUnavailable(level=level, why_not="no folder for uid locks can be made below /run")
