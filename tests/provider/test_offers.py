"""Lanes: so many calls run, so many wait, the next is told to come again."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

import pytest

from openresource.provider import offers
from openresource.provider.metrics import SERIES_MAX, Metrics
from openresource.provider.offers import Lane, MethodUnknown, Offers, ServiceNotHere, ServiceStarting
from openresource.sandbox.driver import Overloaded
from tests.provider.support import PROGRAM, PUBLISHER, make_offer


def run(work: Coroutine[Any, Any, Any]) -> Any:
    return asyncio.run(asyncio.wait_for(work, 30))


def test_a_place_goes_to_who_waited_longest() -> None:
    async def work() -> None:
        lane = Lane(2)
        order: list[int] = []

        async def caller(number: int) -> None:
            await lane.enter()
            order.append(number)

        tasks = []
        for number in range(6):
            tasks.append(asyncio.create_task(caller(number)))
            await asyncio.sleep(0)
        await asyncio.sleep(0.01)
        assert (order, lane.running, lane.waiting) == ([0, 1], 2, 4)
        for _ in range(4):
            lane.leave()
            await asyncio.sleep(0)
        await asyncio.gather(*tasks)
        assert (order, lane.running) == ([0, 1, 2, 3, 4, 5], 2)
        lane.leave()
        lane.leave()
        assert (lane.running, lane.waiting) == (0, 0)

    run(work())


def test_who_stops_waiting_leaves_no_trace() -> None:
    async def work() -> None:
        lane = Lane(1)
        await lane.enter()
        waiting = [asyncio.create_task(lane.enter()) for _ in range(3)]
        await asyncio.sleep(0)
        waiting[1].cancel()
        await asyncio.wait([waiting[1]])
        assert lane.waiting == 2
        lane.leave()
        # Cancelled in the very moment in which the place is handed over.
        waiting[0].cancel()
        await asyncio.wait([waiting[0]])
        await waiting[2]
        assert (lane.running, lane.waiting) == (1, 0)
        lane.leave()
        assert lane.running == 0

    run(work())


def test_a_full_queue_is_overload_at_once_and_a_slow_one_after_its_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(offers, "WAITING_SECONDS_MAX", 0.05)

    async def work() -> None:
        lane = Lane(1)
        await lane.enter()
        waiting = [asyncio.create_task(lane.enter()) for _ in range(lane.waiting_max)]
        await asyncio.sleep(0)
        with pytest.raises(Overloaded):
            lane.check_room()
        outcomes = await asyncio.gather(*waiting, return_exceptions=True)
        assert all(isinstance(outcome, Overloaded) for outcome in outcomes)
        assert (lane.running, lane.waiting) == (1, 0)

    run(work())


def test_a_path_finds_its_method_and_says_which_there_are() -> None:
    served = Offers()
    offer = make_offer()
    path = f"/services/{PUBLISHER.address}/echo/{PROGRAM}"
    with pytest.raises(ServiceStarting):
        served.route(path.encode(), path)
    served.put(offer)
    served.has_looked = True
    assert served.route(f"{path}/double".encode(), f"{path}/double")[1].name == "double"
    with pytest.raises(MethodUnknown) as caught:
        served.route(f"{path}/triple".encode(), f"{path}/triple")
    assert "/echo, /double, /count" in caught.value.remedy
    served.remove(offer)
    with pytest.raises(ServiceNotHere):
        served.route(f"{path}/double".encode(), f"{path}/double")


def test_metrics_stay_bounded_whatever_is_counted() -> None:
    metrics = Metrics()
    for number in range(SERIES_MAX * 2):
        metrics.count("openresource_refusals_total", f'code="{number}"')
        metrics.observe("openresource_call_seconds", f'service="{number}"', 0.002)
    text = metrics.text({"openresource_services": 1})
    assert text.count("\n") < SERIES_MAX * 30
    assert 'openresource_refusals_total{other="true"} 500' in text
    assert 'openresource_call_seconds_bucket{service="1",le="0.0025"} 1' in text
    assert 'openresource_call_seconds_bucket{service="1",le="0.001"} 0' in text
    assert text.endswith("openresource_services 1\n")
