"""What a program sees of this machine where a driver gives it a file system of its own: a few folders, all read-only."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from openresource.sandbox.driver import Release
from openresource.sandbox.egress import EGRESS_FOLDER, EGRESS_NAME
from openresource.sandbox.layout import (
    BROKER_NAME,
    GUEST_FOLDER,
    Interpreter,
    Layout,
    own_library_folder,
    packages_of,
)

HOME: Final = "/tmp"
ETC_FILES: Final = {
    "passwd.txt": "/etc/passwd",
    "group.txt": "/etc/group",
    "hosts.txt": "/etc/hosts",
    "nsswitch.txt": "/etc/nsswitch.conf",
}
# Where a distribution has merged its folders into /usr, these are links; else they are folders.
ROOT_FOLDERS: Final = ("bin", "sbin", "lib", "lib64", "lib32", "libx32")
OPTIONAL_FILES: Final = ("/etc/alternatives", "/etc/ld.so.cache")


@dataclass(frozen=True, slots=True)
class Bind:
    """A folder or file of the host that is shown, read-only unless it says otherwise."""

    source: str
    target: str
    writable: bool = False


@dataclass(frozen=True, slots=True)
class View:
    """The places of a program, what is shown there, and links (target, place)."""

    layout: Layout
    binds: tuple[Bind, ...]
    links: tuple[tuple[str, str], ...]


def view_of(release: Release, interpreter: Interpreter, broker_folder: Path, tools: Sequence[Path]) -> View:
    """The same few places under every driver that can show them."""
    binds = [
        Bind(_real(release.folder), "/app"),
        Bind(_real(GUEST_FOLDER), "/guest"),
        Bind(_real(broker_folder), "/sock"),
    ]
    binds += [Bind(_real(GUEST_FOLDER / "etc" / name), target) for name, target in ETC_FILES.items()]
    python = str(interpreter.executable)
    library_path = packages = ""
    if not interpreter.is_system:
        binds.append(Bind(str(interpreter.prefix), "/python"))
        python = str(Path("/python", interpreter.executable.relative_to(interpreter.prefix)))
        library_path = "/python/lib" if own_library_folder(interpreter) else ""
    links = [(python, "/tools/python"), (python, "/tools/python3")]
    for tool in tools:
        binds.append(Bind(_real(tool), f"/tools/{tool.name}"))
    if release.runtime is not None:
        binds.append(Bind(_real(release.runtime.folder), "/runtime"))
        packages = str(Path("/runtime", packages_of(release.runtime)))
        binds += [Bind(_real(mount.source), mount.target) for mount in release.runtime.mounts]
    binds += [Bind(_real(mount.source), mount.target, mount.writable) for mount in release.mounts]
    if release.egress is not None:
        binds.append(Bind(_real(release.egress), EGRESS_FOLDER))
    layout = Layout(
        app="/app",
        guest="/guest",
        python=python,
        home=HOME,
        packages=packages,
        library_path=library_path,
        tools=("/tools",),
        broker=f"/sock/{BROKER_NAME}",
        egress=f"{EGRESS_FOLDER}/{EGRESS_NAME}" if release.egress is not None else "",
    )
    return View(layout, tuple(binds), tuple(links))


def system_places() -> tuple[list[Bind], list[tuple[str, str]]]:
    """`/usr` and what leads into it: folders to show, and links (target, place)."""
    binds, links = [Bind("/usr", "/usr")], []
    for name in ROOT_FOLDERS:
        path = Path("/", name)
        if path.is_symlink():
            links.append((os.readlink(path), str(path)))
        elif path.is_dir():
            binds.append(Bind(str(path), str(path)))
    binds += [Bind(path, path) for path in OPTIONAL_FILES if os.path.exists(path)]
    return binds, links


def _real(path: Path) -> str:
    return os.path.realpath(path)
