"""Votes about stopping a program: who may ask, what counts, what follows, and how it is undone."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from openresource.ledger.draft import InsufficientBalance
from openresource.market.accounts import TREASURY, ballot_account, hold_account
from openresource.market.fields import InvalidRecord
from openresource.market.kills import (
    ALLOWED,
    APPEAL,
    DOOMED,
    FAILED,
    KILL,
    KILLED,
    LIFE_CYCLE,
    OPEN,
    PASSED,
    RUNNING,
    Ballot,
    BallotExists,
    BallotMissing,
    BallotNotAllowed,
    BallotOver,
    ProgramKilled,
    StakeTooYoung,
    Standing,
    TooLittleStake,
    VotedAlready,
    ballot_record,
    cast,
    close,
    has_passed,
    read_ballot,
    read_standing,
    standing_record,
)
from openresource.market.programs import ProgramNotRegistered
from openresource.primitives.cids import file_cid
from openresource.primitives.keys import PrivateKey, generate_key
from tests.market.small_chain import (
    APP,
    BUYER,
    CHANNEL_PATH,
    NAME,
    OTHER_PROGRAM,
    PLACEMENT_PATH,
    PROGRAM,
    PROVIDER,
    PUBLISHER,
    STRANGER,
    VERSION_PATH,
    SmallChain,
    claim_record,
    opening,
    placement,
    published_chain,
    version_record,
    voucher,
)
from tests.market.test_natives import refused

EVIDENCE = file_cid(b"what it did")
VOTE_MS, DELAY_MS, DEPOSIT = 1_000, 500, 10_000
HOLDERS = tuple(generate_key(bytes([97 + number]) * 32) for number in range(4))
FIRST, SECOND = "aa" * 8, "bb" * 8
PARAMETERS = {
    "kill_vote_ms": VOTE_MS,
    "kill_delay_ms": DELAY_MS,
    "kill_deposit_uain": DEPOSIT,
    "kill_stake_uain_min": 1_000,
    "kill_quorum_ppm": 400_000,
}


def voting_chain() -> SmallChain:
    """A served program, four holders with stakes of 1000, 2000, 3000 and 4000 µAIN, and somebody who can pay a deposit."""
    chain = published_chain()
    chain.state.write_value(("blockchain_params", "market"), dict(PARAMETERS))
    chain.state.give(STRANGER.address, 100_000)
    for number, key in enumerate(HOLDERS, 1):
        chain.state.give(key.address, 10_000)
        chain.write(key, f"/stakes/{key.address}/add/{FIRST}", {"amount_uain": 1_000 * number})
    chain.wait(1)
    return chain


def propose(chain: SmallChain, deed: str = KILL, key: str = FIRST, by: PrivateKey = STRANGER) -> None:
    record = {"deed": deed, "reason": "it steals keys", "evidence": EVIDENCE}
    chain.write(by, f"/kills/{PROGRAM}/proposals/{key}", record)


def vote_path(holder: PrivateKey, key: str = FIRST) -> str:
    return f"/kills/{PROGRAM}/votes/{key}/{holder.address}"


def vote(chain: SmallChain, choices: dict[int, str], key: str = FIRST) -> None:
    for number, choice in choices.items():
        chain.write(HOLDERS[number], vote_path(HOLDERS[number], key), {"choice": choice})


def standing(chain: SmallChain) -> Standing:
    return read_standing(chain.get(f"/kills/{PROGRAM}/state"))


def ballot(chain: SmallChain, key: str = FIRST) -> Ballot:
    return read_ballot(PROGRAM, key, chain.get(f"/kills/{PROGRAM}/ballots/{key}"))


def killed_chain() -> SmallChain:
    chain = voting_chain()
    propose(chain)
    vote(chain, {3: "yes", 2: "yes"})
    chain.wait(VOTE_MS)
    chain.wait(DELAY_MS)
    return chain


def test_a_program_is_killed_by_a_vote_of_the_stake_after_its_delay() -> None:
    chain = voting_chain()
    propose(chain)
    assert chain.balance(ballot_account(PROGRAM, FIRST)) == DEPOSIT
    vote(chain, {3: "yes", 0: "no"})
    found = ballot(chain)
    assert (found.yes_uain, found.no_uain, found.voters, found.stake_uain) == (4_000, 1_000, 2, 10_000)
    assert chain.get(vote_path(HOLDERS[3])) == {"choice": "yes", "weight_uain": 4_000, "at_ms": chain.at}
    chain.wait(VOTE_MS)
    assert standing(chain).status == DOOMED and ballot(chain).status == PASSED
    assert standing(chain).effective_at_ms == chain.at + DELAY_MS
    # It runs as before until the delay is over.
    chain.write(BUYER, f"{CHANNEL_PATH}/open", opening())
    chain.wait(DELAY_MS - 1)
    assert standing(chain).status == DOOMED
    chain.wait(1)
    assert standing(chain).status == KILLED and standing(chain).reason == "it steals keys"
    # Who was right gets the deposit back.
    assert chain.balance(STRANGER.address) == 100_000 and chain.balance(TREASURY) == 0


def test_a_killed_program_gets_nothing_new_and_what_was_begun_can_end() -> None:
    chain = voting_chain()
    chain.write(BUYER, f"{CHANNEL_PATH}/open", opening())
    propose(chain)
    vote(chain, {3: "yes", 2: "yes"})
    chain.wait(VOTE_MS)
    chain.wait(DELAY_MS)
    other = CHANNEL_PATH[:-2] + "00"
    refused(chain, ProgramKilled, BUYER, f"{other}/open", opening())
    refused(chain, ProgramKilled, PROVIDER, PLACEMENT_PATH, placement(400))
    by_other = f"/placements/{PUBLISHER.address}/translate/{PROGRAM}/{STRANGER.address}"
    refused(chain, ProgramKilled, STRANGER, by_other, {"status": "OFFERED"})
    elsewhere = f"/services/{STRANGER.address}/copy/versions/{PROGRAM}"
    refused(chain, ProgramKilled, STRANGER, elsewhere, version_record())
    refused(
        chain, ProgramKilled, PUBLISHER, VERSION_PATH.split("/versions")[0] + f"/choose/{FIRST}",
        {"program": PROGRAM},
    )  # fmt: skip
    # Work that was done is paid, the rest goes home, and leaving is always possible.
    chain.write(PROVIDER, f"{CHANNEL_PATH}/claim/{FIRST}", claim_record(voucher(700), 700, send_back=True))
    chain.write(PROVIDER, PLACEMENT_PATH, placement(500, status="DRAINING"))
    chain.write(PROVIDER, PLACEMENT_PATH, {"status": "GONE"})
    # Bytes and history stay.
    assert chain.get(f"/programs/{PROGRAM}") is not None and chain.get(VERSION_PATH) is not None


def test_an_appeal_gives_a_killed_program_back_and_it_can_be_judged_again() -> None:
    chain = killed_chain()
    propose(chain, APPEAL, SECOND, STRANGER)
    vote(chain, {3: "yes", 2: "yes", 0: "no"}, SECOND)
    assert standing(chain).status == KILLED
    refused(chain, ProgramKilled, BUYER, f"{CHANNEL_PATH}/open", opening())
    chain.wait(VOTE_MS)
    assert standing(chain).status == RUNNING and ballot(chain, SECOND).status == PASSED
    chain.write(BUYER, f"{CHANNEL_PATH}/open", opening())
    # The whole story is there to read.
    assert set(chain.get(f"/kills/{PROGRAM}/ballots")) == {FIRST, SECOND}
    propose(chain, KILL, "cc" * 8)


def test_an_appeal_that_passes_within_the_delay_makes_the_kill_void() -> None:
    chain = voting_chain()
    chain.state.write_value(("blockchain_params", "market", "kill_delay_ms"), 10 * VOTE_MS)
    propose(chain)
    vote(chain, {3: "yes", 2: "yes"})
    chain.wait(VOTE_MS)
    propose(chain, APPEAL, SECOND)
    vote(chain, {3: "yes", 2: "yes"}, SECOND)
    chain.wait(VOTE_MS)
    assert standing(chain).status == RUNNING
    chain.wait(20 * VOTE_MS)
    assert standing(chain).status == RUNNING


def test_the_delay_ends_while_an_appeal_is_open_and_the_appeal_goes_on() -> None:
    chain = voting_chain()
    propose(chain)
    vote(chain, {3: "yes", 2: "yes"})
    chain.wait(VOTE_MS)
    propose(chain, APPEAL, SECOND)
    chain.wait(DELAY_MS)
    assert standing(chain).status == KILLED and standing(chain).ballot == SECOND
    vote(chain, {3: "yes", 2: "yes"}, SECOND)
    chain.wait(VOTE_MS)
    assert standing(chain).status == RUNNING


@pytest.mark.parametrize(
    ("choices", "returns"),
    [
        ({0: "yes", 1: "yes"}, True),  # 3000 of 10000: no quorum, though all agree
        ({3: "yes", 1: "no"}, True),  # 4000 against 2000 is not more than two thirds
        ({3: "no", 2: "no", 0: "yes"}, False),
        ({}, False),
    ],
)
def test_a_vote_fails_without_quorum_or_majority_and_spam_loses_its_deposit(
    choices: dict[int, str], returns: bool
) -> None:
    chain = voting_chain()
    propose(chain)
    vote(chain, choices)
    chain.wait(VOTE_MS)
    assert standing(chain) == Standing() and ballot(chain).status == FAILED
    chain.wait(10 * DELAY_MS)
    assert standing(chain).status == RUNNING
    assert chain.balance(STRANGER.address) == (100_000 if returns else 100_000 - DEPOSIT)
    assert chain.balance(TREASURY) == (0 if returns else DEPOSIT)
    assert chain.balance(ballot_account(PROGRAM, FIRST)) == 0
    # Somebody may ask again.
    propose(chain, KILL, SECOND)


def test_a_vote_is_given_once_in_time_and_by_stake_that_was_there_before() -> None:
    chain = voting_chain()
    propose(chain)
    vote(chain, {0: "yes"})
    refused(chain, VotedAlready, HOLDERS[0], vote_path(HOLDERS[0]), {"choice": "no"})
    refused(chain, VotedAlready, HOLDERS[0], vote_path(HOLDERS[0]), {"choice": "yes"})
    refused(chain, StakeTooYoung, BUYER, vote_path(BUYER), {"choice": "yes"})
    chain.write(BUYER, f"/stakes/{BUYER.address}/add/{FIRST}", {"amount_uain": 500_000})
    refused(chain, StakeTooYoung, BUYER, vote_path(BUYER), {"choice": "yes"})
    refused(chain, InvalidRecord, HOLDERS[1], vote_path(HOLDERS[1]), {"choice": "perhaps"})
    refused(chain, BallotMissing, HOLDERS[1], vote_path(HOLDERS[1], SECOND), {"choice": "yes"})
    # What leaves in the meantime counts no more, and where it arrives it does not count yet.
    half = {"amount_uain": 1_500}
    chain.write(HOLDERS[2], f"/stakes/{HOLDERS[2].address}/withdraw/{FIRST}", half)
    vote(chain, {2: "yes"})
    assert ballot(chain).yes_uain == 2_500
    chain.wait(VOTE_MS)
    refused(chain, BallotOver, HOLDERS[3], vote_path(HOLDERS[3]), {"choice": "yes"})


def test_who_may_not_ask_for_a_vote_hears_why() -> None:
    chain = voting_chain()
    path = f"/kills/{PROGRAM}/proposals/{FIRST}"
    good: dict[str, Any] = {"deed": KILL, "reason": "it steals keys", "evidence": EVIDENCE}
    refused(chain, InsufficientBalance, PUBLISHER, path, good)
    refused(chain, BallotNotAllowed, STRANGER, path, good | {"deed": APPEAL})
    refused(chain, InvalidRecord, STRANGER, path, good | {"evidence": "see my page"})
    refused(chain, InvalidRecord, STRANGER, path, good | {"reason": "x" * 501})
    refused(chain, InvalidRecord, STRANGER, f"/kills/not-a-cid/proposals/{FIRST}", good)
    unknown = f"/kills/{OTHER_PROGRAM}/proposals/{FIRST}"
    refused(chain, ProgramNotRegistered, STRANGER, unknown, good)
    chain.state.write_value(("blockchain_params", "market", "kill_stake_uain_min"), 10_001)
    refused(chain, TooLittleStake, STRANGER, path, good)
    chain.state.write_value(("blockchain_params", "market", "kill_stake_uain_min"), 10_000)
    propose(chain)
    refused(chain, BallotExists, STRANGER, path, good)
    refused(chain, BallotNotAllowed, STRANGER, f"/kills/{PROGRAM}/proposals/{SECOND}", good)


def test_every_step_of_the_table_is_taken_by_what_may_be_asked_for() -> None:
    assert set(LIFE_CYCLE) == set(ALLOWED) == {RUNNING, DOOMED, KILLED}
    for status, steps in LIFE_CYCLE.items():
        asked = "appeal_passed" if ALLOWED[status] == APPEAL else "kill_passed"
        assert asked in steps and set(steps.values()) <= set(LIFE_CYCLE)


def test_records_are_read_back_as_they_were_written() -> None:
    chain = voting_chain()
    propose(chain)
    found = ballot(chain)
    assert read_ballot(PROGRAM, FIRST, ballot_record(found)) == found
    doomed = Standing(DOOMED, 5, "", FIRST, 10, "why", EVIDENCE)
    assert read_standing(standing_record(doomed)) == doomed
    assert read_standing(None) == Standing()


VOTES = st.lists(
    st.tuples(st.sampled_from(["yes", "no"]), st.integers(1, 10**12)), max_size=12, unique_by=lambda one: one
)


def open_ballot(stake_uain: int, quorum_ppm: int, majority_ppm: int) -> Ballot:
    return Ballot(
        PROGRAM, FIRST, KILL, STRANGER.address, "why", EVIDENCE, 0, 10, 5, stake_uain, quorum_ppm,
        majority_ppm, 0, 0,
    )  # fmt: skip


@settings(deadline=None)
@given(
    votes=VOTES, seed=st.randoms(use_true_random=False),
    quorum_ppm=st.integers(0, 1_000_000), majority_ppm=st.integers(500_000, 1_000_000),
)  # fmt: skip
def test_the_result_is_the_same_in_any_order_and_the_larger_side_alone_can_win(
    votes: list[tuple[str, int]], seed: Any, quorum_ppm: int, majority_ppm: int
) -> None:
    stake_uain = sum(weight for _, weight in votes) + 5
    ballots = []
    for _ in range(3):
        seed.shuffle(votes)
        one = open_ballot(stake_uain, quorum_ppm, majority_ppm)
        for number, (choice, weight) in enumerate(votes):
            one = cast(one, f"voter {number}", choice, weight, 1)
        ballots.append(close(Standing(ballot=FIRST), one, 10))
    assert ballots[0] == ballots[1] == ballots[2]
    _, found = ballots[0]
    assert found.status != OPEN and found.voters == len(votes)
    if has_passed(found):
        assert found.yes_uain > found.no_uain
        assert (found.yes_uain + found.no_uain) * 1_000_000 >= stake_uain * quorum_ppm
        # One more who agrees, or one less who does not, changes nothing.
        assert has_passed(cast(open_again(found), "one more", "yes", 7, 1))


def open_again(one: Ballot) -> Ballot:
    record = ballot_record(one) | {"status": OPEN}
    return read_ballot(PROGRAM, FIRST, record)


def test_no_job_of_a_killed_program_begins_and_the_money_for_it_stays_where_it_is() -> None:
    chain = voting_chain()
    entry = {
        "function_type": "PROGRAM",
        "function_id": "answer",
        "cid": PROGRAM,
        "budget": "0.001",
        "result_path": f"/apps/{APP}/answers/$key",
    }
    chain.program_entries[f"/apps/{APP}/questions/$key"] = entry
    chain.write(
        BUYER,
        f"/holds/{APP}/default/fund/{FIRST}",
        {"amount_uain": 5_000, "expires_at_ms": chain.at + 100 * VOTE_MS},
    )
    chain.write(STRANGER, f"/apps/{APP}/questions/k1", "before")
    (early,) = chain.get("/jobs")
    propose(chain)
    vote(chain, {3: "yes", 2: "yes"})
    chain.wait(VOTE_MS)
    chain.wait(DELAY_MS)
    # One that was asked for before is not leased any more, and its budget returns at its deadline.
    refused(chain, ProgramKilled, PROVIDER, f"/jobs/{early}/leases/{PROVIDER.address}", {})
    held = chain.balance(hold_account(APP, "default"))
    # What somebody writes stands; it makes no work.
    chain.write(STRANGER, f"/apps/{APP}/questions/k2", "after")
    (late,) = set(chain.get("/jobs")) - {early}
    state = chain.get(f"/jobs/{late}/state")
    assert state["status"] == "REFUSED" and "stopped by a vote" in state["reason"]
    assert chain.balance(hold_account(APP, "default")) == held
    request = {
        "publisher": PUBLISHER.address,
        "name": NAME,
        "program": PROGRAM,
        "policy": "one",
        "budget_uain": 1_000,
        "input_digest": "0x" + "11" * 32,
        "input_cid": EVIDENCE,
    }
    refused(chain, ProgramKilled, BUYER, f"/job_requests/{BUYER.address}/{FIRST}", request)
