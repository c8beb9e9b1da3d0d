"""Which rules, functions and owners speak for a path, and how the match APIs print that."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from openresource.ledger.config_walk import FUNCTION, OWNER, RULE, SubtreeConfig, Walk, subtree_of, walk
from openresource.ledger.nodes import NOTHING, Branch
from openresource.ledger.state import root_branch
from openresource.ledger.state_reader import StateReader
from openresource.ledger.views import plain
from openresource.primitives.paths import format_path


@dataclass(frozen=True, slots=True)
class ConfigMatch:
    """The config that speaks for a path: labels taken in its tree, labels of the value, where the config stands."""

    target_labels: list[str]
    value_labels: list[str]
    variables: dict[str, str]
    config_labels: list[str]
    config: Any
    subtree: list[SubtreeConfig]


@dataclass(frozen=True, slots=True)
class RuleMatch:
    """The rules that speak for a path: for writing, and for the shape of what is written."""

    write: ConfigMatch
    state: ConfigMatch


class FunctionMatch:
    """The functions at a path and below it; `config` is None unless the whole path matched."""

    __slots__ = ("config", "subtree", "target_labels", "value_labels", "variables")

    def __init__(
        self,
        target_labels: list[str],
        value_labels: list[str],
        variables: dict[str, str],
        config: dict[str, Any] | None,
        subtree: list[SubtreeConfig],
    ) -> None:
        self.target_labels: list[str] = target_labels
        self.value_labels: list[str] = value_labels
        self.variables: dict[str, str] = variables
        self.config: dict[str, Any] | None = config
        self.subtree: list[SubtreeConfig] = subtree

    @property
    def has_functions(self) -> bool:
        """Whether a write there could call anything."""
        return bool(self.config) or bool(self.subtree)

    def params(self) -> dict[str, str]:
        """The bound variables as functions get them, without the dollar sign."""
        return {name[1:]: value for name, value in self.variables.items()}


@dataclass(frozen=True, slots=True)
class OwnerMatch:
    """The closest owner config of a path, and the configs below it; `config` is None if there is none."""

    target_labels: list[str]
    config_labels: list[str]
    config: Any
    subtree: list[SubtreeConfig]


NO_FUNCTIONS: Final = FunctionMatch([], [], {}, None, [])


def match_rule(state: StateReader, labels: list[str]) -> RuleMatch:
    """The rules that speak for a value's path."""
    way = walk(root_branch(state, "rules"), labels, RULE)
    return rule_match(way, labels)


def rule_match(way: Walk, labels: list[str]) -> RuleMatch:
    """The match that a walk along a path found."""
    target = way.target_labels(labels)
    value_labels = labels[: way.depth]
    variables = way.variables()
    write, state = way.write_memo, way.state_memo
    return RuleMatch(
        ConfigMatch(
            target,
            value_labels,
            variables,
            target[: way.write_depth],
            None if write is None else write.config,
            rule_subtree(way, labels),
        ),
        ConfigMatch(
            target,
            value_labels,
            variables,
            target[: way.state_depth],
            None if state is None else state.config,
            [],
        ),
    )


def rule_subtree(way: Walk, labels: list[str]) -> list[SubtreeConfig]:
    """The write rules below a path that matched as a whole."""
    end = way.end
    if way.depth < len(labels) or not isinstance(end, Branch) or way.end_memo is None:
        return []
    return subtree_of(end, way.end_memo, RULE)


def match_function(state: StateReader, labels: list[str]) -> FunctionMatch:
    """The functions at a value's path and below it."""
    root = root_branch(state, "functions")
    if root is None:
        return NO_FUNCTIONS
    way = walk(root, labels, FUNCTION)
    end = way.end
    if not isinstance(end, Branch) or way.end_memo is None:
        if way.depth == 0:
            return NO_FUNCTIONS
        return FunctionMatch(way.target_labels(labels), labels[: way.depth], way.variables(), None, [])
    return FunctionMatch(
        way.target_labels(labels),
        labels[: way.depth],
        way.variables(),
        way.end_memo.config,
        subtree_of(end, way.end_memo, FUNCTION),
    )


def match_owner(state: StateReader, labels: list[str], with_subtree: bool = True) -> OwnerMatch:
    """The closest owners of a path; labels count as they are, there are no variables."""
    branch = root_branch(state, "owners")
    config: object = NOTHING
    depth = 0
    config_depth = 0
    end: object = NOTHING if branch is None else branch
    while isinstance(end, Branch):
        found = end.child(OWNER)
        if found is not NOTHING:
            config = found
            config_depth = depth
        if depth == len(labels):
            break
        child = end.child(labels[depth])
        if child is NOTHING:
            end = NOTHING
            break
        end = child
        depth += 1
    subtree: list[SubtreeConfig] = []
    if with_subtree and depth == len(labels) and isinstance(end, Branch):
        subtree = owner_subtree(end)
    return OwnerMatch(labels[:depth], labels[:config_depth], plain(config), subtree)


def owner_subtree(branch: Branch) -> list[SubtreeConfig]:
    """The owner configs strictly below a branch, parents first, in child order."""
    found: list[SubtreeConfig] = []
    _collect_owners(branch, [], found)
    return found


def _collect_owners(branch: Branch, path: list[str], found: list[SubtreeConfig]) -> None:
    for label, child in branch.children():
        if label != OWNER and isinstance(child, Branch):
            below = [*path, label]
            config = child.child(OWNER)
            if config is not NOTHING:
                found.append(SubtreeConfig(below, plain(config)))
            _collect_owners(child, below, found)


# What the APIs print


# Of a question with a global path: the way to this chain, which stands before every path of the answer but those of
# subtrees, as they are relative.
ROOT: Final[tuple[str, ...]] = ()


def match_rule_json(state: StateReader, labels: list[str], shard: Sequence[str] = ROOT) -> dict[str, Any]:
    """The answer of matchRule."""
    match = match_rule(state, labels)
    write = _match_json(shard, match.write.target_labels, match.write.value_labels, match.write.variables)
    write["matched_config"] = _config_json(shard, match.write.config_labels, match.write.config)
    write["subtree_configs"] = subtree_json(match.write.subtree)
    shape = _match_json(shard, match.state.target_labels, match.state.value_labels, match.state.variables)
    shape["matched_config"] = _config_json(shard, match.state.config_labels, match.state.config)
    return {"write": write, "state": shape}


def match_function_json(state: StateReader, labels: list[str], shard: Sequence[str] = ROOT) -> dict[str, Any]:
    """The answer of matchFunction."""
    match = match_function(state, labels)
    answer = _match_json(shard, match.target_labels, match.value_labels, match.variables)
    answer["matched_config"] = _config_json(shard, match.target_labels, match.config)
    answer["subtree_configs"] = subtree_json(match.subtree)
    return answer


def match_owner_json(state: StateReader, labels: list[str], shard: Sequence[str] = ROOT) -> dict[str, Any]:
    """The answer of matchOwner."""
    match = match_owner(state, labels)
    return {
        "matched_path": {"target_path": format_path([*shard, *match.target_labels])},
        "matched_config": _config_json(shard, match.config_labels, match.config),
        "subtree_configs": subtree_json(match.subtree),
    }


def rule_match_lists(match: RuleMatch) -> dict[str, Any]:
    """A match as evalRule prints it, with paths as lists of labels."""
    write = _match_lists(match.write)
    write["subtreeRules"] = [{"path": below.labels, "config": below.config} for below in match.write.subtree]
    return {"write": write, "state": _match_lists(match.state)}


def _match_lists(match: ConfigMatch) -> dict[str, Any]:
    return {
        "matchedValuePath": match.value_labels,
        "matchedRulePath": match.target_labels,
        "pathVars": match.variables,
        "closestRule": {"path": match.config_labels, "config": match.config},
    }


def subtree_json(subtree: list[SubtreeConfig]) -> list[dict[str, Any]]:
    """Configs below a match, with their relative paths as text."""
    return [{"path": format_path(below.labels), "config": below.config} for below in subtree]


def _match_json(
    shard: Sequence[str], target: list[str], labels: list[str], variables: dict[str, str]
) -> dict[str, Any]:
    return {
        "matched_path": {
            "target_path": format_path([*shard, *target]),
            "ref_path": format_path([*shard, *labels]),
            "path_vars": variables,
        }
    }


def _config_json(shard: Sequence[str], labels: list[str], config: Any) -> dict[str, Any]:
    return {"path": format_path([*shard, *labels]), "config": config}
