"""A small world of jobs in every run of the tests; `scripts/long jobs` takes a million."""

from __future__ import annotations

from dataclasses import replace

import pytest

from openresource.market.jobs import settlement, verdicts
from openresource.market.jobs.terms import Job
from openresource.market.jobs.verdicts import WORKER, Verdict
from openresource.primitives.amounts import UAIN_PER_AIN
from tests.market import simulate_jobs
from tests.market.job_crowd import ACCUSER, HONEST, LIAR, Machine, World


@pytest.mark.parametrize("seed", (11, 12))
def test_cheats_lose_and_nobody_honest_is_slashed(seed: int) -> None:
    figures = simulate_jobs.simulate(seed, 2_500)
    assert simulate_jobs.faults_in([figures]) == []
    assert figures["slashes"]["liar: wrong_digest"] > 0
    assert figures["jobs"] == 2_500


def test_a_seed_is_a_run() -> None:
    assert simulate_jobs.simulate(5, 300) == simulate_jobs.simulate(5, 300)


def test_a_verdict_that_punishes_the_wrong_ones_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """The check itself can fail: here every winner is punished."""
    settle = settlement.settle

    def unjust(job: object, verdict: Verdict, *rest: object) -> object:
        punished = tuple((name, "wrong_digest") for name in verdict.winners)
        return settle(job, replace(verdict, punished=punished), *rest)  # type: ignore[arg-type]

    monkeypatch.setattr("openresource.market.jobs.machine.settle", unjust)
    world = World(3, {HONEST: 8, LIAR: 1})
    world.run(60, per_second=2)
    assert any(world.machines[name].kind == HONEST for name, _, _ in world.slashes)


def few_small_around_a_large_one(honest_ain: int, accusers: int) -> World:
    """A program that one honest provider has placed, and addresses that call all of its results wrong, with a friend who doubts."""
    bonds = {HONEST: honest_ain * UAIN_PER_AIN, ACCUSER: UAIN_PER_AIN}
    world = World(
        17,
        {HONEST: 1, ACCUSER: accusers},
        bonds=bonds,
        accomplices=accusers,
        policies=("audited", "audited:0"),
        malice=0.5,
    )
    world.run(300, per_second=1)
    return world


def slashed(world: World) -> set[str]:
    return {name for name, _, _ in world.slashes}


@pytest.mark.parametrize("accusers", (5, 9))
def test_a_crowd_of_small_bonds_does_not_convict_one_that_is_larger_than_all_of_it(accusers: int) -> None:
    world = few_small_around_a_large_one(accusers + 1, accusers)
    assert f"{HONEST}/0" not in slashed(world)
    assert world.finals["audited UNRESOLVED"] > 0, "nobody accused it"
    assert world.supply == world.total() and not world.machines[f"{HONEST}/0"].locked_uain


def test_a_crowd_that_has_bonded_more_than_whom_it_accuses_convicts_it() -> None:
    """What the weight of bonds does not prevent, so that the page on it stays true."""
    assert f"{HONEST}/0" in slashed(few_small_around_a_large_one(2, 5))


def test_without_the_weight_of_bonds_the_same_crowd_convicts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(verdicts, "_outweighs", lambda against_uain, own_uain: True)
    assert f"{HONEST}/0" in slashed(few_small_around_a_large_one(6, 5))


class LiarsOnlyWork(World):
    """A market in which liars earn nothing by auditing others honestly."""

    def _may_come(self, job: Job, one: Machine, role: str) -> bool:
        return super()._may_come(job, one, role) and (role == WORKER or one.kind != LIAR)


def test_a_liar_whom_nobody_outweighs_is_looked_at_each_time_and_earns_nothing() -> None:
    bonds = {LIAR: 40 * UAIN_PER_AIN, HONEST: 3 * UAIN_PER_AIN}
    crowd = {LIAR: 1, HONEST: 6}
    world = LiarsOnlyWork(19, crowd, bonds=bonds, accomplices=1, policies=("audited",), loss=0.0)
    # Slowly, so that there is always somebody free to look.
    world.run(150, per_second=0.1)
    liar = world.machines[f"{LIAR}/0"]
    assert liar.lies > 50 and liar.streak == 0 and not slashed(world)
    assert liar.balance_uain == 0 and world.finals["audited UNRESOLVED"] >= 0.95 * liar.lies
    assert world.supply == world.total()
