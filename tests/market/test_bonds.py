"""Bonds and records: what is bonded comes back late and whole, and what was claimed is counted."""

from __future__ import annotations

from dataclasses import replace

from openresource.ledger.draft import Draft, InsufficientBalance
from openresource.market.accounts import bond_account
from openresource.market.bonds import (
    BOND_DELAY_MS_DEFAULT,
    RECENT_MAX,
    RECENT_MS,
    WITHDRAWALS_MAX,
    Bond,
    BondNotFree,
    BondOutOfRange,
    TooManyWithdrawals,
    read_bond,
    with_addition,
)
from openresource.market.fields import InvalidRecord
from openresource.market.money import where_coins_are
from openresource.market.natives.bonds import bond_of
from openresource.primitives.amounts import UAIN_MAX
from tests.market.small_chain import (
    BUYER,
    CHANNEL_PATH,
    PROVIDER,
    RECORD,
    SmallChain,
    claim_record,
    opening,
    published_chain,
    voucher,
)
from tests.market.test_natives import refused

ADD = f"/bonds/{PROVIDER.address}/add/{RECORD}"
WITHDRAW = f"/bonds/{PROVIDER.address}/withdraw"
ACCOUNT = bond_account(PROVIDER.address)


def bonded_chain(amount_uain: int = 10_000) -> SmallChain:
    chain = published_chain()
    chain.state.give(PROVIDER.address, 20_000)
    chain.write(PROVIDER, ADD, {"amount_uain": amount_uain})
    return chain


def counted(chain: SmallChain) -> int:
    return bond_of(Draft(chain.state, (), ""), PROVIDER.address).counted_uain


def test_a_bond_is_the_balance_of_its_account_and_anybody_may_add_to_it() -> None:
    chain = bonded_chain()
    assert chain.balance(ACCOUNT) == counted(chain) == 10_000
    chain.write(BUYER, ADD, {"amount_uain": 5})
    assert chain.balance(ACCOUNT) == 10_005 and chain.balance(BUYER.address) == 999_995
    assert chain.get(ADD) is None


def test_a_withdrawal_counts_no_more_at_once_and_is_paid_after_the_delay() -> None:
    chain = bonded_chain()
    chain.write(PROVIDER, f"{WITHDRAW}/{RECORD}", {"amount_uain": 4_000})
    assert counted(chain) == 6_000 and chain.balance(ACCOUNT) == 10_000
    chain.wait(BOND_DELAY_MS_DEFAULT - 1)
    assert chain.balance(PROVIDER.address) == 10_000
    chain.wait(1)
    assert chain.balance(PROVIDER.address) == 14_000 and chain.balance(ACCOUNT) == 6_000
    assert counted(chain) == 6_000 and chain.get(f"/bonds/{PROVIDER.address}/state/leaving") is None


def test_a_withdrawal_waits_on_when_the_windows_of_jobs_were_made_longer_since() -> None:
    chain = bonded_chain()
    chain.write(PROVIDER, f"{WITHDRAW}/{RECORD}", {"amount_uain": 4_000})
    asked_at_ms = chain.at
    chain.state.write_value(("blockchain_params", "market", "job_keep_ms"), 2 * BOND_DELAY_MS_DEFAULT)
    chain.wait(BOND_DELAY_MS_DEFAULT)
    later_ms = chain.get(f"/bonds/{PROVIDER.address}/state/leaving/{RECORD}/at_ms")
    assert later_ms == asked_at_ms + 2 * BOND_DELAY_MS_DEFAULT + 66 * 60_000
    chain.wait(later_ms - chain.at - 1)
    assert chain.balance(ACCOUNT) == 10_000
    chain.wait(1)
    assert chain.balance(PROVIDER.address) == 14_000 and chain.balance(ACCOUNT) == 6_000


def test_a_bond_that_shrank_meanwhile_pays_what_is_there() -> None:
    chain = bonded_chain()
    chain.write(PROVIDER, f"{WITHDRAW}/{RECORD}", {"amount_uain": 10_000})
    Draft(chain.state, (("service_accounts", "deposits"),), "").move(ACCOUNT, BUYER.address, 7_000)
    chain.wait(BOND_DELAY_MS_DEFAULT)
    assert chain.balance(PROVIDER.address) == 13_000 and chain.balance(ACCOUNT) == 0


def test_what_is_not_there_is_not_bonded_and_what_is_not_free_not_withdrawn() -> None:
    chain = bonded_chain()
    refused(chain, InsufficientBalance, PROVIDER, ADD, {"amount_uain": 10_001})
    refused(chain, InvalidRecord, PROVIDER, ADD, {"amount_uain": 0})
    refused(chain, InvalidRecord, PROVIDER, ADD, {"amount_uain": 1, "more": 1})
    refused(chain, BondOutOfRange, PROVIDER, ADD, {"amount_uain": UAIN_MAX})
    refused(chain, BondNotFree, PROVIDER, f"{WITHDRAW}/{RECORD}", {"amount_uain": 10_001})
    refused(chain, InvalidRecord, PROVIDER, f"{WITHDRAW}/short", {"amount_uain": 1})
    refused(
        chain, InvalidRecord, PROVIDER, f"/bonds/{PROVIDER.address.lower()}/add/{RECORD}", {"amount_uain": 1}
    )
    chain.write(PROVIDER, f"{WITHDRAW}/{RECORD}", {"amount_uain": 6_000})
    refused(chain, BondNotFree, PROVIDER, f"{WITHDRAW}/{'bb' * 8}", {"amount_uain": 4_001})
    # The same name twice would forget the first.
    refused(chain, InvalidRecord, PROVIDER, f"{WITHDRAW}/{RECORD}", {"amount_uain": 1})


def test_withdrawals_have_a_bound() -> None:
    chain = bonded_chain()
    for number in range(WITHDRAWALS_MAX):
        chain.write(PROVIDER, f"{WITHDRAW}/{number:016x}", {"amount_uain": 1})
    refused(chain, TooManyWithdrawals, PROVIDER, f"{WITHDRAW}/{'bb' * 8}", {"amount_uain": 1})


def test_a_bond_is_among_the_coins_of_its_provider() -> None:
    chain = bonded_chain()
    chain.write(PROVIDER, f"{WITHDRAW}/{RECORD}", {"amount_uain": 4_000})
    record = chain.get(f"/bonds/{PROVIDER.address}/state")
    bond = read_bond(PROVIDER.address, record, chain.balance(ACCOUNT))
    places = where_coins_are(PROVIDER.address, 10_000, at_ms=chain.at, bond=bond)
    assert [(coins.place, coins.amount_uain, coins.returns_by_itself) for coins in places] == [
        ("wallet", 10_000, True),
        ("bond", 4_000, True),
        ("bond", 6_000, False),
    ]
    assert places[1].returns_at_ms == chain.at + BOND_DELAY_MS_DEFAULT


def test_a_claim_is_counted_in_the_providers_record_and_an_empty_one_is_not() -> None:
    chain = published_chain()
    chain.write(BUYER, f"{CHANNEL_PATH}/open", opening())
    first = chain.at
    chain.write(PROVIDER, f"{CHANNEL_PATH}/claim/{RECORD}", claim_record(voucher(1_400), 1_400))
    assert chain.get(f"/records/{PROVIDER.address}") == {
        "claims": 1,
        "claimed_uain": 1_400,
        "since_ms": first,
    }
    chain.wait(10)
    chain.write(PROVIDER, f"{CHANNEL_PATH}/claim/{RECORD}", claim_record(voucher(700, nonce=1), 700))
    chain.write(PROVIDER, f"{CHANNEL_PATH}/claim/{RECORD}", claim_record(voucher(0, nonce=2), 0))
    assert chain.get(f"/records/{PROVIDER.address}") == {
        "claims": 2,
        "claimed_uain": 2_100,
        "since_ms": first,
    }


def test_what_was_added_after_a_time_is_told_apart_and_small_gifts_make_nothing_old_young() -> None:
    bond = Bond(PROVIDER.address, 10_000, recent={5: 4_000})
    assert [bond.counted_at(at_ms) for at_ms in (None, 4, 5)] == [10_000, 6_000, 10_000]
    for at_ms in range(6, 100):
        bond = replace(bond, held_uain=bond.held_uain + 1, recent=with_addition(bond, 1, at_ms))
    assert len(bond.recent) == RECENT_MAX and bond.counted_at(5) == 10_000 and bond.counted_at(4) == 6_000
    assert with_addition(bond, 1, 99 + RECENT_MS) == {99 + RECENT_MS: 1}


def test_an_addition_is_written_with_its_time_and_forgotten_later() -> None:
    chain = bonded_chain()
    state = chain.get(f"/bonds/{PROVIDER.address}/state")
    assert list(state) == ["recent"] and list(state["recent"].values()) == [10_000]
    chain.wait(RECENT_MS)
    chain.write(BUYER, ADD, {"amount_uain": 5})
    assert list(chain.get(f"/bonds/{PROVIDER.address}/state/recent").values()) == [5]
