"""Offers: free test calls, permissions and prices, apart from the chain."""

from __future__ import annotations

from dataclasses import replace

import pytest

from openresource.market.fields import InvalidRecord
from openresource.market.placements import (
    LIFE_CYCLE,
    STATUSES,
    ForeignTestCall,
    StaleTestCall,
    check_test_call,
    placement_record,
    placement_words,
    read_placement,
    sign_test_call,
)
from openresource.market.prices import Price, PriceAboveCap, check_cap, price_json, price_split, price_text
from openresource.market.services import Permissions, may_call, may_run, read_permissions, read_version
from tests.market.small_chain import (
    BUYER,
    NAME,
    NETWORK,
    OTHER_NETWORK,
    OTHER_PROGRAM,
    PROGRAM,
    PROVIDER,
    PUBLISHER,
    STRANGER,
    placement,
    version_record,
)


def test_a_test_call_is_free_for_its_publisher_and_for_a_short_while() -> None:
    signature = sign_test_call(PROGRAM, 1_000_000, PUBLISHER, NETWORK)
    check_test_call(PUBLISHER.address, PROGRAM, 1_000_000, signature, NETWORK, at_ms=1_200_000)
    with pytest.raises(StaleTestCall):
        check_test_call(PUBLISHER.address, PROGRAM, 1_000_000, signature, NETWORK, at_ms=1_300_001)
    with pytest.raises(StaleTestCall):
        check_test_call(PUBLISHER.address, PROGRAM, 1_000_000, signature, NETWORK, at_ms=699_999)


def test_a_test_call_of_anybody_else_or_for_anything_else_is_refused() -> None:
    good = sign_test_call(PROGRAM, 1_000_000, PUBLISHER, NETWORK)
    for publisher, program, timestamp_ms, signature in (
        (PUBLISHER, PROGRAM, 1_000_000, sign_test_call(PROGRAM, 1_000_000, STRANGER, NETWORK)),
        (PUBLISHER, PROGRAM, 1_000_000, sign_test_call(PROGRAM, 1_000_000, PUBLISHER, OTHER_NETWORK)),
        (PUBLISHER, OTHER_PROGRAM, 1_000_000, good),
        (PUBLISHER, PROGRAM, 1_000_001, good),
        (STRANGER, PROGRAM, 1_000_000, good),
    ):
        with pytest.raises(ForeignTestCall):
            check_test_call(publisher.address, program, timestamp_ms, signature, NETWORK, at_ms=1_000_000)


def test_a_placement_is_read_from_its_record_as_it_was_written() -> None:
    record = placement()
    found = read_placement(PUBLISHER.address, NAME, PROGRAM, PROVIDER.address, record)
    assert placement_record(found) == record


def test_every_status_has_its_row_and_leads_somewhere() -> None:
    assert set(LIFE_CYCLE) == {"", *STATUSES}
    for possible in LIFE_CYCLE.values():
        assert possible and set(possible) <= set(STATUSES)


def test_without_permissions_everybody_may_and_a_publisher_always_may() -> None:
    assert may_call(Permissions(), PUBLISHER.address, BUYER.address)
    closed = read_permissions({"call": {"everyone": False}, "run": {PROVIDER.address: True}})
    assert may_call(closed, PUBLISHER.address, PUBLISHER.address)
    assert not may_call(closed, PUBLISHER.address, BUYER.address)
    assert may_run(closed, PUBLISHER.address, PROVIDER.address)
    assert not may_run(closed, PUBLISHER.address, STRANGER.address)
    # One name may be kept out where everybody else may.
    but_one = read_permissions({"call": {"everyone": True, STRANGER.address: False}})
    assert may_call(but_one, PUBLISHER.address, BUYER.address)
    assert not may_call(but_one, PUBLISHER.address, STRANGER.address)


def test_a_price_is_ask_and_royalty_with_the_fee_inside() -> None:
    price = Price(500, 200, 20_000)
    assert (price.total_uain, price_text(price)) == (700, "0.0007 AIN")
    assert price_json(price)["text"] == "0.0007 AIN" and price_json(price)["unit"] == "call"
    assert price_split(price).provider_uain == 486


def test_a_cap_holds_ask_and_royalty_together() -> None:
    version = read_version(PROGRAM, version_record())
    check_cap(1_800, version.royalty_uain, version.price_cap_uain)
    check_cap(10**9, version.royalty_uain, None)
    with pytest.raises(PriceAboveCap):
        check_cap(1_801, version.royalty_uain, version.price_cap_uain)


def test_what_a_placement_says_beside_its_price_is_kept_as_it_was_written() -> None:
    said = {
        "warm": True,
        "start_ms": 1_200,
        "limits": "memory=cgroup pids=rlimit cpu=none disk=tmpfs network=none",
        "hardware": {"cpu": 8, "memory_bytes": 32 << 30, "gpu_count": 1, "gpu_vendor": "nvidia"},
        "region": "kr-seoul",
        "runtime_class": "python-3.11-ml",
        "build": PROGRAM,
        "grpc": 9_444,
    }
    found = read_placement(PUBLISHER.address, NAME, PROGRAM, PROVIDER.address, placement() | said)
    assert placement_record(found) == placement() | said
    assert placement_words(found) == (
        "warm",
        "8 CPUs, 32 GiB, 1 nvidia GPU",
        "in kr-seoul",
        "runtime python-3.11-ml",
        "does not limit cpu",
    )
    assert placement_words(replace(found, warm=False))[0] == "cold, starts in about 1.2 s"


@pytest.mark.parametrize(
    "wrong",
    [
        {"warm": 1},
        {"start_ms": -1},
        {"start_ms": 10**9},
        {"limits": "x" * 201},
        {"hardware": {"cpu": 1, "wheels": 4}},
        {"hardware": "large"},
        {"hardware": {"memory_bytes": 1 << 52}},
        {"hardware": {"gpu_vendor": "NV IDIA"}},
        {"region": "Seoul!"},
        {"runtime_class": "a\nb"},
        {"build": "not a cid"},
        {"grpc": 65_536},
        {"grpc": 0},
    ],
)
def test_what_a_placement_says_has_bounds(wrong: dict[str, object]) -> None:
    with pytest.raises(InvalidRecord):
        read_placement(PUBLISHER.address, NAME, PROGRAM, PROVIDER.address, placement() | wrong)
