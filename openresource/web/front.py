"""The front page: what this is, in one screen, with the numbers of this very network."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any, Final

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from openresource.client.chain import NodeRefused
from openresource.web.jobs import JobBook
from openresource.web.site import Site

SERVICES_SHOWN: Final = 3
JOBS_SHOWN: Final = 3
SUPPLY_FRESH_SECONDS: Final = 15.0


@dataclass(frozen=True, slots=True)
class Supply:
    """All coins, and those that wait in channels."""

    total_uain: int
    channels_uain: int
    holders: int


class Front:
    """The front page."""

    def __init__(self, site: Site, book: JobBook) -> None:
        self._site = site
        self._book = book
        self._supply: Supply | None = None
        self._read_at = 0.0

    def routes(self) -> list[Route]:
        """All addresses."""
        return [Route("/", self.front, methods=["GET"])]

    async def front(self, request: Request) -> Response:
        return self._site.page(request, "front.html", **await self.facts())

    async def facts(self) -> dict[str, Any]:
        """What the front page says about the network."""
        site = self._site
        await site.feed.begin()
        listings = await site.market.listings()
        return {
            "listings": listings,
            "shown": [one for one in listings if one.placements][:SERVICES_SHOWN],
            "placed": sum(1 for one in listings if one.placements),
            "providers": len(await site.market.providers()),
            "supply": await self._known_supply(),
            "stories": (await self._book.newest())[:JOBS_SHOWN],
        }

    async def _known_supply(self) -> Supply | None:
        """The audit walks every holder, so it is not asked for with every block."""
        if time.monotonic() - self._read_at > SUPPLY_FRESH_SECONDS:
            self._read_at = time.monotonic()
            try:
                found = await self._site.chain.rpc("ore_supply", {"at": "final"})
            except NodeRefused:
                return self._supply
            kinds = found.get("service_accounts_uain") or {}
            self._supply = Supply(
                int(found.get("total_uain") or 0),
                int(kinds.get("channels") or 0),
                int(found.get("holders") or 0),
            )
        return self._supply
