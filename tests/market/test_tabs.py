"""A gateway's tab: every refusal by its name, retries without double pay, and no service beyond the cover."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from openresource.market import tabs
from openresource.market.channels import VoucherSignedByOther
from openresource.market.receipts import receipts_hash
from openresource.market.tabs import (
    AcknowledgementDue,
    CallAdmitted,
    CallAnswered,
    CallInFlight,
    CallKey,
    CallsInFlight,
    ChannelIsClaiming,
    ClaimPlanned,
    SequenceTooOld,
    Tab,
    TabStepNotAllowed,
    TooManyCallsInFlight,
    TooManySessions,
    UnknownSession,
    VoucherAccepted,
    VoucherAcknowledgesUnknown,
    VoucherKnown,
    VoucherMissing,
    VoucherOutOfOrder,
    VoucherPastDeposit,
    VoucherReplayed,
    VoucherSuperseded,
    VoucherTooSmall,
)
from openresource.market.vouchers import (
    NO_RECEIPTS,
    Voucher,
    VoucherAhead,
    VoucherForOtherChannel,
    VoucherTooOld,
)
from openresource.primitives.errors import Refusal
from openresource.primitives.hashing import keccak

PRICE = 100
BUYER = "0x00000000000000000000000000000000000000B0"
CHANNEL = f"{BUYER}/{'ab' * 8}"
SESSION = keccak(b"one")
OTHER_SESSION = keccak(b"two")


def promise(total: int, **members: Any) -> Voucher:
    return Voucher(**{"channel": CHANNEL, "nonce": 0, "total_uain": total, "session": SESSION} | members)


def fresh(cover: int = 1_000) -> Tab:
    return tabs.open_tab(CHANNEL, 0, BUYER, BUYER, cover)


def with_voucher(total: int, cover: int = 1_000) -> Tab:
    return tabs.accept(fresh(cover), promise(total), BUYER)[0]


def call(sequence: int, session: bytes = SESSION) -> CallKey:
    return CallKey(session, sequence)


def digest(number: int) -> bytes:
    return keccak(str(number).encode())


def served(tab: Tab, count: int, price: int = PRICE) -> Tab:
    """The tab after some calls, one after the other."""
    for sequence in range(count):
        tab, _ = tabs.admit(tab, call(sequence), price)
        tab, _ = tabs.complete(tab, call(sequence), digest(sequence))
    return tab


def test_calls_run_while_their_sum_fits() -> None:
    tab = with_voucher(300)
    for sequence in range(3):
        tab, events = tabs.admit(tab, call(sequence), PRICE)
        assert events == (CallAdmitted(call(sequence), PRICE),)
    with pytest.raises(VoucherTooSmall) as refusal:
        tabs.admit(tab, call(3), PRICE)
    assert (refusal.value.offered_uain, refusal.value.required_uain) == (300, 400)


def test_a_voucher_past_the_deposit_is_refused() -> None:
    with pytest.raises(VoucherPastDeposit) as refusal:
        tabs.accept(fresh(cover=1_000), promise(1_001), BUYER)
    assert (refusal.value.total_uain, refusal.value.cover_uain) == (1_001, 1_000)


def test_more_money_in_the_channel_is_more_cover() -> None:
    tab = tabs.set_cover(fresh(cover=1_000), 2_000)
    assert tabs.accept(tab, promise(1_001), BUYER)[0].total_uain == 1_001


def test_without_a_voucher_no_call_begins() -> None:
    with pytest.raises(VoucherMissing):
        tabs.pay(fresh(), None, "", call(0), PRICE)


def test_a_voucher_signed_by_somebody_else_changes_nothing() -> None:
    with pytest.raises(VoucherSignedByOther):
        tabs.pay(fresh(), promise(500), "0x00000000000000000000000000000000000000C0", call(0), PRICE)


@pytest.mark.parametrize(
    ("members", "expected"),
    [
        ({"channel": f"{BUYER}/{'cd' * 8}"}, VoucherForOtherChannel),
        ({"nonce": 1}, VoucherAhead),
        ({"acknowledged": 1}, VoucherAcknowledgesUnknown),
        ({"receipts": b"\1" * 32}, VoucherAcknowledgesUnknown),
    ],
)
def test_a_voucher_that_does_not_fit_is_refused_by_name(
    members: dict[str, Any], expected: type[Refusal]
) -> None:
    with pytest.raises(expected):
        tabs.accept(fresh(), promise(500, **members), BUYER)


def test_an_old_nonce_is_refused_with_the_new_one() -> None:
    tab = tabs.open_tab(CHANNEL, 4, BUYER, BUYER, 1_000)
    with pytest.raises(VoucherTooOld) as refusal:
        tabs.accept(tab, promise(500, nonce=3), BUYER)
    assert refusal.value.expected == 4


def test_the_same_voucher_again_changes_nothing() -> None:
    tab = with_voucher(300)
    assert tabs.accept(tab, promise(300), BUYER) == (tab, (VoucherKnown(),))


def test_a_voucher_that_is_spent_cannot_be_played_again() -> None:
    tab = served(with_voucher(100), 1)
    with pytest.raises(VoucherReplayed):
        tabs.pay(tab, promise(100), BUYER, call(1), PRICE)
    # The same shortage with a voucher that is new but too small has another name.
    with pytest.raises(VoucherTooSmall):
        tabs.pay(tab, promise(150), BUYER, call(1), PRICE)


def test_a_smaller_voucher_after_a_larger_one_is_out_of_order() -> None:
    tab = with_voucher(300)
    with pytest.raises(VoucherOutOfOrder):
        tabs.accept(tab, promise(200), BUYER)
    with pytest.raises(VoucherOutOfOrder):
        tabs.pay(tab, promise(200, session=OTHER_SESSION), BUYER, call(0, OTHER_SESSION), PRICE)


def test_concurrent_calls_whose_vouchers_overtook_each_other_are_both_served() -> None:
    tab, _ = tabs.pay(fresh(), promise(200), BUYER, call(1), PRICE)
    tab, events = tabs.pay(tab, promise(100), BUYER, call(0), PRICE)
    assert events == (VoucherSuperseded(100), CallAdmitted(call(0), PRICE))
    with pytest.raises(VoucherOutOfOrder):
        tabs.pay(tab, promise(150), BUYER, call(2), PRICE)


def test_a_retry_is_answered_once_more_and_paid_once() -> None:
    tab, events = tabs.pay(fresh(), promise(100), BUYER, call(0), PRICE)
    assert events == (VoucherAccepted(promise(100)), CallAdmitted(call(0), PRICE))
    assert tabs.pay(tab, promise(100), BUYER, call(0), PRICE) == (tab, (CallInFlight(call(0)),))
    tab, _ = tabs.complete(tab, call(0), digest(0))
    assert tabs.pay(tab, promise(100), BUYER, call(0), PRICE) == (tab, (CallAnswered(call(0)),))
    assert tab.spent_uain == PRICE


def test_no_answer_no_pay_and_the_call_may_be_tried_anew() -> None:
    tab, _ = tabs.pay(fresh(), promise(100), BUYER, call(0), PRICE)
    tab, _ = tabs.release(tab, call(0))
    assert (tab.spent_uain, tab.in_flight_uain, tab.completed) == (0, 0, 0)
    assert tabs.admit(tab, call(0), PRICE)[1] == (CallAdmitted(call(0), PRICE),)


def test_a_session_that_no_voucher_names_is_refused() -> None:
    with pytest.raises(UnknownSession):
        tabs.admit(with_voucher(300), call(0, OTHER_SESSION), PRICE)


def test_sequence_numbers_may_have_gaps_but_not_lie_far_behind() -> None:
    tab = served(with_voucher(900), 1)
    tab, _ = tabs.admit(tab, call(tabs.SEQUENCE_WINDOW + 5), PRICE)
    assert tabs.admit(tab, call(tabs.SEQUENCE_WINDOW), PRICE)[1]
    with pytest.raises(SequenceTooOld):
        tabs.admit(tab, call(0), PRICE)


def test_a_call_that_falls_out_of_the_window_while_in_flight_is_still_paid() -> None:
    tab = with_voucher(300)
    tab, _ = tabs.admit(tab, call(0), PRICE)
    tab, _ = tabs.admit(tab, call(5_000), PRICE)
    tab, _ = tabs.complete(tab, call(0), digest(0))
    assert tab.spent_uain == PRICE
    with pytest.raises(SequenceTooOld):
        tabs.admit(tab, call(0), PRICE)


def test_the_running_hash_follows_the_order_of_completion() -> None:
    tab = with_voucher(300)
    for sequence in range(3):
        tab, _ = tabs.admit(tab, call(sequence), PRICE)
    for sequence in (2, 0, 1):
        tab, _ = tabs.complete(tab, call(sequence), digest(sequence))
    assert tab.receipts == receipts_hash((digest(2), digest(0), digest(1)))
    good = promise(400, acknowledged=2, receipts=receipts_hash((digest(2), digest(0))))
    assert tabs.accept(tab, good, BUYER)[0].acknowledged == 2
    with pytest.raises(VoucherAcknowledgesUnknown):
        tabs.accept(tab, promise(400, acknowledged=2, receipts=receipts_hash((digest(0), digest(2)))), BUYER)


def test_bounds_of_a_tab_are_kept() -> None:
    tab = with_voucher(10**6, cover=10**6)
    for sequence in range(tabs.IN_FLIGHT_MAX):
        tab, _ = tabs.admit(tab, call(sequence), 1)
    with pytest.raises(TooManyCallsInFlight):
        tabs.admit(tab, call(9_999), 1)
    tab = with_voucher(1, cover=10**6)
    for number in range(1, tabs.SESSIONS_MAX):
        tab, _ = tabs.accept(tab, promise(1 + number, session=keccak(bytes([number]))), BUYER)
    with pytest.raises(TooManySessions):
        tabs.accept(tab, promise(9_999, session=keccak(b"one too many")), BUYER)


def test_receipts_must_be_acknowledged_before_they_are_forgotten() -> None:
    tab = served(with_voucher(10**6, cover=10**6), tabs.UNACKNOWLEDGED_MAX, price=1)
    assert len(tab.hashes) == tabs.UNACKNOWLEDGED_MAX + 1
    with pytest.raises(AcknowledgementDue):
        tabs.admit(tab, call(tabs.UNACKNOWLEDGED_MAX), 1)
    late = promise(10**6, acknowledged=tab.completed, receipts=tab.receipts)
    tab, _ = tabs.accept(tab, late, BUYER)
    assert tabs.admit(tab, call(tabs.UNACKNOWLEDGED_MAX), 1)[1]


def test_a_claim_waits_for_calls_in_flight_and_takes_the_sum_of_receipts() -> None:
    tab, _ = tabs.admit(served(with_voucher(300), 2), call(2), PRICE)
    tab = tabs.stop_admitting(tab)
    with pytest.raises(CallsInFlight):
        tabs.begin_claim(tab)
    with pytest.raises(ChannelIsClaiming):
        tabs.admit(tab, call(3), PRICE)
    tab, _ = tabs.release(tab, call(2))
    tab, events = tabs.begin_claim(tab)
    assert events == (ClaimPlanned(200, promise(300)),)
    assert tabs.admit(tabs.claim_failed(tab), call(3), PRICE)[1]
    done = tabs.claim_final(tab)
    with pytest.raises(TabStepNotAllowed):
        tabs.claim_failed(done)


def test_a_claim_is_due_before_the_expiry_or_when_it_is_large() -> None:
    tab = served(with_voucher(300), 2)
    terms: dict[str, int] = {"expires_at_ms": 10_000, "margin_ms": 1_000, "spent_uain_max": 1_000}
    assert not tabs.claim_is_due(tab, at_ms=8_999, **terms)
    assert tabs.claim_is_due(tab, at_ms=9_000, **terms)
    assert tabs.claim_is_due(tab, at_ms=0, **terms | {"spent_uain_max": 200})
    assert not tabs.claim_is_due(with_voucher(300), at_ms=99_999, **terms)


class GatewayTab(RuleBasedStateMachine):
    """Whatever arrives, in whatever order: never more served than covered, nothing counted twice."""

    @initialize(cover=st.integers(0, 600))
    def open(self, cover: int) -> None:
        self.tab = fresh(cover)
        self.cover = cover
        self.largest = 0
        self.running: dict[CallKey, int] = {}
        self.paid: dict[CallKey, int] = {}
        self.digests: list[bytes] = []

    @rule(
        total=st.integers(0, 700),
        session=st.sampled_from([SESSION, OTHER_SESSION]),
        nonce=st.sampled_from([0, 0, 0, 1]),
        signer=st.sampled_from([BUYER, BUYER, BUYER, "somebody else"]),
        acknowledged=st.integers(0, 4),
        lies=st.booleans(),
        sequence=st.integers(0, 6),
        price=st.sampled_from([0, 50, 100]),
        brings=st.booleans(),
    )
    def arrives(
        self,
        total: int,
        session: bytes,
        nonce: int,
        signer: str,
        acknowledged: int,
        lies: bool,
        sequence: int,
        price: int,
        brings: bool,
    ) -> None:
        receipts = receipts_hash(tuple(self.digests[:acknowledged]))
        paper = promise(
            total,
            session=session,
            nonce=nonce,
            acknowledged=acknowledged,
            receipts=keccak(b"lie") if lies else receipts,
        )
        key = call(sequence, session)
        before = self.tab
        try:
            self.tab, events = tabs.pay(self.tab, paper if brings else None, signer, key, price)
        except Refusal:
            assert self.tab is before
            return
        for event in events:
            if isinstance(event, VoucherAccepted):
                assert (
                    nonce == 0
                    and signer == BUYER
                    and not (lies and acknowledged == 0 and receipts != NO_RECEIPTS)
                )
                assert total <= self.cover and total >= self.largest
                self.largest = total
            elif isinstance(event, CallAdmitted):
                assert key not in self.running and key not in self.paid
                self.running[key] = price
            elif isinstance(event, CallAnswered):
                assert key in self.paid
            elif isinstance(event, CallInFlight):
                assert key in self.running

    @precondition(lambda self: self.running)
    @rule(data=st.data(), answered=st.booleans())
    def ends(self, data: st.DataObject, answered: bool) -> None:
        key = data.draw(st.sampled_from(sorted(self.running, key=lambda one: (one.session, one.sequence))))
        price = self.running.pop(key)
        if answered:
            number = digest(len(self.digests))
            self.tab, _ = tabs.complete(self.tab, key, number)
            self.digests.append(number)
            self.paid[key] = price
        else:
            self.tab, _ = tabs.release(self.tab, key)

    @invariant()
    def never_beyond_the_cover(self) -> None:
        if not hasattr(self, "tab"):
            return
        tab = self.tab
        assert tab.spent_uain == sum(self.paid.values())
        assert tab.in_flight_uain == sum(self.running.values()) == sum(tab.in_flight.values())
        assert tab.spent_uain + tab.in_flight_uain <= tab.total_uain <= self.cover
        assert tab.completed == len(self.digests)
        assert tab.receipts == receipts_hash(tuple(self.digests))


GatewayTab.TestCase.settings = settings(max_examples=120, stateful_step_count=40, deadline=None)
TestGatewayTab = GatewayTab.TestCase
