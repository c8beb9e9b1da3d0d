"""The market's native functions: each checks the record that a user wrote at a path, and writes the consequences.

They decide nothing about sums and life cycles: that is in the modules of the same names one level up. `protocol.py`
takes from here what the profile needs. Open `channels.py` first.
"""

from __future__ import annotations

from typing import Final

from openresource.ledger.draft import DueAction, Native
from openresource.ledger.profile import ProgramHook
from openresource.market.natives import (
    bonds,
    channels,
    holds,
    jobs,
    kills,
    machines,
    placements,
    programs,
    reports,
    reputation,
    services,
    stakes,
)
from openresource.market.natives.jobs import PROGRAM_EVENT_WRITES, check_program, on_program_event
from openresource.market.natives.parameters import CATEGORY, PARAMETERS

NATIVES: Final[tuple[Native, ...]] = (
    *programs.NATIVES,
    *services.NATIVES,
    *placements.NATIVES,
    *channels.NATIVES,
    *holds.NATIVES,
    *bonds.NATIVES,
    *machines.NATIVES,
    *jobs.NATIVES,
    *stakes.NATIVES,
    *kills.NATIVES,
    *reports.NATIVES,
)
DUE_ACTIONS: Final[tuple[DueAction, ...]] = (
    *holds.DUE_ACTIONS,
    *jobs.DUE_ACTIONS,
    *bonds.DUE_ACTIONS,
    *machines.DUE_ACTIONS,
    *stakes.DUE_ACTIONS,
    *kills.DUE_ACTIONS,
)
FUNCTIONS: Final[dict[str, str]] = (
    programs.FUNCTIONS
    | services.FUNCTIONS
    | placements.FUNCTIONS
    | channels.FUNCTIONS
    | holds.FUNCTIONS
    | bonds.FUNCTIONS
    | machines.FUNCTIONS
    | jobs.FUNCTIONS
    | stakes.FUNCTIONS
    | kills.FUNCTIONS
    | reports.FUNCTIONS
)
RULES: Final[dict[str, str]] = (
    programs.RULES
    | services.RULES
    | placements.RULES
    | channels.RULES
    | holds.RULES
    | bonds.RULES
    | machines.RULES
    | jobs.RULES
    | stakes.RULES
    | kills.RULES
    | reports.RULES
    | reputation.RULES
)
PROGRAM_HOOK: Final = ProgramHook(PROGRAM_EVENT_WRITES, on_program_event, check_program)
MARKET_PARAMETERS: Final[dict[str, dict[str, int]]] = {CATEGORY: PARAMETERS}
