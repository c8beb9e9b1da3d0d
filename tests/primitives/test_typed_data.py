"""Typed data takes flat types only, and values that fit them."""

from __future__ import annotations

from typing import Any

import pytest

from openresource.primitives.keys import InvalidAddress, InvalidSignature, generate_key
from openresource.primitives.typed_data import (
    InvalidTypedData,
    InvalidTypeString,
    domain_separator,
    recover_typed,
    sign_typed,
    struct_hash,
)

KEY = generate_key(b"typed" * 8)


@pytest.mark.parametrize(
    "kind, value",
    [
        ("address", "0x12"),
        ("address", b"\0" * 20),
        ("bool", 1),
        ("bytes32", b"\0" * 31),
        ("bytes32", "0x" + "00" * 32),
        ("uint64", -1),
        ("uint64", 2**64),
        ("uint64", 1.0),
        ("uint64", True),
        ("uint256", 2**256),
        ("string", b"x"),
        ("string", None),
    ],
)
def test_a_value_that_does_not_fit_is_refused(kind: str, value: Any) -> None:
    with pytest.raises((InvalidTypedData, InvalidAddress)):
        struct_hash(f"A({kind} x)", {"x": value})


@pytest.mark.parametrize(
    "text",
    ["", "A", "A(int x)", "A(uint64 x, uint64 y)", "A(uint64[] x)", "A(B x)", "A(uint64 x,uint64 x)", "A(x)"],
)
def test_only_flat_types_are_read(text: str) -> None:
    with pytest.raises(InvalidTypeString):
        struct_hash(text, {"x": 1, "y": 2} if " y" in text else {"x": 1})


def test_missing_and_extra_values_are_refused() -> None:
    with pytest.raises(InvalidTypeString):
        struct_hash("A(uint64 x)", {"x": 1, "y": 2})
    with pytest.raises(InvalidTypedData):
        struct_hash("A(uint64 x)", {"y": 2})


def test_a_paper_of_one_network_is_worth_nothing_on_another() -> None:
    struct = struct_hash("A(uint64 x)", {"x": 1})
    domains = [
        domain_separator("N", "1", 100, salt=bytes(32)),
        domain_separator("N", "1", 100, salt=b"\1" * 32),
        domain_separator("N", "1", 101, salt=bytes(32)),
        domain_separator("N", "2", 100, salt=bytes(32)),
        domain_separator("N", "1", 100),
    ]
    assert len(set(domains)) == 5
    signature = sign_typed(domains[0], struct, KEY)
    assert recover_typed(domains[0], struct, signature) == KEY.address
    assert all(recover_typed(domain, struct, signature) != KEY.address for domain in domains[1:])


@pytest.mark.parametrize("signature", ["", "0x", "0x" + "00" * 64, "0x" + "zz" * 65, "0x" + "00" * 65])
def test_what_is_no_signature_is_refused(signature: str) -> None:
    with pytest.raises(InvalidSignature):
        recover_typed(bytes(32), bytes(32), signature)
