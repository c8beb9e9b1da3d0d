"""Large files of a program by their content identifiers: fetched block by block, verified, kept once for all programs."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator
from typing import Final

from openresource.builds.cache import Cache, Entry
from openresource.builds.workshop import GetBlock
from openresource.market.manifests import Artifact
from openresource.primitives.cids import Cid, decode_node, parse_cid, verify_block
from openresource.primitives.errors import Refusal

ARTIFACT_BYTES_MAX: Final = 8 << 30
BLOCKS_MAX: Final = 200_000
AHEAD: Final = 8
FILE: Final = "file"


class ArtifactMissing(Refusal):
    template = "The artifact {name} ({cid}) cannot be had: {reason}."
    way_out = "Put it into the content store of a node (docs/runtimes.md says how), and publish the program."


async def fetch_artifact(cache: Cache, artifact: Artifact, get_block: GetBlock | None) -> Entry:
    """The file of an artifact, whole and verified."""
    key = hashlib.sha256(f"artifact {artifact.cid}".encode()).hexdigest()
    async with cache.making("dependencies", key) as (entry, fresh):
        if entry is not None:
            return entry
        if get_block is None:
            raise ArtifactMissing(name=artifact.name, cid=artifact.cid, reason="no node is at hand")
        content = fresh / "content"
        content.mkdir()
        written = 0
        with open(content / FILE, "xb") as file:
            async for part in _parts(artifact, get_block):
                written += len(part)
                if written > ARTIFACT_BYTES_MAX:
                    raise ArtifactMissing(
                        name=artifact.name,
                        cid=artifact.cid,
                        reason=f"it is larger than {ARTIFACT_BYTES_MAX} bytes",
                    )
                await asyncio.to_thread(file.write, part)
        return await cache.keep("dependencies", key, fresh, {"artifact": artifact.cid})


async def _parts(artifact: Artifact, get_block: GetBlock) -> AsyncIterator[bytes]:
    """The file's bytes in order, a few blocks ahead of what is written."""
    waiting: list[Cid] = [parse_cid(artifact.cid)]
    fetched: dict[str, asyncio.Task[bytes]] = {}
    count = 0
    try:
        while waiting:
            for cid in waiting[:AHEAD]:
                if cid.text not in fetched:
                    fetched[cid.text] = asyncio.ensure_future(_block(artifact, get_block, cid.text))
            cid = waiting.pop(0)
            count += 1
            if count > BLOCKS_MAX:
                raise ArtifactMissing(
                    name=artifact.name, cid=artifact.cid, reason=f"it has more than {BLOCKS_MAX} blocks"
                )
            # The same block may stand in a file twice.
            is_needed_again = any(cid.text == other.text for other in waiting[:AHEAD])
            block = await fetched[cid.text]
            if not is_needed_again:
                del fetched[cid.text]
            verify_block(cid, block)
            node = decode_node(cid, block)
            if node.kind == "directory":
                raise ArtifactMissing(
                    name=artifact.name, cid=artifact.cid, reason="it is a folder, not a file"
                )
            if node.links:
                waiting[:0] = node.links
            else:
                yield node.data
    finally:
        for task in fetched.values():
            task.cancel()
        await asyncio.gather(*fetched.values(), return_exceptions=True)


async def _block(artifact: Artifact, get_block: GetBlock, cid: str) -> bytes:
    try:
        return await get_block(cid)
    except Refusal as refusal:
        raise ArtifactMissing(
            name=artifact.name, cid=artifact.cid, reason=refusal.message.rstrip(".")
        ) from refusal
