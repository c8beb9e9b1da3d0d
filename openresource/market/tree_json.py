"""JSON values and values of the tree: the tree has no lists, no empty objects, and fewer characters in its labels."""

from __future__ import annotations

import math
import re
from typing import Any, Final

from openresource.market.codes import ResultCode
from openresource.primitives.encoding import utf16_length
from openresource.primitives.errors import Refusal
from openresource.primitives.limits import LABEL_LENGTH_MAX, SAFE_INTEGER_MAX
from openresource.primitives.paths import decode_label

JSON_TREE_DEPTH_MAX: Final = 16
JSON_TREE_ITEMS_MAX: Final = 10_000
# The one escape without digits: labels cannot be empty, keys of JSON can.
_EMPTY_KEY: Final = "!"

_UNSTORABLE = re.compile("[/.$*#{}\\[\\]<>'\"` \x00-\x1f\x7f!]")
_LONE_SURROGATE = re.compile("[\ud800-\udfff]")


class ValueNotStorable(Refusal):
    result_code = ResultCode.VALUE_NOT_STORABLE
    template = "The value cannot be written to the tree: {reason}."
    way_out = "Make it smaller or flatter, with keys and numbers that every language reads the same."


def tree_value(value: Any) -> Any:
    """The tree's form of a JSON value: lists by position, empty containers as null, keys as labels."""
    return _to_tree(value, 0, [JSON_TREE_ITEMS_MAX])


def json_value(value: Any) -> Any:
    """The JSON form of a tree value: labels 0 to n-1 become a list again, labels their keys."""
    if not isinstance(value, dict):
        return value
    count = len(value)
    if count and all(str(position) in value for position in range(count)):
        return [json_value(value[str(position)]) for position in range(count)]
    return {key_of(label): json_value(item) for label, item in value.items()}


def label_of(key: str) -> str:
    """A JSON key as a label."""
    if key == "":
        return _EMPTY_KEY
    label = _UNSTORABLE.sub(lambda match: f"!{ord(match.group()):02X}", key)
    if utf16_length(label) > LABEL_LENGTH_MAX or _LONE_SURROGATE.search(label) is not None:
        raise ValueNotStorable(
            reason=f"the key {key[:40]!r} makes no label of at most {LABEL_LENGTH_MAX} characters"
        )
    return label


def key_of(label: str) -> str:
    """The JSON key behind a label."""
    return "" if label == _EMPTY_KEY else decode_label(label)


def _to_tree(value: Any, depth: int, room: list[int]) -> Any:
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, str):
        if _LONE_SURROGATE.search(value) is not None:
            raise ValueNotStorable(reason="a text holds half a character")
        return value
    if isinstance(value, int):
        if abs(value) > SAFE_INTEGER_MAX:
            raise ValueNotStorable(reason=f"{value} is beyond the whole numbers that a double keeps")
        return value
    if isinstance(value, float):
        if not math.isfinite(value):
            raise ValueNotStorable(reason="a number is not finite")
        return value
    if depth >= JSON_TREE_DEPTH_MAX:
        raise ValueNotStorable(reason=f"it is nested deeper than {JSON_TREE_DEPTH_MAX} levels")
    if isinstance(value, list | tuple):
        items = {str(position): item for position, item in enumerate(value)}
    elif isinstance(value, dict):
        items = {label_of(key): item for key, item in value.items()}
    else:
        raise ValueNotStorable(reason=f"{type(value).__name__} is no kind of JSON value")
    room[0] -= len(items)
    if room[0] < 0:
        raise ValueNotStorable(reason=f"it has more than {JSON_TREE_ITEMS_MAX} parts")
    # Null for what is empty: the tree keeps no empty objects.
    return {label: _to_tree(item, depth + 1, room) for label, item in items.items()} or None
