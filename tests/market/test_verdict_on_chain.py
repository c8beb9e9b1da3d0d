"""Verdicts on a real chain: rules, natives, beacon and due-queue together, from the request to the folded record."""

from __future__ import annotations

from typing import Any

import pytest

from openresource.market.accounts import AUDIT_POT, TREASURY, job_account
from openresource.market.bonds import read_bond
from openresource.market.codes import ResultCode
from openresource.market.jobs import job_of, read_folded, remade_verdict, verdict_record
from openresource.market.jobs.faults import Report, ResultPaper, report_record, sign_result
from openresource.market.labels import labels_of, read_verified
from openresource.market.money import where_coins_are
from openresource.market.natives import job_records
from openresource.primitives.encoding import canonical_json_bytes
from tests.market.small_chain import PROGRAM, RECORD
from tests.market.test_machines import offer
from tests.market.verdict_world import BUYER, PUBLISHER, JobWorld, address, code_of, good
from tests.support.chains import Chain, key_of

FOUR = {"ann": 2, "bob": 2, "cid": 2, "dan": 2}


def explained(world: JobWorld, job: str) -> bool:
    """Whether the verdict computed from the records alone is the one that stands there."""
    record = world.value(f"/jobs/{job}")
    made = verdict_record(remade_verdict(job_of(job, record)))
    return made == (record.get("judgement") or record.get("verdict"))


def test_an_audited_job_that_is_not_drawn_settles_with_the_reveal() -> None:
    world = JobWorld(FOUR)
    before = world.chain.balance(BUYER)
    job = world.ask("audited:0")
    world.work(job, "ann")
    assert world.status(job) == "COMMITTED"
    assert world.value(f"/bonds/{address('ann')}/state/locks/{job}") == 1_000_000
    # The beacon of the block that is open is not known to anybody.
    assert code_of(world.tell_secret(job)) == ResultCode.BEACON_NOT_THERE
    assert code_of(world.reveal(job, "ann")) == ResultCode.JOB_STEP_NOT_ALLOWED
    world.next_block()
    good(world.tell_secret(job))
    assert world.status(job) == "REVEALING"
    good(world.reveal(job, "ann"))
    assert world.status(job) == "ACCEPTED" and explained(world, job)
    # The buyer asked for less than the record of a newcomer asks for; so the worker pays for no audit.
    assert world.chain.balance(BUYER) == before - 700
    assert world.value(f"/bonds/{address('ann')}/state/locks") is None
    assert world.chain.balance(job_account(job)) == 0 and world.is_conserved()


def test_a_drawn_job_is_audited_and_the_worker_of_no_record_pays_for_it() -> None:
    world = JobWorld(FOUR)
    job = world.ask("audited")
    world.work(job, "ann")
    world.next_block()
    good(world.tell_secret(job))
    assert world.status(job) == "DRAWN"
    auditor = world.leaser(job, "bob", "cid", "dan")
    assert code_of(world.lease(job, "ann")) == ResultCode.JOB_STEP_NOT_ALLOWED
    good(world.commit(job, auditor))
    assert world.status(job) == "REVEALING"
    good(world.reveal(job, auditor))
    assert world.status(job) == "REVEALING"
    good(world.reveal(job, "ann"))
    assert world.status(job) == "ACCEPTED" and explained(world, job)
    verdict = world.value(f"/jobs/{job}/verdict")
    assert verdict["verified"] is True and set(verdict["winners"]) == {address("ann"), address(auditor)}
    assert world.value(f"/records/{address('ann')}") == {
        "claims": 0,
        "claimed_uain": 0,
        "since_ms": 0,
        "valid": 1,
        "streak": 1,
    }
    assert "streak" not in world.value(f"/records/{address(auditor)}")
    assert world.is_conserved()


def to_dispute(world: JobWorld, wrong: str) -> tuple[str, str, str]:
    """A drawn job whose worker or auditor has a wrong result; gives job, worker, auditor."""
    job = world.ask("audited:1")
    world.work(job, "ann", 50 if wrong == "worker" else 49)
    world.next_block()
    good(world.tell_secret(job))
    auditor = world.leaser(job, "bob", "cid", "dan")
    theirs = 50 if wrong == "auditor" else 49
    good(world.commit(job, auditor, theirs))
    good(world.reveal(job, auditor, theirs))
    good(world.reveal(job, "ann", 50 if wrong == "worker" else 49))
    assert world.status(job) == "DISPUTED"
    return job, "ann", auditor


def accepted(world: JobWorld, worker: str, output: int, key: str = "ab" * 16) -> str:
    """A job whose result was accepted without an audit."""
    job = world.ask("audited:0", key)
    world.work(job, worker, output)
    world.next_block()
    good(world.tell_secret(job))
    good(world.reveal(job, worker, output))
    assert world.status(job) == "ACCEPTED"
    return job


def doubt(world: JobWorld, job: str) -> None:
    """Somebody without a machine disputes a result."""
    path = f"/jobs/{job}/disputes/{address('disputer')}/{RECORD}"
    good(world.chain.set("disputer", path, {"bond_uain": 100_000}))
    assert world.status(job) == "DISPUTED"


def judge(world: JobWorld, job: str, referees: list[str]) -> None:
    """Referees are called by the beacon of the block in which the dispute began."""
    assert code_of(world.lease(job, referees[0])) == ResultCode.NOT_YOUR_TURN
    world.next_block()
    for name in referees:
        world.work(job, name)
    for name in referees:
        good(world.reveal(job, name))


@pytest.mark.parametrize("wrong", ["worker", "auditor"])
def test_who_is_shown_wrong_by_referees_loses_its_stake_and_nobody_else_anything(wrong: str) -> None:
    world = JobWorld(FOUR)
    before = world.chain.balance(BUYER)
    job, worker, auditor = to_dispute(world, wrong)
    judge(world, job, [name for name in FOUR if name not in (worker, auditor)])
    loser = worker if wrong == "worker" else auditor
    assert world.status(job) == ("REFUTED" if wrong == "worker" else "ACCEPTED") and explained(world, job)
    assert world.value(f"/jobs/{job}/verdict/punished") == {address(loser): "wrong_digest"}
    assert {name: world.bond(name) for name in FOUR} == {
        name: 1_000_000 if name == loser else 2_000_000 for name in FOUR
    }
    assert world.value(f"/records/{address(loser)}/faults") == 1
    assert world.chain.balance(BUYER) == before - (0 if wrong == "worker" else 700)
    assert all(world.value(f"/bonds/{address(name)}/state/locks") is None for name in FOUR)
    assert world.is_conserved()


def test_without_anybody_to_referee_nobody_is_punished_and_the_buyer_pays_nothing() -> None:
    world = JobWorld({"ann": 2, "bob": 2})
    before = world.chain.balance(BUYER)
    job = world.ask("audited:1")
    world.work(job, "ann", 50)
    world.next_block()
    good(world.tell_secret(job))
    world.work(job, "bob")
    good(world.reveal(job, "bob"))
    good(world.reveal(job, "ann", 50))
    assert world.status(job) == "UNRESOLVED" and world.value(f"/jobs/{job}/state/reason") == "no_referee"
    assert explained(world, job)
    assert world.chain.balance(BUYER) == before and world.is_conserved()


def test_a_network_of_one_provider_accepts_what_nobody_can_audit_and_says_so() -> None:
    world = JobWorld({"ann": 1})
    job = world.ask("audited")
    world.work(job, "ann")
    world.next_block()
    good(world.tell_secret(job))
    good(world.reveal(job, "ann"))
    assert world.status(job) == "ACCEPTED" and world.value(f"/jobs/{job}/state/reason") == "no_auditor"
    assert world.value(f"/jobs/{job}/verdict/verified") is None and world.value("/records") is None


def test_a_secret_that_is_kept_means_drawn_and_its_keeper_pays_the_audit() -> None:
    world = JobWorld(FOUR)
    job = world.ask("audited:0")
    world.work(job, "ann")
    world.wait_until(world.value(f"/jobs/{job}/state/wait_until_ms"))
    assert world.status(job) == "DRAWN"
    assert code_of(world.tell_secret(job)) == ResultCode.JOB_STEP_NOT_ALLOWED
    auditor = world.leaser(job, "bob", "cid", "dan")
    good(world.commit(job, auditor))
    good(world.reveal(job, auditor))
    before = world.chain.balance(BUYER)
    good(world.reveal(job, "ann"))
    assert world.status(job) == "ACCEPTED"
    # 700 for the work, 500 for the audit, of a budget of 3000.
    assert world.chain.balance(BUYER) == before + 1_800 and world.is_conserved()


def test_a_commitment_that_is_never_opened_costs_the_stake() -> None:
    world = JobWorld(FOUR)
    before = world.chain.balance(BUYER)
    job = world.ask("audited:0")
    world.work(job, "ann")
    world.next_block()
    good(world.tell_secret(job))
    world.wait_until(world.value(f"/jobs/{job}/state/wait_until_ms"))
    assert world.status(job) == "UNRESOLVED" and explained(world, job)
    assert world.value(f"/jobs/{job}/verdict/punished") == {address("ann"): "no_reveal"}
    assert world.bond("ann") == 1_000_000 and world.chain.balance(TREASURY) == 1_000_000
    assert world.chain.balance(BUYER) == before and world.is_conserved()
    # What comes now is written down and changes nothing.
    good(world.reveal(job, "ann"))
    assert world.value(f"/jobs/{job}/executions/{address('ann')}/is_late") is True
    assert world.status(job) == "UNRESOLVED" and explained(world, job)


def test_a_quorum_pays_those_who_agree_and_nobody_else() -> None:
    world = JobWorld(FOUR)
    job = world.ask("quorum:2/3")
    outputs = {"ann": 49, "bob": 50, "cid": 49}
    for name, output in outputs.items():
        world.work(job, name, output)
    assert world.status(job) == "REVEALING"
    assert world.lease(job, "dan").has_failed
    coins = {name: world.chain.balance(address(name)) for name in outputs}
    for name, output in outputs.items():
        good(world.reveal(job, name, output))
    assert world.status(job) == "ACCEPTED" and explained(world, job)
    earned = {name: world.chain.balance(address(name)) - coins[name] for name in outputs}
    assert earned == {"ann": 486, "bob": 0, "cid": 486}
    assert world.value(f"/jobs/{job}/verdict/punished") is None
    assert world.value(f"/jobs/{job}/state/paid_uain") == 1_400 and world.is_conserved()


def test_a_leaseholder_that_is_gone_is_replaced() -> None:
    world = JobWorld(FOUR)
    job = world.ask("quorum:2/2")
    good(world.lease(job, "ann"))
    good(world.lease(job, "bob"))
    good(world.commit(job, "bob"))
    world.wait_until(world.value(f"/jobs/{job}/executions/{address('ann')}/lease_until_ms"))
    assert world.status(job) == "LEASED"
    # Too late, and visible.
    good(world.commit(job, "ann"))
    assert world.value(f"/jobs/{job}/executions/{address('ann')}/is_late") is True
    assert code_of(world.lease(job, "ann")) == ResultCode.JOB_STEP_NOT_ALLOWED
    world.work(job, "cid")
    for name in ("bob", "cid"):
        good(world.reveal(job, name))
    assert world.status(job) == "ACCEPTED" and explained(world, job) and world.is_conserved()


def test_who_has_no_bond_works_with_every_result_audited_but_neither_audits_nor_makes_a_quorum() -> None:
    world = JobWorld(FOUR | {"new": 0})
    job = world.ask("audited", executors={address("new"): True})
    assert code_of(world.lease(job, "ann")) == ResultCode.NOT_AN_EXECUTOR
    good(world.lease(job, "new"))
    assert world.value(f"/jobs/{job}/state/rate_ppm") == 1_000_000
    other = world.ask("quorum:2/3", key="cd" * 16)
    assert code_of(world.lease(other, "new")) == ResultCode.BOND_NEEDED


def test_a_bond_serves_as_many_leases_at_once_as_it_has_seats() -> None:
    world = JobWorld(FOUR)
    for number in range(3):
        job = world.ask("quorum:2/3", key=f"{number:032x}")
        inserted = world.lease(job, "ann")
        if number < 2:
            good(inserted)
    assert code_of(inserted) == ResultCode.BOND_NEEDED
    locked = world.chain.set("ann", f"/bonds/{address('ann')}/withdraw/{'cd' * 8}", {"amount_uain": 1})
    assert code_of(locked) == ResultCode.BOND_NOT_FREE


def test_an_accepted_result_is_disputed_once_and_the_loser_pays() -> None:
    world = JobWorld(FOUR)
    for wrong in (False, True):
        job = world.ask("audited:0", key=f"{wrong:032x}")
        worker = "ann"
        output = 50 if wrong else 49
        world.work(job, worker, output)
        world.next_block()
        good(world.tell_secret(job))
        good(world.reveal(job, worker, output))
        assert world.status(job) == "ACCEPTED"
        path = f"/jobs/{job}/disputes/{address('disputer')}"
        few = world.chain.set("disputer", f"{path}/{'ee' * 16}", {"bond_uain": 99_999})
        assert code_of(few) == ResultCode.DISPUTE_NOT_POSSIBLE
        coins, buyer = world.chain.balance(address("disputer")), world.chain.balance(BUYER)
        good(world.chain.set("disputer", f"{path}/{'ff' * 16}", {"bond_uain": 100_000, "reason": "I ran it"}))
        assert world.status(job) == "DISPUTED"
        judge(world, job, ["bob", "cid", "dan"])
        assert world.status(job) == ("REFUTED" if wrong else "ACCEPTED") and explained(world, job)
        assert world.value(f"/jobs/{job}/verdict/status") == "ACCEPTED"
        won = world.chain.balance(address("disputer")) - coins
        if wrong:
            # The stake pays three referees and refunds the buyer; where all were called who could be, nobody gains by the rest.
            assert won == 0
            assert world.chain.balance(BUYER) == buyer + 700
        else:
            assert won == -100_000
        again = world.chain.set("disputer", f"{path}/{'aa' * 16}", {"bond_uain": 100_000})
        assert again.has_failed and world.is_conserved()


def test_where_referees_are_a_lot_among_more_whoever_showed_a_fault_gets_a_part_of_the_stake() -> None:
    providers = dict.fromkeys(("ann", "bob", "cid", "dan", "eve", "fay", "gus"), 2)
    world = JobWorld(providers)
    job = accepted(world, "ann", 50)
    coins = world.chain.balance(address("disputer"))
    doubt(world, job)
    world.next_block()
    able, called = (world.value(f"/jobs/{job}/state/dispute/{name}") for name in ("able_uain", "called_uain"))
    assert (able, called) == (12_000_000, 10_000_000)
    referees = [name for name in providers if name != "ann" and not world.lease(job, name).has_failed]
    assert len(referees) == 5
    for name in referees:
        good(world.commit(job, name))
    for name in referees:
        good(world.reveal(job, name))
    assert world.status(job) == "REFUTED" and explained(world, job)
    # The stake pays five referees and refunds the buyer; a fifth of the rest is the reward.
    assert world.chain.balance(address("disputer")) - coins == (1_000_000 - 2_500 - 700) // 5
    assert world.is_conserved()


def test_who_bonds_when_an_order_may_be_known_is_not_in_it() -> None:
    """Else a friend of the worker would try names until one is first, and bond that one."""
    friends = tuple(f"friend-{number}" for number in range(6))
    world = JobWorld({"ann": 2, "bob": 2, "cid": 2, **dict.fromkeys(friends, 0)})
    bond = {"amount_uain": 5_000_000}
    job = world.ask("audited:1")
    world.work(job, "ann", 50)
    world.next_block()
    for name in friends[:3]:
        good(world.chain.set(name, f"/bonds/{address(name)}/add/{RECORD}", bond))
    good(world.tell_secret(job))
    assert all(code_of(world.lease(job, name)) == ResultCode.JOB_STEP_NOT_ALLOWED for name in friends[:3])
    auditor = world.leaser(job, "bob", "cid")
    good(world.commit(job, auditor))
    good(world.reveal(job, auditor))
    good(world.reveal(job, "ann", 50))
    # Those may judge it: nobody knows yet in which order.
    assert world.status(job) == "DISPUTED" and world.value(f"/jobs/{job}/state/dispute/referees") == 4
    world.next_block()
    for name in friends[3:]:
        good(world.chain.set(name, f"/bonds/{address(name)}/add/{RECORD}", bond))
        assert code_of(world.lease(job, name)) == ResultCode.JOB_STEP_NOT_ALLOWED
    assert world.value(f"/jobs/{job}/state/dispute/able_uain") == 17_000_000
    for name in ("bob" if auditor == "cid" else "cid", *friends[:3]):
        world.work(job, name)
    for name in ("bob" if auditor == "cid" else "cid", *friends[:3]):
        good(world.reveal(job, name))
    assert world.status(job) == "REFUTED" and explained(world, job) and world.is_conserved()


def test_a_friends_doubt_when_nobody_looks_leaves_room_for_another_one() -> None:
    world = JobWorld(FOUR)
    job = accepted(world, "ann", 50)
    doubt(world, job)
    world.wait_until(world.value(f"/jobs/{job}/state/wait_until_ms"))
    assert world.status(job) == "ACCEPTED" and explained(world, job)
    coins, path = world.chain.balance(address("disputer")), f"/jobs/{job}/disputes/{address('disputer')}"
    few = world.chain.set("disputer", f"{path}/{'ee' * 16}", {"bond_uain": 100_000})
    assert code_of(few) == ResultCode.DISPUTE_NOT_POSSIBLE
    good(world.chain.set("disputer", f"{path}/{'ff' * 16}", {"bond_uain": 200_000}))
    judge(world, job, ["bob", "cid", "dan"])
    assert world.status(job) == "REFUTED" and explained(world, job)
    assert world.bond("ann") == 1_000_000 and world.chain.balance(address("disputer")) == coins
    assert world.is_conserved()


def test_who_has_bonded_more_than_all_who_speak_against_it_is_not_convicted() -> None:
    small = ("bob", "cid", "dan", "eve", "fay")
    world = JobWorld({"ann": 6, **dict.fromkeys(small, 1), "gus": 0, "hal": 0})
    job, other = accepted(world, "ann", 49, "01" * 16), "02" * 16
    doubt(world, job)
    world.next_block()
    for name in small:
        good(world.lease(job, name))
        assert world.value(f"/jobs/{job}/executions/{address(name)}/bond_uain") == 1_000_000
        good(world.commit(job, name, 50))
    for name in small:
        good(world.reveal(job, name, 50))
    # Nothing is proven, so what was accepted stands, and the verdict says why.
    assert world.status(job) == "ACCEPTED" and explained(world, job)
    assert world.value(f"/jobs/{job}/judgement/ground") == "outweighed"
    assert world.value(f"/jobs/{job}/judgement/punished") is None and world.bond("ann") == 6_000_000
    seen = read_verified(world.value(f"/verified/{PROGRAM}"))
    assert seen.differed == 1 and seen.faults == 0
    assert "bit-exact" not in [label.text for label in labels_of("bit_exact", seen)]
    # Two more small ones tip the scales.
    for name in ("gus", "hal"):
        bond = {"amount_uain": 1_000_000}
        good(world.chain.set(name, f"/bonds/{address(name)}/add/{RECORD}", bond))
    job = accepted(world, "ann", 49, other)
    doubt(world, job)
    world.next_block()
    lying = [name for name in (*small, "gus", "hal") if not world.lease(job, name).has_failed]
    for name in lying:
        good(world.commit(job, name, 50))
    for name in lying:
        good(world.reveal(job, name, 50))
    assert world.status(job) == "REFUTED" and explained(world, job) and world.bond("ann") == 5_000_000
    assert world.is_conserved()


def test_within_a_tolerance_outputs_are_compared_and_nobody_is_punished() -> None:
    verify = {"class": "tolerant", "comparator": {"name": "allclose", "rtol": "1e-3"}}
    world = JobWorld(FOUR, exactness="tolerant", verify=verify)
    job = world.ask("quorum:2/3")
    outputs = {"ann": 1.0001, "bob": 1.0002, "cid": 2}
    for name, output in outputs.items():
        world.work(job, name, output)
    for name, output in outputs.items():
        good(world.reveal(job, name, output))
    assert world.status(job) == "ACCEPTED" and explained(world, job)
    assert set(world.value(f"/jobs/{job}/verdict/winners")) == {address("ann"), address("bob")}
    assert world.is_conserved()


def test_what_nobody_can_be_wrong_about_is_not_compared() -> None:
    world = JobWorld(FOUR, exactness="subjective")
    with pytest.raises(AssertionError, match="policy-not-for-class"):
        world.ask("quorum:2/3")


def test_the_same_request_again_names_the_job_that_is_there() -> None:
    world = JobWorld(FOUR)
    world.ask("one")
    with pytest.raises(AssertionError, match="job-exists"):
        world.ask("one")


def test_policy_one_takes_a_sealed_result_of_whoever_is_in_turn() -> None:
    world = JobWorld(FOUR)
    job = world.ask("one")
    name = world.leaser(job, *FOUR)
    good(
        world.chain.set(
            name,
            f"/jobs/{job}/executions/{address(name)}",
            {"status": "DONE", "output": 49, "digest": "0x" + world.digest(job, 49).hex()},
        )
    )
    assert world.status(job) == "ACCEPTED" and explained(world, job) and world.is_conserved()
    assert world.chain.balance(PUBLISHER) == 200


def test_a_settled_job_leaves_at_most_two_hundred_bytes() -> None:
    world = JobWorld(FOUR)
    job = world.ask("quorum:3/4")
    for name in FOUR:
        world.work(job, name)
    for name in FOUR:
        good(world.reveal(job, name))
    height = world.chain.machine.height
    world.next_block(3_600_000)
    world.next_block()
    record = world.value(f"/jobs/{job}")
    assert list(record) == ["folded"] and len(canonical_json_bytes({job: record})) <= 200
    folded = read_folded(record["folded"])
    assert folded["status"] == "ACCEPTED" and folded["paid_uain"] == 2_800 and folded["height"] >= height
    assert world.value("/job_requests") is None and world.value("/service_accounts/holds") is None
    with pytest.raises(AssertionError, match="job-exists"):
        world.ask("quorum:3/4")


def test_a_deadline_without_a_quorum_returns_the_budget_and_every_lock() -> None:
    world = JobWorld(FOUR)
    before = world.chain.balance(BUYER)
    job = world.ask("quorum:2/3")
    good(world.lease(job, "ann"))
    good(world.commit(job, "ann"))
    world.wait_until(world.value(f"/jobs/{job}/request/deadline_ms"))
    assert world.status(job) == "EXPIRED" and explained(world, job)
    assert (
        world.chain.balance(BUYER) == before and world.value(f"/bonds/{address('ann')}/state/locks") is None
    )


def test_a_chain_with_jobs_is_replayed_to_the_same_state() -> None:
    world = JobWorld(FOUR)
    job, worker, auditor = to_dispute(world, "worker")
    judge(world, job, [name for name in FOUR if name not in (worker, auditor)])
    world.next_block(4_000_000)
    world.chain.seal()
    other = Chain("buyer", "disputer", *FOUR)
    for sealed in world.chain.sealed:
        other.machine.replay(sealed.block, is_trusted=True)
    assert other.value("/") == world.chain.value("/")
    assert world.chain.balance(AUDIT_POT) >= 0


def test_two_results_of_one_lease_cost_the_whole_bond_and_count_for_nothing() -> None:
    world = JobWorld(FOUR)
    network = world.chain.machine.domain
    job = world.ask("audited:0")
    world.work(job, "ann")
    lease_at_ms = world.value(f"/jobs/{job}/executions/{address('ann')}/lease_at_ms")

    def paper(output: int, lease: int = lease_at_ms, name: str = "ann") -> ResultPaper:
        return sign_result(job, lease, world.digest(job, output), key_of(name), network)

    def report(key: str, first: ResultPaper, second: ResultPaper | None) -> Any:
        record = report_record(Report(address("ann"), first, second))
        return world.chain.set("disputer", f"/jobs/{job}/faults/{address('disputer')}/{key * 16}", record)

    proves_nothing = (
        (paper(49), paper(49)),
        (paper(49), paper(50, lease_at_ms + 1)),
        (paper(49), paper(50, name="bob")),
        (paper(49), None),
    )
    for number, (first, second) in enumerate(proves_nothing):
        assert code_of(report(f"0{number}", first, second)) == ResultCode.NO_EQUIVOCATION
    before = world.chain.balance(address("disputer"))
    good(report("aa", paper(49), paper(50)))
    assert world.bond("ann") == 0 and world.chain.balance(address("disputer")) == before + 400_000
    assert report("ab", paper(49), paper(51)).has_failed
    world.next_block()
    good(world.tell_secret(job))
    world.wait_until(world.value(f"/jobs/{job}/state/wait_until_ms"))
    assert world.status(job) == "UNRESOLVED" and explained(world, job)
    assert world.value(f"/jobs/{job}/verdict/punished") == {address("ann"): "equivocation"}
    assert world.is_conserved()


def test_a_paper_against_the_reveal_is_proof_after_the_verdict_too_and_changes_no_verdict() -> None:
    world = JobWorld(FOUR)
    job = world.ask("audited:0")
    world.work(job, "ann")
    world.next_block()
    good(world.tell_secret(job))
    good(world.reveal(job, "ann"))
    lease_at_ms = world.value(f"/jobs/{job}/executions/{address('ann')}/lease_at_ms")
    paper = sign_result(job, lease_at_ms, world.digest(job, 50), key_of("ann"), world.chain.machine.domain)
    world.next_block()
    record = report_record(Report(address("ann"), paper))
    good(world.chain.set("disputer", f"/jobs/{job}/faults/{address('disputer')}/{'aa' * 16}", record))
    assert world.bond("ann") == 0 and world.status(job) == "ACCEPTED" and explained(world, job)


# -- entries of programs -----------------------------------------------------------------------------------------------


def entry_world(policy: str, **changes: Any) -> JobWorld:
    """An app whose questions start the program under a policy."""
    world = JobWorld(FOUR, **changes)
    chain = world.chain
    good(chain.create_app("buyer", "photo_app"))
    for kind, value in (
        ("SET_RULE", {".rule": {"write": "true"}}),
        (
            "SET_FUNCTION",
            {
                ".function": {
                    "answer": {
                        "function_type": "PROGRAM",
                        "function_id": "answer",
                        "cid": PROGRAM,
                        "policy": policy,
                        "budget": "0.003",
                        "result_path": "/apps/photo_app/answers/$key",
                    }
                }
            },
        ),
    ):
        good(chain.run("buyer", {"type": kind, "ref": "/apps/photo_app/questions/$key", "value": value}))
    fund = {"amount_uain": 5_000, "expires_at_ms": chain.now_ms + 10_000_000}
    good(chain.set("buyer", f"/holds/photo_app/default/fund/{RECORD}", fund))
    good(chain.set("buyer", "/apps/photo_app/questions/k1", 7))
    world.next_block()
    return world


def test_an_entry_may_ask_for_an_audit_and_its_result_is_written_when_it_is_verified() -> None:
    world = entry_world("audited:1")
    (job,) = world.value("/jobs")
    world.salt = b""
    world.work(job, "ann")
    world.next_block()
    assert world.status(job) == "DRAWN"
    auditor = world.leaser(job, "bob", "cid", "dan")
    good(world.commit(job, auditor))
    for name in ("ann", auditor):
        assert world.value("/apps/photo_app/answers") is None
        good(world.reveal(job, name))
    assert world.status(job) == "ACCEPTED" and world.value("/apps/photo_app/answers/k1") == 49
    assert explained(world, job) and world.is_conserved()


def test_an_entry_whose_policy_its_program_cannot_have_makes_a_refused_job() -> None:
    world = entry_world("quorum:2/3", exactness="subjective")
    (job,) = world.value("/jobs")
    assert world.status(job) == "REFUSED" and "compares results" in world.value(f"/jobs/{job}/state/reason")
    assert world.is_conserved()


def test_without_a_bond_only_a_few_leases_at_once_are_given() -> None:
    world = JobWorld({"new": 0}, job_free_leases=2)
    jobs = [world.ask("one", key=f"{number:032x}") for number in range(3)]
    for job in jobs[:2]:
        good(world.lease(job, "new"))
    assert code_of(world.lease(jobs[2], "new")) == ResultCode.TOO_MANY_LEASES
    world.wait_until(world.value(f"/jobs/{jobs[0]}/executions/{address('new')}/lease_until_ms"))
    good(world.lease(jobs[2], "new"))


def test_a_job_that_went_on_leaves_nothing_due_but_its_folding() -> None:
    world = JobWorld(FOUR)
    job, worker, auditor = to_dispute(world, "worker")
    judge(world, job, [name for name in FOUR if name not in (worker, auditor)])
    quorum = world.ask("quorum:2/3", key="cd" * 16)
    for name in ("ann", "bob", "cid"):
        good(world.lease(quorum, name))
        good(world.commit(quorum, name))
    for name in ("ann", "bob", "cid"):
        good(world.reveal(quorum, name))
    waiting = [entry["key"] for entry in world.value("/due").values()]
    assert sorted(waiting) == sorted((f"{job}/fold", f"{quorum}/fold"))


def test_a_lock_is_shown_among_the_coins_of_its_provider() -> None:
    world = JobWorld(FOUR)
    job = world.ask("quorum:2/3")
    good(world.lease(job, "ann"))
    record = world.value(f"/bonds/{address('ann')}/state")
    bond = read_bond(address("ann"), record, world.bond("ann"))
    assert (bond.counted_uain, bond.free_uain) == (2_000_000, 1_000_000)
    places = where_coins_are(address("ann"), 0, at_ms=world.chain.now_ms, bond=bond)
    shown = [(coins.amount_uain, coins.how) for coins in places if coins.place == "bond"]
    assert shown[0] == (1_000_000, "locked until the verdicts of running jobs: 1")
    assert shown[1][0] == 1_000_000


def test_many_who_have_nothing_at_stake_do_not_push_out_those_who_could_audit(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(job_records, "CANDIDATES_MAX", 2)
    world = JobWorld({f"nobody{number}": 0 for number in range(6)} | {"ann": 2, "bob": 2})
    job = world.ask("audited:1")
    world.work(job, "ann")
    world.next_block()
    good(world.tell_secret(job))
    assert world.status(job) == "DRAWN"
    good(world.lease(job, "bob"))


def test_who_names_an_auditor_as_its_owner_does_not_keep_it_from_looking() -> None:
    world = JobWorld({"ann": 2, "bob": 2})
    good(world.chain.set("ann", f"/machines/{address('ann')}/offer", offer(owner=address("bob"))))
    job = world.ask("audited:1")
    world.work(job, "ann")
    world.next_block()
    good(world.tell_secret(job))
    assert world.status(job) == "DRAWN"
    good(world.lease(job, "bob"))


@pytest.mark.parametrize(("rule", "written"), [("data === null", None), ("true", 49)])
def test_a_result_is_written_where_its_requester_may_still_write(rule: str, written: object) -> None:
    world = JobWorld(FOUR)
    good(world.chain.create_app("disputer", "photo_app"))
    write = {"type": "SET_RULE", "ref": "/apps/photo_app/once/$key", "value": {".rule": {"write": rule}}}
    good(world.chain.run("disputer", write))
    job = world.ask("one", result_path="/apps/photo_app/once/k1")
    name = world.leaser(job, *FOUR)
    good(world.chain.set("disputer", "/apps/photo_app/once/k1", "mine"))
    path = f"/jobs/{job}/executions/{address(name)}"
    report = {"status": "DONE", "output": 49, "digest": "0x" + world.digest(job, 49).hex()}
    good(world.chain.set(name, path, report))
    assert world.status(job) == "ACCEPTED"
    assert world.value("/apps/photo_app/once/k1") == (written or "mine")
    assert world.value(f"{path}/output") == 49
