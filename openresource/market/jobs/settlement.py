"""Where a job's money goes once its verdict is known: earned, returned, or taken from who was proven wrong.

Audits are paid out of a pot. A worker pays into it at its own rate with every audited job, so that the cost is even and a
short record pays for itself; a buyer pays for audits beyond that rate, and for those that a kept secret causes.
"""

from __future__ import annotations

from dataclasses import replace

from openresource.market.fees import split_claim
from openresource.market.jobs.lifecycle import ACCEPTED, FAILED, REFUTED
from openresource.market.jobs.policies import AUDITED, ONE
from openresource.market.jobs.terms import (
    JOB,
    PAYER,
    POT,
    PUBLISHER,
    TREASURY,
    Credit,
    Facts,
    Job,
    Move,
    Outcome,
    Settings,
    Slash,
    bond_name,
)
from openresource.market.jobs.verdicts import AUDITOR, DONE, REFEREE, WORKER, Execution, Verdict
from openresource.primitives.amounts import PPM


class Till:
    """Counts what is left in the accounts that a settlement pays from; nothing is paid twice."""

    def __init__(self, job: Job, facts: Facts) -> None:
        self.moves: list[Move] = []
        self.slashes: list[Slash] = []
        self._job = job.job
        self._left: dict[str, int] = {JOB: job.purse_uain, POT: facts.pot_uain}
        self._bonds = dict(facts.bonds)
        # What was slashed and is not given to anybody yet, by its provider's bond.
        self._slashed: dict[str, int] = {}

    def left(self, account: str) -> int:
        """What an account still has."""
        return self._left.get(account, 0)

    @property
    def slashed_uain(self) -> int:
        """What was slashed and has no owner yet."""
        return sum(self._slashed.values())

    def pay(self, source: str, target: str, amount_uain: int, why: str) -> int:
        """Moves as much as there is, up to an amount; gives what was moved."""
        paid = min(amount_uain, self.left(source))
        if paid <= 0:
            return 0
        self._left[source] -= paid
        if target in self._left:
            self._left[target] += paid
        self.moves.append(Move(source, target, paid, why))
        return paid

    @property
    def potted_uain(self) -> int:
        """What this settlement has put into the pot and not taken out again."""
        return sum(
            move.amount_uain if move.target == POT else -move.amount_uain
            for move in self.moves
            if POT in (move.source, move.target)
        )

    def slash(self, provider: str, amount_uain: int, reason: str) -> None:
        """Takes from a bond what is there, up to an amount."""
        taken = min(amount_uain, self._bonds.get(provider, 0))
        self._bonds[provider] = self._bonds.get(provider, 0) - taken
        self.slashes.append(Slash(provider, taken, reason, self._job))
        if taken:
            self._slashed[provider] = self._slashed.get(provider, 0) + taken

    def pay_from_slashed(self, target: str, amount_uain: int, why: str) -> int:
        """Pays out of what was slashed, except to who was slashed."""
        paid = 0
        for provider in sorted(self._slashed):
            if provider == target:
                continue
            part = min(amount_uain - paid, self._slashed[provider])
            if part > 0:
                self._slashed[provider] -= part
                self.moves.append(Move(bond_name(provider), target, part, why))
                if target in self._left:
                    self._left[target] += part
                paid += part
        return paid


def settle(job: Job, verdict: Verdict, settings: Settings, facts: Facts, at_ms: int) -> Outcome:
    """The job with its verdict and all money in its place; called once for the result, once more for a dispute of it."""
    till = Till(job, facts)
    was_accepted = job.verdict is not None and job.verdict.status == ACCEPTED
    _slash_faults(job, verdict, was_accepted, till)
    paid_uain = job.paid_uain
    if was_accepted:
        _end_dispute(job, verdict, till, settings)
    else:
        if verdict.status == ACCEPTED:
            paid_uain = _pay_workers(job, verdict, till)
        _pay_checkers(job, verdict, till)
        if till.slashed_uain:
            # Nothing is lost to a payer but time; whatever remains belongs to nobody in this job.
            till.pay_from_slashed(TREASURY, till.slashed_uain, "fault")
    returned_uain = till.pay(JOB, PAYER, till.left(JOB), "returned")
    settled = replace(
        job,
        status=verdict.status,
        verdict=verdict,
        executions=tuple(replace(run, is_locked=False) for run in job.executions),
        purse_uain=till.left(JOB),
        paid_uain=paid_uain,
        returned_uain=job.returned_uain + returned_uain,
        settled_at_ms=job.settled_at_ms or at_ms,
        reason=job.reason or ("" if verdict.status == ACCEPTED else verdict.ground),
        dispute=None if job.dispute is None else replace(job.dispute, judged_at_ms=at_ms),
    )
    return Outcome(
        settled,
        tuple(till.moves),
        tuple(till.slashes),
        ((at_ms + settings.keep_ms, "fold"),),
        _credits(job, verdict, was_accepted),
    )


def slash_equivocation(job: Job, provider: str, reporter: str, settings: Settings, facts: Facts) -> Outcome:
    """All of a bond: a part to who showed it, the rest to the treasury."""
    till = Till(job, facts)
    held = facts.bonds.get(provider, 0)
    till.slash(provider, held, "equivocation")
    till.pay_from_slashed(reporter, held * settings.reporter_ppm // PPM, "reporter")
    till.pay_from_slashed(TREASURY, till.slashed_uain, "fault")
    return Outcome(job, tuple(till.moves), tuple(till.slashes), credits=(Credit(provider, False),))


def audit_parts(job: Job, worker: Execution) -> tuple[int, int]:
    """What a worker puts into the pot for an audited job, and what the buyer adds."""
    own_ppm = min(job.rate_ppm, job.adapted_ppm)
    return worker.ask_uain * own_ppm // PPM, worker.ask_uain * (job.rate_ppm - own_ppm) // PPM


def cover_uain(job: Job, ask_uain: int, royalty_uain: int) -> int:
    """What the budget must hold for one more worker: its price, and an audit that the buyer may have to pay."""
    price = ask_uain + royalty_uain
    return price + ask_uain if job.policy.kind == AUDITED else price


def _pay_workers(job: Job, verdict: Verdict, till: Till) -> int:
    paid_uain = 0
    for worker in job.of_role(WORKER):
        if worker.provider not in verdict.winners:
            continue
        price = worker.ask_uain + worker.royalty_uain
        due = min(price, till.left(JOB)) if job.pays_up_to_budget or job.policy.kind == ONE else price
        split = split_claim(due, worker.ask_uain, worker.royalty_uain, job.fee_ppm)
        till.pay(JOB, TREASURY, split.fee_uain, "fee")
        till.pay(JOB, PUBLISHER, split.royalty_uain, "royalty")
        earned = split.provider_uain
        if job.policy.kind == AUDITED:
            earned = _audited_part(job, verdict, worker, earned, till)
        till.pay(JOB, worker.provider, earned, "price")
        paid_uain += due
    return paid_uain


def _audited_part(job: Job, verdict: Verdict, worker: Execution, earned_uain: int, till: Till) -> int:
    """What is left to the worker after the pot and, where the pot is empty, after its auditors."""
    share, extra = audit_parts(job, worker)
    share = min(share, earned_uain)
    earned = earned_uain - till.pay(JOB, POT, share, "audits")
    till.pay(JOB, POT, min(extra, till.left(JOB) - earned), "audits")
    for auditor in _right(job, verdict, AUDITOR):
        owed = worker.ask_uain
        if job.kept_secret:
            owed -= _pay_from_rest(till, auditor.provider, owed, earned)
        owed -= till.pay(POT, auditor.provider, owed, "audit")
        if owed and earned:
            earned -= till.pay(JOB, auditor.provider, min(owed, earned), "audit")
    return earned


def _pay_from_rest(till: Till, target: str, amount_uain: int, kept_uain: int) -> int:
    """Pays out of what the purse holds beyond what is promised to somebody."""
    return till.pay(JOB, target, min(amount_uain, till.left(JOB) - kept_uain), "audit")


def _pay_checkers(job: Job, verdict: Verdict, till: Till) -> None:
    """Referees and, if the worker is not paid, auditors: who was shown to be right is paid by who was wrong.

    The pot adds no more than this job put into it: where worker, auditor and referees are one person, a verdict about a
    price of their own choice would empty it.
    """
    if verdict.status not in (ACCEPTED, REFUTED) and not till.slashed_uain:
        return
    price = max((run.ask_uain for run in job.of_role(WORKER)), default=0)
    checkers = list(_right(job, verdict, REFEREE))
    if verdict.status != ACCEPTED:
        checkers = [*_revealed(job, verdict, AUDITOR), *checkers]
    for run in checkers:
        owed = price - till.pay_from_slashed(run.provider, price, "audit")
        owed -= till.pay(POT, run.provider, min(owed, till.potted_uain), "audit")
        if verdict.status != ACCEPTED:
            till.pay(JOB, run.provider, min(owed, till.left(JOB)) if job.kept_secret else 0, "audit")


def _end_dispute(job: Job, verdict: Verdict, till: Till, settings: Settings) -> None:
    """The loser pays: the disputer's bond pays referees and whom it accused, or the slash pays everybody."""
    assert job.dispute is not None
    price = max((run.ask_uain for run in job.of_role(WORKER)), default=0)
    referees = [run for run in _right(job, verdict, REFEREE) if verdict.winners]
    if verdict.status == REFUTED:
        for run in referees:
            till.pay_from_slashed(run.provider, price, "audit")
        till.pay_from_slashed(PAYER, job.paid_uain, "refund")
        # Where all were called who could be, they may all be friends of whoever doubts: nobody gains by a fine there.
        reward = till.slashed_uain * settings.reporter_ppm // PPM if job.dispute.is_lot else 0
        till.pay(JOB, job.dispute.disputer, job.dispute.bond_uain, "dispute_bond")
        till.pay_from_slashed(job.dispute.disputer, reward, "reporter")
    else:
        is_proven = any(run.provider in verdict.winners for run in job.of_role(REFEREE))
        if is_proven:
            for run in referees:
                till.pay(JOB, run.provider, price, "audit")
            accused = [run for run in job.of_role(WORKER) if run.provider in verdict.winners]
            for place, run in enumerate(accused):
                till.pay(JOB, run.provider, till.left(JOB) // (len(accused) - place), "dispute_lost")
        else:
            # Nobody could judge it: the disputer loses nothing but time.
            till.pay(JOB, job.dispute.disputer, job.dispute.bond_uain, "dispute_bond")
    if till.slashed_uain:
        till.pay_from_slashed(TREASURY, till.slashed_uain, "fault")


def _slash_faults(job: Job, verdict: Verdict, was_accepted: bool, till: Till) -> None:
    before = dict(job.verdict.punished) if was_accepted and job.verdict is not None else {}
    for provider, reason in verdict.punished:
        run = job.of(provider)
        # Equivocation is paid for where it is shown, with the whole bond.
        if run is None or provider in before or reason == "equivocation":
            continue
        till.slash(provider, run.stake_uain, reason)


def _right(job: Job, verdict: Verdict, role: str) -> list[Execution]:
    return [run for run in job.of_role(role) if run.provider in verdict.winners]


def _revealed(job: Job, verdict: Verdict, role: str) -> list[Execution]:
    """Who delivered what it had committed to and was not found wrong."""
    wrong = dict(verdict.punished)
    return [
        run
        for run in job.of_role(role)
        if run.status == DONE and run.revealed_at_ms and not run.is_late and run.provider not in wrong
    ]


def _credits(job: Job, verdict: Verdict, was_accepted: bool) -> tuple[Credit, ...]:
    faults = [
        Credit(provider, False)
        for provider, reason in verdict.punished
        if reason != "equivocation"
        and not (was_accepted and job.verdict and provider in dict(job.verdict.punished))
    ]
    if not verdict.is_verified or was_accepted or verdict.status in (FAILED,):
        return tuple(faults)
    roles = {run.provider: run.role for run in job.executions}
    # A record that the buyer's own choice of executors can grow would be worth nothing.
    counts = job.policy.kind == AUDITED and not job.executors
    valid = [Credit(provider, True, counts and roles.get(provider) == WORKER) for provider in verdict.winners]
    return (*valid, *faults)
