"""Stopping an ownerless program: a vote of all stake with evidence, a delay, and an appeal by another vote.

A vote is open for a time, wants a part of all stake to be cast and a part of the cast stake to agree, and then waits
before it takes effect. Nobody's bytes and no history goes away by it: what ends is that new channels, placements and
jobs are taken. A deposit keeps votes from being asked for in jest; who finds some agreement gets it back.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

from openresource.market.codes import ResultCode
from openresource.market.fields import Fields
from openresource.primitives.amounts import text_from_uain
from openresource.primitives.errors import Refusal

REASON_CHARACTERS_MAX: Final = 500
PPM: Final = 1_000_000

KILL: Final = "KILL"
APPEAL: Final = "APPEAL"
DEEDS: Final = (KILL, APPEAL)

# What a program is.
RUNNING: Final = "RUNNING"
DOOMED: Final = "DOOMED"
KILLED: Final = "KILLED"

# What a vote is.
OPEN: Final = "OPEN"
PASSED: Final = "PASSED"
FAILED: Final = "FAILED"

YES: Final = "yes"
NO: Final = "no"
CHOICES: Final = (YES, NO)

LIFE_CYCLE: Final[dict[str, dict[str, str]]] = {
    RUNNING: {"kill_passed": DOOMED},
    DOOMED: {"delay_over": KILLED, "appeal_passed": RUNNING},
    KILLED: {"appeal_passed": RUNNING},
}
# What may be asked for when.
ALLOWED: Final[dict[str, str]] = {RUNNING: KILL, DOOMED: APPEAL, KILLED: APPEAL}


class ProgramKilled(Refusal):
    result_code = ResultCode.PROGRAM_KILLED
    template = "The program {program} was stopped by a vote of the network, because of «{reason}»."
    way_out = (
        "Nothing was charged. See the evidence {evidence}, call another version, or ask for it back: "
        "openresource program appeal {program}"
    )


class BallotNotAllowed(Refusal):
    result_code = ResultCode.BALLOT_NOT_ALLOWED
    template = "No vote on {deed} of {program} can begin: {reason}."
    way_out = "See where it stands: openresource program show {program}"


class BallotExists(Refusal):
    result_code = ResultCode.BALLOT_EXISTS
    template = "There is a vote {ballot} about {program} already."
    way_out = "Draw a new identifier."


class BallotMissing(Refusal):
    result_code = ResultCode.BALLOT_MISSING
    template = "There is no vote {ballot} about {program}."
    way_out = "See what there is: openresource program show {program}"


class BallotOver(Refusal):
    result_code = ResultCode.BALLOT_OVER
    template = "The vote {ballot} about {program} is over: {status}."
    way_out = "Another vote can be asked for with a deposit: openresource program kill, or appeal."


class StakeTooYoung(Refusal):
    result_code = ResultCode.STAKE_TOO_YOUNG
    template = (
        "{voter} had nothing staked before the vote began that is staked still, so its vote has no weight."
    )
    way_out = "Stake now for votes to come: openresource stake add AMOUNT."


class VotedAlready(Refusal):
    result_code = ResultCode.VOTED_ALREADY
    template = "{voter} has given its vote already: {choice}."
    way_out = "A vote is given once; who has changed its mind supports the appeal."


class TooLittleStake(Refusal):
    result_code = ResultCode.TOO_LITTLE_STAKE
    template = "All stake together is {stake} AIN; a vote needs {minimum} AIN at least."
    way_out = "Stake more: openresource stake add AMOUNT."


@dataclass(frozen=True, slots=True)
class Terms:
    """The parameters of a vote, taken from the chain when it begins."""

    vote_ms: int
    delay_ms: int
    quorum_ppm: int
    majority_ppm: int
    support_ppm: int
    deposit_uain: int
    stake_uain_min: int


@dataclass(frozen=True, slots=True)
class Ballot:
    """One vote about one program, with the stake that counted when it began."""

    program: str
    key: str
    deed: str
    proposer: str
    reason: str
    evidence: str
    began_at_ms: int
    closes_at_ms: int
    delay_ms: int
    stake_uain: int
    quorum_ppm: int
    majority_ppm: int
    support_ppm: int
    deposit_uain: int
    status: str = OPEN
    yes_uain: int = 0
    no_uain: int = 0
    voters: int = 0

    @property
    def quorum_uain(self) -> int:
        """So much stake has to be cast, rounded up."""
        return -(-self.stake_uain * self.quorum_ppm // PPM)


@dataclass(frozen=True, slots=True)
class Standing:
    """Where a program stands; `ballot` is the vote that is open, `decided_by` the one that brought it here."""

    status: str = RUNNING
    since_ms: int = 0
    ballot: str = ""
    decided_by: str = ""
    effective_at_ms: int = 0
    reason: str = ""
    evidence: str = ""


def check_program_runs(program: str, record: Any) -> None:
    """Refuses anything new of a program that was stopped; `record` is what stands at `/kills/<program>/state`."""
    if isinstance(record, dict) and record.get("status") == KILLED:
        raise ProgramKilled(
            program=program, reason=str(record.get("reason")), evidence=str(record.get("evidence"))
        )


def begin(
    standing: Standing,
    program: str,
    key: str,
    deed: str,
    proposer: str,
    reason: str,
    evidence: str,
    stake_uain: int,
    terms: Terms,
    at_ms: int,
) -> tuple[Standing, Ballot]:
    """A vote begins; there is one at a time about each program."""
    if standing.ballot:
        raise BallotNotAllowed(deed=deed, program=program, reason=f"the vote {standing.ballot} is open")
    if ALLOWED[standing.status] != deed:
        raise BallotNotAllowed(deed=deed, program=program, reason=f"the program is {standing.status}")
    if stake_uain < max(1, terms.stake_uain_min):
        raise TooLittleStake(
            stake=text_from_uain(stake_uain), minimum=text_from_uain(max(1, terms.stake_uain_min))
        )
    ballot = Ballot(
        program=program,
        key=key,
        deed=deed,
        proposer=proposer,
        reason=reason,
        evidence=evidence,
        began_at_ms=at_ms,
        closes_at_ms=at_ms + terms.vote_ms,
        # An appeal gives back what a vote took, and nobody needs a warning of that.
        delay_ms=terms.delay_ms if deed == KILL else 0,
        stake_uain=stake_uain,
        quorum_ppm=terms.quorum_ppm,
        majority_ppm=terms.majority_ppm,
        support_ppm=terms.support_ppm,
        deposit_uain=terms.deposit_uain,
    )
    return replace(standing, ballot=key), ballot


def cast(ballot: Ballot, voter: str, choice: str, weight: int, at_ms: int) -> Ballot:
    """One more vote; the sums do not depend on the order in which votes come."""
    if ballot.status != OPEN or at_ms >= ballot.closes_at_ms:
        status = ballot.status if ballot.status != OPEN else "its time has passed"
        raise BallotOver(ballot=ballot.key, program=ballot.program, status=status)
    if weight <= 0:
        raise StakeTooYoung(voter=voter)
    if choice == YES:
        return replace(ballot, yes_uain=ballot.yes_uain + weight, voters=ballot.voters + 1)
    return replace(ballot, no_uain=ballot.no_uain + weight, voters=ballot.voters + 1)


def close(standing: Standing, ballot: Ballot, at_ms: int) -> tuple[Standing, Ballot]:
    """The time of a vote is over: what it decided, and where the program stands now."""
    decided = replace(ballot, status=PASSED if has_passed(ballot) else FAILED)
    rested = replace(standing, ballot="")
    if decided.status == FAILED:
        return rested, decided
    if ballot.deed == APPEAL:
        status = LIFE_CYCLE[standing.status]["appeal_passed"]
        return Standing(status, at_ms, decided_by=ballot.key), decided
    return (
        Standing(
            status=LIFE_CYCLE[standing.status]["kill_passed"],
            since_ms=at_ms,
            decided_by=ballot.key,
            effective_at_ms=at_ms + ballot.delay_ms,
            reason=ballot.reason,
            evidence=ballot.evidence,
        ),
        decided,
    )


def take_effect(standing: Standing, ballot: str, at_ms: int) -> Standing:
    """The delay after a vote is over; an appeal in the meantime has made it void."""
    if standing.status != DOOMED or standing.decided_by != ballot:
        return standing
    return replace(standing, status=LIFE_CYCLE[DOOMED]["delay_over"], since_ms=at_ms)


def has_passed(ballot: Ballot) -> bool:
    """Whether enough stake was cast, and more than the majority of it agrees."""
    cast_uain = ballot.yes_uain + ballot.no_uain
    has_quorum = cast_uain > 0 and cast_uain >= ballot.quorum_uain
    return has_quorum and ballot.yes_uain * PPM > cast_uain * ballot.majority_ppm


def is_deposit_returned(ballot: Ballot) -> bool:
    """Whether enough of those who voted agreed to call it no spam."""
    cast_uain = ballot.yes_uain + ballot.no_uain
    return cast_uain > 0 and ballot.yes_uain * PPM >= cast_uain * ballot.support_ppm


def read_proposal(record: Any) -> tuple[str, str, str]:
    """Deed, reason and evidence from a request for a vote."""
    fields = Fields(record, "request for a vote")
    deed = fields.choice("deed", DEEDS)
    reason = fields.text("reason", REASON_CHARACTERS_MAX)
    evidence = fields.cid("evidence")
    fields.finish()
    return deed, reason, evidence


def read_choice(record: Any) -> str:
    """What somebody voted, from the request."""
    fields = Fields(record, "vote")
    choice = fields.choice("choice", CHOICES)
    fields.finish()
    return choice


def read_ballot(program: str, key: str, record: Any) -> Ballot:
    """A vote from its record."""
    fields = Fields(record, "ballot")
    return Ballot(
        program=program,
        key=key,
        deed=fields.choice("deed", DEEDS),
        proposer=fields.address("proposer"),
        reason=fields.text("reason", REASON_CHARACTERS_MAX),
        evidence=fields.cid("evidence"),
        status=fields.choice("status", (OPEN, PASSED, FAILED)),
        **{
            name: fields.integer(name)
            for name in (
                "began_at_ms",
                "closes_at_ms",
                "delay_ms",
                "stake_uain",
                "quorum_ppm",
                "majority_ppm",
                "support_ppm",
                "deposit_uain",
                "yes_uain",
                "no_uain",
                "voters",
            )
        },
    )


def ballot_record(ballot: Ballot) -> dict[str, Any]:
    """What the chain writes at `/kills/<program>/ballots/<key>`."""
    return {
        "deed": ballot.deed,
        "proposer": ballot.proposer,
        "reason": ballot.reason,
        "evidence": ballot.evidence,
        "began_at_ms": ballot.began_at_ms,
        "closes_at_ms": ballot.closes_at_ms,
        "delay_ms": ballot.delay_ms,
        "stake_uain": ballot.stake_uain,
        "quorum_ppm": ballot.quorum_ppm,
        "majority_ppm": ballot.majority_ppm,
        "support_ppm": ballot.support_ppm,
        "deposit_uain": ballot.deposit_uain,
        "status": ballot.status,
        "yes_uain": ballot.yes_uain,
        "no_uain": ballot.no_uain,
        "voters": ballot.voters,
    }


def read_standing(record: Any) -> Standing:
    """Where a program stands, from its record; no record means that nobody ever asked."""
    if record is None:
        return Standing()
    fields = Fields(record, "standing of a program")
    return Standing(
        status=fields.choice("status", tuple(LIFE_CYCLE)),
        since_ms=fields.optional_integer("since_ms", 0),
        ballot=fields.optional_text("ballot"),
        decided_by=fields.optional_text("decided_by"),
        effective_at_ms=fields.optional_integer("effective_at_ms", 0),
        reason=fields.optional_text("reason", REASON_CHARACTERS_MAX),
        evidence=fields.optional_text("evidence"),
    )


def standing_record(standing: Standing) -> dict[str, Any]:
    """What the chain writes at `/kills/<program>/state`; what does not apply is left out."""
    members: Mapping[str, Any] = {
        "since_ms": standing.since_ms,
        "ballot": standing.ballot,
        "decided_by": standing.decided_by,
        "effective_at_ms": standing.effective_at_ms,
        "reason": standing.reason,
        "evidence": standing.evidence,
    }
    return {"status": standing.status, **{name: value for name, value in members.items() if value}}
