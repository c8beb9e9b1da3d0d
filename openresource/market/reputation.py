"""A provider's reputation: a pure function of facts on the chain, from paid, receipted and audited work alone.

What counts is the fee that buyers have irrevocably paid to the network for a provider's work, because nothing else costs
somebody who pays himself: the rest of a payment comes back to him. Each buyer's fees count in full at first and half as
much with every doubling, so that one friend is worth little and many strangers much; and what nobody verified counts a
tenth. Nobody can have a score of s without s in fees that are gone, by however many names: see the arithmetic in
`docs/decisions/0034-reputation.md`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from openresource.market.fields import Fields
from openresource.market.records import ProviderRecord
from openresource.primitives.amounts import PPM
from openresource.primitives.limits import SAFE_INTEGER_MAX

PAIRS: Final = "pairs"
# The fees of one buyer that count in full: at a fee of 2 %, what 5 AIN of work bring.
PAIR_UNIT_UAIN: Final = 100_000
# Of a provider nobody has verified anything; so much of its paid work counts.
UNAUDITED_TENTHS: Final = 10
# One proven fault weighs as much as so many verified results.
FAULT_WEIGHT: Final = 100


@dataclass(frozen=True, slots=True)
class Pair:
    """What one buyer has paid for the work of one provider: claims and jobs, their sum, the fees in it, the last time."""

    payments: int = 0
    paid_uain: int = 0
    fee_uain: int = 0
    last_ms: int = 0


@dataclass(frozen=True, slots=True)
class Reputation:
    """The score and what it is made of; all amounts are fees that are gone for good."""

    score_uain: int
    weighted_uain: int
    fee_uain: int
    buyers: int
    audited_ppm: int
    record: ProviderRecord


def reputation_of(record: ProviderRecord, pairs: Mapping[str, Pair]) -> Reputation:
    """The reputation that a provider's record and its pairs with buyers make."""
    weighted = sum(pair_weight_uain(pair.fee_uain) for pair in pairs.values())
    trusted_ppm = audited_ppm(record.valid, record.faults)
    return Reputation(
        score_uain=weighted * trusted_ppm // PPM,
        weighted_uain=weighted,
        fee_uain=sum(pair.fee_uain for pair in pairs.values()),
        buyers=sum(1 for pair in pairs.values() if pair.fee_uain),
        audited_ppm=trusted_ppm,
        record=record,
    )


def pair_weight_uain(fee_uain: int) -> int:
    """What one buyer's fees count: in full up to the unit, then half as much with every doubling."""
    if fee_uain <= PAIR_UNIT_UAIN:
        return max(0, fee_uain)
    doublings = (fee_uain // PAIR_UNIT_UAIN).bit_length() - 1
    begins_at = PAIR_UNIT_UAIN << doublings
    # A line between powers of two: whole numbers, and never more than the fees themselves.
    return PAIR_UNIT_UAIN * (1 + doublings) + (fee_uain - begins_at >> doublings)


def audited_ppm(valid: int, faults: int) -> int:
    """How much of what was paid counts: a tenth before anything was verified, nearly all after a hundred results."""
    return PPM * (1 + valid) // (UNAUDITED_TENTHS + valid + FAULT_WEIGHT * faults)


def count_payment(pair: Pair, paid_uain: int, fee_uain: int, at_ms: int) -> Pair:
    """The pair after one more payment; a payment of nothing is none."""
    if paid_uain <= 0:
        return pair
    return Pair(
        payments=min(pair.payments + 1, SAFE_INTEGER_MAX),
        paid_uain=min(pair.paid_uain + paid_uain, SAFE_INTEGER_MAX),
        fee_uain=min(pair.fee_uain + fee_uain, SAFE_INTEGER_MAX),
        last_ms=at_ms,
    )


def read_pair(record: Any) -> Pair:
    """A pair from its record; none means that nothing was paid."""
    if record is None:
        return Pair()
    fields = Fields(record, "pair of a buyer and a provider")
    return Pair(*(fields.integer(name) for name in ("payments", "paid_uain", "fee_uain", "last_ms")))


def pair_record(pair: Pair) -> dict[str, Any]:
    """What the chain writes at `/pairs/<provider>/<buyer>`."""
    return {
        "payments": pair.payments,
        "paid_uain": pair.paid_uain,
        "fee_uain": pair.fee_uain,
        "last_ms": pair.last_ms,
    }


def reputation_record(reputation: Reputation) -> dict[str, Any]:
    """A reputation for --json and pages."""
    record = reputation.record
    return {
        "score_uain": reputation.score_uain,
        "weighted_uain": reputation.weighted_uain,
        "fee_uain": reputation.fee_uain,
        "buyers": reputation.buyers,
        "audited_ppm": reputation.audited_ppm,
        "claims": record.claims,
        "claimed_uain": record.claimed_uain,
        "since_ms": record.since_ms,
        "valid": record.valid,
        "streak": record.streak,
        "faults": record.faults,
    }
