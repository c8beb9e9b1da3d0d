"""Whether a chain of blocks that nobody here has executed is that of its validators.

Each block carries the votes for the one before it, and the hash of a block covers what it carries. So who knows the
genesis block can go from block to block: those who vote for one must hold two thirds of the stake, as the protocol has
it, and among them must be more than a third of the stake that stood behind the block before. As long as less than a
third of the stake ever lies, no other chain passes.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from openresource.ledger.blocks import parse_block
from openresource.ledger.consensus_papers import vote_number, vote_value
from openresource.ledger.transactions import transaction_from_json
from openresource.ledger.validators import MAJORITY, stake_of, total_stake
from openresource.primitives.errors import Refusal
from openresource.primitives.numbers import is_integer, is_number

CONTINUITY: Final = 1 / 3
# More than any network allows; each may cost the recovery of a signature.
VALIDATORS_MAX: Final = 1_000

Block = Mapping[str, Any]


class BlockUnusable(Refusal):
    template = "The block cannot be taken: {reason}."
    way_out = "Fetch it from another peer."


class TooFewVotes(Refusal):
    template = "Block {number} is not that of its validators: {reason}."
    way_out = "Fetch the chain from other nodes."


def block_from_peer(wire: Any) -> dict[str, Any]:
    """A block whose parts have the forms that readers count on, and the hash that it says."""
    try:
        block = parse_block(wire)
    except Refusal as refusal:
        raise BlockUnusable(reason=refusal.message) from refusal
    if block["hash"] != wire.get("hash"):
        raise BlockUnusable(reason="it has another hash than it says")
    receipts = block["receipts"]
    if len(receipts) != len(block["transactions"]) or not all(isinstance(one, dict) for one in receipts):
        raise BlockUnusable(reason="its transactions have not one receipt each")
    if not all(_is_transaction(one) for one in (*block["transactions"], *block["last_votes"])):
        raise BlockUnusable(reason="one of its transactions is none")
    return block


def check_votes(before: Block, block: Block, after: Block, chain_id: int) -> None:
    """Refuses a block for which too few of its validators, or of those before, voted in the one after it."""
    own, elders = block["validators"], before["validators"]
    if max(len(own), len(elders)) > VALIDATORS_MAX:
        raise TooFewVotes(number=block["number"], reason="it has more validators than any network allows")
    tried: set[str] = set()
    own_stake: Any = 0
    elder_stake: Any = 0
    for wire in after["last_votes"]:
        voter = wire["address"]
        if voter in tried or not (voter in own or voter in elders) or not _names(wire, block["hash"]):
            continue
        tried.add(voter)
        try:
            vote = transaction_from_json(wire, chain_id)
        except Refusal:
            continue
        value = vote_value(vote)
        if vote_number(vote) != block["number"] or value.get("is_against"):
            continue
        stake = value.get("stake")
        if is_number(stake) and stake == stake_of(own, voter):
            own_stake += stake
        elder_stake += stake_of(elders, voter)
    total = total_stake(elders)
    if not (own_stake > 0 and own_stake >= total * MAJORITY):
        raise TooFewVotes(
            number=block["number"], reason=f"only {own_stake} of the stake of {total} stands behind it"
        )
    if not elder_stake > total * CONTINUITY:
        raise TooFewVotes(
            number=block["number"],
            reason=f"only {elder_stake} of the stake of {total} behind the block before it stands behind it too",
        )


def _names(wire: Mapping[str, Any], block_hash: str) -> bool:
    """Whether a paper may be a vote about a block; the signature is looked at later."""
    operation = wire["tx_body"]["operation"]
    value = operation.get("value") if isinstance(operation, dict) else None
    return isinstance(value, dict) and value.get("block_hash") == block_hash


def _is_transaction(wire: Any) -> bool:
    if not isinstance(wire, dict):
        return False
    body = wire.get("tx_body")
    return (
        all(isinstance(wire.get(name), str) for name in ("hash", "address", "signature"))
        and isinstance(body, dict)
        and is_integer(body.get("timestamp"))
        and isinstance(body.get("operation"), dict)
    )
