"""Transactions: their standard form, and what a signature that does not fit leads to."""

from __future__ import annotations

from typing import Any

import pytest

from openresource.ledger.blocks import content_hash, transactions_hash
from openresource.ledger.gas import bandwidth_gas
from openresource.ledger.natives.consensus import lockup_extension
from openresource.ledger.results import has_failed
from openresource.ledger.transactions import (
    InvalidTransactionBody,
    InvalidTransactionSignature,
    invalid_body_reason,
    operations_of,
    sign_transaction,
    transaction_from_json,
    verified_transaction,
)
from openresource.primitives.keys import CURVE_ORDER
from openresource.primitives.paths import parse_path
from tests.support.chains import key_of
from tests.vectors_support import vectors

BODY = {"operation": {"type": "SET_VALUE", "ref": "/apps/a/b", "value": 1}, "nonce": -1, "timestamp": 5}


@vectors("ain/basic.json", "tx_bodies", expected=("valid",))
def test_body_vectors(case: Any, document: Any) -> None:
    assert (invalid_body_reason(case["tx_body"]) is None) == case["valid"]


@vectors("ain/basic.json", "bandwidth_gas", expected=("gas_amount", "failed"))
def test_bandwidth_gas_vectors(case: Any, document: Any) -> None:
    labels = [parse_path(single.get("ref")) for single in operations_of(case["operation"])]
    assert bandwidth_gas(labels, case["result"]).to_json() == case["gas_amount"]
    assert has_failed(case["result"], True) == case["failed"]


@vectors("ain/basic.json", "lockup_extension", expected=("extension",))
def test_lockup_extension_vectors(case: Any, document: Any) -> None:
    extension = lockup_extension(
        case["new_offenses"], case["updated_offenses"], case["stake_lockup_extension"]
    )
    assert extension == case["extension"]


def test_a_transaction_travels_and_comes_back_the_same() -> None:
    sent = sign_transaction(BODY, key_of("alice"), 100)
    arrived = transaction_from_json(sent.to_json(), 100)
    assert (arrived.hash, arrived.address, arrived.canonical) == (
        sent.hash,
        key_of("alice").address,
        sent.canonical,
    )


def test_a_changed_body_is_refused() -> None:
    sent = sign_transaction(BODY, key_of("alice"), 100)
    with pytest.raises(InvalidTransactionSignature):
        verified_transaction({**BODY, "timestamp": 6}, sent.signature, 100)


def test_a_signature_for_another_chain_is_refused() -> None:
    sent = sign_transaction(BODY, key_of("alice"), 101)
    with pytest.raises(Exception, match="chain id 100"):
        verified_transaction(BODY, sent.signature, 100)


def test_the_mirror_image_of_a_signature_is_refused() -> None:
    sent = sign_transaction(BODY, key_of("alice"), 100)
    s = int(sent.signature[-66:-2], 16)
    v = int(sent.signature[-2:], 16)
    mirrored = f"{sent.signature[:-66]}{CURVE_ORDER - s:064x}{235 + (1 - (v - 235)):02x}"
    with pytest.raises(InvalidTransactionSignature):
        verified_transaction(BODY, mirrored, 100)


def test_a_claimed_hash_or_address_must_be_the_right_one() -> None:
    wire = sign_transaction(BODY, key_of("alice"), 100).to_json()
    for claim in ({"hash": "0x" + "1" * 64}, {"address": key_of("bob").address}):
        with pytest.raises(InvalidTransactionSignature):
            transaction_from_json({**wire, **claim}, 100)


@pytest.mark.parametrize(
    "wire", [None, [], "x", {}, {"tx_body": {}, "signature": "0x", "more": 1}, {"tx_body": 5}]
)
def test_what_is_no_transaction_is_refused(wire: Any) -> None:
    with pytest.raises(InvalidTransactionBody):
        transaction_from_json(wire, 100)


def test_the_hash_of_transactions_is_that_of_their_json() -> None:
    sent = [
        sign_transaction({**BODY, "timestamp": number}, key_of("alice"), 100) for number in (1, 1.5, 1e21)
    ]
    of_texts = transactions_hash([transaction.canonical_wire() for transaction in sent])
    assert of_texts == content_hash([transaction.to_json() for transaction in sent])
