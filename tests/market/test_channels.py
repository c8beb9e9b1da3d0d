"""A channel's transitions: the escrow's own record replayed, a second model in lockstep, and the split of a claim."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, initialize, rule

from openresource.market import channels
from openresource.market.channels import (
    CLAIM_MARGIN_MS_MAX,
    LIFE_CYCLE,
    Channel,
    ChannelNotExpired,
    ClaimAboveChannel,
    ClaimAboveVoucher,
    ExpiryMovedBack,
    NotTheBuyer,
    NotTheProvider,
    Terms,
    VoucherSignedByOther,
    channel_record,
    channel_status,
    claim_margin_ms,
    expiry_that_serves,
    parse_channel_name,
    read_channel,
)
from openresource.market.fees import split_claim
from openresource.market.fields import InvalidRecord
from openresource.primitives.amounts import UAIN_MAX
from openresource.primitives.cids import file_cid
from openresource.primitives.errors import Refusal
from openresource.primitives.keys import generate_key
from tests.vectors_support import WHOLE_FILE, vectors

AMOUNTS = st.integers(0, UAIN_MAX)


# --- The split ---


@given(AMOUNTS, AMOUNTS, AMOUNTS, st.integers(0, 1_000_000))
def test_the_parts_of_a_claim_add_up_and_none_is_negative(
    amount: int, ask: int, royalty: int, fee_ppm: int
) -> None:
    split = split_claim(amount, ask, royalty, fee_ppm)
    parts = (split.fee_uain, split.royalty_uain, split.provider_uain)
    assert sum(parts) == amount and min(parts) >= 0
    assert split.fee_uain == amount * fee_ppm // 1_000_000


def test_the_default_split_of_a_price() -> None:
    split = split_claim(700, 500, 200, 20_000)
    assert (split.fee_uain, split.royalty_uain, split.provider_uain) == (14, 200, 486)


def test_without_a_royalty_the_publisher_gets_nothing() -> None:
    assert split_claim(700, 700, 0, 20_000).royalty_uain == 0
    assert split_claim(0, 0, 0, 20_000) == split_claim(0, 500, 200, 20_000)


def test_a_royalty_that_is_the_whole_price_leaves_the_fee_whole() -> None:
    split = split_claim(1_000, 0, 1_000, 20_000)
    assert (split.fee_uain, split.royalty_uain, split.provider_uain) == (20, 980, 0)


# --- The published escrow's own record ---

# What the escrow says when it reverts, and our refusal that stands for it.
REVERTS = {
    "Sender not authorized": NotTheBuyer,
    "Sender not authorized.": NotTheBuyer,
    "Invalid expiration.": ExpiryMovedBack,
    "Insufficient channel amount": ClaimAboveChannel,
    "Invalid recipient": NotTheProvider,
    "Invalid actual amount": ClaimAboveVoucher,
    "Invalid signature": VoucherSignedByOther,
    "Claim called too early.": ChannelNotExpired,
}
CHANNEL_FUNCTIONS = (
    "openChannel",
    "depositAndOpenChannel",
    "channelExtend",
    "channelAddFunds",
    "channelExtendAndAddFunds",
    "channelClaim",
    "multiChannelClaim",
    "channelClaimTimeout",
)


def channel_steps(document: dict[str, Any]) -> list[dict[str, Any]]:
    return [
        step
        for step in document["steps"]
        if step["contract"] == "mpe" and step["function"].split("(")[0] in CHANNEL_FUNCTIONS
    ]


@vectors("snet/contract_trace.json", WHOLE_FILE, count=lambda document: len(channel_steps(document)))
def test_channels_move_as_the_published_escrow_moved(document: dict[str, Any], _: Any) -> None:
    addresses = {name: account["address"] for name, account in document["accounts"].items()}
    current: dict[int, Channel] = {}
    for step in document["steps"]:
        if step["contract"] != "mpe":
            continue
        if step in channel_steps(document):
            replay_step(current, step, addresses[step["from"]], addresses)
        for number, row in enumerate(step["after"]["channels"]):
            nonce, sender, signer, recipient, _group, value, expiration = row
            if number not in current:  # Opened by a third party's signature, which is not ours to model.
                current[number] = Channel(sender, signer, recipient, int(value), int(expiration))
            channel = current[number]
            assert (channel.nonce, channel.value_uain, channel.expires_at_ms) == (
                int(nonce),
                int(value),
                int(expiration),
            ), f"channel {number} after step {step['n']}"
            assert (channel.buyer, channel.signer, channel.provider) == (sender, signer, recipient)


def replay_step(
    current: dict[int, Channel], step: dict[str, Any], caller: str, addresses: dict[str, str]
) -> None:
    """One transaction: its own revert is met by our refusal, else the channel moves."""
    reason = step.get("revert", "").removeprefix("execution reverted").removeprefix(": ")
    expected = REVERTS.get(reason)
    if step["status"] == 0 and expected is None:
        return  # Balances, array lengths and the zero signer are checked outside of a channel's arithmetic.
    try:
        moved = apply_step(current, step, caller, addresses)
    except Refusal as refusal:
        assert expected is not None and isinstance(refusal, expected), f"step {step['n']}: {refusal}"
        return
    assert expected is None, f"step {step['n']} must be refused"
    current.update(moved)


def apply_step(
    current: dict[int, Channel], step: dict[str, Any], caller: str, addresses: dict[str, str]
) -> dict[int, Channel]:
    name, arguments = step["function"].split("(")[0], step["args"]
    if name in ("openChannel", "depositAndOpenChannel"):
        signer, recipient, _group, value, expiration = arguments
        return {
            len(current): channels.open_channel(caller, signer, recipient, int(value), int(expiration))[0]
        }
    if name == "multiChannelClaim":
        ids, actual, planned, send_back = arguments[:4]
        return {
            int(number): channels.claim(
                current[int(number)],
                caller,
                int(paid),
                int(total),
                current[int(number)].signer,
                send_back=is_last,
            )[0]
            for number, paid, total, is_last in zip(ids, actual, planned, send_back, strict=True)
        }
    number = int(arguments[0])
    channel = current[number]
    if name == "channelExtend":
        channel, _ = channels.extend(channel, caller, int(arguments[1]))
    elif name == "channelAddFunds":
        channel, _ = channels.add(channel, int(arguments[1]))
    elif name == "channelExtendAndAddFunds":
        channel, _ = channels.extend(channel, caller, int(arguments[1]))
        channel, _ = channels.add(channel, int(arguments[2]))
    elif name == "channelClaim":
        # Whether the escrow's message was signed well is the record's business; the arithmetic needs only by whom.
        bad = "Invalid signature" in step.get("revert", "") or step["note"].startswith(
            "signature for another"
        )
        voucher_signer = addresses["dave"] if bad else channel.signer
        channel, _ = channels.claim(
            channel, caller, int(arguments[1]), int(arguments[2]), voucher_signer, send_back=arguments[6]
        )
    elif name == "channelClaimTimeout":
        channel, _ = channels.time_out(channel, caller, step["block"])
    return {number: channel}


# --- A second model in lockstep ---


@dataclass
class Escrow:
    """The escrow's rules, written once more and differently: one mutable row per channel, errors as texts."""

    nonce: int
    sender: str
    signer: str
    recipient: str
    value: int
    expiration: int
    paid_out: int = 0
    returned: int = 0

    def extend(self, caller: str, when: int) -> str:
        if caller != self.sender:
            return "Sender not authorized"
        if when < self.expiration:
            return "Invalid expiration."
        self.expiration = when
        return ""

    def claim(self, caller: str, actual: int, planned: int, signed_by: str, send_back: bool) -> str:
        if actual > self.value:
            return "Insufficient channel amount"
        if caller != self.recipient:
            return "Invalid recipient"
        if actual > planned:
            return "Invalid actual amount"
        if signed_by != self.signer and signed_by != self.sender:
            return "Invalid signature"
        self.value -= actual
        self.paid_out += actual
        self.nonce += 1
        if send_back:
            self.returned += self.value
            self.value = self.expiration = 0
        return ""

    def time_out(self, caller: str, now: int) -> str:
        if caller != self.sender:
            return "Sender not authorized."
        if now < self.expiration:
            return "Claim called too early."
        self.returned += self.value
        self.value = self.expiration = 0
        self.nonce += 1
        return ""


PEOPLE = ("buyer", "signer", "provider", "stranger")


class Lockstep(RuleBasedStateMachine):
    """Our channel and the second model take the same steps, and neither ever knows more than the other."""

    opened = Bundle("opened")

    @initialize(value=st.integers(0, 1_000), expiration=st.integers(0, 100))
    def open(self, value: int, expiration: int) -> None:
        self.channel, _ = channels.open_channel("buyer", "signer", "provider", value, expiration)
        self.escrow = Escrow(0, "buyer", "signer", "provider", value, expiration)
        self.put_in, self.paid, self.returned = value, 0, 0

    def step(self, act: Any, revert: str) -> None:
        name_before = channel_status(self.channel)
        try:
            self.channel, events = act()
        except Refusal as refusal:
            assert REVERTS[revert] is type(refusal)
            return
        assert revert == ""
        for event in events:
            if isinstance(event, channels.Claimed):
                self.paid += event.amount_uain
                assert event.nonce == self.escrow.nonce
            elif isinstance(event, channels.Returned):
                self.returned += event.amount_uain
        assert channel_status(self.channel) in LIFE_CYCLE[name_before].values() or (
            self.channel.value_uain == 0 and self.channel.expires_at_ms == 0
        )
        self.agree()

    @rule(amount=st.integers(0, 500))
    def add(self, amount: int) -> None:
        self.escrow.value += amount
        self.put_in += amount
        self.step(lambda: channels.add(self.channel, amount), "")

    @rule(caller=st.sampled_from(PEOPLE), when=st.integers(0, 200))
    def extend(self, caller: str, when: int) -> None:
        revert = self.escrow.extend(caller, when)
        self.step(lambda: channels.extend(self.channel, caller, when), revert)

    @rule(
        caller=st.sampled_from(PEOPLE),
        actual=st.integers(0, 1_500),
        planned=st.integers(0, 1_500),
        signed_by=st.sampled_from(PEOPLE),
        send_back=st.booleans(),
    )
    def claim(self, caller: str, actual: int, planned: int, signed_by: str, send_back: bool) -> None:
        revert = self.escrow.claim(caller, actual, planned, signed_by, send_back)
        self.step(
            lambda: channels.claim(self.channel, caller, actual, planned, signed_by, send_back=send_back),
            revert,
        )

    @rule(caller=st.sampled_from(PEOPLE), now=st.integers(0, 200))
    def time_out(self, caller: str, now: int) -> None:
        revert = self.escrow.time_out(caller, now)
        self.step(lambda: channels.time_out(self.channel, caller, now), revert)

    def agree(self) -> None:
        row = (self.escrow.nonce, self.escrow.value, self.escrow.expiration)
        assert (self.channel.nonce, self.channel.value_uain, self.channel.expires_at_ms) == row
        assert (self.paid, self.returned) == (self.escrow.paid_out, self.escrow.returned)
        # No channel pays more than was put into it, and nothing is lost on the way.
        assert self.paid + self.returned + self.channel.value_uain == self.put_in
        assert self.channel.claimed_uain == self.paid


TestLockstep = Lockstep.TestCase


@given(st.permutations([(120, 130), (5, 5), (70, 90)]), st.booleans())
def test_the_order_of_claims_does_not_change_what_is_paid(
    claims: list[tuple[int, int]], send_back: bool
) -> None:
    channel, _ = channels.open_channel("buyer", "signer", "provider", 200, 50)
    for number, (actual, planned) in enumerate(claims):
        channel, _ = channels.claim(
            channel,
            "provider",
            actual,
            planned,
            "signer",
            send_back=send_back and number == len(claims) - 1,
        )
    assert channel.claimed_uain == 195
    assert channel.value_uain == (0 if send_back else 5)
    assert channel.nonce == 3


# --- Records ---


def test_a_channel_is_read_from_its_record_as_it_was_written() -> None:
    buyer, provider = generate_key(b"b" * 32).address, generate_key(b"p" * 32).address
    terms = Terms(buyer, "translate", file_cid(b"program"), provider, 500, 200, buyer, 20_000)
    channel = Channel(buyer, buyer, provider, 900, 5_000, nonce=2, claimed_uain=100)
    assert read_channel(buyer, channel_record(channel, terms, 77), 900) == (channel, terms)


@pytest.mark.parametrize(
    "name", ["", "x", "0x12/ab", None, 7, f"{'0x' + 'ab' * 20}/{'cd' * 16}", "/".join("abc")]
)
def test_what_is_no_channels_name_is_refused(name: Any) -> None:
    with pytest.raises(InvalidRecord):
        parse_channel_name(name)


@given(st.integers(0, 10**12), st.integers(0, 10**11), st.integers(1_000, 400 * 86_400_000))
def test_an_extended_channel_serves_for_half_a_life_however_old_it_is(
    opened_at_ms: int, age_ms: int, lifetime_ms: int
) -> None:
    at_ms = opened_at_ms + age_ms
    expires_at_ms = expiry_that_serves(opened_at_ms, at_ms, lifetime_ms)
    serves_until_ms = expires_at_ms - claim_margin_ms(opened_at_ms, expires_at_ms)
    assert serves_until_ms >= at_ms + lifetime_ms // 2
    assert at_ms + lifetime_ms <= expires_at_ms <= at_ms + lifetime_ms + CLAIM_MARGIN_MS_MAX
