"""What an AI Network door needs behind it, at the genesis of a local network: no sockets, no epochs, a clock to move."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from openresource.ledger.transactions import Transaction
from openresource.node.ain.archive import MemoryArchive
from openresource.node.ain.chain import NODE_STATES, SERVING, AinChain
from openresource.node.ain.door import AinDoor
from openresource.node.ain.parameters import NodeParameters
from openresource.node.ain.settings import AinSettings
from openresource.node.ain.traffic import Traffic
from openresource.node.connections import Answer, Head
from openresource.node.signers import Signers
from openresource.primitives.keys import PrivateKey
from tests.vectors_support import load_vectors

NOW_MS = 1_800_000_000_000


def account(index: int) -> PrivateKey:
    """A key of the local networks that everybody knows."""
    text = load_vectors("ain/genesis/test_accounts.json")["others"][index]["private_key"]
    return PrivateKey(bytes.fromhex(text))


@dataclass(slots=True)
class Heard:
    """An answer of the door."""

    status: int
    headers: dict[str, str]
    body: bytes
    is_by_lane: bool = False

    @property
    def json(self) -> Any:
        return json.loads(self.body)


class StillNode:
    """A node that stands still."""

    def __init__(self, environment: Mapping[str, str] | None = None, *, is_begun: bool = True) -> None:
        account_key = {"UNSAFE_PRIVATE_KEY": account(0).to_bytes().hex()}
        chosen = account_key if is_begun else {"ACCOUNT_INJECTION_OPTION": "private_key"}
        given = {"BLOCKCHAIN_CONFIGS_DIR": "1-node", **chosen, **(environment or {})}
        settings = AinSettings.from_environment(given)
        self.parameters: NodeParameters = settings.parameters
        self.timer_flags = settings.timer_flags
        self.traffic = Traffic()
        self.signers = Signers()
        self.key: PrivateKey | None = settings.key
        self.events = None
        self.clock_ms = NOW_MS
        self.broadcast: list[Any] = []
        self.chain = AinChain(
            settings.network, settings.genesis, MemoryArchive(), limits=settings.pool_limits
        )
        self.chain.node_state = SERVING if is_begun else NODE_STATES[0]
        self.door = AinDoor(self)

    def now_ms(self) -> int:
        return self.clock_ms

    def submit(self, transaction: Transaction, *, is_dry_run: bool = False) -> dict[str, Any]:
        return self.chain.submit(transaction, self.clock_ms, is_dry_run=is_dry_run)

    def consensus_status(self) -> dict[str, Any]:
        return {"health": True, "state": "RUNNING"}

    def raw_consensus_status(self) -> dict[str, Any]:
        return {"consensus": {"state": "RUNNING"}}

    def broadcast_consensus(self, message: Any) -> None:
        self.broadcast.append(message)

    def network_status(self) -> dict[str, Any]:
        return {"urls": {}, "connectionStatus": {"numInbound": 0}}

    def peer_urls(self) -> dict[str, str]:
        return {}

    def inject(self, key: PrivateKey) -> bool:
        self.key = key
        return True

    # Questions.

    def ask(
        self,
        verb: str,
        target: str,
        body: bytes | None = None,
        *,
        headers: Mapping[str, str] | None = None,
        caller: str = "127.0.0.1",
        without_lanes: bool = False,
    ) -> Heard:
        """One request, answered at once if there is a lane for it, as a server does it."""
        path, _, query = target.partition("?")
        given = {name.lower(): text for name, text in (headers or {}).items()}
        if body is not None:
            given.setdefault("content-type", "application/json")
            given.setdefault("content-length", str(len(body)))
        raw = {name.encode(): text.encode() for name, text in given.items()}
        lane = None if without_lanes else self.door.lane(Head(verb, path, query.encode(), raw))
        answered = None if lane is None else lane(body or b"", caller)
        if answered is not None:
            return _heard(answered)
        scope = {
            "type": "http",
            "method": verb,
            "path": path,
            "query_string": query.encode(),
            "headers": list(raw.items()),
            "client": (caller, 50_000),
        }
        sent: list[dict[str, Any]] = []

        async def receive() -> dict[str, Any]:
            return {"type": "http.request", "body": body or b"", "more_body": False}

        async def send(message: Any) -> None:
            sent.append(message)

        asyncio.run(self.door.application(scope, receive, send))
        told = {name.decode(): text.decode() for name, text in sent[0]["headers"]}
        return Heard(sent[0]["status"], told, sent[1].get("body", b""))

    def call(self, method: str, caller: str = "127.0.0.1", **params: Any) -> Any:
        """What a method answers, with its code and message."""
        heard = self.rpc(method, caller, **params)
        assert heard.status == 200, heard
        return heard.json.get("result", heard.json)

    def rpc(self, method: str, caller: str = "127.0.0.1", **params: Any) -> Heard:
        """The whole answer of a method."""
        body = {"jsonrpc": "2.0", "method": method, "params": {**params, "protoVer": "1.0.0"}, "id": 1}
        return self.ask("POST", "/json-rpc", json.dumps(body).encode(), caller=caller)


def _heard(answer: Answer) -> Heard:
    head, body = answer
    status, *lines = head.decode().rstrip("\r\n").split("\r\n")
    headers = dict(line.split(": ", 1) for line in lines)
    return Heard(int(status.split(" ")[1]), headers, body, is_by_lane=True)
