"""A buyer's purse for one channel: what to sign next, what to deposit, and how far a gateway's word is believed.

The purse counts only receipts that it has checked. What the buyer has signed beyond them is at risk, and that is kept
within a bound; a gateway that reports more than was signed, or spending that no call explains, is refused.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final

from openresource.market.fields import Fields
from openresource.market.receipts import next_receipts_hash
from openresource.market.vouchers import NO_RECEIPTS, Voucher
from openresource.primitives.errors import Refusal

DEPOSIT_CALLS_DEFAULT: Final = 20
IN_FLIGHT_MAX: Final = 256
EARLY_RECEIPTS_MAX: Final = 1024
# A channel that expires sooner than this is extended before the next call.
EXPIRY_MARGIN_MS_DEFAULT: Final = 10 * 60 * 1000


class DepositTooSmall(Refusal):
    template = "The channel holds {deposit_uain} µAIN; {required_uain} µAIN must be covered for this call."
    way_out = "Add {missing_uain} µAIN to the channel, or wait for calls in flight."


class TooMuchAtRisk(Refusal):
    template = (
        "{at_risk_uain} µAIN would be signed beyond what receipts show; the limit is {risk_uain_max} µAIN."
    )
    way_out = "Wait for calls in flight, or ask again for the receipts of answered calls."


class GatewayClaimsUnsigned(Refusal):
    template = "The gateway reports {member} = {reported}; this wallet vouches for at most {known}."
    way_out = "Do not sign more for this provider; let the channel expire and take the rest back."


class NonceMoved(Refusal):
    template = "The gateway is at nonce {reported}; this wallet still counts under nonce {known}."
    way_out = "Read the channel on the chain; go on under its final nonce with totals from 0."


class SpendingUnexplained(Refusal):
    template = "The gateway counts {reported_uain} µAIN; receipts and calls without an answer explain {explained_uain} µAIN."
    way_out = "Ask for the missing receipts, or settle the channel and choose another provider."


class ReceiptsDiffer(Refusal):
    template = "Two receipts of this channel carry the same number {completed}."
    way_out = "Keep both as evidence, sign no more for this provider, and let the channel expire."


class TooManyCallsOpen(Refusal):
    template = "{in_flight} calls of this channel wait for an answer; at most {in_flight_max} may."
    way_out = "Wait for an answer before the next call."


@dataclass(frozen=True, slots=True)
class Purse:
    """`signed_uain` is the largest total signed; `earned_uain` the sum of prices in checked receipts."""

    channel: str
    nonce: int
    deposit_uain: int
    expires_at_ms: int
    session: bytes
    next_sequence: int = 0
    signed_uain: int = 0
    earned_uain: int = 0
    in_flight: Mapping[int, int] = field(default_factory=dict)
    acknowledged: int = 0
    receipts: bytes = NO_RECEIPTS
    # Receipts that came before one with a smaller number: concurrent calls answer in any order.
    early: Mapping[int, bytes] = field(default_factory=dict)
    # What the gateway counts for calls that this client gave up.
    inherited_uain: int = 0
    # The prices of calls given up without knowing what became of them: how much a gateway may count beyond receipts.
    given_up_uain: int = 0
    # Calls of earlier nonces whose end nobody saw, with their prices: a claim may have paid for them.
    behind: Mapping[int, int] = field(default_factory=dict)
    # What the chain showed as claimed when this nonce began; None if that is not known.
    claimed_before_uain: int | None = 0

    @property
    def in_flight_uain(self) -> int:
        """The prices of calls without an answer yet."""
        return sum(self.in_flight.values())

    @property
    def at_risk_uain(self) -> int:
        """What is signed beyond checked receipts: the most that a dishonest gateway could take."""
        return max(0, self.signed_uain - self.earned_uain - self.inherited_uain)

    @property
    def is_doubtful(self) -> bool:
        """Whether a provider may have earned what the books do not know: more is signed than receipts show."""
        return bool(self.behind) or self.signed_uain > self.earned_uain


@dataclass(frozen=True, slots=True)
class CallStarted:
    """Number the call with `sequence`; `voucher` is to be signed and sent with it.

    It is None if an earlier one covers the call. A gateway that never saw that one gets `next_voucher`.
    """

    sequence: int
    price_uain: int
    voucher: Voucher | None


@dataclass(frozen=True, slots=True)
class ReceiptCounted:
    """The receipt is in the books; `acknowledged` receipts will be acknowledged by the next voucher."""

    sequence: int
    price_uain: int
    acknowledged: int


@dataclass(frozen=True, slots=True)
class GatewayState:
    """A gateway's word about a channel, as it stands in its answer."""

    nonce: int
    total_uain: int
    spent_uain: int
    in_flight_uain: int
    completed: int
    receipts: bytes


@dataclass(frozen=True, slots=True)
class DepositPlan:
    """What to put into a channel, and until when."""

    amount_uain: int
    expires_at_ms: int


def open_purse(channel: str, nonce: int, deposit_uain: int, expires_at_ms: int, session: bytes) -> Purse:
    """A purse for a channel as the final state shows it, under a fresh session."""
    return Purse(channel, nonce, deposit_uain, expires_at_ms, session)


def plan_deposit(
    price_uain: int,
    *,
    at_ms: int,
    lifetime_ms: int,
    calls: int = DEPOSIT_CALLS_DEFAULT,
    deposit_uain_max: int,
) -> DepositPlan:
    """A deposit for some calls, within the wallet's cap for one channel; never less than one call."""
    wanted = min(price_uain * calls, deposit_uain_max)
    if wanted < price_uain:
        raise DepositTooSmall(deposit_uain=wanted, required_uain=price_uain, missing_uain=price_uain - wanted)
    return DepositPlan(max(wanted, 1), at_ms + lifetime_ms)


def plan_addition(
    purse: Purse, price_uain: int, *, calls: int = DEPOSIT_CALLS_DEFAULT, deposit_uain_max: int
) -> int:
    """What to add so that the next call, and if the cap allows some more, are covered; 0 if they are."""
    required = _committed_uain(purse) + price_uain
    if required <= purse.deposit_uain:
        return 0
    room = deposit_uain_max - purse.deposit_uain
    wanted = min(required - purse.deposit_uain + price_uain * (calls - 1), room)
    if purse.deposit_uain + wanted < required:
        raise DepositTooSmall(
            deposit_uain=purse.deposit_uain,
            required_uain=required,
            missing_uain=required - purse.deposit_uain,
        )
    return wanted


def extension_is_due(purse: Purse, *, at_ms: int, margin_ms: int = EXPIRY_MARGIN_MS_DEFAULT) -> bool:
    """Whether the channel must live longer before the next call."""
    return purse.expires_at_ms - at_ms < margin_ms


def start_call(
    purse: Purse, price_uain: int, *, risk_uain_max: int, calls_ahead: int = 1
) -> tuple[Purse, CallStarted]:
    """The next call: its number, and the voucher to sign if what is signed does not cover it.

    With `calls_ahead` above 1 one signature covers several calls, and that much more is at risk.
    """
    if len(purse.in_flight) >= IN_FLIGHT_MAX:
        raise TooManyCallsOpen(in_flight=len(purse.in_flight), in_flight_max=IN_FLIGHT_MAX)
    required = _committed_uain(purse) + price_uain
    if required > purse.deposit_uain:
        raise DepositTooSmall(
            deposit_uain=purse.deposit_uain,
            required_uain=required,
            missing_uain=required - purse.deposit_uain,
        )
    sequence = purse.next_sequence
    started = replace(purse, next_sequence=sequence + 1, in_flight={**purse.in_flight, sequence: price_uain})
    if required <= purse.signed_uain and _session_is_signed(purse):
        return started, CallStarted(sequence, price_uain, None)
    booked = purse.earned_uain + purse.inherited_uain
    ahead = min(required + price_uain * (calls_ahead - 1), purse.deposit_uain, booked + risk_uain_max)
    total = max(purse.signed_uain, required, ahead)
    at_risk = total - booked
    if at_risk > risk_uain_max and total > purse.signed_uain:
        raise TooMuchAtRisk(at_risk_uain=at_risk, risk_uain_max=risk_uain_max)
    signing = replace(started, signed_uain=total)
    return signing, CallStarted(sequence, price_uain, next_voucher(signing))


def next_voucher(purse: Purse) -> Voucher:
    """The voucher for what the purse has committed, unsigned; it acknowledges every receipt counted so far."""
    return Voucher(
        channel=purse.channel,
        nonce=purse.nonce,
        total_uain=purse.signed_uain,
        session=purse.session,
        acknowledged=purse.acknowledged,
        receipts=purse.receipts,
    )


def count_receipt(
    purse: Purse, sequence: int, completed: int, price_uain: int, digest: bytes
) -> tuple[Purse, ReceiptCounted]:
    """A checked receipt of a call in flight; the running hash grows as far as the numbers have no gap."""
    assert sequence in purse.in_flight, "only a call in flight gets a receipt"
    if completed <= purse.acknowledged or purse.early.get(completed, digest) != digest:
        raise ReceiptsDiffer(completed=completed)
    in_flight = dict(purse.in_flight)
    del in_flight[sequence]
    early = {**purse.early, completed: digest}
    acknowledged, running = purse.acknowledged, purse.receipts
    while acknowledged + 1 in early:
        running = next_receipts_hash(running, early.pop(acknowledged + 1))
        acknowledged += 1
    # A receipt far ahead of a gap that never closes is not kept: the gateway will ask for an acknowledgement first.
    while len(early) > EARLY_RECEIPTS_MAX:
        early.pop(max(early))
    counted = replace(
        purse,
        in_flight=in_flight,
        earned_uain=purse.earned_uain + price_uain,
        early=early,
        acknowledged=acknowledged,
        receipts=running,
    )
    return counted, ReceiptCounted(sequence, price_uain, acknowledged)


def drop_call(purse: Purse, sequence: int, *, gives_up: bool = False) -> Purse:
    """A call was refused or failed without an answer: nothing is owed for it.

    With `gives_up` nobody could say what became of it: it may turn up in the gateway's count yet.

    A call that a gateway refused for its payment is dropped first, then the gateway's answer is taken with `resume`,
    and then the call starts anew under the next number: so neither side counts it twice.
    """
    if sequence in purse.behind:
        return forget_behind(purse, sequence)
    in_flight = dict(purse.in_flight)
    price_uain = in_flight.pop(sequence, 0)
    given_up_uain = purse.given_up_uain + price_uain * gives_up
    return replace(purse, in_flight=in_flight, given_up_uain=given_up_uain)


def forget_behind(purse: Purse, sequence: int) -> Purse:
    """It is known what became of a call of an earlier nonce; this nonce's totals never held it."""
    return replace(
        purse, behind={number: price for number, price in purse.behind.items() if number != sequence}
    )


def resume(purse: Purse, answer: GatewayState, *, risk_uain_max: int) -> Purse:
    """Goes on after a refusal, a lost connection or a restart; a gateway is believed up to what this wallet signed."""
    if answer.nonce != purse.nonce:
        raise NonceMoved(reported=answer.nonce, known=purse.nonce)
    if answer.total_uain > purse.signed_uain:
        raise GatewayClaimsUnsigned(member="total_uain", reported=answer.total_uain, known=purse.signed_uain)
    if answer.spent_uain + answer.in_flight_uain > answer.total_uain:
        raise GatewayClaimsUnsigned(
            member="spent_uain", reported=answer.spent_uain + answer.in_flight_uain, known=answer.total_uain
        )
    if answer.completed < purse.acknowledged:
        raise GatewayClaimsUnsigned(member="completed", reported=answer.completed, known=purse.acknowledged)
    if answer.completed == purse.acknowledged and answer.receipts != purse.receipts:
        raise GatewayClaimsUnsigned(
            member="receipts", reported="0x" + answer.receipts.hex(), known="0x" + purse.receipts.hex()
        )
    counted = answer.spent_uain + answer.in_flight_uain
    explained = purse.earned_uain + purse.in_flight_uain
    # Calls given up while their answers were on the way: believed afresh each time, and never beyond the risk.
    inherited = max(0, counted - explained)
    if inherited > risk_uain_max:
        raise SpendingUnexplained(reported_uain=counted, explained_uain=explained)
    return replace(purse, inherited_uain=inherited)


def unbooked_uain(purse: Purse, claimed_uain: int) -> int:
    """What claims took since this nonce began beyond the receipts that were counted under it."""
    if purse.claimed_before_uain is None:
        return 0
    return max(0, claimed_uain - purse.claimed_before_uain - purse.earned_uain)


def next_nonce(
    purse: Purse, nonce: int, deposit_uain: int, expires_at_ms: int, claimed_uain: int | None = None
) -> Purse:
    """After a final claim: the same session and numbering, totals from 0; open calls are asked about still."""
    return Purse(
        channel=purse.channel,
        nonce=nonce,
        deposit_uain=deposit_uain,
        expires_at_ms=expires_at_ms,
        session=purse.session,
        next_sequence=purse.next_sequence,
        behind={**purse.behind, **purse.in_flight},
        claimed_before_uain=claimed_uain,
    )


def read_gateway_state(value: Any) -> GatewayState:
    """A gateway's answer from outside."""
    fields = Fields(value, "gateway's answer")
    return GatewayState(
        nonce=fields.integer("nonce"),
        total_uain=fields.amount("total_uain"),
        spent_uain=fields.amount("spent_uain"),
        in_flight_uain=fields.amount("in_flight_uain"),
        completed=fields.integer("completed"),
        receipts=fields.digest("receipts"),
    )


def _committed_uain(purse: Purse) -> int:
    """What the gateway may count so far: receipts, calls in flight, and what was given up."""
    return purse.earned_uain + purse.inherited_uain + purse.in_flight_uain


def _session_is_signed(purse: Purse) -> bool:
    """Whether a voucher has named this session yet."""
    return purse.signed_uain > 0 and purse.next_sequence > 0
