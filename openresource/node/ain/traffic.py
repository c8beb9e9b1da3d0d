"""How much of what came through a node, in rates and averages over closed intervals of time.

An event's first interval begins right behind the first event of its kind, which makes an interval of its own; the
interval that is still open does not count. Both are habits of AI Network's node that its status shows.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Final

from openresource.primitives.numbers import is_number
from openresource.primitives.values import size_of

INTERVAL_MS: Final = 60_000
INTERVALS_MAX: Final = 60


class _Counter:
    """Events of one kind by interval: how many, and the sum of what they measure."""

    def __init__(self, start_ms: int) -> None:
        self._start_ms = start_ms
        self._intervals: dict[int, tuple[int, float]] = {}
        self._newest = 0

    def add(self, metric: float, at_ms: int) -> None:
        index = self._index(at_ms)
        if index > self._newest:
            self._newest = index
            for old in [one for one in self._intervals if one < index - INTERVALS_MAX]:
                del self._intervals[old]
        count, total = self._intervals.get(self._newest, (0, 0.0))
        self._intervals[self._newest] = (count + 1, total + metric)

    def sums(self, period_ms: float, now_ms: int) -> tuple[int, float]:
        current = self._index(now_ms)
        first = current - int(period_ms // INTERVAL_MS)
        closed = [pair for index, pair in self._intervals.items() if first <= index < current]
        return sum(count for count, _ in closed), sum(total for _, total in closed)

    def _index(self, at_ms: int) -> int:
        return math.ceil((at_ms - self._start_ms) / INTERVAL_MS)


class Traffic:
    """Every kind of event of one node."""

    def __init__(self) -> None:
        self._counters: dict[str, _Counter] = {}

    def add(self, kind: str, metric: float, at_ms: int, *, is_block_time: bool = False) -> None:
        """One event; those with a block's time count from the first of them, others in minutes of the clock."""
        counter = self._counters.get(kind)
        if counter is None:
            counter = self._counters[kind] = _Counter(at_ms if is_block_time else 0)
        counter.add(metric, at_ms)

    def stats(self, periods_seconds: Mapping[str, Any], now_ms: int) -> dict[str, dict[str, Any]]:
        """Rate per second and average of every kind that has closed intervals, for each named period."""
        told: dict[str, dict[str, Any]] = {}
        for name, seconds in periods_seconds.items():
            told[name] = {}
            if not is_number(seconds) or not 0 < seconds <= INTERVALS_MAX * INTERVAL_MS / 1000:
                continue
            for kind, counter in self._counters.items():
                count, total = counter.sums(seconds * 1000, now_ms)
                if count:
                    told[name][kind] = {"rate": count / seconds, "metric": _plain(total / count)}
        return told

    def note_final_block(self, block: Mapping[str, Any], now_ms: int) -> None:
        """A block became final: what is measured of it, of the votes in it and of its transactions."""
        time_ms: int = block["timestamp"]

        def add(kind: str, metric: float) -> None:
            self.add(kind, metric, time_ms, is_block_time=True)

        add("block_gas_amount", block["gas_amount_total"])
        add("block_gas_cost", block["gas_cost_total"])
        add("block_last_votes", len(block["last_votes"]))
        add("block_size", block["size"])
        add("block_txs", len(block["transactions"]))
        add("block_evidence", len(block["evidence"]))
        if block["number"] > 0:
            self.add("block_finalized", now_ms - time_ms, now_ms, is_block_time=True)
        times = [wire["tx_body"]["timestamp"] for wire in block["last_votes"]]
        for index, voted_ms in enumerate(times):
            if index == 0:
                add("propose_before_block", time_ms - voted_ms)
            else:
                add("vote_before_block", time_ms - voted_ms)
                add("vote_after_propose", voted_ms - times[0])
        for wire, receipt in zip(block["transactions"], block["receipts"], strict=True):
            operation = wire["tx_body"]["operation"]
            add("tx_op_size", len(operation["op_list"]) if operation.get("type") == "SET" else 1)
            add("tx_bytes", size_of(wire))
            add("tx_gas_amount", receipt.get("gas_amount_charged", 0))
            add("tx_gas_cost", receipt["gas_cost_total"])


def _plain(value: float) -> float | int:
    return int(value) if value.is_integer() else value
