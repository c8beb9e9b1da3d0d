"""Gas: what an operation used of bandwidth and state, by service and by app, and what that costs."""

from __future__ import annotations

import math
from typing import Any, Final

from openresource.primitives.numbers import to_double
from openresource.primitives.paths import parse_path

APPS: Final = "apps"


class GasTally:
    """Amounts of gas: one for services, one for each app."""

    __slots__ = ("app", "service")

    def __init__(self) -> None:
        self.service: float | int = 0
        self.app: dict[str, Any] = {}

    def add(self, labels: list[str], amount: float | int) -> None:
        """Counts an amount for the service or app that a path belongs to."""
        if not labels or labels[0] != APPS:
            self.service += amount
        elif len(labels) > 1:
            name = labels[1]
            self.app[name] = self.app.get(name, 0) + amount

    def to_json(self) -> dict[str, Any]:
        """The amounts as results show them."""
        return {"service": self.service, "app": self.app} if self.app else {"service": self.service}


def bandwidth_gas(labels: list[list[str]], result: dict[str, Any]) -> GasTally:
    """The bandwidth that operations at some paths used, with all that their functions wrote."""
    tally = GasTally()
    if "result_list" not in result:
        add_operation(tally, labels[0], result)
        return tally
    result_list: dict[str, Any] | None = result["result_list"]
    if result_list is not None:
        for index, single_result in result_list.items():
            add_operation(tally, labels[int(index)], single_result)
    return tally


def add_operation(tally: GasTally, labels: list[str], result: dict[str, Any]) -> None:
    """Counts the result of one operation and of the functions that it triggered."""
    tally.add(labels, result.get("bandwidth_gas_amount", 0))
    func_results: dict[str, Any] | None = result.get("func_results")
    if func_results is not None:
        _add_functions(tally, labels, func_results)
    subtree: dict[str, Any] | None = result.get("subtree_func_results")
    if subtree is not None:
        for by_path in subtree.values():
            for value_path, entry in by_path.items():
                _add_functions(tally, labels + parse_path(value_path), entry.get("func_results") or {})


def app_names(labels: list[list[str]]) -> list[str]:
    """The apps whose paths operations write, in order, each once."""
    names: list[str] = []
    for single in labels:
        if len(single) > 1 and single[0] == APPS and single[1] not in names:
            names.append(single[1])
    return names


def has_service_operation(labels: list[list[str]]) -> bool:
    """Whether an operation writes outside of apps."""
    return any(not single or single[0] != APPS for single in labels)


def gas_cost(price: float | int, unit: float | int, amount: float | int, is_floored: bool) -> float | int:
    """What an amount of gas costs, in AIN; floored to 6 decimals where the chain says so."""
    cost = price * unit * amount
    if is_floored and math.isfinite(cost * 1_000_000):
        cost = math.floor(cost * 1_000_000) / 1_000_000
    return to_double(cost)


def _add_functions(tally: GasTally, labels: list[str], func_results: dict[str, Any]) -> None:
    for result in func_results.values():
        op_results: dict[str, Any] | None = result.get("op_results")
        if op_results is not None:
            for entry in op_results.values():
                add_operation(tally, parse_path(entry["path"]), entry["result"])
        tally.add(labels, result.get("bandwidth_gas_amount", 0))
