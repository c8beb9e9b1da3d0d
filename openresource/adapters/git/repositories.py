"""Repositories: a bare one that takes pushes within bounds, and shallow clones of those that lie elsewhere."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from openresource.adapters.git.commands import GitFailed, run_git
from openresource.adapters.git.trees import is_object_name
from openresource.primitives.errors import Refusal

PUSH_BYTES_MAX: Final = 256 * 1024 * 1024
CLONE_BYTES_MAX: Final = 512 * 1024 * 1024
CLONE_SECONDS_MAX: Final = 300.0
ASK_SECONDS_MAX: Final = 30.0
LOOK_SECONDS: Final = 0.5
SCHEMES: Final = ("https", "ssh", "file")
URL_CHARACTERS_MAX: Final = 1_000
BRANCHES: Final = ("main", "master")

# user@host:path, which git reads as ssh://user@host/path.
_SHORT_SSH: Final = re.compile(r"([A-Za-z0-9._-]+@[A-Za-z0-9][A-Za-z0-9.-]*):(?!/)([^\s:]+)")
_BRANCH: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._/-]{0,199}")


class AddressNotAccepted(Refusal):
    template = "The address {url} is not accepted: {reason}."
    way_out = "Name https://…, ssh://…, file:///… or the absolute path of a repository on this machine."


class BranchNotThere(Refusal):
    template = "{url} has no branch {branch}."
    way_out = "Name one that it has, for instance with --watch BRANCH."


class RepositoryTooLarge(Refusal):
    template = "The newest commit of {url} brings more than {limit} bytes."
    way_out = "Publish the program from a folder or a repository of its own."


def looks_like_repository(text: str) -> bool:
    """Whether somebody means a repository rather than a folder: an address, or a bare repository's path."""
    if "://" in text or "::" in text or _SHORT_SSH.fullmatch(text):
        return True
    folder = Path(text)
    return is_bare(folder) or (text.endswith(".git") and not folder.is_dir())


def is_bare(folder: Path) -> bool:
    """Whether a folder is a bare repository."""
    return (folder / "HEAD").is_file() and (folder / "objects").is_dir() and (folder / "refs").is_dir()


def accepted_address(text: str) -> str:
    """An address as git gets it; whatever would start another program or lead elsewhere is refused."""
    if len(text) > URL_CHARACTERS_MAX or any(ord(letter) < 33 or ord(letter) == 127 for letter in text):
        raise AddressNotAccepted(url=text, reason="it is no address of a repository")
    short = _SHORT_SSH.fullmatch(text)
    if short is not None:
        text = f"ssh://{short[1]}/{short[2]}"
    if text.startswith("/"):
        return f"file://{text}"
    try:
        parts = urlsplit(text)
        host = parts.hostname or ""
    except ValueError:
        raise AddressNotAccepted(url=text, reason="it cannot be read") from None
    if "://" not in text or parts.scheme not in SCHEMES:
        raise AddressNotAccepted(url=text, reason=f"only {', '.join(SCHEMES)} and absolute paths are taken")
    if parts.password:
        raise AddressNotAccepted(
            url=parts._replace(netloc=f"…@{host}").geturl(),
            reason="it carries a password, which would end in logs; let git's own credential store have it",
        )
    if parts.scheme == "file" and (host or not parts.path.startswith("/")):
        raise AddressNotAccepted(url=text, reason="a file's address is file:// and an absolute path")
    # What begins with a hyphen would be read as an option by ssh.
    if parts.scheme != "file" and (
        not host or host.startswith("-") or (parts.username or "").startswith("-")
    ):
        raise AddressNotAccepted(url=text, reason="it names no host")
    return text


def accepted_branch(text: str) -> str:
    """A branch's name; what git or a shell might read otherwise is refused."""
    if _BRANCH.fullmatch(text) is None or ".." in text or "//" in text or text.endswith(("/", ".", ".lock")):
        raise BranchNotThere(url="git", branch=text, remedy="A branch is letters, digits and . _ - / alone.")
    return text


async def current_branch(folder: Path) -> str | None:
    """The branch that a work tree is on; None where there is no work tree."""
    if not (folder / ".git").exists():
        return None
    try:
        found = await run_git(["-C", str(folder.resolve()), "symbolic-ref", "--quiet", "--short", "HEAD"])
    except GitFailed:
        return None
    branch = found.decode("utf-8", "replace").strip()
    return branch if _BRANCH.fullmatch(branch) else None


async def make_bare(repository: Path, branch: str, settings: dict[str, str]) -> None:
    """A bare repository with an empty history, and exactly these settings beside git's own."""
    await run_git(["init", "--quiet", "--bare", "--template=", f"--initial-branch={branch}", str(repository)])
    for name, value in settings.items():
        await run_git(["config", "--local", name, value], repository=repository)


async def commit_of(repository: Path, ref: str) -> str | None:
    """What a ref names; None if there is none."""
    try:
        found = await run_git(
            ["rev-parse", "--verify", "--quiet", "--end-of-options", ref], repository=repository
        )
    except GitFailed:
        return None
    name = found.decode("ascii", "replace").strip()
    return name if is_object_name(name) else None


async def branch_tip(url: str, branch: str) -> str:
    """The newest commit of a branch elsewhere; `HEAD` is what its owner shows first."""
    ref = "HEAD" if branch == "HEAD" else f"refs/heads/{accepted_branch(branch)}"
    out = await run_git(["ls-remote", "--quiet", "--end-of-options", url, ref], seconds=ASK_SECONDS_MAX)
    for line in out.decode("ascii", "replace").splitlines():
        name, _, found = line.partition("\t")
        if found == ref and is_object_name(name):
            return name
    raise BranchNotThere(url=url, branch=branch)


async def clone_tip(url: str, branch: str, repository: Path) -> str:
    """Clone a branch's newest commit alone, without checking anything out; gives its name."""
    words = ["clone", "--quiet", "--bare", "--depth=1", "--single-branch", "--no-tags", "--template="]
    # Nothing of the machine's own settings may start a program for a stranger's repository.
    settings = [
        "-c",
        "protocol.ext.allow=never",
        "-c",
        "core.hooksPath=/dev/null",
        "-c",
        "fetch.unpackLimit=1",
    ]
    if branch != "HEAD":
        words.append(f"--branch={accepted_branch(branch)}")
    cloning = asyncio.create_task(
        run_git(
            [*settings, *words, "--end-of-options", url, str(repository)],
            seconds=CLONE_SECONDS_MAX,
            file_bytes_max=CLONE_BYTES_MAX,
        )
    )
    try:
        while not cloning.done():
            await asyncio.wait([cloning], timeout=LOOK_SECONDS)
            if await asyncio.to_thread(_size, repository) > CLONE_BYTES_MAX:
                raise RepositoryTooLarge(url=url, limit=CLONE_BYTES_MAX)
        await cloning
    finally:
        cloning.cancel()
        await asyncio.gather(cloning, return_exceptions=True)
    commit = await commit_of(repository, "HEAD")
    if commit is None:
        raise BranchNotThere(url=url, branch=branch)
    return commit


def _size(folder: Path) -> int:
    total = 0
    for place, _, names in os.walk(folder):
        for name in names:
            with contextlib.suppress(FileNotFoundError):
                total += os.lstat(os.path.join(place, name)).st_size
    return total
