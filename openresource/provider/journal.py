"""The provider's write-ahead journal: what it may not forget is on disk before anybody hears of it.

One file of framed records, one writer thread. Everything that is appended while the disk is busy goes down with
one write and one `fdatasync`, so that many waiting replies share its cost. A snapshot replaces the file by one
that says the same in fewer records. After a loss of power the file may end in a torn record: opening cuts it off,
as nobody was told of it.
"""

from __future__ import annotations

import asyncio
import errno
import fcntl
import os
import queue
import struct
import threading
import zlib
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Literal, NamedTuple

from openresource.primitives.errors import Refusal

SyncPolicy = Literal["always", "interval"]

MAGIC = b"OpenResource journal 1\n\0"
RECORD_BYTES_MAX = 8 * 1024 * 1024
QUEUE_BYTES_MAX = 64 * 1024 * 1024
# Overwriting zeros that are already on disk syncs in half the time that growing the file takes.
ZEROS_AHEAD_BYTES = 1024 * 1024
SYNC_INTERVAL_SECONDS = 0.2
# So long a record that is not urgent waits for another one.
PATIENCE_SECONDS = 0.005
TORN_BYTES_KEPT_MAX = 1024 * 1024

_FRAME = struct.Struct("<II")


class JournalFull(Refusal):
    template = "The provider cannot write its journal: {reason}."
    way_out = "Nothing was charged. Try again later, or choose another provider; its operator has to free disk space."


class JournalBroken(Refusal):
    template = "The provider's journal failed while it was written: {reason}."
    way_out = (
        "Nothing was charged for this call. The operator has to look at the disk and restart the provider."
    )


class JournalBusy(Refusal):
    template = "The provider's journal has {queued_bytes} bytes waiting for the disk."
    way_out = "Nothing was charged. Try again in a moment."


class JournalLocked(Refusal):
    template = "Another process uses the journal at {path}."
    way_out = "Stop the other provider of this home first, or choose another home."


class JournalUnknown(Refusal):
    template = "The file {path} is not a journal that this version can read."
    way_out = "Move it away if you are sure; calls that were not claimed yet are in it."


class RecordTooLarge(Refusal):
    template = "A record of {bytes} bytes does not fit the journal; at most {bytes_max} do."


class _Job(NamedTuple):
    """What the writer thread does next: add these frames, or make a new file of them."""

    is_replacement: bool
    frames: list[bytes]
    waiters: list[asyncio.Future[None]]


def frame(payload: bytes) -> bytes:
    """A record as it stands in the file: length, checksum over length and payload, payload."""
    length = len(payload).to_bytes(4, "little")
    return _FRAME.pack(len(payload), zlib.crc32(payload, zlib.crc32(length))) + payload


def read_records(data: bytes) -> tuple[list[bytes], int]:
    """The whole records at the beginning of a file's bytes, and the position where they end."""
    records: list[bytes] = []
    position = len(MAGIC)
    size = len(data)
    while position + _FRAME.size <= size:
        length, checksum = _FRAME.unpack_from(data, position)
        end = position + _FRAME.size + length
        if length == 0 or length > RECORD_BYTES_MAX or end > size:
            break
        payload = data[position + _FRAME.size : end]
        if zlib.crc32(payload, zlib.crc32(data[position : position + 4])) != checksum:
            break
        records.append(payload)
        position = end
    return records, position


class Journal:
    """An append-only file with group commit, owned by one event loop."""

    def __init__(
        self,
        path: Path,
        *,
        sync: SyncPolicy = "always",
        sync_file: Callable[[int], None] = os.fdatasync,
        write_file: Callable[[int, bytes, int], int] = os.pwrite,
    ) -> None:
        """`sync_file` and `write_file` are the two doors to the disk; tests make them fail."""
        self._path = path
        self._sync: SyncPolicy = sync
        self._sync_file = sync_file
        self._write_file = write_file
        self._descriptor = -1
        self._lock_descriptor = -1
        self._position = 0
        self._zeros_until = 0
        self._queue: list[bytes] = []
        self._waiters: list[asyncio.Future[None]] = []
        self._queued_bytes = 0
        self._replacement: _Job | None = None
        self._is_writing = False
        self._is_scheduled = False
        self._is_synced = True
        self._patience: asyncio.TimerHandle | None = None
        self._refusal: Refusal | None = None
        self._on_failure: Callable[[], None] | None = None
        self._jobs: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self.torn_bytes = 0
        self.syncs = 0
        self.records = 0

    # ── Opening ──────────────────────────────────────────────────────────────────────────────────────────────

    def open(self) -> list[bytes]:
        """Takes the file for this process, cuts a torn end off and returns its records."""
        self._path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._lock_descriptor = os.open(
            self._path.with_suffix(".lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600
        )
        try:
            fcntl.flock(self._lock_descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(self._lock_descriptor)
            self._lock_descriptor = -1
            raise JournalLocked(path=str(self._path)) from error
        # A snapshot that was not finished never counted.
        self._fresh_path().unlink(missing_ok=True)
        data = self._path.read_bytes() if self._path.exists() else b""
        if data and not data.startswith(MAGIC) and not MAGIC.startswith(data.rstrip(b"\0")):
            os.close(self._lock_descriptor)
            self._lock_descriptor = -1
            raise JournalUnknown(path=str(self._path))
        if not data.startswith(MAGIC):
            self._create([])
            return []
        records, end = read_records(data)
        self._cut(data, end)
        self._descriptor = os.open(self._path, os.O_RDWR | os.O_CLOEXEC)
        self._position = end
        self._zeros_until = end
        self.records = len(records)
        return records

    def start(self, on_failure: Callable[[], None] | None = None) -> None:
        """Begins to take records; `on_failure` hears, in the loop, that everything unsynced was refused."""
        self._loop = asyncio.get_running_loop()
        self._on_failure = on_failure
        self._thread = threading.Thread(target=self._write_batches, name="journal", daemon=True)
        self._thread.start()

    @property
    def size_bytes(self) -> int:
        """How long the journal is, without the zeros ahead."""
        return self._position

    @property
    def refusal(self) -> Refusal | None:
        """Why the journal takes nothing at present, if so."""
        return self._refusal

    def check(self) -> None:
        """Refuses while the journal takes nothing."""
        if self._refusal is not None:
            raise _copy(self._refusal)

    def reread(self) -> list[bytes]:
        """The records that are on disk; only while nothing is being written."""
        assert not self._is_writing
        return read_records(self._path.read_bytes()[: self._position])[0]

    # ── Appending ────────────────────────────────────────────────────────────────────────────────────────────

    def append(self, payload: bytes, *, is_urgent: bool = True) -> asyncio.Future[None]:
        """Queues a record; the future resolves when the record is as safe as the policy asks, or refuses.

        One that is not urgent waits a moment for the next one, so that both go down with one sync.
        """
        self.check()
        assert payload
        if len(payload) > RECORD_BYTES_MAX:
            raise RecordTooLarge(bytes=len(payload), bytes_max=RECORD_BYTES_MAX)
        if self._queued_bytes > QUEUE_BYTES_MAX:
            raise JournalBusy(queued_bytes=self._queued_bytes)
        return self._queued(frame(payload), is_urgent=is_urgent)

    def resume(self) -> None:
        """Takes records again after a full disk; the owner has gone back to what is on disk."""
        if isinstance(self._refusal, JournalFull):
            self._refusal = None

    async def replace(self, payloads: Iterable[bytes]) -> None:
        """Replaces the file by one with these records; what is appended from now on comes after them."""
        assert self._loop is not None and self._replacement is None, "one snapshot at a time"
        self.check()
        done: asyncio.Future[None] = self._loop.create_future()
        # What is queued is part of what the new records say: its waiters wait for the new file.
        self._replacement = _Job(True, [frame(payload) for payload in payloads], [*self._waiters, done])
        self._queue, self._waiters, self._queued_bytes = [], [], 0
        self._hand_over()
        await done

    async def close(self) -> None:
        """Writes what waits, syncs and lets the file go; closing twice does no harm."""
        thread, self._thread = self._thread, None
        if thread is not None and self._loop is not None:
            if self._refusal is None:
                await asyncio.wait([self._queued(b"")])
            self._jobs.put(None)
            await self._loop.run_in_executor(None, thread.join)
        self.abandon()

    def abandon(self) -> None:
        """Lets the file go without another word to the disk, as the end of the process would."""
        for descriptor in (self._descriptor, self._lock_descriptor):
            if descriptor >= 0:
                os.close(descriptor)
        self._descriptor = self._lock_descriptor = -1

    # ── In the loop ──────────────────────────────────────────────────────────────────────────────────────────

    def _queued(self, data: bytes, *, is_urgent: bool = True) -> asyncio.Future[None]:
        assert self._loop is not None
        waiter: asyncio.Future[None] = self._loop.create_future()
        self._queue.append(data)
        self._waiters.append(waiter)
        self._queued_bytes += len(data)
        if self._is_writing or self._is_scheduled:
            return waiter
        if is_urgent:
            # At the end of this turn of the loop: whoever else appends in it shares the sync.
            self._is_scheduled = True
            self._loop.call_soon(self._hand_over)
        elif self._patience is None:
            self._patience = self._loop.call_later(PATIENCE_SECONDS, self._hand_over)
        return waiter

    def _hand_over(self) -> None:
        """Gives the writer everything that waits, if it is idle."""
        self._is_scheduled = False
        if self._patience is not None:
            self._patience.cancel()
            self._patience = None
        if self._is_writing or self._refusal is not None:
            return
        if self._replacement is not None:
            job, self._replacement = self._replacement, None
        elif self._queue:
            job = _Job(False, self._queue, self._waiters)
            self._queue, self._waiters, self._queued_bytes = [], [], 0
        else:
            return
        self._is_writing = True
        self._jobs.put(job)

    def _written(self, waiters: list[asyncio.Future[None]]) -> None:
        self._is_writing = False
        for waiter in waiters:
            if not waiter.done():
                waiter.set_result(None)
        self._hand_over()

    def _failed(self, waiters: list[asyncio.Future[None]], refusal: Refusal) -> None:
        """Later records build on those that failed: all are refused, and the owner goes back."""
        self._is_writing = False
        self._refusal = refusal
        waiters = waiters + self._waiters
        if self._replacement is not None:
            waiters += self._replacement.waiters
        self._queue, self._waiters, self._queued_bytes, self._replacement = [], [], 0, None
        if self._on_failure is not None:
            self._on_failure()
        for waiter in waiters:
            if not waiter.done():
                waiter.set_exception(_copy(refusal))
                # Whoever has stopped waiting does not have to hear of it.
                waiter.exception()

    # ── In the writer thread ─────────────────────────────────────────────────────────────────────────────────

    def _write_batches(self) -> None:
        while True:
            try:
                job = self._jobs.get(timeout=None if self._is_synced else SYNC_INTERVAL_SECONDS)
            except queue.Empty:
                job = _Job(False, [], [])
            refusal = self._guarded(job)
            if job is None:
                return
            assert self._loop is not None
            try:
                if refusal is not None:
                    self._loop.call_soon_threadsafe(self._failed, job.waiters, refusal)
                elif job.waiters:
                    self._loop.call_soon_threadsafe(self._written, job.waiters)
            except RuntimeError:
                # The loop is gone, and with it everybody who waited.
                return
            if refusal is None and self._zeros_until - self._position < ZEROS_AHEAD_BYTES // 2:
                self._lay_zeros()

    def _guarded(self, job: _Job | None) -> Refusal | None:
        try:
            if job is None or not job.waiters:
                self._sync_now()
            elif job.is_replacement:
                self._create(job.frames)
            else:
                self._write(job.frames)
        except OSError as error:
            reason = error.strerror or str(error)
            if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
                return JournalFull(reason=reason)
            # After a failed sync nobody knows what is on disk; only reading it anew tells.
            return JournalBroken(reason=reason)
        return None

    def _write(self, frames: list[bytes]) -> None:
        data = frames[0] if len(frames) == 1 else b"".join(frames)
        try:
            self._write_at(data, self._position)
        except OSError:
            self._take_back()
            raise
        self._is_synced = False
        if self._sync == "always":
            try:
                self._sync_now()
            except OSError as error:
                if error.errno in (errno.ENOSPC, errno.EDQUOT):
                    self._take_back()
                raise
        self._position += len(data)
        self.records += len(frames)

    def _sync_now(self) -> None:
        if not self._is_synced:
            self._sync_file(self._descriptor)
            self._is_synced = True
            self.syncs += 1

    def _write_at(self, data: bytes, position: int) -> None:
        view = memoryview(data)
        while view:
            written = self._write_file(self._descriptor, view, position)  # type: ignore[arg-type]
            view = view[written:]
            position += written

    def _take_back(self) -> None:
        """Removes what a failed write may have left, so that it is not read as a record later."""
        os.ftruncate(self._descriptor, self._position)
        self._zeros_until = self._position

    def _lay_zeros(self) -> None:
        """Prepares the place of the next records while nobody waits."""
        start, descriptor = max(self._zeros_until, self._position), self._descriptor
        if descriptor < 0:
            # It was let go meanwhile.
            return
        try:
            os.pwrite(descriptor, bytes(ZEROS_AHEAD_BYTES), start)
            os.fsync(descriptor)
        except OSError:
            # Only a preparation: a full disk is for the next real write to report.
            return
        self._zeros_until = start + ZEROS_AHEAD_BYTES

    def _create(self, frames: list[bytes]) -> None:
        """Writes a whole new file beside the old one and puts it in its place in one step."""
        fresh = self._fresh_path()
        data = MAGIC + b"".join(frames)
        descriptor = os.open(fresh, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        previous = self._descriptor
        self._descriptor = descriptor
        try:
            self._write_at(data, 0)
            os.fsync(descriptor)
            os.rename(fresh, self._path)
            _sync_folder(self._path.parent)
        except OSError:
            self._descriptor = previous
            os.close(descriptor)
            fresh.unlink(missing_ok=True)
            raise
        if previous >= 0:
            os.close(previous)
        self._position = self._zeros_until = len(data)
        self.records = len(frames)
        self._is_synced = True

    def _fresh_path(self) -> Path:
        return self._path.with_suffix(".new")

    def _cut(self, data: bytes, end: int) -> None:
        torn = data[end:].rstrip(b"\0")
        self.torn_bytes = len(torn)
        if torn:
            # Kept beside it for whoever wants to look; it was never acknowledged.
            self._path.with_suffix(".torn").write_bytes(torn[:TORN_BYTES_KEPT_MAX])
        if len(data) > end:
            descriptor = os.open(self._path, os.O_RDWR | os.O_CLOEXEC)
            try:
                os.ftruncate(descriptor, end)
                os.fsync(descriptor)
            finally:
                os.close(descriptor)


def _copy(refusal: Refusal) -> Refusal:
    """One exception object is raised in one place only, else its traceback grows for ever."""
    return type(refusal)(**refusal.facts)


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
