"""The node's part in the consensus: what it does when an epoch begins, and when a proposal, a vote or blocks arrive.

Whatever it says itself lies on its disk before anybody hears of it. Nothing here waits: messages go out by `say`, which
the links between nodes carry, and everything happens on the event loop's thread.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterable
from typing import Any, Final

from openresource.ledger.blocks import parse_block
from openresource.ledger.consensus_entries import Entry
from openresource.ledger.consensus_papers import NO_PARENT, VOTED_AGAINST, ConsensusRefused, vote_body
from openresource.ledger.transactions import Transaction, sign_transaction, transaction_from_json
from openresource.ledger.validators import proposer_of
from openresource.node.ain.chain import CHAIN_SYNCING, SERVING, AinChain, hashes_of, proposal_of
from openresource.node.ain.storage import ChainStorage
from openresource.primitives.errors import Refusal
from openresource.primitives.keys import PrivateKey
from openresource.primitives.numbers import is_number

PROTOCOL: Final = "1.0.0"
PROTOCOL_MAJOR: Final = "1."
STATES: Final = ("STARTING", "RUNNING", "STOPPED")
STARTING, RUNNING, STOPPED = STATES
PROPOSE: Final = "propose"
VOTE: Final = "vote"

EARLY_VOTES_MAX: Final = 1_000
# A vote that waits is kept unchecked; an honest one has less than a tenth of this.
EARLY_VOTE_BYTES_MAX: Final = 8_000
OFFENCES_MAX: Final = 100
SEGMENT_BLOCKS_MAX: Final = 20
SEGMENT_BYTES_MAX: Final = 8_000_000
HEALTH_EPOCHS: Final = 10
# A block must be made, passed on, executed by the others and voted for within its epoch. Who is alone has nobody to
# wait for, and only must not miss the next epoch: blocks become final by epochs that follow one another.
MAKING_SHARE: Final = 0.3
MAKING_SHARE_ALONE: Final = 0.65
# And the pool may take so much of it, to be executed on what became final.
REPLAYING_SHARE: Final = 0.2
TRANSACTIONS_MIN: Final = 100
# The clock is asked once for so many transactions.
TRANSACTIONS_PER_LOOK: Final = 10
FIRST_EXECUTING_MS: Final = 0.2
FIRST_CLOSING_MS: Final = 0.1

Wire = dict[str, Any]
# Sends a message of a type to all peers; the address is one that has it already.
Say = Callable[[str, Any, str | None], None]

_log = logging.getLogger("openresource.node.ain.rounds")


class Rounds:
    """Epoch after epoch of one node."""

    def __init__(
        self,
        chain: AinChain,
        storage: ChainStorage,
        key: PrivateKey,
        now_ms: Callable[[], int],
        say: Say,
        ask_for_blocks: Callable[[], None],
        note_final: Callable[[Entry], None],
    ) -> None:
        self.chain = chain
        self.state = STARTING
        self.epoch = 1
        self.proposer: str | None = None
        self.validators: dict[str, Any] = {}
        self.is_in_transition = False
        # Proposals and votes wait while this node cannot know yet whether its chain is that of the validators.
        self.is_silent = False
        self._storage = storage
        self._key = key
        self._now_ms = now_ms
        self._say = say
        self._ask_for_blocks = ask_for_blocks
        self._note_final = note_final
        self._early_votes: dict[str, list[Wire]] = {}
        self._early_count = 0
        self._unkept: dict[str, Wire] = {}
        # What a transaction took in the blocks that were made last, and what the rest of a block took for each of them.
        self._executing_ms = FIRST_EXECUTING_MS
        self._closing_ms = FIRST_CLOSING_MS

    # -- epochs -----------------------------------------------------------------------------------------------------

    @property
    def epoch_ms(self) -> int:
        """How long an epoch lasts."""
        length = self.chain.parameter("genesis", "epoch_ms")
        return int(length) if is_number(length) and length >= 1 else 20_000

    def epoch_at(self, now_ms: int) -> int:
        """The epoch of a moment."""
        begun: int = self.chain.genesis["timestamp"]
        return (now_ms - begun) // self.epoch_ms

    def tick(self) -> None:
        """An epoch begins: what can become final does, and whose turn it is proposes."""
        self.is_in_transition = True
        try:
            self.finalise()
            self.epoch = self.epoch_at(self._now_ms())
            if self.epoch > 1:
                self._find_proposer()
                self._propose()
                # The vote of somebody who is alone notarises a block, and what is before it need not wait any longer.
                self.finalise()
        finally:
            self.is_in_transition = False

    def finalise(self) -> None:
        """Takes over what has become final; the votes that made it so are on the disk before."""
        if self._unkept:
            self._keep({})
        replayed_max = int(REPLAYING_SHARE * self.epoch_ms / self._executing_ms)
        entries = self.chain.finalise(self._now_ms(), replayed_max)
        for entry in entries:
            self._note_final(entry)
        if entries:
            self._storage.drop_papers(hashes_of(self.chain.consensus.papers()))

    def is_healthy(self) -> bool:
        """Whether blocks have become final of late."""
        threshold = self.chain.parameter("consensus", "health_threshold_epoch")
        epochs = threshold if is_number(threshold) else HEALTH_EPOCHS
        healthy: bool = self.epoch - self.chain.consensus.final.epoch < epochs
        return healthy

    def _find_proposer(self) -> None:
        consensus = self.chain.consensus
        tip = consensus.tip()
        self.validators = consensus.validators_on(tip)
        self.proposer = proposer_of(f"{tip.block['last_votes_hash']}{self.epoch}", self.validators)

    def _propose(self) -> None:
        tip = self.chain.consensus.tip()
        if self.proposer != self._key.address or self._has_voted_in(self.epoch) or tip.epoch >= self.epoch:
            return
        if self.is_silent:
            return
        if tip.proposal is None and tip.number > 0:
            # Its papers are lost here: somebody else has them.
            self._ask_for_blocks()
            return
        share = MAKING_SHARE_ALONE if len(self.validators) == 1 else MAKING_SHARE
        deadline_ms = self.chain.genesis["timestamp"] + (self.epoch + share) * self.epoch_ms
        begun_ms = executed_ms = self._now_ms()

        def is_full(count: int) -> bool:
            nonlocal executed_ms
            if count % TRANSACTIONS_PER_LOOK == 0:
                executed_ms = self._now_ms()
            return count >= TRANSACTIONS_MIN and executed_ms + count * self._closing_ms > deadline_ms

        try:
            block, body = self.chain.make_block(self.epoch, begun_ms, self._key.address, is_full)
        except ConsensusRefused as refusal:
            _log.info("no block could be proposed", extra={"facts": {"reason": str(refusal)}})
            return
        self.take_proposal(block, self._signed(body).to_json(), None)
        count = len(block["transactions"])
        if count >= TRANSACTIONS_MIN:
            self._executing_ms = (self._executing_ms + max(executed_ms - begun_ms, 1) / count) / 2
            self._closing_ms = (self._closing_ms + (self._now_ms() - executed_ms) / count) / 2

    # -- proposals and votes ----------------------------------------------------------------------------------------

    def take(self, message: Any, sender: str | None) -> None:
        """A message of the consensus from a peer."""
        if self.state != RUNNING or not isinstance(message, dict):
            return
        version, value = message.get("consensusProtoVer"), message.get("value")
        if (
            not isinstance(version, str)
            or not version.startswith(PROTOCOL_MAJOR)
            or not isinstance(value, dict)
        ):
            return
        if message.get("type") == PROPOSE:
            block, proposal = value.get("proposalBlock"), value.get("proposalTx")
            if isinstance(block, dict) and isinstance(proposal, dict):
                self.take_proposal(block, proposal, sender)
        elif message.get("type") == VOTE:
            self.take_vote(value, sender)

    def take_proposal(self, block: Wire, proposal: Wire, sender: str | None) -> None:
        """A proposed block: is checked, passed on, and voted for or against."""
        chain, consensus = self.chain, self.chain.consensus
        if (
            str(proposal.get("hash")) in chain.pool.tracker
            or consensus.entry(str(block.get("hash"))) is not None
        ):
            return
        number = block.get("number")
        if not isinstance(number, int) or isinstance(number, bool):
            return
        if consensus.entry(str(block.get("last_hash"))) is None and number > consensus.tip().number + 1:
            self._ask_for_blocks()
            return
        try:
            entry = chain.add_block(block, proposal, self._now_ms())
        except ConsensusRefused as refusal:
            self._refused(block, proposal, refusal, sender)
            return
        except Refusal as refusal:
            _log.info("a proposal is malformed", extra={"facts": {"reason": str(refusal)}})
            return
        self._keep({proposal["hash"]: {"block": entry.block, "proposal": proposal}})
        early = self._early_votes.pop(entry.hash, [])
        self._early_count -= len(early)
        for vote in early:
            self.take_vote(vote, None)
        try:
            consensus.check_extends(entry)
        except ConsensusRefused as refusal:
            _log.info("a proposal comes too late", extra={"facts": {"reason": str(refusal)}})
            return
        self._say_consensus(PROPOSE, {"proposalBlock": entry.block, "proposalTx": proposal}, sender)
        self._vote_for(entry)

    def _refused(self, block: Wire, proposal: Wire, refusal: ConsensusRefused, sender: str | None) -> None:
        consensus = self.chain.consensus
        offences = consensus.offences()
        if any(offence.proposal == proposal for offence in offences):
            return
        _log.info("a proposal is refused", extra={"facts": {"reason": str(refusal)}})
        if refusal.refusal_code == NO_PARENT:
            self._ask_for_blocks()
        if refusal.refusal_code not in VOTED_AGAINST or len(offences) >= OFFENCES_MAX:
            return
        # Nobody is to suffer for what others say in their name.
        if not self._is_signed_by(proposal, block.get("proposer")):
            return
        consensus.keep_offence(block, proposal)
        self._keep({proposal["hash"]: {"offence": block, "proposal": proposal}})
        self._say_consensus(PROPOSE, {"proposalBlock": block, "proposalTx": proposal}, sender)
        self._vote_against(parse_block(block)["hash"])

    def _is_signed_by(self, proposal: Wire, proposer: Any) -> bool:
        try:
            return bool(transaction_from_json(proposal, self.chain.network.chain_id).address == proposer)
        except Refusal:
            return False

    def take_vote(self, vote: Wire, sender: str | None, *, is_kept: bool = False) -> None:
        """A vote for or against a block: is tallied and passed on; one that comes before its block waits for it."""
        vote_hash = vote.get("hash")
        if not isinstance(vote_hash, str) or vote_hash in self.chain.pool.tracker:
            return
        block_hash = _voted_block(vote)
        consensus = self.chain.consensus
        is_known = consensus.entry(block_hash) is not None or any(
            offence.block["hash"] == block_hash for offence in consensus.offences()
        )
        if not is_known:
            self._wait_for_block(block_hash, vote)
            return
        try:
            self.chain.add_vote(vote, self._now_ms())
        except Refusal as refusal:
            # One's own means that this chain does not go on, such as one whose services have used up their state.
            level = logging.WARNING if is_kept else logging.INFO
            _log.log(level, "a vote is refused", extra={"facts": {"reason": str(refusal)}})
            return
        if not is_kept:
            self._unkept[vote_hash] = {"vote": vote}
            if consensus.is_notarised(block_hash):
                self._keep({})
        self._say_consensus(VOTE, vote, sender)

    def _wait_for_block(self, block_hash: str, vote: Wire) -> None:
        if not block_hash or len(json.dumps(vote)) > EARLY_VOTE_BYTES_MAX:
            return
        self._early_votes.setdefault(block_hash, []).append(vote)
        self._early_count += 1
        while self._early_count > EARLY_VOTES_MAX:
            self._early_count -= len(self._early_votes.pop(next(iter(self._early_votes))))

    def _vote_for(self, entry: Entry) -> None:
        terms = entry.block["validators"].get(self._key.address)
        if terms is None or self._has_voted_in(entry.epoch):
            return
        self._vote(entry.block, terms["stake"], is_against=False)

    def _vote_against(self, block_hash: str) -> None:
        consensus = self.chain.consensus
        for offence in consensus.offences():
            terms = consensus.tip().block["validators"].get(self._key.address)
            if offence.block["hash"] != block_hash or terms is None:
                continue
            if all(vote["address"] != self._key.address for vote in offence.votes):
                self._vote(offence.block, terms["stake"], is_against=True)

    def _vote(self, block: Wire, stake: Any, *, is_against: bool) -> None:
        if self.is_silent:
            return
        body = vote_body(block, self._key.address, stake, self._now_ms(), is_against=is_against)
        vote = self._signed(body).to_json()
        self._keep({vote["hash"]: {"vote": vote}})
        self.take_vote(vote, None, is_kept=True)

    def _has_voted_in(self, epoch: int) -> bool:
        return any(
            vote["address"] == self._key.address
            for entry in self.chain.consensus.entries()
            if entry.epoch == epoch
            for vote in entry.votes
        )

    # -- blocks of others -------------------------------------------------------------------------------------------

    def segment(self, begin: Any) -> dict[str, Any]:
        """Final blocks from a number on for a peer, and what stands after the last one once it is reached."""
        chain = self.chain
        first = begin if isinstance(begin, int) and not isinstance(begin, bool) and begin >= 0 else 0
        blocks: list[Wire] = []
        size = 0
        for number in range(first, min(first + SEGMENT_BLOCKS_MAX, chain.final_number + 1)):
            block = chain.block(number)
            if block is None or (blocks and size > SEGMENT_BYTES_MAX):
                break
            blocks.append(block)
            size += block["size"]
        catch_up: list[Wire] = []
        if first + len(blocks) > chain.final_number:
            catch_up = [
                {"block": entry.block, "proposal": entry.proposal, "votes": entry.votes}
                for entry in chain.consensus.entries()
                if entry is not chain.consensus.final
            ]
        return {"blocks": blocks, "last": chain.final_number, "catch_up": catch_up}

    def merge(self, segment: Any) -> bool:
        """Takes blocks that a peer sent; whether more have to be asked for."""
        if not isinstance(segment, dict):
            return False
        blocks, catch_up, last = segment.get("blocks"), segment.get("catch_up"), segment.get("last")
        if not isinstance(blocks, list) or not isinstance(catch_up, list) or not isinstance(last, int):
            return False
        before = self.chain.final_number, self.chain.consensus.highest
        try:
            self._merge_final([block for block in blocks if isinstance(block, dict)], catch_up)
            self._merge_rest(catch_up)
        except (Refusal, KeyError, TypeError) as error:
            _log.warning("blocks of a peer are refused", extra={"facts": {"reason": str(error)}})
        if self.chain.final_number >= last and self.chain.node_state == CHAIN_SYNCING:
            self.chain.node_state = SERVING
        has_grown = before != (self.chain.final_number, self.chain.consensus.highest)
        return has_grown and self.chain.final_number < last

    def _merge_final(self, blocks: list[Wire], catch_up: list[Any]) -> None:
        now_ms = self._now_ms()
        following: list[Any] = [
            *blocks[1:],
            *[one.get("block") for one in catch_up[:1] if isinstance(one, dict)],
        ]
        for index, block in enumerate(blocks):
            if block.get("number", 0) <= self.chain.final_number:
                continue
            after = following[index] if index < len(following) else None
            self.chain.add_block(block, proposal_of(after), now_ms)
            self.finalise()

    def _merge_rest(self, catch_up: list[Any]) -> None:
        now_ms = self._now_ms()
        latest: Entry | None = None
        for one in catch_up:
            block, proposal, votes = one["block"], one["proposal"], one["votes"]
            if block["number"] <= self.chain.final_number or proposal is None:
                continue
            entry = self.chain.add_block(block, proposal, now_ms)
            self._unkept[proposal["hash"]] = {"block": entry.block, "proposal": proposal}
            latest = entry if latest is None or latest.epoch < entry.epoch else latest
            for vote in votes:
                self.take_vote(vote, None)
        self.finalise()
        if latest is not None and self.state == RUNNING:
            self._vote_for(latest)

    def restore(self, papers: Iterable[Wire]) -> None:
        """Takes back what was on the disk of blocks that are not final."""
        votes = [paper["vote"] for paper in papers if "vote" in paper]
        blocks = [paper for paper in papers if "block" in paper]
        now_ms = self._now_ms()
        for paper in sorted(blocks, key=lambda one: (one["block"]["number"], one["block"]["epoch"])):
            try:
                self.chain.add_block(paper["block"], paper["proposal"], now_ms)
            except Refusal as refusal:
                _log.info("a block on the disk is not taken back", extra={"facts": {"reason": str(refusal)}})
        for paper in papers:
            if "offence" in paper:
                self.chain.consensus.keep_offence(paper["offence"], paper["proposal"])
        for vote in votes:
            self.take_vote(vote, None, is_kept=True)

    # -- inside -----------------------------------------------------------------------------------------------------

    def _keep(self, papers: dict[str, Wire]) -> None:
        self._storage.keep_papers({**self._unkept, **papers})
        self._unkept.clear()

    def _say_consensus(self, kind: str, value: Wire, sender: str | None) -> None:
        self._say("CONSENSUS", {"value": value, "type": kind, "consensusProtoVer": PROTOCOL}, sender)

    def _signed(self, body: dict[str, Any]) -> Transaction:
        return sign_transaction(body, self._key, self.chain.network.chain_id)


def _voted_block(vote: Wire) -> str:
    body = vote.get("tx_body")
    operation = body.get("operation") if isinstance(body, dict) else None
    value = operation.get("value") if isinstance(operation, dict) else None
    block_hash = value.get("block_hash") if isinstance(value, dict) else None
    return block_hash if isinstance(block_hash, str) else ""
