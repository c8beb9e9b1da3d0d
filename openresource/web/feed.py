"""What happens on the chain, followed once for all browsers: the newest blocks and transactions, and the node's state.

One task follows the node's events while somebody looks, and rests when nobody does; each open page waits for the next
change. A node that is away is tried again for ever, and the pages say so in the meantime. On a chain that writes faster
than this reads, the feed skips to the newest blocks: it is a window, not a history.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import OrderedDict, deque
from collections.abc import AsyncIterator
from contextlib import aclosing
from dataclasses import dataclass, replace
from typing import Any, Final, Literal

from openresource.client.chain import Chain, Event, NodeStatus
from openresource.primitives.errors import Refusal
from openresource.primitives.paths import parse_path
from openresource.web.deeds import Deed, deed_of, main_deed

BLOCKS_KEPT: Final = 30
TRANSACTIONS_KEPT: Final = 60
BLOCKS_AT_START: Final = 20
READERS_MAX: Final = 64
AWAY_SECONDS: Final = 1.0
RETRY_SECONDS: Final = 1.0
# Changes that come together are shown together.
GATHER_SECONDS: Final = 0.15
# A quiet stream still proves that it lives, so that a browser notices when it does not.
QUIET_SECONDS: Final = 15.0
IDLE_SECONDS: Final = 30.0
EVENTS_PER_LOOK: Final = 5_000
BLOCKS_BEHIND_MAX: Final = 40
MARKET_ROOTS: Final = frozenset(("services", "placements", "kills", "verified"))
JOBS_KEPT: Final = 500

TransactionState = Literal["pending", "final", "dropped"]


class TooManyReaders(Refusal):
    template = "{readers} pages are open already, which is the limit."
    way_out = "Close one that is not needed."


@dataclass(frozen=True, slots=True)
class BlockLine:
    """A block as a list shows it."""

    number: int
    hash: str
    transactions: int
    time_ms: int


@dataclass(frozen=True, slots=True)
class TransactionLine:
    """A transaction as a list shows it: its first write by a user, and where it stands."""

    hash: str
    path: str
    deed: Deed
    writes: int
    state: TransactionState
    height: int
    time_ms: int


class Feed:
    """The newest part of the chain, kept up to date while somebody looks."""

    def __init__(self, chain: Chain) -> None:
        self.status: NodeStatus | None = None
        self.trouble = ""
        # Grows with every change; `market_version` only with those that lists of services show.
        self.version = 0
        self.market_version = 0
        # Jobs that something happened to, the newest last, each with the version in which it did.
        self.jobs: OrderedDict[str, int] = OrderedDict()
        self.jobs_version = 0
        self._chain = chain
        self._blocks: deque[BlockLine] = deque(maxlen=BLOCKS_KEPT)
        self._transactions: OrderedDict[str, TransactionLine] = OrderedDict()
        self._changed = asyncio.Event()
        self._ready = asyncio.Event()
        self._readers = 0
        self._task: asyncio.Task[None] | None = None
        self._resting: asyncio.TimerHandle | None = None
        self._is_closing = False

    @property
    def blocks(self) -> list[BlockLine]:
        """The newest blocks, the newest first."""
        return list(reversed(self._blocks))

    @property
    def transactions(self) -> list[TransactionLine]:
        """The newest transactions: pending ones first, then final ones, each the newest first."""
        newest = list(reversed(self._transactions.values()))
        return sorted(newest, key=lambda line: line.state == "final")

    @property
    def height(self) -> int:
        """The newest block's number; -1 before the node has said anything."""
        if self._blocks:
            return self._blocks[-1].number
        return -1 if self.status is None else self.status.height

    @property
    def pending(self) -> int:
        """How many transactions wait for a block."""
        return sum(1 for line in self._transactions.values() if line.state == "pending")

    async def begin(self, wait_seconds: float = 1.5) -> None:
        """Follow the chain from now on; waits shortly for the first news."""
        if self._task is None and not self._is_closing:
            self._task = asyncio.create_task(self._follow(), name="feed")
        self._rest_later()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(wait_seconds):
                await self._ready.wait()

    async def changes(self) -> AsyncIterator[int]:
        """The version at once and after every change; the same one again when nothing happened for a while."""
        if self._readers >= READERS_MAX:
            raise TooManyReaders(readers=self._readers)
        self._readers += 1
        try:
            await self.begin()
            seen = -1
            while not self._is_closing:
                if seen == self.version:
                    with contextlib.suppress(TimeoutError):
                        async with asyncio.timeout(QUIET_SECONDS):
                            await self._changed.wait()
                            await asyncio.sleep(GATHER_SECONDS)
                if self._is_closing:
                    return
                seen = self.version
                yield seen
        finally:
            self._readers -= 1
            self._rest_later()

    def end(self) -> None:
        """Let all streams end."""
        self._is_closing = True
        self._announce()

    async def close(self) -> None:
        """End all streams and stop following."""
        self.end()
        if self._resting is not None:
            self._resting.cancel()
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
            self._task = None

    def _rest_later(self) -> None:
        """Nobody looks for a while: then nothing is followed until somebody looks again."""
        if self._resting is not None:
            self._resting.cancel()
        self._resting = None
        if not self._readers and not self._is_closing:
            self._resting = asyncio.get_running_loop().call_later(IDLE_SECONDS, self._rest)

    def _rest(self) -> None:
        if self._readers or self._task is None:
            return
        self._task.cancel()
        self._task = None
        self._ready.clear()
        self._forget_pending()
        # What changes meanwhile is not seen.
        self.market_version += 1
        self._forget_jobs()

    async def _follow(self) -> None:
        position: str | None = None
        while True:
            try:
                self.status = await self._chain.status()
                self._note_trouble("")
                self._ready.set()
                if (
                    position is None
                    or self.status.height - int(position.partition(":")[0]) > BLOCKS_BEHIND_MAX
                ):
                    self.market_version += 1
                    self._forget_jobs()
                    position = str(max(0, self.status.height - BLOCKS_AT_START + 1))
                position = await self._follow_from(position)
                continue
            except Refusal as refusal:
                # Away, or not the network that we know: said on the pages, tried again, known to be pending no more.
                self._note_trouble(refusal.message)
                self._forget_pending()
                self._ready.set()
            await asyncio.sleep(RETRY_SECONDS)

    async def _follow_from(self, position: str) -> str:
        """Follow until enough came that it is worth a look whether this is far behind; where it stands then."""
        stream = self._chain.events(since=position, pending=True, blocks=True, away_seconds_max=AWAY_SECONDS)
        seen = 0
        async with aclosing(stream) as events:
            async for event in events:
                if event.is_final:
                    position = event.cursor
                self._take(event)
                seen += 1
                if seen >= EVENTS_PER_LOOK and event.kind == "BLOCK":
                    break
        return position

    def _take(self, event: Event) -> None:
        labels = parse_path(event.path)
        if event.kind == "BLOCK":
            self._take_block(event)
        elif event.tx_hash:
            self._take_write(event)
        if event.is_final and labels and labels[0] in MARKET_ROOTS:
            self.market_version += 1
        if len(labels) > 1 and labels[0] == "jobs":
            self._take_job(labels[1])
        self._announce()

    def _take_job(self, job: str) -> None:
        self.jobs_version += 1
        self.jobs[job] = self.jobs_version
        self.jobs.move_to_end(job)
        while len(self.jobs) > JOBS_KEPT:
            self.jobs.popitem(last=False)

    def _forget_jobs(self) -> None:
        self.jobs.clear()
        self.jobs_version += 1

    def _take_block(self, event: Event) -> None:
        about: dict[str, Any] = event.value if isinstance(event.value, dict) else {}
        number = about.get("number")
        if not isinstance(number, int) or (self._blocks and number <= self._blocks[-1].number):
            return
        transactions = about.get("transactions")
        line = BlockLine(
            number,
            str(about.get("hash")),
            transactions if isinstance(transactions, int) else 0,
            event.time_ms,
        )
        self._blocks.append(line)
        if self.status is not None:
            self.status = replace(self.status, height=number, time_ms=event.time_ms)

    def _take_write(self, event: Event) -> None:
        states: dict[str, TransactionState] = {"PENDING": "pending", "WRITE": "final", "DROPPED": "dropped"}
        state = states.get(event.kind)
        if state is None:
            return
        known = self._transactions.get(event.tx_hash)
        deed = deed_of(event.path, event.value)
        if known is not None and event.by == "user" and event.value is not None:
            known = replace(known, deed=main_deed((known.deed, deed)))
        if known is None:
            line = TransactionLine(event.tx_hash, event.path, deed, 1, state, event.height, event.time_ms)
            self._transactions[event.tx_hash] = line
        elif known.state == "final":
            self._transactions[event.tx_hash] = replace(known, writes=known.writes + 1)
        else:
            writes = known.writes + 1 if state == known.state else 1
            self._transactions[event.tx_hash] = replace(
                known, state=state, writes=writes, height=event.height, time_ms=event.time_ms
            )
        while len(self._transactions) > TRANSACTIONS_KEPT:
            self._transactions.popitem(last=False)

    def _forget_pending(self) -> None:
        for tx_hash in [one.hash for one in self._transactions.values() if one.state == "pending"]:
            del self._transactions[tx_hash]

    def _note_trouble(self, trouble: str) -> None:
        if trouble != self.trouble:
            self.trouble = trouble
            self._announce()

    def _announce(self) -> None:
        self.version += 1
        self._changed.set()
        self._changed.clear()
