"""Decides whether this machine is fit to run a service, before the chain is asked: the same demands, the same answer."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from openresource.client.chain import Chain
from openresource.client.money import bond_of
from openresource.market.hardware import NOTHING_SAID, Hardware
from openresource.market.predicates import NO_DEMANDS, Offered, check_run_if
from openresource.market.records import NO_RECORD, read_provider_record
from openresource.market.services import Permissions, check_run_permitted


@dataclass(frozen=True, slots=True)
class Fitness:
    """What this provider brings; bond and record are read when a publisher asks for them."""

    chain: Chain
    address: str
    hardware: Hardware = NOTHING_SAID
    region: str = ""

    async def check(
        self, permissions: Permissions, publisher: str, name: str, isolation: str, runtime: str | None = None
    ) -> None:
        """Refuses with what the publisher asks and this machine lacks; without a runtime that demand waits."""
        check_run_permitted(permissions, publisher, name, self.address, isolation)
        run_if = permissions.run_if
        if run_if == NO_DEMANDS:
            return
        bond_uain, record = 0, NO_RECORD
        if run_if.bond_uain or run_if.claims or run_if.claimed_uain:
            bond, found = await asyncio.gather(
                bond_of(self.chain, self.address), self.chain.read(f"/records/{self.address}")
            )
            bond_uain, record = bond.counted_uain, read_provider_record(found)
        offered = Offered(
            provider=self.address,
            isolation=isolation,
            hardware=self.hardware,
            runtime=runtime or "",
            region=self.region,
            bond_uain=bond_uain,
            record=record,
        )
        check_run_if(run_if, name, offered, is_runtime_known=runtime is not None)
