"""A provider's whole life: probe, open the books, listen, place, claim, work on jobs, drain, go.

    provider = Provider(settings, key=wallet, chain=chain, drivers=drivers)
    await provider.start()
    ...
    await provider.stop()

Everything that is killed halfway goes on where it was: the journal has the payment state, the chain the placements.
"""

from __future__ import annotations

import asyncio
import datetime
import functools
import json
import logging
import os
import time
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from openresource import __version__
from openresource.builds.cache import Cache
from openresource.builds.languages import find_languages
from openresource.builds.workshop import Workshop
from openresource.client.chain import BadAnswer, Chain, Event, NodeAway, WrongNetwork
from openresource.client.services import KEPT_SECONDS, Directory
from openresource.ledger.draft import NetworkDomain
from openresource.market.accounts import channel_account
from openresource.market.prices import price_json
from openresource.primitives.errors import Refusal
from openresource.primitives.keys import PrivateKey
from openresource.provider.admission import Admission
from openresource.provider.answers import KEPT_MS, Answers
from openresource.provider.books import Books, drop_old
from openresource.provider.calls import Calls
from openresource.provider.claims import INTERVAL_MS_DEFAULT, THRESHOLD_UAIN_DEFAULT, Claims
from openresource.provider.commits import Commits
from openresource.provider.earnings import earnings
from openresource.provider.fleets import IDLE_SECONDS_DEFAULT, WARM_DEFAULT, Fleet
from openresource.provider.gateway import Gateway
from openresource.provider.hardware import machine_hardware
from openresource.provider.inner_calls import Lines, Proofs
from openresource.provider.jobs import Jobs
from openresource.provider.journal import Journal, SyncPolicy
from openresource.provider.kills import KILL_EVENTS, KILLS, Kills
from openresource.provider.metrics import Metrics
from openresource.provider.offers import Offer, Offers
from openresource.provider.placements import Machine, Placements, StartRunner
from openresource.provider.policies import Policy, check_level
from openresource.provider.releases import drop_releases
from openresource.provider.retention import RELEASES_KEPT, Retention
from openresource.provider.runtimes import cache_folder, list_runtimes, runtime_names
from openresource.provider.server import GatewayServer
from openresource.provider.spread import JOIN_KEY_FILE, JoinSettings, open_hub
from openresource.provider.succession import GRACE_SECONDS_DEFAULT
from openresource.provider.tls import load_or_make_identity, server_context
from openresource.sandbox.drivers import Drivers
from openresource.sandbox.networks import Network

log = logging.getLogger("openresource.provider")

NODE_SECONDS_MAX = 60.0
DRAIN_SECONDS = 30.0
SETTLE_SECONDS = 20.0
TEND_SECONDS = 5.0
RESTART_SECONDS = 1.0
# What is neither served nor among the last releases of its service.
RELEASES_KEPT_SECONDS = 10 * 60.0
EVENT_PATTERNS = (
    "/services/*/*/versions",
    "/services/*/*/latest",
    "/services/*/*/permissions",
    "/channels/*/*/state",
    "/bonds",
    KILL_EVENTS,
)


class NetworkUnknown(Refusal):
    template = "The node did not answer within {seconds} seconds, and this provider has never met it before: {reason}"
    way_out = "Start the node first, or name another with --node."


@dataclass(frozen=True, slots=True)
class Settings:
    """What an operator chooses."""

    folder: Path
    policy: Policy
    host: str = "127.0.0.1"
    port: int = 0
    # What is announced; empty means https://<host>:<port>.
    endpoint: str = ""
    ask_uain: int | None = None
    sync: SyncPolicy = "always"
    claim_threshold_uain: int = THRESHOLD_UAIN_DEFAULT
    claim_interval_ms: int = INTERVAL_MS_DEFAULT
    drain_seconds: float = DRAIN_SECONDS
    # How long a version without calls stays when another one serves its name.
    grace_seconds: float = GRACE_SECONDS_DEFAULT
    # How many releases of a service stay on the disk.
    releases_kept: int = RELEASES_KEPT
    # How many instances of a program run at once.
    instances: int = 1
    # How many of them stay when nobody calls; those beyond end after the idle time.
    warm: int = WARM_DEFAULT
    idle_seconds: float = IDLE_SECONDS_DEFAULT
    # What all programs together may use; None means most of the machine's memory.
    memory_bytes: int | None = None
    cache: Path | None = None
    # Where gRPC clients find the same services; None opens no such door.
    grpc_port: int | None = None
    # Where this machine says that it stands.
    region: str = ""
    # Where other machines of the operator join; None takes none.
    joins: JoinSettings | None = None
    # What programs may reach: host:port, or the word `any`.
    allowed_network: tuple[str, ...] = ()


class Door(Protocol):
    """Another way in to the gateway's services."""

    @property
    def port(self) -> int: ...

    async def stop(self) -> None: ...


# Given the gateway, its offers and calls, the host and the file with the gateway's TLS key.
OpenDoor = Callable[[Gateway, Offers, Calls, str, int, Path], Awaitable[Door]]


class Provider:
    """A provider that runs within one event loop."""

    def __init__(
        self,
        settings: Settings,
        *,
        key: PrivateKey,
        chain: Chain,
        drivers: Drivers,
        start_runner: StartRunner | None = None,
        open_grpc: OpenDoor | None = None,
    ) -> None:
        self.settings = settings
        self.metrics = Metrics()
        self.offers = Offers()
        self.kills = Kills(chain, self.offers)
        self.endpoint = ""
        self.join_key = ""
        self.outside = Network(settings.allowed_network, folder=settings.folder, clock_ms=clock_ms)
        self._key = key
        self._chain = chain
        self._drivers = drivers
        self._fleet = Fleet(
            settings.policy,
            size=settings.instances,
            warm=settings.warm,
            idle_seconds=settings.idle_seconds,
            memory_bytes=settings.memory_bytes,
        )
        self._start_runner = start_runner or self._fleet.pool
        self._open_grpc = open_grpc
        self.grpc_port = 0
        # What was opened, to be closed in the opposite order.
        self._opened = AsyncExitStack()
        self._started_at_ms = 0
        self._node_trouble = ""
        self._faults = 0
        self._is_stopping = False

    def wrap_runners(self, wrap: Callable[[Any], Any]) -> None:
        """Has every program that starts from now on run behind something else; to be said before `start`."""
        start_runner = self._start_runner
        self._start_runner = lambda sandbox, release, limits: wrap(start_runner(sandbox, release, limits))

    @property
    def join_key_file(self) -> Path:
        """Where the join key is, for its owner alone."""
        return self.settings.folder / JOIN_KEY_FILE

    @property
    def machines(self) -> list[dict[str, Any]]:
        """The machines that have joined."""
        return self._fleet.machines

    @property
    def address(self) -> str:
        return self._key.address

    # ── Beginning ────────────────────────────────────────────────────────────────────────────────────────────

    async def start(self) -> None:
        """Listens when this returns; placements follow as their programs are ready."""
        try:
            await self._start()
        except BaseException:
            await self._opened.aclose()
            raise

    async def _start(self) -> None:
        settings = self.settings
        settings.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        await asyncio.to_thread(self._drivers.required)
        # What most programs get here; one that asks for more, or is of another kind, may get another driver.
        self.isolation = await asyncio.to_thread(self._drivers.level_towards, settings.policy.min_level)
        check_level(settings.policy, self.isolation)
        self.books = Books(settings.folder / "provider.sqlite")
        self._journal = Journal(settings.folder / "journal", sync=settings.sync)
        records = self._journal.open()
        self._opened.push_async_callback(self._journal.close)
        if self._journal.torn_bytes:
            log.warning("cut %d torn bytes off the journal's end", self._journal.torn_bytes)
        self.network = await self._meet_network()
        self.books.open()
        self._opened.push_async_callback(self.books.close)
        self._answers = Answers(settings.folder / "answers", self.books)
        self._answers.open()
        self.admission = Admission(
            chain=self._chain,
            journal=self._journal,
            books=self.books,
            answers=self._answers,
            provider=self.address,
            network=self.network,
            clock_ms=clock_ms,
        )
        self.admission.start(records)
        # The journal ends before the books, which take what it writes last.
        self._opened.push_async_callback(self._journal.close)
        self._opened.push_async_callback(self.admission.close)
        self.claims = Claims(
            admission=self.admission,
            chain=self._chain,
            key=self._key,
            books=self.books,
            metrics=self.metrics,
            clock_ms=clock_ms,
            threshold_uain=settings.claim_threshold_uain,
            interval_ms=settings.claim_interval_ms,
        )
        self.calls = Calls(
            admission=self.admission,
            answers=self._answers,
            network=self.network,
            key=self._key,
            metrics=self.metrics,
            clock_ms=clock_ms,
            random_bytes=os.urandom,
            lines=Lines(Proofs(Directory(self._chain, kept_seconds=KEPT_SECONDS), self.network)),
        )
        await self._listen()
        await self._listen_grpc()
        if settings.joins is not None:
            hub, self.join_key = await open_hub(
                settings.folder, settings.joins, self._chain.get_block, self._fleet.budget
            )
            self._opened.push_async_callback(hub.close)
            self._fleet.hub = hub
        runtimes = await asyncio.to_thread(list_runtimes, settings.cache or cache_folder())
        # Asked once: it starts each interpreter to learn its version.
        await asyncio.to_thread(runtime_names, runtimes)
        self._retention = Retention(settings.folder / "releases.json", releases_kept=settings.releases_kept)
        self.placements = Placements(
            chain=self._chain,
            key=self._key,
            network=self.network,
            policy=settings.policy,
            machine=Machine(
                self.endpoint,
                bytes.fromhex(self._identity.key_hash[2:]),
                runtimes,
                Workshop(
                    Cache((settings.cache or cache_folder()) / "builds"),
                    self._drivers,
                    await asyncio.to_thread(find_languages),
                    get_block=self._chain.get_block,
                ),
                settings.folder / "releases",
                settings.ask_uain,
                await asyncio.to_thread(machine_hardware),
                settings.region,
                self.outside,
                grpc_port=self.grpc_port,
            ),
            offers=self.offers,
            drivers=self._drivers,
            kills=self.kills,
            start_runner=self._start_runner,
            settle=self._settle,
            placed=lambda offer: self._retention.note(offer.service, offer.program),
            grace_seconds=settings.grace_seconds,
        )
        # Synced whatever the operator chose for calls: a lost salt costs the bond.
        commits = Commits(settings.folder / "commits")
        commits.open(at_ms=clock_ms())
        self._opened.push_async_callback(commits.close)
        self.jobs = Jobs(
            chain=self._chain,
            key=self._key,
            offers=self.offers,
            metrics=self.metrics,
            cursor_file=settings.folder / "jobs.cursor",
            clock_ms=clock_ms,
            commits=commits,
            missed=self._job_missed,
        )
        self._opened.push_async_callback(self.placements.close)
        self._runtimes = runtimes
        self._started_at_ms = clock_ms()
        for name, work in [
            ("placements", self.placements.run),
            ("claims", self.claims.run),
            ("jobs", self.jobs.run),
            ("events", self._follow),
            ("tending", self._tend),
        ]:
            task = asyncio.create_task(self._keep_alive(name, work), name=name)
            self._opened.push_async_callback(_cancelled, task)
        log.info("provider %s listens at %s, isolation %s", self.address, self.endpoint, self.isolation)

    async def _meet_network(self) -> NetworkDomain:
        """Which network this is; a provider that has met it before need not wait for the node."""
        file = self.settings.folder / "network.json"
        known: NetworkDomain | None = None
        if file.exists():
            kept = json.loads(file.read_text())
            known = NetworkDomain(chain_id=kept["chain_id"], genesis_hash=kept["genesis_hash"])
        try:
            status = await self._chain.wait_ready(NODE_SECONDS_MAX if known is None else 1.0)
        except NodeAway as away:
            if known is None:
                raise NetworkUnknown(seconds=NODE_SECONDS_MAX, reason=away.message) from away
            log.warning("going on without the node: %s", away.message)
            return known
        found = NetworkDomain(chain_id=status.chain_id, genesis_hash=status.genesis_hash)
        if known is not None and known != found:
            raise WrongNetwork(url=self._chain.url, expected=known.genesis_hash, found=found.genesis_hash)
        file.write_text(json.dumps({"chain_id": found.chain_id, "genesis_hash": found.genesis_hash}))
        return found

    async def _listen(self) -> None:
        settings = self.settings
        self._identity = load_or_make_identity(
            settings.folder / "tls.pem", settings.host, now=datetime.datetime.now(datetime.UTC)
        )
        self.gateway = Gateway(
            self.offers,
            self.calls,
            self.claims,
            overview=self.overview,
            health=self.health,
            gauges=self._gauges,
        )
        port = settings.port or _kept_port(settings.folder / "port")
        try:
            server = GatewayServer(self.gateway, server_context(self._identity), settings.host, port)
        except Refusal:
            if settings.port:
                raise
            # The port of the last run is taken; a new one is announced.
            server = GatewayServer(self.gateway, server_context(self._identity), settings.host, 0)
        (settings.folder / "port").write_text(str(server.port))
        shown_host = f"[{settings.host}]" if ":" in settings.host else settings.host
        self.endpoint = settings.endpoint or f"https://{shown_host}:{server.port}"
        self.gateway.endpoint = self.endpoint
        await server.start()
        self._opened.push_async_callback(server.stop, settings.drain_seconds)

    async def _listen_grpc(self) -> None:
        settings = self.settings
        if self._open_grpc is None or settings.grpc_port is None:
            return
        file = settings.folder / "grpc_port"
        wanted = settings.grpc_port or _kept_port(file)
        place = (self.gateway, self.offers, self.calls, settings.host)
        try:
            door = await self._open_grpc(*place, wanted, self._identity.path)
        except Refusal:
            if settings.grpc_port or not wanted:
                raise
            # The port of the last run is taken; a new one is announced.
            door = await self._open_grpc(*place, 0, self._identity.path)
        self.grpc_port = door.port
        file.write_text(str(door.port))
        self._opened.push_async_callback(door.stop)

    async def _keep_alive(self, name: str, work: Callable[[], Awaitable[None]]) -> None:
        """A fault in one part is written down and the part begins anew; the others go on."""
        while True:
            try:
                await work()
            except asyncio.CancelledError:
                raise
            except (NodeAway, BadAnswer) as refusal:
                log.warning("%s waits for the node: %s", name, refusal.message)
            except Exception:
                self._faults += 1
                self.metrics.count("openresource_faults_total", f'part="{name}"')
                log.exception("%s failed and begins anew", name)
            await asyncio.sleep(RESTART_SECONDS)

    # ── Living ───────────────────────────────────────────────────────────────────────────────────────────────

    async def _follow(self) -> None:
        """What happens on the chain to services and channels."""
        async for event in self._chain.events(EVENT_PATTERNS):
            self._node_trouble = ""
            labels = event.path.strip("/").split("/")
            if labels[0] == "services" or labels[:2] == ["bonds", self.address]:
                self.placements.look_again()
            elif labels[0] == KILLS and len(labels) == 3:
                self.kills.see(labels[1], event.value)
                self.placements.look_again()
            elif len(labels) >= 4 and labels[0] == "channels":
                await self._channel_event(event, labels)

    async def _channel_event(self, event: Event, labels: list[str]) -> None:
        name = f"{labels[1]}/{labels[2]}"
        account = self.admission.known_account(name)
        try:
            if account is not None:
                await self.admission.refresh(account)
            elif (
                len(labels) == 4
                and isinstance(event.value, dict)
                and event.value.get("provider") == self.address
            ):
                value_uain = await self._chain.balance(channel_account(labels[1], labels[2]))
                self.admission.channel_opened(name, event.value, value_uain)
        except (NodeAway, BadAnswer):
            # Its first call reads it.
            return
        except Refusal as refusal:
            log.warning("channel %s: %s", name, refusal.message)

    async def _tend(self) -> None:
        """What keeps memory and disk within their bounds, and knows whether the node is there."""
        while True:
            await asyncio.sleep(TEND_SECONDS)
            await self.admission.compact()
            drop_old(self.books, answers_before_ms=clock_ms() - KEPT_MS)
            await asyncio.to_thread(self._answers.drop_files, clock_ms() - KEPT_MS)
            await asyncio.to_thread(
                drop_releases,
                self.settings.folder / "releases",
                {offer.program for offer in self.offers}
                | {key[2] for key in self.offers.starting}
                | self._retention.programs,
                time.time() - RELEASES_KEPT_SECONDS,
            )
            await self._fleet.tend(self.offers, self._say_warmth)
            try:
                await self._chain.status()
                self._node_trouble = ""
            except (NodeAway, BadAnswer) as refusal:
                self._node_trouble = refusal.message
                log.warning("the node is away, paid calls go on: %s", refusal.message)

    def _job_missed(self, publisher: str, name: str, program: str) -> None:
        """Work for a version that was served here and is on the disk still; strangers' jobs bring nothing new."""
        if program in self._retention.programs:
            self.placements.ask_back(publisher, name, program)

    async def _settle(self, offer: Offer) -> None:
        """Sends back what is left in the channels of a program that is withdrawn."""
        for account in self.admission.accounts:
            if account.terms.program == offer.program and account.tab.voucher is not None:
                try:
                    await self.claims.settle(account)
                except Refusal as refusal:
                    log.warning("channel %s is settled later: %s", account.name, refusal.message)

    async def _say_warmth(self, offer: Offer, is_warm: bool) -> None:
        what = "warm" if is_warm else "cold"
        await self._said(what, functools.partial(self.placements.say_warmth, offer, is_warm))

    def health(self) -> tuple[bool, dict[str, Any]]:
        """Whether calls can be taken, and what is waited for."""
        refusal = self._journal.refusal
        is_well = refusal is None and not self._is_stopping
        facts = {
            "status": "stopping" if self._is_stopping else "ok" if is_well else "refusing calls",
            "journal": "ok" if refusal is None else refusal.message,
            "node": self._node_trouble or "ok",
            "claims": self.claims.waits_for or "ok",
            "services": len(self.offers),
            "faults": self._faults,
            "load": self._fleet.load(self.offers),
            "machines": len(self._fleet.machines),
        }
        return is_well, facts

    def overview(self) -> dict[str, Any]:
        """What this provider is and serves, for everybody."""
        return {
            "provider": self.address,
            "software": f"openresource {__version__}",
            "network": {"chain_id": self.network.chain_id, "genesis_hash": self.network.genesis_hash},
            "endpoint": self.endpoint,
            "tls_key": self._identity.key_hash,
            "isolation": self.isolation,
            "runtimes": list(runtime_names(self._runtimes)),
            "started_at_ms": self._started_at_ms,
            "services": [
                {
                    "publisher": offer.publisher,
                    "name": offer.name,
                    "program": offer.program,
                    "version": offer.version.version,
                    "summary": offer.version.summary,
                    "price": price_json(offer.price),
                    "isolation": offer.isolation,
                    "capacity": offer.lane.capacity,
                    "interface": f"{offer.path}/interface.json",
                }
                for offer in self.offers
            ],
        }

    async def earnings(self, *, days: int = 30) -> dict[str, Any]:
        """What was earned and what of it is claimed."""
        found = await earnings(self.books, days=days)
        return {**found, "unclaimed_uain": self._unclaimed_uain()}

    def _unclaimed_uain(self) -> int:
        return sum(account.tab.spent_uain for account in self.admission.accounts)

    def _gauges(self) -> dict[str, float]:
        return {
            "openresource_calls_running": sum(offer.lane.running for offer in self.offers),
            "openresource_calls_waiting": sum(offer.lane.waiting for offer in self.offers),
            "openresource_jobs_running": self.jobs.running,
            "openresource_services": len(self.offers),
            "openresource_channels": len(self.admission.accounts),
            "openresource_unclaimed_uain": self._unclaimed_uain(),
            "openresource_journal_bytes": self._journal.size_bytes,
            "openresource_journal_syncs_total": self._journal.syncs,
            "openresource_journal_is_refusing": float(self._journal.refusal is not None),
            **self._fleet.gauges(self.offers),
        }

    # ── Ending ───────────────────────────────────────────────────────────────────────────────────────────────

    async def stop(self) -> None:
        """Says that it leaves, lets calls end, claims, sends deposits back, says that it is gone."""
        if self._is_stopping:
            return
        self._is_stopping = True
        self.calls.is_draining = True
        self.jobs.is_leaving = True
        await self._said("draining", self.placements.say_draining)
        await self._drained()
        unsettled = await self.claims.settle_all(SETTLE_SECONDS)
        for account in unsettled:
            log.warning(
                "channel %s could not be settled; %d µAIN will be claimed at the next start",
                account.name,
                account.tab.spent_uain,
            )
        await self._said("gone", self.placements.say_gone)
        self.jobs.keep_cursor()
        await self._opened.aclose()
        log.info("provider %s is gone", self.address)

    async def _said(self, what: str, say: Callable[[], Awaitable[None]]) -> None:
        if self._node_trouble:
            log.warning("the node is away and does not hear that this provider is %s", what)
            return
        try:
            await say()
        except Refusal as refusal:
            log.warning("could not announce that this provider is %s: %s", what, refusal.message)

    async def _drained(self) -> None:
        """Waits until no call and no job runs, within the drain time."""
        try:
            async with asyncio.timeout(self.settings.drain_seconds):
                while self.jobs.is_busy or any(offer.lane.running for offer in self.offers):
                    await asyncio.sleep(0.02)
        except TimeoutError:
            log.warning("calls still run after %s seconds and are cut off", self.settings.drain_seconds)


async def _cancelled(task: asyncio.Task[None]) -> None:
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


def clock_ms() -> int:
    """The time of this machine, as the whole provider reads it."""
    return time.time_ns() // 1_000_000


def _kept_port(file: Path) -> int:
    """The port of the last run, so that a restart is where the chain says."""
    try:
        return int(file.read_text())
    except (OSError, ValueError):
        return 0
