"""The loop around a follower: fetch blocks ahead, verify them in order, and keep a checkpoint to go on from."""

from __future__ import annotations

import asyncio
import gzip
import logging
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, Protocol

from openresource.ledger.profile import Network
from openresource.node.ain.follower import (
    STATE_HASH,
    CheckpointInvalid,
    Difference,
    Follower,
    Place,
    Verified,
    check_genesis_hash,
    genesis_hash_in,
)
from openresource.primitives.encoding import canonical_json_bytes, parse_json
from openresource.primitives.errors import Refusal

log = logging.getLogger("openresource.node.ain.following")

AHEAD: Final = 16
CHECKPOINT_SECONDS: Final = 30.0
POLL_SECONDS: Final = 1.0
CHECKPOINT_BYTES_MAX: Final = 4 << 30
CHECKPOINT_DEPTH_MAX: Final = 4_000


class Source(Protocol):
    """Where blocks come from; what it says is not believed."""

    async def last_number(self) -> int:
        """The number of its last final block."""

    async def block(self, number: int) -> Any:
        """A block with its whole transactions, as it stands in the answer; None if it has none of that number."""

    async def proof_hash(self, path: str) -> str | None:
        """The proof hash of a path of its newest final state; None if nothing is there."""


class BlockMissing(Refusal):
    template = "{url} says that its last block is {last}, but does not give block {number}."
    way_out = "Ask another node; this one may not keep its old blocks."


def checkpoint_file(folder: Path, network: str, genesis_hash: str) -> Path:
    """Where the checkpoint of a chain is kept."""
    return folder / f"{network}-{genesis_hash[2:14]}.json.gz"


def read_checkpoint(file: Path) -> Any:
    """A checkpoint from its file; None if there is none."""
    if not file.exists():
        return None
    try:
        with gzip.open(file) as packed:
            raw = packed.read(CHECKPOINT_BYTES_MAX)
        return parse_json(raw, bytes_max=CHECKPOINT_BYTES_MAX, depth_max=CHECKPOINT_DEPTH_MAX)
    except (OSError, EOFError, Refusal) as error:
        raise CheckpointInvalid(reason=f"{file}: {error}") from error


def write_checkpoint(file: Path, checkpoint: Any) -> None:
    """Replaces the checkpoint at once, so that a crash leaves the old one or the new one."""
    fresh = file.with_suffix(".new")
    file.parent.mkdir(parents=True, exist_ok=True)
    with open(fresh, "wb") as target:
        target.write(gzip.compress(canonical_json_bytes(checkpoint), 3, mtime=0))
        target.flush()
        os.fsync(target.fileno())
    os.replace(fresh, file)


class Following:
    """Follows one source; with a file, it goes on where it stopped."""

    def __init__(
        self,
        network: Network,
        source: Source,
        *,
        url: str,
        folder: Path | None = None,
        genesis_hash: str = "",
        on_block: Callable[[Verified], None] = lambda verified: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._network = network
        self._source = source
        self._url = url
        self._folder = folder
        self._file: Path | None = None
        self._genesis_hash = genesis_hash
        self._on_block = on_block
        self._clock = clock
        self._kept_at = clock()
        self._kept_number = -1
        self.follower: Follower | None = None
        self.resumed_at: int | None = None
        self.places: list[Place] = []

    async def run(self, *, until: int | None = None, is_once: bool = False) -> Follower:
        """Follows for ever, up to a block, or once up to what the source has now; ends at a difference by raising it."""
        follower = await self._begin()
        blocks: dict[int, Any] = {}
        try:
            last = await self._source.last_number()
            while True:
                # A block is verified with the votes for it, which stand in the next one.
                target = last - 1 if until is None else min(last - 1, until)
                if follower.number >= target:
                    if is_once or (until is not None and follower.number >= until):
                        return follower
                    await asyncio.sleep(POLL_SECONDS)
                    last = await self._source.last_number()
                    continue
                await self._fetch(blocks, follower.number + 1, min(follower.number + AHEAD, target), last)
                await self._take(follower, blocks)
        finally:
            self._keep(follower)

    async def _begin(self) -> Follower:
        first = await self._block(0, 0)
        check_genesis_hash(self._network, genesis_hash_in(first), self._genesis_hash)
        if self._folder is not None:
            # Anybody may begin a local network of the same name anew.
            self._file = checkpoint_file(self._folder, self._network.name, genesis_hash_in(first))
        kept = None if self._file is None else read_checkpoint(self._file)
        if kept is not None:
            follower = Follower.resume(self._network, kept)
            self.resumed_at = self._kept_number = follower.number
        else:
            follower = Follower.begin(self._network, first)
        self.follower = follower
        return follower

    async def _fetch(self, blocks: dict[int, Any], first: int, last_wanted: int, last: int) -> None:
        wanted = [
            number for number in range(first, last_wanted + 2) if number not in blocks and number <= last
        ]
        async with asyncio.TaskGroup() as group:
            tasks = {number: group.create_task(self._block(number, last)) for number in wanted}
        blocks.update({number: task.result() for number, task in tasks.items()})

    async def _take(self, follower: Follower, blocks: dict[int, Any]) -> None:
        while (number := follower.number + 1) in blocks and number + 1 in blocks:
            wire = blocks.pop(number)
            try:
                verified = follower.take(wire, blocks[number + 1])
            except Difference as difference:
                await self._locate(follower, wire, blocks[number + 1], difference)
                raise
            self._on_block(verified)
            if self._clock() - self._kept_at > CHECKPOINT_SECONDS:
                self._keep(follower)
            await asyncio.sleep(0)

    async def _locate(self, follower: Follower, wire: Any, after: Any, difference: Difference) -> None:
        """Only a source that stands at the block after can say at which paths it differs."""
        if difference.facts["what"] != STATE_HASH:
            return
        try:
            if await self._source.last_number() == difference.facts["block"] + 1:
                self.places = await follower.locate(wire, after, self._source.proof_hash)
        except Refusal as refusal:
            # The difference itself stands, with or without its paths.
            log.warning("the source does not say where it differs: %s", refusal.message)

    async def _block(self, number: int, last: int) -> Any:
        found = await self._source.block(number)
        if found is None:
            raise BlockMissing(url=self._url, number=number, last=last)
        return found

    def _keep(self, follower: Follower) -> None:
        if self._file is not None and follower.final_number > max(0, self._kept_number):
            write_checkpoint(self._file, follower.checkpoint())
            self._kept_number = follower.final_number
        self._kept_at = self._clock()
