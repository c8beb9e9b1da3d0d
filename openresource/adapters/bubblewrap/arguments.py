"""The recipe: which options make bubblewrap's sandbox, in the order in which it carries them out."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from openresource.sandbox.driver import Limits

NOBODY: Final = "65534"
SHARED_MEMORY_BYTES_MAX: Final = 32 << 20
HOME: Final = "/tmp"
HOST_NAME: Final = "program"
# Where a distribution has merged its folders into /usr, these are links; else they are folders.
ROOT_FOLDERS: Final = ("bin", "sbin", "lib", "lib64", "lib32", "libx32")
OPTIONAL_FILES: Final = ("/etc/alternatives", "/etc/ld.so.cache")


@dataclass(frozen=True, slots=True)
class Bind:
    """A folder or file of the host that is shown read-only."""

    source: str
    target: str


def options(
    binds: Sequence[Bind],
    links: Sequence[tuple[str, str]],
    limits: Limits,
    environment: Mapping[str, str],
    folder: str,
) -> list[str]:
    """Everything before the command."""
    disk = str(limits.disk_bytes)
    shared_memory = str(min(limits.disk_bytes, SHARED_MEMORY_BYTES_MAX))
    words = [
        "--unshare-all", "--unshare-user", "--disable-userns", "--die-with-parent", "--new-session",
        "--cap-drop", "ALL", "--uid", NOBODY, "--gid", NOBODY, "--hostname", HOST_NAME, "--clearenv",
        "--ro-bind", "/usr", "/usr", *_root_folders(), *_optional_files(),
        "--proc", "/proc",
        # Its own /dev is writable and unbounded unless told otherwise.
        "--dev", "/dev", "--size", shared_memory, "--perms", "1777", "--tmpfs", "/dev/shm",
        "--size", disk, "--perms", "1777", "--tmpfs", HOME,
    ]  # fmt: skip
    for bind in binds:
        words += ["--ro-bind", bind.source, bind.target]
    for source, target in links:
        words += ["--symlink", source, target]
    words += ["--remount-ro", "/dev", "--remount-ro", "/"]
    for name, value in environment.items():
        words += ["--setenv", name, value]
    return [*words, "--chdir", folder]


def _root_folders() -> list[str]:
    words: list[str] = []
    for name in ROOT_FOLDERS:
        path = Path("/", name)
        if path.is_symlink():
            words += ["--symlink", os.readlink(path), str(path)]
        elif path.is_dir():
            words += ["--ro-bind", str(path), str(path)]
    return words


def _optional_files() -> list[str]:
    return [word for path in OPTIONAL_FILES if os.path.exists(path) for word in ("--ro-bind", path, path)]
