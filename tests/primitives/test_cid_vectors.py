"""Content names against published files and an independent implementation."""

from __future__ import annotations

import base64
import hashlib
from typing import Any

from openresource.primitives.cids import (
    file_blocks,
    file_cid,
    folder_blocks,
    folder_cid,
    parse_cid,
    read_file,
    read_folder,
)
from tests.vectors_support import vectors


@vectors("snet/ipfs_objects.json", "objects", expected=("cid", "size", "block_sha256"))
def test_published_object_vectors(case: Any, document: Any) -> None:
    content = base64.b64decode(case["content_base64"])
    blocks: dict[str, bytes] = {}
    link = file_blocks([content], blocks.__setitem__, version=0)
    assert link.cid.text == case["cid"]
    assert link.content_bytes == case["size"]
    assert parse_cid(case["cid"]).digest.hex() == case["block_sha256"] or (
        hashlib.sha256(blocks[case["cid"]]).hexdigest() == case["block_sha256"]
    )
    assert b"".join(read_file(case["cid"], blocks.__getitem__, bytes_max=len(content))) == content


@vectors("snet/ipfs_objects.json", "plain_tar_example", expected=("cid",))
def test_plain_archive_vectors(case: Any, document: Any) -> None:
    assert file_cid(base64.b64decode(case["content_base64"]), version=0) == case["cid"]


@vectors("snet/ipfs_objects.json", "raw_cids", expected=("cid", "size"))
def test_content_name_vectors(case: Any, document: Any) -> None:
    text = case["content"]
    content = bytes(case["size"]) if text == "zero bytes" else bytes.fromhex(text)
    assert len(content) == case["size"]
    assert file_cid(content, version=0) == case["cid"]


@vectors("openresource/cids.json", "files", expected=("cid_v0", "cid_v1"))
def test_file_vectors(case: Any, document: Any) -> None:
    content = patterned(case["size"])
    assert file_cid(content, version=0) == case["cid_v0"]
    assert file_cid(content, version=1) == case["cid_v1"]


@vectors("openresource/cids.json", "folders", expected=("cid_v0", "cid_v1"))
def test_folder_vectors(case: Any, document: Any) -> None:
    files = {path: patterned(size) for path, size in case["files"].items()}
    assert folder_cid(files, version=0) == case["cid_v0"]
    blocks: dict[str, bytes] = {}
    assert folder_blocks(files, blocks.__setitem__).cid.text == case["cid_v1"]
    read = read_folder(case["cid_v1"], blocks.__getitem__, bytes_max=10_000_000, files_max=1_000)
    assert read == files


def patterned(size: int) -> bytes:
    return (bytes(range(251)) * (size // 251 + 1))[:size]
