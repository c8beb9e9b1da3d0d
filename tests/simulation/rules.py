"""What rules, owners and functions say, written over the flat state: walks label by label, without any memory."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

from tests.simulation.state import FlatState, Path, in_property_order, leaf_bytes, text_length

ALLOWED = 0
SUBTREE_RULES = 12101
THREW = 12102
FORBIDDEN = 12103
SHAPE = 12104
SYNTAX = 12105


class Throws(Exception):
    """The rule throws."""


class NoRule(Exception):
    """The text is no expression."""


@dataclass
class Asker:
    """Who writes: the signer, the native that writes for them, and the natives around that one."""

    address: str
    native: str | None = None
    natives: tuple[str, ...] = ()


@dataclass
class Seen:
    """What a rule sees."""

    state: FlatState
    asker: Asker
    data: Any
    new: Any
    time: Any
    block: int
    labels: Path
    names: dict[str, str]

    def value(self, path: str) -> Any:
        """getValue."""
        return self.state.get(("values", *[label for label in path.split("/") if label]))

    def balance(self, account: str) -> Any:
        """util.getBalance."""
        return self.state.get(("values", *balance_path(account))) or 0


Rule = Callable[[Seen], bool]


@dataclass
class Way:
    """How far a path leads through the configs, and what it bound."""

    taken: Path
    names: dict[str, str] = field(default_factory=dict)
    is_whole: bool = False


def walk(state: FlatState, root: str, path: Path) -> Way:
    """The literal label if there is one, else the first variable."""
    way = Way((root,))
    for label in path:
        labels = state.labels(way.taken)
        if label not in labels:
            variables = [known for known in labels if known.startswith("$")]
            if not variables:
                return way
            way.names[variables[0]] = label
            label = variables[0]
        way.taken = (*way.taken, label)
    way.is_whole = True
    return way


def closest(state: FlatState, way: Way, config: str, member: str) -> Path | None:
    """The deepest place on the way whose config has a member."""
    for depth in range(len(way.taken), 0, -1):
        if state.exists((*way.taken[:depth], config, member)):
            return way.taken[:depth]
    return None


def below(state: FlatState, path: Path, config: str, *, with_variables: bool = True) -> list[Path]:
    """Places strictly below a path that have a config, the variable child after the others."""
    found: list[Path] = []
    labels = [label for label in state.labels(path) if label != config]
    if with_variables:
        variable = next((label for label in labels if label.startswith("$")), None)
        if variable is not None:
            labels = [label for label in labels if label != variable] + [variable]
    for label in labels:
        place = (*path, label)
        if place in state.below:
            if state.exists((*place, config)):
                found.append(place)
            found.extend(below(state, place, config, with_variables=with_variables))
    return found


def write_code(state: FlatState, known: dict[str, Rule], path: Path, new: Any, seen: Seen) -> int:
    """Whether a value may be written; the result code."""
    way = walk(state, "rules", path)
    if way.is_whole and any(
        state.exists((*place, ".rule", "write")) for place in below(state, way.taken, ".rule")
    ):
        return SUBTREE_RULES
    place = closest(state, way, ".rule", "write")
    if place is None:
        return FORBIDDEN
    rule = state.get((*place, ".rule", "write"))
    if isinstance(rule, str):
        data = state.get(("values", *path))
        extra = path[len(place) - 1 : len(way.taken) - 1]
        for label in reversed(extra):
            data, new_inside = {label: data}, {label: seen.new}
            seen.new = new_inside
        seen.data = data
        seen.names = way.names
        try:
            if not known[rule](seen):
                return FORBIDDEN
        except Throws:
            return THREW
        except NoRule:
            return SYNTAX
    elif rule is not True:
        return FORBIDDEN
    shaped = closest(state, way, ".rule", "state")
    if shaped is not None and not has_shape(new, state.get((*shaped, ".rule", "state"))):
        return SHAPE
    return ALLOWED


def has_shape(value: Any, limits: Any) -> bool:
    """Whether a written value keeps to the bounds of a state rule."""
    if not isinstance(limits, dict):
        return True
    if "max_bytes" in limits and plain_bytes(value) > limits["max_bytes"]:
        return False
    if not isinstance(value, dict):
        return True
    return not (
        ("max_children" in limits and len(value) > limits["max_children"])
        or ("max_height" in limits and plain_height(value) > limits["max_height"])
        or ("max_size" in limits and plain_size(value) > limits["max_size"])
    )


def too_many(state: FlatState, path: Path) -> list[Path]:
    """Full paths that garbage collection deletes after a write."""
    place = closest(state, walk(state, "rules", path), ".rule", "state")
    if place is None or len(place) < 2:
        return []
    limits = state.get((*place, ".rule", "state"))
    if not isinstance(limits, dict) or "gc_max_siblings" not in limits:
        return []
    parent = ("values", *path[: len(place) - 2])
    labels = state.labels(parent)
    if len(labels) <= limits["gc_max_siblings"]:
        return []
    return [(*parent, label) for label in labels[: limits["gc_num_siblings_deleted"]]]


# Owners


def owner_code(state: FlatState, path: Path, kind: str, asker: Asker, is_merge: bool, codes: Path2) -> int:
    """Whether somebody may write a rule, function or owner: the code; `codes` are those for `below` and `denied`."""
    place: Path = ("owners",)
    at: Path | None = None
    depth = 0
    while True:
        if state.exists((*place, ".owner")):
            at = place
        if depth == len(path) or path[depth] not in state.labels(place):
            break
        place = (*place, path[depth])
        depth += 1
    if not is_merge and depth == len(path) and below(state, place, ".owner", with_variables=False):
        return codes[0]
    permission = kind
    if kind == "write_owner" and at != ("owners", *path):
        permission = "branch_owner"
    owners = state.get((*at, ".owner", "owners")) if at is not None else None
    if not isinstance(owners, dict):
        return codes[1]
    granted = owners.get(f"fid:{asker.native}" if asker.native else asker.address) or owners.get("*")
    return ALLOWED if isinstance(granted, dict) and granted.get(permission) is True else codes[1]


Path2 = tuple[int, int]


def changed(current: Any, new: Any, config: str) -> tuple[Any, bool]:
    """The config after a change, and whether that is a merge."""
    is_merge = (
        isinstance(current, dict)
        and current.get(config) is not None
        and isinstance(new, dict)
        and list(new) == [config]
    )
    if not is_merge:
        return new, False
    merged = {label: current[label] for label in current}
    inside = dict(current[config])
    change = new[config]
    if config == ".owner":
        owners = dict(inside.get("owners") or {})
        _merge(owners, change["owners"])
        inside["owners"] = owners
    else:
        _merge(inside, change)
    merged[config] = inside
    return merged, True


def _merge(into: dict[str, Any], change: dict[str, Any]) -> None:
    for name in change:
        if change[name] is None:
            into.pop(name, None)
        else:
            into[name] = change[name]


# Functions


def triggered(
    state: FlatState, path: Path, value: Any, before: Any
) -> tuple[Any, list[tuple[str, list[Any]]]]:
    """The config at a path with what it is told, and for each config below it the places in the value that it meets."""
    way = walk(state, "functions", path)
    if not way.is_whole:
        return None, []
    params = {name[1:]: bound for name, bound in way.names.items()}
    config = state.get((*way.taken, ".function"))
    exact = (config, path, value, before, params, "") if config else None
    inner: list[tuple[str, list[Any]]] = []
    for place in below(state, way.taken, ".function"):
        config = state.get((*place, ".function")) or {}
        pattern = place[len(way.taken) :]
        now, was = _places(value, pattern), _places(before, pattern)
        calls = []
        for where, (labels, old, bound) in was.items():
            if where not in now:
                calls.append((config, (*path, *labels), None, old, {**params, **bound}, where))
        for where, (labels, item, bound) in now.items():
            old = was[where][1] if where in was else None
            calls.append((config, (*path, *labels), item, old, {**params, **bound}, where))
        inner.append(("/" + "/".join(pattern), calls))
    return exact, inner


def _places(value: Any, pattern: Path) -> dict[str, tuple[Path, Any, dict[str, str]]]:
    found: list[tuple[Path, Any, dict[str, str]]] = [((), value, {})]
    for label in pattern:
        further = []
        for labels, item, bound in found:
            if not isinstance(item, dict):
                continue
            if label.startswith("$"):
                for key in in_property_order(tuple(item)):
                    further.append(((*labels, key), item[key], {**bound, label[1:]: key}))
            elif label in item:
                further.append(((*labels, label), item[label], bound))
        found = further
    return {"/" + "/".join(labels): (labels, item, bound) for labels, item, bound in found}


# Small things


def balance_path(account: str) -> Path:
    """Where the balance of an account is."""
    if "|" in account:
        return ("service_accounts", *account.split("|", 2), "balance")
    return ("accounts", account, "balance")


def is_number(value: Any) -> bool:
    """util.isNumber of what the state can hold."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def decimals(value: float) -> int:
    """util.countDecimals."""
    return max(0, -int(Decimal(repr(value)).normalize().as_tuple().exponent))


def plain_bytes(value: Any) -> int:
    """What a value counts for."""
    if isinstance(value, dict):
        return sum(2 * text_length(label) + plain_bytes(item) for label, item in value.items())
    return leaf_bytes(value)


def plain_height(value: Any) -> int:
    """Levels of an object."""
    return (
        1 + max((plain_height(item) for item in value.values()), default=0) if isinstance(value, dict) else 0
    )


def plain_size(value: Any) -> int:
    """Members on all levels."""
    return sum(1 + plain_size(item) for item in value.values()) if isinstance(value, dict) else 0
