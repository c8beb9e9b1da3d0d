"""Money: whatever arrives, the sum of all balances stays; and everybody can see where a coin is."""

from __future__ import annotations

from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from openresource.ledger.draft import Draft
from openresource.market.accounts import channel_account, hold_account, job_account
from openresource.market.jobs import execution_record, failure_record
from openresource.market.money import ChannelFunds, HoldFunds, JobFunds, total_uain, where_coins_are
from openresource.market.natives.bonds import bond_of
from openresource.market.supply import audit_supply, walk_holders
from openresource.primitives.errors import Refusal
from openresource.primitives.keys import PrivateKey
from tests.market.small_chain import (
    BUYER,
    CHANNEL_ID,
    CHANNEL_PATH,
    PLACEMENT_PATH,
    PROVIDER,
    PUBLISHER,
    RECORD,
    STRANGER,
    SmallChain,
    claim_record,
    opening,
    placement,
    published_chain,
    voucher,
)
from tests.market.test_jobs import APP, ENTRY, SOURCE
from tests.support.memory_state import MemoryState

HOST_KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAI" + "A" * 43
PEOPLE = (BUYER, PROVIDER, PUBLISHER, STRANGER)
CHANNEL_IDS = (CHANNEL_ID, "ab" * 8)
KEYS = st.sampled_from(PEOPLE)
AMOUNTS = st.integers(0, 4_000)


class Reader:
    """Holders of a state in memory."""

    def __init__(self, state: MemoryState) -> None:
        self.state = state

    def labels(self, *path: str) -> list[str]:
        found = self.state.read_value(path)
        return list(found) if isinstance(found, dict) else []

    def value(self, *path: str) -> Any:
        return self.state.read_value(path)


class Market(RuleBasedStateMachine):
    """Anybody writes anything at any path of the market, and time passes."""

    @initialize()
    def open(self) -> None:
        self.chain = published_chain()
        self.chain.program_entries[SOURCE] = ENTRY
        for key in PEOPLE[1:]:
            self.chain.state.give(key.address, 5_000)
        self.supply = self.chain.state.supply_uain()
        self.deposited = dict.fromkeys(CHANNEL_IDS, 0)
        self.paid_nonces: set[tuple[str, int]] = set()
        self.questions = 0

    def write(self, key: PrivateKey, path: str, value: Any) -> bool:
        try:
            self.chain.write(key, path, value)
        except Refusal:
            return False
        return True

    @rule(key=KEYS, channel=st.sampled_from(CHANNEL_IDS), deposit=AMOUNTS, lifetime=st.integers(0, 9_000))
    def open_channel(self, key: PrivateKey, channel: str, deposit: int, lifetime: int) -> None:
        record = opening(deposit_uain=deposit, expires_at_ms=self.chain.at + lifetime)
        # The rule keeps others from opening in the buyer's name; the native takes the signer's money.
        if key is BUYER and self.write(key, f"/channels/{BUYER.address}/{channel}/open", record):
            self.deposited[channel] += deposit

    @rule(key=KEYS, channel=st.sampled_from(CHANNEL_IDS), amount=AMOUNTS)
    def add(self, key: PrivateKey, channel: str, amount: int) -> None:
        path = f"/channels/{BUYER.address}/{channel}/add/{RECORD}"
        if self.write(key, path, {"amount_uain": amount}):
            self.deposited[channel] += amount

    @rule(key=KEYS, channel=st.sampled_from(CHANNEL_IDS), lifetime=st.integers(0, 9_000))
    def extend(self, key: PrivateKey, channel: str, lifetime: int) -> None:
        path = f"/channels/{BUYER.address}/{channel}/extend/{RECORD}"
        self.write(key, path, {"expires_at_ms": self.chain.at + lifetime})

    @rule(
        key=KEYS,
        channel=st.sampled_from(CHANNEL_IDS),
        signer=KEYS,
        total=AMOUNTS,
        amount=AMOUNTS,
        behind=st.integers(0, 1),
        send_back=st.booleans(),
    )
    def claim(
        self,
        key: PrivateKey,
        channel: str,
        signer: PrivateKey,
        total: int,
        amount: int,
        behind: int,
        send_back: bool,
    ) -> None:
        state = self.chain.get(f"/channels/{BUYER.address}/{channel}/state")
        nonce = max(0, (state["nonce"] if state else 0) - behind)
        paper = voucher(total, nonce=nonce, key=signer, channel=f"{BUYER.address}/{channel}")
        path = f"/channels/{BUYER.address}/{channel}/claim/{RECORD}"
        if self.write(key, path, claim_record(paper, amount, send_back)):
            assert key is PROVIDER and signer is BUYER and amount <= total
            assert (channel, nonce) not in self.paid_nonces
            self.paid_nonces.add((channel, nonce))

    @rule(key=KEYS, channel=st.sampled_from(CHANNEL_IDS))
    def close(self, key: PrivateKey, channel: str) -> None:
        self.write(key, f"/channels/{BUYER.address}/{channel}/close/{RECORD}", {"at_ms": 1})

    @rule(key=KEYS, amount=AMOUNTS, lifetime=st.integers(0, 9_000))
    def fund(self, key: PrivateKey, amount: int, lifetime: int) -> None:
        value = {"amount_uain": amount, "expires_at_ms": self.chain.at + lifetime}
        self.write(key, f"/holds/{APP}/default/fund/{RECORD}", value)

    @rule(key=KEYS, provider=KEYS, amount=AMOUNTS)
    def bond(self, key: PrivateKey, provider: PrivateKey, amount: int) -> None:
        self.write(key, f"/bonds/{provider.address}/add/{RECORD}", {"amount_uain": amount})

    @rule(key=KEYS, amount=AMOUNTS, number=st.integers(0, 3))
    def withdraw_bond(self, key: PrivateKey, amount: int, number: int) -> None:
        path = f"/bonds/{key.address}/withdraw/{number:016x}"
        self.write(key, path, {"amount_uain": amount})

    @rule(owner=KEYS, price_uain=st.integers(0, 50))
    def open_machine(self, owner: PrivateKey, price_uain: int) -> None:
        self.write(
            PROVIDER,
            f"/machines/{PROVIDER.address}/offer",
            {
                "owner": owner.address,
                "endpoint": "ssh://127.0.0.1:2222",
                "host_key": HOST_KEY,
                "isolation": "bubblewrap",
                "price_uain": price_uain,
            },
        )

    @rule(key=KEYS, minutes=st.integers(0, 70), price_uain=st.integers(0, 50))
    def rent(self, key: PrivateKey, minutes: int, price_uain: int) -> None:
        offered = (self.chain.get(f"/machines/{PROVIDER.address}/offer") or {}).get("price_uain", price_uain)
        value = {"minutes": minutes, "price_uain": offered}
        self.write(key, f"/machines/{PROVIDER.address}/rentals/{RECORD}", value)

    @rule(key=KEYS)
    def ask(self, key: PrivateKey) -> None:
        self.questions += 1
        self.write(key, f"/apps/{APP}/questions/k{self.questions}", "what?")

    @rule(key=KEYS, data=st.data(), step=st.sampled_from(["lease", "done", "failed"]))
    def work(self, key: PrivateKey, data: st.DataObject, step: str) -> None:
        jobs = sorted(self.chain.get("/jobs") or {})
        if not jobs:
            return
        job = data.draw(st.sampled_from(jobs))
        if step == "lease":
            self.write(key, f"/jobs/{job}/leases/{key.address}", {"at_ms": 1})
        else:
            record = execution_record("an answer") if step == "done" else failure_record("broken")
            self.write(key, f"/jobs/{job}/executions/{key.address}", record)

    @rule(ask_uain=st.integers(0, 1_800))
    def change_ask(self, ask_uain: int) -> None:
        self.write(PROVIDER, PLACEMENT_PATH, placement(ask_uain))

    @rule(milliseconds=st.sampled_from([1, 500, 5_000, 700_000, 90_000_000]))
    def wait(self, milliseconds: int) -> None:
        self.chain.wait(milliseconds)

    @invariant()
    def nothing_is_minted_or_lost(self) -> None:
        if not hasattr(self, "chain"):
            return
        assert self.chain.state.supply_uain() == self.supply
        assert audit_supply(walk_holders(Reader(self.chain.state))).total_uain == self.supply

    @invariant()
    def a_bond_holds_what_is_leaving_it(self) -> None:
        if not hasattr(self, "chain"):
            return
        for key in PEOPLE:
            bond = bond_of(Draft(self.chain.state, (), ""), key.address)
            assert bond.held_uain >= bond.leaving_uain

    @invariant()
    def a_record_counts_what_channels_paid(self) -> None:
        if not hasattr(self, "chain"):
            return
        channels = (self.chain.get(f"/channels/{BUYER.address}") or {}).values()
        claimed = sum(channel["state"]["claimed_uain"] for channel in channels if "state" in channel)
        record = self.chain.get(f"/records/{PROVIDER.address}") or {"claimed_uain": 0}
        assert record["claimed_uain"] == claimed

    @invariant()
    def no_channel_pays_more_than_was_deposited(self) -> None:
        if not hasattr(self, "chain"):
            return
        for channel, deposited in self.deposited.items():
            state = self.chain.get(f"/channels/{BUYER.address}/{channel}/state")
            held = self.chain.balance(channel_account(BUYER.address, channel))
            claimed = state["claimed_uain"] if state else 0
            assert claimed + held <= deposited

    @invariant()
    def a_settled_job_holds_nothing(self) -> None:
        if not hasattr(self, "chain"):
            return
        for job, records in (self.chain.get("/jobs") or {}).items():
            held = self.chain.balance(job_account(job))
            if "folded" in records:
                assert held == 0
                continue
            is_open = records["state"]["status"] in ("REQUESTED", "LEASED")
            assert held == (records["request"]["budget_uain"] if is_open else 0)


Market.TestCase.settings = settings(max_examples=80, stateful_step_count=40, deadline=None)
TestMarket = Market.TestCase


def test_every_coin_of_an_owner_is_shown_with_its_return() -> None:
    chain: SmallChain = published_chain()
    chain.program_entries[SOURCE] = ENTRY
    chain.write(BUYER, f"{CHANNEL_PATH}/open", opening(deposit_uain=10_000, expires_at_ms=2_000_000))
    value = {"amount_uain": 5_000, "expires_at_ms": 1_500_000}
    chain.write(BUYER, f"/holds/{APP}/default/fund/{RECORD}", value)
    chain.write(STRANGER, f"/apps/{APP}/questions/k", "what?")
    (job,) = chain.get("/jobs")
    channel = ChannelFunds(
        CHANNEL_ID,
        chain.get(f"{CHANNEL_PATH}/state"),
        chain.balance(channel_account(BUYER.address, CHANNEL_ID)),
    )
    hold = HoldFunds(
        APP, "default", chain.get(f"/holds/{APP}/default/state"), chain.balance(hold_account(APP, "default"))
    )
    budget = JobFunds(
        job,
        chain.get(f"/jobs/{job}/request"),
        chain.get(f"/jobs/{job}/state"),
        chain.balance(job_account(job)),
    )
    name = f"{BUYER.address}/{CHANNEL_ID}"
    places = where_coins_are(
        BUYER.address,
        chain.balance(BUYER.address),
        at_ms=chain.at,
        channels=[channel],
        holds=[hold],
        jobs=[budget],
        signed_uain={name: 700},
    )
    assert total_uain(places) == 1_000_000
    assert [(coins.place, coins.amount_uain) for coins in places] == [
        ("wallet", 985_000),
        ("hold", 4_000),
        ("job", 1_000),
        ("channel", 10_000),
    ]
    assert places[3].promised_uain == 700 and "settle" in places[3].how
    late = where_coins_are(BUYER.address, 0, at_ms=2_000_000, channels=[channel])
    assert "close" in late[1].how
