"""Instances of one program on demand: warm ones answer at once, more start while calls wait, idle ones go.

    no instance ──a call──▶ one ──calls wait──▶ more, up to `size` ──idle──▶ `warm` of them ──idle──▶ …

A call takes an instance that is there; only where none is, it waits for a start. Another instance starts when calls
would wait longer than a moment, one at a time. Those beyond `warm` end after some idle time, and all of them give way
when other programs need the machine's memory (`budgets.py`). A program that keeps dying is started ever more rarely,
and callers are told so instead of waiting.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import Callable, Coroutine
from typing import Any, Final

from openresource.sandbox.budgets import Budget, Share
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

log = logging.getLogger("openresource.sandbox.pool")

RESTART_SECONDS_FIRST: Final = 0.2
RESTART_SECONDS_MAX: Final = 60.0
# The first few deaths are accidents: the next caller gets a fresh instance at once.
QUICK_RESTARTS: Final = 3
# When a call waits longer than this, or would by what calls take, one more instance starts.
GROW_SECONDS: Final = 0.05
# Before a warm instance that died is started again without a call.
REFILL_SECONDS: Final = 0.05
# A program whose caller has gone has so long to give up by itself, where the call says that the work ends then.
INTERRUPT_SECONDS: Final = 0.5
LEAVING_SECONDS: Final = 0.01
# How quickly the mean time of a call follows the newest one.
NEWEST_SHARE: Final = 0.1


class PoolClosed(ProgramError):
    template = "The program is being stopped here."
    way_out = "Call another provider."


class _Slot:
    """One place for an instance, with the calls that run on it."""

    __slots__ = ("idle_since", "instance", "left", "running", "share", "starting")

    def __init__(self) -> None:
        self.instance: Instance | None = None
        self.starting: asyncio.Task[Instance] | None = None
        self.running = 0
        # How many of them run on although their callers have gone.
        self.left = 0
        self.idle_since = 0.0
        self.share: Share | None = None

    @property
    def is_there(self) -> bool:
        """Whether an instance runs here or is about to."""
        return self.starting is not None or (self.instance is not None and self.instance.alive)


class ProgramPool:
    """Runs a program's calls on up to `size` instances; it never runs two programs."""

    def __init__(
        self,
        sandbox: Sandbox,
        release: Release,
        limits: Limits,
        *,
        size: int = 1,
        warm: int = 0,
        idle_seconds: float | None = None,
        budget: Budget | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        assert size >= 1
        self.warm = min(warm, size)
        # What happened so far, for the provider's metrics.
        self.starts = 0
        self.cold_starts = 0
        self.idle_stops = 0
        self._sandbox = sandbox
        self._release = release
        self._limits = limits
        self._clock = clock
        self._budget = budget
        self._slots = [_Slot() for _ in range(size)]
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._idle_seconds = idle_seconds
        self._idle_timer: asyncio.TimerHandle | None = None
        self._grow_timer: asyncio.TimerHandle | None = None
        self._refill_timer: asyncio.TimerHandle | None = None
        self._call_seconds = 0.0
        self._deaths = 0
        self._start_not_before = 0.0
        self._last_fault: ProgramError | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._is_closed = False
        self._interface: dict[str, Any] = {}
        if budget is not None:
            budget.join(self)

    @property
    def capacity(self) -> int:
        """How many calls can run at once."""
        return len(self._slots) * self._limits.concurrency

    @property
    def instances(self) -> int:
        """How many instances are there now."""
        return sum(slot.instance is not None for slot in self._slots)

    @property
    def idle_instances(self) -> int:
        """How many of them have nothing to do."""
        return sum(slot.instance is not None and not slot.running for slot in self._slots)

    @property
    def waiting(self) -> int:
        """How many calls wait for an instance."""
        return len(self._waiting)

    async def start(self) -> None:
        """Start the first instance now, so that the first call finds it warm."""
        slot = self._slots[0]
        self._interface = (await self._instance_of(slot)).interface
        if not slot.running:
            self._rest(slot)

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
        began = self._clock()
        try:
            instance = await self._instance_of(slot)
            if slot.share is not None and not slot.share.is_busy:
                await self._wake_up(slot.share, call.deadline_seconds)
            reply = await instance.call(call)
        except asyncio.CancelledError:
            self._leave_when_free(slot, instance, interrupts=call.ends_with_caller)
            raise
        except BaseException:
            self._leave(slot)
            raise
        self._deaths = 0
        if isinstance(reply.body, bytes):
            self._took(began)
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

    def keep(self, warm: int) -> None:
        """So many instances stay warm from now on; the others end after their idle time."""
        before, self.warm = self.warm, min(warm, len(self._slots))
        if self.warm > before:
            self._refill()
        elif self.warm < before and self._idle_timer is None and self._idle_seconds is not None:
            self._end_idle_after(self._idle_seconds)

    def resize(self, size: int) -> None:
        """So many instances at most from now on; a place that is in use stays until its instance has ended."""
        if self._is_closed:
            return
        for slot in self._slots:
            # One that died in its sleep is noticed by nobody else.
            if slot.instance is not None and not slot.instance.alive and not slot.running:
                self._bury(slot)
        while len(self._slots) < size:
            self._slots.append(_Slot())
        for slot in reversed(list(self._slots)):
            if len(self._slots) <= max(1, size):
                break
            if slot.instance is None and slot.starting is None and not slot.running:
                self._slots.remove(slot)
        if len(self._slots) > max(1, size):
            self._keep(self._shrink(max(1, size)))

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
        for timer in (self._idle_timer, self._grow_timer, self._refill_timer):
            if timer is not None:
                timer.cancel()
        if self._budget is not None:
            self._budget.part(self)
        for slot in self._slots:
            if slot.starting is not None:
                slot.starting.cancel()
                await asyncio.gather(slot.starting, return_exceptions=True)
            await self._stop(slot)
        await asyncio.gather(*self._tasks)

    # For the budget

    def idle_since(self) -> float | None:
        """Since when the longest idle instance is idle; None if none is."""
        slot = self._longest_idle()
        return None if slot is None else slot.idle_since

    async def give_way(self) -> None:
        """Stop the longest idle instance: another program needs its room."""
        slot = self._longest_idle()
        if slot is not None:
            await self._stop(slot)

    async def measure(self) -> None:
        """Tell the budget what idle instances use."""
        for slot in self._slots:
            if slot.instance is not None and not slot.running:
                await self._measure(slot, slot.instance)

    async def _measure(self, slot: _Slot, instance: Instance) -> None:
        resident_bytes = (await instance.usage()).peak_rss_bytes
        if slot.instance is instance and slot.share is not None and self._budget is not None:
            self._budget.measured(slot.share, resident_bytes)

    def _longest_idle(self) -> _Slot | None:
        idle = [slot for slot in self._slots if slot.instance is not None and not slot.running]
        return min(idle, key=lambda slot: slot.idle_since, default=None)

    # Places

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
        self._consider_growing()
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
        """The instance with the fewest calls; where there is none at all, the slot in which one will start."""
        best: _Slot | None = None
        is_any_there = False
        for slot in self._slots:
            if not slot.is_there:
                continue
            is_any_there = True
            if slot.running < self._limits.concurrency and (best is None or slot.running < best.running):
                best = slot
        if is_any_there:
            return best
        free = [slot for slot in self._slots if slot.running < self._limits.concurrency]
        return min(free, key=lambda slot: slot.running, default=None)

    def _leave(self, slot: _Slot) -> None:
        slot.running -= 1
        if slot.instance is not None and not slot.instance.alive:
            self._bury(slot)
        if slot.running == 0:
            self._rest(slot)
        self._wake_one()

    def _rest(self, slot: _Slot) -> None:
        """A slot has nothing to do; where nothing comes for long, its instance ends."""
        slot.idle_since = time.monotonic()
        if slot.share is not None and self._budget is not None:
            self._budget.rests(slot.share)
        if self._idle_seconds is not None and self._idle_timer is None and not self._is_closed:
            self._end_idle_after(self._idle_seconds)

    def _end_idle_after(self, seconds: float) -> None:
        loop = asyncio.get_running_loop()
        self._idle_timer = loop.call_later(seconds, lambda: self._keep(self._end_idle()))

    async def _shrink(self, size: int) -> None:
        """Ends instances that have nothing to do while there are more places than there should be."""
        while not self._is_closed and len(self._slots) > size:
            slot = self._longest_idle()
            if slot is None:
                return
            await self._stop(slot)
            if slot in self._slots and slot.starting is None and not slot.running:
                self._slots.remove(slot)

    async def _end_idle(self) -> None:
        """Ends instances beyond the warm ones that had nothing to do for the idle time."""
        self._idle_timer = None
        assert self._idle_seconds is not None
        while not self._is_closed and self.instances > self.warm:
            slot = self._longest_idle()
            if slot is None:
                return
            left_seconds = slot.idle_since + self._idle_seconds - time.monotonic()
            if left_seconds > 0:
                self._end_idle_after(left_seconds)
                return
            self.idle_stops += 1
            await self._stop(slot)

    def _leave_when_free(self, slot: _Slot, instance: Instance | None, *, interrupts: bool) -> None:
        """The caller has gone, but the program may still be busy with what it asked."""
        if instance is None or not instance.alive:
            self._leave(slot)
        elif instance.in_flight >= slot.running:
            slot.left += 1
            self._keep(self._await_free(slot, instance, interrupts))
        elif interrupts and slot.running == 1:
            # The line to it was cut, and nobody knows whether it works on.
            self._keep(self._interrupt(slot, instance))
        else:
            self._leave(slot)

    async def _await_free(self, slot: _Slot, instance: Instance, interrupts: bool) -> None:
        # Several callers may have gone at once: each gives back one place for one call that has ended.
        ends_at = time.monotonic() + INTERRUPT_SECONDS
        while instance.alive and instance.in_flight >= slot.running:
            left_seconds = max(0.0, ends_at - time.monotonic()) if interrupts else None
            try:
                async with asyncio.timeout(left_seconds):
                    await instance.until_free(slot.running - 1)
                # A caller whose answer has just come gives back its own place first.
                await asyncio.sleep(LEAVING_SECONDS)
            except TimeoutError:
                ends_at = time.monotonic() + INTERRUPT_SECONDS
                # Who shares the instance is not to lose a call by it.
                if slot.left == slot.running:
                    slot.left -= 1
                    await self._interrupt(slot, instance)
                    return
        slot.left -= 1
        self._leave(slot)

    async def _interrupt(self, slot: _Slot, instance: Instance) -> None:
        """Stop an instance that works for nobody any more; that it ends is no fault of the program's."""
        if slot.instance is instance:
            await self._stop(slot)
        self._leave(slot)
        self._refill()

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
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _took(self, began: float) -> None:
        share = NEWEST_SHARE if self._call_seconds else 1.0
        self._call_seconds += share * (self._clock() - began - self._call_seconds)

    # Instances

    def _consider_growing(self) -> None:
        """One more instance, where those who wait would wait longer than a moment; one starts at a time."""
        if self._is_closed or any(slot.starting is not None for slot in self._slots):
            return
        places = sum(slot.is_there for slot in self._slots) * self._limits.concurrency
        if not places or places == self.capacity:
            return
        if self._call_seconds * len(self._waiting) / places > GROW_SECONDS:
            self._grow()
        elif self._grow_timer is None:
            self._grow_timer = asyncio.get_running_loop().call_later(GROW_SECONDS, self._waited)

    def _waited(self) -> None:
        self._grow_timer = None
        is_starting = any(slot.starting is not None for slot in self._slots)
        if self._waiting and not self._is_closed and not is_starting:
            self._grow()

    def _grow(self) -> None:
        slot = next((one for one in self._slots if not one.is_there and not one.running), None)
        if slot is None or self._clock() < self._start_not_before:
            return
        if self._budget is not None and not self._budget.has_cpu_for(self._limits.cpu):
            return
        slot.starting = asyncio.ensure_future(self._start(slot))
        slot.starting.add_done_callback(self._grown)

    def _refill(self) -> None:
        """Warm instances that died, or were not started yet, are started without waiting for a call."""
        if self._is_closed or self.instances >= self.warm or self._refill_timer is not None:
            return
        seconds = max(REFILL_SECONDS, self._start_not_before - self._clock())
        self._refill_timer = asyncio.get_running_loop().call_later(seconds, self._refill_now)

    def _refill_now(self) -> None:
        self._refill_timer = None
        is_starting = any(slot.starting is not None for slot in self._slots)
        if self._is_closed or is_starting or self.instances >= self.warm:
            return
        self._grow()

    def _grown(self, starting: asyncio.Task[Instance]) -> None:
        """Nobody waits for this start alone; who waits for a place looks whether there is one."""
        if not starting.cancelled() and (fault := starting.exception()) is not None:
            log.warning("one more instance did not start: %s", fault)
            self._wake_one()
            self._refill()

    def _has_started(self, slot: _Slot) -> None:
        if slot.instance is None:
            return
        if not slot.running:
            self._rest(slot)
        for _ in range(self._limits.concurrency - slot.running):
            self._wake_one()
        if self._waiting:
            self._consider_growing()
        self._refill()

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
            if slot.running:
                self.cold_starts += 1
            slot.starting = asyncio.ensure_future(self._start(slot))
        return await asyncio.shield(slot.starting)

    async def _start(self, slot: _Slot) -> Instance:
        share: Share | None = None
        try:
            if self._budget is not None:
                share = await self._budget.take(
                    self._limits.memory_bytes, self._limits.cpu, self._limits.startup_seconds
                )
            instance = await self._sandbox.start(self._release, self._limits)
        except BaseException as fault:
            if share is not None and self._budget is not None:
                self._budget.give_back(share)
            if isinstance(fault, ProgramError) and not isinstance(fault, Overloaded):
                self._last_fault = fault
                self._count_death()
            raise
        finally:
            slot.starting = None
        if self._is_closed:
            await self._end(instance, share)
            raise PoolClosed()
        self.starts += 1
        slot.instance, slot.share = instance, share
        if share is not None:
            self._keep(self._measure(slot, instance))
        asyncio.get_running_loop().call_soon(self._has_started, slot)
        return instance

    async def _wake_up(self, share: Share, seconds: float) -> None:
        """An idle instance goes to work, once the machine's memory has room for that."""
        assert self._budget is not None
        if not self._budget.wakes(share):
            await self._budget.wake(share, seconds)

    async def _stop(self, slot: _Slot) -> None:
        if slot.instance is not None:
            instance, share = slot.instance, slot.share
            slot.instance = slot.share = None
            await self._end(instance, share)

    async def _end(self, instance: Instance, share: Share | None) -> None:
        try:
            await instance.stop()
        finally:
            if share is not None and self._budget is not None:
                self._budget.give_back(share)

    def _bury(self, slot: _Slot) -> None:
        """Take a dead instance away and count the death."""
        assert slot.instance is not None
        instance, share = slot.instance, slot.share
        slot.instance = slot.share = None
        self._count_death()
        self._keep(self._end(instance, share))
        self._refill()

    def _count_death(self) -> None:
        self._deaths += 1
        beyond = self._deaths - QUICK_RESTARTS
        if beyond > 0:
            delay_seconds = min(RESTART_SECONDS_FIRST * 2 ** min(beyond, 20), RESTART_SECONDS_MAX)
            self._start_not_before = self._clock() + delay_seconds


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
