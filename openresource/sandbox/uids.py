"""Numbers of users for programs, one each while it runs: the kernel counts processes per user, and never root's."""

from __future__ import annotations

import fcntl
import os
import tempfile
from pathlib import Path
from typing import Final

from openresource.sandbox.driver import SandboxUnavailable

# A range that no distribution hands out and that fits below 65,536, which containers often map no further than.
UID_FIRST: Final = 60_578
UID_LAST: Final = 61_183


class Uid:
    """A number that is ours until it is given back or this process ends."""

    def __init__(self, number: int, lock: int) -> None:
        self.number = number
        self._lock = lock

    def release(self) -> None:
        """Give it back."""
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1


def take_uid(level: str) -> Uid:
    """A number that no other provider on this machine uses; only root asks."""
    folder = _folder(level)
    count = UID_LAST + 1 - UID_FIRST
    # What a killed provider left under its numbers takes a moment to be gone; its processes would share ours.
    living = _living_uids()
    for step in range(count):
        number = UID_FIRST + (os.getpid() + step) % count
        if number in living:
            continue
        lock = os.open(folder / str(number), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(lock)
            continue
        return Uid(number, lock)
    raise SandboxUnavailable(level=level, why_not=f"all uids from {UID_FIRST} to {UID_LAST} are in use")


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
