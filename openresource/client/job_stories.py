"""A job in words and numbers for people: who ran it and when, what became of each run, and where the money went.

Everything comes from the job's records on the chain; pages and the command line only choose how it looks.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from openresource.client.chain import Chain, NodeRefused
from openresource.client.job_views import JobUnknown
from openresource.market.jobs.lifecycle import ACCEPTED, FINAL, LIFE_CYCLE, REASONS, REFUSED, REFUTED
from openresource.market.jobs.policies import AUDITED, ONE, QUORUM
from openresource.market.jobs.states import job_of, read_folded, read_moves
from openresource.market.jobs.terms import (
    BOND_PREFIX,
    JOB,
    PAYER,
    POT,
    PUBLISHER,
    TREASURY,
    Job,
)
from openresource.market.jobs.verdicts import AUDITOR, DONE, REFEREE, WORKER, Execution, Verdict

ROLE_WORDS: Final = {WORKER: "worker", AUDITOR: "auditor", REFEREE: "referee"}

# Statuses in the order in which a job may pass them, so that a list of those that it passed reads as its way.
WAY: Final = tuple(status for status in LIFE_CYCLE if status not in FINAL)

MOVE_WORDS: Final = {
    "budget": "set aside when it was asked for",
    "fee": "the market's fee",
    "royalty": "the publisher's royalty",
    "price": "the price of the run",
    "audits": "the share that pays for audits",
    "audit": "for running it again",
    "returned": "what was not spent",
    "fault": "what a proven fault costs",
    "refund": "what the buyer had paid for a wrong result",
    "reporter": "for having shown the fault",
    "dispute_bond": "the bond of the dispute",
    "dispute_lost": "the bond of a dispute that was lost",
}
ACCOUNT_WORDS: Final = {
    JOB: "the job's budget",
    POT: "the pot for audits",
    PAYER: "the payer",
    PUBLISHER: "the publisher",
    TREASURY: "the treasury",
}


@dataclass(frozen=True, slots=True)
class RunStory:
    """One provider's run, as far as it has come."""

    provider: str
    role: str
    step: str
    reason: str
    leased_at_ms: int
    committed_at_ms: int
    revealed_at_ms: int
    digest: str
    ask_uain: int
    is_winner: bool
    fault: str
    slashed_uain: int
    error: str

    @property
    def sentence(self) -> str:
        """What became of it."""
        if self.fault:
            return REASONS.get(self.fault, self.fault)
        if self.reason:
            return REASONS.get(self.reason, self.reason)
        return {
            "over": REASONS["lease_over"],
            "revealed": "its result has come to light and is not weighed yet",
            "committed": "it is bound to a result that nobody else can see yet",
        }.get(self.step, "it is at work")

    @property
    def mark(self) -> str:
        """One word for lists: punished, agrees, differs, late, over, failed, or how far it is."""
        if self.fault:
            return "punished"
        return {"lease_over": "over", "no_reveal": "punished"}.get(self.reason, self.reason) or self.step


@dataclass(frozen=True, slots=True)
class MoveStory:
    """Money that changed places."""

    source: str
    target: str
    amount_uain: int
    why: str


@dataclass(frozen=True, slots=True)
class Moment:
    """Something that happened to a job."""

    at_ms: int
    text: str
    provider: str = ""


@dataclass(frozen=True, slots=True)
class JobStory:
    """A job at one moment."""

    job: str
    status: str
    policy: str
    publisher: str
    name: str
    program: str
    method: str
    requester: str
    budget_uain: int
    paid_uain: int
    returned_uain: int
    requested_at_ms: int
    deadline_ms: int
    settled_at_ms: int
    way: tuple[str, ...]
    runs: tuple[RunStory, ...]
    verdict: Verdict | None
    headline: str
    moments: tuple[Moment, ...]
    moves: tuple[MoveStory, ...]
    # The height after which only a short record was kept; 0 as long as everything stands.
    folded_height: int = 0
    # Another result would prove this one wrong, so that it can be disputed for a while.
    is_exact: bool = False

    @property
    def is_final(self) -> bool:
        return self.status in FINAL

    @property
    def is_good(self) -> bool:
        return self.status == ACCEPTED

    @property
    def slashed_uain(self) -> int:
        return sum(run.slashed_uain for run in self.runs)

    def to_json(self) -> dict[str, Any]:
        """The same as JSON, with amounts in µAIN and times in milliseconds."""
        return {
            "job": self.job,
            "status": self.status,
            "is_final": self.is_final,
            "service": f"{self.publisher}/{self.name}",
            "program": self.program,
            "method": self.method,
            "policy": self.policy,
            "requester": self.requester,
            "budget_uain": self.budget_uain,
            "paid_uain": self.paid_uain,
            "returned_uain": self.returned_uain,
            "slashed_uain": self.slashed_uain,
            "requested_at_ms": self.requested_at_ms,
            "deadline_ms": self.deadline_ms,
            "settled_at_ms": self.settled_at_ms,
            "headline": self.headline,
            "executions": [
                {
                    "provider": run.provider,
                    "role": run.role,
                    "mark": run.mark,
                    "reason": run.fault or run.reason,
                    "sentence": run.sentence,
                    "leased_at_ms": run.leased_at_ms,
                    "committed_at_ms": run.committed_at_ms,
                    "revealed_at_ms": run.revealed_at_ms,
                    "digest": run.digest,
                    "slashed_uain": run.slashed_uain,
                }
                for run in self.runs
            ],
            "verdict": verdict_json(self.verdict),
            "moves": [
                {"from": move.source, "to": move.target, "uain": move.amount_uain, "why": move.why}
                for move in self.moves
            ],
            "folded_height": self.folded_height,
        }


def verdict_json(verdict: Verdict | None) -> dict[str, Any] | None:
    """A verdict as JSON."""
    if verdict is None:
        return None
    return {
        "status": verdict.status,
        "ground": verdict.ground,
        "digest": "0x" + verdict.digest.hex() if verdict.digest else "",
        "partition": [list(group) for group in verdict.partition],
        "reasons": dict(verdict.reasons),
        "winners": list(verdict.winners),
        "punished": dict(verdict.punished),
        "is_verified": verdict.is_verified,
    }


def folded_story(job: str, text: str) -> JobStory:
    """What is left of a job that was settled long ago."""
    kept = read_folded(text)
    status = str(kept["status"])
    return JobStory(
        job=job,
        status=status,
        policy="",
        publisher="",
        name="",
        program="",
        method="",
        requester="",
        budget_uain=0,
        paid_uain=int(kept["paid_uain"]),
        returned_uain=0,
        requested_at_ms=0,
        deadline_ms=0,
        settled_at_ms=0,
        way=(status,),
        runs=(),
        verdict=None,
        headline=f"{status.capitalize()}. {REASONS['kept_long_enough'].capitalize()}.",
        moments=(),
        moves=(),
        folded_height=int(kept["height"]),
    )


def story_of(job: str, record: Mapping[str, Any], *, folded_height: int = 0) -> JobStory:
    """A job from its records at `/jobs/<job>`."""
    made = job_of(job, record)
    request: Mapping[str, Any] = record["request"]
    slashes = record.get("slashes") or {}
    verdict = made.verdict
    runs = tuple(
        _run_story(run, verdict, slashes.get(run.provider) or {})
        for run in sorted(made.executions, key=lambda run: (run.lease_at_ms, run.provider))
    )
    return JobStory(
        job=job,
        status=made.status,
        policy=str(request.get("policy", ONE)),
        publisher=made.publisher,
        name=str(request.get("name", "")),
        program=str(request.get("program", "")),
        method=str(request.get("method", "")),
        requester=made.requester,
        budget_uain=made.budget_uain,
        paid_uain=made.paid_uain,
        returned_uain=made.returned_uain,
        requested_at_ms=made.requested_at_ms,
        deadline_ms=made.deadline_ms,
        settled_at_ms=made.settled_at_ms,
        way=_way(made),
        runs=runs,
        verdict=verdict,
        headline=headline(made),
        moments=_moments(made),
        moves=_moves(made, record),
        folded_height=folded_height,
        is_exact=made.policy.verification.is_exact,
    )


def headline(job: Job) -> str:
    """The verdict, or what is waited for, in one sentence."""
    verdict = job.verdict
    if job.status not in FINAL or verdict is None:
        return _WAITS.get(job.status, "It is on its way.") if job.status not in FINAL else _ended(job)
    if job.status != ACCEPTED:
        return _ended(job)
    if job.policy.kind == QUORUM:
        count = len(verdict.winners)
        return f"Accepted: {count} of {job.policy.size} results agree."
    if verdict.ground == "outweighed":
        return f"Accepted: {REASONS['outweighed']}."
    if verdict.is_verified:
        others = len(verdict.winners) - 1
        return f"Accepted: {_count(others, 'other provider')} came to the same result."
    if job.policy.kind != AUDITED:
        return "Accepted from the one provider that ran it; nobody checked it."
    reason = "no_auditor" if job.reason == "no_auditor" else "not_drawn"
    return f"Accepted: {REASONS[reason]}."


_WAITS: Final = {
    "REQUESTED": "It waits for a provider that takes it.",
    "LEASED": "Providers are at work.",
    "COMMITTED": "A result is bound; the buyer's secret decides whether others run it again.",
    "DRAWN": "The lot fell on this job: auditors run it again.",
    "REVEALING": "All results are bound; they come to light now.",
    "DISPUTED": "Results differ: referees run it again.",
    "JUDGING": "The referees' results come to light.",
}


def _ended(job: Job) -> str:
    ground = job.verdict.ground if job.verdict is not None else job.reason
    sentence = REASONS.get(ground, ground) or "no reason is written down"
    if job.status == REFUTED:
        sentence = "the referees' runs show that the worker's result is wrong"
    return f"{job.status.capitalize()}: {sentence}."


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def _run_story(run: Execution, verdict: Verdict | None, slash: Mapping[str, Any]) -> RunStory:
    reasons = dict(verdict.reasons) if verdict is not None else {}
    punished = dict(verdict.punished) if verdict is not None else {}
    step = "leased"
    if run.revealed_at_ms:
        step = "revealed"
    elif run.committed_at_ms:
        step = "committed"
    elif run.is_over:
        step = "over"
    reason = reasons.get(run.provider, "")
    if not reason and run.is_late:
        reason = "late"
    return RunStory(
        provider=run.provider,
        role=run.role,
        step=step,
        reason=reason,
        leased_at_ms=run.lease_at_ms,
        committed_at_ms=run.committed_at_ms,
        revealed_at_ms=run.revealed_at_ms,
        digest="0x" + run.digest.hex() if run.digest else "",
        ask_uain=run.ask_uain,
        is_winner=verdict is not None and run.provider in verdict.winners,
        fault=str(slash.get("reason") or punished.get(run.provider) or ""),
        slashed_uain=int(slash.get("uain") or 0),
        error=run.error,
    )


def _way(job: Job) -> tuple[str, ...]:
    """The statuses that a job has passed, up to where it is."""
    kinds = {run.role for run in job.executions}
    passed = {
        "REQUESTED": True,
        "LEASED": bool(job.executions),
        "COMMITTED": job.policy.kind == AUDITED and job.committed_height > 0,
        "DRAWN": job.kept_secret or job.is_drawn or AUDITOR in kinds,
        "REVEALING": job.policy.kind != ONE and any(run.reveal_until_ms for run in job.executions),
        "DISPUTED": job.dispute is not None or REFEREE in kinds,
        "JUDGING": any(run.role == REFEREE and run.reveal_until_ms for run in job.executions),
    }
    way = [status for status in WAY if passed[status] or status == job.status]
    if job.status in FINAL:
        return (*way, job.status)
    return tuple(way[: way.index(job.status) + 1])


def _moments(job: Job) -> tuple[Moment, ...]:
    found = [Moment(job.requested_at_ms, "asked for")]
    if job.is_drawn or job.kept_secret:
        auditors = [run.lease_at_ms for run in job.of_role(AUDITOR)]
        # Where referees have been called since, the time of the first lot is not kept.
        at_ms = min(auditors, default=0) if job.dispute is not None else job.turns_from_ms
        if at_ms:
            found.append(Moment(at_ms, REASONS["no_secret" if job.kept_secret else "drawn"]))
    for run in job.executions:
        role = ROLE_WORDS[run.role]
        found.append(Moment(run.lease_at_ms, f"taken as {role}", run.provider))
        if run.committed_at_ms:
            found.append(Moment(run.committed_at_ms, f"the {role} is bound to a result", run.provider))
        if run.revealed_at_ms:
            said = "fails" if run.status and run.status != DONE else "shows its result"
            late = ", too late to count" if run.is_late else ""
            found.append(Moment(run.revealed_at_ms, f"the {role} {said}{late}", run.provider))
    if job.dispute is not None and job.dispute.began_at_ms:
        said = (
            "disputed, so referees are drawn"
            if job.dispute.disputer
            else "results differ, so referees are drawn"
        )
        found.append(Moment(job.dispute.began_at_ms, said, job.dispute.disputer))
    if job.settled_at_ms:
        found.append(Moment(job.settled_at_ms, f"settled: {job.status.lower()}"))
    return tuple(sorted(found, key=lambda moment: moment.at_ms))


def _moves(job: Job, record: Mapping[str, Any]) -> tuple[MoveStory, ...]:
    """Where the money went: set aside when it was asked for, and moved as the settlement wrote down."""
    moves = [MoveStory(job.payer, JOB, job.budget_uain, "budget")] if job.status != REFUSED else []
    for move in read_moves(record.get("moves")):
        moves.append(
            MoveStory(_holder(job, move.source), _holder(job, move.target), move.amount_uain, move.why)
        )
    return tuple(moves)


def _holder(job: Job, name: str) -> str:
    if name == PAYER:
        return job.payer
    if name == PUBLISHER:
        return job.publisher
    return name


def holder_words(name: str) -> tuple[str, str]:
    """An account in words, and the address that belongs to it, if there is one."""
    if name.startswith(BOND_PREFIX):
        return "the bond of", name.removeprefix(BOND_PREFIX)
    if name in ACCOUNT_WORDS:
        return ACCOUNT_WORDS[name], ""
    return "", name


async def read_story(chain: Chain, job: str) -> JobStory:
    """A job as the chain tells of it; of one that is kept in short, as it was when all of it still stood there."""
    record = await chain.read(f"/jobs/{job}", "pending")
    if isinstance(record, Mapping) and isinstance(record.get("folded"), str):
        kept = folded_story(job, record["folded"])
        try:
            full = await chain.read(f"/jobs/{job}", kept.folded_height)
        except NodeRefused:
            return kept  # This node keeps no state of that time.
        return story_of(job, full, folded_height=kept.folded_height) if isinstance(full, Mapping) else kept
    if not isinstance(record, Mapping) or "state" not in record:
        raise JobUnknown(job=job)
    return story_of(job, record)
