"""JSON in the tree: what goes in comes out, as far as the tree can say it."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from openresource.market.tree_json import ValueNotStorable, json_value, key_of, label_of, tree_value
from openresource.primitives.limits import SAFE_INTEGER_MAX
from openresource.primitives.paths import valid_label
from openresource.primitives.values import valid_value

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=30)
SCALARS = (
    st.booleans()
    | st.integers(-SAFE_INTEGER_MAX, SAFE_INTEGER_MAX)
    | st.floats(allow_nan=False, allow_infinity=False)
    | TEXT
)
# What the tree can say: containers are not empty, and an object's keys are not those of a list.
JSON = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, min_size=1, max_size=5)
        | st.dictionaries(TEXT, inner, min_size=1, max_size=5).filter(
            lambda items: any(str(position) not in items for position in range(len(items)))
        )
    ),
    max_leaves=30,
)


@given(JSON)
def test_json_comes_back_from_the_tree_as_it_went_in(value: Any) -> None:
    stored = tree_value(value)
    assert valid_value(stored) is None
    assert json_value(stored) == value


@given(st.text(max_size=40))
def test_every_key_becomes_a_label_or_is_refused(key: str) -> None:
    try:
        label = label_of(key)
    except ValueNotStorable:
        return
    assert valid_label(label) and key_of(label) == key


@pytest.mark.parametrize(
    ("value", "stored", "back"),
    [
        ([], None, None),
        ({}, None, None),
        ({"a": []}, {"a": None}, {"a": None}),
        (["x"], {"0": "x"}, ["x"]),
        ({"0": "x"}, {"0": "x"}, ["x"]),
        ({"1": "x"}, {"1": "x"}, {"1": "x"}),
        ({"a b/c": 1, "": 2, "!": 3}, {"a!20b!2Fc": 1, "!": 2, "!21": 3}, {"a b/c": 1, "": 2, "!": 3}),
        (None, None, None),
    ],
)
def test_what_the_tree_cannot_say_has_one_form(value: Any, stored: Any, back: Any) -> None:
    assert tree_value(value) == stored
    assert json_value(stored) == back


def nested(levels: int) -> Any:
    value: Any = 1
    for _ in range(levels):
        value = [value]
    return value


@pytest.mark.parametrize(
    "value",
    [
        2**60,
        float("nan"),
        float("inf"),
        "\ud800",
        {"\ud800": 1},
        {"x" * 151: 1},
        nested(17),
        [0] * 10_001,
        b"bytes",
    ],
)
def test_what_has_no_form_is_refused(value: Any) -> None:
    with pytest.raises(ValueNotStorable):
        tree_value(value)
