"""Keys sign, addresses check, and nothing shows a secret."""

from __future__ import annotations

import pickle
import traceback

import pytest
from hypothesis import given
from hypothesis import strategies as st

from openresource.primitives.errors import InvalidInput, Refusal
from openresource.primitives.hashing import hash_transaction, keccak
from openresource.primitives.keys import (
    CURVE_ORDER,
    InvalidAddress,
    InvalidPrivateKey,
    InvalidPublicKey,
    InvalidSignature,
    PrivateKey,
    address_bytes,
    address_of,
    checksum_address,
    generate_key,
    is_address,
    is_checksum_address,
    private_key_from_hex,
    recover,
    recover_address,
    sign_message,
    sign_transaction,
    verify_signature,
)

SECRET = bytes.fromhex("4c" * 32)
KEY = PrivateKey(SECRET)
BODY = {"nonce": -1, "timestamp": 1, "operation": {"type": "SET_VALUE", "ref": "/apps/x", "value": "é"}}

keys = st.integers(1, CURVE_ORDER - 1).map(lambda number: PrivateKey(number.to_bytes(32, "big")))


@given(keys, st.binary(min_size=32, max_size=32))
def test_a_signature_leads_back_to_its_signer(key: PrivateKey, digest: bytes) -> None:
    signature = key.sign_recoverable(digest)
    assert signature == key.sign_recoverable(digest)
    assert len(signature) == 65 and signature[64] in (0, 1)
    assert recover(digest, signature) == key.address
    assert recover(digest, signature[:64] + bytes((signature[64] + 27,))) == key.address


@given(st.binary(max_size=70), st.binary(min_size=32, max_size=32))
def test_whatever_signature_arrives_there_is_an_address_or_a_refusal(signature: bytes, digest: bytes) -> None:
    try:
        assert is_checksum_address(recover(digest, signature))
    except InvalidSignature:
        pass


def test_the_mirror_image_of_a_signature_is_refused() -> None:
    digest = keccak(b"x")
    signature = KEY.sign_recoverable(digest)
    mirrored_s = CURVE_ORDER - int.from_bytes(signature[32:64], "big")
    mirrored = signature[:32] + mirrored_s.to_bytes(32, "big") + bytes((1 - signature[64],))
    with pytest.raises(InvalidSignature):
        recover(digest, mirrored)
    text = sign_message("x", KEY, 0)
    other = text[:66] + mirrored_of(text)
    assert verify_signature("x", text, KEY.address, 0)
    assert recover_address(bytes.fromhex(text[2:66]), other, 0) == KEY.address
    assert not verify_signature("x", other, KEY.address, 0)


@pytest.mark.parametrize("chain_id", [0, 1, 2, 100, 102, 109])
def test_a_transaction_is_bound_to_its_network(chain_id: int) -> None:
    signature = sign_transaction(BODY, KEY, chain_id)
    assert len(signature) == 2 + 2 * 97
    assert recover_address(hash_transaction(BODY), signature, chain_id) == KEY.address
    assert verify_signature(BODY, signature, KEY.address, chain_id)
    with pytest.raises(InvalidSignature):
        verify_signature(BODY, signature, KEY.address, chain_id + 1)


def test_a_chain_id_that_does_not_fit_is_refused() -> None:
    for chain_id in (110, -1):
        with pytest.raises(InvalidInput):
            sign_message("x", KEY, chain_id)


def test_an_object_that_is_no_transaction_is_not_verified() -> None:
    with pytest.raises(InvalidInput):
        verify_signature({"a": 1}, sign_message("x", KEY, 0), KEY.address, 0)


@pytest.mark.parametrize("text", ["", "0x", "zz", "0x" + "g" * 194, "0x" + "1" * 193])
def test_a_text_that_is_no_signature_is_refused(text: str) -> None:
    with pytest.raises(InvalidSignature):
        recover_address(keccak(b""), text, 0)


def test_a_key_never_shows_itself() -> None:
    shown = [repr(KEY), str(KEY), f"{KEY}", f"{[KEY]}"]
    try:
        raise ValueError(KEY)
    except ValueError:
        shown.append(traceback.format_exc())
    assert not any(SECRET.hex() in text or repr(SECRET) in text for text in shown)
    with pytest.raises(TypeError):
        pickle.dumps(KEY)
    with pytest.raises(InvalidPrivateKey) as refusal:
        private_key_from_hex("4c" * 31 + "zz")
    assert "4c4c" not in str(refusal.value.to_json())


@pytest.mark.parametrize(
    "secret", [b"", bytes(32), bytes(31) + b"", CURVE_ORDER.to_bytes(32, "big"), b"\1" * 33]
)
def test_what_is_no_private_key_is_refused(secret: bytes) -> None:
    with pytest.raises(InvalidPrivateKey):
        PrivateKey(secret)


def test_equal_secrets_are_equal_keys() -> None:
    assert PrivateKey(SECRET) == KEY
    assert len({PrivateKey(SECRET), KEY}) == 1
    assert private_key_from_hex("0x1") == PrivateKey(bytes(31) + b"\1")


def test_keys_come_from_entropy_alone() -> None:
    assert generate_key(b"e" * 32) == generate_key(b"e" * 32)
    assert generate_key(b"e" * 32) != generate_key(b"f" * 32)
    with pytest.raises(InvalidInput):
        generate_key(b"short")


def test_addresses_are_recognised_in_any_case() -> None:
    lower = KEY.address.lower()
    assert is_address(lower) and is_address("0x" + lower[2:].upper())
    assert checksum_address(lower) == checksum_address("0x" + lower[2:].upper()) == KEY.address
    assert address_bytes(lower).hex() == lower[2:]
    for text in ("", "0x", lower[:-1], lower + "0", lower[2:], "0X" + lower[2:], lower + "\n", 5, None):
        assert not is_address(text)
    with pytest.raises(InvalidAddress):
        checksum_address("0x12")


def test_public_keys_of_all_lengths_have_one_address() -> None:
    assert address_of(KEY.public_key) == address_of(b"\4" + KEY.public_key) == KEY.address
    assert address_of(KEY.compressed_public_key()) == KEY.address
    for public_key in (b"", b"\1" * 33, b"\5" * 65):
        with pytest.raises(InvalidPublicKey):
            address_of(public_key)


def test_two_keys_agree_on_a_point() -> None:
    other = generate_key(b"other" * 8)
    assert KEY.shared_point(other.public_key) == other.shared_point(KEY.public_key)
    with pytest.raises(Refusal):
        KEY.shared_point(b"\1" * 64)


def mirrored_of(text: str) -> str:
    """The last 65 bytes of a signature text for chain id 0, with s on the other side of the order."""
    r, s, v = text[66:130], int(text[130:194], 16), int(text[194:], 16)
    return f"{r}{CURVE_ORDER - s:064x}{27 + 28 - v:02x}"
