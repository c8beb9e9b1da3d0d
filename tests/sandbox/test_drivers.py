"""The choice of a driver: the operator's order, what a program needs, and what a publisher asks for."""

from __future__ import annotations

from typing import Any

import pytest

from openresource.market.manifests import Manifest, parse_manifest
from openresource.sandbox.driver import LEVELS, Capabilities, KindNotServed, SandboxUnavailable
from openresource.sandbox.drivers import Drivers, enforced_text, rank


class Fake:
    """A driver that says what it is told to say."""

    def __init__(self, level: str, available: bool = True, **known: Any) -> None:
        self.capabilities = Capabilities(level, available, "" if available else "it is not here", **known)
        self.probes = 0

    def probe(self) -> Capabilities:
        self.probes += 1
        return self.capabilities

    async def start(self, release: Any, limits: Any) -> Any:
        raise AssertionError("never started")


def manifest(kind: str = "python", resources: str = "") -> Manifest:
    """A program of a kind."""
    run = 'entry = "a:b"' if kind == "python" else 'command = ["a"]'
    return parse_manifest(f'name = "a"\n[run]\nkind = "{kind}"\n{run}\n[resources]\n{resources}')


def test_the_first_that_serves_is_chosen_and_later_ones_are_not_started() -> None:
    first, second = Fake("bubblewrap"), Fake("gvisor")
    drivers = Drivers([first, second])
    assert drivers.for_program(manifest()) is first
    assert drivers.default is first and drivers.level == "bubblewrap"
    assert (first.probes, second.probes) == (1, 0)
    assert [one.level for one in drivers.capabilities] == ["bubblewrap", "gvisor"]
    assert [one.level for one in drivers.capabilities] == ["bubblewrap", "gvisor"]
    assert (first.probes, second.probes) == (1, 1)


def test_a_stronger_wall_is_taken_where_it_is_asked_for() -> None:
    weak, strong = Fake("bubblewrap"), Fake("gvisor")
    drivers = Drivers([weak, strong])
    assert drivers.choose(manifest(), "oci").level == "gvisor"
    assert drivers.level_towards("oci") == "gvisor"
    assert drivers.level_towards("") == "bubblewrap"


def test_a_demand_beyond_all_drivers_is_refused_and_the_strongest_is_told() -> None:
    drivers = Drivers([Fake("confined"), Fake("bubblewrap"), Fake("gvisor", available=False)])
    assert drivers.level_towards("gvisor") == "bubblewrap"
    with pytest.raises(KindNotServed) as caught:
        drivers.for_program(manifest(), "gvisor")
    assert "bubblewrap is weaker than gvisor" in caught.value.message
    assert "gvisor does not start here (it is not here)" in caught.value.message


def test_a_kind_goes_to_the_driver_that_serves_it() -> None:
    plain, lines = Fake("bubblewrap", kinds=("python",)), Fake("gvisor", kinds=("jsonl",))
    drivers = Drivers([plain, lines])
    assert drivers.for_program(manifest("jsonl")) is lines
    assert drivers.for_program(manifest()) is plain
    with pytest.raises(KindNotServed) as caught:
        drivers.for_program(manifest("http"))
    assert "bubblewrap runs python programs" in caught.value.message


def test_devices_are_kept_for_programs_that_need_them() -> None:
    plain, with_gpu = Fake("bubblewrap"), Fake("bubblewrap+gpu", gpus=2)
    for order in ([plain, with_gpu], [with_gpu, plain]):
        drivers = Drivers(order)
        assert drivers.for_program(manifest()) is plain and drivers.level == "bubblewrap"
        assert drivers.choose(manifest(resources="gpu = {count = 2}")).level == "bubblewrap+gpu"
        with pytest.raises(KindNotServed):
            drivers.for_program(manifest(resources="gpu = {count = 3}"))


def test_addresses_need_a_driver_with_a_proxy() -> None:
    wanted = manifest(resources='network = ["api.example.com:443"]')
    with pytest.raises(KindNotServed) as caught:
        Drivers([Fake("bubblewrap")]).for_program(wanted)
    assert "opens no network" in caught.value.message
    assert Drivers([Fake("bubblewrap", network="proxy")]).choose(wanted).level == "bubblewrap"


def test_without_any_driver_every_reason_is_told() -> None:
    drivers = Drivers([Fake("bubblewrap", available=False), Fake("confined", available=False)])
    assert drivers.default is None and drivers.level == "" and drivers.level_towards("") == ""
    with pytest.raises(SandboxUnavailable) as caught:
        drivers.required()
    assert "bubblewrap: it is not here; confined: it is not here" in caught.value.message
    with pytest.raises(KindNotServed):
        drivers.for_program(manifest())


def test_ranks_order_the_levels_and_an_unknown_one_is_below_all() -> None:
    ordered = sorted(LEVELS, key=rank)
    assert ordered[0] == "confined" and ordered[-1] == "gvisor"
    assert rank("bubblewrap+gpu") < rank("bubblewrap") < rank("oci") == rank("kubernetes") < rank("wasm")
    assert rank("") == 0 and rank("a name from elsewhere") < 0


def test_who_holds_each_limit_fits_in_a_line() -> None:
    shown = enforced_text(Capabilities("bubblewrap", True, memory="cgroup", disk="tmpfs"))
    assert shown == "memory=cgroup pids=rlimit cpu=none disk=tmpfs"
