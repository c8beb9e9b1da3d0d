"""What happens on the chain, as one stream with cursors that a reader can leave and take up again.

Final events are replayed from the store from any cursor; pending ones are hints about the open block. Filters are
matched through a trie of path labels. A reader that does not keep up is cut off and comes back with its cursor.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from openresource.primitives.encoding import canonical_json_bytes
from openresource.primitives.errors import Refusal
from openresource.primitives.paths import parse_path

WRITE = "WRITE"
BLOCK = "BLOCK"
PENDING = "PENDING"
DROPPED = "DROPPED"
REVERTED = "REVERTED"

ANY_LABEL = "*"
PATTERNS_PER_READER_MAX = 64
PATTERN_LABELS_MAX = 32
READERS_MAX = 512
QUEUED_EVENTS_MAX = 4_096
HEARTBEAT_SECONDS = 10.0

Pattern = tuple[str, ...]


class InvalidCursor(Refusal):
    template = "{cursor} is no cursor."
    way_out = "Give a height, or a cursor of an event in the form height:index."


class CursorAhead(Refusal):
    template = "The cursor {cursor} lies beyond the newest block {height}."
    way_out = "It belongs to another network or to a chain that was begun anew; start without a cursor."


class InvalidPattern(Refusal):
    template = "{pattern} is no pattern: {reason}."
    way_out = "Write labels with slashes between them, and * for any one label."


class TooManyReaders(Refusal):
    template = "{readers} readers follow the events already, which is the limit of this node."
    way_out = "Close a stream that is not needed, or ask another node."


@dataclass(frozen=True, slots=True, order=True)
class Cursor:
    """The place of a final event: which block, which event in it."""

    height: int
    index: int

    def __str__(self) -> str:
        return f"{self.height}:{self.index}"


@dataclass(frozen=True, slots=True)
class Event:
    """One thing that happened: a write below /values, or a block."""

    cursor: Cursor
    kind: str
    path: str
    value: Any
    by: str
    tx_hash: str
    time_ms: int
    is_final: bool

    def to_json(self) -> dict[str, Any]:
        return {
            "cursor": str(self.cursor),
            "kind": self.kind,
            "path": self.path,
            "value": self.value,
            "by": self.by,
            "tx_hash": self.tx_hash,
            "height": self.cursor.height,
            "time_ms": self.time_ms,
            "final": self.is_final,
        }


class History(Protocol):
    """Where final events are kept."""

    def last_height(self) -> int: ...

    def events_of(self, height: int) -> Sequence[Event]: ...


def parse_cursor(text: str) -> Cursor:
    """A cursor from outside; a bare height means everything from that block on."""
    height, separator, index = text.partition(":")
    digits = height + index if separator else height
    if (
        not (digits.isascii() and digits.isdigit())
        or len(digits) > 24
        or (separator and not (height and index))
    ):
        raise InvalidCursor(cursor=text)
    return Cursor(int(height), int(index) if separator else -1)


def parse_patterns(texts: Sequence[str]) -> tuple[Pattern, ...]:
    """Patterns from outside; none means everything."""
    if len(texts) > PATTERNS_PER_READER_MAX:
        raise InvalidPattern(
            pattern=f"A list of {len(texts)}", reason=f"at most {PATTERNS_PER_READER_MAX} are watched"
        )
    patterns: list[Pattern] = []
    for text in texts:
        labels = tuple(parse_path(text))
        if len(labels) > PATTERN_LABELS_MAX:
            raise InvalidPattern(pattern=text, reason=f"it has more than {PATTERN_LABELS_MAX} labels")
        patterns.append(labels)
    return tuple(dict.fromkeys(patterns))


def matches(pattern: Pattern, labels: Sequence[str]) -> bool:
    """Whether a write at these labels lies at or below the pattern."""
    if len(pattern) > len(labels):
        return False
    return all(wanted in (ANY_LABEL, label) for wanted, label in zip(pattern, labels, strict=False))


def frame(event: Event) -> bytes:
    """The event as server-sent events write it; only final ones move the reader's cursor."""
    name = b"id: %d:%d\n" % (event.cursor.height, event.cursor.index) if event.is_final else b""
    return b"%bdata: %b\n\n" % (name, canonical_json_bytes(event.to_json()))


class Reader:
    """One open stream: what it wants, and what waits to be sent to it."""

    __slots__ = ("_cut", "_queue", "_waiter", "patterns", "wants_blocks", "wants_pending")

    def __init__(self, patterns: tuple[Pattern, ...], wants_pending: bool, wants_blocks: bool) -> None:
        self.patterns = patterns or ((),)
        self.wants_pending = wants_pending
        self.wants_blocks = wants_blocks or not patterns
        self._queue: list[bytes] = []
        self._cut = False
        self._waiter: asyncio.Event = asyncio.Event()

    def wants(self, event: Event) -> bool:
        """Whether a replayed event is for this reader."""
        if event.kind == BLOCK:
            return self.wants_blocks
        labels = parse_path(event.path)
        return any(matches(pattern, labels) for pattern in self.patterns)

    def offer(self, data: bytes) -> None:
        """Queue an event, or cut the reader off when it is too far behind."""
        if len(self._queue) >= QUEUED_EVENTS_MAX:
            self.cut()
            return
        self._queue.append(data)
        self._waiter.set()

    def cut(self) -> None:
        """End the stream; the reader comes back with its cursor."""
        self._cut = True
        self._queue = []
        self._waiter.set()

    def is_cut(self) -> bool:
        return self._cut

    async def take(self, timeout_seconds: float) -> list[bytes]:
        """Everything queued; waits for the first, and an empty list after the time-out."""
        if not self._queue and not self._cut:
            try:
                async with asyncio.timeout(timeout_seconds):
                    await self._waiter.wait()
            except TimeoutError:
                return []
        self._waiter.clear()
        taken, self._queue = self._queue, []
        return taken


class _TrieNode:
    __slots__ = ("children", "readers")

    def __init__(self) -> None:
        self.children: dict[str, _TrieNode] = {}
        self.readers: set[Reader] = set()


class EventHub:
    """Hands each event to the readers whose patterns it matches; never waits for any of them."""

    def __init__(self, history: History) -> None:
        self._history = history
        self._root = _TrieNode()
        self._readers: set[Reader] = set()
        self.cut_total = 0
        self.sent_total = 0

    def reader_count(self) -> int:
        return len(self._readers)

    def has_pending_readers(self) -> bool:
        """Whether hints about the open block are worth making."""
        return bool(self._readers) and any(reader.wants_pending for reader in self._readers)

    def publish(self, events: Sequence[Event]) -> None:
        """Hand on final events, or hints, in their order."""
        if not self._readers:
            return
        for event in events:
            readers = [reader for reader in self._matching(event) if event.is_final or reader.wants_pending]
            if not readers:
                continue
            data = frame(event)
            for reader in readers:
                reader.offer(data)
                if reader.is_cut():
                    self._remove(reader)
                    self.cut_total += 1
            self.sent_total += len(readers)

    def close(self) -> None:
        """End every stream, for a graceful stop."""
        for reader in list(self._readers):
            reader.cut()
            self._remove(reader)

    def refuse_if_impossible(self, since: Cursor | None) -> None:
        """Say no before a stream begins, while an answer can still be a refusal."""
        if len(self._readers) >= READERS_MAX:
            raise TooManyReaders(readers=len(self._readers))
        height = self._history.last_height()
        if since is not None and since.height > height + 1:
            raise CursorAhead(cursor=str(since), height=height)

    async def stream(
        self,
        patterns: tuple[Pattern, ...],
        *,
        since: Cursor | None = None,
        wants_pending: bool = False,
        wants_blocks: bool = False,
        is_gone: Callable[[], bool] = lambda: False,
    ) -> AsyncIterator[bytes]:
        """Frames for one reader: first what it missed, then what happens, until it leaves or is cut off."""
        reader = Reader(patterns, wants_pending, wants_blocks)
        position = since if since is not None else self._newest()
        # An id at once tells the reader where it stands, even if nothing ever matches.
        yield _position_frame(position)
        async for chunk, position_after in self._replayed(reader, position):
            position = position_after
            if chunk:
                yield chunk
        # Nothing is awaited between the last look at the history and joining, so no block falls between.
        self._join(reader)
        try:
            yield _position_frame(position)
            while not reader.is_cut() and not is_gone():
                frames = await reader.take(HEARTBEAT_SECONDS)
                if frames:
                    yield b"".join(frames)
                elif not reader.is_cut():
                    yield _position_frame(self._newest())
        finally:
            self._remove(reader)

    async def _replayed(self, reader: Reader, position: Cursor) -> AsyncIterator[tuple[bytes, Cursor]]:
        height = position.height
        while height <= self._history.last_height():
            events = [event for event in self._history.events_of(height) if event.cursor > position]
            if events:
                position = events[-1].cursor
            yield b"".join([frame(event) for event in events if reader.wants(event)]), position
            height += 1

    def _newest(self) -> Cursor:
        height = self._history.last_height()
        events = self._history.events_of(height)
        return events[-1].cursor if events else Cursor(height, -1)

    def _join(self, reader: Reader) -> None:
        self._readers.add(reader)
        for pattern in reader.patterns:
            node = self._root
            for label in pattern:
                node = node.children.setdefault(label, _TrieNode())
            node.readers.add(reader)

    def _remove(self, reader: Reader) -> None:
        if reader not in self._readers:
            return
        self._readers.discard(reader)
        for pattern in reader.patterns:
            self._remove_pattern(reader, pattern)

    def _remove_pattern(self, reader: Reader, pattern: Pattern) -> None:
        way = [self._root]
        for label in pattern:
            way.append(way[-1].children[label])
        way[-1].readers.discard(reader)
        for depth in range(len(pattern), 0, -1):
            if way[depth].children or way[depth].readers:
                return
            del way[depth - 1].children[pattern[depth - 1]]

    def _matching(self, event: Event) -> set[Reader]:
        if event.kind == BLOCK:
            return {reader for reader in self._readers if reader.wants_blocks}
        found = set(self._root.readers)
        frontier = [self._root]
        for label in parse_path(event.path):
            reached: list[_TrieNode] = []
            for node in frontier:
                for wanted in (label, ANY_LABEL):
                    child = node.children.get(wanted)
                    if child is not None:
                        reached.append(child)
                        found |= child.readers
            if not reached:
                break
            frontier = reached
        return found


def _position_frame(position: Cursor) -> bytes:
    # No data line: browsers take the id and call nobody.
    return f"id: {position}\n\n".encode() if position.index >= 0 else b": here\n\n"
