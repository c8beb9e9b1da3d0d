"""AI Network's chain as one of its nodes has it: final blocks, a pool, a front state, and the blocks in between.

There are no sockets and no clock in here: who runs it hands in transactions, proposals and votes with the time of now,
asks for a proposal when an epoch begins, and sends out what comes back. Reads have two sides: `final` is the state after
the last final block, `front` is that state with the pool's transactions applied by this node.
"""

from __future__ import annotations

import json
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from openresource.ledger.consensus import Consensus
from openresource.ledger.consensus_entries import Entry
from openresource.ledger.consensus_papers import is_proposal
from openresource.ledger.execution import Executor, TxObserver, TxRestCaller
from openresource.ledger.genesis import write_blank_state
from openresource.ledger.pool import (
    BandwidthBudgets,
    in_nonce_order,
    merged,
    waiting_by_account,
    within_budgets,
)
from openresource.ledger.profile import Network
from openresource.ledger.results import ALREADY_RECEIVED, has_failed
from openresource.ledger.state import State
from openresource.ledger.transactions import Transaction, trusted_transaction
from openresource.ledger.tree import Tree
from openresource.node.ain.archive import Archive
from openresource.node.ain.pool import (
    EXECUTED,
    FINALIZED,
    PENDING,
    REVERTED,
    STATES_IN_BLOCK,
    Pool,
    PoolLimits,
    StateListener,
    Waiting,
    Wire,
)
from openresource.primitives.errors import Refusal
from openresource.primitives.numbers import is_number

POOL_FULL: Final = 10704
ACCOUNT_FULL: Final = 10705
FREE_POOL_FULL: Final = 10715
FREE_ACCOUNT_FULL: Final = 10716
NOT_SERVING: Final = 18001

# Node states, in the order in which clients number them.
NODE_STATES: Final = (
    "STARTING",
    "STATE_LOADING",
    "STATE_SYNCING",
    "READY_TO_START",
    "CHAIN_SYNCING",
    "SERVING",
    "STOPPED",
)
SERVING: Final = "SERVING"
STATE_SYNCING: Final = "STATE_SYNCING"
CHAIN_SYNCING: Final = "CHAIN_SYNCING"
STOPPED: Final = "STOPPED"

CHAIN_SEGMENT_LENGTH: Final = 20
FINAL_TIMES_MAX: Final = 1000
# A pool fuller than AI Network's nodes allow by default is not executed anew on each final block: that would take longer
# than an epoch, and nothing would become final. The front state then goes on as it is, with the same transactions in it.
REPLAYED_MAX: Final = 1_200


class GenesisMismatch(Refusal):
    template = "The genesis block gives the state {computed}, but says {said}."
    way_out = "Start the node with the configuration directory of the network that it should join."


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The whole state after a final block, from which a node goes on without executing the blocks before."""

    block: dict[str, Any]
    tree: Tree


@dataclass(frozen=True, slots=True)
class Listener:
    """Who wants to know what happens, such as the event handler; every member may be left out."""

    state_changed: StateListener | None = None
    # (number, hash) of a block that has become final; not of the genesis.
    block_final: Callable[[int, str], None] | None = None
    # Writes of transactions that this node executes in its front state, and of those in blocks.
    user_writes: TxObserver | None = None
    block_writes: TxObserver | None = None
    # Calls REST functions of the same two kinds of executions.
    user_rest: TxRestCaller | None = None
    block_rest: TxRestCaller | None = None


def genesis_state(network: Network, block: Mapping[str, Any]) -> Tree:
    """The state after the genesis block, made by executing it."""
    tree = Tree("ain")
    write_blank_state(tree)
    consensus_free = Consensus(network, tree, block, block["hash"]).final.executor
    time_ms: int = block["timestamp"]
    for wire in block["transactions"]:
        consensus_free.execute(trusted_transaction(wire), 0, time_ms, time_ms, skip_fees=True, restore=False)
    computed = tree.root_hash()
    if computed != block["state_proof_hash"]:
        raise GenesisMismatch(computed=computed, said=block["state_proof_hash"])
    return tree


class AinChain:
    """One chain on one node; used from one thread."""

    def __init__(
        self,
        network: Network,
        genesis: dict[str, Any],
        archive: Archive,
        *,
        limits: PoolLimits | None = None,
        listener: Listener | None = None,
        start: Snapshot | None = None,
        allows_unsigned: bool = False,
        replays_pool: bool = True,
    ) -> None:
        """A chain that stands at its genesis, or at a snapshot; the archive holds the blocks up to there, or is empty."""
        self.network = network
        self.genesis = genesis
        self.archive = archive
        self.listener = listener or Listener()
        self.node_state = NODE_STATES[0]
        # Addresses in bodies are taken without a signature; only for development.
        self.allows_unsigned = allows_unsigned
        # Whether the front state has what waits in the pool also after a block has become final.
        self._replays_pool = replays_pool
        if start is None:
            start = Snapshot(genesis, genesis_state(network, genesis))
        if archive.block(0) is None:
            archive.append(genesis)
        self.consensus = Consensus(network, start.tree, start.block, genesis["hash"])
        self.consensus.recall = self._recall
        self.consensus.observer = self.listener.block_writes
        self.pool = Pool(limits or PoolLimits(), self._tell_state)
        # Of the blocks up to here only the archive knows what they held.
        self._start_number: int = start.block["number"]
        self._finalised_at: OrderedDict[int, int] = OrderedDict()
        self._front: Executor = self._front_on_final()

    def listen(self, listener: Listener) -> None:
        """From now on this listener is told what happens."""
        self.listener = listener
        self.consensus.observer = listener.block_writes
        self.consensus.rest = listener.block_rest

    def begin_at(self, start: Snapshot) -> None:
        """Goes on at a block whose state somebody else has handed over, instead of at the genesis block."""
        self.consensus = Consensus(self.network, start.tree, start.block, self.genesis["hash"])
        self.consensus.recall = self._recall
        self.listen(self.listener)
        self._start_number = start.block["number"]
        self._front = self._front_on_final()

    # -- where it stands --------------------------------------------------------------------------------------------

    @property
    def final_block(self) -> Mapping[str, Any]:
        """The last final block."""
        return self.consensus.final.block

    @property
    def final_number(self) -> int:
        """The number of the last final block."""
        return self.consensus.final.number

    @property
    def final_time_ms(self) -> int:
        """The timestamp of the last final block."""
        time_ms: int = self.final_block["timestamp"]
        return time_ms

    @property
    def final(self) -> State:
        """The state after the last final block; read only."""
        return self.consensus.final.state

    @property
    def front(self) -> State:
        """The final state with the pool's transactions applied; read only."""
        return self._front.state

    def state(self, is_final: bool) -> State:
        """The final or the front state."""
        return self.final if is_final else self.front

    def parameter(self, category: str, name: str) -> Any:
        """A parameter in force after the last final block."""
        if self.final_number > 0:
            return self.final.parameter(category, name)
        return self.network.configured(category, name)

    # -- blocks and transactions ------------------------------------------------------------------------------------

    def block(self, number: int) -> dict[str, Any] | None:
        """A final block by its number; callers must not change it."""
        return self.archive.block(number) if 0 <= number <= self.final_number else None

    def block_by_hash(self, block_hash: str) -> dict[str, Any] | None:
        """A final block by its hash."""
        number = self.archive.number_of(block_hash)
        return None if number is None else self.block(number)

    def blocks(self, begin: Any, end: Any, count_max: int = CHAIN_SEGMENT_LENGTH) -> list[dict[str, Any]]:
        """Final blocks from `begin` up to but without `end`, as many as a segment holds."""
        last = self.final_number
        if isinstance(begin, int) and begin == last + 1:
            begin = last
            end = last + 1
        first = begin if isinstance(begin, int) and not isinstance(begin, bool) and begin >= 0 else 0
        stop = end if isinstance(end, int) and not isinstance(end, bool) and end >= 0 else last + 1
        stop = min(stop, first + count_max, last + 1)
        found = (self.block(number) for number in range(first, stop))
        return [block for block in found if block is not None]

    def finalised_at(self, number: int) -> int | None:
        """When this node took a block for final; None for one that it found on its disk, or has forgotten."""
        return self._finalised_at.get(number)

    def transaction_info(self, tx_hash: Any) -> dict[str, Any] | None:
        """What the tracker knows of a transaction, with the transaction and, once in a block, its receipt."""
        tracked = self.pool.tracker.get(tx_hash) if isinstance(tx_hash, str) else None
        if tracked is None:
            return self._info_on_disk(tx_hash) if isinstance(tx_hash, str) else None
        info = dict(tracked)
        state = info.get("state")
        if state in STATES_IN_BLOCK:
            number, index = info.get("number", -1), info.get("index", -1)
            block = self.block(number)
            if block is None:
                return info
            if info.get("is_finalized") and index >= 0:
                info["transaction"] = block["transactions"][index]
                info["receipt"] = block["receipts"][index]
            else:
                votes = (wire for wire in block["last_votes"] if wire["hash"] == tx_hash)
                info["transaction"] = next(votes, None)
        elif state in (EXECUTED, PENDING):
            waiting = self.pool.waiting(tx_hash)
            info["transaction"] = None if waiting is None else waiting.to_json()
        return info

    def _info_on_disk(self, tx_hash: str) -> dict[str, Any] | None:
        """A final transaction that was tracked before this node started from a snapshot."""
        place = self.archive.place_of(tx_hash)
        block = None if place is None else self.block(place[0])
        if place is None or block is None:
            return None
        number, index = place
        wire, receipt = block["transactions"][index], block["receipts"][index]
        return {
            "state": REVERTED if has_failed(receipt, True) else FINALIZED,
            "number": number,
            "index": index,
            "address": wire["address"],
            "timestamp": wire["tx_body"]["timestamp"],
            "is_executed": True,
            "is_finalized": True,
            "tracked_at": block["timestamp"],
            "finalized_at": block["timestamp"],
            "transaction": wire,
            "receipt": receipt,
        }

    def _has_received(self, tx_hash: str) -> bool:
        """Whether this hash came before; for as long as AI Network's node remembers it."""
        if self.pool.has_received(tx_hash):
            return True
        place = self.archive.place_of(tx_hash) if self._start_number > 0 else None
        block = None if place is None or place[0] > self._start_number else self.block(place[0])
        if block is None:
            return False
        forgotten_at: int = block["timestamp"] + self.pool.limits.tracker_timeout_ms
        return self.final_time_ms < forgotten_at

    def pending_transactions(self) -> dict[str, list[Wire]]:
        """What waits, by account, votes and proposals included."""
        return {
            address: [one.to_json() for one in waiting] for address, waiting in self.pool.accounts.items()
        }

    # -- writing ----------------------------------------------------------------------------------------------------

    def submit(self, transaction: Transaction, now_ms: int, *, is_dry_run: bool = False) -> dict[str, Any]:
        """Executes a verified transaction on the front state and lets it wait for a block; returns its result."""
        refusal = self._refusal_of(transaction, now_ms)
        if refusal is not None:
            return refusal
        self._front.observer = None if is_dry_run else self.listener.user_writes
        self._front.rest = None if is_dry_run else self.listener.user_rest
        execution = self._front.execute(
            transaction, self.final_number + 1, self.final_time_ms, now_ms, is_dry_run=is_dry_run
        )
        if not is_dry_run and not execution.is_precheck_failure:
            waiting = Waiting(transaction, now_ms, now_ms, execution.result.get("gas_amount_total"))
            self.pool.add(waiting, execution.result, is_executed=not execution.has_failed)
        return execution.result

    def _refusal_of(self, transaction: Transaction, now_ms: int) -> dict[str, Any] | None:
        """What a full pool, or a node that does not serve, answers."""
        pool, limits, pays = self.pool, self.pool.limits, bool(transaction.gas_price)
        address = transaction.address
        prefix = "[executeTransactionAndAddToPool] "
        if pool.size >= limits.size:
            return _refused(POOL_FULL, f"{prefix}Tx pool does NOT have enough room ({pool.size}).")
        if not pays and pool.free_size >= limits.free_size:
            return _refused(
                FREE_POOL_FULL, f"{prefix}Tx pool does NOT have enough free room ({pool.free_size})."
            )
        if self._has_received(transaction.hash):
            shown = {**transaction.to_json(), "extra": {"created_at": now_ms, "executed_at": None}}
            text = json.dumps(shown, indent=2, ensure_ascii=False)
            return _refused(ALREADY_RECEIVED, f"{prefix}Already received transaction: {text}")
        if self.node_state != SERVING:
            return _refused(NOT_SERVING, f"{prefix}Blockchain node is NOT in SERVING mode: {self.node_state}")
        if pool.size_of(address) >= limits.size_per_account:
            room = f"({pool.size_of(address)}) for account: {address}"
            return _refused(ACCOUNT_FULL, f"{prefix}Tx pool does NOT have enough room {room}")
        if not pays and pool.free_size_of(address) >= limits.free_size_per_account:
            room = f"({pool.free_size_of(address)}) for account: {address}"
            return _refused(FREE_ACCOUNT_FULL, f"{prefix}Tx pool does NOT have enough free room {room}")
        return None

    # -- consensus --------------------------------------------------------------------------------------------------

    def candidates(self) -> list[Waiting]:
        """The waiting transactions for the next block on the tip, in their order."""
        tip = self.consensus.tip()
        extended = self.consensus.chain_to(tip)
        taken = [
            wire["hash"]
            for entry in extended
            for wire in (*entry.block["last_votes"], *entry.block["transactions"])
        ]
        return self._selected(tip.state, tip.number, frozenset(taken))

    def _selected(self, state: State, number: int, excluded: frozenset[str]) -> list[Waiting]:
        pooled = [[one.pooled for one in account] for account in self.pool.accounts.values()]
        lists = [
            in_nonce_order(
                account,
                _number(state.read_value(("accounts", account[0].address, "nonce"))),
                _number(state.read_value(("accounts", account[0].address, "timestamp"))),
            )
            for account in waiting_by_account(pooled, excluded)
        ]
        chosen = within_budgets(merged(lists), self._budgets(state, number))
        found = (self.pool.waiting(one.hash) for one in chosen)
        return [one for one in found if one is not None]

    def _budgets(self, state: State, number: int) -> BandwidthBudgets:
        def resource(name: str) -> Any:
            if number > 0:
                return _number(state.parameter("resource", name))
            return _number(self.network.configured("resource", name))

        apps = {
            app
            for account in self.pool.accounts.values()
            for one in account
            for app in one.pooled.app_bandwidth
        }
        return BandwidthBudgets(
            resource("bandwidth_budget_per_block"),
            resource("service_bandwidth_budget_ratio"),
            resource("apps_bandwidth_budget_ratio"),
            resource("free_bandwidth_budget_ratio"),
            {app: state.app_stake(app) for app in apps},
            state.app_stakes_total(),
        )

    def make_block(
        self, epoch: int, now_ms: int, proposer: str, is_full: Callable[[int], bool] | None = None
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """The next block and the body of its proposal; what cannot be executed any more leaves the pool.

        `is_full` tells from the number of transactions that have been executed whether the others must wait.
        """
        tried: list[str] = []

        def taken() -> Iterator[Transaction]:
            for one in self.candidates():
                if is_full is not None and is_full(len(tried)):
                    return
                tried.append(one.transaction.hash)
                yield one.transaction

        block, body = self.consensus.make_block(epoch, now_ms, proposer, taken())
        included = {wire["hash"] for wire in block["transactions"]}
        self.pool.drop_failed(tx_hash for tx_hash in tried if tx_hash not in included)
        return block, body

    def add_block(self, block: Any, proposal: Wire | None, now_ms: int) -> Entry:
        """Checks a block and keeps it, or refuses it with the protocol's code; final ones are found by `finalise`."""
        known = self.consensus.entry(str(block.get("hash"))) if isinstance(block, dict) else None
        if known is not None:
            if known.proposal is None and proposal is not None:
                self.consensus.add_block(block, proposal)
            return known
        entry = self.consensus.add_block(block, proposal, self.consensus.made)
        self.consensus.made = None
        if proposal is not None and entry.proposal_execution is not None:
            self._wait_as_consensus(proposal, now_ms, entry.proposal_execution.result)
        self.pool.note_block(entry, now_ms)
        return entry

    def add_vote(self, wire: Wire, now_ms: int) -> None:
        """Tallies a vote; it waits in the pool until a block carries it."""
        execution = self.consensus.add_vote(wire)
        self._wait_as_consensus(wire, now_ms, None if execution is None else execution.result)

    def _wait_as_consensus(self, wire: Wire, now_ms: int, result: dict[str, Any] | None) -> None:
        if not self.pool.has_received(wire["hash"]):
            gas = None if result is None else result.get("gas_amount_total")
            self.pool.add(Waiting(trusted_transaction(wire), now_ms, now_ms, gas))

    def finalise(self, now_ms: int, replayed_max: int | None = None) -> list[Entry]:
        """The blocks that have become final now; they are in the archive, and the front state stands on them.

        A pool of more than `replayed_max` stays as it was executed before.
        """
        before = hashes_of(self.consensus.papers())
        entries = self.consensus.finalise()
        for entry in entries:
            if self.archive.number_of(entry.hash) is None:
                self.archive.append(entry.block)
            self._finalised_at[entry.number] = now_ms
            if len(self._finalised_at) > FINAL_TIMES_MAX:
                self._finalised_at.popitem(last=False)
            self.pool.note_final(entry.block, now_ms)
            if self.listener.block_final is not None:
                self.listener.block_final(entry.number, entry.hash)
        if entries:
            self.pool.forget(before - hashes_of(self.consensus.papers()))
            if not self._replays_pool:
                self._front = self._front_on_final()
            elif self.pool.size <= REPLAYED_MAX and (replayed_max is None or self.pool.size <= replayed_max):
                self._front = self._front_on_final()
                self._replay_pool()
        return entries

    def _front_on_final(self) -> Executor:
        state = State(self.final.tree.fork())
        return Executor(self.network, state, self.consensus.domain)

    def _replay_pool(self) -> None:
        """Applies what waits to the new front state; what cannot be executed any more leaves the pool."""
        number, time_ms = self.final_number, self.final_time_ms
        failed: list[str] = []
        for one in self._selected(self.final, number, frozenset()):
            execution = self._front.execute(one.transaction, number, time_ms, time_ms)
            if execution.is_precheck_failure:
                failed.append(one.transaction.hash)
        self.pool.drop_failed(failed)

    def _recall(self, wire: Any) -> Transaction | None:
        """A transaction that this node has verified already, if it is the same to the last member."""
        if not isinstance(wire, dict):
            return None
        waiting = self.pool.waiting(str(wire.get("hash")))
        if waiting is not None and waiting.wire == wire:
            return waiting.transaction
        if self.allows_unsigned and is_unsigned(wire):
            return trusted_transaction(wire)
        return None

    def _tell_state(self, told: Waiting | Wire, before: str | None, after: str) -> None:
        if self.listener.state_changed is not None:
            wire = told.to_json() if isinstance(told, Waiting) else told
            self.listener.state_changed(wire, before, after)


def is_unsigned(wire: Mapping[str, Any]) -> bool:
    """Whether a transaction names its address instead of proving it."""
    body = wire.get("tx_body")
    return isinstance(body, dict) and isinstance(body.get("address"), str) and wire.get("signature") == ""


def proposal_of(next_block: Mapping[str, Any] | None) -> Wire | None:
    """The proposal of a block, from the last votes of the next one."""
    if next_block is None:
        return None
    for wire in next_block["last_votes"]:
        if isinstance(wire, dict) and is_proposal(trusted_transaction(wire)):
            proposal: Wire = wire
            return proposal
    return None


def hashes_of(wires: Iterable[Wire]) -> frozenset[str]:
    """The hashes of transactions."""
    return frozenset(wire["hash"] for wire in wires)


def _number(value: Any) -> Any:
    return value if is_number(value) else 0


def _refused(code: int, message: str) -> dict[str, Any]:
    return {"message": message, "code": code, "bandwidth_gas_amount": 0}
