"""A provider's bond and record, read from the chain and changed by its wallet."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from openresource.client.chain import Chain
from openresource.client.money import bond_of
from openresource.market.bonds import BOND_DELAY_MS_DEFAULT, Bond, Withdrawal, delay_ms, withdraw
from openresource.market.jobs.terms import settings_of
from openresource.primitives.keys import PrivateKey

__all__ = [
    "add_to_bond",
    "bond_of",
    "keep_bond",
    "planned_withdrawal",
    "withdraw_bond",
]


async def add_to_bond(chain: Chain, key: PrivateKey, amount_uain: int, *, provider: str = "") -> str:
    """Puts the wallet's money into a bond, its own unless another is named; gives the transaction's hash."""
    path = f"/bonds/{provider or key.address}/add/{os.urandom(8).hex()}"
    return await chain.write(path, {"amount_uain": amount_uain}, key)


async def withdraw_bond(chain: Chain, key: PrivateKey, amount_uain: int) -> tuple[str, int]:
    """Asks for some of the bond; gives the transaction's hash and when it comes back."""
    record = os.urandom(8).hex()
    tx_hash = await chain.write(f"/bonds/{key.address}/withdraw/{record}", {"amount_uain": amount_uain}, key)
    bond: Bond = await bond_of(chain, key.address)
    leaving = (bond.leaving or {}).get(record)
    return tx_hash, leaving.at_ms if leaving is not None else 0


async def planned_withdrawal(chain: Chain, bond: Bond, amount_uain: int) -> Withdrawal:
    """What a withdrawal would be if it were asked for now, or the refusal that it would meet."""
    found = await chain.read("/blockchain_params/market")
    parameters: Mapping[str, Any] = found if isinstance(found, Mapping) else {}
    own_ms = parameters.get("bond_delay_ms", BOND_DELAY_MS_DEFAULT)
    wait_ms = delay_ms(own_ms, settings_of(parameters).answers_ms)
    return withdraw(bond, amount_uain, (await chain.status()).time_ms, wait_ms)


async def keep_bond(chain: Chain, key: PrivateKey, amount_uain: int) -> int:
    """Adds what is missing to a bond of this size; gives what was added."""
    missing = amount_uain - (await bond_of(chain, key.address)).counted_uain
    if missing > 0:
        await add_to_bond(chain, key, missing)
    return max(0, missing)
