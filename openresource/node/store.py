"""The chain on disk: one LMDB environment, one atomic batch a block, and every version of the state kept.

Nodes of the tree lie under running numbers, so that a block appends to the end; hashes are keys in two small tables
only. A home has one writer, which holds its lock; readers in other processes need none.
"""

from __future__ import annotations

import errno
import fcntl
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Final

import lmdb

from openresource.ledger.records import NodeCache
from openresource.ledger.tree import CACHED_NODES_MAX, Shape, Tree
from openresource.ledger.views import View
from openresource.primitives.errors import Refusal

FORMAT: Final = 1
MAP_BYTES: Final = 64 * 2**30
READERS_MAX: Final = 126

_TABLES: Final = (
    "nodes",
    "blocks",
    "heights",
    "block_hashes",
    "transactions",
    "receipts",
    "events",
    "meta",
)
_FORMAT_KEY: Final = b"format"


class HomeInUse(Refusal):
    template = "The chain in {home} is already open in process {process}."
    way_out = "Stop that node first, or choose another home."


class HomeMissing(Refusal):
    template = "There is no chain in {home}."
    way_out = "Start a node with this home first."


class StoreTooNew(Refusal):
    template = "The chain in {home} has format {found}; this version knows formats up to {known}."
    way_out = "Install the newer version that wrote it, or choose another home."


class DiskFull(Refusal):
    template = "There is no room left to store block {height} in {home}."
    way_out = "Free disk space and start the node again; all blocks before this one are kept."


class StoreDamaged(Refusal):
    template = "The chain in {home} cannot be read: {reason}."
    way_out = "Restore the home from a backup, or begin with an empty home and fetch the chain again."


@dataclass(frozen=True, slots=True)
class BlockBatch:
    """Everything that a block brings into the store; it arrives whole or not at all."""

    height: int
    block_hash: bytes
    block: bytes
    # The tree: `Tree.collect_changes()` and `Tree.root_number`.
    nodes: Sequence[tuple[int, bytes]]
    root_number: int
    # In the block's order: hash and receipt of every transaction.
    transactions: Sequence[tuple[bytes, bytes]] = ()
    events: Sequence[bytes] = ()
    meta: dict[str, bytes] = field(default_factory=dict)


class Store:
    """An open home. It is a `NodeSource` for trees; use one object per process, and none across a fork."""

    def __init__(self, home: Path, environment: Any, tables: dict[str, Any], lock: int | None) -> None:
        self.home = home
        self._environment = environment
        self._tables = tables
        self._lock = lock
        self._views = NodeCache(self.load, CACHED_NODES_MAX)

    @classmethod
    def open(cls, home: Path, *, read_only: bool = False, map_bytes: int = MAP_BYTES) -> Store:
        """Open a home, made if it is missing; takes constant time whatever the chain's length."""
        if read_only and not (home / "data.mdb").exists():
            raise HomeMissing(home=str(home))
        lock = None
        if not read_only:
            home.mkdir(mode=0o700, parents=True, exist_ok=True)
            lock = _locked(home)
        environment: Any = None
        try:
            environment = lmdb.open(
                str(home),
                map_size=map_bytes,
                max_dbs=len(_TABLES),
                max_readers=READERS_MAX,
                readonly=read_only,
                create=not read_only,
                mode=0o600,
            )
            # A reader that was killed would hold its page for ever.
            environment.reader_check()
            _check_format(environment, home, read_only)
            tables = {name: environment.open_db(name.encode(), create=not read_only) for name in _TABLES}
        except BaseException as error:
            if environment is not None:
                environment.close()
            if lock is not None:
                os.close(lock)
            if isinstance(error, lmdb.Error):
                raise _refusal(error, home, 0) from error
            raise
        return cls(home, environment, tables, lock)

    def close(self) -> None:
        """Close the environment and let go of the lock."""
        self._environment.close()
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def __enter__(self) -> Store:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # Writing

    def append(self, batch: BlockBatch) -> None:
        """Store a block with everything it brought; once this returns, a crash cannot take it back."""
        expected = self.height + 1
        assert batch.height == expected, f"block {batch.height} is offered, {expected} is next"
        try:
            with self._environment.begin(write=True) as transaction:
                self._put(transaction, batch)
        except lmdb.Error as error:
            raise _refusal(error, self.home, batch.height) from error

    def set_meta(self, name: str, value: bytes) -> None:
        """Keep a small fact about this home."""
        try:
            with self._environment.begin(write=True) as transaction:
                transaction.put(name.encode(), value, db=self._tables["meta"])
        except lmdb.Error as error:
            raise _refusal(error, self.home, self.height) from error

    # The tree

    def load(self, number: int) -> bytes:
        """The record of a node."""
        record = self._get("nodes", number.to_bytes(8, "big"))
        if record is None:
            raise StoreDamaged(home=str(self.home), reason=f"node {number} is missing")
        return record

    def tree(self, shape: Shape, cached_nodes_max: int = CACHED_NODES_MAX) -> Tree:
        """The working tree on top of the last block."""
        return Tree(
            shape,
            self,
            root_number=self.root_number(self.height) or 0,
            next_number=self._last_number("nodes") + 1,
            cached_nodes_max=cached_nodes_max,
        )

    def view_at(self, height: int) -> View | None:
        """The state after a past block; None if there is no such block."""
        number = self.root_number(height)
        return View(self._views.root(number)) if number else None

    # Blocks

    @property
    def height(self) -> int:
        """The number of the last block; -1 in an empty home."""
        return self._last_number("heights") if self._has_blocks() else -1

    def block(self, height: int) -> bytes | None:
        """The bytes of a block."""
        return self._get("blocks", height.to_bytes(8, "big")) if height >= 0 else None

    def root_number(self, height: int) -> int | None:
        """The running number of the state's root after a block."""
        fact = self._get("heights", height.to_bytes(8, "big")) if height >= 0 else None
        return None if fact is None else int.from_bytes(fact[:8], "big")

    def block_hash(self, height: int) -> bytes | None:
        """The hash of a block."""
        fact = self._get("heights", height.to_bytes(8, "big")) if height >= 0 else None
        return None if fact is None else fact[8:]

    def height_of(self, block_hash: bytes) -> int | None:
        """The height of a block with a hash."""
        height = self._get("block_hashes", block_hash)
        return None if height is None else int.from_bytes(height, "big")

    def place_of(self, transaction_hash: bytes) -> tuple[int, int] | None:
        """Height and index of a transaction."""
        place = self._get("transactions", transaction_hash)
        return None if place is None else (int.from_bytes(place[:8], "big"), int.from_bytes(place[8:], "big"))

    def receipt(self, height: int, index: int) -> bytes | None:
        """The receipt of a transaction, by its place."""
        return self._get("receipts", _place(height, index))

    def events(self, height: int, index: int = 0) -> Iterator[tuple[int, int, bytes]]:
        """Final events from a place on: height, index and bytes, as many as the caller takes."""
        start = _place(height, index)
        while True:
            page = self._events_from(start, 256)
            for key, event in page:
                yield int.from_bytes(key[:8], "big"), int.from_bytes(key[8:], "big"), event
            if not page:
                return
            last, _ = page[-1]
            start = (int.from_bytes(last, "big") + 1).to_bytes(12, "big")

    def meta(self, name: str) -> bytes | None:
        """A small fact about this home."""
        return self._get("meta", name.encode())

    # Inside

    def _put(self, transaction: Any, batch: BlockBatch) -> None:
        tables = self._tables
        height = batch.height.to_bytes(8, "big")
        self._append_all(
            transaction, "nodes", [(number.to_bytes(8, "big"), record) for number, record in batch.nodes]
        )
        self._append_all(transaction, "blocks", [(height, batch.block)])
        root = batch.root_number.to_bytes(8, "big")
        self._append_all(transaction, "heights", [(height, root + batch.block_hash)])
        transaction.put(batch.block_hash, height, db=tables["block_hashes"])
        receipts: list[tuple[bytes, bytes]] = []
        for index, (transaction_hash, receipt) in enumerate(batch.transactions):
            place = _place(batch.height, index)
            transaction.put(transaction_hash, place, db=tables["transactions"])
            receipts.append((place, receipt))
        self._append_all(transaction, "receipts", receipts)
        events = [(_place(batch.height, index), event) for index, event in enumerate(batch.events)]
        self._append_all(transaction, "events", events)
        for name, fact in batch.meta.items():
            transaction.put(name.encode(), fact, db=tables["meta"])

    def _append_all(self, transaction: Any, table: str, items: list[tuple[bytes, bytes]]) -> None:
        if not items:
            return
        with transaction.cursor(db=self._tables[table]) as cursor:
            _, added = cursor.putmulti(items, append=True)
        assert added == len(items), f"the table {table} grows only at its end"

    def _get(self, table: str, key: bytes) -> bytes | None:
        with self._environment.begin() as transaction:
            found: bytes | None = transaction.get(key, db=self._tables[table])
            return found

    def _has_blocks(self) -> bool:
        with self._environment.begin() as transaction:
            return bool(transaction.stat(self._tables["heights"])["entries"])

    def _last_number(self, table: str) -> int:
        """The largest key of a table, 0 if it is empty."""
        with self._environment.begin() as transaction, transaction.cursor(db=self._tables[table]) as cursor:
            return int.from_bytes(cursor.key(), "big") if cursor.last() else 0

    def _events_from(self, start: bytes, count_max: int) -> list[tuple[bytes, bytes]]:
        # A page at a time: a read transaction held by a slow reader would keep pages from being used again.
        page: list[tuple[bytes, bytes]] = []
        with (
            self._environment.begin() as transaction,
            transaction.cursor(db=self._tables["events"]) as cursor,
        ):
            if not cursor.set_range(start):
                return page
            for item in cursor:
                page.append(item)
                if len(page) == count_max:
                    break
        return page


def _locked(home: Path) -> int:
    """Take the home's lock for as long as this process lives."""
    lock = os.open(home / "writer.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        holder = os.pread(lock, 20, 0).decode("ascii", "replace").strip()
        os.close(lock)
        if error.errno in (errno.EWOULDBLOCK, errno.EACCES):
            raise HomeInUse(home=str(home), process=holder or "another one") from error
        raise
    os.ftruncate(lock, 0)
    os.pwrite(lock, str(os.getpid()).encode(), 0)
    return lock


def _check_format(environment: Any, home: Path, read_only: bool) -> None:
    meta = environment.open_db(b"meta", create=not read_only)
    with environment.begin(write=not read_only) as transaction:
        found = transaction.get(_FORMAT_KEY, db=meta)
        if found is None:
            if read_only:
                raise HomeMissing(home=str(home))
            transaction.put(_FORMAT_KEY, str(FORMAT).encode(), db=meta)
        elif int(found) > FORMAT:
            raise StoreTooNew(home=str(home), found=int(found), known=FORMAT)


def _refusal(error: Exception, home: Path, height: int) -> Refusal:
    text = str(error)
    if isinstance(error, lmdb.MapFullError | lmdb.DiskError) or os.strerror(errno.ENOSPC) in text:
        return DiskFull(home=str(home), height=height)
    return StoreDamaged(home=str(home), reason=text)


def _place(height: int, index: int) -> bytes:
    return height.to_bytes(8, "big") + index.to_bytes(4, "big")
