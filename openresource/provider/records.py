"""What the journal's records say: the whole payment state is the sum of these, read in order.

They are packed as arrays with a tag, so that a record of a paid call costs a few microseconds. The end of a list of
members may grow; the order of what is there never changes.
"""

from __future__ import annotations

from typing import Any

import msgspec

from openresource.market.tabs import SessionWindow, Tab
from openresource.market.vouchers import Voucher
from openresource.primitives.errors import Refusal


class RecordUnknown(Refusal):
    template = "The journal holds a record that this version cannot read: {reason}."
    way_out = "Start the version that wrote it; calls that were not claimed yet are in it."


class ChannelRead(msgspec.Struct, frozen=True, array_like=True, tag="channel"):
    """A channel as the final state of the chain showed it."""

    name: str
    record: dict[str, Any]
    value_uain: int


class VoucherTaken(msgspec.Struct, frozen=True, array_like=True, tag="voucher"):
    """A voucher that counts from now on."""

    name: str
    nonce: int
    total_uain: int
    session: bytes
    acknowledged: int
    receipts: bytes
    signature: bytes
    network: str


class CallPaid(msgspec.Struct, frozen=True, array_like=True, tag="call"):
    """A call that was answered, with the answer; `is_kept` says that a tab record counts it already."""

    name: str
    nonce: int
    session: bytes
    sequence: int
    price_uain: int
    receipt_id: bytes
    receipt_json: bytes
    service: str
    program: str
    at_ms: int
    fingerprint: bytes
    status: int
    content_type: str
    body: bytes
    body_file: str
    is_whole: bool
    is_kept: bool = False


class ClaimBegun(msgspec.Struct, frozen=True, array_like=True, tag="claim"):
    """A claim may be on its way to the chain from here on: nothing is admitted under its nonce any more."""

    name: str
    nonce: int
    amount_uain: int
    send_back: bool


class ClaimFailed(msgspec.Struct, frozen=True, array_like=True, tag="claim_failed"):
    """The claim is certainly not on the chain."""

    name: str
    nonce: int


class ClaimFinal(msgspec.Struct, frozen=True, array_like=True, tag="claim_final"):
    """The claim, or whatever else raised the nonce, is final; the next record of the channel says how it is now."""

    name: str
    nonce: int
    tx_hash: str
    amount_uain: int


class TestCallUsed(msgspec.Struct, frozen=True, array_like=True, tag="test"):
    """A publisher's free test call."""

    program: str
    timestamp_ms: int
    used: int


class TabKept(msgspec.Struct, frozen=True, array_like=True, tag="tab"):
    """A channel's tab in a snapshot."""

    name: str
    nonce: int
    spent_uain: int
    completed: int
    acknowledged: int
    hashes: list[bytes]
    # Session, newest number, answered numbers as bits.
    sessions: list[tuple[bytes, int, bytes]]


class ChannelForgotten(msgspec.Struct, frozen=True, array_like=True, tag="forgotten"):
    """A channel that ended and was settled."""

    name: str


Record = (
    ChannelRead
    | VoucherTaken
    | CallPaid
    | ClaimBegun
    | ClaimFailed
    | ClaimFinal
    | TestCallUsed
    | TabKept
    | ChannelForgotten
)

_encoder = msgspec.msgpack.Encoder()
_decoder: msgspec.msgpack.Decoder[Record] = msgspec.msgpack.Decoder(Record)


def pack(record: Record) -> bytes:
    """A record's bytes."""
    return _encoder.encode(record)


def unpack(payload: bytes) -> Record:
    """A record from its bytes."""
    try:
        return _decoder.decode(payload)
    except msgspec.DecodeError as error:
        raise RecordUnknown(reason=str(error)) from error


def voucher_taken(voucher: Voucher) -> VoucherTaken:
    """The record of a voucher."""
    return VoucherTaken(
        voucher.channel,
        voucher.nonce,
        voucher.total_uain,
        voucher.session,
        voucher.acknowledged,
        voucher.receipts,
        voucher.signature,
        voucher.network,
    )


def voucher_of(record: VoucherTaken) -> Voucher:
    """The voucher of a record."""
    return Voucher(
        channel=record.name,
        nonce=record.nonce,
        total_uain=record.total_uain,
        session=record.session,
        acknowledged=record.acknowledged,
        receipts=record.receipts,
        signature=record.signature,
        network=record.network,
    )


def tab_kept(tab: Tab) -> TabKept:
    """The record of a tab, without what is in flight: after a restart nothing is."""
    sessions = [
        (session, window.newest, window.answered.to_bytes((window.answered.bit_length() + 7) // 8, "big"))
        for session, window in tab.sessions.items()
    ]
    return TabKept(
        tab.channel, tab.nonce, tab.spent_uain, tab.completed, tab.acknowledged, list(tab.hashes), sessions
    )


def sessions_of(record: TabKept) -> dict[bytes, SessionWindow]:
    """The sessions of a tab's record."""
    return {
        session: SessionWindow(newest, int.from_bytes(answered, "big"))
        for session, newest, answered in record.sessions
    }
