"""How a node's process treats its memory: the tree's caches are large, live long and hardly ever hold garbage."""

from __future__ import annotations

import gc
from typing import Final

YOUNG_OBJECTS_MAX: Final = 100_000
YOUNG_ROUNDS_MAX: Final = 50
MIDDLE_ROUNDS_MAX: Final = 100


def collect_garbage_seldom() -> None:
    """Look for cycles far less often; searching the cached tree for them took half of every write."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(YOUNG_OBJECTS_MAX, YOUNG_ROUNDS_MAX, MIDDLE_ROUNDS_MAX)
