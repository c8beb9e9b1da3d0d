"""A bond answers for what its provider ran until nothing can be shown against it any more, and nobody can hold it longer."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from openresource.market.bonds import (
    BOND_DELAY_MS_DEFAULT,
    Bond,
    BondNotFree,
    Withdrawal,
    delay_ms,
    free_at_ms,
    left_of_leaving,
    paid_back,
    read_bond,
    withdraw,
    withdrawal_record,
)
from openresource.market.codes import ResultCode
from openresource.market.jobs import job_of
from openresource.market.jobs.machine import disputable_until_ms
from openresource.market.jobs.terms import Settings, settings_of
from tests.market.test_verdict_on_chain import FOUR, accepted, doubt
from tests.market.verdict_world import JobWorld, address, code_of, good

ANN = address("ann")
HOUR_MS = 60 * 60 * 1000
# A network whose withdrawals would take no time of their own.
HASTY: dict[str, Any] = {"bond_delay_ms": 1}
SHORT = settings_of(HASTY)


def withdraw_all(world: JobWorld, name: str = "ann", record: str = "cd" * 8) -> Withdrawal:
    """Asks for all that is free; gives what stands on the chain then."""
    path = f"/bonds/{address(name)}"
    bond = read_bond(address(name), world.value(f"{path}/state"), world.bond(name))
    good(world.chain.set(name, f"{path}/withdraw/{record}", {"amount_uain": bond.free_uain}))
    return leaving(world, name)[record]


def leaving(world: JobWorld, name: str = "ann") -> dict[str, Withdrawal]:
    """What is on its way out of a bond."""
    bond = read_bond(address(name), world.value(f"/bonds/{address(name)}/state"), world.bond(name))
    return dict(bond.leaving or {})


def doubt_again(world: JobWorld, job: str, number: int) -> Any:
    """A doubt against twice as much as the one before."""
    path = f"/jobs/{job}/disputes/{address('disputer')}/{number:032x}"
    return world.chain.set("disputer", path, {"bond_uain": 100_000 << number})


def doubt_until(world: JobWorld, job: str, until_ms: int) -> int:
    """Doubts a result whenever it may be, with no referee there to judge it, up to a time; gives how often."""
    number = 0
    while world.chain.now_ms < until_ms:
        good(doubt_again(world, job, number))
        number += 1
        while world.status(job) != "ACCEPTED":
            world.wait_until(world.value(f"/jobs/{job}/state/wait_until_ms"))
        made = job_of(job, world.value(f"/jobs/{job}"))
        world.wait_until(min(until_ms, disputable_until_ms(made, settings_of({})) - 1_000))
    return number


def test_a_run_is_answered_for_until_its_job_is_folded_at_the_latest() -> None:
    usual = Settings()
    assert usual.doubts_ms == HOUR_MS and usual.judging_ms == 6 * 60_000
    assert usual.answers_ms == 2 * HOUR_MS + 6 * 60_000 < BOND_DELAY_MS_DEFAULT
    assert delay_ms(BOND_DELAY_MS_DEFAULT, usual.answers_ms) == BOND_DELAY_MS_DEFAULT
    assert delay_ms(0, usual.answers_ms) == usual.answers_ms


def test_no_network_pays_a_bond_back_before_its_runs_can_be_doubted_no_more() -> None:
    world = JobWorld(FOUR, **HASTY)
    accepted(world, "ann", 50)
    settled_at_ms = world.chain.now_ms
    asked = withdraw_all(world)
    assert asked == Withdrawal(2_000_000, settled_at_ms + SHORT.answers_ms, settled_at_ms)
    world.wait_until(asked.at_ms - 1)
    assert world.bond("ann") == 2_000_000
    world.next_block()
    assert world.bond("ann") == 0 and leaving(world) == {} and world.is_conserved()


def test_who_withdraws_at_once_pays_for_what_is_doubted_last() -> None:
    """The last doubt that may begin, judged as late as it may be, finds the bond that stood when the result was accepted."""
    world = JobWorld(FOUR, **HASTY)
    job = accepted(world, "ann", 50)
    asked = withdraw_all(world)
    last_ms = asked.asked_at_ms + SHORT.doubts_ms
    number = doubt_until(world, job, last_ms - 60_000)
    world.wait_until(last_ms - 1)
    good(doubt_again(world, job, number))
    world.next_block()
    for name in ("bob", "cid"):
        world.work(job, name)
    # The third referee does not come; what the two found is shown in the last moment.
    world.wait_until(world.value(f"/jobs/{job}/state/wait_until_ms"))
    world.wait_until(world.value(f"/jobs/{job}/state/wait_until_ms") - 1)
    assert world.status(job) == "JUDGING" and world.bond("ann") == 2_000_000
    for name in ("bob", "cid"):
        good(world.reveal(job, name))
    assert world.status(job) == "REFUTED" and world.bond("ann") == 1_000_000
    assert leaving(world)["cd" * 8] == Withdrawal(1_000_000, asked.at_ms, asked.asked_at_ms)
    world.wait_until(asked.at_ms)
    assert world.bond("ann") == 0 and leaving(world) == {} and world.is_conserved()


def test_nobody_holds_an_honest_bond_by_doubting_again_and_again() -> None:
    """Doubts that nobody can judge cost nothing; so they have an end, and none of them moves a withdrawal."""
    world = JobWorld(FOUR)
    job = accepted(world, "ann", 49)
    asked = withdraw_all(world)
    last_ms = asked.asked_at_ms + Settings().doubts_ms
    number = doubt_until(world, job, last_ms)
    assert number == 6 and code_of(doubt_again(world, job, number)) == ResultCode.DISPUTE_NOT_POSSIBLE
    assert leaving(world) == {"cd" * 8: asked}
    assert asked.at_ms == asked.asked_at_ms + BOND_DELAY_MS_DEFAULT
    world.wait_until(asked.at_ms)
    assert world.bond("ann") == 0 and world.is_conserved()


def test_what_leaves_pays_a_fine_before_what_stays() -> None:
    """Else what stays would be gone when a later run is shown to be wrong, and what left would be safe."""
    world = JobWorld({**FOUR, "ann": 3})
    job = accepted(world, "ann", 50)
    good(world.chain.set("ann", f"/bonds/{ANN}/withdraw/{'cd' * 8}", {"amount_uain": 2_000_000}))
    later = accepted(world, "ann", 50, "cd" * 16)
    for number, one in enumerate((job, later)):
        doubt(world, one)
        world.next_block()
        for name in ("bob", "cid", "dan"):
            world.work(one, name)
        for name in ("bob", "cid", "dan"):
            good(world.reveal(one, name))
        assert world.status(one) == "REFUTED"
        bond = read_bond(ANN, world.value(f"/bonds/{ANN}/state"), world.bond("ann"))
        assert bond.counted_uain == 1_000_000 and bond.leaving_uain == 1_000_000 * (1 - number)
    assert leaving(world) == {} and world.is_conserved()


def test_a_refusal_says_what_the_rest_of_a_bond_waits_for() -> None:
    bond = Bond("0xAb", 5_000_000, {"a": Withdrawal(1_000_000, 77, 7)}, {"j": 1_000_000, "k": 1_000_000})
    with pytest.raises(BondNotFree) as refused:
        withdraw(bond, 2_000_001, 1, 1)
    assert "2 AIN are locked for 2 running jobs until their verdicts" in refused.value.message
    assert "1 AIN are on their way, the last until 77." in refused.value.message
    with pytest.raises(BondNotFree) as refused:
        withdraw(Bond("0xAb", 1), 2, 1, 1)
    assert refused.value.message.endswith("cannot be withdrawn.")


TIMES = st.integers(0, 10_000)
WITHDRAWALS = st.dictionaries(
    st.text("abcdef", min_size=1, max_size=4),
    st.builds(Withdrawal, st.integers(1, 1_000), TIMES, TIMES),
    max_size=16,
)


@given(WITHDRAWALS, st.integers(0, 20_000), st.integers(0, 20_000))
def test_a_fine_is_paid_by_what_leaves_and_then_by_what_stays(
    ways: dict[str, Withdrawal], counted_uain: int, fine_uain: int
) -> None:
    held_uain = counted_uain + sum(one.amount_uain for one in ways.values())
    bond = Bond("p", held_uain, ways)
    taken_uain = min(fine_uain, held_uain)
    left = left_of_leaving(bond, fine_uain)
    after = Bond("p", held_uain - taken_uain, left)
    assert after.leaving_uain == max(0, bond.leaving_uain - taken_uain)
    assert after.counted_uain == counted_uain - max(0, taken_uain - bond.leaving_uain)
    # All that is said to be on its way is there.
    assert sum(paid_back(after, name) for name in left) == after.leaving_uain
    # Nothing that leaves later has paid while something that leaves sooner has not.
    paid = [name for name, one in ways.items() if left.get(name) != one]
    assert all(ways[name].at_ms <= min(one.at_ms for one in left.values()) for name in paid if left)
    assert all(
        read_bond("p", {"leaving": {n: withdrawal_record(w)}}, 1).leaving == {n: w} for n, w in left.items()
    )


@given(st.builds(Withdrawal, st.integers(1, 9), TIMES, TIMES), TIMES, TIMES)
def test_a_withdrawal_waits_for_the_longest_that_is_asked_of_it(
    one: Withdrawal, answers_ms: int, longer_ms: int
) -> None:
    free_ms = free_at_ms(one, answers_ms)
    assert free_ms >= one.at_ms and free_ms - one.asked_at_ms >= answers_ms
    assert free_ms in (one.at_ms, one.asked_at_ms + answers_ms)
    assert free_at_ms(one, answers_ms + longer_ms) >= free_ms


DEEDS = st.lists(
    st.tuples(
        st.sampled_from(("lie", "withdraw", "doubt", "referee", "open", "wait")),
        st.sampled_from((1_000, 60_000, 9 * 60_000, 3 * HOUR_MS)),
    ),
    min_size=4,
    max_size=14,
)


class Liar:
    """A liar that takes its bond whenever it can, a stranger who doubts, and referees that come or stay away."""

    def __init__(self) -> None:
        self.world = JobWorld({**FOUR, "ann": 3}, **HASTY)
        self.jobs: list[str] = []
        self.doubts = 0
        self.withdrawals = 0
        self.before = leaving(self.world)
        self.held_uain = self.world.bond("ann")

    def do(self, deed: str, later_ms: int) -> None:
        """One deed; what the chain refuses changes nothing."""
        if deed == "lie":
            if (
                read_bond(ANN, self.world.value(f"/bonds/{ANN}/state"), self.world.bond("ann")).free_uain
                >= 10**6
            ):
                self.jobs.append(accepted(self.world, "ann", 50, f"{len(self.jobs):032x}"))
        elif deed == "withdraw":
            self.withdrawals += 1
            path = f"/bonds/{ANN}/withdraw/{self.withdrawals:016x}"
            self.world.chain.set("ann", path, {"amount_uain": 500_000 * self.withdrawals})
        elif deed == "wait":
            self.world.next_block(later_ms)
        elif self.jobs:
            self.dispute(deed, self.jobs[later_ms % len(self.jobs)])
        self.check()

    def dispute(self, deed: str, job: str) -> None:
        if deed == "doubt":
            self.doubts += 1
            path = f"/jobs/{job}/disputes/{address('disputer')}/{self.doubts:032x}"
            self.world.chain.set("disputer", path, {"bond_uain": 3_200_000})
            self.world.next_block()
            return
        for name in ("bob", "cid", "dan"):
            if deed == "referee" and not self.world.lease(job, name).has_failed:
                good(self.world.commit(job, name))
            elif deed == "open":
                self.world.reveal(job, name)

    def check(self) -> None:
        """What was paid out answered for nothing that could still be shown to be wrong."""
        now = leaving(self.world)
        gone = [one for name, one in self.before.items() if name not in now]
        for job in self.jobs:
            record = self.world.value(f"/jobs/{job}")
            if "state" not in record:
                continue
            made = job_of(job, record)
            can_fall = made.status in ("DISPUTED", "JUDGING") or (
                made.status == "ACCEPTED" and self.world.chain.now_ms < disputable_until_ms(made, SHORT)
            )
            if can_fall and not made.is_proven:
                # Fines alone may have taken what was asked for since this job was settled.
                asked_since = [one for one in gone if one.asked_at_ms >= made.settled_at_ms]
                fines_uain = sum(one.amount_uain for one in asked_since)
                assert not fines_uain or self.held_uain - self.world.bond("ann") <= self.fined_uain()
        self.before, self.held_uain = now, self.world.bond("ann")
        self.fined_before = self.all_fined_uain()

    fined_before = 0

    def fined_uain(self) -> int:
        """What was taken since the last look."""
        return self.all_fined_uain() - self.fined_before

    def all_fined_uain(self) -> int:
        found = [self.world.value(f"/jobs/{job}/slashes/{ANN}/uain") for job in self.jobs]
        return sum(one or 0 for one in found)


@settings(max_examples=12, deadline=None)
@given(DEEDS)
def test_a_liar_that_withdraws_whenever_it_can_does_not_escape(deeds: list[tuple[str, int]]) -> None:
    liar = Liar()
    liar.do("lie", 0)
    for deed, later_ms in deeds:
        liar.do(deed, later_ms)
    world = liar.world
    # Whatever was left undone ends by itself, and what is left of the bond comes back.
    for _ in range(4):
        world.next_block(SHORT.answers_ms)
    assert leaving(world) == {}
    assert world.value(f"/bonds/{ANN}/state/locks") is None and world.is_conserved()
