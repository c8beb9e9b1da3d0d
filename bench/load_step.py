"""From one caller to two hundred, against three providers of which one is slow and one dies: who was answered, who paid.

Run `python bench/load_step.py [--json]`. Node, providers and sandboxes are real processes on loopback. The slow provider
is stopped and continued all the time, and promises more room than it has; the dying one is killed without warning and
comes back. At the end all channels are settled, and every coin is looked up: what callers were told, what providers
have receipts for, and what the chain paid must be one story.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from openresource.client import AsyncClient  # noqa: E402
from openresource.client.chain import Chain  # noqa: E402
from openresource.client.homes import Home  # noqa: E402
from openresource.primitives.errors import Refusal  # noqa: E402
from tests.journeys.stage import Child, command_line, wait_until  # noqa: E402
from tests.support.network import NodeProcess  # noqa: E402

MANIFEST = """
name = "fleet"
summary = "Says it louder, after a moment."
license = "MIT"
royalty = "0.00002"
[run]
kind = "python"
entry = "service:shout"
[[methods]]
name = "shout"
price = {model = "per_call", amount = "0.0001"}
example = {input = {text = "hello"}, output = "HELLO"}
"""
SOURCE = """import time


def shout(text: str) -> str:
    time.sleep(0.02)
    return text.upper()
"""
BUYERS = 4
BUYER_UAIN = 50_000_000
CALL_SECONDS = 60.0
# Of each tenth of a second the slow provider works this much.
SLOW_WORKS_SECONDS, SLOW_RESTS_SECONDS = 0.04, 0.06
PROVIDERS = ("good", "slow", "dying")
OPTIONS = {
    "good": ("--capacity", "4"),
    # It promises sixteen places, and has memory for two.
    "slow": ("--capacity", "16", "--memory", "1.1"),
    "dying": ("--capacity", "4"),
}


def main() -> None:
    """Set the stage, go up the steps, look at every coin, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument(
        "--callers",
        default="1,10,50,100,200",
        help="how many at once, step by step (default: 1,10,50,100,200)",
    )
    parser.add_argument("--seconds", type=float, default=10.0, help="how long each step lasts (default: 10)")
    parser.add_argument("--kills", type=int, default=3, help="how often one provider dies (default: 3)")
    arguments = parser.parse_args()
    steps = [int(number) for number in arguments.callers.split(",")]
    with tempfile.TemporaryDirectory(prefix="openresource-load-") as folder:
        found = run_load(Path(folder), steps, arguments.seconds, arguments.kills)
    if arguments.json:
        print(json.dumps(found, indent=1))
    else:
        print(text_of(found))
    if found["faults"]:
        sys.exit(1)


def run_load(folder: Path, steps: list[int], seconds: float, kills: int) -> dict[str, Any]:
    """Everything: what each step gave, and what is wrong with the books, if anything."""
    with contextlib.ExitStack() as stack:
        fleet = Fleet(folder)
        stack.callback(fleet.end)
        try:
            fleet.start()
            found = asyncio.run(fleet.work(steps, seconds, kills))
            for provider in fleet.providers.values():
                provider.end(signal.SIGTERM)
            found["faults"] = asyncio.run(fleet.faults(found))
        except BaseException:
            print(fleet.last_words(), file=sys.stderr)
            raise
        return found


@dataclass
class Told:
    """What callers of one step were told."""

    milliseconds: list[float] = field(default_factory=list)
    providers: Counter[str] = field(default_factory=Counter)
    refused: Counter[str] = field(default_factory=Counter)
    moved_on: int = 0


class Fleet:
    """A node, three providers, some buyers, and what became of their calls."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.node = NodeProcess(folder / "node")
        names = (*PROVIDERS, "publisher", *(f"buyer-{number}" for number in range(BUYERS)))
        self.homes = {name: Home(folder / name) for name in names}
        self.providers: dict[str, Child] = {}
        self.answers: list[str] = []
        self.refusals: list[str] = []
        self.service = ""

    def start(self) -> None:
        """Everybody is there and the service runs at all three."""
        self.node.start()
        keys = {name: home.create_wallet() for name, home in self.homes.items()}
        for name in PROVIDERS:
            words = ("provide", "--json", "--accept", "all", "--home", str(self.homes[name].folder))
            command = command_line(*words, "--node", self.node.url, *OPTIONS[name])
            child = Child(name, command, self._folder / f"{name}.log", says_ready=True)
            child.start()
            self.providers[name] = child
        program = self._folder / "program"
        program.mkdir()
        (program / "openresource.toml").write_text(MANIFEST)
        (program / "service.py").write_text(SOURCE)
        words = (
            "publish",
            str(program),
            "--home",
            str(self.homes["publisher"].folder),
            "--node",
            self.node.url,
        )
        published = subprocess.run(command_line(*words), capture_output=True, text=True, timeout=180)
        assert published.returncode == 0, published.stdout + published.stderr
        self.service = f"{keys['publisher'].address}/fleet"
        asyncio.run(self._fund([key.address for name, key in keys.items() if name.startswith("buyer")]))
        wait_until(lambda: asyncio.run(self._placed()) == len(PROVIDERS), 60, "all providers to run it")

    def end(self) -> None:
        """Everybody is gone."""
        for child in self.providers.values():
            child.kill()
        if self.node.is_running():
            self.node.kill()

    def last_words(self) -> str:
        """What each process wrote last."""
        files = [*sorted(self._folder.glob("*.log")), self.node.log_file]
        shown = [file for file in files if file.exists()]
        return "\n".join(f"── {file.name}\n{file.read_text(errors='replace')[-3_000:]}" for file in shown)

    async def _fund(self, addresses: list[str]) -> None:
        for address in addresses:
            await self.node.fund(address, BUYER_UAIN)

    async def _placed(self) -> int:
        async with Chain(self.node.url) as chain:
            record = await chain.read(f"/placements/{self.service}") or {}
        return sum(one["status"] == "PLACED" for version in record.values() for one in version.values())

    # ── The load ─────────────────────────────────────────────────────────────────────────────────────────────

    async def work(self, steps: list[int], seconds: float, kills: int) -> dict[str, Any]:
        """All steps, one after the other, under a slow and a dying provider."""
        rows = []
        async with contextlib.AsyncExitStack() as stack:
            buyers = [
                await stack.enter_async_context(AsyncClient(self.homes[f"buyer-{number}"], self.node.url))
                for number in range(BUYERS)
            ]
            slowing = asyncio.create_task(self._slow_down())
            for number, callers in enumerate(steps):
                dying = None
                if number >= len(steps) - kills:
                    dying = asyncio.create_task(self._die(seconds / 3))
                rows.append(await self._step(buyers, callers, seconds))
                if dying is not None:
                    await dying
            slowing.cancel()
            await asyncio.gather(slowing, return_exceptions=True)
            await self._settle(buyers)
            spent = sum(buyer.books.spent_uain(0) for buyer in buyers)
        shed = [
            await self._metric(child, "openresource_calls_shed_total") for child in self.providers.values()
        ]
        return {
            "steps": rows,
            "answered": len(self.answers),
            "refused": dict(Counter(self.refusals)),
            "spent_uain": spent,
            "shed": dict(zip(self.providers, shed, strict=True)),
        }

    async def _step(self, buyers: list[AsyncClient], callers: int, seconds: float) -> dict[str, Any]:
        told = Told()
        began, began_cpu = time.monotonic(), time.process_time()
        await asyncio.gather(
            *[
                self._caller(buyers[number % BUYERS], f"{callers}.{number}", began + seconds, told)
                for number in range(callers)
            ]
        )
        ordered = sorted(told.milliseconds) or [0.0]
        names = {child.facts["provider"]: name for name, child in self.providers.items()}
        return {
            "callers": callers,
            "answered": len(told.milliseconds),
            "calls_per_second": round(len(told.milliseconds) / (time.monotonic() - began), 1),
            "p50_ms": round(ordered[len(ordered) // 2], 1),
            "p95_ms": round(ordered[int(len(ordered) * 0.95)], 1),
            "max_ms": round(ordered[-1], 1),
            "by": {names[provider]: count for provider, count in told.providers.items()},
            "client_cpu_ms": round(
                (time.process_time() - began_cpu) * 1000 / max(1, len(told.milliseconds)), 2
            ),
            "moved_on": told.moved_on,
            "refused": dict(told.refused),
        }

    async def _caller(self, buyer: AsyncClient, name: str, until: float, told: Told) -> None:
        number = 0
        while time.monotonic() < until:
            number += 1
            text = f"{name} {number}"
            began = time.monotonic()
            try:
                answer = await buyer.call(self.service, text=text, deadline_seconds=CALL_SECONDS)
            except Refusal as refusal:
                told.refused[refusal.code] += 1
                self.refusals.append(f"{refusal.code}: {refusal.message}"[:300])
                continue
            assert answer.value == text.upper()
            told.milliseconds.append((time.monotonic() - began) * 1000)
            told.providers[answer.provider] += 1
            told.moved_on += bool(answer.failed)
            self.answers.append(answer.receipt_id)

    async def _slow_down(self) -> None:
        """Stops and continues one provider, so that it works less than half of the time."""
        child = self.providers["slow"]
        try:
            while True:
                child.send(signal.SIGSTOP)
                await asyncio.sleep(SLOW_RESTS_SECONDS)
                child.send(signal.SIGCONT)
                await asyncio.sleep(SLOW_WORKS_SECONDS)
        finally:
            child.send(signal.SIGCONT)

    async def _die(self, seconds: float) -> None:
        """Kills one provider in the middle of its calls, and starts it again."""
        child = self.providers["dying"]
        await asyncio.sleep(seconds)
        child.kill()
        await asyncio.sleep(0.5)
        await asyncio.to_thread(child.start)

    # ── The books ────────────────────────────────────────────────────────────────────────────────────────────

    async def _settle(self, buyers: list[AsyncClient]) -> None:
        for buyer in buyers:
            calls = await buyer.calls()
            genesis = (await buyer.network()).genesis_hash
            for entry in buyer.books.channels(genesis):
                await calls.settle(entry.name)

    async def _metric(self, child: Child, name: str) -> int:
        import httpx2

        async with httpx2.AsyncClient(verify=False, trust_env=False, timeout=30) as http:
            text = (await http.get(f"{child.facts['endpoint']}/metrics")).text
        return next((int(float(line.split()[1])) for line in text.splitlines() if line.startswith(name)), 0)

    async def faults(self, found: dict[str, Any]) -> list[str]:
        """What does not fit in the books of all sides; providers have ended, so their books are on the disk."""
        faults = [f"refused: {said}" for said in self.refusals]
        receipts = [receipt for name in PROVIDERS for receipt in self._receipts(name)]
        answered = set(self.answers)
        ids = {receipt["id"] for receipt in receipts}
        if len(answered) != len(self.answers):
            faults.append("two answers came with one receipt")
        if answered - ids:
            faults.append(f"{len(answered - ids)} answers have no receipt in a provider's books")
        paid_for_nothing = [receipt for receipt in receipts if receipt["id"] not in answered]
        if len(paid_for_nothing) > len(self.refusals):
            faults.append(f"{len(paid_for_nothing)} calls were paid without an answer: paid twice")
        numbers = Counter((one["session"], one["sequence"]) for one in receipts)
        if receipts and max(numbers.values()) > 1:
            faults.append("a call has two receipts")
        receipts_uain = sum(receipt["price_uain"] for receipt in receipts)
        claimed_uain = left_uain = 0
        async with Chain(self.node.url) as chain:
            for number in range(BUYERS):
                buyer = self.homes[f"buyer-{number}"].address()
                balance_uain = await chain.balance(buyer)
                mine_uain = 0
                async for label in chain.children(f"/channels/{buyer}"):
                    state = await chain.read(f"/channels/{buyer}/{label}/state")
                    mine_uain += state["claimed_uain"]
                claimed_uain += mine_uain
                left_uain += balance_uain
        if not receipts_uain == claimed_uain == found["spent_uain"] == BUYERS * BUYER_UAIN - left_uain:
            faults.append(
                f"receipts {receipts_uain}, claims {claimed_uain}, the buyers' books {found['spent_uain']} and "
                f"what left their wallets {BUYERS * BUYER_UAIN - left_uain} µAIN are not the same"
            )
        found["receipts"] = len(receipts)
        found["claimed_uain"] = claimed_uain
        return faults

    def _receipts(self, name: str) -> list[dict[str, Any]]:
        path = self.homes[name].folder / "provider" / "provider.sqlite"
        with sqlite3.connect(f"file:{path}?mode=ro", uri=True) as books:
            found = [json.loads(row[0]) for row in books.execute("SELECT json FROM receipts")]
        books.close()
        return [receipt for receipt in found if receipt["price_uain"]]


def text_of(found: dict[str, Any]) -> str:
    """For people."""
    lines = [
        f"{'callers':>8}{'answered':>10}{'calls/s':>9}{'p50 ms':>9}{'p95 ms':>9}{'max ms':>9}{'cpu ms':>8}{'moved on':>10}  by"
    ]
    for row in found["steps"]:
        by = ", ".join(f"{name} {count}" for name, count in sorted(row["by"].items()))
        refused = f"  refused {row['refused']}" if row["refused"] else ""
        lines.append(
            f"{row['callers']:>8}{row['answered']:>10}{row['calls_per_second']:>9.1f}{row['p50_ms']:>9.1f}"
            f"{row['p95_ms']:>9.1f}{row['max_ms']:>9.1f}{row['client_cpu_ms']:>8.2f}{row['moved_on']:>10}  {by}{refused}"
        )
    lines.append(
        f"{found['answered']} answers, {found['receipts']} receipts, {found['claimed_uain']} µAIN claimed = spent; "
        f"shed {found['shed']}; {os.cpu_count()} cores"
    )
    lines += [f"FAULT {fault}" for fault in found["faults"][:20]]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
