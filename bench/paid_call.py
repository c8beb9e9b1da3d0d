"""What payment adds to a call: the program in its sandbox, then the same through the gateway, free and paid.

Run `python bench/paid_call.py [--json]`. One small Python program answers in every row. The gateway runs in a
process of its own, with real TLS and its journal synced in groups before each answer; the callers hold one connection
and one payment channel each, and sign their vouchers before the clock starts. The chain is asked once per channel, so
a small store in memory stands for it here.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import contextlib
import datetime
import json
import os
import ssl
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from openresource.ledger.draft import NetworkDomain  # noqa: E402
from openresource.market.channels import Terms, channel_record, open_channel  # noqa: E402
from openresource.market.manifests import Manifest, Method, Resources, Run  # noqa: E402
from openresource.market.receipts import next_receipts_hash  # noqa: E402
from openresource.market.vouchers import (  # noqa: E402
    NO_RECEIPTS,
    Voucher,
    session_hash,
    sign_voucher,
    voucher_to_json,
)
from openresource.primitives.keys import generate_key  # noqa: E402

NETWORK = NetworkDomain(chain_id=100, genesis_hash="0x" + "ab" * 32)
PROGRAM = "bafybeigdyrzt5sfp7udm7hu76uh7y26nf3efuylqabf3oclgtqy55fbzdi"
FREE_PROGRAM = "bafkreicysg23kiwv34eg2d7qweipxwosdo2py4ldv42nbauguluen5v6am"
PROVIDER, PUBLISHER = (generate_key(name.encode().ljust(32, b".")) for name in ("provider", "publisher"))
PRICE_UAIN, ROYALTY_UAIN = 100, 20
BODY = b'{"text":"how are you today?"}'
CALLERS = (1, 8)
# A voucher for many calls has to acknowledge what it got before the gateway's bound on unacknowledged receipts.
CALLS_PER_VOUCHER = 500
WARM_UP_SECONDS = 0.3
PROGRAM_SOURCE = """class Service:
    def echo(self, text: str) -> str:
        return text
"""


def main() -> None:
    """Start the server, run the rows, print them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--seconds", type=float, default=3.0, help="how long each row runs (default: 3)")
    parser.add_argument(
        "--sync", choices=("always", "interval"), default="always", help="the journal's policy"
    )
    parser.add_argument("--serve", metavar="FOLDER", help=argparse.SUPPRESS)
    parser.add_argument("--profile", metavar="FILE", help="write the server's profile (cProfile) to a file")
    arguments = parser.parse_args()
    run = _runner()
    if arguments.serve:
        run(serve(Path(arguments.serve), arguments))
        return
    with tempfile.TemporaryDirectory(prefix="openresource-bench-") as folder:
        rows = run(measure(Path(folder), arguments))
    if arguments.json:
        print(json.dumps(rows, indent=1))
        return
    print(
        f"{'':<38}{'callers':>8}{'calls/s':>10}{'p50 ms':>9}{'p99 ms':>9}{'added p50':>11}{'added p99':>11}{'cpu ms':>8}"
    )
    for row in rows["rows"]:
        print(
            f"{row['case']:<38}{row['callers']:>8}{row['calls_per_second']:>10.0f}{row['p50_ms']:>9.3f}"
            f"{row['p99_ms']:>9.3f}{row['added_p50_ms']:>11.3f}{row['added_p99_ms']:>11.3f}"
            f"{row.get('gateway_cpu_ms', 0.0):>8.3f}"
        )
    print(f"isolation {rows['isolation']}, journal sync {rows['sync']}, {rows['cores']} cores, TLS 1.3")


def _runner() -> Callable[[Any], Any]:
    import uvloop

    return uvloop.run  # type: ignore[no-any-return]


# ── The server's side ────────────────────────────────────────────────────────────────────────────────────────


class ChannelsInMemory:
    """What the chain would say about channels: every channel of a caller exists and is full."""

    async def read(self, path: str) -> Any:
        _, _, buyer, _, _ = path.split("/")
        terms = Terms(
            PUBLISHER.address, "echo", PROGRAM, PROVIDER.address, PRICE_UAIN - ROYALTY_UAIN, ROYALTY_UAIN,
            PUBLISHER.address, 20_000,
        )  # fmt: skip
        now = time.time_ns() // 1_000_000
        channel, _ = open_channel(buyer, buyer, PROVIDER.address, 10**12, now + 86_400_000)
        return channel_record(channel, terms, now)

    async def balance(self, account: str) -> int:
        return 10**12


@contextlib.asynccontextmanager
async def program_runner(folder: Path) -> AsyncIterator[tuple[Any, str, Manifest]]:
    """The program, warm in the best sandbox of this machine."""
    from openresource.cli.sandboxes import find_drivers
    from openresource.sandbox.driver import Limits, ProgramCall, Release
    from openresource.sandbox.pool import ProgramPool

    release_folder = folder / "release"
    release_folder.mkdir()
    (release_folder / "service.py").write_text(PROGRAM_SOURCE)
    manifest = Manifest(
        "echo",
        Run("python", entry="service:Service"),
        resources=Resources(concurrency=max(CALLERS)),
        methods=(Method("echo", "/echo"),),
    )
    drivers = find_drivers()
    limits = Limits(concurrency=max(CALLERS))
    pool = ProgramPool(drivers.required(), Release(release_folder, manifest), limits)
    await pool.call(ProgramCall("echo", "/echo", BODY))
    try:
        yield pool, drivers.level, manifest
    finally:
        await pool.close()


async def serve(folder: Path, arguments: argparse.Namespace) -> None:
    """The gateway with its program; says where it is, then works until its input ends."""
    from openresource.market.prices import Price
    from openresource.market.services import Permissions, Version
    from openresource.provider.admission import Admission
    from openresource.provider.answers import Answers
    from openresource.provider.books import Books
    from openresource.provider.calls import Calls
    from openresource.provider.gateway import Gateway
    from openresource.provider.journal import Journal
    from openresource.provider.lanes import Lane
    from openresource.provider.metrics import Metrics
    from openresource.provider.offers import Offer, Offers
    from openresource.provider.server import GatewayServer
    from openresource.provider.tls import load_or_make_identity, server_context
    from openresource.sandbox.driver import Limits

    def clock_ms() -> int:
        return time.time_ns() // 1_000_000

    books = Books(folder / "provider.sqlite")
    books.open()
    answers = Answers(folder / "answers", books)
    answers.open()
    journal = Journal(folder / "journal", sync=arguments.sync)
    admission = Admission(
        chain=ChannelsInMemory(), journal=journal, books=books, answers=answers,
        provider=PROVIDER.address, network=NETWORK, clock_ms=clock_ms,
    )  # fmt: skip
    admission.start(journal.open())
    calls = Calls(
        admission=admission, answers=answers, network=NETWORK, key=PROVIDER, metrics=Metrics(),
        clock_ms=clock_ms, random_bytes=os.urandom,
    )  # fmt: skip
    async with contextlib.AsyncExitStack() as stack:
        runner, isolation, manifest = await stack.enter_async_context(program_runner(folder))
        offers = Offers()
        for program, ask, royalty in (
            (PROGRAM, PRICE_UAIN - ROYALTY_UAIN, ROYALTY_UAIN),
            (FREE_PROGRAM, 0, 0),
        ):
            offers.put(
                Offer(
                    publisher=PUBLISHER.address,
                    name="echo",
                    version=Version(
                        program, "1.0.0", "call", royalty, None, "MIT", "Echo", "text", "bit_exact", 1
                    ),
                    manifest=manifest,
                    methods=manifest.methods,
                    price=Price(ask, royalty, 20_000),
                    isolation=isolation,
                    runtime="",
                    limits=Limits(),
                    runner=runner,
                    permissions=Permissions(),
                    lane=Lane(max(CALLERS)),
                )
            )
        gateway = Gateway(
            offers,
            calls,
            None,
            overview=dict,
            health=lambda: (True, {}),
            gauges=dict,  # type: ignore[arg-type]
        )
        identity = load_or_make_identity(
            folder / "tls.pem", "127.0.0.1", now=datetime.datetime.now(datetime.UTC)
        )
        server = GatewayServer(gateway, server_context(identity), "127.0.0.1", 0)
        await server.start()
        loop = asyncio.get_running_loop()
        print(
            json.dumps({"port": server.port, "isolation": isolation, "tls": str(identity.path)}), flush=True
        )
        profiler = _profiler(arguments.profile)
        # Commands come line by line: a row of direct calls, or the end of the input.
        while True:
            line = await loop.run_in_executor(None, sys.stdin.readline)
            if not line:
                break
            wanted = json.loads(line)
            latencies = await direct(runner, wanted["callers"], wanted["seconds"])
            print(json.dumps(latencies), flush=True)
        if profiler is not None:
            profiler.disable()
            profiler.dump_stats(arguments.profile)
        await server.stop(1)
        await admission.close()
        await journal.close()
        await books.close()


def _profiler(file: str | None) -> Any:
    if not file:
        return None
    import cProfile

    profiler = cProfile.Profile()
    profiler.enable()
    return profiler


async def direct(runner: Any, callers: int, seconds: float) -> list[float]:
    """Calls of the program within the provider's process, without any gateway."""
    from openresource.sandbox.driver import ProgramCall

    latencies: list[float] = []
    end = time.perf_counter() + seconds

    async def caller() -> None:
        while time.perf_counter() < end:
            begin = time.perf_counter()
            await runner.call(ProgramCall("echo", "/echo", BODY))
            latencies.append(time.perf_counter() - begin)

    await asyncio.gather(*[caller() for _ in range(callers)])
    return latencies


# ── The callers' side ────────────────────────────────────────────────────────────────────────────────────────


class Caller:
    """One buyer: a connection, a channel, a session."""

    def __init__(self, number: int, port: int, trust: ssl.SSLContext) -> None:
        self._key = generate_key(f"buyer {number} {time.time_ns()}".encode().ljust(32, b"."))
        self._channel = f"{self._key.address}/{os.urandom(8).hex()}"
        self._secret = os.urandom(32)
        self._port, self._trust = port, trust
        self._receipts, self._completed = NO_RECEIPTS, 0
        self._sequence = 0
        self._total_uain = 0

    async def connect(self) -> None:
        self._reader, self._writer = await asyncio.open_connection("127.0.0.1", self._port, ssl=self._trust)

    def sign(self, calls: int) -> bytes:
        """A voucher for some more calls, as a header."""
        self._total_uain += calls * PRICE_UAIN
        voucher = sign_voucher(
            Voucher(
                self._channel,
                0,
                self._total_uain,
                session_hash(self._secret),
                self._completed,
                self._receipts,
            ),
            self._key,
            NETWORK,
        )
        payment = {
            "x402Version": 2,
            "accepted": {"scheme": "openresource"},
            "payload": voucher_to_json(voucher),
        }
        return b"PAYMENT-SIGNATURE: " + base64.b64encode(json.dumps(payment).encode()) + b"\r\n"

    def request(self, program: str, voucher: bytes = b"", *, is_paid: bool = True) -> bytes:
        head = f"POST /services/{PUBLISHER.address}/echo/{program}/echo HTTP/1.1\r\nHost: 127.0.0.1\r\n"
        if is_paid:
            self._sequence += 1
            head += f"OpenResource-Session: {self._channel};{self._secret.hex()};{self._sequence}\r\n"
        head += f"Content-Type: application/json\r\nContent-Length: {len(BODY)}\r\n"
        return head.encode() + voucher + b"\r\n" + BODY

    async def call(self, request: bytes) -> float:
        """One call; its seconds, from the first byte out to the last byte in."""
        begin = time.perf_counter()
        self._writer.write(request)
        head = await self._reader.readuntil(b"\r\n\r\n")
        mark = head.index(b"content-length: ") + 16
        body = await self._reader.readexactly(int(head[mark : head.index(b"\r", mark)]))
        seconds = time.perf_counter() - begin
        if not head.startswith(b"HTTP/1.1 200"):
            raise SystemExit(f"a call failed: {head!r} {body[:500]!r}")
        self._last = head
        return seconds

    def acknowledge(self) -> None:
        """Counts the receipt of the last call, so that the next voucher acknowledges it."""
        mark = self._last.index(b"openresource-receipt: ") + 22
        text = self._last[mark : self._last.index(b"\r", mark)]
        receipt = json.loads(base64.urlsafe_b64decode(text + b"=" * (-len(text) % 4)))
        self._receipts = next_receipts_hash(self._receipts, bytes.fromhex(receipt["id"][2:]))
        self._completed += 1

    def close(self) -> None:
        self._writer.close()


async def free(caller: Caller, until: float) -> list[float]:
    """Calls of a version whose price is nothing."""
    request = caller.request(FREE_PROGRAM, is_paid=False)
    latencies = []
    while time.perf_counter() < until:
        latencies.append(await caller.call(request))
    return latencies


async def voucher_a_call(caller: Caller, until: float) -> list[float]:
    """Every call brings a voucher of its own; signing and acknowledging are not in the figures."""
    latencies = []
    while time.perf_counter() < until:
        latencies.append(await caller.call(caller.request(PROGRAM, caller.sign(1))))
        caller.acknowledge()
    return latencies


async def voucher_for_many(caller: Caller, until: float) -> list[float]:
    """One voucher pays many calls."""
    latencies = []
    while time.perf_counter() < until:
        voucher = caller.sign(CALLS_PER_VOUCHER)
        for _ in range(CALLS_PER_VOUCHER):
            latencies.append(await caller.call(caller.request(PROGRAM, voucher)))
            voucher = b""
            caller.acknowledge()
            if time.perf_counter() >= until:
                break
    return latencies


Case = Callable[[Caller, float], Awaitable[list[float]]]


async def measure(folder: Path, arguments: argparse.Namespace) -> dict[str, Any]:
    """All rows, each against the same server."""
    command = [sys.executable, __file__, "--serve", str(folder), "--sync", arguments.sync]
    if arguments.profile:
        command += ["--profile", arguments.profile]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdin is not None and server.stdout is not None
        try:
            said = json.loads(server.stdout.readline())
            trust = ssl.create_default_context(cafile=said["tls"])
            rows: list[dict[str, Any]] = []
            for callers in CALLERS:
                server.stdin.write(json.dumps({"callers": callers, "seconds": arguments.seconds}) + "\n")
                server.stdin.flush()
                loop = asyncio.get_running_loop()
                line = await loop.run_in_executor(None, server.stdout.readline)
                base = _row(
                    "program in its sandbox, called directly", callers, json.loads(line), arguments.seconds
                )
                rows.append(base)
                cases: list[tuple[str, Case]] = [
                    ("through the gateway, free", free),
                    ("paid, a voucher a call", voucher_a_call),
                    ("paid, a voucher for many", voucher_for_many),
                ]
                for name, case in cases:
                    before = _cpu_seconds(server.pid)
                    latencies = await _run(case, callers, said["port"], trust, arguments.seconds)
                    row = _row(name, callers, latencies, arguments.seconds, base)
                    row["gateway_cpu_ms"] = round(
                        (_cpu_seconds(server.pid) - before) / len(latencies) * 1000, 3
                    )
                    rows.append(row)
        finally:
            server.stdin.close()
            try:
                server.wait(30)
            except subprocess.TimeoutExpired:
                server.kill()
    return {"isolation": said["isolation"], "sync": arguments.sync, "cores": os.cpu_count(), "rows": rows}


def _cpu_seconds(process: int) -> float:
    """What a process has used of the processor; steadier than the clock on a busy machine."""
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


async def _run(case: Case, callers: int, port: int, trust: ssl.SSLContext, seconds: float) -> list[float]:
    hands = [Caller(number, port, trust) for number in range(callers)]
    for hand in hands:
        await hand.connect()
    try:
        warm_until = time.perf_counter() + min(WARM_UP_SECONDS, seconds)
        await asyncio.gather(*[case(hand, warm_until) for hand in hands])
        until = time.perf_counter() + seconds
        found = await asyncio.gather(*[case(hand, until) for hand in hands])
    finally:
        for hand in hands:
            hand.close()
    return [latency for latencies in found for latency in latencies]


def _row(
    name: str, callers: int, latencies: list[float], seconds: float, base: dict[str, Any] | None = None
) -> dict[str, Any]:
    ordered = sorted(latencies)
    p50, p99 = (ordered[int(len(ordered) * part)] * 1000 for part in (0.5, 0.99))
    return {
        "case": name,
        "callers": callers,
        "calls": len(ordered),
        "calls_per_second": round(len(ordered) / seconds, 1),
        "p50_ms": round(p50, 3),
        "p99_ms": round(p99, 3),
        "added_p50_ms": round(p50 - (base["p50_ms"] if base else p50), 3),
        "added_p99_ms": round(p99 - (base["p99_ms"] if base else p99), 3),
    }


if __name__ == "__main__":
    main()
