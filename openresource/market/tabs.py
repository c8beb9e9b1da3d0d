"""A gateway's tab for one (channel, nonce): what is covered, in flight and spent, and which calls were answered.

The caller keeps the tab, the journal and the answers; here state and change go in, new state and events come out.
A tab never lets work begin that no voucher covers, never counts one (session, sequence) twice, and knows no clock.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Final

from openresource.market.channels import check_voucher_signer
from openresource.market.receipts import next_receipts_hash
from openresource.market.vouchers import NO_RECEIPTS, Voucher, check_voucher_place
from openresource.primitives.errors import Refusal

# Every list of a tab has its bound; a client that reaches one is told what to do.
IN_FLIGHT_MAX: Final = 256
SESSIONS_MAX: Final = 64
SEQUENCE_WINDOW: Final = 1024
UNACKNOWLEDGED_MAX: Final = 1024

OPEN: Final = "OPEN"
CLAIMING: Final = "CLAIMING"
CLAIMED: Final = "CLAIMED"

LIFE_CYCLE: Final[dict[str, dict[str, str]]] = {
    OPEN: {"begin_claim": CLAIMING},
    CLAIMING: {"claim_failed": OPEN, "claim_final": CLAIMED},
    CLAIMED: {},
}


class VoucherPastDeposit(Refusal):
    template = "The voucher promises {total_uain} µAIN; the channel holds {cover_uain} µAIN."
    way_out = "Add money to the channel first and wait until that is final, or open a new channel."


class VoucherOutOfOrder(Refusal):
    template = "The voucher's total of {offered_uain} µAIN is below {known_uain} µAIN, which an earlier one promised."
    way_out = "Totals only grow: sign for at least {known_uain} µAIN, or send the call without a voucher."


class VoucherTooSmall(Refusal):
    template = "The voucher covers {offered_uain} µAIN; with this call {required_uain} µAIN are needed."
    way_out = "Sign a voucher for a total of at least {required_uain} µAIN and send the call again."


class VoucherReplayed(Refusal):
    template = "This voucher was presented before and its {offered_uain} µAIN are spent; {required_uain} µAIN are needed."
    way_out = "Sign a new voucher for a total of at least {required_uain} µAIN."


class VoucherMissing(Refusal):
    template = "No voucher has been accepted on channel {channel} yet; this call costs {required_uain} µAIN."
    way_out = "Send a voucher for at least {required_uain} µAIN with the call."


class VoucherAcknowledgesUnknown(Refusal):
    template = "The voucher acknowledges {offered} receipts with a hash that is not ours; {completed} calls were completed."
    way_out = "Acknowledge only receipts that you hold, in the order of their `completed` numbers."


class AcknowledgementDue(Refusal):
    template = "{unacknowledged} receipts wait for an acknowledgement; at most {unacknowledged_max} may."
    way_out = "Sign a voucher that acknowledges the receipts that you hold."


class UnknownSession(Refusal):
    template = "No accepted voucher names the session of this call."
    way_out = "Sign a voucher that names the session's hash and send it with the call."


class TooManySessions(Refusal):
    template = "The channel has seen {sessions_max} sessions since its last claim."
    way_out = "Go on with an earlier session, or settle the channel and start anew."


class TooManyCallsInFlight(Refusal):
    template = "{in_flight} calls of this channel are in flight; at most {in_flight_max} may be."
    way_out = "Wait for an answer before the next call."


class SequenceTooOld(Refusal):
    template = "The sequence number {sequence} lies more than {window} behind the session's newest, {newest}."
    way_out = "Number calls upwards; the receipts of old calls remain at /receipts."


class ChannelIsClaiming(Refusal):
    template = "The provider is claiming the channel {channel} at nonce {nonce}; no new calls begin under it."
    way_out = "Wait until the claim is final, then sign for nonce {next_nonce}."


class TabStepNotAllowed(Refusal):
    template = "A tab that is {status} does not {step}."
    way_out = "Read the tab again; its claim was settled in the meantime."


class CallsInFlight(Refusal):
    template = "{in_flight} calls are still in flight; a claim waits until they end."
    way_out = "Wait for their answers."


@dataclass(frozen=True, slots=True)
class CallKey:
    """One call's name: (session hash, sequence number). It is the idempotency key."""

    session: bytes
    sequence: int


@dataclass(frozen=True, slots=True)
class SessionWindow:
    """Which of a session's newest sequence numbers were answered; bit n stands for `newest - n`."""

    newest: int = -1
    answered: int = 0


@dataclass(frozen=True, slots=True)
class Tab:
    """`cover_uain` is the channel's final balance; `voucher` the largest accepted; `hashes` the last running hashes."""

    channel: str
    nonce: int
    buyer: str
    signer: str
    cover_uain: int
    status: str = OPEN
    voucher: Voucher | None = None
    spent_uain: int = 0
    in_flight_uain: int = 0
    in_flight: Mapping[CallKey, int] = field(default_factory=dict)
    sessions: Mapping[bytes, SessionWindow] = field(default_factory=dict)
    completed: int = 0
    acknowledged: int = 0
    hashes: tuple[bytes, ...] = (NO_RECEIPTS,)

    @property
    def total_uain(self) -> int:
        """What the buyer has promised so far."""
        return 0 if self.voucher is None else self.voucher.total_uain

    @property
    def receipts(self) -> bytes:
        """The running hash after all completed calls."""
        return self.hashes[-1]


@dataclass(frozen=True, slots=True)
class VoucherAccepted:
    """To be on disk before an answer that it covers leaves."""

    voucher: Voucher


@dataclass(frozen=True, slots=True)
class VoucherKnown:
    """The very voucher that counts already; nothing changed."""


@dataclass(frozen=True, slots=True)
class VoucherSuperseded:
    """A smaller voucher of a known session overtaken on its way by a larger one; nothing changed."""

    total_uain: int


@dataclass(frozen=True, slots=True)
class CallAdmitted:
    """Cover is set aside; the work may begin, and its answer leaves once the voucher is on disk."""

    call: CallKey
    price_uain: int


@dataclass(frozen=True, slots=True)
class CallInFlight:
    """A retry of a call that is being worked on; wait for its answer."""

    call: CallKey


@dataclass(frozen=True, slots=True)
class CallAnswered:
    """A retry of a call that was answered; the stored answer and receipt are sent again."""

    call: CallKey


@dataclass(frozen=True, slots=True)
class CallCompleted:
    """The call is paid for; `receipts` is the running hash that includes its receipt."""

    call: CallKey
    price_uain: int
    completed: int
    receipts: bytes


@dataclass(frozen=True, slots=True)
class CallReleased:
    """No answer, no pay: the cover is free again, and the same call may be tried anew."""

    call: CallKey
    price_uain: int


@dataclass(frozen=True, slots=True)
class ClaimPlanned:
    """What an honest gateway claims: the sum of its receipts, with the largest voucher as the proof."""

    amount_uain: int
    voucher: Voucher


TabEvent = (
    VoucherAccepted
    | VoucherKnown
    | VoucherSuperseded
    | CallAdmitted
    | CallInFlight
    | CallAnswered
    | CallCompleted
    | CallReleased
    | ClaimPlanned
)


def open_tab(channel: str, nonce: int, buyer: str, signer: str, cover_uain: int) -> Tab:
    """A fresh tab for a channel as the final state shows it."""
    return Tab(channel=channel, nonce=nonce, buyer=buyer, signer=signer, cover_uain=cover_uain)


def set_cover(tab: Tab, cover_uain: int) -> Tab:
    """The channel's final balance has changed; between claims it can only have grown."""
    return replace(tab, cover_uain=cover_uain)


def accept(tab: Tab, voucher: Voucher, voucher_signer: str) -> tuple[Tab, tuple[TabEvent, ...]]:
    """Takes a voucher whose signature was recovered to `voucher_signer`."""
    _require_open(tab)
    check_voucher_place(voucher, tab.channel, tab.nonce)
    check_voucher_signer(voucher_signer, tab.buyer, tab.signer)
    if tab.voucher is not None and _same_promise(voucher, tab.voucher):
        return tab, (VoucherKnown(),)
    if voucher.total_uain < tab.total_uain:
        raise VoucherOutOfOrder(offered_uain=voucher.total_uain, known_uain=tab.total_uain)
    if voucher.total_uain > tab.cover_uain:
        raise VoucherPastDeposit(total_uain=voucher.total_uain, cover_uain=tab.cover_uain)
    _check_acknowledgement(tab, voucher)
    sessions = tab.sessions
    if voucher.session not in sessions:
        if len(sessions) >= SESSIONS_MAX:
            raise TooManySessions(sessions_max=SESSIONS_MAX)
        sessions = {**sessions, voucher.session: SessionWindow()}
    accepted = replace(
        tab, voucher=voucher, sessions=sessions, acknowledged=max(tab.acknowledged, voucher.acknowledged)
    )
    return accepted, (VoucherAccepted(voucher),)


def admit(
    tab: Tab, call: CallKey, price_uain: int, *, is_replay: bool = False
) -> tuple[Tab, tuple[TabEvent, ...]]:
    """Sets a call's price aside, or refuses; `is_replay` says that the call came with a voucher known before."""
    known = _known_call(tab, call)
    if known is not None:
        return tab, (known,)
    _require_open(tab)
    if tab.voucher is None:
        raise VoucherMissing(channel=tab.channel, required_uain=price_uain)
    window = tab.sessions.get(call.session)
    if window is None:
        raise UnknownSession()
    if window.newest - call.sequence >= SEQUENCE_WINDOW:
        raise SequenceTooOld(sequence=call.sequence, newest=window.newest, window=SEQUENCE_WINDOW)
    required = tab.spent_uain + tab.in_flight_uain + price_uain
    if required > tab.total_uain:
        shortage = VoucherReplayed if is_replay else VoucherTooSmall
        raise shortage(offered_uain=tab.total_uain, required_uain=required)
    if len(tab.in_flight) >= IN_FLIGHT_MAX:
        raise TooManyCallsInFlight(in_flight=len(tab.in_flight), in_flight_max=IN_FLIGHT_MAX)
    unacknowledged = tab.completed + len(tab.in_flight) - tab.acknowledged
    if unacknowledged >= UNACKNOWLEDGED_MAX:
        raise AcknowledgementDue(unacknowledged=unacknowledged, unacknowledged_max=UNACKNOWLEDGED_MAX)
    admitted = replace(
        tab,
        in_flight={**tab.in_flight, call: price_uain},
        in_flight_uain=tab.in_flight_uain + price_uain,
        sessions={**tab.sessions, call.session: _reached(window, call.sequence)},
    )
    return admitted, (CallAdmitted(call, price_uain),)


def pay(
    tab: Tab, voucher: Voucher | None, voucher_signer: str, call: CallKey, price_uain: int
) -> tuple[Tab, tuple[TabEvent, ...]]:
    """A call as it arrives, with or without a voucher: retries first, then the voucher, then the cover."""
    known = _known_call(tab, call)
    if known is not None:
        return tab, (known,)
    if voucher is None:
        return admit(tab, call, price_uain)
    if _is_overtaken(tab, voucher, voucher_signer, call):
        # Concurrent calls overtake each other on the way; the larger promise is enough for both, or it is not.
        if tab.spent_uain + tab.in_flight_uain + price_uain > tab.total_uain:
            raise VoucherOutOfOrder(offered_uain=voucher.total_uain, known_uain=tab.total_uain)
        admitted, events = admit(tab, call, price_uain)
        return admitted, (VoucherSuperseded(voucher.total_uain), *events)
    accepted, first = accept(tab, voucher, voucher_signer)
    admitted, second = admit(accepted, call, price_uain, is_replay=first == (VoucherKnown(),))
    return admitted, (*first, *second)


def complete(tab: Tab, call: CallKey, receipt_digest: bytes) -> tuple[Tab, tuple[TabEvent, ...]]:
    """A call was answered: its price is spent and its receipt joins the running hash."""
    price, rest = _without(tab, call)
    window = tab.sessions[call.session]
    behind = window.newest - call.sequence
    answered = window.answered | (1 << behind) if behind < SEQUENCE_WINDOW else window.answered
    running = next_receipts_hash(tab.receipts, receipt_digest)
    done = replace(
        tab,
        in_flight=rest,
        in_flight_uain=tab.in_flight_uain - price,
        spent_uain=tab.spent_uain + price,
        completed=tab.completed + 1,
        hashes=(*tab.hashes, running)[-(UNACKNOWLEDGED_MAX + 1) :],
        sessions={**tab.sessions, call.session: replace(window, answered=answered)},
    )
    return done, (CallCompleted(call, price, done.completed, running),)


def replay(tab: Tab, call: CallKey, price_uain: int, receipt_digest: bytes) -> Tab:
    """A tab after a call that a journal says was answered; it was admitted then, so nothing is asked again."""
    window = tab.sessions.get(call.session, SessionWindow())
    admitted = replace(
        tab,
        in_flight={**tab.in_flight, call: price_uain},
        in_flight_uain=tab.in_flight_uain + price_uain,
        sessions={**tab.sessions, call.session: _reached(window, call.sequence)},
    )
    return complete(admitted, call, receipt_digest)[0]


def release(tab: Tab, call: CallKey) -> tuple[Tab, tuple[TabEvent, ...]]:
    """A call ended without an answer: its cover is free again."""
    price, rest = _without(tab, call)
    freed = replace(tab, in_flight=rest, in_flight_uain=tab.in_flight_uain - price)
    return freed, (CallReleased(call, price),)


def stop_admitting(tab: Tab) -> Tab:
    """No new calls from here on: the calls in flight end, then the claim goes out."""
    return _step(tab, "begin_claim")


def begin_claim(tab: Tab) -> tuple[Tab, tuple[TabEvent, ...]]:
    """The claim to make once nothing is in flight; without a voucher there is nothing to claim."""
    claiming = tab if tab.status == CLAIMING else _step(tab, "begin_claim")
    if claiming.in_flight:
        raise CallsInFlight(in_flight=len(claiming.in_flight))
    if claiming.voucher is None:
        return claiming, ()
    return claiming, (ClaimPlanned(claiming.spent_uain, claiming.voucher),)


def claim_failed(tab: Tab) -> Tab:
    """The claim did not get into the chain: the tab goes on as it was."""
    return _step(tab, "claim_failed")


def claim_final(tab: Tab) -> Tab:
    """The claim is final: this tab is history, the next nonce gets a fresh one."""
    return _step(tab, "claim_final")


def claim_is_due(tab: Tab, *, expires_at_ms: int, at_ms: int, margin_ms: int, spent_uain_max: int) -> bool:
    """Whether an unclaimed sum should go to the chain now: before the expiry comes near, or when it is large."""
    if tab.status != OPEN or tab.spent_uain == 0:
        return False
    return at_ms >= expires_at_ms - margin_ms or tab.spent_uain >= spent_uain_max


def tab_json(tab: Tab) -> dict[str, object]:
    """The gateway's answer to `GET /channels/<buyer>/<id>`."""
    return {
        "nonce": tab.nonce,
        "status": tab.status,
        "total_uain": tab.total_uain,
        "spent_uain": tab.spent_uain,
        "in_flight_uain": tab.in_flight_uain,
        "completed": tab.completed,
        "acknowledged": tab.acknowledged,
        "receipts": "0x" + tab.receipts.hex(),
    }


def _require_open(tab: Tab) -> None:
    if tab.status != OPEN:
        raise ChannelIsClaiming(channel=tab.channel, nonce=tab.nonce, next_nonce=tab.nonce + 1)


def _step(tab: Tab, step: str) -> Tab:
    target = LIFE_CYCLE[tab.status].get(step)
    if target is None:
        raise TabStepNotAllowed(status=tab.status, step=step.replace("_", " "))
    return replace(tab, status=target)


def _same_promise(one: Voucher, other: Voucher) -> bool:
    """The signature may differ: it is not part of the promise."""
    return (one.total_uain, one.session, one.acknowledged, one.receipts) == (
        other.total_uain,
        other.session,
        other.acknowledged,
        other.receipts,
    )


def _is_overtaken(tab: Tab, voucher: Voucher, voucher_signer: str, call: CallKey) -> bool:
    """Whether a voucher is a good one that a larger one overtook; its session must be known and be the call's."""
    return (
        voucher.channel == tab.channel
        and voucher.nonce == tab.nonce
        and voucher_signer in (tab.buyer, tab.signer)
        and voucher.total_uain < tab.total_uain
        and voucher.session == call.session
        and voucher.session in tab.sessions
    )


def _check_acknowledgement(tab: Tab, voucher: Voucher) -> None:
    """The running hash at the acknowledged count must be ours, and still remembered."""
    behind = tab.completed - voucher.acknowledged
    if not 0 <= behind < len(tab.hashes) or tab.hashes[-1 - behind] != voucher.receipts:
        raise VoucherAcknowledgesUnknown(offered=voucher.acknowledged, completed=tab.completed)


def _known_call(tab: Tab, call: CallKey) -> CallInFlight | CallAnswered | None:
    if call in tab.in_flight:
        return CallInFlight(call)
    window = tab.sessions.get(call.session)
    if window is None or not 0 <= window.newest - call.sequence < SEQUENCE_WINDOW:
        return None
    is_answered = window.answered >> (window.newest - call.sequence) & 1
    return CallAnswered(call) if is_answered else None


def _reached(window: SessionWindow, sequence: int) -> SessionWindow:
    """The window with a sequence number in it; the oldest numbers fall out at its end."""
    if sequence <= window.newest:
        return window
    ahead = min(sequence - window.newest, SEQUENCE_WINDOW)
    return SessionWindow(sequence, (window.answered << ahead) & ((1 << SEQUENCE_WINDOW) - 1))


def _without(tab: Tab, call: CallKey) -> tuple[int, dict[CallKey, int]]:
    """A call's price and the calls in flight without it; only admitted calls end."""
    assert call in tab.in_flight, "only a call in flight can end"
    rest = dict(tab.in_flight)
    return rest.pop(call), rest
