"""How much a node takes over JSON-RPC: writes and transfers in batches of 50, reads, and how soon things are seen.

Run `python bench/node_rpc.py --url URL --key HEX [--url URL --key HEX] [--json]`: any node that speaks AI Network's
JSON-RPC, several in one run one after the other; the last one is what the others are compared with. The key's account
pays: it makes an app that anybody may write, and gives some AIN to the accounts that send. `--own` and `--ain` start a
node of ours, of either kind, in a folder of its own.

Requests are signed and written out before the clock starts, and sent by one process over connections that stay open,
so that the node is what is measured. Accepted: up to the last answer. Final: until the last one stands in a final block.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import secrets
import selectors
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from openresource.primitives.encoding import canonical_json_bytes  # noqa: E402
from openresource.primitives.keys import PrivateKey, generate_key, private_key_from_hex  # noqa: E402

BATCH = 50
SENDERS = 20
GIFT_AIN = 100
APP_STAKE_AIN = 1
SUBMIT_CONNECTIONS = 4
READ_CONNECTIONS = 16
FINAL_SECONDS_MAX = 120.0
START_SECONDS_MAX = 60.0
POLL_SECONDS = 0.001
ACCEPTED_CODE = 0
# The pool is full, for everybody or for one account; the batch comes again later.
FULL_CODES = (10704, 10705)
FULL_SECONDS = 0.02
RETRIES_MAX = 2_000


class Lane:
    """One open connection and what it is about to do."""

    def __init__(self, address: tuple[str, int]) -> None:
        self.socket = socket.create_connection(address, timeout=60)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.received = bytearray()
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
        self.received += data
        head, mark, body = bytes(self.received).partition(b"\r\n\r\n")
        if not mark:
            return None
        lower = head.lower()
        at = lower.index(b"content-length:") + len(b"content-length:")
        size = int(lower[at:].partition(b"\r\n")[0])
        if len(body) < size:
            return None
        self.received.clear()
        return body[:size]


class Node:
    """One node under test."""

    def __init__(self, name: str, url: str, key: PrivateKey, pid: int = 0) -> None:
        """`pid` is the node's process if it runs here; then its CPU time is told, which others' load leaves alone."""
        parts = urllib.parse.urlsplit(url)
        assert parts.hostname is not None, f"{url} names no host"
        self.name = name
        self.url = url
        self.address = (parts.hostname, parts.port or 80)
        self.path = "/json-rpc" if parts.path in ("", "/") else parts.path
        self.key = key
        self.pid = pid
        self.lane = Lane(self.address)
        self.chain_id: int = self.call("net_getChainId")
        self.app = f"bench_{secrets.token_hex(4)}"
        self.senders = [generate_key(secrets.token_bytes(32)) for _ in range(SENDERS)]
        self._last_ms = 0

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

    def call(self, method: str, params: dict[str, Any] | None = None) -> Any:
        """The value of one method."""
        self.lane.ask(0, self.request(method, params or {}))
        body = None
        while body is None:
            body = self.lane.answer()
        told = json.loads(body)
        if "result" not in told:
            raise SystemExit(f"{self.name} does not answer {method}: {body[:500]!r}")
        return told["result"].get("result")

    def signed(self, key: PrivateKey, operation: dict[str, Any], gas_price: int = 1) -> dict[str, Any]:
        """A signed transaction; no two have the same time."""
        from openresource.ledger.transactions import sign_transaction

        self._last_ms = max(self._last_ms + 1, int(time.time() * 1000) - 60_000)
        body = {"operation": operation, "nonce": -1, "timestamp": self._last_ms, "gas_price": gas_price}
        made = sign_transaction(body, key, self.chain_id)
        return {"tx_body": made.body, "signature": made.signature, "hash": made.hash}

    def submit(self, key: PrivateKey, operation: dict[str, Any]) -> str:
        """One transaction, executed; its hash."""
        wire = self.signed(key, operation)
        tx_hash: str = wire.pop("hash")
        told = self.call("ain_sendSignedTransaction", wire)
        code = told["result"]["code"] if isinstance(told, dict) and "result" in told else told
        if code != ACCEPTED_CODE:
            raise SystemExit(f"{self.name} refused {operation['ref']}: {json.dumps(told)[:500]}")
        return tx_hash

    def cpu_seconds(self) -> float:
        """What the node's process has used so far; 0 for one that is elsewhere."""
        if not self.pid:
            return 0.0
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def is_final(self, tx_hash: str) -> bool:
        """Whether a transaction stands in a final block."""
        told = self.call("ain_getTransactionByHash", {"hash": tx_hash})
        return isinstance(told, dict) and (
            told.get("state") == "FINALIZED" or told.get("is_finalized") is True
        )

    def wait_final(self, tx_hash: str, poll_seconds: float = POLL_SECONDS) -> None:
        """Returns when it does."""
        deadline = time.monotonic() + FINAL_SECONDS_MAX
        while not self.is_final(tx_hash):
            if time.monotonic() > deadline:
                raise SystemExit(f"{self.name}: {tx_hash} did not become final in {FINAL_SECONDS_MAX:.0f} s")
            time.sleep(poll_seconds)

    def prepare(self) -> None:
        """An app for everybody, and money for those who send."""
        admin = {self.key.address: True}
        app = {"admin": admin, "is_public": True}
        self.submit(self.key, {"type": "SET_VALUE", "ref": f"/manage_app/{self.app}/create/1", "value": app})
        # On AI Network apps without a stake share a free tier of 500 writes per block, however fast a node is. Our own
        # network knows no stakes for apps, and refuses.
        stake = f"/staking/{self.app}/{self.key.address}/0/stake/1/value"
        wire = self.signed(self.key, {"type": "SET_VALUE", "ref": stake, "value": APP_STAKE_AIN})
        self.call("ain_sendSignedTransaction", {name: wire[name] for name in ("tx_body", "signature")})
        last = ""
        for number, sender in enumerate(self.senders):
            path = f"/transfer/{self.key.address}/{sender.address}/{number}/value"
            last = self.submit(self.key, {"type": "SET_VALUE", "ref": path, "value": GIFT_AIN})
        self.wait_final(last, 0.02)

    # Measures

    def batches(self, kind: str, count: int) -> tuple[list[bytes], list[str]]:
        """Requests of 50 transactions each, and the hash of the last one of each."""
        requests: list[bytes] = []
        hashes: list[str] = []
        for batch in range(count):
            wires: list[dict[str, Any]] = []
            for number in range(BATCH):
                at = batch * BATCH + number
                sender = self.senders[at % SENDERS]
                wires.append(self.signed(sender, self.operation(kind, sender, at)))
            hashes.append(wires[-1]["hash"])
            tx_list = [{"tx_body": wire["tx_body"], "signature": wire["signature"]} for wire in wires]
            requests.append(self.request("ain_sendSignedTransactionBatch", {"tx_list": tx_list}))
        return requests, hashes

    def operation(self, kind: str, sender: PrivateKey, at: int) -> dict[str, Any]:
        """One write of the app, or one transfer to the next sender."""
        if kind == "set":
            return {"type": "SET_VALUE", "ref": f"/apps/{self.app}/d/{at % 50}/x", "value": at}
        target = self.senders[(at + 1) % SENDERS].address
        path = f"/transfer/{sender.address}/{target}/{secrets.token_hex(6)}/value"
        return {"type": "SET_VALUE", "ref": path, "value": 0.001}

    def writes(self, kind: str, count: int) -> dict[str, float]:
        """Batches as fast as they are taken."""
        requests, hashes = self.batches(kind, count)
        accepted = refused = 0
        codes: dict[int, int] = {}

        def count_answer(index: int, body: bytes) -> bool:
            nonlocal accepted, refused
            results = json.loads(body)["result"].get("result")
            if not isinstance(results, list):
                raise SystemExit(f"{self.name} refused a batch: {body[:500]!r}")
            found = [one["result"]["code"] for one in results]
            if found[-1] in FULL_CODES:
                return False
            accepted += found.count(ACCEPTED_CODE)
            for code in found:
                if code != ACCEPTED_CODE:
                    refused += 1
                    codes[code] = codes.get(code, 0) + 1
            return True

        used, started = self.cpu_seconds(), time.monotonic()
        self.run(requests, SUBMIT_CONNECTIONS, count_answer)
        answered = time.monotonic()
        for tx_hash in reversed(hashes):
            self.wait_final(tx_hash)
        ended = time.monotonic()
        row: dict[str, float] = {
            "accepted": accepted,
            "refused": refused,
            "accepted_per_second": accepted / (answered - started),
            "final_per_second": accepted / (ended - started),
        }
        if self.pid:
            row["node_cpu_us"] = (self.cpu_seconds() - used) / max(1, accepted) * 1e6
        return row | {f"code_{code}": float(number) for code, number in codes.items()}

    def reads(self, seconds: float) -> float:
        """Values read per second."""
        request = self.request("ain_get", {"type": "GET_VALUE", "ref": f"/apps/{self.app}/d/0/x"})
        lanes = [Lane(self.address) for _ in range(READ_CONNECTIONS)]
        count = 0
        with selectors.DefaultSelector() as selector:
            for lane in lanes:
                selector.register(lane.socket, selectors.EVENT_READ, lane)
                lane.ask(0, request)
            started = time.monotonic()
            while time.monotonic() - started < seconds:
                for ready, _ in selector.select(1.0):
                    lane = ready.data
                    if lane.answer() is not None:
                        count += 1
                        lane.ask(0, request)
            took = time.monotonic() - started
        for lane in lanes:
            lane.socket.close()
        return count / took

    def latencies(self, count: int) -> dict[str, float]:
        """From submitting to seeing the value, and to the final block; milliseconds."""
        visible: list[float] = []
        final: list[float] = []
        path = f"/apps/{self.app}/seen"
        for number in range(count):
            wire = self.signed(self.senders[0], {"type": "SET_VALUE", "ref": path, "value": number})
            tx_hash = wire.pop("hash")
            started = time.perf_counter()
            self.call("ain_sendSignedTransaction", wire)
            while self.call("ain_get", {"type": "GET_VALUE", "ref": path}) != number:
                time.sleep(POLL_SECONDS / 4)
            visible.append((time.perf_counter() - started) * 1000)
            if number % 10 == 0:
                self.wait_final(tx_hash)
                final.append((time.perf_counter() - started) * 1000)
        return {
            "visible_p50_ms": statistics.median(visible),
            "visible_p95_ms": _p95(visible),
            "final_p50_ms": statistics.median(final),
            "final_p95_ms": _p95(final),
        }

    def run(self, requests: Sequence[bytes], connections: int, take: Callable[[int, bytes], bool]) -> None:
        """All requests over some connections; those that `take` does not accept come again."""
        waiting = list(reversed(range(len(requests))))
        lanes = [Lane(self.address) for _ in range(min(connections, len(requests)))]
        busy = retries = 0
        with selectors.DefaultSelector() as selector:
            for lane in lanes:
                selector.register(lane.socket, selectors.EVENT_READ, lane)
                index = waiting.pop()
                lane.ask(index, requests[index])
                busy += 1
            while busy:
                for ready, _ in selector.select(60.0):
                    lane = ready.data
                    body = lane.answer()
                    if body is None:
                        continue
                    if not take(lane.index, body):
                        retries += 1
                        assert retries < RETRIES_MAX, f"{self.name} stays full"
                        waiting.append(lane.index)
                        time.sleep(FULL_SECONDS)
                    if waiting:
                        index = waiting.pop()
                        lane.ask(index, requests[index])
                    else:
                        busy -= 1
        for lane in lanes:
            lane.socket.close()

    def measure(self, batches: int, read_seconds: float, singles: int) -> dict[str, Any]:
        """Everything."""
        self.prepare()
        return {
            "url": self.url,
            "set": self.writes("set", batches),
            "transfer": self.writes("transfer", batches),
            "reads_per_second": self.reads(read_seconds),
            **self.latencies(singles),
        }


def _p95(values: list[float]) -> float:
    return sorted(values)[min(len(values) - 1, int(len(values) * 0.95))]


@contextlib.contextmanager
def own_node() -> Iterator[tuple[str, str, int]]:
    """A node of our own network: its URL and the key of its money."""
    with tempfile.TemporaryDirectory() as home:
        port = _free_port()
        command = [sys.executable, "-m", "openresource.node", "--home", home, "--port", str(port)]
        with _running(command, {}, home, port) as pid:
            record = json.loads((Path(home) / "node" / "funding.json").read_text())
            yield f"http://127.0.0.1:{port}", record["private_key"], pid


@contextlib.contextmanager
def ain_node() -> Iterator[tuple[str, str, int]]:
    """A node in AI Network's place, alone in its network."""
    accounts = json.loads((ROOT / "tests/vectors/ain/genesis/test_accounts.json").read_text())["others"]
    port, p2p_port, event_port = _free_port(), _free_port(), _free_port()
    given = {
        "BLOCKCHAIN_CONFIGS_DIR": "blockchain-configs/1-node",
        "CONSOLE_LOG": "false",
        "ENABLE_EXPRESS_RATE_LIMIT": "false",
        "ENABLE_STATUS_REPORT_TO_TRACKER": "false",
        "EVENT_HANDLER_PORT": str(event_port),
        "P2P_PORT": str(p2p_port),
        "PORT": str(port),
        "PEER_CANDIDATE_JSON_RPC_URL": f"http://127.0.0.1:{port}/json-rpc",
        "UNSAFE_PRIVATE_KEY": accounts[0]["private_key"],
        "TX_POOL_SIZE_LIMIT": "100000",
        "TX_POOL_SIZE_LIMIT_PER_ACCOUNT": "100000",
    }
    with tempfile.TemporaryDirectory() as folder:
        given["BLOCKCHAIN_DATA_DIR"] = str(Path(folder) / "data")
        openresource = str(Path(sys.executable).with_name("openresource"))
        with _running([openresource, "node", "start", "--ain-environment"], given, folder, port) as pid:
            yield f"http://127.0.0.1:{port}", accounts[1]["private_key"], pid


@contextlib.contextmanager
def _running(command: list[str], given: dict[str, str], folder: str, port: int) -> Iterator[int]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), **given}
    log = Path(folder) / "bench.log"
    with log.open("wb") as output:
        process = subprocess.Popen(command, env=environment, cwd=folder, stdout=output, stderr=output)
    try:
        deadline = time.monotonic() + START_SECONDS_MAX
        while not _answers(port):
            if process.poll() is not None or time.monotonic() > deadline:
                raise SystemExit(f"the node did not start: {log.read_text(errors='replace')[-2000:]}")
            time.sleep(0.05)
        yield process.pid
    finally:
        process.terminate()
        process.wait(30)


def _answers(port: int) -> bool:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/health_check", timeout=2) as told:
            return told.read().strip() in (b"true", b'"true"')
    except OSError:
        return False


def _free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port: int = one.getsockname()[1]
        return port


def main() -> None:
    """Every node that is named, one after the other."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--url", action="append", default=[], help="a node; may be given several times")
    parser.add_argument(
        "--key", action="append", default=[], help="the key of an account with AIN there, in hex"
    )
    parser.add_argument("--own", action="store_true", help="start and measure a node of our own network")
    parser.add_argument("--ain", action="store_true", help="start and measure a node in AI Network's place")
    parser.add_argument("--batches", type=int, default=100, help="batches of 50 of each kind (default: 100)")
    parser.add_argument("--read-seconds", type=float, default=3.0)
    parser.add_argument(
        "--singles", type=int, default=100, help="transactions whose times are taken one by one"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    arguments = parser.parse_args()
    if len(arguments.url) != len(arguments.key):
        parser.error("every --url needs its --key")
    rows: dict[str, dict[str, Any]] = {}
    with contextlib.ExitStack() as stack:
        named = [(url, url, key, 0) for url, key in zip(arguments.url, arguments.key, strict=True)]
        if arguments.ain:
            named.insert(0, ("ain", *stack.enter_context(ain_node())))
        if arguments.own:
            named.insert(0, ("own", *stack.enter_context(own_node())))
        if not named:
            parser.error("name a node with --url, or --own, or --ain")
        for name, url, key, pid in named:
            node = Node(name, url, private_key_from_hex(key), pid)
            rows[name] = node.measure(arguments.batches, arguments.read_seconds, arguments.singles)
    if arguments.json:
        print(json.dumps(rows))
        return
    for name, row in rows.items():
        print(
            f"{name}: SET {row['set']['accepted_per_second']:,.0f} accepted, {row['set']['final_per_second']:,.0f} final "
            f"per s; transfers {row['transfer']['accepted_per_second']:,.0f}, {row['transfer']['final_per_second']:,.0f}; "
            f"reads {row['reads_per_second']:,.0f} per s; visible {row['visible_p50_ms']:.1f} ms "
            f"(p95 {row['visible_p95_ms']:.1f}), final {row['final_p50_ms']:.0f} ms (p95 {row['final_p95_ms']:.0f})"
        )
    last = list(rows.values())[-1]
    for name, row in list(rows.items())[:-1]:
        ratios = [
            row[kind]["final_per_second"] / last[kind]["final_per_second"] for kind in ("set", "transfer")
        ]
        reads = row["reads_per_second"] / last["reads_per_second"]
        print(
            f"{name} against the last: SET {ratios[0]:.1f}x, transfers {ratios[1]:.1f}x, reads {reads:.1f}x"
        )


if __name__ == "__main__":
    main()
