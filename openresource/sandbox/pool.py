"""Warm instances of one program: a call finds one that runs, a dead one is replaced, and restarts back off.

The pool starts an instance when it is first needed, keeps it warm, and starts more up to its size while calls wait.
A program that keeps dying is started ever more rarely, and callers are told so instead of waiting.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Coroutine
from typing import Any, Final

from openresource.sandbox.driver import (
    Instance,
    Limits,
    Overloaded,
    ProgramCall,
    ProgramDidNotStart,
    ProgramError,
    ProgramReply,
    ProgramStream,
    Release,
    Sandbox,
    Usage,
)

RESTART_SECONDS_FIRST: Final = 0.2
RESTART_SECONDS_MAX: Final = 60.0
# The first few deaths are accidents: the next caller gets a fresh instance at once.
QUICK_RESTARTS: Final = 3


class PoolClosed(ProgramError):
    template = "The program is being stopped here."
    way_out = "Call another provider."


class _Slot:
    """One place for an instance, with the calls that run on it."""

    def __init__(self) -> None:
        self.instance: Instance | None = None
        self.starting: asyncio.Task[Instance] | None = None
        self.running = 0


class ProgramPool:
    """Runs a program's calls on up to `size` instances; it never runs two programs."""

    def __init__(
        self,
        sandbox: Sandbox,
        release: Release,
        limits: Limits,
        *,
        size: int = 1,
        idle_seconds: float | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        assert size >= 1
        self._sandbox = sandbox
        self._release = release
        self._limits = limits
        self._clock = clock
        self._slots = [_Slot() for _ in range(size)]
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._idle_seconds = idle_seconds
        self._idle_timer: asyncio.TimerHandle | None = None
        self._deaths = 0
        self._start_not_before = 0.0
        self._last_fault: ProgramError | None = None
        self._stopping: set[asyncio.Task[None]] = set()
        self._is_closed = False
        self._interface: dict[str, Any] = {}

    @property
    def capacity(self) -> int:
        """How many calls can run at once."""
        return len(self._slots) * self._limits.concurrency

    async def start(self) -> None:
        """Start the first instance now, so that the first call finds it warm."""
        self._interface = (await self._instance_of(self._slots[0])).interface

    @property
    def interface(self) -> dict[str, Any]:
        """What the program told of itself at the first start; empty before, and for kinds that tell nothing."""
        return self._interface

    async def call(self, call: ProgramCall) -> ProgramReply:
        """One call on an instance with room; waits for room no longer than the call may take."""
        slot = self._with_room()
        if slot is None or self._waiting or self._is_closed:
            slot = await self._enter(call.deadline_seconds)
        else:
            slot.running += 1
        instance: Instance | None = None
        try:
            instance = await self._instance_of(slot)
            reply = await instance.call(call)
        except asyncio.CancelledError:
            self._leave_when_free(slot, instance)
            raise
        except BaseException:
            self._leave(slot)
            raise
        self._deaths = 0
        if isinstance(reply.body, bytes):
            self._leave(slot)
        else:
            reply.body = _CountedStream(reply.body, lambda: self._leave(slot))
        return reply

    async def usage(self) -> Usage:
        """What the instances that run now have used."""
        figures = [await slot.instance.usage() for slot in self._slots if slot.instance is not None]
        return Usage(
            cpu_ms=sum(one.cpu_ms for one in figures),
            wall_ms=max((one.wall_ms for one in figures), default=0),
            peak_rss_bytes=sum(one.peak_rss_bytes for one in figures),
            bytes_in=sum(one.bytes_in for one in figures),
            bytes_out=sum(one.bytes_out for one in figures),
        )

    async def stop_idle(self) -> None:
        """Stop instances that nobody uses; the next call starts one again."""
        for slot in self._slots:
            if slot.running == 0 and slot.instance is not None:
                instance, slot.instance = slot.instance, None
                await instance.stop()

    async def drain(self, seconds: float) -> None:
        """Take no more calls, let those that run end within their time, then stop everything."""
        self._is_closed = True
        self._wake_all()
        ends_at = self._clock() + seconds
        while any(slot.running for slot in self._slots) and (left_seconds := ends_at - self._clock()) > 0:
            await self._wait(left_seconds)
        await self.close()

    async def close(self) -> None:
        """Stop everything; calls that still run end with a typed refusal."""
        self._is_closed = True
        self._wake_all()
        if self._idle_timer is not None:
            self._idle_timer.cancel()
        for slot in self._slots:
            if slot.starting is not None:
                slot.starting.cancel()
                await asyncio.gather(slot.starting, return_exceptions=True)
            if slot.instance is not None:
                instance, slot.instance = slot.instance, None
                await instance.stop()
        await asyncio.gather(*self._stopping)

    async def _enter(self, seconds: float) -> _Slot:
        """A slot with room, the ones with a living instance first; who has waited longest goes first."""
        ends_at = self._clock() + seconds
        is_first = False
        while True:
            if self._is_closed:
                raise PoolClosed()
            slot = self._with_room()
            if slot is not None and (is_first or not self._waiting):
                slot.running += 1
                return slot
            left_seconds = ends_at - self._clock()
            if left_seconds <= 0 or not await self._wait(left_seconds, at_front=is_first):
                raise Overloaded(concurrency=self.capacity)
            is_first = True

    async def _wait(self, seconds: float, *, at_front: bool = False) -> bool:
        """Wait for the next place that is freed; false when it took too long."""
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        if at_front:
            self._waiting.appendleft(waiter)
        else:
            self._waiting.append(waiter)
        try:
            async with asyncio.timeout(seconds):
                await waiter
        except TimeoutError:
            return False
        except BaseException:
            if waiter.done() and not waiter.cancelled():
                # The place was handed to us while we gave up.
                self._wake_one()
            raise
        finally:
            if waiter in self._waiting:
                self._waiting.remove(waiter)
        return True

    def _with_room(self) -> _Slot | None:
        free = [slot for slot in self._slots if slot.running < self._limits.concurrency]

        def rank(slot: _Slot) -> tuple[bool, int]:
            is_alive = slot.instance is not None and slot.instance.alive
            return not is_alive, slot.running

        return min(free, key=rank, default=None)

    def _leave(self, slot: _Slot) -> None:
        slot.running -= 1
        if self._idle_seconds is not None and not any(slot.running for slot in self._slots):
            self._restart_idle_timer(self._idle_seconds)
        if slot.instance is not None and not slot.instance.alive:
            self._bury(slot)
        self._wake_one()

    def _restart_idle_timer(self, seconds: float) -> None:
        if self._idle_timer is not None:
            self._idle_timer.cancel()
        if not self._is_closed:
            self._idle_timer = asyncio.get_running_loop().call_later(
                seconds, lambda: self._keep(self.stop_idle())
            )

    def _leave_when_free(self, slot: _Slot, instance: Instance | None) -> None:
        """The caller has gone, but the program may still be busy with what it asked."""
        if instance is None or not instance.alive or instance.in_flight < slot.running:
            self._leave(slot)
            return
        self._keep(self._await_free(slot, instance))

    async def _await_free(self, slot: _Slot, instance: Instance) -> None:
        # Several callers may have gone at once: each gives back one place for one call that has ended.
        while instance.alive and instance.in_flight >= slot.running:
            await instance.until_free(slot.running - 1)
        self._leave(slot)

    def _wake_one(self) -> None:
        while self._waiting:
            waiter = self._waiting.popleft()
            if not waiter.done():
                waiter.set_result(None)
                return

    def _wake_all(self) -> None:
        while self._waiting:
            self._wake_one()

    def _keep(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.ensure_future(work)
        self._stopping.add(task)
        task.add_done_callback(self._stopping.discard)

    def _bury(self, slot: _Slot) -> None:
        """Take a dead instance away and count the death."""
        assert slot.instance is not None
        instance, slot.instance = slot.instance, None
        self._count_death()
        self._keep(instance.stop())

    def _count_death(self) -> None:
        self._deaths += 1
        beyond = self._deaths - QUICK_RESTARTS
        if beyond > 0:
            delay_seconds = min(RESTART_SECONDS_FIRST * 2 ** min(beyond, 20), RESTART_SECONDS_MAX)
            self._start_not_before = self._clock() + delay_seconds

    async def _instance_of(self, slot: _Slot) -> Instance:
        """The slot's living instance; callers who come at once share one start."""
        if slot.instance is not None and not slot.instance.alive:
            self._bury(slot)
        if slot.instance is not None:
            return slot.instance
        if slot.starting is None:
            if self._clock() < self._start_not_before:
                fault = self._last_fault
                raise ProgramDidNotStart(
                    reason="it keeps ending and is started again in a while"
                    + (f" ({fault.message})" if fault is not None else ""),
                    stderr="",
                )
            slot.starting = asyncio.ensure_future(self._start(slot))
        return await asyncio.shield(slot.starting)

    async def _start(self, slot: _Slot) -> Instance:
        try:
            instance = await self._sandbox.start(self._release, self._limits)
        except ProgramError as fault:
            self._last_fault = fault
            self._count_death()
            raise
        finally:
            slot.starting = None
        if self._is_closed:
            await instance.stop()
            raise PoolClosed()
        slot.instance = instance
        return instance


class _CountedStream:
    """A stream that gives its place back when it ends, however it ends."""

    def __init__(self, stream: ProgramStream, ended: Callable[[], None]) -> None:
        self._stream = stream
        self._ended: Callable[[], None] | None = ended

    def __aiter__(self) -> _CountedStream:
        return self

    async def __anext__(self) -> bytes:
        try:
            return await self._stream.__anext__()
        except BaseException:
            self._end()
            raise

    async def aclose(self) -> None:
        try:
            await self._stream.aclose()
        finally:
            self._end()

    def _end(self) -> None:
        if self._ended is not None:
            ended, self._ended = self._ended, None
            ended()
