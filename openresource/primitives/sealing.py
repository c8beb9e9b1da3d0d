"""Messages that only the holder of a key can read (ECIES on secp256k1, in the form that AI Network's clients use)."""

from __future__ import annotations

import hashlib
import hmac
import re
from typing import Any

from openresource.primitives._aes import aes_cbc_decrypt, aes_cbc_encrypt
from openresource.primitives.errors import Refusal
from openresource.primitives.keys import InvalidPublicKey, PrivateKey

SEALED_BYTES_MAX = 10_000_000
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
