"""Folders that strangers' tools have written, made fit to be kept: plain files and folders of our own, nothing else."""

from __future__ import annotations

import os
import shutil
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from openresource.primitives.cids import Link, directory_block, file_blocks
from openresource.primitives.errors import Refusal

ENTRIES_MAX: Final = 300_000
PART_BYTES: Final = 1 << 20
# Whoever copies or names a folder goes down in it once more for each level.
DEPTH_MAX: Final = 128
BYTES_MAX: Final = 8 << 30
SHEBANG_BYTES_MAX: Final = 512
SCRIPT_BYTES_MAX: Final = 16 << 20
# Linux follows no more of them either.
LINKS_FOLLOWED_MAX: Final = 40
LINK_STEPS_MAX: Final = 4_096


class TooManyFiles(Refusal):
    template = "The build left more than {entries_max} files and folders."
    way_out = "Let it keep only what the program needs: name it in [build] output."


class FoldersTooDeep(Refusal):
    template = "The build left folders that are nested more than {depth_max} times."
    way_out = "Let it keep only what the program needs: name it in [build] output."


class FilesTooLarge(Refusal):
    template = "The build left files that are longer than {bytes_max} bytes together, holes in them included."
    way_out = "Let it keep only what the program needs: name it in [build] output."


def adopt(folder: Path, *, bytes_max: int = BYTES_MAX) -> list[str]:
    """Own everything below a folder, with ordinary modes; links that lead out of it, and what is neither file nor
    folder, are removed and told."""
    removed: list[str] = []
    owner = os.geteuid()
    count = size = 0
    for parent, folders, files in _walk(folder):
        if parent.count(os.sep) - str(folder).count(os.sep) > DEPTH_MAX:
            raise FoldersTooDeep(depth_max=DEPTH_MAX)
        for name in (*folders, *files):
            count += 1
            if count > ENTRIES_MAX:
                raise TooManyFiles(entries_max=ENTRIES_MAX)
            path = os.path.join(parent, name)
            status = os.lstat(path)
            if status.st_uid != owner:
                os.chown(path, owner, os.getegid(), follow_symlinks=False)
            if stat.S_ISLNK(status.st_mode):
                if not _stays_inside(os.path.relpath(path, folder), folder):
                    os.unlink(path)
                    removed.append(os.path.relpath(path, folder))
            elif stat.S_ISDIR(status.st_mode):
                os.chmod(path, 0o755)
            elif stat.S_ISREG(status.st_mode):
                # A file of holes takes no room on the disk, and all the time of whoever reads it.
                size += status.st_size
                if size > bytes_max:
                    raise FilesTooLarge(bytes_max=bytes_max)
                os.chmod(path, 0o755 if status.st_mode & 0o111 else 0o644)
            else:
                os.unlink(path)
                removed.append(os.path.relpath(path, folder))
    return removed


def copy_linked(source: Path, target: Path) -> None:
    """The same files at another place without a second copy of their bytes; neither is ever written again."""
    shutil.copytree(source, target, symlinks=True, copy_function=_link, dirs_exist_ok=True)


def copy_plain(source: Path, target: Path, left_out: frozenset[str] = frozenset()) -> None:
    """Copies of plain files and folders; links and what tools leave behind stay where they are."""

    def ignore(parent: str, names: list[str]) -> list[str]:
        return [
            name
            for name in names
            if name in left_out or stat.S_IFMT(os.lstat(os.path.join(parent, name)).st_mode) not in _PLAIN
        ]

    shutil.copytree(source, target, ignore=ignore, dirs_exist_ok=True)
    os.chmod(target, 0o755)


def content_cid(
    folder: Path, left_out: frozenset[str] = frozenset(), left_out_at_top: frozenset[str] = frozenset()
) -> str:
    """The content identifier of all plain files; empty where a folder or a name is too large for one."""
    try:
        return _directory(folder, left_out, left_out | left_out_at_top).cid.text
    except Refusal:
        return ""


def use_environment_python(folder: Path) -> None:
    """Scripts that name the interpreter which installed them shall find the one that is there when they run."""
    if not folder.is_dir():
        return
    for path in folder.iterdir():
        if not path.is_file() or path.is_symlink() or path.stat().st_size > SCRIPT_BYTES_MAX:
            continue
        with open(path, "rb") as file:
            first = file.readline(SHEBANG_BYTES_MAX)
            if not (first.startswith(b"#!") and b"python" in first and first.endswith(b"\n")):
                continue
            rest = file.read()
        path.write_bytes(b"#!/usr/bin/env python3\n" + rest)
        path.chmod(0o755)


def _directory(folder: Path, left_out: frozenset[str], left_out_here: frozenset[str]) -> Link:
    entries: dict[str, Link] = {}
    with os.scandir(folder) as found:
        for entry in sorted(found, key=lambda one: one.name):
            if entry.is_symlink() or entry.name in left_out_here:
                continue
            if entry.is_dir():
                entries[entry.name] = _directory(Path(entry.path), left_out, left_out)
            elif entry.is_file():
                entries[entry.name] = file_blocks(_parts(entry.path), _forget)
    return directory_block(entries)[0]


def _parts(path: str) -> Iterator[bytes]:
    with open(path, "rb") as file:
        while part := file.read(PART_BYTES):
            yield part


def _forget(cid: str, block: bytes) -> None:
    """Only names are wanted here."""


def _walk(folder: Path) -> Iterator[tuple[str, list[str], list[str]]]:
    """Every folder, opened up before it is entered; links are never followed."""
    owner = os.geteuid()
    layers = [str(folder)]
    while layers:
        parent = layers.pop()
        if os.lstat(parent).st_uid != owner:
            os.chown(parent, owner, os.getegid(), follow_symlinks=False)
        os.chmod(parent, 0o755)
        folders: list[str] = []
        files: list[str] = []
        with os.scandir(parent) as entries:
            for entry in entries:
                (folders if entry.is_dir(follow_symlinks=False) else files).append(entry.name)
        yield parent, folders, files
        layers += [os.path.join(parent, name) for name in folders]


def _stays_inside(link: str, folder: Path) -> bool:
    """Whether a link's way never leaves the folder, so that it leads to the same place wherever the folder is moved."""
    here: list[str] = []
    waiting = link.split(os.sep)[::-1]
    links = 0
    while waiting:
        name = waiting.pop()
        if name in ("", "."):
            continue
        if name == "..":
            if not here:
                return False
            here.pop()
            continue
        here.append(name)
        path = os.path.join(folder, *here)
        if not os.path.lexists(path):
            # What is not there yet may become a link, and then the way back from it leads elsewhere.
            return ".." not in waiting
        if not os.path.islink(path):
            continue
        links += 1
        text = os.readlink(path)
        waiting += text.split(os.sep)[::-1]
        if links > LINKS_FOLLOWED_MAX or len(waiting) > LINK_STEPS_MAX or os.path.isabs(text):
            return False
        here.pop()
    return True


def _link(source: str, target: str, *, follow_symlinks: bool = True) -> str:
    try:
        os.link(source, target, follow_symlinks=False)
    except OSError:
        shutil.copy2(source, target, follow_symlinks=False)
    return target


_PLAIN: Final = (stat.S_IFREG, stat.S_IFDIR)
