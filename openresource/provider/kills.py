"""Programs that a vote of the network has stopped: this provider takes no more calls of them, from the next one on.

What the chain says counts, not what this provider thinks of it. A program that an appeal gave back is placed again.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Any, Final

from openresource.client.chain import Chain
from openresource.market.fields import is_cid_text
from openresource.market.kills import ProgramKilled, check_program_runs
from openresource.provider.offers import Offers
from openresource.provider.statuses import WITHDRAWN, register

log = logging.getLogger("openresource.provider.kills")

KILLS: Final = "kills"
KILL_EVENTS: Final = "/kills/*/state"
# Programs about which there was a vote; each has cost somebody a deposit.
PROGRAMS_SCANNED_MAX: Final = 10_000
# What an event did not bring is found so soon.
LOOK_SECONDS: Final = 60.0

register(ProgramKilled, WITHDRAWN)


class Kills:
    """What this provider knows of programs that were stopped."""

    def __init__(self, chain: Chain, offers: Offers, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._chain = chain
        self._offers = offers
        self._clock = clock
        self._looks_again_at = 0.0

    async def look(self) -> None:
        """Reads what the votes of the past have decided; between two looks events tell what changes."""
        if self._clock() < self._looks_again_at:
            return
        count = 0
        async for program in self._chain.children("/kills"):
            self.see(program, await self._chain.read(f"/kills/{program}/state"))
            count += 1
            if count >= PROGRAMS_SCANNED_MAX:
                log.warning("only the first %d programs with a vote were looked at", count)
                break
        self._looks_again_at = self._clock() + LOOK_SECONDS

    def see(self, program: str, record: Any) -> None:
        """Takes in where a program stands; whoever calls it next is refused or served."""
        if not is_cid_text(program):
            return
        try:
            check_program_runs(program, record)
        except ProgramKilled as killed:
            if program not in self._offers.stopped:
                log.warning("no more calls: %s", killed.message)
            self._offers.stop(program, killed)
        else:
            self._offers.resume(program)

    def lacks(self, program: str) -> str:
        """Why a program may not be placed, in words; empty if it may."""
        killed = self._offers.stopped.get(program)
        return killed.message if killed is not None else ""
