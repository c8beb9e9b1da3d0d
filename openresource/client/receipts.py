"""Receipts in a buyer's books: one with everything below it, each paper checked."""

from __future__ import annotations

from openresource.client.books import Books
from openresource.ledger.draft import NetworkDomain
from openresource.market.receipt_trees import RECEIPTS_MAX, ReceiptTree, receipt_tree
from openresource.market.receipts import CallReceipt, receipt_children, receipt_from_json
from openresource.primitives.errors import Refusal


class ReceiptNotInBooks(Refusal):
    template = "The books of this home have no receipt {receipt}."
    way_out = (
        "See what there is: openresource receipt; any provider shows those that it gave: GET /receipts/<id>."
    )


def tree_of(books: Books, receipt_id: str, network: NetworkDomain) -> ReceiptTree:
    """The tree below a receipt, from the books alone; papers that are missing or do not fit are refused by name."""
    root = books.receipt(receipt_id)
    if root is None:
        raise ReceiptNotInBooks(receipt=receipt_id)
    found = receipt_from_json(root)
    known: dict[str, CallReceipt] = {}
    waiting = list(receipt_children(found))
    while waiting and len(known) < RECEIPTS_MAX:
        child = waiting.pop()
        record = None if child in known else books.receipt(child)
        if record is not None:
            known[child] = receipt_from_json(record)
            waiting += receipt_children(known[child])
    return receipt_tree(found, known, network)
