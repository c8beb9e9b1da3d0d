"""Where each coin of a wallet is and when it returns, read from the chain; what was spent, from the books."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from openresource.client.books import DAY_MS, Books
from openresource.client.chain import Chain
from openresource.client.homes import Home, Limits
from openresource.client.stakes import stake_of
from openresource.market.accounts import bond_account, channel_account, hold_account, job_account
from openresource.market.bonds import Bond, read_bond
from openresource.market.jobs import asked_job_id
from openresource.market.kills import Ballot, read_ballot
from openresource.market.money import (
    ChannelFunds,
    Coins,
    HoldFunds,
    JobFunds,
    total_uain,
    where_coins_are,
)

CHANNELS_READ_MAX: Final = 1_000
HOLDS_READ_MAX: Final = 500
JOBS_READ_MAX: Final = 1_000
KILLS_READ_MAX: Final = 500
READS_AT_ONCE: Final = 16


@dataclass(frozen=True, slots=True)
class Money:
    """A wallet's money: all places that hold some, what calls cost in the last 24 hours, and the limits."""

    address: str
    places: tuple[Coins, ...]
    spent_day_uain: int
    limits: Limits

    @property
    def wallet_uain(self) -> int:
        """What is free to spend."""
        return self.places[0].amount_uain

    @property
    def total_uain(self) -> int:
        """All of it, wherever it is."""
        return total_uain(self.places)


async def money_of(
    home: Home,
    chain: Chain,
    books: Books,
    *,
    clock_ms: Callable[[], int] = lambda: int(time.time() * 1000),
) -> Money:
    """The money of a home's wallet; the chain decides, so that a coin which the books forgot is found as well."""
    address = home.address()
    status = await chain.status()
    wallet_uain, channels, holds, bond = await asyncio.gather(
        chain.balance(address), _channels(chain, address), _holds(chain, address), bond_of(chain, address)
    )
    stake, ballots = await asyncio.gather(stake_of(chain, address), _ballots(chain))
    of_holds = await _jobs(chain, {(hold.app, hold.name) for hold in holds})
    jobs = [*of_holds, *(await _asked(chain, address))]
    entries = books.channels(status.genesis_hash)
    signed = {entry.name: max(0, entry.purse.signed_uain) for entry in entries}
    at_ms = clock_ms()
    places = where_coins_are(
        address,
        wallet_uain,
        at_ms=at_ms,
        channels=channels,
        holds=holds,
        jobs=jobs,
        bond=bond,
        stake=stake,
        ballots=ballots,
        signed_uain=signed,
    )
    return Money(address, places, books.spent_uain(at_ms - DAY_MS), home.limits())


async def bond_of(chain: Chain, provider: str) -> Bond:
    """A provider's bond as the chain has it."""
    record, held_uain = await asyncio.gather(
        chain.read(f"/bonds/{provider}/state"), chain.balance(bond_account(provider))
    )
    return read_bond(provider, record, held_uain)


async def _channels(chain: Chain, address: str) -> list[ChannelFunds]:
    names = [label async for label in _first(chain, f"/channels/{address}", CHANNELS_READ_MAX)]
    gate = asyncio.Semaphore(READS_AT_ONCE)

    async def one(name: str) -> ChannelFunds | None:
        async with gate:
            record, balance_uain = await asyncio.gather(
                chain.read(f"/channels/{address}/{name}/state"),
                chain.balance(channel_account(address, name)),
            )
        return ChannelFunds(name, record, balance_uain) if isinstance(record, dict) else None

    found = await asyncio.gather(*(one(name) for name in names))
    return [funds for funds in found if funds is not None]


async def _holds(chain: Chain, address: str) -> list[HoldFunds]:
    found: list[HoldFunds] = []
    async for app in _first(chain, "/holds", HOLDS_READ_MAX):
        async for name in _first(chain, f"/holds/{app}", HOLDS_READ_MAX):
            record = await chain.read(f"/holds/{app}/{name}/state")
            if isinstance(record, dict) and record.get("owner") == address:
                balance_uain = await chain.balance(hold_account(app, name))
                found.append(HoldFunds(app, name, record, balance_uain))
    return found


async def _jobs(chain: Chain, holds: set[tuple[str, str]]) -> list[JobFunds]:
    """Jobs that still hold a budget which came from these holds."""
    found: list[JobFunds] = []
    if not holds:
        return found
    async for job in _first(chain, "/jobs", JOBS_READ_MAX):
        record: Any = await chain.read(f"/jobs/{job}")
        request = record.get("request") if isinstance(record, dict) else None
        if isinstance(request, dict) and (request.get("app"), request.get("hold")) in holds:
            balance_uain = await chain.balance(job_account(job))
            if balance_uain:
                found.append(JobFunds(job, request, record["state"], balance_uain))
    return found


async def _ballots(chain: Chain) -> list[Ballot]:
    """The votes that are open."""
    found: list[Ballot] = []
    async for program in _first(chain, "/kills", KILLS_READ_MAX):
        key = await chain.read(f"/kills/{program}/state/ballot")
        if isinstance(key, str):
            record = await chain.read(f"/kills/{program}/ballots/{key}")
            found.append(read_ballot(program, key, record))
    return found


async def _asked(chain: Chain, requester: str) -> list[JobFunds]:
    """Jobs that this wallet asked for and that still hold some of its money."""
    found: list[JobFunds] = []
    async for key in _first(chain, f"/job_requests/{requester}", JOBS_READ_MAX):
        job = asked_job_id(requester, key)
        balance_uain = await chain.balance(job_account(job))
        record: Any = await chain.read(f"/jobs/{job}") if balance_uain else None
        if isinstance(record, dict) and "state" in record:
            found.append(JobFunds(job, record["request"], record["state"], balance_uain))
    return found


async def _first(chain: Chain, path: str, count_max: int) -> Any:
    count = 0
    async for label in chain.children(path):
        yield label
        count += 1
        if count >= count_max:
            return
