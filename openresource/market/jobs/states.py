"""A job's state as it stands on the chain, and the job that the machine makes of it; what a job leaves in the end."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

from openresource.market.jobs.executions import executions_of
from openresource.market.jobs.lifecycle import EXPIRED
from openresource.market.jobs.policies import ONE, QUORUM
from openresource.market.jobs.requests import executors_of, policy_of
from openresource.market.jobs.terms import Dispute, Job, Move, judged_policy
from openresource.market.jobs.verdicts import Verdict, resolve, verdict_digest
from openresource.market.papers import hex_text

# Of the digest of a verdict's record, so much is kept for good.
FOLDED_DIGEST_BYTES: Final = 16

_NUMBERS: Final = (
    "fee_ppm",
    "adapted_ppm",
    "rate_ppm",
    "committed_height",
    "wait_until_ms",
    "turns_from_ms",
    "checkers_wanted",
    "paid_uain",
    "returned_uain",
    "settled_at_ms",
)
_FLAGS: Final = ("is_drawn", "kept_secret")
_BYTES: Final = ("secret", "seed")


def job_of(job: str, record: Mapping[str, Any], purse_uain: int = 0) -> Job:
    """A job from its records at `/jobs/<job>`."""
    request, state = record["request"], record["state"]
    policy = policy_of(request)
    doubt = state.get("dispute")
    dispute = None if doubt is None else Dispute(**doubt)
    members: dict[str, Any] = {name: int(state.get(name) or 0) for name in _NUMBERS}
    members |= {name: state.get(name) is True for name in _FLAGS}
    members |= {name: _bytes(state.get(name)) for name in _BYTES}
    verdict = record.get("judgement") or record.get("verdict")
    return Job(
        job=job,
        payer=str(state["payer"]),
        requester=str(request["requester"]),
        publisher=str(request["publisher"]),
        policy=policy if dispute is None else judged_policy(policy, dispute),
        budget_uain=int(request["budget_uain"]),
        requested_at_ms=int(request["requested_at_ms"]),
        deadline_ms=int(request["deadline_ms"]),
        status=str(state["status"]),
        purse_uain=purse_uain,
        max_price_uain=request.get("max_price_uain"),
        secret_hash=_bytes(request.get("secret_hash")),
        executors=executors_of(request),
        pays_up_to_budget="app" in request and policy.kind == ONE,
        executions=executions_of(record.get("executions")),
        dispute=dispute,
        reason=str(state.get("reason") or ""),
        verdict=None if verdict is None else read_verdict(verdict),
        **members,
    )


def state_members(job: Job) -> dict[str, Any]:
    """The record at `/jobs/<job>/state`; what does not apply is left out."""
    members: dict[str, Any] = {"status": job.status, "payer": job.payer}
    worker = job.worker
    if worker is not None and job.policy.kind != QUORUM:
        members |= {
            "provider": worker.provider,
            "lease_until_ms": worker.lease_until_ms,
            "ask_uain": worker.ask_uain,
            "royalty_uain": worker.royalty_uain,
        }
    for name in (*_NUMBERS, *_FLAGS):
        value = getattr(job, name)
        if value:
            members[name] = value
    if job.settled_at_ms:
        members |= {"paid_uain": job.paid_uain, "returned_uain": job.returned_uain}
    for name in _BYTES:
        value = getattr(job, name)
        if value:
            members[name] = hex_text(value)
    if job.dispute is not None:
        doubt = job.dispute
        members["dispute"] = {
            "disputer": doubt.disputer,
            "bond_uain": doubt.bond_uain,
            "earlier": doubt.earlier,
            "earlier_referees": doubt.earlier_referees,
            "referees": doubt.referees,
            "able_uain": doubt.able_uain,
            "called_uain": doubt.called_uain,
            "began_at_ms": doubt.began_at_ms,
            "until_ms": doubt.until_ms,
            "judged_at_ms": doubt.judged_at_ms,
        }
    if job.reason:
        members["reason"] = job.reason
    return members


def read_verdict(record: Mapping[str, Any]) -> Verdict:
    """A verdict from its record at `/jobs/<job>/verdict`."""
    partition = record.get("partition") or {}
    return Verdict(
        status=str(record.get("status")),
        digest=_bytes(record.get("digest")),
        ground=str(record.get("ground") or ""),
        partition=tuple(tuple(sorted(partition[str(place)])) for place in range(len(partition))),
        reasons=tuple(sorted((record.get("reasons") or {}).items())),
        winners=tuple(sorted(record.get("winners") or ())),
        punished=tuple(sorted((record.get("punished") or {}).items())),
        is_verified=record.get("verified") is True,
    )


def remade_verdict(job: Job) -> Verdict:
    """The verdict of a settled job, computed anew from what stands on the chain about it."""
    if job.status == EXPIRED:
        return Verdict(EXPIRED, ground="not_in_time")
    judged_at_ms = 0 if job.dispute is None else job.dispute.judged_at_ms
    return resolve(job.executions, job.policy, judged_at_ms or job.settled_at_ms)


def moves_text(moves: Iterable[Move]) -> str:
    """How a settlement moved money, a line for each move, so that anybody can follow each coin."""
    return "".join(f"{move.source} {move.target} {move.amount_uain} {move.why}\n" for move in moves)


def read_moves(text: object) -> tuple[Move, ...]:
    """The moves from their lines at `/jobs/<job>/moves`."""
    if not isinstance(text, str):
        return ()
    parts = [line.split(" ") for line in text.splitlines()]
    return tuple(Move(source, target, int(amount), why) for source, target, amount, why in parts)


def folded_text(job: Job, verdict: Mapping[str, Any] | None, height: int) -> str:
    """What is left of a settled job: status, digest of the verdict, provider, sum paid, height until which all was there."""
    worker = job.worker
    digest = verdict_digest(verdict)[:FOLDED_DIGEST_BYTES].hex() if verdict is not None else "-"
    provider = worker.provider if worker is not None else "-"
    return f"{job.status} {digest} {provider} {job.paid_uain} {height}"


def read_folded(text: str) -> dict[str, Any]:
    """The members of what is left of a settled job."""
    status, digest, provider, paid, height = text.split(" ")
    return {
        "status": status,
        "verdict_digest": "" if digest == "-" else f"0x{digest}",
        "provider": "" if provider == "-" else provider,
        "paid_uain": int(paid),
        "height": int(height),
    }


def _bytes(text: Any) -> bytes:
    return bytes.fromhex(text[2:]) if isinstance(text, str) and text.startswith("0x") else b""
