"""Waits that nobody needs any more: what is due for a job is taken back when the job has gone on."""

from __future__ import annotations

from typing import Final

from openresource.market.jobs.lifecycle import (
    COMMITTED,
    DISPUTED,
    DRAWN,
    JUDGING,
    LEASED,
    REQUESTED,
    REVEALING,
)
from openresource.market.jobs.terms import Job
from openresource.market.jobs.verdicts import Execution

# The due step that ends each stage's wait.
_STAGE: Final = {
    LEASED: "gather",
    COMMITTED: "secret",
    DRAWN: "audit",
    REVEALING: "reveal",
    DISPUTED: "dispute",
    JUDGING: "judge",
}
_WORKING: Final = (REQUESTED, LEASED)


def overtaken(before: Job, after: Job) -> list[tuple[int, str]]:
    """What was due before a step and is not any more after it."""
    gone: list[tuple[int, str]] = []
    if before.status in _WORKING and after.status not in _WORKING:
        gone.append((before.deadline_ms, "deadline"))
    has_moved = (before.status, before.wait_until_ms) != (after.status, after.wait_until_ms)
    if has_moved and before.wait_until_ms and before.status in _STAGE:
        gone.append((before.wait_until_ms, _STAGE[before.status]))
    # Leases that were given in one block end in one entry.
    needed = {run.lease_until_ms for run in after.executions if _is_open(run)}
    ended = {run.lease_until_ms for run in before.executions if _is_open(run)} - needed
    return gone + [(until_ms, "lease") for until_ms in sorted(ended)]


def _is_open(run: Execution) -> bool:
    """Whether its lease can still run out."""
    return not run.commitment and not run.is_over and not run.revealed_at_ms
