"""What a name means while versions come and go: whatever is chosen runs, and nothing is used longer than is promised."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from random import Random
from typing import Any

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
ROUNDS = 300


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
        await asyncio.sleep(self.delay_seconds)
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


def test_whatever_is_chosen_while_versions_come_and_go_is_run_by_somebody() -> None:
    async def story() -> None:
        random, market = Random(7), Market()
        directory = Directory(market, kept_seconds=KEPT_SECONDS)  # type: ignore[arg-type]

        async def swaps() -> None:
            """As providers and publishers do: the new one runs before the old one goes, and that one goes late."""
            while True:
                new = random.choice([one for one in PROGRAMS if one != market.latest])
                market.before, market.latest = market.latest, new
                await asyncio.sleep(random.random() * KEPT_SECONDS)
                market.statuses[new] = "PLACED"
                await asyncio.sleep(2.5 * KEPT_SECONDS)
                for program in PROGRAMS:
                    if program != new:
                        market.statuses[program] = "GONE"

        swapping = asyncio.create_task(swaps())
        try:
            for _ in range(ROUNDS):
                choice = await directory.choose(SERVICE)
                assert await directory.placements(choice), "what was chosen is run"
                await asyncio.sleep(random.random() * 0.2 * KEPT_SECONDS)
        finally:
            swapping.cancel()

    asyncio.run(story())


def test_what_a_version_was_chosen_by_is_not_older_than_what_is_asked_about_it_next() -> None:
    async def story() -> None:
        market = Market()
        directory = Directory(market, kept_seconds=0.2)  # type: ignore[arg-type]
        market.before, market.latest = market.latest, PROGRAMS[1]
        began = time.monotonic()
        # Each read takes a while, so the answers about the one version and about all of them end one after the other.
        market.delay_seconds = 0.02
        assert (await directory.choose(SERVICE)).program == PROGRAMS[0]
        market.delay_seconds = 0.0
        await asyncio.sleep(0.255 - (time.monotonic() - began))
        await directory.choose(SERVICE)
        market.statuses[PROGRAMS[1]] = "PLACED"
        while True:
            choice = await directory.choose(SERVICE)
            assert await directory.placements(choice), "what was chosen is run"
            if choice.program == PROGRAMS[1]:
                return
            await asyncio.sleep(0.001)

    asyncio.run(story())


def test_what_has_been_so_for_the_promised_time_is_what_the_next_call_gets() -> None:
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
            ends = time.monotonic() + KEPT_SECONDS
            while time.monotonic() < ends:
                await directory.choose(SERVICE)
                await asyncio.sleep(0.002)
            assert (await directory.choose(SERVICE)).program == new

    asyncio.run(story())


def test_an_answer_that_is_long_in_coming_is_not_waited_for_by_those_who_ask_later() -> None:
    async def story() -> None:
        market = Market()
        directory = Directory(market, kept_seconds=KEPT_SECONDS)  # type: ignore[arg-type]
        market.delay_seconds = 10 * KEPT_SECONDS
        early = asyncio.create_task(directory.choose(SERVICE))
        await asyncio.sleep(0)
        market.before, market.latest = market.latest, PROGRAMS[1]
        market.statuses[PROGRAMS[1]] = "PLACED"
        await asyncio.sleep(KEPT_SECONDS)
        market.delay_seconds = 0.0
        assert (await directory.choose(SERVICE)).program == PROGRAMS[1]
        await early
        assert (await directory.choose(SERVICE)).program == PROGRAMS[1], "the late answer does not count"

    asyncio.run(story())


def test_many_callers_share_the_questions_of_one() -> None:
    async def story() -> None:
        market = Market()
        directory = Directory(market, kept_seconds=10.0)  # type: ignore[arg-type]
        market.delay_seconds = 0.01
        await asyncio.gather(*(directory.choose(SERVICE) for _ in range(50)))
        assert market.reads <= 4

    asyncio.run(story())
