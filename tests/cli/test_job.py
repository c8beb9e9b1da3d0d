"""Jobs by commands, on a real network with one provider: results, verdicts, exit codes, and refusals that name the way out."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from openresource.client.homes import Home
from tests.cli.support import MANIFEST, Outcome, funded_home, run_cli, run_here, serving, write_program
from tests.support.network import local_node_process

pytestmark = [pytest.mark.journey, pytest.mark.timeout(300)]

EXACT = MANIFEST.format(name="shout", version="1.0.0").replace(
    'license = "MIT"', 'license = "MIT"\nexactness = "bit_exact"'
)


@dataclass(frozen=True)
class Network:
    """A node, a provider without a bond, and two services: one that repeats exactly, one that does not say so."""

    buyer: Home
    node_url: str

    def run(self, *words: str) -> Outcome:
        return run_cli(*words, "--home", str(self.buyer.folder), "--node", self.node_url)


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Network]:
    folder = tmp_path_factory.mktemp("network")
    with local_node_process(folder / "node") as node:
        provide = ("provide", "--json", "--accept", "all", "--home", str(folder / "provider"))
        with serving(*provide, "--node", node.url):
            publisher = Home(folder / "publisher")
            publisher.create_wallet()
            exact = write_program(folder / "shout", manifest=EXACT)
            loose = write_program(folder / "mumble", name="mumble")
            for program in (exact, loose):
                done = run_cli("publish", str(program), "--home", str(publisher.folder), "--node", node.url)
                assert done.code == 0, done.err
            yield Network(funded_home(folder / "buyer", folder / "node", node.url), node.url)


@pytest.fixture(scope="module")
def settled(network: Network) -> list[dict[str, Any]]:
    """What `job run --json` says of an audited job: a line for the first result perhaps, and one for the verdict."""
    done = network.run("job", "run", "shout", "shout", "text=hello", "--policy", "audited", "--json")
    assert done.code == 0, done.err
    return [json.loads(line) for line in done.out.strip().splitlines()]


def test_a_job_gives_its_result_its_verdict_and_what_was_paid(network: Network) -> None:
    done = network.run("job", "run", "shout", "shout", "text=hello")
    assert done.code == 0 and done.is_plain(), done.err
    assert '"HELLO"' in done.out and "REQUESTED → LEASED → ACCEPTED" in done.out
    assert "nobody checked it" in done.out and "Paid 0.001 AIN." in done.out
    assert "asked for, 0.001 AIN set aside" in done.err


def test_the_verdict_comes_as_json_with_every_run_and_every_move(settled: list[dict[str, Any]]) -> None:
    verdict = settled[-1]
    assert verdict["status"] == "ACCEPTED" and verdict["provisional"] is False and verdict["value"] == "HELLO"
    (run,) = verdict["executions"]
    assert (run["role"], run["mark"]) == ("worker", "agrees")
    assert all(first["provisional"] is True and first["value"] == "HELLO" for first in settled[:-1])
    into = sum(move["uain"] for move in verdict["moves"] if move["to"] == "job")
    assert (
        into
        == verdict["budget_uain"]
        == sum(move["uain"] for move in verdict["moves"] if move["from"] == "job")
    )
    assert verdict["paid_uain"] + verdict["returned_uain"] <= verdict["budget_uain"]


def test_a_job_is_listed_shown_and_explained(network: Network, settled: list[dict[str, Any]]) -> None:
    job = settled[-1]["job"]
    listed = network.run("job", "list", "--json").json
    assert (
        job in [one["job"] for one in listed]
        and listed[0]["requested_at_ms"] >= listed[-1]["requested_at_ms"]
    )
    assert job in network.run("job", "list").out
    shown = network.run("job", "show", job, "--json")
    assert shown.code == 0 and shown.json["headline"] == settled[-1]["headline"]
    text = network.run("job", "show", job).out
    assert "policy audited" in text and "Paid 0.001 AIN" in text
    explained = network.run("job", "explain", job, "--json")
    assert explained.code == 0 and explained.json["matches"] is True
    assert explained.json["verdict"]["status"] == "ACCEPTED"
    assert "is the one that was written" in network.run("job", "explain", job).out


def test_a_result_is_disputed_by_command_for_what_was_said_before(
    network: Network, settled: list[dict[str, Any]]
) -> None:
    job = settled[-1]["job"]
    told = network.run("job", "dispute", job, "--dry-run", "--json")
    assert told.code == 0 and told.json["bond_uain"] == 100_000 and told.json["dry_run"] is True, told.err
    assert "Would bond 0.1 AIN" in network.run("job", "dispute", job, "--dry-run").out
    # Nobody else runs it, so nobody can say that the provider was wrong: the bond is back at once.
    done = network.run("job", "dispute", job, "--reason", "It looks odd.", "--json")
    assert done.code == 1 and done.json["status"] == "ACCEPTED", done.err
    bonds = [move for move in done.json["moves"] if move["why"] == "dispute_bond"]
    assert [move["uain"] for move in bonds] == [100_000, 100_000] and bonds[0]["from"] == bonds[1]["to"]
    assert network.run("job", "explain", job, "--json").json["matches"] is True


def test_a_program_that_fails_ends_its_job_and_nobody_is_paid(network: Network) -> None:
    done = network.run("job", "run", "shout", "refuse", "--json")
    assert done.code == 1 and done.json["status"] == "FAILED", done.err
    assert done.json["paid_uain"] == 0 and done.json["returned_uain"] == done.json["budget_uain"]
    assert done.is_plain()


def test_a_job_that_nobody_can_finish_expires_with_its_own_exit_code(network: Network) -> None:
    # Whoever takes part in a quorum has a bond, and the one provider has none.
    done = network.run(
        "job", "run", "shout", "shout", "text=hello", "--policy", "quorum:2/2", "--deadline", "15", "--json"
    )
    assert done.code == 4 and done.is_plain(), done.err
    if "status" in done.json:
        assert done.json["status"] == "EXPIRED" and done.json["returned_uain"] == done.json["budget_uain"]
    else:
        assert done.json["error"]["code"] == "job-not-in-time"


def test_what_it_would_cost_is_said_without_asking(network: Network) -> None:
    before = network.run("job", "list", "--json").json
    done = network.run(
        "job", "run", "shout", "shout", "text=hello", "--policy", "audited", "--dry-run", "--json"
    )
    # A worker, and the audit that may be drawn; the royalty once.
    assert done.code == 0 and done.json["budget_uain"] == 1_900 and done.json["dry_run"] is True
    assert network.run("job", "list", "--json").json == before


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (("run", "shout", "shout", "text=a", "--policy", "quorum:1/3"), 2, "more than half"),
        (("run", "shout", "shout", "text=a", "--policy", "twice"), 2, "quorum:2/3"),
        (("run", "shout", "shout", "text=a", "--input", "x.json"), 2, "not both"),
        (("run", "shout", "shout", "text=a", "--budget", "0.5"), 5, "money limit --per-call"),
        (("run", "mumble", "shout", "text=a", "--policy", "audited"), 1, "Use policy one"),
        (("run", "nothing", "text=a"), 1, "nothing"),
        (("show", "ab" * 16), 1, "openresource job list"),
        (("explain", "ab" * 16), 1, "openresource job list"),
        (("dispute", "ab" * 16), 1, "openresource job list"),
        (("dispute", "ab" * 16, "--reason", "r" * 201), 2, "200 are allowed"),
    ],
)
def test_what_is_refused_says_why_and_what_to_do(
    network: Network, words: tuple[str, ...], code: int, said: str
) -> None:
    done = run_here("job", *words, "--home", str(network.buyer.folder), "--node", network.node_url)
    assert (done.code, said in done.err) == (code, True), done.err
    assert done.is_plain()


def test_a_wallet_without_jobs_is_told_how_to_ask_for_one(network: Network, tmp_path: Path) -> None:
    home = Home(tmp_path / "home")
    home.create_wallet()
    done = run_cli("job", "list", "--home", str(home.folder), "--node", network.node_url)
    assert done.code == 0 and "openresource job run SERVICE" in done.out
