"""A provider passes over what it is not fit for, says why, and takes it once it is."""

from __future__ import annotations

from pathlib import Path

import pytest

from openresource.client.bonds import add_to_bond, withdraw_bond
from openresource.market.predicates import RunIf, run_if_record
from openresource.provider.service import Provider
from tests.provider.market import Market, until, write_program
from tests.provider.test_service import on_a_market

pytestmark = pytest.mark.journey


def reason_of(provider: Provider) -> str:
    return "".join(entry["reason"] for entry in provider.placements.summary)


async def demand(market: Market, run_if: RunIf) -> None:
    path = f"/services/{market.publisher.address}/shout/permissions"
    await market.chain.write(path, {"run_if": run_if_record(run_if)}, market.publisher)


def test_a_version_is_passed_over_with_the_reason_and_taken_once_the_bond_is_there(tmp_path: Path) -> None:
    async def work(market: Market) -> None:
        await demand(market, RunIf(cpu=1, regions=("kr-seoul",), bond_uain=1_000))
        provider = await market.provide(region="kr-seoul")
        prepared, _ = await market.publish(write_program(tmp_path / "program"), wait_seconds=0)
        path = f"/placements/{market.publisher.address}/shout/{prepared.program}/{provider.address}"

        async def is_passed_over() -> bool:
            return "bond of 0.001 AIN" in reason_of(provider)

        await until(is_passed_over)
        assert await market.chain.read(path) is None
        await market.node.fund(provider.address, 5_000)
        await add_to_bond(market.chain, market.provider_key, 1_000)

        async def is_placed() -> bool:
            return bool(await market.chain.read(f"{path}/status") == "PLACED")

        await until(is_placed)
        record = await market.chain.read(path)
        assert record["region"] == "kr-seoul" and record["hardware"]["cpu"] >= 1
        assert record["warm"] is True and record["start_ms"] > 0 and "memory=" in record["limits"]
        assert reason_of(provider) == ""
        # Whoever takes the bond away stops serving, by itself.
        await withdraw_bond(market.chain, market.provider_key, 1)

        async def is_gone() -> bool:
            return bool(await market.chain.read(f"{path}/status") == "GONE")

        await until(is_gone)
        assert "bond" in reason_of(provider)

    on_a_market(tmp_path, work)


def test_a_machine_in_the_wrong_place_takes_nothing(tmp_path: Path) -> None:
    async def work(market: Market) -> None:
        await demand(market, RunIf(regions=("eu-west",)))
        provider = await market.provide(region="kr-seoul")
        await market.publish(write_program(tmp_path / "program"), wait_seconds=0)

        async def is_passed_over() -> bool:
            return "eu-west" in reason_of(provider) and "kr-seoul" in reason_of(provider)

        await until(is_passed_over)
        assert await market.chain.read(f"/placements/{market.publisher.address}") is None

    on_a_market(tmp_path, work)
