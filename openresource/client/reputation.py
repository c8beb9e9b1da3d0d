"""A provider's reputation and its files in the form of ERC-8004, computed here from what the chain holds."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

from openresource.client.chain import Chain
from openresource.client.services import Directory
from openresource.market.erc8004 import (
    Registration,
    feedback_json,
    own_registration,
    registration_json,
)
from openresource.market.labels import Verified, read_verified
from openresource.market.placements import Placement
from openresource.market.records import read_provider_record
from openresource.market.reputation import Pair, Reputation, read_pair, reputation_of

PAIRS_READ_MAX: Final = 10_000
READS_AT_ONCE: Final = 16


@dataclass(frozen=True, slots=True)
class Standing:
    """A provider's reputation with the pairs that it is made of, as of a height."""

    provider: str
    reputation: Reputation
    pairs: Mapping[str, Pair]
    height: int


async def standing_of(chain: Chain, provider: str) -> Standing:
    """What the chain knows of a provider."""
    status, record = await asyncio.gather(chain.status(), chain.read(f"/records/{provider}"))
    buyers: list[str] = []
    async for buyer in chain.children(f"/pairs/{provider}"):
        buyers.append(buyer)
        if len(buyers) >= PAIRS_READ_MAX:
            break
    gate = asyncio.Semaphore(READS_AT_ONCE)

    async def pair(buyer: str) -> Pair:
        async with gate:
            return read_pair(await chain.read(f"/pairs/{provider}/{buyer}"))

    found = await asyncio.gather(*(pair(buyer) for buyer in buyers))
    pairs = dict(zip(buyers, found, strict=True))
    return Standing(provider, reputation_of(read_provider_record(record), pairs), pairs, status.height)


async def verified_of(chain: Chain, program: str) -> Verified:
    """What the chain saw of a program's jobs."""
    return read_verified(await chain.read(f"/verified/{program}"))


async def erc8004_of(
    chain: Chain,
    directory: Directory,
    provider: str,
    registrations: Sequence[Registration] = (),
    *,
    page: str = "",
) -> dict[str, Any]:
    """Registration and feedback files; without a registration elsewhere the provider stands on its own chain."""
    standing, network, listings = await asyncio.gather(
        standing_of(chain, provider), chain.domain(), directory.search()
    )
    places = list(registrations) or [own_registration(provider, network)]
    served: list[tuple[Placement, str]] = [
        (placement, listing.choice.version.version)
        for listing in listings
        for placement in listing.placements
        if placement.provider == provider
    ]
    since_ms = standing.reputation.record.since_ms
    times = {provider: _iso(since_ms)} | {buyer: _iso(pair.last_ms) for buyer, pair in standing.pairs.items()}
    feedback = [
        file
        for one in places
        for file in feedback_json(
            provider,
            one,
            standing.pairs,
            standing.reputation,
            network,
            created_at=times,
            height=standing.height,
        )
    ]
    registration = registration_json(provider, places, served, standing.reputation, page=page)
    return {"registration": registration, "feedback": feedback}


def _iso(at_ms: int) -> str:
    return datetime.fromtimestamp(at_ms / 1000, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
