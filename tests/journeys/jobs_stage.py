"""The stage of the jobs' journey: a node, honest and faulty providers as processes, a publisher, and every coin's account."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from openresource.client.chain import Chain
from openresource.client.homes import Home
from openresource.market.accounts import AUDIT_POT, TREASURY, bond_account
from openresource.primitives.keys import PrivateKey
from tests.journeys.stage import Child, NodeChild, command_line, provider_child, wait_until

MANIFEST = """
name = "shout"
summary = "Says it louder."
license = "MIT"
exactness = "bit_exact"
royalty = "0.00002"
[run]
kind = "jsonl"
command = ["sh", "shout.sh"]
[[methods]]
name = "shout"
example = {input = {text = "hello"}, output = "HELLO"}
price = {model = "per_call", amount = "0.0001"}
"""
# It naps as long as the input says, in whole seconds of its first digits: "3 slow" takes three.
PROGRAM = r"""while read -r line; do
  text=$(printf '%s' "$line" | sed 's/.*"text": *"\([^"]*\)".*/\1/')
  nap=$(printf '%s' "$text" | sed -n 's/^nap \([0-9]\{1,2\}\) .*/\1/p')
  [ -n "$nap" ] && sleep "$nap"
  printf '"%s"\n' "$(printf '%s' "$text" | tr '[:lower:]' '[:upper:]')"
done
"""


@dataclass
class JobStage:
    """Everybody at once."""

    folder: Path
    node: NodeChild
    publisher: PrivateKey
    buyer: Home
    service: str
    providers: dict[str, Child] = field(default_factory=dict)
    homes: dict[str, Home] = field(default_factory=dict)
    keys: dict[str, PrivateKey] = field(default_factory=dict)

    def everybody(self) -> list[Any]:
        return [*self.providers.values(), self.node]

    def address(self, name: str) -> str:
        return self.keys[name].address

    def name_of(self, address: str) -> str:
        """Who stands behind an address."""
        return next((name for name, key in self.keys.items() if key.address == address), address)

    def provide(self, name: str, *, fault: str = "", share: float = 1.0, bond_uain: int = 0) -> Child:
        """Starts a provider, a faulty one if asked."""
        if name not in self.homes:
            self.homes[name] = Home(self.folder / name)
            self.keys[name] = self.homes[name].create_wallet()
            if bond_uain:
                asyncio.run(self.node.fund(self.address(name), bond_uain + 1_000_000))
        home = self.homes[name]
        if fault:
            words = [sys.executable, "-m", "openresource.cli.faults", fault, "--home", str(home.folder)]
            words += ["--node", self.node.url, "--share", str(share), "--seed", "1"]
            words += ["--bond-uain", str(bond_uain)]
            child = Child(name, words, self.folder / f"{name}.log", says_ready=True)
        else:
            child = provider_child(self.folder, name, home, self.node.url)
            if bond_uain:
                child.add_words("--bond", str(bond_uain / 1_000_000))
        child.start()
        self.providers[name] = child
        return child

    def wait_placed(self, *names: str, seconds: float = 60.0) -> None:
        """Waits until these run the service."""
        wanted = {self.address(name) for name in names}
        wait_until(lambda: wanted <= asyncio.run(self._placed()), seconds, f"{names} to run {self.service}")

    async def _placed(self) -> set[str]:
        async with Chain(self.node.url) as chain:
            record = await chain.read(f"/placements/{self.service}") or {}
        return {
            provider
            for version in record.values()
            for provider, one in version.items()
            if one["status"] == "PLACED"
        }

    def last_words(self) -> str:
        """What each process wrote last, for a failure's report."""
        files = [*sorted(self.folder.glob("*.log")), self.node.log_file]
        return "\n".join(f"── {file.name}\n{file.read_text(errors='replace')[-2_500:]}" for file in files)


def publish(stage_folder: Path, home: Home, node_url: str) -> None:
    """Publishes the program; whoever provides takes it."""
    program = stage_folder / "program"
    program.mkdir()
    (program / "openresource.toml").write_text(MANIFEST)
    (program / "shout.sh").write_text(PROGRAM)
    publish_folder(program, home, node_url)


def publish_folder(program: Path, home: Home, node_url: str) -> None:
    """Publishes any program."""
    words = ("publish", str(program), "--home", str(home.folder), "--node", node_url)
    published = subprocess.run(command_line(*words), capture_output=True, text=True, timeout=180)
    assert published.returncode == 0, published.stderr + published.stdout


@contextmanager
def job_stage(
    folder: Path, *, parameters: dict[str, Any] | None = None, buyer_uain: int = 500_000_000
) -> Iterator[JobStage]:
    """A node with one provider's worth of a market; whoever is on it is gone afterwards."""
    node = NodeChild(folder / "node", parameters={"market": parameters} if parameters else None)
    node.start()
    homes = {name: Home(folder / name) for name in ("publisher", "buyer")}
    keys = {name: home.create_wallet() for name, home in homes.items()}
    stage = JobStage(
        folder,
        node,
        keys["publisher"],
        homes["buyer"],
        f"{keys['publisher'].address}/shout",
        homes=homes,
        keys=keys,
    )
    try:
        asyncio.run(node.fund(keys["buyer"].address, buyer_uain))
        yield stage
    except BaseException:
        print(stage.last_words())
        raise
    finally:
        for one in stage.everybody():
            one.kill()


async def account_of_every_coin(stage: JobStage) -> dict[str, int]:
    """Who holds what: wallets, bonds, jobs and fees, in µAIN; together they are the supply."""
    async with Chain(stage.node.url) as chain:
        found: dict[str, int] = {}
        for name, key in stage.keys.items():
            found[name] = await chain.balance(key.address)
            bond_uain = await chain.balance(bond_account(key.address))
            if bond_uain:
                found[f"{name}'s bond"] = bond_uain
        found["market fees"] = await chain.balance(TREASURY)
        found["pot for audits"] = await chain.balance(AUDIT_POT)
        found["the public's account"] = await chain.balance(stage.node.funding_key.address)
        supply = await chain.rpc("ore_supply", {"at": "final"})
        found["supply"] = int(supply["total_uain"])
        found["elsewhere"] = found["supply"] - sum(
            amount for name, amount in found.items() if name != "supply"
        )
        return found


def account_text(found: dict[str, int]) -> str:
    """The account, a line each."""
    return "\n".join(f"  {name:<24} {amount / 1_000_000:>18.6f} AIN" for name, amount in found.items())
