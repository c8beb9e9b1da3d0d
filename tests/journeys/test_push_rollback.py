"""Going back and forth between versions: what a rollback chooses, what it says, and what stays on the provider's disk."""

from __future__ import annotations

import asyncio
import json
import signal
import time
from collections.abc import Iterator

import pytest

from openresource.cli.triggers import trigger_program
from openresource.client import AsyncClient
from openresource.market.holds import DEFAULT_HOLD
from openresource.market.tree_json import json_value
from openresource.primitives.keys import generate_key
from tests.journeys.push_stage import Repository, Stage, stage, wait_until

pytestmark = [pytest.mark.journey, pytest.mark.timeout(180)]


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    with stage(tmp_path_factory.mktemp("rollback")) as made:
        yield made


def numbered(work: Repository, number: int) -> None:
    """A release with a number of its own."""
    text = (work.folder / "openresource.toml").read_text()
    lines = [
        f'version = "0.{number}.0"' if line.startswith("version") else line for line in text.splitlines()
    ]
    work.write("openresource.toml", "\n".join(lines) + "\n")
    work.commit(f"word{number}")
    pushed = work.push()
    assert pushed.code == 0, pushed.said


def test_rollbacks_lead_back_step_by_step_and_forth_by_name(scene: Stage) -> None:
    work = scene.repository("steps")
    programs = []
    for number in (1, 2, 3, 4):
        numbered(work, number)
        programs.append(scene.latest("steps")["program"])
    for program in programs[:3]:
        scene.until_gone("steps", program)
    releases = scene.folder / "provider" / "provider" / "releases.json"
    # Written down when the chain knows already that the newest one is served.
    kept = wait_until(
        lambda: programs[3] in (kept := json.loads(releases.read_text())[f"{scene.address}/steps"]) and kept,
        60,
        "the newest release to be kept",
    )
    assert kept == programs[1:]
    folder = scene.folder / "provider" / "provider" / "releases"
    assert {program for program in programs if (folder / program).is_dir()} >= set(programs[1:])

    with scene.client() as client:
        told = scene.cli("rollback", "steps", "--dry-run", "--json").json
        assert told["dry_run"] and told["version"] == "0.3.0" and told["providers"] == 0
        assert scene.latest("steps")["version"] == "0.4.0"
        for number in (3, 2):
            back = scene.cli("rollback", "steps", "--json")
            assert back.code == 0, back.err
            assert back.json["version"] == f"0.{number}.0" and back.json["is_changed"]
            assert client.call("steps", text="a").value == f"word{number}"
        forth = scene.cli("rollback", "steps", "0.4.0")
        assert forth.code == 0 and "0.4.0 again, every call from now on; before it was 0.2.0" in forth.out
        assert client.call("steps", text="a").value == "word4"
        same = scene.cli("rollback", "steps", programs[3], "--json")
        assert same.code == 0 and not same.json["is_changed"] and "tx_hash" not in same.json
        # What was live before this one is 0.2.0, and 0.3.0 was never live after it.
        assert scene.cli("rollback", "steps", "--json").json["version"] == "0.2.0"
        numbered(work, 5)
        assert scene.cli("rollback", f"{scene.address}/steps", "--json").json["version"] == "0.2.0"


def test_a_rollback_that_cannot_be_is_refused_and_changes_nothing(scene: Stage) -> None:
    work = scene.repository("single")
    numbered(work, 1)
    live = scene.latest("single")
    stranger = generate_key(b"s" * 32).address
    for words, code in (
        (("single",), "nothing-to-go-back-to"),
        (("single", "9.9.9"), "no-such-version"),
        (("nothing",), "no-such-service"),
        ((f"{stranger}/single",), "not-your-service"),
        (("../single",), "not-your-service"),
    ):
        refused = scene.cli("rollback", *words, "--json")
        assert refused.code == 1 and refused.json["error"]["code"] == code, refused.out + refused.err
        assert refused.json["error"]["remedy"]
    assert scene.latest("single") == live


def test_a_rollback_that_nobody_runs_in_time_stays_chosen_while_the_other_version_serves(
    scene: Stage,
) -> None:
    work = scene.repository("slow")
    numbered(work, 1)
    first = scene.latest("slow")
    numbered(work, 2)
    scene.until_gone("slow", first["program"])
    scene.provider.send(signal.SIGSTOP)
    try:
        late = scene.cli("rollback", "slow", "--deadline", "1")
    finally:
        scene.provider.send(signal.SIGCONT)
    assert late.code == 4 and "0.2.0 serves where it runs until somebody runs this one" in late.err, late.err
    assert scene.latest("slow") == first
    with scene.client() as client:
        assert client.call("slow", text="a").value in ("word1", "word2")
        assert scene.cli("rollback", "slow", "0.1.0").code == 0
        assert client.call("slow", text="a").value == "word1"


def test_a_repository_without_a_page_is_pushed_like_any_other(scene: Stage) -> None:
    work = Repository(scene.folder / "Plain Tool", "plain-tool")
    (work.folder / "openresource.toml").unlink()
    function = 'def greet(name: str = "Ada") -> dict[str, str]:\n    """Greets."""\n    return {{"said": "{word} " + name}}\n'
    work.write("main.py", function.format(word="Hello"))
    work.commit("one")
    (work.folder / "say.sh").unlink()
    work.git("commit", "--quiet", "--all", "--amend", "--message", "one")
    told = scene.cli("publish", "--git", str(work.folder), "--json")
    assert told.code == 0 and told.json["name"] == "plain-tool", told.err
    work.git("remote", "add", "openresource", told.json["repository"])
    first = work.push()
    assert first.code == 0 and any("No openresource.toml" in line for line in first.remote), first.said
    before = scene.latest("plain-tool")["version"]
    work.write("main.py", function.format(word="Bye"))
    work.git("commit", "--quiet", "--all", "--message", "two")
    assert work.push().code == 0
    tip = work.git("rev-parse", "HEAD")
    assert scene.latest("plain-tool")["version"] == f"{before}+{tip[:10]}"
    with scene.client() as client:
        assert client.call("plain-tool", name="Grace").value == {"said": "Bye Grace"}


def test_an_app_that_names_an_old_version_is_served_by_it_after_it_has_gone(scene: Stage) -> None:
    work = scene.repository("pinned")
    numbered(work, 1)
    first = scene.latest("pinned")

    async def triggered() -> str:
        async with AsyncClient(scene.buyer.folder, scene.node.url) as client:
            choice = await client.directory.choose(f"{scene.address}/pinned@0.1.0")
            return str((await trigger_program(client, choice, "say", {"text": "a"})).result)

    async def written() -> str:
        """The same entry once more, by a write alone; its hold is filled first."""
        async with AsyncClient(scene.buyer.folder, scene.node.url) as client:
            app, label = "up_demo_pinned", "again"
            funding = {"amount_uain": 1_000, "expires_at_ms": int(time.time() * 1000) + 600_000}
            await client.write(f"/holds/{app}/{DEFAULT_HOLD}/fund/{'ab' * 8}", funding)
            await client.write(f"/apps/{app}/notes/{label}", {"text": "a"})
            async with asyncio.timeout(60):
                while (found := await client.read(f"/apps/{app}/results/{label}")) is None:
                    await asyncio.sleep(0.1)
            return str(json_value(found))

    assert asyncio.run(triggered()) == "word1"
    numbered(work, 2)
    scene.until_gone("pinned", first["program"])
    assert asyncio.run(written()) == "word1"
    with scene.client() as client:
        assert client.call("pinned", text="a").value == "word2", "the name still means the new one"
    scene.until_gone("pinned", first["program"])
