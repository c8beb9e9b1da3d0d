"""The provider's books in SQLite: receipts for everybody who asks, answers for who asks again, claims and earnings.

The books run behind the journal: a call is safe when the journal has it, and comes into the books a moment later,
in batches, by a thread of their own. The journal drops a record only after the books have it.
"""

from __future__ import annotations

import asyncio
import contextlib
import queue
import sqlite3
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

from openresource.primitives.errors import Refusal

BACKLOG_ROWS_MAX = 50_000
BATCH_ROWS_MAX = 2_000
RETRY_SECONDS = 1.0
SCHEMA_VERSION = 1
RECEIPTS_KEPT_MAX = 1_000_000
ROWS_DROPPED_AT_ONCE = 2_000

SCHEMA = """
CREATE TABLE IF NOT EXISTS receipts (
    id BLOB PRIMARY KEY, channel TEXT NOT NULL, nonce INTEGER NOT NULL,
    service TEXT NOT NULL, program TEXT NOT NULL, price_uain INTEGER NOT NULL, at_ms INTEGER NOT NULL,
    json BLOB NOT NULL
) WITHOUT ROWID;
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
        self._rows: queue.SimpleQueue[Row | Callable[[], None] | None] = queue.SimpleQueue()
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
        rows = self._rows.qsize()
        if rows > BACKLOG_ROWS_MAX:
            raise BooksBehind(rows=rows, reason=self._trouble or "the disk is slow")

    def write(self, statement: str, values: Sequence[Any]) -> None:
        """Queues a row; writing it twice must come to the same."""
        self._rows.put((statement, values))

    async def flush(self) -> None:
        """Returns when everything queued so far is on disk."""
        loop = asyncio.get_running_loop()
        done: asyncio.Future[None] = loop.create_future()

        def resolve() -> None:
            if not done.done():
                done.set_result(None)

        def written() -> None:
            loop.call_soon_threadsafe(resolve)

        self._rows.put(written)
        await done

    async def read(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Runs a query in the reading thread."""
        connection = self._reading
        assert connection is not None
        return await asyncio.get_running_loop().run_in_executor(self._readers, work, connection)

    async def close(self) -> None:
        """Writes what waits, then lets the file go."""
        self._rows.put(None)
        loop = asyncio.get_running_loop()
        if self._writer is not None:
            await loop.run_in_executor(None, self._writer.join)
        self._readers.shutdown()
        if self._reading is not None:
            self._reading.close()

    def _connect(self) -> sqlite3.Connection:
        connection = sqlite3.connect(self._path, check_same_thread=False, isolation_level="DEFERRED")
        connection.execute("PRAGMA journal_mode = WAL")
        # The journal drops records on the strength of a commit here, so a commit must be on disk.
        connection.execute("PRAGMA synchronous = FULL")
        return connection

    def _write(self, connection: sqlite3.Connection) -> None:
        waiting: Row | Callable[[], None] | None
        while True:
            rows: list[Row] = []
            waiting = self._rows.get()
            while isinstance(waiting, tuple):
                rows.append(waiting)
                if len(rows) >= BATCH_ROWS_MAX or self._rows.empty():
                    break
                waiting = self._rows.get()
            self._commit(connection, rows, is_last=waiting is None)
            if callable(waiting):
                waiting()
            if waiting is None:
                connection.close()
                return

    def _commit(self, connection: sqlite3.Connection, rows: list[Row], *, is_last: bool) -> None:
        """Commits a batch; a disk that is full or busy is tried until it takes it."""
        pause = threading.Event()
        while rows:
            try:
                for statement, values in rows:
                    connection.execute(statement, values)
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
