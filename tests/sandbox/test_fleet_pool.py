"""The fleet of one machine: instances come with load and go without it, and together they fit the machine."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from openresource.sandbox import pool as pools
from openresource.sandbox.budgets import Budget, MachineTooSmall, NoMemoryLeft
from openresource.sandbox.driver import Limits, Overloaded, Usage
from openresource.sandbox.pool import ProgramPool
from tests.sandbox.test_pool import RELEASE, FakeInstance, FakeSandbox, call, until

MEGABYTE = 1 << 20


class SmallInstance(FakeInstance):
    """Uses ten megabytes, whatever it may use."""

    async def usage(self) -> Usage:
        return Usage(1, 2, 10 * MEGABYTE, 4, 5)


class CountingSandbox(FakeSandbox):
    """Knows what its instances may use together at any time."""

    def __init__(self, start_seconds: float = 0.0) -> None:
        super().__init__()
        self.start_seconds = start_seconds

    async def start(self, release: Any, limits: Limits) -> FakeInstance:
        await asyncio.sleep(self.start_seconds)
        self.instances.append(SmallInstance(limits))
        return self.instances[-1]

    @property
    def alive(self) -> int:
        return sum(instance.alive for instance in self.instances)


def run(story: Callable[[], Awaitable[None]]) -> None:
    asyncio.run(asyncio.wait_for(story(), 120))


def pool(
    sandbox: FakeSandbox,
    *,
    memory: int = 100,
    concurrency: int = 1,
    startup_seconds: float = 60.0,
    **options: Any,
) -> ProgramPool:
    limits = Limits(memory_bytes=memory * MEGABYTE, concurrency=concurrency, startup_seconds=startup_seconds)
    return ProgramPool(sandbox, RELEASE, limits, **options)


def busy(made: ProgramPool, count: int) -> list[asyncio.Task[Any]]:
    return [asyncio.ensure_future(made.call(call("wait"))) for _ in range(count)]


def let_go(sandbox: FakeSandbox) -> None:
    for instance in sandbox.instances:
        for gate in instance.gates:
            gate.set()


def test_a_burst_is_served_by_more_instances_and_they_go_when_it_is_over() -> None:
    async def story() -> None:
        sandbox = CountingSandbox()
        made = pool(sandbox, size=4, warm=1, idle_seconds=0.5)
        await made.start()
        tasks = busy(made, 4)
        await until(lambda: made.instances == 4 and sum(len(one.gates) for one in sandbox.instances) == 4)
        let_go(sandbox)
        await asyncio.gather(*tasks)
        await until(lambda: made.instances == 1)
        assert (made.starts, made.cold_starts, made.idle_stops) == (4, 0, 3)
        # The warm one stays for ever.
        await asyncio.sleep(1.0)
        assert made.instances == 1
        await made.close()

    run(story)


def test_calls_that_take_no_time_share_the_instance_that_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    # Longer than fifty of them take on any machine.
    monkeypatch.setattr(pools, "GROW_SECONDS", 60.0)

    async def story() -> None:
        sandbox = CountingSandbox()
        made = pool(sandbox, size=4)
        await asyncio.gather(*[made.call(call()) for _ in range(50)])
        assert made.starts == 1
        await made.close()

    run(story)


def test_a_program_that_nobody_keeps_warm_goes_to_zero_and_its_next_call_is_a_cold_start() -> None:
    async def story() -> None:
        sandbox = CountingSandbox()
        made = pool(sandbox, warm=0, idle_seconds=0.05)
        await made.start()
        await until(lambda: made.instances == 0)
        assert (await made.call(call())).body == b"hi"
        assert made.cold_starts == 1
        await until(lambda: made.instances == 0)
        await made.close()

    run(story)


def test_a_warm_instance_that_dies_is_replaced_without_a_call() -> None:
    async def story() -> None:
        sandbox = CountingSandbox()
        made = pool(sandbox, warm=1)
        await made.start()
        with pytest.raises(Exception, match="ended"):
            await made.call(call("die"))
        await until(lambda: sandbox.alive == 1)
        assert len(sandbox.instances) == 2
        await made.close()

    run(story)


def test_who_was_idle_longest_gives_way_to_who_needs_the_memory() -> None:
    async def story() -> None:
        budget = Budget(250 * MEGABYTE, 8)
        pools = [pool(CountingSandbox(), memory=200, warm=1, budget=budget) for _ in range(8)]
        for made in pools[:3]:
            await made.start()
            # What was seen to be used counts, not what may be used: three that may use 600 fit into 250.
            await until(lambda: budget.used_bytes == budget.idle_bytes < 40 * MEGABYTE)
        assert [made.instances for made in pools[:3]] == [1, 1, 1]
        await pools[0].call(call())
        for made in pools[3:]:
            await made.start()
            await until(lambda: budget.used_bytes == budget.idle_bytes)
        assert budget.gave_way > 0
        assert pools[1].instances == 0, "it was idle for longest"
        assert budget.used_bytes <= budget.memory_bytes
        # It comes back with its next call.
        assert (await pools[1].call(call())).body == b"hi"
        for made in pools:
            await made.close()
        assert budget.used_bytes == 0

    run(story)


def test_working_programs_never_have_more_than_the_machine() -> None:
    async def story() -> None:
        budget = Budget(250 * MEGABYTE, 8)
        first, second = (pool(CountingSandbox(), memory=200, budget=budget) for _ in range(2))
        sandbox = first._sandbox
        assert isinstance(sandbox, CountingSandbox)
        working = busy(first, 1)
        await until(lambda: bool(sandbox.instances) and len(sandbox.instances[0].gates) == 1)
        waiting = asyncio.ensure_future(second.call(call()))
        await asyncio.sleep(0.05)
        assert not waiting.done() and budget.used_bytes == 200 * MEGABYTE
        let_go(sandbox)
        assert (await waiting).body == b"hi"
        await asyncio.gather(*working)
        await first.close()
        await second.close()

    run(story)


def test_a_program_that_waits_too_long_for_memory_says_so_and_one_that_can_never_fit_is_refused() -> None:
    async def story() -> None:
        budget = Budget(250 * MEGABYTE, 8)
        sandbox = CountingSandbox()
        first = pool(sandbox, memory=200, budget=budget)
        working = busy(first, 1)
        await until(lambda: bool(sandbox.instances) and len(sandbox.instances[0].gates) == 1)
        impatient = ProgramPool(
            CountingSandbox(),
            RELEASE,
            Limits(memory_bytes=100 * MEGABYTE, startup_seconds=0.05),
            budget=budget,
        )
        with pytest.raises(NoMemoryLeft) as refusal:
            await impatient.call(call())
        assert refusal.value.code == "overloaded" and isinstance(refusal.value, Overloaded)
        giant = pool(CountingSandbox(), memory=300, budget=budget)
        with pytest.raises(MachineTooSmall):
            await giant.start()
        let_go(sandbox)
        await asyncio.gather(*working)
        for made in (first, impatient, giant):
            await made.close()

    run(story)


def test_more_instances_than_processors_are_not_started() -> None:
    async def story() -> None:
        budget = Budget(1_000 * MEGABYTE, 1)  # Twice as much is given out.
        sandbox = CountingSandbox()
        made = pool(sandbox, memory=10, size=5, budget=budget)
        tasks = busy(made, 5)
        await until(lambda: made.instances == 2)
        await asyncio.sleep(0.2)
        assert made.instances == 2
        while not all(task.done() for task in tasks):
            let_go(sandbox)
            await asyncio.sleep(0)
        await made.close()

    run(story)


@pytest.mark.parametrize("seed", range(8))
def test_whatever_comes_the_machine_holds_and_every_call_ends(seed: int) -> None:
    async def story() -> None:
        chance = random.Random(seed)
        budget = Budget(300 * MEGABYTE, 4)
        sandboxes = [CountingSandbox(0.001 * chance.randrange(5)) for _ in range(5)]
        pools = [
            pool(
                sandbox,
                memory=chance.choice((50, 100, 250)),
                startup_seconds=2.0,
                concurrency=chance.choice((1, 3)),
                size=chance.choice((1, 3)),
                warm=chance.randrange(2),
                idle_seconds=0.02,
                budget=budget,
            )
            for sandbox in sandboxes
        ]
        most_bytes = 0

        async def caller(made: ProgramPool) -> None:
            nonlocal most_bytes
            await asyncio.sleep(chance.random() * 0.3)
            try:
                await made.call(call(chance.choice(("echo", "echo", "echo", "die")), seconds=10))
            except (Overloaded, Exception) as refusal:
                assert refusal.args is not None
            most_bytes = max(most_bytes, budget.used_bytes)

        tasks = [asyncio.ensure_future(caller(chance.choice(pools))) for _ in range(150)]
        for task in chance.sample(tasks, 15):
            asyncio.get_running_loop().call_later(chance.random() * 0.3, task.cancel)
        began = time.monotonic()
        await asyncio.gather(*tasks, return_exceptions=True)
        await budget.tend()
        assert time.monotonic() - began < 15
        assert most_bytes <= budget.memory_bytes
        for made in pools:
            await made.close()
        assert budget.used_bytes == budget.idle_bytes == 0
        assert all(sandbox.alive == 0 for sandbox in sandboxes)

    run(story)
