"""A push with real git under a running load: the next call sees the change, and no call fails, on the way back either."""

from __future__ import annotations

import json
import urllib.request
from collections.abc import Iterator

import pytest

from tests.cli.support import serving
from tests.journeys.push_stage import Call, Load, Stage, failures, figures, stage

pytestmark = [pytest.mark.journey, pytest.mark.timeout(180)]


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    with stage(tmp_path_factory.mktemp("push")) as made:
        yield made


def swap(calls: list[Call], returned: float, old: str, new: str) -> dict[str, float | str]:
    """How a change went for its callers; every one got an answer, and after the push all of them the new one."""
    assert not failures(calls), failures(calls)[:5]
    assert {call.value for call in calls} == {old, new}
    late = [call for call in calls if call.began >= returned and call.value != new]
    assert not late, f"{len(late)} calls that began after the push got the old version"
    first_new = min(call.ended for call in calls if call.value == new)
    last_old = max(call.began for call in calls if call.value == old)
    slowest = max(call.ended - call.began for call in calls)
    return {
        "calls": len(calls),
        "failed": 0,
        "both_versions_ms": round((last_old - first_new) * 1000),
        "slowest_call_ms": round(slowest * 1000),
    }


def test_a_push_and_a_rollback_under_load_drop_no_call_and_the_next_one_sees_the_change(scene: Stage) -> None:
    work = scene.repository("swap")
    work.commit("one")
    first = work.push()
    assert first.code == 0, first.said
    old = scene.latest("swap")
    with (
        serving(
            "connect", "--json", "--port", "0", "--home", str(scene.buyer.folder), "--node", scene.node.url
        ) as door,
        scene.client() as client,
    ):
        url = f"{door.facts['url']}/swap"
        assert (client.call("swap", text="a").value, said_by(url)) == ("one", "one")

        with Load(scene.buyer, scene.node.url, "swap") as load:
            load.answered(100)
            work.commit("two")
            pushed = work.push()
            returned = _now()
            assert pushed.code == 0, pushed.said
            # Processes that have looked the service up a moment ago see it too.
            assert (client.call("swap", text="a").value, said_by(url)) == ("two", "two")
            load.answered(100)
        figures(
            "push under load", push_s=round(pushed.seconds, 2), **swap(load.calls, returned, "one", "two")
        )

        # What was succeeded goes when nobody calls it, and its buyers' deposits come home.
        scene.until_gone("swap", old["program"])

        with Load(scene.buyer, scene.node.url, "swap") as load:
            load.answered(50)
            back = scene.cli("rollback", "swap", "--json")
            returned = _now()
            assert back.code == 0, back.err
            assert back.json["version"] == "0.1.0" and back.json["before"]["version"].startswith("0.1.0+")
            assert (client.call("swap", text="a").value, said_by(url)) == ("one", "one")
            load.answered(50)
        figures("rollback under load", **swap(load.calls, returned, "two", "one"))


def test_a_push_whose_example_fails_changes_nothing(scene: Stage) -> None:
    work = scene.repository("careful")
    work.commit("one")
    assert work.push().code == 0
    live, tip = scene.latest("careful"), scene.remote_tip("careful")
    with Load(scene.buyer, scene.node.url, "careful") as load:
        load.answered(25)
        work.commit("two", program="while read -r line; do echo 'it hurts' >&2; exit 3; done\n")
        pushed = work.push()
        assert pushed.code == 1
        load.answered(25)
    said = "\n".join(pushed.remote)
    assert (
        "example of say failed" in said and "it hurts" in said and "pre-receive hook declined" in pushed.said
    )
    assert "publish" in said.lower()
    assert scene.latest("careful") == live and scene.remote_tip("careful") == tip
    assert not failures(load.calls) and {call.value for call in load.calls} == {"one"}
    work.commit("three")
    assert work.push().code == 0, "the next commit goes live from where the branch is"


def test_a_push_says_what_it_does_in_order_with_its_durations(scene: Stage) -> None:
    work = scene.repository("talk")
    commit = work.commit("one")
    said = work.push().remote
    wanted = [
        "making",
        "files",
        "starting talk",
        "example of say",
        "published",
        "runs it",
        "calling say",
        "live:",
    ]
    places = [next(i for i, line in enumerate(said) if text in line) for text in wanted]
    assert places == sorted(places), said
    assert commit[:10] in said[0] and said[-1].startswith("Call it:  openresource call talk")
    seconds = [float(line.split(" s  ")[0]) for line in said if " s  " in line]
    assert seconds == sorted(seconds) and len(seconds) >= 7


def said_by(url: str) -> object:
    """What the plain address answers."""
    request = urllib.request.Request(url, data=b'{"text": "a"}', headers={"content-type": "application/json"})
    with urllib.request.urlopen(request, timeout=60) as answer:
        return json.load(answer)


def _now() -> float:
    import time

    return time.monotonic()
