"""Writes a commit's tree into a folder: every name and size is looked at first, and nothing of the repository runs.

Files are taken as they were committed, object by object. `git archive` would let a repository's own attributes change
or leave out files, and a checkout would run filters.
"""

from __future__ import annotations

import asyncio
import os
import re
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from openresource.adapters.git.commands import (
    GitFailed,
    GitTookTooLong,
    run_git,
    start_git,
    stop_git,
)
from openresource.client.releases import LEFT_OUT_FOLDERS
from openresource.primitives.errors import Refusal

TREE_FILES_MAX: Final = 10_000
TREE_BYTES_MAX: Final = 256 * 1024 * 1024
PATH_BYTES_MAX: Final = 1_024
NAME_BYTES_MAX: Final = 255
DEPTH_MAX: Final = 32
# Modes, names and sizes of as many files as there may be.
LISTING_BYTES_MAX: Final = 8 * 1024 * 1024
EXPORT_SECONDS_MAX: Final = 120.0
POINTER_BYTES_MAX: Final = 512
LINK_STEPS_MAX: Final = 8

_FILES: Final = {"100644": 0o644, "100664": 0o644, "100755": 0o755}
_LINK: Final = "120000"
_SUBMODULE: Final = "160000"
_POINTER: Final = b"version https://git-lfs.github.com/spec/"
_OBJECT: Final = re.compile(r"[0-9a-f]{40}(?:[0-9a-f]{24})?")
# Names that a file system, a terminal or git itself would take for something else.
_STRANGE: Final = re.compile(r"[\x00-\x1f\x7f\\]|[\ud800-\udfff]")


class NoSuchCommit(Refusal):
    template = "{commit} is not a commit."
    way_out = "Push a branch with at least one commit."


class TreeNotAccepted(Refusal):
    template = "The commit holds {file}, which cannot be published: {reason}."
    way_out = "Take it out, commit, and push again."


class TreeTooLarge(Refusal):
    template = "The commit's tree has more than {limit} {unit}."
    way_out = "Commit the program only; models and data belong into a prepared runtime."


@dataclass(frozen=True, slots=True)
class TreeFile:
    """A file of a tree."""

    path: str
    object: str
    mode: int
    size: int


@dataclass(frozen=True, slots=True)
class Exported:
    """What was written, and what stayed behind."""

    files: int
    bytes: int
    remarks: tuple[str, ...]


def is_object_name(text: str) -> bool:
    """Whether a text is an object's full name."""
    return _OBJECT.fullmatch(text) is not None


async def export_tree(
    repository: Path,
    commit: str,
    into: Path,
    *,
    variables: Mapping[str, str] | None = None,
    takes_links: bool = False,
) -> Exported:
    """Write a commit's files below an empty folder; whatever is not a plain file with a plain name is refused.

    With `takes_links`, for repositories of others, a link to one of the commit's files becomes a copy of that file, and
    every other link stays behind.
    """
    if not is_object_name(commit):
        raise NoSuchCommit(commit=commit)
    kind = await run_git(
        ["cat-file", "-t", f"{commit}^{{commit}}"], repository=repository, variables=variables
    )
    if kind.strip() != b"commit":
        raise NoSuchCommit(commit=commit)
    listing = await run_git(
        ["ls-tree", "-r", "-z", "-l", "--full-tree", commit],
        repository=repository,
        variables=variables,
        bytes_max=LISTING_BYTES_MAX,
    )
    links: list[TreeFile] = []
    files, submodules = read_listing(listing, links if takes_links else None)
    remarks = [f"the submodule {path} is left out" for path in submodules]
    if links:
        targets = await _targets(repository, links, variables)
        copies = _copies(files, targets)
        files += copies
        if len(copies) < len(links):
            left = sorted({link.path for link in links} - {file.path for file in copies})
            remarks.append(f"{len(left)} links to no file of it are left out, such as {left[0]}")
        if sum(file.size for file in files) > TREE_BYTES_MAX:
            raise TreeTooLarge(limit=TREE_BYTES_MAX, unit="bytes")
    pointers = await _write(repository, files, into, variables)
    if pointers:
        remarks.append(f"{pointers} files are pointers of Git LFS; their content was not committed")
    return Exported(len(files), sum(file.size for file in files), tuple(remarks))


def read_listing(listing: bytes, links: list[TreeFile] | None = None) -> tuple[list[TreeFile], list[str]]:
    """The files of `ls-tree -r -z -l`, and its submodules; what must not be written is refused.

    Links go to `links`, and are refused without such a list.
    """
    files: list[TreeFile] = []
    submodules: list[str] = []
    folders: set[str] = set()
    bytes_left = TREE_BYTES_MAX
    for line in listing.split(b"\0"):
        if not line:
            continue
        head, _, raw_path = line.partition(b"\t")
        mode, _, name, size = head.decode("ascii", "replace").split()
        path = _checked_path(raw_path)
        if any(part in LEFT_OUT_FOLDERS for part in path.split("/")):
            continue
        if mode == _SUBMODULE:
            submodules.append(path)
            continue
        if mode == _LINK and links is None:
            raise TreeNotAccepted(
                file=path, reason="it is a link, and links lead elsewhere on other machines"
            )
        if mode not in (*_FILES, _LINK):
            raise TreeNotAccepted(file=path, reason="it is neither a file nor a folder")
        bytes_left -= int(size)
        if bytes_left < 0:
            raise TreeTooLarge(limit=TREE_BYTES_MAX, unit="bytes")
        if len(files) + len(links or ()) >= TREE_FILES_MAX:
            raise TreeTooLarge(limit=TREE_FILES_MAX, unit="files")
        file = TreeFile(path, name, _FILES.get(mode, 0o644), int(size))
        (files if links is None or mode != _LINK else links).append(file)
        parts = path.split("/")
        folders.update("/".join(parts[:depth]) for depth in range(1, len(parts)))
    everything = [file.path for file in (*files, *(links or ()))]
    names = set(everything)
    if len(names) != len(everything) or names & folders:
        twice = next((file.path for file in files if file.path in folders), files[-1].path if files else "")
        raise TreeNotAccepted(file=twice, reason="its name is there twice")
    return files, submodules


def _checked_path(raw: bytes) -> str:
    shown = raw[:200].decode("utf-8", "backslashreplace")
    try:
        path = raw.decode("utf-8")
    except UnicodeDecodeError:
        raise TreeNotAccepted(file=shown, reason="its name is not UTF-8") from None
    parts = path.split("/")
    if len(raw) > PATH_BYTES_MAX or len(parts) > DEPTH_MAX:
        raise TreeNotAccepted(file=shown, reason="its path is too long")
    if _STRANGE.search(path):
        raise TreeNotAccepted(
            file=repr(path), reason="its name has characters that other machines read otherwise"
        )
    for part in parts:
        if part in ("", ".", "..") or part.lower() == ".git" or len(part.encode()) > NAME_BYTES_MAX:
            raise TreeNotAccepted(file=shown, reason="its path leads out of its folder")
    return path


async def _targets(
    repository: Path, links: list[TreeFile], variables: Mapping[str, str] | None
) -> dict[str, str]:
    """Where links lead, as paths of the tree; nothing for those that lead out of it."""
    found: dict[str, str] = {}
    short = [link for link in links if link.size <= PATH_BYTES_MAX]
    async with aclosing(_contents(repository, short, variables)) as contents:
        async for link, content in contents:
            found[link.path] = _joined(link.path.split("/")[:-1], content.decode("utf-8", "replace"))
    return found


def _joined(folders: list[str], target: str) -> str:
    parts = list(folders)
    for part in target.split("/"):
        if target.startswith("/") or (part == ".." and not parts):
            return ""
        if part == "..":
            parts.pop()
        elif part not in ("", "."):
            parts.append(part)
    return "/".join(parts)


def _copies(files: list[TreeFile], targets: Mapping[str, str]) -> list[TreeFile]:
    """The files that stand in for links, each under the link's name."""
    plain = {file.path: file for file in files}
    copies: list[TreeFile] = []
    for path, target in targets.items():
        for _ in range(LINK_STEPS_MAX):
            target = targets.get(target, target)
        if target in plain:
            copies.append(replace(plain[target], path=path))
    return copies


async def _write(
    repository: Path, files: list[TreeFile], into: Path, variables: Mapping[str, str] | None
) -> int:
    """Write the files; gives how many of them are pointers to content elsewhere."""
    pointers = 0
    async with aclosing(_contents(repository, files, variables)) as contents:
        async for file, content in contents:
            pointers += file.size < POINTER_BYTES_MAX and content.startswith(_POINTER)
            await asyncio.to_thread(_write_file, into / file.path, content, file.mode)
    return pointers


async def _contents(
    repository: Path, files: list[TreeFile], variables: Mapping[str, str] | None
) -> AsyncGenerator[tuple[TreeFile, bytes], None]:
    """Each file with its content, one after the other."""
    process = await start_git(["cat-file", "--batch"], repository=repository, variables=variables)
    assert process.stdin is not None and process.stdout is not None
    ends = asyncio.get_running_loop().time() + EXPORT_SECONDS_MAX
    try:
        for file in files:
            async with asyncio.timeout_at(ends):
                process.stdin.write(f"{file.object}\n".encode())
                await process.stdin.drain()
                head = (await process.stdout.readline()).split()
                if len(head) != 3 or head[1] != b"blob" or int(head[2]) != file.size:
                    raise GitFailed(command="cat-file", said=f"{file.path} is not there")
                content = await process.stdout.readexactly(file.size)
                await process.stdout.readexactly(1)
            yield file, content
    except TimeoutError:
        raise GitTookTooLong(command="cat-file", seconds=round(EXPORT_SECONDS_MAX)) from None
    except asyncio.IncompleteReadError:
        raise GitFailed(command="cat-file", said="it ended in the middle of a file") from None
    finally:
        await stop_git(process)


def _write_file(path: Path, content: bytes, mode: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, mode)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
