"""Admission: no work without cover, no call counted twice, nothing forgotten, whatever happens in between."""

from __future__ import annotations

import asyncio
import errno
import os
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from openresource.market.channels import VoucherSignedByOther
from openresource.market.tabs import (
    UnknownSession,
    VoucherAcknowledgesUnknown,
    VoucherMissing,
    VoucherOutOfOrder,
    VoucherPastDeposit,
    VoucherReplayed,
    VoucherTooSmall,
)
from openresource.market.vouchers import (
    VoucherAhead,
    VoucherForOtherChannel,
    VoucherForOtherNetwork,
    VoucherTooOld,
)
from openresource.primitives.errors import InvalidInput, Refusal
from openresource.provider import admission, journal
from openresource.provider.admission import (
    CallUndone,
    ChannelExpiresSoon,
    ChannelForOtherService,
    ChannelOfOtherProvider,
    ChannelUnknown,
)
from openresource.provider.answers import AnswerForgotten, CallKeyReused
from openresource.provider.journal import JournalFull
from tests.provider.support import (
    BUYER,
    NETWORK,
    OTHER_NETWORK,
    OTHER_PROGRAM,
    PROGRAM,
    STRANGER,
    Clock,
    Desk,
    MemoryLedger,
    Purse,
    key_of,
    open_desk,
    paid_call,
)

FINGERPRINT = b"f" * 16
PRICE = 100


def at_a_desk(
    folder: Path, work: Callable[[Desk, Purse], Awaitable[Any]], *, deposit_uain: int = 10_000
) -> Any:
    async def body() -> Any:
        ledger, clock = MemoryLedger(), Clock()
        name = ledger.open("aa" * 8, deposit_uain=deposit_uain, at_ms=clock())
        desk = open_desk(folder, ledger, clock)
        try:
            return await work(desk, Purse(name))
        finally:
            await desk.close()

    return asyncio.run(asyncio.wait_for(body(), 60))


async def begin(desk: Desk, purse: Purse, sequence: int, header: bytes = b"", program: str = PROGRAM) -> Any:
    account = await desk.admission.account(purse.channel)
    return await desk.admission.begin(account, program, purse.call(sequence), FINGERPRINT, header)


async def complete(desk: Desk, purse: Purse, sequence: int) -> None:
    account = await desk.admission.account(purse.channel)
    paid = paid_call(desk, purse.channel, purse.call(sequence), PRICE)
    assert await desk.admission.complete(account, purse.call(sequence), paid)


def tab_of(desk: Desk, purse: Purse) -> Any:
    account = desk.admission.known_account(purse.channel)
    assert account is not None
    return account.tab


def test_a_covered_call_begins_and_counts_when_it_is_answered(tmp_path: Path) -> None:
    async def work(desk: Desk, purse: Purse) -> None:
        assert await begin(desk, purse, 1, purse.header(PRICE)) is None
        assert tab_of(desk, purse).in_flight_uain == PRICE
        await complete(desk, purse, 1)
        tab = tab_of(desk, purse)
        assert (tab.spent_uain, tab.in_flight_uain, tab.completed) == (PRICE, 0, 1)

    at_a_desk(tmp_path, work)


def test_a_voucher_and_the_receipt_go_down_with_one_sync_before_the_answer_may_leave(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A slow machine may take longer from the one to the other than the first one waits.
    monkeypatch.setattr(journal, "PATIENCE_SECONDS", 60.0)

    async def work(desk: Desk, purse: Purse) -> None:
        records, syncs = desk.journal.records, desk.journal.syncs
        await begin(desk, purse, 1, purse.header(PRICE))
        await complete(desk, purse, 1)
        assert desk.journal.records == records + 3
        assert desk.journal.syncs == syncs + 1

    at_a_desk(tmp_path, work)


def test_the_voucher_of_a_call_that_takes_long_is_on_disk_before_a_stream_begins(tmp_path: Path) -> None:
    async def work(desk: Desk, purse: Purse) -> None:
        records = desk.journal.records
        await begin(desk, purse, 1, purse.header(PRICE))
        await desk.admission.secure(await desk.admission.account(purse.channel))
        assert desk.journal.records == records + 2

    at_a_desk(tmp_path, work)


def test_the_chain_is_not_asked_for_a_channel_that_is_known(tmp_path: Path) -> None:
    async def work(desk: Desk, purse: Purse) -> None:
        await begin(desk, purse, 0, purse.header(PRICE * 20))
        reads = desk.ledger.reads
        await complete(desk, purse, 0)
        for sequence in range(1, 20):
            await begin(desk, purse, sequence)
            await complete(desk, purse, sequence)
        assert desk.ledger.reads == reads == 1

    at_a_desk(tmp_path, work)


def test_a_call_without_an_answer_costs_nothing_and_may_be_tried_again(tmp_path: Path) -> None:
    async def work(desk: Desk, purse: Purse) -> None:
        account = await desk.admission.account(purse.channel)
        for _ in range(3):
            assert await begin(desk, purse, 1, purse.header(PRICE)) is None
            desk.admission.release(account, purse.call(1))
        assert tab_of(desk, purse).in_flight_uain == 0
        assert await begin(desk, purse, 1) is None
        await complete(desk, purse, 1)

    at_a_desk(tmp_path, work)


def test_a_retry_gets_the_same_answer_and_is_not_counted_again(tmp_path: Path) -> None:
    async def work(desk: Desk, purse: Purse) -> None:
        await begin(desk, purse, 1, purse.header(PRICE))
        await complete(desk, purse, 1)
        for header in (b"", purse.header(PRICE), purse.header(PRICE * 2)):
            answer = await begin(desk, purse, 1, header)
            assert answer.body == b'"answer 1"'
        assert tab_of(desk, purse).spent_uain == PRICE

    at_a_desk(tmp_path, work)


def test_a_retry_of_a_call_in_progress_waits_for_it(tmp_path: Path) -> None:
    async def work(desk: Desk, purse: Purse) -> None:
        await begin(desk, purse, 1, purse.header(PRICE))
        retries = [asyncio.create_task(begin(desk, purse, 1)) for _ in range(5)]
        await asyncio.sleep(0.01)
        assert not any(retry.done() for retry in retries)
        await complete(desk, purse, 1)
        answers = await asyncio.gather(*retries)
        assert [answer.body for answer in answers] == [b'"answer 1"'] * 5
        assert tab_of(desk, purse).spent_uain == PRICE

    at_a_desk(tmp_path, work)


def test_one_retry_of_a_call_that_failed_runs_it_anew(tmp_path: Path) -> None:
    async def work(desk: Desk, purse: Purse) -> None:
        await begin(desk, purse, 1, purse.header(PRICE))
        retries = [asyncio.create_task(begin(desk, purse, 1)) for _ in range(3)]
        await asyncio.sleep(0.01)
        account = await desk.admission.account(purse.channel)
        desk.admission.release(account, purse.call(1))
        done, waiting = await asyncio.wait(retries, return_when=asyncio.FIRST_COMPLETED)
        assert [task.result() for task in done] == [None]
        await complete(desk, purse, 1)
        answers = await asyncio.gather(*waiting)
        assert all(answer.body == b'"answer 1"' for answer in answers)

    at_a_desk(tmp_path, work)


def test_a_number_stands_for_one_call_only(tmp_path: Path) -> None:
    async def work(desk: Desk, purse: Purse) -> None:
        await begin(desk, purse, 1, purse.header(PRICE))
        account = await desk.admission.account(purse.channel)
        for is_done in (False, True):
            if is_done:
                await complete(desk, purse, 1)
            with pytest.raises(CallKeyReused):
                await desk.admission.begin(account, PROGRAM, purse.call(1), b"other call.....!", b"")

    at_a_desk(tmp_path, work)


BAD_VOUCHERS: list[tuple[str, type[Refusal], Callable[[Purse], bytes]]] = [
    ("none at all", VoucherMissing, lambda purse: b""),
    ("too small", VoucherTooSmall, lambda purse: purse.header(PRICE - 1)),
    ("past the deposit", VoucherPastDeposit, lambda purse: purse.header(10_001)),
    ("of another channel", VoucherForOtherChannel, lambda purse: purse.header(PRICE, channel=f"{BUYER.address}/{'bb' * 8}")),
    ("of another network", VoucherForOtherNetwork, lambda purse: Purse(purse.channel, network=OTHER_NETWORK).header(PRICE)),
    ("of another key", VoucherSignedByOther, lambda purse: Purse(purse.channel, key=STRANGER).header(PRICE)),
    ("ahead of the channel", VoucherAhead, lambda purse: Purse(purse.channel, nonce=1).header(PRICE)),
    ("acknowledging what was not", VoucherAcknowledgesUnknown, lambda purse: purse.header(PRICE, acknowledged=1)),
    ("acknowledging another hash", VoucherAcknowledgesUnknown, lambda purse: purse.header(PRICE, receipts=b"x" * 32)),
    ("for another session", UnknownSession, lambda purse: Purse(purse.channel, secret=b"\x08" * 32).header(PRICE)),
    ("not base64", InvalidInput, lambda purse: b"%%%"),
    ("not JSON", InvalidInput, lambda purse: b"bm90IGpzb24="),
    ("too long", InvalidInput, lambda purse: b"A" * 20_000),
]  # fmt: skip


@pytest.mark.parametrize(("name", "refusal", "header"), BAD_VOUCHERS, ids=[bad[0] for bad in BAD_VOUCHERS])
def test_a_bad_voucher_begins_no_work(
    tmp_path: Path, name: str, refusal: type[Refusal], header: Callable[[Purse], bytes]
) -> None:
    async def work(desk: Desk, purse: Purse) -> None:
        with pytest.raises(Refusal) as caught:
            await begin(desk, purse, 1, header(purse))
        assert isinstance(caught.value, refusal) or name == "not JSON"
        tab = tab_of(desk, purse)
        assert (tab.voucher, tab.in_flight_uain, tab.spent_uain) == (None, 0, 0)

    at_a_desk(tmp_path, work)


def test_another_networks_voucher_without_its_name_is_another_key(tmp_path: Path) -> None:
    async def work(desk: Desk, purse: Purse) -> None:
        from openresource.market.vouchers import voucher_to_json
        from tests.provider.support import payment_header

        foreign = voucher_to_json(Purse(purse.channel, network=OTHER_NETWORK).voucher(PRICE))
        foreign.pop("network")
        with pytest.raises(VoucherSignedByOther):
            await begin(desk, purse, 1, payment_header(foreign))

    at_a_desk(tmp_path, work)


def test_totals_only_grow_and_a_spent_voucher_buys_nothing(tmp_path: Path) -> None:
    async def work(desk: Desk, purse: Purse) -> None:
        two = purse.header(PRICE * 2)
        await begin(desk, purse, 1, two)
        await complete(desk, purse, 1)
        await begin(desk, purse, 2, two)
        await complete(desk, purse, 2)
        with pytest.raises(VoucherReplayed):
            await begin(desk, purse, 3, two)
        with pytest.raises(VoucherOutOfOrder):
            await begin(desk, purse, 3, purse.header(PRICE))
        with pytest.raises(VoucherTooSmall):
            await begin(desk, purse, 3)

    at_a_desk(tmp_path, work)


def test_calls_run_concurrently_while_their_sum_fits(tmp_path: Path) -> None:
    async def work(desk: Desk, purse: Purse) -> None:
        await begin(desk, purse, 1, purse.header(PRICE * 3))
        await begin(desk, purse, 2)
        await begin(desk, purse, 3)
        with pytest.raises(VoucherTooSmall):
            await begin(desk, purse, 4)
        for sequence in (3, 1, 2):
            await complete(desk, purse, sequence)
        assert tab_of(desk, purse).spent_uain == PRICE * 3

    at_a_desk(tmp_path, work)


def test_concurrent_vouchers_may_overtake_each_other(tmp_path: Path) -> None:
    async def work(desk: Desk, purse: Purse) -> None:
        headers = [purse.header(PRICE * number) for number in range(1, 9)]
        tasks = [begin(desk, purse, number, headers[number]) for number in (7, 2, 5, 0, 1, 3, 4, 6)]
        assert await asyncio.gather(*tasks) == [None] * 8
        assert tab_of(desk, purse).in_flight_uain == PRICE * 8

    at_a_desk(tmp_path, work)


def test_a_channel_must_exist_be_ours_and_be_for_this_program(tmp_path: Path) -> None:
    async def work(desk: Desk, purse: Purse) -> None:
        clock = desk.clock
        with pytest.raises(ChannelUnknown):
            await begin(desk, Purse(f"{BUYER.address}/{'cc' * 8}"), 1)
        foreign = desk.ledger.open("dd" * 8, deposit_uain=1000, at_ms=clock(), provider=key_of("another"))
        with pytest.raises(ChannelOfOtherProvider):
            await begin(desk, Purse(foreign), 1)
        with pytest.raises(ChannelForOtherService):
            await begin(desk, purse, 1, purse.header(PRICE), program=OTHER_PROGRAM)

    at_a_desk(tmp_path, work)


def test_an_unknown_channel_is_not_looked_up_on_every_call(tmp_path: Path) -> None:
    async def work(desk: Desk, purse: Purse) -> None:
        unknown = Purse(f"{BUYER.address}/{'cc' * 8}")
        for _ in range(20):
            with pytest.raises(ChannelUnknown):
                await begin(desk, unknown, 1)
        assert desk.ledger.reads == 1
        desk.clock.now_ms += 2_000
        desk.ledger.open("cc" * 8, deposit_uain=1000, at_ms=desk.clock())
        assert await begin(desk, unknown, 1, unknown.header(PRICE)) is None

    at_a_desk(tmp_path, work)


def test_added_money_is_seen_when_a_voucher_needs_it(tmp_path: Path) -> None:
    async def work(desk: Desk, purse: Purse) -> None:
        await begin(desk, purse, 1, purse.header(PRICE))
        desk.ledger.change(purse.channel, value_uain=20_000)
        desk.clock.now_ms += 2_000
        assert await begin(desk, purse, 2, purse.header(15_000)) is None

    at_a_desk(tmp_path, work)


def test_no_call_begins_when_the_expiry_is_near_unless_it_was_extended(tmp_path: Path) -> None:
    async def work(desk: Desk, purse: Purse) -> None:
        name = desk.ledger.open("ee" * 8, deposit_uain=1000, at_ms=desk.clock(), lifetime_ms=10_000)
        short = Purse(name)
        await begin(desk, short, 1, short.header(PRICE * 5))
        desk.clock.now_ms += 8_500
        with pytest.raises(ChannelExpiresSoon) as caught:
            await begin(desk, short, 2)
        assert "Extend" in caught.value.remedy
        desk.clock.now_ms += 1_100
        desk.ledger.change(name, expires_at_ms=desk.clock() + 100_000)
        assert await begin(desk, short, 2) is None

    at_a_desk(tmp_path, work)


def test_everything_is_there_again_after_a_kill(tmp_path: Path) -> None:
    async def body() -> None:
        ledger, clock = MemoryLedger(), Clock()
        purse = Purse(ledger.open("aa" * 8, deposit_uain=10_000, at_ms=clock()))
        desk = open_desk(tmp_path, ledger, clock)
        for sequence in range(1, 6):
            await begin(desk, purse, sequence, purse.header(PRICE * sequence))
            if sequence != 3:
                await complete(desk, purse, sequence)
        before = tab_of(desk, purse)
        desk.journal.abandon()
        again = open_desk(tmp_path, ledger, clock)
        after = tab_of(again, purse)
        assert after.voucher.total_uain == before.voucher.total_uain
        assert (after.spent_uain, after.completed, after.hashes) == (PRICE * 4, 4, before.hashes)
        # The call that was in flight is not locked: it may simply be sent again.
        assert (after.in_flight_uain, dict(after.in_flight)) == (0, {})
        assert await begin(again, purse, 3) is None
        await complete(again, purse, 3)
        answer = await begin(again, purse, 5)
        assert answer.body == b'"answer 5"'
        await again.close()

    asyncio.run(asyncio.wait_for(body(), 60))


def test_a_snapshot_says_the_same_in_fewer_bytes(tmp_path: Path) -> None:
    async def body() -> None:
        ledger, clock = MemoryLedger(), Clock()
        purse = Purse(ledger.open("aa" * 8, deposit_uain=100_000, at_ms=clock()))
        desk = open_desk(tmp_path, ledger, clock)
        await begin(desk, purse, 0, purse.header(PRICE * 300))
        await complete(desk, purse, 0)
        for sequence in range(1, 200):
            await begin(desk, purse, sequence)
            await complete(desk, purse, sequence)
        await desk.admission.count_test_call(PROGRAM, 7)
        before, size = tab_of(desk, purse), desk.journal.size_bytes
        compacting = asyncio.create_task(desk.admission.compact(bytes_max=1000))
        for sequence in range(200, 210):
            await begin(desk, purse, sequence)
            await complete(desk, purse, sequence)
        await compacting
        assert desk.journal.size_bytes < size / 2
        await begin(desk, purse, 210)
        await complete(desk, purse, 210)
        before = tab_of(desk, purse)
        desk.journal.abandon()
        again = open_desk(tmp_path, ledger, clock)
        after = tab_of(again, purse)
        for member in ("nonce", "spent_uain", "completed", "hashes", "voucher", "sessions", "acknowledged"):
            assert getattr(after, member) == getattr(before, member), member
        assert again.admission.test_calls(PROGRAM).used == 1
        for sequence in (3, 205, 210):
            assert (await begin(again, purse, sequence)).body == b'"answer %d"' % sequence
        receipt = await again.answers.receipt((4).to_bytes(4, "big") * 8)
        assert receipt == b'{"completed":4}'
        await again.close()

    asyncio.run(asyncio.wait_for(body(), 60))


def test_a_full_disk_charges_nothing_and_the_state_stays_what_the_disk_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The journal takes records again when this says so.
    monkeypatch.setattr(admission, "RESUME_SECONDS", 3_600.0)
    is_full = False

    def small_disk(descriptor: int, data: Any, position: int) -> int:
        if is_full:
            raise OSError(errno.ENOSPC, "No space left on device")
        return os.pwrite(descriptor, data, position)

    async def body() -> None:
        nonlocal is_full
        ledger, clock = MemoryLedger(), Clock()
        purse = Purse(ledger.open("aa" * 8, deposit_uain=10_000, at_ms=clock()))
        desk = open_desk(tmp_path, ledger, clock, write_file=small_disk)
        await begin(desk, purse, 1, purse.header(PRICE * 3))
        await complete(desk, purse, 1)
        await begin(desk, purse, 2)
        is_full = True
        with pytest.raises(JournalFull):
            await complete(desk, purse, 2)
        with pytest.raises(JournalFull):
            await begin(desk, purse, 3)
        with pytest.raises(JournalFull):
            await begin(desk, purse, 3, purse.header(PRICE * 5))
        tab = tab_of(desk, purse)
        assert (tab.spent_uain, tab.completed, tab.in_flight_uain) == (PRICE, 1, 0)
        account = await desk.admission.account(purse.channel)
        with pytest.raises(CallUndone):
            desk.admission.complete(
                account, purse.call(2), paid_call(desk, purse.channel, purse.call(2), PRICE)
            )
        is_full = False
        desk.journal.resume()
        assert await begin(desk, purse, 2) is None
        await complete(desk, purse, 2)
        await desk.close()
        again = open_desk(tmp_path, ledger, clock)
        assert tab_of(again, purse).spent_uain == PRICE * 2
        await again.close()

    asyncio.run(asyncio.wait_for(body(), 60))


def test_a_claim_closes_the_nonce_and_the_next_one_begins_with_the_rest(tmp_path: Path) -> None:
    async def work(desk: Desk, purse: Purse) -> None:
        admission = desk.admission
        await begin(desk, purse, 1, purse.header(PRICE * 10))
        await begin(desk, purse, 2)
        await complete(desk, purse, 1)
        account = await admission.account(purse.channel)
        stopping = asyncio.create_task(admission.stop_admitting(account))
        await asyncio.sleep(0.01)
        assert not stopping.done(), "a call is in flight under the old nonce"
        late = asyncio.create_task(begin(desk, purse, 3))
        await complete(desk, purse, 2)
        await stopping
        planned = await admission.begin_claim(account, send_back=False)
        assert planned is not None
        assert planned.amount_uain == PRICE * 2, "the sum of the receipts, not the voucher's total"
        assert not late.done()
        record = {**desk.ledger.values[f"/channels/{purse.channel}/state"], "nonce": 1, "claimed_uain": 200}
        await admission.claim_final(account, "0xhash", PRICE * 2, record, 9_800)
        with pytest.raises(VoucherMissing):
            await late
        with pytest.raises(VoucherTooOld) as caught:
            await begin(desk, purse, 3, purse.header(PRICE * 11))
        assert caught.value.expected == 1
        fresh = Purse(purse.channel, nonce=1)
        assert await begin(desk, fresh, 3, fresh.header(PRICE)) is None
        # A retry from before the claim is still the same call.
        assert (await begin(desk, fresh, 2)).body == b'"answer 2"'
        await complete(desk, fresh, 3)
        assert tab_of(desk, purse).spent_uain == PRICE

    at_a_desk(tmp_path, work)


def test_a_claim_that_may_be_on_its_way_survives_a_kill(tmp_path: Path) -> None:
    async def body() -> None:
        ledger, clock = MemoryLedger(), Clock()
        purse = Purse(ledger.open("aa" * 8, deposit_uain=10_000, at_ms=clock()))
        desk = open_desk(tmp_path, ledger, clock)
        await begin(desk, purse, 1, purse.header(PRICE))
        await complete(desk, purse, 1)
        account = await desk.admission.account(purse.channel)
        await desk.admission.stop_admitting(account)
        await desk.admission.begin_claim(account, send_back=True)
        desk.journal.abandon()
        again = open_desk(tmp_path, ledger, clock)
        account = await again.admission.account(purse.channel)
        assert (account.is_open, account.claim_amount_uain, account.send_back) == (False, PRICE, True)
        await again.admission.claim_failed(account)
        assert await begin(again, purse, 2, purse.header(PRICE * 2)) is None
        await again.close()

    asyncio.run(asyncio.wait_for(body(), 60))


def test_an_answer_whose_time_is_over_is_not_computed_or_charged_again(tmp_path: Path) -> None:
    async def work(desk: Desk, purse: Purse) -> None:
        await begin(desk, purse, 1, purse.header(PRICE * 5))
        await complete(desk, purse, 1)
        await desk.books.flush()
        desk.answers._answers.clear()
        assert (await begin(desk, purse, 1)).body == b'"answer 1"'
        desk.books.write("DELETE FROM answers", ())
        await desk.books.flush()
        with pytest.raises(AnswerForgotten):
            await begin(desk, purse, 1)
        assert tab_of(desk, purse).spent_uain == PRICE

    at_a_desk(tmp_path, work)


def test_papers_of_the_tests_are_for_the_test_network() -> None:
    assert NETWORK != OTHER_NETWORK
