"""Messages that only the holder of a key can read (ECIES on secp256k1, in the form that AI Network's clients use), and
content under a key that several may be given (AES in counter mode with a mac over all of it).
"""

from __future__ import annotations

import hashlib
import hmac
import re
from typing import Any

from openresource.primitives._aes import aes_cbc_decrypt, aes_cbc_encrypt, aes_ctr
from openresource.primitives.errors import Refusal
from openresource.primitives.keys import InvalidPublicKey, PrivateKey

SEALED_BYTES_MAX = 10_000_000
CONTENT_KEY_BYTES = 32
WRAPPED_KEY_BYTES = 161
_HEX = re.compile("(?:[0-9a-f]{2})+")


class CannotUnseal(Refusal):
    template = "The message was not sealed for this key, or it was changed on its way."


def seal(message: bytes, public_key: bytes, *, once: PrivateKey, iv: bytes) -> dict[str, str]:
    """A sealed message; `once` is a fresh key for this message alone and `iv` 16 fresh bytes."""
    cipher_key, mac_key = _keys(once, public_key)
    sender = b"\x04" + once.public_key
    ciphertext = aes_cbc_encrypt(cipher_key, iv, message)
    return {
        "iv": iv.hex(),
        "ephemPublicKey": sender.hex(),
        "ciphertext": ciphertext.hex(),
        "mac": hmac.digest(mac_key, iv + sender + ciphertext, "sha256").hex(),
    }


def unseal(sealed: dict[str, Any], key: PrivateKey) -> bytes:
    """The message behind a sealed one."""
    iv = _part(sealed, "iv", 16)
    sender = _part(sealed, "ephemPublicKey", 65)
    mac = _part(sealed, "mac", 32)
    ciphertext = _part(sealed, "ciphertext", 0)
    if sender[0] != 4:
        raise CannotUnseal()
    try:
        cipher_key, mac_key = _keys(key, sender[1:])
    except InvalidPublicKey as error:
        raise CannotUnseal() from error
    # The mac comes first: padding is only looked at when the sender is known to have written it.
    if not hmac.compare_digest(hmac.digest(mac_key, iv + sender + ciphertext, "sha256"), mac):
        raise CannotUnseal()
    try:
        return aes_cbc_decrypt(cipher_key, iv, ciphertext)
    except ValueError as error:
        raise CannotUnseal() from error


def wrap_key(content_key: bytes, public_key: bytes, *, once: PrivateKey, iv: bytes) -> bytes:
    """A content's key for one reader, as 161 bytes; `once` and `iv` as for `seal`."""
    assert len(content_key) == CONTENT_KEY_BYTES
    parts = seal(content_key, public_key, once=once, iv=iv)
    return b"".join([bytes.fromhex(parts[name]) for name in ("iv", "ephemPublicKey", "ciphertext", "mac")])


def unwrap_key(wrapped: bytes, key: PrivateKey) -> bytes:
    """The content's key behind a wrapped one."""
    if len(wrapped) != WRAPPED_KEY_BYTES:
        raise CannotUnseal()
    names = ("iv", "ephemPublicKey", "ciphertext", "mac")
    cuts = (0, 16, 81, 129, 161)
    parts = {name: wrapped[cuts[place] : cuts[place + 1]].hex() for place, name in enumerate(names)}
    content_key = unseal(parts, key)
    if len(content_key) != CONTENT_KEY_BYTES:
        raise CannotUnseal()
    return content_key


def lock_content(content: bytes, content_key: bytes, *, iv: bytes) -> bytes:
    """Content under a fresh key: iv, ciphertext, mac."""
    assert len(content_key) == CONTENT_KEY_BYTES and len(iv) == 16
    cipher_key, mac_key = _content_keys(content_key)
    locked = iv + aes_ctr(cipher_key, iv, content)
    return locked + hmac.digest(mac_key, locked, "sha256")


def unlock_content(locked: bytes, content_key: bytes) -> bytes:
    """The content, if nothing of it was changed."""
    if len(locked) < 48:
        raise CannotUnseal()
    cipher_key, mac_key = _content_keys(content_key)
    if not hmac.compare_digest(hmac.digest(mac_key, locked[:-32], "sha256"), locked[-32:]):
        raise CannotUnseal()
    return aes_ctr(cipher_key, locked[:16], locked[16:-32])


def _content_keys(content_key: bytes) -> tuple[bytes, bytes]:
    digest = hashlib.sha512(b"openresource content" + content_key).digest()
    return digest[:32], digest[32:]


def _keys(own: PrivateKey, other_public_key: bytes) -> tuple[bytes, bytes]:
    digest = hashlib.sha512(own.shared_point(other_public_key)[:32]).digest()
    return digest[:32], digest[32:]


def _part(sealed: dict[str, Any], name: str, length: int) -> bytes:
    """The bytes of one part; a length of 0 means any."""
    value = sealed.get(name)
    if not isinstance(value, str) or len(value) > 2 * SEALED_BYTES_MAX or _HEX.fullmatch(value) is None:
        raise CannotUnseal()
    data = bytes.fromhex(value)
    if length not in (0, len(data)):
        raise CannotUnseal()
    return data
