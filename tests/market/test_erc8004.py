"""The form of ERC-8004: what must be in a registration and in a feedback file, and that nothing in it is made up."""

from __future__ import annotations

import json

import pytest

from openresource.market.erc8004 import (
    REGISTRATION_TYPE,
    Registration,
    RegistryInvalid,
    feedback_json,
    own_registration,
    parse_registration,
    picture,
    registration_json,
)
from openresource.market.placements import read_placement
from openresource.market.records import ProviderRecord
from openresource.market.reputation import Pair, reputation_of
from tests.market.small_chain import (
    BUYER,
    ENDPOINT,
    NAME,
    NETWORK,
    PROGRAM,
    PROVIDER,
    PUBLISHER,
    STRANGER,
    placement,
)

REGISTRY = "eip155:1:0x8004A169FB4a3325136EB29fA0ceB6D2e539a432"
PAIRS = {BUYER.address: Pair(3, 50_000, 1_000, 5), STRANGER.address: Pair(1, 10_000_000, 200_000, 9)}
RECORD = ProviderRecord(claims=4, claimed_uain=10_050_000, since_ms=5, valid=90, streak=90)
REPUTATION = reputation_of(RECORD, PAIRS)
PLACED = read_placement(PUBLISHER.address, NAME, PROGRAM, PROVIDER.address, placement())


def test_a_registration_has_every_member_of_the_standard_and_is_json() -> None:
    found = registration_json(
        PROVIDER.address,
        [Registration(REGISTRY, 22)],
        [(PLACED, "1.2.0")],
        REPUTATION,
        page="https://p.example/",
    )
    assert json.loads(json.dumps(found)) == found
    assert found["type"] == REGISTRATION_TYPE and found["active"] is True and found["x402Support"] is False
    assert all(isinstance(found[name], str) and found[name] for name in ("name", "description", "image"))
    assert found["registrations"] == [{"agentId": 22, "agentRegistry": REGISTRY}]
    assert found["supportedTrust"] == ["reputation", "crypto-economic"]
    endpoint = f"{ENDPOINT}/services/{PUBLISHER.address}/{NAME}/{PROGRAM}"
    assert found["services"] == [
        {"name": "web", "endpoint": "https://p.example/"},
        {"name": NAME, "endpoint": endpoint, "version": "1.2.0"},
    ]
    idle = registration_json(PROVIDER.address, [Registration(REGISTRY, 22)], [], REPUTATION)
    assert idle["active"] is False and idle["services"] == []


def test_each_buyers_feedback_is_its_weight_and_says_where_to_check_it() -> None:
    times = {name: f"at {name}" for name in (BUYER.address, STRANGER.address, PROVIDER.address)}
    files = feedback_json(
        PROVIDER.address, Registration(REGISTRY, 22), PAIRS, REPUTATION, NETWORK, created_at=times, height=7
    )
    for file in files:
        assert file["agentRegistry"] == REGISTRY and file["agentId"] == 22
        assert isinstance(file["value"], int) and 0 <= file["valueDecimals"] <= 18
        assert file["createdAt"].startswith("at ") and file["clientAddress"].startswith("eip155:1:0x")
        assert file["openresource"]["height"] == 7 and file["openresource"]["genesis"] == NETWORK.genesis_hash
    # The largest first; twice the unit counts two units, which is all of it.
    assert [file["value"] for file in files] == [200_000, 1_000, 910_000]
    paid = files[0]
    assert paid["clientAddress"] == f"eip155:1:{STRANGER.address}" and paid["tag1"] == "paidWork"
    assert paid["proofOfPayment"] == {
        "fromAddress": STRANGER.address, "toAddress": PROVIDER.address, "chainId": "100",
    }  # fmt: skip
    assert paid["openresource"]["path"] == f"/pairs/{PROVIDER.address}/{STRANGER.address}"
    verified = files[-1]
    assert verified["tag1"] == "verifiedWork" and verified["openresource"]["valid"] == 90
    unverified = reputation_of(ProviderRecord(claims=4), PAIRS)
    files = feedback_json(
        PROVIDER.address, Registration(REGISTRY, 1), PAIRS, unverified, NETWORK, created_at=times, height=7
    )
    assert [file["tag1"] for file in files] == ["paidWork", "paidWork"]


def test_without_another_registry_a_provider_stands_on_its_own_chain() -> None:
    own = own_registration(PROVIDER.address, NETWORK)
    assert own.registry == f"openresource:100:{NETWORK.genesis_hash}" and own.accounts == "openresource:100"
    shown = registration_json(PROVIDER.address, [own], [], REPUTATION)["registrations"][0]
    assert shown["agentId"] == str(int(PROVIDER.address, 16))


def test_registrations_are_read_and_what_is_none_is_refused() -> None:
    assert parse_registration(f"{REGISTRY}=22") == Registration(REGISTRY, 22)
    for text in ("", REGISTRY, f"{REGISTRY}=", f"{REGISTRY}=x", f"{REGISTRY}=-1", "eip155:1=22", "²=1"):
        with pytest.raises(RegistryInvalid):
            parse_registration(text)


def test_a_picture_is_one_for_each_address_and_stands_for_itself() -> None:
    assert picture(PROVIDER.address) != picture(BUYER.address)
    assert picture(PROVIDER.address).startswith("data:image/svg+xml,<svg ") and "#" not in picture(
        PROVIDER.address
    )
