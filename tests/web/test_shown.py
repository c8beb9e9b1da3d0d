"""How values look: each JSON value has a shape, within bounds; amounts, sizes and times read well."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from openresource.web import shown
from openresource.web.shown import ITEMS_MAX, PARTS_MAX, Shape, media_of, shape_of

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=60,
)


def parts(shape: Shape) -> int:
    inner = [*shape.items, *(cell for row in shape.rows for cell in row)]
    return 1 + sum(parts(one) for one in inner)


@given(json_values)
def test_every_value_has_a_shape(value: Any) -> None:
    assert shape_of(value).kind


def test_lists_of_equal_records_are_tables_and_lists_of_numbers_are_numbers() -> None:
    assert shape_of([{"a": 1, "b": "x"}, {"a": 2, "b": None}]).kind == "table"
    assert shape_of([{"a": 1}, {"b": 2}]).kind == "list"
    assert shape_of([0.5] * 384).kind == "numbers"
    assert shape_of(["bee", "flower"]).kind == "words"
    assert shape_of(["a long sentence " * 5, "b"]).kind == "list"


def test_huge_values_are_cut_and_say_so() -> None:
    wide = shape_of(["a long line of text, number " + str(number) for number in range(5_000)])
    assert len(wide.items) == ITEMS_MAX and wide.hidden == 5_000 - ITEMS_MAX
    nested: Any = 1
    for _ in range(200):
        nested = [nested, nested]
        if parts(shape_of(nested)) > 3 * PARTS_MAX:
            raise AssertionError("shapes grow without bound")
    assert shape_of("x" * 100_000).hidden == 80_000


@pytest.mark.parametrize(
    ("amount", "text"),
    [
        (0, "0"),
        (1, "0.000001"),
        (400, "0.0004"),
        (1_500_000, "1.5"),
        (700_000_000_000_000, "700\u202f000\u202f000"),
    ],
)
def test_amounts_are_exact_and_have_spaces_between_thousands(amount: int, text: str) -> None:
    assert shown.ain(amount) == text


def test_negative_and_foreign_amounts_do_not_break_a_page() -> None:
    assert shown.ain(-2_500_000) == "-2.5"
    assert shown.ain(-1) == "-0.000001"
    assert shown.ain(None) == shown.ain("7") == shown.ain(True) == "?"


def test_times_sizes_and_spans_read_well_and_bear_nonsense() -> None:
    assert shown.moment(1_800_000_000_000) == "15 Jan 2027, 08:00:00 UTC"
    assert shown.moment(-1) == shown.moment("x") == shown.moment(10**30) == "—"
    assert shown.iso(None) == ""
    assert [shown.size(number) for number in (5, 2048, 3 << 20)] == ["5 B", "2.0 KiB", "3.0 MiB"]
    assert [shown.span(number) for number in (3, 1500, 60_000, None)] == ["3 ms", "1.5 s", "1 min", "?"]
    assert shown.short("0x" + "ab" * 20) == "0xababab…ababab"
    assert shown.percent(20_000) == "2 %"


def test_only_pictures_and_sounds_are_given_to_the_browser_as_such() -> None:
    assert media_of(b"x", "image/png").is_picture
    for hostile in ("image/svg+xml", "text/html", "application/pdf", "image/png, text/html", ""):
        media = media_of(b"<script>", hostile)
        assert not media.is_picture and media.address.startswith("data:application/octet-stream;")
