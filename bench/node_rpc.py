"""How much a node takes over JSON-RPC: writes and transfers in batches of 50, reads, and how soon things are seen.

Run `python bench/node_rpc.py --url URL [--url URL] [--json]`: any node that speaks AI Network's JSON-RPC, several in one
run one after the other; the last one is what the others are compared with. An account pays: it makes an app that anybody
may write, and gives some AIN to the accounts that send. Its key is given with `--key`, once for all nodes or once for
each; without it the accounts of AI Network's local networks are tried, whose keys everybody has, and the key of the
money of a local network of ours on this machine. Where none of them has money, reads alone are measured.
`--own` and `--ain` start a node of ours, of either kind, in a folder of its own.

Requests are signed and written out before the clock starts, and sent by one process over connections that stay open,
so that the node is what is measured. Accepted: what a burst takes up to its last answer. Final: while more is sent than
becomes final, from one block that holds some of it to a later one, so that the length of an epoch makes no difference.
A node takes no more than three minutes.
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
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "bench")]

from rpc_node import ACCEPTED_CODE, POLL_SECONDS, SENDERS, Lane, Node, Unmeasured, Watch  # noqa: E402

from openresource.primitives.errors import Refusal  # noqa: E402
from openresource.primitives.keys import PrivateKey, private_key_from_hex  # noqa: E402

BATCH = 50
SUBMIT_CONNECTIONS = 4
READ_CONNECTIONS = 16
NODE_SECONDS_MAX = 170.0
START_SECONDS_MAX = 60.0
FINAL_SECONDS_MAX = 30.0
DRAIN_SECONDS_MAX = 30.0
BURST_SECONDS = 1.5
BURST_BATCHES_MIN = 20
BURST_BATCHES_MAX = 200
PROBE_BATCHES = 4
# Each transfer leaves a record for good; a local chain of AI Network holds 10 MB of them and then nothing more, not even
# votes for its blocks.
BATCHES_MAX = {"set": 1_600, "transfer": 240}
# What is accepted and not final yet stays below this, so that blocks are always full and the end is never far.
WAITING_MIN = 2_000
WAITING_SECONDS = 8
FINALS = 5
# The pool is full, for everybody or for one account; the batch comes again later.
FULL_CODES = (10704, 10705)
FULL_SECONDS = 0.02


class Load:
    """Batches that are sent as fast as they are taken, until some moment or while too little of them is final."""

    def __init__(self, node: Node, watch: Watch) -> None:
        self.node = node
        self.watch = watch
        self.accepted = 0
        self.refused = 0
        self.codes: dict[int, int] = {}

    def send(
        self, requests: list[bytes], until: float, batches_min: int, *, waits: bool
    ) -> tuple[int, float]:
        """Sends some of the requests, which are used up: how many were accepted, in how many seconds."""
        lanes = [Lane(self.node.address) for _ in range(SUBMIT_CONNECTIONS)]
        before, started, sent = self.accepted, time.monotonic(), 0
        ended = started
        free, again, busy = list(lanes), list[bytes](), dict[Lane, bytes]()
        with selectors.DefaultSelector() as selector:
            for lane in lanes:
                selector.register(lane.socket, selectors.EVENT_READ, lane)
            while True:
                is_over = time.monotonic() >= until and sent >= batches_min
                while free and (again or requests) and not is_over:
                    if waits and self.accepted - self.watch.count > self._waiting_max():
                        break
                    lane = free.pop()
                    busy[lane] = again.pop() if again else requests.pop()
                    lane.ask(0, busy[lane])
                    sent += 1
                if not busy and (is_over or not (again or requests)):
                    break
                for ready, _ in selector.select(0.01):
                    lane = ready.data
                    body = lane.answer()
                    if body is None:
                        continue
                    request = busy.pop(lane)
                    free.append(lane)
                    ended = time.monotonic()
                    if not self._take(body):
                        sent -= 1
                        again.append(request)
                        time.sleep(FULL_SECONDS)
                # A node that stays full, or makes no blocks, is not waited for.
                if time.monotonic() > until + DRAIN_SECONDS_MAX:
                    break
        for lane in lanes:
            lane.socket.close()
        return self.accepted - before, ended - started

    def _waiting_max(self) -> float:
        return WAITING_MIN + WAITING_SECONDS * (self.watch.rate() or 0.0)

    def _take(self, body: bytes) -> bool:
        """Counts what became of a batch; False if it has to come again."""
        results = json.loads(body)["result"].get("result")
        if not isinstance(results, list):
            raise Unmeasured(f"a batch is refused: {body[:300]!r}")
        found = [one["result"]["code"] for one in results]
        if found[-1] in FULL_CODES:
            self.accepted += found.count(ACCEPTED_CODE)
            return False
        for code in found:
            if code == ACCEPTED_CODE:
                self.accepted += 1
            else:
                self.refused += 1
                self.codes[code] = self.codes.get(code, 0) + 1
        return True


class Measure:
    """All figures of one node."""

    def __init__(self, node: Node, seconds: float, read_seconds: float, singles: int) -> None:
        self.node = node
        self.seconds = seconds
        self.read_seconds = read_seconds
        self.singles = singles
        self._deadline = time.monotonic() + NODE_SECONDS_MAX

    def run(self, payer: PrivateKey | None) -> dict[str, Any]:
        """Everything; without somebody who pays only the reads."""
        row: dict[str, Any] = {"url": self.node.url}
        if payer is None:
            row["unmeasured"] = (
                "no known account has AIN here, so nothing is written: name one that has with --key"
            )
            return {**row, **self.reads(is_written=False)}
        self.node.prepare(payer, FINAL_SECONDS_MAX)
        # How soon a single write is seen is asked before others wait in front of it.
        latencies = self.latencies()
        for kind in ("set", "transfer"):
            row[kind] = self.writes(kind)
        return {**row, **self.reads(is_written=True), **latencies}

    # Writes

    def batches(self, kind: str, count: int) -> list[bytes]:
        """Requests of 50 transactions each."""
        requests: list[bytes] = []
        for batch in range(count):
            tx_list: list[dict[str, Any]] = []
            for number in range(BATCH):
                at = batch * BATCH + number
                sender = self.node.senders[at % SENDERS]
                wire = self.node.signed(sender, self.operation(kind, sender, at))
                tx_list.append({"tx_body": wire["tx_body"], "signature": wire["signature"]})
            requests.append(self.node.request("ain_sendSignedTransactionBatch", {"tx_list": tx_list}))
        return requests

    def operation(self, kind: str, sender: PrivateKey, at: int) -> dict[str, Any]:
        """One write of the app, or one transfer to the next sender."""
        if kind == "set":
            return {"type": "SET_VALUE", "ref": f"/apps/{self.node.app}/d/{at % 50}/x", "value": at}
        target = self.node.senders[(at + 1) % SENDERS].address
        path = f"/transfer/{sender.address}/{target}/{secrets.token_hex(6)}/value"
        return {"type": "SET_VALUE", "ref": path, "value": 0.001}

    def writes(self, kind: str) -> dict[str, float]:
        """A burst, then as much as becomes final."""
        with Watch(self.node) as watch:
            load = Load(self.node, watch)
            begun = time.monotonic()
            probed, took = load.send(
                self.batches(kind, PROBE_BATCHES), time.monotonic(), PROBE_BATCHES, waits=False
            )
            if not probed:
                raise Unmeasured(f"no {kind} is accepted, but refused with {load.codes}")
            per_second = probed / took
            burst = min(BURST_BATCHES_MAX, max(BURST_BATCHES_MIN, int(BURST_SECONDS * per_second / BATCH)))
            rest = min(
                BATCHES_MAX[kind] - burst, int(self.seconds * per_second * 1.5 / BATCH) + BURST_BATCHES_MIN
            )
            requests = self.batches(kind, burst + rest)
            used, started = self.node.cpu_seconds(), load.accepted
            accepted, burst_took = load.send(requests[:burst], time.monotonic(), burst, waits=False)
            del requests[:burst]
            until = min(time.monotonic() + self.seconds, self._deadline)
            load.send(requests, until, 0, waits=True)
            used = self.node.cpu_seconds() - used
            drained = min(time.monotonic() + DRAIN_SECONDS_MAX, self._deadline)
            while watch.count < load.accepted and time.monotonic() < drained and watch.failure is None:
                time.sleep(0.02)
        if watch.failure is not None:
            raise Unmeasured(f"blocks cannot be read: {watch.failure}")
        # Too few blocks say little of the time between them; then everything from the first request on counts.
        rate = watch.rate()
        if rate is None and not watch.count:
            raise Unmeasured(f"none of {load.accepted} {kind} became final")
        row: dict[str, float] = {
            "accepted": load.accepted,
            "refused": load.refused,
            "final": watch.count,
            "accepted_per_second": accepted / burst_took,
            "final_per_second": rate or watch.count / (watch.seen[-1][0] - begun),
            "blocks": sum(1 for _, count in watch.seen if count),
        }
        if self.node.pid:
            row["node_cpu_us"] = used / max(1, load.accepted - started) * 1e6
        return row | {f"code_{code}": float(number) for code, number in load.codes.items()}

    # Reads and times

    def reads(self, is_written: bool) -> dict[str, float]:
        """Values read per second: those that were written, or balances; and what one costs the node and this process."""
        node = self.node
        if is_written:
            refs = [f"/apps/{node.app}/d/{number}/x" for number in range(BATCH)]
            requests = [node.request("ain_get", {"type": "GET_VALUE", "ref": ref}) for ref in refs]
        else:
            requests = [node.request("ain_getBalance", {"address": one.address}) for one in node.senders]
        lanes = [Lane(node.address) for _ in range(READ_CONNECTIONS)]
        count = 0
        with selectors.DefaultSelector() as selector:
            for lane in lanes:
                # With a timeout every call would ask first whether the socket is ready, which the selector has said.
                lane.socket.setblocking(False)
                selector.register(lane.socket, selectors.EVENT_READ, lane)
                lane.ask(0, requests[0])
            used, node_used = time.process_time(), node.cpu_seconds()
            started = time.monotonic()
            while time.monotonic() - started < self.read_seconds:
                for ready, _ in selector.select(1.0):
                    lane = ready.data
                    if lane.answer() is not None:
                        count += 1
                        lane.ask(0, requests[count % len(requests)])
            took = time.monotonic() - started
            used, node_used = time.process_time() - used, node.cpu_seconds() - node_used
        for lane in lanes:
            lane.socket.close()
        found = {"reads_per_second": count / took, "read_bench_cpu_us": used / max(1, count) * 1e6}
        return {**found, "read_node_cpu_us": node_used / max(1, count) * 1e6} if node.pid else found

    def latencies(self) -> dict[str, float]:
        """From submitting to seeing the value, and to the final block; milliseconds."""
        visible: list[float] = []
        final: list[float] = []
        node = self.node
        path = f"/apps/{node.app}/seen"
        for number in range(self.singles):
            if time.monotonic() > self._deadline and visible and final:
                break
            wire = node.signed(node.senders[0], {"type": "SET_VALUE", "ref": path, "value": number})
            tx_hash = wire.pop("hash")
            started = time.perf_counter()
            answer = node.call("ain_sendSignedTransaction", wire)
            if answer["result"]["code"] != ACCEPTED_CODE:
                raise Unmeasured(f"a write is refused: {str(answer)[:300]}")
            while node.call("ain_get", {"type": "GET_VALUE", "ref": path}) != number:
                if time.perf_counter() - started > FINAL_SECONDS_MAX:
                    raise Unmeasured("a write that was sent is not seen")
                time.sleep(POLL_SECONDS / 4)
            visible.append((time.perf_counter() - started) * 1000)
            if number % max(1, self.singles // FINALS) == 0:
                node.wait_final(tx_hash, FINAL_SECONDS_MAX)
                final.append((time.perf_counter() - started) * 1000)
        return {
            "visible_p50_ms": statistics.median(visible),
            "visible_p95_ms": _p95(visible),
            "final_p50_ms": statistics.median(final),
            "final_p95_ms": _p95(final),
        }


def _p95(values: list[float]) -> float:
    return sorted(values)[min(len(values) - 1, int(len(values) * 0.95))]


def ratios(row: dict[str, Any], base: dict[str, Any]) -> dict[str, float]:
    """How many times as much one node does as another; what one of them lacks is left out."""
    found: dict[str, float] = {}
    for kind in ("set", "transfer"):
        for name in ("accepted_per_second", "final_per_second"):
            one, other = row.get(kind, {}).get(name), base.get(kind, {}).get(name)
            if one and other:
                found[f"{kind}_{name}"] = one / other
    # Reads of a value and of a balance are not the same.
    if row.get("reads_per_second") and base.get("reads_per_second") and ("set" in row) == ("set" in base):
        found["reads_per_second"] = row["reads_per_second"] / base["reads_per_second"]
    for name in ("visible_p50_ms", "final_p50_ms"):
        if row.get(name) and base.get(name):
            found[name] = row[name] / base[name]
    return found


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


def main() -> int:
    """Every node that is named, one after the other."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--url", action="append", default=[], help="a node; may be given several times")
    parser.add_argument(
        "--key",
        action="append",
        default=[],
        help="the key of an account with AIN, in hex: one for all nodes or one for each --url; without it known "
        "accounts are tried",
    )
    parser.add_argument("--own", action="store_true", help="start and measure a node of our own network")
    parser.add_argument("--ain", action="store_true", help="start and measure a node in AI Network's place")
    parser.add_argument(
        "--seconds", type=float, default=12.0, help="how long writes of each kind are sent (default: 12)"
    )
    parser.add_argument("--read-seconds", type=float, default=3.0)
    parser.add_argument(
        "--singles",
        type=int,
        default=100,
        help="transactions whose times are taken one by one (default: 100)",
    )
    parser.add_argument(
        "--json", action="store_true", help="print one JSON object: nodes, and ratios to the last"
    )
    arguments = parser.parse_args()
    keys: list[str | None] = [*arguments.key]
    if len(keys) < 2:
        keys = [keys[0] if keys else None] * len(arguments.url)
    if len(arguments.url) != len(keys):
        parser.error("give --key once for all nodes, once for each --url, or not at all")
    rows: dict[str, dict[str, Any]] = {}
    with contextlib.ExitStack() as stack:
        named = [(url, url, key, 0) for url, key in zip(arguments.url, keys, strict=True)]
        if arguments.ain:
            named.insert(0, ("ain", *stack.enter_context(ain_node())))
        if arguments.own:
            named.insert(0, ("own", *stack.enter_context(own_node())))
        if not named:
            parser.error("name a node with --url, or --own, or --ain")
        for name, url, key, pid in named:
            rows[name] = {"url": url}
            try:
                node = Node(name, url, pid)
                given = None if key is None else private_key_from_hex(key)
                measure = Measure(node, arguments.seconds, arguments.read_seconds, arguments.singles)
                rows[name] = measure.run(node.payer(given))
                if pid:
                    rows[name]["kernel"] = kernel()
            except (Unmeasured, OSError, Refusal) as error:
                rows[name]["error"] = str(error) or type(error).__name__
    *others, last = rows
    compared = {name: ratios(rows[name], rows[last]) for name in others}
    if arguments.json:
        print(json.dumps({"nodes": rows, "against": last, "ratios": compared}))
    else:
        for name, row in rows.items():
            print(f"{name}: {described(row)}")
        for name, found in compared.items():
            print(
                f"{name} against {last}: "
                + ", ".join(f"{what} {ratio:.2f}x" for what, ratio in found.items())
            )
    return 1 if any("error" in row for row in rows.values()) else 0


def kernel() -> str:
    """What a node that was started here runs: the sources and the Python are those of this process."""
    from openresource.ledger import tree

    return "plain" if str(tree.__file__).endswith(".py") else "compiled"


def described(row: dict[str, Any]) -> str:
    """A node's figures in a line."""
    if "error" in row:
        return f"not measured: {row['error']}"
    if "unmeasured" in row:
        return f"balances {row['reads_per_second']:,.0f} read per s; {row['unmeasured']}"
    return (
        f"SET {row['set']['accepted_per_second']:,.0f} accepted, {row['set']['final_per_second']:,.0f} final "
        f"per s; transfers {row['transfer']['accepted_per_second']:,.0f}, {row['transfer']['final_per_second']:,.0f}; "
        f"reads {row['reads_per_second']:,.0f} per s; visible {row['visible_p50_ms']:.1f} ms "
        f"(p95 {row['visible_p95_ms']:.1f}), final {row['final_p50_ms']:.0f} ms (p95 {row['final_p95_ms']:.0f})"
        + (f"; kernel {row['kernel']}" if "kernel" in row else "")
    )


if __name__ == "__main__":
    sys.exit(main())
