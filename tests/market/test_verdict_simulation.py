"""A small world of jobs in every run of the tests; `scripts/long jobs` takes a million."""

from __future__ import annotations

from dataclasses import replace

import pytest

from openresource.market.jobs import settlement
from openresource.market.jobs.verdicts import Verdict
from tests.market import simulate_jobs
from tests.market.job_crowd import HONEST, LIAR, World


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
