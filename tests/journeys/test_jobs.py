"""Jobs with everybody a process of its own: a liar, a crasher, a sleeper and two honest providers, and every coin's account.

OPENRESOURCE_JOBS=500   so many jobs (`scripts/long job-journey`)
"""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from openresource.client import AsyncClient
from openresource.client.job_views import JobFailed, JobResult
from openresource.client.jobs import JobHandle
from tests.journeys.jobs_stage import (
    JobStage,
    account_of_every_coin,
    account_text,
    job_stage,
    publish,
)
from tests.journeys.stage import wait_until

pytestmark = pytest.mark.journey

JOBS = int(os.environ.get("OPENRESOURCE_JOBS", "20"))
# Who waits for a sleeper's lease to end waits beside others.
AT_ONCE = 16 if JOBS > 100 else 6
BOND_UAIN = 20_000_000
DISPUTE_BOND_UAIN = 100_000
# Of jobs whose provider dies or sleeps, the next one waits no longer than this.
PARAMETERS = {
    "job_lease_ms": 8_000,
    "job_stagger_ms": 100,
    "job_gather_ms": 2_000,
    "job_secret_ms": 20_000,
    "job_audit_ms": 60_000,
    "job_reveal_ms": 60_000,
    "job_referee_ms": 30_000,
    "job_call_ms": 500,
}
FAULTS = {"liar": 1.0, "crasher": 0.05, "sleeper": 0.15}


@pytest.mark.timeout(120 + 6 * JOBS)
def test_a_liar_a_crasher_and_a_sleeper_cost_nobody_but_themselves(tmp_path: Path) -> None:
    with job_stage(tmp_path, parameters=PARAMETERS) as stage:
        with ThreadPoolExecutor() as hands:
            for name in ("honest-1", "honest-2"):
                hands.submit(stage.provide, name, bond_uain=BOND_UAIN)
            for name, share in FAULTS.items():
                hands.submit(stage.provide, name, fault=name, share=share, bond_uain=BOND_UAIN)
        publish(tmp_path, stage.homes["publisher"], stage.node.url)
        stage.wait_placed("honest-1", "honest-2", *FAULTS)
        before = asyncio.run(account_of_every_coin(stage))
        began = time.monotonic()
        told = asyncio.run(ask_for_many(stage))
        seconds = time.monotonic() - began
        for name in ("honest-1", "honest-2", "liar", "sleeper"):
            stage.providers[name].end(signal.SIGTERM)
        after = asyncio.run(account_of_every_coin(stage))
        print(f"{JOBS} jobs in {seconds:.1f} s: {dict(told)}\n{account_text(after)}")
        check_accounts(before, after, told)


async def ask_for_many(stage: JobStage) -> Counter[str]:
    """Many jobs, some at a time; what became of them."""
    told: Counter[str] = Counter()
    gate = asyncio.Semaphore(AT_ONCE)
    async with AsyncClient(stage.buyer, stage.node.url) as client:
        keeper = asyncio.create_task(keep_alive(stage, told))

        async def one(number: int) -> None:
            async with gate:
                await ask(stage, client, number, told)

        try:
            async with asyncio.TaskGroup() as group:
                for number in range(JOBS):
                    group.create_task(one(number))
        finally:
            keeper.cancel()
            await asyncio.gather(keeper, return_exceptions=True)
    return told


async def keep_alive(stage: JobStage, told: Counter[str]) -> None:
    """Whoever crashed is started again, as an operator would have it."""
    while True:
        await asyncio.sleep(0.2)
        if not stage.providers["crasher"].is_running():
            told["crashes"] += 1
            await asyncio.to_thread(stage.providers["crasher"].start)


async def ask(stage: JobStage, client: AsyncClient, number: int, told: Counter[str]) -> None:
    policy = ("audited", "quorum:2/3", "audited:0.5")[number % 3]
    handle = await client.jobs.run(
        stage.service, inputs={"text": f"soup {number}"}, policy=policy, deadline_seconds=60
    )
    try:
        result: JobResult = await handle.result()
    except JobFailed as refusal:
        told[f"{policy} {refusal.status}"] += 1
        told[refusal.reason] += 1
        assert refusal.status in ("REFUTED", "UNRESOLVED", "EXPIRED"), refusal.message
    else:
        told[f"{policy} {result.view.status}"] += 1
        if result.value != f"SOUP {number}":
            # A lie passes only where nobody looked: the requester wished for fewer audits, or no auditor had time.
            lines = (await client.jobs.explain(handle.id)).lines
            is_unseen = len([run for run in result.view.executions.values() if run.get("status")]) == 1
            assert is_unseen and policy != "quorum:2/3", "\n".join(lines)
            told["lies accepted"] += 1
            told[f"lies {await disputed(client, handle)}"] += 1
    explanation = await client.jobs.explain(handle.id)
    assert explanation.matches, "\n".join(explanation.lines)
    for provider, reason in (explanation.verdict.get("punished") or {}).items():
        told[f"{stage.name_of(provider)} punished: {reason}"] += 1


async def disputed(client: AsyncClient, handle: JobHandle) -> str:
    """What becomes of a lie that its requester disputes."""
    await client.jobs.dispute(handle.id, bond_uain=DISPUTE_BOND_UAIN)
    for _ in range(600):
        view = await client.jobs.show(handle.id, "final")
        if view.is_final and "judgement" in view.record:
            return view.status
        await asyncio.sleep(0.1)
    return view.status


def check_accounts(before: dict[str, int], after: dict[str, int], told: Counter[str]) -> None:
    """No coin came or went; the honest lost nothing, and the liar's bond paid."""
    assert after["supply"] == before["supply"] and after["elsewhere"] == before["elsewhere"]
    for name in ("honest-1", "honest-2"):
        assert after[f"{name}'s bond"] == BOND_UAIN and after[name] > before[name]
    # In the end nothing may be left of its bond.
    assert after["liar"] + after.get("liar's bond", 0) < before["liar"] + BOND_UAIN - BOND_UAIN // 20
    # Where a sleeper and a crasher are called as referees, they may be too few to say that it was a lie.
    assert told["lies accepted"] == told["lies REFUTED"] + told["lies ACCEPTED"], told
    accepted = sum(count for name, count in told.items() if name.endswith("ACCEPTED"))
    assert accepted >= JOBS // 3, told
    punished: dict[str, Any] = {name: count for name, count in told.items() if "punished" in name}
    assert not any(name.startswith("honest") for name in punished), punished


@pytest.mark.timeout(180)
def test_a_leaseholder_that_is_killed_in_the_middle_is_replaced_and_the_job_finishes(tmp_path: Path) -> None:
    with job_stage(tmp_path, parameters={"job_lease_ms": 15_000}) as stage:
        for name in ("one", "two"):
            stage.provide(name)
        publish(tmp_path, stage.homes["publisher"], stage.node.url)
        stage.wait_placed("one", "two")
        asyncio.run(kill_in_the_middle(stage))


async def kill_in_the_middle(stage: JobStage) -> None:
    async with AsyncClient(stage.buyer, stage.node.url) as client:
        handle = await client.jobs.run(
            stage.service, inputs={"text": "nap 4 hours"}, policy="audited:0", deadline_seconds=120
        )
        victim = ""
        async for view in handle.events():
            if view.status == "LEASED" and not victim:
                victim = stage.name_of(str(view.state["provider"]))
                stage.providers[victim].kill()
        result = await handle.result()
        winner = stage.name_of(result.view.winners[0])
        assert result.value == "NAP 4 HOURS" and winner != victim
        assert result.view.executions[stage.address(victim)]["is_over"]
        # The one that was killed comes back, and finds nothing to be punished for.
        await asyncio.to_thread(stage.providers[victim].start)
        explanation = await client.jobs.explain(handle.id)
        assert explanation.matches and "punished" not in explanation.verdict
    wait_until(lambda: stage.providers[victim].is_running(), 60, "the victim to be back")
