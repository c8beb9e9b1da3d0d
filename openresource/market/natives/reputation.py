"""Counting what each buyer has paid for each provider's work, and what was seen of each program: what reputations are made of."""

from __future__ import annotations

from typing import Final

from openresource.ledger.draft import Draft
from openresource.market.jobs.lifecycle import ACCEPTED, UNPROVEN
from openresource.market.jobs.policies import AUDITED, QUORUM
from openresource.market.jobs.terms import TREASURY, Job, Outcome
from openresource.market.jobs.verdicts import WORKER
from openresource.market.labels import (
    NOTHING_SEEN,
    VERIFIED,
    count_audited,
    count_comparison,
    count_quorum,
    read_verified,
    verified_record,
)
from openresource.market.reputation import PAIRS, count_payment, pair_record, read_pair

# What natives that count work write.
REPUTATION_WRITES: Final = ((PAIRS,), (VERIFIED,))
# Written by claims and settlements alone.
RULES = {"/pairs": "false", "/verified": "false"}


def record_pair(draft: Draft, provider: str, buyer: str, paid_uain: int, fee_uain: int, at_ms: int) -> None:
    """Counts a payment; what somebody pays to itself under one name is none."""
    if buyer == provider:
        return
    before = read_pair(draft.get(PAIRS, provider, buyer))
    after = count_payment(before, paid_uain, fee_uain, at_ms)
    if after != before:
        draft.set((PAIRS, provider, buyer), pair_record(after))


def record_job(draft: Draft, before: Job, outcome: Outcome, program: str, at_ms: int) -> None:
    """Counts what a verdict says of a program, and what was paid to those who worked."""
    after, verdict = outcome.job, outcome.job.verdict
    seen = NOTHING_SEEN
    is_first = verdict is not None and before.verdict is None
    faults = sum(1 for credit in outcome.credits if not credit.is_valid)
    differed = verdict is not None and verdict != before.verdict and verdict.ground in UNPROVEN
    if is_first or faults or differed:
        seen = read_verified(draft.get(VERIFIED, program))
    counted = count_comparison(seen, agreed=False, faults=faults, differed=differed)
    if is_first and verdict is not None and verdict.status == ACCEPTED:
        if after.policy.kind == AUDITED:
            counted = count_audited(counted, is_drawn=after.is_drawn and verdict.is_verified)
        elif after.policy.kind == QUORUM:
            counted = count_quorum(counted, after.policy.quorum)
        counted = count_comparison(counted, agreed=verdict.is_verified, faults=0)
        _record_payments(draft, after, outcome, at_ms)
    if counted != seen:
        draft.set((VERIFIED, program), verified_record(counted))


def _record_payments(draft: Draft, job: Job, outcome: Outcome, at_ms: int) -> None:
    assert job.verdict is not None
    workers = [run.provider for run in job.of_role(WORKER) if run.provider in job.verdict.winners]
    fee_uain = sum(
        move.amount_uain for move in outcome.moves if move.target == TREASURY and move.why == "fee"
    )
    for provider in workers:
        record_pair(
            draft, provider, job.payer, job.paid_uain // len(workers), fee_uain // len(workers), at_ms
        )
