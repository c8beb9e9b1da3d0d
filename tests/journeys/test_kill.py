"""Node, providers and buyer are killed at random instants: nothing acknowledged is lost, nothing is paid twice, and at
the end every coin is where it belongs.

    OPENRESOURCE_KILL_ROUNDS=200   so many rounds, once for each kind of victim (`scripts/long kill`)
    OPENRESOURCE_KILL_SEED=…       the instants and victims of a run that failed
"""

from __future__ import annotations

import asyncio
import os
import random
import signal
import subprocess
import time
from collections import Counter
from pathlib import Path
from typing import Any

import httpx2
import pytest

from openresource.client import AsyncClient
from openresource.client.chain import Chain
from openresource.client.channels import NoSuchChannel
from openresource.client.homes import Home
from tests.journeys.stage import (
    Log,
    NodeChild,
    Stage,
    buyer_child,
    command_line,
    ended,
    provider_child,
    wait_until,
    write_program,
)
from tests.support.network import NodeProcess

pytestmark = [pytest.mark.kill, pytest.mark.journey]

IS_LONG = "OPENRESOURCE_KILL_ROUNDS" in os.environ
ROUNDS = int(os.environ.get("OPENRESOURCE_KILL_ROUNDS", "30"))
VICTIMS = ("node", "provider", "buyer") if IS_LONG else ("anybody",)
BUYER_UAIN = 100_000_000
TREASURY = "treasury|market|fees"
# So long may everybody take to be at work again on a machine that has other things to do.
AT_WORK_SECONDS = 120.0
# One time in so many a provider is asked to leave in good order.
LEAVES_ONE_IN = 6


@pytest.mark.timeout(14_400 if IS_LONG else 900)
@pytest.mark.parametrize("victims", VICTIMS)
def test_kill_anybody_at_any_time_and_no_coin_and_no_answer_is_lost(victims: str, tmp_path: Path) -> None:
    seed = int(os.environ.get("OPENRESOURCE_KILL_SEED", random.SystemRandom().randrange(1 << 32)))
    print(f"OPENRESOURCE_KILL_SEED={seed}")
    stage = set_up(tmp_path)
    with ended(stage):
        try:
            supply_uain = asyncio.run(supply(stage.node.url))
            stage.buyer.start()
            at_work(stage, 0)
            kill_for_a_while(stage, victims, random.Random(seed))
            stage.buyer.kill()
            asyncio.run(check_what_was_acknowledged(stage))
            asyncio.run(close_all_channels(stage))
            asyncio.run(check_sums(stage, supply_uain))
            for provider in stage.providers:
                provider.end(signal.SIGTERM)
            asyncio.run(check_books(stage))
        except BaseException:
            print(stage.last_words())
            raise


# ── The stage ────────────────────────────────────────────────────────────────────────────────────────────────────


def set_up(folder: Path) -> Stage:
    """A node with money, two providers, a published service, a buyer who is ready to start."""
    node = NodeChild(folder / "node")
    node.start()
    homes = {
        name: Home(folder / name) for name in ("provider-1", "provider-2", "publisher", "buyer", "friend")
    }
    keys = {name: home.create_wallet() for name, home in homes.items()}
    providers = [provider_child(folder, name, homes[name], node.url) for name in ("provider-1", "provider-2")]
    service = f"{keys['publisher'].address}/shout"
    log = Log(folder / "told")
    buyer = buyer_child(folder, homes["buyer"], node.url, service, keys["friend"].address, log.path)
    stage = Stage(folder, node, providers, buyer, log, keys["publisher"], keys["friend"].address, homes)
    try:
        for provider in providers:
            provider.start()
        program = write_program(folder / "program")
        words = ("publish", str(program), "--home", str(homes["publisher"].folder), "--node", node.url)
        published = subprocess.run(command_line(*words), capture_output=True, text=True, timeout=180)
        assert published.returncode == 0, published.stderr
        asyncio.run(node.fund(keys["buyer"].address, BUYER_UAIN))
        wait_until(lambda: asyncio.run(placed(node, service)) == 2, 60, "both providers to run it")
    except BaseException:
        print(stage.last_words())
        for one in reversed(stage.everybody()):
            one.kill()
        raise
    return stage


async def placed(node: NodeProcess, service: str) -> int:
    async with Chain(node.url) as chain:
        record = await chain.read(f"/placements/{service}") or {}
        return sum(one["status"] == "PLACED" for version in record.values() for one in version.values())


def kill_for_a_while(stage: Stage, victims: str, chance: random.Random) -> None:
    for _ in range(ROUNDS):
        before = len(stage.log.answers())
        victim = chosen(stage, victims, chance)
        # At any instant of what goes on, also in the middle of a start.
        time.sleep(chance.uniform(0, 0.4))
        if victim in stage.providers and chance.randrange(LEAVES_ONE_IN) == 0:
            # It claims and says goodbye, and may be killed in the middle of that too.
            victim.end(signal.SIGTERM, patience_seconds=chance.choice((0.1, 0.3, 1.0, 30.0)))
        else:
            victim.kill()
        time.sleep(chance.uniform(0, 0.2))
        victim.start()
        if chance.randrange(3):
            at_work(stage, before)
    at_work(stage, len(stage.log.answers()))


def chosen(stage: Stage, victims: str, chance: random.Random) -> Any:
    kinds = {"node": [stage.node], "provider": stage.providers, "buyer": [stage.buyer]}
    return chance.choice(kinds.get(victims) or [stage.node, *stage.providers, stage.buyer])


def at_work(stage: Stage, before: int) -> None:
    """Everybody lives, and answers come in."""
    for one in stage.everybody():
        assert one.is_running(), f"{one.name} ended by itself"
    wait_until(lambda: len(stage.log.answers()) > before, AT_WORK_SECONDS, "an answer")


# ── What must hold ───────────────────────────────────────────────────────────────────────────────────────────────


async def check_what_was_acknowledged(stage: Stage) -> None:
    """Transactions that were final still are; receipts that the buyer holds are shown by the provider that gave them."""
    async with Chain(stage.node.url) as chain:
        for tx_hash in stage.log.finals():
            info = await chain.transaction(tx_hash)
            assert info is not None and info.is_final, f"the final transaction {tx_hash} is lost"
    answers = stage.log.answers()
    ids = [answer["answer"] for answer in answers]
    assert len(set(ids)) == len(ids), "two answers came with one receipt"
    endpoints = {child.facts["provider"]: child.facts["endpoint"] for child in stage.providers}
    async with httpx2.AsyncClient(verify=False, trust_env=False, timeout=60) as http:
        for answer in answers:
            shown = await http.get(f"{endpoints[answer['provider']]}/receipts/{answer['answer']}")
            assert shown.status_code == 200, f"the receipt {answer['answer']} is lost"
            assert shown.json()["price_uain"] == answer["price_uain"]


async def close_all_channels(stage: Stage) -> None:
    """Each channel gives back what was not spent."""
    async with AsyncClient(stage.homes["buyer"], stage.node.url) as client:
        calls, channels = await client.calls(), await client.channels()
        buyer = client.home.address()
        on_chain = {f"{buyer}/{label}" async for label in client.chain.children(f"/channels/{buyer}")}
        known = {
            one.name for one in client.books.channels((await client.network()).genesis_hash, with_closed=True)
        }
        assert on_chain <= known, "a channel that the books do not know"
        for name in sorted(known):
            try:
                shown = await channels.on_chain(name)
            except NoSuchChannel:
                continue
            if shown.channel.value_uain:
                await calls.settle(name)
                assert (await channels.on_chain(name)).channel.value_uain == 0


async def check_sums(stage: Stage, supply_uain: int) -> None:
    """What the buyer spent is what the others got, and no coin came or went."""
    async with Chain(stage.node.url) as chain:
        buyer = stage.homes["buyer"].address()
        spent_uain = BUYER_UAIN - await chain.balance(buyer)
        friend_uain = await chain.balance(stage.friend)
        providers_uain = 0
        for child in stage.providers:
            providers_uain += await chain.balance(child.facts["provider"])
        royalty_uain = await chain.balance(stage.publisher.address)
        fee_uain = await chain.balance(TREASURY)
        assert spent_uain == friend_uain + providers_uain + royalty_uain + fee_uain
        assert friend_uain >= len(stage.log.finals())
        claimed_uain = 0
        async for label in chain.children(f"/channels/{buyer}"):
            claimed_uain += (await chain.read(f"/channels/{buyer}/{label}/state"))["claimed_uain"]
        assert claimed_uain == providers_uain + royalty_uain + fee_uain
        claims = await successful_claims(chain)
        twice = [claim for claim, times in Counter(claims).items() if times > 1]
        assert not twice, f"claimed twice: {twice}"
    assert await supply(stage.node.url) == supply_uain


async def check_books(stage: Stage) -> None:
    """Receipts, claims and the buyer's own books tell one story."""
    receipts = stage.receipts()
    told = Counter(str(line.get("refused", "answered or final")) for line in stage.log.lines())
    print(f"{len(receipts)} receipts, {len(stage.log.answers())} answers arrived; told: {dict(told)}")
    by_id = {receipt["id"]: receipt for receipt in receipts}
    assert len(by_id) == len(receipts)
    places = Counter((one["channel"], one["nonce"], one["completed"]) for one in receipts)
    assert max(places.values()) == 1, "two receipts at one place"
    numbers = Counter((one["session"], one["sequence"]) for one in receipts)
    assert max(numbers.values()) == 1, "one call was paid twice"
    for answer in stage.log.answers():
        assert by_id[answer["answer"]]["channel"] == answer["channel"]
    by_channel: Counter[str] = Counter()
    for receipt in receipts:
        by_channel[receipt["channel"]] += receipt["price_uain"]
    async with AsyncClient(stage.homes["buyer"], stage.node.url) as client:
        for name, price_uain in by_channel.items():
            buyer, _, label = name.partition("/")
            state = await client.chain.read(f"/channels/{buyer}/{label}/state")
            assert state["claimed_uain"] == price_uain, f"{name} was not claimed to the last receipt"
        assert client.books.spent_uain(0) == sum(by_channel.values())
        for answer in stage.log.answers():
            assert client.books.receipt(answer["answer"]) is not None


async def successful_claims(chain: Chain) -> list[tuple[str, int]]:
    """Channel and nonce of every claim in the chain."""
    found = []
    height = (await chain.status()).height
    for number in range(height + 1):
        block = await chain.rpc("ain_getBlockByNumber", {"number": number, "getFullTransactions": True})
        for transaction in block["transactions"]:
            operation = transaction["tx_body"]["operation"]
            for one in operation.get("op_list", [operation]):
                labels = one["ref"].strip("/").split("/")
                if len(labels) == 5 and labels[0] == "channels" and labels[3] == "claim":
                    info = await chain.transaction(transaction["hash"])
                    assert info is not None
                    if info.state == "FINALIZED":
                        found.append((f"{labels[1]}/{labels[2]}", int(one["value"]["nonce"])))
    return found


async def supply(node_url: str) -> int:
    async with Chain(node_url) as chain:
        return int((await chain.rpc("ore_supply", {"at": "final"}))["total_uain"])
