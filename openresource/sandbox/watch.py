"""Looks at a running program every tenth of a second and says when it has taken more than it may.

Kernel limits hold each process; this holds their sum, and what no kernel limit counts: descriptors that carry buffers,
small files by the hundred thousand, work between calls. Where control groups hold memory exactly, it asks them.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from openresource.sandbox import proc
from openresource.sandbox.driver import DiskFull, Limits, OutOfMemory, ProgramCrashed, ProgramError
from openresource.sandbox.proc import TreeSample
from openresource.sandbox.processes import GuestProcess

BUSY_SECONDS: Final = 0.1
IDLE_SECONDS: Final = 0.25
# Sockets and pipes hold kernel memory that belongs to nobody: 1,024 of them about 200 MB at worst.
DESCRIPTORS_MAX: Final = 1_024
INODES_MAX: Final = 20_000
FREE_DISK_BYTES_MIN: Final = 256 << 20


class Watch:
    """The watch over one program."""

    def __init__(
        self,
        process: GuestProcess,
        limits: Limits,
        *,
        is_busy: Callable[[], bool],
        on_violation: Callable[[ProgramError], None],
        inner_folders: Sequence[str] = (),
        disk_folder: Path | None = None,
        descriptors_max: int = DESCRIPTORS_MAX,
        own_bytes: int = 0,
    ) -> None:
        self.peak_resident_bytes = 0
        self.cpu_ms = 0
        self._process = process
        self._limits = limits
        self._is_busy = is_busy
        self._on_violation = on_violation
        self._inner_folders = inner_folders
        self._disk_folder = disk_folder
        self._descriptors_max = descriptors_max
        self._own_bytes = own_bytes
        self._device = os.stat(disk_folder).st_dev if disk_folder is not None else 0
        self._idle_since_cpu_ms: int | None = None
        self._task = asyncio.get_running_loop().create_task(self._run())

    def stop(self) -> None:
        """Look no more."""
        self._task.cancel()

    async def _run(self) -> None:
        while True:
            violation = self.look()
            if violation is not None:
                self._on_violation(violation)
                return
            await asyncio.sleep(BUSY_SECONDS if self._is_busy() else IDLE_SECONDS)

    def look(self) -> ProgramError | None:
        """One look; what is wrong, if something is."""
        pids = self._process.tree()
        seen = proc.sample(pids)
        groups = self._process.groups
        total_ns = groups.cpu_ns() if groups is not None else None
        # Children that nobody waited for take their time with them: never let the sum go back.
        self.cpu_ms = max(self.cpu_ms, seen.cpu_ms if total_ns is None else total_ns // 1_000_000)
        self.peak_resident_bytes = max(self.peak_resident_bytes, seen.resident_bytes)
        if groups is not None:
            self.peak_resident_bytes = max(self.peak_resident_bytes, groups.peak_bytes())
            if groups.oom_kills():
                return OutOfMemory(memory_bytes=self._limits.memory_bytes)
        elif self._is_too_large(seen, pids):
            return OutOfMemory(memory_bytes=self._limits.memory_bytes)
        if seen.descriptors > max(self._descriptors_max, self._limits.open_files):
            return ProgramCrashed(reason=f"it held {seen.descriptors} open files at once", stderr="")
        return self._disk_violation(pids) or self._idle_violation()

    def _is_too_large(self, seen: TreeSample, pids: Sequence[int]) -> bool:
        if self._own_bytes:
            # A kernel in user space keeps its programs' memory in shared pages.
            allowed_bytes = self._limits.memory_bytes + self._own_bytes
            return (
                seen.resident_bytes > allowed_bytes
                and proc.proportional_bytes(pids, with_shared=True) > allowed_bytes
            )
        if seen.private_bytes <= self._limits.memory_bytes:
            return False
        # After a fork both sides count the pages that they still share.
        return len(pids) <= 2 or proc.proportional_bytes(pids) > self._limits.memory_bytes

    def _disk_violation(self, pids: Sequence[int]) -> ProgramError | None:
        for folder in self._inner_folders:
            try:
                status = os.statvfs(f"/proc/{self._process.find_main()}/root{folder}")
            except OSError:
                continue
            if status.f_files - status.f_ffree > INODES_MAX:
                return DiskFull(
                    "The program made more files than it may.", disk_bytes=self._limits.disk_bytes
                )
        if self._disk_folder is None:
            return None
        named, entries = proc.folder_bytes(self._disk_folder, INODES_MAX + 1)
        used = named + proc.deleted_file_bytes(pids, self._device)
        free = os.statvfs(self._disk_folder)
        is_scarce = used > 0 and free.f_bavail * free.f_frsize < FREE_DISK_BYTES_MIN
        if used > self._limits.disk_bytes or entries > INODES_MAX or is_scarce:
            return DiskFull(disk_bytes=self._limits.disk_bytes)
        return None

    def _idle_violation(self) -> ProgramError | None:
        if self._is_busy():
            self._idle_since_cpu_ms = None
            return None
        if self._idle_since_cpu_ms is None:
            self._idle_since_cpu_ms = self.cpu_ms
        used_seconds = (self.cpu_ms - self._idle_since_cpu_ms) / 1000
        if used_seconds > self._limits.idle_cpu_seconds:
            return ProgramCrashed(
                reason=f"it computed {used_seconds:.0f} s while nobody had called it", stderr=""
            )
        return None
