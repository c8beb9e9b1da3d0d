"""Radix snapshots: a state with the exact shape of its tree, as nodes hand it to each other."""

from __future__ import annotations

import re
from typing import Final

from openresource.ledger.building import label_bytes, leaf, measure, value_bytes, value_size
from openresource.ledger.nodes import NOTHING, Branch, Node, empty_branch, radix_label
from openresource.primitives.errors import Refusal
from openresource.primitives.limits import SAFE_INTEGER_MAX

NEXT_SERIAL: Final = "#next_serial"
VERSION: Final = "#version"
SERIAL: Final = "#serial"
STATE: Final = "#state:"
RADIX: Final = "#radix:"

_EDGE: Final = re.compile("[0-9a-f]+")


class InvalidSnapshot(Refusal):
    template = "The snapshot is not a radix tree: {reason}."
    way_out = "Fetch the snapshot again, or from another node."


def radix_snapshot(value: object, version: str) -> object:
    """The snapshot of a state node: a leaf's value, or the radix tree of a branch."""
    if not isinstance(value, Branch):
        return None if value is NOTHING else value
    top: dict[str, object] = {}
    nodes: list[Node] = [value]
    entries: list[dict[str, object]] = [top]
    for position, node in enumerate(nodes):
        entry = entries[position]
        if isinstance(node, Branch):
            entry[NEXT_SERIAL] = node.next_serial
        entry[VERSION] = version
        entry[SERIAL] = node.serial
        held = node.value
        if isinstance(held, Branch):
            state: dict[str, object] = {}
            entry[STATE + node.label] = state
            nodes.append(held)
            entries.append(state)
        elif held is not NOTHING:
            entry[STATE + node.label] = held
            entry[f"{VERSION}:{node.label}"] = version
        for digit in sorted(node.kids):
            kid = node.kids[digit]
            below: dict[str, object] = {}
            entry[RADIX + kid.edge] = below
            nodes.append(kid.node())
            entries.append(below)
    return top


def load_radix_snapshot(snapshot: object) -> Branch:
    """The tree of a snapshot, for `Tree.replace_root`; compare its root hash with the one you trust."""
    if not isinstance(snapshot, dict):
        raise InvalidSnapshot(reason="it is no object")
    root = empty_branch(0)
    nodes: list[Node] = [root]
    branches: list[Branch] = [root]
    keys: list[str] = [""]
    entries: list[dict[str, object]] = [snapshot]
    for position, entry in enumerate(entries):
        node = nodes[position]
        branch = branches[position]
        key = keys[position]
        node.serial = _natural(entry, SERIAL)
        if node is branch:
            branch.next_serial = _natural(entry, NEXT_SERIAL)
        for name, item in entry.items():
            if name.startswith(STATE):
                if node.value is not NOTHING:
                    raise InvalidSnapshot(reason="two children hang on one radix node")
                label = name[len(STATE) :]
                if radix_label(label) != key:
                    raise InvalidSnapshot(reason=f"the label {label} is filed under {key}")
                node.label = label
                if isinstance(item, dict):
                    below = empty_branch(0)
                    node.value = below
                    nodes.append(below)
                    branches.append(below)
                    keys.append("")
                    entries.append(item)
                else:
                    node.value = _leaf(item)
                branch.count += 1
            elif name.startswith(RADIX):
                edge = name[len(RADIX) :]
                if _EDGE.fullmatch(edge) is None or edge[0] in node.kids or not isinstance(item, dict):
                    raise InvalidSnapshot(reason=f"{edge} is no edge of its own")
                kid = Node(edge, b"", {}, "", NOTHING, 0, 0, 0, 0, 0, 0)
                node.kids[edge[0]] = kid
                nodes.append(kid)
                branches.append(branch)
                keys.append(key + edge)
                entries.append(item)
    for node in reversed(nodes):
        _sum_up(node)
    return root


def _sum_up(node: Node) -> None:
    """The sums of a node whose kids and value have theirs."""
    value = node.value
    if value is not NOTHING:
        node.size = value_size(value)
        node.bytes = value_bytes(value) + label_bytes(node.label)
    for kid in node.kids.values():
        below = kid.node()
        node.size += below.size
        node.bytes += below.bytes
    node.height, node.siblings = measure(node)


def _natural(entry: dict[str, object], name: str) -> int:
    number = entry.get(name)
    if not isinstance(number, int) or isinstance(number, bool) or not 0 <= number <= SAFE_INTEGER_MAX:
        raise InvalidSnapshot(reason=f"{name} is not a natural number")
    return number


def _leaf(value: object) -> object:
    try:
        return leaf(value)
    except TypeError as error:
        raise InvalidSnapshot(reason=str(error)) from error
