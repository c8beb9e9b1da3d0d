"""Keeps what was built: dependency layers and built programs, each whole or not there, bounded in size, the least
recently used cleared away first.

One key is built by one process at a time; whoever uses an entry holds it, and what is held is never removed. Locks are
the kernel's, so that a killed process leaves nothing locked.
"""

from __future__ import annotations

import asyncio
import fcntl
import json
import os
import re
import stat
import subprocess
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from openresource.primitives.errors import Refusal

BYTES_MAX: Final = 20 << 30
ENTRIES_MAX: Final = 500
WAIT_SECONDS_MAX: Final = 1_800.0
LOOK_SECONDS: Final = 0.1
REMOVE_SECONDS_MAX: Final = 300.0
RECORD_FILE: Final = "record.json"
CONTENT: Final = "content"
MAKING: Final = ".making"
KINDS: Final = ("dependencies", "releases")

_KEY = re.compile("[0-9a-f]{64}")


class BuildIsBusy(Refusal):
    template = "Somebody else on this machine has been building the same for {seconds} seconds."
    way_out = "Wait for it, or end that process."


@dataclass(slots=True)
class Entry:
    """Something built; held for as long as this object lives."""

    key: str
    folder: Path
    record: dict[str, Any]
    _hold: Hold

    @property
    def content(self) -> Path:
        """The folder of what was built."""
        return self.folder / CONTENT


class Hold:
    """A lock on a key; given back when nobody refers to it any more."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def try_take(self, *, alone: bool) -> bool:
        """Take it, or change how it is held."""
        try:
            fcntl.flock(self._descriptor, (fcntl.LOCK_EX if alone else fcntl.LOCK_SH) | fcntl.LOCK_NB)
            return True
        except BlockingIOError:
            return False

    def close(self) -> None:
        """Give it back."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def __del__(self) -> None:
        self.close()


class Cache:
    """The folder of everything built on this machine by one user."""

    def __init__(self, folder: Path, *, bytes_max: int = BYTES_MAX, entries_max: int = ENTRIES_MAX) -> None:
        self.folder = folder
        self._bytes_max = bytes_max
        self._entries_max = entries_max
        for name in (*KINDS, "locks"):
            (folder / name).mkdir(mode=0o755, parents=True, exist_ok=True)

    @asynccontextmanager
    async def making(self, kind: str, key: str) -> AsyncIterator[tuple[Entry | None, Path]]:
        """The entry if it is there, else an empty folder to make it in, in which nobody else works meanwhile."""
        hold = await self._lock(kind, key)
        fresh = self.folder / kind / f".making-{key}"
        try:
            entry = self.find(kind, key)
            if entry is not None:
                # Others that only want to have it need not wait for us.
                hold.close()
                yield entry, fresh
                return
            await asyncio.to_thread(remove, fresh)
            fresh.mkdir(mode=0o755)
            try:
                yield None, fresh
            finally:
                # An entry that was kept has been renamed; whatever is still here has failed.
                if fresh.exists():
                    await asyncio.to_thread(remove, fresh)
        finally:
            hold.close()

    async def keep(self, kind: str, key: str, fresh: Path, record: dict[str, Any]) -> Entry:
        """Make a finished folder an entry: whole, at once."""
        size = await asyncio.to_thread(folder_bytes, fresh)
        record = {**record, "bytes": size}
        (fresh / RECORD_FILE).write_text(json.dumps(record), encoding="utf-8")
        target = self.folder / kind / key
        await asyncio.to_thread(remove, target)
        fresh.rename(target)
        entry = self.find(kind, key)
        assert entry is not None, "it has just been written, and it is held from now on"
        await asyncio.to_thread(self.clear)
        return entry

    def find(self, kind: str, key: str) -> Entry | None:
        """An entry, held; None if it is not there or is being removed."""
        hold = self._hold(kind, key)
        folder = self.folder / kind / key
        record = _record(folder) if hold.try_take(alone=False) else None
        if record is None:
            hold.close()
            return None
        os.utime(folder / RECORD_FILE)
        return Entry(key, folder, record, hold)

    def clear(self) -> int:
        """Remove what was not used for longest until the rest fits; how many entries went."""
        entries = sorted(self._entries(), key=lambda entry: entry[0])
        size = sum(entry[1] for entry in entries)
        count, gone = len(entries), 0
        for _, entry_bytes, kind, key in entries:
            if size <= self._bytes_max and count <= self._entries_max:
                break
            if self._remove(kind, key):
                size, count, gone = size - entry_bytes, count - 1, gone + 1
        return gone

    def total_bytes(self) -> int:
        """What all entries take together."""
        return sum(entry[1] for entry in self._entries())

    def _entries(self) -> Iterator[tuple[float, int, str, str]]:
        """When it was last used, its size, kind and key."""
        for kind in KINDS:
            for folder in (self.folder / kind).iterdir():
                record = _record(folder)
                if _KEY.fullmatch(folder.name) and record is not None:
                    yield (
                        (folder / RECORD_FILE).stat().st_mtime,
                        int(record.get("bytes", 0)),
                        kind,
                        folder.name,
                    )

    def _remove(self, kind: str, key: str) -> bool:
        """Remove an entry that nobody has and nobody is about to make again."""
        holds = (self._hold(kind, key), self._hold(kind, key, MAKING))
        try:
            if not all(hold.try_take(alone=True) for hold in holds):
                return False
            # Half-removed things must not be found under their name.
            doomed = self.folder / kind / f".making-{key}"
            remove(doomed)
            (self.folder / kind / key).rename(doomed)
            remove(doomed)
            return True
        except FileNotFoundError:
            return False
        finally:
            for hold in holds:
                hold.close()

    def _hold(self, kind: str, key: str, purpose: str = "") -> Hold:
        assert kind in KINDS and _KEY.fullmatch(key)
        path = self.folder / "locks" / f"{kind}-{key}{purpose}"
        return Hold(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600))

    async def _lock(self, kind: str, key: str) -> Hold:
        """The making of a key for oneself."""
        hold = self._hold(kind, key, MAKING)
        began = time.monotonic()
        try:
            while not hold.try_take(alone=True):
                if time.monotonic() - began > WAIT_SECONDS_MAX:
                    raise BuildIsBusy(seconds=round(WAIT_SECONDS_MAX))
                await asyncio.sleep(LOOK_SECONDS)
        except BaseException:
            hold.close()
            raise
        return hold


def remove(path: Path) -> None:
    """Remove a folder that strangers' tools have filled: whatever its modes and however deep."""
    if not os.path.lexists(path):
        return
    for words in (["chmod", "-R", "u+rwX", "--", str(path)], ["rm", "-rf", "--", str(path)]):
        subprocess.run(words, stderr=subprocess.DEVNULL, timeout=REMOVE_SECONDS_MAX, check=False)


def folder_bytes(folder: Path) -> int:
    """The bytes that a folder takes; a file that is shared with another entry counts for its part."""
    total, layers = 0, [str(folder)]
    while layers:
        with os.scandir(layers.pop()) as entries:
            for entry in entries:
                status = entry.stat(follow_symlinks=False)
                if stat.S_ISDIR(status.st_mode):
                    layers.append(entry.path)
                total += (
                    status.st_blocks * 512 // max(1, status.st_nlink if stat.S_ISREG(status.st_mode) else 1)
                )
    return total


def _record(folder: Path) -> dict[str, Any] | None:
    try:
        record = json.loads((folder / RECORD_FILE).read_bytes())
    except (OSError, ValueError):
        return None
    return record if isinstance(record, dict) else None
