"""Journeys of people over real processes: publish, provide, call, connect, close; and what goes wrong on the way."""

from __future__ import annotations

import json
import socket
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from openresource.client.homes import Home
from tests.cli.support import Outcome, Serving, funded_home, run_cli, run_here, serving, write_program
from tests.support.network import NodeProcess, local_node_process
from tests.support.ports import hold_port

pytestmark = pytest.mark.journey


@dataclass(slots=True)
class Market:
    """A node, a provider that takes everything, a published service, a buyer with coins."""

    folder: Path
    node: NodeProcess
    provider: Serving
    publisher: Home
    buyer: Home
    published: Outcome

    def cli(self, *words: str, home: Home | None = None, **options: Any) -> Outcome:
        chosen = str((home or self.buyer).folder)
        return run_here(*words, "--home", chosen, "--node", self.node.url, **options)


@pytest.fixture(scope="module")
def market(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Market]:
    folder = tmp_path_factory.mktemp("market")
    with local_node_process(folder / "chain") as node:
        publisher = Home(folder / "publisher")
        publisher.create_wallet()
        provider = (
            "provide",
            "--json",
            "--accept",
            "all",
            "--home",
            str(folder / "provider"),
            "--node",
            node.url,
        )
        with serving(*provider) as machine:
            program = write_program(folder / "shout")
            published = run_cli(
                "publish", str(program), "--json", "--home", str(publisher.folder), "--node", node.url
            )
            buyer = funded_home(folder / "buyer", folder / "chain", node.url)
            yield Market(folder, node, machine, publisher, buyer, published)


def test_publishing_ends_when_a_stranger_has_answered_the_example(market: Market) -> None:
    assert market.published.code == 0, market.published.err
    record = market.published.json
    assert record["is_new"] and record["test_call"]["value"] == "HELLO"
    assert record["placed"]["provider"] == market.provider.facts["provider"]
    assert record["methods"][0] == "shout" and set(record["methods"]) == {
        "shout",
        "letters",
        "size",
        "refuse",
    }


def test_the_same_bytes_published_again_only_wait(market: Market) -> None:
    again = market.cli("publish", str(market.folder / "shout"), "--json", home=market.publisher)
    assert again.code == 0, again.err
    assert not again.json["is_new"] and again.json["program"] == market.published.json["program"]


def test_changed_bytes_need_a_new_version_number(market: Market) -> None:
    changed = write_program(
        market.folder / "changed", source="def shout(text: str) -> str:\n    return text\n"
    )
    (changed / "openresource.toml").write_text(
        (changed / "openresource.toml").read_text().replace("service:Service", "service:shout")
    )
    refused = market.cli("publish", str(changed), home=market.publisher)
    assert refused.code == 1 and refused.is_plain()
    assert "1.0.0" in refused.err and "raise version" in refused.err


def test_a_call_prints_the_answer_and_beside_it_price_provider_and_receipt(market: Market) -> None:
    answered = market.cli("call", "shout", "text=hello", "times=2")
    assert answered.code == 0, answered.err
    assert answered.out == "HELLOHELLO\n"
    last = answered.err.strip().splitlines()[-1]
    assert last.startswith("0.001 AIN to 0x") and "receipt 0x" in last


def test_a_call_speaks_json_streams_and_takes_files(market: Market, tmp_path: Path) -> None:
    answered = market.cli("call", "shout", "shout", "--input", "-", "--json", input='{"text": "a"}')
    assert answered.json["value"] == "A" and answered.json["price_uain"] == 1_000
    streamed = market.cli("call", "shout", "letters", "text=abc", "--stream")
    assert streamed.out == "abc\n" and "receipt" in streamed.err
    lines = market.cli("call", "shout", "letters", "text=abc", "--stream", "--json").out.splitlines()
    assert [json.loads(line).get("value") for line in lines[:-1]] == ["a", "b", "c"]
    assert json.loads(lines[-1])["receipt"]["price_uain"] == 1_000
    data = tmp_path / "data"
    data.write_bytes(bytes(range(256)))
    assert market.cli("call", "shout", "size", f"data=@{data}").out == "256\n"


def test_a_dry_run_says_the_price_and_spends_nothing(market: Market) -> None:
    before = market.cli("money", "--json").json["total_uain"]
    told = market.cli("call", "shout", "text=hello", "--dry-run", "--json").json
    assert told["dry_run"] and told["price_uain"] == 1_000 and told["within_limits"]
    assert market.cli("money", "--json").json["total_uain"] == before


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["call", "shuot", "text=a"], 1, "No service is called shuot"),
        (["call", "shout", "shuot", "text=a"], 1, "it has shout"),
        (["call", "shout@9.9.9", "text=a"], 1, "it has 1.0.0"),
        (["call", "shout", "times=2"], 2, "input.text is missing"),
        (["call", "shout", "text=a", "times=many"], 2, "integer"),
        (["call", "shout", "text=@/no/such/file"], 1, "No such file"),
        (["call", "shout", "refuse"], 1, "not today"),
        (["call", "shout", "text=a", "--max-price", "0.0001"], 5, "you allowed 0.0001"),
        (["call", "shout", "text=a", "--max-price", "much"], 1, "not an amount"),
        (["quote", "shuot"], 1, "No service is called"),
        (["channel", "close", "ffff"], 1, "no channel"),
        (["channel", "open", "shout", "999999"], 5, "above the limit"),
        (["services", "no", "such", "words"], 0, ""),
    ],
)
def test_what_goes_wrong_is_said_with_the_way_out(
    market: Market, words: list[str], code: int, said: str
) -> None:
    outcome = market.cli(*words)
    assert outcome.code == code, outcome.err
    assert said in outcome.out + outcome.err and outcome.is_plain()


def test_a_spending_limit_stops_a_call_before_it_costs_anything(market: Market) -> None:
    assert market.cli("money", "--json").json["limits"]["per_call_uain"] == 100_000
    limited = run_here("money", "limit", "--per-call", "0.0005", "--home", str(market.buyer.folder))
    assert limited.code == 0
    try:
        refused = market.cli("call", "shout", "text=a", "--json")
        assert refused.code == 5 and refused.json["error"]["code"] == "over-spending-limit"
    finally:
        run_here("money", "limit", "--per-call", "0.1", "--home", str(market.buyer.folder))


def test_a_wallet_without_coins_is_told_what_it_lacks(market: Market, tmp_path: Path) -> None:
    poor = Home(tmp_path / "poor")
    poor.create_wallet()
    refused = market.cli("call", "shout", "text=a", home=poor)
    assert refused.code == 1 and "are needed" in refused.err and refused.is_plain()


def test_a_home_without_a_wallet_is_told_how_to_make_one(market: Market, tmp_path: Path) -> None:
    for words in (["call", "shout", "text=a"], ["money"], ["publish", str(market.folder / "shout")]):
        refused = market.cli(*words, home=Home(tmp_path / "nobody"))
        assert refused.code == 1 and "openresource wallet new" in refused.err, words


def test_money_names_each_place_and_every_coin_comes_home(market: Market) -> None:
    opened = market.cli("channel", "open", "shout", "0.05", "--lifetime", "7d", "--json")
    assert opened.code == 0, opened.err
    listed = market.cli("channel", "list", "--json").json
    assert opened.json["channel"] in [one["channel"] for one in listed]
    longer = market.cli("channel", "extend", opened.json["channel"][-16:], "--by", "9d", "--add", "0.01")
    assert longer.code == 0, longer.err
    unused = market.cli("channel", "close", opened.json["channel"][-16:])
    assert unused.code == 1 and "after its expiry" in unused.err
    assert market.cli("call", "shout", "text=a").code == 0
    before = market.cli("money", "--json").json
    assert sum(place["amount_uain"] for place in before["places"]) == before["total_uain"]
    closed = market.cli("channel", "close", "--all")
    assert closed.code == 0, closed.err
    after = market.cli("money", "--json").json
    assert [place["place"] for place in after["places"]] == ["wallet"]
    assert after["total_uain"] == 5_000_000 - after["spent_last_24_hours_uain"]


def test_a_publisher_without_coins_earns_the_royalty(market: Market) -> None:
    assert market.cli("call", "shout", "text=a").code == 0
    assert market.cli("channel", "close", "--all").code == 0
    held = market.cli("wallet", "show", "--json", home=market.publisher).json
    assert held["balance_uain"] >= 100


def test_services_lists_what_runs_with_price_and_interface(market: Market) -> None:
    listed = market.cli("services", "louder", "--json").json
    assert [one["name"] for one in listed] == ["shout"] and listed[0]["from_uain"] == 1_000
    interface = market.cli("services", "shout", "--interface").out
    assert (
        "openresource call shout shout text=hello" in interface
        and "times: integer (optional, else 1)" in interface
    )
    quoted = market.cli("quote", "shout", "--json").json
    assert quoted["offers"][0]["calls_per_ain"] == 1_000 and quoted["offers"][0]["royalty_uain"] == 100


def test_connect_serves_plain_clients_within_its_limit(market: Market) -> None:
    words = ("connect", "--json", "--port", "0", "--limit", "0.003")
    with serving(*words, "--home", str(market.buyer.folder), "--node", market.node.url) as door:
        url = door.facts["url"]
        listed = json.load(urllib.request.urlopen(f"{url}/"))
        assert listed["services"][0]["name"] == "shout"
        with urllib.request.urlopen(f"{url}/shout", data=b'{"text": "hello"}') as answer:
            assert json.load(answer) == "HELLO"
            assert answer.headers["openresource-price"] == "0.001 AIN"
            assert answer.headers["openresource-receipt-id"].startswith("0x")
        with urllib.request.urlopen(f"{url}/shout/letters", data=b'"ab"') as stream:
            events = stream.read().split(b"\n\n")
            assert events[:2] == [b'data: "a"', b'data: "b"'] and events[2].startswith(b"event: receipt")
        for path, body, headers, status, code in [
            ("/shuot", b"{}", {}, 404, "no-such-service"),
            ("/shout", b"{", {}, 400, "not-json"),
            ("/shout", b"{}", {}, 422, "invalid-value"),
            ("/shout", b'{"text": "a"}', {"Host": "evil.example"}, 403, "foreign-host"),
            ("/shout", b'{"text": "a"}', {"Origin": "https://evil.example"}, 403, "foreign-origin"),
            ("/v1/chat/completions", b'{"model": "gpt"}', {}, 404, "no-such-model"),
        ]:
            found_status, error = refused_by(url + path, body, headers)
            assert (found_status, error["code"]) == (status, code), error
            assert error["remedy"]
        assert json.load(urllib.request.urlopen(f"{url}/shout", data=b'{"text": "x"}')) == "X"
        status, error = refused_by(f"{url}/shout", b'{"text": "y"}', {})
        assert (status, error["code"]) == (402, "run-limit-reached")


def test_a_port_in_use_and_a_home_in_use_are_said(market: Market, tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        for words in (["node", "start"], ["connect"], ["provide"]):
            home = tmp_path / words[0]
            Home(home).create_wallet()
            options = [] if words[0] == "node" else ["--node", market.node.url]
            refused = run_cli(*words, "--port", port, "--home", str(home), *options)
            assert refused.code == 1 and "--port" in refused.err and refused.is_plain(), (words, refused.err)
    busy = run_cli("provide", "--home", str(market.folder / "provider"), "--node", market.node.url)
    assert busy.code == 1 and "in use" in busy.err and busy.is_plain()
    busy = run_cli("node", "start", "--home", str(market.node.home), "--port", "0")
    assert busy.code == 1 and "already open" in busy.err and busy.is_plain()


def test_a_node_that_is_away_ends_in_exit_code_3(tmp_path: Path) -> None:
    home = Home(tmp_path / "home")
    home.create_wallet()
    # Held, so that nobody else begins to listen there.
    with hold_port() as silent:
        away = f"http://127.0.0.1:{silent.getsockname()[1]}"
        for words in (["node", "status"], ["services"]):
            outcome = run_cli(*words, "--home", str(home.folder), "--node", away)
            assert outcome.code == 3 and "openresource up" in outcome.err and outcome.is_plain()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"openresource.toml": "name = "}, "not TOML"),
        ({"openresource.toml": 'name = "Shout"\n[run]\nkind = "python"\nentry = "service:S"\n'}, "DNS label"),
        ({"openresource.toml": 'name = "s"\n[run]\nkind = "python"\nentry = "main:S"\n'}, "no main.py"),
        (
            {"openresource.toml": 'name = "s"\n[run]\nkind = "python"\nentry = "service:S"\n'},
            "service has no S",
        ),
        ({"service.py": "import no_such_package\n"}, "no_such_package"),
        ({"service.py": "class Service:\n    def other(self) -> int:\n        return 1\n"}, "has other"),
        (
            {
                "service.py": "class Service:\n    def shout(self, text: str) -> str:\n        raise KeyError('lost')\n"
            },
            "lost",
        ),
        (
            {"service.py": "class Service:\n    def shout(self, word: str) -> str:\n        return word\n"},
            "input.word is missing",
        ),
        ({".env": "TOKEN=1"}, "looks like a secret"),
    ],
)
def test_a_program_that_does_not_work_is_refused_before_anything_is_published(
    market: Market, tmp_path: Path, change: dict[str, str], said: str
) -> None:
    folder = write_program(tmp_path / "broken", name="broken")
    for name, text in change.items():
        (folder / name).write_text(text)
    refused = market.cli("publish", str(folder), home=market.publisher)
    assert refused.code == 1 and said in refused.err and refused.is_plain(), refused.err
    assert market.cli("services", "broken", "--json").json == []


def test_a_folder_that_is_no_program_is_refused(market: Market, tmp_path: Path) -> None:
    assert "says how it would be run" in market.cli("publish", str(tmp_path), home=market.publisher).err
    assert "no folder" in market.cli("publish", str(tmp_path / "nowhere"), home=market.publisher).err


def test_a_publication_that_nobody_runs_in_time_stays_and_says_why(market: Market, tmp_path: Path) -> None:
    lock = "sha256:" + "0" * 64
    folder = write_program(tmp_path / "patient", name="patient")
    # It can be tried here, as it needs nothing; the provider refuses what it may not charge.
    text = (folder / "openresource.toml").read_text()
    (folder / "openresource.toml").write_text(
        text.replace('amount = "0.001"', 'amount = "0.001"').replace(
            'royalty = "0.0001"', 'royalty = "0.0001"\nprice_cap = "0.0001"'
        )
    )
    late = market.cli("publish", str(folder), "--deadline", "60", home=market.publisher)
    assert late.code == 4 and "cap" in late.err and "stays" in late.err and late.is_plain(), late.err
    assert lock not in late.err
    assert [one["name"] for one in market.cli("services", "patient", "--json").json] == ["patient"]


def test_a_provider_leaves_in_order(market: Market, tmp_path: Path) -> None:
    process = Serving(
        "provide", "--json", "--accept", "own", "--home", str(tmp_path / "short"), "--node", market.node.url
    )
    ended = process.stop()
    assert ended.code == 0 and ended.json["stopped"] is True


def refused_by(url: str, body: bytes, headers: dict[str, str]) -> tuple[int, Any]:
    try:
        urllib.request.urlopen(urllib.request.Request(url, data=body, headers=headers))
    except urllib.error.HTTPError as error:
        with error:
            return error.code, json.load(error)["error"]
    raise AssertionError(f"{url} was not refused")
