"""Nodes of AI Network's kind as real processes: alone, three as one network, killed and started again."""

from __future__ import annotations

import copy
import http.server
import json
import shutil
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import pytest

from openresource.ledger.transactions import sign_transaction
from openresource.ledger.tree import Tree
from openresource.node.ain.configurations import configuration_of
from openresource.node.ain.storage import ChainStorage
from openresource.primitives.keys import PrivateKey
from tests.support.ain_nodes import RunningNode, ain_nodes, wait_for_block
from tests.support.ain_traces import Http
from tests.support.websocket import Socket
from tests.vectors_support import load_vectors

pytestmark = pytest.mark.journey

# Messages of three processes fit into it on a machine that has other things to do.
EPOCH_MS = 1_000
SECONDS_MAX = 60.0


def quick_configuration(folder: Path, name: str) -> str:
    """A configuration directory whose epochs are short."""
    parameters = copy.deepcopy(configuration_of(name)["blockchain_params"])
    parameters["genesis"]["epoch_ms"] = EPOCH_MS
    directory = folder / "configs" / name
    directory.mkdir(parents=True)
    (directory / "blockchain_params.json").write_text(json.dumps(parameters))
    return str(directory)


def call(node: RunningNode, method: str, **params: Any) -> Any:
    http = Http(node.port)
    try:
        return http.call(method, **params)
    finally:
        http.close()


def until(is_so: Callable[[], bool], what: str, nodes: list[RunningNode]) -> None:
    deadline = time.monotonic() + SECONDS_MAX
    while not is_so():
        logs = "\n".join(node.log_end() for node in nodes)
        assert time.monotonic() < deadline, f"{what}\n{logs}"
        time.sleep(0.05)


def key_of(index: int) -> PrivateKey:
    account = load_vectors("ain/genesis/test_accounts.json")["others"][index]
    return PrivateKey(bytes.fromhex(account["private_key"]))


def transfer(amount: int, name: str) -> dict[str, Any]:
    """A signed transfer from the sixth account to the seventh."""
    source, target = key_of(5), key_of(6)
    operation = {
        "type": "SET_VALUE",
        "ref": f"/transfer/{source.address}/{target.address}/{name}/value",
        "value": amount,
    }
    body = {"operation": operation, "nonce": -1, "timestamp": int(time.time() * 1000), "gas_price": 0}
    signed = sign_transaction(body, source, 0)
    return {"tx_body": signed.body, "signature": signed.signature}


def balance(node: RunningNode, *, is_final: bool = True) -> Any:
    return call(
        node, "ain_get", type="GET_VALUE", ref=f"/accounts/{key_of(6).address}/balance", is_final=is_final
    )


def block_hash(node: RunningNode, number: int) -> str:
    block = call(node, "ain_getBlockByNumber", number=number)
    return str(block["hash"])


def test_three_nodes_form_one_network_and_a_killed_one_catches_up(tmp_path: Path) -> None:
    configuration = quick_configuration(tmp_path, "3-nodes")
    with ain_nodes(tmp_path, configuration, 3, {}) as nodes:
        first, second, third = nodes
        until(
            lambda: all(call(node, "net_peerCount") == 2 for node in nodes), "not everybody is linked", nodes
        )
        assert call(second, "net_listening") is True
        wait_for_block(second, 2)

        # What one node takes, all of them have: in the front state at once, and then as final.
        sent = call(third, "ain_sendSignedTransaction", **transfer(7, "a"))
        assert sent["result"]["code"] == 0
        until(lambda: balance(first, is_final=False) == 1_000_007, "the write is not passed on", nodes)
        until(
            lambda: all(balance(node) == 1_000_007 for node in nodes),
            "the write does not become final",
            nodes,
        )
        info = call(first, "ain_getTransactionByHash", hash=sent["tx_hash"])
        assert info["state"] == "FINALIZED" and info["number"] > 0
        assert len({block_hash(node, info["number"]) for node in nodes}) == 1

        # Two of three go on without the third.
        third.kill()
        reached = call(first, "ain_getLastBlockNumber")
        wait_for_block(first, reached + 2, SECONDS_MAX)
        call(first, "ain_sendSignedTransaction", **transfer(5, "b"))
        until(lambda: balance(first) == 1_000_012, "two nodes do not make blocks", nodes)

        # Started again it has its own blocks, and fetches what it missed.
        third.start_again()
        until(lambda: _serves(third) and balance(third) == 1_000_012, "the third does not catch up", nodes)
        last = call(third, "ain_getLastBlockNumber")
        wait_for_block(first, last, SECONDS_MAX)
        assert block_hash(third, last) == block_hash(first, last)
        votes_from = last + 1
        until(
            lambda: _has_voted(first, key_of(2).address, votes_from), "the third does not vote again", nodes
        )


def test_a_killed_node_goes_on_behind_its_last_block(tmp_path: Path) -> None:
    configuration = quick_configuration(tmp_path, "1-node")
    with ain_nodes(tmp_path, configuration, 1, {"SNAPSHOTS_INTERVAL_BLOCK_NUMBER": "4"}) as nodes:
        (node,) = nodes
        sent = call(node, "ain_sendSignedTransaction", **transfer(7, "a"))
        until(lambda: balance(node) == 1_000_007, "the write does not become final", nodes)
        wait_for_block(node, 6)
        hashes = [block_hash(node, number) for number in range(7)]
        node.kill()
        node.start_again()
        until(lambda: _serves(node), "it does not start again", nodes)
        assert [block_hash(node, number) for number in range(7)] == hashes
        assert balance(node) == 1_000_007
        reached = call(node, "ain_getLastBlockNumber")
        assert reached >= 6
        wait_for_block(node, reached + 3, SECONDS_MAX)
        blocks = call(node, "ain_getBlockList", **{"from": 0, "to": reached + 3})
        assert [block["last_hash"] for block in blocks[1:]] == [block["hash"] for block in blocks[:-1]]
        again = call(node, "ain_sendSignedTransaction", **transfer(1, "c"))
        assert again["result"]["code"] == 0 and again["tx_hash"] != sent["tx_hash"]
        assert list((tmp_path / "data0" / "snapshots" / str(node.port)).iterdir())


def test_a_node_begins_at_a_peers_state_refuses_a_false_one_and_fetches_old_blocks(tmp_path: Path) -> None:
    configuration = quick_configuration(tmp_path, "3-nodes")
    given = {
        "SYNC_MODE": "peer",
        "SNAPSHOTS_INTERVAL_BLOCK_NUMBER": "1000000",
        "OLD_CHAIN_SEGMENT_LENGTH": "2",
        "OLD_CHAIN_SEGMENT_SLEEP_MS": "500",
    }
    with ain_nodes(tmp_path, configuration, 3, given) as nodes:
        first, second, third = nodes
        call(first, "ain_sendSignedTransaction", **transfer(7, "a"))
        wait_for_block(second, 12, SECONDS_MAX)
        third.kill()
        shutil.rmtree(tmp_path / "data2")
        # One peer has a state that is none of its blocks', the other one writes its own when it is asked.
        false, true = (tmp_path / f"data{index}" / "snapshots" / str(nodes[index].port) for index in (0, 1))
        for snapshot in true.glob("*.gz"):
            snapshot.unlink()
        other = Tree("ain")
        other.write(["values", "accounts", key_of(6).address, "balance"], 10**12)
        with ChainStorage(tmp_path / "unused", false) as storage:
            storage.write_snapshot(call(first, "ain_getLastBlockNumber"), other.freeze().root, 1)
        # The one whose state is true says nothing until the false one was refused.
        second.process.send_signal(signal.SIGSTOP)
        try:
            third.start_again()
            until(lambda: "a state is refused" in third.log.read_text(), "no state is refused", nodes)
        finally:
            second.process.send_signal(signal.SIGCONT)
        until(lambda: _serves(third), "the third does not serve", nodes)
        begun = int(next(true.glob("*.gz")).name.partition(".")[0])
        assert begun > 11 and balance(third) == 1_000_007

        # The blocks before come afterwards, and a node that is killed meanwhile goes on with them.
        until(lambda: _has(third, begun - 1), "no old blocks are fetched", nodes)
        third.kill()
        third.start_again()
        until(lambda: _serves(third) and _has(third, 1), "the chain does not become whole", nodes)
        reached = call(third, "ain_getLastBlockNumber")
        wait_for_block(first, reached, SECONDS_MAX)
        for number in range(reached + 1):
            assert block_hash(third, number) == block_hash(first, number)
        until(
            lambda: _has_voted(first, key_of(2).address, reached + 1), "the third does not vote again", nodes
        )


def test_the_event_handler_tells_of_blocks_and_of_a_write_twice(tmp_path: Path) -> None:
    configuration = quick_configuration(tmp_path, "1-node")
    with ain_nodes(tmp_path, configuration, 1, {"EVENT_HANDLER_HEARTBEAT_INTERVAL_MS": "3000"}) as nodes:
        (node,) = nodes
        socket = Socket(node.event_url)
        path = f"/accounts/{key_of(6).address}/balance"
        filters = [
            {"id": "blocks", "type": "BLOCK_FINALIZED", "config": {"block_number": None}},
            {"id": "values", "type": "VALUE_CHANGED", "config": {"path": path, "event_source": None}},
        ]
        for one in filters:
            socket.send_json({"type": "REGISTER_FILTER", "data": one})
        is_sent = False
        numbers: list[int] = []
        sources: list[tuple[str, Any]] = []
        pings = 0
        deadline = time.monotonic() + SECONDS_MAX
        while len(numbers) < 4 or len(sources) < 2 or pings < 2:
            assert time.monotonic() < deadline, (numbers, sources, pings, node.log_end())
            # Beside it pings are answered: who does not is let go.
            if not is_sent and len(call(node, "ain_getEventHandlerFilterInfo")) == 2:
                call(node, "ain_sendSignedTransaction", **transfer(7, "a"))
                is_sent = True
            text = socket.receive(1.0)
            if text is None:
                continue
            message = json.loads(text)
            if message["type"] == "PING":
                pings += 1
                socket.send_json({"type": "PONG", "data": {}})
                continue
            event = message["data"]
            if event["filter_id"] == "blocks":
                numbers.append(event["payload"]["block_number"])
            else:
                sources.append((event["payload"]["event_source"], event["payload"]["values"]))
        values = {"before": 1_000_000, "after": 1_000_007}
        assert sources == [("USER", values), ("BLOCK", values)]
        assert numbers == list(range(numbers[0], numbers[0] + len(numbers)))
        socket.close()


def _serves(node: RunningNode) -> bool:
    http = Http(node.port)
    try:
        return http.request("GET", "/health_check").text == "true"
    except OSError:
        return False
    finally:
        http.close()


def _has(node: RunningNode, number: int) -> bool:
    return call(node, "ain_getBlockByNumber", number=number) is not None


def _has_voted(node: RunningNode, address: str, number: int) -> bool:
    last = call(node, "ain_getLastBlockNumber")
    for block in call(node, "ain_getBlockList", **{"from": number, "to": last + 1}):
        if any(wire["address"] == address for wire in block["last_votes"]):
            return True
    return False


class _Called(http.server.BaseHTTPRequestHandler):
    """A function's server that keeps what it is told."""

    told: ClassVar[list[Any]] = []

    def do_POST(self) -> None:
        length = int(self.headers["Content-Length"])
        self.told.append(json.loads(self.rfile.read(length)))
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, format: str, *arguments: Any) -> None:
        """Says nothing."""


def test_a_rest_function_is_called_for_the_write_and_for_its_block(tmp_path: Path) -> None:
    configuration = quick_configuration(tmp_path, "1-node")
    _Called.told.clear()
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Called)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    url = f"http://localhost:{server.server_port}/called"
    try:
        with ain_nodes(tmp_path, configuration, 1, {"ENABLE_REST_FUNCTION_CALL": "true"}) as nodes:
            (node,) = nodes
            owner, user = _owner_key(), key_of(5)
            _send(node, user, "/manage_app/rest_app/create/1", {"admin": {user.address: True}})
            whitelist = f"/developers/rest_functions/url_whitelist/{user.address}/0"
            _send(node, owner, f"/developers/rest_functions/user_whitelist/{user.address}", True)
            _send(node, user, whitelist, f"http://localhost:{server.server_port}")
            entry = {"function_type": "REST", "function_id": "tell", "function_url": url}
            _send(node, user, "/apps/rest_app/data/$key", {".function": {"tell": entry}}, kind="SET_FUNCTION")
            rule = {".rule": {"write": "auth.addr !== ''"}}
            _send(node, user, "/apps/rest_app/data", rule, kind="SET_RULE")
            result = _send(node, user, "/apps/rest_app/data/one", 5)
            assert result["func_results"]["tell"]["code"] == 0
            until(lambda: len(_Called.told) >= 2, "the function is not called", nodes)
            # Two calls of their own, of which either may arrive first.
            told = {one["eventSource"]: one for one in _Called.told[:2]}
            assert set(told) == {"USER", "BLOCK"}
            first = told["USER"]
            assert (first["fid"], first["value"], first["prevValue"]) == ("tell", 5, None)
            assert first["valuePath"] == ["apps", "rest_app", "data", "one"]
            assert first["functionPath"] == ["apps", "rest_app", "data", "$key"]
            assert first["params"] == {"key": "one"}
            assert first["auth"] == {"addr": user.address, "fid": "tell", "fids": []}
            assert first["transaction"]["address"] == user.address
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def _owner_key() -> PrivateKey:
    account = load_vectors("ain/genesis/test_accounts.json")["owner"]
    return PrivateKey(bytes.fromhex(account["private_key"]))


def _send(node: RunningNode, key: PrivateKey, ref: str, value: Any, kind: str = "SET_VALUE") -> Any:
    operation = {"type": kind, "ref": ref, "value": value}
    body = {"operation": operation, "nonce": -1, "timestamp": int(time.time() * 1000), "gas_price": 0}
    signed = sign_transaction(body, key, 0)
    sent = call(node, "ain_sendSignedTransaction", tx_body=signed.body, signature=signed.signature)
    assert sent["result"]["code"] == 0, sent
    return sent["result"]
