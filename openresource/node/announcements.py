"""What happened in blocks as events, and as the bytes under which blocks, results and events lie in the store."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from openresource.ledger.draft import Change
from openresource.ledger.machine import Inserted, SealedBlock
from openresource.node.events import BLOCK, PENDING, WRITE, Cursor, Event
from openresource.node.rpc import encode
from openresource.primitives.encoding import parse_json
from openresource.primitives.limits import JSON_DEPTH_MAX
from openresource.primitives.paths import VALUES, format_path

# What this node wrote itself is not hostile, but nothing is read without a bound.
STORED_BYTES_MAX = 1024 * 1024 * 1024


def events_of_block(sealed: SealedBlock) -> list[Event]:
    """The final events of a block: writes of due actions, of transactions in order, then the block itself."""
    events: list[Event] = []

    def add(changes: Sequence[Change], tx_hash: str) -> None:
        for change in changes:
            if change.path[0] == VALUES:
                cursor = Cursor(sealed.number, len(events))
                path = format_path(change.path[1:])
                events.append(
                    Event(cursor, WRITE, path, change.value, change.by, tx_hash, sealed.time_ms, True)
                )

    add(sealed.opening_changes, "")
    for inserted in sealed.inserted:
        add(inserted.changes, inserted.transaction.hash)
    events.append(block_event(sealed.number, sealed.hash, len(sealed.inserted), sealed.time_ms, len(events)))
    return events


def event_records(sealed: SealedBlock) -> list[bytes]:
    """The same events as they are stored. Hardly a block has a reader, so that events are rarely made as objects."""
    time_ms = sealed.time_ms
    records: list[bytes] = []
    sources = [(sealed.opening_changes, "")]
    sources += [(inserted.changes, inserted.transaction.hash) for inserted in sealed.inserted]
    for changes, tx_hash in sources:
        for change in changes:
            if change.path[0] == VALUES:
                path = format_path(change.path[1:])
                records.append(encode([WRITE, path, change.value, change.by, tx_hash, time_ms]))
    end = block_event(sealed.number, sealed.hash, len(sealed.inserted), time_ms, len(records))
    records.append(event_bytes(end))
    return records


def block_event(number: int, block_hash: str, transactions: int, time_ms: int, index: int) -> Event:
    """The last event of every block."""
    about = {"hash": block_hash, "number": number, "transactions": transactions}
    return Event(Cursor(number, index), BLOCK, "/", about, "node", "", time_ms, True)


def hints(number: int, changes: Sequence[Change], tx_hash: str, index: int, at_ms: int) -> list[Event]:
    """What a transaction writes, as events that are not final; their cursor is only a place in the open block."""
    found: list[Event] = []
    for offset, change in enumerate(changes):
        if change.path[0] == VALUES:
            cursor = Cursor(number, index + offset)
            path = format_path(change.path[1:])
            found.append(Event(cursor, PENDING, path, change.value, change.by, tx_hash, at_ms, False))
    return found


def event_bytes(event: Event) -> bytes:
    """A final event as it is stored; its place is its key."""
    return encode([event.kind, event.path, event.value, event.by, event.tx_hash, event.time_ms])


def stored_event(height: int, index: int, raw: bytes) -> Event:
    """A final event from the store."""
    kind, path, value, by, tx_hash, time_ms = decoded(raw)
    return Event(Cursor(height, index), kind, path, value, by, tx_hash, time_ms, True)


def outcome_bytes(inserted: Inserted) -> bytes:
    """What became of a transaction, as it is stored."""
    return encode([inserted.result, inserted.has_failed])


def stored_outcome(raw: bytes) -> tuple[Any, bool]:
    """Result of a transaction from the store, and whether it failed."""
    result, has_failed = decoded(raw)
    return result, bool(has_failed)


def decoded_block(raw: bytes) -> dict[str, Any]:
    """A block from the store."""
    block: dict[str, Any] = decoded(raw)
    return block


def decoded(raw: bytes) -> Any:
    """Anything that this node stored as JSON."""
    # A request may be as deep as JSON from outside may be, and the block adds its own levels.
    return parse_json(raw, bytes_max=STORED_BYTES_MAX, depth_max=2 * JSON_DEPTH_MAX)
