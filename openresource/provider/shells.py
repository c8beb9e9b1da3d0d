"""Opens this machine to people: who may enter by the chain's word, one sandbox for each of them, and its end in time.

What carries it (SSH) is an adapter's matter. A guest gets a computer of its own: a sandbox with memory for a home, which
stays for a while after the last session and ends with the guest's right. Everything that happens is written down first.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any, Final

from openresource.client.chain import (
    BadAnswer,
    Chain,
    NodeAway,
    TransactionDropped,
    TransactionNotFinal,
    set_value,
)
from openresource.ledger.draft import NetworkDomain
from openresource.market.machines import (
    MachineOffer,
    Right,
    machine_record,
    read_machine,
    right_of,
)
from openresource.market.placements import ISOLATION_LEVELS
from openresource.market.ssh_keys import PublicKey, read_ssh_key
from openresource.primitives.errors import Refusal
from openresource.primitives.keys import PrivateKey
from openresource.provider.audits import Audit
from openresource.provider.visits import Guest, ShellSettings, Visit
from openresource.sandbox.computers import (
    COMMAND_CHARACTERS_MAX,
    Computer,
    Shell,
    Terminal,
    prepare_computer,
)
from openresource.sandbox.driver import Release, Sandbox

log = logging.getLogger("openresource.provider.shells")

LEVEL_MIN: Final = "bubblewrap"
TEND_SECONDS: Final = 0.5
RIGHT_LOOK_SECONDS: Final = 5.0
ANNOUNCE_SECONDS: Final = 30.0
RETRY_SECONDS: Final = 5.0
GOODBYE_SECONDS: Final = 5.0
REFUSALS_A_MINUTE_MAX: Final = 60
# Of a command that is longer the trail has the beginning and the length.
COMMAND_CHARACTERS_KEPT: Final = 4_096
MINUTE_SECONDS: Final = 60.0


class ShellRefused(Refusal):
    """A reason why nobody enters, or somebody must leave."""


class KeyUnknown(ShellRefused):
    template = "The chain does not know this key as one of {address}."
    way_out = "Vouch for it with that wallet: `openresource shell` does so by itself."


class NoRight(ShellRefused):
    template = "{address} neither owns nor rents {machine}, and is not its guest."
    way_out = "Rent it: openresource shell {machine} --rent 10. Or ask the owner to admit you."


class RightEnded(ShellRefused):
    template = "The right of {address} to be here has ended."
    way_out = "Rent the machine again, or ask its owner."


class ChainAway(ShellRefused):
    template = "This machine cannot ask the chain who may enter: {reason}"
    way_out = "Try again in a minute."


class MachineFull(ShellRefused):
    template = "This machine has {count} guests, as many as it takes."
    way_out = "Try again when one has left, or choose another machine."


class TooManySessions(ShellRefused):
    template = "{count} sessions of yours are open here, as many as there may be."
    way_out = "End one first."


class CommandTooLong(ShellRefused):
    template = "The command has {characters} characters; at most {characters_max} are taken."
    way_out = "Send it as standard input of a shell."


class LevelTooLow(Refusal):
    template = "This machine reaches isolation {level}; people are let in behind {minimum} at least."
    way_out = "`openresource doctor` says what it lacks."


class Shells:
    """This machine as people see it."""

    def __init__(
        self,
        settings: ShellSettings,
        *,
        chain: Chain,
        key: PrivateKey,
        network: NetworkDomain,
        sandbox: Sandbox,
        clock_ms: Callable[[], int],
    ) -> None:
        self.settings = settings
        self.audit = Audit(settings.folder, clock_ms)
        self._chain = chain
        self._key = key
        self._network = network
        self._sandbox = sandbox
        self._clock_ms = clock_ms
        self._guests: dict[str, Guest] = {}
        self._offer: MachineOffer | None = None
        self._release: Release | None = None
        self._numbers = 0
        self._refusals: list[float] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self._tending: asyncio.Task[None] | None = None

    @property
    def machine(self) -> str:
        """This machine's name on the chain."""
        return self._key.address

    @property
    def guests(self) -> int:
        """How many people have a computer here."""
        return len(self._guests)

    # ── Beginning and ending ─────────────────────────────────────────────────────────────────────────────────

    async def open(self) -> None:
        """Opens the audit trail and prepares what every computer starts from; nobody can enter yet."""
        capabilities = await asyncio.to_thread(self._sandbox.probe)
        if ISOLATION_LEVELS.get(capabilities.level, 0) < ISOLATION_LEVELS[LEVEL_MIN]:
            raise LevelTooLow(level=capabilities.level, minimum=LEVEL_MIN)
        self.audit.open()
        self._release = await asyncio.to_thread(prepare_computer, self.settings.folder / "computer")
        self._tending = asyncio.create_task(self._tend(), name="shells")

    async def announce(self, endpoint: str, host_key: PublicKey, offer: MachineOffer) -> None:
        """Tells the chain where this machine opens, with which key, for whom."""
        capabilities = await asyncio.to_thread(self._sandbox.probe)
        wished = replace(
            offer,
            machine=self.machine,
            owner=self.settings.owner,
            endpoint=endpoint,
            host_key=host_key.text,
            isolation=capabilities.level,
            name=self.settings.name,
            price_uain=self.settings.price_uain,
            minutes_max=self.settings.minutes_max,
            region=self.settings.region,
        )
        path = f"/machines/{self.machine}/offer"
        record = await self._chain.read(path)
        if not isinstance(record, dict) or {**record, "at_ms": 0} != {**machine_record(wished), "at_ms": 0}:
            await self._chain.write(
                path, machine_record(wished), self._key, deadline_seconds=ANNOUNCE_SECONDS
            )
        self._offer = wished
        self.audit.write("open", endpoint=endpoint, host_key=host_key.fingerprint, owner=self.settings.owner)

    async def close(self) -> None:
        """Shows everybody out; the chain is told that nothing opens here any more."""
        if self._tending is not None:
            self._tending.cancel()
            await asyncio.gather(self._tending, return_exceptions=True)
        await asyncio.gather(
            *(self._show_out(guest, "this machine closes") for guest in list(self._guests.values()))
        )
        if self._offer is not None:
            try:
                operation = set_value(f"/machines/{self.machine}/offer", None)
                await self._chain.submit_final([operation], self._key, deadline_seconds=ANNOUNCE_SECONDS)
            except (NodeAway, BadAnswer, TransactionDropped, TransactionNotFinal) as refusal:
                log.warning("could not tell the chain that this machine is closed: %s", refusal.message)
        if self._tasks:
            # Their computers have stopped, so that what is left of them is little.
            await asyncio.wait(self._tasks, timeout=GOODBYE_SECONDS)
        for task in list(self._tasks):
            task.cancel()
        self.audit.write("closed")
        self.audit.close()

    # ── Who may enter ────────────────────────────────────────────────────────────────────────────────────────

    async def admit(self, address: str, key: PublicKey) -> Right:
        """The right of an address whose wallet vouches for this key; asked anew each time."""
        path = f"/ssh_keys/{address}/{key.fingerprint}"
        try:
            record = await self._chain.read(path)
            right = await self._right(address)
        except (NodeAway, BadAnswer) as refusal:
            raise ChainAway(reason=refusal.message) from None
        try:
            known = None if record is None else read_ssh_key(key.fingerprint, record)
        except Refusal:
            known = None
        if known != key:
            raise KeyUnknown(address=address)
        if right is None:
            raise NoRight(address=address, machine=self.machine)
        return right

    async def _right(self, address: str) -> Right | None:
        base = f"/machines/{self.machine}"
        record, guest, tenant = await asyncio.gather(
            self._chain.read(f"{base}/offer"),
            self._chain.read(f"{base}/guests/{address}"),
            self._chain.read(f"{base}/tenants/{address}"),
        )
        if record is None:
            return None
        try:
            offer = read_machine(self.machine, record)
            return right_of(offer, guest, tenant, address, self._clock_ms())
        except Refusal as refusal:
            log.warning("the chain's record of this machine cannot be read: %s", refusal.message)
            return None

    # ── Visits ───────────────────────────────────────────────────────────────────────────────────────────────

    async def enter(
        self,
        address: str,
        key: PublicKey,
        *,
        command: str | None,
        terminal: Terminal | None,
        came_from: str,
    ) -> Visit:
        """A session in the guest's computer, which is started if there is none.

        A connection may be older than what the chain says now, so it is asked for each session.
        """
        if command is not None and len(command) > COMMAND_CHARACTERS_MAX:
            raise CommandTooLong(characters=len(command), characters_max=COMMAND_CHARACTERS_MAX)
        right = await self.admit(address, key)
        guest = self._guests.get(address)
        if guest is None:
            if len(self._guests) >= self.settings.guests_max:
                raise MachineFull(count=len(self._guests))
            guest = self._guests[address] = Guest(address, right)
        guest.right = right
        count = len(guest.visits) + guest.opening
        if count >= self.settings.sessions_max:
            raise TooManySessions(count=count)
        self._numbers += 1
        number = self._numbers
        # Written down before anything runs.
        self.audit.write(
            "enter",
            is_lasting=True,
            session=number,
            address=address,
            right=right.kind,
            until_ms=right.until_ms,
            key=key.fingerprint,
            came_from=came_from,
            command=None if command is None else command[:COMMAND_CHARACTERS_KEPT],
            command_characters=len(command or ""),
            terminal=None if terminal is None else terminal.name,
        )
        guest.opening += 1
        opening = asyncio.create_task(self._open(guest, command, terminal))
        try:
            shell = await asyncio.shield(opening)
        except asyncio.CancelledError:
            # The guest went while the door was opening: nobody stays behind it.
            self.keep(asyncio.create_task(self._abandon(guest, opening, number)))
            raise
        except BaseException as problem:
            guest.opening -= 1
            if isinstance(problem, Refusal):
                self.audit.write("failed", session=number, address=address, reason=problem.message)
            raise
        visit = Visit(self, guest, shell, number, key, is_terminal=terminal is not None)
        # Who was shown out while the door was opening is told why.
        visit.why = guest.why
        # One step: whoever counts sessions in between would let one too many in.
        guest.opening -= 1
        guest.visits.add(visit)
        return visit

    async def _open(self, guest: Guest, command: str | None, terminal: Terminal | None) -> Shell:
        async with guest.gate:
            if guest.why:
                raise RightEnded(address=guest.address)
            if guest.computer is None or not guest.computer.is_alive:
                guest.computer = await self._start(guest)
            return await guest.computer.open(command, terminal)

    async def _abandon(self, guest: Guest, opening: asyncio.Task[Shell], number: int) -> None:
        try:
            await (await opening).hang_up()
        except Refusal as refusal:
            log.info("a session that nobody waits for did not open: %s", refusal.message)
        finally:
            guest.opening -= 1
        guest.left_at = time.monotonic()
        self.audit.write("left", session=number, address=guest.address, why="gone before it began")

    async def _start(self, guest: Guest) -> Computer:
        assert self._release is not None
        if guest.computer is not None:
            await guest.computer.stop()
        computer = await Computer.start(self._sandbox, self._release, self.settings.limits)
        self.audit.write("computer", address=guest.address)
        return computer

    def left(self, guest: Guest, visit: Visit) -> None:
        """A session is over, with what it moved."""
        if visit not in guest.visits:
            return
        guest.visits.discard(visit)
        guest.left_at = time.monotonic()
        self.note(
            "left",
            guest,
            visit,
            why=visit.why,
            seconds=round(time.monotonic() - visit.began, 1),
            bytes_in=visit.bytes_in,
            bytes_out=visit.bytes_out,
        )

    def note(self, event: str, guest: Guest, visit: Visit, **facts: Any) -> None:
        """Writes down something of a session."""
        self.audit.write(event, session=visit.number, address=guest.address, **facts)

    def note_refused(self, came_from: str, name: str, reason: str, fingerprint: str = "") -> None:
        """Writes down somebody who was not let in, unless there are very many of them."""
        now = time.monotonic()
        self._refusals = [at for at in self._refusals if now - at < MINUTE_SECONDS]
        self._refusals.append(now)
        if len(self._refusals) == REFUSALS_A_MINUTE_MAX:
            self.audit.write("refused", reason="more refusals follow and are not written down one by one")
        elif len(self._refusals) < REFUSALS_A_MINUTE_MAX:
            self.audit.write("refused", came_from=came_from, name=name[:64], reason=reason, key=fingerprint)
        else:
            del self._refusals[-1]

    def keep(self, task: asyncio.Task[None]) -> None:
        """Holds a task of a session until it is done."""
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    # ── Ends ─────────────────────────────────────────────────────────────────────────────────────────────────

    async def _tend(self) -> None:
        """Ends what is over: rights, sessions, computers that nobody uses."""
        while True:
            await asyncio.sleep(TEND_SECONDS)
            self.audit.sync()
            for guest in list(self._guests.values()):
                try:
                    await self._look_at(guest)
                except Exception:
                    # One guest's trouble must not keep the others' rights from ending.
                    log.exception("looking after %s failed", guest.address)

    async def _look_at(self, guest: Guest) -> None:
        now = time.monotonic()
        if now - guest.looked_at >= RIGHT_LOOK_SECONDS:
            guest.looked_at = now
            try:
                right = await self._right(guest.address)
                if right is None:
                    await self._show_out(guest, RightEnded(address=guest.address).message)
                    return
                guest.right = right
                await self._look_at_keys(guest)
            except (NodeAway, BadAnswer) as refusal:
                log.warning("the right of %s cannot be asked for: %s", guest.address, refusal.message)
        if not guest.right.holds_at(self._clock_ms()):
            await self._show_out(guest, RightEnded(address=guest.address).message)
            return
        for visit in list(guest.visits):
            why = visit.overdue(now)
            if why:
                await visit.end(why)
        if not guest.visits and not guest.opening and now - guest.left_at > self.settings.linger_seconds:
            await self._show_out(guest, "nobody was there any more")

    async def _look_at_keys(self, guest: Guest) -> None:
        """Ends the sessions of keys that their wallet has taken back."""
        for key in {visit.key for visit in guest.visits}:
            if await self._chain.read(f"/ssh_keys/{guest.address}/{key.fingerprint}") is None:
                for visit in [one for one in guest.visits if one.key == key]:
                    await visit.end("the wallet has taken its word for this key back")

    async def _show_out(self, guest: Guest, why: str) -> None:
        """Ends a guest's computer with everything in it."""
        guest.why = why
        for visit in list(guest.visits):
            visit.why = visit.why or why
        async with guest.gate:
            computer, guest.computer = guest.computer, None
            if self._guests.get(guest.address) is guest:
                del self._guests[guest.address]
            if computer is not None:
                await computer.stop()
                self.audit.write("computer-ended", address=guest.address, why=why)
