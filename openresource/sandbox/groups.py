"""Control groups: the only exact bounds on memory, processes and processor; used wherever this machine lets us make one.

Version 1 needs root. Version 2 needs a part of the tree that is ours: root's, or what systemd delegates to a user, as
`systemd-run --user --scope -p Delegate=yes COMMAND` does. A parent is taken only after a process has really been put
into a group below it. Where none can be made, limits per process and the watch hold the bounds, and capabilities say so.
"""

from __future__ import annotations

import itertools
import os
import subprocess
import threading
from pathlib import Path
from typing import Final

from openresource.sandbox.driver import Limits

CONTROLLERS: Final = ("memory", "pids", "cpu", "cpuacct")
CONTROLLERS_2: Final = ("memory", "pids", "cpu")
PERIOD_US: Final = 100_000
QUOTA_US_MIN: Final = 1_000
# The launcher and what a driver adds to the program.
OWN_PROCESSES: Final = 4
OWN_LEAF: Final = "openresource-provider"
_numbers = itertools.count(1)


class Groups:
    """The groups of one instance in version 1: one folder per controller."""

    def __init__(self, folders: dict[str, Path]) -> None:
        self.folders = folders
        accounting = folders.get("cpuacct")
        self._usage = os.open(accounting / "cpuacct.usage", os.O_RDONLY | os.O_CLOEXEC) if accounting else -1

    @property
    def controllers(self) -> frozenset[str]:
        """What they hold."""
        return frozenset(self.folders)

    @property
    def enter_files(self) -> list[str]:
        """Where a process of one thread writes 0 to be held.

        Any other way waits until all of the machine's forks have come to a point, which takes several times as long as
        the start of a program.
        """
        return [str(folder / "tasks") for folder in self.folders.values()]

    def cpu_ns(self) -> int | None:
        """Processor time of everything that was ever in the group."""
        return int(os.pread(self._usage, 32, 0)) if self._usage >= 0 else None

    def oom_kills(self) -> int:
        """How often the kernel killed for want of memory."""
        if "memory" in self.folders:
            return _member(self.folders["memory"] / "memory.oom_control", "oom_kill")
        return 0

    def peak_bytes(self) -> int:
        """The most memory that was held at once."""
        text = _read(self.folders["memory"] / "memory.max_usage_in_bytes") if "memory" in self.folders else ""
        return int(text or 0)

    def kill(self) -> None:
        """Version 1 kills nothing by itself; whoever made the processes does."""

    def remove(self) -> bool:
        """Remove the groups; false while something is still in them."""
        if self._usage >= 0:
            os.close(self._usage)
            self._usage = -1
        for name, folder in list(self.folders.items()):
            if not _remove(folder):
                return False
            del self.folders[name]
        return True


class UnifiedGroup(Groups):
    """The group of one instance in version 2: one folder for all controllers."""

    def __init__(self, folder: Path, controllers: frozenset[str]) -> None:
        super().__init__({})
        self.folder = folder
        self._controllers = controllers

    @property
    def controllers(self) -> frozenset[str]:
        """What it holds."""
        return self._controllers

    @property
    def enter_files(self) -> list[str]:
        """Where a process writes 0 to be held."""
        return [str(self.folder / "cgroup.procs")]

    def cpu_ns(self) -> int | None:
        """Processor time of everything that was ever in the group."""
        text = _read(self.folder / "cpu.stat")
        return _member_of(text, "usage_usec") * 1_000 if text else None

    def oom_kills(self) -> int:
        """How often the kernel killed for want of memory."""
        return _member(self.folder / "memory.events", "oom_kill")

    def peak_bytes(self) -> int:
        """The most memory that was held at once, or what is held now where the kernel keeps no record."""
        return int(_read(self.folder / "memory.peak") or _read(self.folder / "memory.current") or 0)

    def kill(self) -> None:
        """Everything in the group, at once, by the kernel itself."""
        try:
            (self.folder / "cgroup.kill").write_text("1")
        except OSError:
            # Before Linux 5.14, or nothing is in it any more: the driver kills as everywhere.
            return

    def remove(self) -> bool:
        """Remove the group; false while something is still in it."""
        return _remove(self.folder)


def make_groups(limits: Limits) -> Groups | None:
    """Groups that hold these limits, or None where this machine gives none."""
    name = f"openresource-{os.getpid()}-{next(_numbers)}"
    groups = make_version_1(_parents(), name, limits) if os.geteuid() == 0 else None
    if groups is None:
        parent = unified_parent()
        groups = make_version_2(parent, name, limits) if parent is not None else None
    return groups


def make_version_1(parents: dict[str, Path], name: str, limits: Limits) -> Groups | None:
    """Groups below the parent of each controller; None unless both memory and processes can be held."""
    folders: dict[str, Path] = {}
    try:
        for controller, parent in parents.items():
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


def make_version_2(parent: Path, name: str, limits: Limits) -> UnifiedGroup | None:
    """A group below a parent that passes its controllers on; None unless both memory and processes can be held."""
    passed_on = frozenset(_read(parent / "cgroup.subtree_control").split()) & frozenset(CONTROLLERS_2)
    if not {"memory", "pids"} <= passed_on:
        return None
    folder = parent / name
    group = UnifiedGroup(folder, passed_on)
    try:
        folder.mkdir(mode=0o755)
        (folder / "memory.max").write_text(str(limits.memory_bytes))
        (folder / "pids.max").write_text(str(limits.processes + OWN_PROCESSES))
        if "cpu" in passed_on:
            (folder / "cpu.max").write_text(f"{_quota_us(limits)} {PERIOD_US}")
        for optional, value in (("memory.swap.max", "0"), ("memory.oom.group", "1")):
            if (folder / optional).exists():
                (folder / optional).write_text(value)
    except OSError:
        group.remove()
        return None
    return group


_parent_lock = threading.Lock()
_parent_found: list[Path | None] = []


def unified_parent() -> Path | None:
    """The part of version 2's tree below which we may make groups; looked for once, by using it."""
    with _parent_lock:
        if not _parent_found:
            candidates = unified_candidates(
                _read(Path("/proc/self/cgroup")), _read(Path("/proc/self/mounts"))
            )
            _parent_found.append(next((place for place in candidates if _is_usable(place)), None))
        return _parent_found[0]


def unified_candidates(own: str, mounts: str) -> list[Path]:
    """Our own place in version 2's tree and those above it, from what the kernel says of both."""
    place = next((line[3:] for line in own.splitlines() if line.startswith("0::/")), None)
    fields = [line.split() for line in mounts.splitlines()]
    mount = next((field[1] for field in fields if len(field) > 2 and field[2] == "cgroup2"), None)
    if place is None or mount is None:
        return []
    inside = Path(mount, place.lstrip("/"))
    return [inside, *(above for above in inside.parents if above.is_relative_to(mount))]


def pass_on(parent: Path, own_pids: frozenset[int]) -> bool:
    """Let groups below a parent hold memory and processes, and the processor where that can be had."""
    offered = frozenset(_read(parent / "cgroup.controllers").split())
    wanted = [name for name in CONTROLLERS_2 if name in offered]
    if not {"memory", "pids"} <= set(wanted) or not os.access(parent, os.W_OK):
        return False
    if set(wanted) <= set(_read(parent / "cgroup.subtree_control").split()):
        return True
    words = " ".join(f"+{name}" for name in wanted)
    if _write(parent / "cgroup.subtree_control", words):
        return True
    # Only a group without processes of its own may pass controllers on: ours go into a leaf, others' are let be.
    inside = frozenset(map(int, _read(parent / "cgroup.procs").split()))
    if not inside or not inside <= own_pids:
        return False
    leaf = parent / OWN_LEAF
    try:
        leaf.mkdir(mode=0o755, exist_ok=True)
    except OSError:
        return False
    return all(_write(leaf / "cgroup.procs", str(pid)) for pid in inside) and _write(
        parent / "cgroup.subtree_control", words
    )


def _is_usable(parent: Path) -> bool:
    """Whether a process can really be put into a group below."""
    from openresource.sandbox.proc import descendants

    if not pass_on(parent, frozenset(descendants(os.getpid()))):
        return False
    group = make_version_2(parent, f"openresource-{os.getpid()}-probe", Limits())
    if group is None:
        return False
    with subprocess.Popen(["/bin/cat"], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL) as waiting:
        entered = _write(group.folder / "cgroup.procs", str(waiting.pid))
        is_inside = str(waiting.pid) in _read(group.folder / "cgroup.procs").split()
        waiting.kill()
    group.remove()
    return entered and is_inside


def _set(controller: str, folder: Path, limits: Limits) -> None:
    if controller == "memory":
        (folder / "memory.limit_in_bytes").write_text(str(limits.memory_bytes))
        with_swap = folder / "memory.memsw.limit_in_bytes"
        if with_swap.exists():
            with_swap.write_text(str(limits.memory_bytes))
    elif controller == "pids":
        (folder / "pids.max").write_text(str(limits.processes + OWN_PROCESSES))
    elif controller == "cpu":
        (folder / "cpu.cfs_period_us").write_text(str(PERIOD_US))
        (folder / "cpu.cfs_quota_us").write_text(str(_quota_us(limits)))


def _quota_us(limits: Limits) -> int:
    return max(QUOTA_US_MIN, int(PERIOD_US * limits.cpu))


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


def groups_of(pid: int) -> Groups | None:
    """The groups in which somebody else has put a process, to be read alone; None where they cannot be seen."""
    mounts = [line.split() for line in _read(Path("/proc/self/mounts")).splitlines()]
    folders: dict[str, Path] = {}
    for line in _read(Path(f"/proc/{pid}/cgroup")).splitlines():
        _, controllers, place = line.split(":", 2)
        for fields in mounts:
            if len(fields) < 4 or not place.strip("/"):
                continue
            folder = Path(fields[1], place.lstrip("/"))
            if fields[2] == "cgroup2" and not controllers and (folder / "memory.max").exists():
                return ForeignUnifiedGroup(folder, frozenset(_read(folder / "cgroup.controllers").split()))
            held = set(controllers.split(",")) & set(fields[3].split(",")) & set(CONTROLLERS)
            if fields[2] == "cgroup" and folder.is_dir():
                folders.update((controller, folder) for controller in held)
    return ForeignGroups(folders) if folders else None


class ForeignGroups(Groups):
    """Version 1's groups of somebody else: they are read, and removed by who made them."""

    def remove(self) -> bool:
        """Leave them alone."""
        self.folders = {}
        return super().remove()


class ForeignUnifiedGroup(UnifiedGroup):
    """Version 2's group of somebody else."""

    def remove(self) -> bool:
        """Leave it alone."""
        return True


def held_bytes(groups: Groups) -> int:
    """The bound on memory that groups really have; 0 for none."""
    if isinstance(groups, UnifiedGroup):
        text = _read(groups.folder / "memory.max").strip()
    else:
        text = (
            _read(groups.folders["memory"] / "memory.limit_in_bytes").strip()
            if "memory" in groups.folders
            else ""
        )
    return int(text) if text.isdigit() and int(text) < 1 << 60 else 0


def _member(path: Path, name: str) -> int:
    return _member_of(_read(path), name)


def _member_of(text: str, name: str) -> int:
    for line in text.splitlines():
        fields = line.split()
        if len(fields) == 2 and fields[0] == name:
            return int(fields[1])
    return 0


def _remove(folder: Path) -> bool:
    try:
        folder.rmdir()
    except FileNotFoundError:
        return True
    except OSError:
        return False
    return True


def _write(path: Path, text: str) -> bool:
    try:
        path.write_text(text)
    except OSError:
        return False
    return True


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""
