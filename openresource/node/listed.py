"""Lists of transactions at a door: checked one after the other, until the first one that does not get through."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Final, TypeVar

Checked = TypeVar("Checked")
# Others must not wait for the checks of a whole list.
CHECKED_PER_TURN: Final = 10


class DoorRefusal(Exception):
    """A transaction that never reaches the chain, with the code and message that clients know."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message


async def checked_in_turns(
    listed: list[Any], check: Callable[[Any, int], Checked]
) -> tuple[list[Checked], DoorRefusal | None]:
    """What the check made of the elements before the first one that it refused, and that refusal."""
    found: list[Checked] = []
    for index, wire in enumerate(listed):
        try:
            found.append(check(wire, index))
        except DoorRefusal as refusal:
            return found, refusal
        if index % CHECKED_PER_TURN == CHECKED_PER_TURN - 1:
            await asyncio.sleep(0)
    return found, None
