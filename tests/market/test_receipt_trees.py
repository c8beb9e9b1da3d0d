"""Trees of receipts: the total is what the signed papers add up to, and one that lies about it is refused."""

from __future__ import annotations

import pytest

from openresource.market.fields import InvalidRecord
from openresource.market.papers import hex_text
from openresource.market.receipt_trees import (
    ReceiptChildMissing,
    ReceiptChildUnknown,
    ReceiptInnerCostWrong,
    ReceiptListedTwice,
    ReceiptTreeTooLarge,
    check_children,
    receipt_tree,
)
from openresource.market.receipts import (
    CallReceipt,
    ReceiptSignedByOther,
    Usage,
    body_digest,
    call_facts,
    receipt_digest,
    receipt_from_json,
    receipt_to_json,
    sign_receipt,
)
from openresource.primitives.keys import PrivateKey
from tests.market.small_chain import CHANNEL, NETWORK, PROGRAM, PROVIDER, PUBLISHER, SESSION, STRANGER

SALT = b"\7" * 32


def signed(
    price_uain: int,
    *children: CallReceipt,
    inner_uain: int | None = None,
    sequence: int = 0,
    key: PrivateKey = PROVIDER,
    provider: str = PROVIDER.address,
) -> CallReceipt:
    """A receipt over others."""
    said_uain = sum(total(child) for child in children) if inner_uain is None else inner_uain
    facts = call_facts(
        service=f"{PUBLISHER.address}/translate",
        version="1.2.0",
        provider=provider,
        isolation="bubblewrap",
        usage=Usage(),
        started_at_ms=1_000,
        finished_at_ms=1_020,
        salt=SALT,
        children=tuple(name(child) for child in children),
        inner_uain=said_uain,
    )
    digest = body_digest(SALT, b"body")
    receipt = CallReceipt(
        CHANNEL, 0, SESSION, sequence, sequence + 1, PROGRAM, digest, digest, price_uain, facts
    )
    return sign_receipt(receipt, key, NETWORK)


def name(receipt: CallReceipt) -> str:
    return hex_text(receipt_digest(receipt, NETWORK))


def total(receipt: CallReceipt) -> int:
    inner_uain = receipt.facts.get("inner_uain", 0)
    assert isinstance(inner_uain, int)
    return receipt.price_uain + inner_uain


def known(*receipts: CallReceipt) -> dict[str, CallReceipt]:
    return {name(one): one for one in receipts}


def test_the_total_of_a_tree_is_the_sum_of_its_signed_papers() -> None:
    leaf, other = signed(100, sequence=1), signed(20, sequence=2)
    middle = signed(30, leaf, sequence=3)
    root = signed(5, middle, other, sequence=4)
    tree = receipt_tree(root, known(leaf, other, middle), NETWORK)
    assert (tree.total_uain, tree.inner_uain) == (155, 150)
    assert [(depth, one.receipt.price_uain) for depth, one in tree.walk()] == [
        (0, 5),
        (1, 30),
        (2, 100),
        (1, 20),
    ]
    assert tree.to_json()["children"][0]["children"][0]["total_uain"] == 100
    assert receipt_tree(leaf, {}, NETWORK).total_uain == 100


def test_a_tree_with_a_part_missing_twice_or_wrong_is_refused() -> None:
    leaf = signed(100, sequence=1)
    with pytest.raises(ReceiptChildMissing):
        receipt_tree(signed(5, leaf), {}, NETWORK)
    with pytest.raises(ReceiptInnerCostWrong):
        receipt_tree(signed(5, leaf, inner_uain=101), known(leaf), NETWORK)
    one, two = signed(1, leaf, sequence=2), signed(1, leaf, sequence=3)
    with pytest.raises(ReceiptListedTwice):
        receipt_tree(signed(5, one, two), known(leaf, one, two), NETWORK)
    forged = signed(100, sequence=1, key=STRANGER)
    with pytest.raises(ReceiptSignedByOther):
        receipt_tree(signed(5, forged), known(forged), NETWORK)


def test_ids_that_somebody_put_beside_receipts_are_not_believed() -> None:
    cheap, dear = signed(1, sequence=1), signed(100, sequence=2)
    with pytest.raises(ReceiptChildMissing):
        receipt_tree(signed(5, dear), {name(dear): cheap}, NETWORK)


def test_a_tree_is_followed_only_so_deep() -> None:
    chain = [signed(1)]
    for number in range(1, 10):
        chain.append(signed(1, chain[-1], sequence=number))
    with pytest.raises(ReceiptTreeTooLarge):
        receipt_tree(chain[-1], known(*chain), NETWORK)
    assert receipt_tree(chain[8], known(*chain), NETWORK).total_uain == 9


def test_a_receipt_may_list_only_calls_that_its_buyer_made_and_at_their_cost() -> None:
    leaf, other = signed(100, sequence=1), signed(20, sequence=2)
    made = {name(leaf): 100, name(other): 20}
    check_children(signed(5), made)
    check_children(signed(5, leaf), made)
    check_children(signed(5, leaf, other), made)
    with pytest.raises(ReceiptChildUnknown):
        check_children(signed(5, signed(1, sequence=9)), made)
    for said_uain in (99, 101, 120):
        with pytest.raises(ReceiptInnerCostWrong):
            check_children(signed(5, leaf, inner_uain=said_uain), made)


def test_children_of_a_receipt_from_outside_are_ids_each_once() -> None:
    leaf = signed(100, sequence=1)
    value = receipt_to_json(signed(5, leaf), NETWORK)
    assert receipt_from_json(value).facts["inner_uain"] == 100
    many = ["0x" + f"{number:064x}" for number in range(65)]
    for children in ("x", [1], ["0x12"], [name(leaf), name(leaf)], many):
        with pytest.raises(InvalidRecord):
            receipt_from_json({**value, "children": children})
    for inner_uain in (-1, 1.5, "7", True):
        with pytest.raises(InvalidRecord):
            receipt_from_json({**value, "inner_uain": inner_uain})
