"""Following an AI Network chain: every block is executed again, and every hash in it compared with our own.

The follower believes nobody: it makes the first state from the genesis transactions, checks proposals, votes, receipts,
gas and state hashes of each block by the protocol, and stops at the first difference with what is needed to act on it.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from openresource.ledger.blocks import parse_block
from openresource.ledger.consensus import Consensus
from openresource.ledger.consensus_entries import Entry
from openresource.ledger.consensus_papers import (
    MALFORMED,
    OTHER_HASH,
    OTHER_RECEIPTS,
    OTHER_STATE,
    ConsensusRefused,
    is_proposal,
)
from openresource.ledger.draft import NetworkDomain
from openresource.ledger.execution import Executor
from openresource.ledger.genesis import write_blank_state
from openresource.ledger.nodes import Branch
from openresource.ledger.profile import Network
from openresource.ledger.receipts import receipt_of
from openresource.ledger.snapshots import load_radix_snapshot, radix_snapshot
from openresource.ledger.state import State
from openresource.ledger.transactions import Transaction, is_verified, trusted_transaction
from openresource.ledger.tree import Tree
from openresource.primitives.encoding import canonical_json
from openresource.primitives.errors import Refusal
from openresource.primitives.values import deep_equal

CHECKPOINT_FORMAT: Final = 1
STATE_HASH: Final = "state proof hash"
SHOWN_CHARACTERS_MAX: Final = 300
PATHS_SHOWN_MAX: Final = 20
PLACES_ASKED_MAX: Final = 2_000
CONSENSUS_PATH: Final = "/values/consensus"
ACCOUNTS_PATH: Final = "/values/accounts"

TREES: Final = {"SET_RULE": "rules", "SET_FUNCTION": "functions", "SET_OWNER": "owners"}

# The hash of a subtree of the other node's newest state; None where it has nothing.
AskHash = Callable[[str], Awaitable[str | None]]


class Difference(Refusal):
    """The first place where the chain is not what its own rules make of it."""

    template = "Block {block} differs in its {what}: expected {expected}, got {got}{place}."
    way_out = (
        "Nothing after this block was taken. Ask another node for the same block: if it says the same, one of the two"
        " implementations is wrong, and this report is what its developers need."
    )


class OtherChain(Refusal):
    template = "This is another chain: its first block is {found}, and {network} begins with {expected}."
    way_out = "Check the address and the name of the network."


class CheckpointInvalid(Refusal):
    template = "The checkpoint cannot be used: {reason}."
    way_out = "Delete it and follow from the first block again."


@dataclass(frozen=True, slots=True)
class Place:
    """A path with the proof hash that it must have, and the one that the other node has."""

    path: str
    expected: str
    got: str


@dataclass(frozen=True, slots=True)
class Verified:
    """One block that is exactly what its parent, votes and transactions make of it."""

    number: int
    hash: str
    state_proof_hash: str
    transactions: int
    votes: int
    final_number: int


class Follower:
    """A second opinion on a chain, block by block."""

    def __init__(self, network: Network, consensus: Consensus, genesis_hash: str) -> None:
        self.network = network
        self.consensus = consensus
        self.genesis_hash = genesis_hash
        self._last: Entry = consensus.final

    @classmethod
    def begin(cls, network: Network, wire: Any, genesis_hash: str = "") -> Follower:
        """From the genesis block: its transactions are executed on the blank state, and all its hashes compared."""
        block = _parsed(wire, 0)
        check_genesis_hash(network, str(block["hash"]), genesis_hash)
        if block["number"] != 0 or block["last_hash"] != "":
            raise _difference(block, "place", "the first block of a chain", f"number {block['number']}")
        tree = Tree("ain")
        state = State(tree)
        write_blank_state(tree)
        executor = Executor(network, state, NetworkDomain(network.chain_id, block["hash"]))
        for index, wire_transaction in enumerate(block["transactions"]):
            transaction = _signed(block, index, wire_transaction, network.chain_id)
            time_ms: int = block["timestamp"]
            execution = executor.execute(transaction, 0, time_ms, time_ms, skip_fees=True, restore=False)
            _compare_receipt(block, index, transaction, receipt_of(execution.result))
        if tree.root_hash() != block["state_proof_hash"]:
            raise _difference(block, STATE_HASH, str(tree.root_hash()), str(block["state_proof_hash"]))
        return cls(network, Consensus(network, tree, block, block["hash"]), block["hash"])

    @classmethod
    def resume(cls, network: Network, checkpoint: Any) -> Follower:
        """From a checkpoint; its state must have the hash that its block names."""
        if not isinstance(checkpoint, dict) or checkpoint.get("format") != CHECKPOINT_FORMAT:
            raise CheckpointInvalid(reason="it has another form")
        if checkpoint.get("network") != network.name:
            raise CheckpointInvalid(reason=f"it belongs to {checkpoint.get('network')}")
        tree = Tree("ain")
        try:
            block = parse_block(checkpoint.get("block"))
            tree.replace_root(load_radix_snapshot(checkpoint.get("state")))
        except Refusal as refusal:
            raise CheckpointInvalid(reason=refusal.message) from refusal
        if tree.root_hash() != block["state_proof_hash"]:
            raise CheckpointInvalid(reason="its state has not the hash that its block names")
        genesis_hash = str(checkpoint.get("genesis_hash"))
        consensus = Consensus(network, tree, block, genesis_hash)
        consensus.final.proposal = checkpoint.get("proposal")
        return cls(network, consensus, genesis_hash)

    @property
    def number(self) -> int:
        """The last block that was verified."""
        return self._last.number

    @property
    def final_number(self) -> int:
        """The last block that is final by the votes that were verified."""
        return self.consensus.final.number

    def take(self, wire: Any, after: Any) -> Verified:
        """Verifies the next block; `after` is the block that follows it, which carries its proposal and votes."""
        block = _parsed(wire, self.number + 1)
        following = _parsed(after, block["number"] + 1)
        if block["number"] != self.number + 1 or block["last_hash"] != self._last.hash:
            raise _difference(block, "last hash", self._last.hash, str(block["last_hash"]))
        try:
            entry = self.consensus.add_block(block, _proposal_in(following))
        except ConsensusRefused as refused:
            raise self._explained(block, self._deeper(block, refused)) from refused
        self._last = entry
        self.consensus.finalise()
        return Verified(
            entry.number,
            entry.hash,
            str(block["state_proof_hash"]),
            len(block["transactions"]),
            max(0, len(block["last_votes"]) - 1),
            self.final_number,
        )

    def checkpoint(self) -> dict[str, Any]:
        """The last final block with the whole state after it: enough to go on from there."""
        final = self.consensus.final
        return {
            "format": CHECKPOINT_FORMAT,
            "network": self.network.name,
            "genesis_hash": self.genesis_hash,
            "block": final.block,
            "proposal": final.proposal,
            "state": radix_snapshot(final.state.tree.root, ""),
        }

    # -- saying where it differs ------------------------------------------------------------------------------------

    def _deeper(self, block: Mapping[str, Any], refused: ConsensusRefused) -> ConsensusRefused:
        """Where a block is not the one that was proposed: what in it is wrong by itself, if something is."""
        if refused.refusal_code != OTHER_HASH:
            return refused
        try:
            self.consensus.add_block(block, None)
        except ConsensusRefused as deeper:
            return deeper
        return refused

    def _explained(self, block: Mapping[str, Any], refused: ConsensusRefused) -> Difference:
        code = refused.refusal_code
        if code == OTHER_RECEIPTS:
            executor = self._working_copy(block)
            for index, wire in enumerate(block["transactions"]):
                transaction = trusted_transaction(wire)
                execution = executor.execute(
                    transaction, block["number"], block["timestamp"], block["timestamp"]
                )
                try:
                    _compare_receipt(block, index, transaction, receipt_of(execution.result), code)
                except Difference as difference:
                    return difference
            return _difference(
                block,
                "number of receipts",
                str(len(block["transactions"])),
                str(len(block["receipts"])),
                code=code,
            )
        if code == OTHER_STATE:
            executor = self._working_copy(block)
            for wire in block["transactions"]:
                executor.execute(
                    trusted_transaction(wire), block["number"], block["timestamp"], block["timestamp"]
                )
            return _difference(
                block,
                STATE_HASH,
                str(executor.state.tree.root_hash()),
                str(block["state_proof_hash"]),
                code=code,
                paths=_written(block),
            )
        return _difference(
            block,
            "agreement with the protocol",
            "a block that may follow",
            str(refused.facts["reason"]),
            code=code,
        )

    def _working_copy(self, block: Mapping[str, Any]) -> Executor:
        """The state in which the block's transactions begin: its parent's, after the votes that it carries."""
        state = State(self._last.state.tree.fork())
        executor = Executor(self.network, state, self.consensus.domain)
        number, time_ms = block["number"], block["timestamp"]
        votes = [*block["last_votes"]]
        for entries in block["evidence"].values():
            for entry in entries:
                votes.extend(entry["votes"])
        for wire in votes:
            executor.execute(
                trusted_transaction(wire), number, time_ms, time_ms, skip_fees=True, restore=False
            )
        return executor

    async def locate(self, block: Mapping[str, Any], after: Mapping[str, Any], ask: AskHash) -> list[Place]:
        """Where the other node's newest state, that of the block `after`, is not ours for reasons of this block."""
        executor = self._working_copy(block)
        for wire in block["transactions"]:
            executor.execute(
                trusted_transaction(wire), block["number"], block["timestamp"], block["timestamp"]
            )
        tree = executor.state.tree
        # What the next block wrote is different for a good reason.
        moved = [CONSENSUS_PATH, *_written(after)] + ([ACCOUNTS_PATH] if after["transactions"] else [])
        places: list[Place] = []
        waiting: list[list[str]] = [[]]
        asked = 0
        while waiting and asked < PLACES_ASKED_MAX and len(places) < PATHS_SHOWN_MAX:
            labels = waiting.pop()
            branch = tree.node(labels)
            for label, value in branch.children() if isinstance(branch, Branch) else []:
                path = "/" + "/".join([*labels, label])
                if path in moved:
                    continue
                asked += 1
                ours, theirs = tree.hash_of([*labels, label]), await ask(path)
                if theirs == ours:
                    continue
                if isinstance(value, Branch) and theirs is not None:
                    waiting.append([*labels, label])
                else:
                    places.append(Place(path, str(ours), theirs or "nothing"))
        return places


def check_genesis_hash(network: Network, found: str, expected: str) -> None:
    """Refuses the chain of another network; an empty expectation lets every first block begin one."""
    if expected and found != expected:
        raise OtherChain(found=found, network=network.name, expected=expected)


def genesis_hash_in(wire: Any) -> str:
    """The hash of a first block, from what it says."""
    return str(_parsed(wire, 0)["hash"])


def _parsed(wire: Any, number: int) -> dict[str, Any]:
    try:
        return parse_block(wire)
    except Refusal as refusal:
        raise Difference(
            block=number,
            what="form",
            expected="a block",
            got=refusal.message,
            place="",
            protocol_code=MALFORMED,
            transaction="",
            paths=[],
        ) from refusal


def _proposal_in(block: Mapping[str, Any]) -> dict[str, Any] | None:
    """The proposal of the block before, which a block carries first among its votes."""
    for wire in block["last_votes"]:
        try:
            if is_proposal(trusted_transaction(wire)):
                proposal: dict[str, Any] = wire
                return proposal
        except Refusal:
            # Whatever it is, it is no proposal; the block that carries it is refused in its turn.
            continue
    return None


def _signed(block: Mapping[str, Any], index: int, wire: Any, chain_id: int) -> Transaction:
    try:
        transaction = trusted_transaction(wire)
    except Refusal as refusal:
        raise _difference(
            block, "transaction", "one that can be read", refusal.message, index=index
        ) from None
    if not is_verified(transaction, chain_id):
        raise _difference(block, "signature", transaction.address, "somebody else's", index=index)
    return transaction


def _compare_receipt(
    block: Mapping[str, Any], index: int, transaction: Transaction, ours: Any, code: int = OTHER_RECEIPTS
) -> None:
    receipts = block["receipts"]
    theirs = receipts[index] if index < len(receipts) else None
    if not deep_equal(ours, theirs):
        raise _difference(
            block,
            "receipt",
            _shown(ours),
            _shown(theirs),
            index=index,
            tx_hash=transaction.hash,
            code=code,
            paths=_paths_of(transaction),
        )


def _difference(
    block: Mapping[str, Any],
    what: str,
    expected: str,
    got: str,
    *,
    index: int | None = None,
    tx_hash: str = "",
    code: int = 0,
    paths: list[str] | None = None,
) -> Difference:
    place = ""
    if index is not None:
        place += f", transaction {index}" + (f" ({tx_hash})" if tx_hash else "")
    if paths:
        place += f", which writes {', '.join(paths[:PATHS_SHOWN_MAX])}"
    return Difference(
        block=block["number"],
        what=what,
        expected=expected,
        got=got,
        place=place,
        protocol_code=code,
        transaction=tx_hash,
        paths=(paths or [])[:PATHS_SHOWN_MAX],
    )


def _written(block: Mapping[str, Any]) -> list[str]:
    paths: dict[str, None] = {}
    for wire in block["transactions"]:
        for path in _paths_of(trusted_transaction(wire)):
            paths[path] = None
    return list(paths)


def _paths_of(transaction: Transaction) -> list[str]:
    """The full paths that a transaction writes, with the tree they are in."""
    operation = transaction.operation
    singles = operation.get("op_list", [operation]) if isinstance(operation, dict) else []
    return [
        "/".join(["", TREES.get(str(single.get("type")), "values"), *labels])
        for single, labels in zip(singles, transaction.labels, strict=False)
        if isinstance(single, dict)
    ]


def _shown(value: Any) -> str:
    text = canonical_json(value)
    return text if len(text) <= SHOWN_CHARACTERS_MAX else text[:SHOWN_CHARACTERS_MAX] + "…"
