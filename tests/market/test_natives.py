"""The market's natives over a real draft: from publishing a version to a claim that pays all three."""

from __future__ import annotations

from typing import Any

import pytest

from openresource.ledger.draft import InsufficientBalance
from openresource.market.accounts import TREASURY, channel_account
from openresource.market.channels import (
    ChannelNotExpired,
    ClaimAboveChannel,
    ClaimAboveVoucher,
    ExpiryMovedBack,
    NotTheBuyer,
    NotTheProvider,
    VoucherSignedByOther,
)
from openresource.market.fields import InvalidRecord
from openresource.market.natives.channels import (
    ChannelExists,
    ChannelMissing,
    DepositOutOfRange,
    ExpiryOutOfRange,
    NotPlaced,
)
from openresource.market.natives.programs import ProgramAlreadyRegistered, PublisherIsNotSigner
from openresource.market.natives.services import VersionAlreadyPublished
from openresource.market.papers import PaperNotSigned
from openresource.market.placements import (
    EndpointNotAccepted,
    PlacementStepNotAllowed,
    TlsKeyNotSignedByProvider,
    sign_tls_key,
)
from openresource.market.predicates import IsolationTooLow
from openresource.market.prices import CapBelowRoyalty, PriceAboveCap
from openresource.market.programs import ProgramNotRegistered
from openresource.market.services import (
    CallNotPermitted,
    RunNotPermitted,
    VersionNotPublished,
    VersionTextTaken,
)
from openresource.market.vouchers import VoucherTooOld
from openresource.primitives.errors import Refusal
from tests.market.small_chain import (
    BUYER,
    CHANNEL_ID,
    CHANNEL_PATH,
    ENDPOINT,
    NAME,
    NETWORK,
    OTHER_NETWORK,
    OTHER_PROGRAM,
    PLACEMENT_PATH,
    PROGRAM,
    PROVIDER,
    PUBLISHER,
    RECORD,
    SIGNER,
    STRANGER,
    TLS_KEY,
    VERSION_PATH,
    SmallChain,
    claim_record,
    opening,
    placement,
    published_chain,
    version_record,
    voucher,
)

ACCOUNT = channel_account(BUYER.address, CHANNEL_ID)
PERMISSIONS_PATH = f"/services/{PUBLISHER.address}/{NAME}/permissions"


def refused(chain: SmallChain, expected: type[Refusal], key: Any, path: str, value: Any) -> Refusal:
    """The refusal of a write, which must have left everything as it was."""
    before = repr(chain.state.values)
    with pytest.raises(expected) as refusal:
        chain.write(key, path, value)
    assert repr(chain.state.values) == before
    assert refusal.value.message and "?" not in refusal.value.message
    return refusal.value


# --- Programs and versions ---


def test_a_program_is_registered_once() -> None:
    chain = published_chain()
    record = {"publisher": PUBLISHER.address, "name": NAME, "bytes": 9}
    refused(chain, ProgramAlreadyRegistered, PUBLISHER, f"/programs/{PROGRAM}", record)
    refused(chain, PublisherIsNotSigner, STRANGER, f"/programs/{OTHER_PROGRAM}", record)
    refused(
        chain,
        ProgramNotRegistered,
        PUBLISHER,
        f"/programs/{OTHER_PROGRAM}",
        record | {"parent": "Qm" + "Y" * 44},
    )
    chain.write(PUBLISHER, f"/programs/{OTHER_PROGRAM}", record | {"parent": PROGRAM})


@pytest.mark.parametrize(
    "change", [{"bytes": 0}, {"bytes": 1.5}, {"name": "Not A Name"}, {"publisher": "me"}, {"more": 1}]
)
def test_a_malformed_program_is_refused(change: dict[str, Any]) -> None:
    record = {"publisher": PUBLISHER.address, "name": NAME, "bytes": 9}
    refused(SmallChain(), InvalidRecord, PUBLISHER, f"/programs/{PROGRAM}", record | change)


def test_versions_are_numbered_stamped_and_the_last_is_the_newest() -> None:
    chain = published_chain()
    service = f"/services/{PUBLISHER.address}/{NAME}"
    chain.write(
        PUBLISHER, f"/programs/{OTHER_PROGRAM}", {"publisher": PUBLISHER.address, "name": NAME, "bytes": 9}
    )
    refused(chain, VersionTextTaken, PUBLISHER, f"{service}/versions/{OTHER_PROGRAM}", version_record())
    chain.write(PUBLISHER, f"{service}/versions/{OTHER_PROGRAM}", version_record(version="1.3.0"))
    assert chain.get(f"{service}/versions/{PROGRAM}/number") == 1
    assert chain.get(f"{service}/versions/{OTHER_PROGRAM}/number") == 2
    assert chain.get(f"{service}/versions/{OTHER_PROGRAM}/published_at_ms") == chain.at
    assert chain.get(f"{service}/latest") == OTHER_PROGRAM
    assert chain.get(f"{service}/by_version/1!2E2!2E0") == PROGRAM


def test_a_published_version_never_changes() -> None:
    chain = published_chain()
    refused(chain, VersionAlreadyPublished, PUBLISHER, VERSION_PATH, version_record(royalty_uain=0))


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"price_cap_uain": 100}, CapBelowRoyalty),
        ({"unit": "token"}, InvalidRecord),
        ({"version": "one"}, InvalidRecord),
        ({"royalty_uain": -1}, InvalidRecord),
        ({"summary": ""}, InvalidRecord),
        ({"summary": "x" * 301}, InvalidRecord),
        ({"summary": "two\nlines"}, InvalidRecord),
        ({"exactness": "roughly"}, InvalidRecord),
        ({"surprise": True}, InvalidRecord),
    ],
)
def test_a_malformed_version_is_refused(change: dict[str, Any], expected: type[Refusal]) -> None:
    chain = SmallChain()
    chain.write(PUBLISHER, f"/programs/{PROGRAM}", {"publisher": PUBLISHER.address, "name": NAME, "bytes": 9})
    refused(chain, expected, PUBLISHER, VERSION_PATH, version_record(**change))


def test_a_version_needs_its_program_and_a_name_for_the_web() -> None:
    chain = SmallChain()
    refused(chain, ProgramNotRegistered, PUBLISHER, VERSION_PATH, version_record())
    path = f"/services/{PUBLISHER.address}/Bad_Name/versions/{PROGRAM}"
    refused(chain, InvalidRecord, PUBLISHER, path, version_record())


# --- Placements ---


def test_a_placement_walks_through_its_life_and_is_stamped() -> None:
    chain = published_chain()
    assert chain.get(f"{PLACEMENT_PATH}/at_ms") == chain.at
    for status in ("DRAINING", "PLACED", "DRAINING"):
        chain.write(PROVIDER, PLACEMENT_PATH, placement(status=status))
    chain.write(PROVIDER, PLACEMENT_PATH, {"status": "GONE"})
    refusal = refused(chain, PlacementStepNotAllowed, PROVIDER, PLACEMENT_PATH, placement())
    assert "OFFERED" in refusal.remedy
    chain.write(PROVIDER, PLACEMENT_PATH, {"status": "REFUSED", "reason": "needs the package torch"})
    refused(chain, InvalidRecord, PROVIDER, PLACEMENT_PATH, None)


def test_a_provider_in_service_may_change_its_ask_within_the_cap() -> None:
    chain = published_chain()
    chain.write(PROVIDER, PLACEMENT_PATH, placement(ask_uain=1_800))
    refused(chain, PriceAboveCap, PROVIDER, PLACEMENT_PATH, placement(ask_uain=1_801))


def test_a_placement_of_an_unknown_version_is_refused() -> None:
    path = PLACEMENT_PATH.replace(PROGRAM, OTHER_PROGRAM)
    refused(published_chain(), VersionNotPublished, PROVIDER, path, {"status": "OFFERED"})


@pytest.mark.parametrize(
    "endpoint",
    [
        "http://127.0.0.1:9443",
        "https://127.0.0.1",
        "https://127.0.0.1:9443/path",
        "https://user@127.0.0.1:9443",
        "https://HOST:1",
        "https://host:99999",
        "https://[::1",
        "ftp://x:1",
        "nothing",
    ],
)
def test_an_endpoint_is_https_host_and_port(endpoint: str) -> None:
    signed = sign_tls_key(endpoint, TLS_KEY, PROVIDER, NETWORK)
    record = placement(endpoint=endpoint, tls_signature="0x" + signed.hex())
    refused(published_chain(), EndpointNotAccepted, PROVIDER, PLACEMENT_PATH, record)


def test_the_tls_key_must_be_signed_by_the_provider_for_this_network() -> None:
    chain = published_chain()
    for signature in (
        sign_tls_key(ENDPOINT, TLS_KEY, STRANGER, NETWORK),
        sign_tls_key(ENDPOINT, TLS_KEY, PROVIDER, OTHER_NETWORK),
        sign_tls_key("https://127.0.0.1:1", TLS_KEY, PROVIDER, NETWORK),
    ):
        record = placement(tls_signature="0x" + signature.hex())
        refused(chain, TlsKeyNotSignedByProvider, PROVIDER, PLACEMENT_PATH, record)
    refused(chain, PaperNotSigned, PROVIDER, PLACEMENT_PATH, placement(tls_signature="0x" + "ff" * 65))


def test_a_loopback_endpoint_is_for_the_network_local_only() -> None:
    chain = published_chain()
    chain.network = type(NETWORK)(101, NETWORK.genesis_hash)
    signed = sign_tls_key(ENDPOINT, TLS_KEY, PROVIDER, chain.network)
    record = placement(tls_signature="0x" + signed.hex())
    refused(chain, EndpointNotAccepted, PROVIDER, PLACEMENT_PATH, record)
    endpoint = "https://gateway.example:443"
    signed = sign_tls_key(endpoint, TLS_KEY, PROVIDER, chain.network)
    chain.write(PROVIDER, PLACEMENT_PATH, placement(endpoint=endpoint, tls_signature="0x" + signed.hex()))


def test_a_publisher_decides_who_runs_and_behind_which_wall() -> None:
    chain = published_chain()
    chain.write(PUBLISHER, PERMISSIONS_PATH, {"run": {STRANGER.address: True}})
    refused(chain, RunNotPermitted, PROVIDER, PLACEMENT_PATH, placement())
    # Leaving is always possible.
    chain.write(PROVIDER, PLACEMENT_PATH, placement(status="DRAINING"))
    chain.write(PUBLISHER, PERMISSIONS_PATH, {"min_isolation": "bubblewrap"})
    refused(chain, IsolationTooLow, PROVIDER, PLACEMENT_PATH, placement(isolation="confined"))
    chain.write(PUBLISHER, PERMISSIONS_PATH, None)
    chain.write(PROVIDER, PLACEMENT_PATH, placement(isolation="confined"))


@pytest.mark.parametrize(
    "permissions",
    [
        {"call": {}},
        {"call": {"me": True}},
        {"run": {"everyone": 1}},
        {"min_isolation": "thick"},
        {"who": {}},
        7,
    ],
)
def test_malformed_permissions_are_refused(permissions: Any) -> None:
    refused(published_chain(), InvalidRecord, PUBLISHER, PERMISSIONS_PATH, permissions)


# --- Channels ---


def opened_chain(**changes: Any) -> SmallChain:
    chain = published_chain()
    chain.write(BUYER, f"{CHANNEL_PATH}/open", opening(**changes))
    return chain


def test_opening_snapshots_the_terms_and_consumes_the_request() -> None:
    chain = opened_chain(signer=SIGNER.address)
    state = chain.get(f"{CHANNEL_PATH}/state")
    assert (state["ask_uain"], state["royalty_uain"], state["fee_ppm"]) == (500, 200, 20_000)
    assert (state["signer"], state["royalty_to"], state["nonce"]) == (SIGNER.address, PUBLISHER.address, 0)
    assert chain.get(f"{CHANNEL_PATH}/open") is None
    assert chain.balance(ACCOUNT) == 10_000 and chain.balance(BUYER.address) == 990_000
    chain.write(PROVIDER, PLACEMENT_PATH, placement(ask_uain=1_000))
    assert chain.get(f"{CHANNEL_PATH}/state/ask_uain") == 500


def test_a_channel_cannot_be_opened_badly() -> None:
    chain = published_chain()
    path = f"{CHANNEL_PATH}/open"
    refused(chain, DepositOutOfRange, BUYER, path, opening(deposit_uain=699))
    refused(chain, InsufficientBalance, BUYER, path, opening(deposit_uain=1_000_001))
    refused(chain, ExpiryOutOfRange, BUYER, path, opening(expires_at_ms=chain.at))
    refused(chain, ExpiryOutOfRange, BUYER, path, opening(expires_at_ms=chain.at + 10**12))
    refused(chain, NotPlaced, BUYER, path, opening(provider=STRANGER.address))
    refused(chain, InvalidRecord, BUYER, f"/channels/{BUYER.address}/XYZ/open", opening())
    refused(chain, InvalidRecord, BUYER, path, opening(deposit_uain=True))
    chain.write(PROVIDER, PLACEMENT_PATH, placement(status="DRAINING"))
    refused(chain, NotPlaced, BUYER, path, opening())


def test_a_publisher_decides_who_calls() -> None:
    chain = published_chain()
    chain.write(PUBLISHER, PERMISSIONS_PATH, {"call": {STRANGER.address: True}})
    refused(chain, CallNotPermitted, BUYER, f"{CHANNEL_PATH}/open", opening())
    chain.write(PUBLISHER, PERMISSIONS_PATH, {"call": {"everyone": True}})
    chain.write(BUYER, f"{CHANNEL_PATH}/open", opening())
    refused(chain, ChannelExists, BUYER, f"{CHANNEL_PATH}/open", opening())


def test_a_claim_pays_fee_royalty_and_provider_and_raises_the_nonce() -> None:
    chain = opened_chain()
    chain.write(PROVIDER, f"{CHANNEL_PATH}/claim/{RECORD}", claim_record(voucher(7_000), 700))
    assert chain.balance(TREASURY) == 14
    assert chain.balance(PUBLISHER.address) == 200
    assert chain.balance(PROVIDER.address) == 486
    assert chain.balance(ACCOUNT) == 9_300
    assert chain.get(f"{CHANNEL_PATH}/state/nonce") == 1
    assert chain.get(f"{CHANNEL_PATH}/state/claimed_uain") == 700
    assert chain.get(f"{CHANNEL_PATH}/claim") is None
    assert chain.state.supply_uain() == 1_000_000


def test_no_voucher_is_paid_twice() -> None:
    chain = opened_chain()
    paper = voucher(7_000)
    chain.write(PROVIDER, f"{CHANNEL_PATH}/claim/{RECORD}", claim_record(paper, 700))
    refused(chain, VoucherTooOld, PROVIDER, f"{CHANNEL_PATH}/claim/{RECORD}", claim_record(paper, 700))
    forged = claim_record(paper, 700) | {"nonce": 1}
    with pytest.raises((VoucherSignedByOther, PaperNotSigned)):
        chain.write(PROVIDER, f"{CHANNEL_PATH}/claim/{RECORD}", forged)


def test_claims_are_refused_for_the_reasons_of_the_escrow() -> None:
    chain = opened_chain()
    path = f"{CHANNEL_PATH}/claim/{RECORD}"
    refused(chain, ClaimAboveChannel, PROVIDER, path, claim_record(voucher(20_000), 10_001))
    refused(chain, ClaimAboveVoucher, PROVIDER, path, claim_record(voucher(100), 101))
    refused(chain, NotTheProvider, STRANGER, path, claim_record(voucher(100), 100))
    refused(chain, VoucherSignedByOther, PROVIDER, path, claim_record(voucher(100, key=STRANGER), 100))
    refused(chain, VoucherSignedByOther, PROVIDER, path, claim_record(voucher(100, network=OTHER_NETWORK), 1))
    refused(chain, ChannelMissing, PROVIDER, path.replace(CHANNEL_ID, "ab" * 8), claim_record(voucher(1), 1))


def test_a_cooperative_close_sends_the_rest_back_at_once() -> None:
    chain = opened_chain()
    chain.write(PROVIDER, f"{CHANNEL_PATH}/claim/{RECORD}", claim_record(voucher(700), 700, send_back=True))
    assert chain.balance(ACCOUNT) == 0 and chain.get("/service_accounts/channels") is None
    assert chain.balance(BUYER.address) == 999_300
    state = chain.get(f"{CHANNEL_PATH}/state")
    assert (state["nonce"], state["expires_at_ms"]) == (1, 0)


def test_a_closed_channel_can_be_used_again_under_its_next_nonce() -> None:
    chain = opened_chain()
    chain.write(PROVIDER, f"{CHANNEL_PATH}/claim/{RECORD}", claim_record(voucher(700), 700, send_back=True))
    chain.write(BUYER, f"{CHANNEL_PATH}/extend/{RECORD}", {"expires_at_ms": chain.at + 60_000})
    chain.write(BUYER, f"{CHANNEL_PATH}/add/{RECORD}", {"amount_uain": 1_000})
    refused(chain, VoucherTooOld, PROVIDER, f"{CHANNEL_PATH}/claim/{RECORD}", claim_record(voucher(700), 700))
    chain.write(PROVIDER, f"{CHANNEL_PATH}/claim/{RECORD}", claim_record(voucher(700, nonce=1), 700))
    assert chain.get(f"{CHANNEL_PATH}/state/claimed_uain") == 1_400


def test_anybody_adds_and_only_the_buyer_extends() -> None:
    chain = opened_chain()
    chain.state.give(STRANGER.address, 500)
    chain.write(STRANGER, f"{CHANNEL_PATH}/add/{RECORD}", {"amount_uain": 500})
    assert chain.balance(ACCOUNT) == 10_500 and chain.balance(STRANGER.address) == 0
    path = f"{CHANNEL_PATH}/extend/{RECORD}"
    refused(chain, NotTheBuyer, STRANGER, path, {"expires_at_ms": 3_000_000})
    refused(chain, ExpiryMovedBack, BUYER, path, {"expires_at_ms": 1_999_999})
    chain.write(BUYER, path, {"expires_at_ms": 3_000_000})
    assert chain.get(f"{CHANNEL_PATH}/state/expires_at_ms") == 3_000_000
    refused(chain, InvalidRecord, BUYER, f"{CHANNEL_PATH}/add/{RECORD}", {"amount_uain": 0})


def test_after_the_expiry_the_buyer_takes_the_rest() -> None:
    chain = opened_chain()
    path = f"{CHANNEL_PATH}/close/{RECORD}"
    refused(chain, ChannelNotExpired, BUYER, path, {"at_ms": 1})
    chain.wait(1_000_000)
    refused(chain, NotTheBuyer, STRANGER, path, {"at_ms": 1})
    chain.write(BUYER, path, {"at_ms": 1})
    assert chain.balance(BUYER.address) == 1_000_000 and chain.balance(ACCOUNT) == 0
    refused(
        chain,
        ClaimAboveChannel,
        PROVIDER,
        f"{CHANNEL_PATH}/claim/{RECORD}",
        claim_record(voucher(1, nonce=1), 1),
    )


def test_the_fee_is_the_one_in_force_when_the_channel_opened() -> None:
    chain = published_chain()
    chain.state.write_value(("blockchain_params", "market", "fee_ppm"), 50_000)
    chain.write(BUYER, f"{CHANNEL_PATH}/open", opening())
    chain.state.write_value(("blockchain_params", "market", "fee_ppm"), 0)
    chain.write(PROVIDER, f"{CHANNEL_PATH}/claim/{RECORD}", claim_record(voucher(1_000), 1_000))
    assert chain.balance(TREASURY) == 50
