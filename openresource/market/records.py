"""A provider's record: how often and how much it has claimed, counted by the chain itself.

It is no proof of good work: who pays itself grows it too, at the price of the market's fee on each claim.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from openresource.market.fields import Fields
from openresource.primitives.limits import SAFE_INTEGER_MAX

RECORDS: Final = "records"


@dataclass(frozen=True, slots=True)
class ProviderRecord:
    """Claims that were paid, their sum with fee and royalty, and the time of the first."""

    claims: int = 0
    claimed_uain: int = 0
    since_ms: int = 0


NO_RECORD: Final = ProviderRecord()


def count_claim(record: ProviderRecord, amount_uain: int, at_ms: int) -> ProviderRecord:
    """The record after one more claim; a claim of nothing is no work."""
    if amount_uain == 0:
        return record
    return ProviderRecord(
        claims=min(record.claims + 1, SAFE_INTEGER_MAX),
        claimed_uain=min(record.claimed_uain + amount_uain, SAFE_INTEGER_MAX),
        since_ms=record.since_ms or at_ms,
    )


def read_provider_record(record: Any) -> ProviderRecord:
    """A record as it stands at `/records/<provider>`; none means that nothing was claimed."""
    if record is None:
        return NO_RECORD
    fields = Fields(record, "provider's record")
    return ProviderRecord(
        fields.integer("claims"), fields.integer("claimed_uain"), fields.integer("since_ms")
    )


def provider_record(record: ProviderRecord) -> dict[str, Any]:
    """What the chain writes at `/records/<provider>`."""
    return {"claims": record.claims, "claimed_uain": record.claimed_uain, "since_ms": record.since_ms}
