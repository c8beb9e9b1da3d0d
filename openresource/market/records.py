"""A provider's record: what it has claimed, which results others verified, and which faults were proven, counted by the chain.

Claims are no proof of good work: who pays itself grows them too, at the price of the market's fee on each claim. A streak
grows only when somebody whom the lot chose came to the same result, and a proven fault ends it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Final

from openresource.market.fields import Fields
from openresource.primitives.limits import SAFE_INTEGER_MAX

RECORDS: Final = "records"


@dataclass(frozen=True, slots=True)
class ProviderRecord:
    """Claims that were paid, their sum with fee and royalty, the time of the first; results verified, in a row, and faults."""

    claims: int = 0
    claimed_uain: int = 0
    since_ms: int = 0
    valid: int = 0
    streak: int = 0
    faults: int = 0


NO_RECORD: Final = ProviderRecord()


def count_claim(record: ProviderRecord, amount_uain: int, at_ms: int) -> ProviderRecord:
    """The record after one more claim; a claim of nothing is no work."""
    if amount_uain == 0:
        return record
    return replace(
        record,
        claims=min(record.claims + 1, SAFE_INTEGER_MAX),
        claimed_uain=min(record.claimed_uain + amount_uain, SAFE_INTEGER_MAX),
        since_ms=record.since_ms or at_ms,
    )


def count_result(record: ProviderRecord, *, is_valid: bool, counts_for_streak: bool) -> ProviderRecord:
    """The record after a verdict: one more result that others confirmed, or a fault."""
    if not is_valid:
        return replace(record, streak=0, faults=min(record.faults + 1, SAFE_INTEGER_MAX))
    return replace(
        record,
        valid=min(record.valid + 1, SAFE_INTEGER_MAX),
        streak=min(record.streak + counts_for_streak, SAFE_INTEGER_MAX),
    )


def read_provider_record(record: Any) -> ProviderRecord:
    """A record as it stands at `/records/<provider>`; none means that nothing was claimed."""
    if record is None:
        return NO_RECORD
    fields = Fields(record, "provider's record")
    return ProviderRecord(
        fields.integer("claims"),
        fields.integer("claimed_uain"),
        fields.integer("since_ms"),
        fields.optional_integer("valid", 0),
        fields.optional_integer("streak", 0),
        fields.optional_integer("faults", 0),
    )


def provider_record(record: ProviderRecord) -> dict[str, Any]:
    """What the chain writes at `/records/<provider>`."""
    members = {"claims": record.claims, "claimed_uain": record.claimed_uain, "since_ms": record.since_ms}
    results = {"valid": record.valid, "streak": record.streak, "faults": record.faults}
    return members | {name: count for name, count in results.items() if count}
