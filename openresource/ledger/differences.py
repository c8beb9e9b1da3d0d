"""Which leaves differ between two versions of the tree, found without looking at what both share."""

from __future__ import annotations

from collections.abc import Iterator
from heapq import heappop, heappush

from openresource.ledger.nodes import NOTHING, Branch, Kid


def leaf_differences(before: object, after: object) -> Iterator[tuple[list[str], object]]:
    """Labels and new values of the leaves that were written; NOTHING for those that are gone.

    Both versions need their hashes. Which of two colliding labels is shown makes no hash, and so no difference.
    """
    waiting: list[tuple[list[str], object, object]] = [([], before, after)]
    while waiting:
        labels, old, new = waiting.pop()
        if isinstance(old, Branch) or isinstance(new, Branch):
            if not isinstance(old, Branch) and old is not NOTHING:
                yield labels, NOTHING
            if not isinstance(new, Branch) and new is not NOTHING:
                yield labels, new
            differing = _child_differences(
                old if isinstance(old, Branch) else None, new if isinstance(new, Branch) else None
            )
            for label, old_child, new_child in reversed(differing):
                waiting.append(([*labels, label], old_child, new_child))
        elif old != new or isinstance(old, bool) != isinstance(new, bool):
            yield labels, new


def _child_differences(before: Branch | None, after: Branch | None) -> list[tuple[str, object, object]]:
    """Label, old and new value of the children that may differ, in radix order."""
    sides: list[dict[str, Kid]] = [{}, {}]
    held: list[dict[str, tuple[str, object]]] = [{}, {}]
    # Shortest radix labels first: what both sides have under one key is met together, and skipped if it is equal.
    keys: list[tuple[int, str]] = []
    if before is not None:
        sides[0][""] = before
        heappush(keys, (0, ""))
    if after is not None:
        sides[1][""] = after
        heappush(keys, (0, ""))
    while keys:
        _, key = heappop(keys)
        old = sides[0].pop(key, None)
        new = sides[1].pop(key, None)
        if old is not None and new is not None and old.hash and old.hash == new.hash:
            continue
        if old is not None:
            _look_into(old, key, sides[0], held[0], keys)
        if new is not None:
            _look_into(new, key, sides[1], held[1], keys)
    found: list[tuple[str, object, object]] = []
    for key in sorted({*held[0], *held[1]}):
        old_label, old_value = held[0].get(key, ("", NOTHING))
        new_label, new_value = held[1].get(key, ("", NOTHING))
        if (
            isinstance(old_value, Branch)
            and isinstance(new_value, Branch)
            and old_value.hash == new_value.hash
        ):
            continue
        if old_value is not NOTHING and new_value is not NOTHING and old_label != new_label:
            found.append((old_label, old_value, NOTHING))
            found.append((new_label, NOTHING, new_value))
        else:
            found.append((old_label if new_value is NOTHING else new_label, old_value, new_value))
    return found


def _look_into(
    kid: Kid, key: str, side: dict[str, Kid], held: dict[str, tuple[str, object]], keys: list[tuple[int, str]]
) -> None:
    node = kid.node()
    if node.value is not NOTHING:
        held[key] = (node.label, node.value)
    for below in node.kids.values():
        longer = key + below.edge
        side[longer] = below
        heappush(keys, (len(longer), longer))
