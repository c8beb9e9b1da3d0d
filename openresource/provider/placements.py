"""Places versions on this machine: sees what was published, takes what the operator wants, proves that it runs,
and only then announces it.

One version's way: policy → OFFERED → fetch, each block verified → manifest and requirements → start → the examples as
a smoke test → PLACED. Whatever is in the way of a version that the operator wanted is announced as REFUSED, with the
reason, for the publisher to read. A node that is away is waited for; it is no reason to refuse anybody.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

from openresource.builds.workshop import BuildFailed, Workshop
from openresource.client.chain import (
    BadAnswer,
    Chain,
    NodeAway,
    TransactionDropped,
    TransactionNotFinal,
    TransactionRefused,
    set_value,
)
from openresource.ledger.draft import NetworkDomain
from openresource.market.hardware import NOTHING_SAID, Hardware
from openresource.market.manifests import Manifest
from openresource.market.placements import (
    DRAINING,
    GONE,
    LIFE_CYCLE,
    NOWHERE,
    OFFERED,
    PLACED,
    REASON_CHARACTERS_MAX,
    REFUSED,
    START_MS_MAX,
    Placement,
    placement_record,
    sign_tls_key,
)
from openresource.market.prices import Price
from openresource.market.services import (
    Permissions,
    Version,
    read_permissions,
    read_version,
)
from openresource.primitives.errors import Refusal
from openresource.primitives.keys import PrivateKey
from openresource.provider.fitness import Fitness
from openresource.provider.kills import Kills
from openresource.provider.lanes import Lane
from openresource.provider.offers import Offer, Offers, Runner
from openresource.provider.policies import Policy, accepts
from openresource.provider.releases import (
    Ready,
    SmokeTestFailed,
    ask_of,
    check_price,
    check_published,
    fetch_release,
    methods_of,
    prepare_release,
    smoke_test,
)
from openresource.provider.succession import GRACE_SECONDS_DEFAULT, Succession
from openresource.sandbox.driver import (
    Limits,
    Release,
    Runtime,
    Sandbox,
    limits_of,
)
from openresource.sandbox.drivers import Drivers, enforced_text, rank
from openresource.sandbox.networks import Network
from openresource.sandbox.releases import load_manifest

log = logging.getLogger("openresource.provider.placements")

PLACING_AT_ONCE = 2
BUILDING_AT_ONCE = 2
VERSIONS_SERVED_MAX = 32
RECONCILE_SECONDS = 60.0
RETRY_SECONDS_FIRST = 1.0
RETRY_SECONDS_MAX = 30.0
ANNOUNCE_SECONDS = 30.0
WITHDRAW_LOOK_SECONDS = 0.1
SMOKE_SECONDS_MAX = 120.0
DOCUMENT_BYTES_MAX = 4 * 1024 * 1024
FEE_PARAMETER = "/blockchain_params/market/fee_ppm"

_WORTH_WAITING = (NodeAway, BadAnswer, TransactionDropped, TransactionNotFinal)


class StartedRunner(Runner, Protocol):
    """A runner that is started before it is offered, and then knows what its program told of itself."""

    @property
    def interface(self) -> dict[str, Any]: ...

    async def start(self) -> None: ...


class StartRunner(Protocol):
    """Makes warm instances of a release; given by who wires the provider together."""

    def __call__(self, sandbox: Sandbox, release: Release, limits: Limits) -> StartedRunner: ...


@dataclass(frozen=True, slots=True)
class Wanted:
    """A published version that the operator wants here."""

    publisher: str
    name: str
    version: Version
    permissions: Permissions

    @property
    def key(self) -> tuple[str, str, str]:
        return self.publisher, self.name, self.version.program


@dataclass(frozen=True, slots=True)
class Machine:
    """What this provider is: where it is reached, and what it can run."""

    endpoint: str
    tls_key: bytes
    runtimes: Mapping[str, Runtime]
    workshop: Workshop
    releases: Path
    ask_uain: int | None = None
    hardware: Hardware = NOTHING_SAID
    region: str = ""
    # What programs may reach, by the operator's word.
    outside: Network = field(default_factory=Network)
    grpc_port: int = 0


class Placements:
    """The versions that this provider serves, and their records on the chain."""

    def __init__(
        self,
        *,
        chain: Chain,
        key: PrivateKey,
        network: NetworkDomain,
        policy: Policy,
        machine: Machine,
        offers: Offers,
        drivers: Drivers,
        kills: Kills,
        start_runner: StartRunner,
        settle: Callable[[Offer], Awaitable[None]],
        placed: Callable[[Offer], None] = lambda offer: None,
        grace_seconds: float = GRACE_SECONDS_DEFAULT,
    ) -> None:
        self._chain = chain
        self._key = key
        self._network = network
        self._policy = policy
        self._machine = machine
        self._offers = offers
        self._drivers = drivers
        self._kills = kills
        self._start_runner = start_runner
        self._settle = settle
        self._tell_placed = placed
        self._fitness = Fitness(chain, key.address, machine.hardware, machine.region)
        self._tasks: dict[tuple[str, str, str], asyncio.Task[None]] = {}
        self._statuses: dict[tuple[str, str, str], str] = {}
        self._reasons: dict[tuple[str, str, str], str] = {}
        self._gate = asyncio.Semaphore(PLACING_AT_ONCE)
        self._building = asyncio.Semaphore(BUILDING_AT_ONCE)
        self._fee_ppm = 0
        self._wake = asyncio.Event()
        self._is_leaving = False
        self._succession = Succession(
            chain=chain,
            offers=offers,
            listed=policy.programs,
            say=self._say,
            settle=settle,
            ended=self.look_again,
            grace_seconds=grace_seconds,
        )

    @property
    def summary(self) -> list[dict[str, str]]:
        """Every version that was looked at, its status here and the reason for a no."""
        return [
            {
                "publisher": key[0],
                "name": key[1],
                "program": key[2],
                "status": status,
                "reason": self._reasons.get(key, ""),
            }
            for key, status in self._statuses.items()
        ]

    # ── Seeing ───────────────────────────────────────────────────────────────────────────────────────────────

    def look_again(self) -> None:
        """Something was published or changed: look sooner than the timer would."""
        self._wake.set()

    def ask_back(self, publisher: str, name: str, program: str) -> None:
        """A job names a version that went when another one served its name: it is placed once more."""
        self._succession.ask_back((publisher, name, program))
        self.look_again()

    async def run(self) -> None:
        """Compares what is published with what is served, at every event and on a timer, until cancelled."""
        while True:
            self._wake.clear()
            try:
                self._fee_ppm = int(await self._chain.read(FEE_PARAMETER) or 0)
                await self._kills.look()
                await self._reconcile()
                self._offers.has_looked = True
                rest_seconds = await self._succession.look()
            except _WORTH_WAITING as refusal:
                log.warning("looking for published versions waits: %s", refusal.message)
                await asyncio.sleep(RETRY_SECONDS_FIRST)
                continue
            try:
                async with asyncio.timeout(min(RECONCILE_SECONDS, rest_seconds or RECONCILE_SECONDS)):
                    await self._wake.wait()
            except TimeoutError:
                continue

    async def _reconcile(self) -> None:
        async for wanted in self._wanted():
            offer = self._offers.find(*wanted.key)
            if offer is not None:
                await self._look_at(offer, wanted.permissions)
            elif wanted.key not in self._tasks and await self._is_worth_a_try(wanted):
                self._place_soon(wanted)

    async def _is_worth_a_try(self, wanted: Wanted) -> bool:
        """Whether a version is new here, or was passed over or given up and this machine is fit for it now."""
        status = self._statuses.get(wanted.key)
        return status is None or (status in (NOWHERE, GONE) and not await self._lacks(wanted))

    async def _lacks(self, wanted: Wanted) -> str:
        """What keeps this machine from a version, in words; empty if nothing does."""
        stopped = self._kills.lacks(wanted.version.program)
        if stopped:
            return stopped
        level = await asyncio.to_thread(self._drivers.level_towards, self._min_level(wanted))
        try:
            await self._fitness.check(wanted.permissions, wanted.publisher, wanted.name, level)
        except _WORTH_WAITING:
            raise
        except Refusal as refusal:
            return refusal.message
        return ""

    async def _look_at(self, offer: Offer, permissions: Permissions) -> None:
        """Takes a publisher's new permissions; who may not run the program any more stops to."""
        offer.permissions = permissions
        try:
            offer.check_not_stopped()
            await self._fitness.check(
                permissions, offer.publisher, offer.name, offer.isolation, offer.runtime
            )
        except _WORTH_WAITING:
            raise
        except Refusal as refusal:
            key = (offer.publisher, offer.name, offer.program)
            if not offer.is_draining and key not in self._tasks and not self._succession.is_retiring(key):
                log.warning("withdrawing %s: %s", offer.service, refusal.message)
                offer.is_draining = True
                self._reasons[key] = refusal.message
                task = asyncio.create_task(self._withdraw(offer))
                self._tasks[key] = task
                task.add_done_callback(lambda done: self._ended(key))

    async def _withdraw(self, offer: Offer) -> None:
        """DRAINING, then GONE once its calls have ended and its channels are settled."""
        await self._say([offer], DRAINING)
        while offer.lane.running:
            await asyncio.sleep(WITHDRAW_LOOK_SECONDS)
        await self._settle(offer)
        self._offers.remove(offer)
        await offer.runner.close()
        await self._say([offer], GONE)

    def _place_soon(self, wanted: Wanted) -> None:
        if len(self._offers) + len(self._tasks) >= VERSIONS_SERVED_MAX:
            log.warning("no place for %s/%s: %d versions are served", *wanted.key[:2], VERSIONS_SERVED_MAX)
            return
        task = asyncio.create_task(self._place_patiently(wanted))
        self._tasks[wanted.key] = task
        self._offers.starting.add(wanted.key)
        task.add_done_callback(lambda done: self._ended(wanted.key))

    def _ended(self, key: tuple[str, str, str]) -> None:
        self._tasks.pop(key, None)
        self._offers.starting.discard(key)

    async def _wanted(self) -> AsyncIterator[Wanted]:
        """Published versions that the operator wants: the newest of each service, and what is placed already."""
        async for publisher, name in self._services():
            base = f"/services/{publisher}/{name}"
            latest = await self._chain.read(f"{base}/latest")
            programs = {latest} if isinstance(latest, str) else set()
            programs |= self._succession.asked_back(publisher, name)
            if isinstance(latest, str):
                self._succession.saw(publisher, name, latest)
            async for program in self._chain.children(f"/placements/{publisher}/{name}"):
                if program != latest and await self._is_placed(publisher, name, program):
                    programs.add(program)
            permissions: Permissions | None = None
            for program in sorted(programs | await self._listed(publisher, name)):
                if not accepts(
                    self._policy,
                    own_address=self._key.address,
                    publisher=publisher,
                    name=name,
                    program=program,
                ):
                    continue
                record = await self._chain.read(f"{base}/versions/{program}")
                if record is None:
                    continue
                try:
                    if permissions is None:
                        permissions = read_permissions(await self._chain.read(f"{base}/permissions"))
                    yield Wanted(publisher, name, read_version(program, record), permissions)
                except Refusal as refusal:
                    if isinstance(refusal, _WORTH_WAITING):
                        raise
                    log.warning("passing over %s/%s: %s", publisher, name, refusal.message)

    async def _services(self) -> AsyncIterator[tuple[str, str]]:
        """Publishers and names that the policy can accept at all."""
        policy = self._policy
        if policy.accept == "own":
            publishers = {self._key.address}
        elif policy.accept == "list" and not policy.programs:
            publishers = set(policy.publishers) | {service.partition("/")[0] for service in policy.services}
        else:
            publishers = {publisher async for publisher in self._chain.children("/services")}
        for publisher in sorted(publishers):
            async for name in self._chain.children(f"/services/{publisher}"):
                yield publisher, name

    async def _listed(self, publisher: str, name: str) -> set[str]:
        if not self._policy.programs:
            return set()
        programs = set()
        async for program in self._chain.children(f"/services/{publisher}/{name}/versions"):
            if program in self._policy.programs:
                programs.add(program)
        return programs

    async def _is_placed(self, publisher: str, name: str, program: str) -> bool:
        path = f"/placements/{publisher}/{name}/{program}/{self._key.address}/status"
        return await self._chain.read(path) in (PLACED, DRAINING)

    # ── Placing ──────────────────────────────────────────────────────────────────────────────────────────────

    async def _place_patiently(self, wanted: Wanted) -> None:
        """Places a version or says why not; waits for a node that is away, for as long as that takes."""
        delay = RETRY_SECONDS_FIRST
        while True:
            try:
                async with self._gate:
                    await self._place(wanted)
                return
            except _WORTH_WAITING as refusal:
                log.warning("placing %s/%s waits: %s", wanted.publisher, wanted.name, refusal.message)
            except TransactionRefused as refusal:
                # The chain says no to the announcement itself, so there is nobody to announce the reason to.
                log.error(
                    "the chain refused the placement of %s/%s: %s",
                    wanted.publisher,
                    wanted.name,
                    refusal.message,
                )
                self._statuses[wanted.key], self._reasons[wanted.key] = REFUSED, refusal.message
                return
            await asyncio.sleep(delay)
            delay = min(delay * 2, RETRY_SECONDS_MAX)

    async def _place(self, wanted: Wanted) -> None:
        lacks = await self._lacks(wanted)
        self._reasons[wanted.key] = lacks
        if lacks:
            log.info("passing over %s/%s: %s", wanted.publisher, wanted.name, lacks)
            self._statuses[wanted.key] = NOWHERE
            return
        try:
            await self._announce(wanted, await self._offered(wanted, self._ask_before_fetch(wanted)))
            offer = await self._prepare(wanted)
        except _WORTH_WAITING:
            raise
        except TransactionRefused:
            raise
        except Refusal as refusal:
            log.warning("refused %s/%s: %s", wanted.publisher, wanted.name, refusal)
            await self._refuse(wanted, refusal.brief if isinstance(refusal, BuildFailed) else str(refusal))
            return
        try:
            await self._announce(wanted, self._placed(offer))
        except BaseException:
            await offer.runner.close()
            raise
        self._offers.put(offer)
        self._tell_placed(offer)
        self._succession.is_back(wanted.key)
        # The version before it may have to go now.
        self.look_again()
        log.info(
            "placed %s/%s %s at %d µAIN a call",
            wanted.publisher,
            wanted.name,
            wanted.version.version,
            offer.price.total_uain,
        )

    def _min_level(self, wanted: Wanted) -> str:
        """The stronger of what the operator and the publisher ask for."""
        return max(self._policy.min_level, wanted.permissions.min_isolation, key=rank)

    async def _offered(self, wanted: Wanted, ask_uain: int) -> Placement:
        """The first word about a version: who takes it, and what it brings."""
        return Placement(
            *wanted.key,
            self._key.address,
            OFFERED,
            ask_uain=ask_uain,
            isolation=await asyncio.to_thread(self._drivers.level_towards, self._min_level(wanted)),
            hardware=self._machine.hardware,
            region=self._machine.region,
        )

    def _ask_before_fetch(self, wanted: Wanted) -> int:
        """The operator's ask, if it is fixed, must fit the cap before anything is fetched."""
        ask_uain = self._machine.ask_uain
        if ask_uain is None:
            return 0
        check_price(ask_uain, wanted.version)
        return ask_uain

    async def _prepare(self, wanted: Wanted) -> Offer:
        """Fetches, checks and starts a version and lets its examples run."""
        folder = await fetch_release(self._chain, wanted.version.program, self._machine.releases)
        manifest = await asyncio.to_thread(load_manifest, folder)
        check_published(manifest, wanted.name, wanted.version)
        choice = await asyncio.to_thread(self._drivers.choose, manifest, self._min_level(wanted))
        # What is demanded of the runtime can be answered only now.
        await self._fitness.check(
            wanted.permissions,
            wanted.publisher,
            wanted.name,
            choice.level,
            manifest.build.runtime,
        )
        sandbox = self._machine.outside.opened(choice.sandbox, manifest)
        ready = await self._build(folder, manifest, wanted)
        release = replace(ready.release, program=wanted.version.program)
        limits = limits_of(manifest)
        runner = self._start_runner(sandbox, release, limits)
        try:
            async with asyncio.timeout(limits.startup_seconds + SMOKE_SECONDS_MAX):
                # The instance that tells its methods is the one that will serve: a model is loaded once.
                began = time.monotonic()
                await runner.start()
                start_ms = min(max(1, round((time.monotonic() - began) * 1000)), START_MS_MAX)
                methods = methods_of(manifest, runner.interface)
                ask_uain = ask_of(self._machine.ask_uain, methods, wanted.version)
                check_price(ask_uain, wanted.version)
                await smoke_test(runner, methods, limits, is_exact=wanted.version.exactness == "bit_exact")
        except TimeoutError:
            await runner.close()
            raise SmokeTestFailed(method="", reason="it took too long") from None
        except BaseException:
            await runner.close()
            raise
        return Offer(
            publisher=wanted.publisher,
            name=wanted.name,
            version=wanted.version,
            manifest=manifest,
            methods=methods,
            price=Price(ask_uain, wanted.version.royalty_uain, self._fee_ppm),
            isolation=choice.level,
            runtime=ready.runtime_name,
            build=ready.built.build_cid,
            limits=limits,
            runner=runner,
            permissions=wanted.permissions,
            lane=Lane(max(1, getattr(runner, "capacity", limits.concurrency))),
            start_ms=start_ms,
            held=enforced_text(choice.capabilities),
        )

    async def _build(self, folder: Path, manifest: Manifest, wanted: Wanted) -> Ready:
        """What runs; a build may take long, and others are placed meanwhile."""
        name = f"{wanted.publisher}/{wanted.name}"
        self._gate.release()
        try:
            async with self._building:
                return await prepare_release(
                    folder,
                    manifest,
                    self._machine.runtimes,
                    self._machine.workshop,
                    progress=lambda words: log.info("%s: %s", name, words),
                )
        finally:
            await self._gate.acquire()

    # ── Saying so ────────────────────────────────────────────────────────────────────────────────────────────

    def _placed(self, offer: Offer) -> Placement:
        machine = self._machine
        return Placement(
            publisher=offer.publisher,
            name=offer.name,
            program=offer.program,
            provider=self._key.address,
            status=PLACED,
            endpoint=machine.endpoint,
            tls_key=machine.tls_key,
            tls_signature=sign_tls_key(machine.endpoint, machine.tls_key, self._key, self._network),
            capacity=offer.lane.capacity,
            ask_uain=offer.price.ask_uain,
            isolation=offer.isolation,
            runtime=offer.runtime,
            warm=offer.is_warm,
            start_ms=offer.start_ms,
            build=offer.build,
            limits=offer.held,
            hardware=machine.hardware,
            region=machine.region,
            grpc=machine.grpc_port,
        )

    async def _announce(self, wanted: Wanted, placement: Placement) -> None:
        """Writes a status, by way of the statuses that the life cycle puts between."""
        path = f"/placements/{placement.publisher}/{placement.name}/{placement.program}/{placement.provider}"
        record = await self._chain.read(path)
        current = str(record.get("status")) if isinstance(record, dict) else NOWHERE
        wished = placement_record(placement)
        if placement.status == OFFERED and current in (PLACED, DRAINING, OFFERED):
            # From an earlier run of this provider: the record stays until there is something better to say.
            return
        if isinstance(record, dict) and {**record, "at_ms": 0} == {**wished, "at_ms": 0}:
            self._statuses[wanted.key] = placement.status
            return
        steps = [wished] if placement.status in LIFE_CYCLE[current] else [{"status": GONE}, wished]
        for step in steps:
            await self._chain.write(path, step, self._key, deadline_seconds=ANNOUNCE_SECONDS)
        self._statuses[wanted.key] = placement.status

    async def _refuse(self, wanted: Wanted, reason: str) -> None:
        shown = "".join(character if character.isprintable() else " " for character in reason)
        shown = shown[:REASON_CHARACTERS_MAX]
        self._reasons[wanted.key] = shown
        self._statuses[wanted.key] = REFUSED
        await self._announce(
            wanted,
            Placement(
                *wanted.key,
                self._key.address,
                REFUSED,
                reason=shown,
                isolation=await asyncio.to_thread(self._drivers.level_towards, self._min_level(wanted)),
            ),
        )

    # ── Leaving ──────────────────────────────────────────────────────────────────────────────────────────────

    async def say_draining(self) -> None:
        """Tells the chain that no new channels should be opened here."""
        self._is_leaving = True
        await self._succession.close()
        for task in list(self._tasks.values()):
            task.cancel()
        for offer in self._offers:
            offer.is_draining = True
        await self._say_all(DRAINING)

    async def say_gone(self) -> None:
        """Tells the chain that nothing is served here any more."""
        await self._say_all(GONE)

    async def say_warmth(self, offer: Offer, is_warm: bool) -> None:
        """Tells the chain that an instance is kept ready, or none any more."""
        if offer.is_warm == is_warm or offer.is_draining:
            return
        offer.is_warm = is_warm
        await self._say([offer], PLACED)

    async def _say_all(self, status: str) -> None:
        await self._say(list(self._offers), status)

    async def _say(self, offers: list[Offer], status: str) -> None:
        operations = []
        for offer in offers:
            path = f"/placements/{offer.publisher}/{offer.name}/{offer.program}/{self._key.address}"
            operations.append(set_value(path, placement_record(replace(self._placed(offer), status=status))))
            self._statuses[(offer.publisher, offer.name, offer.program)] = status
        if operations:
            await self._chain.submit_final(operations, self._key, deadline_seconds=ANNOUNCE_SECONDS)

    async def close(self) -> None:
        """Stops every program."""
        await self._succession.close()
        for task in list(self._tasks.values()):
            task.cancel()
        if self._tasks:
            await asyncio.wait(list(self._tasks.values()))
        offers = list(self._offers)
        for offer in offers:
            self._offers.remove(offer)
        await asyncio.gather(*[offer.runner.close() for offer in offers], return_exceptions=True)
