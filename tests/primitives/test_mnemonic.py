"""Recovery phrases stand for entropy, and a wrong word is found."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from openresource.primitives.errors import InvalidInput
from openresource.primitives.mnemonic import (
    InvalidMnemonic,
    derive_key,
    entropy_of_mnemonic,
    key_from_mnemonic,
    mnemonic_from_entropy,
    seed_of_mnemonic,
)
from openresource.primitives.mnemonic_words import WORDS

PHRASE = mnemonic_from_entropy(bytes(16))


@given(st.sampled_from([16, 20, 24, 28, 32]).flatmap(lambda size: st.binary(min_size=size, max_size=size)))
def test_a_phrase_reads_back(entropy: bytes) -> None:
    assert entropy_of_mnemonic(mnemonic_from_entropy(entropy)) == entropy


def test_the_list_is_complete_and_told_apart_by_four_letters() -> None:
    assert len(WORDS) == 2048
    assert sorted(WORDS) == WORDS
    assert len({word[:4] for word in WORDS}) == 2048


def test_the_phrase_of_zeros_is_the_well_known_one() -> None:
    assert PHRASE == "abandon " * 11 + "about"
    assert seed_of_mnemonic(PHRASE, "TREZOR").hex().startswith("c55257c360c07c72029aebc1b53c05ed")


def test_a_wrong_phrase_is_refused() -> None:
    for phrase in (
        "",
        "abandon",
        "abandon " * 12,
        PHRASE.replace("about", "aboot"),
        PHRASE + " about",
        PHRASE.upper(),
    ):
        with pytest.raises(InvalidMnemonic):
            entropy_of_mnemonic(phrase)
    with pytest.raises(InvalidInput):
        mnemonic_from_entropy(bytes(15))


def test_accounts_differ_by_index_and_chain() -> None:
    addresses = {
        key_from_mnemonic(PHRASE, index, chain).address for index in (0, 1) for chain in ("AIN", "ETH")
    }
    assert len(addresses) == 4
    for index, chain in ((-1, "AIN"), (2**31, "AIN"), (0, "BTC")):
        with pytest.raises(InvalidInput):
            key_from_mnemonic(PHRASE, index, chain)


def test_derivation_follows_the_published_example() -> None:
    # The first chain of BIP-32's own examples: m and m/0'.
    seed = bytes.fromhex("000102030405060708090a0b0c0d0e0f")
    assert derive_key(seed, []).to_bytes().hex().startswith("e8f32e723decf4051aefac8e2c93c9c5")
    assert derive_key(seed, [0x80000000]).to_bytes().hex().startswith("edb2e14f9ee77d26dd93b4ecede8d16e")
