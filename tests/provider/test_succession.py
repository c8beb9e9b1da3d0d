"""A version goes when another one serves its name: not while it is called, not unpaid, and not if it is chosen again."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from openresource.primitives.cids import file_cid
from openresource.provider.offers import Offer, Offers
from openresource.provider.retention import Retention
from openresource.provider.succession import Succession
from tests.provider.support import PROGRAM, make_offer

NEW_PROGRAM = file_cid(b"the next version")
GRACE_SECONDS = 30.0


class Records:
    """The placements that the chain shows."""

    def __init__(self) -> None:
        self.placements: dict[str, Any] = {}

    async def read(self, path: str) -> Any:
        return self.placements.get(path.rpartition("/")[2])


class Scene:
    """One old version served here, and a clock that the test sets."""

    def __init__(self, *, listed: tuple[str, ...] = ()) -> None:
        self.now = 1_000.0
        self.said: list[str] = []
        self.looks = 0
        self.chain = Records()
        self.offers = Offers()
        self.old = make_offer()
        self.offers.put(self.old)
        self.succession = Succession(
            chain=self.chain,  # type: ignore[arg-type]
            offers=self.offers,
            listed=listed,
            say=self._say,
            settle=self._settle,
            ended=self._ended,
            grace_seconds=GRACE_SECONDS,
            clock=lambda: self.now,
        )

    async def _say(self, offers: list[Offer], status: str) -> None:
        self.said.append(status)

    async def _settle(self, offer: Offer) -> None:
        assert not offer.is_draining, "calls are still taken while money goes home"
        self.said.append("settled")

    def _ended(self) -> None:
        self.looks += 1

    def choose(self, program: str) -> None:
        self.succession.saw(self.old.publisher, self.old.name, program)

    def place_new(self) -> None:
        self.offers.put(replace(make_offer(), version=replace(self.old.version, program=NEW_PROGRAM)))

    @property
    def is_served(self) -> bool:
        return self.offers.find(self.old.publisher, self.old.name, PROGRAM) is not None


async def until(condition: Callable[[], bool], seconds: float = 60.0) -> None:
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.005)


def on_a_scene(story: Callable[[Scene], Awaitable[None]], **options: Any) -> None:
    async def told() -> None:
        scene = Scene(**options)
        await story(scene)
        await scene.succession.close()

    asyncio.run(told())


def test_a_succeeded_version_is_settled_and_goes_after_the_grace_time() -> None:
    async def story(scene: Scene) -> None:
        scene.choose(NEW_PROGRAM)
        assert await scene.succession.look() is None, "nobody runs the new one yet"
        scene.place_new()
        assert await scene.succession.look() == GRACE_SECONDS
        scene.now += GRACE_SECONDS - 1
        assert await scene.succession.look() == 1
        assert not scene.said
        scene.now += 1
        await scene.succession.look()
        await until(lambda: scene.looks == 1)
        assert scene.said == ["DRAINING", "settled", "GONE"]
        assert not scene.is_served

    on_a_scene(story)


def test_a_version_that_is_still_called_stays_until_it_is_quiet() -> None:
    async def story(scene: Scene) -> None:
        scene.choose(NEW_PROGRAM)
        scene.place_new()
        await scene.succession.look()
        scene.now += GRACE_SECONDS
        scene.old.lane.left_at = scene.now - 10
        assert await scene.succession.look() == GRACE_SECONDS - 10
        scene.now += GRACE_SECONDS
        scene.old.lane.running = 1
        assert await scene.succession.look() == GRACE_SECONDS
        assert scene.is_served and not scene.said

    on_a_scene(story)


def test_calls_that_come_while_it_drains_are_answered_first() -> None:
    async def story(scene: Scene) -> None:
        scene.choose(NEW_PROGRAM)
        scene.place_new()
        await scene.succession.look()
        scene.now += GRACE_SECONDS
        await scene.succession.look()
        scene.old.lane.running = 1
        await until(lambda: scene.said == ["DRAINING"])
        assert not scene.old.is_draining and scene.is_served
        scene.old.lane.running = 0
        await until(lambda: scene.looks == 1)
        assert scene.said[-1] == "GONE"

    on_a_scene(story)


def test_a_version_that_is_chosen_again_on_its_way_out_stays() -> None:
    async def story(scene: Scene) -> None:
        scene.choose(NEW_PROGRAM)
        scene.place_new()
        await scene.succession.look()
        scene.now += GRACE_SECONDS
        scene.old.lane.running = 1
        scene.old.lane.running = 0
        await scene.succession.look()
        scene.choose(PROGRAM)
        await until(lambda: scene.looks == 1)
        assert scene.said == ["DRAINING", "settled", "PLACED"]
        assert scene.is_served and not scene.old.is_draining

    on_a_scene(story)


def test_a_version_goes_when_only_others_run_the_new_one_and_stays_when_nobody_does() -> None:
    async def story(scene: Scene) -> None:
        scene.choose(NEW_PROGRAM)
        scene.chain.placements[NEW_PROGRAM] = {"0xA": {"status": "OFFERED"}, "0xB": {"status": "REFUSED"}}
        assert await scene.succession.look() is None
        scene.chain.placements[NEW_PROGRAM]["0xA"]["status"] = "PLACED"
        assert await scene.succession.look() == GRACE_SECONDS
        scene.chain.placements[NEW_PROGRAM]["0xA"]["status"] = "GONE"
        scene.now += GRACE_SECONDS
        assert await scene.succession.look() is None
        assert scene.is_served and not scene.said

    on_a_scene(story)


def test_a_program_that_the_operator_named_stays() -> None:
    async def story(scene: Scene) -> None:
        scene.choose(NEW_PROGRAM)
        scene.place_new()
        assert await scene.succession.look() is None

    on_a_scene(story, listed=(PROGRAM,))


def test_work_for_a_version_that_has_gone_brings_it_back_within_bounds() -> None:
    async def story(scene: Scene) -> None:
        key = (scene.old.publisher, scene.old.name, PROGRAM)
        scene.succession.ask_back(key)
        assert not scene.succession.asked_back(*key[:2]), "it is served"
        scene.offers.remove(scene.old)
        for number in range(20):
            scene.succession.ask_back((scene.old.publisher, "other", str(number)))
        assert len(scene.succession.asked_back(scene.old.publisher, "other")) == 8
        for number in range(20):
            scene.succession.is_back((scene.old.publisher, "other", str(number)))
        scene.succession.ask_back(key)
        assert scene.succession.asked_back(*key[:2]) == {PROGRAM}
        scene.succession.is_back(key)
        assert not scene.succession.asked_back(*key[:2])

    on_a_scene(story)


def test_the_last_few_releases_of_each_service_stay_on_the_disk(tmp_path: Path) -> None:
    file = tmp_path / "releases.json"
    kept = Retention(file)
    for number in range(5):
        kept.note("0xA/a", f"a{number}")
    kept.note("0xA/b", "b0")
    kept.note("0xA/a", "a3")
    assert kept.programs == {"a2", "a4", "a3", "b0"}
    assert Retention(file).programs == kept.programs
    assert Retention(file, releases_kept=1).programs == kept.programs


def test_a_list_of_releases_that_is_broken_keeps_nothing(tmp_path: Path) -> None:
    file = tmp_path / "releases.json"
    for text in ("", "[1]", json.dumps({"0xA/a": "a0"})):
        file.write_text(text)
        assert Retention(file).programs == set()
