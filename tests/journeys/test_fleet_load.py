"""A load step over a mixed fleet of real processes: nobody is refused whom a retry could save, and nobody pays twice."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench.load_step import run_load, text_of

pytestmark = pytest.mark.journey


@pytest.mark.timeout(300)
def test_a_fleet_of_a_good_a_slow_and_a_dying_provider_answers_everybody_once(tmp_path: Path) -> None:
    found = run_load(tmp_path, [1, 20, 60], 3.0, kills=1)
    print(text_of(found))
    assert not found["faults"], found["faults"]
    assert found["receipts"] == found["answered"] > 50
    busiest = found["steps"][-1]
    assert busiest["by"].get("good", 0) > 0
