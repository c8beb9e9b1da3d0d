"""What a job asks of one provider now: a pure function of what stands on the chain and what this provider keeps."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any

from openresource.market.jobs.lifecycle import COMMITTED, FINAL, JUDGING, LEASED, REVEALING
from openresource.market.jobs.policies import read_policy
from openresource.market.jobs.terms import ROLE_OF_STATUS
from openresource.market.jobs.verdicts import WORKER
from openresource.primitives.errors import Refusal


class Duty(Enum):
    """The next thing to do."""

    # Nothing here, now or later, unless the job changes.
    NONE = "none"
    # Bound to the job; its next change is awaited.
    WAIT = "wait"
    # Asking for a lease.
    LEASE = "lease"
    # The program is to be run, and what comes of it bound or reported.
    WORK = "work"
    # What was bound is to be opened.
    REVEAL = "reveal"
    # The job is settled; what was kept for it may go.
    OVER = "over"


@dataclass(frozen=True, slots=True)
class Own:
    """This provider's own execution, as it stands on the chain."""

    role: str
    lease_at_ms: int
    lease_until_ms: int
    has_committed: bool
    has_revealed: bool
    is_over: bool


def own_execution(record: Mapping[str, Any], provider: str) -> Own | None:
    """A provider's execution of a job."""
    executions = record.get("executions")
    found = executions.get(provider) if isinstance(executions, Mapping) else None
    if not isinstance(found, Mapping):
        return _holder(record, provider)
    return Own(
        str(found.get("role") or WORKER),
        int(found.get("lease_at_ms") or 0),
        int(found.get("lease_until_ms") or 0),
        bool(found.get("commitment")),
        bool(found.get("revealed_at_ms")),
        bool(found.get("is_over")),
    )


def _holder(record: Mapping[str, Any], provider: str) -> Own | None:
    """The lease of a job that only one provider works on, where the state alone tells of it."""
    state = record.get("state")
    if not isinstance(state, Mapping) or state.get("status") != LEASED or state.get("provider") != provider:
        return None
    return Own(WORKER, 0, int(state.get("lease_until_ms") or 0), False, False, False)


def wants_more(record: Mapping[str, Any]) -> bool:
    """Whether a job has room for one more lease in its present stage."""
    state, request = record.get("state"), record.get("request")
    if not isinstance(state, Mapping) or not isinstance(request, Mapping):
        return False
    role = ROLE_OF_STATUS.get(str(state.get("status")))
    if role is None:
        return False
    if role == WORKER:
        try:
            wanted = read_policy(request.get("policy", "one")).size
        except Refusal:
            return False
    else:
        wanted = int(state.get("checkers_wanted") or 0)
    executions = record.get("executions")
    live = [
        run
        for run in (executions.values() if isinstance(executions, Mapping) else ())
        if isinstance(run, Mapping) and run.get("role", WORKER) == role and not run.get("is_over")
    ]
    if not live and state.get("status") == LEASED and state.get("provider"):
        return False
    return len(live) < wanted


def duty_of(record: Mapping[str, Any], provider: str, at_ms: int) -> Duty:
    """What a job asks of a provider."""
    state = record.get("state")
    status = state.get("status") if isinstance(state, Mapping) else None
    if status in FINAL:
        return Duty.OVER
    own = own_execution(record, provider)
    if own is None:
        return Duty.LEASE if wants_more(record) else Duty.NONE
    if own.is_over and not own.has_committed:
        return Duty.NONE
    if own.has_revealed:
        return Duty.WAIT
    if own.has_committed:
        return Duty.REVEAL if status in (REVEALING, JUDGING) else Duty.WAIT
    if status in ROLE_OF_STATUS and at_ms < own.lease_until_ms:
        return Duty.WORK
    return Duty.WAIT if status == COMMITTED else Duty.NONE
