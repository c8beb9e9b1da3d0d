"""What the chain does for a payment channel: open, add, extend, claim, close. The sums are those of `channels.py`."""

from __future__ import annotations

from openresource.ledger.draft import Draft, Native, NativeCall
from openresource.market.accounts import CHANNEL_BALANCES, TREASURY, channel_account
from openresource.market.channels import (
    CHANNEL_DEPOSIT_UAIN_MIN,
    Channel,
    ChannelEvent,
    Claimed,
    Returned,
    Terms,
    add,
    channel_name,
    channel_record,
    claim,
    extend,
    open_channel,
    read_channel,
    time_out,
)
from openresource.market.codes import ResultCode
from openresource.market.fees import split_claim
from openresource.market.fields import Fields, InvalidRecord, require_key
from openresource.market.natives.bonds import bond_of, record_claim
from openresource.market.natives.kills import refuse_killed
from openresource.market.natives.parameters import (
    CHANNEL_LIFETIME_MS_MAX_NAME,
    CHANNEL_LIFETIME_MS_MIN_NAME,
    FEE_PPM,
    parameter,
)
from openresource.market.natives.reputation import REPUTATION_WRITES, record_pair
from openresource.market.placements import PLACED, read_placement
from openresource.market.predicates import check_bond
from openresource.market.records import RECORDS
from openresource.market.services import check_call_permitted, read_permissions, read_version
from openresource.market.vouchers import Voucher, check_voucher_place, recover_voucher_signer
from openresource.primitives.amounts import UAIN_MAX
from openresource.primitives.errors import Refusal
from openresource.primitives.keys import is_checksum_address

CHANNELS = "channels"


class ChannelExists(Refusal):
    result_code = ResultCode.CHANNEL_EXISTS
    template = "The channel {channel} exists already."
    way_out = "Draw a new identifier for a new channel."


class ChannelMissing(Refusal):
    result_code = ResultCode.CHANNEL_MISSING
    template = "There is no channel {channel}."
    way_out = "Check the buyer's address and the channel's identifier."


class NotPlaced(Refusal):
    result_code = ResultCode.NOT_PLACED
    template = "The provider {provider} does not serve this version now: its placement is {status}."
    way_out = "Choose a provider whose placement is PLACED."


class DepositOutOfRange(Refusal):
    result_code = ResultCode.DEPOSIT_OUT_OF_RANGE
    template = "A deposit of {deposit_uain} µAIN is not between {minimum_uain} and {maximum_uain} µAIN."
    way_out = "Deposit at least the price of one call."


class ExpiryOutOfRange(Refusal):
    result_code = ResultCode.EXPIRY_OUT_OF_RANGE
    template = "The expiry {expires_at_ms} is not between {earliest_ms} and {latest_ms}."
    way_out = "Name a time in milliseconds within these bounds."


def open_(draft: Draft, call: NativeCall) -> None:
    """Snapshots the terms of a placement and takes the deposit."""
    buyer, channel_id = call.params["buyer"], require_key(call.params["id"], "channel")
    if draft.get(CHANNELS, buyer, channel_id, "state") is not None:
        raise ChannelExists(channel=channel_name(buyer, channel_id))
    fields = Fields(call.value, "opening of a channel")
    publisher, name, provider = fields.address("publisher"), fields.text("name"), fields.address("provider")
    program = fields.cid("program")
    deposit = fields.amount("deposit_uain")
    expires_at_ms = fields.integer("expires_at_ms")
    signer = fields.address("signer") if fields.has("signer") else buyer
    fields.take("signer")
    fields.finish()
    refuse_killed(draft, program)
    terms = _terms(draft, publisher, name, program, provider)
    permissions = read_permissions(draft.get("services", publisher, name, "permissions"))
    check_call_permitted(permissions, publisher, name, buyer)
    # A bond that was withdrawn since the placement was taken earns nothing new.
    if permissions.run_if.bond_uain:
        check_bond(permissions.run_if, name, provider, bond_of(draft, provider).counted_uain)
    minimum = max(CHANNEL_DEPOSIT_UAIN_MIN, terms.price.total_uain)
    if not minimum <= deposit <= UAIN_MAX:
        raise DepositOutOfRange(deposit_uain=deposit, minimum_uain=minimum, maximum_uain=UAIN_MAX)
    _check_expiry(draft, call, expires_at_ms)
    channel, _ = open_channel(buyer, signer, provider, deposit, expires_at_ms)
    draft.move(call.signer, channel_account(buyer, channel_id), deposit)
    draft.set((CHANNELS, buyer, channel_id, "state"), channel_record(channel, terms, call.at))
    draft.set(call.path, None)


def add_(draft: Draft, call: NativeCall) -> None:
    """Puts the signer's money into anybody's channel."""
    _, channel, _ = _load(draft, call)
    fields = Fields(call.value, "addition to a channel")
    amount = fields.amount("amount_uain", 1)
    fields.finish()
    added, _ = add(channel, amount)
    if added.value_uain > UAIN_MAX:
        raise DepositOutOfRange(deposit_uain=added.value_uain, minimum_uain=1, maximum_uain=UAIN_MAX)
    draft.move(call.signer, channel_account(channel.buyer, call.params["id"]), amount)
    draft.set(call.path, None)


def extend_(draft: Draft, call: NativeCall) -> None:
    """Moves the expiry away."""
    labels, channel, _ = _load(draft, call)
    fields = Fields(call.value, "extension of a channel")
    expires_at_ms = fields.integer("expires_at_ms")
    fields.finish()
    extended, _ = extend(channel, call.signer, expires_at_ms)
    _check_expiry(draft, call, expires_at_ms)
    draft.set((*labels, "expires_at_ms"), extended.expires_at_ms)
    draft.set(call.path, None)


def claim_(draft: Draft, call: NativeCall) -> None:
    """Pays the provider, the publisher and the treasury their parts; with send-back the rest goes home."""
    labels, channel, terms = _load(draft, call)
    channel_id = call.params["id"]
    name = channel_name(channel.buyer, channel_id)
    fields = Fields(call.value, "claim")
    voucher = Voucher(
        channel=name,
        nonce=fields.integer("nonce"),
        total_uain=fields.amount("total_uain"),
        session=fields.digest("session"),
        acknowledged=fields.integer("acknowledged"),
        receipts=fields.digest("receipts"),
        signature=fields.signature("signature"),
    )
    amount = fields.amount("amount_uain")
    send_back = fields.flag("send_back")
    fields.finish()
    check_voucher_place(voucher, name, channel.nonce)
    voucher_signer = recover_voucher_signer(voucher, call.network)
    claimed, events = claim(
        channel, call.signer, amount, voucher.total_uain, voucher_signer, send_back=send_back
    )
    _pay_out(draft, channel, terms, channel_account(channel.buyer, channel_id), events)
    record_claim(draft, channel.provider, amount, call.at)
    fee = split_claim(amount, terms.ask_uain, terms.royalty_uain, terms.fee_ppm).fee_uain
    record_pair(draft, channel.provider, channel.buyer, amount, fee, call.at)
    _store(draft, labels, claimed)
    draft.set(call.path, None)


def close_(draft: Draft, call: NativeCall) -> None:
    """After the expiry the buyer takes the rest."""
    labels, channel, terms = _load(draft, call)
    closed, events = time_out(channel, call.signer, call.at)
    _pay_out(draft, channel, terms, channel_account(channel.buyer, call.params["id"]), events)
    _store(draft, labels, closed)
    draft.set(call.path, None)


def _terms(draft: Draft, publisher: str, name: str, program: str, provider: str) -> Terms:
    """The terms that a channel opened now would have."""
    record = draft.get("placements", publisher, name, program, provider)
    if record is None:
        raise NotPlaced(provider=provider, status="not announced")
    placement = read_placement(publisher, name, program, provider, record)
    if placement.status != PLACED:
        raise NotPlaced(provider=provider, status=placement.status)
    version = read_version(program, draft.get("services", publisher, name, "versions", program))
    return Terms(
        publisher=publisher,
        name=name,
        program=program,
        provider=provider,
        ask_uain=placement.ask_uain,
        royalty_uain=version.royalty_uain,
        royalty_to=publisher,
        fee_ppm=parameter(draft, FEE_PPM),
    )


def _check_expiry(draft: Draft, call: NativeCall, expires_at_ms: int) -> None:
    earliest = call.at + parameter(draft, CHANNEL_LIFETIME_MS_MIN_NAME)
    latest = call.at + parameter(draft, CHANNEL_LIFETIME_MS_MAX_NAME)
    if not earliest <= expires_at_ms <= latest:
        raise ExpiryOutOfRange(expires_at_ms=expires_at_ms, earliest_ms=earliest, latest_ms=latest)


def _load(draft: Draft, call: NativeCall) -> tuple[tuple[str, ...], Channel, Terms]:
    """The channel that a request is about; its value is the balance of its account."""
    buyer, channel_id = call.params["buyer"], require_key(call.params["id"], "channel")
    # The tree finds an address in any case, but the channel's money is under its checksum form.
    if not is_checksum_address(buyer):
        raise InvalidRecord(
            what="channel", member="its buyer", reason="must be an address in its checksum form"
        )
    labels = (CHANNELS, buyer, channel_id, "state")
    record = draft.get(*labels)
    if record is None:
        raise ChannelMissing(channel=channel_name(buyer, channel_id))
    channel, terms = read_channel(buyer, record, draft.balance(channel_account(buyer, channel_id)))
    return labels, channel, terms


def _store(draft: Draft, labels: tuple[str, ...], channel: Channel) -> None:
    draft.set((*labels, "nonce"), channel.nonce)
    draft.set((*labels, "expires_at_ms"), channel.expires_at_ms)
    draft.set((*labels, "claimed_uain"), channel.claimed_uain)


def _pay_out(
    draft: Draft, channel: Channel, terms: Terms, account: str, events: tuple[ChannelEvent, ...]
) -> None:
    """The money that the events of a transition move."""
    for event in events:
        if isinstance(event, Claimed):
            split = split_claim(event.amount_uain, terms.ask_uain, terms.royalty_uain, terms.fee_ppm)
            draft.move(account, TREASURY, split.fee_uain, terms.asset)
            draft.move(account, terms.royalty_to, split.royalty_uain, terms.asset)
            draft.move(account, channel.provider, split.provider_uain, terms.asset)
        elif isinstance(event, Returned):
            draft.move(account, channel.buyer, event.amount_uain, terms.asset)


_WRITES = ((CHANNELS,), CHANNEL_BALANCES)
NATIVES = (
    Native("_openChannel", _WRITES, open_),
    Native("_addToChannel", _WRITES, add_),
    Native("_extendChannel", _WRITES, extend_),
    Native("_claimChannel", (*_WRITES, (RECORDS,), *REPUTATION_WRITES), claim_),
    Native("_closeChannel", _WRITES, close_),
)
FUNCTIONS = {
    "/channels/$buyer/$id/open": "_openChannel",
    "/channels/$buyer/$id/add/$record": "_addToChannel",
    "/channels/$buyer/$id/extend/$record": "_extendChannel",
    "/channels/$buyer/$id/claim/$record": "_claimChannel",
    "/channels/$buyer/$id/close/$record": "_closeChannel",
}
_IS_NEW = "data === null && newData !== null"
_IS_PROVIDERS = "getValue('/channels/' + $buyer + '/' + $id + '/state/provider') === auth.addr"
RULES = {
    "/channels": "false",
    "/channels/$buyer/$id/open": f"auth.addr === $buyer && {_IS_NEW}"
    " && util.checkValuePathLen(parsedValuePath, 4)",
    "/channels/$buyer/$id/add/$record": f"{_IS_NEW} && util.checkValuePathLen(parsedValuePath, 5)",
    "/channels/$buyer/$id/extend/$record": f"auth.addr === $buyer && {_IS_NEW}"
    " && util.checkValuePathLen(parsedValuePath, 5)",
    "/channels/$buyer/$id/claim/$record": f"{_IS_PROVIDERS} && {_IS_NEW}"
    " && util.checkValuePathLen(parsedValuePath, 5)",
    "/channels/$buyer/$id/close/$record": f"auth.addr === $buyer && {_IS_NEW}"
    " && util.checkValuePathLen(parsedValuePath, 5)",
}
