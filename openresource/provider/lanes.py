"""Lanes: so many calls of an offer run at once, a bounded queue waits, and who would wait too long hears so at once.

The queue is fair between buyers: places that become free go round among those who wait, and when it is full the buyer
with the most waiting calls gives way to one with fewer. A call is told no before its payment counts, when the wait that
is to be expected is longer than it may wait.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections import deque
from collections.abc import Callable
from typing import Final

from openresource.provider.statuses import UNAVAILABLE, register
from openresource.sandbox.driver import Overloaded

# How many calls may wait for each that can run, and how long.
WAITING_PER_PLACE = 8
WAITING_MIN = 16
WAITING_SECONDS_MAX = 10.0
# How quickly the mean time of a call follows the newest one.
NEWEST_SHARE: Final = 0.1
RETRY_MS_MIN: Final = 50
RETRY_MS_MAX: Final = 30_000


class LaneFull(Overloaded):
    """No place in time: refused before any payment counts."""

    template = "{in_flight} calls are under way on {capacity} places; one more would wait {wait_ms} ms."
    way_out = "Nothing was charged. Try again in {retry_ms} ms, or call another provider."
    code = "overloaded"


register(LaneFull, UNAVAILABLE)


class Place:
    """A call's place in a lane, from the moment in which it is expected until it has left."""

    __slots__ = ("_began", "_is_running", "_lane", "buyer", "waiter")

    def __init__(self, lane: Lane, buyer: str) -> None:
        self.buyer = buyer
        self.waiter: asyncio.Future[None] | None = None
        self._lane: Lane | None = lane
        self._is_running = False
        self._began = 0.0

    async def enter(self, patience_seconds: float | None = None) -> None:
        """Runs when this returns; waits for its turn if need be."""
        lane = self._lane
        assert lane is not None and not self._is_running
        try:
            await lane.wait(self, WAITING_SECONDS_MAX if patience_seconds is None else patience_seconds)
        except BaseException:
            self._lane = None
            raise
        self._is_running = True
        self._began = lane.clock()

    def leave(self) -> None:
        """The call is over, or was never begun; asking twice does no harm."""
        lane, self._lane = self._lane, None
        if lane is None:
            return
        if self._is_running:
            lane.ended(lane.clock() - self._began)
        else:
            lane.expected -= 1


class _NoPlace(Place):
    """Nothing was promised: for a call that is only asked about again."""

    __slots__ = ()

    def __init__(self) -> None:
        self.buyer, self.waiter, self._lane = "", None, None
        self._is_running, self._began = False, 0.0


UNBOUND: Final[Place] = _NoPlace()


class Lane:
    """Places for calls that run at once, and a bounded queue before them."""

    def __init__(self, capacity: int, *, clock: Callable[[], float] = time.monotonic) -> None:
        self.capacity = capacity
        self.running = 0
        # Calls that were promised a place and are still on their way to it.
        self.expected = 0
        # When the last call ended, on the monotonic clock; 0 while none did.
        self.left_at = 0.0
        self.waiting = 0
        self.waiting_max = max(WAITING_MIN, capacity * WAITING_PER_PLACE)
        self.shed = 0
        self.clock = clock
        # The mean time of a call; 0 before the first has ended.
        self.call_seconds = 0.0
        self._queues: dict[str, deque[Place]] = {}
        # Buyers who wait, in the order of their next turn.
        self._turns: deque[str] = deque()

    @property
    def in_flight(self) -> int:
        """Calls that run, wait or come."""
        return self.running + self.expected + self.waiting

    @property
    def has_room(self) -> bool:
        """Whether a call may run or wait."""
        return self.running < self.capacity or self.waiting < self.waiting_max

    def expected_wait_seconds(self, buyer: str = "") -> float:
        """How long one more call of a buyer would wait, by the calls that have its turn before it."""
        if not self.waiting and self.running + self.expected < self.capacity:
            return 0.0
        mine = len(self._queues.get(buyer, ()))
        before = sum(
            min(len(queue), mine + 1) if other != buyer else mine for other, queue in self._queues.items()
        )
        # Those that are expected are there before it, too.
        before += max(0, self.running + self.expected - self.capacity)
        return self.call_seconds * (before + 1) / self.capacity

    def load_text(self) -> bytes:
        """What every answer says of the load: in_flight/capacity;wait_ms=…"""
        wait_ms = int(self.expected_wait_seconds() * 1000)
        return b"%d/%d;wait_ms=%d" % (self.in_flight, self.capacity, wait_ms)

    def check_room(self, buyer: str = "", patience_seconds: float | None = None) -> None:
        """Refuses a call that would find no place in time, before any work is done for it."""
        wait_seconds = self.expected_wait_seconds(buyer)
        patience = min(patience_seconds or WAITING_SECONDS_MAX, WAITING_SECONDS_MAX)
        if wait_seconds > patience or not self._may_queue(buyer):
            raise self.refusal(wait_seconds, patience)

    def reserve(self, buyer: str = "", patience_seconds: float | None = None) -> Place:
        """Promises a place to a call whose payment is still to be taken; refuses it where there is none in time."""
        self.check_room(buyer, patience_seconds)
        self.expected += 1
        return Place(self, buyer)

    async def wait(self, place: Place, patience_seconds: float) -> None:
        """Takes the place that was promised, after its turn; for the place alone."""
        self.expected -= 1
        if self.running < self.capacity and not self.waiting:
            self.running += 1
            return
        if self.waiting >= self.waiting_max:
            self._give_way(place.buyer)
        place.waiter = asyncio.get_running_loop().create_future()
        self._enqueue(place)
        try:
            async with asyncio.timeout(min(max(patience_seconds, 0.001), WAITING_SECONDS_MAX)):
                await place.waiter
        except BaseException as error:
            waiter = place.waiter
            if waiter.done() and not waiter.cancelled() and waiter.exception() is None:
                # The place was handed over while we gave up.
                self.ended(None)
            else:
                self._dequeue(place)
            if isinstance(error, TimeoutError):
                raise self.refusal(self.expected_wait_seconds(place.buyer)) from None
            raise

    def ended(self, seconds: float | None) -> None:
        """Gives the place to the next who waits; the time that the call took counts for those to come."""
        self.left_at = self.clock()
        if seconds is not None:
            share = NEWEST_SHARE if self.call_seconds else 1.0
            self.call_seconds += share * (seconds - self.call_seconds)
        while self._turns:
            buyer = self._turns.popleft()
            queue = self._queues[buyer]
            place = queue.popleft()
            self.waiting -= 1
            if queue:
                self._turns.append(buyer)
            else:
                del self._queues[buyer]
            if place.waiter is not None and not place.waiter.done():
                place.waiter.set_result(None)
                return
        self.running -= 1

    def refusal(self, wait_seconds: float, patience_seconds: float = WAITING_SECONDS_MAX) -> LaneFull:
        """No, with the time after which it may be yes."""
        self.shed += 1
        # When as much of the queue is gone as is too much; of a full one, when a place is free.
        excess_seconds = wait_seconds - patience_seconds
        retry_seconds = excess_seconds if excess_seconds > 0 else self.call_seconds / self.capacity
        return LaneFull(
            in_flight=self.in_flight,
            capacity=self.capacity,
            concurrency=self.capacity,
            wait_ms=math.ceil(wait_seconds * 1000),
            retry_ms=min(max(RETRY_MS_MIN, math.ceil(retry_seconds * 1000)), RETRY_MS_MAX),
        )

    def _may_queue(self, buyer: str) -> bool:
        """Whether there is room in the queue, or somebody has more of it than this buyer would have."""
        if self.running + self.expected + self.waiting < self.capacity + self.waiting_max:
            return True
        mine = len(self._queues.get(buyer, ()))
        return any(len(queue) > mine + 1 for other, queue in self._queues.items() if other != buyer)

    def _give_way(self, buyer: str) -> None:
        """Takes the newest call out of the longest queue, if that is longer than this buyer's would be."""
        longest = max(self._queues, key=lambda other: len(self._queues[other]))
        if longest == buyer or len(self._queues[longest]) <= len(self._queues.get(buyer, ())) + 1:
            raise self.refusal(self.expected_wait_seconds(buyer))
        evicted = self._queues[longest][-1]
        self._dequeue(evicted)
        assert evicted.waiter is not None
        if not evicted.waiter.done():
            evicted.waiter.set_exception(self.refusal(self.expected_wait_seconds(longest)))

    def _enqueue(self, place: Place) -> None:
        queue = self._queues.get(place.buyer)
        if queue is None:
            queue = self._queues[place.buyer] = deque()
            self._turns.append(place.buyer)
        queue.append(place)
        self.waiting += 1

    def _dequeue(self, place: Place) -> None:
        queue = self._queues.get(place.buyer)
        if queue is None or place not in queue:
            return
        queue.remove(place)
        self.waiting -= 1
        if not queue:
            del self._queues[place.buyer]
            self._turns.remove(place.buyer)
