"""Key files open with their passphrase only, and hostile ones cost little."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import pytest
from Crypto.Cipher import AES

from openresource.primitives.hashing import keccak
from openresource.primitives.keys import PrivateKey, generate_key
from openresource.primitives.keystore import InvalidKeystore, WrongPassphrase, decrypt_key, encrypt_key

KEY = generate_key(b"keystore" * 4)


def sealed(**changes: Any) -> dict[str, Any]:
    keystore = encrypt_key(KEY, "secret 한글", salt=bytes(32), iv=bytes(16), identifier="an-id", cost=1024)
    crypto = keystore["crypto"]
    for name, value in changes.items():
        target = (
            keystore if name in keystore else crypto["kdfparams"] if name in crypto["kdfparams"] else crypto
        )
        target[name] = value
    return keystore


def test_a_key_file_opens_with_its_passphrase() -> None:
    assert decrypt_key(sealed(), "secret 한글") == KEY
    assert decrypt_key(json.dumps(sealed()).upper(), "secret 한글") == KEY
    assert KEY.to_bytes().hex() not in json.dumps(sealed())


def test_another_passphrase_or_a_changed_file_does_not_open_it() -> None:
    for keystore, passphrase in ((sealed(), "Secret 한글"), (sealed(mac="00" * 32), "secret 한글")):
        with pytest.raises(WrongPassphrase):
            decrypt_key(keystore, passphrase)
    with pytest.raises(InvalidKeystore):
        decrypt_key(sealed(address="00" * 20), "secret 한글")


def test_a_pbkdf2_key_file_opens() -> None:
    derived = hashlib.pbkdf2_hmac("sha256", b"p", b"salt" * 8, 1000, 32)
    ciphertext = AES.new(derived[:16], AES.MODE_CTR, nonce=b"", initial_value=b"\1" * 16).encrypt(
        KEY.to_bytes()
    )
    keystore = sealed()
    keystore["crypto"] = {
        "cipher": "aes-128-ctr",
        "cipherparams": {"iv": "01" * 16},
        "ciphertext": ciphertext.hex(),
        "kdf": "pbkdf2",
        "kdfparams": {"c": 1000, "dklen": 32, "prf": "hmac-sha256", "salt": (b"salt" * 8).hex()},
        "mac": keccak(derived[16:] + ciphertext).hex(),
    }
    assert decrypt_key(keystore, "p") == KEY
    with pytest.raises(WrongPassphrase):
        decrypt_key(keystore, "q")


@pytest.mark.parametrize(
    "changes",
    [
        {"version": 2},
        {"crypto": []},
        {"cipher": "aes-256-gcm"},
        {"kdf": "argon2"},
        {"ciphertext": "00"},
        {"ciphertext": "zz"},
        {"n": 1 << 30},
        {"n": 1023},
        {"n": 1 << 24, "r": 64},
        {"n": 1024.5},
        {"n": True},
        {"p": 1 << 20},
        {"dklen": 16},
        {"salt": 5},
        {"kdfparams": None},
    ],
)
def test_a_hostile_key_file_is_refused_before_it_costs_anything(changes: dict[str, Any]) -> None:
    with pytest.raises(InvalidKeystore):
        decrypt_key(sealed(**changes), "secret 한글")


def test_a_text_that_is_no_key_file_is_refused() -> None:
    with pytest.raises(InvalidKeystore):
        decrypt_key("[]", "")


def test_short_salts_are_not_used() -> None:
    with pytest.raises(InvalidKeystore):
        encrypt_key(PrivateKey(b"\1" * 32), "p", salt=b"x", iv=bytes(16), identifier="i")
