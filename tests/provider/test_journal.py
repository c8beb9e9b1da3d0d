"""The journal: whatever was acknowledged is there again, whatever the end of the file looks like."""

from __future__ import annotations

import asyncio
import errno
import os
import tempfile
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as some

from openresource.provider.journal import (
    MAGIC,
    Journal,
    JournalBroken,
    JournalFull,
    JournalLocked,
    JournalUnknown,
    RecordTooLarge,
    frame,
    read_records,
)

payloads = some.lists(some.binary(min_size=1, max_size=80), max_size=12)


def run(work: Coroutine[Any, Any, Any]) -> Any:
    return asyncio.run(asyncio.wait_for(work, 60))


async def written(path: Path, records: list[bytes], **options: Any) -> None:
    journal = Journal(path, **options)
    journal.open()
    journal.start()
    await asyncio.gather(*[journal.append(record) for record in records])
    await journal.close()


def reopened(path: Path) -> list[bytes]:
    journal = Journal(path)
    try:
        return journal.open()
    finally:
        journal.abandon()


@given(
    records=payloads,
    cut=some.integers(min_value=0),
    junk=some.binary(max_size=40),
    zeros=some.integers(0, 40),
)
def test_any_crash_point_of_the_file_gives_a_prefix(
    records: list[bytes], cut: int, junk: bytes, zeros: int
) -> None:
    data = MAGIC + b"".join(frame(record) for record in records)
    cut = len(MAGIC) + cut % (len(data) - len(MAGIC) + 1)
    torn = data[:cut] + junk[: len(data) - cut] + bytes(zeros)
    found, end = read_records(torn)
    whole = [record for record in records if record]
    assert found[: len(whole)] == whole[: len(found)]
    assert end <= len(torn)


@given(records=payloads, cut=some.integers(min_value=0))
def test_a_cut_file_opens_and_takes_further_records(records: list[bytes], cut: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "journal"
        data = MAGIC + b"".join(frame(record) for record in records)
        path.write_bytes(data[: cut % (len(data) + 1)])
        before = reopened(path)
        assert before == records[: len(before)]
        run(written(path, [b"afterwards"]))
        assert reopened(path) == [*before, b"afterwards"]


@given(records=payloads, position=some.integers(min_value=0), flip=some.integers(1, 255))
def test_a_damaged_byte_never_shows_as_a_record(records: list[bytes], position: int, flip: int) -> None:
    data = bytearray(MAGIC + b"".join(frame(record) for record in records))
    if len(data) == len(MAGIC):
        return
    position = len(MAGIC) + position % (len(data) - len(MAGIC))
    data[position] ^= flip
    found, _ = read_records(bytes(data))
    assert found == records[: len(found)]


@pytest.mark.parametrize("sync", ["always", "interval"])
def test_records_come_back_in_order(tmp_path: Path, sync: Any) -> None:
    records = [bytes([number]) * (number + 1) for number in range(200)]
    run(written(tmp_path / "journal", records, sync=sync))
    assert reopened(tmp_path / "journal") == records


def test_many_that_wait_share_a_sync(tmp_path: Path) -> None:
    async def work() -> tuple[int, int]:
        journal = Journal(tmp_path / "journal")
        journal.open()
        journal.start()
        for _ in range(10):
            await asyncio.gather(*[journal.append(b"record") for _ in range(100)])
        syncs, records = journal.syncs, journal.records
        await journal.close()
        return syncs, records

    syncs, records = run(work())
    assert records == 1000
    assert syncs <= 20


def test_a_snapshot_replaces_what_was_before_and_keeps_what_comes_after(tmp_path: Path) -> None:
    async def work() -> int:
        journal = Journal(tmp_path / "journal")
        journal.open()
        journal.start()
        for number in range(300):
            await journal.append(b"x" * 100 + str(number).encode())
        waiting = journal.append(b"waits when the snapshot is taken")
        replacing = asyncio.create_task(journal.replace([b"snapshot", b"of everything"]))
        await asyncio.sleep(0)
        after = journal.append(b"after")
        await asyncio.gather(waiting, replacing, after)
        size = journal.size_bytes
        await journal.close()
        return size

    assert run(work()) < 200
    assert reopened(tmp_path / "journal") == [b"snapshot", b"of everything", b"after"]


def test_an_unfinished_snapshot_does_not_count(tmp_path: Path) -> None:
    run(written(tmp_path / "journal", [b"kept"]))
    (tmp_path / "journal.new").write_bytes(MAGIC + frame(b"half a snapsh"))
    assert reopened(tmp_path / "journal") == [b"kept"]


def test_a_full_disk_is_refused_and_nothing_acknowledged_is_lost(tmp_path: Path) -> None:
    room = 400

    def small_disk(descriptor: int, data: Any, position: int) -> int:
        if position + len(data) > room:
            os.pwrite(descriptor, bytes(data[: max(0, room - position)]), position)
            raise OSError(errno.ENOSPC, "No space left on device")
        return os.pwrite(descriptor, data, position)

    async def work() -> list[bytes]:
        nonlocal room
        acknowledged = []
        failures = 0

        def failed() -> None:
            nonlocal failures
            failures += 1

        journal = Journal(tmp_path / "journal", write_file=small_disk)
        journal.open()
        journal.start(failed)
        for number in range(40):
            record = b"record %d" % number
            try:
                await journal.append(record)
            except JournalFull as refusal:
                assert "No space left" in refusal.message
                assert refusal.remedy
                break
            acknowledged.append(record)
        assert failures == 1
        with pytest.raises(JournalFull):
            journal.append(b"while it is full")
        room = 4000
        journal.resume()
        await journal.append(b"room again")
        await journal.close()
        return [*acknowledged, b"room again"]

    acknowledged = run(work())
    assert 5 < len(acknowledged) < 41
    assert reopened(tmp_path / "journal") == acknowledged


def test_everything_that_waits_behind_a_failed_write_is_refused(tmp_path: Path) -> None:
    async def work() -> None:
        def no_disk(descriptor: int, data: Any, position: int) -> int:
            raise OSError(errno.ENOSPC, "No space left on device")

        journal = Journal(tmp_path / "journal", write_file=no_disk)
        (tmp_path / "journal").write_bytes(MAGIC)
        journal.open()
        journal.start()
        first = journal.append(b"first")
        await asyncio.sleep(0)
        later = [journal.append(b"later") for _ in range(3)]
        outcomes = await asyncio.gather(first, *later, return_exceptions=True)
        assert [type(outcome) for outcome in outcomes] == [JournalFull] * 4
        assert len({id(outcome) for outcome in outcomes}) == 4
        await journal.close()

    run(work())
    assert reopened(tmp_path / "journal") == []


def test_a_failed_sync_stops_the_journal_for_good(tmp_path: Path) -> None:
    async def work() -> None:
        def bad_disk(descriptor: int) -> None:
            raise OSError(errno.EIO, "Input/output error")

        journal = Journal(tmp_path / "journal", sync_file=bad_disk)
        journal.open()
        journal.start()
        with pytest.raises(JournalBroken):
            await journal.append(b"record")
        journal.resume()
        with pytest.raises(JournalBroken):
            journal.append(b"record")
        await journal.close()

    run(work())


def test_two_processes_never_share_a_journal(tmp_path: Path) -> None:
    first = Journal(tmp_path / "journal")
    first.open()
    with pytest.raises(JournalLocked):
        Journal(tmp_path / "journal").open()
    first.abandon()
    assert reopened(tmp_path / "journal") == []


def test_a_foreign_file_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "journal").write_bytes(b"something else entirely, and not ours to cut")
    with pytest.raises(JournalUnknown):
        Journal(tmp_path / "journal").open()
    assert (tmp_path / "journal").read_bytes().startswith(b"something else")


def test_a_record_beyond_the_bound_is_refused(tmp_path: Path) -> None:
    async def work() -> None:
        journal = Journal(tmp_path / "journal")
        journal.open()
        journal.start()
        with pytest.raises(RecordTooLarge):
            journal.append(bytes(9_000_000))
        await journal.close()

    run(work())


def test_one_that_stops_waiting_disturbs_nobody(tmp_path: Path) -> None:
    async def work() -> None:
        journal = Journal(tmp_path / "journal")
        journal.open()
        journal.start()
        given_up = journal.append(b"one")
        other = journal.append(b"two")
        given_up.cancel()
        await other
        await journal.close()

    run(work())
    assert reopened(tmp_path / "journal") == [b"one", b"two"]
