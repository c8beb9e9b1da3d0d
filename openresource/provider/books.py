"""The provider's books in SQLite: receipts for everybody who asks, answers for who asks again, claims and earnings.

The books run behind the journal: a call is safe when the journal has it, and comes into the books a moment later,
in batches, by a thread of their own, which leaves the disk to the journal in between. The journal drops a record only
after `flush` has brought the books to the disk.
"""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
import threading
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

from openresource.primitives.errors import Refusal

BACKLOG_ROWS_MAX = 50_000
BATCH_ROWS_MAX = 2_000
# A batch waits this long for more rows, so that its commit does not stand in the journal's way at every call.
GATHER_SECONDS = 1.0
RETRY_SECONDS = 1.0
SCHEMA_VERSION = 1
RECEIPTS_KEPT_MAX = 1_000_000
ROWS_DROPPED_AT_ONCE = 2_000

# Receipts lie in the order in which they come: by their ids, which are chance, each would be a page of its own.
SCHEMA = """
CREATE TABLE IF NOT EXISTS receipts (
    id BLOB NOT NULL UNIQUE, channel TEXT NOT NULL, nonce INTEGER NOT NULL,
    service TEXT NOT NULL, program TEXT NOT NULL, price_uain INTEGER NOT NULL, at_ms INTEGER NOT NULL,
    json BLOB NOT NULL
);
CREATE INDEX IF NOT EXISTS receipts_by_time ON receipts (at_ms);
CREATE TABLE IF NOT EXISTS answers (
    session BLOB NOT NULL, sequence INTEGER NOT NULL, at_ms INTEGER NOT NULL, record BLOB NOT NULL,
    PRIMARY KEY (session, sequence)
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS answers_by_time ON answers (at_ms);
CREATE TABLE IF NOT EXISTS earnings (
    service TEXT NOT NULL, program TEXT NOT NULL, day TEXT NOT NULL, calls INTEGER NOT NULL,
    price_uain INTEGER NOT NULL, PRIMARY KEY (service, program, day)
) WITHOUT ROWID;
-- A receipt that comes twice is ignored and counts once.
CREATE TRIGGER IF NOT EXISTS receipts_earn AFTER INSERT ON receipts BEGIN
    INSERT INTO earnings (service, program, day, calls, price_uain)
    VALUES (new.service, new.program, date(new.at_ms / 1000, 'unixepoch'), 1, new.price_uain)
    ON CONFLICT (service, program, day) DO UPDATE SET calls = calls + 1, price_uain = price_uain + new.price_uain;
END;
CREATE TABLE IF NOT EXISTS claims (
    channel TEXT NOT NULL, nonce INTEGER NOT NULL, amount_uain INTEGER NOT NULL, provider_uain INTEGER NOT NULL,
    tx_hash TEXT NOT NULL, at_ms INTEGER NOT NULL, PRIMARY KEY (channel, nonce)
) WITHOUT ROWID;
"""

T = TypeVar("T")
Row = tuple[str, Sequence[Any]]


class BooksBehind(Refusal):
    template = "The provider's books have {rows} rows waiting for the disk: {reason}."
    way_out = "Nothing was charged. Try again in a moment, or choose another provider."


class BooksUnknown(Refusal):
    template = "The books at {path} cannot be read: {reason}."
    way_out = (
        "Move the file away to begin new books; calls that are not claimed yet are in the journal, not there."
    )


class Books:
    """One SQLite file with one writing thread; reads go through a thread of their own."""

    def __init__(self, path: Path) -> None:
        self._path = path
        # Appending wakes nobody: the writer comes by itself once a second, or when it is asked to.
        self._rows: deque[Row] = deque()
        self._flushes: deque[Callable[[], None]] = deque()
        self._is_asked = threading.Event()
        self._is_closing = False
        self._readers = ThreadPoolExecutor(max_workers=1, thread_name_prefix="books-reader")
        self._writer: threading.Thread | None = None
        self._reading: sqlite3.Connection | None = None
        self._trouble = ""

    def open(self) -> None:
        """Opens or makes the file and starts the writer."""
        self._path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        try:
            connection = self._connect()
            version = connection.execute("PRAGMA user_version").fetchone()[0]
            if version not in (0, SCHEMA_VERSION):
                raise BooksUnknown(path=str(self._path), reason=f"its version is {version}")
            connection.executescript(SCHEMA)
            connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
            connection.commit()
            self._reading = self._connect()
        except sqlite3.DatabaseError as error:
            raise BooksUnknown(path=str(self._path), reason=str(error)) from error
        self._writer = threading.Thread(target=self._write, args=(connection,), name="books", daemon=True)
        self._writer.start()

    def check_backlog(self) -> None:
        """Refuses when the disk does not keep up, so that memory stays bounded."""
        if len(self._rows) > BACKLOG_ROWS_MAX:
            raise BooksBehind(rows=len(self._rows), reason=self._trouble or "the disk is slow")

    def write(self, statement: str, values: Sequence[Any]) -> None:
        """Queues a row; writing it twice must come to the same."""
        self._rows.append((statement, values))

    async def flush(self) -> None:
        """Returns when everything queued so far is on disk."""
        loop = asyncio.get_running_loop()
        done: asyncio.Future[None] = loop.create_future()

        def resolve() -> None:
            if not done.done():
                done.set_result(None)

        def written() -> None:
            loop.call_soon_threadsafe(resolve)

        self._flushes.append(written)
        self._is_asked.set()
        await done

    async def read(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Runs a query in the reading thread."""
        connection = self._reading
        assert connection is not None
        return await asyncio.get_running_loop().run_in_executor(self._readers, work, connection)

    async def close(self) -> None:
        """Writes what waits, then lets the file go."""
        self._is_closing = True
        self._is_asked.set()
        loop = asyncio.get_running_loop()
        if self._writer is not None:
            await loop.run_in_executor(None, self._writer.join)
        self._readers.shutdown()
        if self._reading is not None:
            self._reading.close()

    def _connect(self) -> sqlite3.Connection:
        connection = sqlite3.connect(self._path, check_same_thread=False, isolation_level="DEFERRED")
        connection.execute("PRAGMA journal_mode = WAL")
        # Commits are whole but not yet on disk; `flush` is what puts them there.
        connection.execute("PRAGMA synchronous = NORMAL")
        return connection

    def _write(self, connection: sqlite3.Connection) -> None:
        while True:
            self._is_asked.wait(GATHER_SECONDS)
            self._is_asked.clear()
            # Read first: what is asked for afterwards is for the next round.
            is_closing, flushes = self._is_closing, len(self._flushes)
            while self._rows:
                rows = [self._rows.popleft() for _ in range(min(len(self._rows), BATCH_ROWS_MAX))]
                self._commit(connection, rows, is_last=is_closing)
            if flushes:
                self._checkpoint(connection)
                for _ in range(flushes):
                    self._flushes.popleft()()
            if is_closing:
                connection.close()
                return

    def _checkpoint(self, connection: sqlite3.Connection) -> None:
        """Brings everything that was committed to the disk."""
        pause = threading.Event()
        while True:
            try:
                busy, _, _ = connection.execute("PRAGMA wal_checkpoint(FULL)").fetchone()
                if not busy:
                    return
            except sqlite3.OperationalError as error:
                self._trouble = str(error)
            pause.wait(RETRY_SECONDS / 10)

    def _commit(self, connection: sqlite3.Connection, rows: list[Row], *, is_last: bool) -> None:
        """Commits a batch; a disk that is full or busy is tried until it takes it."""
        pause = threading.Event()
        while rows:
            try:
                by_statement: dict[str, list[Sequence[Any]]] = {}
                for statement, values in rows:
                    by_statement.setdefault(statement, []).append(values)
                for statement, listed in by_statement.items():
                    connection.executemany(statement, listed)
                connection.commit()
                self._trouble = ""
                return
            except sqlite3.OperationalError as error:
                self._trouble = str(error)
                with contextlib.suppress(sqlite3.Error):
                    connection.rollback()
                if is_last:
                    # The process ends; the journal still has every row.
                    return
                pause.wait(RETRY_SECONDS)


def drop_old(books: Books, *, answers_before_ms: int) -> None:
    """Forgets answers that nobody may ask for any more, and receipts beyond the bound, a bounded number at once."""
    books.write(
        "DELETE FROM answers WHERE (session, sequence) IN "
        "(SELECT session, sequence FROM answers WHERE at_ms < ? LIMIT ?)",
        (answers_before_ms, ROWS_DROPPED_AT_ONCE),
    )
    books.write(
        "DELETE FROM receipts WHERE id IN (SELECT id FROM receipts ORDER BY at_ms LIMIT "
        "max(0, min(?, (SELECT count(*) FROM receipts) - ?)))",
        (ROWS_DROPPED_AT_ONCE, RECEIPTS_KEPT_MAX),
    )
