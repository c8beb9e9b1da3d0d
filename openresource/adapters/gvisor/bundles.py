"""A bundle as the Open Container Initiative describes it: a root folder of mount points, and one page of settings."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from openresource.sandbox.driver import Limits
from openresource.sandbox.gpus import Gpu, device_nodes
from openresource.sandbox.views import HOME, View, system_places

NOBODY: Final = 65_534
HOST_NAME: Final = "program"
SHARED_MEMORY_BYTES_MAX: Final = 32 << 20


def write_bundle(
    folder: Path,
    view: View,
    limits: Limits,
    environment: Mapping[str, str],
    command: Sequence[str],
    gpus: Sequence[Gpu] = (),
) -> None:
    """The bundle of one instance in an empty folder; nothing in it is a file of the program."""
    root = folder / "rootfs"
    system, system_links = system_places()
    root.mkdir()
    for place in ("proc", "dev", "sys", HOME.lstrip("/")):
        _inside(root, f"/{place}").mkdir(parents=True, exist_ok=True)
    for bind in (*system, *view.binds):
        _make_point(_inside(root, bind.target), bind.source)
    for target, place in (*system_links, *view.links):
        link = _inside(root, place)
        link.parent.mkdir(parents=True, exist_ok=True)
        if not link.exists() and not link.is_symlink():
            link.symlink_to(target)
    for parent, _, _ in os.walk(root):
        os.chmod(parent, 0o755)
    mounts = [
        {"destination": "/proc", "type": "proc", "source": "proc"},
        _tmpfs(HOME, limits.disk_bytes),
        _tmpfs("/dev/shm", min(limits.disk_bytes, SHARED_MEMORY_BYTES_MAX)),
    ]
    mounts += [
        {
            "destination": bind.target,
            "type": "bind",
            "source": bind.source,
            "options": ["rbind", "rw" if bind.writable else "ro", "nosuid", "nodev"],
        }
        for bind in (*system, *view.binds)
    ]
    document = _document(root, mounts, limits, environment, command, view.layout.app)
    document["linux"]["devices"] = [_device(node) for node in device_nodes(gpus) if os.path.exists(node)]
    (folder / "config.json").write_text(json.dumps(document))


def _document(
    root: Path,
    mounts: list[dict[str, Any]],
    limits: Limits,
    environment: Mapping[str, str],
    command: Sequence[str],
    working_folder: str,
) -> dict[str, Any]:
    none: list[str] = []
    return {
        "ociVersion": "1.0.2",
        "hostname": HOST_NAME,
        "root": {"path": str(root), "readonly": True},
        "mounts": mounts,
        "process": {
            "terminal": False,
            "user": {"uid": NOBODY, "gid": NOBODY, "umask": 0o077},
            "args": list(command),
            "env": [f"{name}={value}" for name, value in environment.items()],
            "cwd": working_folder,
            "noNewPrivileges": True,
            "capabilities": dict.fromkeys(
                ("bounding", "effective", "inheritable", "permitted", "ambient"), none
            ),
            "rlimits": [
                {"type": name, "hard": value, "soft": value}
                for name, value in _process_limits(limits).items()
            ],
        },
        "linux": {
            "namespaces": [{"type": kind} for kind in ("pid", "network", "ipc", "uts", "mount")],
            "resources": {"memory": {"limit": limits.memory_bytes}},
        },
    }


def _process_limits(limits: Limits) -> dict[str, int]:
    """What the kernel in user space holds for each process."""
    return {
        "RLIMIT_DATA": limits.memory_bytes,
        "RLIMIT_FSIZE": limits.disk_bytes,
        "RLIMIT_NOFILE": limits.open_files,
        "RLIMIT_NPROC": limits.processes,
        "RLIMIT_CORE": 0,
    }


def _device(node: str) -> dict[str, Any]:
    """A node of this machine as the runtime takes it."""
    status = os.stat(node)
    return {
        "path": node,
        "type": "c",
        "major": os.major(status.st_rdev),
        "minor": os.minor(status.st_rdev),
        "fileMode": 0o666,
        "uid": 0,
        "gid": 0,
    }


def _tmpfs(place: str, size_bytes: int) -> dict[str, Any]:
    return {
        "destination": place,
        "type": "tmpfs",
        "source": "tmpfs",
        "options": ["nosuid", "nodev", "mode=1777", f"size={size_bytes}"],
    }


def _inside(root: Path, place: str) -> Path:
    path = Path(os.path.normpath(f"{root}/{place}"))
    assert path.is_relative_to(root), "targets are absolute"
    return path


def _make_point(place: Path, source: str) -> None:
    """An empty folder or file for the mount to cover; one below another mount is made by that mount's owner."""
    place.parent.mkdir(parents=True, exist_ok=True)
    if os.path.isdir(source):
        place.mkdir(exist_ok=True)
    elif not place.exists():
        place.touch(0o644)
