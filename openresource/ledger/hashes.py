"""The proof hashes of the tree, computed late: after a block, and only for what changed."""

from __future__ import annotations

from openresource.ledger.nodes import NOTHING, Branch, Node
from openresource.primitives.hashing import hash_message, hash_plain_message
from openresource.primitives.numbers import number_text


def node_hash(top: Node) -> bytes:
    """The proof hash of a radix node or branch; computes what is missing in and below it."""
    if top.hash:
        return top.hash
    missing: list[Node] = [top]
    for node in missing:
        for kid in node.kids.values():
            if not kid.hash and isinstance(kid, Node):
                missing.append(kid)
        value = node.value
        if isinstance(value, Branch) and not value.hash:
            missing.append(value)
    # Every node stands behind its parent, so backwards means from below.
    for node in reversed(missing):
        node.hash = _computed(node)
    return top.hash


def value_hash(value: object) -> bytes:
    """The proof hash of a state node: a branch or a leaf's value."""
    return node_hash(value) if isinstance(value, Branch) else leaf_hash(value)


def leaf_hash(value: object) -> bytes:
    """The proof hash of a leaf: of the text of its value."""
    if value is None:
        return hash_message("null")
    if isinstance(value, str):
        return hash_message(value)
    if isinstance(value, bool):
        return hash_message("true" if value else "false")
    if isinstance(value, (int, float)):
        return hash_message(number_text(value))
    raise TypeError(f"the tree holds no {type(value).__name__}")


def hash_text(digest: bytes) -> str:
    """A hash as peers write it."""
    return "0x" + digest.hex()


def preimage(head: str, kids: list[tuple[str, str]]) -> str:
    """What a radix node's hash is taken of: the text of its value's hash, and edges and hashes of its kids in order."""
    if not kids:
        return head + "##"
    return head + "#" + "".join(["#" + edge + "#" + text for edge, text in kids])


def _computed(node: Node) -> bytes:
    value = node.value
    if value is NOTHING:
        text = "#"
    elif isinstance(value, Branch):
        text = "0x" + value.hash.hex() + "#"
    else:
        text = "0x" + leaf_hash(value).hex() + "#"
    kids = node.kids
    if not kids:
        text += "#"
    elif len(kids) == 1:
        for kid in kids.values():
            text += "#" + kid.edge + "#0x" + kid.hash.hex()
    else:
        for digit in sorted(kids):
            below = kids[digit]
            text += "#" + below.edge + "#0x" + below.hash.hex()
    return hash_plain_message(text)
