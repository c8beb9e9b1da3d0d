"""What a name means while versions come and go: whatever is chosen runs, and nothing is used longer than is promised."""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import AsyncIterator, Callable, Coroutine
from random import Random
from types import SimpleNamespace
from typing import Any

import pytest

from openresource.client import services
from openresource.client.services import Directory
from openresource.market.placements import Placement, placement_record
from openresource.primitives.cids import file_cid
from openresource.primitives.keys import generate_key
from tests.market.small_chain import version_record

PUBLISHER = generate_key(b"publisher".ljust(32, b".")).address
PROVIDER = generate_key(b"provider".ljust(32, b".")).address
SERVICE = f"{PUBLISHER}/hello"
PROGRAMS = [file_cid(str(number).encode()) for number in range(3)]
KEPT_SECONDS = 0.05
ROUNDS = 3_000


class Waiting(selectors.DefaultSelector):
    """Waits for nothing: what would be waited for has passed at once."""

    passed_seconds = 0.0

    def select(self, timeout: float | None = None) -> Any:
        found = super().select(None if timeout is None else 0)
        if not found and timeout is not None:
            self.passed_seconds += max(0.0, timeout)
        return found


class Loop(asyncio.SelectorEventLoop):
    """Its time goes on only while everybody waits, so that no machine is too slow for a test of moments."""

    def __init__(self) -> None:
        self.waiting = Waiting()
        super().__init__(self.waiting)

    def time(self) -> float:
        return self.waiting.passed_seconds


async def passes(seconds: float) -> None:
    """Returns when so much time has gone by."""
    loop = asyncio.get_running_loop()
    over = loop.create_future()
    loop.call_later(seconds, over.set_result, None)
    await over


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> Callable[[Coroutine[Any, Any, None]], None]:
    def running(story: Coroutine[Any, Any, None]) -> None:
        with asyncio.Runner(loop_factory=Loop) as runner:
            clock = SimpleNamespace(monotonic=runner.get_loop().time)
            monkeypatch.setattr(services, "time", clock)
            runner.run(story)

    return running


class Market:
    """A chain that answers with a delay from what is true when it is asked."""

    def __init__(self) -> None:
        self.latest = PROGRAMS[0]
        self.before = ""
        self.statuses = dict.fromkeys(PROGRAMS, "GONE") | {PROGRAMS[0]: "PLACED"}
        self.reads = 0
        self.delay_seconds = 0.0

    def placement(self, program: str) -> dict[str, Any]:
        record = placement_record(
            Placement(
                PUBLISHER,
                "hello",
                program,
                PROVIDER,
                self.statuses[program],
                endpoint="https://127.0.0.1:9443",
                tls_key=bytes(32),
                tls_signature=bytes(65),
                capacity=4,
                ask_uain=10,
                isolation="bubblewrap",
            )
        )
        return {PROVIDER: record}

    async def read(self, path: str, at: object = "final") -> Any:
        self.reads += 1
        value = self._value(path.strip("/").split("/"))
        await passes(self.delay_seconds)
        return value

    async def children(self, path: str, at: object = "final") -> AsyncIterator[str]:
        yield PUBLISHER

    def _value(self, labels: list[str]) -> Any:
        if labels[0] == "placements":
            return (
                self.placement(labels[3])
                if len(labels) == 4
                else {program: self.placement(program) for program in PROGRAMS}
            )
        versions = {
            program: version_record(version=f"0.{number}.0", number=number)
            for number, program in enumerate(PROGRAMS, start=1)
        }
        record = {"latest": self.latest, "before": self.before, "versions": versions}
        value: Any = record
        for label in labels[3:]:
            value = value.get(label)
        return value


def test_whatever_is_chosen_while_versions_come_and_go_is_run_by_somebody(run: Any) -> None:
    async def story() -> None:
        random, market = Random(7), Market()
        directory = Directory(market, kept_seconds=KEPT_SECONDS)  # type: ignore[arg-type]

        async def swaps() -> None:
            """As providers and publishers do: the new one runs before the old one goes, and that one goes late."""
            while True:
                new = random.choice([one for one in PROGRAMS if one != market.latest])
                market.before, market.latest = market.latest, new
                await passes(random.random() * KEPT_SECONDS)
                market.statuses[new] = "PLACED"
                await passes(2.5 * KEPT_SECONDS)
                for program in PROGRAMS:
                    if program != new:
                        market.statuses[program] = "GONE"

        swapping = asyncio.create_task(swaps())
        try:
            for _ in range(ROUNDS):
                # An answer is always a little older than what follows from it.
                market.delay_seconds = random.random() * 0.02 * KEPT_SECONDS
                choice = await directory.choose(SERVICE)
                assert await directory.placements(choice), "what was chosen is run"
                await passes(random.random() * 0.2 * KEPT_SECONDS)
        finally:
            swapping.cancel()

    run(story())


def test_what_a_version_was_chosen_by_is_not_older_than_what_is_asked_about_it_next(run: Any) -> None:
    async def story() -> None:
        market = Market()
        directory = Directory(market, kept_seconds=0.2)  # type: ignore[arg-type]
        market.before, market.latest = market.latest, PROGRAMS[1]
        began = asyncio.get_running_loop().time()
        # Each read takes a while, so the answers about the one version and about all of them end one after the other.
        market.delay_seconds = 0.02
        assert (await directory.choose(SERVICE)).program == PROGRAMS[0]
        market.delay_seconds = 0.0
        await passes(0.255 - (asyncio.get_running_loop().time() - began))
        await directory.choose(SERVICE)
        market.statuses[PROGRAMS[1]] = "PLACED"
        while True:
            choice = await directory.choose(SERVICE)
            assert await directory.placements(choice), "what was chosen is run"
            if choice.program == PROGRAMS[1]:
                return
            await passes(0.001)

    run(story())


def test_what_has_been_so_for_the_promised_time_is_what_the_next_call_gets(run: Any) -> None:
    async def story() -> None:
        market = Market()
        directory = Directory(market, kept_seconds=KEPT_SECONDS)  # type: ignore[arg-type]
        for number in range(1, 10):
            new = PROGRAMS[number % 3]
            await directory.choose(SERVICE)
            market.before, market.latest = market.latest, new
            await directory.choose(SERVICE)
            market.statuses[new] = "PLACED"
            # Somebody asks all the time, so that there is always something kept.
            ends = asyncio.get_running_loop().time() + KEPT_SECONDS
            while asyncio.get_running_loop().time() < ends:
                await directory.choose(SERVICE)
                await passes(0.002)
            assert (await directory.choose(SERVICE)).program == new

    run(story())


def test_an_answer_that_is_long_in_coming_is_not_waited_for_by_those_who_ask_later(run: Any) -> None:
    async def story() -> None:
        market = Market()
        directory = Directory(market, kept_seconds=KEPT_SECONDS)  # type: ignore[arg-type]
        market.delay_seconds = 10 * KEPT_SECONDS
        early = asyncio.create_task(directory.choose(SERVICE))
        await asyncio.sleep(0)
        market.before, market.latest = market.latest, PROGRAMS[1]
        market.statuses[PROGRAMS[1]] = "PLACED"
        await passes(KEPT_SECONDS)
        market.delay_seconds = 0.0
        assert (await directory.choose(SERVICE)).program == PROGRAMS[1]
        await early
        assert (await directory.choose(SERVICE)).program == PROGRAMS[1], "the late answer does not count"

    run(story())


def test_many_callers_share_the_questions_of_one(run: Any) -> None:
    async def story() -> None:
        market = Market()
        directory = Directory(market, kept_seconds=10.0)  # type: ignore[arg-type]
        market.delay_seconds = 0.01
        await asyncio.gather(*(directory.choose(SERVICE) for _ in range(50)))
        assert market.reads <= 4

    run(story())
