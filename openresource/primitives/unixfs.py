"""Blocks of files and folders: UnixFS inside dag-pb, written as Kubo does and read with suspicion.

This module knows bytes only; what they mean to a reader of content is decided in `cids.py`.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from openresource.primitives.encoding import varint
from openresource.primitives.errors import Refusal
from openresource.primitives.limits import DAG_LINKS_PER_BLOCK_MAX

DIRECTORY: Final = 1
FILE: Final = 2

# Type 0 is a leaf of old importers; it is a file's piece all the same.
_OLD_LEAF: Final = 0
_MODE_TAG: Final = 0x38
_MODIFIED_TAG: Final = 0x42


class InvalidNode(Refusal):
    template = "A block is not a UnixFS node that is used here: {reason}."


class RawLink:
    """A link as its block has it: bytes of the CID, bytes of the name, bytes of all blocks below."""

    __slots__ = ("cid", "graph_bytes", "name")

    def __init__(self, cid: bytes, name: bytes, graph_bytes: int) -> None:
        self.cid: bytes = cid
        self.name: bytes = name
        self.graph_bytes: int = graph_bytes


class RawNode:
    """A node as its block has it: kind, own data, size of the content, sizes of the parts, links."""

    __slots__ = ("content_bytes", "data", "kind", "links", "sizes")

    def __init__(
        self, kind: int, data: bytes, content_bytes: int, sizes: list[int], links: list[RawLink]
    ) -> None:
        self.kind: int = kind
        self.data: bytes = data
        self.content_bytes: int = content_bytes
        self.sizes: list[int] = sizes
        self.links: list[RawLink] = links


def encode_leaf(chunk: bytes) -> bytes:
    """The block of a piece of a file that has no links."""
    unixfs = b"\x08" + varint(FILE)
    if chunk:
        unixfs += b"\x12" + varint(len(chunk)) + chunk
    return _encoded([], unixfs + b"\x18" + varint(len(chunk)))


def encode_file(links: list[RawLink], sizes: list[int]) -> bytes:
    """The block of a file, or of a part of one, that consists of parts of these sizes."""
    unixfs = b"\x08" + varint(FILE) + b"\x18" + varint(sum(sizes))
    return _encoded(links, unixfs + b"".join([b"\x20" + varint(size) for size in sizes]))


def encode_directory(links: list[RawLink]) -> bytes:
    """The block of a folder; the links are in the order of their names' bytes."""
    return _encoded(links, b"\x08" + varint(DIRECTORY))


def decode(block: bytes) -> RawNode:
    """The node in a block; anything unusual is refused."""
    data = b""
    has_data = False
    links: list[RawLink] = []
    for tag, _, content in _fields(block):
        if tag == 0x12:
            if len(links) >= DAG_LINKS_PER_BLOCK_MAX:
                raise InvalidNode(reason="it has too many links")
            links.append(_decoded_link(content))
        elif tag == 0x0A and not has_data:
            data = content
            has_data = True
        else:
            raise InvalidNode(reason="it has an unknown or repeated field")
    if not has_data:
        raise InvalidNode(reason="it has no UnixFS data")
    return _decoded_unixfs(data, links)


def _encoded(links: list[RawLink], unixfs: bytes) -> bytes:
    # dag-pb writes the links before the data, whatever their field numbers say.
    parts: list[bytes] = []
    for link in links:
        encoded = b"\x0a" + varint(len(link.cid)) + link.cid
        encoded += b"\x12" + varint(len(link.name)) + link.name + b"\x18" + varint(link.graph_bytes)
        parts.append(b"\x12" + varint(len(encoded)) + encoded)
    parts.append(b"\x0a" + varint(len(unixfs)) + unixfs)
    return b"".join(parts)


def _decoded_link(content: bytes) -> RawLink:
    link = RawLink(b"", b"", 0)
    for tag, number, field in _fields(content):
        if tag == 0x0A:
            link.cid = field
        elif tag == 0x12:
            link.name = field
        elif tag == 0x18:
            link.graph_bytes = number
        else:
            raise InvalidNode(reason="a link has an unknown field")
    return link


def _decoded_unixfs(content: bytes, links: list[RawLink]) -> RawNode:
    kind = -1
    data = b""
    content_bytes = 0
    sizes: list[int] = []
    for tag, number, field in _fields(content):
        if tag == 0x08:
            kind = number
        elif tag == 0x12:
            data = field
        elif tag == 0x18:
            content_bytes = number
        elif tag == 0x20:
            sizes.append(number)
        elif tag not in (_MODE_TAG, _MODIFIED_TAG):
            # What remains belongs to sharded folders.
            raise InvalidNode(reason="it has a UnixFS field that is not used here")
    if kind == DIRECTORY and not sizes and not data:
        return RawNode(DIRECTORY, b"", 0, sizes, links)
    if kind not in (_OLD_LEAF, FILE):
        raise InvalidNode(reason="it is neither a file nor a folder")
    if len(data) + sum(sizes) != content_bytes:
        raise InvalidNode(reason="its sizes do not add up")
    if len(sizes) != len(links):
        raise InvalidNode(reason="its sizes and links differ in number")
    return RawNode(FILE, data, content_bytes, sizes, links)


def _fields(block: bytes) -> Iterator[tuple[int, int, bytes]]:
    """Tag, number and bytes of each protobuf field; only varints and byte strings exist here."""
    position = 0
    while position < len(block):
        tag, position = _read_varint(block, position)
        if tag & 7 == 0:
            number, position = _read_varint(block, position)
            yield tag, number, b""
        elif tag & 7 == 2:
            length, position = _read_varint(block, position)
            end = position + length
            if end > len(block):
                raise InvalidNode(reason="it ends too early")
            yield tag, 0, block[position:end]
            position = end
        else:
            raise InvalidNode(reason="it has a field of an unknown form")


def _read_varint(block: bytes, position: int) -> tuple[int, int]:
    number = 0
    for shift in range(0, 63, 7):
        if position >= len(block):
            raise InvalidNode(reason="it ends too early")
        octet = block[position]
        position += 1
        number |= (octet & 0x7F) << shift
        if octet < 0x80:
            return number, position
    raise InvalidNode(reason="a number in it is too large")
