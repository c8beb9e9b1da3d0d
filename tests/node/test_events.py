"""The stream of events: filters by path, cursors that resume, readers that are cut off rather than waited for."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import aclosing
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from openresource.node import events
from openresource.node.events import (
    BLOCK,
    PENDING,
    WRITE,
    Cursor,
    CursorAhead,
    Event,
    EventHub,
    InvalidCursor,
    InvalidPattern,
    TooManyReaders,
    matches,
    parse_cursor,
    parse_patterns,
)
from openresource.primitives.encoding import parse_json

LABELS = st.sampled_from(["a", "b", "c"])
PATHS = st.lists(LABELS, max_size=4).map(tuple)
PATTERNS = st.lists(st.sampled_from(["a", "b", "c", "*"]), max_size=4).map(tuple)


class Chain:
    """A history in memory."""

    def __init__(self) -> None:
        self.blocks: list[list[Event]] = [[block_event(0, 0)]]

    def last_height(self) -> int:
        return len(self.blocks) - 1

    def events_of(self, height: int) -> Sequence[Event]:
        return self.blocks[height]

    def add(self, hub: EventHub, *paths: str) -> None:
        """A block with a write at each path."""
        height = len(self.blocks)
        made = [write_event(height, index, path) for index, path in enumerate(paths)]
        made.append(block_event(height, len(made)))
        self.blocks.append(made)
        hub.publish(made)


def write_event(height: int, index: int, path: str, kind: str = WRITE) -> Event:
    return Event(Cursor(height, index), kind, path, index, "user", "0x00", 1_000 + height, kind == WRITE)


def block_event(height: int, index: int) -> Event:
    return Event(Cursor(height, index), BLOCK, "/", None, "node", "", 1_000 + height, True)


async def read(
    hub: EventHub, count: int, patterns: Sequence[str] = (), **options: Any
) -> list[dict[str, Any]]:
    """The first events of a new stream."""
    found: list[dict[str, Any]] = []
    async with asyncio.timeout(60), aclosing(hub.stream(parse_patterns(patterns), **options)) as stream:
        async for chunk in stream:
            for frame in chunk.split(b"\n\n"):
                found.extend(
                    parse_json(line[6:]) for line in frame.split(b"\n") if line.startswith(b"data: ")
                )
            if len(found) >= count:
                break
    return found


async def reader_joined(hub: EventHub, count: int = 1) -> None:
    async with asyncio.timeout(60):
        while hub.reader_count() < count:
            await asyncio.sleep(0)


def cursors(found: list[dict[str, Any]]) -> list[str]:
    return [event["cursor"] for event in found]


@given(PATTERNS, PATHS)
def test_the_trie_finds_the_readers_whose_pattern_matches(
    pattern: tuple[str, ...], path: tuple[str, ...]
) -> None:
    hub = EventHub(Chain())
    reader = events.Reader((pattern,), False, False)
    hub._join(reader)
    event = write_event(1, 0, "/" + "/".join(path))
    assert (reader in hub._matching(event)) == matches(pattern, path)
    hub._remove(reader)
    assert not hub._root.children and not hub._matching(event)


@given(st.lists(st.tuples(PATTERNS, PATTERNS), max_size=6), st.randoms())
def test_leaving_readers_leave_the_others_alone(pairs: list[Any], random: Any) -> None:
    hub = EventHub(Chain())
    readers = [events.Reader(tuple(dict.fromkeys(pair)), False, False) for pair in pairs]
    for reader in readers:
        hub._join(reader)
    random.shuffle(readers)
    while readers:
        hub._remove(readers.pop())
        for reader in readers:
            path = "/" + "/".join("a" if label == "*" else label for label in reader.patterns[0])
            assert reader in hub._matching(write_event(1, 0, path))
    assert not hub._root.children and not hub._root.readers


def test_a_reader_without_a_cursor_gets_what_happens_from_now_on() -> None:
    async def story() -> None:
        chain = Chain()
        hub = EventHub(chain)
        chain.add(hub, "/before")
        reading = asyncio.create_task(read(hub, 2))
        await reader_joined(hub)
        chain.add(hub, "/after")
        assert cursors(await reading) == ["2:0", "2:1"]
        assert hub.reader_count() == 0

    asyncio.run(story())


def test_a_cursor_replays_what_came_behind_it_and_goes_on_live() -> None:
    async def story() -> None:
        chain = Chain()
        hub = EventHub(chain)
        for height in range(1, 6):
            chain.add(hub, f"/x/{height}", f"/y/{height}")
        reading = asyncio.create_task(read(hub, 4, ["/x"], since=parse_cursor("3:0")))
        await reader_joined(hub)
        chain.add(hub, "/x/6")
        chain.add(hub, "/y/7", "/x/7/deep")
        assert cursors(await reading) == ["4:0", "5:0", "6:0", "7:1"]

    asyncio.run(story())


def test_a_bare_height_means_everything_from_that_block_on() -> None:
    async def story() -> None:
        chain = Chain()
        hub = EventHub(chain)
        chain.add(hub, "/a")
        chain.add(hub, "/b")
        assert cursors(await read(hub, 2, since=parse_cursor("2"))) == ["2:0", "2:1"]

    asyncio.run(story())


@given(st.integers(0, 8), st.integers(0, 3), st.lists(st.integers(0, 4), max_size=6))
def test_leaving_anywhere_and_coming_back_misses_nothing(height: int, index: int, sizes: list[int]) -> None:
    async def story() -> None:
        chain = Chain()
        hub = EventHub(chain)
        for size in sizes:
            chain.add(hub, *[f"/k{number}" for number in range(size)])
        start = Cursor(min(height, chain.last_height()), index)
        expected = [event.cursor for block in chain.blocks for event in block if event.cursor > start]
        found = await read(hub, len(expected), since=start) if expected else []
        assert cursors(found) == [str(cursor) for cursor in expected]

    asyncio.run(story())


def test_hints_reach_only_who_asked_for_them_and_do_not_move_the_cursor() -> None:
    async def story() -> None:
        chain = Chain()
        hub = EventHub(chain)
        plain = asyncio.create_task(read(hub, 1, ["/a"]))
        hinted = asyncio.create_task(read(hub, 2, ["/a"], wants_pending=True))
        await reader_joined(hub, 2)
        hub.publish([write_event(1, 0, "/a", PENDING)])
        chain.add(hub, "/a")
        assert [event["kind"] for event in await plain] == [WRITE]
        assert [event["kind"] for event in await hinted] == [PENDING, WRITE]
        assert b"id:" not in events.frame(write_event(1, 0, "/a", PENDING))

    asyncio.run(story())


def test_a_slow_reader_is_cut_off_and_the_writer_is_not_held_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(events, "QUEUED_EVENTS_MAX", 10)

    async def story() -> None:
        chain = Chain()
        hub = EventHub(chain)
        stream = hub.stream(())
        await anext(stream)
        await anext(stream)
        assert hub.reader_count() == 1
        for number in range(20):
            chain.add(hub, f"/k{number}")
        assert hub.reader_count() == 0
        assert hub.cut_total == 1
        rest = [chunk async for chunk in stream]
        assert rest == []
        # With its cursor nothing is missing.
        assert len(await read(hub, 40, since=Cursor(0, 0))) == 40

    asyncio.run(story())


def test_the_position_is_told_while_nothing_matches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(events, "HEARTBEAT_SECONDS", 0.01)

    async def story() -> None:
        chain = Chain()
        hub = EventHub(chain)
        async with asyncio.timeout(60), aclosing(hub.stream(parse_patterns(["/never"]))) as stream:
            chain.add(hub, "/x")
            async for chunk in stream:
                if chunk == b"id: 1:1\n\n":
                    break

    asyncio.run(story())


def test_impossible_readers_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    hub = EventHub(Chain())
    with pytest.raises(CursorAhead):
        hub.refuse_if_impossible(Cursor(7, 0))
    for text in ("", "x", "1:", ":1", "1:2:3", "-1", "1" * 30, "1.5"):
        with pytest.raises(InvalidCursor):
            parse_cursor(text)
    with pytest.raises(InvalidPattern):
        parse_patterns(["/a"] * 100)
    with pytest.raises(InvalidPattern):
        parse_patterns(["/a" * 100])
    monkeypatch.setattr(events, "READERS_MAX", 0)
    with pytest.raises(TooManyReaders):
        hub.refuse_if_impossible(None)
