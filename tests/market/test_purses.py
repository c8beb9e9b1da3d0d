"""A buyer's purse: what it signs, what it risks, and whom it believes; and purse and tab together."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from openresource.market import purses, tabs
from openresource.market.purses import (
    DepositTooSmall,
    GatewayClaimsUnsigned,
    GatewayState,
    NonceMoved,
    Purse,
    ReceiptsDiffer,
    SpendingUnexplained,
    TooMuchAtRisk,
)
from openresource.market.receipts import receipts_hash
from openresource.market.tabs import CallAdmitted, CallKey, Tab
from openresource.market.vouchers import NO_RECEIPTS
from openresource.primitives.errors import Refusal
from openresource.primitives.hashing import keccak

BUYER = "0x00000000000000000000000000000000000000B0"
CHANNEL = f"{BUYER}/{'ab' * 8}"
SESSION = keccak(b"one")
PRICE = 100


def purse(deposit: int = 1_000) -> Purse:
    return purses.open_purse(CHANNEL, 0, deposit, 50_000, SESSION)


def digest(number: int) -> bytes:
    return keccak(str(number).encode())


def answer_of(tab: Tab) -> GatewayState:
    return purses.read_gateway_state(
        {name: value for name, value in tabs.tab_json(tab).items() if name != "status"}
    )


def test_each_call_signs_for_itself_and_no_more() -> None:
    one, started = purses.start_call(purse(), PRICE, risk_uain_max=PRICE)
    assert started.voucher is not None and started.voucher.total_uain == 100
    one, _ = purses.count_receipt(one, 0, 1, PRICE, digest(1))
    two, started = purses.start_call(one, PRICE, risk_uain_max=PRICE)
    assert started.voucher is not None and started.voucher.total_uain == 200
    assert (started.voucher.acknowledged, started.voucher.receipts) == (1, receipts_hash((digest(1),)))
    assert two.at_risk_uain == PRICE


def test_concurrent_calls_need_the_risk_that_they_take() -> None:
    one, _ = purses.start_call(purse(), PRICE, risk_uain_max=2 * PRICE)
    two, started = purses.start_call(one, PRICE, risk_uain_max=2 * PRICE)
    assert started.voucher is not None and started.voucher.total_uain == 200
    with pytest.raises(TooMuchAtRisk):
        purses.start_call(two, PRICE, risk_uain_max=2 * PRICE)


def test_one_signature_may_cover_several_calls() -> None:
    one, started = purses.start_call(purse(), PRICE, risk_uain_max=500, calls_ahead=5)
    assert started.voucher is not None and started.voucher.total_uain == 500
    one, _ = purses.count_receipt(one, 0, 1, PRICE, digest(1))
    _, started = purses.start_call(one, PRICE, risk_uain_max=500, calls_ahead=5)
    assert started.voucher is None and started.sequence == 1


def test_a_call_that_failed_is_not_owed() -> None:
    one, _ = purses.start_call(purse(), PRICE, risk_uain_max=PRICE)
    one = purses.drop_call(one, 0)
    _, started = purses.start_call(one, PRICE, risk_uain_max=PRICE)
    assert started.voucher is None and started.sequence == 1


def test_what_became_of_a_call_that_was_given_up_is_not_known() -> None:
    one, _ = purses.start_call(purse(), PRICE, risk_uain_max=PRICE)
    assert purses.drop_call(one, 0).given_up_uain == 0
    given_up = purses.drop_call(one, 0, gives_up=True)
    assert given_up.given_up_uain == PRICE and not given_up.in_flight
    assert purses.drop_call(given_up, 0, gives_up=True).given_up_uain == PRICE
    assert purses.next_nonce(given_up, 1, 500, 60_000).given_up_uain == 0


def test_a_deposit_that_is_too_small_says_what_is_missing() -> None:
    with pytest.raises(DepositTooSmall) as refusal:
        purses.start_call(purse(deposit=60), PRICE, risk_uain_max=PRICE)
    assert refusal.value.missing_uain == 40
    assert purses.plan_addition(purse(deposit=60), PRICE, calls=1, deposit_uain_max=1_000) == 40
    assert purses.plan_addition(purse(deposit=60), PRICE, calls=5, deposit_uain_max=1_000) == 440
    assert purses.plan_addition(purse(deposit=60), PRICE, calls=50, deposit_uain_max=300) == 240
    assert purses.plan_addition(purse(deposit=100), PRICE, calls=5, deposit_uain_max=300) == 0
    with pytest.raises(DepositTooSmall):
        purses.plan_addition(purse(deposit=60), PRICE, calls=5, deposit_uain_max=99)


def test_a_first_deposit_is_some_calls_within_the_cap() -> None:
    plan = purses.plan_deposit(PRICE, at_ms=1_000, lifetime_ms=500, calls=20, deposit_uain_max=1_500)
    assert (plan.amount_uain, plan.expires_at_ms) == (1_500, 1_500)
    with pytest.raises(DepositTooSmall):
        purses.plan_deposit(PRICE, at_ms=0, lifetime_ms=1, deposit_uain_max=99)
    assert purses.plan_deposit(0, at_ms=0, lifetime_ms=1, deposit_uain_max=99).amount_uain == 1


def test_a_channel_near_its_end_is_to_be_extended() -> None:
    assert purses.extension_is_due(purse(), at_ms=49_500, margin_ms=600)
    assert not purses.extension_is_due(purse(), at_ms=49_000, margin_ms=600)


def test_receipts_in_any_order_are_acknowledged_in_the_gateways() -> None:
    one = purse()
    for _ in range(3):
        one, _ = purses.start_call(one, PRICE, risk_uain_max=300)
    one, counted = purses.count_receipt(one, 2, 2, PRICE, digest(2))
    assert counted.acknowledged == 0
    one, counted = purses.count_receipt(one, 0, 1, PRICE, digest(1))
    assert counted.acknowledged == 2
    assert one.receipts == receipts_hash((digest(1), digest(2)))


def test_two_receipts_with_one_number_are_evidence() -> None:
    one = purse()
    for _ in range(2):
        one, _ = purses.start_call(one, PRICE, risk_uain_max=300)
    one, _ = purses.count_receipt(one, 0, 1, PRICE, digest(1))
    with pytest.raises(ReceiptsDiffer):
        purses.count_receipt(one, 1, 1, PRICE, digest(2))


def state(**members: int | bytes) -> GatewayState:
    plain = GatewayState(
        nonce=0, total_uain=100, spent_uain=0, in_flight_uain=0, completed=0, receipts=NO_RECEIPTS
    )
    return replace(plain, **members)  # type: ignore[arg-type]


def test_a_gateway_is_not_believed_beyond_what_was_signed() -> None:
    one, _ = purses.start_call(purse(), PRICE, risk_uain_max=PRICE)
    assert purses.resume(one, state(spent_uain=100, completed=1), risk_uain_max=PRICE) == one
    with pytest.raises(GatewayClaimsUnsigned):
        purses.resume(one, state(total_uain=101), risk_uain_max=PRICE)
    with pytest.raises(GatewayClaimsUnsigned):
        purses.resume(one, state(spent_uain=60, in_flight_uain=60), risk_uain_max=PRICE)
    with pytest.raises(NonceMoved):
        purses.resume(one, state(nonce=1), risk_uain_max=PRICE)
    counted, _ = purses.count_receipt(one, 0, 1, PRICE, digest(1))
    with pytest.raises(GatewayClaimsUnsigned):
        purses.resume(counted, state(completed=0), risk_uain_max=PRICE)
    with pytest.raises(GatewayClaimsUnsigned):
        purses.resume(counted, state(completed=1, spent_uain=100), risk_uain_max=PRICE)


def test_calls_given_up_are_believed_within_the_risk_and_no_further() -> None:
    one = purse()
    for sequence in range(3):
        one, _ = purses.start_call(one, PRICE, risk_uain_max=300)
        one = purses.drop_call(one, sequence) if sequence < 2 else one
    # Nothing new was signed for the second and third: the first promise was still free.
    assert one.signed_uain == 100
    given_up = purses.drop_call(one, 2)
    assert (
        purses.resume(given_up, state(spent_uain=100, completed=1), risk_uain_max=100).inherited_uain == 100
    )
    with pytest.raises(SpendingUnexplained):
        purses.resume(given_up, state(spent_uain=100, completed=1), risk_uain_max=99)


def test_a_new_nonce_starts_from_zero_with_the_same_session() -> None:
    one, _ = purses.start_call(purse(), PRICE, risk_uain_max=PRICE)
    moved = purses.next_nonce(one, 1, 900, 60_000)
    assert (moved.nonce, moved.signed_uain, moved.next_sequence, moved.session) == (1, 0, 1, SESSION)
    _, started = purses.start_call(moved, PRICE, risk_uain_max=PRICE)
    assert started.voucher is not None and started.voucher.total_uain == 100


def test_what_a_claim_took_for_calls_without_an_end_is_known_and_asked_about() -> None:
    one, _ = purses.start_call(purse(), PRICE, risk_uain_max=PRICE)
    assert one.is_doubtful and not purse().is_doubtful
    assert purses.unbooked_uain(one, PRICE) == PRICE
    moved = purses.next_nonce(one, 1, 900, 60_000, PRICE)
    assert moved.is_doubtful and moved.behind == {0: PRICE} and not moved.in_flight
    assert purses.unbooked_uain(moved, PRICE) == 0
    assert purses.unbooked_uain(moved, PRICE + 30) == 30
    # A claim of less than the receipts show owes nobody anything.
    assert purses.unbooked_uain(moved, 0) == 0
    known = purses.drop_call(moved, 0, gives_up=True)
    assert not known.is_doubtful and known.given_up_uain == 0
    # Where the books of an earlier version do not say what was claimed before, nothing is guessed.
    assert purses.unbooked_uain(purses.next_nonce(one, 1, 900, 60_000), PRICE) == 0


class PurseAndTab(RuleBasedStateMachine):
    """An honest buyer and an honest gateway over a bad line: messages are lost, both keep within their bounds."""

    @initialize(deposit=st.integers(100, 900), calls_ahead=st.integers(1, 3))
    def open(self, deposit: int, calls_ahead: int) -> None:
        self.calls_ahead = calls_ahead
        self.risk = 400
        self.purse = purse(deposit)
        self.tab = tabs.open_tab(CHANNEL, 0, BUYER, BUYER, deposit)
        self.working: list[int] = []
        self.answers: dict[int, tuple[int, bytes]] = {}

    @rule(is_lost=st.booleans())
    def call(self, is_lost: bool) -> None:
        try:
            self.purse, started = purses.start_call(
                self.purse, PRICE, risk_uain_max=self.risk, calls_ahead=self.calls_ahead
            )
        except (DepositTooSmall, TooMuchAtRisk):
            return
        if is_lost:
            self.purse = purses.drop_call(self.purse, started.sequence)
            return
        try:
            self.tab, events = tabs.pay(
                self.tab, started.voucher, BUYER, CallKey(SESSION, started.sequence), PRICE
            )
        except Refusal:
            # A voucher was lost on the way, or an answer: give the call up, hear the gateway, sign anew.
            self.purse = purses.drop_call(self.purse, started.sequence)
            try:
                self.purse = purses.resume(self.purse, answer_of(self.tab), risk_uain_max=self.risk)
            except SpendingUnexplained:
                # Too many answers given up: it is time to settle.
                return
            self.call_once_more()
            return
        assert isinstance(events[-1], CallAdmitted)
        self.working.append(started.sequence)

    def call_once_more(self) -> None:
        """After the gateway was heard, the next voucher is enough, or the purse says why there is none."""
        try:
            self.purse, started = purses.start_call(self.purse, PRICE, risk_uain_max=self.risk)
        except (DepositTooSmall, TooMuchAtRisk):
            return
        paper = started.voucher or purses.next_voucher(self.purse)
        self.tab, _ = tabs.pay(self.tab, paper, BUYER, CallKey(SESSION, started.sequence), PRICE)
        self.working.append(started.sequence)

    @precondition(lambda self: self.working)
    @rule(data=st.data(), answered=st.booleans(), arrives=st.booleans())
    def end(self, data: st.DataObject, answered: bool, arrives: bool) -> None:
        sequence = data.draw(st.sampled_from(self.working))
        self.working.remove(sequence)
        key = CallKey(SESSION, sequence)
        if not answered:
            self.tab, _ = tabs.release(self.tab, key)
            self.purse = purses.drop_call(self.purse, sequence)
            return
        self.tab, _ = tabs.complete(self.tab, key, digest(sequence))
        if arrives:
            self.purse, _ = purses.count_receipt(
                self.purse, sequence, self.tab.completed, PRICE, digest(sequence)
            )
        else:
            self.answers[sequence] = (self.tab.completed, digest(sequence))

    @precondition(lambda self: self.answers)
    @rule(data=st.data(), gives_up=st.booleans())
    def retry(self, data: st.DataObject, gives_up: bool) -> None:
        sequence = data.draw(st.sampled_from(sorted(self.answers)))
        completed, found = self.answers.pop(sequence)
        if gives_up:
            self.purse = purses.drop_call(self.purse, sequence)
            return
        again, events = tabs.pay(self.tab, None, "", CallKey(SESSION, sequence), PRICE)
        assert again == self.tab and isinstance(events[0], tabs.CallAnswered)
        self.purse, _ = purses.count_receipt(self.purse, sequence, completed, PRICE, found)

    @invariant()
    def both_keep_within_their_bounds(self) -> None:
        if not hasattr(self, "tab"):
            return
        assert self.purse.at_risk_uain <= self.risk
        assert self.tab.spent_uain + self.tab.in_flight_uain <= self.tab.total_uain <= self.purse.signed_uain
        assert self.purse.signed_uain <= self.purse.deposit_uain
        assert self.purse.earned_uain <= self.tab.spent_uain
        assert self.purse.inherited_uain <= self.risk


PurseAndTab.TestCase.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)
TestPurseAndTab = PurseAndTab.TestCase
