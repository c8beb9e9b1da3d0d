"""Control groups: the only exact bounds on memory and processor; used where root and version 1 hierarchies allow it.

Where they cannot be made, limits per process and the watch hold the bounds, and capabilities say so.
"""

from __future__ import annotations

import itertools
import os
from pathlib import Path
from typing import Final

from openresource.sandbox.driver import Limits

CONTROLLERS: Final = ("memory", "pids", "cpu", "cpuacct")
PERIOD_US: Final = 100_000
_numbers = itertools.count(1)


class Groups:
    """The groups of one instance, one folder per controller."""

    def __init__(self, folders: dict[str, Path]) -> None:
        self.folders = folders
        accounting = folders.get("cpuacct")
        self._usage = os.open(accounting / "cpuacct.usage", os.O_RDONLY | os.O_CLOEXEC) if accounting else -1

    @property
    def enter_files(self) -> list[str]:
        """Where a process writes its number to be held."""
        return [str(folder / "cgroup.procs") for folder in self.folders.values()]

    def cpu_ns(self) -> int | None:
        """Processor time of everything that was ever in the group."""
        return int(os.pread(self._usage, 32, 0)) if self._usage >= 0 else None

    def oom_kills(self) -> int:
        """How often the kernel killed for want of memory."""
        if "memory" in self.folders:
            for line in _read(self.folders["memory"] / "memory.oom_control").splitlines():
                if line.startswith("oom_kill "):
                    return int(line.split()[1])
        return 0

    def peak_bytes(self) -> int:
        """The most memory that was held at once."""
        text = _read(self.folders["memory"] / "memory.max_usage_in_bytes") if "memory" in self.folders else ""
        return int(text or 0)

    def remove(self) -> bool:
        """Remove the groups; false while something is still in them."""
        if self._usage >= 0:
            os.close(self._usage)
            self._usage = -1
        for name, folder in list(self.folders.items()):
            try:
                folder.rmdir()
            except FileNotFoundError:
                pass
            except OSError:
                return False
            del self.folders[name]
        return True


def make_groups(limits: Limits) -> Groups | None:
    """Groups that hold these limits, or None where this machine gives none."""
    if os.geteuid() != 0:
        return None
    folders: dict[str, Path] = {}
    name = f"openresource-{os.getpid()}-{next(_numbers)}"
    try:
        for controller, parent in _parents().items():
            folder = parent / name
            folder.mkdir(mode=0o755)
            folders[controller] = folder
            _set(controller, folder, limits)
    except OSError:
        Groups(folders).remove()
        return None
    if "memory" not in folders or "pids" not in folders:
        Groups(folders).remove()
        return None
    return Groups(folders)


def _set(controller: str, folder: Path, limits: Limits) -> None:
    if controller == "memory":
        (folder / "memory.limit_in_bytes").write_text(str(limits.memory_bytes))
        with_swap = folder / "memory.memsw.limit_in_bytes"
        if with_swap.exists():
            with_swap.write_text(str(limits.memory_bytes))
    elif controller == "pids":
        (folder / "pids.max").write_text(str(limits.processes + 4))
    elif controller == "cpu":
        (folder / "cpu.cfs_period_us").write_text(str(PERIOD_US))
        (folder / "cpu.cfs_quota_us").write_text(str(max(1_000, int(PERIOD_US * limits.cpu))))


def _parents() -> dict[str, Path]:
    """Where each controller of version 1 is mounted, at our own place in it where that can be seen."""
    own: dict[str, str] = {}
    for line in _read(Path("/proc/self/cgroup")).splitlines():
        _, controllers, place = line.split(":", 2)
        own.update((controller, place) for controller in controllers.split(","))
    found: dict[str, Path] = {}
    for line in _read(Path("/proc/self/mounts")).splitlines():
        fields = line.split()
        if len(fields) < 4 or fields[2] != "cgroup":
            continue
        for controller in set(fields[3].split(",")) & set(CONTROLLERS):
            inside = Path(fields[1]) / own.get(controller, "/").lstrip("/")
            found[controller] = inside if inside.is_dir() else Path(fields[1])
    return found


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""
