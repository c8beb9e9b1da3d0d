"""Keys of secure shells: the public key that a wallet vouches for, and its fingerprint."""

from __future__ import annotations

import base64
import binascii
import re
from dataclasses import dataclass
from typing import Any, Final

from openresource.market.codes import ResultCode
from openresource.market.fields import Fields, InvalidRecord
from openresource.primitives.errors import Refusal
from openresource.primitives.hashing import sha256

ALGORITHM: Final = "ssh-ed25519"
KEYS_MAX: Final = 16
_KEY_BYTES: Final = 32
# RFC 4253: both parts behind their lengths.
_HEAD: Final = len(ALGORITHM).to_bytes(4, "big") + ALGORITHM.encode() + _KEY_BYTES.to_bytes(4, "big")
_FINGERPRINT: Final = re.compile("[0-9a-f]{64}")


class TooManySshKeys(Refusal):
    result_code = ResultCode.TOO_MANY_SSH_KEYS
    template = "{address} vouches for {count} keys already, as many as there may be."
    way_out = "Take one away first: openresource write /ssh_keys/{address}/FINGERPRINT null."


@dataclass(frozen=True, slots=True)
class PublicKey:
    """A key as one line without a comment, and the SHA-256 of its bytes in hex."""

    text: str
    fingerprint: str


def read_public_key(text: str) -> PublicKey:
    """A public key from its line; only Ed25519 is taken, and no comment."""
    algorithm, _, encoded = text.partition(" ")
    try:
        blob = base64.b64decode(encoded, validate=True)
    except (binascii.Error, ValueError):
        blob = b""
    is_whole = blob.startswith(_HEAD) and len(blob) == len(_HEAD) + _KEY_BYTES
    # One key has one spelling.
    if algorithm != ALGORITHM or not is_whole or base64.b64encode(blob).decode() != encoded:
        raise InvalidRecord(
            what="key", member="its text", reason=f"must be {ALGORITHM} and its bytes in base64"
        )
    return PublicKey(text, sha256(blob).hex())


def read_ssh_key(fingerprint: str, record: Any) -> PublicKey:
    """A key from its record at `/ssh_keys/<address>/<fingerprint>`."""
    fields = Fields(record, "key")
    key = read_public_key(fields.text("key"))
    fields.optional_integer("at_ms", 0)
    fields.finish()
    if key.fingerprint != fingerprint:
        raise InvalidRecord(what="key", member="its path", reason="must end in the SHA-256 of the key")
    return key


def ssh_key_record(key: PublicKey) -> dict[str, Any]:
    """What a wallet writes; the chain stamps the time."""
    return {"key": key.text}
