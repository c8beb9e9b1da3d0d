"""Keeps what modules were compiled to, so that a module is compiled once on a machine.

Compiled code is machine code: only what we wrote ourselves is ever given back, which a keyed hash proves. It was made
inside the sandbox and is used inside the sandbox, so that a module can spoil nothing but its own.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import os
import platform
import secrets
from pathlib import Path
from typing import Final

KEY_FILE: Final = "key"
KEY_BYTES: Final = 32
# Whatever changes in how modules are compiled changes this number.
RECIPE: Final = 1
COMPILED_BYTES_MAX: Final = 256 << 20
FILES_MAX: Final = 200
READ_BYTES: Final = 1 << 20


class CompiledModules:
    """A private folder of compiled modules."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def find(self, name: str) -> Path | None:
        """The file that holds a compiled module, if it is ours."""
        path = self._folder / f"{name}.cwasm"
        try:
            written = path.with_suffix(".mac").read_bytes()
            if not hmac.compare_digest(written, self._mac(name, path)):
                return None
            # Files that are used stay, the others make room.
            os.utime(path)
        except OSError:
            return None
        return path

    def keep(self, name: str, compiled: bytes) -> Path:
        """Write a compiled module down."""
        self._key()
        path = self._folder / f"{name}.cwasm"
        fresh = self._folder / f".{name}.{secrets.token_hex(4)}"
        fresh.write_bytes(compiled)
        # Programs run under other users; the folder is closed to them, the file is shown to its own.
        fresh.chmod(0o444)
        mac = self._mac(name, fresh)
        fresh.rename(path)
        path.with_suffix(".mac").write_bytes(mac)
        self._drop_oldest()
        return path

    def _mac(self, name: str, path: Path) -> bytes:
        digest = hmac.new(self._key(), name.encode(), hashlib.sha256)
        with open(path, "rb") as file:
            while part := file.read(READ_BYTES):
                digest.update(part)
        return digest.digest()

    def _key(self) -> bytes:
        self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        path = self._folder / KEY_FILE
        if not path.exists():
            fresh = self._folder / f".key.{secrets.token_hex(4)}"
            descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            with os.fdopen(descriptor, "wb") as file:
                file.write(secrets.token_bytes(KEY_BYTES))
            try:
                os.link(fresh, path)
            except FileExistsError:
                pass  # Another process was quicker, and its key is as good.
            finally:
                fresh.unlink()
        return path.read_bytes()

    def _drop_oldest(self) -> None:
        found = sorted(self._folder.glob("*.cwasm"), key=lambda path: path.stat().st_mtime)
        for path in found[:-FILES_MAX]:
            path.unlink(missing_ok=True)
            path.with_suffix(".mac").unlink(missing_ok=True)


def name_of(module: Path, engine_version: str) -> str:
    """What a compiled module depends on: the module, the engine, how it is asked, this processor."""
    digest = hashlib.sha256()
    with open(module, "rb") as file:
        while part := file.read(READ_BYTES):
            digest.update(part)
    facts = [digest.hexdigest(), engine_version, RECIPE, platform.machine(), _processor_flags()]
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()


def _processor_flags() -> str:
    try:
        with open("/proc/cpuinfo", encoding="ascii", errors="replace") as file:
            return next((line for line in file if line.startswith(("flags", "Features"))), "")
    except OSError:
        return ""
