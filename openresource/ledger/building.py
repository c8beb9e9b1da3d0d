"""How children come into a branch: the walk to their place, and fresh subtrees made of plain objects."""

from __future__ import annotations

from collections.abc import Sequence

from openresource.ledger.nodes import (
    NODE_BYTES,
    NOTHING,
    Branch,
    Kid,
    Node,
    copy_node,
    empty_branch,
    keep_node,
    leaf_bytes,
    own_kids,
    radix_label,
)
from openresource.primitives.encoding import property_order, utf16_length
from openresource.primitives.numbers import to_double


class Claims:
    """Which nodes may be written in place. Every node has the token of the version in which it was made or kept.

    Older than the floor are the nodes that another live version has too. Of these, nobody may change what is older
    than the copy floor; the others are the backup's alone, which is restored from what `touched` nodes were before.
    """

    __slots__ = ("copy_floor", "floor", "token", "touched")

    def __init__(self) -> None:
        self.token: int = 1
        self.floor: int = 0
        # A store or a frozen view raises the copy floor alone.
        self.copy_floor: int = 1
        self.touched: list[Node] = []


def claim(kid: Kid, claims: Claims) -> Node:
    """A node that may be changed: itself or a copy. Its hash is kept."""
    node = kid if isinstance(kid, Node) else kid.node()
    if node.token < claims.copy_floor:
        return copy_node(node, claims.token)
    if node.token < claims.floor:
        keep_node(node, claims.token, claims.touched)
    return node


def place(branch: Branch, label: str, path: list[Node], claims: Claims) -> Node:
    """Walk down to the radix node of a label, made if it is missing; every node passed is claimed and listed."""
    floor = claims.floor
    routes = branch.routes
    if routes is not None:
        route = routes.get(label)
        if route is not None:
            for passed in route:
                if passed.token < floor:
                    keep_node(passed, claims.token, claims.touched)
                passed.hash = b""
                path.append(passed)
            return route[-1]
    copy_floor = claims.copy_floor
    key = radix_label(label)
    first = len(path)
    is_same = True
    node: Node = branch
    at = 0
    end = len(key)
    while at < end:
        digit = key[at]
        kid = node.kids.get(digit)
        if kid is None:
            made = _made(branch, key[at:], claims.token)
            own_kids(node)[digit] = made
            branch.routes = None
            path.append(made)
            return made
        edge = kid.edge
        width = len(edge)
        below: Node
        if width == 1 or key[at : at + width] == edge:
            below = kid if isinstance(kid, Node) else kid.node()
            if below.token < copy_floor:
                below = copy_node(below, claims.token)
                own_kids(node)[digit] = below
                is_same = False
            elif below.token < floor:
                keep_node(below, claims.token, claims.touched)
            below.hash = b""
            at += width
        else:
            below = _split(branch, claim(kid, claims), key, at, claims.token)
            own_kids(node)[digit] = below
            is_same = False
            at += len(below.edge)
        path.append(below)
        node = below
    if not is_same:
        branch.routes = None
    elif at > 0:
        if routes is None:
            routes = {}
            branch.routes = routes
        routes[label] = path[first:]
    return node


def build(value: object, claims: Claims) -> object:
    """A fresh subtree of a plain object, or the leaf's value. Labels starting with # are left out."""
    if not isinstance(value, dict):
        return leaf(value)
    # Breadth first, so that hostile depth meets no recursion; then built from the deepest upwards.
    dictionaries: list[dict[str, object]] = [value]
    labels_of: list[list[str]] = []
    first_below: list[int] = []
    for dictionary in dictionaries:
        labels = [label for label in property_order(dictionary) if not label.startswith("#")]
        labels_of.append(labels)
        first_below.append(len(dictionaries))
        for label in labels:
            item = dictionary[label]
            if isinstance(item, dict):
                dictionaries.append(item)
    built: list[object] = [None] * len(dictionaries)
    position = len(dictionaries)
    while position > 0:
        position -= 1
        labels = labels_of[position]
        if not labels:
            continue
        branch = empty_branch(claims.token)
        below = first_below[position]
        for label in labels:
            item = dictionaries[position][label]
            if isinstance(item, dict):
                hang(branch, label, built[below], claims)
                below += 1
            else:
                hang(branch, label, leaf(item), claims)
        built[position] = branch
    return built[0]


def chain(labels: Sequence[str], value: object, claims: Claims) -> object:
    """Fresh branches with one child each, down to a value."""
    top = value
    for label in reversed(labels):
        branch = empty_branch(claims.token)
        hang(branch, label, top, claims)
        top = branch
    return top


def hang(branch: Branch, label: str, value: object, claims: Claims) -> None:
    """Put a child into a branch of which every node is ours."""
    path: list[Node] = [branch]
    target = place(branch, label, path, claims)
    before = target.value
    size = value_size(value)
    weight = value_bytes(value) + label_bytes(label)
    if before is NOTHING:
        number_child(branch, target)
        branch.count += 1
    else:
        size -= value_size(before)
        weight -= value_bytes(before) + label_bytes(target.label)
    target.label = label
    target.value = value
    height = value_height(value)
    siblings = value_siblings(value)
    for node in reversed(path):
        node.size += size
        node.bytes += weight
        if before is not NOTHING:
            node.height, node.siblings = measure(node)
        else:
            node.height = max(node.height, height)
            node.siblings = max(node.siblings, siblings)


def number_child(branch: Branch, target: Node) -> None:
    """Give a child its place in the order of the children."""
    target.serial = branch.next_serial
    branch.next_serial += 1


def leaf(value: object) -> object:
    """A leaf's value as the tree keeps it: numbers are doubles, written as integers where that is exact."""
    if value is None or isinstance(value, (str, bool)):
        return value
    if isinstance(value, (int, float)):
        return to_double(value)
    raise TypeError(f"the tree holds no {type(value).__name__}")


def measure(node: Node) -> tuple[int, int]:
    """Height and largest number of siblings of a radix node, from its value and its kids."""
    height = value_height(node.value)
    siblings = value_siblings(node.value)
    for kid in node.kids.values():
        below = kid if isinstance(kid, Node) else kid.node()
        height = max(height, below.height)
        siblings = max(siblings, below.siblings)
    return height, siblings


def value_size(value: object) -> int:
    """The nodes of a state node, itself included."""
    return 1 + value.size if isinstance(value, Branch) else 1


def value_bytes(value: object) -> int:
    """The bytes of a state node, without its own label."""
    return NODE_BYTES + value.bytes if isinstance(value, Branch) else leaf_bytes(value)


def value_height(value: object) -> int:
    """The height of a state node; 0 for a leaf and for nothing."""
    return 1 + value.height if isinstance(value, Branch) else 0


def value_siblings(value: object) -> int:
    """The largest number of children of one node in a state node."""
    if isinstance(value, Branch):
        return max(value.count, value.siblings)
    return 0 if value is NOTHING else 1


def label_bytes(label: str) -> int:
    """What a label counts for."""
    return 2 * utf16_length(label)


def _made(branch: Branch, edge: str, token: int) -> Node:
    made = Node(edge, b"", {}, "", NOTHING, branch.next_serial, token, 0, 0, 0, 0)
    branch.next_serial += 1
    return made


def _split(branch: Branch, lower: Node, key: str, at: int, token: int) -> Node:
    """A new node in the middle of an edge, above the node to which the edge led."""
    edge = lower.edge
    shared = 1
    limit = min(len(edge), len(key) - at)
    while shared < limit and edge[shared] == key[at + shared]:
        shared += 1
    lower.edge = edge[shared:]
    middle = _made(branch, edge[:shared], token)
    middle.kids[edge[shared]] = lower
    middle.size = lower.size
    middle.bytes = lower.bytes
    middle.height = lower.height
    middle.siblings = lower.siblings
    return middle
