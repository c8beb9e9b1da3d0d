"""A bounded, read-only view of a folder or of a git tree: names first, contents one by one, links never followed.

Whoever wrote these files may be hostile: how many are listed, how deep, how large each is and how much is read in all
has a bound, and what is past it is not there. Nothing here is ever run or imported.
"""

from __future__ import annotations

import os
import re
import stat
import subprocess
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any, Final

from openresource.primitives.errors import Refusal

FILES_MAX: Final = 20_000
DEPTH_MAX: Final = 12
FILE_BYTES_MAX: Final = 512 * 1024
READ_BYTES_MAX: Final = 32 * 1024 * 1024
GIT_SECONDS_MAX: Final = 30.0
GIT_LIST_BYTES_MAX: Final = 16 * 1024 * 1024

# What tools leave behind or fetch again; none of it says what a program is.
SKIPPED_FOLDERS: Final = frozenset(
    (".git", ".hg", ".svn", ".tox", ".nox", ".venv", ".mypy_cache", ".ruff_cache", ".pytest_cache", ".idea",
     ".vscode", ".github", "__pycache__", "node_modules", "venv", "site-packages", ".eggs", ".gradle")
)  # fmt: skip
_COMMIT = re.compile(r"[0-9A-Za-z][0-9A-Za-z._/-]{0,199}")


class NotAFolder(Refusal):
    template = "There is no folder {folder}."
    way_out = "Name a folder with a program in it."


class GitUnreadable(Refusal):
    template = "The git tree {commit} of {repository} cannot be read: {reason}."
    way_out = "Name a branch, tag or commit that this repository has."


class Files:
    """The files below one place: `names` are their paths, sorted, those near the top first."""

    def __init__(
        self,
        name: str,
        names: Sequence[str],
        read: Callable[[str], bytes | None],
        *,
        executables: frozenset[str] = frozenset(),
        is_cut: bool = False,
    ) -> None:
        self.name = name
        self.names = tuple(sorted(names, key=lambda path: (path.count("/"), path)))
        self.executables = executables
        self.is_cut = is_cut
        self._known = frozenset(self.names)
        self._read = read
        self._contents: dict[str, bytes] = {}
        self._bytes_left = READ_BYTES_MAX
        # What several detectors would work out again, by name.
        self.notes: dict[str, Any] = {}

    def __contains__(self, name: object) -> bool:
        return name in self._known

    def bytes_of(self, name: str) -> bytes:
        """A file's content; empty where there is none or where it is larger than what is read."""
        if name not in self._known:
            return b""
        if name not in self._contents:
            content = self._read(name) if self._bytes_left > 0 else None
            self._contents[name] = content or b""
            self._bytes_left -= len(self._contents[name])
        return self._contents[name]

    def text(self, name: str) -> str:
        """A file's text; bytes that are no UTF-8 are replaced."""
        return self.bytes_of(name).decode("utf-8", "replace").removeprefix("\ufeff")

    def first(self, *names: str) -> str:
        """The first of some names that is there, else nothing."""
        return next((name for name in names if name in self._known), "")

    def ending(self, *suffixes: str, depth_max: int = DEPTH_MAX) -> list[str]:
        """The files whose names end so, those near the top first."""
        return [name for name in self.names if name.endswith(suffixes) and name.count("/") <= depth_max]


def inner_project(files: Files, name: str, *marks: str) -> str:
    """The folder below the top that holds a file and is a project of its own; nothing where the top is."""
    if any(mark in files for mark in marks):
        return ""
    folders = name.split("/")[:-1]
    for depth in range(len(folders), 0, -1):
        folder = "/".join(folders[:depth])
        if any(f"{folder}/{mark}" in files for mark in marks):
            return folder
    return ""


def folder_files(folder: Path) -> Files:
    """The files of a folder on this machine."""
    if not folder.is_dir():
        raise NotAFolder(folder=str(folder))
    names: list[str] = []
    executables: set[str] = set()
    is_cut = False
    waiting = [("", str(folder))]
    while waiting:
        prefix, place = waiting.pop()
        try:
            with os.scandir(place) as found:
                entries = sorted(found, key=lambda entry: entry.name)
        except OSError:
            continue
        for entry in entries:
            name = prefix + entry.name
            if not _is_readable_name(entry.name) or len(names) >= FILES_MAX:
                is_cut = True
                continue
            if entry.is_dir(follow_symlinks=False):
                if name.count("/") >= DEPTH_MAX:
                    is_cut = True
                elif entry.name not in SKIPPED_FOLDERS:
                    waiting.append((name + "/", entry.path))
            elif entry.is_file(follow_symlinks=False):
                names.append(name)
                if os.access(entry.path, os.X_OK):
                    executables.add(name)
    return Files(
        folder.resolve().name,
        names,
        lambda name: _read_file(folder / name),
        executables=frozenset(executables),
        is_cut=is_cut,
    )


def mapping_files(name: str, contents: Mapping[str, bytes], executables: Sequence[str] = ()) -> Files:
    """Files that are in memory already."""
    kept = [path for path in contents if not set(PurePosixPath(path).parts[:-1]) & SKIPPED_FOLDERS]
    return Files(
        name,
        kept[:FILES_MAX],
        lambda path: contents[path] if len(contents[path]) <= FILE_BYTES_MAX else None,
        executables=frozenset(executables),
        is_cut=len(kept) > FILES_MAX,
    )


def git_files(repository: Path, commit: str, name: str = "") -> Files:
    """The files of a commit in a repository of this machine, without checking it out."""
    if _COMMIT.fullmatch(commit) is None:
        raise GitUnreadable(
            commit=commit[:80], repository=str(repository), reason="that is no name of a commit"
        )
    listing = _git(repository, "ls-tree", "-r", "-l", "-z", "--full-tree", commit, "--")
    if listing is None:
        raise GitUnreadable(commit=commit, repository=str(repository), reason="git does not find it")
    blobs: dict[str, str] = {}
    executables: set[str] = set()
    is_cut = False
    for line in listing.decode("utf-8", "replace").split("\0"):
        head, _, path = line.partition("\t")
        words = head.split()
        if len(words) != 4 or words[1] != "blob" or words[0] not in ("100644", "100755"):
            continue
        folders = PurePosixPath(path).parts[:-1]
        if set(folders) & SKIPPED_FOLDERS:
            continue
        if len(blobs) >= FILES_MAX or len(folders) > DEPTH_MAX or not _is_readable_name(path):
            is_cut = True
            continue
        blobs[path] = words[2] if words[3].isdecimal() and int(words[3]) <= FILE_BYTES_MAX else ""
        if words[0] == "100755":
            executables.add(path)
    return Files(
        name or repository.resolve().name.removesuffix(".git"),
        tuple(blobs),
        lambda path: _git(repository, "cat-file", "blob", blobs[path]) if blobs[path] else None,
        executables=frozenset(executables),
        is_cut=is_cut,
    )


def _read_file(path: Path) -> bytes | None:
    """A small regular file's content; a pipe, a link or a device put in its place meanwhile is not opened."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return None
    with open(descriptor, "rb") as file:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode) or status.st_size > FILE_BYTES_MAX:
            return None
        content = file.read(FILE_BYTES_MAX + 1)
    return content if len(content) <= FILE_BYTES_MAX else None


def _git(repository: Path, *words: str) -> bytes | None:
    """What git prints, or None; nothing of the repository's own settings or hooks is run by these commands."""
    try:
        done = subprocess.run(
            ["git", "-C", str(repository), *words],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=GIT_SECONDS_MAX,
            check=False,
            env={"PATH": os.environ.get("PATH", os.defpath), "GIT_TERMINAL_PROMPT": "0", "LC_ALL": "C.UTF-8"},
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout if done.returncode == 0 and len(done.stdout) <= GIT_LIST_BYTES_MAX else None


def _is_readable_name(name: str) -> bool:
    return len(name) <= 1_000 and name.isprintable()
