"""Transactions that wait for a block, and the tracker that tells what became of each.

Room is counted as AI Network's node counts it: in all, for each account, and of both a part for transactions that pay
nothing. Votes and proposals wait here too, though they enter blocks by another way.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from openresource.ledger.consensus_entries import Entry
from openresource.ledger.pool import PooledTx
from openresource.ledger.results import has_failed
from openresource.ledger.transactions import ORDERED_BY_TIME_NONCE, Transaction

EXECUTED: Final = "EXECUTED"
PENDING: Final = "PENDING"
IN_BLOCK: Final = "IN_BLOCK"
FINALIZED: Final = "FINALIZED"
REVERTED: Final = "REVERTED"
FAILED: Final = "FAILED"
TIMED_OUT: Final = "TIMED_OUT"
STATES_IN_BLOCK: Final = frozenset((IN_BLOCK, FINALIZED, REVERTED))

Wire = dict[str, Any]
# A transaction as it travels, its state before (None: unknown until now) and its state from now on.
StateListener = Callable[[Wire, str | None, str], None]


@dataclass(frozen=True, slots=True)
class PoolLimits:
    """How much may wait, and for how long."""

    size: int = 1000
    size_per_account: int = 100
    free_ratio: float = 0.1
    free_ratio_per_account: float = 0.1
    timeout_ms: int = 3_600_000
    tracker_timeout_ms: int = 86_400_000

    @property
    def free_size(self) -> int:
        """How many of all may pay nothing."""
        return math.floor(self.size * self.free_ratio)

    @property
    def free_size_per_account(self) -> int:
        """How many of one account may pay nothing."""
        return math.floor(self.size_per_account * self.free_ratio_per_account)


class Waiting:
    """A transaction in the pool, with what its execution on this node recorded."""

    __slots__ = ("created_at", "executed_at", "gas", "is_free", "pooled", "transaction", "wire")

    def __init__(self, transaction: Transaction, created_at: int, executed_at: int, gas: Any) -> None:
        self.transaction = transaction
        self.wire: Wire = transaction.to_json()
        self.created_at = created_at
        self.executed_at = executed_at
        self.gas: dict[str, Any] = gas if isinstance(gas, dict) else {}
        self.is_free = is_free(transaction)
        bandwidth: dict[str, Any] = self.gas.get("bandwidth", {})
        self.pooled = PooledTx(
            transaction.hash,
            transaction.address,
            transaction.nonce,
            transaction.timestamp,
            transaction.gas_price,
            transaction.operation,
            bandwidth.get("service", 0),
            bandwidth.get("app", {}),
        )

    def to_json(self) -> Wire:
        """The transaction with the members that only a running node has."""
        extra: dict[str, Any] = {"created_at": self.created_at, "executed_at": self.executed_at}
        if self.gas:
            extra["gas"] = self.gas
        return {**self.wire, "extra": extra}


# The same; the members that only a running node has are added where somebody listens.
Tell = Callable[[Waiting | Wire, str | None, str], None]


class Pool:
    """What waits, by account in the order of arrival, and the tracker by hash."""

    def __init__(self, limits: PoolLimits, tell: Tell) -> None:
        self.limits = limits
        self.accounts: dict[str, list[Waiting]] = {}
        self.tracker: dict[str, dict[str, Any]] = {}
        self._by_hash: dict[str, Waiting] = {}
        self._free_by_account: dict[str, int] = {}
        self._free = 0
        self._tell = tell
        # When each hash was tracked, in that order; an older note of the same hash says nothing any more.
        self._tracked_at: deque[tuple[int, str]] = deque()

    @property
    def size(self) -> int:
        """How many wait."""
        return len(self._by_hash)

    @property
    def free_size(self) -> int:
        """How many wait that pay nothing."""
        return self._free

    def size_of(self, address: str) -> int:
        """How many of one account wait."""
        return len(self.accounts.get(address, ()))

    def free_size_of(self, address: str) -> int:
        """How many of one account wait that pay nothing."""
        return self._free_by_account.get(address, 0)

    def waiting(self, tx_hash: str) -> Waiting | None:
        """A transaction that waits."""
        return self._by_hash.get(tx_hash)

    def has_received(self, tx_hash: str) -> bool:
        """Whether this hash came before, whatever became of it."""
        return tx_hash in self._by_hash or tx_hash in self.tracker

    def utilization(self, address: str | None) -> dict[str, int]:
        """How full the pool is, in all or for one account."""
        limits = self.limits
        if address:
            return {
                "limit": limits.size_per_account,
                "used": self.size_of(address),
                "free_limit": limits.free_size_per_account,
                "free_used": self.free_size_of(address),
            }
        return {
            "limit": limits.size,
            "used": self.size,
            "free_limit": limits.free_size,
            "free_used": self._free,
        }

    def add(self, waiting: Waiting, result: Any = None, *, is_executed: bool = False) -> None:
        """Lets a transaction wait and tracks it."""
        transaction = waiting.transaction
        if transaction.hash in self._by_hash:
            return
        listed = self.accounts.setdefault(transaction.address, [])
        listed.append(waiting)
        self._by_hash[transaction.hash] = waiting
        if waiting.is_free:
            self._free += 1
            self._free_by_account[transaction.address] = self.free_size_of(transaction.address) + 1
        state = EXECUTED if is_executed else PENDING
        facts: dict[str, Any] = {
            "state": state,
            "number": -1,
            "index": len(listed) - 1,
            "address": transaction.address,
            "timestamp": transaction.timestamp,
            "is_executed": is_executed,
            "is_finalized": False,
            "tracked_at": waiting.created_at,
            "executed_at": waiting.executed_at,
            "finalized_at": -1,
        }
        if result is not None:
            facts["exec_result"] = result
        tracked = self.tracker.setdefault(transaction.hash, facts)
        if tracked is not facts:
            tracked.update(facts)
        self._tracked_at.append((waiting.created_at, transaction.hash))
        self._tell(waiting, None, state)

    # -- what became of them ----------------------------------------------------------------------------------------

    def note_block(self, entry: Entry, now_ms: int) -> None:
        """A block that holds them was executed; it is not final yet."""
        for wire, execution in zip(entry.block["last_votes"], entry.vote_executions, strict=True):
            self._note_in_block(wire, IN_BLOCK, execution.result, now_ms)
        if entry.proposal is not None and entry.proposal_execution is not None:
            self._note_in_block(entry.proposal, IN_BLOCK, entry.proposal_execution.result, now_ms)
        for wire, execution in zip(entry.block["transactions"], entry.executions, strict=True):
            state = REVERTED if execution.has_failed else IN_BLOCK
            self._note_in_block(wire, state, execution.result, now_ms)

    def _note_in_block(self, wire: Wire, state: str, result: Any, now_ms: int) -> None:
        tracked = self.tracker.setdefault(wire["hash"], {})
        before = tracked.get("state")
        tracked.update(state=state, exec_result=result, tracked_at=now_ms)
        self._tracked_at.append((now_ms, wire["hash"]))
        self._tell(wire, before, state)

    def note_final(self, block: Mapping[str, Any], now_ms: int) -> None:
        """A block became final: what it holds waits no longer, nor does what its nonces have overtaken."""
        gone: set[str] = set(_hashes_in_evidence(block["evidence"]))
        nonces: dict[str, Any] = {}
        timestamps: dict[str, Any] = {}
        for wire in block["last_votes"]:
            self._note_final(wire, FINALIZED, block["number"], -1, now_ms)
            gone.add(wire["hash"])
        for index, wire in enumerate(block["transactions"]):
            state = REVERTED if has_failed(block["receipts"][index], True) else FINALIZED
            self._note_final(wire, state, block["number"], index, now_ms)
            gone.add(wire["hash"])
            address, nonce = wire["address"], wire["tx_body"]["nonce"]
            timestamp = wire["tx_body"]["timestamp"]
            if nonce >= 0:
                nonces[address] = max(nonce, nonces.get(address, nonce))
            elif nonce == ORDERED_BY_TIME_NONCE:
                timestamps[address] = max(timestamp, timestamps.get(address, timestamp))
        touched = {self._by_hash[one].transaction.address for one in gone if one in self._by_hash}
        for address in [one for one in self.accounts if one in touched or one in nonces or one in timestamps]:
            last_nonce, last_timestamp = nonces.get(address), timestamps.get(address)
            self._remove(
                [
                    one
                    for one in self.accounts[address]
                    if one.transaction.hash in gone
                    or (last_nonce is not None and 0 <= one.transaction.nonce <= last_nonce)
                    or (
                        last_timestamp is not None
                        and one.transaction.nonce == ORDERED_BY_TIME_NONCE
                        and one.transaction.timestamp <= last_timestamp
                    )
                ]
            )
        self._time_out(block["timestamp"])

    def _note_final(self, wire: Wire, state: str, number: int, index: int, now_ms: int) -> None:
        tracked = self.tracker.setdefault(wire["hash"], {})
        before = tracked.get("state")
        tracked.update(
            state=state,
            number=number,
            index=index,
            address=wire["address"],
            timestamp=wire["tx_body"]["timestamp"],
            is_executed=True,
            is_finalized=True,
            tracked_at=now_ms,
            finalized_at=now_ms,
        )
        self._tracked_at.append((now_ms, wire["hash"]))
        self._tell(wire, before, state)

    def drop_failed(self, hashes: Iterable[str]) -> None:
        """These cannot be executed any more: they leave the pool as failed."""
        self._leave(hashes, FAILED)

    def forget(self, hashes: Iterable[str]) -> None:
        """Votes and proposals of blocks that are dropped; the tracker keeps what it knows of them."""
        self._remove([self._by_hash[one] for one in hashes if one in self._by_hash])

    def _time_out(self, block_time_ms: int) -> None:
        limits = self.limits
        times = self._tracked_at
        while times and block_time_ms >= times[0][0] + limits.tracker_timeout_ms:
            tracked_at, tx_hash = times.popleft()
            tracked = self.tracker.get(tx_hash)
            if tracked is not None and tracked["tracked_at"] <= tracked_at:
                del self.tracker[tx_hash]
        old_until = block_time_ms - limits.timeout_ms
        self._leave([one for one, held in self._by_hash.items() if held.created_at <= old_until], TIMED_OUT)

    def _leave(self, hashes: Iterable[str], state: str) -> None:
        leaving: list[Waiting] = []
        for tx_hash in hashes:
            waiting = self._by_hash.get(tx_hash)
            if waiting is None:
                continue
            tracked = self.tracker.get(tx_hash)
            before = None if tracked is None else tracked.get("state")
            if tracked is not None and before not in STATES_IN_BLOCK:
                tracked["state"] = state
            leaving.append(waiting)
            self._tell(waiting, before, state)
        self._remove(leaving)

    def _remove(self, leaving: Iterable[Waiting]) -> None:
        by_account: dict[str, set[str]] = {}
        for waiting in leaving:
            transaction = waiting.transaction
            if self._by_hash.pop(transaction.hash, None) is None:
                continue
            by_account.setdefault(transaction.address, set()).add(transaction.hash)
            if waiting.is_free:
                self._free -= 1
                self._free_by_account[transaction.address] -= 1
        for address, hashes in by_account.items():
            kept = [one for one in self.accounts[address] if one.transaction.hash not in hashes]
            if kept:
                self.accounts[address] = kept
            else:
                del self.accounts[address]
                self._free_by_account.pop(address, None)


def is_free(transaction: Transaction) -> bool:
    """Whether a transaction pays nothing."""
    return not transaction.gas_price


def _hashes_in_evidence(evidence: Mapping[str, Any]) -> Iterable[str]:
    for entries in evidence.values():
        for entry in entries:
            for wire in (*entry["transactions"], *entry["votes"]):
                yield wire["hash"]
