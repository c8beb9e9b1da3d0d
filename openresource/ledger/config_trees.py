"""Trees of rules, functions and owners as they are set: whether they are well-formed, and how a change is merged."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any, Final

from openresource.ledger.config_walk import FUNCTION, OWNER, RULE, STATE, WRITE
from openresource.ledger.owners import ANYBODY, FUNCTION_PREFIX, PERMISSIONS
from openresource.ledger.rules.checks import is_acceptable_rule
from openresource.ledger.urls import is_valid_url
from openresource.primitives.keys import is_checksum_address
from openresource.primitives.numbers import is_number
from openresource.primitives.paths import format_path, is_variable

NATIVE: Final = "NATIVE"
REST: Final = "REST"
PROGRAM: Final = "PROGRAM"

_SIZE_LIMITS: Final = ("max_children", "max_height", "max_size", "max_bytes")
_GC_MAX: Final = "gc_max_siblings"
_GC_COUNT: Final = "gc_num_siblings_deleted"
_STATE_MEMBERS: Final = frozenset((*_SIZE_LIMITS, _GC_MAX, _GC_COUNT))

# What the members of a PROGRAM entry say is for the market to judge.
_PROGRAM_MEMBERS_MAX: Final = 12

# Finds what is wrong with a config: labels below it, None if nothing is. The labels given lead to its node.
Validator = Callable[[Any, list[str]], list[str] | None]


@dataclass(frozen=True, slots=True)
class ChangedTree:
    """A tree after a change, and whether the change was merged into the one before."""

    value: Any
    is_merge: bool


def check_rule_tree(labels: list[str], value: Any, min_gc_num_siblings_deleted: Any) -> str | None:
    """The path of what is wrong with rules that are to be set at labels; None if they are well-formed."""

    def validate(config: Any, place: list[str]) -> list[str] | None:
        return _rule_fault(config, place, min_gc_num_siblings_deleted)

    return _check_tree(labels, value, RULE, validate)


def check_function_tree(labels: list[str], value: Any, has_programs: bool = False) -> str | None:
    """The path of what is wrong with functions that are to be set at labels; None if they are well-formed."""

    def validate(config: Any, place: list[str]) -> list[str] | None:
        return _function_fault(config, has_programs)

    return _check_tree(labels, value, FUNCTION, validate)


def check_owner_tree(labels: list[str], value: Any, natives: Collection[str]) -> str | None:
    """The path of what is wrong with owners that are to be set at labels; None if they are well-formed."""

    def validate(config: Any, place: list[str]) -> list[str] | None:
        return _owner_fault(config, natives)

    return _check_tree(labels, value, OWNER, validate)


def apply_rule_change(current: Any, change: Any) -> ChangedTree:
    """Rules after a change."""
    return _apply(current, change, RULE, ())


def apply_function_change(current: Any, change: Any) -> ChangedTree:
    """Functions after a change."""
    return _apply(current, change, FUNCTION, ())


def apply_owner_change(current: Any, change: Any) -> ChangedTree:
    """Owners after a change."""
    return _apply(current, change, OWNER, ("owners",))


def _check_tree(labels: list[str], value: Any, kind: str, validate: Validator) -> str | None:
    if value is None:
        return None
    seen: set[str] = set()
    for position, label in enumerate(labels):
        if is_variable(label):
            if label in seen:
                return format_path(labels[: position + 1])
            seen.add(label)
    return _check_level(value, labels, [], seen, kind, validate)


def _check_level(
    tree: Any, labels: list[str], path: list[str], seen: set[str], kind: str, validate: Validator
) -> str | None:
    if not isinstance(tree, dict) or not tree:
        return format_path(path)
    for label, below in tree.items():
        here = [*path, label]
        if label == kind:
            fault = validate(below, [*labels, *path])
            if fault is not None:
                return format_path([*here, *fault])
            continue
        if is_variable(label):
            if label in seen:
                return format_path([*labels, *here])
            found = _check_level(below, labels, here, seen | {label}, kind, validate)
        else:
            found = _check_level(below, labels, here, seen, kind, validate)
        if found is not None:
            return found
    return None


def _rule_fault(config: Any, place: list[str], gc_count_min: Any) -> list[str] | None:
    if not isinstance(config, dict) or not config or not set(config) <= {WRITE, STATE}:
        return []
    state = config.get(STATE)
    if state is not None:
        # Members that are no numbers would be lost when the rule is cleaned, so the whole config counts as wrong.
        if not isinstance(state, dict) or not state or not set(state) <= _STATE_MEMBERS:
            return []
        if not all(is_number(limit) for limit in state.values()):
            return []
    if WRITE in config and not _is_write_rule(config[WRITE], place):
        return [WRITE]
    if state is not None and not _is_state_rule(state, gc_count_min):
        return [STATE]
    return None


def _is_write_rule(rule: Any, place: list[str]) -> bool:
    if rule is None or isinstance(rule, bool):
        return True
    return isinstance(rule, str) and is_acceptable_rule(
        rule, [label for label in place if is_variable(label)]
    )


def _is_state_rule(state: dict[str, Any], gc_count_min: Any) -> bool:
    if any(name in state and state[name] <= 0 for name in _SIZE_LIMITS):
        return False
    if _GC_MAX in state:
        most = state[_GC_MAX]
        count = state.get(_GC_COUNT)
        if most <= 0 or count is None or count > most:
            return False
        if is_number(gc_count_min) and count < gc_count_min:
            return False
    return _GC_MAX in state or any(name in state for name in _SIZE_LIMITS)


def _function_fault(config: Any, has_programs: bool) -> list[str] | None:
    if not isinstance(config, dict) or not config:
        return []
    for function_id, info in config.items():
        if info is None:
            continue
        is_known = _is_function(info) or (has_programs and _is_program(info))
        if not is_known:
            return [function_id]
        if info["function_id"] != function_id:
            return [function_id, "function_id"]
    return None


def _is_function(info: Any) -> bool:
    if not isinstance(info, dict) or not all(isinstance(member, str) for member in info.values()):
        return False
    if info.get("function_type") == NATIVE:
        return set(info) == {"function_type", "function_id"}
    if info.get("function_type") == REST:
        return set(info) == {"function_type", "function_id", "function_url"} and is_valid_url(
            info["function_url"]
        )
    return False


def _is_program(info: Any) -> bool:
    if not isinstance(info, dict) or info.get("function_type") != PROGRAM or "function_id" not in info:
        return False
    return len(info) <= _PROGRAM_MEMBERS_MAX and all(isinstance(member, str) for member in info.values())


def _owner_fault(config: Any, natives: Collection[str]) -> list[str] | None:
    if not isinstance(config, dict) or "owners" not in config:
        return []
    owners = config["owners"]
    if not isinstance(owners, dict) or not owners:
        return ["owners"]
    for who, permissions in owners.items():
        if not _is_owner(who, natives):
            return ["owners", who]
        if permissions is None:
            continue
        if not isinstance(permissions, dict) or set(permissions) != set(PERMISSIONS):
            return ["owners", who]
        if not all(isinstance(permission, bool) for permission in permissions.values()):
            return ["owners", who]
    return None


def _is_owner(who: str, natives: Collection[str]) -> bool:
    if who == ANYBODY or is_checksum_address(who):
        return True
    return who.startswith(FUNCTION_PREFIX) and who[len(FUNCTION_PREFIX) :] in natives


def _apply(current: Any, change: Any, kind: str, inner: tuple[str, ...]) -> ChangedTree:
    has_config = isinstance(current, dict) and current.get(kind) is not None
    if not has_config or not isinstance(change, dict) or list(change) != [kind]:
        return ChangedTree(change, False)
    merged = dict(current)
    merged[kind] = _merged(current[kind], change[kind], inner)
    return ChangedTree(merged, True)


def _merged(current: Any, change: Any, inner: tuple[str, ...]) -> Any:
    if inner:
        name = inner[0]
        below = change.get(name) if isinstance(change, dict) else None
        result: dict[str, Any] = dict(current) if isinstance(current, dict) else {}
        if not isinstance(below, dict) or not below:
            return current
        result[name] = _merged(result.get(name), below, inner[1:])
        return result
    if not isinstance(change, dict):
        return current
    entries: dict[str, Any] = dict(current) if isinstance(current, dict) else {}
    for key, entry in change.items():
        if entry is None:
            entries.pop(key, None)
        else:
            entries[key] = entry
    return entries
