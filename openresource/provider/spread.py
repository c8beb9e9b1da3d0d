"""Spreads the instances of a program over this machine and those that have joined, and saves calls of one that died."""

from __future__ import annotations

import asyncio
import datetime
import logging
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from openresource.provider.join_keys import JoinKey, load_or_make_secret, write_secret
from openresource.provider.joined import MEMORY_BYTES_MAX, GetBlock, Hub, JoinedMachine
from openresource.provider.tls import load_or_make_identity, server_context
from openresource.sandbox.budgets import Budget
from openresource.sandbox.driver import (
    Capabilities,
    Instance,
    Limits,
    ProgramCall,
    ProgramError,
    ProgramReply,
    Release,
    Sandbox,
    Usage,
)
from openresource.sandbox.links import LinkLost
from openresource.sandbox.pool import ProgramPool

log = logging.getLogger("openresource.provider.spread")

# A machine on which a program did not start is not asked for it again so soon.
UNFIT_SECONDS: Final = 60.0
JOIN_KEY_FILE: Final = "join.key"


@dataclass(frozen=True, slots=True)
class JoinSettings:
    """Where other machines of the operator join; port 0 is the last one, or any."""

    host: str = "127.0.0.1"
    port: int = 0
    # What the join key names; empty means host and port.
    endpoint: str = ""
    renews_key: bool = False


async def open_hub(
    folder: Path, settings: JoinSettings, get_block: GetBlock, budget: Budget
) -> tuple[Hub, str]:
    """Listens for machines that join; gives the hub and the join key to carry to them."""
    now = datetime.datetime.now(datetime.UTC)
    identity = load_or_make_identity(folder / "join.pem", settings.host, now=now)
    secret = load_or_make_secret(folder, renew=settings.renews_key)
    hub = Hub(folder, secret, get_block)
    port_file = folder / "join.port"
    kept = int(port_file.read_text()) if port_file.exists() else 0
    port = await hub.open(settings.host, settings.port or kept, server_context(identity), budget)
    port_file.write_text(str(port))
    host, _, announced = settings.endpoint.rpartition(":")
    key = JoinKey(host.strip("[]") or settings.host, int(announced or port), identity.key_hash, secret)
    write_secret(folder / JOIN_KEY_FILE, key.text())
    return hub, key.text()


class SpreadPool(ProgramPool):
    """A pool whose instances may be on other machines, which may die with calls on them."""

    async def call(self, call: ProgramCall) -> ProgramReply:
        """Once more on another instance where the machine died before it answered.

        Nobody has seen an answer, and what runs over there has no way out: doing it again changes nothing for anybody.
        """
        try:
            return await super().call(call)
        except LinkLost as lost:
            log.info("a call goes to another machine: %s", lost.message)
            return await super().call(call)


class SpreadSandbox:
    """A sandbox of this machine and those of the machines that have joined, as one: each start goes where room is."""

    def __init__(self, local: Sandbox, hub: Hub, clock: Callable[[], float] = time.monotonic) -> None:
        self._local = local
        self._hub = hub
        self._clock = clock
        self._here: dict[str, int] = {}

    def probe(self) -> Capabilities:
        """What is announced is what this machine reaches; no other runs a program behind less."""
        return self._local.probe()

    async def start(self, release: Release, limits: Limits) -> Instance:
        """An instance where the fewest of this program run, and where it fits."""
        level = (await asyncio.to_thread(self._local.probe)).level
        for machine in self._candidates(release, level, limits):
            if machine is None:
                break
            try:
                return await machine.start(release, level, limits)
            except (ProgramError, TimeoutError) as problem:
                log.warning("%s did not start %s: %s", machine.name, release.manifest.name, problem)
                machine.unfit_until[release.program] = self._clock() + UNFIT_SECONDS
        instance = await self._local.start(release, limits)
        self._here[release.program] = self._here.get(release.program, 0) + 1
        return _LocalInstance(instance, lambda: self._left(release.program))

    def _candidates(self, release: Release, level: str, limits: Limits) -> Iterator[JoinedMachine | None]:
        """Machines in the order in which they are tried; None is this one."""
        run = release.manifest.run
        usable = []
        manifest = release.manifest
        # What needs this machine's own devices, its door to the network or its broker stays here.
        stays = manifest.resources.gpu_count or release.egress is not None or manifest.calls is not None
        if release.program and not stays:
            usable = [
                machine
                for machine in self._hub.machines
                if not machine.is_lost
                and machine.can_run(run.kind, level)
                and machine.memory_bytes - machine.used_bytes >= limits.memory_bytes
                and machine.unfit_until.get(release.program, 0.0) < self._clock()
            ]
        # Where two have as many, this machine goes first, then the one with the most room.
        here = (self._here.get(release.program, 0), -MEMORY_BYTES_MAX - 1, None)
        there = [
            (machine.count(release.program), machine.used_bytes - machine.memory_bytes, machine)
            for machine in usable
        ]
        for _, _, machine in sorted([here, *there], key=lambda entry: entry[:2]):
            yield machine

    def _left(self, program: str) -> None:
        self._here[program] = max(0, self._here.get(program, 0) - 1)


class _LocalInstance:
    """An instance of this machine that is counted while it runs."""

    def __init__(self, instance: Instance, left: Callable[[], None]) -> None:
        self._instance = instance
        self._left: Callable[[], None] | None = left

    @property
    def alive(self) -> bool:
        return self._instance.alive

    @property
    def in_flight(self) -> int:
        return self._instance.in_flight

    @property
    def interface(self) -> dict[str, Any]:
        return self._instance.interface

    async def call(self, call: ProgramCall) -> ProgramReply:
        """Passed on."""
        return await self._instance.call(call)

    async def until_free(self, in_flight_max: int) -> None:
        """Passed on."""
        await self._instance.until_free(in_flight_max)

    async def usage(self) -> Usage:
        """Passed on."""
        return await self._instance.usage()

    async def stop(self) -> None:
        """Passed on, and counted."""
        left, self._left = self._left, None
        if left is not None:
            left()
        await self._instance.stop()
