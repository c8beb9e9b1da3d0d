"""Blocks of content on disk, by CID: verified before they are kept, whole or not there, within a quota.

What no registered program refers to may be dropped after an hour.
"""

from __future__ import annotations

import asyncio
import errno
import os
import threading
import time
from collections.abc import Callable, Iterable
from pathlib import Path

from openresource.primitives.cids import Cid, InvalidCid, InvalidNode, decode_node, parse_cid, verify_block
from openresource.primitives.errors import Refusal

QUOTA_BYTES = 8 * 1024 * 1024 * 1024
UNREFERENCED_SECONDS_MAX = 3_600.0
SWEEP_SECONDS = 600.0
_PART_SUFFIX = ".part"


class ContentUnknown(Refusal):
    template = "This node does not keep the block {cid}."
    way_out = "Ask the publisher to publish it again, or ask another node."


class QuotaReached(Refusal):
    template = "The quota of {quota_bytes} bytes for content is used up ({used_bytes} bytes)."
    way_out = "Start the node with a larger quota, or wait until unused blocks are dropped."


class ContentDiskFull(Refusal):
    template = "The disk is full, so the block {cid} was not kept."
    way_out = "Make room on the disk of {folder} and send the block again."


class ContentStore:
    """One folder of blocks; every method may be called from threads."""

    def __init__(
        self, folder: Path, quota_bytes: int = QUOTA_BYTES, clock: Callable[[], float] = time.time
    ) -> None:
        self._folder = folder
        self._quota_bytes = quota_bytes
        self._clock = clock
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.used_bytes = 0
        self.block_count = 0
        self._measured = False
        self._counting = threading.Lock()

    async def put(self, cid_text: str, data: bytes) -> bool:
        """Keep a block if its bytes have the name; whether it is new here."""
        cid = parse_cid(cid_text)
        verify_block(cid, data)
        # Only blocks that can be read again are kept: rubbish behind a good hash is no content.
        decode_node(cid, data)
        return await asyncio.to_thread(self._put, cid, data)

    async def get(self, cid_text: str) -> bytes:
        """The bytes of a block."""
        return await asyncio.to_thread(self._get, parse_cid(cid_text))

    def size_of(self, cid_text: str) -> int | None:
        """How many bytes a block has; None if it is not here."""
        try:
            return self._path(parse_cid(cid_text)).stat().st_size
        except FileNotFoundError:
            return None

    def sweep(self, roots: Iterable[str]) -> int:
        """Drop blocks that are older than an hour and not reached from the roots; how many went."""
        kept = self._reached(roots)
        oldest = self._clock() - UNREFERENCED_SECONDS_MAX
        dropped = 0
        for path in self._files():
            try:
                if path.name in kept or path.stat().st_mtime > oldest:
                    continue
                path.unlink()
                dropped += 1
            except FileNotFoundError:
                continue
        self.measure()
        return dropped

    def measure(self) -> None:
        """Count what is on disk."""
        used_bytes = count = 0
        for path in self._files():
            try:
                used_bytes += path.stat().st_size
                count += 1
            except FileNotFoundError:
                continue
        with self._counting:
            self.used_bytes, self.block_count, self._measured = used_bytes, count, True

    def _put(self, cid: Cid, data: bytes) -> bool:
        if not self._measured:
            self.measure()
        path = self._path(cid)
        if path.exists():
            # A new hour for a block that somebody needs again.
            os.utime(path)
            return False
        if self.used_bytes + len(data) > self._quota_bytes:
            raise QuotaReached(quota_bytes=self._quota_bytes, used_bytes=self.used_bytes)
        part = path.with_name(f"{path.name}.{os.urandom(6).hex()}{_PART_SUFFIX}")
        try:
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            with open(part, "xb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            # A link fails where a replacement would not: of two who bring the same block, one is counted.
            os.link(part, path)
            _sync_folder(path.parent)
        except FileExistsError:
            return False
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise ContentDiskFull(cid=cid.text, folder=str(self._folder)) from error
            raise
        finally:
            part.unlink(missing_ok=True)
        with self._counting:
            self.used_bytes += len(data)
            self.block_count += 1
        return True

    def _get(self, cid: Cid) -> bytes:
        try:
            data = self._path(cid).read_bytes()
        except FileNotFoundError:
            raise ContentUnknown(cid=cid.text) from None
        return data

    def _path(self, cid: Cid) -> Path:
        # Ends of CIDs differ, their beginnings are all the same.
        name = cid.text
        return self._folder / name[-3:-1] / name

    def _files(self) -> Iterable[Path]:
        for shard in sorted(self._folder.iterdir()):
            if shard.is_dir():
                yield from shard.iterdir()

    def _reached(self, roots: Iterable[str]) -> set[str]:
        kept: set[str] = set()
        waiting = list(roots)
        while waiting:
            name = waiting.pop()
            if name in kept:
                continue
            kept.add(name)
            try:
                cid = parse_cid(name)
                waiting.extend(link.text for link in decode_node(cid, self._get(cid)).links)
            except (ContentUnknown, InvalidCid, InvalidNode):
                # A registered program whose blocks never came, or a raw leaf that went: nothing below it to keep.
                continue
        return kept


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
