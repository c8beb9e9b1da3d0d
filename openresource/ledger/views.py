"""Reading the tree: children, plain objects and counts, now or at any past moment."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from openresource.ledger.building import value_bytes, value_height, value_siblings, value_size
from openresource.ledger.hashes import hash_text, value_hash
from openresource.ledger.nodes import NOTHING, Branch
from openresource.primitives.encoding import is_array_index, property_order


@dataclass(frozen=True)
class StateInfo:
    """What a state node counts for; the hash is None where nobody asked for it."""

    height: int
    size: int
    bytes: int
    siblings: int
    children: int
    hash: str | None


class View:
    """The tree at one moment; what is written later does not reach it."""

    def __init__(self, root: Branch) -> None:
        self.root: Branch = root

    def node(self, labels: Sequence[str]) -> object:
        """What lies at a full path: a branch, a leaf's value, or NOTHING."""
        return find(self.root, labels)

    def get(self, labels: Sequence[str]) -> object:
        """The plain object or leaf at a full path; None where there is nothing."""
        return plain(find(self.root, labels))

    def branch(self, root: str) -> Branch | None:
        """The branch of values, rules, functions or owners; None if nothing is below it."""
        value = self.root.child(root)
        return value if isinstance(value, Branch) else None

    def counts(self, labels: Sequence[str]) -> StateInfo | None:
        """What the state node at a full path counts for, without its hash; None where there is nothing."""
        return counts_of(self.root, find(self.root, labels))

    def info(self, labels: Sequence[str]) -> StateInfo | None:
        """What the state node at a full path counts for, and its proof hash; None where there is nothing."""
        return info_of(self.root, find(self.root, labels))

    def hash_of(self, labels: Sequence[str]) -> str | None:
        """The proof hash at a full path; None where there is nothing."""
        value = find(self.root, labels)
        return None if value is NOTHING or is_unwritten(self.root, value) else hash_text(value_hash(value))

    def root_hash(self) -> str | None:
        """The proof hash of the whole tree; None if it was never written."""
        return self.hash_of([])


def find(root: Branch, labels: Sequence[str]) -> object:
    """What lies below a branch: a branch, a leaf's value, or NOTHING."""
    value: object = root
    for label in labels:
        if not isinstance(value, Branch):
            return NOTHING
        value = value.child(label)
    return value


def plain(value: object) -> object:
    """The plain object of a branch, keys in JavaScript's property order; a leaf's value; None for nothing."""
    if not isinstance(value, Branch):
        return None if value is NOTHING else value
    top: dict[str, object] = {}
    branches: list[Branch] = [value]
    objects: list[dict[str, object]] = [top]
    for position, branch in enumerate(branches):
        into = objects[position]
        for label, item in in_property_order(branch):
            if isinstance(item, Branch):
                below: dict[str, object] = {}
                into[label] = below
                branches.append(item)
                objects.append(below)
            else:
                into[label] = item
    return top


def in_property_order(branch: Branch) -> list[tuple[str, object]]:
    """The children as an object made of them lists its properties."""
    children = branch.children()
    for label, _ in children:
        if is_array_index(label):
            values = dict(children)
            return [(key, values[key]) for key in property_order(values)]
    return children


def counts_of(root: Branch, value: object) -> StateInfo | None:
    """The counts of a state node found below a root."""
    if value is NOTHING:
        return None
    if is_unwritten(root, value):
        return StateInfo(0, 0, 0, 0, 0, None)
    children = value.count if isinstance(value, Branch) else 0
    return StateInfo(
        value_height(value), value_size(value), value_bytes(value), value_siblings(value), children, None
    )


def info_of(root: Branch, value: object) -> StateInfo | None:
    """The counts and the hash of a state node found below a root."""
    counts = counts_of(root, value)
    if counts is None or is_unwritten(root, value):
        return counts
    return StateInfo(
        counts.height,
        counts.size,
        counts.bytes,
        counts.siblings,
        counts.children,
        hash_text(value_hash(value)),
    )


def is_unwritten(root: Branch, value: object) -> bool:
    """Whether this is the root of a tree to which nothing was ever written."""
    return value is root and root.next_serial == 1
