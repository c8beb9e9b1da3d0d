"""The embedded engine: one process fills, seals, writes down and announces blocks.

Inserting a transaction executes it once, in the open block. A block is sealed when it holds something or something is
due; it is final, and told to anybody, only when it lies on the disk with a synced batch. While it is being written the
next block is already filled. After a crash the chain goes on behind the last written block: what was only pending is
gone without a `DROPPED` event, because nobody is left to say so.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any

from openresource.ledger.blocks import sign_block
from openresource.ledger.draft import Change
from openresource.ledger.machine import Inserted, Machine, SealedBlock
from openresource.ledger.transactions import Transaction
from openresource.ledger.tree import Tree
from openresource.ledger.views import View
from openresource.node.announcements import (
    decoded_block,
    event_records,
    events_of_block,
    hints,
    outcome_bytes,
    stored_event,
    stored_outcome,
)
from openresource.node.events import DROPPED, Event, EventHub
from openresource.node.metrics import Metrics
from openresource.node.rpc import encode
from openresource.node.signers import Signers
from openresource.node.store import BlockBatch, Store
from openresource.node.store import DiskFull as StoreFull
from openresource.primitives.errors import Refusal
from openresource.primitives.hashing import is_hash
from openresource.primitives.keys import PrivateKey

# A busy chain waits for company, so that hashes of branches and a sync to disk serve many: as long as the last block
# took to be sealed and written, within these bounds. A resting one does not wait.
GATHER_SECONDS_MIN = 0.010
GATHER_SECONDS_MAX = 0.040
BUSY_FROM_TRANSACTIONS = 16
TRANSACTIONS_PER_BLOCK_MAX = 5_000
ROOM_SECONDS_MAX = 5.0
RETRY_WRITE_SECONDS = 0.5
DUE_CHECK_SECONDS_MAX = 3_600.0
# If working the due-queue does not move it, the next try waits.
DUE_STUCK_SECONDS = 1.0
# Final blocks in memory: so many, and of this size together.
BLOCKS_KEPT_MAX = 64
BLOCKS_KEPT_BYTES_MAX = 32 * 1024 * 1024

EXECUTED = "EXECUTED"
PENDING_FAILED = "PENDING"
FINALIZED = "FINALIZED"
FAILED_IN_BLOCK = "REVERTED"

_log = logging.getLogger("openresource.node.engine")


class DiskFull(Refusal):
    template = "The disk of this node is full, so it takes no transactions; reading goes on."
    way_out = "Make room on the node's disk: it goes on by itself. Nothing that was final is lost."
    result_code = 18002


class NodeStopping(Refusal):
    template = "The node is stopping and takes no transactions any more."
    way_out = "Send the transaction again when the node has started, or to another node."
    result_code = 18001


class NodeBusy(Refusal):
    template = "The open block is full and was not sealed within {waited_seconds} s."
    way_out = "Send less at once, or later."
    result_code = 10704


class AlreadyReceived(Refusal):
    template = "This node has received the transaction {tx_hash} already."
    way_out = "Ask for its state by its hash; sending it again changes nothing."
    result_code = 10701


@dataclass(slots=True)
class Tracked:
    """A transaction that this node executed, until its block is final and some time beyond."""

    inserted: Inserted
    executed_at_ms: int
    block_number: int


@dataclass(frozen=True, slots=True)
class _Unwritten:
    """A sealed block on its way to the disk."""

    sealed: SealedBlock
    block: dict[str, Any]
    records: list[tuple[int, bytes]]
    root_number: int
    view: View


class Engine:
    """One chain, its open block, and the way of blocks to the disk and to the readers; used from one event loop."""

    def __init__(
        self,
        *,
        machine: Machine,
        tree: Tree,
        store: Store,
        producer: PrivateKey,
        clock_ms: Callable[[], int],
        metrics: Metrics,
    ) -> None:
        self.machine = machine
        self.store = store
        self.producer_address = producer.address
        self.metrics = metrics
        self.signers = Signers()
        self._tree = tree
        self._producer = producer
        self._clock_ms = clock_ms
        self._last_block: Mapping[str, Any] = machine.tip
        self._final_view = View(tree.root)
        self.hub = EventHub(self)
        self._wanted = asyncio.Event()
        self._room = asyncio.Event()
        self._room.set()
        self._writer = ThreadPoolExecutor(1, thread_name_prefix="chain-writer")
        self._maker: asyncio.Task[None] | None = None
        self._waiting: dict[str, list[asyncio.Future[None]]] = {}
        self._pending: dict[str, Tracked] = {}
        self._blocks: OrderedDict[int, dict[str, Any]] = OrderedDict()
        self._kept_bytes = 0
        self._unwritten: _Unwritten | None = None
        self._pending_index = 0
        self._is_disk_full = False
        self._is_stopping = False
        self._last_count = 0
        self._last_block_seconds = 0.0
        self._due_stuck_at: int | None = None
        self.failure: BaseException | None = None
        self.failed = asyncio.Event()

    # Where the chain stands.

    @property
    def last_block(self) -> Mapping[str, Any]:
        """The last final block."""
        return self._last_block

    def last_height(self) -> int:
        """The number of the last final block."""
        return int(self._last_block["number"])

    @property
    def is_disk_full(self) -> bool:
        return self._is_disk_full

    def now_ms(self) -> int:
        """The wall clock that this engine was given."""
        return self._clock_ms()

    def final(self) -> View:
        """The state after the last final block."""
        return self._final_view

    def pending(self) -> View:
        """The state as the open block has it so far."""
        return View(self._tree.root)

    def view_at(self, height: int) -> View | None:
        """The state after a block of the past; None if the chain is not that long."""
        if height == self.last_height():
            return self._final_view
        if not 0 <= height < self.last_height():
            return None
        return self.store.view_at(height)

    def block(self, number: int) -> dict[str, Any] | None:
        """A final block."""
        if not 0 <= number <= self.last_height():
            return None
        known = self._blocks.get(number)
        if known is None:
            raw = self.store.block(number)
            assert raw is not None, "every block up to the last one is in the store"
            known = decoded_block(raw)
            self._keep_block(known)
        return known

    def _keep_block(self, block: dict[str, Any]) -> None:
        self._blocks[block["number"]] = block
        self._kept_bytes += block["size"]
        while len(self._blocks) > BLOCKS_KEPT_MAX or self._kept_bytes > BLOCKS_KEPT_BYTES_MAX:
            _, oldest = self._blocks.popitem(last=False)
            self._kept_bytes -= oldest["size"]

    def block_by_hash(self, block_hash: str) -> dict[str, Any] | None:
        """A final block by its hash."""
        number = self.store.height_of(bytes.fromhex(block_hash[2:])) if is_hash(block_hash) else None
        return None if number is None else self.block(number)

    def place_of(self, tx_hash: str) -> tuple[int, int] | None:
        """Block and index of a final transaction."""
        place = self.store.place_of(bytes.fromhex(tx_hash[2:])) if is_hash(tx_hash) else None
        return place if place is not None and place[0] <= self.last_height() else None

    def outcome_of(self, height: int, index: int) -> tuple[Any, bool]:
        """What executing a final transaction gave, and whether it failed."""
        raw = self.store.receipt(height, index)
        assert raw is not None, "every final transaction has its outcome in the store"
        return stored_outcome(raw)

    def events_of(self, height: int) -> Sequence[Event]:
        """The final events of a block."""
        events: list[Event] = []
        for event_height, index, raw in self.store.events(height):
            if event_height != height:
                break
            events.append(stored_event(height, index, raw))
        return events

    def pending_transactions(self) -> list[Tracked]:
        """What is executed and not final yet, in order."""
        return list(self._pending.values())

    def known(self, tx_hash: str) -> Tracked | None:
        """A transaction that is executed and not final yet."""
        return self._pending.get(tx_hash)

    # Writing.

    async def submit(self, transaction: Transaction) -> Inserted:
        """Execute a verified transaction in the open block; it is pending when this returns."""
        if self._is_stopping or self._is_disk_full or not self._room.is_set():
            await self._wait_for_room()
        return self._insert(transaction)

    async def dry_run(self, transaction: Transaction) -> Inserted:
        """What submitting would give now; nothing is kept."""
        self._refuse_if_closed()
        was_open = self.machine.is_open
        if not was_open:
            self.machine.open_block(self._clock_ms(), self.producer_address)
        try:
            return self.machine.dry_run(transaction)
        finally:
            # Its time is fixed at its opening, so an empty block must not lie around.
            if not was_open:
                self.machine.drop_open_block()

    async def wait_final(self, tx_hash: str, timeout_seconds: float) -> bool:
        """Wait until a transaction is final or the time is over; at once if it is not pending here."""
        if tx_hash not in self._pending:
            return True
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(tx_hash, []).append(future)
        try:
            async with asyncio.timeout(timeout_seconds):
                await future
        except TimeoutError:
            return False
        finally:
            waiting = self._waiting.get(tx_hash)
            if waiting is not None and future in waiting:
                waiting.remove(future)
                if not waiting:
                    del self._waiting[tx_hash]
        return True

    # A life.

    def start(self) -> None:
        """Begin to make blocks."""
        self._maker = asyncio.create_task(self._make_blocks(), name="block-maker")

    async def stop(self) -> None:
        """Seal and write what is open, tell the readers, and end."""
        self._is_stopping = True
        self._wanted.set()
        if self._maker is not None:
            with contextlib.suppress(asyncio.CancelledError):
                await self._maker
        self._drop_pending(0)
        self.hub.close()
        self.signers.close()
        for futures in self._waiting.values():
            for future in futures:
                if not future.done():
                    future.set_result(None)
        self._writer.shutdown(wait=True)

    def _refuse_if_closed(self) -> None:
        if self._is_stopping:
            raise NodeStopping()
        if self._is_disk_full:
            raise DiskFull()

    async def _wait_for_room(self) -> None:
        self._refuse_if_closed()
        if self._room.is_set():
            return
        try:
            async with asyncio.timeout(ROOM_SECONDS_MAX):
                await self._room.wait()
        except TimeoutError:
            raise NodeBusy(waited_seconds=ROOM_SECONDS_MAX) from None
        self._refuse_if_closed()

    def _insert(self, transaction: Transaction) -> Inserted:
        if transaction.hash in self._pending:
            raise AlreadyReceived(tx_hash=transaction.hash)
        started = time.perf_counter()
        number = self.machine.height + 1
        if not self.machine.is_open:
            self._open()
        try:
            inserted = self.machine.insert(transaction)
        except Exception:
            self.metrics.count("kernel_mistakes_total")
            if not self.machine.is_open:
                _log.error("the open block was given up", extra={"facts": {"tx_hash": transaction.hash}})
                self._drop_pending(number)
            raise
        self.metrics.observe("execution_seconds", time.perf_counter() - started)
        if not inserted.is_included:
            self.metrics.count("transactions_refused_total")
            # An opened block that nobody is in would grow old; the maker drops it.
            self._wanted.set()
            return inserted
        self.metrics.count(
            "transactions_failed_total" if inserted.has_failed else "transactions_executed_total"
        )
        self._pending[transaction.hash] = Tracked(inserted, self._clock_ms(), number)
        if self.machine.open_count >= TRANSACTIONS_PER_BLOCK_MAX:
            self._room.clear()
        self._hint(number, inserted.changes, transaction.hash)
        self._wanted.set()
        return inserted

    def _open(self) -> None:
        self._pending_index = 0
        self.machine.open_block(self._clock_ms(), self.producer_address)

    def _hint(self, number: int, changes: Sequence[Change], tx_hash: str) -> None:
        if self.hub.has_pending_readers():
            self.hub.publish(hints(number, changes, tx_hash, self._pending_index, self._clock_ms()))
        self._pending_index += len(changes)

    # Making blocks.

    async def _make_blocks(self) -> None:
        try:
            while not (self._is_stopping and not self._pending):
                await self._wait_for_work()
                if self._is_stopping and not self.machine.is_open:
                    break
                self._wanted.clear()
                await self._gather()
                await self._make_block()
        except asyncio.CancelledError:
            raise
        except BaseException as error:
            _log.exception("making blocks failed; the node stops")
            self.failure = error
            self._is_stopping = True
            self.failed.set()

    async def _wait_for_work(self) -> None:
        due_ms = self.machine.next_due_ms
        seconds = DUE_CHECK_SECONDS_MAX
        if due_ms is not None:
            seconds = min(seconds, max(0.0, (due_ms - self._clock_ms()) / 1000))
            if due_ms == self._due_stuck_at:
                seconds = max(seconds, DUE_STUCK_SECONDS)
        if seconds == 0.0:
            return
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._wanted.wait()

    async def _gather(self) -> None:
        seconds = 0.0
        if self._last_count >= BUSY_FROM_TRANSACTIONS:
            seconds = min(GATHER_SECONDS_MAX, max(GATHER_SECONDS_MIN, self._last_block_seconds))
        # One turn of the loop lets requests that have arrived already join.
        await asyncio.sleep(seconds)

    async def _make_block(self) -> None:
        machine = self.machine
        due_ms = machine.next_due_ms
        is_due = due_ms is not None and due_ms <= self._clock_ms()
        if machine.is_open and machine.open_count == 0:
            # Opened for somebody who was refused; its time is not the time of what comes next.
            machine.drop_open_block()
        if not machine.is_open:
            if not is_due:
                return
            self._open()
        started = time.perf_counter()
        unwritten = self._seal()
        self._tell_mistakes()
        self.metrics.observe("sealing_seconds", time.perf_counter() - started)
        self._room.set()
        self._unwritten = unwritten
        await self._write_down(unwritten)
        self._last_block_seconds = time.perf_counter() - started
        self.metrics.observe("block_seconds", self._last_block_seconds)
        self._unwritten = None
        self._announce(unwritten)
        # A block that was opened before the time had come could not work it; the next one will.
        was_due = due_ms is not None and due_ms <= int(unwritten.block["timestamp"])
        self._due_stuck_at = due_ms if was_due and machine.next_due_ms == due_ms else None
        if self._due_stuck_at is not None:
            _log.error("the due-queue does not move", extra={"facts": {"due_ms": due_ms}})

    def _tell_mistakes(self) -> None:
        """Natives that threw: their transactions failed in the same way everywhere, and somebody must mend them."""
        for mistake in self.machine.mistakes:
            _log.error("a native threw", extra={"facts": {"mistake": mistake}})
            self.metrics.count("native_mistakes_total")
        self.machine.mistakes.clear()

    def _seal(self) -> _Unwritten:
        sealed = self.machine.seal()
        block = dict(sealed.block)
        block["signature"] = sign_block(block, self._producer, self.machine.network.chain_id)
        records = self._tree.collect_changes()
        self._last_count = len(sealed.inserted)
        return _Unwritten(sealed, block, records, self._tree.root_number, View(self._tree.root))

    async def _write_down(self, unwritten: _Unwritten) -> None:
        """Write a sealed block; without room on the disk, try until there is."""
        loop = asyncio.get_running_loop()
        while True:
            try:
                await loop.run_in_executor(self._writer, self._append, unwritten)
            except StoreFull as error:
                if not self._is_disk_full:
                    _log.error("the disk is full", extra={"facts": {"block": unwritten.sealed.number}})
                self._is_disk_full = True
                self.metrics.count("disk_full_total")
                if self._is_stopping:
                    raise DiskFull() from error
                await asyncio.sleep(RETRY_WRITE_SECONDS)
                continue
            if self._is_disk_full:
                _log.info("the disk has room again", extra={"facts": {"block": unwritten.sealed.number}})
            self._is_disk_full = False
            return

    def _append(self, unwritten: _Unwritten) -> None:
        sealed = unwritten.sealed
        self.store.append(
            BlockBatch(
                height=sealed.number,
                block_hash=bytes.fromhex(sealed.hash[2:]),
                block=encode(unwritten.block),
                nodes=unwritten.records,
                root_number=unwritten.root_number,
                transactions=[
                    (bytes.fromhex(one.transaction.hash[2:]), outcome_bytes(one)) for one in sealed.inserted
                ],
                events=event_records(sealed),
            )
        )

    def _announce(self, unwritten: _Unwritten) -> None:
        self._last_block = unwritten.block
        # Who waits for a transaction asks for it now, by its block.
        self._keep_block(unwritten.block)
        self._final_view = unwritten.view
        for inserted in unwritten.sealed.inserted:
            self._pending.pop(inserted.transaction.hash, None)
            for future in self._waiting.pop(inserted.transaction.hash, ()):
                if not future.done():
                    future.set_result(None)
        self.metrics.count("blocks_total")
        self.metrics.count("transactions_final_total", len(unwritten.sealed.inserted))
        if self.hub.reader_count():
            self.hub.publish(events_of_block(unwritten.sealed))

    def _drop_pending(self, from_number: int) -> None:
        """Let go of what was pending from a block on, and tell readers of hints that it did not come true."""
        for tx_hash, tracked in list(self._pending.items()):
            if tracked.block_number < from_number:
                continue
            del self._pending[tx_hash]
            for future in self._waiting.pop(tx_hash, ()):
                if not future.done():
                    future.set_result(None)
            if self.hub.has_pending_readers():
                self.hub.publish(
                    [
                        replace(hint, kind=DROPPED, value=None)
                        for hint in hints(
                            tracked.block_number, tracked.inserted.changes, tx_hash, 0, self._clock_ms()
                        )
                    ]
                )
