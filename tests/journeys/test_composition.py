"""Programs made of others on a real network: in real sandboxes, by real commands, within an allowance, every coin shown."""

from __future__ import annotations

import json
import shutil
import ssl
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from openresource.client import allow
from openresource.client.calls import ProgramFailedThere, ProviderRefused
from openresource.market.allowances import Allowance
from openresource.market.receipt_trees import receipt_tree
from openresource.market.receipts import receipt_from_json
from tests.cli.support import run_cli
from tests.journeys.kinds_stage import Scene, kinds_stage

pytestmark = [pytest.mark.journey, pytest.mark.sandbox, pytest.mark.timeout(240)]
ROOT = Path(__file__).resolve().parents[2]
LETTER = (
    "Bees find flowers by colour and scent. Ann (ann@example.org) saw that a bee which has found good flowers "
    "dances for the other bees. It rained on Tuesday."
)
SCRUB_UAIN, GIST_UAIN = 400, 500

HEAD = """
name = "{name}"
summary = "Has gist say it."
license = "MIT"
[run]
{run}
[resources]
memory = "128Mi"
concurrency = 4
[calls]
services = ["gist"]
[[methods]]
name = "say"
input = {{type = "object", properties = {{text = {{type = "string"}}}}, required = ["text"]}}
price = {{model = "per_call", amount = "0.0001"}}
"""
# What every language can do: connect, write a line, read a line.
ASK = """
import json, os, socket
def ask(text, call):
    broker = socket.socket(socket.AF_UNIX)
    broker.connect(os.environ["OPENRESOURCE_BROKER"])
    lines = broker.makefile("rw")
    request = {"service": "gist", "method": "summarise", "input": {"text": text, "sentences": 1}, "call": call}
    lines.write(json.dumps(request) + "\\n")
    lines.flush()
    answer = json.loads(lines.readline())
    return answer["output"]["summary"] if "output" in answer else answer["error"]["code"]
"""
HTTP = (
    ASK
    + """
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
class Handler(BaseHTTPRequestHandler):
    def do_POST(self):
        asked = json.loads(self.rfile.read(int(self.headers["content-length"])))
        body = json.dumps(ask(asked["text"], self.headers.get("OpenResource-Call"))).encode()
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    def log_message(self, *words):
        pass
ThreadingHTTPServer(("127.0.0.1", int(os.environ["PORT"])), Handler).serve_forever()
"""
)
LINES = (
    ASK
    + """
import sys
for line in sys.stdin:
    print(json.dumps(ask(json.loads(line)["text"], None)), flush=True)
"""
)
COMMAND = (
    ASK
    + """
import sys
print(json.dumps(ask(sys.argv[1], os.environ.get("OPENRESOURCE_CALL_SECRET"))))
"""
)
HOSTILE = """
import json, os, socket, threading, time
from openresource_broker import BrokerRefused, call, current

kept = []

def lines():
    broker = socket.socket(socket.AF_UNIX)
    broker.connect(os.environ["OPENRESOURCE_BROKER"])
    return broker.makefile("rwb")

class Program:
    def flood(self) -> dict:
        # As much as the door takes, without reading what comes back.
        broker = socket.socket(socket.AF_UNIX)
        broker.connect(os.environ["OPENRESOURCE_BROKER"])
        broker.settimeout(1.0)
        sent = 0
        try:
            while sent < 50_000_000:
                sent += broker.send(b'{"service": "gist", "input": {"text": "x"}, "call": "00"}\\n' * 1000)
        except OSError:
            pass
        return {"sent": sent}

    def forge(self) -> list[str]:
        stream, told = lines(), []
        for line in (b"{}", b'{"service": "gist", "call": "' + b"0" * 32 + b'"}', b'{"service":', b"\\xff\\xfe", b"[]"):
            stream.write(line + b"\\n")
            stream.flush()
            told.append(json.loads(stream.readline())["error"]["code"])
        return told

    def keep(self) -> str:
        kept.append(current())
        return "kept"

    def use_kept(self) -> str:
        try:
            return call("gist", "summarise", text="Bees dance.", token=kept[-1])["summary"]
        except BrokerRefused as refusal:
            return refusal.code

    def greed(self) -> list[str]:
        told = []
        for number in range(80):
            try:
                call("gist", "summarise", text="Bees dance.")
                told.append("answered")
            except BrokerRefused as refusal:
                told.append(refusal.code)
        return told

    def crash(self) -> str:
        call("gist", "summarise", text="Bees dance.")
        os._exit(3)
"""


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    with kinds_stage(tmp_path_factory.mktemp("composition")) as scene:
        for program in ("scrub", "gist"):
            scene.publish(ROOT / "openresource" / "samples" / program)
        yield scene


def words(scene: Scene) -> tuple[str, ...]:
    return "--home", str(scene.buyer.folder), "--node", scene.node.url


def publish(scene: Scene, name: str, run: str, source: str, head: str = HEAD) -> None:
    folder = scene.folder / name
    folder.mkdir()
    (folder / "openresource.toml").write_text(head.format(name=name, run=run))
    (folder / "program.py").write_text(source)
    scene.publish(folder)


def spent_uain(scene: Scene) -> int:
    with scene.client() as client:
        return client.asynchronous.books.spent_uain(0)


def test_a_letter_goes_through_two_other_services_and_the_receipts_are_a_tree(
    scene: Scene, tmp_path: Path
) -> None:
    shutil.copytree(ROOT / "examples" / "briefing", tmp_path / "briefing")
    scene.publish(tmp_path / "briefing")
    quoted = run_cli("quote", "briefing", *words(scene))
    assert "--allow 0.001" in quoted.out and "/scrub from 0.0004 AIN" in quoted.out

    refused = run_cli("call", "briefing", f"text={LETTER}", *words(scene))
    assert refused.code == 1 and "without an allowance" in refused.err and "--allow 0.001" in refused.err
    assert spent_uain(scene) == 0

    told = run_cli("call", "briefing", f"text={LETTER}", "--allow", "0.002", "--json", *words(scene))
    assert told.code == 0, told.err
    answer = told.json
    assert answer["value"]["removed"] == {"EMAIL": 1} and "ann@example.org" not in json.dumps(answer["value"])
    costs = [(one["service"].rpartition("/")[2], one["price_uain"]) for one in answer["inner"]]
    assert costs == [("scrub", SCRUB_UAIN), ("gist", GIST_UAIN)]
    assert answer["total_uain"] == answer["price_uain"] + SCRUB_UAIN + GIST_UAIN == spent_uain(scene)
    assert answer["value"]["others_uain"] == SCRUB_UAIN + GIST_UAIN

    # Anybody who has the ids can fetch the papers and add them up.
    trust = ssl._create_unverified_context()
    endpoint = scene.provider.facts["endpoint"]
    known = {}
    for receipt in (answer["receipt_id"], *(one["receipt_id"] for one in answer["inner"])):
        with urllib.request.urlopen(f"{endpoint}/receipts/{receipt}", context=trust, timeout=30) as reply:
            known[receipt] = receipt_from_json(json.load(reply))
    with scene.client() as client:
        network = client._run(client.asynchronous.network())
        tree = receipt_tree(known[answer["receipt_id"]], known, network)
        assert tree.total_uain == answer["total_uain"] and len(tree.children) == 2
        assert client.receipt_tree(answer["receipt_id"]).to_json() == tree.to_json()

    papers = run_cli("receipt", answer["receipt_id"], *words(scene))
    assert papers.code == 0 and "every paper fits" in papers.out and papers.out.count("receipt 0x") == 3
    missing = run_cli("receipt", "0x" + "12" * 32, *words(scene))
    assert missing.code == 1 and "have no receipt" in missing.err

    small = run_cli("call", "briefing", f"text={LETTER}", "--allow", "0.0006", *words(scene))
    assert small.code == 1 and "0.0006 AIN" not in small.out
    assert "of the allowance of 600 µAIN are left" in small.err
    # The first of the two was done and paid, the call itself was not.
    assert spent_uain(scene) == answer["total_uain"] + SCRUB_UAIN
    shown = run_cli("call", "briefing", f"text={LETTER}", "--allow", "0.002", *words(scene))
    assert shown.code == 0 and "└ 0.0004 AIN for" in shown.err and "AIN in all" in shown.err


@pytest.mark.parametrize(
    ("name", "run", "source"),
    [
        ("by-http", 'kind = "http"\ncommand = ["python", "program.py"]\nopenapi = "none"', HTTP),
        ("by-lines", 'kind = "jsonl"\ncommand = ["python", "program.py"]', LINES),
        ("by-command", 'kind = "cli"\ncommand = ["python", "program.py"]', COMMAND),
    ],
)
def test_any_program_that_can_write_a_line_to_a_socket_calls_others(
    scene: Scene, name: str, run: str, source: str
) -> None:
    head = HEAD
    if name == "by-lines":
        head = HEAD.replace("concurrency = 4\n", "")
    elif name == "by-command":
        head = HEAD + 'args = ["{{text}}"]\nresult = "json"\n'
    publish(scene, name, run, source, head)
    with scene.client() as client:
        answer = client.call(name, text="Bees dance. It rained.", allowance="0.001")
        assert answer.value == "Bees dance." and answer.inner_uain == GIST_UAIN
        assert client.call(name, text="Bees dance.").value in ("no-allowance", "call-not-named")


def test_calls_side_by_side_in_one_instance_spend_each_its_own_allowance(scene: Scene) -> None:
    source = "from openresource_broker import BrokerRefused, call\n" + (
        "def say(text: str) -> str:\n"
        "    try:\n"
        '        return call("gist", "summarise", text=text)["summary"]\n'
        "    except BrokerRefused as refusal:\n"
        "        return refusal.code\n"
    )
    publish(scene, "beside", 'kind = "python"\nentry = "program:say"', source)
    with scene.client() as client:
        client.call("beside", text="warm up")

        def one(number: int) -> Any:
            allowance = allow("0.0005") if number % 2 else Allowance(GIST_UAIN - 1)
            return client.call("beside", text=f"Bees dance {number}.", allowance=allowance)

        with ThreadPoolExecutor(8) as threads:
            answers = list(threads.map(one, range(8)))
    for number, answer in enumerate(answers):
        assert answer.value == (f"Bees dance {number}." if number % 2 else "allowance-used-up")
        assert answer.inner_uain == (GIST_UAIN if number % 2 else 0)


def test_a_hostile_program_gets_no_further_than_its_callers_allowance(scene: Scene) -> None:
    head = HEAD.partition("[[methods]]")[0]
    publish(scene, "hostile", 'kind = "python"\nentry = "program:Program"', HOSTILE, head)
    before_uain = spent_uain(scene)
    with scene.client() as client:

        def call(method: str, **options: Any) -> Any:
            return client.call("hostile", method, **options)

        paid = [call("forge", allowance="0.001"), call("flood", allowance="0.001")]
        # An invalid request, a secret that nobody has, and lines that are none.
        assert paid[0].value == [
            "broker-request-invalid",
            "call-over",
            "broker-request-invalid",
            "broker-request-invalid",
            "broker-request-invalid",
        ]
        assert not any(answer.inner for answer in paid)
        # The secret of a call that has ended opens nothing, whoever calls next.
        paid += [call("keep", allowance="0.01"), call("use_kept")]
        assert paid[-1].value in ("call-over", "no-allowance")
        paid.append(call("greed", allowance=Allowance(20 * GIST_UAIN)))
        told = paid[-1].value
        assert told[:20] == ["answered"] * 20 and set(told[20:64]) == {"allowance-used-up"}
        assert set(told[64:]) == {"too-many-inner-calls"}
        assert paid[-1].inner_uain == 20 * GIST_UAIN
        with pytest.raises((ProgramFailedThere, ProviderRefused)) as crashed:
            call("crash", allowance="0.001")
        assert crashed.value.facts["inner_uain"] == GIST_UAIN
    expected_uain = sum(answer.total_uain for answer in paid) + GIST_UAIN
    assert spent_uain(scene) == before_uain + expected_uain


def test_every_coin_is_where_the_papers_say(scene: Scene) -> None:
    """After everything above: settle, and the wallet has what the receipts leave it."""
    with scene.client() as client:
        booked_uain = client.asynchronous.books.spent_uain(0)
        supply = client._run(client.asynchronous.chain.rpc("ore_supply", {"at": "final"}))
        genesis = client._run(client.asynchronous.network()).genesis_hash
        calls = client._run(client.asynchronous.calls())
        start_uain = 5_000_000
        for entry in client.asynchronous.books.channels(genesis):
            client._run(calls.settle(entry.name))
        assert client.balance() == start_uain - booked_uain
        after = client._run(client.asynchronous.chain.rpc("ore_supply", {"at": "final"}))
        assert after["total_uain"] == supply["total_uain"]
