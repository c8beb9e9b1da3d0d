"""Everybody who runs services: what they offer, what others verified of it, and what stands behind their word."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import Final

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from openresource.client.bonds import bond_of
from openresource.client.job_stories import JobStory
from openresource.market.bonds import Bond
from openresource.market.placements import Placement
from openresource.market.records import ProviderRecord, read_provider_record
from openresource.web.jobs import JobBook
from openresource.web.site import Site

PROVIDERS_SHOWN: Final = 100
READS_AT_ONCE: Final = 8


@dataclass(frozen=True, slots=True)
class Fault:
    """A proven fault: in which job, what it cost, and why."""

    story: JobStory
    uain: int
    sentence: str


@dataclass(frozen=True, slots=True)
class Standing:
    """One provider."""

    address: str
    placements: tuple[Placement, ...]
    record: ProviderRecord
    bond: Bond
    faults: tuple[Fault, ...] = field(default=())

    @property
    def slashed_uain(self) -> int:
        return sum(fault.uain for fault in self.faults)


class Providers:
    """The page about providers."""

    def __init__(self, site: Site, book: JobBook) -> None:
        self._site = site
        self._book = book

    def routes(self) -> list[Route]:
        """All addresses."""
        return [Route("/providers", self.providers, methods=["GET"])]

    async def providers(self, request: Request) -> Response:
        standings = await self.standings()
        return self._site.page(request, "providers.html", standings=standings)

    async def standings(self) -> list[Standing]:
        """Those who offer something now and those whose faults are still told of, the most verified first."""
        by_provider: dict[str, list[Placement]] = {}
        for listing in await self._site.market.listings():
            for placement in listing.placements:
                by_provider.setdefault(placement.provider, []).append(placement)
        slashes = await self._book.slashes()
        names = sorted({*by_provider, *slashes})[:PROVIDERS_SHOWN]
        gate = asyncio.Semaphore(READS_AT_ONCE)

        async def one(provider: str) -> Standing:
            async with gate:
                record = await self._site.chain.read(f"/records/{provider}")
                bond = await bond_of(self._site.chain, provider)
            faults = tuple(Fault(*fault) for fault in slashes.get(provider, ()))
            placements = tuple(by_provider.get(provider, ()))
            return Standing(provider, placements, read_provider_record(record), bond, faults)

        found = await asyncio.gather(*map(one, names))
        return sorted(found, key=lambda one: (one.record.faults, -one.record.valid, one.address))
