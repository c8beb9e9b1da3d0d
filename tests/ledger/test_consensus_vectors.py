"""AI Network's recorded chains: every block accepted or refused as its node did, notarised and final when it said so."""

from __future__ import annotations

import copy
import itertools
from typing import Any

import pytest

from openresource.ledger.blocks import parse_block
from openresource.ledger.consensus import Consensus
from openresource.ledger.consensus_papers import VOTED_AGAINST, ConsensusRefused, is_proposal, vote_body
from openresource.ledger.transactions import sign_transaction, trusted_transaction
from openresource.primitives.keys import PrivateKey
from openresource.primitives.values import deep_equal
from tests.support.ain import AinChain
from tests.vectors_support import WHOLE_FILE, load_vectors, vectors


@vectors("ain/chain/*.json", WHOLE_FILE, count=lambda document: len(document["trace"]))
def test_chain_vectors(case: Any, document: Any) -> None:
    consensus = begin(document)
    rounds = [Round(block, after) for block, after in in_pairs(document)]
    rounds += [Round(one["block"], None, one) for one in document["unfinalized"]]
    by_epoch = {one.block["epoch"]: one for one in rounds}
    refused = refused_blocks(document)
    for moment in document["trace"]:
        place = f"epoch {moment['epoch']}"
        # A node looks for final blocks when an epoch begins, before it proposes.
        consensus.finalise()
        if "invalid_proposal" in moment:
            offence = refused.get(moment["invalid_proposal"])
            if offence is not None:
                take_refused(consensus, offence, place)
        elif not moment["skipped"]:
            one = by_epoch[moment["epoch"]]
            check_made(consensus, one, place)
            consensus.add_block(one.block, one.proposal)
            for vote in one.votes:
                check_vote(consensus, one.block, vote, place)
                consensus.add_vote(vote)
        tip = consensus.tip()
        notarised = moment["last_notarized"]
        assert (tip.number, tip.epoch, tip.hash) == (
            notarised["number"],
            notarised["epoch"],
            notarised["hash"],
        ), place
        assert consensus.final.number == moment["last_finalized"], place
    consensus.finalise()
    final = document["final"]
    assert consensus.final.number == final["number"]
    assert consensus.final.block["state_proof_hash"] == final["state_proof_hash"]
    for path, value in final["values"].items():
        labels = [label for label in path.split("/") if label]
        assert deep_equal(consensus.final.state.read_value(labels), value), path


@vectors(
    "ain/chain/*.json",
    "tampered_block_results",
    count=lambda document: len(document["tampered_block_results"]),
)
def test_tampered_block_vectors(case: Any, document: Any) -> None:
    number = case["block_number"]
    consensus = begin(document)
    pairs = in_pairs(document)
    for block, after in pairs[: number - 1]:
        consensus.add_block(block, Round(block, after).proposal)
        consensus.finalise()
    block, after = pairs[number - 1]
    proposal = Round(block, after).proposal if case["with_proposal_tx"] else None
    changed = tampered(block, case["change"])
    if case["error_code"] == 0:
        consensus.add_block(changed, proposal)
        return
    with pytest.raises(ConsensusRefused) as refused:
        consensus.add_block(changed, proposal)
    assert refused.value.refusal_code == case["error_code"], f"{case['change']}: {refused.value}"


class Round:
    """A block with its proposal and its votes, from the block after it."""

    def __init__(self, block: Any, after: Any, known: Any = None) -> None:
        self.block = block
        if known is not None:
            self.proposal, self.votes = known["proposal"], known["votes"]
            return
        self.proposal, *self.votes = after["last_votes"]
        assert is_proposal(trusted_transaction(self.proposal))


def begin(document: Any) -> Consensus:
    """The consensus after the genesis block."""
    chain = AinChain(document["config"])
    assert deep_equal(parse_block(document["blocks"][0])["hash"], chain.block["hash"])
    return Consensus(chain.network, chain.tree, chain.block, chain.block["hash"])


def in_pairs(document: Any) -> list[tuple[Any, Any]]:
    """Each final block after the genesis with the one that follows."""
    blocks = [*document["blocks"], document["unfinalized"][0]["block"]]
    return list(itertools.pairwise(blocks[1:]))


def refused_blocks(document: Any) -> dict[str, Any]:
    """The blocks that stand as evidence in later ones."""
    blocks = [*document["blocks"], *[one["block"] for one in document["unfinalized"]]]
    return {
        parse_block(entry["block"])["hash"]: entry
        for block in blocks
        for entries in block["evidence"].values()
        for entry in entries
    }


def take_refused(consensus: Consensus, entry: Any, place: str) -> None:
    """A wrong block is refused; the votes against it are kept."""
    proposal = entry["transactions"][0]
    with pytest.raises(ConsensusRefused) as refused:
        consensus.add_block(entry["block"], proposal)
    assert refused.value.refusal_code in VOTED_AGAINST, place
    consensus.keep_offence(entry["block"], proposal)
    for vote in entry["votes"]:
        check_vote(consensus, entry["block"], vote, place)
        consensus.add_vote(vote)


def check_made(consensus: Consensus, one: Round, place: str) -> None:
    """We would make the same block and the same proposal, bit for bit."""
    block = one.block
    assert consensus.next_proposer(block["epoch"]) == block["proposer"], place
    transactions = [trusted_transaction(wire) for wire in block["transactions"]]
    made, body = consensus.make_block(block["epoch"], block["timestamp"], block["proposer"], transactions)
    for name, said in block.items():
        assert deep_equal(made[name], said), f"{place} {name}"
    signed = sign_transaction(body, key_of(block["proposer"]), consensus.network.chain_id)
    assert deep_equal(signed.to_json(), one.proposal), place


def check_vote(consensus: Consensus, block: Any, vote: Any, place: str) -> None:
    """We would give the same vote, bit for bit."""
    body, voter = vote["tx_body"], vote["address"]
    value = body["operation"]["value"]
    ours = vote_body(block, voter, value["stake"], body["timestamp"], is_against=value["is_against"])
    signed = sign_transaction(ours, key_of(voter), consensus.network.chain_id)
    assert deep_equal(signed.to_json(), vote), place


def key_of(address: str) -> PrivateKey:
    """The public test key of an account."""
    accounts = load_vectors("ain/genesis/test_accounts.json")
    for account in [accounts["owner"], *accounts["others"]]:
        if account["address"] == address:
            return PrivateKey(bytes.fromhex(account["private_key"]))
    raise AssertionError(f"no key for {address}")


def tampered(block: Any, change: str) -> Any:
    """A block changed in one way."""
    changed = copy.deepcopy(block)
    match change:
        case "unchanged":
            pass
        case "state_proof_hash":
            changed["state_proof_hash"] = "0x" + "11" * 32
        case "gas_amount_total" | "gas_cost_total" | "epoch" | "timestamp":
            changed[change] += 1
        case "receipts":
            changed["receipts"].append({"code": 0})
        case "proposer":
            changed["proposer"] = "0x08Aed7AF9354435c38d52143EE50ac839D20696b"
        case "last_votes dropped":
            changed["last_votes"] = []
        case "validators emptied":
            changed["validators"] = {}
        case "duplicate last vote":
            changed["last_votes"].append(changed["last_votes"][-1])
        case "last_hash":
            changed["last_hash"] = "0x" + "22" * 32
        case "number":
            changed["number"] += 5
        case "missing field":
            del changed["epoch"]
        case _:
            raise AssertionError(f"unknown change {change}")
    return changed
