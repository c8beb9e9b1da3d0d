"""A buyer's books: every channel with what was signed on it, every spending, every receipt; one SQLite file.

What is signed is written down before it is sent. A promise that the books forgot would be money nobody looks for.
"""

from __future__ import annotations

import asyncio
import json
import os
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from openresource.market.purses import Purse
from openresource.primitives.errors import Refusal

FORMAT: Final = 1
BUSY_SECONDS: Final = 10.0
RECEIPTS_KEPT_MAX: Final = 100_000
DISPUTED_KEPT_MAX: Final = 1_000
CALLS_PER_TIDYING: Final = 1_000
DAY_MS: Final = 24 * 60 * 60 * 1000
# The sum of a day is counted anew after so long; until then it is too large rather than too small.
SPENT_KEPT_MS: Final = 60_000
STANDINGS_KEPT_MS: Final = 60 * 60 * 1000

_TABLES: Final = """
CREATE TABLE IF NOT EXISTS channels (
    name TEXT PRIMARY KEY, genesis TEXT NOT NULL, provider TEXT NOT NULL, publisher TEXT NOT NULL,
    service TEXT NOT NULL, program TEXT NOT NULL, price_uain INTEGER NOT NULL, purse TEXT NOT NULL,
    secret BLOB NOT NULL, changed_at_ms INTEGER NOT NULL, closed INTEGER NOT NULL DEFAULT 0
);
CREATE INDEX IF NOT EXISTS channels_by_program ON channels (genesis, provider, program, closed);
CREATE TABLE IF NOT EXISTS spendings (
    id INTEGER PRIMARY KEY, at_ms INTEGER NOT NULL, amount_uain INTEGER NOT NULL, service TEXT NOT NULL,
    provider TEXT NOT NULL, receipt TEXT NOT NULL
);
CREATE INDEX IF NOT EXISTS spendings_by_time ON spendings (at_ms);
CREATE TABLE IF NOT EXISTS unreceipted (
    channel TEXT NOT NULL, nonce INTEGER NOT NULL, spending INTEGER NOT NULL, PRIMARY KEY (channel, nonce)
);
CREATE TABLE IF NOT EXISTS receipts (id TEXT PRIMARY KEY, at_ms INTEGER NOT NULL, receipt TEXT NOT NULL);
CREATE INDEX IF NOT EXISTS receipts_by_time ON receipts (at_ms);
CREATE TABLE IF NOT EXISTS disputed (at_ms INTEGER NOT NULL, reason TEXT NOT NULL, receipt TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS standings (
    genesis TEXT NOT NULL, provider TEXT NOT NULL, program TEXT NOT NULL, figures TEXT NOT NULL,
    at_ms INTEGER NOT NULL, PRIMARY KEY (genesis, provider, program)
);
"""


class BooksUnusable(Refusal):
    template = "The books in {file} cannot be used: {reason}."
    way_out = "Make room on the disk or restore the file; the money in channels returns to the wallet when they expire."


class BooksTooNew(Refusal):
    template = "The books in {file} were written by a newer version (format {found}; this one knows {known})."
    way_out = "Use the newer version, or another home."


@dataclass(frozen=True, slots=True)
class ChannelEntry:
    """A channel as the books know it."""

    genesis: str
    provider: str
    publisher: str
    service: str
    program: str
    price_uain: int
    purse: Purse
    secret: bytes
    is_closed: bool = False

    @property
    def name(self) -> str:
        """`<buyer>/<id>`."""
        return self.purse.channel


@dataclass(slots=True)
class _Spent:
    """The sum of a day, as it was counted; what left the day since then is counted still."""

    version: int
    counted_at_ms: int
    good_until_ms: int
    total_uain: int


class Books:
    """The file `client.sqlite` of a home; several processes may hold it open."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._calls_saved = 0
        self._spent: _Spent | None = None
        self._sync_waiters: list[asyncio.Future[None]] = []
        self._is_syncing = False
        try:
            file.touch(mode=0o600, exist_ok=True)
            self._db = sqlite3.connect(
                file, timeout=BUSY_SECONDS, isolation_level=None, check_same_thread=False
            )
            (mode,) = self._db.execute("PRAGMA journal_mode=WAL").fetchone()
            # Some file systems have no such log; there every commit is synced by itself.
            self._has_log = mode == "wal"
            self._db.execute("PRAGMA synchronous=FULL")
            (found,) = self._db.execute("PRAGMA user_version").fetchone()
            if found > FORMAT:
                self._db.close()
                raise BooksTooNew(file=str(file), found=found, known=FORMAT)
            self._db.executescript(_TABLES)
            self._db.execute(f"PRAGMA user_version={FORMAT}")
        except (sqlite3.Error, OSError) as error:
            raise BooksUnusable(file=str(file), reason=str(error)) from None

    def close(self) -> None:
        """Close the file."""
        self._db.close()

    # Channels

    def save_channel(self, entry: ChannelEntry, at_ms: int, *, is_synced: bool = True) -> None:
        """Write a channel down; it is on the disk when this returns, or else when `synced` does."""
        row = (
            entry.name,
            entry.genesis,
            entry.provider,
            entry.publisher,
            entry.service,
            entry.program,
            entry.price_uain,
            _purse_text(entry.purse),
            entry.secret,
            at_ms,
            int(entry.is_closed),
        )
        with self._work() as db, nullcontext() if is_synced else self._unsynced():
            db.execute("INSERT OR REPLACE INTO channels VALUES (?,?,?,?,?,?,?,?,?,?,?)", row)

    async def synced(self) -> None:
        """Returns when everything that was written is on the disk; whoever waits at the same time shares one sync.

        SQLite has put every commit into its log before this is asked, so to sync the log is all that is left to do.
        """
        if not self._has_log:
            return
        loop = asyncio.get_running_loop()
        waiter: asyncio.Future[None] = loop.create_future()
        self._sync_waiters.append(waiter)
        if not self._is_syncing:
            self._is_syncing = True
            loop.call_soon(self._sync, loop)
        await waiter

    def _sync(self, loop: asyncio.AbstractEventLoop) -> None:
        waiters, self._sync_waiters = self._sync_waiters, []
        if not waiters:
            self._is_syncing = False
            return
        syncing = loop.run_in_executor(None, _sync_file, self._file.with_name(self._file.name + "-wal"))
        syncing.add_done_callback(lambda done: self._has_synced(loop, done, waiters))

    def _has_synced(
        self,
        loop: asyncio.AbstractEventLoop,
        done: asyncio.Future[None],
        waiters: list[asyncio.Future[None]],
    ) -> None:
        problem = done.exception()
        for waiter in waiters:
            if waiter.done():
                continue
            if problem is None:
                waiter.set_result(None)
            else:
                waiter.set_exception(BooksUnusable(file=str(self._file), reason=str(problem)))
        # Those who came meanwhile may have written after the sync began.
        self._sync(loop)

    def channels(self, genesis: str, *, with_closed: bool = False) -> list[ChannelEntry]:
        """All channels of a network, the newest first."""
        condition = "" if with_closed else " AND closed = 0"
        query = f"SELECT {_CHANNEL_COLUMNS} FROM channels WHERE genesis = ?{condition} ORDER BY changed_at_ms DESC"
        with self._work() as db:
            return [_entry(row) for row in db.execute(query, (genesis,))]

    def channels_to(self, genesis: str, provider: str, program: str) -> list[ChannelEntry]:
        """Open channels that pay one provider for one program, the newest first."""
        query = (
            f"SELECT {_CHANNEL_COLUMNS} FROM channels WHERE genesis = ? AND provider = ? AND program = ?"
            " AND closed = 0 ORDER BY changed_at_ms DESC"
        )
        with self._work() as db:
            return [_entry(row) for row in db.execute(query, (genesis, provider, program))]

    def channel(self, name: str) -> ChannelEntry | None:
        """One channel by its name."""
        with self._work() as db:
            row = db.execute(f"SELECT {_CHANNEL_COLUMNS} FROM channels WHERE name = ?", (name,)).fetchone()
        return None if row is None else _entry(row)

    # Spending and receipts

    def save_call(
        self,
        entry: ChannelEntry | None,
        *,
        receipt_id: str,
        receipt: Any,
        amount_uain: int,
        service: str,
        at_ms: int,
    ) -> None:
        """An answered call: the purse, the spending and the receipt, in one step."""
        provider = str(receipt.get("provider", ""))
        # Not waited for: until the disk has it the purse says that the call is open, and the gateway has the receipt.
        with self._work() as db, self._unsynced():
            db.execute("BEGIN IMMEDIATE")
            if entry is not None:
                db.execute(
                    "UPDATE channels SET purse = ?, changed_at_ms = ? WHERE name = ?",
                    (_purse_text(entry.purse), at_ms, entry.name),
                )
            text = json.dumps(receipt, ensure_ascii=False)
            fresh = db.execute(
                "INSERT OR IGNORE INTO receipts VALUES (?,?,?)", (receipt_id, at_ms, text)
            ).rowcount
            if fresh:
                db.execute(
                    "INSERT INTO spendings (at_ms, amount_uain, service, provider, receipt) VALUES (?,?,?,?,?)",
                    (at_ms, amount_uain, service, provider, receipt_id),
                )
                if amount_uain and (entry is None or entry.purse.nonce != receipt.get("nonce")):
                    # Its claim was seen before it: then its price stands in the books already.
                    db.execute(
                        "UPDATE spendings SET amount_uain = MAX(0, amount_uain - ?) WHERE id ="
                        " (SELECT spending FROM unreceipted WHERE channel = ? AND nonce = ?)",
                        (amount_uain, receipt.get("channel"), receipt.get("nonce")),
                    )
            db.execute("COMMIT")
            if fresh and self._spent is not None:
                self._spent.total_uain += amount_uain
            self._calls_saved += 1
            if self._calls_saved % CALLS_PER_TIDYING == 0:
                # To find the oldest of many is work of its own, so not every call does it.
                db.execute(
                    "DELETE FROM receipts WHERE at_ms < (SELECT at_ms FROM receipts ORDER BY at_ms DESC LIMIT 1 OFFSET ?)",
                    (RECEIPTS_KEPT_MAX,),
                )

    def save_claim(self, entry: ChannelEntry, *, nonce: int, amount_uain: int, at_ms: int) -> None:
        """The purse after a claim, and what the claim took for calls without a receipt, in one step.

        A receipt that is found later takes the place of its part.
        """
        with self._work() as db:
            db.execute("BEGIN IMMEDIATE")
            db.execute(
                "UPDATE channels SET purse = ?, changed_at_ms = ? WHERE name = ?",
                (_purse_text(entry.purse), at_ms, entry.name),
            )
            service = f"{entry.publisher}/{entry.service}"
            known = db.execute(
                "SELECT 1 FROM unreceipted WHERE channel = ? AND nonce = ?", (entry.name, nonce)
            ).fetchone()
            if amount_uain and known is None:
                spending = db.execute(
                    "INSERT INTO spendings (at_ms, amount_uain, service, provider, receipt) VALUES (?,?,?,?,'')",
                    (at_ms, amount_uain, service, entry.provider),
                ).lastrowid
                db.execute("INSERT INTO unreceipted VALUES (?,?,?)", (entry.name, nonce, spending))
                self._spent = None
            db.execute("COMMIT")

    def spent_uain(self, since_ms: int) -> int:
        """What calls have cost since a moment."""
        with self._work() as db:
            (total,) = db.execute(
                "SELECT COALESCE(SUM(amount_uain), 0) FROM spendings WHERE at_ms >= ?", (since_ms,)
            ).fetchone()
        return int(total)

    def spent_lately_uain(self, at_ms: int) -> int:
        """What calls have cost in the last 24 hours, without adding all of them up each time.

        What other processes of this home spent is seen, as the file says when one of them wrote.
        """
        with self._work() as db:
            (version,) = db.execute("PRAGMA data_version").fetchone()
        spent = self._spent
        if (
            spent is None
            or spent.version != version
            or not spent.counted_at_ms <= at_ms < spent.good_until_ms
        ):
            spent = _Spent(version, at_ms, at_ms + SPENT_KEPT_MS, self.spent_uain(at_ms - DAY_MS))
            self._spent = spent
        return spent.total_uain

    def receipts(self, count_max: int = 50) -> list[dict[str, Any]]:
        """The newest receipts."""
        with self._work() as db:
            rows = db.execute(
                "SELECT receipt FROM receipts ORDER BY at_ms DESC, id LIMIT ?", (count_max,)
            ).fetchall()
        return [json.loads(text) for (text,) in rows]

    def receipt(self, receipt_id: str) -> dict[str, Any] | None:
        """A receipt by its id."""
        with self._work() as db:
            row = db.execute("SELECT receipt FROM receipts WHERE id = ?", (receipt_id,)).fetchone()
        return None if row is None else dict(json.loads(row[0]))

    def save_disputed(self, receipt: Any, reason: str, at_ms: int) -> None:
        """Keep a receipt that was refused, as it came: signed, it is evidence against its provider."""
        with self._work() as db:
            db.execute(
                "INSERT INTO disputed VALUES (?,?,?)",
                (at_ms, reason, json.dumps(receipt, ensure_ascii=False)),
            )
            db.execute(
                "DELETE FROM disputed WHERE rowid <= (SELECT MAX(rowid) FROM disputed) - ?",
                (DISPUTED_KEPT_MAX,),
            )

    def disputed(self) -> list[dict[str, Any]]:
        """The receipts that were refused, the newest first, each with the time and the reason."""
        with self._work() as db:
            rows = db.execute("SELECT at_ms, reason, receipt FROM disputed ORDER BY rowid DESC").fetchall()
        return [
            {"at_ms": at_ms, "reason": reason, "receipt": json.loads(text)} for at_ms, reason, text in rows
        ]

    # How providers have done

    def save_standings(
        self, genesis: str, rows: Sequence[tuple[str, str, dict[str, Any]]], at_ms: int
    ) -> None:
        """Figures of providers and programs; a loss of power may take them, as nothing is owed for them."""
        with self._work() as db, self._unsynced():
            db.execute("BEGIN IMMEDIATE")
            db.executemany(
                "INSERT OR REPLACE INTO standings VALUES (?,?,?,?,?)",
                [
                    (genesis, provider, program, json.dumps(figures), at_ms)
                    for provider, program, figures in rows
                ],
            )
            db.execute("DELETE FROM standings WHERE at_ms < ?", (at_ms - STANDINGS_KEPT_MS,))
            db.execute("COMMIT")

    def standings(self, genesis: str, since_ms: int) -> list[tuple[str, str, dict[str, Any]]]:
        """Provider, program and figures, as far as they are recent."""
        query = "SELECT provider, program, figures FROM standings WHERE genesis = ? AND at_ms >= ?"
        with self._work() as db:
            rows = db.execute(query, (genesis, since_ms)).fetchall()
        return [(provider, program, dict(json.loads(text))) for provider, program, text in rows]

    @contextmanager
    def _unsynced(self) -> Iterator[None]:
        """What is written within is safe from a killed process at once, and from a loss of power soon after."""
        if not self._has_log:
            yield
            return
        self._db.execute("PRAGMA synchronous=NORMAL")
        try:
            yield
        finally:
            if self._db.in_transaction:
                # It failed halfway, and the setting cannot change within a transaction.
                self._db.rollback()
            self._db.execute("PRAGMA synchronous=FULL")

    @contextmanager
    def _work(self) -> Iterator[sqlite3.Connection]:
        try:
            yield self._db
        except sqlite3.Error as error:
            if self._db.in_transaction:
                self._db.rollback()
            raise BooksUnusable(file=str(self._file), reason=str(error)) from None


def _sync_file(path: Path) -> None:
    descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


_CHANNEL_COLUMNS: Final = "genesis, provider, publisher, service, program, price_uain, purse, secret, closed"


def _entry(row: tuple[Any, ...]) -> ChannelEntry:
    genesis, provider, publisher, service, program, price_uain, purse, secret, closed = row
    return ChannelEntry(
        genesis, provider, publisher, service, program, price_uain, _purse_of(purse), secret, bool(closed)
    )


def _purse_text(purse: Purse) -> str:
    return json.dumps(
        {
            "channel": purse.channel,
            "nonce": purse.nonce,
            "deposit_uain": purse.deposit_uain,
            "expires_at_ms": purse.expires_at_ms,
            "session": purse.session.hex(),
            "next_sequence": purse.next_sequence,
            "signed_uain": purse.signed_uain,
            "earned_uain": purse.earned_uain,
            "in_flight": {str(number): price for number, price in purse.in_flight.items()},
            "acknowledged": purse.acknowledged,
            "receipts": purse.receipts.hex(),
            "early": {str(number): digest.hex() for number, digest in purse.early.items()},
            "inherited_uain": purse.inherited_uain,
            "given_up_uain": purse.given_up_uain,
            "behind": {str(number): price for number, price in purse.behind.items()},
            "claimed_before_uain": purse.claimed_before_uain,
        }
    )


def _purse_of(text: str) -> Purse:
    record = json.loads(text)
    return Purse(
        channel=record["channel"],
        nonce=record["nonce"],
        deposit_uain=record["deposit_uain"],
        expires_at_ms=record["expires_at_ms"],
        session=bytes.fromhex(record["session"]),
        next_sequence=record["next_sequence"],
        signed_uain=record["signed_uain"],
        earned_uain=record["earned_uain"],
        in_flight={int(number): price for number, price in record["in_flight"].items()},
        acknowledged=record["acknowledged"],
        receipts=bytes.fromhex(record["receipts"]),
        early={int(number): bytes.fromhex(digest) for number, digest in record["early"].items()},
        inherited_uain=record["inherited_uain"],
        given_up_uain=record.get("given_up_uain", 0),
        behind={int(number): price for number, price in record.get("behind", {}).items()},
        claimed_before_uain=record.get("claimed_before_uain", None if record["nonce"] else 0),
    )
