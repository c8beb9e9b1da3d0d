"""A release as a folder: reads its manifest and what that points to, and makes it fit to be run."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path
from typing import Final

from openresource.market.manifests import (
    MANIFEST_CHARACTERS_MAX,
    MANIFEST_FILE,
    Manifest,
    document_files,
    parse_manifest,
    with_documents,
)
from openresource.primitives.errors import Refusal
from openresource.sandbox.driver import Release, Runtime

DOCUMENT_BYTES_MAX: Final = 256 << 10
ENTRIES_MAX: Final = 100_000


class NoManifest(Refusal):
    template = "{folder} has no openresource.toml."
    way_out = "Run `openresource init` there: it writes one."


class UnreadableFile(Refusal):
    template = "{file} cannot be read: {reason}."
    way_out = "Mend this file and try again: `openresource publish --dry-run FOLDER`."


def load_release(folder: Path, runtime: Runtime | None = None) -> Release:
    """The release that lies in a folder, its manifest complete."""
    return Release(folder, load_manifest(folder), runtime)


def load_manifest(folder: Path) -> Manifest:
    """The manifest of a folder with the files that it points to in their places."""
    path = folder / MANIFEST_FILE
    if not path.is_file():
        raise NoManifest(folder=str(folder))
    manifest = parse_manifest(_text(path, MANIFEST_CHARACTERS_MAX * 4))
    documents: dict[str, object] = {}
    for name in document_files(manifest):
        if (folder / name).is_file():
            documents[name] = _json(folder / name)
    return with_documents(manifest, documents)


def make_readable(folder: Path) -> None:
    """Let a program's own uid read its release: content names keep no mode bits, and a umask may have cut them."""
    count = 0
    for parent, folders, files in os.walk(folder):
        for name in (".", *folders, *files):
            count += 1
            if count > ENTRIES_MAX:
                raise UnreadableFile(file=str(folder), reason=f"it holds more than {ENTRIES_MAX} files")
            _let_read(os.path.join(parent, name))


def give_to(folder: Path, uid: int) -> None:
    """Let a program's own uid write a folder that was made for it; links are given, never followed."""
    os.chown(folder, uid, uid, follow_symlinks=False)
    for parent, folders, files in os.walk(folder):
        for name in (*folders, *files):
            os.chown(os.path.join(parent, name), uid, uid, follow_symlinks=False)


def mark_executable(folder: Path, manifest: Manifest) -> None:
    """Make the command's first word executable where it is a file of the release."""
    command = manifest.run.command
    if command and "/" in command[0]:
        path = folder / command[0]
        if (
            path.is_file()
            and not path.is_symlink()
            and Path(os.path.realpath(path)).is_relative_to(os.path.realpath(folder))
        ):
            path.chmod(path.stat().st_mode | 0o555)


def _let_read(path: str) -> None:
    status = os.lstat(path)
    if stat.S_ISLNK(status.st_mode):
        return
    wanted = 0o555 if stat.S_ISDIR(status.st_mode) or status.st_mode & 0o100 else 0o444
    if status.st_mode & wanted != wanted:
        os.chmod(path, stat.S_IMODE(status.st_mode) | wanted)


def _text(path: Path, bytes_max: int) -> str:
    try:
        with open(path, "rb") as file:
            data = file.read(bytes_max + 1)
        if len(data) > bytes_max:
            raise UnreadableFile(file=path.name, reason=f"it is longer than {bytes_max} bytes")
        return data.decode("utf-8")
    except OSError as problem:
        raise UnreadableFile(file=path.name, reason=problem.strerror or "it cannot be opened") from None
    except UnicodeDecodeError:
        raise UnreadableFile(file=path.name, reason="it is not UTF-8 text") from None


def _json(path: Path) -> object:
    try:
        value: object = json.loads(_text(path, DOCUMENT_BYTES_MAX))
        return value
    except (ValueError, RecursionError) as problem:
        raise UnreadableFile(file=path.name, reason=f"it is not JSON ({problem})") from None
