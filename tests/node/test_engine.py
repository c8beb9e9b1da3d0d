"""The embedded engine: one execution, sealed, written, then announced; nothing final is ever lost."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from openresource.ledger.draft import Change
from openresource.node import engine as module
from openresource.node.announcements import event_bytes, event_records, events_of_block
from openresource.node.engine import AlreadyReceived, DiskFull, Engine, NodeStopping
from openresource.node.rpc import encode
from openresource.node.store import BlockBatch, Store
from openresource.node.store import DiskFull as StoreFull
from tests.node.simple_machine import FAILING_VALUE, REFUSED_NONCE
from tests.node.simple_node import make_engine, running_engine, write

DEADLINE_SECONDS = 60


async def until(condition: Any) -> None:
    """Wait for a condition, with a deadline."""
    async with asyncio.timeout(DEADLINE_SECONDS):
        while not condition():
            await asyncio.sleep(0.005)


def test_a_write_is_pending_at_once_and_final_after_its_block(tmp_path: Path) -> None:
    async def story() -> None:
        async with running_engine(tmp_path) as engine:
            transaction = write("/apps/x/a", 5)
            inserted = await engine.submit(transaction)
            assert inserted.is_included and not inserted.has_failed
            assert engine.pending().get(["values", "apps", "x", "a"]) == 5
            assert engine.final().get(["values", "apps", "x", "a"]) is None
            assert engine.place_of(transaction.hash) is None
            assert await engine.wait_final(transaction.hash, DEADLINE_SECONDS)
            assert engine.final().get(["values", "apps", "x", "a"]) == 5
            assert engine.place_of(transaction.hash) == (1, 0)

    asyncio.run(story())


def test_past_heights_stay_readable(tmp_path: Path) -> None:
    async def story() -> None:
        async with running_engine(tmp_path) as engine:
            for value in range(1, 6):
                transaction = write("/counter", value)
                await engine.submit(transaction)
                await engine.wait_final(transaction.hash, DEADLINE_SECONDS)
            for height in range(1, 6):
                view = engine.view_at(height)
                block = engine.block(height)
                assert view is not None and block is not None
                assert view.get(["values", "counter"]) == height
                assert view.root_hash() == block["state_proof_hash"]
            assert engine.view_at(6) is None

    asyncio.run(story())


def test_block_time_grows_even_if_the_clock_stands_still(tmp_path: Path) -> None:
    async def story() -> None:
        async with running_engine(tmp_path, clock_ms=lambda: 500) as engine:
            for value in range(3):
                transaction = write("/x", value + 1)
                await engine.submit(transaction)
                await engine.wait_final(transaction.hash, DEADLINE_SECONDS)
            times = [engine.block(height)["timestamp"] for height in range(4)]  # type: ignore[index]
            assert times == [1_000, 1_001, 1_002, 1_003]

    asyncio.run(story())


def test_many_writes_share_blocks(tmp_path: Path) -> None:
    async def story() -> None:
        async with running_engine(tmp_path) as engine:
            transactions = [write(f"/many/k{index}", index + 1) for index in range(300)]
            await asyncio.gather(*[engine.submit(one) for one in transactions])
            for one in transactions:
                assert await engine.wait_final(one.hash, DEADLINE_SECONDS)
            assert engine.last_height() < 50
            assert len(engine.final().get(["values", "many"])) == 300  # type: ignore[arg-type]

    asyncio.run(story())


def test_a_failed_transaction_is_in_the_block_and_a_refused_one_is_not(tmp_path: Path) -> None:
    async def story() -> None:
        async with running_engine(tmp_path) as engine:
            failed = write("/x", FAILING_VALUE)
            assert (await engine.submit(failed)).has_failed
            refused = write("/x", 1, nonce=REFUSED_NONCE)
            assert not (await engine.submit(refused)).is_included
            await engine.wait_final(failed.hash, DEADLINE_SECONDS)
            assert engine.place_of(failed.hash) == (1, 0)
            assert engine.place_of(refused.hash) is None
            assert engine.known(refused.hash) is None

    asyncio.run(story())


def test_nothing_to_do_makes_no_blocks_and_leaves_none_open(tmp_path: Path) -> None:
    async def story() -> None:
        async with running_engine(tmp_path) as engine:
            await engine.submit(write("/x", 1, nonce=REFUSED_NONCE))
            await until(lambda: not engine.machine.is_open)
            await engine.dry_run(write("/x", 1))
            assert not engine.machine.is_open
            assert engine.last_height() == 0

    asyncio.run(story())


def test_what_is_due_makes_a_block_at_its_time(tmp_path: Path) -> None:
    async def story() -> None:
        now = [10_000]
        async with running_engine(tmp_path, clock_ms=lambda: now[0]) as engine:
            transaction = write(f"/due/{10_200:015d}_0", "something")
            await engine.submit(transaction)
            await engine.wait_final(transaction.hash, DEADLINE_SECONDS)
            assert engine.last_height() == 1
            now[0] = 10_300
            await until(lambda: engine.last_height() == 2)
            assert engine.final().get(["values", "due"]) is None
            assert [event.by for event in engine.events_of(2)] == ["due", "node"]

    asyncio.run(story())


def test_the_same_transaction_is_taken_once(tmp_path: Path) -> None:
    async def story() -> None:
        engine = make_engine(tmp_path)
        transaction = write("/x", 1)
        await engine.submit(transaction)
        with pytest.raises(AlreadyReceived):
            await engine.submit(transaction)
        engine.start()
        await engine.stop()
        engine.store.close()

    asyncio.run(story())


def test_a_graceful_stop_writes_what_was_pending(tmp_path: Path) -> None:
    async def story() -> None:
        async with running_engine(tmp_path) as engine:
            transactions = [write(f"/k{index}", 1) for index in range(20)]
            for one in transactions:
                await engine.submit(one)
            await engine.stop()
            with pytest.raises(NodeStopping):
                await engine.submit(write("/late", 1))
        async with running_engine(tmp_path) as engine:
            assert all(engine.place_of(one.hash) is not None for one in transactions)

    asyncio.run(story())


def test_a_chain_goes_on_where_it_was(tmp_path: Path) -> None:
    async def story() -> None:
        hashes = []
        for round_number in range(3):
            async with running_engine(tmp_path) as engine:
                assert engine.last_height() == round_number
                transaction = write(f"/round{round_number}", True)
                await engine.submit(transaction)
                await engine.wait_final(transaction.hash, DEADLINE_SECONDS)
                hashes.append(engine.last_block["hash"])
        async with running_engine(tmp_path) as engine:
            for height in range(1, 4):
                assert engine.block(height)["hash"] == hashes[height - 1]  # type: ignore[index]
            assert engine.block(3)["last_hash"] == hashes[1]  # type: ignore[index]

    asyncio.run(story())


class FullDisk(Store):
    """A store whose disk can be full."""

    is_full = False

    def append(self, batch: BlockBatch) -> None:
        if self.is_full:
            raise StoreFull(home=str(self.home), height=batch.height)
        super().append(batch)


def test_a_full_disk_refuses_writes_keeps_reading_and_loses_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("openresource.node.engine.RETRY_WRITE_SECONDS", 0.01)

    async def story() -> None:
        store = FullDisk.open(tmp_path)
        assert isinstance(store, FullDisk)
        engine: Engine
        async with running_engine(tmp_path, store=store) as engine:
            first = write("/first", 1)
            await engine.submit(first)
            await engine.wait_final(first.hash, DEADLINE_SECONDS)
            store.is_full = True
            second = write("/second", 2)
            await engine.submit(second)
            await until(lambda: engine.is_disk_full)
            with pytest.raises(DiskFull):
                await engine.submit(write("/third", 3))
            assert engine.final().get(["values", "first"]) == 1
            assert engine.final().get(["values", "second"]) is None
            assert not await engine.wait_final(second.hash, 0.01)
            store.is_full = False
            assert await engine.wait_final(second.hash, DEADLINE_SECONDS)
            assert not engine.is_disk_full
            assert engine.final().get(["values", "second"]) == 2
            await engine.submit(write("/third", 3))

    asyncio.run(story())


class GrowingStore(Store):
    """A store that gets more room when it is told to, between two writes, as nobody else may use it meanwhile."""

    wanted_bytes = 0

    def append(self, batch: BlockBatch) -> None:
        if self.wanted_bytes:
            self._environment.set_mapsize(self.wanted_bytes)
            self.wanted_bytes = 0
        super().append(batch)


def test_a_full_store_goes_on_when_it_has_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("openresource.node.engine.RETRY_WRITE_SECONDS", 0.05)

    async def story() -> None:
        store = GrowingStore.open(tmp_path, map_bytes=512 * 1024)
        assert isinstance(store, GrowingStore)
        async with running_engine(tmp_path, store=store) as engine:
            written = []
            with pytest.raises(DiskFull):
                for number in range(1_000):
                    transaction = write(f"/large/k{number}", "x" * 5_000)
                    await engine.submit(transaction)
                    written.append(transaction)
                    await engine.wait_final(transaction.hash, 0.2)
            assert len(written) > 5
            store.wanted_bytes = 64 * 1024 * 1024
            await until(lambda: not engine.is_disk_full)
            for transaction in written:
                assert await engine.wait_final(transaction.hash, DEADLINE_SECONDS)
                assert engine.place_of(transaction.hash) is not None
            await engine.submit(write("/after", 1))

    asyncio.run(story())


def test_a_kernel_that_throws_costs_one_transaction(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def story() -> None:
        async with running_engine(tmp_path) as engine:
            insert = engine.machine.insert

            def throwing(transaction: Any) -> Any:
                if transaction.operation["value"] == "bug":
                    raise ZeroDivisionError("a mistake of ours")
                return insert(transaction)

            monkeypatch.setattr(engine.machine, "insert", throwing)
            before, after = write("/before", 1), write("/after", 1)
            await engine.submit(before)
            with pytest.raises(ZeroDivisionError):
                await engine.submit(write("/x", "bug"))
            await engine.submit(after)
            for transaction in (before, after):
                assert await engine.wait_final(transaction.hash, DEADLINE_SECONDS)
                assert engine.place_of(transaction.hash) is not None

    asyncio.run(story())


def test_events_of_a_block_are_kept_in_order(tmp_path: Path) -> None:
    async def story() -> None:
        async with running_engine(tmp_path) as engine:
            transaction = write("/a/b", {"c": 1})
            await engine.submit(transaction)
            await engine.wait_final(transaction.hash, DEADLINE_SECONDS)
        async with running_engine(tmp_path) as engine:
            wrote, block = engine.events_of(1)
            assert (wrote.kind, wrote.path, wrote.value, wrote.by) == ("WRITE", "/a/b", {"c": 1}, "user")
            assert (str(wrote.cursor), wrote.tx_hash, wrote.is_final) == ("1:0", transaction.hash, True)
            assert (block.kind, str(block.cursor)) == ("BLOCK", "1:1")

    asyncio.run(story())


def test_events_are_stored_as_those_are_told_who_watch(tmp_path: Path) -> None:
    engine = make_engine(tmp_path)
    try:
        machine = engine.machine
        machine.open_block(2_000, engine.producer_address)
        for path, value in (("/a/b", {"c": 1.5, "d": {"é": None}}), ("/x", "\ud800"), ("/fee", 1e21)):
            machine.insert(write(path, value))
        machine.insert(write("/bad", FAILING_VALUE))
        sealed = machine.seal()
        # Only writes below /values are told.
        hidden = Change(("rules", "a"), {}, "user")
        sealed = replace(sealed, opening_changes=(hidden, Change(("values", "due", "1"), None, "due")))
        events = events_of_block(sealed)
        assert [event.path for event in events] == ["/due/1", "/a/b", "/x", "/fee", "/"]
        assert event_records(sealed) == [event_bytes(event) for event in events]
        assert [event.cursor.index for event in events] == list(range(5))
    finally:
        engine.store.close()


def test_blocks_are_kept_in_memory_within_bounds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def story() -> None:
        async with running_engine(tmp_path) as engine:
            for value in range(8):
                transaction = write("/x", "v" * 1_000 + str(value))
                await engine.submit(transaction)
                assert await engine.wait_final(transaction.hash, DEADLINE_SECONDS)
                last = engine.last_height()
                # The newest one needs no store; those before have given way to it.
                assert last in engine._blocks and len(engine._blocks) <= 3
                assert sum(block["size"] for block in engine._blocks.values()) <= 6_000
            for height in range(engine.last_height() + 1):
                raw = engine.store.block(height)
                assert raw is not None and encode(engine.block(height)) == raw

    monkeypatch.setattr(module, "BLOCKS_KEPT_MAX", 3)
    monkeypatch.setattr(module, "BLOCKS_KEPT_BYTES_MAX", 6_000)
    asyncio.run(story())
