"""Between the job machine and the tree: a job is read from its records, and an outcome becomes records, money and promises."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from openresource.ledger.beacon import LAST, NO_BEACON, beacon_of
from openresource.ledger.draft import Draft
from openresource.market.accounts import AUDIT_POT, TREASURY, bond_account, hold_account, job_account
from openresource.market.fields import require_key
from openresource.market.holds import has_expired, read_hold
from openresource.market.jobs import terms
from openresource.market.jobs.draws import Candidate, referees_seed, seats_of
from openresource.market.jobs.executions import execution_members
from openresource.market.jobs.lifecycle import ACCEPTED, JobMissing
from openresource.market.jobs.states import job_of, moves_text, state_members
from openresource.market.jobs.terms import BOND_PREFIX, Facts, Job, Outcome, Settings
from openresource.market.jobs.turns import CANDIDATES_MAX, checkers, order_known_ms
from openresource.market.jobs.verdicts import WORKER, verdict_record
from openresource.market.jobs.waits import overtaken
from openresource.market.natives.bonds import BONDS, bond_of, record_of, take_from_leaving
from openresource.market.natives.reputation import record_job
from openresource.market.placements import PLACED
from openresource.market.records import RECORDS, count_result, provider_record
from openresource.primitives.numbers import is_integer
from openresource.primitives.paths import parse_path

JOBS = "jobs"
JOB_DUE = "job_due"


@dataclass(frozen=True, slots=True)
class Found:
    """A job as the chain has it, with the request that made it."""

    job: Job
    request: Mapping[str, Any]


def load(draft: Draft, job: str, written: Mapping[str, Any] | None = None) -> Found:
    """A job from the tree; `written` are executions as they stood before the write that is being checked."""
    # The tree finds a job under a second spelling of its name too, but not the job's money.
    require_key(job, "job")
    record = draft.get(JOBS, job)
    if not isinstance(record, dict) or not isinstance(record.get("request"), dict) or "state" not in record:
        raise JobMissing(job=job)
    if written:
        executions = dict(record.get("executions") or {})
        executions.update(written)
        record = record | {"executions": {name: run for name, run in executions.items() if run is not None}}
    return Found(job_of(job, record, draft.balance(job_account(job))), record["request"])


def store(draft: Draft, found: Found, outcome: Outcome, at_ms: int, *, is_written: str = "") -> None:
    """Writes what changed, moves the money, counts records, and asks for what is due later.

    `is_written` names a provider whose execution stands in the tree as its own report, and is written anew.
    """
    before, after = found.job, outcome.job
    _store_executions(draft, before, after, is_written)
    for move in outcome.moves:
        if move.source.startswith(BOND_PREFIX):
            take_from_leaving(draft, move.source.removeprefix(BOND_PREFIX), move.amount_uain)
        draft.move(
            _account(draft, found, move.source, at_ms),
            _account(draft, found, move.target, at_ms),
            move.amount_uain,
        )
    if outcome.moves:
        earlier = draft.get(JOBS, after.job, "moves") or ""
        draft.set((JOBS, after.job, "moves"), earlier + moves_text(outcome.moves))
    for credit in outcome.credits:
        record = record_of(draft, credit.provider)
        counted = count_result(record, is_valid=credit.is_valid, counts_for_streak=credit.counts_for_streak)
        draft.set((RECORDS, credit.provider), provider_record(counted))
    for slash in outcome.slashes:
        draft.set(
            (JOBS, after.job, "slashes", slash.provider), {"uain": slash.amount_uain, "reason": slash.reason}
        )
    for due_ms, name in overtaken(before, after):
        draft.no_longer(due_ms, JOB_DUE, f"{after.job}/{name}")
    for due_ms, name in outcome.due:
        draft.after(due_ms, JOB_DUE, f"{after.job}/{name}")
    record_job(draft, before, outcome, str(found.request["program"]), at_ms)
    if after.verdict is not None and after.verdict != before.verdict:
        has_verdict = draft.get(JOBS, after.job, "verdict") is not None
        draft.set((JOBS, after.job, "judgement" if has_verdict else "verdict"), verdict_record(after.verdict))
    if after.status == ACCEPTED and before.verdict is None:
        _write_result(draft, found, after)
    draft.set((JOBS, after.job, "state"), state_members(after))


def facts_of(
    draft: Draft, job: Job, settings: Settings, request: Mapping[str, Any], disputer: str = ""
) -> Facts:
    """What the machine needs to know of the world."""
    height, who = last_height(draft), candidates(draft, request, settings, order_known_ms(job))
    beacon = beacon_of(draft.get, height, height + 1) or NO_BEACON
    # The order that referees get in this block, if this is the one in which they are called.
    seed = job.seed or referees_seed(job.job, job.secret + beacon)
    order = checkers(replace(job, seed=seed), who, disputer)
    own = {one.provider: one.bond_uain for one in who}
    bonds = {run.provider: bond_of(draft, run.provider).held_uain for run in job.executions}
    return Facts(
        pot_uain=draft.balance(AUDIT_POT),
        bonds=bonds,
        beacon=beacon,
        checkers=len(order),
        able_uain=sum(own[provider] for provider in order),
        called_uain=sum(own[provider] for provider in order[: job.newly_called]),
    )


def last_height(draft: Draft) -> int:
    """The block before the one that is open."""
    height = draft.get(*LAST)
    return int(height) if is_integer(height) else 0


def candidates(
    draft: Draft, request: Mapping[str, Any], settings: Settings, known_ms: int | None
) -> list[Candidate]:
    """Who has a job's program placed, with seats and operator; those beyond the bound have no turn of their own.

    Those with the most seats come first: announcing costs nothing, and many who have nothing at stake must not push
    out those who have. Bonds are those of a time, if one is given.
    """
    placed = draft.get("placements", request["publisher"], request["name"], request["program"])
    bonds: dict[str, int] = {}
    for provider, record in (placed or {}).items():
        if record.get("status") == PLACED:
            has_bond = draft.balance(bond_account(provider)) > 0
            bonds[provider] = bond_of(draft, provider).counted_at(known_ms) if has_bond else 0
    seats = {provider: seats_of(bond, settings.bond_per_seat_uain) for provider, bond in bonds.items()}
    return [
        Candidate(
            provider,
            seats[provider],
            operator_of(draft, provider),
            str(placed[provider].get("runtime_class") or placed[provider].get("runtime") or ""),
            bonds[provider],
        )
        for provider in sorted(seats, key=lambda one: (-seats[one], one))[:CANDIDATES_MAX]
    ]


def operator_of(draft: Draft, provider: str) -> str:
    """Who stands behind a machine: its owner if it names one, else itself.

    Somebody who has a bond of its own is not believed to stand behind others on their word: whoever names an auditor as
    its owner would else keep that auditor from looking.
    """
    owner = draft.get("machines", provider, "offer", "owner")
    is_free = isinstance(owner, str) and draft.balance(bond_account(owner)) == 0
    return owner if is_free else provider


def _store_executions(draft: Draft, before: Job, after: Job, is_written: str) -> None:
    earlier = {run.provider: run for run in before.executions}
    for run in after.executions:
        old = earlier.pop(run.provider, None)
        if run != old or run.provider == is_written:
            draft.set((JOBS, after.job, "executions", run.provider), execution_members(run))
        was_locked = old is not None and old.is_locked
        if run.is_locked != was_locked:
            lock = run.stake_uain if run.is_locked else None
            draft.set((BONDS, run.provider, "state", "locks", after.job), lock)
    for provider, old in earlier.items():
        draft.set((JOBS, after.job, "executions", provider), None)
        if old.is_locked:
            draft.set((BONDS, provider, "state", "locks", after.job), None)


def _write_result(draft: Draft, found: Found, job: Job) -> None:
    """The accepted output at the path that the request designated."""
    result_path = found.request.get("result_path")
    if result_path is None or job.verdict is None:
        return
    path = parse_path(result_path)
    for run in job.of_role(WORKER):
        if run.provider in job.verdict.winners and run.output is not None:
            # Entries are set by the app's admins; whoever asked in its own name may write no more than its rules allow now.
            if "app" in found.request or draft.rule_allows(path, run.output, job.requester):
                draft.set(path, run.output)
            return


def _account(draft: Draft, found: Found, name: str, at_ms: int) -> str:
    if name.startswith(BOND_PREFIX):
        return bond_account(name.removeprefix(BOND_PREFIX))
    if name == terms.PAYER:
        return _payer_account(draft, found, at_ms)
    known = {
        terms.JOB: job_account(found.job.job),
        terms.POT: AUDIT_POT,
        terms.PUBLISHER: found.job.publisher,
        terms.TREASURY: TREASURY,
    }
    return known.get(name, name)


def _payer_account(draft: Draft, found: Found, at_ms: int) -> str:
    """What is left goes back to where it came from: to the hold, or to its owner if the hold is over."""
    request, payer = found.request, found.job.payer
    if "hold" not in request:
        return payer
    record = draft.get("holds", request["app"], request["hold"], "state")
    hold = None if record is None else read_hold(record)
    # A hold of the same name may have been begun since by somebody else.
    lives = hold is not None and hold.owner == payer and not has_expired(hold, at_ms)
    return hold_account(request["app"], request["hold"]) if lives else payer
