"""A verdict computed anew from the chain alone, for anybody who does not want to believe it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from openresource.client.chain import Chain
from openresource.client.job_views import Explanation, JobUnknown
from openresource.market.jobs.lifecycle import FINAL, REASONS, REFUSED
from openresource.market.jobs.states import job_of, read_folded, remade_verdict
from openresource.market.jobs.terms import Job
from openresource.market.jobs.verdicts import Execution, Verdict, verdict_digest, verdict_record
from openresource.primitives.errors import Refusal


class JobNotSettled(Refusal):
    template = "The job {job} is {status}; it has no verdict yet."
    way_out = "Look again when it is settled: openresource job show {job}"


async def explain(chain: Chain, job: str) -> Explanation:
    """Reads a job's records and resolves them once more; one that was folded is read as it was before."""
    at: Any = "final"
    record = await chain.read(f"/jobs/{job}", at)
    height = (await chain.status()).height
    kept: Mapping[str, Any] | None = None
    if isinstance(record, Mapping) and isinstance(record.get("folded"), str):
        kept = read_folded(record["folded"])
        at = height = kept["height"]
        record = await chain.read(f"/jobs/{job}", at)
    if not isinstance(record, Mapping) or "request" not in record:
        raise JobUnknown(job=job)
    return explained(job, record, height, kept)


def explained(
    job: str, record: Mapping[str, Any], height: int, kept: Mapping[str, Any] | None = None
) -> Explanation:
    """The explanation of a job from its records; `kept` is what is left of it since it was folded."""
    found = job_of(job, record)
    if found.status not in FINAL:
        raise JobNotSettled(job=job, status=found.status)
    written = record.get("judgement") or record.get("verdict")
    if found.status == REFUSED or written is None:
        lines = (*_request_lines(found), f"It ended {found.status}: {_words(found.reason)}.")
        return Explanation(job, lines, {"status": found.status}, True, height)
    verdict = remade_verdict(found)
    remade = verdict_record(verdict)
    matches = verdict_digest(remade) == verdict_digest(written)
    if kept is not None and kept["verdict_digest"]:
        matches = matches and ("0x" + verdict_digest(remade).hex()).startswith(kept["verdict_digest"])
    lines = (
        *_request_lines(found),
        *(_run_line(found, run, verdict) for run in _in_order(found)),
        *_draw_lines(found),
        *_verdict_lines(found, verdict),
        "Computed anew from the chain, the verdict is the one that was written."
        if matches
        else "Computed anew from the chain, the verdict is NOT the one that was written.",
    )
    return Explanation(job, lines, remade, matches, height)


def _request_lines(job: Job) -> list[str]:
    kind = job.policy.kind
    if kind == "quorum":
        kind = f"quorum of {job.policy.quorum} of {job.policy.size}"
    return [
        f"{job.requester} asked for a run; policy {kind}, results are {job.policy.verification.exactness}.",
    ]


def _draw_lines(job: Job) -> list[str]:
    if job.policy.kind != "audited":
        return []
    rate = f"{job.rate_ppm / 10_000:g} %"
    if job.kept_secret:
        return [f"The requester kept its secret, so the job counted as drawn (rate {rate})."]
    drawn = "fell on this job" if job.is_drawn else "did not fall on this job"
    return [f"The lot {drawn}, at a rate of {rate}."]


def _in_order(job: Job) -> list[Execution]:
    return sorted(job.executions, key=lambda run: (run.lease_at_ms, run.provider))


def _run_line(job: Job, run: Execution, verdict: Verdict) -> str:
    steps = [f"leased after {_after(job, run.lease_at_ms)}"]
    if run.committed_at_ms:
        steps.append(f"committed after {_after(job, run.committed_at_ms)}")
    if run.revealed_at_ms:
        steps.append(
            f"revealed {run.status} {run.digest.hex()[:12] or '-'} after {_after(job, run.revealed_at_ms)}"
        )
    reason = dict(verdict.reasons).get(run.provider, "")
    said = f": {_words(reason)}" if reason else ""
    return f"{run.role} {run.provider} {', '.join(steps)}{said}."


def _verdict_lines(job: Job, verdict: Verdict) -> list[str]:
    lines = []
    if len(verdict.partition) > 1:
        groups = " | ".join(", ".join(group) for group in verdict.partition)
        lines.append(f"Who agrees with whom: {groups}.")
    for provider, reason in verdict.punished:
        lines.append(f"{provider} pays for it: {_words(reason)}.")
    ground = "" if not verdict.ground else f": {_words(verdict.ground)}"
    lines.append(
        f"Verdict {verdict.status}{ground}; paid {job.paid_uain} µAIN, returned {job.returned_uain} µAIN."
    )
    return lines


def _after(job: Job, at_ms: int) -> str:
    return f"{(at_ms - job.requested_at_ms) / 1000:.2f} s"


def _words(reason: str) -> str:
    return REASONS.get(reason, reason) or "no reason was given"
