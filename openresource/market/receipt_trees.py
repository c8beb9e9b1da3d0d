"""Trees of receipts: what a call cost with everything below it, checked from the papers alone."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from openresource.ledger.draft import NetworkDomain
from openresource.market.allowances import DEPTH_MAX, TREE_CALLS_MAX
from openresource.market.papers import hex_text
from openresource.market.receipts import (
    CallReceipt,
    ReceiptSignedByOther,
    receipt_children,
    receipt_digest,
    receipt_inner_uain,
    receipt_jobs,
    recover_receipt_signer,
)
from openresource.primitives.errors import Refusal

# Calls that a provider made anew after it died leave receipts that no other receipt lists; a tree has none of those.
RECEIPTS_MAX: Final = TREE_CALLS_MAX + 1


class ReceiptChildMissing(Refusal):
    template = "The receipt {receipt} lists a call below it, {child}, whose receipt is not here."
    way_out = "Ask the provider that made it: GET /receipts/<id>. Whoever paid for it has it in their books."


class ReceiptChildUnknown(Refusal):
    template = "The receipt lists {child}, which is no call that was made for it."
    way_out = "Do not acknowledge it; close the channel and choose another provider."


class ReceiptInnerCostWrong(Refusal):
    template = (
        "The receipt {receipt} says that calls below it cost {said_uain} µAIN; theirs add up to {found_uain}."
    )
    way_out = "Do not acknowledge it: each of those receipts is signed, and their sum is what counts."


class ReceiptListedTwice(Refusal):
    template = "The receipt {child} is listed twice in one tree."
    way_out = "A call is paid for once; do not acknowledge the receipt that lists it again."


class ReceiptTreeTooLarge(Refusal):
    template = "The tree has more than {most} {what}."
    way_out = "Look at its parts one by one."


@dataclass(frozen=True, slots=True)
class ReceiptTree:
    """A receipt with those of the calls below it."""

    id: str
    receipt: CallReceipt
    children: tuple[ReceiptTree, ...] = ()

    @property
    def inner_uain(self) -> int:
        """What the calls below have cost."""
        return sum(child.total_uain for child in self.children)

    @property
    def total_uain(self) -> int:
        """What the call has cost with everything below it."""
        return self.receipt.price_uain + self.inner_uain

    def walk(self, depth: int = 0) -> Iterator[tuple[int, ReceiptTree]]:
        """Every receipt with its depth, a call before those below it."""
        yield depth, self
        for child in self.children:
            yield from child.walk(depth + 1)

    def to_json(self) -> dict[str, Any]:
        """The tree for a reader."""
        return {
            "receipt": self.id,
            "service": self.receipt.facts.get("service", ""),
            "provider": self.receipt.facts.get("provider", ""),
            "price_uain": self.receipt.price_uain,
            "total_uain": self.total_uain,
            "children": [child.to_json() for child in self.children],
        }


def receipt_tree(
    root: CallReceipt, known: Mapping[str, CallReceipt], network: NetworkDomain, *, depth_max: int = DEPTH_MAX
) -> ReceiptTree:
    """The tree below a receipt: every paper signed by the provider that it names, listed once, its sum right.

    The ids of `known` are not believed: each receipt is found by the digest that it is signed over.
    """
    by_id = {hex_text(receipt_digest(one, network)): one for one in known.values()}
    return _tree(root, by_id, network, depth_max, set())


def check_children(receipt: CallReceipt, made: Mapping[str, int], jobs: Collection[str] = ()) -> None:
    """Refuses a receipt that lists calls which its buyer did not make for it, or makes them dearer than they were.

    `made` has the total of every call that was made below, by its receipt's id; what jobs cost stands on the chain. One that is not listed was not waited
    for by the program; it was made and paid all the same, and the buyer's books have it.
    """
    listed = receipt_children(receipt)
    for child in listed:
        if child not in made:
            raise ReceiptChildUnknown(child=child)
    for job in receipt_jobs(receipt):
        if job not in jobs:
            raise ReceiptChildUnknown(child=f"the job {job}")
    found_uain = sum(made[child] for child in listed)
    if receipt_inner_uain(receipt) != found_uain:
        raise ReceiptInnerCostWrong(receipt="", said_uain=receipt_inner_uain(receipt), found_uain=found_uain)


def _tree(
    receipt: CallReceipt,
    known: Mapping[str, CallReceipt],
    network: NetworkDomain,
    depth_left: int,
    seen: set[str],
) -> ReceiptTree:
    if depth_left < 0:
        raise ReceiptTreeTooLarge(most=DEPTH_MAX, what="calls below each other")
    identifier = hex_text(receipt_digest(receipt, network))
    if identifier in seen:
        raise ReceiptListedTwice(child=identifier)
    seen.add(identifier)
    if len(seen) > RECEIPTS_MAX:
        raise ReceiptTreeTooLarge(most=RECEIPTS_MAX, what="receipts")
    recovered = recover_receipt_signer(receipt, network)
    provider = receipt.facts.get("provider")
    if recovered != provider:
        raise ReceiptSignedByOther(recovered=recovered, provider=provider)
    children = []
    for child in receipt_children(receipt):
        if child not in known:
            raise ReceiptChildMissing(receipt=identifier, child=child)
        children.append(_tree(known[child], known, network, depth_left - 1, seen))
    tree = ReceiptTree(identifier, receipt, tuple(children))
    if receipt_inner_uain(receipt) != tree.inner_uain:
        raise ReceiptInnerCostWrong(
            receipt=identifier, said_uain=receipt_inner_uain(receipt), found_uain=tree.inner_uain
        )
    return tree
