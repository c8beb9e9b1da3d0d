"""Join keys: what an operator carries from a provider to the machines that shall work for it."""

from __future__ import annotations

import base64
import json
import os
import secrets
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from openresource.primitives.errors import Refusal

KEY_PREFIX: Final = "orjoin1."
KEY_FILE: Final = "join.json"
KEY_CHARACTERS_MAX: Final = 1_000
SECRET_BYTES: Final = 32


class JoinKeyInvalid(Refusal):
    template = "This is no join key: {reason}."
    way_out = "Copy it whole from `openresource provide --pool`, where it was printed."


@dataclass(frozen=True, slots=True)
class JoinKey:
    """Where to join, whose key answers there, and the word that opens; whoever has it may offer machines."""

    host: str
    port: int
    # SHA-256 of the public key of the provider's certificate.
    pin: str
    secret: str = field(repr=False)

    def text(self) -> str:
        """The key as an operator carries it."""
        value = json.dumps([self.host, self.port, self.pin, self.secret]).encode()
        return KEY_PREFIX + base64.urlsafe_b64encode(value).decode().rstrip("=")


def read_join_key(text: str) -> JoinKey:
    """A join key from its text."""
    if not text.startswith(KEY_PREFIX) or len(text) > KEY_CHARACTERS_MAX:
        raise JoinKeyInvalid(reason=f"it does not begin with «{KEY_PREFIX}»")
    encoded = text[len(KEY_PREFIX) :].strip()
    try:
        host, port, pin, secret = json.loads(base64.urlsafe_b64decode(encoded + "=" * (-len(encoded) % 4)))
        key = JoinKey(str(host), int(port), str(pin), str(secret))
    except (ValueError, TypeError):
        raise JoinKeyInvalid(reason="a part of it is missing") from None
    if not key.host or not 0 < key.port < 65536 or len(key.pin) != 66 or len(key.secret) != 2 * SECRET_BYTES:
        raise JoinKeyInvalid(reason="a part of it is missing")
    return key


def load_or_make_secret(folder: Path, *, renew: bool = False) -> str:
    """The word that opens, from a file that only the operator reads; a new one makes the old one worthless."""
    path = folder / KEY_FILE
    if path.exists() and not renew:
        secret = json.loads(path.read_text()).get("secret")
        if isinstance(secret, str) and len(secret) == 2 * SECRET_BYTES:
            return secret
    secret = secrets.token_hex(SECRET_BYTES)
    write_secret(path, json.dumps({"secret": secret}))
    return secret


def write_secret(path: Path, text: str) -> None:
    """A file that only its owner reads, whole or as it was before."""
    fresh = path.with_suffix(".new")
    fresh.unlink(missing_ok=True)
    descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    fresh.rename(path)
