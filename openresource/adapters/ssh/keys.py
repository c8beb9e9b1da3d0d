"""Keys of shells as files: made once, readable by their owner alone."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

import asyncssh

from openresource.market.ssh_keys import ALGORITHM, PublicKey, read_public_key
from openresource.primitives.errors import Refusal

FILE_BYTES_MAX: Final = 16_384


class ShellKeyUnusable(Refusal):
    template = "The key in {path} cannot be used: {reason}."
    way_out = "Move it away; a new one is made, and its wallet vouches for it anew."


def load_or_make_key(path: Path) -> asyncssh.SSHKey:
    """The Ed25519 key in a file; a new one if there is none."""
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        key = asyncssh.generate_private_key(ALGORITHM)
        fresh = path.with_suffix(".new")
        fresh.unlink(missing_ok=True)
        descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(key.export_private_key())
            file.flush()
            os.fsync(file.fileno())
        fresh.rename(path)
        return key
    if path.stat().st_mode & 0o077:
        raise ShellKeyUnusable(path=str(path), reason="others may read it")
    data = path.read_bytes()[:FILE_BYTES_MAX]
    try:
        key = asyncssh.import_private_key(data)
    except (asyncssh.KeyImportError, ValueError) as error:
        raise ShellKeyUnusable(path=str(path), reason=f"it holds no key ({error})") from None
    if key.get_algorithm() != ALGORITHM:
        raise ShellKeyUnusable(path=str(path), reason=f"it is not of the kind {ALGORITHM}")
    return key


def public_key_of(key: asyncssh.SSHKey) -> PublicKey:
    """The public half, as the chain writes it; a key of another kind is refused."""
    parts = key.export_public_key().decode().split()
    return read_public_key(" ".join(parts[:2]))
