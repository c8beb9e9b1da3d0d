"""The pool: warm instances, waiting in order, restarts with back-off, and places that are free only when they are."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from openresource.market.manifests import parse_manifest
from openresource.sandbox.driver import (
    Capabilities,
    Limits,
    Overloaded,
    ProgramCall,
    ProgramCrashed,
    ProgramDidNotStart,
    ProgramReply,
    Release,
    Usage,
)
from openresource.sandbox.pool import INTERRUPT_SECONDS, QUICK_RESTARTS, PoolClosed, ProgramPool

RELEASE = Release(Path("/nowhere"), parse_manifest('name = "x"\n[run]\nkind = "python"\nentry = "a:b"'))


class FakeInstance:
    """A program whose calls end when a test says so."""

    def __init__(self, limits: Limits) -> None:
        self.alive = True
        self.interface: dict[str, Any] = {}
        self.stopped = False
        self.gates: list[asyncio.Event] = []
        self.in_flight = 0
        self._limits = limits
        self._changed = asyncio.Event()

    async def call(self, call: ProgramCall) -> ProgramReply:
        if self.in_flight >= self._limits.concurrency:
            raise Overloaded(concurrency=self._limits.concurrency)
        gate = asyncio.Event()
        self.gates.append(gate)
        self.in_flight += 1
        work = asyncio.ensure_future(self._work(gate, call))
        await asyncio.shield(work)
        return ProgramReply(200, "text/plain", call.body)

    async def _work(self, gate: asyncio.Event, call: ProgramCall) -> None:
        try:
            if call.method == "die":
                self.alive = False
                raise ProgramCrashed(reason="it was asked to", stderr="")
            if call.method == "wait":
                await gate.wait()
        finally:
            self.in_flight -= 1
            self._changed.set()

    async def until_free(self, in_flight_max: int) -> None:
        while self.alive and self.in_flight > in_flight_max:
            self._changed.clear()
            await self._changed.wait()

    async def usage(self) -> Usage:
        return Usage(1, 2, 3, 4, 5)

    async def stop(self) -> None:
        self.alive, self.stopped = False, True
        self._changed.set()


class FakeSandbox:
    """Starts fake instances, or refuses."""

    def __init__(self) -> None:
        self.instances: list[FakeInstance] = []
        self.refuses = False

    def probe(self) -> Capabilities:
        return Capabilities("fake", True)

    async def start(self, release: Release, limits: Limits) -> FakeInstance:
        await asyncio.sleep(0)
        if self.refuses:
            raise ProgramDidNotStart(reason="not today", stderr="")
        self.instances.append(FakeInstance(limits))
        return self.instances[-1]


def call(method: str = "echo", body: bytes = b"hi", seconds: float = 60.0) -> ProgramCall:
    return ProgramCall(method, "/", body, deadline_seconds=seconds)


def run(test: Callable[[FakeSandbox, list[float]], Awaitable[None]]) -> None:
    """A test on a fake sandbox and a clock that stands still."""
    asyncio.run(asyncio.wait_for(_with(test), 60))


async def _with(test: Callable[[FakeSandbox, list[float]], Awaitable[None]]) -> None:
    await test(FakeSandbox(), [1_000.0])


def pool(sandbox: FakeSandbox, now: list[float], **options: Any) -> ProgramPool:
    limits = Limits(concurrency=options.pop("concurrency", 1))
    return ProgramPool(sandbox, RELEASE, limits, clock=lambda: now[0], **options)


async def until(condition: Callable[[], bool]) -> None:
    """Let others run until it holds."""
    async with asyncio.timeout(60):
        while not condition():
            await asyncio.sleep(0)


def test_one_instance_stays_warm() -> None:
    async def test(sandbox: FakeSandbox, now: list[float]) -> None:
        made = pool(sandbox, now)
        for _ in range(3):
            assert (await made.call(call())).body == b"hi"
        assert len(sandbox.instances) == 1
        await made.close()
        assert sandbox.instances[0].stopped

    run(test)


def test_calls_wait_for_a_place_and_the_first_goes_first() -> None:
    async def test(sandbox: FakeSandbox, now: list[float]) -> None:
        made = pool(sandbox, now)
        order: list[bytes] = []

        async def one(body: bytes) -> None:
            await made.call(call("wait", body))
            order.append(body)

        tasks = [asyncio.ensure_future(one(b"%d" % number)) for number in range(4)]
        for number in range(4):
            await until(
                lambda number=number: bool(sandbox.instances) and len(sandbox.instances[0].gates) > number
            )
            sandbox.instances[0].gates[number].set()
        await asyncio.gather(*tasks)
        assert order == [b"0", b"1", b"2", b"3"]
        await made.close()

    run(test)


def test_waiting_is_no_longer_than_the_call_may_take() -> None:
    async def test(sandbox: FakeSandbox, now: list[float]) -> None:
        made = pool(sandbox, now)
        first = asyncio.ensure_future(made.call(call("wait")))
        await until(lambda: bool(sandbox.instances) and len(sandbox.instances[0].gates) == 1)
        with pytest.raises(Overloaded):
            await made.call(call(seconds=0.01))
        sandbox.instances[0].gates[0].set()
        await first
        assert (await made.call(call())).body == b"hi"
        await made.close()

    run(test)


def test_more_instances_start_while_calls_wait() -> None:
    async def test(sandbox: FakeSandbox, now: list[float]) -> None:
        made = pool(sandbox, now, size=2)
        tasks = [asyncio.ensure_future(made.call(call("wait"))) for _ in range(2)]
        await until(lambda: len(sandbox.instances) == 2 and all(one.gates for one in sandbox.instances))
        for instance in sandbox.instances:
            instance.gates[0].set()
        await asyncio.gather(*tasks)
        assert made.capacity == 2
        assert (await made.usage()).cpu_ms == 2
        await made.close()

    run(test)


def test_a_place_is_free_only_when_the_program_is_done_with_a_caller_who_has_left() -> None:
    async def test(sandbox: FakeSandbox, now: list[float]) -> None:
        made = pool(sandbox, now, concurrency=2)
        leavers = [asyncio.ensure_future(made.call(call("wait"))) for _ in range(2)]
        await until(lambda: bool(sandbox.instances) and len(sandbox.instances[0].gates) == 2)
        for leaver in leavers:
            leaver.cancel()
        await asyncio.gather(*leavers, return_exceptions=True)
        waiting = [asyncio.ensure_future(made.call(call())) for _ in range(2)]
        with pytest.raises(Overloaded):
            await made.call(call(seconds=0.01))
        assert not any(task.done() for task in waiting)
        for gate in sandbox.instances[0].gates:
            gate.set()
        assert [reply.body for reply in await asyncio.gather(*waiting)] == [b"hi", b"hi"]
        await made.close()

    run(test)


def test_work_that_ends_with_its_caller_is_stopped_when_the_program_does_not_give_up() -> None:
    async def test(sandbox: FakeSandbox, now: list[float]) -> None:
        made = pool(sandbox, now, warm=1)
        for _ in range(2 * QUICK_RESTARTS):
            leaver = asyncio.ensure_future(made.call(replace(call("wait"), ends_with_caller=True)))
            await until(lambda: bool(sandbox.instances) and len(sandbox.instances[-1].gates) == 1)
            instance = sandbox.instances[-1]
            leaver.cancel()
            await asyncio.gather(leaver, return_exceptions=True)
            await until(lambda instance=instance: instance.stopped)
        # The program is not to blame, so the next one starts at once.
        assert (await made.call(call())).body == b"hi"
        await made.close()

    run(test)


def test_work_that_ends_with_its_caller_is_not_ended_while_another_caller_waits_for_the_same_instance() -> (
    None
):
    async def test(sandbox: FakeSandbox, now: list[float]) -> None:
        made = pool(sandbox, now, concurrency=2)
        leaver = asyncio.ensure_future(made.call(replace(call("wait"), ends_with_caller=True)))
        stayer = asyncio.ensure_future(made.call(call("wait")))
        await until(lambda: bool(sandbox.instances) and len(sandbox.instances[0].gates) == 2)
        leaver.cancel()
        await asyncio.gather(leaver, return_exceptions=True)
        await asyncio.sleep(1.5 * INTERRUPT_SECONDS)
        assert sandbox.instances[0].alive
        sandbox.instances[0].gates[1].set()
        assert (await stayer).body == b"hi"
        await until(lambda: sandbox.instances[0].stopped)
        await made.close()

    run(test)


def test_a_dead_instance_is_replaced_and_one_that_keeps_dying_backs_off() -> None:
    async def test(sandbox: FakeSandbox, now: list[float]) -> None:
        made = pool(sandbox, now)
        for _ in range(QUICK_RESTARTS + 1):
            with pytest.raises(ProgramCrashed):
                await made.call(call("die"))
        with pytest.raises(ProgramDidNotStart, match="keeps ending"):
            await made.call(call())
        now[0] += 60
        assert (await made.call(call())).body == b"hi"
        assert len(sandbox.instances) == QUICK_RESTARTS + 2
        await made.close()
        assert all(instance.stopped for instance in sandbox.instances)

    run(test)


def test_a_start_that_is_refused_is_told_to_every_caller() -> None:
    async def test(sandbox: FakeSandbox, now: list[float]) -> None:
        sandbox.refuses = True
        made = pool(sandbox, now)
        for _ in range(2):
            with pytest.raises(ProgramDidNotStart, match="not today"):
                await made.call(call())
        sandbox.refuses = False
        assert (await made.call(call())).body == b"hi"
        await made.close()

    run(test)


def test_an_idle_program_is_stopped_and_comes_back() -> None:
    async def test(sandbox: FakeSandbox, now: list[float]) -> None:
        made = pool(sandbox, now, idle_seconds=0.01)
        await made.call(call())
        await until(lambda: sandbox.instances[0].stopped)
        assert (await made.call(call())).body == b"hi"
        assert len(sandbox.instances) == 2
        await made.close()

    run(test)


def test_draining_lets_calls_end_and_takes_no_more() -> None:
    async def test(sandbox: FakeSandbox, now: list[float]) -> None:
        made = pool(sandbox, now)
        working = asyncio.ensure_future(made.call(call("wait")))
        await until(lambda: bool(sandbox.instances) and len(sandbox.instances[0].gates) == 1)
        draining = asyncio.ensure_future(made.drain(60))
        await asyncio.sleep(0)
        with pytest.raises(PoolClosed):
            await made.call(call())
        sandbox.instances[0].gates[0].set()
        assert (await working).body == b"hi"
        await draining
        assert sandbox.instances[0].stopped

    run(test)


def test_draining_ends_after_its_time_whatever_still_runs() -> None:
    async def test(sandbox: FakeSandbox, now: list[float]) -> None:
        made = pool(sandbox, now)
        working = asyncio.ensure_future(made.call(call("wait")))
        await until(lambda: bool(sandbox.instances) and len(sandbox.instances[0].gates) == 1)
        draining = asyncio.ensure_future(made.drain(0.05))
        await asyncio.sleep(0)
        now[0] += 1
        await draining
        assert sandbox.instances[0].stopped
        working.cancel()

    run(test)


def test_a_pool_that_is_resized_gets_places_and_gives_up_idle_ones() -> None:
    async def test(sandbox: FakeSandbox, now: list[float]) -> None:
        made = pool(sandbox, now, size=1)
        await made.start()
        made.resize(2)
        tasks = [asyncio.ensure_future(made.call(call("wait"))) for _ in range(2)]
        await until(lambda: len(sandbox.instances) == 2 and all(one.gates for one in sandbox.instances))
        # What works goes on, and ends when it is idle and the pool looks again.
        made.resize(1)
        assert made.instances == 2
        for instance in sandbox.instances:
            instance.gates[0].set()
        await asyncio.gather(*tasks)
        made.resize(1)
        await until(lambda: made.instances == 1 and made.capacity == 1)
        # One that died in its sleep is taken away.
        for instance in sandbox.instances:
            instance.alive = False
        made.resize(1)
        assert made.instances == 0 and made.capacity == 1
        assert (await made.call(call())).body == b"hi"
        await made.close()

    run(test)
