"""A state in memory for tests of natives: nested dicts below /values, nothing more."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import Any

from openresource.ledger.draft import balance_labels
from openresource.primitives.amounts import ain_number, uain_of_number


class MemoryState:
    """A `StateAccess` over nested dicts; `rules` answers `rule_allows`."""

    def __init__(
        self,
        values: dict[str, Any] | None = None,
        rules: Callable[[tuple[str, ...], Any, str], bool] = lambda labels, value, signer: True,
    ) -> None:
        self.values: dict[str, Any] = copy.deepcopy(values or {})
        self._rules = rules

    def read_value(self, labels: Sequence[str]) -> Any:
        node: Any = self.values
        for label in labels:
            if not isinstance(node, dict) or label not in node:
                return None
            node = node[label]
        return copy.deepcopy(node)

    def write_value(self, labels: Sequence[str], value: Any) -> None:
        trail: list[tuple[dict[str, Any], str]] = []
        node = self.values
        for label in labels[:-1]:
            trail.append((node, label))
            if not isinstance(node.get(label), dict):
                node[label] = {}
            node = node[label]
        if value is not None:
            node[labels[-1]] = copy.deepcopy(value)
            return
        node.pop(labels[-1], None)
        for parent, label in reversed(trail):
            if not parent[label]:
                del parent[label]

    def rule_allows(self, labels: Sequence[str], value: Any, signer: str) -> bool:
        return self._rules(tuple(labels), value, signer)

    def give(self, account: str, amount_uain: int) -> None:
        """Money out of nowhere, for the start of a test."""
        self.write_value(balance_labels(account), ain_number(amount_uain))

    def supply_uain(self) -> int:
        """The sum of all balances."""
        people = self.values.get("accounts", {})
        total = sum(uain_of_number(account.get("balance", 0)) for account in people.values())
        for services in self.values.get("service_accounts", {}).values():
            for accounts in services.values():
                total += sum(uain_of_number(account["balance"]) for account in accounts.values())
        return total
