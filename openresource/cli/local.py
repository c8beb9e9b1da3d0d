"""A whole network on this machine: node, three providers and a plain address as child processes; publisher and buyer here.

`Local` starts it and walks the journey: publish, fund, call, trigger, catch a liar, settle, audit. Every step is a real transaction
or a real call; what differs from a network of strangers is that all wallets and machines are yours.
"""

import asyncio
import json
import socket
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, TypeVar

from openresource.cli.liars import Caught, catch_liar
from openresource.cli.servers import PortInUse, bound_socket
from openresource.cli.supervisor import Child, Supervisor
from openresource.cli.tours import LIAR, PROVIDERS, ShownCall, Tour
from openresource.cli.triggers import Triggered, trigger_program
from openresource.client.calls import Answer
from openresource.client.chain import Chain, set_value
from openresource.client.facade import AsyncClient
from openresource.client.homes import Home, Lock
from openresource.client.publishing import Bench, Placed, Prepared, Publication, Publisher, prepare
from openresource.client.services import Directory
from openresource.market.accounts import AUDIT_POT, TREASURY, bond_account
from openresource.primitives.amounts import UAIN_PER_AIN, ain_number, text_from_uain
from openresource.primitives.keys import PrivateKey, private_key_from_hex

LOOPBACK: Final = "127.0.0.1"
BUYER_UAIN: Final = 2_000_000
PLACED_SECONDS: Final = 120.0
CALL_SECONDS: Final = 120.0
PREPARED_AT_ONCE: Final = 2
CONNECT_LIMIT: Final = "1"
# What each provider pledges, so that it may take part in jobs that others check.
BOND_UAIN: Final = 2 * UAIN_PER_AIN

Result = TypeVar("Result")


@dataclass(frozen=True, slots=True)
class Ports:
    """Where everything listens, counted from the node's port."""

    node: int

    @property
    def pages(self) -> int:
        """The pages."""
        return self.node + 1

    @property
    def connect(self) -> int:
        """The plain address."""
        return self.node + 2

    def provider(self, number: int) -> int:
        """A provider's gateway."""
        return self.node + 9 + number

    def check(self, host: str | None) -> None:
        """Refuse before anything has started if a port is taken."""
        doors = ((self.node, host), (self.pages, host), (self.connect, host))
        for port, at in (*doors, *((self.provider(number), None) for number in PROVIDERS)):
            try:
                bound_socket(at or LOOPBACK, port).close()
            except PortInUse as refusal:
                raise PortInUse(
                    **refusal.facts,
                    remedy=f"Name another with --port; it needs {self.node} to {self.connect} and {self.provider(PROVIDERS[0])} to {self.provider(PROVIDERS[-1])}.",
                ) from None


@dataclass(frozen=True, slots=True)
class Step:
    """Something that was done, and how long it took."""

    name: str
    milliseconds: int
    detail: str


@dataclass(frozen=True, slots=True)
class Published:
    """A service that stands and is run."""

    tour: Tour
    prepared: Prepared
    publication: Publication
    placed: Placed


@dataclass(slots=True)
class Story:
    """What happened, for the summary."""

    say: Callable[[str], None]
    began: float = field(default_factory=time.monotonic)
    steps: list[Step] = field(default_factory=list)

    async def step(
        self, name: str, work: Awaitable[Result], detail: Callable[[Result], str] = lambda _: ""
    ) -> Result:
        """Do something, say what came of it, keep how long it took."""
        began = time.monotonic()
        outcome = await work
        step = Step(name, round((time.monotonic() - began) * 1000), detail(outcome))
        self.steps.append(step)
        self.say(f"{time.monotonic() - self.began:6.1f} s  {step.name}: {step.detail}")
        return outcome

    @property
    def wall_seconds(self) -> float:
        """Since the beginning."""
        return time.monotonic() - self.began


class Local:
    """The network below one folder."""

    def __init__(
        self,
        folder: Path,
        ports: Ports,
        tours: Sequence[Tour],
        story: Story,
        *,
        host: str | None = None,
    ) -> None:
        self.folder = folder
        self.ports = ports
        self.tours = tours
        self.story = story
        self.supervisor = Supervisor()
        self.publisher = Home(folder / "publisher")
        self.buyer = Home(folder / "buyer")
        self.providers = {number: Home(folder / f"provider-{number}") for number in PROVIDERS}
        self.node_url = f"http://{LOOPBACK}:{ports.node}"
        self.connect_url = f"http://{LOOPBACK}:{ports.connect}"
        self.pages_url = ""
        self.genesis_hash = ""
        self.client: AsyncClient | None = None
        self._host = host
        self._lock: Lock | None = None

    # Beginning and end

    async def start(self) -> None:
        """Start all processes at once and wait until each says that it is ready."""
        self.ports.check(self._host)
        self._lock = Home(self.folder).lock("up")
        for home in (self.publisher, self.buyer, *self.providers.values()):
            if not home.has_wallet():
                home.create_wallet()
            home.write_config({"node": self.node_url, "network": "local"})
        self._write_accept_lists()
        node = Child("node", self._node_arguments(), self.folder / "logs" / "node.log")
        providers = [self._provider(number) for number in PROVIDERS]
        await self.supervisor.start([node, *providers])
        facts = await self.story.step(
            "chain", node.ready(), lambda facts: f"{facts['url']}, genesis {facts['genesis_hash'][:18]}…"
        )
        self.genesis_hash = str(facts["genesis_hash"])
        await self.supervisor.start([self._connect(), self._pages()])
        self.client = AsyncClient(self.buyer, self.node_url)

    async def ready(self) -> None:
        """Wait for providers and doors; publishing needs only the chain and goes on meanwhile."""
        self.story.say(
            f"{self.story.wall_seconds:6.1f} s  three providers start and try what their sandboxes hold; the third will lie"
        )
        for child in self.supervisor.children[1:]:
            facts = await self.story.step(child.name, child.ready(), _ready_text)
            if child.name == "pages":
                self.pages_url = str(facts["url"])

    async def stop(self) -> None:
        """End everything in order: those who pay and claim before the chain that books it."""
        if self.client is not None:
            await self.client.close()
            self.client = None
        await self.supervisor.stop(
            (("connect", "pages"), tuple(_provider_name(number) for number in PROVIDERS))
        )
        if self._lock is not None:
            self._lock.close()

    def _node_arguments(self) -> tuple[str, ...]:
        arguments = ["openresource.node", "--home", str(self.folder), "--port", str(self.ports.node)]
        return (*arguments, "--host", self._host) if self._host else tuple(arguments)

    def _provider(self, number: int) -> Child:
        words = (
            ("openresource.cli.faults", "liar") if number == LIAR else ("openresource", "provide", "--json")
        )
        arguments = (
            *words, "--accept", "list", "--node", self.node_url,
            "--home", str(self.providers[number].folder), "--port", str(self.ports.provider(number)),
        )  # fmt: skip
        return Child(_provider_name(number), arguments, self._provider_log(number))

    def _provider_log(self, number: int) -> Path:
        return self.folder / "logs" / f"provider-{number}.log"

    def _connect(self) -> Child:
        arguments = [
            "openresource", "connect", "--json", "--limit", CONNECT_LIMIT, "--node", self.node_url,
            "--home", str(self.buyer.folder), "--port", str(self.ports.connect),
        ]  # fmt: skip
        if self._host:
            arguments += ["--host", self._host]
        return Child("connect", tuple(arguments), self.folder / "logs" / "connect.log")

    def _pages(self) -> Child:
        arguments = [
            "openresource", "pages", "--json", "--node", self.node_url,
            "--home", str(self.buyer.folder), "--port", str(self.ports.pages),
        ]  # fmt: skip
        for home in self.providers.values():
            arguments += ["--provider-home", str(home.folder)]
        if self._host:
            arguments += ["--host", self._host]
        return Child("pages", tuple(arguments), self.folder / "logs" / "pages.log")

    def _write_accept_lists(self) -> None:
        from openresource.client.releases import read_release

        names = {tour.folder: read_release(tour.folder).manifest.name for tour in self.tours}
        address = self.publisher.address()
        for number, home in self.providers.items():
            services = [f"{address}/{names[tour.folder]}" for tour in self.tours if number in tour.providers]
            folder = Home(home.folder / "provider")
            folder.write_file("accept.toml", f"services = {json.dumps(services)}\n".encode())

    # The journey

    async def prepare(self, bench: Bench) -> list[Prepared]:
        """Try all programs here; needs no chain, so it runs while the processes start."""
        gate = asyncio.Semaphore(PREPARED_AT_ONCE)

        async def one(tour: Tour) -> Prepared:
            async with gate:
                return await prepare(tour.folder, bench)

        return list(await asyncio.gather(*(one(tour) for tour in self.tours)))

    async def publish(self, prepared: Sequence[Prepared]) -> list[Published]:
        """Publish all services and wait until each is run and has answered through the chain."""
        async with Chain(self.node_url) as chain:
            publisher = Publisher(chain, Directory(chain), self.publisher.wallet())

            async def one(tour: Tour, made: Prepared) -> Published:
                publication = await publisher.publish(made)
                placed = await publisher.wait_placed(made, publication, deadline_seconds=PLACED_SECONDS)
                return Published(tour, made, publication, placed)

            pairs = zip(self.tours, prepared, strict=True)
            return list(await asyncio.gather(*(one(tour, made) for tour, made in pairs)))

    async def fund(self) -> str:
        """Give the buyer coins and the providers their bonds, from the key that the genesis funded."""
        async with Chain(self.node_url) as chain:
            key = self._funding_key()
            missing_uain = max(0, BUYER_UAIN - await chain.balance(self.buyer.address()))
            record = f"{time.time_ns():032x}"
            operations = []
            if missing_uain:
                path = f"/transfer/{key.address}/{self.buyer.address()}/{record}/value"
                operations.append(set_value(path, ain_number(missing_uain)))
            for home in self.providers.values():
                bond_uain = BOND_UAIN - await chain.balance(bond_account(home.address()))
                if bond_uain > 0:
                    path = f"/bonds/{home.address()}/add/{record}"
                    operations.append(set_value(path, {"amount_uain": bond_uain}))
            if operations:
                await chain.submit_final(operations, key)
        return (
            f"{text_from_uain(missing_uain)} AIN from the funding key to the buyer; "
            f"each provider has a bond of {text_from_uain(BOND_UAIN)} AIN"
        )

    async def call(self, published: Published, shown: ShownCall) -> Answer:
        """One paid call of the journey."""
        assert self.client is not None
        calls = await self.client.calls()
        choice = published.publication.choice
        service = f"{choice.service}@{choice.program}"
        plan = await calls.plan(service, shown.method, shown.input, deadline_seconds=CALL_SECONDS)
        return await calls.call(plan)

    async def trigger(self, published: Published) -> Triggered:
        """Start a program by a write, and take its result from the path that was designated."""
        assert self.client is not None and published.tour.trigger is not None
        return await trigger_program(
            self.client,
            published.publication.choice,
            published.tour.trigger.method,
            published.tour.trigger.value,
        )

    async def catch(self, published: Published) -> Caught:
        """Ask for a job that the third provider lies about, and follow it to its verdict."""
        assert self.client is not None and published.tour.job is not None
        return await catch_liar(
            self.client,
            published.publication.choice,
            published.tour.job,
            self.providers[LIAR].address(),
            [self.providers[number].address() for number in published.tour.providers],
            str(self._provider_log(LIAR)),
        )

    async def settle(self) -> list[dict[str, Any]]:
        """Close the buyer's channels: each provider claims on the chain and sends the rest back."""
        from openresource.cli.channel import close_one

        assert self.client is not None
        client = self.client
        found = await client.money()
        return [
            await close_one(client, coins.name, lambda _: None)
            for coins in found.places
            if coins.place == "channel"
        ]

    async def balances(self) -> dict[str, int]:
        """What everybody holds, in µAIN."""
        assert self.client is not None
        chain = self.client.chain
        holders = {
            "publisher": self.publisher.address(),
            "buyer": self.buyer.address(),
            **{f"provider-{number}": home.address() for number, home in self.providers.items()},
            **{f"bond-{number}": bond_account(home.address()) for number, home in self.providers.items()},
            "audit-pot": AUDIT_POT,
            "treasury": TREASURY,
        }
        found = await asyncio.gather(*(chain.balance(account) for account in holders.values()))
        return dict(zip(holders, found, strict=True))

    async def supply_uain(self) -> int:
        """All coins, counted by walking every holder."""
        assert self.client is not None
        found = await self.client.chain.rpc("ore_supply", {"at": "final"})
        return int(found["total_uain"])

    def _funding_key(self) -> PrivateKey:
        record = json.loads((self.folder / "node" / "funding.json").read_text())
        return private_key_from_hex(str(record["private_key"]))


def _provider_name(number: int) -> str:
    return f"provider {number} (lying)" if number == LIAR else f"provider {number}"


def address_of_this_machine() -> str:
    """The address under which others reach this machine; nothing is sent to find it."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))
            return str(probe.getsockname()[0])
        except OSError:
            return LOOPBACK


def _ready_text(facts: dict[str, Any]) -> str:
    if "provider" in facts:
        return f"{facts['provider']} at {facts['endpoint']}, isolation {facts['isolation']}"
    # A link may carry a token, which is for the person alone.
    return str(facts.get("url", "ready")).partition("?")[0]
