"""The hashes of the chain: Keccak-256, the message hash and the transaction hash."""

from __future__ import annotations

import hashlib
import re
from typing import Any, Final

from openresource.primitives._keccak_backend import new_hash
from openresource.primitives.encoding import canonical_json_bytes, compact_size, utf8, utf16_length

_new_hash: Any = new_hash
_sha256: Any = hashlib.sha256

_HEX_TEXT: Final = re.compile("0x([0-9a-fA-F]*)")
_PREFIX: Final = b"\x1aAINetwork Signed Message:\n"
# Almost everything that is hashed is short: prefix and length are looked up.
_PREFIX_AND_LENGTH: Final = [_PREFIX + compact_size(length) for length in range(1024)]


def keccak(data: bytes) -> bytes:
    """Keccak-256 with the original padding, as Ethereum uses it."""
    digest: bytes = _new_hash(data).digest()
    return digest


def sha256(data: bytes) -> bytes:
    """SHA-256."""
    digest: bytes = _sha256(data).digest()
    return digest


def text_bytes(text: str) -> bytes:
    """The bytes that a text stands for: those of its hex digits if it is 0x and hex digits, else its UTF-8."""
    if text.startswith("0x"):
        match = _HEX_TEXT.fullmatch(text)
        if match is not None:
            digits = match.group(1)
            return bytes.fromhex(digits if len(digits) % 2 == 0 else "0" + digits)
    return utf8(text)


def hash_message(text: str) -> bytes:
    """The message hash of a text; a text of the form 0x… counts with the bytes of its digits."""
    length = utf16_length(text)
    head = _PREFIX_AND_LENGTH[length] if length < 1024 else _PREFIX + compact_size(length)
    return keccak(keccak(head + text_bytes(text)))


def hash_plain_message(text: str) -> bytes:
    """The message hash of an ASCII text that is known not to start with 0x, without asking."""
    length = len(text)
    head = _PREFIX_AND_LENGTH[length] if length < 1024 else _PREFIX + compact_size(length)
    return keccak(keccak(head + text.encode()))


def message_hash_hex(text: str) -> str:
    """The message hash as 0x and 64 hex digits."""
    return "0x" + hash_message(text).hex()


def hash_transaction(body: dict[str, Any]) -> bytes:
    """The hash of a transaction: of its body's canonical JSON, without the message prefix."""
    return keccak(keccak(canonical_json_bytes(body)))


def hash_wallet_message(data: bytes) -> bytes:
    """The hash that Ethereum's wallets sign for a message of bytes."""
    return keccak(b"\x19Ethereum Signed Message:\n" + str(len(data)).encode() + data)


def is_hash(value: Any) -> bool:
    """Whether a value is 0x and 64 lower-case hex digits."""
    return isinstance(value, str) and _LOWER_HASH.fullmatch(value) is not None


def is_hex_text(value: Any) -> bool:
    """Whether a value is 0x and hex digits of any case, possibly none."""
    return isinstance(value, str) and _HEX_TEXT.fullmatch(value) is not None


_LOWER_HASH: Final = re.compile("0x[0-9a-f]{64}")
