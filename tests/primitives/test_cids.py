"""Files and folders read back from their blocks, and hostile blocks are refused at little cost."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from openresource.primitives.cids import (
    DAG_PB,
    RAW,
    BlockMismatch,
    BlockTooLarge,
    Cid,
    ContentTooLarge,
    DirectoryTooLarge,
    InvalidCid,
    InvalidFileName,
    InvalidNode,
    Link,
    WrongContentKind,
    cid_of_block,
    decode_node,
    directory_block,
    file_blocks,
    file_cid,
    folder_blocks,
    folder_cid,
    is_cid,
    list_directory,
    parse_cid,
    read_file,
    read_folder,
    verify_block,
)
from openresource.primitives.limits import BLOCK_BYTES_MAX, CID_CHARACTERS_MAX

names = st.text(
    st.characters(exclude_categories=["Cs", "Cc"], exclude_characters="/"), min_size=1, max_size=8
)
file_names = names.filter(lambda name: name not in (".", ".."))
SMALL = {"chunk_bytes": 10, "links_per_node": 3}


def read_all(cid: str, blocks: dict[str, bytes], bytes_max: int = 100_000) -> bytes:
    return b"".join(read_file(cid, blocks.__getitem__, bytes_max=bytes_max))


@given(st.lists(st.binary(max_size=60), max_size=12), st.sampled_from([0, 1]))
def test_a_file_reads_back_however_its_bytes_arrived(chunks: list[bytes], version: int) -> None:
    blocks: dict[str, bytes] = {}
    link = file_blocks(chunks, blocks.__setitem__, version=version, **SMALL)
    content = b"".join(chunks)
    assert read_all(link.cid.text, blocks) == content
    assert link.content_bytes == len(content)
    whole = file_blocks([content], blocks.__setitem__, version=version, **SMALL)
    assert whole.cid == link.cid
    for cid, block in blocks.items():
        verify_block(parse_cid(cid), block)


@given(
    st.dictionaries(
        st.lists(file_names, min_size=1, max_size=3).map("/".join), st.binary(max_size=20), max_size=6
    )
)
def test_a_folder_reads_back(files: dict[str, bytes]) -> None:
    blocks: dict[str, bytes] = {}
    try:
        link = folder_blocks(files, blocks.__setitem__)
    except InvalidFileName:
        paths = list(files)
        assert any(one != other and other.startswith(one + "/") for one in paths for other in paths)
        return
    read = read_folder(link.cid.text, blocks.__getitem__, bytes_max=1_000, files_max=100)
    assert read == files
    assert folder_cid(dict(reversed(files.items()))) == link.cid.text


@given(st.binary(max_size=80), st.sampled_from([RAW, DAG_PB]))
def test_whatever_block_arrives_there_is_a_node_or_a_refusal(block: bytes, codec: int) -> None:
    try:
        decode_node(cid_of_block(block, codec), block)
    except (InvalidNode, InvalidFileName):
        pass


@given(st.data())
def test_a_damaged_node_is_a_node_or_a_refusal(data: Any) -> None:
    blocks: dict[str, bytes] = {}
    file_blocks([bytes(100)], blocks.__setitem__, **SMALL)
    _, block = directory_block({"a": Link(cid_of_block(b"x"), 1, 1)})
    damaged = bytearray(data.draw(st.sampled_from([*blocks.values(), block])))
    damaged[data.draw(st.integers(0, len(damaged) - 1))] = data.draw(st.integers(0, 255))
    try:
        decode_node(cid_of_block(bytes(damaged), DAG_PB), bytes(damaged))
    except (InvalidNode, InvalidFileName):
        pass


@given(st.binary(min_size=32, max_size=32), st.sampled_from([(0, DAG_PB), (1, DAG_PB), (1, RAW)]))
def test_a_cid_reads_back(digest: bytes, kind: tuple[int, int]) -> None:
    cid = Cid(kind[0], kind[1], digest)
    assert parse_cid(cid.text) == cid
    assert is_cid(cid.text)


@given(st.text(max_size=70) | st.from_regex("Qm[1-9A-HJ-NP-Za-km-z]{44}", fullmatch=True))
def test_a_text_is_one_cid_or_none(text: str) -> None:
    if is_cid(text):
        assert parse_cid(text).text == text


def test_other_spellings_of_a_cid_are_refused() -> None:
    cid = file_cid(b"x")
    others = [
        "",
        cid[:-1],
        cid + "a",
        cid.upper(),
        "z" + cid[1:],
        " " + cid,
        cid + "\n",
        "b" * (CID_CHARACTERS_MAX + 1),
    ]
    others.append("b" + "a" * 58)
    others.append(cid[:-1] + chr(ord(cid[-1]) + 1))
    for text in others:
        with pytest.raises(InvalidCid):
            parse_cid(text)


def test_a_wrong_or_huge_block_is_refused() -> None:
    cid = cid_of_block(b"right")
    verify_block(cid, b"right")
    with pytest.raises(BlockMismatch):
        verify_block(cid, b"wrong")
    with pytest.raises(BlockTooLarge):
        verify_block(cid, bytes(BLOCK_BYTES_MAX + 1))


def test_a_file_larger_than_allowed_is_refused_before_it_is_fetched() -> None:
    blocks: dict[str, bytes] = {}
    link = file_blocks([bytes(range(100))], blocks.__setitem__, **SMALL)
    fetched: list[str] = []

    def get(cid: str) -> bytes:
        fetched.append(cid)
        return blocks[cid]

    with pytest.raises(ContentTooLarge):
        list(read_file(link.cid.text, get, bytes_max=99))
    assert fetched == [link.cid.text]


def test_a_graph_of_many_references_to_little_is_refused() -> None:
    blocks: dict[str, bytes] = {}
    target = Link(cid_of_block(b"", RAW), 0, 0)
    blocks[target.cid.text] = b""
    for _ in range(20):
        target = linked_file([(target, 0)] * 50, blocks)
    with pytest.raises(InvalidNode):
        read_all(target.cid.text, blocks)


def test_a_graph_that_is_too_deep_is_refused() -> None:
    blocks: dict[str, bytes] = {}
    target = Link(cid_of_block(b"x", RAW), 1, 1)
    blocks[target.cid.text] = b"x"
    for _ in range(40):
        target = linked_file([(target, 1)], blocks)
    with pytest.raises(InvalidNode):
        read_all(target.cid.text, blocks)


def test_a_part_of_another_size_than_promised_is_refused() -> None:
    blocks: dict[str, bytes] = {}
    leaf = Link(cid_of_block(b"xx", RAW), 2, 2)
    blocks[leaf.cid.text] = b"xx"
    with pytest.raises(InvalidNode):
        read_all(linked_file([(leaf, 1)], blocks).cid.text, blocks)


def test_a_file_is_no_folder_and_a_folder_no_file() -> None:
    blocks: dict[str, bytes] = {}
    folder = folder_blocks({"a": b"1", "b/c": b"2"}, blocks.__setitem__).cid.text
    assert sorted(list_directory(folder, blocks.__getitem__)) == ["a", "b"]
    with pytest.raises(WrongContentKind):
        read_all(folder, blocks)
    for reader in (list_directory, lambda cid, get: read_folder(cid, get, bytes_max=9, files_max=9)):
        with pytest.raises(WrongContentKind):
            reader(list_directory(folder, blocks.__getitem__)["a"], blocks.__getitem__)


def test_a_folder_with_too_much_in_it_is_refused() -> None:
    blocks: dict[str, bytes] = {}
    folder = folder_blocks({f"d/{number}": b"1234" for number in range(10)}, blocks.__setitem__).cid.text
    for bytes_max, files_max in ((39, 100), (100, 10)):
        with pytest.raises(ContentTooLarge):
            read_folder(folder, blocks.__getitem__, bytes_max=bytes_max, files_max=files_max)


@pytest.mark.parametrize(
    "name", ["", ".", "..", "a\0", "a\n", "\x7f", "x" * 256, "\ud800", "a//b", "a/", "/a", "a/../b"]
)
def test_a_name_that_could_lead_elsewhere_is_refused(name: str) -> None:
    with pytest.raises(InvalidFileName):
        folder_cid({name: b""})
    with pytest.raises(InvalidFileName):
        folder_cid({"a/" * 100 + name: b""})


def test_names_from_outside_are_checked_too() -> None:
    _, block = directory_block({"aa": Link(cid_of_block(b"x"), 1, 1)})
    for name in (b"..", b"a/", b"a\n"):
        hostile = block.replace(b"aa", name)
        with pytest.raises(InvalidFileName):
            decode_node(cid_of_block(hostile, DAG_PB), hostile)
    entry = block[:-4]
    doubled = entry + entry + block[-4:]
    with pytest.raises(InvalidNode):
        decode_node(cid_of_block(doubled, DAG_PB), doubled)


def test_a_folder_too_large_for_one_block_is_refused() -> None:
    with pytest.raises(DirectoryTooLarge):
        folder_cid({f"file-{number:010d}": b"" for number in range(5_200)})


def linked_file(parts: list[tuple[Link, int]], blocks: dict[str, bytes]) -> Link:
    """A file node whose parts and promised sizes are given, as a hostile writer would make it."""
    total = sum(size for _, size in parts)
    unixfs = b"\x08\x02\x18" + bytes((total,)) + b"".join(b"\x20" + bytes((size,)) for _, size in parts)
    links = b""
    for link, _ in parts:
        cid = link.cid.to_bytes()
        content = b"\x0a" + bytes((len(cid),)) + cid + b"\x12\x00\x18\x00"
        links += b"\x12" + bytes((len(content),)) + content
    block = (
        links
        + b"\x0a"
        + bytes((len(unixfs),) if len(unixfs) < 128 else (len(unixfs) & 127 | 128, len(unixfs) >> 7))
        + unixfs
    )
    cid = cid_of_block(block, DAG_PB)
    blocks[cid.text] = block
    return Link(cid, total, 0)
