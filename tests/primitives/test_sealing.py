"""A sealed message opens with one key, unchanged, or not at all."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from openresource.primitives.keys import generate_key
from openresource.primitives.sealing import (
    CannotUnseal,
    lock_content,
    seal,
    unlock_content,
    unseal,
    unwrap_key,
    wrap_key,
)

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


@given(st.binary(max_size=200))
def test_content_is_read_by_whoever_was_given_its_key(content: bytes) -> None:
    content_key = bytes(range(32))
    locked = lock_content(content, content_key, iv=bytes(16))
    wrapped = wrap_key(content_key, KEY.public_key, once=ONCE, iv=bytes(16))
    assert unlock_content(locked, unwrap_key(wrapped, KEY)) == content
    with pytest.raises(CannotUnseal):
        unwrap_key(wrapped, ONCE)
    with pytest.raises(CannotUnseal):
        unlock_content(locked, bytes(32))


@given(st.integers(min_value=0, max_value=400), st.integers(min_value=1, max_value=255))
def test_changed_content_does_not_open(place: int, change: int) -> None:
    content_key = bytes(range(32))
    locked = bytearray(lock_content(b"a" * 40, content_key, iv=b"i" * 16))
    locked[place % len(locked)] ^= change
    with pytest.raises(CannotUnseal):
        unlock_content(bytes(locked), content_key)
    for cut in (0, 47, len(locked) - 1):
        with pytest.raises(CannotUnseal):
            unlock_content(bytes(locked[:cut]), content_key)


def test_a_changed_wrapped_key_does_not_open() -> None:
    wrapped = wrap_key(bytes(32), KEY.public_key, once=ONCE, iv=bytes(16))
    for place in (0, 16, 17, 90, 140):
        changed = bytearray(wrapped)
        changed[place] ^= 1
        with pytest.raises(CannotUnseal):
            unwrap_key(bytes(changed), KEY)
    with pytest.raises(CannotUnseal):
        unwrap_key(wrapped[:-1], KEY)
