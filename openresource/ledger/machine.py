"""The chain as one state machine: open a block, insert transactions, seal; or replay a block that others sealed.

Everything is computed from the arguments: the same blocks give the same state, bit for bit. The caller keeps the
clock, the disk and the network. Reads go through `pending` (the open block so far) and `final` (the last sealed block).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from openresource.ledger.draft import Change, NetworkDomain
from openresource.ledger.profile import Network
from openresource.ledger.transactions import Transaction
from openresource.primitives.errors import Refusal


class BlockRefused(Refusal):
    """A block that does not follow from the chain so far. Its subclasses name the reason."""

    template = "Block {number} is refused: {reason}."
    way_out = "Fetch the block again from another node; if it stays so, that node's chain is not ours."


@dataclass(frozen=True, slots=True)
class Inserted:
    """What became of a transaction; `result` is the object that clients see."""

    transaction: Transaction
    result: dict[str, Any]
    # Every write in order, labels with the root first. Empty if the transaction failed.
    changes: tuple[Change, ...]
    # False: it breaks a pre-check (or the block is full); nothing happened and it may not enter this block.
    is_included: bool
    # True: it was undone (only its fee stays); it is in the block all the same when `is_included`.
    has_failed: bool
    # Its place among the block's transactions, -1 if not included.
    position: int


@dataclass(frozen=True, slots=True)
class SealedBlock:
    """A block as it is stored and sent, with what happened in it."""

    # AI Network's block object with hash and size; the producer's `signature` is added by the node.
    block: dict[str, Any]
    number: int
    time_ms: int
    hash: str
    # Writes of due actions at the block's opening.
    opening_changes: tuple[Change, ...]
    inserted: tuple[Inserted, ...]


class Machine:
    """One chain. At most one block is open; a block that is not sealed can be dropped."""

    def __init__(self, network: Network, tree: Any, tip: Mapping[str, Any], genesis_hash: str) -> None:
        """A machine whose tree holds the state after the block `tip`."""
        self.network = network
        self.genesis_hash = genesis_hash
        self.domain = NetworkDomain(network.chain_id, genesis_hash)

    # -- where the chain stands -------------------------------------------------------------------------------------

    @property
    def tip(self) -> Mapping[str, Any]:
        """The last sealed block."""
        raise NotImplementedError

    @property
    def height(self) -> int:
        """The number of the last sealed block."""
        raise NotImplementedError

    @property
    def is_open(self) -> bool:
        """Whether a block is being filled."""
        raise NotImplementedError

    @property
    def open_count(self) -> int:
        """How many transactions the open block holds."""
        raise NotImplementedError

    @property
    def next_due_ms(self) -> int | None:
        """When the first entry of the due-queue is due (in the final state)."""
        raise NotImplementedError

    # -- filling a block --------------------------------------------------------------------------------------------

    def open_block(self, at_ms: int, proposer: str, validators: Mapping[str, Any] | None = None) -> tuple[Change, ...]:
        """Opens the next block: fixes its number, time (at least 1 ms after the tip's) and proposer, works the due-queue."""
        raise NotImplementedError

    def insert(self, transaction: Transaction) -> Inserted:
        """Executes a verified transaction once, in the open block; a failed one is undone and charged."""
        raise NotImplementedError

    def dry_run(self, transaction: Transaction) -> Inserted:
        """What `insert` would give now; nothing is kept. Needs an open block."""
        raise NotImplementedError

    def seal(self) -> SealedBlock:
        """Closes the open block: hashes, receipts, totals; the state becomes final."""
        raise NotImplementedError

    def drop_open_block(self) -> None:
        """Forgets the open block; the state is the final one again."""
        raise NotImplementedError

    # -- following --------------------------------------------------------------------------------------------------

    def replay(self, block: Mapping[str, Any], *, is_trusted: bool = False) -> SealedBlock:
        """Executes a sealed block on top of the tip and checks every hash; raises BlockRefused and changes nothing.

        `is_trusted` leaves out the transactions' signatures (blocks from our own store).
        """
        raise NotImplementedError

    def recall(self, blocks: Iterable[Mapping[str, Any]]) -> None:
        """Remembers the transactions of the last blocks (those within the replay window), after a start from disk."""
        raise NotImplementedError
