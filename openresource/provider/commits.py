"""What this provider has bound itself to: the result behind each commit, on disk before the chain hears of the commit.

A commit hides a digest behind a salt. Who loses the salt cannot reveal and is punished for it, and who runs the program
a second time may come to another digest and would contradict itself; so after a loss of power the kept result counts,
not a fresh one.
"""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any, Final

import msgspec

from openresource.primitives.errors import Refusal
from openresource.provider.journal import Journal, SyncPolicy

# A snapshot is made when so many records, most of them of jobs that are over, lie in the file.
RECORDS_MAX: Final = 4_000
# A job is over long before this; what is older was forgotten by the chain too.
KEPT_MS: Final = 7 * 24 * 60 * 60 * 1000


class CommitsUnknown(Refusal):
    template = "The file of commits holds a record that this version cannot read: {reason}."
    way_out = "Start the version that wrote it; results that were not revealed yet are in it."


class Kept(msgspec.Struct, frozen=True, array_like=True, tag="kept"):
    """A result that this provider answers for, with all that revealing it takes."""

    job: str
    # Which of our leases or seats it was made under.
    lease: str
    digest: bytes
    salt: bytes
    commit: bytes
    # Status, output or its CID, error, usage: what is revealed beside digest and salt.
    result: dict[str, Any]
    # Where the result lies for the requester alone, if it does.
    output_cid: str
    at_ms: int
    # What lies there: put into the content store only when it is kept here, as it carries our signature.
    sealed: bytes = b""


class Dropped(msgspec.Struct, frozen=True, array_like=True, tag="dropped"):
    """The job is over, or the result was never bound to."""

    job: str


_encoder = msgspec.msgpack.Encoder()
_decoder: msgspec.msgpack.Decoder[Kept | Dropped] = msgspec.msgpack.Decoder(Kept | Dropped)


class Commits:
    """The kept results by job; one event loop owns them."""

    def __init__(self, path: Path, *, sync: SyncPolicy = "always") -> None:
        self._journal = Journal(path, sync=sync)
        self._kept: dict[str, Kept] = {}
        self._compacting = asyncio.Lock()

    def __len__(self) -> int:
        return len(self._kept)

    def open(self, *, at_ms: int) -> None:
        """Reads what the last process kept, and begins to take more."""
        for payload in self._journal.open():
            try:
                record = _decoder.decode(payload)
            except msgspec.DecodeError as error:
                raise CommitsUnknown(reason=str(error)) from error
            if isinstance(record, Kept):
                self._kept[record.job] = record
            else:
                self._kept.pop(record.job, None)
        self._kept = {job: kept for job, kept in self._kept.items() if kept.at_ms > at_ms - KEPT_MS}
        self._journal.start()

    async def close(self) -> None:
        """Writes what waits and lets the file go."""
        await self._journal.close()

    @property
    def jobs(self) -> list[str]:
        """The jobs that something is kept for, the oldest first."""
        return list(self._kept)

    def find(self, job: str, lease: str = "") -> Kept | None:
        """What is kept for a job, under this lease if one is named."""
        kept = self._kept.get(job)
        return kept if kept is not None and lease in ("", kept.lease) else None

    async def keep(self, kept: Kept) -> None:
        """On disk when this returns; only then may anybody hear of it."""
        # First here: a snapshot that is made meanwhile must say it too.
        self._kept[kept.job] = kept
        try:
            await self._journal.append(_encoder.encode(kept))
        except Refusal:
            del self._kept[kept.job]
            raise

    async def drop(self, job: str) -> None:
        """The job is over; what a crash brings back of it is dropped again."""
        # A file that takes nothing just now still has it; the next start drops it then.
        if self._kept.pop(job, None) is not None and self._journal.refusal is None:
            # Nobody waits for this record, and it costs no sync of its own.
            self._journal.append(_encoder.encode(Dropped(job)), is_urgent=False)
            await self._compact()

    async def _compact(self) -> None:
        if self._journal.records < RECORDS_MAX + 2 * len(self._kept) or self._compacting.locked():
            return
        async with self._compacting:
            await self._journal.replace([_encoder.encode(kept) for kept in self._kept.values()])
