"""The state from a peer: how a node begins at a recent block without executing all those before, and hands its own on.

With `SYNC_MODE=peer` a node that has no blocks asks a peer for its newest snapshot, piece by piece, checks that it is
the state that the block with it names, and goes on from there like any other. The blocks before it are fetched later,
backwards: each must be the one that the next one names, and have the votes of its validators, down to the genesis block.
Until then the state is believed to the peer, and the node neither proposes nor votes.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import logging
import os
import time
from pathlib import Path
from typing import Any, Final, Protocol

from openresource.ledger.tree import Tree
from openresource.node.ain.ancestry import BlockUnusable, TooFewVotes, block_from_peer, check_votes
from openresource.node.ain.chain import SERVING, AinChain, Snapshot
from openresource.node.ain.parameters import NodeParameters
from openresource.node.ain.storage import UNREADABLE, ChainStorage, tree_of
from openresource.node.store import DiskFull
from openresource.primitives.errors import Refusal

REQUEST: Final = "SNAPSHOT_CHUNK_REQUEST"
RESPONSE: Final = "SNAPSHOT_CHUNK_RESPONSE"
OLD_REQUEST: Final = "OLD_CHAIN_SEGMENT_REQUEST"
OLD_RESPONSE: Final = "OLD_CHAIN_SEGMENT_RESPONSE"
KINDS: Final = frozenset((REQUEST, RESPONSE, OLD_REQUEST, OLD_RESPONSE))

CHUNK_BYTES: Final = 512 * 1024
CHUNKS_MAX: Final = 4_096
# A state that is larger as text than this share of the machine's memory has no room in it as a tree.
MEMORY_SHARE_MAX: Final = 1 / 32
OLD_BLOCKS_MAX: Final = 1_000
OLD_BYTES_MAX: Final = 8_000_000
ANSWER_SECONDS: Final = 10.0
# A peer that hands its state on more slowly is let go of.
SECONDS_PER_CHUNK: Final = 2.0
ROUND_SECONDS: Final = 0.2

Facts = dict[str, Any]
_log = logging.getLogger("openresource.node.ain.state_sync")


class Messenger(Protocol):
    """The links to the peers."""

    def tell(self, address: str, kind: str, data: Any) -> bool: ...

    def addresses(self) -> list[str]: ...


class SyncingNode(Protocol):
    """What this needs of the node."""

    @property
    def chain(self) -> AinChain: ...

    @property
    def parameters(self) -> NodeParameters: ...


class PeerStateRefused(Refusal):
    template = "What {peer} offers is not taken: {reason}."
    way_out = "Another peer is asked; set SYNC_MODE=full to execute every block instead."


class ChainOfPeerFalse(Refusal):
    template = "The state that a peer handed over does not stand on this network's chain: {reason}"
    way_out = (
        "Remove the directories {directory} and {snapshots}, and start again with SYNC_MODE=full, or with peers that "
        "you trust in PEER_WHITELIST."
    )


class StateSync:
    """The exchange of states and old blocks of one node with its peers."""

    def __init__(self, node: SyncingNode, storage: ChainStorage, peers: Messenger) -> None:
        self._node = node
        self._storage = storage
        self._peers = peers
        self._asked = ""
        self._expected = ""
        self._answer: asyncio.Future[Any] | None = None
        self._writing: asyncio.Future[None] | None = None
        # What a process that was killed has left.
        storage.draft().unlink(missing_ok=True)

    def take(self, kind: str, data: Any, sender: str) -> None:
        """A message of one of the KINDS."""
        if kind in (RESPONSE, OLD_RESPONSE):
            waiting = self._answer
            if waiting is not None and not waiting.done() and (sender, kind) == (self._asked, self._expected):
                waiting.set_result(data)
            return
        given: Facts = data if isinstance(data, dict) else {}
        is_serving = self._node.chain.node_state == SERVING
        if kind == REQUEST:
            self._peers.tell(sender, RESPONSE, self._chunk(given) if is_serving else None)
        elif kind == OLD_REQUEST:
            self._peers.tell(sender, OLD_RESPONSE, self._old_blocks(given) if is_serving else None)

    # -- handing on -------------------------------------------------------------------------------------------------

    def _chunk(self, given: Facts) -> Facts | None:
        """A piece of a snapshot; None while there is none, or no longer this one."""
        if self._node.chain.final_number == 0:
            return {"number": 0}
        wanted, index = given.get("number"), given.get("index", 0)
        numbers = self._storage.snapshot_numbers()
        if not numbers:
            self._write_snapshot()
            return None
        number = numbers[0] if wanted is None else wanted
        block = self._storage.block(number) if number in numbers else None
        if block is None or not isinstance(index, int) or not 0 <= index < CHUNKS_MAX:
            return None
        try:
            with self._storage.snapshot_path(number).open("rb") as file:
                size = os.fstat(file.fileno()).st_size
                file.seek(index * CHUNK_BYTES)
                data = file.read(CHUNK_BYTES)
        except OSError:
            return None
        told = {"number": number, "index": index, "count": -(-size // CHUNK_BYTES)}
        return {**told, "data": base64.b64encode(data).decode(), **({"block": block} if index == 0 else {})}

    def _write_snapshot(self) -> None:
        """A node whose first snapshot is far off writes one for whoever asks."""
        if self._writing is None or self._writing.done():
            chain = self._node.chain
            root, number = chain.final.tree.freeze().root, chain.final_number
            work = asyncio.to_thread(self._storage.write_snapshot, number, root, 1)
            self._writing = asyncio.ensure_future(work)

    def _old_blocks(self, given: Facts) -> list[Facts] | None:
        oldest = given.get("oldest")
        if not isinstance(oldest, int) or isinstance(oldest, bool):
            return None
        blocks: list[Facts] = []
        size = 0
        for number in range(oldest - 1, max(0, oldest - 1 - self._old_blocks_at_once()), -1):
            block = self._node.chain.block(number)
            if block is None or (blocks and size > OLD_BYTES_MAX):
                break
            blocks.append(block)
            size += block["size"]
        return blocks

    def _old_blocks_at_once(self) -> int:
        return min(max(1, int(self._node.parameters.number("OLD_CHAIN_SEGMENT_LENGTH"))), OLD_BLOCKS_MAX)

    # -- the state --------------------------------------------------------------------------------------------------

    async def fetch_state(self) -> None:
        """Returns when the chain stands at a snapshot of a peer, or a peer has none; asks one peer after the other."""
        asked = ""
        is_told = False
        while True:
            addresses = self._peers.addresses()
            if not addresses and not is_told:
                is_told = True
                _log.info("waiting for a peer who hands over a state; PEER_CANDIDATE_JSON_RPC_URL names one")
            if addresses:
                after = addresses.index(asked) + 1 if asked in addresses else 0
                asked = addresses[after % len(addresses)]
                try:
                    if await self._fetch_from(asked):
                        return
                except PeerStateRefused as refusal:
                    _log.warning("a state is refused", extra={"facts": {"reason": refusal.message}})
            await asyncio.sleep(ROUND_SECONDS)

    async def _fetch_from(self, peer: str) -> bool:
        first = await self._ask(peer, REQUEST, {"index": 0}, RESPONSE)
        if not isinstance(first, dict):
            return False
        if first.get("number") == 0:
            # A network that has only begun; if that is a lie, every block is executed, which needs no belief.
            return True
        block = _checked_block(peer, first.get("block"))
        number, count = block["number"], first.get("count")
        if number < 1 or number != first.get("number"):
            raise PeerStateRefused(peer=peer, reason="its block is another one than that of its state")
        if not isinstance(count, int) or isinstance(count, bool) or not 0 < count <= CHUNKS_MAX:
            raise PeerStateRefused(
                peer=peer, reason=f"its state is larger than {CHUNKS_MAX * CHUNK_BYTES} bytes"
            )
        draft = self._storage.draft()
        try:
            with draft.open("wb") as file:
                await self._write_chunks(peer, file, first, number, count)
                file.flush()
                os.fsync(file.fileno())
            tree = await asyncio.to_thread(_tree_from, peer, draft, block)
            self._storage.begin_at(block, draft)
        except OSError as error:
            raise DiskFull(home=str(self._storage.directory), height=number) from error
        finally:
            draft.unlink(missing_ok=True)
        self._node.chain.begin_at(Snapshot(block, tree))
        _log.info("the state is a peer's", extra={"facts": {"peer": peer, "number": number}})
        return True

    async def _write_chunks(self, peer: str, file: Any, first: Facts, number: int, count: int) -> None:
        deadline = time.monotonic() + ANSWER_SECONDS + SECONDS_PER_CHUNK * count
        chunk: Any = first
        for index in range(count):
            if index > 0:
                chunk = await self._ask(peer, REQUEST, {"number": number, "index": index}, RESPONSE)
            data = _bytes_of(peer, chunk, number, index)
            # The last one alone may be shorter, so that nobody makes this last for ever by drops.
            if not data or (index < count - 1 and len(data) != CHUNK_BYTES):
                raise PeerStateRefused(peer=peer, reason=f"piece {index} is too short")
            if time.monotonic() > deadline:
                raise PeerStateRefused(peer=peer, reason="it is too slow")
            file.write(data)

    # -- the blocks before it ---------------------------------------------------------------------------------------

    async def fetch_old_blocks(self) -> None:
        """Fetches the blocks before the oldest one, back to the genesis block; returns when none is missing."""
        asked = ""
        while (oldest := self._storage.oldest_number()) > 1:
            addresses = self._peers.addresses()
            has_grown = False
            # The votes for the first of our blocks stand in the one after it.
            if addresses and self._storage.last_number > oldest:
                after = addresses.index(asked) + 1 if asked in addresses else 0
                asked = addresses[after % len(addresses)]
                given = await self._ask(asked, OLD_REQUEST, {"oldest": oldest}, OLD_RESPONSE)
                try:
                    has_grown = await self._take_old(asked, oldest, given)
                except PeerStateRefused as refusal:
                    _log.warning("old blocks are refused", extra={"facts": {"reason": refusal.message}})
            pause_ms = self._node.parameters.number("OLD_CHAIN_SEGMENT_SLEEP_MS")
            await asyncio.sleep(pause_ms / 1000 if has_grown else ROUND_SECONDS)
        _log.info("the chain is whole", extra={"facts": {"number": self._storage.last_number}})

    async def _take_old(self, peer: str, oldest: int, given: Any) -> bool:
        """Keeps old blocks that fit; each one shows who was to vote for the next."""
        storage = self._storage
        block, after = storage.block(oldest), storage.block(oldest + 1)
        assert block is not None and after is not None, "the two oldest blocks are here"
        blocks = given[: self._old_blocks_at_once()] if isinstance(given, list) else []
        for number, one in zip(range(oldest - 1, 0, -1), blocks, strict=False):
            before = _checked_block(peer, one)
            if before["number"] != number or before["hash"] != block["last_hash"]:
                raise PeerStateRefused(peer=peer, reason=f"it has another block {number} than ours stand on")
            self._check_votes(before, block, after)
            if number == 1:
                genesis = self._node.chain.genesis
                if before["last_hash"] != genesis["hash"]:
                    raise self._false_chain("its first block stands on another genesis block.")
                self._check_votes(genesis, before, block)
            storage.prepend(before)
            block, after = before, block
            # Signatures take their time, and the doors are to answer meanwhile.
            await asyncio.sleep(0)
        return bool(blocks)

    def _check_votes(self, before: Facts, block: Facts, after: Facts) -> None:
        """What our blocks stand on is told by their hashes, so that wrong votes are no mistake of who hands it over."""
        try:
            check_votes(before, block, after, self._node.chain.network.chain_id)
        except TooFewVotes as refusal:
            raise self._false_chain(refusal.message) from refusal

    def _false_chain(self, reason: str) -> ChainOfPeerFalse:
        storage = self._storage
        folder = str(storage.snapshot_path(0).parent)
        return ChainOfPeerFalse(reason=reason, directory=str(storage.directory), snapshots=folder)

    # -- questions --------------------------------------------------------------------------------------------------

    async def _ask(self, peer: str, kind: str, data: Facts, expected: str) -> Any:
        """What a peer answers; None if it does not."""
        self._answer = asyncio.get_running_loop().create_future()
        self._asked, self._expected = peer, expected
        try:
            if not self._peers.tell(peer, kind, data):
                return None
            # Not `wait_for`: Python 3.11's forgets a cancellation that comes in the moment of the answer.
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(ANSWER_SECONDS):
                    return await self._answer
            return None
        finally:
            self._answer = None


def _checked_block(peer: str, wire: Any) -> Facts:
    try:
        return block_from_peer(wire)
    except BlockUnusable as refusal:
        raise PeerStateRefused(peer=peer, reason=refusal.message) from refusal


def _bytes_of(peer: str, chunk: Any, number: int, index: int) -> bytes:
    if not isinstance(chunk, dict) or (chunk.get("number"), chunk.get("index")) != (number, index):
        raise PeerStateRefused(peer=peer, reason=f"piece {index} is missing")
    try:
        data = base64.b64decode(str(chunk.get("data")), validate=True)
    except ValueError as error:
        raise PeerStateRefused(peer=peer, reason=f"piece {index} is unreadable") from error
    if len(data) > CHUNK_BYTES:
        raise PeerStateRefused(peer=peer, reason=f"piece {index} is too long")
    return data


def _tree_from(peer: str, draft: Path, block: Facts) -> Tree:
    bytes_max = int(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") * MEMORY_SHARE_MAX)
    try:
        tree = tree_of(draft, bytes_max)
        root_hash = tree.root_hash()
    except UNREADABLE as error:
        raise PeerStateRefused(peer=peer, reason=f"its state is unreadable ({error})") from error
    if root_hash != block["state_proof_hash"]:
        raise PeerStateRefused(peer=peer, reason="its state is not the one that its block names")
    return tree
