"""The beacon: one hash for each block, chained over all blocks before it, kept in the state for the last two thousand.

Whoever is bound to something in a block cannot know the beacon of that block: its hash covers what binds. Its proposer
can try several blocks, so that nothing may hang on a beacon alone that one proposer gains from.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from openresource.primitives.hashing import keccak

BEACON: Final = "beacon"
# More than a minute of blocks, when they come as fast as they can.
BEACON_BLOCKS: Final = 2_048
NO_BEACON: Final = bytes(32)
# The block of the last beacon.
LAST: Final = (BEACON, "last")


def beacon_path(height: int) -> tuple[str, str]:
    """Where the beacon of a block is, below /values."""
    return BEACON, str(height % BEACON_BLOCKS)


def next_beacon(beacon: bytes, block_hash: str) -> bytes:
    """The beacon of a block from the one before it and the block's hash."""
    return keccak(beacon + bytes.fromhex(block_hash.removeprefix("0x")))


def beacon_of(read_value: Callable[..., Any], height: int, open_height: int) -> bytes | None:
    """The beacon of a block, seen from the block that is open; None if it is not closed yet, or long ago."""
    if not open_height - BEACON_BLOCKS <= height < open_height:
        return None
    text: Any = read_value(*beacon_path(height))
    return bytes.fromhex(text.removeprefix("0x")) if isinstance(text, str) else None
