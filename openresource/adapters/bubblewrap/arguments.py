"""The recipe: which options make bubblewrap's sandbox, in the order in which it carries them out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from openresource.sandbox.driver import Limits
from openresource.sandbox.gpus import Gpu, device_environment, device_folders, device_nodes
from openresource.sandbox.views import HOME, Bind, system_places

NOBODY: Final = "65534"
SHARED_MEMORY_BYTES_MAX: Final = 32 << 20
HOST_NAME: Final = "program"


def options(
    binds: Sequence[Bind],
    links: Sequence[tuple[str, str]],
    limits: Limits,
    environment: Mapping[str, str],
    folder: str,
    gpus: Sequence[Gpu] = (),
) -> list[str]:
    """Everything before the command."""
    disk = str(limits.disk_bytes)
    shared_memory = str(min(limits.disk_bytes, SHARED_MEMORY_BYTES_MAX))
    words = [
        # Not `--disable-userns`: our filter refuses every call that makes a namespace, and it would cost a third of a start.
        "--unshare-all", "--unshare-user", "--die-with-parent", "--new-session",
        "--cap-drop", "ALL", "--uid", NOBODY, "--gid", NOBODY, "--hostname", HOST_NAME, "--clearenv",
        *_shown(*system_places()),
        "--proc", "/proc",
        # Its own /dev is writable and unbounded unless told otherwise.
        "--dev", "/dev", "--size", shared_memory, "--perms", "1777", "--tmpfs", "/dev/shm",
        "--size", disk, "--perms", "1777", "--tmpfs", HOME,
    ]  # fmt: skip
    words += _shown(binds, links)
    for node in device_nodes(gpus):
        words += ["--dev-bind-try", node, node]
    for shown in device_folders(gpus):
        words += ["--ro-bind-try", shown, shown]
    words += ["--remount-ro", "/dev", "--remount-ro", "/"]
    for name, value in {**environment, **device_environment(gpus)}.items():
        words += ["--setenv", name, value]
    return [*words, "--chdir", folder]


def _shown(binds: Sequence[Bind], links: Sequence[tuple[str, str]]) -> list[str]:
    words: list[str] = []
    for bind in binds:
        words += ["--bind" if bind.writable else "--ro-bind", bind.source, bind.target]
    for source, target in links:
        words += ["--symlink", source, target]
    return words
