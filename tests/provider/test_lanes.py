"""Lanes: so many calls run, so many wait in fair turns, and who would wait too long hears so at once."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Coroutine
from typing import Any

import pytest

from openresource.provider import lanes
from openresource.provider.lanes import Lane, LaneFull, Place
from openresource.sandbox.driver import Overloaded


def run(work: Coroutine[Any, Any, Any]) -> Any:
    return asyncio.run(asyncio.wait_for(work, 60))


async def entered(lane: Lane, buyer: str = "") -> Place:
    place = lane.reserve(buyer)
    await place.enter()
    return place


async def settle() -> None:
    """Lets everybody else go as far as they can."""
    for _ in range(10):
        await asyncio.sleep(0)


def test_a_place_goes_to_who_waited_longest() -> None:
    async def work() -> None:
        lane = Lane(2)
        order: list[int] = []
        places: list[Place] = []

        async def caller(number: int) -> None:
            places.append(await entered(lane))
            order.append(number)

        tasks = []
        for number in range(6):
            tasks.append(asyncio.create_task(caller(number)))
            await asyncio.sleep(0)
        await settle()
        assert (order, lane.running, lane.waiting) == ([0, 1], 2, 4)
        for number in range(4):
            places[number].leave()
            await settle()
        await asyncio.gather(*tasks)
        assert (order, lane.running) == ([0, 1, 2, 3, 4, 5], 2)
        for place in places:
            place.leave()
        assert (lane.running, lane.waiting, lane.expected) == (0, 0, 0)

    run(work())


def test_who_stops_waiting_leaves_no_trace() -> None:
    async def work() -> None:
        lane = Lane(1)
        first = await entered(lane)
        waiting = [asyncio.create_task(entered(lane)) for _ in range(3)]
        await settle()
        waiting[1].cancel()
        await asyncio.wait([waiting[1]])
        assert lane.waiting == 2
        first.leave()
        # Cancelled in the very moment in which the place is handed over.
        waiting[0].cancel()
        await asyncio.wait([waiting[0]])
        last = await waiting[2]
        assert (lane.running, lane.waiting) == (1, 0)
        last.leave()
        last.leave()
        assert (lane.running, lane.expected) == (0, 0)

    run(work())


def test_a_place_that_is_never_entered_is_free_again() -> None:
    lane = Lane(1)
    place = lane.reserve()
    assert lane.in_flight == 1
    place.leave()
    place.leave()
    assert lane.in_flight == 0


def test_a_full_queue_is_overload_at_once_and_a_slow_one_after_its_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def work() -> None:
        lane = Lane(1)
        await entered(lane)
        patient = [asyncio.create_task(entered(lane)) for _ in range(lane.waiting_max)]
        await settle()
        with pytest.raises(Overloaded):
            lane.check_room()
        for task in patient:
            task.cancel()
        await asyncio.wait(patient)
        monkeypatch.setattr(lanes, "WAITING_SECONDS_MAX", 0.05)
        waiting = [asyncio.create_task(entered(lane)) for _ in range(lane.waiting_max)]
        outcomes = await asyncio.gather(*waiting, return_exceptions=True)
        assert all(isinstance(outcome, Overloaded) for outcome in outcomes)
        assert (lane.running, lane.waiting) == (1, 0)

    run(work())


def test_who_would_wait_longer_than_it_may_is_told_so_before_it_pays() -> None:
    async def work() -> None:
        now = [0.0]
        lane = Lane(2, clock=lambda: now[0])
        place = await entered(lane)
        now[0] = 3.0
        place.leave()
        assert lane.call_seconds == 3.0
        busy = [await entered(lane) for _ in range(2)]
        waiting = asyncio.create_task(entered(lane, "her"))
        await settle()
        # One waits already, so another one would have its place after two calls on two places.
        assert lane.expected_wait_seconds("him") == 3.0
        lane.check_room("him", 3.5)
        with pytest.raises(LaneFull) as refusal:
            lane.reserve("him", 2.5)
        assert refusal.value.code == "overloaded"
        assert (refusal.value.wait_ms, refusal.value.retry_ms, lane.shed) == (3000, 500, 1)
        assert lane.load_text() == b"3/2;wait_ms=3000"
        for one in busy:
            one.leave()
        (await waiting).leave()
        assert lane.load_text() == b"0/2;wait_ms=0"

    run(work())


def test_turns_go_round_among_buyers_however_many_calls_one_of_them_sends() -> None:
    async def work() -> None:
        lane = Lane(1)
        first = await entered(lane, "greedy")
        order: list[str] = []

        async def caller(buyer: str) -> None:
            place = await entered(lane, buyer)
            order.append(buyer)
            await asyncio.sleep(0)
            place.leave()

        tasks = [asyncio.create_task(caller("greedy")) for _ in range(8)]
        await settle()
        tasks += [asyncio.create_task(caller(buyer)) for buyer in ("modest", "modest", "shy")]
        await settle()
        first.leave()
        await asyncio.gather(*tasks)
        assert order[:5] == ["greedy", "modest", "shy", "greedy", "modest"]

    run(work())


def test_a_full_queue_makes_room_for_who_has_less_of_it() -> None:
    async def work() -> None:
        lane = Lane(1)
        first = await entered(lane, "greedy")
        greedy = [asyncio.create_task(entered(lane, "greedy")) for _ in range(lane.waiting_max)]
        await settle()
        with pytest.raises(LaneFull):
            lane.reserve("greedy")
        modest = asyncio.create_task(entered(lane, "modest"))
        await settle()
        # The newest of those who had most of the queue gave way.
        assert greedy[-1].done() and isinstance(greedy[-1].exception(), LaneFull)
        first.leave()
        (await greedy[0]).leave()
        (await modest).leave()
        for task in greedy[1:-1]:
            (await task).leave()
        assert (lane.running, lane.waiting, lane.in_flight) == (0, 0, 0)

    run(work())


@pytest.mark.parametrize("seed", range(20))
def test_whatever_callers_do_every_place_comes_back_and_nobody_starves(seed: int) -> None:
    async def work() -> None:
        chance = random.Random(seed)
        lane = Lane(chance.randrange(1, 4))
        served: Counter[str] = Counter()

        async def caller(buyer: str) -> None:
            try:
                place = lane.reserve(buyer)
            except LaneFull:
                return
            try:
                if chance.randrange(5):
                    await place.enter()
                    assert lane.running <= lane.capacity
                    served[buyer] += 1
                    for _ in range(chance.randrange(4)):
                        await asyncio.sleep(0)
            except LaneFull:
                return
            finally:
                place.leave()

        tasks = []
        for _ in range(120):
            buyer = chance.choice(["greedy"] * 6 + ["a", "b"])
            tasks.append(asyncio.create_task(caller(buyer)))
            if not chance.randrange(4):
                await asyncio.sleep(0)
            if not chance.randrange(6):
                chance.choice(tasks).cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        assert (lane.running, lane.waiting, lane.expected) == (0, 0, 0)
        assert served["a"] and served["b"]

    run(work())
