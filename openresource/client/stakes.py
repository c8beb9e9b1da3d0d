"""A wallet's stake: what gives it a say in votes, read from the chain and changed by its wallet."""

from __future__ import annotations

import asyncio
import os

from openresource.client.chain import Chain
from openresource.market.accounts import stake_account
from openresource.market.stakes import Stake, read_stake
from openresource.primitives.keys import PrivateKey


async def stake_of(chain: Chain, address: str) -> Stake:
    """Somebody's stake as the chain has it."""
    record, held_uain = await asyncio.gather(
        chain.read(f"/stakes/{address}/state"), chain.balance(stake_account(address))
    )
    return read_stake(address, record, held_uain)


async def all_stake_uain(chain: Chain) -> int:
    """What counts of all stakes together."""
    return int(await chain.read("/staked/total_uain") or 0)


async def add_to_stake(chain: Chain, key: PrivateKey, amount_uain: int) -> str:
    """Stakes some of the wallet's money; gives the transaction's hash."""
    path = f"/stakes/{key.address}/add/{os.urandom(8).hex()}"
    return await chain.write(path, {"amount_uain": amount_uain}, key)


async def withdraw_stake(chain: Chain, key: PrivateKey, amount_uain: int) -> tuple[str, int]:
    """Asks for some of the stake; gives the transaction's hash and when it comes back."""
    record = os.urandom(8).hex()
    tx_hash = await chain.write(f"/stakes/{key.address}/withdraw/{record}", {"amount_uain": amount_uain}, key)
    leaving = (await stake_of(chain, key.address)).leaving.get(record)
    return tx_hash, leaving.at_ms if leaving is not None else 0
