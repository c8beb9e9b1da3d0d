"""Reputation: paid and verified work alone counts, one friend little, and no number of names makes it cheaper."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from openresource.market.records import ProviderRecord
from openresource.market.reputation import (
    PAIR_UNIT_UAIN,
    Pair,
    audited_ppm,
    count_payment,
    pair_record,
    pair_weight_uain,
    read_pair,
    reputation_of,
    reputation_record,
)
from openresource.primitives.amounts import PPM
from tests.market.small_chain import (
    BUYER,
    CHANNEL_PATH,
    PROVIDER,
    RECORD,
    claim_record,
    opening,
    published_chain,
    voucher,
)

FEES = st.integers(0, 10**15)
COUNTS = st.integers(0, 10**9)


def score(fees: list[int], valid: int = 0, faults: int = 0) -> int:
    pairs = {f"buyer {number}": Pair(1, fee * 50, fee, 1) for number, fee in enumerate(fees)}
    return reputation_of(ProviderRecord(valid=valid, faults=faults), pairs).score_uain


def test_a_claim_is_counted_for_the_pair_and_paying_oneself_is_not() -> None:
    chain = published_chain()
    chain.write(BUYER, f"{CHANNEL_PATH}/open", opening())
    chain.write(PROVIDER, f"{CHANNEL_PATH}/claim/{RECORD}", claim_record(voucher(1_400), 1_400))
    path = f"/pairs/{PROVIDER.address}/{BUYER.address}"
    assert chain.get(path) == {"payments": 1, "paid_uain": 1_400, "fee_uain": 28, "last_ms": chain.at}
    chain.wait(5)
    chain.write(PROVIDER, f"{CHANNEL_PATH}/claim/{RECORD}", claim_record(voucher(700, nonce=1), 700))
    chain.write(PROVIDER, f"{CHANNEL_PATH}/claim/{RECORD}", claim_record(voucher(0, nonce=2), 0))
    assert chain.get(path) == {"payments": 2, "paid_uain": 2_100, "fee_uain": 42, "last_ms": chain.at}
    # Under one name the provider's own channel counts for nothing.
    own = f"/channels/{PROVIDER.address}/{'cd' * 16}"
    chain.state.give(PROVIDER.address, 100_000)
    chain.write(PROVIDER, f"{own}/open", opening())
    paper = voucher(700, key=PROVIDER, channel=f"{PROVIDER.address}/{'cd' * 16}")
    chain.write(PROVIDER, f"{own}/claim/{RECORD}", claim_record(paper, 700))
    assert set(chain.get(f"/pairs/{PROVIDER.address}")) == {BUYER.address}


def test_one_buyers_fees_count_half_as_much_with_every_doubling() -> None:
    unit = PAIR_UNIT_UAIN
    assert [pair_weight_uain(unit * times) for times in (0, 1, 2, 4, 8, 1024)] == [
        0, unit, 2 * unit, 3 * unit, 4 * unit, 11 * unit,
    ]  # fmt: skip
    assert pair_weight_uain(3 * unit) == unit * 5 // 2
    # Twenty strangers are worth more than one friend who pays fifty times as much as all of them.
    assert score([unit] * 20) > score([unit * 1000])


def test_what_nobody_verified_counts_a_tenth_and_a_fault_a_hundred_results() -> None:
    assert audited_ppm(0, 0) == PPM // 10
    assert audited_ppm(90, 0) == PPM * 91 // 100
    assert audited_ppm(1_000, 1) < audited_ppm(900, 0)
    assert score([], valid=1_000) == 0


@given(FEES, FEES)
def test_the_weight_of_a_pair_grows_and_never_passes_the_fees(one: int, more: int) -> None:
    weight = pair_weight_uain(one)
    assert 0 <= weight <= one
    assert weight <= pair_weight_uain(one + more) <= weight + more


@given(st.lists(FEES, max_size=20), COUNTS, COUNTS)
def test_no_number_of_names_makes_a_score_cheaper_than_its_fees(
    fees: list[int], valid: int, faults: int
) -> None:
    assert score(fees, valid, faults) <= sum(fees)
    # Before anything was verified it is ten times as dear.
    assert 10 * score(fees) <= sum(fees)


@given(st.lists(FEES, max_size=10), COUNTS, COUNTS, st.integers(1, 10**9))
def test_verified_work_never_lowers_a_score_and_a_fault_never_raises_it(
    fees: list[int], valid: int, faults: int, more: int
) -> None:
    assert score(fees, valid + more, faults) >= score(fees, valid, faults)
    assert score(fees, valid, faults + more) <= score(fees, valid, faults)


@given(st.lists(FEES, max_size=10), st.randoms(use_true_random=False))
def test_the_order_of_buyers_changes_nothing(fees: list[int], chance: Any) -> None:
    other = list(fees)
    chance.shuffle(other)
    assert score(fees, 7) == score(other, 7)


def test_records_are_read_back_as_they_were_written() -> None:
    pair = count_payment(count_payment(Pair(), 700, 14, 5), 0, 0, 9)
    assert pair == Pair(1, 700, 14, 5) and read_pair(pair_record(pair)) == pair and read_pair(None) == Pair()
    shown = reputation_record(reputation_of(ProviderRecord(claims=3, valid=9), {"a": pair, "b": Pair()}))
    assert shown["buyers"] == 1 and shown["fee_uain"] == 14 and shown["claims"] == 3
