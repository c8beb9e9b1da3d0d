"""Three validators without sockets: rounds of proposals and votes, a liar among them, a crash, somebody who comes late."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from openresource.ledger.transactions import sign_transaction
from openresource.node.ain.chain import CHAIN_SYNCING, SERVING
from openresource.node.ain.pool import PoolLimits
from openresource.node.ain.rounds import TRANSACTIONS_MIN
from openresource.primitives.values import deep_equal
from tests.support.little_network import KEYS, LittleNetwork


@pytest.fixture
def network(tmp_path: Path) -> Any:
    made = LittleNetwork(tmp_path, 3)
    yield made
    made.close()


def heights(network: LittleNetwork) -> list[int]:
    return [member.chain.final_number for member in network.members]


def test_three_validators_make_one_chain(network: LittleNetwork) -> None:
    for _ in range(12):
        network.epoch()
    assert min(heights(network)) >= 8
    first, *others = network.members
    for number in range(min(heights(network)) + 1):
        assert all(deep_equal(one.chain.block(number), first.chain.block(number)) for one in others)
    proposers = {first.chain.block(number)["proposer"] for number in range(1, first.chain.final_number)}
    assert len(proposers) > 1


def test_two_of_three_go_on_and_the_third_is_told_what_it_missed(network: LittleNetwork) -> None:
    third = network.members[2]
    network.away.add(third.key.address)
    for _ in range(60):
        network.epoch()
    assert third.chain.final_number == 0
    behind = network.members[0].chain.final_number
    assert behind > 25
    network.away.clear()
    third.chain.node_state = CHAIN_SYNCING
    asked = 0
    while third.rounds.merge(network.members[0].rounds.segment(third.chain.final_number + 1)):
        asked += 1
    assert third.chain.final_number >= behind and asked >= 1
    assert third.chain.node_state == SERVING
    for _ in range(6):
        network.epoch()
    assert min(heights(network)) > behind
    last = network.members[0].chain.final_block["last_votes"]
    assert third.key.address in {wire["address"] for wire in last}


def test_a_proposal_from_the_future_makes_a_node_ask_for_blocks(network: LittleNetwork) -> None:
    third = network.members[2]
    network.away.add(third.key.address)
    for _ in range(10):
        network.epoch()
    network.away.clear()
    network.epoch()
    network.epoch()
    assert third.asked > 0


def test_a_lying_proposer_is_voted_against_and_its_offence_recorded(network: LittleNetwork) -> None:
    liar = network.members[0]

    def lie(kind: str, data: Any) -> Any:
        value = data["value"]
        if "proposalBlock" in value and value["proposalBlock"]["proposer"] == liar.key.address:
            # Its proposal tells the hash of this block, so that the lie is well signed.
            block = value["proposalBlock"]
            block["validators"] = {
                **block["validators"],
                KEYS[3].address: {"stake": 5, "proposal_right": True},
            }
        return data

    for _ in range(3):
        network.epoch()
    liar.twist = lie
    record = ("consensus", "offense_records", liar.key.address)
    for _ in range(40):
        network.epoch()
        if network.members[1].chain.final.read_value(record):
            break
    assert network.members[1].chain.final.read_value(record) >= 1
    evidence = [
        block["evidence"]
        for number in range(1, network.members[1].chain.final_number + 1)
        if (block := network.members[1].chain.block(number)) is not None and block["evidence"]
    ]
    assert evidence and set(evidence[0]) == {liar.key.address}


def test_after_a_crash_nobody_votes_twice_in_an_epoch(network: LittleNetwork) -> None:
    for _ in range(5):
        network.epoch()
    member = network.members[1]
    before = member.chain.final_number
    member.crash()
    member.open()
    # It stands where it stood, with the papers of blocks that are not final.
    assert member.chain.final_number <= before
    tips = {one.chain.consensus.tip().hash for one in network.members}
    assert len(tips) == 1
    member.said.clear()
    # The same epoch again: whatever it would propose or vote for, it has voted already.
    member.rounds.tick()
    voted = [
        data["value"]["tx_body"]["operation"]["value"]["block_hash"]
        for kind, data in member.said
        if data["type"] == "vote"
    ]
    assert voted == []
    for _ in range(6):
        network.epoch()
    assert min(heights(network)) >= before + 5


@pytest.mark.parametrize("has_snapshots", [False, True])
def test_all_of_them_may_crash_at_once(network: LittleNetwork, has_snapshots: bool) -> None:
    for _ in range(8):
        network.epoch()
    if has_snapshots:
        for member in network.members:
            member.storage.write_snapshot(member.chain.final_number, member.chain.final.tree.freeze().root, 2)
    before = max(heights(network))
    hashes = [network.members[0].chain.block(number) for number in range(min(heights(network)) + 1)]
    for member in network.members:
        member.crash()
    for member in network.members:
        member.open()
    for _ in range(8):
        network.epoch()
    assert min(heights(network)) >= before + 4
    for number, block in enumerate(hashes):
        assert all(deep_equal(member.chain.block(number), block) for member in network.members)


def test_a_vote_that_comes_before_its_block_waits_for_it(network: LittleNetwork) -> None:
    for _ in range(3):
        network.epoch()
    late = network.members[2]
    network.away.add(late.key.address)
    network.epoch()
    network.away.clear()
    speaker = network.members[0]
    entry = speaker.chain.consensus.entries()[-1]
    assert entry.proposal is not None and len(entry.votes) == 2
    for vote in entry.votes:
        late.rounds.take({"value": vote, "type": "vote", "consensusProtoVer": "1.0.0"}, None)
    assert late.chain.consensus.entry(entry.hash) is None
    value = {"proposalBlock": entry.block, "proposalTx": entry.proposal}
    late.rounds.take({"value": value, "type": "propose", "consensusProtoVer": "1.0.0"}, None)
    assert late.chain.consensus.is_notarised(entry.hash)


@pytest.mark.parametrize(
    "message",
    [
        None,
        5,
        [],
        {},
        {"type": "propose", "value": {}},
        {"type": "propose", "value": {"proposalBlock": {}, "proposalTx": {}}, "consensusProtoVer": "1.0.0"},
        {
            "type": "propose",
            "value": {"proposalBlock": {"number": 1}, "proposalTx": {}},
            "consensusProtoVer": "1.0.0",
        },
        {
            "type": "propose",
            "value": {"proposalBlock": {"number": "x"}, "proposalTx": {"hash": []}},
            "consensusProtoVer": "1.0.0",
        },
        {"type": "vote", "value": {"hash": 5}, "consensusProtoVer": "1.0.0"},
        {"type": "vote", "value": {"hash": "0x", "tx_body": {"operation": []}}, "consensusProtoVer": "1.0.0"},
        {"type": "vote", "value": {"hash": "0x"}, "consensusProtoVer": "2.0.0"},
        {"type": "dance", "value": {"hash": "0x"}, "consensusProtoVer": "1.0.0"},
    ],
)
def test_nonsense_from_a_peer_changes_nothing(network: LittleNetwork, message: Any) -> None:
    member = network.members[0]
    member.rounds.take(message, None)
    assert member.rounds.merge(message) is False
    network.epoch()
    assert member.chain.consensus.tip().number == 1


@pytest.fixture
def alone(tmp_path: Path) -> Any:
    made = LittleNetwork(tmp_path, 1)
    yield made
    made.close()


def test_who_is_alone_makes_its_blocks_final_as_soon_as_the_next_one_stands(alone: LittleNetwork) -> None:
    (member,) = alone.members
    for _ in range(4):
        alone.epoch()
    chain = member.chain
    assert chain.consensus.tip().number == chain.final_number + 1
    alone.epoch()
    assert chain.consensus.tip().number == chain.final_number + 1
    final = chain.final_block
    member.crash()
    member.open()
    # What was said to be final stays so, and the block behind it is there too.
    member.rounds.finalise()
    assert deep_equal(member.chain.block(final["number"]), final)
    assert member.chain.consensus.tip().number == final["number"] + 1
    for _ in range(3):
        alone.epoch()
    assert member.chain.final_number == final["number"] + 3


def test_a_block_is_closed_when_its_share_of_the_epoch_is_over_and_nothing_is_lost(
    alone: LittleNetwork,
) -> None:
    (member,) = alone.members
    chain, key = member.chain, KEYS[1]
    chain.pool.limits = PoolLimits(free_ratio=1, size_per_account=1_000, free_ratio_per_account=1)
    for _ in range(3):
        alone.epoch()
    account = ("accounts", KEYS[2].address, "balance")
    before = chain.final.read_value(account)
    count = TRANSACTIONS_MIN + 20
    for number in range(count):
        path = f"/transfer/{key.address}/{KEYS[2].address}/{number}/value"
        operation = {"type": "SET_VALUE", "ref": path, "value": 1}
        body = {"operation": operation, "nonce": -1, "timestamp": alone.now_ms, "gas_price": 0}
        assert chain.submit(sign_transaction(body, key, 0), alone.now_ms)["code"] == 0
    # Each look at the clock takes longer than an epoch: a block holds as few as it may.
    alone.look_ms = 2_000
    alone.epoch()
    assert len(chain.consensus.tip().block["transactions"]) == TRANSACTIONS_MIN
    alone.look_ms = 0
    for _ in range(3):
        alone.epoch()
    assert chain.final.read_value(account) == before + count
