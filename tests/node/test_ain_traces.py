"""Recorded exchanges with AI Network's node, sent again to our node: every answer is the same."""

from __future__ import annotations

import copy
import random
import tempfile
from pathlib import Path
from typing import Any

import pytest

from openresource.primitives.keys import private_key_from_hex
from tests.support.ain_nodes import ain_nodes, wait_for_block
from tests.support.ain_traces import Comparison, Replay, recorded_ports
from tests.vectors_support import changed, load_vectors, vectors

# The last final block when a recording began.
BEGINNINGS = {"main": 3, "three": 5, "clients": 3}
# What was in the environment of the recorded nodes beside what the scenario says.
RECORDED_ENVIRONMENT = {
    "TRACKER_UPDATE_JSON_RPC_URL": "http://127.0.0.1:20171/json-rpc",
    "STAKE": "100000",
}
EVENTS = "true (last node only)"


@pytest.mark.timeout(600)
@vectors(
    "ain/rpc-traces.json", "scenarios", context=("genesis_accounts",), count=lambda document: _count(document)
)
def test_recorded_traces_replay_equal(case: dict[str, Any], document: dict[str, Any]) -> None:
    keys = {
        account["address"]: private_key_from_hex(account["private_key"])
        for account in document["genesis_accounts"]
    }
    count = case["nodes"]
    environment = {name: text for name, text in case["env"].items() if text != EVENTS}
    with (
        tempfile.TemporaryDirectory() as folder,
        ain_nodes(Path(folder), case["config"], count, {**RECORDED_ENVIRONMENT, **environment}) as nodes,
    ):
        target = nodes[case.get("target_node", 0)]
        wait_for_block(target, BEGINNINGS.get(case["name"], 3))
        doors, links, events = recorded_ports(case["steps"], case.get("target_node", 0), count)
        ports: dict[int, int] = {}
        for index, node in enumerate(nodes):
            ports |= {doors + index: node.port, links + index: node.p2p_port, events + index: node.event_port}
        ports = {recorded: here for recorded, here in ports.items() if recorded >= 1024}
        replay = Replay(target.port, nodes[-1].event_url, keys, ports)
        replay.run(case["steps"])
        told = "\n".join(replay.differences)
        assert not replay.differences, f"{replay.steps_equal} of {replay.steps_run} steps are equal\n{told}"


def test_a_changed_answer_of_the_traces_is_noticed() -> None:
    document = load_vectors("ain/rpc-traces.json")
    random_source = random.Random(20260101)
    exact = [
        step["response"]
        for scenario in document["scenarios"]
        for step in scenario["steps"]
        if step["kind"] in ("jsonrpc", "http") and not step["volatile"] and "json" in step["response"]
    ]
    unnoticed = []
    for response in exact:
        told = copy.deepcopy(response)
        told["json"] = changed(told["json"], random_source)
        comparison = Comparison([], {})
        comparison.compare(response, told, "$")
        if not comparison.differences:
            unnoticed.append((response, told))
    # How full a pool is belongs to a run.
    assert len(exact) > 250 and len(unnoticed) <= 3, unnoticed


def _count(document: dict[str, Any]) -> int:
    return sum(len(scenario["steps"]) for scenario in document["scenarios"])
