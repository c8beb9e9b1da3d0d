"""Jobs on a real chain: a write asks, a provider leases and runs, the result comes back to its path and is paid."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from openresource.client.chain import set_function, set_rule, set_value
from openresource.client.job_views import JobFailed
from openresource.primitives.keys import PrivateKey
from openresource.sandbox.pool import ProgramPool
from tests.provider.market import Market, open_market, until, write_program

pytestmark = pytest.mark.journey
APP = "kitchen"


def on_a_market(folder: Path, work: Callable[[Market], Awaitable[Any]], seconds: float = 170) -> Any:
    async def body() -> Any:
        async with open_market(folder) as market:
            return await work(market)

    return asyncio.run(asyncio.wait_for(body(), seconds))


async def make_app(market: Market, program: str, **entry: Any) -> PrivateKey:
    """An app whose requests start the program, with money for it."""
    chain = market.chain
    developer = await market.node.funded_key(2_000_000)
    app = {"admin": {developer.address: True}}
    await chain.write(f"/manage_app/{APP}/create/{secrets.token_hex(8)}", app, developer)
    function = {
        "function_type": "PROGRAM",
        "function_id": "shout",
        "cid": program,
        "policy": "one",
        "budget": "0.001",
        "result_path": f"/apps/{APP}/results/$key",
        **entry,
    }
    await chain.submit_final(
        [
            set_rule(f"/apps/{APP}/requests/$key", {".rule": {"write": "true"}}),
            set_function(f"/apps/{APP}/requests/$key", {".function": {"shout": function}}),
        ],
        developer,
    )
    status = await chain.status()
    fund = {"amount_uain": 1_000_000, "expires_at_ms": status.time_ms + 3_600_000}
    await chain.write(f"/holds/{APP}/default/fund/{secrets.token_hex(8)}", fund, developer)
    return developer


async def job_states(market: Market) -> list[Any]:
    jobs = await market.chain.read("/jobs")
    return [job["state"] for job in jobs.values()] if isinstance(jobs, dict) else []


def test_a_write_becomes_a_result_and_the_provider_is_paid(tmp_path: Path) -> None:
    async def work(market: Market) -> None:
        provider = await market.provide()
        prepared, _ = await market.publish(write_program(tmp_path / "program"))
        await make_app(market, prepared.program, method="shout")
        asker = await market.node.funded_key(1_000_000)
        for number in range(3):
            await market.chain.submit(set_value(f"/apps/{APP}/requests/k{number}", f"soup {number}"), asker)

        async def results() -> Any:
            found = await market.chain.read(f"/apps/{APP}/results")
            return found if isinstance(found, dict) and len(found) == 3 else None

        assert await until(results) == {"k0": "SOUP 0", "k1": "SOUP 1", "k2": "SOUP 2"}
        assert [state["status"] for state in await job_states(market)] == ["ACCEPTED"] * 3
        assert await market.chain.balance(provider.address) == 3 * 78
        assert await market.chain.balance(f"holds|market|{APP}:default") == 1_000_000 - 300

    on_a_market(tmp_path, work)


def test_what_the_program_cannot_do_fails_and_costs_nothing(tmp_path: Path) -> None:
    async def work(market: Market) -> None:
        provider = await market.provide()
        prepared, _ = await market.publish(write_program(tmp_path / "program"))
        await make_app(market, prepared.program, method="shout")
        asker = await market.node.funded_key(1_000_000)
        await market.chain.write(f"/apps/{APP}/requests/k0", {"number": 7}, asker)

        async def failed() -> Any:
            states = await job_states(market)
            return states if states and states[0]["status"] == "FAILED" else None

        states = await until(failed)
        assert "text" in states[0]["reason"]
        assert await market.chain.balance(provider.address) == 0
        assert await market.chain.balance(f"holds|market|{APP}:default") == 1_000_000

    on_a_market(tmp_path, work)


def test_a_job_that_waited_for_a_provider_is_taken_when_one_comes(tmp_path: Path) -> None:
    async def work(market: Market) -> None:
        provider = await market.provide()
        prepared, _ = await market.publish(write_program(tmp_path / "program"))
        await make_app(market, prepared.program, method="shout")
        asker = await market.node.funded_key(1_000_000)
        await provider.stop()
        await market.chain.write(f"/apps/{APP}/requests/late", "dinner", asker)
        await market.provide()

        async def result() -> Any:
            return await market.chain.read(f"/apps/{APP}/results/late")

        assert await until(result) == "DINNER"

    on_a_market(tmp_path, work)


@pytest.mark.timeout(240)
def test_a_run_whose_lease_is_over_is_killed_in_its_sandbox(tmp_path: Path) -> None:
    async def work() -> None:
        parameters = {"market": {"job_lease_ms": 10_000}}
        async with open_market(tmp_path, parameters=parameters) as market:
            provider = await market.provide()
            await market.publish(write_program(tmp_path / "program"))
            (offer,) = provider.offers
            assert isinstance(offer.runner, ProgramPool)
            async with await market.buyer() as buyer:
                handle = await buyer.jobs.run(
                    "shout", "nap", {"seconds": 60}, policy="one", deadline_seconds=60
                )
                await until(lambda: provider.jobs.running)
                instance: Any = offer.runner._slots[0].instance
                assert instance.alive and is_there(instance.pid)
                with pytest.raises(JobFailed):
                    await handle.result()
                await until(lambda: not is_there(instance.pid))
                # The place is free again, and the program starts anew for whoever asks next.
                after = await buyer.jobs.run("shout", "shout", {"text": "soup"}, deadline_seconds=60)
                assert (await after.result()).value == "SOUP"

    asyncio.run(asyncio.wait_for(work(), 200))


def is_there(pid: int) -> bool:
    """Whether a process lives."""
    return Path(f"/proc/{pid}").exists()
