"""How programs are spoken to: the channel that every tongue has, and those tongues that an adapter brings along."""

from __future__ import annotations

import socket
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Protocol

from openresource.sandbox.driver import KindNotServed, Limits, ProgramCall, ProgramError, Release
from openresource.sandbox.tickets import Ticket


class Channel(Protocol):
    """How a kind of program is spoken to."""

    async def ready(self) -> dict[str, Any]: ...

    def begin(self, ticket: Ticket, call: ProgramCall) -> None: ...

    def cancel(self, ticket: Ticket) -> None: ...

    def expire(self, ticket: Ticket, error: ProgramError) -> bool: ...

    def press(self, pressing: bool) -> None: ...

    def close(self) -> None: ...


@dataclass(frozen=True, slots=True)
class Opening:
    """What a channel needs to be opened: the guest's control socket, the program, whom to tell of its end."""

    control: socket.socket
    release: Release
    limits: Limits
    on_lost: Callable[[], None]
    on_fault: Callable[[ProgramError], None]


Opener = Callable[[Opening], Awaitable[Channel]]
_openers: dict[str, Opener] = {}


def add_tongue(name: str, opener: Opener) -> None:
    """Bring a tongue along; for the command that sets up the drivers."""
    _openers[name] = opener


def opener_of(name: str, kind: str) -> Opener:
    """What opens a channel in a tongue, or a refusal."""
    opener = _openers.get(name)
    if opener is None:
        raise KindNotServed(kind=kind, level="any", reason=f"nothing here speaks {name}")
    return opener
