"""Lets a version go when another one serves its name: nothing is called there any more, and nobody waits for money.

A version is succeeded when the one that its publisher chose runs somewhere. It stays what it is until no call came for
the grace time: callers with an older answer of the chain, and those who name the version, are served as before. Then
the chain hears DRAINING, which opens no new channels; calls that still come are answered, the channels are settled,
and only then it is GONE. A publisher who chooses it again on the way keeps it. Jobs name versions too: work for one
that has gone brings it back, until it is quiet again.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Collection
from typing import Final

from openresource.client.chain import Chain
from openresource.market.placements import DRAINING, GONE, PLACED
from openresource.primitives.errors import Refusal
from openresource.provider.offers import Offer, Offers

log = logging.getLogger("openresource.provider.succession")

GRACE_SECONDS_DEFAULT: Final = 30.0
CALLS_LOOK_SECONDS: Final = 0.05
# Versions that come back for work at once; the rest waits for its turn.
ASKED_MAX: Final = 8

Key = tuple[str, str, str]


class Succession:
    """The versions of this provider that were succeeded, and their way out."""

    def __init__(
        self,
        *,
        chain: Chain,
        offers: Offers,
        listed: Collection[str],
        say: Callable[[list[Offer], str], Awaitable[None]],
        settle: Callable[[Offer], Awaitable[None]],
        ended: Callable[[], None],
        grace_seconds: float = GRACE_SECONDS_DEFAULT,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._chain = chain
        self._offers = offers
        # Programs that the operator named himself; they stay.
        self._listed = listed
        self._say = say
        self._settle = settle
        self._ended = ended
        self._grace_seconds = grace_seconds
        self._clock = clock
        self._latest: dict[tuple[str, str], str] = {}
        self._since: dict[Key, float] = {}
        self._tasks: dict[Key, asyncio.Task[None]] = {}
        self._asked: set[Key] = set()

    def ask_back(self, key: Key) -> None:
        """There is work for a version that has gone: it comes back until it is quiet again."""
        if len(self._asked) < ASKED_MAX and self._offers.find(*key) is None:
            self._asked.add(key)

    def is_back(self, key: Key) -> None:
        """A version is served, whoever asked for it."""
        self._asked.discard(key)

    def asked_back(self, publisher: str, name: str) -> set[str]:
        """Versions of a service that have work again."""
        return {program for one, other, program in self._asked if (one, other) == (publisher, name)}

    def saw(self, publisher: str, name: str, latest: str) -> None:
        """What a service's publisher has chosen."""
        self._latest[publisher, name] = latest

    def is_retiring(self, key: Key) -> bool:
        """Whether a version is on its way out."""
        return key in self._tasks

    async def look(self) -> float | None:
        """Lets those go whose time has come; gives the seconds until the next one's may have, None if none waits."""
        rests: list[float] = []
        served: set[Key] = set()
        for offer in self._offers:
            key = _key(offer)
            served.add(key)
            if offer.is_draining or key in self._tasks:
                continue
            if not await self._is_succeeded(offer):
                self._since.pop(key, None)
                continue
            rest_seconds = self._rest_seconds(offer, self._since.setdefault(key, self._clock()))
            if rest_seconds > 0:
                rests.append(rest_seconds)
            else:
                self._let_go(key, offer)
        for key in self._since.keys() - served:
            del self._since[key]
        return min(rests, default=None)

    async def close(self) -> None:
        """The provider itself leaves; it says so for all."""
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)

    def _rest_seconds(self, offer: Offer, since: float) -> float:
        if offer.lane.running or offer.lane.waiting:
            return self._grace_seconds
        return max(since, offer.lane.left_at) + self._grace_seconds - self._clock()

    async def _is_succeeded(self, offer: Offer) -> bool:
        latest = self._latest.get((offer.publisher, offer.name), offer.program)
        if latest == offer.program or offer.program in self._listed:
            return False
        here = self._offers.find(offer.publisher, offer.name, latest)
        if here is not None and not here.is_draining:
            return True
        records = await self._chain.read(f"/placements/{offer.publisher}/{offer.name}/{latest}")
        return isinstance(records, dict) and any(
            isinstance(record, dict) and record.get("status") == PLACED for record in records.values()
        )

    def _is_chosen(self, offer: Offer) -> bool:
        return self._latest.get((offer.publisher, offer.name)) == offer.program

    def _let_go(self, key: Key, offer: Offer) -> None:
        task = asyncio.create_task(self._retire(key, offer))
        self._tasks[key] = task

        def over(done: asyncio.Task[None]) -> None:
            self._tasks.pop(key, None)
            self._since.pop(key, None)
            # It may have been chosen again in the meantime.
            self._ended()

        task.add_done_callback(over)

    async def _retire(self, key: Key, offer: Offer) -> None:
        log.info("version %s of %s was succeeded and goes", offer.version.version, offer.service)
        try:
            await self._say([offer], DRAINING)
            await self._calls_ended(offer)
            await self._settle(offer)
            if self._is_chosen(offer):
                await self._say([offer], PLACED)
                return
            # Within one turn of the loop: whoever comes now hears that it is not here, and goes to the next.
            offer.is_draining = True
            await self._calls_ended(offer)
            self._offers.remove(offer)
            await offer.runner.close()
            await self._say([offer], GONE)
        except Refusal as refusal:
            # The chain did not hear it; the record says DRAINING or PLACED until the next look.
            log.warning("version %s of %s goes later: %s", offer.version.version, offer.service, refusal)
            if self._offers.find(*key) is offer:
                offer.is_draining = False

    async def _calls_ended(self, offer: Offer) -> None:
        while offer.lane.running or offer.lane.waiting:
            await asyncio.sleep(CALLS_LOOK_SECONDS)


def _key(offer: Offer) -> Key:
    return offer.publisher, offer.name, offer.program
