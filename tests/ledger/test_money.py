"""Whatever arrives, the sum of all balances stays the same, what fails leaves no trace, and a follower agrees."""

from __future__ import annotations

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from openresource.ledger.blocks import sign_block
from openresource.ledger.genesis import TOTAL_SUPPLY_UAIN
from openresource.ledger.machine import Inserted
from tests.support.chains import CHAIN_ID, Chain, key_of

PEOPLE = ("alice", "bob", "carol")
names = st.sampled_from(PEOPLE)
keys = st.sampled_from(["k1", "k2", "k3", "k4"])
amounts = st.one_of(
    st.integers(-5, 3000),
    st.sampled_from([0.000001, 0.1, 0.30000000000000004, 0.1234567, 1e-7, 1e21, 2**53, "1", None, True]),
    st.integers(1, 3_000_000_000).map(lambda amount_uain: amount_uain / 1_000_000),
)
prices = st.sampled_from([0, 0, 1, 500, 50_000, 1e300, 0.5])
labels = st.sampled_from(
    [
        *("apps", "app", "x", "transfer", "accounts", "balance", "due", "treasury", "holds", "channels"),
        *("market", "service_accounts", "blockchain_params", "0x61", "a b", ".x"),
        *[key_of(name).address for name in PEOPLE],
    ]
)
paths = st.lists(labels, min_size=1, max_size=5).map(lambda parts: "/" + "/".join(parts))
values = st.one_of(amounts, st.dictionaries(labels, amounts, max_size=3))
kinds = st.sampled_from(
    ["SET_VALUE", "INC_VALUE", "DEC_VALUE", "SET_RULE", "SET_FUNCTION", "SET_OWNER", "NOPE"]
)


def transfer(source: str, target: str, key: str, amount: Any) -> dict[str, Any]:
    path = f"/transfer/{key_of(source).address}/{key_of(target).address}/{key}/value"
    return {"type": "SET_VALUE", "ref": path, "value": amount}


def operation(kind: str, path: str, value: Any) -> dict[str, Any]:
    if kind == "NOPE":
        return {"type": kind}
    if kind.endswith("C_VALUE") and (not isinstance(value, int | float) or isinstance(value, bool)):
        value = 1
    return {"type": kind, "ref": path, "value": value}


class MoneyMachine(RuleBasedStateMachine):
    """A chain that anything is thrown at, and one that only hears its blocks."""

    def __init__(self) -> None:
        super().__init__()
        self.chain = Chain(*PEOPLE)
        self.follower = Chain(*PEOPLE)

    def run(self, name: str, body: dict[str, Any], gas_price: Any) -> Inserted:
        self.chain.open()
        before = self.chain.tree.root_hash()
        inserted = self.chain.run(name, body, gas_price=gas_price)
        if inserted.has_failed and (gas_price == 0 or not inserted.is_included):
            assert self.chain.tree.root_hash() == before
            assert inserted.changes == ()
        return inserted

    @rule(source=names, to=names, signer=names, key=keys, amount=amounts, price=prices)
    def pay(self, source: str, to: str, signer: str, key: str, amount: Any, price: Any) -> None:
        inserted = self.run(signer, transfer(source, to, key, amount), price)
        assert signer == source or inserted.has_failed

    @rule(
        name=names, payments=st.lists(st.tuples(names, keys, amounts), min_size=1, max_size=4), price=prices
    )
    def pay_several(self, name: str, payments: list[tuple[str, str, Any]], price: Any) -> None:
        op_list = [transfer(name, target, key, amount) for target, key, amount in payments]
        self.run(name, {"type": "SET", "op_list": op_list}, price)

    @rule(name=names, kind=kinds, path=paths, value=values, price=prices)
    def write_anything(self, name: str, kind: str, path: str, value: Any, price: Any) -> None:
        self.run(name, operation(kind, path, value), price)

    @rule(
        name=names,
        record=st.sampled_from(["a" * 16, "b" * 16, "odd"]),
        amount=amounts,
        delay_ms=st.integers(-5, 5000),
    )
    def fund_a_hold(self, name: str, record: str, amount: Any, delay_ms: int) -> None:
        self.chain.open()
        value = {"amount_uain": amount, "expires_at_ms": self.chain.now_ms + delay_ms}
        path = f"/holds/app/default/fund/{record}"
        self.run(name, {"type": "SET_VALUE", "ref": path, "value": value}, 0)

    @rule(name=names, is_public=st.booleans())
    def create_an_app(self, name: str, is_public: bool) -> None:
        self.chain.create_app(name, "app", is_public=is_public)

    @rule(later_ms=st.integers(1, 4000))
    def seal(self, later_ms: int) -> None:
        sealed = self.chain.seal()
        block = {**sealed.block, "signature": sign_block(sealed.block, key_of("producer"), CHAIN_ID)}
        assert self.follower.machine.replay(block).hash == sealed.hash
        self.chain.open(later_ms)

    @rule()
    def drop(self) -> None:
        self.chain.open()
        self.chain.machine.drop_open_block()
        assert self.chain.tree.root_hash() == self.follower.tree.root_hash()

    @invariant()
    def money_is_conserved(self) -> None:
        assert self.chain.supply_uain() == TOTAL_SUPPLY_UAIN

    @invariant()
    def nothing_went_wrong_inside(self) -> None:
        assert self.chain.machine.mistakes == []


TestMoney = MoneyMachine.TestCase
TestMoney.settings = settings(max_examples=40, stateful_step_count=25, deadline=None)


@settings(max_examples=30, deadline=None)
@given(st.lists(st.tuples(names, names, keys, amounts), max_size=12))
def test_pending_is_what_is_sealed(payments: list[tuple[str, str, str, Any]]) -> None:
    chain = Chain(*PEOPLE)
    for source, target, key, amount in payments:
        chain.run(source, transfer(source, target, key, amount))
    chain.open()
    pending = chain.tree.get(["values", "accounts"])
    chain.seal()
    assert chain.tree.get(["values", "accounts"]) == pending
