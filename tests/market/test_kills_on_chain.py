"""Votes, stakes, reports and renunciation on a real chain: the rules in front of the natives let nobody act for others."""

from __future__ import annotations

from typing import Any

from openresource.market.accounts import ballot_account, stake_account
from openresource.market.codes import ResultCode
from openresource.primitives.amounts import UAIN_PER_AIN
from openresource.primitives.cids import file_cid
from tests.market.small_chain import NAME, PROGRAM, version_record
from tests.market.test_on_chain import DENIED, code_of
from tests.support.chains import Chain, key_of

EVIDENCE = file_cid(b"what it did")
FIRST, SECOND = "aa" * 8, "bb" * 8
ANN, BOB, PUBLISHER = (key_of(name).address for name in ("ann", "bob", "publisher"))
SERVICE = f"/services/{PUBLISHER}/{NAME}"
KILLS = f"/kills/{PROGRAM}"
# A write above paths that have rules of their own.
DENIED_ABOVE = 12101
MARKET = {
    "kill_vote_ms": 10_000,
    "kill_delay_ms": 5_000,
    "kill_deposit_uain": UAIN_PER_AIN,
    "kill_stake_uain_min": UAIN_PER_AIN,
}


def staked_chain() -> Chain:
    """A published program, and two people who have staked; the next block is a later one."""
    chain = Chain("ann", "bob", "publisher", market=MARKET)
    record = {"publisher": PUBLISHER, "name": NAME, "bytes": 9}
    good(chain.set("publisher", f"/programs/{PROGRAM}", record))
    good(chain.set("publisher", f"{SERVICE}/versions/{PROGRAM}", version_record()))
    for name, address, amount in (("ann", ANN, 30), ("bob", BOB, 10)):
        good(chain.set(name, f"/stakes/{address}/add/{FIRST}", {"amount_uain": amount * UAIN_PER_AIN}))
    next_block(chain)
    return chain


def next_block(chain: Chain, later_ms: int = 1_000) -> None:
    chain.seal()
    chain.open(later_ms)


def good(inserted: Any) -> None:
    assert code_of(inserted) == 0, inserted.result


def proposal(deed: str = "KILL") -> dict[str, Any]:
    return {"deed": deed, "reason": "it steals keys", "evidence": EVIDENCE}


def test_a_program_is_killed_and_given_back_by_blocks_and_their_time() -> None:
    chain = staked_chain()
    supply = chain.supply_uain()
    good(chain.set("bob", f"{KILLS}/proposals/{FIRST}", proposal()))
    next_block(chain)
    good(chain.set("ann", f"{KILLS}/votes/{FIRST}/{ANN}", {"choice": "yes"}))
    good(chain.set("bob", f"{KILLS}/votes/{FIRST}/{BOB}", {"choice": "no"}))
    assert chain.balance(ballot_account(PROGRAM, FIRST)) == UAIN_PER_AIN
    next_block(chain, 10_000)
    assert chain.value(f"{KILLS}/state/status") == "DOOMED"
    next_block(chain, 5_000)
    assert chain.value(f"{KILLS}/state/status") == "KILLED"
    taken = chain.set("bob", f"/placements/{PUBLISHER}/{NAME}/{PROGRAM}/{BOB}", {"status": "OFFERED"})
    assert code_of(taken) == ResultCode.PROGRAM_KILLED
    good(chain.set("bob", f"{KILLS}/proposals/{SECOND}", proposal("APPEAL")))
    next_block(chain)
    good(chain.set("ann", f"{KILLS}/votes/{SECOND}/{ANN}", {"choice": "yes"}))
    next_block(chain, 10_000)
    assert chain.value(f"{KILLS}/state/status") == "RUNNING"
    good(chain.set("bob", f"/placements/{PUBLISHER}/{NAME}/{PROGRAM}/{BOB}", {"status": "OFFERED"}))
    assert chain.balance(BOB) == 990 * UAIN_PER_AIN and chain.supply_uain() == supply


def test_nobody_votes_stakes_or_answers_for_others_and_nothing_is_written_past_the_natives() -> None:
    chain = staked_chain()
    good(chain.set("bob", f"{KILLS}/proposals/{FIRST}", proposal()))
    next_block(chain)
    report = f"/reports/{PROGRAM}/{ANN}/{FIRST}"
    good(chain.set("ann", f"{report}/report", {"reason": "it steals keys"}))
    for name, path, value in (
        ("bob", f"{KILLS}/votes/{FIRST}/{ANN}", {"choice": "yes"}),
        ("bob", f"{KILLS}/votes/{FIRST}", {ANN: {"choice": "yes"}}),
        ("bob", f"{KILLS}/votes/{FIRST}/{BOB}/weight_uain", 10**12),
        ("bob", f"{KILLS}/ballots/{FIRST}/yes_uain", 10**12),
        ("bob", f"{KILLS}/state", {"status": "KILLED"}),
        ("bob", f"{KILLS}/votes/{FIRST}/{BOB}", None),
        ("bob", f"/stakes/{ANN}/withdraw/{SECOND}", {"amount_uain": 1}),
        ("bob", f"/stakes/{ANN}/add/{SECOND}", {"amount_uain": 1}),
        ("bob", f"/stakes/{BOB}/state", {"amount_uain": 10**12}),
        ("bob", f"/stakes/{BOB}/state/steps/1", 10**12),
        ("bob", "/staked/total_uain", 1),
        ("bob", f"/pairs/{BOB}/{ANN}", {"payments": 1, "paid_uain": 1, "fee_uain": 1, "last_ms": 1}),
        ("bob", f"/verified/{PROGRAM}", {"agreed": 100}),
        ("bob", f"/forks/{PUBLISHER}/{NAME}/{BOB}/mine", PROGRAM),
        ("bob", f"{SERVICE}/renounced", {"program": PROGRAM}),
        ("bob", f"{report}/report", None),
        ("bob", f"{report}/answers/{PUBLISHER}/{NAME}", {"reason": "it does"}),
        ("ann", f"{report}/report", {"reason": "something else"}),
        ("publisher", f"{SERVICE}/renounced/at_ms", 5),
    ):
        assert code_of(chain.set(name, path, value)) in (DENIED, DENIED_ABOVE), path
    good(chain.set("publisher", f"{report}/answers/{PUBLISHER}/{NAME}", {"reason": "it does not"}))
    good(chain.set("publisher", f"{SERVICE}/renounced", {"program": PROGRAM}))
    again = chain.set("publisher", f"{SERVICE}/permissions", {"call": {"everyone": False}})
    assert code_of(again) == ResultCode.SERVICE_RENOUNCED
    assert code_of(chain.set("publisher", f"{SERVICE}/renounced", {"program": PROGRAM})) == (
        ResultCode.SERVICE_RENOUNCED
    )


def test_a_stake_comes_back_with_the_block_after_its_delay() -> None:
    chain = staked_chain()
    good(chain.set("ann", f"/stakes/{ANN}/withdraw/{SECOND}", {"amount_uain": 30 * UAIN_PER_AIN}))
    assert chain.value("/staked/total_uain") == 10 * UAIN_PER_AIN
    next_block(chain, 7 * 24 * 3_600_000)
    assert chain.balance(ANN) == 1_000 * UAIN_PER_AIN and chain.balance(stake_account(ANN)) == 0
