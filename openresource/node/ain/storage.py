"""A node's chain on its disk: final blocks, the papers of those that are not final yet, and snapshots of the state.

Every write is synced and arrives whole or not at all. Votes and proposals of this node lie here before anybody hears of
them, so that a node that was killed neither votes twice nor forgets what it stands by. The state itself is not kept
for each block: a node starts from its last snapshot and executes the blocks after it.
"""

from __future__ import annotations

import errno
import fcntl
import gzip
import json
import logging
import os
import zlib
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, Final

import lmdb
import msgspec

from openresource.ledger.nodes import Branch
from openresource.ledger.snapshots import load_radix_snapshot, radix_snapshot
from openresource.ledger.tree import Tree
from openresource.node.store import DiskFull, HomeInUse, StoreDamaged
from openresource.primitives.errors import Refusal

MAP_BYTES: Final = 1 << 40
TABLES: Final = ("blocks", "numbers", "papers", "proposed", "transactions")
COMPRESSION: Final = 1
SNAPSHOT_SUFFIX: Final = ".jsonl.gz"
# A row is one branch of the radix tree with what stands in it.
LINE_BYTES_MAX: Final = 8 * 1024 * 1024
UNREADABLE: Final = (OSError, ValueError, EOFError, RecursionError, zlib.error, Refusal)

_encoder: Final = msgspec.json.Encoder()
_log = logging.getLogger("openresource.node.ain.storage")


class ChainStorage:
    """An open chain directory; one process at a time."""

    def __init__(self, directory: Path, snapshots: Path) -> None:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        snapshots.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.directory = directory
        self._snapshots = snapshots
        self._lock: int | None = _locked(directory)
        try:
            self._environment: Any = lmdb.open(
                str(directory), map_size=MAP_BYTES, max_dbs=len(TABLES), mode=0o600
            )
            self._tables = {name: self._environment.open_db(name.encode()) for name in TABLES}
        except lmdb.Error as error:
            self._unlock()
            raise StoreDamaged(home=str(directory), reason=str(error)) from error
        self._last = self._last_number()
        # The bytes of blocks that are not final, with the keys of their papers: each block is packed once.
        self._proposed: dict[str, tuple[bytes, bytes]] = {}

    def close(self) -> None:
        """Lets go of the directory."""
        self._environment.close()
        self._unlock()

    def __enter__(self) -> ChainStorage:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # -- final blocks -----------------------------------------------------------------------------------------------

    @property
    def last_number(self) -> int:
        """The number of the last block; -1 in an empty directory."""
        return self._last

    def block(self, number: int) -> dict[str, Any] | None:
        """A final block by its number."""
        raw = self._get("blocks", number.to_bytes(8, "big")) if 0 <= number <= self._last else None
        return None if raw is None else _unpacked(raw)

    def number_of(self, block_hash: str) -> int | None:
        """The number of a final block by its hash."""
        raw = self._get("numbers", _key(block_hash))
        return None if raw is None else int.from_bytes(raw, "big")

    def place_of(self, tx_hash: str) -> tuple[int, int] | None:
        """Block and index of a final transaction; the last ones of an unordered one that came twice."""
        raw = self._get("transactions", _key(tx_hash))
        return None if raw is None else (int.from_bytes(raw[:8], "big"), int.from_bytes(raw[8:], "big"))

    def append(self, block: dict[str, Any]) -> None:
        """Keeps the next final block."""
        number: int = block["number"]
        assert number == self._last + 1, "blocks come in order"
        self._put(block)
        self._last = number

    def oldest_number(self) -> int:
        """The number of the first block from which on all are here, the genesis block aside; 1 if none is missing."""
        with self._environment.begin() as transaction, transaction.cursor(self._tables["blocks"]) as cursor:
            found = cursor.set_range((1).to_bytes(8, "big"))
            return int.from_bytes(cursor.key(), "big") if found else 1

    def begin_at(self, block: dict[str, Any], draft: Path) -> None:
        """Goes on behind a block whose state somebody else has handed over; the blocks before it may follow."""
        assert self._last <= 0, "there are blocks already"
        # The snapshot comes first, and to stay: a block without its state would be of no use.
        draft.replace(self.snapshot_path(block["number"]))
        folder = os.open(self._snapshots, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
        self._put(block)
        self._last = block["number"]

    def prepend(self, block: dict[str, Any]) -> None:
        """Keeps the block before the oldest one."""
        assert block["number"] == self.oldest_number() - 1 > 0, "old blocks come in order, the newest first"
        self._put(block)

    def draft(self) -> Path:
        """Where a peer's state lies until it is whole; only one process has the directory."""
        return self._snapshots / ".state.peer"

    def _put(self, block: dict[str, Any]) -> None:
        number: int = block["number"]
        key = number.to_bytes(8, "big")
        known = self._proposed.get(block["hash"])
        places = [
            (_key(wire["hash"]), key + index.to_bytes(4, "big"))
            for index, wire in enumerate(block.get("transactions", ()))
        ]
        # Of a transaction that came twice the later place counts, which may be here already.
        is_later = number >= self._last
        with self._writing(number) as transaction:
            transaction.put(key, _packed(block) if known is None else known[1], db=self._tables["blocks"])
            transaction.put(_key(block["hash"]), key, db=self._tables["numbers"])
            if places:
                transaction.cursor(self._tables["transactions"]).putmulti(places, overwrite=is_later)
        self._proposed.pop(block["hash"], None)

    # -- papers of blocks that are not final ------------------------------------------------------------------------

    def keep_papers(self, papers: dict[str, Any]) -> None:
        """Keeps proposals (with their blocks) and votes, by their hashes."""
        with self._writing(self._last + 1) as transaction:
            for paper_hash, paper in papers.items():
                key = _key(paper_hash)
                block = paper.get("block")
                if block is not None:
                    # Apart from its proposal, so that its bytes can stand among the final blocks as they are.
                    raw = _packed(block)
                    self._proposed[block["hash"]] = key, raw
                    transaction.put(key, raw, db=self._tables["proposed"])
                    paper = {name: item for name, item in paper.items() if name != "block"}
                transaction.put(key, _packed(paper), db=self._tables["papers"])

    def drop_papers(self, is_kept: frozenset[str]) -> None:
        """Forgets the papers that are not among these any more."""
        kept = {_key(one) for one in is_kept}
        with self._environment.begin() as transaction, transaction.cursor(self._tables["papers"]) as cursor:
            gone = [bytes(key) for key in cursor.iternext(keys=True, values=False) if bytes(key) not in kept]
        if gone:
            with self._writing(self._last + 1) as transaction:
                for key in gone:
                    transaction.delete(key, db=self._tables["papers"])
                    transaction.delete(key, db=self._tables["proposed"])
        for block_hash, (key, _) in list(self._proposed.items()):
            if key not in kept:
                del self._proposed[block_hash]

    def papers(self) -> list[dict[str, Any]]:
        """All papers that are kept."""
        found: list[dict[str, Any]] = []
        with self._environment.begin() as transaction, transaction.cursor(self._tables["papers"]) as cursor:
            for key, raw in cursor.iternext(keys=True, values=True):
                paper = _unpacked(bytes(raw))
                block = transaction.get(key, db=self._tables["proposed"])
                found.append(paper if block is None else {"block": _unpacked(block), **paper})
        return found

    # -- snapshots --------------------------------------------------------------------------------------------------

    def snapshot_numbers(self) -> list[int]:
        """The blocks of which there is a snapshot, the newest first."""
        names = (
            path.name.removesuffix(SNAPSHOT_SUFFIX) for path in self._snapshots.glob(f"*{SNAPSHOT_SUFFIX}")
        )
        return sorted((int(name) for name in names if name.isdigit()), reverse=True)

    def snapshot_path(self, number: int) -> Path:
        """Where the snapshot of the state after a block lies, if there is one."""
        return self._snapshots / f"{number}{SNAPSHOT_SUFFIX}"

    def write_snapshot(self, number: int, root: Branch, count_max: int) -> None:
        """Writes the state after a final block, and removes the oldest snapshots; may run beside other work."""
        path = self.snapshot_path(number)
        draft = path.with_name(f".{path.name}.{os.getpid()}")
        try:
            with (
                open(draft, "wb") as raw,
                gzip.GzipFile(fileobj=raw, mode="wb", compresslevel=COMPRESSION) as file,
            ):
                for row in flat_rows(radix_snapshot(root, "")):
                    file.write(json.dumps(row).encode() + b"\n")
                file.close()
                raw.flush()
                os.fsync(raw.fileno())
            draft.replace(path)
        except OSError as error:
            draft.unlink(missing_ok=True)
            # A missing snapshot only makes the next start slower.
            _log.warning("no snapshot was written", extra={"facts": {"number": number, "reason": str(error)}})
            return
        for old in self.snapshot_numbers()[count_max:]:
            self.snapshot_path(old).unlink(missing_ok=True)

    def newest_snapshot(self) -> tuple[dict[str, Any], Tree] | None:
        """The newest snapshot that fits its block, with that block."""
        for number in self.snapshot_numbers():
            block = self.block(number)
            if block is None:
                continue
            try:
                tree = tree_of(self.snapshot_path(number))
            except UNREADABLE as error:
                _log.warning(
                    "a snapshot is unreadable", extra={"facts": {"number": number, "reason": str(error)}}
                )
                continue
            if tree.root_hash() == block["state_proof_hash"]:
                return block, tree
            _log.warning("a snapshot does not fit its block", extra={"facts": {"number": number}})
        return None

    # -- inside -----------------------------------------------------------------------------------------------------

    def _get(self, table: str, key: bytes) -> bytes | None:
        with self._environment.begin() as transaction:
            found: bytes | None = transaction.get(key, db=self._tables[table])
            return found

    def _last_number(self) -> int:
        with self._environment.begin() as transaction, transaction.cursor(self._tables["blocks"]) as cursor:
            return int.from_bytes(cursor.key(), "big") if cursor.last() else -1

    def _writing(self, number: int) -> _Writing:
        return _Writing(self._environment, self.directory, number)

    def _unlock(self) -> None:
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None


class _Writing:
    """A write transaction whose failures are refusals."""

    def __init__(self, environment: Any, directory: Path, number: int) -> None:
        self._transaction: Any = environment.begin(write=True)
        self._directory = directory
        self._number = number

    def __enter__(self) -> Any:
        return self._transaction

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None:
            self._transaction.abort()
        else:
            try:
                self._transaction.commit()
                return
            except lmdb.Error as failed:
                error = failed
        if isinstance(error, lmdb.MapFullError | lmdb.DiskError) or os.strerror(errno.ENOSPC) in str(error):
            raise DiskFull(home=str(self._directory), height=self._number) from error
        if isinstance(error, lmdb.Error):
            raise StoreDamaged(home=str(self._directory), reason=str(error)) from error


def tree_of(path: Path, bytes_max: int | None = None) -> Tree:
    """The state that a snapshot holds, if that has no more bytes than this; raises one of UNREADABLE."""
    tree = Tree("ain")
    with gzip.open(path, "rb") as file:
        rows = (json.loads(line) for line in _lines(file, bytes_max))
        tree.replace_root(load_radix_snapshot(nested_rows(rows)))
    return tree


def _lines(file: gzip.GzipFile, bytes_max: int | None) -> Iterator[bytes]:
    left = bytes_max
    while line := file.readline(LINE_BYTES_MAX):
        if left is not None:
            left -= len(line)
        if (left is not None and left < 0) or not line.endswith(b"\n"):
            raise ValueError("it is too large, or one of its lines is")
        yield line


def flat_rows(snapshot: object) -> Iterator[dict[str, Any]]:
    """A nested snapshot as rows, breadth first, an empty list standing for each object below; no depth is too much."""
    queue: deque[Any] = deque([snapshot])
    while queue:
        row: dict[str, Any] = {}
        for name, item in queue.popleft().items():
            if isinstance(item, dict):
                row[name] = []
                queue.append(item)
            else:
                row[name] = item
        yield row


def nested_rows(rows: Iterator[dict[str, Any]]) -> dict[str, Any]:
    """The nested snapshot of such rows."""
    top: dict[str, Any] = {}
    queue: deque[dict[str, Any]] = deque([top])
    for row in rows:
        if not queue or not isinstance(row, dict):
            raise ValueError("it has a row too many")
        entry = queue.popleft()
        for name, item in row.items():
            if isinstance(item, list):
                below: dict[str, Any] = {}
                entry[name] = below
                queue.append(below)
            else:
                entry[name] = item
    if queue:
        raise ValueError("it ends in the middle")
    return top


def _key(paper_hash: str) -> bytes:
    try:
        return bytes.fromhex(paper_hash.removeprefix("0x"))[:64] or b"\x00"
    except ValueError:
        return b"\x00"


def _packed(document: dict[str, Any]) -> bytes:
    try:
        raw: bytes = _encoder.encode(document)
    except UnicodeEncodeError:
        # A text of half a surrogate pair.
        raw = b"null"
    # The fast encoder writes an infinite number as null, too.
    if b"null" in raw:
        raw = json.dumps(document, separators=(",", ":")).encode()
    return zlib.compress(raw, COMPRESSION)


def _unpacked(raw: bytes) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(zlib.decompress(raw))
    return document


def _locked(directory: Path) -> int:
    lock = os.open(directory / "writer.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(lock)
        if error.errno in (errno.EWOULDBLOCK, errno.EACCES):
            raise HomeInUse(home=str(directory), process="another one") from error
        raise
    return lock
