"""Turns: in which order those who have a program placed may take a job, and who may check whom."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from openresource.market.jobs.comparators import CLASS_EXACT
from openresource.market.jobs.draws import Candidate, lease_seed, ranking
from openresource.market.jobs.lifecycle import COMMITTED, DISPUTED, DRAWN, JUDGING
from openresource.market.jobs.terms import ROLE_OF_STATUS, Job, Settings

# Of so many placements of a program at most the order is drawn; those beyond have their turn last.
CANDIDATES_MAX: Final = 200


def worker_turn_ms(job: Job, candidates: Iterable[Candidate], provider: str, settings: Settings) -> int:
    """When a provider may lease a job to work on it: in an order drawn by seats, one after the other, from the request on."""
    able = [one for one in candidates if not job.executors or one.provider in job.executors]
    order = ranking(lease_seed(job.job), able)
    place = order.index(provider) if provider in order else len(order)
    return job.requested_at_ms + place * settings.stagger_ms


def checkers(job: Job, candidates: Iterable[Candidate], disputer: str = "") -> tuple[str, ...]:
    """Who may audit or referee a job, in the order drawn: bonded, of other people, of the same runtime class where that counts."""
    others = {run.operator or run.provider for run in job.executions if not run.is_over}
    others |= {run.provider for run in job.executions}
    others |= {job.requester, disputer}
    if job.dispute is not None:
        others.add(job.dispute.disputer)
    worker = job.worker
    needs_class = job.policy.verification.exactness == CLASS_EXACT and worker is not None
    able = [
        one
        for one in candidates
        if one.seats > 0
        and one.provider not in others
        and (one.operator or one.provider) not in others
        and (not job.executors or one.provider in job.executors)
        and (not needs_class or worker is None or one.runtime_class == worker.runtime_class)
    ]
    operators = {one.provider: one.operator or one.provider for one in able}
    order: list[str] = []
    taken: set[str] = set()
    for provider in ranking(job.seed, able):
        if operators[provider] not in taken:
            taken.add(operators[provider])
            order.append(provider)
    return tuple(order)


def order_known_ms(job: Job) -> int | None:
    """Since when the order of a job's auditors or referees may be known to somebody; bonds added later do not count in it."""
    if job.status in (DISPUTED, JUDGING):
        return None if job.dispute is None else job.dispute.began_at_ms
    if job.status in (COMMITTED, DRAWN) and job.worker is not None:
        return job.worker.committed_at_ms
    return None


def others_uain(job: Job, candidates: Iterable[Candidate], provider: str) -> int | None:
    """What those have bonded who could check a provider's run: other people's machines, of its class where that counts.

    None where a buyer names who may run it: whom it names alone must not pay for that.
    """
    if job.executors:
        return None
    who = {one.provider: one for one in candidates}
    own = who.get(provider, Candidate(provider, 0))
    needs_class = job.policy.verification.exactness == CLASS_EXACT
    return sum(
        one.bond_uain
        for one in who.values()
        if one.seats > 0
        and (one.operator or one.provider) != (own.operator or own.provider)
        and one.provider != job.requester
        and (not needs_class or one.runtime_class == own.runtime_class)
    )


def checker_turn_ms(job: Job, order: tuple[str, ...], provider: str, settings: Settings) -> int | None:
    """When somebody who was drawn may lease a job to check it; None for who may not at all.

    As many as are wanted may begin at once, each further one after a while: speed must not replace the lot.
    """
    if provider not in order:
        return None
    if not job.seed:
        # Not drawn yet: the block in which it began is not closed.
        return job.turns_from_ms + settings.call_ms
    # Those who came are not in the order any more; they must not draw those behind them forward.
    came = [run for run in job.of_role(ROLE_OF_STATUS[job.status]) if run.lease_at_ms >= job.turns_from_ms]
    place = order.index(provider) + len(came)
    return job.turns_from_ms + max(0, place - job.newly_called + 1) * settings.call_ms
