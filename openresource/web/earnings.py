"""What providers earn: what the chain paid them, and what their gateways say about today.

The chain decides what was paid. A gateway is asked for what it counts itself, over the connection whose key the chain
names; it is optional news from the provider and shown as such.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from openresource.client.bonds import bond_of
from openresource.client.chain import NodeRefused
from openresource.client.homes import Home
from openresource.client.wires import Wire
from openresource.market.accounts import channel_account
from openresource.market.channels import read_channel
from openresource.market.fees import split_claim
from openresource.market.placements import Placement
from openresource.market.records import NO_RECORD, ProviderRecord, read_provider_record
from openresource.primitives.encoding import parse_json
from openresource.primitives.errors import Refusal
from openresource.web.site import Site

BUYERS_READ_MAX: Final = 500
CHANNELS_READ_MAX: Final = 5_000
CHANNELS_FRESH_SECONDS: Final = 3.0
GATEWAY_SECONDS: Final = 2.0
GATEWAY_BYTES_MAX: Final = 512 * 1024
LINES_READ_MAX: Final = 5_000

_SAMPLE = re.compile(r"([a-z_]+)(?:\{([^}]*)\})? ([0-9.e+-]+)")
_SERVICE = re.compile(r'service="([^"]*)"')


@dataclass(slots=True)
class ServiceEarnings:
    """One service at one provider."""

    name: str
    publisher: str
    claimed_uain: int = 0
    # About: each claim was rounded for itself.
    kept_uain: int = 0
    channels: int = 0
    deposits_uain: int = 0
    placement: Placement | None = None


@dataclass(slots=True)
class Gateway:
    """What a gateway says about itself since it started."""

    started_at_ms: int = 0
    calls: int = 0
    earned_uain: int = 0
    unclaimed_uain: int = 0
    running: int = 0


@dataclass(slots=True)
class Earner:
    """A provider: its wallet, its services, its gateway."""

    address: str
    home: str
    balance_uain: int
    record: ProviderRecord = NO_RECORD
    bond_uain: int = 0
    services: list[ServiceEarnings] = field(default_factory=list)
    gateway: Gateway | None = None
    gateway_trouble: str = ""

    @property
    def claimed_uain(self) -> int:
        """Everything that buyers paid through it."""
        return sum(one.claimed_uain for one in self.services)

    @property
    def kept_uain(self) -> int:
        """Its own part of that."""
        return sum(one.kept_uain for one in self.services)


@dataclass(frozen=True, slots=True)
class _Paid:
    """A channel as far as earnings go."""

    provider: str
    publisher: str
    name: str
    claimed_uain: int
    kept_uain: int
    account: str


class Earnings:
    """The page about earnings."""

    def __init__(self, site: Site) -> None:
        self._site = site
        self._channels: list[_Paid] = []
        self._read_at = 0.0
        self._reading = asyncio.Lock()

    def routes(self) -> list[Route]:
        """All addresses."""
        return [Route("/earnings", self.earnings, methods=["GET"])]

    async def earnings(self, request: Request) -> Response:
        homes = [home for home in self._site.provider_homes if home.has_wallet()]
        channels = await self._all_channels() if homes else []
        earners = await asyncio.gather(*(self._earner(home, channels) for home in homes))
        return self._site.page(request, "earnings.html", earners=earners)

    async def _earner(self, home: Home, channels: list[_Paid]) -> Earner:
        chain = self._site.chain
        address = home.address()
        earner = Earner(
            address,
            str(home.folder),
            await chain.balance(address),
            read_provider_record(await chain.read(f"/records/{address}")),
            (await bond_of(chain, address)).counted_uain,
        )
        by_service: dict[tuple[str, str], ServiceEarnings] = {}

        def service(publisher: str, name: str) -> ServiceEarnings:
            return by_service.setdefault((publisher, name), ServiceEarnings(name, publisher))

        for listing in await self._site.market.listings():
            for placement in (*listing.placements, *listing.refusals):
                if placement.provider == address:
                    service(placement.publisher, placement.name).placement = placement
        for paid in channels:
            if paid.provider == address:
                one = service(paid.publisher, paid.name)
                one.claimed_uain += paid.claimed_uain
                one.kept_uain += paid.kept_uain
                deposit_uain = await chain.balance(paid.account)
                if deposit_uain:
                    one.channels += 1
                    one.deposits_uain += deposit_uain
        earner.services = sorted(by_service.values(), key=lambda one: (-one.claimed_uain, one.name))
        reachable = [one.placement for one in earner.services if one.placement and one.placement.endpoint]
        if reachable:
            await self._ask(earner, reachable[0])
        else:
            earner.gateway_trouble = "It offers nothing just now."
        return earner

    async def _ask(self, earner: Earner, placement: Placement) -> None:
        """What the gateway says; whatever it says, the page comes."""
        wire: Wire | None = None
        try:
            wire = Wire(placement, await self._site.chain.domain())
            async with asyncio.timeout(GATEWAY_SECONDS):
                overview = await self._get(wire, "/")
                metrics = await self._get(wire, "/metrics")
            record = parse_json(overview, bytes_max=GATEWAY_BYTES_MAX, depth_max=16)
            earner.gateway = gateway_of(record, metrics.decode("utf-8", "replace"))
        except TimeoutError:
            earner.gateway_trouble = f"Its gateway did not answer within {GATEWAY_SECONDS:.0f} s."
        except Refusal as refusal:
            earner.gateway_trouble = refusal.message
        finally:
            if wire is not None:
                await wire.close()

    async def _get(self, wire: Wire, path: str) -> bytes:
        status, _, body = await wire.request(
            "GET", path, headers={}, seconds=GATEWAY_SECONDS, bytes_max=GATEWAY_BYTES_MAX
        )
        if status != 200:
            raise Refusal(f"Its gateway answered {path} with status {status}.")
        return body

    async def _all_channels(self) -> list[_Paid]:
        """Every channel of the network, read at most once in a few seconds."""
        async with self._reading:
            if time.monotonic() - self._read_at > CHANNELS_FRESH_SECONDS:
                self._channels = await self._read_channels()
                self._read_at = time.monotonic()
            return self._channels

    async def _read_channels(self) -> list[_Paid]:
        found: list[_Paid] = []
        buyers = 0
        async for buyer in self._site.chain.children("/channels"):
            buyers += 1
            if buyers > BUYERS_READ_MAX or len(found) >= CHANNELS_READ_MAX:
                break
            try:
                records = await self._site.chain.read(f"/channels/{buyer}")
            except NodeRefused:
                continue  # More than the node gives at once.
            found.extend(_paid(buyer, records))
        return found


def _paid(buyer: str, records: Any) -> list[_Paid]:
    found = []
    for name, record in records.items() if isinstance(records, Mapping) else ():
        try:
            channel, terms = read_channel(buyer, record.get("state"), 0)
        except (Refusal, AttributeError):
            continue  # In a form that is not known here.
        split = split_claim(channel.claimed_uain, terms.ask_uain, terms.royalty_uain, terms.fee_ppm)
        account = channel_account(buyer, str(name))
        found.append(
            _Paid(
                terms.provider,
                terms.publisher,
                terms.name,
                channel.claimed_uain,
                split.provider_uain,
                account,
            )
        )
    return found


def gateway_of(overview: Any, metrics: str) -> Gateway:
    """A gateway's own account, from its overview and its metrics; what is not understood counts as nothing."""
    gateway = Gateway()
    started = overview.get("started_at_ms") if isinstance(overview, Mapping) else None
    gateway.started_at_ms = started if isinstance(started, int) else 0
    for line in metrics.split("\n", LINES_READ_MAX)[:LINES_READ_MAX]:
        sample = _SAMPLE.fullmatch(line.strip())
        if sample is None:
            continue
        name, labels, number = sample[1], sample[2] or "", _whole(sample[3])
        match name:
            case "openresource_calls_total" if 'outcome="answered"' in labels or 'outcome="ok"' in labels:
                gateway.calls += number
            case "openresource_earned_uain_total":
                gateway.earned_uain += number
            case "openresource_unclaimed_uain":
                gateway.unclaimed_uain = number
            case "openresource_calls_running":
                gateway.running = number
    return gateway


def _whole(text: str) -> int:
    try:
        return int(float(text))
    except (ValueError, OverflowError):
        return 0
