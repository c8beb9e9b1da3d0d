"""Machines that refuse namespaces, or Landlock, or both: what is offered there, and that it holds."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator

import pytest

from tests.sandbox import attacks
from tests.sandbox.workers import IS_ROOT, LIMITS, ROOT, SECRET, Worker, worker

pytestmark = pytest.mark.sandbox
IDENTITIES = ["root", "plain"] if IS_ROOT else ["plain"]
ATTACK = {"call": "attack", "deadline": 90.0}


@pytest.fixture(scope="module", params=IDENTITIES)
def walled(request: pytest.FixtureRequest) -> Iterator[tuple[str, Worker]]:
    """A worker whose kernel refuses namespaces and private mounts."""
    with worker(request.param, "namespaces") as made:
        yield request.param, made


@pytest.fixture(scope="module", params=IDENTITIES)
def bare(request: pytest.FixtureRequest) -> Iterator[tuple[str, Worker]]:
    """A worker whose kernel has neither namespaces nor Landlock."""
    with worker(request.param, "namespaces,landlock") as made:
        yield request.param, made


def test_sandbox_refused_namespaces_are_found_by_a_real_start(walled: tuple[str, Worker]) -> None:
    identity, made = walled
    wrapped = made.ask({"level": "bubblewrap", "probe": True})
    assert not wrapped["available"]
    assert "permi" in wrapped["why_not"].lower()
    confined = made.ask({"level": "confined", "probe": True})
    assert confined["available"], confined
    assert confined["as_root"] == (identity == "root")
    assert confined["kinds"] == ["python", "jsonl", "cli"]


def test_sandbox_confined_holds_where_namespaces_are_refused(walled: tuple[str, Worker]) -> None:
    _, made = walled
    argument = {"secret": SECRET, "folder": str(ROOT / "tests")}
    reading = made.run(
        "confined", attacks.program(attacks.READ_SECRETS), [{**ATTACK, "input": {"argument": argument}}]
    )
    assert json.loads(reading["replies"][0]["body"]) == {"found": [], "leaks": []}
    writing = made.run(
        "confined", attacks.program(attacks.WRITE_OUTSIDE), [{**ATTACK, "input": {"argument": str(ROOT)}}]
    )
    assert json.loads(writing["replies"][0]["body"]) == []
    hiding = made.run("confined", attacks.program(attacks.DAEMON), [ATTACK])
    assert hiding["left"] == []


def test_sandbox_starting_bubblewrap_there_is_a_typed_refusal(walled: tuple[str, Worker]) -> None:
    _, made = walled
    outcome = made.run("bubblewrap", attacks.program("return 1"), [ATTACK])
    assert outcome["error"]["error"] == "ProgramDidNotStart"
    assert outcome["left"] == []


def test_sandbox_without_landlock_only_root_offers_a_level(bare: tuple[str, Worker]) -> None:
    identity, made = bare
    confined = made.ask({"level": "confined", "probe": True})
    assert confined["available"] == (identity == "root")
    if identity == "plain":
        assert "no Landlock" in confined["why_not"]
        outcome = made.run("confined", attacks.program("return 1"), [ATTACK])
        assert outcome["error"]["error"] == "SandboxUnavailable"
        return
    assert confined["disk"] == "none"
    assert ["files", "it can read what every user of this machine can"] in confined["details"]


def test_sandbox_without_landlock_no_file_is_made(bare: tuple[str, Worker]) -> None:
    identity, made = bare
    if identity == "plain":
        return
    writing = made.run(
        "confined", attacks.program(attacks.WRITE_OUTSIDE), [{**ATTACK, "input": {"argument": "/tmp"}}]
    )
    assert json.loads(writing["replies"][0]["body"]) == []
    filling = made.run("confined", attacks.program(attacks.FILL_DISK), [ATTACK])
    assert json.loads(filling["replies"][0]["body"]) == {"written": 0, "error": "EROFS"}
    argument = {"worker": made.pid, "level": "confined", "shared": False}
    reaching = made.run(
        "confined", attacks.program(attacks.NEIGHBOURS), [{**ATTACK, "input": {"argument": argument}}]
    )
    assert json.loads(reaching["replies"][0]["body"]) == []


@pytest.mark.parametrize("identity", IDENTITIES)
def test_sandbox_an_older_landlock_is_helped_by_the_filter(identity: str) -> None:
    with worker(identity, "namespaces") as made:
        argument = {"worker": made.pid, "level": "confined", "shared": identity == "plain"}
        steps = [{**ATTACK, "input": {"argument": argument}}, {"call": "ping"}]
        outcome = made.run("confined-old", attacks.program(attacks.NEIGHBOURS), steps)
        assert [json.loads(reply["body"]) for reply in outcome["replies"]] == [[], "pong"]
        filling = made.run("confined-old", attacks.program(attacks.FILL_DISK), [ATTACK])["replies"][0]
        assert (
            filling.get("error") == "DiskFull"
            or json.loads(filling["body"])["written"] <= LIMITS["disk_bytes"]
        )


@pytest.mark.skipif(not IS_ROOT, reason="only root has control groups to do without")
@pytest.mark.parametrize("level", ["bubblewrap-bare", "confined-bare"])
def test_sandbox_limits_and_the_watch_hold_where_control_groups_cannot_be_made(
    level: str, workers: Callable[[str], Worker]
) -> None:
    made = workers("root")
    capabilities = made.ask({"level": level, "probe": True})
    assert capabilities["available"] and capabilities["memory"] == capabilities["processes"] == "rlimit"
    counted = made.run(level, attacks.program(attacks.COUNT_FORKS), [ATTACK], processes=20)
    assert 5 <= json.loads(counted["replies"][0]["body"]) <= 24
    for attack in (attacks.ALLOCATE_ALONE, attacks.ALLOCATE_TOGETHER):
        outcome = made.run(level, attacks.program(attack), [ATTACK])
        assert outcome["replies"][0]["error"] == "OutOfMemory"
        assert outcome["left"] == []
