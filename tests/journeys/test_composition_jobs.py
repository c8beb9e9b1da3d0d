"""A program asks for a job under a quorum: its caller requests it within the allowance, and brings a proven verdict."""

from __future__ import annotations

import asyncio
import subprocess
from pathlib import Path
from typing import Any

import pytest

from openresource.client import AsyncClient
from openresource.market.allowances import Allowance
from tests.journeys.jobs_stage import JobStage, job_stage, publish
from tests.journeys.stage import command_line, wait_until

pytestmark = [pytest.mark.journey, pytest.mark.sandbox, pytest.mark.timeout(200)]
BOND_UAIN = 20_000_000
PARAMETERS = {"job_stagger_ms": 100, "job_gather_ms": 2_000, "job_reveal_ms": 60_000, "job_call_ms": 500}
MANIFEST = """
name = "sure"
summary = "Has it said louder by several at once."
license = "MIT"
[run]
kind = "python"
entry = "sure:Sure"
[resources]
memory = "128Mi"
timeout_s = 60
[calls]
services = ["shout"]
allowance = "0.001"
"""
PROGRAM = """
from openresource_broker import BrokerRefused, paid

class Sure:
    def sure(self, text: str, policy: str = "quorum:2/2") -> dict:
        try:
            return paid("shout", "shout", text=text, policy=policy)
        except BrokerRefused as refusal:
            return {"code": refusal.code, "message": str(refusal)}
"""


def publish_composed(stage: JobStage) -> None:
    folder = stage.folder / "sure"
    folder.mkdir()
    (folder / "openresource.toml").write_text(MANIFEST)
    (folder / "sure.py").write_text(PROGRAM)
    words = ("publish", str(folder), "--home", str(stage.homes["publisher"].folder), "--node", stage.node.url)
    published = subprocess.run(command_line(*words), capture_output=True, text=True, timeout=180)
    assert published.returncode == 0, published.stderr + published.stdout


async def ask(stage: JobStage) -> None:
    async with AsyncClient(stage.buyer, stage.node.url) as client:
        genesis_uain = await total_uain(client)
        answer = await client.call("sure", "sure", text="is it so", allowance=Allowance(2_000))
        value: dict[str, Any] = answer.value
        assert value.get("output") == "IS IT SO", value
        (result,) = answer.inner
        assert result.job is not None and value["job"] == result.job.job
        view = await client.jobs.show(result.job.job, "final")
        assert view.policy.startswith("quorum") and len(view.winners) == 2
        assert value["total_uain"] == view.paid_uain == result.cost_uain == answer.inner_uain > 0
        assert answer.receipt["jobs"] == [result.job.job] and answer.receipt["children"] == []
        assert (await client.jobs.explain(result.job.job)).matches
        assert answer.total_uain == answer.price_uain + view.paid_uain

        small = await client.call("sure", "sure", text="again", allowance=Allowance(view.paid_uain - 1))
        assert small.value["code"] == "allowance-used-up" and small.total_uain == small.price_uain
        wrong = await client.call(
            "sure", "sure", text="again", policy="quorum:9/2", allowance=Allowance(5_000)
        )
        assert "code" in wrong.value and wrong.inner_uain == 0
        assert await total_uain(client) == genesis_uain


async def total_uain(client: AsyncClient) -> int:
    return int((await client.chain.rpc("ore_supply", {"at": "final"}))["total_uain"])


def test_a_program_has_something_done_by_a_quorum(tmp_path: Path) -> None:
    with job_stage(tmp_path, parameters=PARAMETERS) as stage:
        for name in ("one", "two"):
            stage.provide(name, bond_uain=BOND_UAIN)
        publish(tmp_path, stage.homes["publisher"], stage.node.url)
        stage.wait_placed("one", "two")
        publish_composed(stage)

        async def is_placed() -> bool:
            async with AsyncClient(stage.buyer, stage.node.url) as client:
                choice = await client.directory.choose("sure")
                return bool(await client.directory.placements(choice))

        wait_until(lambda: asyncio.run(is_placed()), 60, "the program to be placed")
        try:
            asyncio.run(asyncio.wait_for(ask(stage), 150))
        except BaseException:
            print(stage.last_words())
            raise
