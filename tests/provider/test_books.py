"""The books follow the journal: what comes twice counts once, what is old goes, what is large lies in a file."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from openresource.market.tabs import CallKey
from openresource.provider import answers as answers_module
from openresource.provider import books as books_module
from openresource.provider.answers import AnswerForgotten, Answers
from openresource.provider.books import Books, BooksBehind, BooksUnknown, drop_old
from openresource.provider.earnings import earnings
from openresource.provider.records import CallPaid, RecordUnknown, pack, unpack

SESSION = b"s" * 32
DAY_MS = 86_400_000


def call(
    number: int, *, price_uain: int = 100, body: bytes = b"body", at_ms: int = 1_800_000_000_000
) -> CallPaid:
    return CallPaid(
        name="0x/aa",
        nonce=0,
        session=SESSION,
        sequence=number,
        price_uain=price_uain,
        receipt_id=number.to_bytes(32, "big"),
        receipt_json=b'{"number":%d}' % number,
        service="0x/echo",
        program="bafy",
        at_ms=at_ms,
        fingerprint=b"f" * 16,
        status=200,
        content_type="application/json",
        body=body,
        body_file="",
        is_whole=True,
    )


def with_books(folder: Path, work: Callable[[Books, Answers], Awaitable[Any]]) -> Any:
    async def body() -> Any:
        books = Books(folder / "provider.sqlite")
        books.open()
        answers = Answers(folder / "answers", books)
        answers.open()
        try:
            return await work(books, answers)
        finally:
            await books.close()

    return asyncio.run(asyncio.wait_for(body(), 60))


def keep(answers: Answers, paid: CallPaid) -> None:
    answers.keep(paid, pack(paid))


def test_a_call_that_is_written_twice_is_earned_once(tmp_path: Path) -> None:
    async def work(books: Books, answers: Answers) -> None:
        for _ in range(3):
            for number in range(10):
                keep(answers, call(number, at_ms=_now_ms()))
            await books.flush()
        earned = await earnings(books)
        assert (earned["calls"], earned["receipts_uain"]) == (10, 1000)
        assert earned["by_service"][0]["service"] == "0x/echo"

    with_books(tmp_path, work)
    with_books(tmp_path, work)


def test_answers_leave_memory_and_come_from_the_books(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(answers_module, "MEMORY_BYTES_MAX", 10_000)

    async def work(books: Books, answers: Answers) -> None:
        for number in range(100):
            keep(answers, call(number, body=b"x" * 1000))
        assert answers.find(CallKey(SESSION, 0)) is None
        assert answers.find(CallKey(SESSION, 99)) is not None
        await books.flush()
        for number in (0, 50, 99):
            assert (await answers.recall(CallKey(SESSION, number))).body == b"x" * 1000
            assert await answers.receipt(number.to_bytes(32, "big")) == b'{"number":%d}' % number
        with pytest.raises(AnswerForgotten):
            await answers.recall(CallKey(SESSION, 100))
        assert await answers.receipt(b"0" * 32) is None

    with_books(tmp_path, work)


def test_old_answers_go_and_receipts_stay(tmp_path: Path) -> None:
    async def work(books: Books, answers: Answers) -> None:
        keep(answers, call(1, at_ms=1000))
        keep(answers, call(2, at_ms=9000))
        answers._answers.clear()
        drop_old(books, answers_before_ms=5000)
        await books.flush()
        assert (await answers.recall(CallKey(SESSION, 2))).body == b"body"
        with pytest.raises(AnswerForgotten):
            await answers.recall(CallKey(SESSION, 1))
        assert await answers.receipt((1).to_bytes(32, "big")) == b'{"number":1}'

    with_books(tmp_path, work)


def test_receipts_beyond_the_bound_go_oldest_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(books_module, "RECEIPTS_KEPT_MAX", 5)

    async def work(books: Books, answers: Answers) -> None:
        for number in range(12):
            keep(answers, call(number, at_ms=1000 + number))
        drop_old(books, answers_before_ms=0)
        await books.flush()

        def left(connection: sqlite3.Connection) -> Any:
            return connection.execute("SELECT min(at_ms), count(*) FROM receipts").fetchone()

        assert await books.read(left) == (1007, 5)

    with_books(tmp_path, work)


def test_bodies_in_files_are_bounded_and_survive_a_restart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(answers_module, "FILES_BYTES_MAX", 3_000)

    async def work(books: Books, answers: Answers) -> list[str]:
        return [await answers.write_body(CallKey(SESSION, number), b"y" * 1000) for number in range(5)]

    names = with_books(tmp_path, work)
    assert sorted(path.name for path in (tmp_path / "answers").iterdir()) == sorted(names[2:])
    (tmp_path / "answers" / "half.new").write_bytes(b"torn")

    async def again(books: Books, answers: Answers) -> None:
        assert not (tmp_path / "answers" / "half.new").exists()
        await answers.write_body(CallKey(SESSION, 9), b"z" * 1000)
        assert not (tmp_path / "answers" / names[2]).exists()
        answers.drop_files(_now_ms() + 10_000)
        assert not list((tmp_path / "answers").iterdir())

    with_books(tmp_path, again)


def test_a_backlog_is_refused_before_memory_runs_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(books_module, "BACKLOG_ROWS_MAX", 10)
    # The writer comes when it is asked to, not in the middle of this.
    monkeypatch.setattr(books_module, "GATHER_SECONDS", 3_600)

    async def work(books: Books, answers: Answers) -> None:
        books.check_backlog()
        for _ in range(20):
            books.write("DELETE FROM answers WHERE at_ms < ?", (0,))
        with pytest.raises(BooksBehind) as caught:
            books.check_backlog()
        assert "Nothing was charged" in caught.value.remedy
        await books.flush()
        books.check_backlog()

    with_books(tmp_path, work)


def test_foreign_books_are_left_alone(tmp_path: Path) -> None:
    (tmp_path / "provider.sqlite").write_bytes(b"certainly no database of ours" * 100)
    with pytest.raises(BooksUnknown):
        Books(tmp_path / "provider.sqlite").open()


def test_a_record_of_another_version_is_a_refusal() -> None:
    with pytest.raises(RecordUnknown):
        unpack(b"\x91\xa3new")


def _now_ms() -> int:
    import time

    return time.time_ns() // 1_000_000
