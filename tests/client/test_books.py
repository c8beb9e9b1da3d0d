"""The buyer's books: what was signed is on disk, what was spent adds up, a receipt counts once."""

import asyncio
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from openresource.client.books import Books, BooksTooNew, BooksUnusable, ChannelEntry
from openresource.market.purses import Purse

BUYER = "0x" + "0" * 40


def entry(name: str = f"{BUYER}/00000000000000aa", **purse: object) -> ChannelEntry:
    fields = {
        "channel": name,
        "nonce": 0,
        "deposit_uain": 1000,
        "expires_at_ms": 10,
        "session": bytes(32),
        **purse,
    }
    return ChannelEntry(
        "0xgenesis", "0xprovider", "0xpublisher", "echo", "bafy", 7, Purse(**fields), b"s" * 32
    )


@given(
    nonce=st.integers(0, 2**53),
    signed=st.integers(0, 2**60),
    in_flight=st.dictionaries(st.integers(0, 2**50), st.integers(0, 2**50), max_size=4),
    early=st.dictionaries(st.integers(1, 2**50), st.binary(min_size=32, max_size=32), max_size=4),
)
def test_a_purse_reads_back_as_it_was_written(tmp_path_factory, nonce, signed, in_flight, early):
    file = tmp_path_factory.mktemp("books") / "client.sqlite"
    written = entry(nonce=nonce, signed_uain=signed, in_flight=in_flight, early=early)
    books = Books(file)
    books.save_channel(written, 1)
    books.close()
    again = Books(file)
    assert again.channel(written.name) == written
    again.close()


def test_a_receipt_counts_once_however_often_it_is_kept(tmp_path):
    books = Books(tmp_path / "client.sqlite")
    books.save_channel(entry(), 1)
    for _ in range(3):
        books.save_call(
            entry(), receipt_id="0x1", receipt={"provider": "p"}, amount_uain=7, service="echo", at_ms=100
        )
    books.save_call(
        None, receipt_id="0x2", receipt={"provider": "p"}, amount_uain=5, service="echo", at_ms=200
    )
    assert books.spent_uain(0) == 12
    assert books.spent_uain(150) == 5
    assert [receipt["provider"] for receipt in books.receipts()] == ["p", "p"]
    assert books.receipt("0x3") is None


def test_closed_channels_are_not_offered_for_payment(tmp_path):
    from dataclasses import replace

    books = Books(tmp_path / "client.sqlite")
    books.save_channel(entry(), 1)
    assert [e.name for e in books.channels_to("0xgenesis", "0xprovider", "bafy")] == [entry().name]
    books.save_channel(replace(entry(), is_closed=True), 2)
    assert books.channels_to("0xgenesis", "0xprovider", "bafy") == []
    assert [e.name for e in books.channels("0xgenesis", with_closed=True)] == [entry().name]


def test_books_of_a_newer_version_are_left_alone(tmp_path):
    import sqlite3

    file = tmp_path / "client.sqlite"
    Books(file).close()
    db = sqlite3.connect(file)
    db.execute("PRAGMA user_version = 99")
    db.close()
    with pytest.raises(BooksTooNew):
        Books(file)


def test_a_file_that_is_no_database_is_a_refusal(tmp_path):
    file = tmp_path / "client.sqlite"
    file.write_bytes(b"this is not a database, and long enough to be looked at closely" * 20)
    with pytest.raises(BooksUnusable):
        Books(file)


def test_whoever_waits_for_the_disk_at_the_same_time_shares_a_sync(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from openresource.client import books as module

    synced: list[Path] = []
    monkeypatch.setattr(module, "_sync_file", synced.append)

    async def work() -> None:
        books = Books(tmp_path / "client.sqlite")
        await asyncio.gather(*[books.synced() for _ in range(50)])
        assert synced == [tmp_path / "client.sqlite-wal"]
        await books.synced()
        assert len(synced) == 2
        books.close()

    asyncio.run(work())


def test_a_disk_that_cannot_sync_is_told_to_everybody_who_waits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from openresource.client import books as module

    def fails(path: Path) -> None:
        raise OSError("no disk")

    monkeypatch.setattr(module, "_sync_file", fails)

    async def work() -> None:
        books = Books(tmp_path / "client.sqlite")
        outcomes = await asyncio.gather(*[books.synced() for _ in range(3)], return_exceptions=True)
        assert all(isinstance(outcome, BooksUnusable) for outcome in outcomes)
        books.close()

    asyncio.run(work())
