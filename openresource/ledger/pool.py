"""Which waiting transactions enter AI Network's next block, and in which order.

The order decides results, so it is followed to the letter, with its oddities: the comparison of one account's
transactions is not transitive, and what a service would have used stays counted when the transaction is left out.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from typing import Any, Final

from openresource.ledger.transactions import ORDERED_BY_TIME_NONCE, SET, UNORDERED_NONCE
from openresource.primitives.numbers import is_number

CONSENSUS_PREFIX: Final = "/consensus/number"
SET_VALUE: Final = "SET_VALUE"


class PooledTx:
    """A waiting transaction as the order sees it, with the bandwidth that its last execution recorded."""

    __slots__ = (
        "address",
        "app_bandwidth",
        "gas_price",
        "hash",
        "nonce",
        "operation",
        "service_bandwidth",
        "timestamp",
    )

    def __init__(
        self,
        tx_hash: str,
        address: str,
        nonce: int,
        timestamp: int,
        gas_price: Any,
        operation: Any,
        service_bandwidth: Any,
        app_bandwidth: Mapping[str, Any],
    ) -> None:
        self.hash: str = tx_hash
        self.address: str = address
        self.nonce: int = nonce
        self.timestamp: int = timestamp
        self.gas_price: Any = gas_price
        self.operation: Any = operation
        self.service_bandwidth: Any = service_bandwidth
        self.app_bandwidth: Mapping[str, Any] = app_bandwidth

    @property
    def is_service(self) -> bool:
        """Whether it uses a service, and not only apps."""
        used: bool = self.service_bandwidth > 0
        return used

    @property
    def is_consensus(self) -> bool:
        """Whether it looks like a proposal or a vote, which come into blocks by another way."""
        operation = self.operation
        if not isinstance(operation, dict):
            return False
        kind = operation.get("type")
        if kind == SET_VALUE:
            return _is_consensus_ref(operation.get("ref"))
        if kind == SET:
            singles = operation.get("op_list")
            return (
                isinstance(singles, list)
                and len(singles) > 0
                and isinstance(singles[0], dict)
                and _is_consensus_ref(singles[0].get("ref"))
            )
        return False


class BandwidthBudgets:
    """What the transactions of one block may use together."""

    __slots__ = ("app_stakes", "app_stakes_total", "apps", "free", "service")

    def __init__(
        self,
        bandwidth: Any,
        service_ratio: Any,
        apps_ratio: Any,
        free_ratio: Any,
        app_stakes: Mapping[str, Any],
        app_stakes_total: Any,
    ) -> None:
        self.service: Any = bandwidth * service_ratio
        self.apps: Any = bandwidth * apps_ratio
        self.free: Any = bandwidth * free_ratio
        self.app_stakes: Mapping[str, Any] = app_stakes
        self.app_stakes_total: Any = app_stakes_total

    def allocated(self, app: str) -> Any:
        """An app's part of the budget, by its stake."""
        if not is_number(self.app_stakes_total) or self.app_stakes_total == 0:
            return 0
        stake: Any = self.app_stakes.get(app, 0)
        return self.apps * stake / self.app_stakes_total


def waiting_by_account(pool: Sequence[Sequence[PooledTx]], excluded: frozenset[str]) -> list[list[PooledTx]]:
    """Each account's transactions in their order, without consensus and without those of blocks being extended."""
    lists: list[list[PooledTx]] = []
    for account in pool:
        kept = [one for one in account if one.hash not in excluded and not one.is_consensus]
        if kept:
            kept.sort(key=functools.cmp_to_key(_compare))
            lists.append(kept)
    return lists


def in_nonce_order(transactions: Sequence[PooledTx], nonce: int, timestamp: int) -> list[PooledTx]:
    """Those of one account that can be executed one after the other, from its nonce and timestamp on."""
    kept: list[PooledTx] = []
    for one in transactions:
        if one.nonce == UNORDERED_NONCE:
            kept.append(one)
        elif one.nonce == ORDERED_BY_TIME_NONCE:
            if one.timestamp > timestamp:
                kept.append(one)
                timestamp = one.timestamp
        elif one.nonce == nonce:
            kept.append(one)
            nonce += 1
    return kept


def merged(lists: Sequence[list[PooledTx]]) -> list[PooledTx]:
    """All accounts' lists as one, merged in pairs until one is left."""
    rest = list(lists)
    if not rest:
        return []
    while len(rest) > 1:
        rest = [
            _merge(rest[place], rest[place + 1]) if place + 1 < len(rest) else rest[place]
            for place in range(0, len(rest), 2)
        ]
    return rest[0]


def within_budgets(transactions: Sequence[PooledTx], budgets: BandwidthBudgets) -> list[PooledTx]:
    """Those that fit into one block; after a numbered one is left out, its account's later numbered ones are too."""
    chosen: list[PooledTx] = []
    service_sum: Any = 0
    free_sum: Any = 0
    app_sums: dict[str, Any] = {}
    held_back: set[str] = set()
    for one in transactions:
        if one.nonce >= 0 and one.address in held_back:
            continue
        if service_sum + one.service_bandwidth > budgets.service:
            if one.nonce >= 0:
                held_back.add(one.address)
            continue
        service_sum += one.service_bandwidth
        new_free_sum = free_sum
        new_sums: dict[str, Any] = {}
        fits = True
        for app, bandwidth in one.app_bandwidth.items():
            allocated = budgets.allocated(app)
            used = app_sums.get(app, 0) + bandwidth
            if used > allocated:
                if allocated == 0 and new_free_sum + bandwidth <= budgets.free:
                    new_free_sum += bandwidth
                else:
                    fits = False
                    break
            else:
                new_sums[app] = used
        if not fits:
            if one.nonce >= 0:
                held_back.add(one.address)
            continue
        free_sum = new_free_sum
        app_sums.update(new_sums)
        chosen.append(one)
    return chosen


def _compare(left: PooledTx, right: PooledTx) -> int:
    if left.nonce >= 0 and right.nonce >= 0:
        return left.nonce - right.nonce
    if left.nonce < 0 and left.nonce == right.nonce:
        return left.timestamp - right.timestamp
    return 0


def _merge(first: list[PooledTx], second: list[PooledTx]) -> list[PooledTx]:
    out: list[PooledTx] = []
    left = 0
    right = 0
    while left < len(first) and right < len(second):
        if _goes_first(first[left], second[right]):
            out.append(first[left])
            left += 1
        else:
            out.append(second[right])
            right += 1
    out.extend(first[left:])
    out.extend(second[right:])
    return out


def _goes_first(left: PooledTx, right: PooledTx) -> bool:
    if left.is_service and right.is_service:
        dearer: bool = left.gas_price > right.gas_price
        return dearer
    if not left.is_service and not right.is_service:
        return left.timestamp < right.timestamp
    return left.is_service


def _is_consensus_ref(ref: object) -> bool:
    return isinstance(ref, str) and ref.startswith(CONSENSUS_PREFIX)
