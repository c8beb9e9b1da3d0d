"""The stage of the shell tests: a node, a machine that opens within this process, and people with keys of their own."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import secrets
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import asyncssh

from openresource.adapters.ssh.keys import load_or_make_key, public_key_of
from openresource.adapters.ssh.server import ShellServer
from openresource.cli.sandboxes import find_drivers
from openresource.client.chain import Chain
from openresource.client.shells import admit_guest, vouch_for_key
from openresource.market.machines import MachineOffer
from openresource.primitives.keys import PrivateKey, generate_key
from openresource.provider.audits import entries_of
from openresource.provider.service import clock_ms
from openresource.provider.shells import LEVEL_MIN, Shells
from openresource.provider.visits import ShellSettings
from openresource.sandbox.computers import prepare_computer
from openresource.sandbox.driver import Limits
from tests.support.network import NodeProcess, local_node

LIMITS = Limits(memory_bytes=256 << 20, disk_bytes=16 << 20, processes=48, open_files=256)


@dataclass
class Person:
    """A wallet and the key of its shells."""

    wallet: PrivateKey
    key: asyncssh.SSHKey


@dataclass(frozen=True)
class Done:
    """A command as its caller saw it."""

    out: bytes
    err: bytes
    code: int | None
    signal: str


def done(process: asyncssh.SSHCompletedProcess) -> Done:
    """What the client library says of a command."""
    out, err = (b"" if one is None else cast(bytes, one) for one in (process.stdout, process.stderr))
    return Done(out, err, process.exit_status, process.exit_signal[0] if process.exit_signal else "")


@dataclass
class Stage:
    """Everything at once."""

    node: NodeProcess
    chain: Chain
    shells: Shells
    server: ShellServer
    owner: Person
    machine: PrivateKey
    # How far the machine's clock is ahead of ours.
    ahead_ms: int = 0

    def change(self, **changes: Any) -> None:
        """The machine has other settings from now on."""
        self.shells.settings = replace(self.shells.settings, **changes)

    async def person(self, *, known: bool = True) -> Person:
        """A new wallet; the chain knows its key."""
        person = Person(generate_key(secrets.token_bytes(32)), asyncssh.generate_private_key("ssh-ed25519"))
        if known:
            await vouch_for_key(self.chain, person.wallet, public_key_of(person.key))
        return person

    async def guest(self, seconds: float = 600.0) -> Person:
        """A new wallet that the owner has admitted."""
        person = await self.person()
        await self.admit(person, seconds)
        return person

    async def admit(self, person: Person, seconds: float | None) -> None:
        """The owner lets somebody in for a while, or shows somebody out."""
        until_ms = None if seconds is None else int(time.time() * 1000 + seconds * 1000)
        address = person.wallet.address
        await admit_guest(self.chain, self.owner.wallet, self.machine.address, address, until_ms)

    @contextlib.asynccontextmanager
    async def connect(self, person: Person, **options: Any) -> AsyncIterator[asyncssh.SSHClientConnection]:
        """A connection as a stock client makes it."""
        wanted = {"client_keys": [person.key], "username": person.wallet.address, **options}
        connection = await asyncssh.connect(
            "127.0.0.1", self.server.port, known_hosts=None, config=None, agent_path=None, **wanted
        )
        try:
            yield connection
        finally:
            connection.abort()

    async def run(self, person: Person, command: str, **options: Any) -> Done:
        """One command to its end."""
        async with self.connect(person) as connection:
            return done(await connection.run(command, encoding=None, **options))

    def events(self, name: str = "") -> list[dict[str, Any]]:
        """What the trail says so far."""
        self.shells.audit.sync()
        found = entries_of(self.shells.audit.path)
        return [entry for entry in found if not name or entry["event"] == name]


@contextlib.asynccontextmanager
async def open_stage(folder: Path, **changes: Any) -> AsyncIterator[Stage]:
    """A machine that opens, and its owner."""
    async with local_node(folder / "node") as node:
        chain = node.chain()
        machine = generate_key(secrets.token_bytes(32))
        owner = Person(generate_key(secrets.token_bytes(32)), asyncssh.generate_private_key("ssh-ed25519"))
        settings = replace(
            ShellSettings(folder / "shells", owner.wallet.address, price_uain=100, limits=LIMITS), **changes
        )
        release = prepare_computer(folder / "computer")
        sandbox = await asyncio.to_thread(find_drivers().for_program, release.manifest, LEVEL_MIN)
        stages: list[Stage] = []
        shells = Shells(
            settings,
            chain=chain,
            key=machine,
            network=await chain.domain(),
            sandbox=sandbox,
            clock_ms=lambda: clock_ms() + sum(stage.ahead_ms for stage in stages),
        )
        await shells.open()
        host_key = load_or_make_key(settings.folder / "host_key")
        server = ShellServer(shells, host_key, "127.0.0.1", 0)
        await server.start()
        try:
            public = public_key_of(host_key)
            endpoint = f"ssh://127.0.0.1:{server.port}"
            offer = MachineOffer(shells.machine, settings.owner, endpoint, public.text, "")
            await shells.announce(endpoint, public, offer)
            await vouch_for_key(chain, owner.wallet, public_key_of(owner.key))
            stages.append(Stage(node, chain, shells, server, owner, machine))
            yield stages[0]
        finally:
            await server.stop()
            await shells.close()


def on_a_stage(
    folder: Path, work: Callable[[Stage], Awaitable[Any]], *, seconds: float = 170.0, **changes: Any
) -> Any:
    """Plays on a stage of its own."""

    async def body() -> Any:
        async with open_stage(folder, **changes) as stage:
            return await work(stage)

    return asyncio.run(asyncio.wait_for(body(), seconds))


async def until(condition: Callable[[], Any], seconds: float = 60.0) -> Any:
    """Waits for a condition, which may be asynchronous, and gives what it said."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        found = condition()
        if inspect.isawaitable(found):
            found = await found
        if found:
            return found
        await asyncio.sleep(0.05)
    raise AssertionError("it did not come to that in time")
