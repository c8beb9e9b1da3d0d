"""Vouchers and the other papers that buyers sign: what is accepted, and how well a refusal knows why."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from openresource.market.channels import VoucherSignedByOther
from openresource.market.fields import InvalidRecord
from openresource.market.papers import PaperNotSigned
from openresource.market.vouchers import (
    StaleSettleRequest,
    Voucher,
    VoucherAhead,
    VoucherForOtherChannel,
    VoucherForOtherNetwork,
    VoucherTooOld,
    check_settle_request,
    check_voucher,
    recover_voucher_signer,
    session_hash,
    sign_settle_request,
    voucher_from_json,
    voucher_to_json,
)
from openresource.primitives.errors import Refusal
from tests.market.small_chain import BUYER, CHANNEL, NETWORK, OTHER_NETWORK, SIGNER, STRANGER, voucher


def check(paper: Voucher, nonce: int = 0, channel: str = CHANNEL) -> str:
    return check_voucher(
        paper, NETWORK, channel=channel, nonce=nonce, buyer=BUYER.address, signer=SIGNER.address
    )


def without_hint(paper: Voucher) -> Voucher:
    members = voucher_to_json(paper)
    del members["network"]
    return voucher_from_json(members)


def test_a_voucher_of_the_buyer_or_of_the_signer_is_accepted() -> None:
    assert check(voucher(100)) == BUYER.address
    assert check(voucher(100, key=SIGNER)) == SIGNER.address


def test_a_voucher_keeps_its_meaning_on_the_way() -> None:
    paper = voucher(100, nonce=3, acknowledged=7, receipts=bytes(range(32)))
    assert voucher_from_json(voucher_to_json(paper)) == paper


def test_a_voucher_signed_by_somebody_else_is_refused() -> None:
    with pytest.raises(VoucherSignedByOther) as refusal:
        check(voucher(100, key=STRANGER))
    assert refusal.value.recovered == STRANGER.address


def test_a_voucher_of_another_network_is_told_from_a_forged_one() -> None:
    with pytest.raises(VoucherForOtherNetwork):
        check(voucher(100, network=OTHER_NETWORK))
    # Without its hint it can only be seen that nobody known signed it; the way out names the network all the same.
    with pytest.raises(VoucherSignedByOther) as refusal:
        check(without_hint(voucher(100, network=OTHER_NETWORK)))
    assert "network" in refusal.value.remedy


def test_the_hint_of_a_network_cannot_make_a_voucher_good() -> None:
    members = voucher_to_json(voucher(100, network=OTHER_NETWORK))
    members["network"] = voucher_to_json(voucher(100))["network"]
    with pytest.raises(VoucherSignedByOther):
        check(voucher_from_json(members))


def test_a_voucher_of_an_old_nonce_is_refused_with_the_nonce_to_use() -> None:
    with pytest.raises(VoucherTooOld) as refusal:
        check(voucher(100, nonce=1), nonce=2)
    assert (refusal.value.offered, refusal.value.expected) == (1, 2)


def test_a_voucher_ahead_of_the_channel_is_refused() -> None:
    with pytest.raises(VoucherAhead):
        check(voucher(100, nonce=3), nonce=2)


def test_a_voucher_of_another_channel_is_refused() -> None:
    other = f"{BUYER.address}/{'ab' * 16}"
    with pytest.raises(VoucherForOtherChannel):
        check(voucher(100, channel=other))


@pytest.mark.parametrize("member", ["nonce", "total_uain", "session", "acknowledged", "receipts", "channel"])
def test_changing_a_signed_member_changes_the_signer(member: str) -> None:
    changed: dict[str, Any] = {
        "nonce": 1,
        "total_uain": 101,
        "session": "0x" + "11" * 32,
        "acknowledged": 1,
        "receipts": "0x" + "22" * 32,
        "channel": f"{BUYER.address}/{'ab' * 16}",
    }
    paper = voucher_from_json(voucher_to_json(voucher(100)) | {member: changed[member]})
    try:
        assert recover_voucher_signer(paper, NETWORK) != BUYER.address
    except PaperNotSigned:
        pass  # Not every digest has a key for this signature.


@pytest.mark.parametrize(
    ("member", "value"),
    [
        ("scheme", "mpe"),
        ("channel", "nobody/ab"),
        ("channel", 7),
        ("channel", f"{BUYER.address.lower()}/{'ab' * 16}"),
        ("channel", f"{BUYER.address}/../../x"),
        ("nonce", -1),
        ("nonce", True),
        ("nonce", 0.5),
        ("nonce", 2**53),
        ("total_uain", "100"),
        ("total_uain", 10**15 + 1),
        ("session", "0x12"),
        ("session", None),
        ("receipts", "0x" + "zz" * 32),
        ("signature", "0x" + "00" * 64),
        ("network", "x" * 200),
        ("surprise", 1),
    ],
)
def test_a_malformed_voucher_is_refused_by_the_name_of_its_member(member: str, value: Any) -> None:
    with pytest.raises(InvalidRecord) as refusal:
        voucher_from_json(voucher_to_json(voucher(100)) | {member: value})
    assert refusal.value.what in ("voucher", "channel")


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=10), inner, max_size=4),
    max_leaves=20,
)


@given(JSON)
def test_whatever_arrives_as_a_voucher_is_parsed_or_refused(value: Any) -> None:
    with pytest.raises(Refusal):
        voucher_from_json(value)


@given(
    st.fixed_dictionaries(
        {
            "scheme": st.just("openresource"),
            "channel": st.just(CHANNEL),
            "nonce": st.integers(0, 2**53) | JSON,
            "total_uain": st.integers(0, 10**15) | JSON,
            "session": st.binary(min_size=32, max_size=32).map(lambda data: "0x" + data.hex()),
            "acknowledged": st.integers(0, 99),
            "receipts": st.binary(min_size=32, max_size=32).map(lambda data: "0x" + data.hex()),
            "signature": st.binary(min_size=65, max_size=65).map(lambda data: "0x" + data.hex()),
        }
    )
)
def test_no_voucher_made_up_is_ever_the_buyers(value: Any) -> None:
    with pytest.raises(Refusal):
        check(voucher_from_json(value))


def test_a_session_is_named_by_the_hash_of_its_secret() -> None:
    assert session_hash(b"\1" * 32) != session_hash(b"\2" * 32)


def test_a_request_to_settle_needs_the_buyer_and_the_hour() -> None:
    signature = sign_settle_request(CHANNEL, 0, 1_000_000, BUYER, NETWORK)

    def ask(at_ms: int, nonce: int = 0) -> None:
        check_settle_request(
            CHANNEL,
            nonce,
            1_000_000,
            signature,
            NETWORK,
            buyer=BUYER.address,
            signer=SIGNER.address,
            at_ms=at_ms,
        )

    ask(1_000_500)
    with pytest.raises(StaleSettleRequest):
        ask(9_000_000)
    with pytest.raises(VoucherSignedByOther):
        ask(1_000_500, nonce=1)
