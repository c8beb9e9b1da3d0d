"""Values that the state can hold, and what they weigh."""

from __future__ import annotations

from typing import Any

from openresource.primitives.encoding import property_order, utf16_length
from openresource.primitives.limits import LABEL_LENGTH_MAX
from openresource.primitives.numbers import is_finite
from openresource.primitives.paths import format_path, valid_label


def valid_value(value: Any, length_max: int = LABEL_LENGTH_MAX) -> str | None:
    """The path of the first part that the state cannot hold, or None if it can hold the value."""
    labels: list[str] = []
    return None if _is_valid(value, length_max, labels) else format_path(labels)


def size_of(value: Any) -> int:
    """The bytes that a value counts for in state, transaction and block limits."""
    if value is None:
        return 0
    if isinstance(value, str):
        return 2 * utf16_length(value)
    if isinstance(value, bool):
        return 4
    if isinstance(value, (int, float)):
        return 8
    total = 0
    if isinstance(value, dict):
        for key, item in value.items():
            total += 2 * utf16_length(key) + size_of(item)
    elif isinstance(value, (list, tuple)):
        for item in value:
            total += size_of(item)
    return total


def object_height(value: Any) -> int:
    """How many levels of keys a value has."""
    if not isinstance(value, dict):
        return 0
    height = 0
    for item in value.values():
        height = max(height, 1 + object_height(item))
    return height


def object_size(value: Any) -> int:
    """How many keys a value has, on all levels."""
    if not isinstance(value, dict):
        return 0
    total = len(value)
    for item in value.values():
        total += object_size(item)
    return total


def deep_equal(one: Any, other: Any) -> bool:
    """Whether two values are the same whatever the order of their keys; 1 equals 1.0, but not true."""
    if isinstance(one, dict):
        if not isinstance(other, dict) or len(one) != len(other):
            return False
        return all(key in other and deep_equal(item, other[key]) for key, item in one.items())
    if isinstance(one, list):
        if not isinstance(other, list) or len(one) != len(other):
            return False
        return all(deep_equal(left, right) for left, right in zip(one, other, strict=True))
    if isinstance(one, bool) or isinstance(other, bool):
        return one is other
    return bool(one == other)


def _is_valid(value: Any, length_max: int, labels: list[str]) -> bool:
    """Checks depth first; on failure `labels` is the place of the first offence."""
    if value is None or isinstance(value, (str, bool)):
        return True
    if isinstance(value, (int, float)):
        return is_finite(value)
    if not isinstance(value, dict) or not value:
        return False
    for key in property_order(value):
        labels.append(key)
        if not valid_label(key, length_max) or not _is_valid(value[key], length_max, labels):
            return False
        labels.pop()
    return True
