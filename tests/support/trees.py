"""Helpers for tests of the tree: a store in memory, and a flat model that shares nothing with the tree."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from openresource.ledger.tree import Shape, Tree
from openresource.ledger.views import StateInfo

INDEX = re.compile("0|[1-9][0-9]*")
HEX_LABEL = re.compile("0x([0-9a-fA-F]*)")


class MemorySource:
    """A `NodeSource` that keeps records in a dictionary and counts how often it is asked."""

    def __init__(self) -> None:
        self.records: dict[int, bytes] = {}
        self.loads = 0

    def load(self, number: int) -> bytes:
        self.loads += 1
        return self.records[number]

    def take(self, tree: Tree) -> None:
        """Store what a tree has to store."""
        for number, record in tree.collect_changes():
            assert number not in self.records
            self.records[number] = record


def key_of(label: str) -> str:
    """Where a label is filed."""
    match = HEX_LABEL.fullmatch(label)
    return match.group(1).lower() if match else label.encode("utf-8").hex()


class Model:
    """The state as nested dictionaries from key to label and value; what the tree must agree with."""

    def __init__(self, shape: Shape) -> None:
        self.shape = shape
        self.root: dict[str, tuple[str, Any]] = {}

    def copy(self) -> Model:
        """A model that goes its own way."""
        other = Model(self.shape)
        other.root = _copied(self.root)
        return other

    def write(self, labels: Sequence[str], value: Any) -> None:
        """The rules of writing, step by step."""
        fresh = _made(value)
        node = self.root
        trail: list[tuple[dict[str, tuple[str, Any]], str]] = []
        for position, label in enumerate(labels):
            key = key_of(label)
            trail.append((node, key))
            if position == len(labels) - 1:
                break
            found = node.get(key)
            if fresh is None and (found is None or not isinstance(found[1], dict)):
                break
            if found is None:
                node[key] = (label, {})
            elif not isinstance(found[1], dict):
                node[key] = (found[0], {})
            node = node[key][1]
        node, key = trail[-1]
        if fresh is not None:
            node[key] = (labels[-1], fresh)
            return
        for node, key in reversed(trail):
            found = node.get(key)
            if found is None:
                return
            if key == "" and self.shape == "ain":
                node[key] = (found[0], None)
                return
            del node[key]
            if node:
                return

    def plain(self) -> Any:
        """The state as a plain object."""
        return _plain(self.root)

    def counts(self) -> StateInfo:
        """Counts of the whole state, without its hash."""
        height, size, weight, siblings = _counts(self.root)
        return StateInfo(height, size, weight, siblings, len(self.root), None)

    def fresh_tree(self) -> Tree:
        """A tree with the same content and no past."""
        tree = Tree("canonical")
        for label, value in self.root.values():
            tree.write([label], _plain(value))
        return tree


def _copied(node: dict[str, tuple[str, Any]]) -> dict[str, tuple[str, Any]]:
    return {
        key: (label, _copied(value) if isinstance(value, dict) else value)
        for key, (label, value) in node.items()
    }


def _made(value: Any) -> Any:
    if not isinstance(value, dict):
        return value
    node: dict[str, tuple[str, Any]] = {}
    indices = sorted((label for label in value if INDEX.fullmatch(label)), key=int)
    for label in [*indices, *(label for label in value if not INDEX.fullmatch(label))]:
        if not label.startswith("#"):
            node[key_of(label)] = (label, _made(value[label]))
    return node or None


def _plain(value: Any) -> Any:
    if not isinstance(value, dict):
        return value
    items = {label: _plain(item) for label, item in value.values()}
    indices = sorted((label for label in items if INDEX.fullmatch(label)), key=int)
    return {
        label: items[label] for label in [*indices, *(label for label in items if not INDEX.fullmatch(label))]
    }


def _counts(value: Any) -> tuple[int, int, int, int]:
    if not isinstance(value, dict):
        weight = {bool: 4, str: 0, type(None): 0}.get(type(value), 8)
        if isinstance(value, str):
            weight = len(value.encode("utf-16-le", "surrogatepass"))
        return 0, 1, 160 + weight, 1
    parts = [(label, _counts(item)) for label, item in value.values()]
    height = 1 + max((part[0] for _, part in parts), default=0)
    size = 1 + sum(part[1] for _, part in parts)
    weight = 160 + sum(len(label.encode("utf-16-le")) + part[2] for label, part in parts)
    return height, size, weight, max([len(parts), *(part[3] for _, part in parts)])
