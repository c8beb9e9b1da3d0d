"""A program is stopped by a vote of the stake and given back by another, everybody a process of its own: what its
provider, the node and the client say, where the coins are, and what stays.

Beside it: a service that nobody owns any more, and a fork that keeps its lineage.
"""

from __future__ import annotations

import asyncio
import json
import signal
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
import pytest

from openresource.client.chain import Chain, TransactionRefused
from openresource.client.homes import Home
from openresource.market.codes import ResultCode
from tests.cli.support import Outcome, run_cli
from tests.journeys.stage import Child, provider_child, wait_until, write_program
from tests.support.network import NodeProcess, local_node_process

pytestmark = [pytest.mark.journey, pytest.mark.timeout(600)]

# Long enough for three people on a machine that has other things to do.
VOTE_MS, DELAY_MS = 40_000, 12_000
PARAMETERS = {
    "market": {
        "kill_vote_ms": VOTE_MS,
        "kill_delay_ms": DELAY_MS,
        "kill_deposit_uain": 2_000_000,
        "kill_stake_uain_min": 5_000_000,
        "stake_delay_ms": 1_000,
    }
}
NAMES = ("provider", "publisher", "buyer", "holder-1", "holder-2", "holder-3")
FUNDS_UAIN = 20_000_000
TREASURY = "treasury|market|fees"
WORKS_SECONDS = 60.0


@dataclass
class Scene:
    """A network with a service on it, and people who have staked."""

    folder: Path
    node: NodeProcess
    homes: dict[str, Home]
    provider: Child
    service: str = ""
    program: str = ""

    def say(self, who: str, *words: str) -> Outcome:
        """A command of somebody; whatever becomes of it, it is said plainly."""
        place = ("--home", str(self.homes[who].folder), "--node", self.node.url)
        done = run_cli(*words, *place)
        assert done.is_plain(), done.out + done.err
        return done

    def done(self, who: str, *words: str) -> Any:
        """What a command that succeeds says with --json."""
        outcome = self.say(who, *words, "--json")
        assert outcome.code == 0, outcome.out + outcome.err
        return outcome.json

    def refused(self, who: str, code: str, *words: str) -> str:
        """What a command that is refused says."""
        outcome = self.say(who, *words, "--json")
        assert outcome.code == 1, outcome.out + outcome.err
        error = outcome.json["error"]
        # What the chain refuses tells its way out in the message.
        assert error["code"] == code and (error["remedy"] or code == "transaction-refused"), error
        return str(error["message"])

    def address(self, who: str) -> str:
        return self.homes[who].address()

    def read(self, path: str) -> Any:
        return asyncio.run(self._with_chain(lambda chain: chain.read(path)))

    def balance(self, account: str) -> int:
        return int(asyncio.run(self._with_chain(lambda chain: chain.balance(account))))

    def status(self) -> str:
        return str(self.done("buyer", "program", "show", self.program)["standing"]["status"])

    async def _with_chain(self, work: Callable[[Chain], Any]) -> Any:
        async with Chain(self.node.url) as chain:
            return await work(chain)


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    folder = tmp_path_factory.mktemp("kill-vote")
    with local_node_process(folder / "node", parameters=PARAMETERS) as node:
        homes = {name: Home(folder / name) for name in NAMES}
        for home in homes.values():
            asyncio.run(node.fund(home.create_wallet().address, FUNDS_UAIN))
        provider = provider_child(folder, "provider", homes["provider"], node.url)
        made = Scene(folder, node, homes, provider)
        try:
            provider.start()
            published = made.done("publisher", "publish", str(write_program(folder / "program")))
            made.service, made.program = published["service"], published["program"]
            for name, amount in (("holder-1", "6"), ("holder-2", "5"), ("holder-3", "2")):
                made.done(name, "stake", "add", amount)
            yield made
        except BaseException:
            print(provider.last_words())
            raise
        finally:
            provider.end(signal.SIGTERM)


def test_a_vote_stops_a_program_everywhere_and_an_appeal_gives_it_back(scene: Scene) -> None:
    assert scene.done("buyer", "call", "shout", "text=good morning")["value"] == "GOOD MORNING"
    endpoint = placement(scene)["endpoint"]
    supply_uain = sum(scene.balance(scene.address(name)) for name in NAMES)

    # Somebody saw harm, and the publisher answers.
    report = scene.done("buyer", "report", "shout", "it shouts what it should keep")["report"]
    scene.done("publisher", "program", "answer", "shout", report, "it keeps nothing")
    proof = scene.folder / "proof.txt"
    proof.write_text("HEARD FROM ACROSS THE STREET\n")

    planned = scene.done("buyer", "program", "kill", "shout", "--reason", "x", "--evidence", "y", "--dry-run")
    assert planned["deposit_uain"] == 2_000_000 and scene.read("/kills") is None
    asked = scene.done(
        "buyer", "program", "kill", "shout", "--reason", "it shouts secrets", "--evidence", str(proof)
    )
    assert asked["stake_uain"] == 13_000_000 and asked["closes_at_ms"] - asked["began_at_ms"] == VOTE_MS
    everybody_votes(scene, {"holder-1": "yes", "holder-2": "yes", "holder-3": "no"})
    ballot = f"/kills/{scene.program}/votes/{asked['ballot']}"
    for who, code in (("holder-1", ResultCode.VOTED_ALREADY), ("buyer", ResultCode.STAKE_TOO_YOUNG)):
        assert chain_refuses(scene, f"{ballot}/{scene.address(who)}", {"choice": "no"}, who) == code
    deposit = next(one for one in scene.done("buyer", "money")["places"] if one["place"] == "vote")
    assert deposit["amount_uain"] == 2_000_000
    evidence = scene.read(f"/kills/{scene.program}/ballots/{asked['ballot']}/evidence")
    kept = asyncio.run(scene._with_chain(lambda chain: chain.get_files(evidence)))
    assert kept == {"proof.txt": proof.read_bytes()}

    # Decided, and served as before until the delay is over.
    wait_until(lambda: standing(scene) == "DOOMED", 2 * VOTE_MS / 1000, "the vote to be counted")
    assert raw_call(endpoint, scene).status_code in (200, 402)
    wait_until(lambda: standing(scene) == "KILLED", 2 * VOTE_MS / 1000, "the delay to be over")

    # The provider refuses the next call with the reason, and takes the program away.
    refused = wait_until(lambda: refusal_of(raw_call(endpoint, scene)), WORKS_SECONDS, "the provider's no")
    assert refused["code"] == "program-killed" and "it shouts secrets" in refused["message"]
    wait_until(lambda: placement(scene)["status"] == "GONE", WORKS_SECONDS, "the provider to leave")
    # The client refuses before it pays, whoever asks.
    told = scene.refused("buyer", "program-killed", "call", "shout", "text=again")
    assert "it shouts secrets" in told
    scene.refused("buyer", "program-killed", "quote", f"{scene.service}@{scene.program}")
    # The node refuses what would begin anew, whatever client wrote it.
    for path, value in new_beginnings(scene):
        assert chain_refuses(scene, path, value) == ResultCode.PROGRAM_KILLED
    # What was bought before is settled; bytes and history stay.
    wait_until(lambda: nothing_in_channels(scene), WORKS_SECONDS, "the buyer's deposit to come back")
    files = asyncio.run(scene._with_chain(lambda chain: chain.get_files(scene.program)))
    assert set(files) >= {"openresource.toml", "shout.sh"}
    assert scene.read(f"/services/{scene.service}/versions/{scene.program}") is not None
    shown = scene.done("buyer", "program", "show", scene.program)
    assert shown["standing"]["status"] == "KILLED" and len(shown["ballots"][0]["votes"]) == 3
    assert shown["reports"][0]["answers"][0]["reason"] == "it keeps nothing"

    # An appeal, by another vote.
    answer = scene.folder / "answer.txt"
    answer.write_text("The street was empty.\n")
    scene.done(
        "publisher", "program", "appeal", scene.program, "--reason", "forged", "--evidence", str(answer)
    )
    everybody_votes(scene, {"holder-1": "yes", "holder-2": "no", "holder-3": "yes"})
    wait_until(lambda: standing(scene) == "RUNNING", 2 * VOTE_MS / 1000, "the appeal to be counted")
    wait_until(lambda: placement(scene)["status"] == "PLACED", WORKS_SECONDS, "the provider to come back")
    assert scene.done("buyer", "call", "shout", "text=good evening")["value"] == "GOOD EVENING"

    # Both who asked were no spammers; nobody lost a coin but for calls.
    wait_until(lambda: scene.read(f"/kills/{scene.program}/state/ballot") is None, 60, "no vote to be open")
    staked = sum(scene.balance(f"deposits|market|stake:{scene.address(name)}") for name in NAMES)
    assert staked == scene.read("/staked/total_uain") == 13_000_000
    assert scene.balance(f"deposits|market|ballot:{scene.program}:{asked['ballot']}") == 0
    held = sum(scene.balance(scene.address(name)) for name in NAMES) + in_channels(scene)
    assert supply_uain - held <= scene.balance(TREASURY)

    # What the provider was paid is its reputation, in the form that other registries read.
    provider = scene.address("provider")
    standing_now = scene.done("holder-1", "provider", "reputation", provider)
    assert standing_now["buyers"] == 1
    assert standing_now["score_uain"] < standing_now["weighted_uain"] == standing_now["fee_uain"]
    files = scene.done("holder-1", "provider", "reputation", provider, "--erc8004")
    assert files["registration"]["active"] and files["feedback"][0]["tag1"] == "paidWork"

    # Who unstakes gets it back.
    before = scene.balance(scene.address("holder-3"))
    scene.done("holder-3", "stake", "withdraw", "2")
    wait_until(
        lambda: scene.balance(scene.address("holder-3")) == before + 2_000_000, 60, "the stake to come back"
    )


def test_what_was_forked_keeps_its_lineage_and_what_was_renounced_stays(scene: Scene) -> None:
    forked = scene.done(
        "holder-1", "program", "fork", scene.service, "loud", "--into", str(scene.folder / "loud")
    )
    assert forked["fork_of"]["program"] == scene.program
    service, program = forked["publication"]["service"], forked["publication"]["program"]
    assert service == f"{scene.address('holder-1')}/loud" and program != scene.program
    version = scene.read(f"/services/{service}/versions/{program}")
    publisher = scene.address("publisher")
    assert version["fork_of"] == {"publisher": publisher, "name": "shout", "program": scene.program}
    assert scene.read(f"/programs/{program}/parent") == scene.program
    assert scene.done("buyer", "call", service, "text=mine")["value"] == "MINE"

    # The next version, changed, keeps it without anybody thinking of it.
    manifest = scene.folder / "loud" / "openresource.toml"
    manifest.write_text('version = "0.2.0"\n' + manifest.read_text())
    changed = scene.done("holder-1", "publish", str(scene.folder / "loud"))
    again = scene.read(f"/services/{service}/versions/{changed['program']}")
    assert again["version"] == "0.2.0" and again["fork_of"] == version["fork_of"]
    assert scene.read(f"/forks/{scene.service}") == {scene.address("holder-1"): {"loud": scene.program}}
    shown = scene.done("buyer", "services", "show", service)
    assert [(one["service"], one["version"]) for one in shown["lineage"]] == [(scene.service, "0.1.0")]
    assert [one["text"] for one in shown["labels"]] == ["unaudited"]
    source = scene.done("buyer", "services", "show", scene.service)
    assert [one["service"] for one in source["forks"]] == [service] and source["lineage"] == []
    # Lineage is nobody's mere word.
    false = again | {"fork_of": {**again["fork_of"], "name": "whisper"}, "version": "0.3.0"}
    path = f"/services/{service}/versions/{scene.program}"
    code = chain_refuses(scene, path, {k: v for k, v in false.items() if k not in STAMPED}, "holder-1")
    assert code == ResultCode.FORK_SOURCE_MISSING

    assert scene.done("holder-1", "program", "renounce", "loud", "--dry-run")["version"] == "0.2.0"
    assert scene.say("holder-1", "program", "renounce", "loud").code == 2
    scene.done("holder-1", "program", "renounce", "loud", "--for-good")
    manifest.write_text(manifest.read_text().replace("0.2.0", "0.3.0"))
    told = scene.refused("holder-1", "transaction-refused", "publish", str(scene.folder / "loud"))
    assert "Nobody owns" in told
    scene.refused("holder-1", "transaction-refused", "permit", "loud", "--call", scene.address("buyer"))
    scene.refused("holder-1", "transaction-refused", "rollback", "loud")
    assert scene.done("buyer", "call", service, "text=still here")["value"] == "STILL HERE"


STAMPED = ("number", "published_at_ms")


def standing(scene: Scene) -> str:
    return str((scene.read(f"/kills/{scene.program}/state") or {}).get("status", "RUNNING"))


def placement(scene: Scene) -> dict[str, Any]:
    return dict(scene.read(f"/placements/{scene.service}/{scene.program}/{scene.address('provider')}"))


def everybody_votes(scene: Scene, choices: dict[str, str]) -> None:
    """All at once, as the time for it is short here."""
    with ThreadPoolExecutor(len(choices)) as together:
        votes = [
            together.submit(scene.done, who, "program", "vote", scene.program, choice)
            for who, choice in choices.items()
        ]
        assert all(vote.result()["weight_uain"] for vote in votes)


def raw_call(endpoint: str, scene: Scene) -> httpx2.Response:
    """A call that asks nobody but the provider."""
    url = f"{endpoint}/services/{scene.service}/{scene.program}/shout"
    return httpx2.post(url, json={"text": "hello"}, verify=False, trust_env=False, timeout=60)


def refusal_of(response: httpx2.Response) -> Any:
    return json.loads(response.content)["error"] if response.status_code == 410 else None


def new_beginnings(scene: Scene) -> list[tuple[str, Any]]:
    provider, publisher = scene.address("provider"), scene.address("publisher")
    opening = {
        "publisher": publisher,
        "name": "shout",
        "program": scene.program,
        "provider": provider,
        "deposit_uain": 100_000,
        "expires_at_ms": int(time.time() * 1000) + 3_600_000,
    }
    buyer = scene.address("buyer")
    return [
        (f"/channels/{buyer}/{'ab' * 16}/open", opening),
        (f"/placements/{scene.service}/{scene.program}/{buyer}", {"status": "OFFERED"}),
    ]


def chain_refuses(scene: Scene, path: str, value: Any, who: str = "buyer") -> int:
    """The code with which the node refuses a write."""

    async def writing(chain: Chain) -> int:
        try:
            await chain.write(path, value, scene.homes[who].wallet())
        except TransactionRefused as refusal:
            return int(refusal.result_code)
        return 0

    return int(asyncio.run(scene._with_chain(writing)))


def in_channels(scene: Scene) -> int:
    buyer = scene.address("buyer")
    channels = scene.read(f"/channels/{buyer}") or {}
    return sum(scene.balance(f"channels|market|{buyer}:{channel}") for channel in channels)


def nothing_in_channels(scene: Scene) -> bool:
    return in_channels(scene) == 0
