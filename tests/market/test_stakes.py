"""Stakes and their weight in a vote: no coin votes twice, whatever its owner moves while the vote lasts."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from openresource.ledger.draft import Draft, InsufficientBalance
from openresource.market.accounts import stake_account
from openresource.market.bonds import Withdrawal
from openresource.market.fields import InvalidRecord
from openresource.market.money import where_coins_are
from openresource.market.natives.stakes import all_stake_uain, stake_of
from openresource.market.stakes import (
    LEAVING_MAX,
    STAKE_DELAY_MS_DEFAULT,
    STEPS_MAX,
    VOTE_MS_MAX,
    Stake,
    StakeChangedTooOften,
    StakeNotFree,
    StakeOutOfRange,
    paid_out,
    read_stake,
    stake_more,
    stake_record,
    unstake,
    weight_uain,
)
from openresource.primitives.amounts import UAIN_MAX
from openresource.primitives.keys import PrivateKey, generate_key
from tests.market.small_chain import BUYER, RECORD, STRANGER, SmallChain
from tests.market.test_natives import refused

ACCOUNT = stake_account(BUYER.address)
PEOPLE = tuple(generate_key(bytes([65 + number]) * 32) for number in range(3))


def stake_path(key: PrivateKey, deed: str, record: str = RECORD) -> str:
    return f"/stakes/{key.address}/{deed}/{record}"


def rich_chain(*keys: PrivateKey, amount_uain: int = 10_000) -> SmallChain:
    chain = SmallChain()
    for key in keys:
        chain.state.give(key.address, amount_uain)
    return chain


def stake(chain: SmallChain, key: PrivateKey) -> Stake:
    return stake_of(Draft(chain.state, (), ""), key.address)


def total(chain: SmallChain) -> int:
    return all_stake_uain(Draft(chain.state, (), ""))


def test_a_stake_is_the_balance_of_its_account_and_counts_in_the_sum_of_all() -> None:
    chain = rich_chain(BUYER, STRANGER)
    chain.write(BUYER, stake_path(BUYER, "add"), {"amount_uain": 4_000})
    chain.write(STRANGER, stake_path(STRANGER, "add"), {"amount_uain": 1_000})
    assert chain.balance(ACCOUNT) == stake(chain, BUYER).counted_uain == 4_000
    assert total(chain) == 5_000 and chain.balance(BUYER.address) == 6_000
    assert chain.get(stake_path(BUYER, "add")) is None


def test_what_is_withdrawn_counts_no_more_and_comes_back_whole_after_the_delay() -> None:
    chain = rich_chain(BUYER)
    chain.write(BUYER, stake_path(BUYER, "add"), {"amount_uain": 4_000})
    chain.write(BUYER, stake_path(BUYER, "withdraw"), {"amount_uain": 3_000})
    assert stake(chain, BUYER).counted_uain == total(chain) == 1_000
    chain.wait(STAKE_DELAY_MS_DEFAULT - 1)
    assert chain.balance(BUYER.address) == 6_000
    chain.wait(1)
    assert chain.balance(BUYER.address) == 9_000 and chain.balance(ACCOUNT) == 1_000
    assert stake(chain, BUYER).counted_uain == total(chain) == 1_000 and not stake(chain, BUYER).leaving


def test_what_voted_stays_until_the_vote_is_counted_even_if_the_network_pays_back_sooner() -> None:
    chain = rich_chain(BUYER)
    chain.state.write_value(("blockchain_params", "market"), {"stake_delay_ms": 10, "kill_vote_ms": 5_000})
    chain.write(BUYER, stake_path(BUYER, "add"), {"amount_uain": 4_000})
    chain.write(BUYER, stake_path(BUYER, "withdraw"), {"amount_uain": 4_000})
    chain.wait(4_999)
    assert chain.balance(BUYER.address) == 6_000
    chain.wait(1)
    assert chain.balance(BUYER.address) == 10_000


def test_a_stake_refuses_what_is_not_there_not_free_or_out_of_range() -> None:
    chain = rich_chain(BUYER)
    chain.write(BUYER, stake_path(BUYER, "add"), {"amount_uain": 4_000})
    refused(chain, InsufficientBalance, BUYER, stake_path(BUYER, "add"), {"amount_uain": 6_001})
    refused(chain, StakeOutOfRange, BUYER, stake_path(BUYER, "add"), {"amount_uain": UAIN_MAX})
    refused(chain, StakeNotFree, BUYER, stake_path(BUYER, "withdraw"), {"amount_uain": 4_001})
    refused(chain, InvalidRecord, BUYER, stake_path(BUYER, "add"), {"amount_uain": 0})
    refused(chain, InvalidRecord, BUYER, stake_path(BUYER, "add"), {"amount_uain": 1, "more": 1})
    refused(chain, InvalidRecord, BUYER, stake_path(BUYER, "add", "short"), {"amount_uain": 1})
    lower = f"/stakes/{BUYER.address.lower()}/add/{RECORD}"
    refused(chain, InvalidRecord, BUYER, lower, {"amount_uain": 1})
    chain.write(BUYER, stake_path(BUYER, "withdraw"), {"amount_uain": 1})
    refused(chain, InvalidRecord, BUYER, stake_path(BUYER, "withdraw"), {"amount_uain": 1})


def test_withdrawals_and_changes_have_bounds_and_old_steps_are_forgotten() -> None:
    one = stake_more(Stake("0x1"), 1_000, 1)
    for number in range(LEAVING_MAX):
        one = unstake(one, f"{number}", 1, 2, 10)
    try:
        unstake(one, "more", 1, 2, 10)
        raise AssertionError("a withdrawal too many was taken")
    except StakeChangedTooOften:
        pass
    many = Stake("0x1")
    for at_ms in range(1, STEPS_MAX + 1):
        many = stake_more(many, 1, at_ms)
    try:
        stake_more(many, 1, STEPS_MAX + 1)
        raise AssertionError("a change too many was taken")
    except StakeChangedTooOften:
        pass
    later = stake_more(many, 1, STEPS_MAX + VOTE_MS_MAX)
    assert set(later.steps) == {STEPS_MAX, STEPS_MAX + VOTE_MS_MAX}


def test_only_what_was_staked_before_a_vote_began_and_stayed_has_weight() -> None:
    one = stake_more(Stake("0x1"), 100, 10)
    assert weight_uain(one, 10) == 0 and weight_uain(one, 11) == 100
    more = stake_more(one, 900, 20)
    assert weight_uain(more, 15) == 100 and weight_uain(more, 21) == 1_000
    less = unstake(more, "a", 950, 30, 5)
    assert weight_uain(less, 15) == 50 and weight_uain(less, 21) == 50
    # What left and came again has left.
    again = stake_more(less, 950, 40)
    assert weight_uain(again, 21) == 50 and weight_uain(again, 41) == 1_000


def test_a_stake_is_read_back_as_it_was_written() -> None:
    one = unstake(stake_more(stake_more(Stake("0x1"), 100, 10), 5, 20), "aa", 30, 25, 100)
    assert read_stake("0x1", stake_record(one), one.held_uain) == one
    assert one.leaving == {"aa": Withdrawal(30, 125)}
    assert paid_out(one, "bb") == (one, 0)


def test_a_stake_is_among_the_coins_of_its_owner() -> None:
    chain = rich_chain(BUYER)
    chain.write(BUYER, stake_path(BUYER, "add"), {"amount_uain": 4_000})
    chain.write(BUYER, stake_path(BUYER, "withdraw"), {"amount_uain": 1_000})
    places = where_coins_are(BUYER.address, 6_000, at_ms=chain.at, stake=stake(chain, BUYER))
    assert [(coins.place, coins.amount_uain, coins.returns_by_itself) for coins in places] == [
        ("wallet", 6_000, True),
        ("stake", 1_000, True),
        ("stake", 3_000, False),
    ]
    assert places[1].returns_at_ms == chain.at + STAKE_DELAY_MS_DEFAULT


MOVES = st.lists(
    st.tuples(
        st.integers(0, len(PEOPLE) - 1),
        st.sampled_from(["add", "withdraw", "wait", "send"]),
        st.integers(1, 3_000),
    ),
    max_size=40,
)


@settings(max_examples=60, deadline=None)
@given(before=MOVES, during=MOVES)
def test_whatever_moves_during_a_vote_all_weights_together_never_pass_what_was_staked_at_its_beginning(
    before: list[tuple[int, str, int]], during: list[tuple[int, str, int]]
) -> None:
    chain = rich_chain(*PEOPLE, amount_uain=5_000)
    chain.state.write_value(("blockchain_params", "market"), {"stake_delay_ms": 50, "kill_vote_ms": 50})
    count = [0]
    _move(chain, before, count)
    chain.wait(1)
    began_at_ms, all_uain, supply = chain.at, total(chain), chain.state.supply_uain()
    _move(chain, during, count)
    weights = [weight_uain(stake(chain, key), began_at_ms) for key in PEOPLE]
    assert sum(weights) <= all_uain
    assert total(chain) == sum(stake(chain, key).counted_uain for key in PEOPLE)
    assert chain.state.supply_uain() == supply
    for key, weight in zip(PEOPLE, weights, strict=True):
        assert weight <= stake(chain, key).counted_uain


def _move(chain: SmallChain, moves: list[tuple[int, str, int]], count: list[int]) -> None:
    for who, deed, amount in moves:
        key, count[0] = PEOPLE[who], count[0] + 1
        if deed == "wait":
            chain.wait(amount % 60)
        elif deed == "send":
            # Money that came back is given to somebody else, who stakes it.
            free = min(amount, chain.balance(key.address))
            Draft(chain.state, (), key.address).move(
                key.address, PEOPLE[(who + 1) % len(PEOPLE)].address, free
            )
        else:
            try:
                chain.write(key, stake_path(key, deed, f"{count[0]:016x}"), {"amount_uain": amount})
            except (InsufficientBalance, StakeNotFree, StakeChangedTooOften):
                continue
