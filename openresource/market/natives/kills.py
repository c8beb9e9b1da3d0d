"""Votes about stopping a program: asking for one with a deposit, voting by stake, and what time makes of it."""

from __future__ import annotations

from openresource.ledger.draft import Draft, DueAction, Native, NativeCall
from openresource.market.accounts import BOND_BALANCES, TREASURY, ballot_account
from openresource.market.fields import InvalidRecord, is_cid_text, require_key
from openresource.market.kills import (
    APPEAL,
    DOOMED,
    OPEN,
    Ballot,
    BallotExists,
    BallotMissing,
    Standing,
    Terms,
    VotedAlready,
    ballot_record,
    begin,
    cast,
    check_program_runs,
    close,
    is_deposit_returned,
    read_ballot,
    read_choice,
    read_proposal,
    read_standing,
    standing_record,
    take_effect,
)
from openresource.market.natives.parameters import (
    APPEAL_MAJORITY_PPM,
    KILL_DELAY_MS,
    KILL_DEPOSIT_UAIN,
    KILL_MAJORITY_PPM,
    KILL_QUORUM_PPM,
    KILL_STAKE_UAIN_MIN,
    KILL_SUPPORT_PPM,
    KILL_VOTE_MS,
    parameter,
)
from openresource.market.natives.stakes import all_stake_uain, stake_of
from openresource.market.programs import ProgramNotRegistered
from openresource.market.stakes import VOTE_MS_MAX, weight_uain
from openresource.primitives.keys import is_checksum_address

KILLS = "kills"
BALLOT_CLOSES = "ballot_closes"
KILL_TAKES_EFFECT = "kill_takes_effect"


def refuse_killed(draft: Draft, program: str) -> None:
    """Refuses anything new of a program that was stopped by a vote."""
    check_program_runs(program, draft.get(KILLS, program, "state"))


def propose_ballot(draft: Draft, call: NativeCall) -> None:
    """Begins a vote and takes its deposit."""
    program, key = _program(call.params["cid"]), require_key(call.params["ballot"], "vote")
    deed, reason, evidence = read_proposal(call.value)
    if draft.get("programs", program) is None:
        raise ProgramNotRegistered(program=program)
    if draft.get(KILLS, program, "ballots", key) is not None:
        raise BallotExists(ballot=key, program=program)
    terms = _terms(draft, deed)
    standing, ballot = begin(
        _standing(draft, program),
        program,
        key,
        deed,
        call.signer,
        reason,
        evidence,
        all_stake_uain(draft),
        terms,
        call.at,
    )
    draft.move(call.signer, ballot_account(program, key), terms.deposit_uain)
    _store(draft, standing, ballot)
    draft.after(ballot.closes_at_ms, BALLOT_CLOSES, f"{program}/{key}")
    draft.set(call.path, None)


def vote(draft: Draft, call: NativeCall) -> None:
    """Counts one vote by the stake behind it; the record stays, with its weight."""
    program, key = _program(call.params["cid"]), require_key(call.params["ballot"], "vote")
    voter = call.params["voter"]
    if not is_checksum_address(voter):
        raise InvalidRecord(what="vote", member="its voter", reason="must be an address in its checksum form")
    choice = read_choice(call.value)
    if call.previous is not None:
        raise VotedAlready(voter=voter, choice=call.previous.get("choice"))
    ballot = _ballot(draft, program, key)
    weight = weight_uain(stake_of(draft, voter), ballot.began_at_ms)
    draft.set((KILLS, program, "ballots", key), ballot_record(cast(ballot, voter, choice, weight, call.at)))
    draft.set((*call.path, "weight_uain"), weight)
    draft.set((*call.path, "at_ms"), call.at)


def close_ballot(draft: Draft, key: str, at_ms: int) -> None:
    """The time for votes is over: the sums decide, and the deposit goes its way."""
    program, _, name = key.partition("/")
    before = _ballot(draft, program, name)
    if before.status != OPEN:
        return
    standing, ballot = close(_standing(draft, program), before, at_ms)
    account = ballot_account(program, name)
    draft.move(account, ballot.proposer if is_deposit_returned(ballot) else TREASURY, draft.balance(account))
    _store(draft, standing, ballot)
    if standing.status == DOOMED and standing.decided_by == name:
        draft.after(standing.effective_at_ms, KILL_TAKES_EFFECT, f"{program}/{name}")


def kill_program(draft: Draft, key: str, at_ms: int) -> None:
    """The delay after a vote is over; nothing happens if an appeal came first."""
    program, _, name = key.partition("/")
    before = _standing(draft, program)
    after = take_effect(before, name, at_ms)
    if after is not before:
        draft.set((KILLS, program, "state"), standing_record(after))


def _store(draft: Draft, standing: Standing, ballot: Ballot) -> None:
    draft.set((KILLS, ballot.program, "state"), standing_record(standing))
    draft.set((KILLS, ballot.program, "ballots", ballot.key), ballot_record(ballot))


def _standing(draft: Draft, program: str) -> Standing:
    return read_standing(draft.get(KILLS, program, "state"))


def _ballot(draft: Draft, program: str, key: str) -> Ballot:
    record = draft.get(KILLS, program, "ballots", key)
    if record is None:
        raise BallotMissing(ballot=key, program=program)
    return read_ballot(program, key, record)


def _terms(draft: Draft, deed: str) -> Terms:
    return Terms(
        vote_ms=min(parameter(draft, KILL_VOTE_MS), VOTE_MS_MAX),
        delay_ms=parameter(draft, KILL_DELAY_MS),
        quorum_ppm=parameter(draft, KILL_QUORUM_PPM),
        majority_ppm=parameter(draft, APPEAL_MAJORITY_PPM if deed == APPEAL else KILL_MAJORITY_PPM),
        support_ppm=parameter(draft, KILL_SUPPORT_PPM),
        deposit_uain=parameter(draft, KILL_DEPOSIT_UAIN),
        stake_uain_min=parameter(draft, KILL_STAKE_UAIN_MIN),
    )


def _program(cid: str) -> str:
    if not is_cid_text(cid):
        raise InvalidRecord(what="vote", member="its path", reason="must name a program by its CID")
    return cid


_WRITES = ((KILLS,), BOND_BALANCES)
NATIVES = (Native("_proposeBallot", _WRITES, propose_ballot), Native("_vote", ((KILLS,),), vote))
DUE_ACTIONS = (
    DueAction(BALLOT_CLOSES, _WRITES, close_ballot),
    DueAction(KILL_TAKES_EFFECT, ((KILLS,),), kill_program),
)
FUNCTIONS = {
    "/kills/$cid/proposals/$ballot": "_proposeBallot",
    "/kills/$cid/votes/$ballot/$voter": "_vote",
}
RULES = {
    "/kills": "false",
    "/kills/$cid/proposals/$ballot": "data === null && newData !== null"
    " && util.checkValuePathLen(parsedValuePath, 4)",
    "/kills/$cid/votes/$ballot/$voter": "auth.addr === $voter && newData !== null"
    " && util.checkValuePathLen(parsedValuePath, 5)",
}
