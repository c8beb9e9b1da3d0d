"""Hostile input by chance: ten thousand inputs for everything that reads what strangers send."""

from __future__ import annotations

import logging
import random
from pathlib import Path

import pytest

from tests.fuzz import rules, run
from tests.fuzz.json_rpc import OwnDoorTarget
from tests.fuzz.mutation import Mutator
from tests.support.long_results import LongResults

INPUTS = 10_000


@pytest.mark.timeout(600)
@pytest.mark.parametrize("target", sorted(run.TARGETS))
def test_nothing_that_strangers_send_breaks_anything(target: str) -> None:
    found = run.run_inputs(target, 7, INPUTS)
    assert found.failures == []
    assert found.inputs == INPUTS


def test_what_breaks_is_found_and_told_with_its_seed(monkeypatch: pytest.MonkeyPatch) -> None:
    async def fails_on_brackets(self: rules.Target, text: str) -> None:
        assert "[[" not in text, "brackets"

    monkeypatch.setattr(rules.Target, "run", fails_on_brackets)
    found = run.run_inputs("rules", 1, 2_000)
    assert found.failures
    assert found.failures[0].startswith("rules, seed 1, input ")


def test_a_run_leaves_no_trace_and_is_not_charged_for_what_was_before(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    was_disabled = logging.root.manager.disable
    large = bytearray(200_000_000)
    for at in range(0, len(large), 4_096):
        large[at] = 1
    del large
    monkeypatch.setattr(run, "MEMORY_BYTES_MAX", 150_000_000)
    found = run.run_inputs("rules", 1, 10)
    assert found.failures == []
    assert logging.root.manager.disable == was_disabled


def test_an_answer_that_says_the_node_made_a_mistake_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    async def fails(self: OwnDoorTarget) -> None:
        await start(self)
        self.application = _broken_application
        self.lane = lambda head: None

    start = OwnDoorTarget.start
    monkeypatch.setattr(OwnDoorTarget, "start", fails)
    found = run.run_inputs("json-rpc", 1, 30)
    assert len(found.failures) == run.FAILURES_KEPT_MAX
    assert "status 500" in found.failures[0]


def test_one_seed_gives_the_same_inputs() -> None:
    first, second = Mutator(random.Random(3)), Mutator(random.Random(3))
    seed = {"a": [1, {"b": "text"}], "c": None}
    assert [first.value(seed, ()) for _ in range(200)] == [second.value(seed, ()) for _ in range(200)]
    assert seed == {"a": [1, {"b": "text"}], "c": None}


async def _broken_application(scope: object, receive: object, send: object) -> None:
    assert callable(send)
    await send({"type": "http.response.start", "status": 500, "headers": []})
    await send({"type": "http.response.body", "body": b""})


def test_a_long_run_that_was_killed_goes_on_with_what_its_file_lacks(tmp_path: Path) -> None:
    file = tmp_path / "results"
    LongResults(file).keep(("rules", 1, 5), {"inputs": 5})
    with file.open("a") as half:
        half.write('{"part": ["rules", 2')
    again = LongResults(file)
    assert again.found == {("rules", 1, 5): {"inputs": 5}}
    again.keep(("rules", 2, 5), {"inputs": 4})
    assert LongResults(file).found == {("rules", 1, 5): {"inputs": 5}, ("rules", 2, 5): {"inputs": 4}}
