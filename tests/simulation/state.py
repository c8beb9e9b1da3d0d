"""The state as a flat dictionary: the leaves by their path, and the labels below every other path, in order."""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from typing import Any

Path = tuple[str, ...]

NODE_BYTES = 160


class FlatState:
    """Paths and what stands there."""

    def __init__(self) -> None:
        self.leaves: dict[Path, Any] = {}
        self.below: dict[Path, tuple[str, ...]] = {(): ()}
        # Of subtrees that did not change since, so that not everything has to be added up for every transaction.
        self._weights: dict[Path, int] = {}
        self._heights: dict[Path, int] = {}

    def copy(self) -> FlatState:
        """The same state, to be written on its own."""
        twin = FlatState()
        twin.leaves = dict(self.leaves)
        twin.below = dict(self.below)
        twin._weights = dict(self._weights)
        twin._heights = dict(self._heights)
        return twin

    def exists(self, path: Path) -> bool:
        """Whether there is anything."""
        return path in self.leaves or path in self.below

    def labels(self, path: Path) -> tuple[str, ...]:
        """The labels of the children, in the order in which they came."""
        return self.below.get(path, ())

    def get(self, path: Path) -> Any:
        """The plain value; None if there is none."""
        if path in self.leaves:
            return self.leaves[path]
        if path not in self.below:
            return None
        return {label: self.get((*path, label)) for label in in_property_order(self.below[path])}

    def write(self, path: Path, value: Any) -> None:
        """Sets what stands at a path; None and objects without members delete."""
        for depth in range(len(path)):
            self._forget(path[:depth])
        for depth in range(1, len(path)):
            if path[:depth] in self.leaves:
                del self.leaves[path[:depth]]
                self.below[path[:depth]] = ()
        is_empty = value is None or (isinstance(value, dict) and not members(value))
        if is_empty:
            self._clear(path)
            self._prune(path)
        else:
            for depth in range(len(path)):
                self._add_label(path[:depth], path[depth])
            self._clear(path)
            self._fill(path, value)

    def items(self) -> Iterator[tuple[Path, Any]]:
        """All leaves."""
        return iter(self.leaves.items())

    # What things count for

    def weight(self, path: Path) -> int:
        """The bytes of a path with everything below it, without its own label; 0 if there is nothing."""
        if path in self.leaves:
            return NODE_BYTES + leaf_bytes(self.leaves[path])
        if path not in self.below:
            return 0
        if path in self._weights:
            return self._weights[path]
        total = NODE_BYTES
        for label in self.below[path]:
            total += 2 * text_length(label) + self.weight((*path, label))
        self._weights[path] = total
        return total

    def height(self, path: Path = ()) -> int:
        """How many levels lie below."""
        if path not in self.below:
            return 0
        if path in self._heights:
            return self._heights[path]
        levels = 1 + max((self.height((*path, label)) for label in self.below[path]), default=0)
        self._heights[path] = levels
        return levels

    def size(self) -> int:
        """How many nodes there are, the root included."""
        return len(self.leaves) + len(self.below)

    # Inside

    def _forget(self, path: Path) -> None:
        self._weights.pop(path, None)
        self._heights.pop(path, None)

    def _add_label(self, parent: Path, label: str) -> None:
        labels = self.below.get(parent)
        if labels is None:
            self.below[parent] = (label,)
        elif label not in labels:
            self.below[parent] = (*labels, label)

    def _clear(self, path: Path) -> None:
        """Everything at and below a path goes; the parent still knows the label."""
        self._forget(path)
        self.leaves.pop(path, None)
        for label in self.below.pop(path, ()):
            self._clear((*path, label))

    def _prune(self, path: Path) -> None:
        """The label goes too, and with it every parent that is empty now."""
        while path:
            parent, label = path[:-1], path[-1]
            labels = tuple(known for known in self.below.get(parent, ()) if known != label)
            if parent in self.below:
                self.below[parent] = labels
            if labels or not parent:
                return
            self.below.pop(parent, None)
            path = parent

    def _fill(self, path: Path, value: Any) -> None:
        if not isinstance(value, dict):
            self.leaves[path] = value
            return
        inside = members(value)
        if not inside:
            self.leaves[path] = None
            return
        self.below[path] = tuple(inside)
        for label in inside:
            self._fill((*path, label), value[label])


def members(value: dict[str, Any]) -> list[str]:
    """The labels of an object that the state takes over."""
    return [label for label in in_property_order(tuple(value)) if not label.startswith("#")]


def in_property_order(labels: tuple[str, ...]) -> list[str]:
    """Labels as an object lists them: array indices first, by their number."""
    indices = [label for label in labels if is_index(label)]
    return sorted(indices, key=int) + [label for label in labels if not is_index(label)]


def is_index(label: str) -> bool:
    """Whether a label is an array index."""
    return label.isascii() and label.isdigit() and str(int(label)) == label and int(label) < 2**32 - 1


@lru_cache(maxsize=65_536)
def text_length(text: str) -> int:
    """UTF-16 units."""
    return len(text.encode("utf-16-le")) // 2


def leaf_bytes(value: Any) -> int:
    """What a leaf's value counts for."""
    if value is None:
        return 0
    if isinstance(value, bool):
        return 4
    return 2 * text_length(value) if isinstance(value, str) else 8
