"""What a job is to the machine: its terms, where it is, its executions; and what a step gives."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Final

from openresource.market.jobs.lifecycle import REQUESTED
from openresource.market.jobs.policies import Policy
from openresource.market.jobs.verdicts import AUDITOR, REFEREE, WORKER, Execution, Verdict
from openresource.primitives.amounts import UAIN_PER_AIN
from openresource.primitives.numbers import is_integer

# Names of accounts in moves; every other name is an address. A bond is BOND_PREFIX and its provider.
JOB: Final = "job"
POT: Final = "pot"
PAYER: Final = "payer"
PUBLISHER: Final = "publisher"
TREASURY: Final = "treasury"
BOND_PREFIX: Final = "bond:"


# Doubts that prove nothing open a new window, but not for ever: a result could else hold bonds, and its records, as long as
# somebody likes.
DISPUTE_WINDOWS_MAX: Final = 6


@dataclass(frozen=True, slots=True)
class Settings:
    """The market's parameters that jobs go by; the values here hold where the chain says nothing."""

    fee_ppm: int = 20_000
    lease_ms: int = 60_000
    gather_ms: int = 5_000
    secret_ms: int = 30_000
    audit_ms: int = 240_000
    reveal_ms: int = 120_000
    referee_ms: int = 240_000
    dispute_ms: int = 600_000
    keep_ms: int = 3_600_000
    stagger_ms: int = 250
    call_ms: int = 2_000
    bond_per_seat_uain: int = UAIN_PER_AIN
    job_bond_uain: int = UAIN_PER_AIN
    # How many leases at once need no bond.
    free_leases: int = 16
    auditors: int = 1
    referees: int = 5
    audit_ppm_min: int = 5_000
    dispute_bond_uain: int = UAIN_PER_AIN // 10
    # Of what a slash leaves after those who are owed something, to whom the fault was shown by.
    reporter_ppm: int = 200_000

    @property
    def doubts_ms(self) -> int:
        """For how long after a job is settled a doubt of its result may begin at all."""
        return DISPUTE_WINDOWS_MAX * self.dispute_ms

    @property
    def judging_ms(self) -> int:
        """How long a dispute lasts at most."""
        return self.referee_ms + self.reveal_ms

    @property
    def answers_ms(self) -> int:
        """For how long after a job is settled something may be shown against a run of it: then it is folded."""
        return self.doubts_ms + self.judging_ms + self.keep_ms


# Where each of these stands below /blockchain_params/market; the fee has its own place.
PARAMETER_OF: Final[dict[str, str]] = {
    "lease_ms": "job_lease_ms",
    "gather_ms": "job_gather_ms",
    "secret_ms": "job_secret_ms",
    "audit_ms": "job_audit_ms",
    "reveal_ms": "job_reveal_ms",
    "referee_ms": "job_referee_ms",
    "dispute_ms": "job_dispute_ms",
    "keep_ms": "job_keep_ms",
    "stagger_ms": "job_stagger_ms",
    "call_ms": "job_call_ms",
    "bond_per_seat_uain": "bond_per_seat_uain",
    "job_bond_uain": "job_bond_uain",
    "free_leases": "job_free_leases",
    "auditors": "job_auditors",
    "referees": "job_referees",
    "audit_ppm_min": "job_audit_ppm_min",
    "dispute_bond_uain": "job_dispute_bond_uain",
    "reporter_ppm": "job_reporter_ppm",
}


@dataclass(frozen=True, slots=True)
class Facts:
    """What a step needs to know of the world: the pot, bonds by provider, the beacon, how many there are who could check.

    `able_uain` is what these have bonded together, `called_uain` those of them who are the first in a drawn order of referees.
    """

    pot_uain: int = 0
    bonds: Mapping[str, int] = field(default_factory=dict)
    beacon: bytes = b""
    checkers: int = 1_000
    able_uain: int = 0
    called_uain: int = 0


@dataclass(frozen=True, slots=True)
class Offer:
    """Who asks for a lease, with what the chain knows: bond that is free, leases at once, record, and when its turn begins.

    `bond_uain` is its whole bond, `others_uain` what all have bonded who could check it, if that is known.
    """

    provider: str
    ask_uain: int
    royalty_uain: int
    operator: str = ""
    runtime_class: str = ""
    free_bond_uain: int = 0
    bond_uain: int = 0
    others_uain: int | None = None
    leases: int = 0
    streak: int = 0
    turn_at_ms: int = 0


@dataclass(frozen=True, slots=True)
class Dispute:
    """Somebody's doubt about an accepted result; without a disputer, an auditor's."""

    disputer: str = ""
    bond_uain: int = 0
    began_at_ms: int = 0
    until_ms: int = 0
    # How many doubts came to nothing before this one, and how many referees were bound by them.
    earlier: int = 0
    earlier_referees: int = 0
    # How many referees are called; two thirds of them and of the earlier ones must agree.
    referees: int = 0
    # What all have bonded who could be called, and those who are.
    able_uain: int = 0
    called_uain: int = 0
    judged_at_ms: int = 0

    @property
    def is_lot(self) -> bool:
        """Whether others than those who were called could have been."""
        return self.able_uain > self.called_uain

    @property
    def all_referees(self) -> int:
        """How many are waited for, with those who are there already."""
        return self.earlier_referees + self.referees


@dataclass(frozen=True, slots=True)
class Job:
    """One job; `purse_uain` is what its account holds."""

    job: str
    payer: str
    requester: str
    publisher: str
    policy: Policy
    budget_uain: int
    requested_at_ms: int
    deadline_ms: int
    status: str = REQUESTED
    purse_uain: int = 0
    max_price_uain: int | None = None
    secret_hash: bytes = b""
    executors: frozenset[str] = frozenset()
    # A price above the budget is paid up to the budget, as entries of programs have it.
    pays_up_to_budget: bool = False
    fee_ppm: int = 0
    executions: tuple[Execution, ...] = ()
    # The rate that the record asks for, and the one that holds.
    adapted_ppm: int = 0
    rate_ppm: int = 0
    committed_height: int = 0
    # Until when the present wait lasts, for waits that leases do not end.
    wait_until_ms: int = 0
    secret: bytes = b""
    is_drawn: bool = False
    kept_secret: bool = False
    # What orders auditors or referees, and since when they have their turns.
    seed: bytes = b""
    turns_from_ms: int = 0
    # How many auditors or referees are waited for: not more than there are.
    checkers_wanted: int = 0
    dispute: Dispute | None = None
    paid_uain: int = 0
    returned_uain: int = 0
    settled_at_ms: int = 0
    reason: str = ""
    verdict: Verdict | None = None

    def of_role(self, role: str) -> tuple[Execution, ...]:
        """The executions of workers, auditors or referees."""
        return tuple(run for run in self.executions if run.role == role)

    def of(self, provider: str) -> Execution | None:
        """A provider's execution; there is one at most."""
        for run in self.executions:
            if run.provider == provider:
                return run
        return None

    @property
    def is_proven(self) -> bool:
        """Whether referees have come to the result that the verdict gives."""
        return self.verdict is not None and any(
            run.provider in self.verdict.winners for run in self.of_role(REFEREE)
        )

    @property
    def newly_called(self) -> int:
        """How many auditors or referees the lot names now."""
        return self.checkers_wanted if self.dispute is None else self.dispute.referees

    @property
    def worker(self) -> Execution | None:
        """Who works or has worked on it, where that is one."""
        live = [run for run in self.of_role(WORKER) if not run.is_over]
        return live[-1] if live else None


@dataclass(frozen=True, slots=True)
class Move:
    """Money that changes places, and why."""

    source: str
    target: str
    amount_uain: int
    why: str


@dataclass(frozen=True, slots=True)
class Slash:
    """What a proven fault costs; the moves say where it goes."""

    provider: str
    amount_uain: int
    reason: str
    job: str


@dataclass(frozen=True, slots=True)
class Credit:
    """What a verdict adds to a provider's record; a streak grows with results of the worker that others verified."""

    provider: str
    is_valid: bool
    counts_for_streak: bool = False


@dataclass(frozen=True, slots=True)
class Outcome:
    """A job after a step, and all that follows from it."""

    job: Job
    moves: tuple[Move, ...] = ()
    slashes: tuple[Slash, ...] = ()
    due: tuple[tuple[int, str], ...] = ()
    credits: tuple[Credit, ...] = ()


def settings_of(parameters: Mapping[str, object]) -> Settings:
    """The settings from what stands at /blockchain_params/market, for whoever reads them from outside."""
    members = {
        member: int(parameters[name])  # type: ignore[call-overload]
        for member, name in PARAMETER_OF.items()
        if is_integer(parameters.get(name))
    }
    return replace(Settings(), **members)


def judged_policy(policy: Policy, dispute: Dispute) -> Policy:
    """A policy with what a verdict needs to know of a dispute."""
    return replace(
        policy,
        referees_until_ms=dispute.until_ms,
        referees_wanted=dispute.all_referees,
        able_uain=dispute.able_uain,
        called_uain=dispute.called_uain,
    )


def bond_name(provider: str) -> str:
    """The name of a provider's bond in moves."""
    return BOND_PREFIX + provider


ROLE_OF_STATUS: Final = {"REQUESTED": WORKER, "LEASED": WORKER, "DRAWN": AUDITOR, "DISPUTED": REFEREE}
