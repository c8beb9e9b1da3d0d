"""A node under test, as a client sees it: connections, signed requests, its blocks, and who pays for the measure."""

from __future__ import annotations

import contextlib
import ipaddress
import json
import os
import secrets
import socket
import threading
import time
import urllib.parse
from pathlib import Path
from typing import Any

from openresource.ledger.transactions import sign_transaction
from openresource.node.ain.settings import local_genesis
from openresource.primitives.encoding import canonical_json_bytes
from openresource.primitives.errors import Refusal
from openresource.primitives.keys import PrivateKey, generate_key, private_key_from_hex

SENDERS = 20
GIFT_AIN = 100
APP_STAKE_AIN = 1
# What the paying account must have before a measure begins: its gifts, the stake, and fees.
NEEDED_AIN = SENDERS * GIFT_AIN + APP_STAKE_AIN + 100
POLL_SECONDS = 0.001
WATCH_SECONDS = 0.01
ACCEPTED_CODE = 0
ANSWER_SECONDS = 60
# Where `openresource node start` and `openresource up` keep the key of a local network's money.
FUNDING_FILES = ("~/.openresource/node/funding.json", "~/.openresource/local/node/funding.json")


class Unmeasured(Exception):
    """The node does not do what is to be measured; the message says what was asked and answered."""


class Lane:
    """One open connection and what it is about to do."""

    def __init__(self, address: tuple[str, int]) -> None:
        self.socket = socket.create_connection(address, timeout=ANSWER_SECONDS)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.received = b""
        self.index = -1

    def ask(self, index: int, request: bytes) -> None:
        """Sends a whole request."""
        self.index = index
        self.socket.sendall(request)

    def answer(self) -> bytes | None:
        """The body of the answer if it is whole."""
        data = self.socket.recv(262_144)
        if not data:
            raise ConnectionError("the node closed the connection")
        received = self.received + data if self.received else data
        self.received = received
        end = received.find(b"\r\n\r\n")
        if end < 0:
            return None
        lower = received[:end].lower()
        at = lower.find(b"content-length:")
        if at < 0:
            raise Unmeasured("the node answers without a content-length")
        size = int(lower[at + len(b"content-length:") :].partition(b"\r\n")[0])
        body = received[end + 4 : end + 4 + size]
        if len(body) < size:
            return None
        self.received = b""
        return body


class Node:
    """One node under test."""

    def __init__(self, name: str, url: str, pid: int = 0) -> None:
        """`pid` is the node's process if it runs here; then its CPU time is told, which others' load leaves alone."""
        parts = urllib.parse.urlsplit(url)
        if parts.scheme != "http" or parts.hostname is None:
            raise Unmeasured(f"{url} is no address of the form http://host:port")
        self.name = name
        self.url = url
        self.host = parts.hostname
        self.address = (parts.hostname, parts.port or 80)
        self.path = "/json-rpc" if parts.path in ("", "/") else parts.path
        self.pid = pid
        self.lane = Lane(self.address)
        self.chain_id: int = self.call("net_getChainId")
        self.app = f"bench_{secrets.token_hex(4)}"
        self.senders = [generate_key(secrets.token_bytes(32)) for _ in range(SENDERS)]
        self._last_ms: dict[str, int] = {}

    # Requests

    def request(self, method: str, params: dict[str, Any]) -> bytes:
        """A whole HTTP request."""
        body = canonical_json_bytes(
            {"jsonrpc": "2.0", "id": 1, "method": method, "params": {"protoVer": "1.6.0", **params}}
        )
        head = (
            f"POST {self.path} HTTP/1.1\r\nhost: {self.address[0]}:{self.address[1]}\r\n"
            f"content-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
        )
        return head.encode() + body

    def call(self, method: str, params: dict[str, Any] | None = None, lane: Lane | None = None) -> Any:
        """The value of one method."""
        line = lane or self.lane
        line.ask(0, self.request(method, params or {}))
        body = None
        while body is None:
            body = line.answer()
        try:
            told = json.loads(body)
        except ValueError:
            raise Unmeasured(f"{method} is answered with {body[:200]!r}") from None
        if not isinstance(told, dict) or not isinstance(told.get("result"), dict):
            raise Unmeasured(f"{method} is answered with {body[:200]!r}")
        return told["result"].get("result")

    def signed(self, key: PrivateKey, operation: dict[str, Any], gas_price: int = 1) -> dict[str, Any]:
        """A signed transaction; no two of one account have the same time."""
        now_ms = int(time.time() * 1000) - 30_000
        self._last_ms[key.address] = timestamp = max(self._last_ms.get(key.address, 0) + 1, now_ms)
        body = {"operation": operation, "nonce": -1, "timestamp": timestamp, "gas_price": gas_price}
        made = sign_transaction(body, key, self.chain_id)
        return {"tx_body": made.body, "signature": made.signature, "hash": made.hash}

    def submit(self, key: PrivateKey, operation: dict[str, Any]) -> str:
        """One transaction, executed; its hash."""
        wire = self.signed(key, operation)
        tx_hash: str = wire.pop("hash")
        told = self.call("ain_sendSignedTransaction", wire)
        code = told["result"]["code"] if isinstance(told, dict) and "result" in told else told
        if code != ACCEPTED_CODE:
            raise Unmeasured(f"{operation['ref']} is refused: {json.dumps(told)[:300]}")
        return tx_hash

    def cpu_seconds(self) -> float:
        """What the node's process has used so far; 0 for one that is elsewhere."""
        if not self.pid:
            return 0.0
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    # What has become final

    def is_final(self, tx_hash: str) -> bool:
        """Whether a transaction stands in a final block."""
        told = self.call("ain_getTransactionByHash", {"hash": tx_hash})
        return isinstance(told, dict) and (
            told.get("state") == "FINALIZED" or told.get("is_finalized") is True
        )

    def wait_final(self, tx_hash: str, seconds_max: float, poll_seconds: float = POLL_SECONDS) -> None:
        """Returns when it does."""
        deadline = time.monotonic() + seconds_max
        while not self.is_final(tx_hash):
            if time.monotonic() > deadline:
                raise Unmeasured(f"{tx_hash} did not become final in {seconds_max:.0f} s")
            time.sleep(poll_seconds)

    # Who pays

    def payer(self, given: PrivateKey | None) -> PrivateKey | None:
        """The account that pays: the given one, or one whose key everybody has and that has enough; None if none has."""
        if given is not None:
            return given
        for key in self._known_keys():
            with contextlib.suppress(Unmeasured):
                balance = self.call("ain_getBalance", {"address": key.address})
                if isinstance(balance, int | float) and balance >= NEEDED_AIN:
                    return key
        return None

    def _known_keys(self) -> list[PrivateKey]:
        # The first accounts run nodes themselves, whose own transactions the bench's would stand among.
        known = [one["private_key"] for one in reversed(local_genesis()["accounts"]["others"])]
        if _is_loopback(self.host):
            homes = [os.environ["OPENRESOURCE_HOME"]] if os.environ.get("OPENRESOURCE_HOME") else []
            for file in (*(f"{home}/node/funding.json" for home in homes), *FUNDING_FILES):
                with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
                    known.append(json.loads(Path(file).expanduser().read_text())["private_key"])
        keys: list[PrivateKey] = []
        for text in known:
            with contextlib.suppress(Refusal):
                keys.append(private_key_from_hex(text))
        return keys

    def prepare(self, payer: PrivateKey, seconds_max: float) -> None:
        """An app for everybody, and money for those who send."""
        admin = {payer.address: True}
        app = {"admin": admin, "is_public": True}
        self.submit(payer, {"type": "SET_VALUE", "ref": f"/manage_app/{self.app}/create/1", "value": app})
        # On AI Network apps without a stake share a free tier of 500 writes per block, however fast a node is. Our own
        # network knows no stakes for apps, and refuses.
        stake = f"/staking/{self.app}/{payer.address}/0/stake/1/value"
        wire = self.signed(payer, {"type": "SET_VALUE", "ref": stake, "value": APP_STAKE_AIN})
        self.call("ain_sendSignedTransaction", {name: wire[name] for name in ("tx_body", "signature")})
        last = ""
        for number, sender in enumerate(self.senders):
            path = f"/transfer/{payer.address}/{sender.address}/{number}/value"
            last = self.submit(payer, {"type": "SET_VALUE", "ref": path, "value": GIFT_AIN})
        self.wait_final(last, seconds_max, 0.02)


class Watch:
    """Sees blocks become final, beside other work: when, and how many transactions they hold."""

    def __init__(self, node: Node) -> None:
        self.seen: list[tuple[float, int]] = []
        self.count = 0
        self.failure: Exception | None = None
        self._node = node
        self._lane = Lane(node.address)
        self._last = int(node.call("ain_getLastBlockNumber", lane=self._lane))
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Watch:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._is_over.set()
        self._thread.join(ANSWER_SECONDS)
        self._lane.socket.close()

    def rate(self) -> float | None:
        """Transactions per second that become final while blocks hold some; None before there are enough blocks.

        Counted from the first block that holds some to the last but one: the first and the last hold what a part of
        an epoch brought, and when they became final says nothing of how long that took.
        """
        filled = [(at, count) for at, count in self.seen if count][:-1]
        if len(filled) < 3:
            return None
        first, last = filled[0][0], filled[-1][0]
        return sum(count for _, count in filled[1:]) / (last - first) if last > first else None

    def _run(self) -> None:
        try:
            while not self._is_over.is_set():
                number = int(self._node.call("ain_getLastBlockNumber", lane=self._lane))
                at = time.monotonic()
                count = sum(self._transactions(one) for one in range(self._last + 1, number + 1))
                if number > self._last:
                    self.seen.append((at, count))
                    self.count += count
                    self._last = number
                self._is_over.wait(WATCH_SECONDS)
        except (Unmeasured, OSError, TypeError, ValueError) as error:
            self.failure = error

    def _transactions(self, number: int) -> int:
        params = {"number": number}
        return int(self._node.call("ain_getBlockTransactionCountByNumber", params, lane=self._lane))


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
