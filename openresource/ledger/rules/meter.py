"""The meter of an evaluation: what an expression may cost, counted in steps that are the same on every machine."""

from __future__ import annotations

from typing import Final

from openresource.ledger.rules.errors import RuleExhausted

STEPS_MAX: Final = 20_000
STRING_UNITS_MAX: Final = 1 << 20
ARRAY_ITEMS_MAX: Final = 100_000


class Meter:
    """Counts down."""

    __slots__ = ("steps",)

    def __init__(self, steps: int) -> None:
        self.steps: int = steps

    def spend(self, steps: int) -> None:
        """Takes steps away; throws when none are left."""
        self.steps -= steps
        if self.steps < 0:
            raise RuleExhausted("the rule is too expensive")

    def spend_text(self, length: int) -> None:
        """Pays for handling or building a text of some length."""
        self.refuse_text(length)
        self.spend(1 + length // 64)

    def refuse_text(self, length: int) -> None:
        """Throws if a text would become too long."""
        if length > STRING_UNITS_MAX:
            raise RuleExhausted("Invalid string length")

    def spend_items(self, count: int) -> None:
        """Pays for handling or building a list of some length."""
        if count > ARRAY_ITEMS_MAX:
            raise RuleExhausted("Invalid array length")
        self.spend(1 + count // 4)
