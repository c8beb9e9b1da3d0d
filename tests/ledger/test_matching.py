"""Matching against a slow model that follows the specification word by word, while rules and functions change."""

from __future__ import annotations

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from openresource.ledger.functions import triggered_functions
from openresource.ledger.matching import match_function, match_rule
from openresource.ledger.rule_evaluation import gc_targets
from openresource.ledger.tree import Tree
from tests.support.rules import state_of

LABELS = ["a", "b", "c", "0x61", "$x", "$y"]
labels_lists = st.lists(st.sampled_from(LABELS), max_size=4)
configs = st.sampled_from(
    [{"write": True}, {"write": None}, {"state": {"max_size": 1}}, {"write": "1", "state": None}]
)
changes = st.lists(st.tuples(labels_lists, st.none() | configs), max_size=8)


class ModelNode:
    """A node of rules: its config, and its children in the order in which they were added."""

    def __init__(self) -> None:
        self.config: dict[str, Any] | None = None
        self.children: dict[str, ModelNode] = {}


def built(tree: Any) -> ModelNode:
    node = ModelNode()
    if isinstance(tree, dict):
        for label, below in tree.items():
            if label == ".rule":
                node.config = below
            else:
                node.children[label] = built(below)
    return node


def filed(label: str) -> str:
    return "a" if label == "0x61" else label


def child_of(node: ModelNode, label: str) -> ModelNode | None:
    return next((child for name, child in node.children.items() if filed(name) == filed(label)), None)


def variable_of(node: ModelNode) -> str | None:
    return next((label for label in node.children if label.startswith("$")), None)


def below(node: ModelNode, path: list[str]) -> list[list[str]]:
    found: list[list[str]] = []
    variable = variable_of(node)
    order = [label for label in node.children if label != variable] + ([variable] if variable else [])
    for label in order:
        child = node.children[label]
        if child.config is not None and "write" in child.config:
            found.append([*path, label])
        found += below(child, [*path, label])
    return found


def expected(root: ModelNode, labels: list[str], member: str) -> tuple[Any, ...]:
    node, taken, bound = root, [], []
    closest: tuple[list[str], Any] = ([], None)
    while True:
        if node.config is not None and member in node.config:
            closest = (list(taken), node.config)
        if len(taken) == len(labels):
            return taken, bound, closest, below(node, [])
        label = labels[len(taken)]
        child = child_of(node, label)
        if child is None:
            variable = variable_of(node)
            if variable is None:
                return taken, bound, closest, []
            child = node.children[variable]
            bound.insert(0, (variable, label))
            label = variable
        node = child
        taken = [*taken, label]


@settings(max_examples=300)
@given(changes, st.lists(labels_lists, min_size=1, max_size=4))
def test_matching_follows_the_model_while_rules_change(steps: list[Any], paths: list[list[str]]) -> None:
    tree = Tree("ain")
    for place, config in steps:
        tree.write(["rules", *place, ".rule"], config)
        root = built(tree.get(["rules"]))
        for labels in paths:
            match = match_rule(tree, labels)
            taken, bound, closest, subtree = expected(root, labels, "write")
            # Two variables of the same name cannot be set; here the later binding would hide the other.
            if len({name for name, _ in bound}) < len(bound):
                continue
            assert match.write.target_labels == taken
            assert list(match.write.variables.items()) == bound
            assert (match.write.config_labels, match.write.config) == closest
            assert [found.labels for found in match.write.subtree] == subtree
            _, _, closest_state, _ = expected(root, labels, "state")
            assert (match.state.config_labels, match.state.config) == closest_state


def function(name: str) -> dict[str, Any]:
    return {".function": {name: {"function_type": "NATIVE", "function_id": name}}}


def names(triggers: Any) -> list[tuple[str, str, Any, Any, dict[str, str]]]:
    return [
        (
            next(iter(trigger.config)),
            "/".join(trigger.labels),
            trigger.value,
            trigger.previous,
            trigger.params,
        )
        for trigger in triggers
    ]


def test_a_write_calls_the_functions_at_its_path_and_those_below_it() -> None:
    tree = state_of(
        {
            "functions": {
                "app": {"$user": {**function("_own"), "y": function("_y"), "$k": {"z": function("_kz")}}}
            }
        }
    )
    value = {"y": 1, "m": {"z": 2}, "10": {"z": 3}, "9": {"z": None}}
    previous = {"y": 0, "m": {"z": 5}, "gone": {"z": 6}}
    triggers = triggered_functions(tree, ["app", "u"], value, previous)
    assert names(triggers) == [
        ("_own", "app/u", value, previous, {"user": "u"}),
        ("_y", "app/u/y", 1, 0, {"user": "u"}),
        ("_kz", "app/u/gone/z", None, 6, {"user": "u", "k": "gone"}),
        ("_kz", "app/u/9/z", None, None, {"user": "u", "k": "9"}),
        ("_kz", "app/u/10/z", 3, None, {"user": "u", "k": "10"}),
        ("_kz", "app/u/m/z", 2, 5, {"user": "u", "k": "m"}),
    ]
    assert [subtree.key for subtree in triggers.subtrees] == ["/y", "/$k/z"]
    assert [trigger.value_path for trigger in triggers.subtrees[1].triggers] == [
        "/gone/z",
        "/9/z",
        "/10/z",
        "/m/z",
    ]


def test_a_literal_and_a_variable_below_a_write_are_both_called() -> None:
    tree = state_of({"functions": {"app": {"$x": {"y": function("_var")}, "1": {"y": function("_lit")}}}})
    found = names(triggered_functions(tree, ["app"], {"1": {"y": 5}}, None))
    assert [(name, path) for name, path, *_ in found] == [("_lit", "app/1/y"), ("_var", "app/1/y")]


def test_functions_count_only_where_the_whole_path_matches() -> None:
    tree = state_of({"functions": {"app": {"$x": function("_f")}}})
    assert list(triggered_functions(tree, ["app"], 5, None)) == []
    assert [subtree.key for subtree in triggered_functions(tree, ["app"], 5, None).subtrees] == ["/$x"]
    assert len(list(triggered_functions(tree, ["app", "k"], 5, None))) == 1
    assert list(triggered_functions(tree, ["app", "k", "deeper"], 5, None)) == []
    assert list(triggered_functions(tree, ["other"], 5, None)) == []
    assert not match_function(Tree(), ["app"]).has_functions


def test_garbage_collection_takes_the_oldest_children_of_the_parent() -> None:
    rule = {"write": True, "state": {"gc_max_siblings": 3, "gc_num_siblings_deleted": 2}}
    tree = state_of({"rules": {"apps": {"$k": {".rule": rule}}}})
    for label in ("z", "5", "y", "1"):
        assert gc_targets(tree, ["apps", label, "deep"]) == []
        tree.write(["values", "apps", label], 1)
    assert gc_targets(tree, ["apps", "1", "deep"]) == [["values", "apps", "z"], ["values", "apps", "5"]]
    assert gc_targets(tree, ["other"]) == []
    tree.write(["rules", "apps", "$k", ".rule", "state", "gc_max_siblings"], None)
    assert gc_targets(tree, ["apps", "1"]) == []
