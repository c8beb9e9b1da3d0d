"""What rules, functions and owners need to read from the state: the branches of its four roots."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

# What the tree can hold: null, boolean, number, text, or a dict of those.
Value = Any


class StateReader(Protocol):
    """A version of the state as the current transaction sees it."""

    def branch(self, root: str) -> Any:
        """The branch of `values`, `rules`, `functions` or `owners`; None if nothing is below it."""

    def get(self, labels: Sequence[str]) -> Value:
        """The value at labels, the root first; None if there is none."""
