"""Folders for as long as a process lives: what a killed one has left behind goes when the next one makes a folder.

A folder's maker holds a lock on it. The kernel takes the lock back however the process ends, so a folder of ours that
nobody holds belongs to nobody any more. The young ones are left alone, as there is an instant between making and locking.
"""

from __future__ import annotations

import fcntl
import logging
import os
import re
import shutil
import subprocess
import tempfile
import threading
import time
from pathlib import Path
from typing import Final, Literal

Kind = Literal["broker", "egress", "gvisor", "program", "ray", "relay"]
YOUNG_SECONDS: Final = 60.0
WIPE_SECONDS_MAX: Final = 60.0
_NAME: Final = re.compile(r"openresource-(broker|egress|gvisor|program|ray|relay)-[0-9A-Za-z_]+")

_held: dict[Path, int] = {}
_swept: set[Path] = set()
_log = logging.getLogger("openresource.sandbox.folders")


def make_folder(kind: Kind) -> Path:
    """A new folder that only this user can enter; `remove_folder` ends it, and so does the end of this process, later."""
    folder = Path(tempfile.mkdtemp(prefix=f"openresource-{kind}-"))
    lock = _locked(folder)
    if lock is not None:
        _held[folder] = lock
    if folder.parent not in _swept:
        _swept.add(folder.parent)
        threading.Thread(target=sweep, args=(folder.parent,), name="folders-sweep", daemon=True).start()
    return folder


def remove_folder(folder: Path) -> None:
    """Remove it with what we have put in it ourselves."""
    shutil.rmtree(folder, ignore_errors=True)
    _let_go(folder)


def wipe_folder(folder: Path) -> None:
    """Remove it whatever a stranger may have nested in it; takes longer."""
    _wipe(folder)
    _let_go(folder)


def _let_go(folder: Path) -> None:
    lock = _held.pop(folder, None)
    if lock is not None:
        os.close(lock)


def _wipe(folder: Path) -> None:
    # `rm` knows no depth that is too much, and needs only that folders can be entered.
    for words in (["chmod", "-R", "u+rwX", "--", str(folder)], ["rm", "-rf", "--", str(folder)]):
        subprocess.run(words, stderr=subprocess.DEVNULL, timeout=WIPE_SECONDS_MAX, check=False)


def sweep(parent: Path) -> list[Path]:
    """Remove the folders of this user that no process holds any more; returns them."""
    gone: list[Path] = []
    try:
        entries = [entry for entry in os.scandir(parent) if _NAME.fullmatch(entry.name)]
    except OSError as problem:
        _log.info("what others have left is not looked for: %s", problem)
        return gone
    for entry in entries:
        folder = Path(entry.path)
        if not _is_old_and_ours(folder):
            continue
        lock = _locked(folder)
        if lock is None:
            continue
        try:
            _wipe(folder)
            gone.append(folder)
        except subprocess.TimeoutExpired:
            _log.warning("what a killed process has left is too much to remove: %s", folder)
        finally:
            os.close(lock)
    if gone:
        _log.info("removed %d folders that killed processes have left", len(gone))
    return gone


def _is_old_and_ours(folder: Path) -> bool:
    try:
        status = folder.lstat()
    except FileNotFoundError:
        return False
    return status.st_uid == os.geteuid() and time.time() - status.st_mtime > YOUNG_SECONDS


def _locked(folder: Path) -> int | None:
    """A descriptor that holds a folder; None if another process does, or if folders cannot be locked here."""
    try:
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(descriptor)
        return None
    return descriptor
