"""What clients of the event handler want to hear of: filters for blocks, values and transactions, and what fits them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from openresource.primitives.encoding import js_json
from openresource.primitives.hashing import is_hash
from openresource.primitives.numbers import is_number, number_text
from openresource.primitives.paths import parse_path, valid_label

BLOCK_FINALIZED: Final = "BLOCK_FINALIZED"
VALUE_CHANGED: Final = "VALUE_CHANGED"
TX_STATE_CHANGED: Final = "TX_STATE_CHANGED"
FILTER_DELETED: Final = "FILTER_DELETED"

DELETED_BY_USER: Final = "DELETED_BY_USER"
END_STATE_REACHED: Final = "END_STATE_REACHED"
FILTER_TIMEOUT: Final = "FILTER_TIMEOUT"

ANY_LABEL: Final = "*"
LABEL_LENGTH_MAX: Final = 10_000
PATH_LABELS_MAX: Final = 1_000


class FilterRefused(Exception):
    """A filter that cannot be; the message goes to its client as it is."""


@dataclass(frozen=True, slots=True)
class Filter:
    """One filter of one channel."""

    channel_id: str
    # The client's own name for it.
    name: str
    type: str
    config: dict[str, Any]
    # Of VALUE_CHANGED: the labels of the path, where a variable fits any label.
    labels: tuple[str, ...] = ()

    @property
    def id(self) -> str:
        """The name that distinguishes it from all channels' filters."""
        return f"{self.channel_id}:{self.name}"

    def to_json(self) -> dict[str, Any]:
        """The filter as clients see it."""
        return {"id": self.id, "type": self.type, "config": self.config}

    def fits_path(self, labels: Sequence[str]) -> bool:
        """Whether a write at exactly this path is one to tell of."""
        return len(labels) == len(self.labels) and all(
            own in (label, ANY_LABEL) or own.startswith("$")
            for own, label in zip(self.labels, labels, strict=True)
        )

    def params_of(self, labels: Sequence[str]) -> dict[str, str]:
        """What the path's variables stand for."""
        return {own[1:]: label for own, label in zip(self.labels, labels, strict=True) if own.startswith("$")}


def checked_filter(channel_id: str, name: str, kind: Any, config: Any) -> Filter:
    """A filter from what a client sent, or a refusal that says what is wrong with it."""
    shown = config if isinstance(config, dict) else {}
    if kind == BLOCK_FINALIZED:
        number: Any = shown.get("block_number")
        if is_number(number) and number < 0:
            told = f"Invalid block_number. It must not be a negative number ({number_text(number)})"
            raise FilterRefused(told)
        if number is not None and not is_number(number):
            raise FilterRefused(f"Invalid block_number type. ({_js_type(number)})")
        return Filter(channel_id, name, BLOCK_FINALIZED, shown)
    if kind == VALUE_CHANGED:
        path = shown.get("path")
        if not path:
            raise FilterRefused(f"config.path is missing ({js_json(config)})")
        labels = parse_path(path)
        if len(labels) > PATH_LABELS_MAX or not all(valid_label(label, LABEL_LENGTH_MAX) for label in labels):
            raise FilterRefused(f"Invalid format path ({shown_text(path)})")
        return Filter(channel_id, name, VALUE_CHANGED, shown, tuple(labels))
    if kind == TX_STATE_CHANGED:
        tx_hash = shown.get("tx_hash")
        if not tx_hash:
            raise FilterRefused(f"config.tx_hash is missing ({js_json(config)})")
        if not is_hash(tx_hash):
            raise FilterRefused(f"Invalid tx hash ({shown_text(tx_hash)})")
        return Filter(channel_id, name, TX_STATE_CHANGED, shown)
    raise FilterRefused(f"Invalid event type ({shown_text(kind)})")


def shown_text(value: Any) -> str:
    """A value as JavaScript puts it into a text."""
    if isinstance(value, str):
        return value
    return "undefined" if value is None else js_json(value)


def _js_type(value: Any) -> str:
    if isinstance(value, bool):
        return "boolean"
    return "string" if isinstance(value, str) else "object"
