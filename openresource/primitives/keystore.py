"""Key files under a passphrase: keystore version 3, as AI Network's and Ethereum's wallets read it."""

from __future__ import annotations

import hashlib
import hmac
import re
from typing import Any

from openresource.primitives._aes import aes_ctr
from openresource.primitives.encoding import parse_json, utf8
from openresource.primitives.errors import Refusal
from openresource.primitives.hashing import keccak
from openresource.primitives.keys import PrivateKey
from openresource.primitives.limits import PBKDF2_ROUNDS_MAX, SCRYPT_MEMORY_BYTES_MAX

SCRYPT_COST = 262_144
_SCRYPT_BLOCK = 8
_KEYSTORE_BYTES_MAX = 10_000
_HEX = re.compile("(?:[0-9a-fA-F]{2})*")


class InvalidKeystore(Refusal):
    template = "The key file is not a keystore of version 3 that can be opened: {reason}."


class WrongPassphrase(Refusal):
    template = "The passphrase does not open the key file."
    way_out = "Try again; nothing was changed."


def encrypt_key(
    key: PrivateKey, passphrase: str, *, salt: bytes, iv: bytes, identifier: str, cost: int = SCRYPT_COST
) -> dict[str, Any]:
    """A keystore for a key; salt (32 bytes), iv (16 bytes) and the identifier (a random UUID) are the caller's."""
    if len(iv) != 16 or len(salt) < 16:
        raise InvalidKeystore(reason="its iv needs 16 bytes and its salt at least 16")
    derived = _scrypt(passphrase, salt, cost, _SCRYPT_BLOCK, 1, 32)
    ciphertext = aes_ctr(derived[:16], iv, key.to_bytes())
    return {
        "version": 3,
        "id": identifier,
        "address": key.address[2:].lower(),
        "crypto": {
            "ciphertext": ciphertext.hex(),
            "cipherparams": {"iv": iv.hex()},
            "cipher": "aes-128-ctr",
            "kdf": "scrypt",
            "kdfparams": {"dklen": 32, "salt": salt.hex(), "n": cost, "r": _SCRYPT_BLOCK, "p": 1},
            "mac": keccak(derived[16:32] + ciphertext).hex(),
        },
    }


def decrypt_key(keystore: dict[str, Any] | str, passphrase: str) -> PrivateKey:
    """The key in a keystore; its text is read in any case, as some wallets write capitals."""
    opened: Any = keystore
    if isinstance(keystore, str):
        opened = parse_json(keystore.lower(), bytes_max=_KEYSTORE_BYTES_MAX, depth_max=5)
    document = _object(opened, "document")
    if document.get("version") != 3:
        raise InvalidKeystore(reason="its version is not 3")
    crypto = _object(document.get("crypto", document.get("Crypto")), "crypto")
    if crypto.get("cipher") != "aes-128-ctr":
        raise InvalidKeystore(reason="its cipher is not aes-128-ctr")
    ciphertext = _hex_bytes(crypto, "ciphertext")
    iv = _hex_bytes(_object(crypto.get("cipherparams"), "cipherparams"), "iv")
    if len(ciphertext) != 32 or len(iv) != 16:
        raise InvalidKeystore(reason="its ciphertext or iv has a wrong length")
    derived = _derived(crypto, passphrase)
    mac = keccak(derived[16:32] + ciphertext)
    if not hmac.compare_digest(mac, _hex_bytes(crypto, "mac")):
        raise WrongPassphrase()
    key = PrivateKey(aes_ctr(derived[:16], iv, ciphertext))
    address = document.get("address")
    if address is not None and str(address).lower().removeprefix("0x") != key.address[2:].lower():
        raise InvalidKeystore(reason="its address is not that of its key")
    return key


def _derived(crypto: dict[str, Any], passphrase: str) -> bytes:
    parameters = _object(crypto.get("kdfparams"), "kdfparams")
    salt = _hex_bytes(parameters, "salt")
    length = _integer(parameters, "dklen", 32, 64)
    kind = crypto.get("kdf")
    if kind == "scrypt":
        cost = _integer(parameters, "n", 2, 1 << 24)
        block = _integer(parameters, "r", 1, 64)
        return _scrypt(passphrase, salt, cost, block, _integer(parameters, "p", 1, 16), length)
    if kind == "pbkdf2":
        if parameters.get("prf", "hmac-sha256") != "hmac-sha256":
            raise InvalidKeystore(reason="its prf is not hmac-sha256")
        rounds = _integer(parameters, "c", 1, PBKDF2_ROUNDS_MAX)
        return hashlib.pbkdf2_hmac("sha256", utf8(passphrase), salt, rounds, length)
    raise InvalidKeystore(reason="its kdf is neither scrypt nor pbkdf2")


def _scrypt(passphrase: str, salt: bytes, cost: int, block: int, lanes: int, length: int) -> bytes:
    memory_bytes = 128 * block * (cost + lanes + 2)
    if memory_bytes > SCRYPT_MEMORY_BYTES_MAX or cost & (cost - 1):
        raise InvalidKeystore(reason="its scrypt parameters are too costly or not allowed")
    return hashlib.scrypt(
        utf8(passphrase), salt=salt, n=cost, r=block, p=lanes, dklen=length, maxmem=memory_bytes + (1 << 20)
    )


def _object(value: Any, name: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise InvalidKeystore(reason=f"{name} is not an object")
    return value


def _hex_bytes(source: dict[str, Any], name: str) -> bytes:
    value = source.get(name)
    if not isinstance(value, str):
        raise InvalidKeystore(reason=f"{name} is not a text of hex digits")
    digits = value.removeprefix("0x")
    if _HEX.fullmatch(digits) is None:
        raise InvalidKeystore(reason=f"{name} is not a text of hex digits")
    return bytes.fromhex(digits)


def _integer(source: dict[str, Any], name: str, lowest: int, highest: int) -> int:
    value = source.get(name)
    if not isinstance(value, int) or isinstance(value, bool) or not lowest <= value <= highest:
        raise InvalidKeystore(reason=f"{name} is not an integer from {lowest} to {highest}")
    return value
