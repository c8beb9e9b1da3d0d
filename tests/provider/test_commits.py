"""Commits survive the loss of power: what was promised to be kept is there, and what is over is not."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from openresource.provider import commits as module
from openresource.provider.commits import KEPT_MS, Commits, Kept
from openresource.provider.journal import JournalLocked


def kept(job: str, at_ms: int = 1_000) -> Kept:
    result = {"status": "DONE", "output": {"0": "a"}}
    return Kept(job, "1", b"d" * 32, b"s" * 32, b"c" * 32, result, "", at_ms, b"sealed")


def test_what_was_kept_is_there_after_a_loss_of_power(tmp_path: Path) -> None:
    async def body() -> None:
        commits = Commits(tmp_path / "commits")
        commits.open(at_ms=0)
        await asyncio.gather(*(commits.keep(kept(f"job{number}")) for number in range(20)))
        await commits.drop("job3")
        await commits.keep(kept("job20"))
        # The process is gone without a word: no close.
        commits._journal.abandon()
        again = Commits(tmp_path / "commits")
        again.open(at_ms=2_000)
        assert again.jobs == [f"job{number}" for number in range(21) if number != 3]
        assert again.find("job7") == kept("job7") == again.find("job7", "1")
        assert again.find("job7", "2") is None and again.find("job3") is None
        await again.close()

    asyncio.run(body())


def test_a_torn_end_takes_nothing_that_was_promised(tmp_path: Path) -> None:
    async def body() -> None:
        commits = Commits(tmp_path / "commits")
        commits.open(at_ms=0)
        await commits.keep(kept("whole"))
        await commits.close()
        data = (tmp_path / "commits").read_bytes().rstrip(b"\0")
        (tmp_path / "commits").write_bytes(data + data[-40:-7])
        again = Commits(tmp_path / "commits")
        again.open(at_ms=0)
        assert again.jobs == ["whole"]
        await again.close()

    asyncio.run(body())


def test_the_file_does_not_grow_with_jobs_that_are_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "RECORDS_MAX", 50)

    async def body() -> None:
        commits = Commits(tmp_path / "commits", sync="interval")
        commits.open(at_ms=0)
        await commits.keep(kept("stays"))
        for number in range(300):
            await commits.keep(kept(f"job{number}"))
            await commits.drop(f"job{number}")
        await commits.close()
        again = Commits(tmp_path / "commits")
        again.open(at_ms=0)
        assert again.jobs == ["stays"]
        assert again._journal.records <= 60
        await again.close()

    asyncio.run(body())


def test_two_processes_do_not_share_it_and_what_is_very_old_is_forgotten(tmp_path: Path) -> None:
    async def body() -> None:
        commits = Commits(tmp_path / "commits")
        commits.open(at_ms=0)
        with pytest.raises(JournalLocked):
            Commits(tmp_path / "commits").open(at_ms=0)
        await commits.keep(kept("old"))
        await commits.close()
        again = Commits(tmp_path / "commits")
        again.open(at_ms=KEPT_MS + 2_000)
        assert len(again) == 0
        await again.close()

    asyncio.run(body())
