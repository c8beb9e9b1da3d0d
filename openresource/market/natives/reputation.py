"""Counting what each buyer has paid for each provider's work, from which reputations are computed."""

from __future__ import annotations

from openresource.ledger.draft import Draft
from openresource.market.reputation import PAIRS, count_payment, pair_record, read_pair

# Written by claims and settlements alone.
RULES = {"/pairs": "false"}


def record_pair(draft: Draft, provider: str, buyer: str, paid_uain: int, fee_uain: int, at_ms: int) -> None:
    """Counts a payment; what somebody pays to itself under one name is none."""
    if buyer == provider:
        return
    before = read_pair(draft.get(PAIRS, provider, buyer))
    after = count_payment(before, paid_uain, fee_uain, at_ms)
    if after != before:
        draft.set((PAIRS, provider, buyer), pair_record(after))
