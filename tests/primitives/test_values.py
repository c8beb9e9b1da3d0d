"""What the state can hold, and when two values are the same."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from openresource.primitives.values import deep_equal, object_size, size_of, valid_value

values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(max_size=4),
    lambda inner: st.dictionaries(st.text("abc019", min_size=1, max_size=3), inner, min_size=1, max_size=4),
)


@given(values)
def test_plain_trees_are_valid_and_weigh_what_their_parts_do(value: Any) -> None:
    assert valid_value(value) is None
    assert size_of({"ab": value, "c": 1}) == 4 + size_of(value) + 2 + 8
    assert object_size({"a": value}) == 1 + object_size(value)


@given(values)
def test_a_value_equals_itself_in_any_order_and_nothing_else(value: Any) -> None:
    assert deep_equal(value, reordered(value))
    assert not deep_equal(value, {"a": value})
    assert not deep_equal([value], [value, value])


def test_numbers_are_equal_by_value_and_booleans_are_none() -> None:
    assert deep_equal({"a": 1}, {"a": 1.0})
    for one, other in ((True, 1), (0, False), ("1", 1), (None, 0), ({}, []), ({}, None), ([], None)):
        assert not deep_equal(one, other)
        assert not deep_equal(other, one)


@pytest.mark.parametrize("value", [[], {}, math.nan, math.inf, b"x", (1,), {"a": [1]}, {"a": {"": 1}}])
def test_what_the_state_cannot_hold_is_found(value: Any) -> None:
    assert valid_value(value) is not None


def test_the_first_offence_is_found_in_property_order() -> None:
    assert valid_value({"b": [], "1": {"x": {}}}) == "/1/x"


def reordered(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: reordered(value[key]) for key in reversed(value)}
    return value
