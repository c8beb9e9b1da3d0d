"""Vouchers: a buyer's signed promise of a total on one channel, under one nonce, for one session of calls."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, Final

from openresource.ledger.draft import NetworkDomain
from openresource.market.channels import check_voucher_signer, parse_channel_name
from openresource.market.codes import ResultCode
from openresource.market.fields import Fields
from openresource.market.papers import (
    SCHEME,
    full_network_name,
    hex_text,
    paper_digest,
    paper_signer,
    sign_paper,
)
from openresource.primitives.errors import Refusal
from openresource.primitives.hashing import keccak
from openresource.primitives.keys import PrivateKey

SESSION_SECRET_BYTES: Final = 32
VOUCHER_TYPE: Final = (
    "Voucher(bytes32 channel,uint64 nonce,uint256 total,bytes32 session,uint64 acknowledged,bytes32 receipts)"
)
SETTLE_TYPE: Final = "Settle(bytes32 channel,uint64 nonce,uint64 timestamp)"
SETTLE_WINDOW_MS: Final = 5 * 60 * 1000
NO_RECEIPTS: Final = bytes(32)


class VoucherForOtherNetwork(Refusal):
    result_code = ResultCode.VOUCHER_FOR_OTHER_NETWORK
    template = "The voucher was signed for {offered}; this is {expected}."
    way_out = "Sign over the chain id and the genesis hash of this network."


class VoucherForOtherChannel(Refusal):
    result_code = ResultCode.VOUCHER_FOR_OTHER_CHANNEL
    template = "The voucher is drawn on the channel {offered}; this call is on {expected}."
    way_out = "Send a voucher of the channel that the call names."


class VoucherTooOld(Refusal):
    result_code = ResultCode.VOUCHER_TOO_OLD
    template = "The voucher carries nonce {offered}; the channel is at nonce {expected} since its last claim."
    way_out = "Sign anew for nonce {expected}; totals start again from 0 there."


class VoucherAhead(Refusal):
    result_code = ResultCode.VOUCHER_AHEAD
    template = "The voucher carries nonce {offered}; the channel is only at nonce {expected}."
    way_out = "Read the channel on the chain again and sign for nonce {expected}."


class StaleSettleRequest(Refusal):
    template = "The request to settle was signed for {timestamp_ms}; it is {at_ms}."
    way_out = "Set the clock right and sign again; a signature is good for {window_ms} ms."


@dataclass(frozen=True, slots=True)
class Voucher:
    """`total_uain` grows per (channel, nonce); `receipts` is the running hash after `acknowledged` receipts."""

    channel: str
    nonce: int
    total_uain: int
    session: bytes
    acknowledged: int = 0
    receipts: bytes = NO_RECEIPTS
    signature: bytes = b""
    # Not signed: a hint that turns "signed by somebody else" into "signed for another network".
    network: str = ""


@lru_cache(maxsize=4096)
def channel_hash(channel: str) -> bytes:
    """How a paper names a channel in its digest."""
    return keccak(channel.encode())


def session_hash(secret: bytes) -> bytes:
    """The public name of a session, from its secret."""
    assert len(secret) == SESSION_SECRET_BYTES
    return keccak(secret)


def voucher_digest(voucher: Voucher, network: NetworkDomain) -> bytes:
    """What the buyer signs."""
    values = {
        "channel": channel_hash(voucher.channel),
        "nonce": voucher.nonce,
        "total": voucher.total_uain,
        "session": voucher.session,
        "acknowledged": voucher.acknowledged,
        "receipts": voucher.receipts,
    }
    return paper_digest(VOUCHER_TYPE, values, network)


def sign_voucher(voucher: Voucher, key: PrivateKey, network: NetworkDomain) -> Voucher:
    """The voucher with its signature."""
    signature = sign_paper(voucher_digest(voucher, network), key)
    return replace(voucher, signature=signature, network=full_network_name(network))


def recover_voucher_signer(voucher: Voucher, network: NetworkDomain) -> str:
    """Whose signature the voucher bears on this network; nothing is decided by that yet."""
    if voucher.network and voucher.network.lower() != full_network_name(network):
        raise VoucherForOtherNetwork(offered=voucher.network, expected=full_network_name(network))
    return paper_signer(voucher_digest(voucher, network), voucher.signature)


def check_voucher(
    voucher: Voucher, network: NetworkDomain, *, channel: str, nonce: int, buyer: str, signer: str
) -> str:
    """Refuses a voucher that the chain would not pay on this channel at this nonce; gives its signer."""
    check_voucher_place(voucher, channel, nonce)
    recovered = recover_voucher_signer(voucher, network)
    check_voucher_signer(recovered, buyer, signer)
    return recovered


def check_voucher_place(voucher: Voucher, channel: str, nonce: int) -> None:
    """Refuses a voucher of another channel or of another nonce."""
    if voucher.channel != channel:
        raise VoucherForOtherChannel(offered=voucher.channel, expected=channel)
    if voucher.nonce < nonce:
        raise VoucherTooOld(offered=voucher.nonce, expected=nonce)
    if voucher.nonce > nonce:
        raise VoucherAhead(offered=voucher.nonce, expected=nonce)


def settle_digest(channel: str, nonce: int, timestamp_ms: int, network: NetworkDomain) -> bytes:
    """What a buyer signs to have its channel claimed and the rest sent back at once."""
    values = {"channel": channel_hash(channel), "nonce": nonce, "timestamp": timestamp_ms}
    return paper_digest(SETTLE_TYPE, values, network)


def sign_settle_request(
    channel: str, nonce: int, timestamp_ms: int, key: PrivateKey, network: NetworkDomain
) -> bytes:
    """The buyer's signature under a request to settle."""
    return sign_paper(settle_digest(channel, nonce, timestamp_ms, network), key)


def check_settle_request(
    channel: str,
    nonce: int,
    timestamp_ms: int,
    signature: bytes,
    network: NetworkDomain,
    *,
    buyer: str,
    signer: str,
    at_ms: int,
) -> None:
    """Refuses a request to settle that the buyer did not sign, or not recently."""
    if abs(at_ms - timestamp_ms) > SETTLE_WINDOW_MS:
        raise StaleSettleRequest(timestamp_ms=timestamp_ms, at_ms=at_ms, window_ms=SETTLE_WINDOW_MS)
    recovered = paper_signer(settle_digest(channel, nonce, timestamp_ms, network), signature)
    check_voucher_signer(recovered, buyer, signer)


def voucher_to_json(voucher: Voucher) -> dict[str, Any]:
    """The voucher as it travels."""
    members: dict[str, Any] = {
        "scheme": SCHEME,
        "channel": voucher.channel,
        "nonce": voucher.nonce,
        "total_uain": voucher.total_uain,
        "session": hex_text(voucher.session),
        "acknowledged": voucher.acknowledged,
        "receipts": hex_text(voucher.receipts),
        "signature": hex_text(voucher.signature),
    }
    if voucher.network:
        members["network"] = voucher.network
    return members


def voucher_from_json(value: Any) -> Voucher:
    """A voucher from outside; its form is checked, its signature is not."""
    fields = Fields(value, "voucher")
    fields.choice("scheme", (SCHEME,))
    voucher = read_voucher_members(fields)
    fields.finish()
    return voucher


def read_voucher_members(fields: Fields) -> Voucher:
    """The members of a voucher in a larger record."""
    channel = fields.take("channel")
    parse_channel_name(channel)
    return Voucher(
        channel=channel,
        nonce=fields.integer("nonce"),
        total_uain=fields.amount("total_uain"),
        session=fields.digest("session"),
        acknowledged=fields.integer("acknowledged"),
        receipts=fields.digest("receipts"),
        signature=fields.signature("signature"),
        network=fields.optional_text("network", 100),
    )
