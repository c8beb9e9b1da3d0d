"""Blocks on disk: whole or not there, within the quota, and dropped when nobody refers to them."""

from __future__ import annotations

import asyncio
import errno
import os
from pathlib import Path
from typing import Any

import pytest

from openresource.node.content import (
    UNREFERENCED_SECONDS_MAX,
    ContentDiskFull,
    ContentStore,
    ContentUnknown,
    QuotaReached,
)
from openresource.primitives.cids import BlockMismatch, InvalidCid, InvalidNode, cid_of_block, folder_blocks


def put_all(store: ContentStore, blocks: dict[str, bytes]) -> None:
    async def run() -> None:
        for cid, data in blocks.items():
            await store.put(cid, data)

    asyncio.run(run())


def blocks_of(files: dict[str, bytes]) -> tuple[str, dict[str, bytes]]:
    blocks: dict[str, bytes] = {}
    root = folder_blocks(files, blocks.__setitem__).cid.text
    return root, blocks


def test_blocks_come_back_and_survive_a_restart(tmp_path: Path) -> None:
    root, blocks = blocks_of({"a": b"1", "b/c": b"2" * 300_000})
    put_all(ContentStore(tmp_path), blocks)
    store = ContentStore(tmp_path)
    for cid, data in blocks.items():
        assert asyncio.run(store.get(cid)) == data
        assert store.size_of(cid) == len(data)
    store.measure()
    assert (store.block_count, store.used_bytes) == (len(blocks), sum(map(len, blocks.values())))
    assert root in blocks


def test_wrong_bytes_wrong_names_and_rubbish_are_refused(tmp_path: Path) -> None:
    store = ContentStore(tmp_path)
    with pytest.raises(BlockMismatch):
        asyncio.run(store.put(cid_of_block(b"right").text, b"wrong"))
    for name in ("../../etc/passwd", "", "b" * 59, "x" * 1000):
        with pytest.raises(InvalidCid):
            asyncio.run(store.put(name, b"x"))
        with pytest.raises(InvalidCid):
            asyncio.run(store.get(name))
    with pytest.raises(InvalidNode):
        asyncio.run(store.put(cid_of_block(b"no node at all", 0x70).text, b"no node at all"))
    with pytest.raises(ContentUnknown):
        asyncio.run(store.get(cid_of_block(b"absent").text))
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


def test_the_quota_counts_each_block_once(tmp_path: Path) -> None:
    store = ContentStore(tmp_path, quota_bytes=1_000)
    first, second = b"1" * 600, b"2" * 600
    for _ in range(3):
        put_all(store, {cid_of_block(first).text: first})
    with pytest.raises(QuotaReached):
        put_all(store, {cid_of_block(second).text: second})


def test_a_full_disk_leaves_no_half_block(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = ContentStore(tmp_path)

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(ContentDiskFull):
            put_all(store, {cid_of_block(b"x").text: b"x"})
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []
    put_all(store, {cid_of_block(b"x").text: b"x"})


def test_what_no_program_refers_to_goes_after_an_hour(tmp_path: Path) -> None:
    now = [0.0]
    store = ContentStore(tmp_path, clock=lambda: now[0])
    kept_root, kept = blocks_of({"main.py": b"print()", "data": b"3" * 600_000})
    _, dropped = blocks_of({"main.py": b"old", "data": b"4" * 600_000})
    put_all(store, {**kept, **dropped})
    newest = max(path.stat().st_mtime for path in tmp_path.rglob("*") if path.is_file())
    now[0] = newest + UNREFERENCED_SECONDS_MAX - 60
    assert store.sweep([kept_root]) == 0
    now[0] = newest + UNREFERENCED_SECONDS_MAX + 60
    assert store.sweep([kept_root, "not a cid", cid_of_block(b"never sent").text]) == len(dropped)
    for cid, data in kept.items():
        assert asyncio.run(store.get(cid)) == data
    assert store.block_count == len(kept)


def test_a_block_that_is_sent_again_gets_a_new_hour(tmp_path: Path) -> None:
    store = ContentStore(tmp_path)
    cid = cid_of_block(b"again").text
    put_all(store, {cid: b"again"})
    (path,) = [path for path in tmp_path.rglob("*") if path.is_file()]
    os.utime(path, (1, 1))
    put_all(store, {cid: b"again"})
    assert store.sweep([]) == 0


def test_many_puts_of_one_block_at_once_leave_one(tmp_path: Path) -> None:
    store = ContentStore(tmp_path)
    data = os.urandom(100_000)
    cid = cid_of_block(data).text

    async def run() -> list[Any]:
        return await asyncio.gather(*[store.put(cid, data) for _ in range(8)])

    asyncio.run(run())
    assert len([path for path in tmp_path.rglob("*") if path.is_file()]) == 1
    store.measure()
    assert store.used_bytes == len(data)
