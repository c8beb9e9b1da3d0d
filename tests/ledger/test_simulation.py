"""The ledger beside its slow model: nothing differs, and what would differ is found."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from openresource.ledger.calls import FunctionCall
from openresource.ledger.machine import Machine
from openresource.ledger.natives.transfer import transfer
from openresource.ledger.profile import Network
from tests.simulation.run import PROFILES, Difference, Tally, compare, run_world
from tests.simulation.state import FlatState
from tests.simulation.world import World

OPERATIONS = 10_000
OPERATIONS_UNTIL_FOUND_MAX = 4_000


@pytest.mark.parametrize("profile", PROFILES)
def test_ledger_and_model_agree_on_random_transactions(profile: str) -> None:
    total = Tally()
    seed = 0
    while total.operations < OPERATIONS // len(PROFILES):
        seed += 1
        total.add(run_world(profile, seed))
    assert len(total.codes) > 30
    assert total.calls > 100 and total.deletions > 10


def test_one_seed_is_one_run() -> None:
    first, second = (World("ain", 5), World("ain", 5))
    assert compare(first, 300) == compare(second, 300)
    assert first.tree.root_hash() == second.tree.root_hash()


def generous(network: Network) -> Network:
    """A transfer that gives a little more than it takes."""

    def give_more(call: FunctionCall) -> int:
        code = transfer(call)
        if code == 0:
            call.add_value(["accounts", call.params["to"], "balance"], 0.000001)
        return code

    return replace(network, kernel_natives={**network.kernel_natives, "_transfer": give_more})


def forgiving(network: Network) -> Network:
    """A list of writes that counts as failed where AI Network's does not."""
    return replace(network, profile=replace(network.profile, list_ignores_own_code=False))


def keeping(network: Network) -> Network:
    """Failed transactions that pay."""
    return replace(network, profile=replace(network.profile, failed_pay_nothing=False))


@pytest.mark.parametrize("break_it", [generous, keeping, forgiving])
def test_a_ledger_that_is_wrong_is_found(break_it: Callable[[Network], Network]) -> None:
    with pytest.raises(Difference):
        done = 0
        for seed in range(100):
            if done > OPERATIONS_UNTIL_FOUND_MAX:
                break
            world = World("ain", seed)
            machine: Any = world.machine
            world.machine = Machine(break_it(machine.network), world.tree, machine.tip, machine.genesis_hash)
            done += compare(world, 1_000).operations


def test_the_flat_state_prunes_and_keeps_its_order() -> None:
    state = FlatState()
    state.write(("values", "b"), 1)
    state.write(("values", "a", "x"), {"2": None, "1": "y"})
    assert state.get(("values",)) == {"b": 1, "a": {"x": {"1": "y", "2": None}}}
    assert list(state.get(("values", "a", "x"))) == ["1", "2"]
    state.write(("values", "b", "c"), None)
    assert state.labels(("values",)) == ("a",)
    state.write(("values", "a", "x"), None)
    assert not state.exists(("values",)) and state.size() == 1
