"""A sealed message opens with one key, unchanged, or not at all."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from openresource.primitives.keys import generate_key
from openresource.primitives.sealing import CannotUnseal, seal, unseal

KEY = generate_key(b"reader" * 8)
ONCE = generate_key(b"once" * 8)


@given(st.binary(max_size=100))
def test_a_sealed_message_opens(message: bytes) -> None:
    sealed = seal(message, KEY.public_key, once=ONCE, iv=bytes(16))
    assert unseal(sealed, KEY) == message
    with pytest.raises(CannotUnseal):
        unseal(sealed, ONCE)


@pytest.mark.parametrize("name", ["iv", "ephemPublicKey", "ciphertext", "mac"])
def test_a_changed_or_missing_part_does_not_open(name: str) -> None:
    sealed = seal(b"message", KEY.public_key, once=ONCE, iv=bytes(16))
    last = "0" if sealed[name][-1] != "0" else "1"
    for value in (sealed[name][:-1] + last, sealed[name][:-2], "", "zz", None, 5):
        with pytest.raises(CannotUnseal):
            unseal({**sealed, name: value}, KEY)
