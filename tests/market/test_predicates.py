"""Who may run a service: each demand of a publisher, met and not met, and what the chain makes of it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from openresource.market.fields import InvalidRecord
from openresource.market.hardware import Hardware
from openresource.market.placements import ISOLATION_LEVELS
from openresource.market.predicates import (
    NO_DEMANDS,
    BondTooSmall,
    GpuVendorNotAccepted,
    HardwareTooSmall,
    IsolationTooLow,
    Offered,
    RecordTooShort,
    RegionNotAccepted,
    RunIf,
    RuntimeClassNotAccepted,
    check_run_if,
    read_run_if,
    run_if_record,
    run_if_words,
)
from openresource.market.records import ProviderRecord
from openresource.market.services import Permissions, permissions_record, read_permissions
from openresource.primitives.errors import Refusal
from tests.market.small_chain import (
    BUYER,
    CHANNEL_PATH,
    NAME,
    PLACEMENT_PATH,
    PROVIDER,
    PUBLISHER,
    RECORD,
    opening,
    placement,
    published_chain,
)
from tests.market.test_natives import PERMISSIONS_PATH, refused

DEMANDS = RunIf(
    cpu=8,
    memory_bytes=32 << 30,
    gpu_count=2,
    gpu_vendor="nvidia",
    gpu_memory_bytes=24 << 30,
    isolation="bubblewrap",
    runtime_classes=("python-3.11", "python-3.12"),
    regions=("kr-seoul", "eu-west"),
    bond_uain=1_000_000,
    claimed_uain=500,
    claims=3,
)
HARDWARE = Hardware(8, 32 << 30, 2, "nvidia", 24 << 30)
FIT = Offered(
    provider=PROVIDER.address,
    isolation="gvisor",
    hardware=HARDWARE,
    runtime="python-3.12",
    region="eu-west",
    bond_uain=1_000_000,
    record=ProviderRecord(3, 500, 1),
)


def test_who_brings_what_is_asked_is_fit() -> None:
    check_run_if(DEMANDS, NAME, FIT)
    check_run_if(NO_DEMANDS, NAME, Offered(PROVIDER.address, "confined", Hardware()))


@pytest.mark.parametrize(
    ("change", "refusal", "words"),
    [
        ({"isolation": "confined"}, IsolationTooLow, ("bubblewrap", "confined")),
        ({"isolation": "bubblewrap+gpu"}, IsolationTooLow, ("bubblewrap", "bubblewrap+gpu")),
        ({"hardware": replace(HARDWARE, cpu=7)}, HardwareTooSmall, ("CPUs: 8", "offers 7")),
        ({"hardware": replace(HARDWARE, memory_bytes=1)}, HardwareTooSmall, ("bytes of memory",)),
        ({"hardware": replace(HARDWARE, gpu_count=1)}, HardwareTooSmall, ("GPUs: 2", "offers 1")),
        ({"hardware": replace(HARDWARE, gpu_memory_bytes=0)}, HardwareTooSmall, ("each GPU",)),
        ({"hardware": replace(HARDWARE, gpu_vendor="amd")}, GpuVendorNotAccepted, ("nvidia", "amd")),
        ({"runtime": "node-20"}, RuntimeClassNotAccepted, ("python-3.11 or python-3.12", "node-20")),
        ({"region": "us-east"}, RegionNotAccepted, ("kr-seoul or eu-west", "us-east")),
        ({"region": ""}, RegionNotAccepted, ("offers none",)),
        ({"bond_uain": 999_999}, BondTooSmall, ("bond of 1 AIN", "0.999999 AIN")),
        ({"record": ProviderRecord(3, 499, 1)}, RecordTooShort, ("500 µAIN claimed", "499")),
        ({"record": ProviderRecord(2, 500, 1)}, RecordTooShort, ("3 claims", "has 2")),
    ],
)
def test_each_demand_has_its_own_refusal_with_what_was_asked_and_offered(
    change: dict[str, Any], refusal: type[Refusal], words: tuple[str, ...]
) -> None:
    with pytest.raises(refusal) as refused_with:
        check_run_if(DEMANDS, NAME, replace(FIT, **change))
    for word in words:
        assert word in refused_with.value.message


def test_a_runtime_class_counts_by_its_own_name_and_only_once_it_is_known() -> None:
    named = replace(FIT, runtime="", runtime_class="python-3.11")
    check_run_if(DEMANDS, NAME, named)
    check_run_if(DEMANDS, NAME, replace(FIT, runtime=""), is_runtime_known=False)


@given(
    st.builds(
        RunIf,
        cpu=st.integers(0, 9),
        memory_bytes=st.integers(0, 1 << 40),
        gpu_count=st.integers(0, 9),
        gpu_vendor=st.sampled_from(["", "amd"]),
        isolation=st.sampled_from(["", *ISOLATION_LEVELS]),
        runtime_classes=st.lists(st.sampled_from(["a", "b.c", "d/e"]), max_size=3).map(tuple),
        regions=st.lists(st.sampled_from(["kr", "eu-west"]), max_size=2).map(tuple),
        bond_uain=st.integers(0, 10**9),
        claimed_uain=st.integers(0, 10**9),
        claims=st.integers(0, 10**9),
    )
)
def test_demands_are_read_as_they_were_written(run_if: RunIf) -> None:
    assert read_run_if(run_if_record(run_if) or None) == run_if
    assert bool(run_if_words(run_if)) == (run_if != NO_DEMANDS)
    permissions = Permissions(call={"everyone": True}, run_if=run_if)
    assert read_permissions(permissions_record(permissions)) == permissions


@pytest.mark.parametrize(
    "record",
    [
        "large",
        {"cpu": -1},
        {"cpus": 1},
        {"memory_bytes": 1 << 60},
        {"gpu_vendor": "N V"},
        {"isolation": "steel"},
        {"regions": {}},
        {"regions": {"0": "Kr!"}},
        {"regions": {"1": "kr"}},
        {"regions": ["kr"]},
        {"regions": {str(number): "kr" for number in range(33)}},
        {"runtime_class": {"0": 7}},
        {"bond_uain": -1},
        {"bond_uain": 0.5},
        {"claims": "many"},
    ],
)
def test_malformed_demands_are_refused_where_they_are_written(record: Any) -> None:
    with pytest.raises(InvalidRecord):
        read_run_if(record)
    refused(published_chain(), InvalidRecord, PUBLISHER, PERMISSIONS_PATH, {"run_if": record})


def test_the_chain_lets_only_who_is_fit_take_a_version() -> None:
    chain = published_chain()
    demands = RunIf(cpu=4, regions=("kr-seoul",), bond_uain=5_000, claims=1)
    chain.write(PUBLISHER, PERMISSIONS_PATH, {"run_if": run_if_record(demands)})
    fit: dict[str, Any] = {"hardware": {"cpu": 4}, "region": "kr-seoul"}
    refused(chain, HardwareTooSmall, PROVIDER, PLACEMENT_PATH, placement())
    refused(chain, RegionNotAccepted, PROVIDER, PLACEMENT_PATH, placement(hardware={"cpu": 4}))
    refused(chain, BondTooSmall, PROVIDER, PLACEMENT_PATH, placement(**fit))
    chain.write(BUYER, f"/bonds/{PROVIDER.address}/add/{RECORD}", {"amount_uain": 5_000})
    refused(chain, RecordTooShort, PROVIDER, PLACEMENT_PATH, placement(**fit))
    chain.state.write_value(
        ("records", PROVIDER.address), {"claims": 1, "claimed_uain": 700, "since_ms": 1_000}
    )
    chain.write(PROVIDER, PLACEMENT_PATH, placement(**fit))


def test_a_provider_that_is_not_fit_any_more_may_leave() -> None:
    chain = published_chain()
    chain.write(PUBLISHER, PERMISSIONS_PATH, {"run_if": {"cpu": 64}})
    chain.write(PROVIDER, PLACEMENT_PATH, placement(status="DRAINING"))
    chain.write(PROVIDER, PLACEMENT_PATH, {"status": "GONE"})
    taken = {"status": "OFFERED", "isolation": "bubblewrap", "hardware": {"cpu": 8}}
    refused(chain, HardwareTooSmall, PROVIDER, PLACEMENT_PATH, taken)


def test_no_channel_opens_to_a_provider_whose_bond_has_left() -> None:
    chain = published_chain()
    chain.write(BUYER, f"/bonds/{PROVIDER.address}/add/{RECORD}", {"amount_uain": 5_000})
    chain.write(PUBLISHER, PERMISSIONS_PATH, {"run_if": {"bond_uain": 5_000}})
    chain.write(PROVIDER, PLACEMENT_PATH, placement())
    chain.write(PROVIDER, f"/bonds/{PROVIDER.address}/withdraw/{RECORD}", {"amount_uain": 1})
    refused(chain, BondTooSmall, BUYER, f"{CHANNEL_PATH}/open", opening())
    chain.write(BUYER, f"/bonds/{PROVIDER.address}/add/{RECORD}", {"amount_uain": 1})
    chain.write(BUYER, f"{CHANNEL_PATH}/open", opening())
