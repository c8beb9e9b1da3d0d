"""AES in the two modes that key stores and sealed messages need, from the one library that has it."""

from __future__ import annotations

from typing import Any

from Crypto.Cipher import AES
from Crypto.Util.Padding import pad, unpad

_AES: Any = AES
_pad: Any = pad
_unpad: Any = unpad


def aes_ctr(key: bytes, iv: bytes, data: bytes) -> bytes:
    """AES in counter mode, the iv being the first counter; the same call encrypts and decrypts."""
    result: bytes = _AES.new(key, _AES.MODE_CTR, nonce=b"", initial_value=iv).encrypt(data)
    return result


def aes_cbc_encrypt(key: bytes, iv: bytes, data: bytes) -> bytes:
    """AES in block chaining mode with PKCS 7 padding."""
    result: bytes = _AES.new(key, _AES.MODE_CBC, iv=iv).encrypt(_pad(data, 16))
    return result


def aes_cbc_decrypt(key: bytes, iv: bytes, data: bytes) -> bytes:
    """The other direction; a ValueError if length or padding is wrong."""
    result: bytes = _unpad(_AES.new(key, _AES.MODE_CBC, iv=iv).decrypt(data), 16)
    return result
