"""Content names: CIDs of blocks, and files and folders as UnixFS graphs that are the same as Kubo's.

Writing hands every block to a `put(cid, block)` of the caller; reading asks a `get(cid)` of the caller and believes
nothing: each block is checked against its name, and sizes, depth and counts have bounds.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Final

from openresource.primitives import unixfs
from openresource.primitives.encoding import varint
from openresource.primitives.errors import Refusal
from openresource.primitives.hashing import sha256
from openresource.primitives.limits import (
    BLOCK_BYTES_MAX,
    CID_CHARACTERS_MAX,
    DAG_BYTES_PER_NODE_MIN,
    DAG_DEPTH_MAX,
    DAG_NODES_SPARE_MAX,
    DIRECTORY_LINK_BYTES_MAX,
    FILE_NAME_BYTES_MAX,
)
from openresource.primitives.unixfs import InvalidNode as InvalidNode
from openresource.primitives.unixfs import RawLink

RAW: Final = 0x55
DAG_PB: Final = 0x70
CHUNK_BYTES: Final = 262_144
LINKS_PER_NODE: Final = 174

_SHA256_HEAD = b"\x12\x20"
_BASE58 = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"
_VERSION_0 = re.compile(f"Qm[{_BASE58}]{{44}}")
_VERSION_1 = re.compile("b[a-z2-7]{58}")

Put = Callable[[str, bytes], None]
Get = Callable[[str], bytes]


class InvalidCid(Refusal):
    template = "{text} is not a CID that is used here."
    way_out = "Use a CIDv0 (Qm…) or a base32 CIDv1 (b…) with SHA-256, of a raw block or a UnixFS node."


class BlockMismatch(Refusal):
    template = "A block's bytes do not have the name {cid}."
    way_out = "Fetch the block from somewhere else."


class BlockTooLarge(Refusal):
    template = "A block has {bytes} bytes; at most {bytes_max} are read."


class ContentTooLarge(Refusal):
    template = "The content {cid} has more than {limit} {unit}."
    way_out = "Raise the limit, if you trust the content."


class WrongContentKind(Refusal):
    template = "The content {cid} is not a {expected}."


class InvalidFileName(Refusal):
    template = "{name} cannot be the name of a file in a folder."
    way_out = "Use a name without slashes, line ends and control characters, of at most 255 bytes."


class DirectoryTooLarge(Refusal):
    template = "A folder with {entries} entries is too large for one block."
    way_out = "Spread the files over subfolders."


class Cid:
    """A parsed name of a block."""

    __slots__ = ("codec", "digest", "version")

    def __init__(self, version: int, codec: int, digest: bytes) -> None:
        self.version: int = version
        self.codec: int = codec
        self.digest: bytes = digest

    @property
    def text(self) -> str:
        """The name as people and URLs write it."""
        data = self.to_bytes()
        if self.version == 0:
            return _base58(data)
        return "b" + base64.b32encode(data).decode("ascii").rstrip("=").lower()

    def to_bytes(self) -> bytes:
        """The name as links in blocks have it."""
        if self.version == 0:
            return _SHA256_HEAD + self.digest
        return b"\x01" + varint(self.codec) + _SHA256_HEAD + self.digest

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Cid) and self.to_bytes() == other.to_bytes()

    def __hash__(self) -> int:
        return hash(self.digest)

    def __repr__(self) -> str:
        return f"Cid({self.text})"


class Link:
    """One node of a graph as its parent sees it: name, bytes of content, bytes of all blocks below it."""

    __slots__ = ("cid", "content_bytes", "graph_bytes")

    def __init__(self, cid: Cid, content_bytes: int, graph_bytes: int) -> None:
        self.cid: Cid = cid
        self.content_bytes: int = content_bytes
        self.graph_bytes: int = graph_bytes


class Node:
    """A decoded block: its kind (raw, file or directory), its own data, and its links in order."""

    __slots__ = ("block_sizes", "content_bytes", "data", "kind", "links", "names")

    def __init__(self, kind: str, data: bytes, content_bytes: int) -> None:
        self.kind: str = kind
        self.data: bytes = data
        self.content_bytes: int = content_bytes
        self.links: list[Cid] = []
        self.names: list[str] = []
        self.block_sizes: list[int] = []


def parse_cid(text: str) -> Cid:
    """The CID behind a text from outside; exactly one text is accepted for each."""
    if len(text) > CID_CHARACTERS_MAX:
        raise InvalidCid(text=text)
    if _VERSION_0.fullmatch(text) is not None:
        data = _base58_bytes(text)
    elif _VERSION_1.fullmatch(text) is not None:
        data = base64.b32decode(text[1:].upper() + "======")
    else:
        raise InvalidCid(text=text)
    cid = _cid_from_bytes(data)
    if cid is None or cid.text != text:
        raise InvalidCid(text=text)
    return cid


def is_cid(text: str) -> bool:
    """Whether a text is a CID that is used here."""
    try:
        parse_cid(text)
    except InvalidCid:
        return False
    return True


def cid_of_block(block: bytes, codec: int = RAW, version: int = 1) -> Cid:
    """The name of a block."""
    return Cid(version, codec, sha256(block))


def verify_block(cid: Cid, block: bytes) -> None:
    """Refuses a block whose bytes do not have the name."""
    if len(block) > BLOCK_BYTES_MAX:
        raise BlockTooLarge(bytes=len(block), bytes_max=BLOCK_BYTES_MAX)
    if sha256(block) != cid.digest:
        raise BlockMismatch(cid=cid.text)


def file_blocks(
    chunks: Iterable[bytes],
    put: Put,
    *,
    version: int = 1,
    chunk_bytes: int = CHUNK_BYTES,
    links_per_node: int = LINKS_PER_NODE,
) -> Link:
    """Hands the blocks of a file to `put` while its bytes stream in, and gives the link to it."""
    # waiting[n] are the nodes of height n that have no parent yet.
    waiting: list[list[Link]] = [[]]
    for chunk in _equal_chunks(chunks, chunk_bytes):
        waiting[0].append(_leaf(chunk, version, put))
        height = 0
        while len(waiting[height]) == links_per_node:
            _raise_group(waiting, height, version, put)
            height += 1
    height = 0
    while height < len(waiting) - 1 or len(waiting[height]) > 1:
        if waiting[height]:
            _raise_group(waiting, height, version, put)
        height += 1
    return waiting[height][0]


def file_cid(data: bytes, *, version: int = 1) -> str:
    """The CID of a file whose bytes are at hand."""
    return file_blocks([data], _forget, version=version).cid.text


def directory_block(entries: Mapping[str, Link], *, version: int = 1) -> tuple[Link, bytes]:
    """The link and the block of a folder with these entries."""
    links = [_raw_link(_file_name_bytes(name), link) for name, link in entries.items()]
    if sum([len(link.name) + len(link.cid) for link in links]) >= DIRECTORY_LINK_BYTES_MAX:
        raise DirectoryTooLarge(entries=len(entries))
    links.sort(key=_by_name)
    block = unixfs.encode_directory(links)
    graph_bytes = len(block) + sum([link.graph_bytes for link in links])
    return Link(cid_of_block(block, DAG_PB, version), 0, graph_bytes), block


def folder_blocks(files: Mapping[str, bytes], put: Put, *, version: int = 1) -> Link:
    """Hands the blocks of a folder to `put`; paths are relative, with slashes."""
    entries: dict[str, Link] = {}
    subfolders: dict[str, dict[str, bytes]] = {}
    for path, data in files.items():
        name, slash, rest = path.partition("/")
        if path.count("/") >= DAG_DEPTH_MAX:
            raise InvalidFileName(name=path)
        if slash:
            subfolders.setdefault(name, {})[rest] = data
        else:
            entries[name] = file_blocks([data], put, version=version)
    for name, inner in subfolders.items():
        if name in entries:
            raise InvalidFileName(name=name)
        entries[name] = folder_blocks(inner, put, version=version)
    link, block = directory_block(entries, version=version)
    put(link.cid.text, block)
    return link


def folder_cid(files: Mapping[str, bytes], *, version: int = 1) -> str:
    """The CID of a folder whose files are at hand."""
    return folder_blocks(files, _forget, version=version).cid.text


def decode_node(cid: Cid, block: bytes) -> Node:
    """The node in a block that has been verified; anything unusual is refused."""
    if cid.codec == RAW:
        return Node("raw", block, len(block))
    raw = unixfs.decode(block)
    node = Node("directory" if raw.kind == unixfs.DIRECTORY else "file", raw.data, raw.content_bytes)
    node.block_sizes = raw.sizes
    for link in raw.links:
        target = _cid_from_bytes(link.cid)
        if target is None:
            raise InvalidNode(reason="a link has no CID that is used here")
        node.links.append(target)
        node.names.append(_file_name(link.name) if raw.kind == unixfs.DIRECTORY else "")
    if raw.kind == unixfs.DIRECTORY and len(set(node.names)) != len(node.names):
        raise InvalidNode(reason="two entries have the same name")
    return node


def read_file(text: str, get: Get, *, bytes_max: int) -> Iterator[bytes]:
    """The bytes of a file, piece by piece; every block is checked before its bytes are handed on."""
    cid = parse_cid(text)
    # Each entry: the node's name, the bytes that its parent promised for it (-1: none), its depth.
    stack: list[tuple[Cid, int, int]] = [(cid, -1, 0)]
    total_bytes = 0
    # A graph of tiny pieces must not cost more than its bytes are worth.
    nodes_left = DAG_NODES_SPARE_MAX + bytes_max // DAG_BYTES_PER_NODE_MIN
    while stack:
        target, promised_bytes, depth = stack.pop()
        nodes_left -= 1
        if nodes_left < 0:
            raise InvalidNode(reason="it has too many small parts")
        node = _fetched(target, get)
        if node.kind == "directory":
            raise WrongContentKind(cid=text, expected="file")
        if promised_bytes >= 0 and node.content_bytes != promised_bytes:
            raise InvalidNode(reason="a part has not the size that its parent promises")
        if depth == 0 and node.content_bytes > bytes_max:
            raise ContentTooLarge(cid=text, limit=bytes_max, unit="bytes")
        if depth >= DAG_DEPTH_MAX:
            raise InvalidNode(reason="it is too deep")
        total_bytes += len(node.data)
        if total_bytes > bytes_max:
            raise ContentTooLarge(cid=text, limit=bytes_max, unit="bytes")
        if node.data:
            yield node.data
        for index in range(len(node.links) - 1, -1, -1):
            if node.block_sizes[index] == 0:
                raise InvalidNode(reason="it has an empty part")
            stack.append((node.links[index], node.block_sizes[index], depth + 1))


def list_directory(text: str, get: Get) -> dict[str, str]:
    """Names and CIDs of a folder's entries."""
    node = _fetched(parse_cid(text), get)
    if node.kind != "directory":
        raise WrongContentKind(cid=text, expected="folder")
    return {name: target.text for name, target in zip(node.names, node.links, strict=True)}


def read_folder(text: str, get: Get, *, bytes_max: int, files_max: int) -> dict[str, bytes]:
    """All files of a folder by their relative paths."""
    files: dict[str, bytes] = {}
    bytes_left = bytes_max
    entries_seen = 0
    stack: list[tuple[str, str, int]] = [("", text, 0)]
    while stack:
        path, target, depth = stack.pop()
        node = _fetched(parse_cid(target), get)
        if node.kind == "directory":
            if depth >= DAG_DEPTH_MAX:
                raise InvalidNode(reason="it is too deep")
            entries_seen += len(node.links)
            if entries_seen > files_max:
                raise ContentTooLarge(cid=text, limit=files_max, unit="files and folders")
            prefix = path + "/" if path else ""
            for name, inner in zip(node.names, node.links, strict=True):
                stack.append((prefix + name, inner.text, depth + 1))
        elif not path:
            raise WrongContentKind(cid=text, expected="folder")
        else:
            data = b"".join(read_file(target, get, bytes_max=bytes_left))
            bytes_left -= len(data)
            files[path] = data
    return dict(sorted(files.items()))


def _forget(cid: str, block: bytes) -> None:
    """A `put` for callers who want the name alone."""


def _fetched(cid: Cid, get: Get) -> Node:
    block = get(cid.text)
    verify_block(cid, block)
    return decode_node(cid, block)


def _equal_chunks(chunks: Iterable[bytes], chunk_bytes: int) -> Iterator[bytes]:
    """The same bytes in pieces of one size; one empty piece if there is nothing."""
    rest = b""
    is_empty = True
    for chunk in chunks:
        buffered = rest + chunk if rest else chunk
        start = 0
        while len(buffered) - start >= chunk_bytes:
            yield buffered[start : start + chunk_bytes]
            is_empty = False
            start += chunk_bytes
        rest = buffered[start:]
    if rest or is_empty:
        yield rest


def _leaf(chunk: bytes, version: int, put: Put) -> Link:
    if version == 0:
        block = unixfs.encode_leaf(chunk)
        cid = cid_of_block(block, DAG_PB, 0)
    else:
        block = chunk
        cid = cid_of_block(block, RAW, 1)
    put(cid.text, block)
    return Link(cid, len(chunk), len(block))


def _raise_group(waiting: list[list[Link]], height: int, version: int, put: Put) -> None:
    """Gives the waiting nodes of one height a parent, which then waits one level higher."""
    group = waiting[height]
    sizes = [link.content_bytes for link in group]
    block = unixfs.encode_file([_raw_link(b"", link) for link in group], sizes)
    cid = cid_of_block(block, DAG_PB, version)
    put(cid.text, block)
    waiting[height] = []
    if len(waiting) == height + 1:
        waiting.append([])
    graph_bytes = len(block) + sum([link.graph_bytes for link in group])
    waiting[height + 1].append(Link(cid, sum(sizes), graph_bytes))


def _raw_link(name: bytes, link: Link) -> RawLink:
    return RawLink(link.cid.to_bytes(), name, link.graph_bytes)


def _by_name(link: RawLink) -> bytes:
    return link.name


def _file_name_bytes(name: str) -> bytes:
    try:
        raw = name.encode()
    except UnicodeEncodeError as error:
        raise InvalidFileName(name=ascii(name)) from error
    has_control = any(character < " " or character == "\x7f" for character in name)
    if not raw or len(raw) > FILE_NAME_BYTES_MAX or name in (".", "..") or "/" in name or has_control:
        raise InvalidFileName(name=name)
    return raw


def _file_name(raw: bytes) -> str:
    try:
        name = raw.decode()
    except UnicodeDecodeError as error:
        raise InvalidNode(reason="a name in it is not UTF-8") from error
    _file_name_bytes(name)
    return name


def _cid_from_bytes(data: bytes) -> Cid | None:
    if len(data) == 34 and data[:2] == _SHA256_HEAD:
        return Cid(0, DAG_PB, data[2:])
    if len(data) == 36 and data[0] == 1 and data[1] in (RAW, DAG_PB) and data[2:4] == _SHA256_HEAD:
        return Cid(1, data[1], data[4:])
    return None


def _base58(data: bytes) -> str:
    number = int.from_bytes(data, "big")
    digits = ""
    while number:
        number, digit = divmod(number, 58)
        digits = _BASE58[digit] + digits
    return "1" * (len(data) - len(data.lstrip(b"\0"))) + digits


def _base58_bytes(text: str) -> bytes:
    number = 0
    for character in text:
        number = number * 58 + _BASE58.index(character)
    return number.to_bytes((number.bit_length() + 7) // 8, "big")
