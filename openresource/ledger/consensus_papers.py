"""Proposals and votes: what they say, how their bodies are made, and the codes with which blocks are refused."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from openresource.ledger.blocks import BlockRefused
from openresource.ledger.pool import CONSENSUS_PREFIX
from openresource.ledger.transactions import SET, SET_VALUE, UNORDERED_NONCE, Transaction
from openresource.ledger.validators import total_stake
from openresource.primitives.errors import Refusal

MALFORMED: Final = 90001
NOT_LONGEST: Final = 90002
INVALID_PROPOSAL: Final = 90100
OTHER_SIGNER: Final = 90103
OTHER_HASH: Final = 90104
OTHER_VALIDATORS: Final = 90105
OTHER_STAKE: Final = 90106
NO_PARENT: Final = 90200
VALIDATOR_COUNT: Final = 90304
OTHER_PROPOSER: Final = 90305
LAST_VOTES_FAILED: Final = 90306
NOT_NOTARISED: Final = 90307
NO_LAST_PROPOSAL: Final = 90308
OFFENSES_WITHOUT_EVIDENCE: Final = 90309
OFFENSE_TYPE: Final = 90310
EVIDENCE_STAKE: Final = 90311
EVIDENCE_FAILED: Final = 90312
OFFENSE_COUNT: Final = 90313
TRANSACTIONS_FAILED: Final = 90314
OTHER_RECEIPTS: Final = 90315
OTHER_GAS_AMOUNT: Final = 90316
OTHER_GAS_COST: Final = 90317
OTHER_STATE: Final = 90318
MALFORMED_PROPOSAL: Final = 90319
PROPOSAL_FAILED: Final = 90320
CONFLICT: Final = 90400

# A validator votes against a block that was refused for one of these.
VOTED_AGAINST: Final = frozenset(
    (
        INVALID_PROPOSAL,
        OTHER_HASH,
        OTHER_VALIDATORS,
        OTHER_STAKE,
        *range(90300, 90321),
        CONFLICT,
    )
)
INVALID: Final = "INVALID_PROPOSAL"


class ConsensusRefused(BlockRefused):
    """A block that the protocol does not accept; `code` is the protocol's own."""

    template = "Block {number} is refused with code {code}: {reason}."

    def __init__(self, number: Any, code: int, reason: str) -> None:
        super().__init__(number=number, code=code, reason=reason)
        self.refusal_code: int = code


class NotAConsensusTransaction(Refusal):
    template = "This is not a transaction of the consensus: {reason}."
    way_out = "Proposals and votes are made by validators; send other transactions to the pool."


class VoteRefused(Refusal):
    template = "The vote is refused: {reason}."
    way_out = "Fetch the block that it is about first."


def is_proposal(transaction: Transaction) -> bool:
    """Whether it proposes a block: a list whose first write ends with `propose`."""
    operation = transaction.operation
    if operation.get("type") != SET:
        return False
    first = operation["op_list"][0]
    return str(first.get("ref")).endswith("propose")


def proposal_value(proposal: Transaction) -> Mapping[str, Any]:
    """What a proposal says of its block; empty if it says nothing."""
    operation = proposal.operation
    first = operation["op_list"][0] if operation.get("type") == SET else operation
    value = first.get("value")
    return value if isinstance(value, dict) else {}


def vote_number(vote: Transaction) -> int | None:
    """The number of the block that a vote is about."""
    labels = vote.labels[0]
    if len(labels) < 3 or not labels[2].isascii() or not labels[2].isdigit() or len(labels[2]) > 15:
        return None
    return int(labels[2])


def vote_body(
    block: Mapping[str, Any], voter: str, stake: Any, timestamp: int, *, is_against: bool
) -> dict[str, Any]:
    """The body of a vote for or against a block, to be signed by the voter."""
    value: dict[str, Any] = {"block_hash": block["hash"], "stake": stake, "is_against": is_against}
    if is_against:
        value["offense_type"] = INVALID
    value["vote_nonce"] = timestamp
    return {
        "operation": {
            "type": SET_VALUE,
            "ref": f"{CONSENSUS_PREFIX}/{block['number']}/{block['hash']}/vote/{voter}",
            "value": value,
        },
        "nonce": UNORDERED_NONCE,
        "gas_price": 0,
        "timestamp": timestamp,
    }


def proposal_body(block: Mapping[str, Any], offenses: dict[str, Any]) -> dict[str, Any]:
    """The body of the proposal of a block, to be signed by its proposer."""
    value: dict[str, Any] = {
        "number": block["number"],
        "epoch": block["epoch"],
        "validators": block["validators"],
        "total_at_stake": total_stake(block["validators"]),
        "proposer": block["proposer"],
        "block_hash": block["hash"],
        "last_hash": block["last_hash"],
        "timestamp": block["timestamp"],
        "gas_cost_total": block["gas_cost_total"],
    }
    if offenses:
        value["offenses"] = offenses
    single = {"type": SET_VALUE, "ref": f"{CONSENSUS_PREFIX}/{block['number']}/propose", "value": value}
    return {
        "operation": {"type": SET, "op_list": [single]},
        "nonce": UNORDERED_NONCE,
        "gas_price": 0,
        "timestamp": block["timestamp"],
    }


def vote_value(vote: Transaction) -> Mapping[str, Any]:
    """What a vote says; empty if it says nothing."""
    operation = vote.operation
    value = operation.get("value") if operation.get("type") == SET_VALUE else None
    return value if isinstance(value, dict) else {}
