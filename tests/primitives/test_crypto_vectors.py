"""Keys, hashes, signatures, key files and sealed messages against AI Network's own."""

from __future__ import annotations

from typing import Any

import pytest

from openresource.primitives.encoding import canonical_json, utf8
from openresource.primitives.errors import Refusal
from openresource.primitives.hashing import (
    hash_transaction,
    hash_wallet_message,
    keccak,
    message_hash_hex,
    text_bytes,
)
from openresource.primitives.keys import (
    InvalidSignature,
    address_of,
    checksum_address,
    hash_from_signature,
    is_address,
    is_checksum_address,
    private_key_from_hex,
    recover,
    recover_address,
    sign_message,
    sign_transaction,
    verify_signature,
)
from openresource.primitives.keystore import decrypt_key, encrypt_key
from openresource.primitives.mnemonic import COIN_TYPES, InvalidMnemonic, key_from_mnemonic
from openresource.primitives.paths import decode_label, encode_label
from openresource.primitives.sealing import seal, unseal
from tests.vectors_support import vectors

FILE = "ain/crypto.json"


@vectors("ain/crypto.json", "accounts", expected=("public_key", "address"))
def test_account_vectors(case: Any, document: Any) -> None:
    key = private_key_from_hex(case["private_key"])
    assert key.public_key.hex() == case["public_key"]
    assert key.address == case["address"]


@vectors("ain/crypto.json", "checksum", expected=("checksum", "is_valid_address", "is_checksum_address"))
def test_checksum_vectors(case: Any, document: Any) -> None:
    assert is_address(case["input"]) == case["is_valid_address"]
    assert is_checksum_address(case["input"]) == case["is_checksum_address"]
    if case["checksum"] is None:
        with pytest.raises(Refusal):
            checksum_address(case["input"])
    else:
        assert checksum_address(case["input"]) == case["checksum"]


@vectors("ain/crypto.json", "pub_to_address", expected=("address_from_raw", "address_from_compressed"))
def test_public_key_vectors(case: Any, document: Any) -> None:
    assert address_of(bytes.fromhex(case["public_key"])) == case["address_from_raw"]
    assert address_of(bytes.fromhex(case["compressed"])) == case["address_from_compressed"]


@vectors("ain/crypto.json", "hash_message", expected=("hash",))
def test_message_hash_vectors(case: Any, document: Any) -> None:
    assert message_hash_hex(case["message"]) == case["hash"]


@vectors("ain/crypto.json", "keccak", expected=("keccak256",))
def test_keccak_vectors(case: Any, document: Any) -> None:
    assert "0x" + keccak(text_bytes(case["input"])).hex() == case["keccak256"]


@vectors(
    "ain/crypto.json", "sign_message", expected=("signature", "address", "verify", "verify_lowercase_address")
)
def test_message_signature_vectors(case: Any, document: Any) -> None:
    key = private_key_from_hex(case["private_key"])
    assert key.address == case["address"]
    signature = sign_message(case["message"], key, case["chain_id"])
    assert signature == case["signature"]
    lower = key.address.lower()
    assert verify_signature(case["message"], signature, key.address, case["chain_id"]) == case["verify"]
    assert (
        verify_signature(case["message"], signature, lower, case["chain_id"])
        == case["verify_lowercase_address"]
    )


@vectors("ain/crypto.json", "verify_failures", expected=("result",))
def test_refused_signature_vectors(case: Any, document: Any) -> None:
    arguments = (case["message"], case["signature"], case["address"], case["chain_id"])
    if case["result"] == "throws":
        with pytest.raises(InvalidSignature):
            verify_signature(*arguments)
    else:
        assert verify_signature(*arguments) == case["result"]


@vectors("ain/crypto.json", "stable_stringify", expected=("text",))
def test_canonical_json_vectors(case: Any, document: Any) -> None:
    assert canonical_json(case["value"]) == case["text"]


@vectors(
    "ain/crypto.json",
    "tx_sign",
    expected=(
        "serialized",
        "tx_hash",
        "body_hash",
        "signature",
        "created",
        "recovered_address",
        "hash_in_tx",
        "verify",
    ),
)
def test_transaction_signature_vectors(case: Any, document: Any) -> None:
    key = private_key_from_hex(case["private_key"])
    body, signature, chain_id = case["tx_body"], case["signature"], case["chain_id"]
    assert canonical_json(body) == case["serialized"]
    assert "0x" + hash_transaction(body).hex() == case["tx_hash"] == case["body_hash"]
    assert sign_transaction(body, key, chain_id) == signature
    embedded = hash_from_signature(signature)
    assert "0x" + embedded.hex() == case["hash_in_tx"]
    assert recovered_or_empty(embedded, signature, chain_id) == case["recovered_address"]
    assert bool(case["recovered_address"]) is case["created"]
    assert is_verified(body, signature, case["recovered_address"], chain_id) == case["verify"]
    other = case["other_chain"]
    assert recovered_or_empty(embedded, signature, other["chain_id"]) == other["recovered_address"]
    assert is_verified(body, signature, other["recovered_address"], other["chain_id"]) == other["verify"]
    # A transaction keeps the hash and the address that its signature carries, whatever happened to its body.
    tampered = case["tampered_body"]
    assert case["hash_in_tx"] == tampered["hash_in_tx"]
    assert case["recovered_address"] == tampered["recovered_address"]
    assert (
        is_verified(tampered["tx_body"], signature, tampered["recovered_address"], chain_id)
        == tampered["verify"]
    )


@vectors("ain/crypto.json", "mnemonic", expected=("path", "private_key", "address"))
def test_mnemonic_vectors(case: Any, document: Any) -> None:
    key = key_from_mnemonic(case["mnemonic"], case["index"], case["chain"])
    assert key.to_bytes().hex() == case["private_key"]
    assert key.address == case["address"]
    assert case["path"] == f"m/44'/{COIN_TYPES[case['chain']]}'/0'/0/{case['index']}"


@vectors("ain/crypto.json", "mnemonic_invalid")
def test_refused_mnemonic_vectors(case: Any, document: Any) -> None:
    with pytest.raises(InvalidMnemonic):
        key_from_mnemonic(case["mnemonic"])


@vectors("ain/crypto.json", "keystore", expected=("private_key", "decrypted", "decrypted_from_text"))
def test_keystore_vectors(case: Any, document: Any) -> None:
    key = decrypt_key(case["keystore"], case["password"])
    assert key.to_bytes().hex() == case["private_key"] == case["decrypted"]
    # Reading from text adds only the parsing; the key derivation is the same and is not worth a second here.
    assert case["decrypted"] == case["decrypted_from_text"]
    crypto = case["keystore"]["crypto"]
    parameters = crypto["kdfparams"]
    if crypto["kdf"] != "scrypt" or (parameters["r"], parameters["p"]) != (8, 1) or parameters["n"] > 10_000:
        return
    again = encrypt_key(
        key,
        case["password"],
        salt=bytes.fromhex(parameters["salt"]),
        iv=bytes.fromhex(crypto["cipherparams"]["iv"]),
        identifier=case["keystore"]["id"],
        cost=parameters["n"],
    )
    assert again == case["keystore"]
    assert decrypt_key(canonical_json(case["keystore"]).upper(), case["password"]) == key


@vectors("ain/crypto.json", "encode_decode", expected=("encoded", "decoded"))
def test_label_encoding_vectors(case: Any, document: Any) -> None:
    assert encode_label(case["input"]) == case["encoded"]
    assert decode_label(case["input"]) == case["decoded"] or decode_label(case["encoded"]) == case["decoded"]


@vectors("ain/crypto.json", "ecies", expected=("public_key", "decrypted"))
def test_sealed_message_vectors(case: Any, document: Any) -> None:
    key = private_key_from_hex(case["private_key"])
    assert key.public_key.hex() == case["public_key"]
    assert unseal(case["encrypted"], key).decode() == case["decrypted"]
    once = private_key_from_hex("07" * 32)
    resealed = seal(case["message"].encode(), key.public_key, once=once, iv=bytes(range(16)))
    assert unseal(resealed, key).decode() == case["message"] == case["decrypted"]


@vectors(
    "ain/crypto.json",
    "checkin_sender_proof",
    expected=("text", "message_hash", "signed_hash", "sender_proof", "accepted", "single_hash_accepted"),
)
def test_sender_proof_vectors(case: Any, document: Any) -> None:
    key = private_key_from_hex(case["private_key"])
    assert canonical_json(case["body"]) == case["text"]
    message_hash = hash_wallet_message(utf8(case["text"]))
    assert "0x" + message_hash.hex() == case["message_hash"]
    signed_hash = hash_wallet_message(message_hash)
    assert "0x" + signed_hash.hex() == case["signed_hash"]
    proof = bytes.fromhex(case["sender_proof"][2:])
    made = key.sign_recoverable(signed_hash)
    assert made[:64] + bytes((made[64] + 27,)) == proof
    assert (recover(signed_hash, proof) == case["body"]["sender"]) == case["accepted"]
    single = bytes.fromhex(case["sender_proof_single_hash"][2:])
    assert (recover(signed_hash, single) == case["body"]["sender"]) == case["single_hash_accepted"]


def recovered_or_empty(digest: bytes, signature: str, chain_id: int) -> str:
    try:
        return recover_address(digest, signature, chain_id)
    except InvalidSignature:
        return ""


def is_verified(body: Any, signature: str, address: str, chain_id: int) -> bool:
    try:
        return verify_signature(body, signature, address, chain_id)
    except Refusal:
        return False
