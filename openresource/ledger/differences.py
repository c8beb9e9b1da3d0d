"""Which leaves differ between two versions of the tree, found without looking at what both share."""

from __future__ import annotations

from collections.abc import Iterator

from openresource.ledger.nodes import NOTHING, Branch, Kid, Node


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


class _Pair:
    """What both versions have behind one place, with what is left of the edge to it; None where one has nothing."""

    __slots__ = ("new", "new_edge", "old", "old_edge")

    def __init__(self, old: Kid | None, old_edge: str, new: Kid | None, new_edge: str) -> None:
        self.old: Kid | None = old
        self.old_edge: str = old_edge
        self.new: Kid | None = new
        self.new_edge: str = new_edge


def _child_differences(before: Branch | None, after: Branch | None) -> list[tuple[str, object, object]]:
    """Label, old and new value of the children that may differ, in radix order."""
    found: list[tuple[str, object, object]] = []
    waiting: list[_Pair] = [_Pair(before, "", after, "")]
    while waiting:
        pair = waiting.pop()
        old = pair.old
        new = pair.new
        if old is None or new is None:
            if old is not None:
                _look_into(old.node(), None, found, waiting)
            elif new is not None:
                _look_into(None, new.node(), found, waiting)
        elif pair.old_edge == pair.new_edge:
            if not old.hash or old.hash != new.hash:
                _look_into(old.node(), new.node(), found, waiting)
        elif pair.old_edge.startswith(pair.new_edge):
            _look_past(new.node(), old, pair.old_edge[len(pair.new_edge) :], False, found, waiting)
        elif pair.new_edge.startswith(pair.old_edge):
            _look_past(old.node(), new, pair.new_edge[len(pair.old_edge) :], True, found, waiting)
        else:
            alone = [_Pair(old, pair.old_edge, None, ""), _Pair(None, "", new, pair.new_edge)]
            if pair.old_edge < pair.new_edge:
                alone.reverse()
            waiting += alone
    return found


def _look_into(
    old: Node | None, new: Node | None, found: list[tuple[str, object, object]], waiting: list[_Pair]
) -> None:
    """Two nodes in the same place: compare their values, pair their kids."""
    old_value: object = NOTHING if old is None else old.value
    new_value: object = NOTHING if new is None else new.value
    _compare("" if old is None else old.label, old_value, "" if new is None else new.label, new_value, found)
    old_kids: dict[str, Kid] = {} if old is None else old.kids
    new_kids: dict[str, Kid] = {} if new is None else new.kids
    for digit in sorted({*old_kids, *new_kids}, reverse=True):
        old_kid = old_kids.get(digit)
        new_kid = new_kids.get(digit)
        waiting.append(
            _Pair(
                old_kid,
                "" if old_kid is None else old_kid.edge,
                new_kid,
                "" if new_kid is None else new_kid.edge,
            )
        )


def _look_past(
    node: Node,
    other: Kid,
    edge: str,
    is_old: bool,
    found: list[tuple[str, object, object]],
    waiting: list[_Pair],
) -> None:
    """One version has a node on the way to the other's: its value is alone, one of its kids may lead on."""
    value = node.value
    if is_old:
        _compare(node.label, value, "", NOTHING, found)
    else:
        _compare("", NOTHING, node.label, value, found)
    for digit in sorted({*node.kids, edge[0]}, reverse=True):
        kid = node.kids.get(digit)
        met = other if digit == edge[0] else None
        kid_edge = "" if kid is None else kid.edge
        met_edge = "" if met is None else edge
        if is_old:
            waiting.append(_Pair(kid, kid_edge, met, met_edge))
        else:
            waiting.append(_Pair(met, met_edge, kid, kid_edge))


def _compare(
    old_label: str, old: object, new_label: str, new: object, found: list[tuple[str, object, object]]
) -> None:
    if old is NOTHING and new is NOTHING:
        return
    if isinstance(old, Branch) and isinstance(new, Branch) and old.hash and old.hash == new.hash:
        return
    if old is not NOTHING and new is not NOTHING and old_label != new_label:
        found.append((old_label, old, NOTHING))
        found.append((new_label, NOTHING, new))
    else:
        found.append((old_label if new is NOTHING else new_label, old, new))
