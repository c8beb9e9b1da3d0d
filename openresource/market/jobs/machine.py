"""The job machine: a job and what happened go in, the job after it and all that follows come out.

No tree, no clock, no keys: accounts are names, times are arguments, and what the chain knows arrives as `Facts` and `Offer`.
The natives are a thin coat around these functions, and so is a simulation of a million jobs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, Final

from openresource.market.jobs import draws
from openresource.market.jobs.lifecycle import (
    ACCEPTED,
    COMMITTED,
    DISPUTED,
    DRAWN,
    EXPIRED,
    FAILED,
    FINAL,
    JUDGING,
    LEASED,
    REQUESTED,
    REVEALING,
    JobStepNotAllowed,
    NotTheLeaseholder,
    step,
)
from openresource.market.jobs.policies import AUDITED, ONE, QUORUM
from openresource.market.jobs.refusals import (
    BeaconNotThere,
    BondNeeded,
    BudgetTooSmall,
    CommitmentNotOpened,
    DisputeNotPossible,
    NotAnExecutor,
    NotYourTurn,
    SameOperator,
    SecretWrong,
    TooManyLeases,
)
from openresource.market.jobs.settlement import cover_uain, settle, slash_equivocation
from openresource.market.jobs.terms import (
    JOB,
    PAYER,
    ROLE_OF_STATUS,
    Dispute,
    Facts,
    Job,
    Move,
    Offer,
    Outcome,
    Settings,
    judged_policy,
)
from openresource.market.jobs.verdicts import AUDITOR, DONE, REFEREE, WORKER, Execution, Verdict, resolve
from openresource.primitives.hashing import keccak

# A dispute's bond is doubled so often at most.
DOUBLINGS_MAX: Final = 20
# Where others may still run it without knowing any result.
_HIDDEN: Final = (REQUESTED, LEASED, COMMITTED, DRAWN)


def request(job: Job, settings: Settings) -> Outcome:
    """A job as it begins, its budget in its account."""
    started = replace(job, status=REQUESTED, purse_uain=job.budget_uain, fee_ppm=settings.fee_ppm)
    return Outcome(started, due=((job.deadline_ms, "deadline"),))


def lease(job: Job, offer: Offer, settings: Settings, at_ms: int) -> Outcome:
    """Gives a provider the right to run a job for a while: to work, to audit or to referee, as the job's status has it."""
    target = step(job.job, job.status, "lease")
    role = ROLE_OF_STATUS[job.status]
    _check_may_lease(job, offer, role, settings, at_ms)
    stake = _stake(job, offer, role, settings)
    until = at_ms + settings.lease_ms
    if role == WORKER:
        until = min(until, job.deadline_ms)
    run = Execution(
        provider=offer.provider,
        role=role,
        operator=offer.operator,
        runtime_class=offer.runtime_class,
        lease_at_ms=at_ms,
        lease_until_ms=until,
        ask_uain=offer.ask_uain,
        royalty_uain=offer.royalty_uain,
        bond_uain=offer.bond_uain,
        stake_uain=stake,
        is_locked=True,
        is_called=role == REFEREE and offer.turn_at_ms <= job.turns_from_ms,
    )
    leased = replace(job, status=target, executions=(*job.executions, run))
    if role == WORKER and job.policy.kind == AUDITED:
        adapted = draws.audit_rate_ppm(
            streak=offer.streak,
            price_uain=offer.ask_uain + offer.royalty_uain,
            stake_uain=stake if _can_be_convicted(offer) else 0,
            lowest_ppm=settings.audit_ppm_min,
        )
        asked = job.policy.audit_ppm
        leased = replace(leased, adapted_ppm=adapted, rate_ppm=adapted if asked is None else asked)
    return Outcome(leased, due=((until, "lease"),))


def commit(
    job: Job, provider: str, commitment: bytes, output_cid: str, height: int, settings: Settings, at_ms: int
) -> Outcome:
    """Binds a provider to its result before anybody else's is known; one that comes too late is only written down."""
    run = _own(job, provider)
    if job.policy.kind == ONE and run.role == WORKER:
        raise JobStepNotAllowed(job=job.job, status="run by one provider, whose word counts", step="commit")
    if run.commitment:
        raise JobStepNotAllowed(job=job.job, status="committed to by this provider", step="commit")
    bound = replace(run, commitment=commitment, committed_at_ms=at_ms, output_cid=output_cid)
    if (
        run.is_over
        or at_ms >= run.lease_until_ms
        or job.status not in ROLE_OF_STATUS
        or ROLE_OF_STATUS[job.status] != run.role
    ):
        return Outcome(_with(job, replace(bound, is_late=True)))
    committed = replace(_with(job, bound), status=step(job.job, job.status, "commit"))
    if run.role == WORKER and job.policy.kind == AUDITED:
        waiting = replace(
            committed,
            status=step(job.job, job.status, "work_committed"),
            committed_height=height,
            # Nobody holds a secret where a write asked: the next beacon alone draws.
            wait_until_ms=at_ms + (settings.secret_ms if job.secret_hash else 1),
        )
        return Outcome(waiting, due=((waiting.wait_until_ms, "secret"),))
    if run.role == WORKER:
        return _close_quorum(committed, settings, at_ms)
    if len(_bound(committed, run.role)) >= job.checkers_wanted:
        return _reveal_from(committed, "all_committed", run.role, settings, at_ms)
    return Outcome(committed)


def reveal_secret(
    job: Job, secret: bytes, beacon: bytes | None, settings: Settings, facts: Facts, at_ms: int
) -> Outcome:
    """Takes the buyer's secret and draws; the beacon is that of the block in which the work was committed to."""
    if job.status != COMMITTED:
        raise JobStepNotAllowed(job=job.job, status=job.status, step="secret")
    if len(secret) != draws.SECRET_BYTES or draws.secret_hash(secret) != job.secret_hash:
        raise SecretWrong(job=job.job)
    if beacon is None:
        raise BeaconNotThere(height=job.committed_height, reason="its block is not closed yet, or long ago")
    return draw(replace(job, secret=secret), beacon, settings, facts, at_ms)


def draw(job: Job, beacon: bytes, settings: Settings, facts: Facts, at_ms: int) -> Outcome:
    """Draws whether a job is audited, and if so in which order auditors have their turns."""
    drawn = draws.is_drawn(draws.draw_number(job.job, job.secret, beacon), job.rate_ppm)
    if not drawn:
        return _reveal_from(job, "not_drawn", "", settings, at_ms)
    return _to_auditors(job, "drawn", replace(facts, beacon=beacon), settings, at_ms)


def reveal(
    job: Job,
    provider: str,
    report: Mapping[str, Any],
    settings: Settings,
    facts: Facts,
    at_ms: int,
) -> Outcome:
    """Opens a commitment; the last one that is awaited brings the verdict, and with it the money."""
    run = _own(job, provider)
    if not run.commitment:
        raise JobStepNotAllowed(job=job.job, status="not committed to by this provider", step="reveal")
    if run.revealed_at_ms:
        raise JobStepNotAllowed(job=job.job, status="revealed by this provider", step="reveal")
    if commitment_of(job.job, run, report["digest"], report["salt"], report["status"]) != run.commitment:
        raise CommitmentNotOpened(job=job.job, provider=provider)
    shown = replace(run, revealed_at_ms=at_ms, **dict(report))
    is_early = job.status in _HIDDEN if run.is_late else run.reveal_until_ms == 0
    if is_early and job.status not in FINAL:
        # A result that others can see while they still run would be copied.
        raise JobStepNotAllowed(job=job.job, status=job.status, step="reveal")
    if job.status not in (REVEALING, JUDGING) or at_ms >= run.reveal_until_ms or run.is_late:
        return Outcome(_with(job, replace(shown, is_late=True)))
    revealed = replace(_with(job, shown), status=step(job.job, job.status, "reveal"))
    return _decide(revealed, settings, facts, at_ms)


def finish(
    job: Job, provider: str, report: Mapping[str, Any], settings: Settings, facts: Facts, at_ms: int
) -> Outcome:
    """Takes the only result of a job of policy one, done or failed, and settles."""
    step(job.job, job.status, "finish" if report["status"] == DONE else "fail")
    run = job.worker
    if job.policy.kind != ONE:
        raise JobStepNotAllowed(job=job.job, status="bound to commitments", step="finish")
    if run is None or run.provider != provider:
        holder = run.provider if run is not None else "nobody"
        raise NotTheLeaseholder(job=job.job, provider=holder, signer=provider)
    if run.equivocated_at_ms:
        raise JobStepNotAllowed(
            job=job.job, status="not to be finished by who has two results", step="finish"
        )
    done = _with(job, replace(run, revealed_at_ms=at_ms, **dict(report)))
    outcome = settle(done, resolve(done.executions, done.policy, at_ms), settings, facts, at_ms)
    reason = str(report.get("error", ""))
    return replace(outcome, job=replace(outcome.job, reason=reason)) if reason else outcome


def dispute_bond_uain(job: Job, settings: Settings, at_ms: int) -> int:
    """What whoever doubts this result now must bond at least; a refusal says why it cannot be doubted."""
    step(job.job, job.status, "dispute")
    if job.is_proven:
        raise DisputeNotPossible(job=job.job, reason="referees have confirmed it")
    if not job.policy.verification.is_exact:
        raise DisputeNotPossible(job=job.job, reason="another result would not prove it wrong")
    if at_ms >= disputable_until_ms(job, settings):
        raise DisputeNotPossible(job=job.job, reason="its time for disputes is over")
    # Doubts that came to nothing cost nothing; that they grow keeps them from going on for ever.
    return settings.dispute_bond_uain << min(_earlier_doubts(job), DOUBLINGS_MAX)


def disputable_until_ms(job: Job, settings: Settings) -> int:
    """Until when an accepted result may be doubted; after a doubt that proved nothing everybody has as long again.

    That has an end, so that nobody can keep its run in doubt, and the bonds that answer for it, by doubting for ever.
    """
    judged_at_ms = 0 if job.dispute is None else job.dispute.judged_at_ms
    window_ms = max(job.settled_at_ms, judged_at_ms) + settings.dispute_ms
    return min(window_ms, job.settled_at_ms + settings.doubts_ms)


def dispute(job: Job, disputer: str, bond_uain: int, settings: Settings, facts: Facts, at_ms: int) -> Outcome:
    """Doubts an accepted result against a bond: referees are drawn who run it again."""
    target = step(job.job, job.status, "dispute")
    needed_uain = dispute_bond_uain(job, settings, at_ms)
    if bond_uain < needed_uain:
        raise DisputeNotPossible(job=job.job, reason=f"the bond must be {needed_uain} µAIN at least")
    bonded = Move(disputer, JOB, bond_uain, "dispute_bond")
    doubted = replace(job, status=target, purse_uain=job.purse_uain + bond_uain)
    doubt = Dispute(
        disputer,
        bond_uain,
        earlier=_earlier_doubts(job),
        earlier_referees=len(_bound(job, REFEREE)),
        # Who was called before speaks on, for itself and for those who were not.
        called_uain=job.dispute.called_uain if job.dispute is not None else 0,
    )
    outcome = _to_referees(doubted, doubt, settings, facts, at_ms)
    return replace(outcome, moves=(bonded, *outcome.moves))


def report_equivocation(
    job: Job, provider: str, reporter: str, settings: Settings, facts: Facts, at_ms: int
) -> Outcome:
    """Takes all of a bond from who signed two results, whatever the job's status; its execution counts for nothing."""
    run = _own(job, provider)
    if run.is_fined:
        raise JobStepNotAllowed(job=job.job, status="shown to have two results of it", step="report")
    known_ms = at_ms if job.verdict is None else run.equivocated_at_ms
    shown = _with(job, replace(run, equivocated_at_ms=known_ms, is_fined=True))
    fine = slash_equivocation(job, provider, reporter, settings, facts)
    if job.status not in (REVEALING, JUDGING) or job.verdict is not None:
        return replace(fine, job=shown)
    left = {name: held for name, held in facts.bonds.items() if name != provider}
    decided = _decide(shown, settings, replace(facts, bonds=left), at_ms)
    return replace(
        decided,
        moves=(*fine.moves, *decided.moves),
        slashes=(*fine.slashes, *decided.slashes),
        credits=(*fine.credits, *decided.credits),
    )


def on_deadline(job: Job, name: str, settings: Settings, facts: Facts, at_ms: int) -> Outcome:
    """A time came that somebody had to be there by; an entry that something overtook changes nothing."""
    steps: dict[str, Callable[[], Outcome]] = {
        "deadline": lambda: _on_deadline(job, settings, at_ms),
        "lease": lambda: _on_lease_over(job, settings, at_ms),
        "gather": lambda: _close_quorum(job, settings, at_ms) if job.status == LEASED else Outcome(job),
        "secret": lambda: _on_secret_over(job, settings, facts, at_ms),
        "call": lambda: _on_call(job, facts, at_ms),
        "audit": lambda: _on_wait_over(job, DRAWN, "audit_over", AUDITOR, settings, facts, at_ms),
        "dispute": lambda: _on_wait_over(job, DISPUTED, "dispute_over", REFEREE, settings, facts, at_ms),
        "reveal": lambda: _on_reveal_over(job, REVEALING, settings, facts, at_ms),
        "judge": lambda: _on_reveal_over(job, JUDGING, settings, facts, at_ms),
    }
    return steps[name]()


def role_wanted(job: Job) -> str:
    """In which role a job is leased now."""
    role = ROLE_OF_STATUS.get(job.status)
    if role is None:
        raise JobStepNotAllowed(job=job.job, status=job.status, step="lease")
    return role


def commitment_of(job: str, run: Execution, digest: bytes, salt: bytes, status: str = DONE) -> bytes:
    """What binds a provider to a result: nobody can read it, and nobody else can use it."""
    return commitment(digest, salt, run.provider, job, run.lease_at_ms, status)


def commitment(
    digest: bytes, salt: bytes, provider: str, job: str, lease_at_ms: int, status: str = DONE
) -> bytes:
    """The commitment to a result: keccak(digest ‖ salt ‖ provider ‖ job ‖ time of the lease as 8 bytes), and FAILED if it did."""
    # How the run ended is bound too: a liar that is drawn could else open its commitment as a run that failed.
    ended = b"" if status == DONE else status.encode()
    return keccak(digest + salt + provider.encode() + job.encode() + lease_at_ms.to_bytes(8, "big") + ended)


def _earlier_doubts(job: Job) -> int:
    return 0 if job.dispute is None else job.dispute.earlier + 1


# -- leases ------------------------------------------------------------------------------------------------------------


def _check_may_lease(job: Job, offer: Offer, role: str, settings: Settings, at_ms: int) -> None:
    before = job.of(offer.provider)
    if before is not None and not (job.policy.kind == ONE and before.is_over):
        raise JobStepNotAllowed(job=job.job, status="already tried by this provider", step="lease")
    if role == WORKER and at_ms >= job.deadline_ms:
        raise JobStepNotAllowed(job=job.job, status="past its deadline", step="lease")
    if job.executors and offer.provider not in job.executors:
        raise NotAnExecutor(job=job.job, provider=offer.provider)
    wanted = job.policy.size if role == WORKER else job.checkers_wanted
    if len(_active(job, role)) + len(_bound(job, role)) >= wanted:
        raise JobStepNotAllowed(job=job.job, status=job.status, step="lease")
    if role != WORKER or job.policy.kind == QUORUM:
        _check_independent(job, offer, role)
    turn_at_ms = max(offer.turn_at_ms, job.turns_from_ms) if role != WORKER else offer.turn_at_ms
    if at_ms < turn_at_ms or (role != WORKER and not job.seed):
        raise NotYourTurn(job=job.job, provider=offer.provider, turn_at_ms=turn_at_ms, at_ms=at_ms)
    if role == WORKER:
        _check_budget(job, offer)


def _check_independent(job: Job, offer: Offer, role: str) -> None:
    """Refuses who would check itself: one operator has one run in a job, and its requester none but of work."""
    operator = offer.operator or offer.provider
    present = [run for run in job.executions if not run.is_over]
    others = {run.provider for run in present} | {run.operator or run.provider for run in present}
    if role != WORKER:
        others |= {job.requester, job.dispute.disputer if job.dispute is not None else job.requester}
    if operator in others or offer.provider in others:
        raise SameOperator(job=job.job, provider=offer.provider, operator=operator)


def _check_budget(job: Job, offer: Offer) -> None:
    price = offer.ask_uain + offer.royalty_uain
    if job.max_price_uain is not None and price > job.max_price_uain:
        raise BudgetTooSmall(job=job.job, left_uain=job.max_price_uain, needed_uain=price)
    if job.pays_up_to_budget:
        return
    taken = sum(
        cover_uain(job, run.ask_uain, run.royalty_uain) for run in job.of_role(WORKER) if not run.is_over
    )
    needed = cover_uain(job, offer.ask_uain, offer.royalty_uain)
    if taken + needed > job.purse_uain:
        raise BudgetTooSmall(job=job.job, left_uain=job.purse_uain - taken, needed_uain=needed)


def _stake(job: Job, offer: Offer, role: str, settings: Settings) -> int:
    """What is locked for a lease; only who is checked by another way may come without."""
    if job.policy.kind == ONE and role == WORKER:
        return _unbonded(job, offer, settings)
    if offer.free_bond_uain >= settings.job_bond_uain:
        return settings.job_bond_uain
    if role == WORKER and job.policy.kind == AUDITED:
        # Every result of a provider that has nothing to lose is audited.
        return _unbonded(job, offer, settings)
    raise BondNeeded(
        job=job.job,
        provider=offer.provider,
        free_uain=offer.free_bond_uain,
        needed_uain=settings.job_bond_uain,
    )


def _can_be_convicted(offer: Offer) -> bool:
    """Whether two thirds of the coins of all who could check it outweigh its own; else a fault would cost it nothing.

    Where nobody could check it there is nothing to ask for: no rate brings an auditor.
    """
    return not offer.others_uain or 2 * offer.others_uain > 3 * offer.bond_uain


def _unbonded(job: Job, offer: Offer, settings: Settings) -> int:
    """Nothing is at stake; so only a few leases at once."""
    if offer.leases >= settings.free_leases:
        raise TooManyLeases(job=job.job, provider=offer.provider, count=offer.leases)
    return 0


def _own(job: Job, provider: str) -> Execution:
    run = job.of(provider)
    if run is None:
        holder = job.worker
        raise NotTheLeaseholder(
            job=job.job, provider=holder.provider if holder is not None else "nobody", signer=provider
        )
    return run


def _active(job: Job, role: str) -> list[Execution]:
    """Who holds a lease and has not committed yet."""
    return [run for run in job.of_role(role) if not run.is_over and not run.commitment]


def _bound(job: Job, role: str) -> list[Execution]:
    """Who has committed in time."""
    return [run for run in job.of_role(role) if run.commitment and not run.is_over and not run.is_late]


def _with(job: Job, run: Execution) -> Job:
    """The job with one execution grown."""
    return replace(
        job,
        executions=tuple(run if other.provider == run.provider else other for other in job.executions),
    )


# -- from stage to stage -----------------------------------------------------------------------------------------------


def _close_quorum(job: Job, settings: Settings, at_ms: int) -> Outcome:
    """Ends the time for commitments when all are there, or enough and nobody else is at work."""
    bound = len(_bound(job, WORKER))
    if job.policy.kind != QUORUM or bound < job.policy.quorum:
        return Outcome(job)
    if bound < job.policy.size:
        if not job.wait_until_ms:
            waiting = replace(job, wait_until_ms=at_ms + settings.gather_ms)
            return Outcome(waiting, due=((waiting.wait_until_ms, "gather"),))
        if at_ms < job.wait_until_ms or _active(job, WORKER):
            return Outcome(job)
    return _reveal_from(job, "all_committed", WORKER, settings, at_ms)


def _reveal_from(job: Job, name: str, role: str, settings: Settings, at_ms: int) -> Outcome:
    """Opens the time for reveals of everybody who is bound; who only held a lease is over."""
    until = at_ms + settings.reveal_ms
    runs = []
    for run in job.executions:
        if run.commitment and not run.is_over and not run.is_late and not run.reveal_until_ms:
            run = replace(run, reveal_until_ms=until)
        elif not run.commitment and not run.revealed_at_ms and not run.is_over:
            run = replace(run, is_over=True, is_locked=False)
        runs.append(run)
    target = step(job.job, job.status, name)
    opened = replace(job, status=target, executions=tuple(runs), wait_until_ms=until)
    return Outcome(opened, due=((until, "judge" if target == JUDGING else "reveal"),))


def _to_auditors(job: Job, name: str, facts: Facts, settings: Settings, at_ms: int) -> Outcome:
    drawn = replace(
        job,
        status=step(job.job, job.status, name),
        is_drawn=True,
        seed=draws.auditors_seed(job.job, job.secret, facts.beacon),
        turns_from_ms=at_ms,
        checkers_wanted=min(settings.auditors, facts.checkers),
        wait_until_ms=at_ms + settings.audit_ms,
    )
    if not drawn.checkers_wanted:
        # Nobody to wait for.
        return _on_checkers_over(drawn, "audit_over", AUDITOR, settings, facts, at_ms)
    return Outcome(drawn, due=((drawn.wait_until_ms, "audit"),))


def _to_referees(job: Job, doubt: Dispute, settings: Settings, facts: Facts, at_ms: int) -> Outcome:
    wanted = min(settings.referees, facts.checkers)
    until = at_ms + settings.referee_ms if wanted else at_ms
    called = replace(doubt, began_at_ms=at_ms, until_ms=until, referees=wanted)
    disputed = replace(
        job,
        dispute=called,
        policy=judged_policy(job.policy, called),
        # Who reveals last, or disputes, chooses when; so the order hangs on the block in which that stands.
        seed=b"",
        turns_from_ms=at_ms + 1,
        checkers_wanted=called.all_referees,
        wait_until_ms=until,
    )
    if not wanted:
        return _on_checkers_over(disputed, "dispute_over", REFEREE, settings, facts, at_ms)
    return Outcome(disputed, due=((at_ms + 1, "call"), (until, "dispute")))


def _decide(job: Job, settings: Settings, facts: Facts, at_ms: int) -> Outcome:
    """Asks for the verdict; what is pending waits on."""
    verdict = resolve(job.executions, job.policy, at_ms)
    if verdict.is_pending:
        return Outcome(job)
    if verdict.status == DISPUTED:
        disagreeing = replace(job, status=step(job.job, job.status, "disagree"))
        return _to_referees(disagreeing, Dispute(), settings, facts, at_ms)
    return settle(job, _stepped(job, verdict), settings, facts, at_ms)


def _stepped(job: Job, verdict: Verdict) -> Verdict:
    """The verdict, if the life cycle has its status from here."""
    names = {ACCEPTED: "accept", FAILED: "fail", "REFUTED": "refute", "UNRESOLVED": "not_resolved"}
    assert step(job.job, job.status, names[verdict.status]) == verdict.status
    return verdict


# -- what time does ----------------------------------------------------------------------------------------------------


def _on_deadline(job: Job, settings: Settings, at_ms: int) -> Outcome:
    if job.status not in (REQUESTED, LEASED) or at_ms < job.deadline_ms:
        return Outcome(job)
    if job.policy.kind == QUORUM and len(_bound(job, WORKER)) >= job.policy.quorum:
        return _reveal_from(job, "all_committed", WORKER, settings, at_ms)
    expired = replace(
        job,
        status=step(job.job, job.status, "deadline"),
        executions=tuple(replace(run, is_over=True, is_locked=False) for run in job.executions),
        purse_uain=0,
        returned_uain=job.purse_uain,
        settled_at_ms=at_ms,
        reason="not_in_time",
        verdict=Verdict(EXPIRED, ground="not_in_time"),
    )
    back = (Move(JOB, PAYER, job.purse_uain, "returned"),) if job.purse_uain else ()
    return Outcome(expired, back, due=((at_ms + settings.keep_ms, "fold"),))


def _on_lease_over(job: Job, settings: Settings, at_ms: int) -> Outcome:
    if job.status not in ROLE_OF_STATUS:
        return Outcome(job)
    role = ROLE_OF_STATUS[job.status]
    ended = [run for run in _active(job, role) if run.lease_until_ms <= at_ms]
    if not ended:
        return Outcome(job)
    over = tuple(
        replace(run, is_over=True, is_locked=False) if run in ended else run for run in job.executions
    )
    after = replace(job, executions=over)
    if role != WORKER:
        return Outcome(replace(after, status=step(job.job, job.status, "lease_over")))
    if job.policy.kind == ONE:
        # Whoever let it go may try again: there may be nobody else.
        after = replace(after, executions=())
    if _active(after, WORKER) or _bound(after, WORKER):
        after = replace(after, status=step(job.job, job.status, "one_lease_over"))
        return _close_quorum(after, settings, at_ms)
    return Outcome(replace(after, status=step(job.job, job.status, "lease_over")))


def _on_call(job: Job, facts: Facts, at_ms: int) -> Outcome:
    """Orders referees by the beacon of the block in which the dispute began."""
    if job.status != DISPUTED or job.seed or job.dispute is None:
        return Outcome(job)
    before_uain = job.dispute.called_uain
    called = replace(
        job.dispute,
        able_uain=before_uain + facts.able_uain,
        called_uain=before_uain + facts.called_uain,
    )
    ordered = replace(
        job,
        seed=draws.referees_seed(job.job, job.secret + facts.beacon),
        turns_from_ms=at_ms,
        dispute=called,
        policy=judged_policy(job.policy, called),
    )
    return Outcome(ordered)


def _on_secret_over(job: Job, settings: Settings, facts: Facts, at_ms: int) -> Outcome:
    if job.status != COMMITTED or at_ms < job.wait_until_ms:
        return Outcome(job)
    if not job.secret_hash:
        return draw(job, facts.beacon, settings, facts, at_ms)
    return _to_auditors(replace(job, kept_secret=True), "secret_over", facts, settings, at_ms)


def _on_wait_over(
    job: Job, status: str, name: str, role: str, settings: Settings, facts: Facts, at_ms: int
) -> Outcome:
    if job.status != status or at_ms < job.wait_until_ms:
        return Outcome(job)
    return _on_checkers_over(job, name, role, settings, facts, at_ms)


def _on_checkers_over(
    job: Job, name: str, role: str, settings: Settings, facts: Facts, at_ms: int
) -> Outcome:
    """No more auditors or referees may come; those who have committed are enough, or there are none."""
    is_alone = all(run.reveal_until_ms for run in _bound(job, role))
    if is_alone and role == AUDITOR:
        job = replace(job, reason="no_auditor")
    opened = _reveal_from(job, name, role, settings, at_ms)
    return _decide(opened.job, settings, facts, at_ms) if is_alone and role == REFEREE else opened


def _on_reveal_over(job: Job, status: str, settings: Settings, facts: Facts, at_ms: int) -> Outcome:
    if job.status != status or at_ms < job.wait_until_ms:
        return Outcome(job)
    return _decide(job, settings, facts, at_ms)


__all__: Final = [
    "commit",
    "commitment",
    "commitment_of",
    "disputable_until_ms",
    "dispute",
    "dispute_bond_uain",
    "draw",
    "finish",
    "lease",
    "on_deadline",
    "report_equivocation",
    "request",
    "reveal",
    "reveal_secret",
    "role_wanted",
]
