"""A payment channel as the chain keeps it: MultiPartyEscrow's transitions over an abstract clock.

A channel is one-way. What the buyer signs is a total per (channel, nonce); every claim and every send-back raises the
nonce, and with it all older vouchers die. `tabs.py` is the gateway's side of a channel, `purses.py` the buyer's.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Final

from openresource.market.codes import ResultCode
from openresource.market.fields import Fields, InvalidRecord, is_key
from openresource.market.prices import Price
from openresource.primitives.amounts import ASSET_AIN, UAIN_MAX
from openresource.primitives.errors import Refusal
from openresource.primitives.keys import is_checksum_address

CHANNEL_LIFETIME_MS_DEFAULT: Final = 24 * 60 * 60 * 1000
CHANNEL_LIFETIME_MS_MAX: Final = 400 * 24 * 60 * 60 * 1000
CHANNEL_DEPOSIT_UAIN_MIN: Final = 1
# A provider claims this part of a channel's life before it expires, within bounds, and begins no call after that.
CLAIM_MARGIN_PART: Final = 5
CLAIM_MARGIN_MS_MIN: Final = 1_000
CLAIM_MARGIN_MS_MAX: Final = 10 * 60 * 1000

OPEN: Final = "OPEN"
CLOSED: Final = "CLOSED"


class ClaimAboveChannel(Refusal):
    result_code = ResultCode.CLAIM_ABOVE_CHANNEL
    template = "The claim of {amount_uain} µAIN is more than the {value_uain} µAIN that are in the channel."
    way_out = "Claim at most what the channel holds."


class NotTheProvider(Refusal):
    result_code = ResultCode.NOT_THE_PROVIDER
    template = "Only the channel's provider {provider} may claim; {signer} signed."
    way_out = "Sign with the wallet of the provider that the channel names."


class ClaimAboveVoucher(Refusal):
    result_code = ResultCode.CLAIM_ABOVE_VOUCHER
    template = "The claim of {amount_uain} µAIN is more than the voucher's total of {total_uain} µAIN."
    way_out = "Claim at most the voucher's total."


class NotTheBuyer(Refusal):
    result_code = ResultCode.NOT_THE_BUYER
    template = "Only the channel's buyer {buyer} may do this; {signer} signed."
    way_out = "Sign with the wallet that opened the channel."


class ExpiryMovedBack(Refusal):
    result_code = ResultCode.EXPIRY_MOVED_BACK
    template = "The channel expires at {expires_at_ms}; {offered_ms} is earlier."
    way_out = "Name a later time: an expiry only ever moves away."


class ChannelNotExpired(Refusal):
    result_code = ResultCode.CHANNEL_NOT_EXPIRED
    template = "The channel expires at {expires_at_ms} and it is {at_ms}."
    way_out = "Wait for the expiry, or ask the provider to settle: it sends the rest back at once."


class VoucherSignedByOther(Refusal):
    result_code = ResultCode.VOUCHER_SIGNED_BY_OTHER
    template = "The voucher's signature belongs to {recovered}; the channel is paid by {buyer} and signed for by {signer}."
    way_out = "Sign with the channel's key, over the chain id and the genesis hash of this very network."


@dataclass(frozen=True, slots=True)
class Terms:
    """What a channel fixed when it opened; nothing later changes it."""

    publisher: str
    name: str
    program: str
    provider: str
    ask_uain: int
    royalty_uain: int
    royalty_to: str
    fee_ppm: int
    asset: str = ASSET_AIN

    @property
    def price(self) -> Price:
        """The price of one unit under these terms."""
        return Price(self.ask_uain, self.royalty_uain, self.fee_ppm, asset=self.asset)


@dataclass(frozen=True, slots=True)
class Channel:
    """A channel's state; `value_uain` is the balance of its account and never kept a second time."""

    buyer: str
    signer: str
    provider: str
    value_uain: int
    expires_at_ms: int
    nonce: int = 0
    claimed_uain: int = 0


@dataclass(frozen=True, slots=True)
class Opened:
    value_uain: int


@dataclass(frozen=True, slots=True)
class Added:
    amount_uain: int


@dataclass(frozen=True, slots=True)
class Extended:
    expires_at_ms: int


@dataclass(frozen=True, slots=True)
class Claimed:
    """`nonce` is the channel's new one, as in the escrow's own event."""

    nonce: int
    amount_uain: int


@dataclass(frozen=True, slots=True)
class Returned:
    """What the buyer got back, by a send-back or after the expiry."""

    amount_uain: int


ChannelEvent = Opened | Added | Extended | Claimed | Returned

# What leads where. A closed channel keeps its nonce for ever, and its buyer may use it again.
LIFE_CYCLE: Final[dict[str, dict[str, str]]] = {
    OPEN: {"add": OPEN, "extend": OPEN, "claim": OPEN, "send_back": CLOSED, "time_out": CLOSED},
    CLOSED: {"add": OPEN, "extend": OPEN, "claim": CLOSED, "send_back": CLOSED, "time_out": CLOSED},
}


def claim_margin_ms(opened_at_ms: int, expires_at_ms: int) -> int:
    """How long before the expiry a provider claims and begins no new call."""
    lifetime_ms = expires_at_ms - opened_at_ms
    return max(CLAIM_MARGIN_MS_MIN, min(CLAIM_MARGIN_MS_MAX, lifetime_ms // CLAIM_MARGIN_PART))


def expiry_that_serves(opened_at_ms: int, at_ms: int, lifetime_ms: int) -> int:
    """An expiry for a channel that was opened a while ago, after which calls begin for half a lifetime more."""
    serves_until_ms = at_ms + lifetime_ms // 2
    # The margin grows with the channel's age, up to its bound.
    within_part = (serves_until_ms * CLAIM_MARGIN_PART - opened_at_ms) // (CLAIM_MARGIN_PART - 1) + 1
    needed = min(within_part, serves_until_ms + CLAIM_MARGIN_MS_MAX)
    return max(at_ms + lifetime_ms, needed, serves_until_ms + CLAIM_MARGIN_MS_MIN)


def channel_status(channel: Channel) -> str:
    """Closed is a channel without value and without expiry."""
    return CLOSED if channel.value_uain == 0 and channel.expires_at_ms == 0 else OPEN


def open_channel(
    buyer: str, signer: str, provider: str, value_uain: int, expires_at_ms: int
) -> tuple[Channel, tuple[ChannelEvent, ...]]:
    """A new channel with its deposit."""
    return Channel(buyer, signer, provider, value_uain, expires_at_ms), (Opened(value_uain),)


def add(channel: Channel, amount_uain: int) -> tuple[Channel, tuple[ChannelEvent, ...]]:
    """More money in the channel; anybody may give it."""
    return replace(channel, value_uain=channel.value_uain + amount_uain), (Added(amount_uain),)


def extend(channel: Channel, signer: str, expires_at_ms: int) -> tuple[Channel, tuple[ChannelEvent, ...]]:
    """A later expiry, by the buyer alone."""
    _require_buyer(channel, signer)
    if expires_at_ms < channel.expires_at_ms:
        raise ExpiryMovedBack(expires_at_ms=channel.expires_at_ms, offered_ms=expires_at_ms)
    return replace(channel, expires_at_ms=expires_at_ms), (Extended(expires_at_ms),)


def claim(
    channel: Channel, signer: str, amount_uain: int, total_uain: int, voucher_signer: str, *, send_back: bool
) -> tuple[Channel, tuple[ChannelEvent, ...]]:
    """The provider takes at most what a voucher of the current nonce allows; with send-back the rest goes home."""
    if amount_uain > channel.value_uain:
        raise ClaimAboveChannel(amount_uain=amount_uain, value_uain=channel.value_uain)
    if signer != channel.provider:
        raise NotTheProvider(provider=channel.provider, signer=signer)
    if amount_uain > total_uain:
        raise ClaimAboveVoucher(amount_uain=amount_uain, total_uain=total_uain)
    check_voucher_signer(voucher_signer, channel.buyer, channel.signer)
    rest = channel.value_uain - amount_uain
    claimed = replace(
        channel,
        nonce=channel.nonce + 1,
        value_uain=0 if send_back else rest,
        expires_at_ms=0 if send_back else channel.expires_at_ms,
        claimed_uain=channel.claimed_uain + amount_uain,
    )
    events: tuple[ChannelEvent, ...] = (Claimed(claimed.nonce, amount_uain),)
    return claimed, (*events, Returned(rest)) if send_back else events


def time_out(channel: Channel, signer: str, at_ms: int) -> tuple[Channel, tuple[ChannelEvent, ...]]:
    """After the expiry the buyer takes back whatever was not claimed."""
    _require_buyer(channel, signer)
    if at_ms < channel.expires_at_ms:
        raise ChannelNotExpired(expires_at_ms=channel.expires_at_ms, at_ms=at_ms)
    closed = replace(channel, nonce=channel.nonce + 1, value_uain=0, expires_at_ms=0)
    return closed, (Returned(channel.value_uain),)


def check_voucher_signer(recovered: str, buyer: str, signer: str) -> None:
    """A voucher counts if the channel's signer or its buyer signed it."""
    if recovered not in (buyer, signer):
        raise VoucherSignedByOther(recovered=recovered, buyer=buyer, signer=signer)


def _require_buyer(channel: Channel, signer: str) -> None:
    if signer != channel.buyer:
        raise NotTheBuyer(buyer=channel.buyer, signer=signer)


# --- The record on the chain ---


def channel_name(buyer: str, channel_id: str) -> str:
    """How papers name a channel: `<buyer>/<id>`."""
    return f"{buyer}/{channel_id}"


def parse_channel_name(name: Any) -> tuple[str, str]:
    """The buyer and the id of a channel's name from outside."""
    buyer, slash, channel_id = (
        name.partition("/") if isinstance(name, str) and len(name) <= 80 else ("", "", "")
    )
    if not slash or not is_checksum_address(buyer) or not is_key(channel_id):
        raise InvalidRecord(
            what="channel",
            member="its name",
            reason="must be <buyer's address>/<16 to 32 lower-case hex digits>",
        )
    return buyer, channel_id


def channel_record(channel: Channel, terms: Terms, opened_at_ms: int) -> dict[str, Any]:
    """The record at `/channels/<buyer>/<id>/state`; its money is the balance of the channel's account."""
    return {
        "publisher": terms.publisher,
        "name": terms.name,
        "program": terms.program,
        "provider": channel.provider,
        "signer": channel.signer,
        "nonce": channel.nonce,
        "expires_at_ms": channel.expires_at_ms,
        "ask_uain": terms.ask_uain,
        "royalty_uain": terms.royalty_uain,
        "royalty_to": terms.royalty_to,
        "fee_ppm": terms.fee_ppm,
        "asset": terms.asset,
        "opened_at_ms": opened_at_ms,
        "claimed_uain": channel.claimed_uain,
    }


def read_channel(buyer: str, record: Any, value_uain: int) -> tuple[Channel, Terms]:
    """A channel from its record on the chain and the balance of its account."""
    fields = Fields(record, "channel")
    provider = fields.address("provider")
    channel = Channel(
        buyer=buyer,
        signer=fields.address("signer"),
        provider=provider,
        value_uain=value_uain,
        expires_at_ms=fields.integer("expires_at_ms"),
        nonce=fields.integer("nonce"),
        claimed_uain=fields.integer("claimed_uain", 0, UAIN_MAX),
    )
    terms = Terms(
        publisher=fields.address("publisher"),
        name=fields.text("name"),
        program=fields.cid("program"),
        provider=provider,
        ask_uain=fields.amount("ask_uain"),
        royalty_uain=fields.amount("royalty_uain"),
        royalty_to=fields.address("royalty_to"),
        fee_ppm=fields.integer("fee_ppm", 0, 1_000_000),
        asset=fields.text("asset"),
    )
    return channel, terms
