"""A small market for tests: a real node, a publisher's program in a real sandbox, a provider, a buyer's client."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import socket
import ssl
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx2
import msgspec

from openresource.cli.sandboxes import find_drivers
from openresource.cli.trials import SandboxBench
from openresource.client import AsyncClient
from openresource.client.chain import Chain
from openresource.client.homes import Home
from openresource.client.publishing import Prepared, Publisher, prepare
from openresource.client.services import Directory
from openresource.primitives.keys import PrivateKey
from openresource.provider.policies import Policy
from openresource.provider.service import Provider, Settings
from tests.provider.support import Purse, key_of
from tests.support.network import NodeProcess, local_node
from tests.support.ports import hold_port, port_of

MANIFEST = """
name = "{name}"
version = "{version}"
summary = "Says it again, louder."
license = "MIT"
exactness = "bit_exact"
royalty = "0.00002"
price_cap = "0.001"

[run]
kind = "python"
entry = "service:Service"

[resources]
memory = "128Mi"
timeout_s = 10

[[methods]]
name = "shout"
example = {{input = {{text = "hello"}}, output = "HELLO"}}
price = {{model = "per_call", amount = "0.0001"}}
"""
PROGRAM = '''
from collections.abc import Iterator


class Service:
    """Says it again, louder."""

    def shout(self, text: str) -> str:
        """In capitals."""
        return text.upper()

    def nap(self, seconds: float) -> float:
        """Takes its time."""
        import time

        time.sleep(seconds)
        return seconds

    def count(self, to: int) -> Iterator[int]:
        """One after the other."""
        yield from range(1, to + 1)
'''


def write_program(
    folder: Path, *, name: str = "shout", version: str = "1.0.0", source: str = PROGRAM
) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "openresource.toml").write_text(MANIFEST.format(name=name, version=version))
    (folder / "service.py").write_text(source)
    return folder


@dataclass
class Market:
    """Everybody at once; the provider's home is `folder / "provider"`."""

    folder: Path
    node: NodeProcess
    chain: Chain
    publisher: PrivateKey
    provider_key: PrivateKey
    providers: list[Provider]
    holders: list[socket.socket] = field(default_factory=list)

    async def publish(self, folder: Path, *, wait_seconds: float = 60.0) -> tuple[Prepared, Any]:
        """Publishes a folder and waits until a provider answered its test call."""
        bench = SandboxBench(find_drivers(), self.folder / "cache")
        prepared = await prepare(folder, bench)
        publisher = Publisher(self.chain, Directory(self.chain), self.publisher)
        publication = await publisher.publish(prepared)
        if wait_seconds:
            await publisher.wait_placed(prepared, publication, deadline_seconds=wait_seconds)
        return prepared, publication

    def keep_port(self, folder: Path) -> None:
        """A provider of this folder finds its port free, whenever it comes back and whoever else looks for one."""
        file = folder / "port"
        if not file.exists():
            self.holders.append(hold_port())
            folder.mkdir(parents=True, exist_ok=True)
            file.write_text(str(port_of(self.holders[-1])))

    async def provide(self, folder: str = "provider", **options: Any) -> Provider:
        """Starts a provider in this process."""
        self.keep_port(self.folder / folder)
        settings = Settings(
            folder=self.folder / folder,
            **{
                "policy": Policy("list", publishers=frozenset([self.publisher.address])),
                "cache": self.folder / "cache",
                "drain_seconds": 60.0,
                **options,
            },
        )
        provider = Provider(settings, key=self.provider_key, chain=self.node.chain(), drivers=find_drivers())
        await provider.start()
        self.providers.append(provider)
        return provider

    async def buyer(self, name: str = "buyer", amount_uain: int = 5_000_000) -> AsyncClient:
        home = Home(self.folder / name)
        key = home.create_wallet(key_of(name))
        await self.node.fund(key.address, amount_uain)
        return AsyncClient(home, self.node.url)


@contextlib.asynccontextmanager
async def open_market(folder: Path, **options: Any) -> AsyncIterator[Market]:
    async with local_node(folder / "node", **options) as node:
        market = Market(folder, node, node.chain(), key_of("publisher"), key_of("provider"), [])
        try:
            yield market
        finally:
            for provider in market.providers:
                await provider.stop()
            for holder in market.holders:
                holder.close()


async def until(condition: Any, seconds: float = 60.0) -> Any:
    """Waits for a condition, which may be asynchronous, and gives what it said."""
    async with asyncio.timeout(seconds):
        while True:
            found = condition()
            if asyncio.iscoroutine(found):
                found = await found
            if found:
                return found
            await asyncio.sleep(0.02)


@dataclass
class RawBuyer:
    """A buyer who speaks to one gateway by hand, and needs no node for it."""

    key: PrivateKey
    purse: Purse
    path: str
    http: httpx2.AsyncClient
    price_uain: int

    async def call(
        self, method: str, body: Any, *, sequence: int, total_uain: int | None = None
    ) -> httpx2.Response:
        headers = {
            "content-type": "application/json",
            "OpenResource-Session": self.purse.session_header(sequence).decode(),
        }
        if total_uain is not None:
            headers["PAYMENT-SIGNATURE"] = self.purse.header(total_uain).decode()
        return await self.http.post(
            f"{self.path}/{method}", content=msgspec.json.encode(body), headers=headers
        )

    async def tab(self) -> Any:
        headers = {"OpenResource-Session": self.purse.session_header(0).decode()}
        return (await self.http.get(f"/channels/{self.purse.channel}", headers=headers)).json()

    async def settle(self) -> Any:
        headers = {"OpenResource-Session": self.purse.session_header(0).decode()}
        return (await self.http.post(f"/channels/{self.purse.channel}/settle", headers=headers)).json()


async def open_raw_buyer(
    market: Market,
    provider: str,
    program: str,
    certificate: Path,
    *,
    name: str = "shout",
    deposit_uain: int = 1_000_000,
    lifetime_ms: int = 3_600_000,
    key: PrivateKey | None = None,
) -> RawBuyer:
    """Funds a buyer and opens her channel to a provider."""
    chain = market.chain
    key = key or await market.node.funded_key(deposit_uain + 1_000_000)
    placement = await chain.read(f"/placements/{market.publisher.address}/{name}/{program}/{provider}")
    status = await chain.status()
    channel_id = secrets.token_hex(8)
    opening = {
        "publisher": market.publisher.address,
        "name": name,
        "program": program,
        "provider": provider,
        "deposit_uain": deposit_uain,
        "expires_at_ms": status.time_ms + lifetime_ms,
    }
    await chain.write(f"/channels/{key.address}/{channel_id}/open", opening, key)
    channel = f"{key.address}/{channel_id}"
    state = await chain.read(f"/channels/{channel}/state")
    purse = Purse(channel, key=key, secret=secrets.token_bytes(32), network=await chain.domain())
    trust = ssl.create_default_context(cafile=str(certificate))
    http = httpx2.AsyncClient(base_url=placement["endpoint"], verify=trust, trust_env=False, timeout=60)
    path = f"/services/{market.publisher.address}/{name}/{program}"
    return RawBuyer(key, purse, path, http, state["ask_uain"] + state["royalty_uain"])
