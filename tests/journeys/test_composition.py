"""Programs made of others on a real network: in real sandboxes, by real commands, within an allowance, every coin shown."""

from __future__ import annotations

import asyncio
import json
import shutil
import ssl
import urllib.error
import urllib.request
from collections.abc import Iterator

import pytest

from openresource.market.receipt_trees import receipt_tree
from openresource.market.receipts import receipt_from_json
from tests.cli.support import run_cli
from tests.journeys.composition_stage import (
    GIST_UAIN,
    HEAD,
    ROOT,
    SCRUB_UAIN,
    composition_stage,
    publish,
    spent_uain,
    words,
)
from tests.journeys.kinds_stage import Scene
from tests.web.support import Page, visit

pytestmark = [pytest.mark.journey, pytest.mark.sandbox, pytest.mark.timeout(240)]
LETTER = (
    "Bees find flowers by colour and scent. Ann (ann@example.org) saw that a bee which has found good flowers "
    "dances for the other bees. It rained on Tuesday."
)

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


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    folder = tmp_path_factory.mktemp("composition")
    with composition_stage(folder, "scrub", "gist") as scene:
        shutil.copytree(ROOT / "examples" / "briefing", folder / "briefing")
        scene.publish(folder / "briefing")
        yield scene


def test_a_letter_goes_through_two_other_services_and_the_receipts_are_a_tree(scene: Scene) -> None:
    before_uain = spent_uain(scene)
    quoted = run_cli("quote", "briefing", *words(scene))
    assert "--allow 0.001" in quoted.out and "/scrub from 0.0004 AIN" in quoted.out

    refused = run_cli("call", "briefing", f"text={LETTER}", *words(scene))
    assert refused.code == 1 and "without an allowance" in refused.err and "--allow 0.001" in refused.err
    assert spent_uain(scene) == before_uain

    told = run_cli("call", "briefing", f"text={LETTER}", "--allow", "0.002", "--json", *words(scene))
    assert told.code == 0, told.err
    answer = told.json
    assert answer["value"]["removed"] == {"EMAIL": 1} and "ann@example.org" not in json.dumps(answer["value"])
    costs = [(one["service"].rpartition("/")[2], one["price_uain"]) for one in answer["inner"]]
    assert costs == [("scrub", SCRUB_UAIN), ("gist", GIST_UAIN)]
    spent_now_uain = spent_uain(scene) - before_uain
    assert answer["total_uain"] == answer["price_uain"] + SCRUB_UAIN + GIST_UAIN == spent_now_uain
    assert answer["value"]["others_uain"] == SCRUB_UAIN + GIST_UAIN

    # Anybody who has the ids can fetch the papers and add them up.
    trust = ssl._create_unverified_context()
    endpoint = scene.provider.facts["endpoint"]
    known = {}
    for receipt in (answer["receipt_id"], *(one["receipt_id"] for one in answer["inner"])):
        with urllib.request.urlopen(f"{endpoint}/receipts/{receipt}", context=trust, timeout=60) as reply:
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
    assert spent_uain(scene) == before_uain + answer["total_uain"] + SCRUB_UAIN
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


def test_the_pages_ask_what_others_may_cost_and_show_what_they_got(scene: Scene) -> None:
    async def steps() -> None:
        async with visit(scene.buyer.folder, scene.node.url) as here:
            await here.let_in()
            address = f"/services/{scene.publisher.address()}/briefing"
            form = Page.of(await here.get(address))
            form.check()
            assert "It calls scrub, gist" in form.text
            assert form.all("input", name="allow")[0]["placeholder"] == "usually 0.001"
            data = {
                "method": "brief",
                "once": form.all("input", name="once")[0]["value"],
                "max_price": form.all("input", name="max_price")[0]["value"],
                "in.text": LETTER,
                "allow": "0.001",
            }
            answer = Page.of(await here.post(f"{address}/call", data, follow_redirects=True))
            answer.check()
            assert "Bees find flowers" in answer.text and "With others 0.001 AIN in all" in answer.text

    asyncio.run(steps())


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
