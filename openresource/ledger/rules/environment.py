"""What one evaluation of a rule sees: the asker, the data before and after, the time, and the state behind it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from openresource.ledger.rules.errors import RuleThrow
from openresource.ledger.rules.meter import STEPS_MAX, Meter
from openresource.ledger.rules.values import UNDEFINED
from openresource.ledger.verdicts import Auth, EvalContext

# Heights of rules inside each other, where a rule asks evalRule() about another one.
HEIGHT_NESTED_MAX: Final = 160


class Environment(Meter):
    """The variables of a rule, and its meter."""

    __slots__ = (
        "addr",
        "auth",
        "auth_object",
        "block_number",
        "block_time",
        "context",
        "data",
        "fid",
        "height_left",
        "labels",
        "new_data",
        "path_items",
        "time",
        "variables",
    )

    def __init__(
        self,
        auth: Auth | None,
        data: object,
        new_data: object,
        context: EvalContext,
        labels: Sequence[str],
        variables: list[str],
    ) -> None:
        super().__init__(STEPS_MAX)
        self.auth: Auth | None = auth
        self.addr: object = UNDEFINED
        self.fid: object = UNDEFINED
        if auth is not None:
            if auth.addr is not None:
                self.addr = auth.addr
            if auth.fid is not None:
                self.fid = auth.fid
        self.data: object = data
        self.new_data: object = new_data
        self.context: EvalContext = context
        self.time: object = context.timestamp
        self.block_number: object = context.block_number
        self.block_time: object = context.block_time
        self.labels: Sequence[str] = labels
        self.variables: list[str] = variables
        self.height_left: int = HEIGHT_NESTED_MAX
        # Objects are made when a rule first asks, and stay the same object then.
        self.auth_object: dict[str, object] | None = None
        self.path_items: list[object] | None = None

    def auth_value(self) -> object:
        """auth."""
        auth = self.auth
        if auth is None:
            return None
        made = self.auth_object
        if made is None:
            made = auth.to_json()
            self.auth_object = made
        return made

    def path_value(self) -> object:
        """parsedValuePath."""
        items = self.path_items
        if items is None:
            items = list(self.labels)
            self.path_items = items
        return items

    def address(self) -> object:
        """auth.addr."""
        if self.auth is None:
            raise RuleThrow("Cannot read properties of null (reading 'addr')")
        return self.addr

    def function_id(self) -> object:
        """auth.fid."""
        if self.auth is None:
            raise RuleThrow("Cannot read properties of null (reading 'fid')")
        return self.fid

    def read(self, root: str, path: object) -> object:
        """What stands at a path below one of the four roots; null if nothing does."""
        raise NotImplementedError

    def evaluate_rule(self, arguments: list[object]) -> object:
        """evalRule(path, value, auth, options)."""
        raise NotImplementedError

    def evaluate_owner(self, arguments: list[object]) -> object:
        """evalOwner(path, permission, auth, options)."""
        raise NotImplementedError
