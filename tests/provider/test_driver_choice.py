"""A provider with several drivers: each version goes where its publisher and this operator let it, and offers say so."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from openresource.adapters.bubblewrap.driver import Bubblewrap
from openresource.sandbox.drivers import Drivers
from openresource.sandbox.gpus import Devices, Gpu
from tests.provider.market import Market, open_market, until, write_program

pytestmark = pytest.mark.sandbox


def on_a_market(folder: Path, work: Callable[[Market], Awaitable[None]]) -> None:
    """Runs it with everybody there."""

    async def main() -> None:
        async with open_market(folder) as market:
            await work(market)

    asyncio.run(main())


def program(folder: Path, resources: str) -> Path:
    """The usual program with other wishes."""
    written = write_program(folder)
    manifest = written / "openresource.toml"
    manifest.write_text(manifest.read_text().replace("timeout_s = 10", f"timeout_s = 10\n{resources}"))
    return written


async def placed(market: Market, provider: Any, prepared: Any, statuses: tuple[str, ...]) -> dict[str, Any]:
    """The placement's record once it has one of these statuses."""
    path = f"/placements/{market.publisher.address}/shout/{prepared.program}/{provider.address}"

    async def record() -> Any:
        found = await market.chain.read(path)
        return found if isinstance(found, dict) and found["status"] in statuses else None

    return dict(await until(record))


@pytest.mark.parametrize(
    ("allowed", "status"), [((), "REFUSED"), (("api.example.org:443",), "PLACED"), (("any",), "PLACED")]
)
def test_a_program_that_wants_a_network_runs_where_the_operator_allows_it(
    tmp_path: Path, allowed: tuple[str, ...], status: str
) -> None:
    async def work(market: Market) -> None:
        provider = await market.provide(allowed_network=allowed)
        folder = program(tmp_path / "program", 'network = ["api.example.org:443"]')
        prepared, _ = await market.publish(folder, wait_seconds=0)
        record = await placed(market, provider, prepared, ("REFUSED", "PLACED"))
        assert record["status"] == status, record
        if status == "REFUSED":
            assert "wants to reach api.example.org:443" in record["reason"]
            assert "--allow-network api.example.org:443" in record["reason"]

    on_a_market(tmp_path, work)


def test_a_program_that_needs_a_device_runs_at_the_level_of_devices(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = Bubblewrap()
    if not plain.probe().available:
        pytest.skip(f"bubblewrap does not start here: {plain.probe().why_not}")
    devices = Devices(
        [Gpu("nvidia", 0, "GPU-cafecafe", "made up", 16 << 30, "/dev/null")], tmp_path / "locks"
    )
    drivers = Drivers([plain, Bubblewrap(devices=devices)])
    monkeypatch.setattr("tests.provider.market.find_drivers", lambda: drivers)

    async def work(market: Market) -> None:
        folder = program(tmp_path / "program", 'gpu = {count = 1, vendor = "nvidia", memory = "8Gi"}')
        prepared, _ = await market.publish(folder, wait_seconds=0)
        provider = await market.provide()
        record = await placed(market, provider, prepared, ("REFUSED", "PLACED"))
        assert record["status"] == "PLACED", record
        assert record["isolation"] == "bubblewrap+gpu" and "gpu=untested" in record["limits"]

    on_a_market(tmp_path, work)


def test_a_program_that_needs_what_no_driver_has_is_refused_by_name(tmp_path: Path) -> None:
    async def work(market: Market) -> None:
        drivers = Drivers([Bubblewrap()])
        with pytest.MonkeyPatch.context() as patched:
            devices = Devices([Gpu("amd", 0, "", "made up", 1 << 30, "/dev/null")], tmp_path / "locks")
            patched.setattr(
                "tests.provider.market.find_drivers", lambda: Drivers([Bubblewrap(devices=devices)])
            )
            folder = program(tmp_path / "program", "gpu = {count = 1}")
            prepared, _ = await market.publish(folder, wait_seconds=0)
            patched.setattr("tests.provider.market.find_drivers", lambda: drivers)
            provider = await market.provide()
        record = await placed(market, provider, prepared, ("REFUSED", "PLACED"))
        assert record["status"] == "REFUSED" and "no GPU" in record["reason"], record

    on_a_market(tmp_path, work)
