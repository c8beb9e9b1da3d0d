"""What the tree is made of: radix nodes, branches, and references to nodes that lie in the store.

A leaf has no object of its own: it is the value of the radix node on which it hangs. A branch is the root of the radix
tree of its own children. Handles from here stay good until the next write; `Tree.freeze` gives lasting ones.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

from openresource.primitives.encoding import utf8, utf16_length

NODE_BYTES: Final = 160
RADIX_LABELS_CACHED_MAX: Final = 65_536

_HEX_LABEL: Final = re.compile("0x([0-9a-fA-F]*)")
_radix_labels: Final[dict[str, str]] = {}


class Nothing:
    """The value of a radix node on which no child hangs; what a read finds where there is nothing."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "NOTHING"


NOTHING: Final = Nothing()


class Kid:
    """What a radix node knows of a node below it without loading it: the edge that leads there, and its hash."""

    __slots__ = ("edge", "hash")

    def __init__(self, edge: str, hash: bytes) -> None:
        self.edge: str = edge
        self.hash: bytes = hash

    def node(self) -> Node:
        """The node itself."""
        raise NotImplementedError


class Node(Kid):
    """A radix node. Its four sums cover its value and everything below; an empty hash is one to compute.

    A node that is written in place while a backup is open keeps in `before` how it was, with the kids of then.
    """

    __slots__ = ("before", "bytes", "height", "kids", "label", "serial", "siblings", "size", "token", "value")

    def __init__(
        self,
        edge: str,
        hash: bytes,
        kids: dict[str, Kid],
        label: str,
        value: object,
        serial: int,
        token: int,
        size: int,
        bytes: int,
        height: int,
        siblings: int,
    ) -> None:
        self.edge = edge
        self.hash = hash
        self.kids: dict[str, Kid] = kids
        self.label: str = label
        self.value: object = value
        self.serial: int = serial
        self.token: int = token
        self.size: int = size
        self.bytes: int = bytes
        self.height: int = height
        self.siblings: int = siblings
        self.before: Node | None = None

    def node(self) -> Node:
        return self


class Branch(Node):
    """A state node with children. `memo` holds what a reader derived from it, and is empty in every copy.

    `routes` are the radix nodes on the way to labels that were written often: one look instead of a walk. A branch
    has them only while all of these nodes may be written in place, and loses them as soon as one is replaced.
    """

    __slots__ = ("count", "memo", "next_serial", "routes")

    def __init__(
        self,
        hash: bytes,
        kids: dict[str, Kid],
        label: str,
        value: object,
        serial: int,
        token: int,
        size: int,
        bytes: int,
        height: int,
        siblings: int,
        count: int,
        next_serial: int,
    ) -> None:
        self.edge = ""
        self.hash = hash
        self.kids = kids
        self.label = label
        self.value = value
        self.serial = serial
        self.token = token
        self.size = size
        self.bytes = bytes
        self.height = height
        self.siblings = siblings
        self.before = None
        self.count: int = count
        self.next_serial: int = next_serial
        self.memo: object = None
        self.routes: dict[str, list[Node]] | None = None

    def child(self, label: str) -> object:
        """The child with a label: a branch, a leaf's value, or NOTHING."""
        routes = self.routes
        if routes is not None:
            route = routes.get(label)
            if route is not None:
                return route[-1].value
        key = radix_label(label)
        node: Node = self
        at = 0
        end = len(key)
        while at < end:
            kid = node.kids.get(key[at])
            if kid is None:
                return NOTHING
            edge = kid.edge
            width = len(edge)
            # The first digit is right already. Slices are compared sooner than `startswith` is called.
            if width > 1 and key[at : at + width] != edge:
                return NOTHING
            at += width
            node = kid if isinstance(kid, Node) else kid.node()
        return node.value

    def holders(self) -> list[Node]:
        """The radix nodes on which the children hang, in radix order."""
        found: list[Node] = []
        waiting: list[Node] = [self]
        while waiting:
            node = waiting.pop()
            if node.value is not NOTHING:
                found.append(node)
            kids = node.kids
            if len(kids) > 1:
                for digit in sorted(kids, reverse=True):
                    waiting.append(kids[digit].node())
            else:
                for kid in kids.values():
                    waiting.append(kid.node())
        return found

    def children(self) -> list[tuple[str, object]]:
        """Labels and values of the children, in the order in which they were added."""
        holders = self.holders()
        holders.sort(key=_serial_of)
        return [(holder.label, holder.value) for holder in holders]

    def children_in_radix_order(self, after: str = "") -> Iterator[tuple[str, Node]]:
        """Radix labels and holders of the children behind a radix label, loaded only as they are asked for."""
        if after == "" and self.value is not NOTHING:
            yield "", self
        waiting: list[tuple[str, Kid]] = []
        _wait_for_kids(self, "", after, waiting)
        while waiting:
            key, kid = waiting.pop()
            node = kid.node()
            if node.value is not NOTHING and key > after:
                yield key, node
            _wait_for_kids(node, key, after, waiting)

    def first_in_radix_order(self) -> Node | None:
        """The holder of the child with the smallest radix label."""
        for _, holder in self.children_in_radix_order():
            return holder
        return None


class Reference(Kid):
    """A node that lies in the store, named by its running number."""

    __slots__ = ("loader", "number")

    def __init__(self, edge: str, hash: bytes, number: int, loader: NodeLoader) -> None:
        self.edge = edge
        self.hash = hash
        self.number: int = number
        self.loader: NodeLoader = loader

    def node(self) -> Node:
        return self.loader.load(self.number, self.edge, self.hash)


class NodeLoader:
    """Where references find their nodes."""

    def load(self, number: int, edge: str, hash: bytes) -> Node:
        """The node with a number; the same object as long as somebody cached it."""
        raise NotImplementedError


def empty_branch(token: int) -> Branch:
    """A branch without children; the radix root takes the first serial."""
    return Branch(b"", {}, "", NOTHING, 0, token, 0, 0, 0, 0, 0, 1)


def copy_node(node: Node, token: int) -> Node:
    """A copy to change; the kids are shared, the hash is still right."""
    return Node(
        node.edge,
        node.hash,
        node.kids.copy(),
        node.label,
        node.value,
        node.serial,
        token,
        node.size,
        node.bytes,
        node.height,
        node.siblings,
    )


def copy_branch(branch: Branch, token: int) -> Branch:
    """A copy to change, without hash and memo."""
    return Branch(
        b"",
        branch.kids.copy(),
        branch.label,
        branch.value,
        branch.serial,
        token,
        branch.size,
        branch.bytes,
        branch.height,
        branch.siblings,
        branch.count,
        branch.next_serial,
    )


def keep_node(node: Node, token: int, touched: list[Node]) -> None:
    """Note how a node is before it is written in place; it belongs to the version with a token from now on."""
    node.before = Node(
        node.edge,
        node.hash,
        node.kids,
        node.label,
        node.value,
        node.serial,
        node.token,
        node.size,
        node.bytes,
        node.height,
        node.siblings,
    )
    node.token = token
    touched.append(node)


def keep_branch(branch: Branch, token: int, touched: list[Node]) -> None:
    """`keep_node` for a branch."""
    branch.before = Branch(
        branch.hash,
        branch.kids,
        branch.label,
        branch.value,
        branch.serial,
        branch.token,
        branch.size,
        branch.bytes,
        branch.height,
        branch.siblings,
        branch.count,
        branch.next_serial,
    )
    branch.token = token
    touched.append(branch)


def put_back(node: Node) -> None:
    """Make a node again what it was before it was written in place."""
    before = node.before
    assert before is not None, "the node was not kept"
    node.before = None
    node.edge = before.edge
    node.hash = before.hash
    node.kids = before.kids
    node.label = before.label
    node.value = before.value
    node.serial = before.serial
    node.token = before.token
    node.size = before.size
    node.bytes = before.bytes
    node.height = before.height
    node.siblings = before.siblings
    if isinstance(node, Branch) and isinstance(before, Branch):
        node.count = before.count
        node.next_serial = before.next_serial
        node.memo = None
        node.routes = None


def own_kids(node: Node) -> dict[str, Kid]:
    """The kids of a node to change; what it was before keeps those of then."""
    before = node.before
    if before is not None and before.kids is node.kids:
        node.kids = node.kids.copy()
    return node.kids


def radix_label(label: str) -> str:
    """The hex digits under which a label is filed; `a` and `0x61` are filed in the same place."""
    known = _radix_labels.get(label)
    if known is not None:
        return known
    match = _HEX_LABEL.fullmatch(label) if label.startswith("0x") else None
    key = utf8(label).hex() if match is None else match.group(1).lower()
    if len(_radix_labels) >= RADIX_LABELS_CACHED_MAX:
        _radix_labels.clear()
    _radix_labels[label] = key
    return key


def leaf_bytes(value: object) -> int:
    """What a leaf counts for, without its label."""
    if value is None:
        return NODE_BYTES
    if isinstance(value, str):
        return NODE_BYTES + 2 * utf16_length(value)
    return NODE_BYTES + (4 if isinstance(value, bool) else 8)


def _serial_of(node: Node) -> int:
    return node.serial


def _wait_for_kids(node: Node, key: str, after: str, waiting: list[tuple[str, Kid]]) -> None:
    """Puts on the stack, first one on top, the kids below which a label may lie behind `after`."""
    kids = node.kids
    for digit in sorted(kids, reverse=True):
        kid = kids[digit]
        longer = key + kid.edge
        if longer > after or after.startswith(longer):
            waiting.append((longer, kid))
