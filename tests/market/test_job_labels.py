"""What jobs leave behind beside their results: pairs of buyers and providers, and what was seen of a program."""

from __future__ import annotations

from openresource.market.labels import labels_of, read_verified
from openresource.market.records import read_provider_record
from openresource.market.reputation import read_pair, reputation_of
from tests.market.verdict_world import BUYER, JobWorld, address, good

FOUR = {"ann": 2, "bob": 2, "cid": 2, "dan": 2}


def seen(world: JobWorld) -> list[str]:
    (record,) = (world.value("/verified") or {"nothing": None}).values()
    return [label.text for label in labels_of("bit_exact", read_verified(record))]


def audited(world: JobWorld, policy: str, key: str, worker_result: int = 49) -> tuple[str, str]:
    """A job of ann's whose auditor agrees or not; gives the job and the auditor."""
    job = world.ask(policy, key * 16)
    world.work(job, "ann", worker_result)
    world.next_block()
    good(world.tell_secret(job))
    auditor = ""
    if world.status(job) == "DRAWN":
        auditor = world.leaser(job, "bob", "cid", "dan")
        good(world.commit(job, auditor))
        good(world.reveal(job, auditor))
    good(world.reveal(job, "ann", worker_result))
    return job, auditor


def test_an_audit_that_agrees_makes_a_label_and_the_payment_makes_a_pair() -> None:
    world = JobWorld(FOUR)
    assert seen(world) == ["unaudited"]
    audited(world, "audited:1", "aa")
    assert seen(world) == ["audited at 100 %", "bit-exact"]
    audited(world, "audited:0", "bb")
    assert seen(world) == ["audited at 50 %", "bit-exact"]
    pair = read_pair(world.value(f"/pairs/{address('ann')}/{BUYER}"))
    assert (pair.payments, pair.paid_uain, pair.fee_uain) == (2, 1_400, 28)
    reputation = reputation_of(read_provider_record(world.value(f"/records/{address('ann')}")), {BUYER: pair})
    assert reputation.record.valid == 1 and 0 < reputation.score_uain < pair.fee_uain


def test_a_proven_fault_takes_the_label_of_exact_bytes_away_and_pays_nobody() -> None:
    world = JobWorld(FOUR)
    audited(world, "audited:1", "aa")
    job, auditor = audited(world, "audited:1", "bb", worker_result=50)
    assert world.status(job) == "DISPUTED"
    # Referees are called by the block after.
    world.next_block()
    referees = [name for name in FOUR if name not in ("ann", auditor)]
    for name in referees:
        world.work(job, name)
    for name in referees:
        good(world.reveal(job, name))
    assert world.status(job) == "REFUTED"
    assert seen(world) == ["audited at 100 %"]
    assert read_pair(world.value(f"/pairs/{address('ann')}/{BUYER}")).payments == 1


def test_a_quorum_that_agreed_is_a_label_of_its_size_and_pays_each_of_its_workers() -> None:
    world = JobWorld(FOUR)
    job = world.ask("quorum:2/3")
    workers = []
    for _ in range(3):
        name = world.leaser(job, *(name for name in FOUR if name not in workers))
        good(world.commit(job, name))
        workers.append(name)
    for name in workers:
        if world.status(job) != "ACCEPTED":
            good(world.reveal(job, name))
    assert world.status(job) == "ACCEPTED"
    assert seen(world) == ["quorum 2", "bit-exact"]
    paid = [read_pair(world.value(f"/pairs/{address(name)}/{BUYER}")) for name in workers]
    assert [pair.payments for pair in paid].count(1) >= 2
    assert {pair.paid_uain for pair in paid if pair.payments} == {700}
