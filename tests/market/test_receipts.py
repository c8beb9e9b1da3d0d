"""Call receipts: what the digest covers, what a buyer checks, and the running hash."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from openresource.market.fields import InvalidRecord
from openresource.market.receipts import (
    CallReceipt,
    ReceiptForOtherCall,
    ReceiptPriceTooHigh,
    ReceiptSignedByOther,
    Usage,
    body_digest,
    call_facts,
    check_receipt,
    next_receipts_hash,
    receipt_digest,
    receipt_from_json,
    receipt_to_json,
    receipts_hash,
    recover_receipt_signer,
    sign_receipt,
)
from openresource.market.vouchers import NO_RECEIPTS
from openresource.primitives.keys import PrivateKey
from tests.market.small_chain import CHANNEL, NETWORK, PROGRAM, PROVIDER, PUBLISHER, SESSION, STRANGER

SALT = b"\7" * 32


def receipt(key: PrivateKey = PROVIDER, **changes: Any) -> CallReceipt:
    facts = call_facts(
        service=f"{PUBLISHER.address}/translate",
        version="1.2.0",
        provider=PROVIDER.address,
        isolation="bubblewrap",
        usage=Usage(cpu_ms=12, wall_ms=20, bytes_in=5, bytes_out=7),
        started_at_ms=1_000,
        finished_at_ms=1_020,
        salt=SALT,
        method="translate",
        children=("0x" + "cc" * 32,),
    )
    paper = CallReceipt(
        channel=CHANNEL,
        nonce=0,
        session=SESSION,
        sequence=4,
        completed=1,
        program=PROGRAM,
        input=body_digest(SALT, b"input"),
        output=body_digest(SALT, b"output"),
        price_uain=700,
        facts=facts,
    )
    return sign_receipt(replace(paper, **changes), key, NETWORK)


def check(paper: CallReceipt, **changes: Any) -> bytes:
    expected: dict[str, Any] = {
        "provider": PROVIDER.address,
        "channel": CHANNEL,
        "nonce": 0,
        "session": SESSION,
        "sequence": 4,
        "program": PROGRAM,
        "price_uain": 700,
        "input_body": b"input",
        "output_body": b"output",
    }
    return check_receipt(paper, NETWORK, **(expected | changes))


def test_a_receipt_keeps_its_meaning_on_the_way() -> None:
    paper = receipt()
    members = receipt_to_json(paper, NETWORK)
    again = receipt_from_json(members)
    assert again == paper
    assert members["id"] == "0x" + receipt_digest(again, NETWORK).hex()
    assert recover_receipt_signer(again, NETWORK) == PROVIDER.address
    assert check(again) == receipt_digest(paper, NETWORK)


@pytest.mark.parametrize(
    "member", ["service", "version", "isolation", "usage", "started_at_ms", "salt", "children"]
)
def test_the_signature_covers_every_fact(member: str) -> None:
    members = receipt_to_json(receipt(), NETWORK)
    other: dict[str, Any] = {
        "usage": {"cpu_ms": 0, "wall_ms": 0, "bytes_in": 0, "bytes_out": 0},
        "started_at_ms": 999,
        "salt": "0x" + "08" * 32,
        "children": [],
    }
    members[member] = other.get(member, "other")
    with pytest.raises(ReceiptSignedByOther):
        check(receipt_from_json(members))


def test_a_receipt_of_another_signer_is_refused() -> None:
    with pytest.raises(ReceiptSignedByOther):
        check(receipt(STRANGER))


@pytest.mark.parametrize(
    ("member", "value"),
    [
        ("nonce", 1),
        ("sequence", 5),
        ("session", b"\3" * 32),
        ("program", "other"),
        ("input_body", b"another input"),
        ("output_body", b"another output"),
    ],
)
def test_a_receipt_of_another_call_is_refused(member: str, value: Any) -> None:
    with pytest.raises(ReceiptForOtherCall):
        check(receipt(), **{member: value})


def test_a_receipt_that_charges_more_than_agreed_is_refused() -> None:
    with pytest.raises(ReceiptPriceTooHigh):
        check(receipt(), price_uain=699)


def test_hostile_receipts_are_refused() -> None:
    members = receipt_to_json(receipt(), NETWORK)
    deep: Any = []
    for _ in range(60):
        deep = [deep]
    for change in (
        {"sequence": -1},
        {"completed": 0},
        {"facts_of_mine": deep},
        {"long": "x" * 20_000},
        {"usage": {"cpu_ms": -5}},
        {"usage": 7},
        {"salt": "0x00"},
        {"signature": "0x"},
    ):
        with pytest.raises(InvalidRecord):
            receipt_from_json(members | change)


def test_the_running_hash_depends_on_order_and_starts_with_zeros() -> None:
    one, two = b"\1" * 32, b"\2" * 32
    assert receipts_hash(()) == NO_RECEIPTS
    assert receipts_hash((one, two)) == next_receipts_hash(next_receipts_hash(NO_RECEIPTS, one), two)
    assert receipts_hash((one, two)) != receipts_hash((two, one))
