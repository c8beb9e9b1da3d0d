"""A node that begins at a peer's state: what it takes, what liars hand it, and what it believes until the chain is whole."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import gzip
import json
import random
import shutil
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any

import pytest

from openresource.ledger.blocks import build_block
from openresource.ledger.consensus_papers import vote_body
from openresource.ledger.snapshots import radix_snapshot
from openresource.ledger.transactions import sign_transaction
from openresource.ledger.tree import Tree
from openresource.node.ain import state_sync
from openresource.node.ain.ancestry import BlockUnusable, TooFewVotes, block_from_peer, check_votes
from openresource.node.ain.chain import AinChain, genesis_state
from openresource.node.ain.parameters import DEFAULTS, NodeParameters
from openresource.node.ain.state_sync import (
    OLD_RESPONSE,
    REQUEST,
    RESPONSE,
    ChainOfPeerFalse,
    PeerStateRefused,
    StateSync,
    _tree_from,
)
from openresource.node.ain.storage import flat_rows
from openresource.primitives.values import deep_equal
from tests.fuzz.mutation import Mutator
from tests.support.ain import ain_network
from tests.support.little_network import GENESIS, KEYS, LittleNetwork, Member

NETWORK = ain_network("3-nodes")
SNAPSHOT_AT = 7
# What a liar makes of an answer.
Twist = Callable[[str, Any], Any]
Job = Callable[["Post"], Coroutine[Any, Any, None]]


class Seat:
    """What the exchange needs of a node, for a member of a little network."""

    def __init__(self, member: Member) -> None:
        self.member = member
        self.parameters = NodeParameters(
            {**DEFAULTS, "OLD_CHAIN_SEGMENT_LENGTH": 4, "OLD_CHAIN_SEGMENT_SLEEP_MS": 0}, {}
        )

    @property
    def chain(self) -> AinChain:
        return self.member.chain


class Post:
    """Carries messages between the members' exchanges; some of them may twist what they answer."""

    def __init__(self, network: LittleNetwork) -> None:
        self.twists: dict[str, Twist] = {}
        self.told: list[tuple[str, str]] = []
        self.members = {member.key.address: member for member in network.members}
        self.syncs = {address: self._sync(address) for address in self.members}

    def _sync(self, address: str) -> StateSync:
        member = self.members[address]
        return StateSync(Seat(member), member.storage, _Desk(self, address))

    def reopened(self, member: Member) -> None:
        self.syncs[member.key.address] = self._sync(member.key.address)


class _Desk:
    def __init__(self, post: Post, address: str) -> None:
        self._post = post
        self._address = address

    def addresses(self) -> list[str]:
        return [one for one in self._post.members if one != self._address]

    def tell(self, address: str, kind: str, data: Any) -> bool:
        self._post.told.append((self._address, kind))
        twist = self._post.twists.get(self._address)
        if twist is not None and kind in (RESPONSE, OLD_RESPONSE):
            data = twist(kind, data)
        # As on a link: what arrives is what JSON makes of it, and later.
        text = json.dumps(data)
        asyncio.get_running_loop().call_soon(
            lambda: self._post.syncs[address].take(kind, json.loads(text), self._address)
        )
        return True


@pytest.fixture(scope="module")
def grown(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, int]:
    """Two members with a chain and a snapshot in its middle, and a third that was never there; the time there."""
    folder = tmp_path_factory.mktemp("grown")
    made = LittleNetwork(folder, 3)
    made.away.add(KEYS[2].address)
    pair = made.members[:2]
    while min(member.chain.final_number for member in pair) < SNAPSHOT_AT:
        made.epoch()
    assert len({member.chain.final_number for member in pair}) == 1
    for member in pair:
        member.storage.write_snapshot(member.chain.final_number, member.chain.final.tree.freeze().root, 3)
    while pair[0].chain.final_number < SNAPSHOT_AT + 6:
        made.epoch()
    made.close()
    return folder, made.now_ms


@pytest.fixture
def network(grown: tuple[Path, int], tmp_path: Path) -> Iterator[LittleNetwork]:
    """The same network, to go on with."""
    folder, now_ms = grown
    shutil.copytree(folder, tmp_path, dirs_exist_ok=True)
    made = LittleNetwork(tmp_path, 3)
    made.now_ms = now_ms
    made.away.add(KEYS[2].address)
    yield made
    made.close()


@pytest.fixture(autouse=True)
def small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(state_sync, "CHUNK_BYTES", 2_000)
    monkeypatch.setattr(state_sync, "ROUND_SECONDS", 0.001)


def run(job: Coroutine[Any, Any, None]) -> None:
    async def bounded() -> None:
        async with asyncio.timeout(150):
            await job

    asyncio.run(bounded())


def catch_up(late: Member, peer: Member) -> None:
    """As a node does that has a state: by ordinary blocks."""
    while late.rounds.merge(peer.rounds.segment(late.chain.final_number + 1)):
        pass


def same_chain(first: Member, second: Member, begin: int = 0) -> bool:
    last = min(first.chain.final_number, second.chain.final_number)
    return all(deep_equal(first.chain.block(n), second.chain.block(n)) for n in range(begin, last + 1))


async def begin(post: Post, network: LittleNetwork) -> Member:
    """The third member stands at a state of the others and has caught up."""
    late, first = network.members[2], network.members[0]
    await post.syncs[late.key.address].fetch_state()
    assert late.chain.final_number == snapshot_of(first)
    catch_up(late, first)
    # The papers of later blocks come with them, so it may even know a little more.
    assert late.chain.final_number >= first.chain.final_number
    return late


def snapshot_of(member: Member) -> int:
    return member.storage.snapshot_numbers()[0]


def test_a_node_begins_at_a_peers_state_and_fetches_the_blocks_before(network: LittleNetwork) -> None:
    async def journey() -> None:
        post = Post(network)
        late = await begin(post, network)
        first = network.members[0]
        assert sum(kind == REQUEST for _, kind in post.told) > 3
        begun = snapshot_of(first)
        assert same_chain(first, late, begun)
        assert late.chain.block(begun - 1) is None and len(late.chain.blocks(0, begun + 1)) == 2
        assert late.storage.oldest_number() == begun
        await post.syncs[late.key.address].fetch_old_blocks()
        assert late.storage.oldest_number() == 1 and same_chain(first, late)
        # It takes part from here on.
        reached = late.chain.final_number
        network.away.clear()
        for _ in range(6):
            network.epoch()
        assert late.chain.final_number > reached and same_chain(first, late)
        votes = first.chain.final_block["last_votes"]
        assert late.key.address in {wire["address"] for wire in votes}

    run(journey())


def test_a_peer_without_a_snapshot_writes_one_for_who_asks(network: LittleNetwork) -> None:
    async def journey() -> None:
        post = Post(network)
        late, *others = network.members[2], *network.members[:2]
        for member in others:
            member.storage.snapshot_path(snapshot_of(member)).unlink()
        await post.syncs[late.key.address].fetch_state()
        assert late.chain.final_number == others[0].chain.final_number

    run(journey())


def test_where_nobody_has_blocks_a_node_begins_at_the_genesis(tmp_path: Path) -> None:
    async def journey() -> None:
        fresh = LittleNetwork(tmp_path, 2)
        post = Post(fresh)
        await post.syncs[KEYS[1].address].fetch_state()
        assert fresh.members[1].chain.final_number == 0
        fresh.close()

    run(journey())


def test_a_killed_node_goes_on_fetching_where_it_was(network: LittleNetwork) -> None:
    async def journey() -> None:
        post = Post(network)
        late = await begin(post, network)
        told = 0

        def stingy(kind: str, data: Any) -> Any:
            nonlocal told
            if kind == OLD_RESPONSE:
                told += 1
                return data[:2] if told < 3 else None
            return data

        post.twists = {KEYS[0].address: stingy, KEYS[1].address: stingy}
        job = asyncio.ensure_future(post.syncs[late.key.address].fetch_old_blocks())
        while told < 5:
            await asyncio.sleep(0.001)
        job.cancel()
        await asyncio.gather(job, return_exceptions=True)
        assert late.storage.oldest_number() == snapshot_of(network.members[0]) - 4
        # Nothing but what was on the disk is left, and that is enough.
        draft = late.storage.draft()
        draft.write_bytes(b"half a state")
        reached = late.storage.last_number
        late.crash()
        late.open()
        assert late.storage.last_number == reached
        assert late.chain.final_number >= snapshot_of(network.members[0])
        post.twists = {}
        post.reopened(late)
        assert not draft.exists()
        await post.syncs[late.key.address].fetch_old_blocks()
        assert same_chain(network.members[0], late) and late.storage.oldest_number() == 1

    run(journey())


def test_who_is_stopped_in_the_moment_of_an_answer_stops(network: LittleNetwork) -> None:
    async def journey() -> None:
        post = Post(network)
        late = await begin(post, network)
        sync = post.syncs[late.key.address]
        take = sync.take

        def take_and_stop(kind: str, data: Any, sender: str) -> None:
            take(kind, data, sender)
            if kind == OLD_RESPONSE:
                job.cancel()

        sync.take = take_and_stop  # type: ignore[method-assign]
        job = asyncio.ensure_future(sync.fetch_old_blocks())
        with pytest.raises(asyncio.CancelledError):
            await job
        assert late.storage.oldest_number() > 1

    run(journey())


def packed(rows: list[Any]) -> bytes:
    return gzip.compress(b"".join(json.dumps(row).encode() + b"\n" for row in rows))


def rows_of(tree: Tree) -> list[Any]:
    return list(flat_rows(radix_snapshot(tree.freeze().root, "")))


def rich_state() -> bytes:
    """The first state, in which the liar has more."""
    tree = genesis_state(NETWORK, GENESIS)
    tree.write(["values", "accounts", KEYS[3].address, "balance"], 10**12)
    return packed(rows_of(tree))


STATES: dict[str, Callable[[], bytes]] = {
    "somebody is richer in it": rich_state,
    "it is another block's": lambda: packed(rows_of(genesis_state(NETWORK, GENESIS))),
    "it is no gzip": lambda: b"x" * 5_000,
    "it ends in the middle": lambda: rich_state()[:3_000],
    "one line has no end": lambda: gzip.compress(b"x" * 50_000_000),
    "it is deep": lambda: gzip.compress(b"[" * 2_000_000 + b"\n"),
    "a row is deep": lambda: gzip.compress(b'{"#state:a":' * 100_000 + b"1" + b"}" * 100_000 + b"\n"),
    "it has a number too long": lambda: gzip.compress(b'{"#serial": ' + b"9" * 100_000 + b"}\n"),
    "rows are lists": lambda: packed([[], {}]),
    "rows are missing": lambda: packed([{"#radix:0": [], "#serial": 0, "#next_serial": 1}]),
}


@pytest.mark.parametrize("what", STATES)
def test_a_false_state_is_refused_and_another_peer_asked(network: LittleNetwork, what: str) -> None:
    made = STATES[what]()

    def lie(kind: str, data: Any) -> Any:
        if kind == RESPONSE and data:
            index, size = data["index"], state_sync.CHUNK_BYTES
            data["count"] = -(-len(made) // size)
            data["data"] = base64.b64encode(made[index * size : (index + 1) * size]).decode()
        return data

    async def journey() -> None:
        post = Post(network)
        # Pieces beyond those of the true state have to be answered as well.
        truth = post.syncs[KEYS[0].address]

        def chunk(given: Any) -> Any:
            told = StateSync._chunk(truth, {**given, "index": 0})
            return told and {**told, "index": given.get("index", 0)}

        truth._chunk = chunk  # type: ignore[method-assign]
        post.twists[KEYS[0].address] = lie
        late = await begin(post, network)
        assert same_chain(network.members[1], late, late.storage.oldest_number())
        assert not late.storage.draft().exists()

    run(journey())


FIRST_ANSWERS: dict[str, Callable[[Any], Any]] = {
    "nothing": lambda data: None,
    "a list": lambda data: [],
    "no block": lambda data: {**data, "block": None},
    "a block of another number": lambda data: {**data, "number": data["number"] + 1},
    "a block with another hash": lambda data: {**data, "block": {**data["block"], "hash": "0x" + "1" * 64}},
    "a changed block": lambda data: {**data, "block": {**data["block"], "state_proof_hash": "0x"}},
    "a block that holds no transactions": lambda data: {
        **data,
        "block": rebuilt(data["block"], transactions=[5], receipts=[{}]),
    },
    "a text for a count": lambda data: {**data, "count": "3"},
    "endless pieces": lambda data: {**data, "count": 10**9},
    "no pieces": lambda data: {**data, "count": 0},
    "an empty piece": lambda data: {**data, "data": ""},
    "a short piece": lambda data: {**data, "data": "AAAA"},
    "a long piece": lambda data: {**data, "data": "AAAA" * 10_000},
    "a piece of nothing": lambda data: {**data, "data": {"a": []}},
    "another piece": lambda data: {**data, "index": 1},
}


def rebuilt(block: Any, **changes: Any) -> dict[str, Any]:
    names = (
        "last_hash",
        "last_votes",
        "evidence",
        "transactions",
        "receipts",
        "number",
        "epoch",
        "timestamp",
    )
    more = ("state_proof_hash", "proposer", "validators", "gas_amount_total", "gas_cost_total")
    return build_block(**{**{name: block[name] for name in (*names, *more)}, **changes})


@pytest.mark.parametrize("what", FIRST_ANSWERS)
def test_an_answer_of_another_form_is_refused(network: LittleNetwork, what: str) -> None:
    async def journey() -> None:
        post = Post(network)
        post.twists[KEYS[0].address] = lambda kind, data: FIRST_ANSWERS[what](data) if data else data
        late = await begin(post, network)
        assert same_chain(network.members[1], late, late.storage.oldest_number())

    run(journey())


def test_old_blocks_of_another_chain_are_refused_and_another_peer_asked(network: LittleNetwork) -> None:
    def other(kind: str, data: Any) -> Any:
        if kind == OLD_RESPONSE and data:
            return [rebuilt(one, timestamp=one["timestamp"] + 1) for one in data]
        return data

    async def journey() -> None:
        post = Post(network)
        post.twists[KEYS[0].address] = other
        late = await begin(post, network)
        await post.syncs[late.key.address].fetch_old_blocks()
        assert same_chain(network.members[1], late)

    run(journey())


def votes_for(block: dict[str, Any], keys: Any, **changes: Any) -> list[dict[str, Any]]:
    papers = []
    for key in keys:
        stake = block["validators"].get(key.address, {"stake": 0})["stake"]
        body = vote_body(block, key.address, stake, block["timestamp"] + 1, is_against=False)
        body["operation"]["value"].update(changes)
        papers.append(sign_transaction(body, key, NETWORK.chain_id).to_json())
    return papers


def chain_of_its_own(key_index: int, count: int) -> list[dict[str, Any]]:
    """Blocks on the true genesis block that somebody made alone, who holds all the stake in them."""
    key = KEYS[key_index]
    tree = genesis_state(NETWORK, GENESIS)
    tree.write(["values", "accounts", key.address, "balance"], 10**12)
    chain = [GENESIS]
    for number in range(1, count + 1):
        before = chain[-1]
        votes = votes_for(before, [key]) if number > 1 else []
        chain.append(
            rebuilt(
                GENESIS,
                number=number,
                epoch=number,
                timestamp=before["timestamp"] + 1000,
                last_hash=before["hash"],
                last_votes=votes,
                transactions=[],
                receipts=[],
                state_proof_hash=tree.root_hash(),
                proposer=key.address,
                validators={key.address: {"stake": 10**9, "proposal_right": True}},
            )
        )
    return chain


def test_a_chain_that_one_liar_made_on_the_true_genesis_block_is_found_out(tmp_path: Path) -> None:
    async def journey() -> None:
        network = LittleNetwork(tmp_path, 2)
        post = Post(network)
        late, liar = network.members
        chain = chain_of_its_own(3, 6)
        made = rich_state()

        def lie(kind: str, data: Any) -> Any:
            if kind == RESPONSE:
                index, size = asked[-1], state_sync.CHUNK_BYTES
                told = {"number": 5, "index": index, "count": -(-len(made) // size), "block": chain[5]}
                return {**told, "data": base64.b64encode(made[index * size : (index + 1) * size]).decode()}
            return chain[4:0:-1]

        asked: list[int] = []
        serving = post.syncs[liar.key.address]
        serving._chunk = lambda given: asked.append(given["index"])  # type: ignore[method-assign, assignment, func-returns-value]
        post.twists[liar.key.address] = lie
        await post.syncs[late.key.address].fetch_state()
        # The state fits its block: until the blocks below are here, it is believed.
        assert late.chain.final_number == 5
        late.storage.append(chain[6])
        with pytest.raises(ChainOfPeerFalse) as refused:
            await post.syncs[late.key.address].fetch_old_blocks()
        assert "block 1 " in refused.value.message.lower() and str(tmp_path) in str(refused.value)
        assert late.storage.oldest_number() > 1
        network.close()

    run(journey())


def test_nobody_votes_or_proposes_while_the_chain_is_not_whole(network: LittleNetwork) -> None:
    network.away.clear()
    late = network.members[2]
    catch_up(late, network.members[0])
    late.rounds.is_silent = True
    late.said.clear()
    for _ in range(12):
        network.epoch()
    own = {data["value"].get("address") for _, data in late.said if data["type"] == "vote"}
    assert late.key.address not in own
    late.rounds.is_silent = False
    for _ in range(6):
        network.epoch()
    assert late.key.address in {wire["address"] for wire in late.chain.final_block["last_votes"]}


def trio(**validators: int) -> tuple[Any, Any]:
    """A block of the first three validators, and one on it whose validators may be others."""
    stakes = validators or {"0": 10, "1": 10, "2": 10}
    terms = {
        KEYS[int(name)].address: {"stake": stake, "proposal_right": True} for name, stake in stakes.items()
    }
    elders = {KEYS[index].address: {"stake": 10, "proposal_right": True} for index in range(3)}
    before = rebuilt(GENESIS, number=5, epoch=5, validators=elders, transactions=[], receipts=[])
    return before, rebuilt(before, number=6, epoch=6, validators=terms, last_hash=before["hash"])


def after_with(block: Any, votes: list[Any]) -> Any:
    return rebuilt(block, number=7, epoch=7, last_hash=block["hash"], last_votes=votes)


@pytest.mark.parametrize("count", [0, 1, 2, 3])
def test_two_thirds_of_the_stake_have_to_stand_behind_a_block(count: int) -> None:
    before, block = trio()
    after = after_with(block, votes_for(block, KEYS[:count]))
    with contextlib.nullcontext() if count >= 2 else pytest.raises(TooFewVotes):
        check_votes(before, block, after, NETWORK.chain_id)


def test_votes_that_are_none_do_not_count() -> None:
    before, block = trio()
    good = votes_for(block, KEYS[:1])
    forged = {**votes_for(block, KEYS[1:2])[0], "signature": good[0]["signature"]}
    elsewhere = {**votes_for(block, KEYS[3:4])[0], "address": KEYS[1].address}
    for more in (
        good,
        [forged],
        [elsewhere],
        votes_for(block, KEYS[1:2], is_against=True),
        votes_for(block, KEYS[1:2], block_hash=before["hash"]),
        votes_for(block, KEYS[1:2], stake=11),
        votes_for(block, KEYS[3:4], stake=100),
        votes_for({**block, "number": 5}, KEYS[1:2]),
    ):
        with pytest.raises(TooFewVotes):
            check_votes(before, block, after_with(block, [*good, *more]), NETWORK.chain_id)


def test_new_validators_need_some_of_those_before_them() -> None:
    before, block = trio(**{"2": 10, "3": 90})
    alone = after_with(block, votes_for(block, KEYS[3:4]))
    with pytest.raises(TooFewVotes, match="behind it too"):
        check_votes(before, block, alone, NETWORK.chain_id)
    # One of three is not more than a third.
    with pytest.raises(TooFewVotes, match="behind it too"):
        check_votes(before, block, after_with(block, votes_for(block, KEYS[2:4])), NETWORK.chain_id)
    check_votes(before, block, after_with(block, votes_for(block, KEYS[1:4])), NETWORK.chain_id)


def test_more_validators_than_any_network_allows_are_not_looked_at() -> None:
    before, block = trio()
    many = {f"0x{number:040x}": {"stake": 1, "proposal_right": True} for number in range(1_001)}
    crowded = rebuilt(block, validators=many)
    with pytest.raises(TooFewVotes, match="more validators"):
        check_votes(before, crowded, after_with(crowded, []), NETWORK.chain_id)


def test_spoilt_blocks_and_states_are_refused_and_nothing_else_happens(
    network: LittleNetwork, tmp_path: Path
) -> None:
    chance = random.Random(5)
    mutator = Mutator(chance)
    block = network.members[0].chain.block(5)
    assert block is not None
    rows = rows_of(genesis_state(NETWORK, GENESIS))
    file = tmp_path / "state"
    refused = 0
    for _ in range(30):
        with contextlib.suppress(BlockUnusable):
            block_from_peer(mutator.value(block, ()))
        spoilt = list(rows)
        index = chance.randrange(len(rows))
        spoilt[index] = mutator.value(rows[index], rows[:20])
        with contextlib.suppress(ValueError):
            file.write_bytes(packed(spoilt))
            try:
                _tree_from("a peer", file, GENESIS)
            except PeerStateRefused:
                refused += 1
        raw = bytearray(packed(rows))
        raw[chance.randrange(len(raw))] ^= 1 << chance.randrange(8)
        file.write_bytes(bytes(raw))
        with contextlib.suppress(PeerStateRefused):
            _tree_from("a peer", file, GENESIS)
    assert refused > 5
