"""Following recorded chains of AI Network, served over HTTP as a node would: verified, resumed, and every lie found."""

from __future__ import annotations

import asyncio
import copy
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from openresource.cli.main import group
from openresource.ledger.blocks import parse_block
from openresource.ledger.nodes import Branch
from openresource.ledger.transactions import sign_transaction, trusted_transaction
from openresource.node.ain.configurations import genesis_hash_of, network_names, network_of
from openresource.node.ain.follower import CheckpointInvalid, Difference, Follower, OtherChain
from openresource.node.ain.following import Following, read_checkpoint, write_checkpoint
from openresource.primitives.encoding import canonical_json_bytes
from openresource.primitives.keys import PrivateKey
from tests.vectors_support import load_vectors

CONFIGS = ("1-node", "3-nodes")


def chain_of(config: str) -> list[Any]:
    """The recorded blocks: final ones, and the first that is not."""
    document = load_vectors(f"ain/chain/chain_{config}.json")
    return [*document["blocks"], document["unfinalized"][0]["block"]]


class Recorded:
    """A source that has the blocks in memory."""

    def __init__(self, blocks: list[Any]) -> None:
        self.blocks = blocks
        self.asked: list[int] = []

    async def last_number(self) -> int:
        return len(self.blocks) - 1

    async def block(self, number: int) -> Any:
        self.asked.append(number)
        return self.blocks[number]

    async def proof_hash(self, path: str) -> str | None:
        return None


@contextmanager
def served(blocks: list[Any], proof_hash: Callable[[str], str | None] = lambda path: None) -> Iterator[str]:
    """A small server that answers as AI Network's JSON-RPC does."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            request = json.loads(self.rfile.read(int(self.headers["content-length"])))
            params = request["params"]
            answer: dict[str, Any] = {"protoVer": "1.6.9"}
            match request["method"]:
                case "ain_getLastBlockNumber":
                    answer["result"] = len(blocks) - 1
                case "ain_getBlockByNumber":
                    assert params["getFullTransactions"] is True
                    answer["result"] = blocks[params["number"]]
                case "ain_getProofHash":
                    answer["result"] = proof_hash(params["ref"])
            body = canonical_json_bytes({"jsonrpc": "2.0", "id": request["id"], "result": answer})
            self.send_response(200)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *arguments: Any) -> None:
            """The test's output is its own."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def followed(config: str, blocks: list[Any], upto: int | None = None) -> Follower:
    """A follower that verified blocks from the first one on."""
    follower = Follower.begin(network_of(config), blocks[0])
    for number in range(1, len(blocks) - 1 if upto is None else upto + 1):
        follower.take(blocks[number], blocks[number + 1])
    return follower


@pytest.mark.parametrize("config", CONFIGS)
def test_a_recorded_chain_is_followed_over_http_by_the_command(config: str, tmp_path: Path) -> None:
    blocks = chain_of(config)
    arguments = ["node", "follow", "--network", config, "--home", str(tmp_path), "--json"]
    with served(blocks) as url:
        first = CliRunner().invoke(group, [*arguments, "--url", url, "--until", "20"])
        rest = CliRunner().invoke(group, [*arguments, "--url", url, "--once"])
    assert first.exit_code == 0, first.output
    assert rest.exit_code == 0, rest.output
    told = [json.loads(line) for line in first.stdout.splitlines()]
    assert [line["block"] for line in told] == list(range(1, 21))
    assert all(line["state_proof_hash"] == blocks[line["block"]]["state_proof_hash"] for line in told)
    resumed = [json.loads(line) for line in rest.stdout.splitlines()]
    assert told[-1]["final"] + 1 == resumed[0]["block"] > 1
    assert resumed[-1]["block"] == len(blocks) - 2


@pytest.mark.parametrize("config", CONFIGS)
def test_a_checkpoint_continues_with_the_same_answers(config: str, tmp_path: Path) -> None:
    blocks = chain_of(config)
    follower = followed(config, blocks, 25)
    file = tmp_path / "checkpoint.json.gz"
    write_checkpoint(file, follower.checkpoint())
    resumed = Follower.resume(network_of(config), read_checkpoint(file))
    assert resumed.number == follower.final_number
    for number in range(resumed.number + 1, len(blocks) - 1):
        verified = resumed.take(blocks[number], blocks[number + 1])
        assert verified.state_proof_hash == blocks[number]["state_proof_hash"]


def test_a_checkpoint_that_was_changed_is_refused(tmp_path: Path) -> None:
    checkpoint = followed("1-node", chain_of("1-node"), 10).checkpoint()
    changed = copy.deepcopy(checkpoint)
    changed["block"]["state_proof_hash"] = "0x" + "11" * 32
    with pytest.raises(CheckpointInvalid):
        Follower.resume(network_of("1-node"), changed)
    with pytest.raises(CheckpointInvalid):
        Follower.resume(network_of("3-nodes"), checkpoint)
    file = tmp_path / "torn.json.gz"
    write_checkpoint(file, checkpoint)
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(CheckpointInvalid):
        read_checkpoint(file)


def test_another_first_block_is_another_chain() -> None:
    blocks = chain_of("1-node")
    with pytest.raises(OtherChain):
        Follower.begin(network_of("1-node"), blocks[0], "0x" + "22" * 32)


@pytest.mark.parametrize("name", [name for name in network_names() if name.endswith("-prod")])
def test_the_first_block_of_the_public_networks_is_made_again(name: str) -> None:
    genesis = load_vectors(f"ain/genesis/{name}.genesis_block.json")
    follower = Follower.begin(network_of(name), genesis, genesis_hash_of(name))
    assert (follower.number, follower.genesis_hash) == (0, genesis_hash_of(name))


def test_a_changed_receipt_is_named_with_its_transaction() -> None:
    blocks = chain_of("1-node")
    number = next(n for n, block in enumerate(blocks) if n > 3 and len(block["receipts"]) > 1)
    changed = copy.deepcopy(blocks)
    changed[number]["receipts"][1]["gas_cost_total"] = 12345
    with pytest.raises(Difference) as found:
        followed("1-node", changed)
    assert found.value.facts["block"] == number
    assert found.value.facts["what"] == "receipt"
    assert found.value.facts["transaction"] == blocks[number]["transactions"][1]["hash"]
    assert "12345" in found.value.facts["got"]


def test_a_changed_first_block_is_found() -> None:
    blocks = copy.deepcopy(chain_of("1-node"))
    blocks[0]["transactions"][1]["tx_body"]["timestamp"] += 1
    with pytest.raises(Difference):
        Follower.begin(network_of("1-node"), blocks[0])


def test_a_dropped_block_and_a_dropped_vote_are_found() -> None:
    blocks = chain_of("3-nodes")
    with pytest.raises(Difference) as found:
        followed("3-nodes", [*blocks[:7], *blocks[8:]])
    assert found.value.facts["block"] in (6, 8)
    without_votes = copy.deepcopy(blocks)
    without_votes[9]["last_votes"] = without_votes[9]["last_votes"][:1]
    with pytest.raises(Difference) as found:
        followed("3-nodes", without_votes)
    assert found.value.facts["block"] == 9


def test_a_wrong_state_is_shown_path_by_path_and_the_report_is_kept(tmp_path: Path) -> None:
    """A validator that signs a wrong state hash: the only thing wrong is what executing gives."""
    config = "1-node"
    blocks = copy.deepcopy(chain_of(config))
    number = next(n for n, block in enumerate(blocks) if n > 5 and block["transactions"])
    honest = followed(config, blocks, number - 1)
    copy_of_state = followed(config, blocks, number)
    tree = copy_of_state.consensus.tip().state.tree
    lie = "/values/developers"
    labels = [label for label in lie.split("/") if label]
    assert isinstance(tree.node(labels[:1]), Branch)

    def proof_hash(path: str) -> str | None:
        if path == "/values" or path.startswith(lie):
            return "0x" + "33" * 32
        return tree.hash_of([label for label in path.split("/") if label])

    wrong = propose_again(blocks[number], blocks[number + 1], "0x" + "11" * 32)
    lying = [*blocks[:number], *wrong]
    with served(lying, proof_hash) as url:
        outcome = CliRunner().invoke(
            group, ["node", "follow", "--network", config, "--home", str(tmp_path), "--url", url, "--once"]
        )
    assert outcome.exit_code == 1, outcome.output
    assert honest.number == number - 1
    report = json.loads((tmp_path / "followed" / f"{config}-difference-{number}.json").read_text())
    assert (report["block"], report["what"], report["got"]) == (
        number,
        "state proof hash",
        "0x" + "11" * 32,
    )
    assert report["expected"] == chain_of(config)[number]["state_proof_hash"]
    assert report["paths"]
    assert any(place["path"].startswith(lie) for place in report["places"])


def test_the_source_is_asked_for_each_block_once() -> None:
    source = Recorded(chain_of("1-node"))
    asyncio.run(Following(network_of("1-node"), source, url="memory").run(is_once=True))
    assert sorted(source.asked) == list(range(len(source.blocks)))


def propose_again(block: Any, after: Any, state_hash: str) -> list[Any]:
    """A block with another state hash, and the next one with a proposal that fits it, both rightly signed."""
    accounts = load_vectors("ain/genesis/test_accounts.json")
    keys = {
        account["address"]: PrivateKey(bytes.fromhex(account["private_key"]))
        for account in [accounts["owner"], *accounts["others"]]
    }
    wrong = {name: item for name, item in block.items() if name != "hash"} | {"state_proof_hash": state_hash}
    new_hash = parse_block(wrong)["hash"]
    text = json.dumps(after["last_votes"]).replace(parse_block(block)["hash"], new_hash)
    votes = []
    for wire in json.loads(text):
        transaction = trusted_transaction(wire)
        votes.append(sign_transaction(transaction.body, keys[wire["address"]], 0).to_json())
    following = {name: item for name, item in after.items() if name != "hash"}
    return [wrong, following | {"last_hash": new_hash, "last_votes": votes}]
