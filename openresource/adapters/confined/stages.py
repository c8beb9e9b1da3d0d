"""Where a program without namespaces finds its files: in their own place if its uid can reach it, else in a copy."""

from __future__ import annotations

import asyncio
import hashlib
import os
import shutil
import stat
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, TypeVar

from openresource.sandbox.folders import make_folder, wipe_folder
from openresource.sandbox.layout import Interpreter
from openresource.sandbox.releases import make_readable

Result = TypeVar("Result")
STAGE_NAME: Final = "openresource-shown"
# Parts of a Python that no service loads, and that are most of its size.
UNUSED: Final = shutil.ignore_patterns(
    "test", "tests", "idlelib", "tkinter", "turtledemo", "ensurepip", "site-packages", "config-*", "*.a"
)


class Stage:
    """The folder of one instance, removed with everything that the program has left in it."""

    def __init__(self, uid: int | None) -> None:
        self.uid = uid
        self.folder = make_folder("program")
        self.home = self._make("home", 0o700)
        self.tools = self._make("tools", 0o755)
        if uid is not None:
            os.chmod(self.folder, 0o711)
            os.chown(self.home, uid, uid)

    def release(self, source: Path) -> Path:
        """The release where the program can read it."""
        if self.uid is None:
            return Path(os.path.realpath(source))
        if is_reachable(source):
            make_readable(source)
            return Path(os.path.realpath(source))
        target = self.folder / "app"
        shutil.copytree(source, target, symlinks=True)
        make_readable(target)
        return target

    def shown(self, source: Path) -> Path:
        """Anything else, of which one copy serves all programs."""
        real = Path(os.path.realpath(source))
        return real if self.uid is None or is_reachable(real) else shared_copy(real)

    def interpreter(self, interpreter: Interpreter) -> Path:
        """The prefix of the interpreter."""
        prefix = interpreter.prefix
        if self.uid is None or is_reachable(prefix):
            return prefix
        inside = interpreter.executable.relative_to(prefix)
        return shared_copy(
            prefix, parts=(str(inside), f"lib/python3.{interpreter.minor}", "lib/libpython3*.so*")
        )

    async def remove(self) -> None:
        """Wipe it."""
        await in_thread(wipe_folder, self.folder)

    def _make(self, name: str, mode: int) -> Path:
        folder = self.folder / name
        folder.mkdir()
        folder.chmod(mode)
        return folder


async def in_thread(work: Callable[..., Result], *arguments: Any) -> Result:
    """Work in a thread to its end, even if nobody waits for it any more: half-made folders could not be removed."""
    task = asyncio.ensure_future(asyncio.to_thread(work, *arguments))
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.wait((task,))
        raise


def is_reachable(path: Path) -> bool:
    """Whether any user may enter every folder on the way to a path, and read it."""
    real = Path(os.path.realpath(path))
    needed = stat.S_IROTH | (stat.S_IXOTH if real.is_dir() else 0)
    return real.stat().st_mode & needed == needed and all(
        parent.stat().st_mode & stat.S_IXOTH for parent in real.parents
    )


def shared_copy(source: Path, parts: tuple[str, ...] = ("",)) -> Path:
    """A copy by hard links (or of bytes, across file systems) in a folder that all users can enter, made once."""
    status = source.stat()
    key = f"{source}\0{status.st_dev}\0{status.st_ino}\0{status.st_mtime_ns}\0{parts}"
    base = _base()
    target = base / hashlib.sha256(key.encode()).hexdigest()[:24]
    if target.exists():
        return target
    making = Path(tempfile.mkdtemp(prefix="making-", dir=base))
    os.chmod(making, 0o755)
    if source.is_file():
        _link(str(source), str(making / source.name))
    for part in parts if source.is_dir() else ():
        for found in source.glob(part) if part else (source,):
            place = making / found.relative_to(source)
            place.parent.mkdir(parents=True, exist_ok=True)
            if found.is_dir():
                shutil.copytree(
                    found,
                    place,
                    symlinks=True,
                    ignore=UNUSED if part else None,
                    copy_function=_link,
                    dirs_exist_ok=True,
                )
            else:
                _link(str(found), str(place))
    try:
        making.rename(target)
    except OSError:
        # Another program's start was quicker.
        shutil.rmtree(making, ignore_errors=True)
    return target


def _base() -> Path:
    folder = Path(tempfile.gettempdir(), STAGE_NAME)
    folder.mkdir(mode=0o755, exist_ok=True)
    status = folder.lstat()
    if stat.S_ISLNK(status.st_mode) or status.st_uid != os.geteuid() or status.st_mode & 0o022:
        folder = Path(tempfile.mkdtemp(prefix=f"{STAGE_NAME}-"))
    folder.chmod(0o755)
    return folder


def _link(source: str, target: str) -> str:
    try:
        os.link(source, target, follow_symlinks=False)
    except OSError:
        shutil.copy2(source, target, follow_symlinks=False)
    return target
