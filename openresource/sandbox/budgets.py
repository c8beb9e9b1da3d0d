"""What all programs of a machine may use together: who starts asks for room, and who was idle longest gives way.

A program that starts or works is counted with the memory that it may use; one that is idle with what it was seen to
use. So the sum never passes the machine's memory, and many idle programs stay warm beside few that work.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol

from openresource.sandbox.driver import Overloaded, ProgramDidNotStart

# The part of the machine's memory that programs get; the rest is for the provider itself and everybody else.
MEMORY_SHARE: Final = 0.8
# The part of the budget in which idle programs are kept warm.
WARM_SHARE: Final = 0.5
# Programs rarely use all the processor that they may: so many times the machine's is given out to further instances.
CPU_SHARE: Final = 2.0
IDLE_BYTES_MIN: Final = 8 << 20
CGROUP_MEMORY_FILES: Final = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")


class NoMemoryLeft(Overloaded):
    template = "The programs that work here just now use {used_bytes} of {memory_bytes} bytes; {bytes} more are needed."
    way_out = "Nothing was charged. Try again in a moment, or call another provider."
    code = "overloaded"


class MachineTooSmall(ProgramDidNotStart):
    template = (
        "The program may use {bytes} bytes of memory; all programs here may use {memory_bytes} together."
    )
    way_out = "Give programs more with `provide --memory`, or ask for less in [resources] memory."


class IdleHolder(Protocol):
    """A program's pool, as far as others may ask it for room."""

    def idle_since(self) -> float | None:
        """Since when its longest idle instance is idle, by the clock; None if none is."""

    async def give_way(self) -> None:
        """Stops that instance."""

    async def measure(self) -> None:
        """Counts idle instances with what they use now."""


@dataclass(slots=True)
class Share:
    """What one instance holds of the budget."""

    memory_bytes: int
    cpu: float
    # What it was seen to use; 0 before it was measured.
    resident_bytes: int = 0
    is_busy: bool = True

    @property
    def counted_bytes(self) -> int:
        """A working instance may take all that it may use; an idle one does not grow."""
        if self.is_busy or not self.resident_bytes:
            return self.memory_bytes
        return min(self.memory_bytes, max(self.resident_bytes, IDLE_BYTES_MIN))


class Budget:
    """Memory and processors for all programs of one provider."""

    def __init__(
        self,
        memory_bytes: int,
        cpu: float,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.memory_bytes = memory_bytes
        self.cpu = cpu
        self.clock = clock
        self.gave_way = 0
        self._used_bytes = 0
        self._used_cpu = 0.0
        self._idle_bytes = 0
        self._busy = 0
        self._pools: list[IdleHolder] = []
        self._freed = asyncio.Event()

    @property
    def used_bytes(self) -> int:
        """What is counted now."""
        return self._used_bytes

    @property
    def idle_bytes(self) -> int:
        """What of it idle instances hold."""
        return self._idle_bytes

    def join(self, pool: IdleHolder) -> None:
        """A program's pool may be asked for room from now on."""
        self._pools.append(pool)

    def part(self, pool: IdleHolder) -> None:
        """It is gone."""
        if pool in self._pools:
            self._pools.remove(pool)

    def has_cpu_for(self, cpu: float) -> bool:
        """Whether one more instance of a program that runs already would find processors."""
        return self._used_cpu + cpu <= self.cpu * CPU_SHARE

    async def take(self, memory_bytes: int, cpu: float, seconds: float) -> Share:
        """Room for an instance that starts; others that are idle give way, and working ones are waited for."""
        if memory_bytes > self.memory_bytes:
            raise MachineTooSmall(bytes=memory_bytes, memory_bytes=self.memory_bytes, reason="", stderr="")
        await self._make_room(memory_bytes, seconds)
        share = Share(memory_bytes, cpu)
        self._count(share, 1)
        return share

    def wakes(self, share: Share) -> bool:
        """An idle instance goes to work where there is room for it; where there is none, `wake` makes some."""
        more_bytes = share.memory_bytes - share.counted_bytes
        if self._used_bytes + more_bytes > self.memory_bytes and self._busy:
            return False
        self._set(share, is_busy=True)
        return True

    async def wake(self, share: Share, seconds: float) -> None:
        """The same after others gave way, or refused after so long."""
        while not share.is_busy and not self.wakes(share):
            await self._make_room(share.memory_bytes - share.counted_bytes, seconds)

    def rests(self, share: Share) -> None:
        """An instance has nothing to do any more."""
        self._set(share, is_busy=False)
        self._freed.set()

    def measured(self, share: Share, resident_bytes: int) -> None:
        """What an instance was seen to use."""
        self._count(share, -1)
        share.resident_bytes = resident_bytes
        self._count(share, 1)
        self._freed.set()

    def give_back(self, share: Share) -> None:
        """An instance has ended."""
        self._count(share, -1)
        self._freed.set()

    async def tend(self) -> None:
        """Looks at what idle instances use, and lets the longest idle go where too much is kept warm."""
        for pool in list(self._pools):
            await pool.measure()
        while self._idle_bytes > self.memory_bytes * WARM_SHARE:
            if not await self._one_gives_way():
                return

    async def _make_room(self, more_bytes: int, seconds: float) -> None:
        ends_at = self.clock() + seconds
        while self._used_bytes + more_bytes > self.memory_bytes:
            if await self._one_gives_way():
                continue
            if not self._busy:
                # Those that hold the rest are about to work as well; one of them has to be the first.
                return
            self._freed.clear()
            left_seconds = ends_at - self.clock()
            try:
                async with asyncio.timeout(max(left_seconds, 0)):
                    await self._freed.wait()
            except TimeoutError:
                raise NoMemoryLeft(
                    used_bytes=self._used_bytes,
                    memory_bytes=self.memory_bytes,
                    bytes=more_bytes,
                    concurrency=0,
                ) from None

    async def _one_gives_way(self) -> bool:
        """Stops the instance that was idle longest; false if none is idle."""
        found = [(since, pool) for pool in self._pools if (since := pool.idle_since()) is not None]
        if not found:
            return False
        _, pool = min(found, key=lambda entry: entry[0])
        self.gave_way += 1
        await pool.give_way()
        return True

    def _set(self, share: Share, *, is_busy: bool) -> None:
        if share.is_busy != is_busy:
            self._count(share, -1)
            share.is_busy = is_busy
            self._count(share, 1)

    def _count(self, share: Share, sign: int) -> None:
        self._used_bytes += sign * share.counted_bytes
        if share.is_busy:
            self._used_cpu += sign * share.cpu
            self._busy += sign
        else:
            self._idle_bytes += sign * share.counted_bytes


def machine_budget(memory_bytes: int | None = None) -> Budget:
    """The budget of this machine: its memory as far as this process may use it, or what the operator gives."""
    return Budget(memory_bytes or int(machine_memory_bytes() * MEMORY_SHARE), float(os.cpu_count() or 1))


def machine_memory_bytes() -> int:
    """The memory that this process may use: the machine's, or its control group's if that is less."""
    bytes_max = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    for name in CGROUP_MEMORY_FILES:
        try:
            text = Path(name).read_text().strip()
        except OSError:
            continue
        if text.isdigit():
            bytes_max = min(bytes_max, int(text))
    return bytes_max
