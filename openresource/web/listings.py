"""The services of the market as lists show them, read again only when the chain changed something about them."""

from __future__ import annotations

import asyncio
import time
from typing import Final

from openresource.client.services import Directory, Listing
from openresource.web.feed import Feed

AGE_SECONDS_MAX: Final = 30.0


class Market:
    """All listings, kept until a service or a placement changes."""

    def __init__(self, directory: Directory, feed: Feed) -> None:
        self.directory = directory
        self._feed = feed
        self._listings: list[Listing] = []
        self._version = -1
        self._read_at = 0.0
        self._reading = asyncio.Lock()

    async def listings(self, query: str = "") -> list[Listing]:
        """Services that hold every word of a query in their name, summary, domain or publisher."""
        await self._feed.begin()
        async with self._reading:
            age = time.monotonic() - self._read_at
            # Without news from the chain nothing tells us that a list became old.
            is_fresh = self._version == self._feed.market_version and age < AGE_SECONDS_MAX
            if not is_fresh or self._feed.trouble:
                version = self._feed.market_version
                self._listings = await self.directory.search()
                self._version, self._read_at = version, time.monotonic()
        words = query.lower().split()
        return [one for one in self._listings if all(word in _text(one) for word in words)]

    async def providers(self) -> set[str]:
        """Everybody who runs a service now."""
        return {placement.provider for one in await self.listings() for placement in one.placements}


def _text(listing: Listing) -> str:
    version = listing.choice.version
    return f"{listing.choice.name} {version.summary} {version.domain} {listing.choice.publisher}".lower()
