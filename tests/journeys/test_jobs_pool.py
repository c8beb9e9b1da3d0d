"""Several machines share jobs under one stake: leases name the one provider, and the work is spread."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import Any

import pytest

from openresource.client import AsyncClient
from openresource.client.bonds import keep_bond
from openresource.provider.service import Provider
from tests.journeys.test_fleet_join import joined, with_a_pool
from tests.provider.market import Market, until

pytestmark = pytest.mark.journey


@pytest.mark.timeout(240)
def test_machines_that_joined_work_on_jobs_under_the_stake_of_one_provider(tmp_path: Path) -> None:
    async def work(market: Market, provider: Provider, buyer: AsyncClient) -> None:
        await market.node.fund(provider.address, 50_000_000)
        await keep_bond(market.chain, market.provider_key, 20_000_000)
        with joined(tmp_path / "second", f"@{provider.join_key_file}") as machine:
            await asyncio.to_thread(machine.said, "join", "Joined")
            await until(lambda: len(provider.machines) == 1)
            await until(lambda: all(offer.lane.capacity == 2 for offer in provider.offers))
            born: set[str] = set()
            # An instance over there starts when there is work for it, and takes its time.
            ends = time.monotonic() + 90
            while len(born) < 2:
                assert time.monotonic() < ends, "one machine did all the work"
                results = await asyncio.gather(*(ask(buyer) for _ in range(6)))
                born |= {str(result.value) for result in results}
                for result in results:
                    assert list(result.view.executions) == [provider.address]
            assert sum(one["instances"] for one in provider.machines) >= 1

    async def ask(buyer: AsyncClient) -> Any:
        handle = await buyer.jobs.run(
            "shout", "nap", {"seconds": 0.6}, policy="audited:0", deadline_seconds=90
        )
        return await handle.result()

    with_a_pool(tmp_path, work, seconds=200)
