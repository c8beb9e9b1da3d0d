"""A whole node in one process: an account that comes later, refusals at the start, callers who are no peers."""

from __future__ import annotations

import asyncio
import contextlib
import copy
import json
import shutil
import time
from collections.abc import AsyncIterator, Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from openresource.node.ain.configurations import configuration_of
from openresource.node.ain.engine import AinNode, OldBlocksMissing, OtherChainOnDisk
from openresource.node.ain.settings import AinSettings
from openresource.node.ain.shards import ShardRefused
from openresource.node.ain.status import Status
from openresource.node.ain.storage import ChainStorage
from openresource.node.ain.websocket import connect
from openresource.node.server import PortInUse
from openresource.node.store import HomeInUse
from openresource.primitives.encoding import canonical_json
from openresource.primitives.keys import PrivateKey, sign_message
from openresource.primitives.paths import encode_label
from tests.support.ain_nodes import free_ports
from tests.vectors_support import load_vectors

ACCOUNTS = load_vectors("ain/genesis/test_accounts.json")["others"]
SECONDS_MAX = 60.0


def key_of(index: int) -> PrivateKey:
    return PrivateKey(bytes.fromhex(ACCOUNTS[index]["private_key"]))


def settings(
    folder: Path, *, epoch_ms: int = 200, sharding: Mapping[str, Any] | None = None, **environment: str
) -> AinSettings:
    parameters = copy.deepcopy(configuration_of("1-node")["blockchain_params"])
    parameters["genesis"]["epoch_ms"] = epoch_ms
    parameters["sharding"].update(sharding or {})
    name = f"net{epoch_ms}" if sharding is None else "shard"
    directory = folder / "configs" / name
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "blockchain_params.json").write_text(json.dumps(parameters))
    ports = free_ports(3)
    given = {
        "BLOCKCHAIN_CONFIGS_DIR": f"configs/{name}",
        "PORT": str(ports[0]),
        "P2P_PORT": str(ports[1]),
        "EVENT_HANDLER_PORT": str(ports[2]),
        "PEER_CANDIDATE_JSON_RPC_URL": f"http://localhost:{ports[0]}/json-rpc",
        "UNSAFE_PRIVATE_KEY": ACCOUNTS[0]["private_key"],
        "ENABLE_STATUS_REPORT_TO_TRACKER": "false",
    }
    return AinSettings.from_environment({**given, **environment}, folder)


@contextlib.asynccontextmanager
async def running(told: AinSettings) -> AsyncIterator[AinNode]:
    node = AinNode(told)
    await node.start()
    try:
        yield node
    finally:
        await node.stop()


async def until(is_so: Callable[[], bool]) -> None:
    deadline = time.monotonic() + SECONDS_MAX
    while not is_so():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.01)


def test_a_node_without_an_account_answers_and_begins_with_one(tmp_path: Path) -> None:
    async def journey() -> None:
        told = settings(tmp_path, ACCOUNT_INJECTION_OPTION="private_key")
        async with running(told) as node:
            assert node.key is None and node.chain.node_state == "STARTING"
            assert node.consensus_status()["state"] == "STARTING"
            assert node.network_status()["connectionStatus"]["numConnections"] == 0
            assert node.inject(key_of(0)) is True
            assert node.inject(key_of(1)) is False
            await until(lambda: node.chain.final_number >= 2)
            assert node.key is not None and node.key.address == key_of(0).address
            assert node.consensus_status()["state"] == "RUNNING"

    asyncio.run(journey())


def test_ports_and_directories_in_use_are_refused(tmp_path: Path) -> None:
    async def journey() -> None:
        told = settings(tmp_path)
        async with running(told):
            for same in ("PORT", "P2P_PORT"):
                port = told.port if same == "PORT" else told.p2p_port
                other = settings(tmp_path, BLOCKCHAIN_DATA_DIR="other", **{same: str(port)})
                with pytest.raises(PortInUse):
                    await AinNode(other).start()
            # Another port of the door, but the same directory by a link.
            other = settings(tmp_path)
            other.chain_directory.parent.mkdir(parents=True, exist_ok=True)
            other.chain_directory.symlink_to(told.chain_directory)
            with pytest.raises(HomeInUse):
                await AinNode(other).start()

    asyncio.run(journey())


def test_a_directory_with_holes_needs_its_snapshot(tmp_path: Path) -> None:
    async def journey() -> None:
        told = settings(tmp_path)
        async with running(told) as node:
            await until(lambda: node.chain.final_number >= 3)
            tree, block = node.chain.final.tree, dict(node.chain.final_block)
        shutil.rmtree(told.chain_directory)
        with ChainStorage(told.chain_directory, told.snapshot_directory) as storage:
            storage.append(told.genesis)
            storage.write_snapshot(block["number"], tree.freeze().root, 1)
            storage.begin_at(block, storage.snapshot_path(block["number"]))
        whole = settings(tmp_path, PORT=str(told.port), SYNC_MODE="full")
        with pytest.raises(OldBlocksMissing, match="SYNC_MODE=fast"):
            await AinNode(whole).start()
        async with running(settings(tmp_path, PORT=str(told.port))) as node:
            assert node.chain.final_number == block["number"]
        for snapshot in told.snapshot_directory.iterdir():
            snapshot.unlink()
        with pytest.raises(OldBlocksMissing):
            await AinNode(settings(tmp_path, PORT=str(told.port))).start()

    asyncio.run(journey())


def test_the_blocks_of_another_network_are_not_gone_on_with(tmp_path: Path) -> None:
    async def journey() -> None:
        told = settings(tmp_path)
        async with running(told):
            pass
        other = settings(tmp_path, epoch_ms=300, PORT=str(told.port))
        with pytest.raises(OtherChainOnDisk):
            await AinNode(other).start()

    asyncio.run(journey())


def test_callers_who_do_not_prove_who_they_are_are_no_peers(tmp_path: Path) -> None:
    async def journey() -> None:
        told = settings(tmp_path, PEER_WHITELIST=",".join(key_of(index).address for index in range(4)))
        async with running(told) as node:
            url = f"ws://127.0.0.1:{told.p2p_port}/"
            genesis_hash = node.genesis_hash()
            now_ms = node.now_ms()
            cases: list[Any] = [
                "nonsense",
                json.dumps({"type": "HELLO"}),
                json.dumps({"type": "TRANSACTION", "data": []}),
                hello(key_of(1), key_of(2), genesis_hash, now_ms, url),
                hello(key_of(1), key_of(1), "0x" + "0" * 64, now_ms, url),
                hello(key_of(1), key_of(1), genesis_hash, now_ms - 3_600_000, url),
                hello(key_of(6), key_of(6), genesis_hash, now_ms, url),
                hello(key_of(1), key_of(1), genesis_hash, now_ms, url, urls={"p2p": 5}),
                # What another node was greeted with.
                hello(key_of(1), key_of(1), genesis_hash, now_ms, "ws://127.0.0.1:2/"),
                json.dumps({"type": "HELLO", "data": "x" * 20_000}),
            ]
            for text in cases:
                connection = await connect(url, message_bytes_max=100_000)
                assert await connection.receive() is not None
                connection.send(text)
                # It hangs up.
                assert await connection.receive() is None, text
            assert node.network_status()["connectionStatus"]["numInbound"] == 0

            connection = await connect(url, message_bytes_max=100_000)
            connection.send(hello(key_of(1), key_of(1), genesis_hash, now_ms, url))
            await until(lambda: node.network_status()["connectionStatus"]["numInbound"] == 1)
            for message in HOSTILE_MESSAGES:
                connection.send(json.dumps(message))
            before = node.chain.final_number
            await until(lambda: node.chain.final_number > before + 1)
            assert connection.is_open
            connection.terminate()
            await until(lambda: node.network_status()["connectionStatus"]["numInbound"] == 0)
            assert node.failure is None

    asyncio.run(journey())


HOSTILE_MESSAGES: list[Any] = [
    5,
    {"type": 5},
    {"type": "PEERS", "data": {"x": "ws://["}},
    {"type": "PEERS", "data": {ACCOUNTS[2]["address"]: "ws://[::1"}},
    {"type": "PEERS", "data": {ACCOUNTS[2]["address"]: "ws://192.0.2.1:80/"}},
    {"type": "TRANSACTION", "data": [None, {}, {"tx_body": {}}, {"hash": [], "tx_body": 5}]},
    {"type": "CHAIN_SEGMENT_REQUEST", "data": {"from": "x"}},
    {"type": "CHAIN_SEGMENT_REQUEST", "data": {"from": -5}},
    {"type": "CHAIN_SEGMENT_RESPONSE", "data": {"blocks": [{}], "catch_up": [{}], "last": 9}},
    {"type": "CONSENSUS", "data": {"type": "propose", "value": {"proposalBlock": {}, "proposalTx": {}}}},
    {"type": "UNHEARD_OF", "data": None},
]


def hello(
    named: PrivateKey, signer: PrivateKey, genesis_hash: str, now_ms: int, to: str, urls: Any = None
) -> str:
    told = {"p2p": {"url": "ws://127.0.0.1:1/"}, "jsonRpc": {"url": "http://127.0.0.1:1/json-rpc"}}
    body = {
        "address": named.address,
        "genesis_hash": genesis_hash,
        "timestamp": now_ms,
        "to": to,
        "urls": told if urls is None else urls,
    }
    signature = sign_message(canonical_json(body), signer, 0)
    return json.dumps({"type": "HELLO", "data": {"body": body, "signature": signature}})


SHARD_PATH = "/apps/part"


def shard_of(told: AinSettings) -> dict[str, Any]:
    """What makes a chain a shard of this one."""
    return {
        "sharding_protocol": "POA",
        "sharding_path": SHARD_PATH,
        "parent_chain_poc": f"http://127.0.0.1:{told.port}",
        "reporting_period": 2,
        "shard_owner": load_vectors("ain/genesis/test_accounts.json")["owner"]["address"],
        "shard_reporter": key_of(0).address,
    }


def test_a_shard_opens_itself_on_its_parent_and_reports_every_block(tmp_path: Path) -> None:
    async def journey() -> None:
        parent_told = settings(tmp_path)
        told = settings(tmp_path, sharding=shard_of(parent_told))
        async with running(told) as shard:
            # The parent comes later, and the shard waits for it.
            assert shard.chain.node_state == "CHAIN_SYNCING"
            async with running(parent_told) as parent:
                place = ["values", "apps", "part", ".shard"]
                last = [*place, "latest_block_number"]
                await until(lambda: (parent.chain.front.get(last) or -1) >= 5)
                assert parent.chain.front.get([*place, "sharding_enabled"]) is True
                for number in range(6):
                    block = shard.chain.block(number)
                    told_hash = parent.chain.front.get([*place, "proof_hash_map", str(number), "proof_hash"])
                    assert block is not None and told_hash == block["state_proof_hash"]
                entry = Status(parent).sharding()[encode_label(SHARD_PATH)]
                assert entry["sharding_enabled"] is True and entry["latest_block_number"] >= 5
                config = parent.chain.front.get(["values", "sharding", "shard", encode_label(SHARD_PATH)])
                assert config == shard.chain.final.get(["values", "blockchain_params", "sharding"])
                assert Status(shard).sharding() == {}

    asyncio.run(journey())


def test_a_shard_whose_owner_has_no_right_to_its_app_ends_and_says_so(tmp_path: Path) -> None:
    async def journey() -> None:
        parent_told = settings(tmp_path)
        wanted = {"sharding_path": "/apps/consensus", "shard_owner": key_of(5).address}
        told = settings(tmp_path, sharding={**shard_of(parent_told), **wanted})
        async with running(parent_told), running(told) as shard:
            await until(lambda: shard.failure is not None)
            assert isinstance(shard.failure, ShardRefused)
            assert "does not administer the app consensus" in shard.failure.message
            assert shard.chain.node_state == "CHAIN_SYNCING"

    asyncio.run(journey())
