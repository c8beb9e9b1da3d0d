"""Requests to a node's door, in this process: JSON-RPC bodies and parameters, and its other routes."""

from __future__ import annotations

import contextlib
import json
import random
import tempfile
import time
from pathlib import Path
from typing import Any

from openresource.ledger.transactions import sign_transaction
from openresource.node.ain.door import AinDoor
from openresource.node.ain.engine import AinNode
from openresource.node.ain.settings import AinSettings
from openresource.node.connections import LANE_BODY_BYTES_MAX, Head
from openresource.node.content import ContentStore
from openresource.node.door import Door
from openresource.node.service import NodeService
from openresource.primitives.encoding import js_json
from openresource.primitives.errors import Refusal
from openresource.primitives.keys import PrivateKey, private_key_from_hex
from tests.fuzz.mutation import Mutator
from tests.support.ain_nodes import free_ports

VECTORS = Path(__file__).resolve().parents[1] / "vectors" / "ain"
INTERNAL_ERROR = -32603
PATHS = (
    "/apps/fuzz/a",
    "/",
    "/accounts",
    "/apps",
    "/transfer",
    "/blockchain_params/resource",
    "/manage_app/fuzz",
)
ALL_PERMISSIONS = dict.fromkeys(("branch_owner", "write_function", "write_owner", "write_rule"), True)
OWN_TEXTS = ("pending", "final", "0:0", "3:1", "fuzz", "public")

Message = dict[str, Any]


class Failed(AssertionError):
    """An answer that no input may bring about."""


class DoorTarget:
    """A door as a web application, asked without sockets."""

    paths: tuple[tuple[str, str], ...] = ()

    def __init__(self, seed: int) -> None:
        self.chance = random.Random(f"{type(self).__name__} {seed}")
        self.mutator = Mutator(self.chance)
        self.folder = Path(tempfile.mkdtemp(prefix="fuzz-"))
        self.application: Any = None
        self.lane: Any = None
        self.answered_at_once = 0
        self.methods: list[str] = []
        self.chain_id = 0
        self.key = PrivateKey(b"fuzz".rjust(32, b"\x01"))
        self.bodies: list[Any] = []
        self.operations: list[Any] = [
            {"type": "SET_VALUE", "ref": "/apps/fuzz/a/b", "value": {"x": 1, "y": {"z": None}}},
            {
                "type": "SET_VALUE",
                "ref": f"/transfer/{self.key.address}/{'0x' + '00' * 20}/1/value",
                "value": 1,
            },
            {
                "type": "SET_VALUE",
                "ref": "/manage_app/fuzz/create/1",
                "value": {"admin": {self.key.address: True}},
            },
            {"type": "INC_VALUE", "ref": "/apps/fuzz/n", "value": 1},
            {"type": "SET_RULE", "ref": "/apps/fuzz/$x", "value": {".rule": {"write": "newData !== $x"}}},
            {
                "type": "SET_FUNCTION",
                "ref": "/apps/fuzz/f",
                "value": {".function": {"_fail": {"function_type": "NATIVE", "function_id": "_fail"}}},
            },
            {
                "type": "SET_OWNER",
                "ref": "/apps/fuzz",
                "value": {".owner": {"owners": {"*": ALL_PERMISSIONS}}},
            },
            {
                "type": "SET",
                "op_list": [{"ref": "/apps/fuzz/c", "value": 1}, {"type": "SET_RULE", "ref": "/apps/fuzz/d"}],
            },
        ]
        self.raw: list[bytes] = []

    def make(self) -> tuple[str, str, bytes]:
        """Verb, path and body."""
        chance = self.chance
        if self.paths and chance.random() < 0.15:
            verb, path = chance.choice(self.paths)
            query = self.mutator.data(
                b"ref=/apps/a&type=GET_VALUE&is_final=true&number=1&since=0:0", [b"%ff&=", b"path"]
            )
            body = self.mutator.value(chance.choice(self.bodies), self.bodies) if verb == "POST" else {}
            return (
                verb,
                f"{path}?{query.decode('latin-1')}",
                written(body.get("params") if isinstance(body, dict) else body),
            )
        body = dict(chance.choice(self.bodies))
        kind = chance.random()
        if kind < 0.2:
            body = self.mutator.value(body, ())
        elif kind < 0.4:
            # Signed as it is, so that it reaches the ledger.
            body["method"] = chance.choice([name for name in self.methods if "ransaction" in name])
            body["params"] = {"protoVer": "1.6.0", **self._signed_mutation()}
        else:
            body["params"] = self.mutator.value(body["params"], self.operations)
        if chance.random() < 0.05:
            body = (
                [body] * chance.choice((1, 2, 51))
                if chance.random() < 0.5
                else [body, self.mutator.value(body, ())]
            )
        raw = written(body)
        if chance.random() < 0.25:
            raw = self.mutator.data(raw, self.raw)
        return "POST", "/json-rpc", raw

    async def run(self, request: tuple[str, str, bytes]) -> None:
        """Asks; an answer of 500 or a mistake of the node is a failure."""
        verb, path, body = request
        name, _, query = path.partition("?")
        headers = [(b"host", b"127.0.0.1")]
        if verb == "POST":
            headers.append((b"content-type", b"application/json"))
        if len(body) <= LANE_BODY_BYTES_MAX and name.isascii() and "%" not in name:
            # As the door's connections do it: what waits for nothing is answered without the application.
            lane = self.lane(Head(verb, name, query.encode("latin-1"), dict(headers)))
            answer = None if lane is None else lane(body, "127.0.0.1")
            if answer is not None:
                _check(int(answer[0].split(b" ", 2)[1]), answer[1])
                self.answered_at_once += 1
                return
        scope = {
            "type": "http",
            "asgi": {"version": "3.0"},
            "http_version": "1.1",
            "method": verb,
            "scheme": "http",
            "path": name,
            "raw_path": name.encode(),
            "query_string": query.encode("latin-1"),
            "root_path": "",
            "headers": headers,
            "client": ("127.0.0.1", 1),
            "server": ("127.0.0.1", 80),
        }
        told: list[Message] = []
        asked: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

        async def receive() -> Message:
            return asked.pop() if asked else {"type": "http.disconnect"}

        async def send(message: Message) -> None:
            told.append(message)

        await self.application(scope, receive, send)
        status = told[0]["status"]
        answer = b"".join(message.get("body", b"") for message in told[1:])
        _check(status, answer)

    def open(self, door: Any) -> None:
        """Asks this door from now on."""
        self.application, self.lane = door.application, door.lane
        self.methods = sorted({*door._dispatcher._methods, *door._dispatcher._immediate})

    def fill(self) -> None:
        """The corpus: every method with what such methods are asked."""
        for name in self.methods:
            for params in self._params():
                self.bodies.append({"jsonrpc": "2.0", "method": name, "params": params, "id": 1})
        self.raw = [written(body) for body in self.chance.sample(self.bodies, min(50, len(self.bodies)))]

    def _params(self) -> list[Any]:
        texts = {"protoVer": "1.6.0", "address": self.key.address, "hash": "0x" + "ab" * 32}
        transaction = self._transaction({"type": "SET_VALUE", "ref": "/apps/fuzz/a", "value": 1})
        batch = [
            transaction,
            self._transaction({"type": "SET", "op_list": [{"ref": "/apps/fuzz/b", "value": {"x": 1}}]}),
        ]
        read = {"type": "GET_VALUE", "ref": self.chance.choice(PATHS)}
        return [
            {
                **texts,
                "ref": self.chance.choice(PATHS),
                "is_shallow": True,
                "value": {"a": 1},
                "permission": "write_rule",
            },
            {
                **texts,
                **read,
                "is_final": True,
                "is_partial": True,
                "last_end_label": "0",
                "include_proof": True,
            },
            {
                **texts,
                "type": "GET",
                "op_list": [read, {"type": "MATCH_RULE", "ref": "/apps/a"}, {"type": "EVAL_RULE"}],
            },
            {
                **texts,
                "number": 1,
                "from": 0,
                "to": 5,
                "getFullTransactions": True,
                "block_hash": "0x",
                "index": 0,
            },
            {**texts, **transaction},
            {**texts, "tx_list": batch, "transactions": batch},
            {
                **texts,
                "app_name": "fuzz",
                "shardPath": "/apps/a",
                "parameter": "resource",
                "height": 1,
                "path": "/apps",
            },
            {
                "protoVer": "1.6.0",
                "level": self.chance.choice(OWN_TEXTS),
                "wire": transaction,
                "paths": list(PATHS),
            },
            {"protoVer": "1.6.0"},
        ]

    def _signed_mutation(self) -> dict[str, Any]:
        chance = self.chance
        operation = self.mutator.value(chance.choice(self.operations), self.operations)
        try:
            transaction = self._transaction(operation)
        except (Refusal, RecursionError):
            transaction = self._transaction(
                {"type": "SET_VALUE", "ref": "/apps/fuzz/a", "value": chance.random()}
            )
            transaction["tx_body"]["operation"] = operation
        return transaction if chance.random() < 0.8 else {"tx_list": [transaction] * chance.choice((1, 2))}

    def _transaction(self, operation: dict[str, Any]) -> dict[str, Any]:
        body = {
            "nonce": -1,
            "timestamp": int(time.time() * 1000) + self.chance.randrange(-60_000, 60_000),
            "gas_price": 0,
        }
        wire = sign_transaction({**body, "operation": operation}, self.key, self.chain_id).to_json()
        return {"tx_body": wire["tx_body"], "signature": wire["signature"]}


class OwnDoorTarget(DoorTarget):
    """The door of a node of our own network."""

    paths = (
        ("GET", "/content/bafkqaaa"),
        ("GET", "/healthz"),
        ("GET", "/metrics"),
        ("GET", "/last_block_number"),
        ("PUT", "/content/bafkqaaa"),
        ("GET", "/nothing"),
    )
    service: NodeService

    async def start(self) -> None:
        """Opens a network in a folder of its own."""
        self.service = NodeService(self.folder / "home", network="local", port=0)
        await self.service.start()
        engine = self.service.engine
        door = Door(engine, ContentStore(self.folder / "content"), "0", None)
        self.open(door)
        self.chain_id = engine.machine.network.chain_id
        self.fill()

    async def stop(self) -> None:
        """Closes it."""
        await self.service.stop()


class AinDoorTarget(DoorTarget):
    """The door of a node that stands where AI Network's node stood."""

    paths = tuple(
        (verb, path)
        for verb in ("GET", "POST")
        for path in (
            "/get_value",
            "/match_rule",
            "/eval_rule",
            "/get_proof_hash",
            "/set_value",
            "/set_rule",
            "/set",
            "/batch",
            "/inc_value",
            "/get_transaction",
            "/blocks",
            "/tx_pool",
            "/get_state_info",
            "/sync",
            "/nothing",
        )
    )
    node: AinNode

    async def start(self) -> None:
        """Opens a network of one in a folder of its own."""
        accounts = json.loads((VECTORS / "genesis" / "test_accounts.json").read_text())["others"]
        port, p2p_port, event_port = free_ports(3)
        given = {
            "BLOCKCHAIN_DATA_DIR": str(self.folder / "data"),
            "CONSOLE_LOG": "false",
            "ENABLE_EVENT_HANDLER": "true",
            "ENABLE_EXPRESS_RATE_LIMIT": "false",
            "ENABLE_STATUS_REPORT_TO_TRACKER": "false",
            "EVENT_HANDLER_PORT": str(event_port),
            "P2P_PORT": str(p2p_port),
            "PORT": str(port),
            "UNSAFE_PRIVATE_KEY": accounts[0]["private_key"],
            "PEER_CANDIDATE_JSON_RPC_URL": f"http://127.0.0.1:{port}/json-rpc",
            "BLOCKCHAIN_CONFIGS_DIR": "blockchain-configs/1-node",
        }
        self.key = private_key_from_hex(accounts[1]["private_key"])
        self.node = AinNode(AinSettings.from_environment(given, self.folder))
        await self.node.start()
        door = AinDoor(self.node)
        self.open(door)
        self.chain_id = self.node.chain_id()
        self.fill()

    async def stop(self) -> None:
        """Closes it."""
        await self.node.stop()


def written(body: Any) -> bytes:
    """JSON bytes, also of what JSON in UTF-8 cannot hold."""
    try:
        return js_json(body).encode("utf-8", "surrogatepass")
    except (Refusal, RecursionError, OverflowError):
        # Deeper than anybody writes: what matters is that somebody may send it.
        return b'[{"a":' * 3_000


def _check(status: int, answer: bytes) -> None:
    if status >= 500 and status != 503:
        raise Failed(f"status {status}: {answer[:300]!r}")
    if b"-32603" in answer and _has_internal_error(answer):
        raise Failed(answer[:300].decode())


def _has_internal_error(answer: bytes) -> bool:
    with contextlib.suppress(ValueError):
        told = json.loads(answer)
        return any(
            isinstance(one, dict)
            and isinstance(one.get("error"), dict)
            and one["error"].get("code") == INTERNAL_ERROR
            for one in (told if isinstance(told, list) else [told])
        )
    return False
