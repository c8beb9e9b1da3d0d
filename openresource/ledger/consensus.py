"""AI Network's consensus: which blocks stand, which are notarised by votes, and which of them are final.

A block is checked against everything that its state says; votes are tallied by stake; three notarised blocks of
consecutive epochs make all but the last of them final. Nothing here reads a clock or a key: who runs a node hands in
blocks, proposals and votes, and takes away what has become final.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final

from openresource.ledger.blocks import build_block, hash_and_size, parse_block
from openresource.ledger.consensus_entries import Entry, Offence, Wire, is_consecutive, recorded_offences
from openresource.ledger.consensus_papers import (
    CONFLICT,
    EVIDENCE_FAILED,
    EVIDENCE_STAKE,
    INVALID,
    INVALID_PROPOSAL,
    LAST_VOTES_FAILED,
    MALFORMED,
    MALFORMED_PROPOSAL,
    NO_LAST_PROPOSAL,
    NO_PARENT,
    NOT_LONGEST,
    NOT_NOTARISED,
    OFFENSE_COUNT,
    OFFENSE_TYPE,
    OFFENSES_WITHOUT_EVIDENCE,
    OTHER_GAS_AMOUNT,
    OTHER_GAS_COST,
    OTHER_HASH,
    OTHER_PROPOSER,
    OTHER_RECEIPTS,
    OTHER_SIGNER,
    OTHER_STAKE,
    OTHER_STATE,
    OTHER_VALIDATORS,
    PROPOSAL_FAILED,
    TRANSACTIONS_FAILED,
    VALIDATOR_COUNT,
    ConsensusRefused,
    NotAConsensusTransaction,
    VoteRefused,
    is_proposal,
    proposal_body,
    proposal_value,
    vote_number,
    vote_value,
)
from openresource.ledger.draft import NetworkDomain
from openresource.ledger.execution import Execution, Executor, TxObserver, TxRestCaller
from openresource.ledger.machine import bandages_after
from openresource.ledger.pool import CONSENSUS_PREFIX
from openresource.ledger.profile import Network
from openresource.ledger.receipts import receipt_of
from openresource.ledger.state import State
from openresource.ledger.transactions import (
    SET,
    SET_VALUE,
    UNORDERED_NONCE,
    Transaction,
    transaction_from_json,
)
from openresource.ledger.tree import Tree
from openresource.ledger.validators import (
    MAJORITY,
    proposer_of,
    stake_of,
    total_stake,
    validators_after,
)
from openresource.primitives.errors import Refusal
from openresource.primitives.numbers import is_number, to_double
from openresource.primitives.values import deep_equal

CONSECUTIVE_EPOCHS: Final = 3
PROPOSAL_OPERATIONS_MAX: Final = 2


class Consensus:
    """The blocks after the last final one, and what is known about them."""

    def __init__(self, network: Network, tree: Tree, block: Mapping[str, Any], genesis_hash: str) -> None:
        """Begins with a final block (such as the genesis) and the tree that holds the state after it."""
        self.network: Network = network
        self.domain: NetworkDomain = NetworkDomain(network.chain_id, genesis_hash)
        first = Entry(dict(block), Executor(network, State(tree), self.domain), None)
        self.final: Entry = first
        self._entries: dict[str, Entry] = {first.hash: first}
        self._children: dict[str, list[str]] = {}
        self._by_epoch: dict[int, str] = {first.epoch: first.hash}
        self._offences: dict[str, Offence] = {}
        self._seen: set[str] = set()
        self._highest: int = first.number
        # Who runs a node may know transactions already, or watch what blocks write.
        self.recall: Callable[[Any], Transaction | None] | None = None
        self.observer: TxObserver | None = None
        self.rest: TxRestCaller | None = None
        # The block that was made last, executed already.
        self.made: Entry | None = None

    # -- blocks -----------------------------------------------------------------------------------------------------

    def entry(self, block_hash: str) -> Entry | None:
        """A block that is kept."""
        return self._entries.get(block_hash)

    def entries(self) -> list[Entry]:
        """The last final block and all that stand after it, in the order in which they came."""
        return list(self._entries.values())

    def offences(self) -> list[Offence]:
        """The refused blocks that may still become evidence."""
        return list(self._offences.values())

    @property
    def highest(self) -> int:
        """The highest number of a block that was seen."""
        return self._highest

    def add_block(self, wire: Any, proposal: Wire | None, made: Entry | None = None) -> Entry:
        """Checks a block in the protocol's order and keeps it, or refuses it with the protocol's code.

        A block that was made here a moment ago, given as `made`, is not executed a second time.
        """
        try:
            # What was just made here, and is still the same object, need not be hashed again.
            block = wire if made is not None and wire is made.block else parse_block(wire)
        except Refusal as refusal:
            raise ConsensusRefused(None, MALFORMED, f"it cannot be read: {refusal.message}") from None
        known = self._entries.get(block["hash"])
        if known is not None:
            if known.proposal is None and proposal is not None:
                self._check_proposal(block, proposal)
                known.proposal = proposal
            return known
        number: int = block["number"]
        parsed_proposal = None if proposal is None else self._check_proposal(block, proposal)
        parent = self._parent_of(block)
        is_made = made is not None and made.hash == block["hash"]
        entry = made if made is not None and is_made else self._watched(block, parent)
        entry.proposal = proposal
        self._check_validators(block, parent)
        if not is_made:
            self._execute_last_votes(entry)
        self._register_last_votes(block)
        if not self.is_notarised(block["last_hash"]):
            raise ConsensusRefused(
                number, NOT_NOTARISED, "its last votes do not notarise the block before it"
            )
        if number > 1:
            before = self._entries.get(block["last_hash"])
            if before is None or before.proposal is None or not _holds(block["last_votes"], before.proposal):
                raise ConsensusRefused(
                    number, NO_LAST_PROPOSAL, "the proposal of the block before it is missing"
                )
        if not is_made:
            self._check_evidence(block, parent, entry.executor, parsed_proposal)
            self._execute_transactions(entry)
        entry.executor.observer = None
        entry.executor.rest = None
        if parsed_proposal is not None:
            self._try_proposal(entry, parsed_proposal)
        self._put(entry)
        return entry

    def check_extends(self, entry: Entry) -> None:
        """Refuses a live proposal that builds on another block than the longest chains' ends; the block is kept."""
        if entry.number > 1 and all(tip.hash != entry.block["last_hash"] for tip in self.longest_tips()):
            raise ConsensusRefused(entry.number, NOT_LONGEST, "it does not extend one of the longest chains")

    def keep_offence(self, wire: Any, proposal: Wire | None) -> None:
        """Keeps a block that was refused, so that votes against it can become evidence."""
        block = parse_block(wire)
        if block["hash"] not in self._offences:
            self._offences[block["hash"]] = Offence(block, proposal)
            self._highest = max(self._highest, block["number"])

    def is_notarised(self, block_hash: str) -> bool:
        """Whether two thirds of the stake stand behind a block; the first and final ones count as such."""
        entry = self._entries.get(block_hash)
        if entry is None:
            return False
        if entry.number == 0 or entry is self.final:
            return True
        parent = self._entries.get(entry.block["last_hash"])
        if parent is None:
            parent = self.final
        needed: bool = entry.tally >= total_stake(parent.block["validators"]) * MAJORITY
        return needed and entry.tally > 0

    # -- votes ------------------------------------------------------------------------------------------------------

    def add_vote(self, wire: Wire) -> Execution | None:
        """Tallies a vote for or against a known block; how it executes after it, None for one that came before."""
        transaction = self._consensus_transaction(wire)
        if transaction.hash in self._seen:
            return None
        value = vote_value(transaction)
        number = vote_number(transaction)
        if number is None or number > self._highest:
            raise VoteRefused(reason="its block's number is not known yet")
        block_hash: Any = value.get("block_hash")
        if value.get("is_against"):
            return self._add_vote_against(wire, transaction, block_hash)
        entry = self._entries.get(block_hash)
        if entry is None:
            raise VoteRefused(reason="its block is not known")
        if transaction.timestamp < entry.block["timestamp"]:
            raise VoteRefused(reason="it is older than its block")
        execution = self._tried(entry, transaction, entry.number + 1, entry.block["timestamp"])
        if execution.has_failed:
            raise VoteRefused(reason="it cannot be executed after its block")
        self._seen.add(transaction.hash)
        entry.votes.append(wire)
        stake: Any = value.get("stake")
        if stake_of(entry.block["validators"], transaction.address) == stake and is_number(stake):
            entry.tally += stake
        return execution

    def _add_vote_against(self, wire: Wire, transaction: Transaction, block_hash: Any) -> Execution:
        offence = self._offences.get(block_hash)
        if offence is None:
            raise VoteRefused(reason="its block is not known")
        if transaction.timestamp < offence.block["timestamp"]:
            raise VoteRefused(reason="it is older than its block")
        final = self.final
        execution = self._tried(final, transaction, final.number + 1, final.block["timestamp"])
        if execution.has_failed:
            raise VoteRefused(reason="it cannot be executed after the last final block")
        self._seen.add(transaction.hash)
        offence.votes.append(wire)
        return execution

    def papers(self) -> list[Wire]:
        """The proposals and votes of all blocks that are kept, refused ones included."""
        papers: list[Wire] = []
        for entry in self._entries.values():
            if entry.proposal is not None:
                papers.append(entry.proposal)
            papers.extend(entry.votes)
        for offence in self._offences.values():
            if offence.proposal is not None:
                papers.append(offence.proposal)
            papers.extend(offence.votes)
        return papers

    # -- what stands ------------------------------------------------------------------------------------------------

    def longest_tips(self) -> list[Entry]:
        """The ends of the longest chains of notarised blocks, in the order in which they were found."""
        best: list[Entry] = [self.final]
        stack: list[Entry] = [self.final]
        while stack:
            entry = stack.pop()
            if entry.number > best[0].number:
                best = [entry]
            elif entry.number == best[0].number and entry is not best[0]:
                best.append(entry)
            stack.extend(reversed(self._notarised_children(entry)))
        return best

    def tip(self) -> Entry:
        """The block on which the next one is built: of the longest chains, the one of the highest epoch."""
        best = self.longest_tips()
        chosen = best[0]
        for entry in best:
            if entry.epoch > chosen.epoch:
                chosen = entry
        return chosen

    def chain_to(self, entry: Entry) -> list[Entry]:
        """The blocks after the last final one, up to a block."""
        chain: list[Entry] = []
        current: Entry | None = entry
        while current is not None and current is not self.final:
            chain.append(current)
            current = self._entries.get(current.block["last_hash"])
        chain.reverse()
        return chain

    def finalise(self) -> list[Entry]:
        """The blocks that have become final now, in order; older and contradicting ones are dropped."""
        chain = self._finalizable()
        for entry in chain:
            self._finalise_one(entry)
        return chain

    def _finalizable(self) -> list[Entry]:
        longest: list[Entry] = []
        stack: list[list[Entry]] = [[self.final]]
        while stack:
            path = stack.pop()
            if (
                len(path) >= CONSECUTIVE_EPOCHS
                and is_consecutive(path[-CONSECUTIVE_EPOCHS:])
                and len(path) > len(longest)
            ):
                longest = path
            for child in reversed(self._notarised_children(path[-1])):
                stack.append([*path, child])
        return longest[1:-1]

    def _finalise_one(self, entry: Entry) -> None:
        self.final = entry
        kept = self._descendants(entry)
        for block_hash, other in list(self._entries.items()):
            if block_hash not in kept:
                del self._entries[block_hash]
                self._children.pop(block_hash, None)
                if self._by_epoch.get(other.epoch) == block_hash:
                    del self._by_epoch[other.epoch]
        self._forget_offences(entry)

    def _forget_offences(self, entry: Entry) -> None:
        """Lets go of refused blocks that stand in a final block, or are too old to come into one, and of old votes."""
        kept_max = self._parameter(entry.state, entry.number, "max_invalid_blocks_on_mem")
        recorded = recorded_offences(entry)
        for block_hash, offence in list(self._offences.items()):
            if block_hash in recorded or offence.block["number"] < entry.number - kept_max:
                del self._offences[block_hash]
        votes = [vote for kept in self._entries.values() for vote in kept.votes]
        votes += [vote for offence in self._offences.values() for vote in offence.votes]
        self._seen = {vote["hash"] for vote in votes}

    def _descendants(self, entry: Entry) -> set[str]:
        found = {entry.hash}
        stack = [entry.hash]
        while stack:
            for child in self._children.get(stack.pop(), []):
                found.add(child)
                stack.append(child)
        return found

    def _notarised_children(self, entry: Entry) -> list[Entry]:
        return [
            self._entries[child]
            for child in self._children.get(entry.hash, [])
            if child in self._entries and self.is_notarised(child)
        ]

    # -- checks, in the protocol's order ----------------------------------------------------------------------------

    def _check_proposal(self, block: Mapping[str, Any], wire: Wire) -> Transaction:
        number: int = block["number"]
        try:
            proposal = self._consensus_transaction(wire)
        except Refusal as refusal:
            raise ConsensusRefused(number, INVALID_PROPOSAL, refusal.message) from None
        value = proposal_value(proposal)
        if proposal.address != block["proposer"]:
            raise ConsensusRefused(
                number, OTHER_SIGNER, "the proposal is signed by another than the proposer"
            )
        if value.get("block_hash") != block["hash"]:
            raise ConsensusRefused(number, OTHER_HASH, "the proposal names another block")
        if not deep_equal(value.get("validators"), block["validators"]):
            raise ConsensusRefused(number, OTHER_VALIDATORS, "the proposal names other validators")
        if value.get("total_at_stake") != total_stake(block["validators"]):
            raise ConsensusRefused(number, OTHER_STAKE, "the proposal names another stake")
        return proposal

    def _parent_of(self, block: Mapping[str, Any]) -> Entry:
        number: int = block["number"]
        if number == self.final.number + 1:
            return self.final
        parent = self._entries.get(block["last_hash"])
        if parent is None:
            raise ConsensusRefused(number, NO_PARENT, f"there is no block {block['last_hash']} before it")
        return parent

    def _executor_on(self, parent: Entry) -> Executor:
        return Executor(self.network, State(parent.state.tree.fork()), self.domain)

    def _watched(self, block: Mapping[str, Any], parent: Entry) -> Entry:
        """An entry to be executed on another, with whoever watches what blocks write."""
        executor = self._executor_on(parent)
        executor.observer = self.observer
        executor.rest = self.rest
        return Entry(dict(block), executor, None)

    def _check_validators(self, block: Mapping[str, Any], parent: Entry) -> None:
        number: int = block["number"]
        count = len(block["validators"])
        least = self._parameter(parent.state, number, "min_num_validators")
        most = self._parameter(parent.state, number, "max_num_validators")
        if not least <= count <= most:
            raise ConsensusRefused(number, VALIDATOR_COUNT, f"it has {count} validators")
        if number > 0:
            seed = f"{parent.block['last_votes_hash']}{block['epoch']}"
            expected = proposer_of(seed, block["validators"])
            if expected != block["proposer"]:
                raise ConsensusRefused(
                    number, OTHER_PROPOSER, f"its proposer is {block['proposer']}, the draw gives {expected}"
                )

    def _execute_last_votes(self, entry: Entry) -> None:
        block = entry.block
        number: int = block["number"]
        for wire in block["last_votes"]:
            execution = self._executed(
                entry.executor, self._readable(wire, number, LAST_VOTES_FAILED), block, False
            )
            entry.vote_executions.append(execution)
            if execution.is_precheck_failure:
                raise ConsensusRefused(number, LAST_VOTES_FAILED, "one of its last votes may not be executed")

    def _register_last_votes(self, block: Mapping[str, Any]) -> None:
        """Takes over proposals and votes that a block carries; the ones that say nothing new are passed over."""
        for wire in block["last_votes"]:
            try:
                transaction = self._consensus_transaction(wire)
                if is_proposal(transaction):
                    self._register_proposal(wire, transaction)
                else:
                    self.add_vote(wire)
            except Refusal:
                continue

    def _register_proposal(self, wire: Wire, proposal: Transaction) -> None:
        entry = self._entries.get(str(proposal_value(proposal).get("block_hash")))
        if entry is not None and entry.proposal is None:
            entry.proposal = wire

    def _check_evidence(
        self, block: Mapping[str, Any], parent: Entry, executor: Executor, proposal: Transaction | None
    ) -> None:
        number: int = block["number"]
        evidence: dict[str, Any] = block["evidence"]
        offenses: Any = None if proposal is None else proposal_value(proposal).get("offenses")
        if proposal is not None and (not offenses) != (not evidence):
            raise ConsensusRefused(number, OFFENSES_WITHOUT_EVIDENCE, "its offenses do not fit its evidence")
        for offender, entries in evidence.items():
            counts: dict[str, int] = {}
            for entry in entries:
                kind = entry.get("offense_type")
                if kind != INVALID:
                    raise ConsensusRefused(number, OFFENSE_TYPE, f"there is no offense {kind}")
                self._check_votes_against(block, parent, executor, entry)
                counts[kind] = counts.get(kind, 0) + 1
            if isinstance(offenses, dict) and not deep_equal(offenses.get(offender), counts):
                raise ConsensusRefused(
                    number, OFFENSE_COUNT, f"the offenses of {offender} are counted wrongly"
                )

    def _check_votes_against(
        self, block: Mapping[str, Any], parent: Entry, executor: Executor, entry: Mapping[str, Any]
    ) -> None:
        number: int = block["number"]
        stake: Any = 0
        votes = [self._readable(wire, number, EVIDENCE_FAILED) for wire in entry["votes"]]
        for vote in votes:
            stake += stake_of(block["validators"], vote.address)
        if not stake >= total_stake(parent.block["validators"]) * MAJORITY:
            raise ConsensusRefused(
                number, EVIDENCE_STAKE, "too little stake voted against the block in its evidence"
            )
        for vote in votes:
            if self._executed(executor, vote, block, False).is_precheck_failure:
                raise ConsensusRefused(number, EVIDENCE_FAILED, "a vote in its evidence may not be executed")

    def _execute_transactions(self, entry: Entry) -> None:
        block = entry.block
        executor = entry.executor
        number: int = block["number"]
        receipts: list[Any] = []
        gas_amount_total: Any = 0
        gas_cost_total: Any = 0
        for wire in block["transactions"]:
            transaction = self._readable(wire, number, TRANSACTIONS_FAILED)
            execution = executor.execute(
                transaction, number, block["timestamp"], block["timestamp"], skip_fees=number == 0
            )
            entry.executions.append(execution)
            receipts.append(receipt_of(execution.result))
            gas_amount_total += _number(execution.result.get("gas_amount_charged"))
            gas_cost_total += _number(execution.result.get("gas_cost_total"))
        if not deep_equal(receipts, block["receipts"]):
            raise ConsensusRefused(
                number, OTHER_RECEIPTS, "its receipts differ from what its transactions give"
            )
        if gas_amount_total != block["gas_amount_total"]:
            raise ConsensusRefused(number, OTHER_GAS_AMOUNT, f"its gas amounts to {gas_amount_total}")
        if to_double(gas_cost_total) != block["gas_cost_total"]:
            raise ConsensusRefused(number, OTHER_GAS_COST, f"its gas costs {gas_cost_total}")
        for labels, value in bandages_after(self.network, number):
            executor.state.write(list(labels), value)
        state_hash = executor.state.tree.root_hash()
        if state_hash != block["state_proof_hash"]:
            raise ConsensusRefused(
                number, OTHER_STATE, f"its state hash is {block['state_proof_hash']}, not {state_hash}"
            )

    def _try_proposal(self, entry: Entry, proposal: Transaction) -> None:
        if not is_proposal(proposal):
            raise ConsensusRefused(entry.number, MALFORMED_PROPOSAL, "its proposal has another form")
        execution = self._executed(self._executor_on(entry), proposal, entry.block, True)
        if execution.has_failed:
            raise ConsensusRefused(entry.number, PROPOSAL_FAILED, "its proposal cannot be executed after it")
        entry.proposal_execution = execution

    def _put(self, entry: Entry) -> None:
        other = self._entries.get(self._by_epoch.get(entry.epoch, ""))
        if other is not None and self.is_notarised(other.hash):
            raise ConsensusRefused(entry.number, CONFLICT, f"block {other.hash} of its epoch is notarised")
        self._entries[entry.hash] = entry
        self._children.setdefault(entry.block["last_hash"], []).append(entry.hash)
        self._by_epoch[entry.epoch] = entry.hash
        self._highest = max(self._highest, entry.number)

    # -- making a block ---------------------------------------------------------------------------------------------

    def validators_on(self, parent: Entry) -> dict[str, Any]:
        """The validators of the block after another."""
        state, number = parent.state, parent.number
        return validators_after(
            state,
            self._parameter(state, number, "min_stake_for_proposer"),
            self._parameter(state, number, "max_stake_for_proposer"),
            self._parameter(state, number, "max_num_validators"),
        )

    def next_proposer(self, epoch: int) -> str | None:
        """Who makes the block of an epoch on the present tip."""
        parent = self.tip()
        return proposer_of(f"{parent.block['last_votes_hash']}{epoch}", self.validators_on(parent))

    def make_block(
        self, epoch: int, timestamp: int, proposer: str, transactions: Iterable[Transaction]
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """The next block on the tip, and the body of the proposal that its proposer signs.

        Each transaction is executed before the next one is asked for, so that who gives them may stop in time.
        """
        parent = self.tip()
        number = parent.number + 1
        frame: dict[str, Any] = {"number": number, "timestamp": timestamp}
        # Votes against others are tried and may be taken back: such a block is executed again when it is added.
        is_plain = not self._offences
        entry = self._watched(frame, parent) if is_plain else Entry(frame, self._executor_on(parent), None)
        executor = entry.executor
        last_votes = self._last_votes_of(parent, entry, frame)
        validators = self.validators_on(parent)
        least = self._parameter(parent.state, parent.number, "min_num_validators")
        if len(validators) < least:
            raise ConsensusRefused(number, VALIDATOR_COUNT, f"there are only {len(validators)} validators")
        evidence, offenses = self._evidence_for(parent, validators, executor, frame)
        included: list[Transaction] = []
        receipts: list[Any] = []
        gas_amount_total: Any = 0
        gas_cost_total: Any = 0
        for transaction in transactions:
            execution = executor.execute(transaction, number, timestamp, timestamp)
            if execution.is_precheck_failure:
                continue
            entry.executions.append(execution)
            included.append(transaction)
            receipts.append(receipt_of(execution.result))
            gas_amount_total += _number(execution.result.get("gas_amount_charged"))
            gas_cost_total += _number(execution.result.get("gas_cost_total"))
        for labels, value in bandages_after(self.network, number):
            executor.state.write(list(labels), value)
        state_hash = executor.state.tree.root_hash()
        assert state_hash is not None
        hash_of_transactions, bytes_of_transactions = hash_and_size(included)
        block = build_block(
            last_hash=parent.hash,
            last_votes=last_votes,
            evidence=evidence,
            transactions=[transaction.to_json() for transaction in included],
            receipts=receipts,
            number=number,
            epoch=epoch,
            timestamp=timestamp,
            state_proof_hash=state_hash,
            proposer=proposer,
            validators=validators,
            gas_amount_total=gas_amount_total,
            gas_cost_total=to_double(gas_cost_total),
            hash_of_transactions=hash_of_transactions,
            bytes_of_transactions=bytes_of_transactions,
        )
        entry.block = block
        entry.hash = block["hash"]
        self.made = entry if is_plain else None
        return block, proposal_body(block, offenses)

    def _last_votes_of(self, parent: Entry, entry: Entry, frame: Mapping[str, Any]) -> list[Wire]:
        if parent.number == 0:
            return []
        assert parent.proposal is not None, "a notarised block has a proposal"
        chosen: list[Wire] = []
        stake: Any = 0
        for wire in (parent.proposal, *parent.votes):
            transaction = self._consensus_transaction(wire)
            execution = self._executed(entry.executor, transaction, frame, True)
            if not execution.has_failed:
                entry.vote_executions.append(execution)
                chosen.append(wire)
                stake += stake_of(parent.block["validators"], transaction.address)
        if not stake >= total_stake(parent.block["validators"]) * MAJORITY:
            raise ConsensusRefused(parent.number + 1, NOT_NOTARISED, "too few votes can be executed")
        return chosen

    def _evidence_for(
        self, parent: Entry, validators: dict[str, Any], executor: Executor, frame: Mapping[str, Any]
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        recorded: set[str] = set()
        for ancestor in self.chain_to(parent):
            recorded |= recorded_offences(ancestor)
        evidence: dict[str, Any] = {}
        offenses: dict[str, Any] = {}
        for block_hash, offence in self._offences.items():
            if block_hash in recorded or not offence.votes or offence.proposal is None:
                continue
            executor.state.tree.rebase()
            chosen: list[Wire] = []
            stake: Any = 0
            for wire in offence.votes:
                vote = self._consensus_transaction(wire)
                if vote.address not in validators or self._executed(executor, vote, frame, True).has_failed:
                    continue
                chosen.append(wire)
                stake += stake_of(validators, vote.address)
            if not stake >= total_stake(validators) * MAJORITY:
                executor.state.tree.revert()
                executor.state.forget()
                continue
            offender: str = offence.block["proposer"]
            entry = {
                "transactions": [offence.proposal],
                "block": offence.block,
                "votes": chosen,
                "offense_type": INVALID,
            }
            evidence.setdefault(offender, []).append(entry)
            counts = offenses.setdefault(offender, {INVALID: 0})
            counts[INVALID] += 1
        return evidence, offenses

    # -- small things -----------------------------------------------------------------------------------------------

    def _executed(
        self, executor: Executor, transaction: Transaction, block: Mapping[str, Any], restore: bool
    ) -> Execution:
        """A proposal or vote in a block: without fees."""
        return executor.execute(
            transaction,
            block["number"],
            block["timestamp"],
            block["timestamp"],
            skip_fees=True,
            restore=restore,
        )

    def _tried(self, entry: Entry, transaction: Transaction, number: int, time_ms: int) -> Execution:
        executor = Executor(self.network, State(entry.state.tree.fork()), self.domain)
        return executor.execute(transaction, number, time_ms, time_ms, skip_fees=True)

    def _transaction(self, wire: Any) -> Transaction:
        known = None if self.recall is None else self.recall(wire)
        return transaction_from_json(wire, self.network.chain_id) if known is None else known

    def _consensus_transaction(self, wire: Any) -> Transaction:
        transaction = self._transaction(wire)
        if transaction.nonce != UNORDERED_NONCE:
            raise NotAConsensusTransaction(reason="its nonce is not -1")
        operation = transaction.operation
        if operation.get("type") == SET_VALUE:
            if not str(operation.get("ref")).startswith(CONSENSUS_PREFIX):
                raise NotAConsensusTransaction(reason="it writes elsewhere")
        elif operation.get("type") != SET or len(operation["op_list"]) > PROPOSAL_OPERATIONS_MAX:
            raise NotAConsensusTransaction(reason="its operation has another form")
        return transaction

    def _readable(self, wire: Any, number: int, code: int) -> Transaction:
        try:
            return self._transaction(wire)
        except Refusal as refusal:
            raise ConsensusRefused(
                number, code, f"a transaction in it is not valid: {refusal.message}"
            ) from None

    def _parameter(self, state: State, number: int, name: str) -> Any:
        value = (
            state.parameter("consensus", name) if number > 0 else self.network.configured("consensus", name)
        )
        return value if is_number(value) else 0


def _holds(wires: Sequence[Any], wanted: Wire) -> bool:
    return any(isinstance(wire, dict) and wire.get("hash") == wanted.get("hash") for wire in wires)


def _number(value: Any) -> Any:
    return value if is_number(value) else 0
