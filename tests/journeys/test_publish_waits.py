"""A publisher whose provider is named on the chain a moment before it can be called."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from openresource.client.wires import Wire
from tests.provider.market import open_market, write_program

pytestmark = [pytest.mark.journey, pytest.mark.sandbox]
STARTING = b'{"error": {"code": "service-starting", "message": "This provider is starting the program."}}'


def test_a_provider_that_is_still_starting_is_called_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []
    request = Wire.request

    async def early(wire: Wire, verb: str, path: str, **options: Any) -> Any:
        asked.append(path)
        return (503, {}, STARTING) if len(asked) == 1 else await request(wire, verb, path, **options)

    async def work() -> None:
        async with open_market(tmp_path) as market:
            await market.provide()
            monkeypatch.setattr(Wire, "request", early)
            # It returns when the example's call was answered.
            prepared, _ = await market.publish(write_program(tmp_path / "program"))
            assert len(asked) == 2 and all(prepared.program in path for path in asked)

    asyncio.run(asyncio.wait_for(work(), 150))
