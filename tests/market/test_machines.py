"""Machines that open to people: offers, guests, rent and keys, as the chain takes and refuses them."""

from __future__ import annotations

import base64
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from openresource.ledger.draft import InsufficientBalance
from openresource.market.accounts import TREASURY
from openresource.market.fields import InvalidRecord
from openresource.market.hardware import Hardware
from openresource.market.machines import (
    GUESTS_MAX,
    MINUTE_MS,
    MachineMissing,
    MachineNotForRent,
    MachineOffer,
    RentalOutOfRange,
    RentChanged,
    Right,
    TooManyGuests,
    check_machine_endpoint,
    machine_record,
    read_machine,
    right_of,
)
from openresource.market.placements import EndpointNotAccepted
from openresource.market.ssh_keys import ALGORITHM, KEYS_MAX, TooManySshKeys, read_public_key, ssh_key_record
from openresource.primitives.hashing import sha256
from openresource.primitives.keys import generate_key
from tests.market.small_chain import BUYER, PROVIDER, PUBLISHER, RECORD, STRANGER, SmallChain
from tests.market.test_natives import refused

MACHINE, OWNER = PROVIDER.address, PUBLISHER.address
OFFER = f"/machines/{MACHINE}/offer"
RENT = f"/machines/{MACHINE}/rentals/{RECORD}"
HEAD = b"\0\0\0\x0bssh-ed25519\0\0\0\x20"


def key_text(number: int = 0) -> str:
    return f"{ALGORITHM} {base64.b64encode(HEAD + bytes([number]) * 32).decode()}"


def offer(**changes: Any) -> dict[str, Any]:
    return {
        "owner": OWNER,
        "endpoint": "ssh://127.0.0.1:2222",
        "host_key": key_text(),
        "isolation": "bubblewrap",
        "price_uain": 1_000,
        "minutes_max": 60,
    } | changes


def opened_chain(**changes: Any) -> SmallChain:
    chain = SmallChain()
    chain.state.give(BUYER.address, 100_000)
    chain.write(PROVIDER, OFFER, offer(**changes))
    return chain


def test_an_offer_is_read_as_it_was_written_and_stamped() -> None:
    chain = opened_chain(hardware={"cpu": 4}, region="kr-seoul", name="attic")
    found = read_machine(MACHINE, chain.get(OFFER))
    assert found.at_ms == chain.at and found.hardware == Hardware(cpu=4) and found.name == "attic"
    assert (found.host, found.port, found.price_uain) == ("127.0.0.1", 2222, 1_000)
    assert machine_record(found) | {"at_ms": chain.at} == chain.get(OFFER)
    chain.write(PROVIDER, OFFER, None)
    assert chain.get(OFFER) is None


@pytest.mark.parametrize(
    "change",
    [
        {"owner": "me"},
        {"owner": OWNER.lower()},
        {"host_key": "ssh-rsa AAAA"},
        {"host_key": key_text() + " comment"},
        {"isolation": "glass"},
        {"price_uain": -1},
        {"minutes_max": 0},
        {"minutes_max": 10**9},
        {"name": "The Attic"},
        {"more": 1},
    ],
)
def test_a_malformed_offer_is_refused(change: dict[str, Any]) -> None:
    refused(SmallChain(), InvalidRecord, PROVIDER, OFFER, offer(**change))


@pytest.mark.parametrize(
    "endpoint",
    [
        "https://127.0.0.1:2222",
        "ssh://127.0.0.1",
        "ssh://127.0.0.1:0",
        "ssh://u@h:22",
        "ssh://h:22/",
        "ssh://H:22",
    ],
)
def test_an_endpoint_that_is_not_a_host_and_a_port_is_refused(endpoint: str) -> None:
    refused(SmallChain(), EndpointNotAccepted, PROVIDER, OFFER, offer(endpoint=endpoint))


def test_loopback_is_for_the_local_network() -> None:
    check_machine_endpoint("ssh://[::1]:22", 100)
    check_machine_endpoint("ssh://shell.example:22", 7)
    with pytest.raises(EndpointNotAccepted):
        check_machine_endpoint("ssh://127.9.9.9:22", 7)


def test_rent_pays_the_owner_and_the_treasury_and_lets_the_tenant_in() -> None:
    chain = opened_chain()
    chain.write(BUYER, RENT, {"minutes": 10, "price_uain": 1_000})
    assert (chain.balance(TREASURY), chain.balance(OWNER), chain.balance(BUYER.address)) == (
        200,
        9_800,
        90_000,
    )
    until_ms = chain.at + 10 * MINUTE_MS
    tenants = f"/machines/{MACHINE}/tenants/{BUYER.address}"
    assert chain.get(tenants) == {"until_ms": until_ms, "paid_uain": 10_000}
    assert chain.get(RENT) is None
    # More time begins where the paid time ends, and the first end does not cut it.
    chain.write(BUYER, RENT, {"minutes": 5, "price_uain": 1_000})
    chain.wait(10 * MINUTE_MS)
    assert chain.get(f"{tenants}/until_ms") == until_ms + 5 * MINUTE_MS
    chain.wait(5 * MINUTE_MS)
    assert chain.get(tenants) is None


def test_rent_that_is_not_offered_so_is_refused() -> None:
    chain = opened_chain()
    refused(chain, RentChanged, BUYER, RENT, {"minutes": 1, "price_uain": 999})
    refused(chain, RentalOutOfRange, BUYER, RENT, {"minutes": 61, "price_uain": 1_000})
    refused(chain, InvalidRecord, BUYER, RENT, {"minutes": 0, "price_uain": 1_000})
    refused(chain, InvalidRecord, BUYER, RENT, {"minutes": 1.5, "price_uain": 1_000})
    refused(chain, InsufficientBalance, STRANGER, RENT, {"minutes": 1, "price_uain": 1_000})
    chain.write(BUYER, RENT, {"minutes": 40, "price_uain": 1_000})
    refused(chain, RentalOutOfRange, BUYER, RENT, {"minutes": 21, "price_uain": 1_000})
    elsewhere = f"/machines/{OWNER}/rentals/{RECORD}"
    refused(chain, MachineMissing, BUYER, elsewhere, {"minutes": 1, "price_uain": 1_000})
    record = offer()
    del record["price_uain"]
    chain.write(PROVIDER, OFFER, record)
    refused(chain, MachineNotForRent, BUYER, RENT, {"minutes": 1, "price_uain": 1_000})


def test_guests_come_and_go_by_the_owners_word() -> None:
    chain = opened_chain()
    path = f"/machines/{MACHINE}/guests/{STRANGER.address}"
    refused(chain, InvalidRecord, PUBLISHER, path, {"until_ms": chain.at})
    refused(chain, InvalidRecord, PUBLISHER, path, {"until_ms": chain.at + 1, "more": 1})
    refused(chain, InvalidRecord, PUBLISHER, path.lower(), {"until_ms": chain.at + 1})
    chain.write(PUBLISHER, path, {"until_ms": chain.at + 1_000})
    chain.wait(1_000)
    assert chain.get(path) is None
    chain.write(PUBLISHER, path, {"until_ms": chain.at + 1_000})
    chain.write(PUBLISHER, path, None)
    chain.write(PUBLISHER, path, {"until_ms": chain.at + 1_000})
    # A new owner begins without the last one's guests.
    chain.write(PROVIDER, OFFER, offer(owner=BUYER.address))
    assert chain.get(path) is None


def test_guests_have_a_bound() -> None:
    chain = opened_chain()
    for number in range(GUESTS_MAX):
        address = generate_key((number + 1).to_bytes(32, "big")).address
        chain.state.write_value(("machines", MACHINE, "guests", address), {"until_ms": 10**12})
    path = f"/machines/{MACHINE}/guests/{STRANGER.address}"
    refused(chain, TooManyGuests, PUBLISHER, path, {"until_ms": chain.at + 1_000})


def test_a_right_is_the_owners_for_good_and_anybody_elses_for_a_while() -> None:
    machine = read_machine(MACHINE, offer())
    assert right_of(machine, None, None, OWNER, 5) == Right("owner", 0)
    assert right_of(machine, None, None, MACHINE, 5) == Right("owner", 0)
    assert right_of(machine, None, None, BUYER.address, 5) is None
    guest, tenant = {"until_ms": 10}, {"until_ms": 20, "paid_uain": 7}
    assert right_of(machine, guest, tenant, BUYER.address, 5) == Right("tenant", 20)
    assert right_of(machine, guest, {"until_ms": 4, "paid_uain": 7}, BUYER.address, 5) == Right("guest", 10)
    assert right_of(machine, guest, tenant, BUYER.address, 20) is None
    assert not Right("tenant", 20).holds_at(20) and Right("owner", 0).holds_at(10**15)


def test_a_wallet_vouches_for_keys_and_takes_its_word_back() -> None:
    chain = SmallChain()
    keys = [read_public_key(key_text(number)) for number in range(KEYS_MAX + 1)]
    base = f"/ssh_keys/{BUYER.address}"
    chain.write(BUYER, f"{base}/{keys[0].fingerprint}", ssh_key_record(keys[0]))
    assert chain.get(f"{base}/{keys[0].fingerprint}") == {"key": keys[0].text, "at_ms": chain.at}
    refused(chain, InvalidRecord, BUYER, f"{base}/{keys[1].fingerprint}", ssh_key_record(keys[0]))
    refused(chain, InvalidRecord, BUYER, f"{base}/{'0' * 64}", {"key": "ssh-ed25519 !"})
    for key in keys[1:-1]:
        chain.write(BUYER, f"{base}/{key.fingerprint}", ssh_key_record(key))
    refused(chain, TooManySshKeys, BUYER, f"{base}/{keys[-1].fingerprint}", ssh_key_record(keys[-1]))
    chain.write(BUYER, f"{base}/{keys[3].fingerprint}", None)
    chain.write(BUYER, f"{base}/{keys[-1].fingerprint}", ssh_key_record(keys[-1]))


@given(
    st.text(max_size=120)
    | st.binary(max_size=80).map(lambda data: f"{ALGORITHM} {base64.b64encode(data).decode()}")
)
def test_what_is_no_key_is_refused_and_never_breaks(text: str) -> None:
    with pytest.raises(InvalidRecord):
        read_public_key(text)


def test_a_keys_fingerprint_is_the_hash_of_its_bytes() -> None:
    assert read_public_key(key_text(7)).fingerprint == sha256(HEAD + bytes([7]) * 32).hex()


def test_an_offer_without_a_price_says_so() -> None:
    machine = MachineOffer(MACHINE, OWNER, "ssh://h:1", key_text(), "bubblewrap")
    assert "price_uain" not in machine_record(machine)
