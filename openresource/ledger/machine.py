"""The chain as one state machine: open a block, insert transactions, seal; or replay a block that others sealed.

Everything is computed from the arguments: the same blocks give the same state, bit for bit. The caller keeps the
clock, the disk and the network. Reads go through `pending` (the open block so far) and `final` (the last sealed block).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from openresource.ledger.beacon import LAST, NO_BEACON, beacon_path, next_beacon
from openresource.ledger.blocks import (
    BlockRefused,
    build_block,
    check_block_signature,
    check_follows,
    check_same,
    parse_block,
    transactions_hash,
)
from openresource.ledger.context import BlockContext, TxContext
from openresource.ledger.draft import BY_DUE, Change, Draft, NetworkDomain
from openresource.ledger.due import DUE, DUE_ACTIONS_PER_BLOCK_MAX, due_time_ms
from openresource.ledger.execution import Execution, Executor
from openresource.ledger.nodes import Branch
from openresource.ledger.profile import Network
from openresource.ledger.receipts import receipt_of
from openresource.ledger.state import State
from openresource.ledger.transactions import Transaction, transaction_from_json, trusted_transaction
from openresource.ledger.tree import Tree
from openresource.primitives.errors import Refusal
from openresource.primitives.numbers import to_double

# Mistakes of natives that wait for the node's log.
MISTAKES_KEPT_MAX: Final = 100


class Inserted:
    """What became of a transaction; `result` is the object that clients see."""

    __slots__ = ("changes", "has_failed", "is_included", "position", "result", "transaction")

    def __init__(
        self,
        transaction: Transaction,
        result: dict[str, Any],
        changes: tuple[Change, ...],
        is_included: bool,
        has_failed: bool,
        position: int,
    ) -> None:
        self.transaction: Transaction = transaction
        self.result: dict[str, Any] = result
        # Every write in order, labels with the root first. Empty if the transaction failed.
        self.changes: tuple[Change, ...] = changes
        # False: it breaks a pre-check (or the block is full); nothing happened and it may not enter this block.
        self.is_included: bool = is_included
        # True: it was undone (only its fee stays); it is in the block all the same when `is_included`.
        self.has_failed: bool = has_failed
        # Its place among the block's transactions, -1 if not included.
        self.position: int = position


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


class _OpenBlock:
    """The block that is being filled."""

    __slots__ = ("inserted", "number", "opening_changes", "proposer", "time_ms", "validators")

    def __init__(self, number: int, time_ms: int, proposer: str, validators: dict[str, Any]) -> None:
        self.number: int = number
        self.time_ms: int = time_ms
        self.proposer: str = proposer
        self.validators: dict[str, Any] = validators
        self.opening_changes: tuple[Change, ...] = ()
        self.inserted: list[Inserted] = []


class Machine:
    """One chain. At most one block is open; a block that is not sealed can be dropped."""

    def __init__(self, network: Network, tree: Tree, tip: Mapping[str, Any], genesis_hash: str) -> None:
        """A machine whose tree holds the state after the block `tip`."""
        self.network: Network = network
        self.genesis_hash: str = genesis_hash
        self.domain: NetworkDomain = NetworkDomain(network.chain_id, genesis_hash)
        self.mistakes: list[str] = []
        self._tree: Tree = tree
        self._state: State = State(tree)
        self._executor: Executor = Executor(network, self._state, self.domain)
        self._tip: Mapping[str, Any] = tip
        self._open: _OpenBlock | None = None

    # -- where the chain stands -------------------------------------------------------------------------------------

    @property
    def tip(self) -> Mapping[str, Any]:
        """The last sealed block."""
        return self._tip

    @property
    def height(self) -> int:
        """The number of the last sealed block."""
        number: int = self._tip["number"]
        return number

    @property
    def is_open(self) -> bool:
        """Whether a block is being filled."""
        return self._open is not None

    @property
    def open_count(self) -> int:
        """How many transactions the open block holds."""
        return 0 if self._open is None else len(self._open.inserted)

    @property
    def next_due_ms(self) -> int | None:
        """When the first entry of the due-queue is due."""
        label = self._first_due_label()
        return None if label is None else due_time_ms(label)

    @property
    def recall_from_ms(self) -> int:
        """Blocks from this time on are what `recall` needs after a start from disk."""
        tip_time_ms: int = self._tip["timestamp"]
        return tip_time_ms - 2 * self.network.profile.replay_window_ms

    # -- filling a block --------------------------------------------------------------------------------------------

    def open_block(
        self, at_ms: int, proposer: str, validators: Mapping[str, Any] | None = None
    ) -> tuple[Change, ...]:
        """Opens the next block: fixes its number, its time (later than the tip's) and proposer, works the due-queue."""
        assert self._open is None, "a block is open"
        tip_time_ms: int = self._tip["timestamp"]
        # From here on the tip's state is the base that `drop_open_block` returns to.
        self._tree.rebase()
        self._state.forget()
        self._open = _OpenBlock(
            self.height + 1,
            max(at_ms, tip_time_ms + 1),
            proposer,
            dict(self._tip["validators"] if validators is None else validators),
        )
        self._forget_old(self._open.time_ms)
        if self.network.profile.has_beacon:
            self._keep_beacon()
        self._open.opening_changes = tuple(self._work_due_queue(self._open))
        return self._open.opening_changes

    def insert(self, transaction: Transaction) -> Inserted:
        """Executes a verified transaction once, in the open block; a failed one is undone and charged."""
        block = self._open
        assert block is not None, "no block is open"
        execution = self._executed(transaction, block, False)
        self._note(execution)
        if execution.is_precheck_failure:
            return Inserted(transaction, execution.result, (), False, True, -1)
        position = len(block.inserted)
        changes = tuple(execution.changes)
        inserted = Inserted(transaction, execution.result, changes, True, execution.has_failed, position)
        block.inserted.append(inserted)
        self._executor.recent[transaction.hash] = block.time_ms
        return inserted

    def dry_run(self, transaction: Transaction) -> Inserted:
        """What `insert` would give now; nothing is kept. Needs an open block."""
        block = self._open
        assert block is not None, "no block is open"
        execution = self._executed(transaction, block, True)
        self._note(execution)
        return Inserted(transaction, execution.result, (), False, execution.has_failed, -1)

    def seal(self) -> SealedBlock:
        """Closes the open block: hashes, receipts, totals; the state becomes final."""
        sealed = self._sealed()
        self._tip = sealed.block
        self._open = None
        return sealed

    def drop_open_block(self) -> None:
        """Forgets the open block; the state is the final one again."""
        block = self._open
        assert block is not None, "no block is open"
        for inserted in block.inserted:
            self._executor.recent.pop(inserted.transaction.hash, None)
        self._tree.revert()
        self._state.forget()
        self._open = None

    # -- following --------------------------------------------------------------------------------------------------

    def replay(self, block: Mapping[str, Any], *, is_trusted: bool = False) -> SealedBlock:
        """Executes a sealed block on top of the tip and checks every hash; raises BlockRefused and changes nothing.

        `is_trusted` leaves out signatures (blocks from our own store).
        """
        parsed = parse_block(block)
        check_follows(self._tip, parsed)
        if not is_trusted:
            check_block_signature(block, self.network.chain_id, self.network.producers)
        self.open_block(parsed["timestamp"], parsed["proposer"], parsed["validators"])
        try:
            for wire in parsed["transactions"]:
                self._insert_again(wire, parsed["number"], is_trusted)
            sealed = self._sealed()
            check_same(sealed.block, block)
        except BaseException:
            self.drop_open_block()
            raise
        if "signature" in block:
            sealed.block["signature"] = block["signature"]
        self._tip = sealed.block
        self._open = None
        return sealed

    def recall(self, blocks: Iterable[Mapping[str, Any]]) -> None:
        """Remembers the transactions of the last blocks (from `recall_from_ms` on), after a start from disk."""
        for block in blocks:
            time_ms: int = block["timestamp"]
            for wire in block["transactions"]:
                self._executor.recent[wire["hash"]] = time_ms

    # -- inside -----------------------------------------------------------------------------------------------------

    def _insert_again(self, wire: Any, number: int, is_trusted: bool) -> None:
        try:
            transaction = (
                trusted_transaction(wire)
                if is_trusted
                else transaction_from_json(wire, self.network.chain_id)
            )
        except Refusal as error:
            raise BlockRefused(
                number=number, reason=f"a transaction in it is not valid: {error.message}"
            ) from error
        inserted = self.insert(transaction)
        if not inserted.is_included:
            reason = f"transaction {transaction.hash} may not enter a block ({inserted.result.get('code')})"
            raise BlockRefused(number=number, reason=reason)

    def _sealed(self) -> SealedBlock:
        block = self._open
        assert block is not None, "no block is open"
        for labels, value in bandages_after(self.network, block.number):
            self._state.write(list(labels), value)
        state_hash = self._tree.root_hash()
        assert state_hash is not None
        gas_amount_total: Any = 0
        gas_cost_total: Any = 0
        transactions: list[dict[str, Any]] = []
        canonical: list[str] = []
        transactions_bytes = 0
        receipts: list[dict[str, Any]] = []
        for inserted in block.inserted:
            transactions.append(inserted.transaction.to_json())
            canonical.append(inserted.transaction.canonical_wire())
            transactions_bytes += inserted.transaction.wire_bytes
            receipts.append(receipt_of(inserted.result))
            gas_amount_total += inserted.result["gas_amount_charged"]
            gas_cost_total += inserted.result["gas_cost_total"]
        made = build_block(
            last_hash=self._tip["hash"],
            last_votes=[],
            evidence={},
            transactions=transactions,
            receipts=receipts,
            number=block.number,
            epoch=block.number,
            timestamp=block.time_ms,
            state_proof_hash=state_hash,
            proposer=block.proposer,
            validators=block.validators,
            gas_amount_total=gas_amount_total,
            gas_cost_total=to_double(gas_cost_total),
            hash_of_transactions=transactions_hash(canonical),
            bytes_of_transactions=transactions_bytes,
        )
        return SealedBlock(
            made, block.number, block.time_ms, made["hash"], block.opening_changes, tuple(block.inserted)
        )

    def _executed(self, transaction: Transaction, block: _OpenBlock, is_dry_run: bool) -> Execution:
        """Executes; if the kernel itself throws, the transaction is undone, or the block is given up if it cannot be."""
        try:
            return self._executor.execute(
                transaction, block.number, block.time_ms, block.time_ms, is_dry_run=is_dry_run
            )
        except Exception:
            if self._tree.has_backup:
                self._tree.restore()
                self._state.forget()
            else:
                self.drop_open_block()
            raise

    def _work_due_queue(self, block: _OpenBlock) -> list[Change]:
        """Does what is due, oldest first, up to the bound; one that throws is undone and taken out."""
        changes: list[Change] = []
        actions = self.network.due_actions
        for _ in range(DUE_ACTIONS_PER_BLOCK_MAX if actions else 0):
            label = self._first_due_label()
            if label is None or due_time_ms(label) > block.time_ms:
                break
            entry: Any = self._state.read_value((DUE, label))
            self._state.write_value((DUE, label), None)
            action = actions.get(entry["kind"])
            if action is None:
                self.mistakes.append(f"nobody knows the due action {entry['kind']}")
                continue
            self._state.backup()
            done: list[Change] = []
            context = TxContext(
                BlockContext(self.network, self._state, self.domain, block.number, block.time_ms),
                "",
                0,
                0,
                "",
                block.time_ms,
            )
            try:
                action.run(Draft(context, action.writes, "", done, BY_DUE), entry["key"], due_time_ms(label))
            except Exception as error:
                # As with natives: the same on every node, and the queue must go on.
                self.mistakes.append(f"{action.kind} {entry['key']}: {type(error).__name__}: {error}")
                self._state.restore()
                continue
            self._state.drop_backup()
            changes.extend(done)
        return changes

    def _keep_beacon(self) -> None:
        """Chains the tip's hash to the beacon; the entry of long ago in its place is gone."""
        before: Any = self._state.read_value(beacon_path(self.height - 1))
        beacon = bytes.fromhex(before.removeprefix("0x")) if isinstance(before, str) else NO_BEACON
        tip_hash: str = self._tip["hash"]
        self._state.write_value(beacon_path(self.height), "0x" + next_beacon(beacon, tip_hash).hex())
        self._state.write_value(LAST, self.height)

    def _first_due_label(self) -> str | None:
        queue = self._state.value_node((DUE,))
        if not isinstance(queue, Branch):
            return None
        holder = queue.first_in_radix_order()
        return None if holder is None else holder.label

    def _forget_old(self, time_ms: int) -> None:
        """Lets go of hashes whose transactions are too old to come again."""
        keep_ms = 2 * self.network.profile.replay_window_ms
        recent = self._executor.recent
        old: list[str] = []
        for tx_hash, at_ms in recent.items():
            if at_ms >= time_ms - keep_ms:
                break
            old.append(tx_hash)
        for tx_hash in old:
            del recent[tx_hash]

    def _note(self, execution: Execution) -> None:
        if execution.mistakes:
            self.mistakes.extend(execution.mistakes)
            del self.mistakes[:-MISTAKES_KEPT_MAX]


def bandages_after(network: Network, number: int) -> list[tuple[tuple[str, ...], Any]]:
    """The direct writes with which changes of the protocol begin, at the end of the block before."""
    writes: list[tuple[tuple[str, ...], Any]] = []
    for flag in network.flags:
        if flag.enabled_block == number + 1:
            writes.extend(flag.bandages)
    return writes
