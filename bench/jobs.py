"""How long a job takes, step by step, and how many a second: node, providers and sandboxes as processes on loopback.

Run `python bench/jobs.py [--json]`. A requester asks for one job after the other and measures from before the request
is made to the worker's start (by the program's own clock, on the same machine), to the first result, and to the
verdict. Then many at once are asked for, and at the end it is weighed what a settled job leaves in the state.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import math
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from openresource.client import AsyncClient  # noqa: E402
from tests.journeys.jobs_stage import JobStage, job_stage, publish_folder  # noqa: E402

POLICIES = ("one", "audited:0", "audited:1", "quorum:2/3")
PROVIDERS = ("one", "two", "three")
BOND_UAIN = 100_000_000
AT_ONCE = 16
KEEP_MS = 2_000
MANIFEST = """
name = "{name}"
summary = "Measured."
license = "MIT"
exactness = "{exactness}"
royalty = "0.00002"
[run]
kind = "python"
entry = "service:{name}"
[[methods]]
name = "{name}"
price = {{model = "per_call", amount = "0.0001"}}
example = {{input = {{text = "hello"}}}}
"""
SOURCE = """import time


def clock(text: str) -> float:
    return time.time()


def shout(text: str) -> str:
    return text.upper()
"""


def main() -> None:
    """Set the stage, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument(
        "--jobs", type=int, default=40, help="jobs one after the other, each policy (default: 40)"
    )
    parser.add_argument("--many", type=int, default=200, help="jobs with 16 at once (default: 200)")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="openresource-jobs-") as folder:
        found = measure(Path(folder), arguments.jobs, arguments.many)
    print(json.dumps(found, indent=1) if arguments.json else text_of(found))


def measure(folder: Path, jobs: int, many: int) -> dict[str, Any]:
    """Everything."""
    with job_stage(folder, parameters={"job_keep_ms": KEEP_MS}) as stage:
        print("starting a node and three providers …", file=sys.stderr)
        with ThreadPoolExecutor() as hands:
            list(hands.map(lambda name: stage.provide(name, bond_uain=BOND_UAIN), PROVIDERS))
        for name, exactness in (("clock", "subjective"), ("shout", "bit_exact")):
            program = folder / name
            program.mkdir()
            (program / "openresource.toml").write_text(MANIFEST.format(name=name, exactness=exactness))
            (program / "service.py").write_text(SOURCE)
            publish_folder(program, stage.homes["publisher"], stage.node.url)
            stage.service = f"{stage.publisher.address}/{name}"
            stage.wait_placed(*PROVIDERS)
        return asyncio.run(measured(stage, jobs, many))


async def measured(stage: JobStage, jobs: int, many: int) -> dict[str, Any]:
    async with AsyncClient(stage.buyer, stage.node.url) as client:
        started = [await start_ms(stage, client) for _ in range(jobs)]
        rows: dict[str, Any] = {"one": {"start_ms": spread(started)}}
        for policy in POLICIES:
            print(f"measuring {policy} …", file=sys.stderr)
            early, final = [], []
            for number in range(jobs):
                began = time.perf_counter()
                handle = await client.jobs.run(stage.service, inputs={"text": f"{number}"}, policy=policy)
                await handle.provisional()
                early.append(1000 * (time.perf_counter() - began))
                await handle.result()
                final.append(1000 * (time.perf_counter() - began))
            row = rows.setdefault(policy, {})
            row |= {"provisional_ms": spread(early), "verdict_ms": spread(final)}
        for policy in ("one", "audited:0"):
            rows[policy]["jobs_per_second"] = await throughput(stage, client, policy, many)
        return {"policies": rows, "state_bytes": await state_bytes(client)}


async def start_ms(stage: JobStage, client: AsyncClient) -> float:
    """From before the request to the program's first line."""
    began = time.time()
    clock = f"{stage.publisher.address}/clock"
    result = await (await client.jobs.run(clock, inputs={"text": "now"})).result()
    return 1000 * (float(result.value) - began)


async def throughput(stage: JobStage, client: AsyncClient, policy: str, many: int) -> float:
    gate = asyncio.Semaphore(AT_ONCE)

    async def one(number: int) -> None:
        async with gate:
            await (
                await client.jobs.run(stage.service, inputs={"text": f"many {number}"}, policy=policy)
            ).result()

    began = time.perf_counter()
    async with asyncio.TaskGroup() as group:
        for number in range(many):
            group.create_task(one(number))
    return round(many / (time.perf_counter() - began), 1)


async def state_bytes(client: AsyncClient) -> dict[str, int]:
    """What is left of a job when it has been folded: as text, and as the tree counts itself."""
    ends_at = time.monotonic() + 60
    while time.monotonic() < ends_at:
        async for job in client.chain.children("/jobs"):
            record = await client.chain.read(f"/jobs/{job}")
            if isinstance(record, dict) and "folded" in record:
                info = await client.chain.rpc("ain_getStateInfo", {"ref": f"/values/jobs/{job}"})
                key_bytes = len(job)
                text = json.dumps(record, separators=(",", ":"))
                return {"text": key_bytes + len(text), "tree": key_bytes + int(info.get("tree_bytes") or 0)}
        await asyncio.sleep(0.2)
    return {}


def spread(values: list[float]) -> dict[str, float]:
    """Median and the value that one in twenty exceeds."""
    ordered = sorted(values)
    return {
        "p50": round(ordered[len(ordered) // 2], 1),
        "p95": round(ordered[min(len(ordered) - 1, math.ceil(len(ordered) * 0.95) - 1)], 1),
    }


def text_of(found: dict[str, Any]) -> str:
    """A table for people."""
    lines = [
        f"{'policy':<12}{'worker starts':>18}{'first result':>18}{'verdict':>18}{'jobs/s':>9}   (p50/p95 ms)"
    ]
    for policy, row in found["policies"].items():
        cells = [
            f"{row[name]['p50']:.0f}/{row[name]['p95']:.0f}" if name in row else "-"
            for name in ("start_ms", "provisional_ms", "verdict_ms")
        ]
        speed = row.get("jobs_per_second", "-")
        lines.append(f"{policy:<12}" + "".join(f"{cell:>18}" for cell in cells) + f"{speed:>9}")
    left = found["state_bytes"]
    lines.append(
        f"a settled job leaves {left.get('text')} bytes as text, {left.get('tree')} as the tree counts"
    )
    return "\n".join(lines)


if __name__ == "__main__":
    main()
