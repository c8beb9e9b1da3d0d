"""How nodes lie in a store: one record a radix node, with the branch that hangs on it inside.

A record is a MessagePack list: size, bytes, height, siblings, serial, kids (edge, number and hash of each), and where a
child hangs on the node its label and value. A leaf is one field more; a branch is nine: those of its radix root, its
hash, count and next serial, and then label and value again if a child hangs on the root itself. The edge and the hash
of a node lie in its parent's record.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import msgspec

from openresource.ledger.hashes import node_hash
from openresource.ledger.nodes import NOTHING, Branch, Kid, Node, NodeLoader, Reference

_encode: Any = msgspec.msgpack.Encoder().encode
_decode: Any = msgspec.msgpack.Decoder().decode

_NODE_FIELDS: Final = 6
_BRANCH_FIELDS: Final = 9


class NodeCache(NodeLoader):
    """Loaded nodes in two generations: what is not used while the young one fills up is forgotten."""

    def __init__(self, read: Callable[[int], bytes], nodes_max: int) -> None:
        self._read: Callable[[int], bytes] = read
        self._generation_max: int = max(1, nodes_max // 2)
        self._young: dict[int, Node] = {}
        self._old: dict[int, Node] = {}
        # Records handed out last: they may not have reached the store yet.
        self._unstored: dict[int, bytes] = {}
        self.last_root: Branch | None = None

    def load(self, number: int, edge: str, hash: bytes) -> Node:
        node = self._young.get(number)
        if node is not None:
            return node
        node = self._old.get(number)
        if node is None:
            record = self._unstored.get(number)
            node = unpack(self._read(number) if record is None else record, edge, hash, self)
        self.remember(number, node)
        return node

    def remember(self, number: int, node: Node) -> None:
        """Keep a node that must not change any more."""
        if len(self._young) >= self._generation_max:
            self._old = self._young
            self._young = {}
        self._young[number] = node

    def expect(self, records: list[tuple[int, bytes]]) -> None:
        """Answer from these records too, until the next ones come."""
        self._unstored = dict(records)

    def root(self, number: int) -> Branch:
        """The root whose record has a number."""
        branch = self.load(number, "", b"").value
        assert isinstance(branch, Branch), "the record is that of a root"
        return branch


def take_changes(root: Branch, cache: NodeCache, next_number: int) -> tuple[list[tuple[int, bytes]], Branch]:
    """Records of all nodes in memory, children first, the root last; they are in the store's hands from now on."""
    node_hash(root)
    top = Node("", root.hash, {}, "", root, 0, root.token, 0, 0, 0, 0)
    nodes: list[Node] = [top]
    homes: list[dict[str, Kid]] = [{}]
    for node in nodes:
        _list_kids(node.kids, nodes, homes)
        value = node.value
        while isinstance(value, Branch):
            # They would hold what is to be read from the store again.
            value.routes = None
            _list_kids(value.kids, nodes, homes)
            value = value.value
    records: list[tuple[int, bytes]] = []
    position = len(nodes)
    number = next_number
    while position > 0:
        position -= 1
        node = nodes[position]
        records.append((number, pack(node)))
        if position > 0:
            homes[position][node.edge[0]] = Reference(node.edge, node.hash, number, cache)
        cache.remember(number, node)
        number += 1
    cache.expect(records)
    cache.last_root = root
    return records, root


def pack(node: Node) -> bytes:
    """The record of a node whose kids all lie in the store."""
    fields: list[Any] = [node.size, node.bytes, node.height, node.siblings, node.serial, _packed_kids(node)]
    holder = node
    while holder.value is not NOTHING:
        fields.append(_packable(holder.label))
        value = holder.value
        if not isinstance(value, Branch):
            fields.append(_packable(value))
            break
        fields += (value.size, value.bytes, value.height, value.siblings, value.serial, _packed_kids(value))
        fields += (node_hash(value), value.count, value.next_serial)
        holder = value
    record: bytes = _encode(fields)
    return record


def unpack(record: bytes, edge: str, hash: bytes, loader: NodeLoader) -> Node:
    """The node of a record, as its parent names it."""
    fields: list[Any] = _decode(record)
    node = Node(
        edge,
        hash,
        _unpacked_kids(fields[5], loader),
        "",
        NOTHING,
        fields[4],
        0,
        fields[0],
        fields[1],
        fields[2],
        fields[3],
    )
    holder: Node = node
    at = _NODE_FIELDS
    end = len(fields)
    while at < end:
        holder.label = _text(fields[at])
        at += 1
        if at + 1 == end:
            leaf: object = fields[at]
            holder.value = _text(leaf) if isinstance(leaf, bytes) else leaf
            break
        branch = Branch(
            fields[at + 6],
            _unpacked_kids(fields[at + 5], loader),
            "",
            NOTHING,
            fields[at + 4],
            0,
            fields[at],
            fields[at + 1],
            fields[at + 2],
            fields[at + 3],
            fields[at + 7],
            fields[at + 8],
        )
        holder.value = branch
        holder = branch
        at += _BRANCH_FIELDS
    return node


def _list_kids(kids: dict[str, Kid], nodes: list[Node], homes: list[dict[str, Kid]]) -> None:
    for kid in kids.values():
        if isinstance(kid, Node):
            nodes.append(kid)
            homes.append(kids)


def _packed_kids(node: Node) -> list[Any]:
    kids: list[Any] = []
    for kid in node.kids.values():
        assert isinstance(kid, Reference), "children are stored before their parents"
        kids.append(kid.edge)
        kids.append(kid.number)
        kids.append(kid.hash)
    return kids


def _unpacked_kids(packed: list[Any], loader: NodeLoader) -> dict[str, Kid]:
    kids: dict[str, Kid] = {}
    for at in range(0, len(packed), 3):
        edge: str = packed[at]
        kids[edge[0]] = Reference(edge, packed[at + 2], packed[at + 1], loader)
    return kids


def _packable(value: object) -> object:
    """MessagePack knows no lone surrogates: a text that has one is kept as bytes."""
    if isinstance(value, str) and not value.isascii():
        data = value.encode("utf-8", "surrogatepass")
        try:
            data.decode()
        except UnicodeDecodeError:
            return data
    return value


def _text(packed: Any) -> str:
    return packed.decode("utf-8", "surrogatepass") if isinstance(packed, bytes) else packed
