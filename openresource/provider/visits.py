"""One guest of a machine and each of its sessions: what is counted, what is written down, and why one must end."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Protocol

from openresource.market.machines import Right
from openresource.market.ssh_keys import PublicKey
from openresource.primitives.errors import Refusal
from openresource.provider.audits import TypedLines
from openresource.sandbox.computers import SESSIONS_MAX, Computer, Ended, Said, Shell
from openresource.sandbox.driver import Limits, ProgramError

TYPED_BYTES_MAX: Final = 4 << 20


@dataclass(frozen=True, slots=True)
class ShellSettings:
    """What an operator gives to people who enter."""

    folder: Path
    owner: str
    name: str = ""
    price_uain: int | None = None
    minutes_max: int = 24 * 60
    region: str = ""
    limits: Limits = field(
        default_factory=lambda: Limits(
            memory_bytes=1 << 30, disk_bytes=256 << 20, processes=128, open_files=1024
        )
    )
    guests_max: int = 8
    sessions_max: int = SESSIONS_MAX // 2
    session_seconds_max: float = 8 * 60 * 60.0
    idle_seconds_max: float = 30 * 60.0
    linger_seconds: float = 10 * 60.0
    # In and out together, for each session.
    session_bytes_max: int = 2 << 30


class House(Protocol):
    """What a visit needs of the machine around it."""

    @property
    def settings(self) -> ShellSettings: ...

    def note(self, event: str, guest: Guest, visit: Visit, **facts: Any) -> None: ...

    def left(self, guest: Guest, visit: Visit) -> None: ...

    def keep(self, task: asyncio.Task[None]) -> None: ...


class Visit:
    """One session of a guest: a shell or a command, counted, written down and ended in time."""

    def __init__(
        self, house: House, guest: Guest, shell: Shell, number: int, key: PublicKey, *, is_terminal: bool
    ) -> None:
        self._house = house
        self._guest = guest
        self._shell = shell
        self.number = number
        self.key = key
        self._typed = TypedLines() if is_terminal else None
        self.began = self.active = time.monotonic()
        self.bytes_in = self.bytes_out = 0
        self.why = ""
        self._over = asyncio.Event()

    async def said(self) -> AsyncIterator[Said | Ended]:
        """What it says until its end; a visit that must end says why."""
        try:
            async for part in self._shell.said():
                if isinstance(part, Said):
                    self.active = time.monotonic()
                    self.bytes_out += len(part.out) + len(part.err)
                    self._check_bytes()
                    if self.why:
                        return
                else:
                    self._house.note("exit", self._guest, self, exit_code=part.exit_code, signal=part.signal)
                yield part
        except ProgramError:
            # A computer that was ended has an end that the guest is told, and that is why.
            if not self.why:
                self.why = "the computer ended: a process of yours took too much, or stopped it"
                raise
        finally:
            self._over.set()

    async def write(self, data: bytes, *, ends: bool = False) -> None:
        """What the guest types or sends."""
        self.active = time.monotonic()
        self.bytes_in += len(data)
        self._check_bytes()
        if self._typed is not None:
            if self.bytes_in > TYPED_BYTES_MAX:
                self._end_soon("nobody types so much; send it as the input of a command")
            for line in self._typed.feed(data):
                self._house.note("typed", self._guest, self, line=line)
        await self._shell.write(data, ends=ends)

    async def resize(self, rows: int, columns: int) -> None:
        """The guest's window has another size."""
        await self._shell.resize(rows, columns)

    async def signal(self, name: str) -> None:
        """A signal that the guest sends."""
        await self._shell.signal(name)

    async def end(self, why: str) -> None:
        """Ends it, with the reason that the guest is told; again is harmless."""
        self.why = self.why or why
        # A computer that has gone has taken its sessions with it.
        with contextlib.suppress(Refusal):
            await self._shell.hang_up()

    async def leave(self) -> None:
        """The guest is gone: whatever still runs in this session ends."""
        if not self._over.is_set():
            with contextlib.suppress(Refusal):
                await self._shell.hang_up()
        self._house.left(self._guest, self)

    def _check_bytes(self) -> None:
        if self.bytes_in + self.bytes_out > self._house.settings.session_bytes_max:
            self._end_soon("this session has moved as many bytes as one may")

    def _end_soon(self, why: str) -> None:
        if not self.why:
            self.why = why
            self._house.keep(asyncio.create_task(self.end(why)))

    def overdue(self, now: float) -> str:
        """Why it must end now; empty if it may go on."""
        settings = self._house.settings
        if now - self.began > settings.session_seconds_max:
            return f"a session lasts at most {settings.session_seconds_max / 60:.0f} minutes"
        if now - self.active > settings.idle_seconds_max:
            return f"nothing happened for {settings.idle_seconds_max / 60:.0f} minutes"
        return ""


class Guest:
    """Somebody who has entered, and the computer that is kept for this address."""

    def __init__(self, address: str, right: Right) -> None:
        self.address = address
        self.right = right
        self.computer: Computer | None = None
        self.visits: set[Visit] = set()
        self.opening = 0
        self.left_at = time.monotonic()
        self.looked_at = time.monotonic()
        self.why = ""
        self.gate = asyncio.Lock()
