"""Both Keccak back ends give the same hashes, and short cuts hash the same."""

from __future__ import annotations

import subprocess
import sys

from Crypto.Hash import keccak as other_keccak
from hypothesis import given
from hypothesis import strategies as st

from openresource.primitives.encoding import canonical_json
from openresource.primitives.hashing import (
    hash_message,
    hash_plain_message,
    hash_transaction,
    keccak,
    message_hash_hex,
    text_bytes,
)


@given(st.binary(max_size=500))
def test_the_chosen_back_end_agrees_with_the_one_that_is_always_there(data: bytes) -> None:
    assert keccak(data) == other_keccak.new(data=data, digest_bits=256).digest()


@given(st.integers(0, 5000))
def test_the_length_prefix_has_no_seam(length: int) -> None:
    text = "#" * length
    size = bytes((length,)) if length < 253 else b"\xfd" + length.to_bytes(2, "little")
    assert hash_message(text) == keccak(keccak(b"\x1aAINetwork Signed Message:\n" + size + text.encode()))
    assert hash_plain_message(text) == hash_message(text)


def test_hex_texts_count_as_their_bytes() -> None:
    assert text_bytes("0x0aFF") == b"\x0a\xff"
    assert text_bytes("0x1") == b"\x01"
    assert text_bytes("0x") == b""
    for text in ("0x1g", "0X11", "0x11\n", "11", " 0x11"):
        assert text_bytes(text) == text.encode()
    assert message_hash_hex("a").startswith("0x33cd2041")


def test_a_transaction_is_hashed_without_the_message_prefix() -> None:
    body = {"operation": {"value": "é"}, "nonce": -1}
    assert hash_transaction(body) == keccak(keccak(canonical_json(body).encode()))


def test_a_machine_without_the_fast_back_end_hashes_the_same() -> None:
    program = (
        "import sys; sys.modules['sha3'] = None\n"
        "from openresource.primitives._keccak_backend import NAME, new_hash\n"
        "print(NAME, new_hash(b'').hexdigest(), new_hash(b'a').digest().hex())"
    )
    result = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True
    )
    assert result.stdout.split() == ["pycryptodome", keccak(b"").hex(), keccak(b"a").hex()]
