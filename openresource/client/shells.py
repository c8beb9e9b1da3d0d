"""Machines that open to people, from the side of who wants in: finding one, renting it, vouching for a key."""

from __future__ import annotations

import asyncio
import os
from dataclasses import dataclass
from typing import Final

from openresource.client.chain import Chain
from openresource.market.machines import (
    MachineMissing,
    MachineOffer,
    Right,
    read_machine,
    right_of,
)
from openresource.market.ssh_keys import PublicKey, ssh_key_record
from openresource.primitives.errors import Refusal
from openresource.primitives.keys import PrivateKey, checksum_address, is_address

MACHINES_READ_MAX: Final = 1_000
READS_AT_ONCE: Final = 16


class MachineAmbiguous(Refusal):
    template = "{count} machines are called {node}: {machines}."
    way_out = "Name one by its address."


@dataclass(frozen=True, slots=True)
class Seen:
    """A machine and what an address may do there now."""

    offer: MachineOffer
    right: Right | None


async def machines(chain: Chain, address: str, at_ms: int) -> list[Seen]:
    """Every machine that opens, those first that the address may enter."""
    names = []
    async for name in chain.children("/machines"):
        names.append(name)
        if len(names) >= MACHINES_READ_MAX:
            break
    gate = asyncio.Semaphore(READS_AT_ONCE)

    async def one(name: str) -> Seen | None:
        async with gate:
            return await look_at(chain, name, address, at_ms)

    found = [seen for seen in await asyncio.gather(*(one(name) for name in names)) if seen is not None]
    return sorted(
        found, key=lambda seen: (seen.right is None, seen.offer.price_uain or 0, seen.offer.machine)
    )


async def look_at(chain: Chain, machine: str, address: str, at_ms: int) -> Seen | None:
    """One machine; None if it does not open, or its record cannot be read."""
    base = f"/machines/{machine}"
    record, guest, tenant = await asyncio.gather(
        chain.read(f"{base}/offer"),
        chain.read(f"{base}/guests/{address}"),
        chain.read(f"{base}/tenants/{address}"),
    )
    if record is None:
        return None
    try:
        offer = read_machine(machine, record)
        return Seen(offer, right_of(offer, guest, tenant, address, at_ms))
    except Refusal:
        return None


async def find_machine(chain: Chain, node: str, address: str, at_ms: int) -> Seen:
    """The machine that a person means: by address, by endpoint with or without ssh://, or by its name."""
    if is_address(node):
        seen = await look_at(chain, checksum_address(node), address, at_ms)
        if seen is None:
            raise MachineMissing(machine=node)
        return seen
    wanted = node if "://" in node else f"ssh://{node}"
    everywhere = await machines(chain, address, at_ms)
    found = [seen for seen in everywhere if seen.offer.endpoint == wanted or seen.offer.name == node]
    if not found:
        raise MachineMissing(machine=node)
    if len(found) > 1:
        raise MachineAmbiguous(
            node=node, count=len(found), machines=", ".join(seen.offer.machine for seen in found[:5])
        )
    return found[0]


async def vouch_for_key(chain: Chain, key: PrivateKey, public: PublicKey) -> str:
    """Writes that a key is this wallet's; the transaction's hash, empty if the chain knows it already."""
    path = f"/ssh_keys/{key.address}/{public.fingerprint}"
    known = await chain.read(path)
    if isinstance(known, dict) and known.get("key") == public.text:
        return ""
    return await chain.write(path, ssh_key_record(public), key)


async def rent_machine(chain: Chain, key: PrivateKey, offer: MachineOffer, minutes: int) -> str:
    """Pays for minutes at the price that was seen; gives the transaction's hash."""
    path = f"/machines/{offer.machine}/rentals/{os.urandom(8).hex()}"
    return await chain.write(path, {"minutes": minutes, "price_uain": offer.price_uain}, key)


async def admit_guest(chain: Chain, key: PrivateKey, machine: str, guest: str, until_ms: int | None) -> str:
    """Lets somebody in until a time, or shows somebody out; by the owner."""
    value = None if until_ms is None else {"until_ms": until_ms}
    return await chain.write(f"/machines/{machine}/guests/{guest}", value, key)
