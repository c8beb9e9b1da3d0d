"""Number texts read back exactly and look like JavaScript's."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from openresource.primitives.numbers import (
    count_decimals,
    is_finite,
    is_integer,
    is_number,
    number_text,
    to_double,
)

doubles = st.floats(allow_nan=False, allow_infinity=False)


@given(doubles)
def test_a_number_text_reads_back_as_the_same_double(number: float) -> None:
    text = number_text(number)
    assert float(text) == number
    assert not text.endswith(".0")


@given(doubles)
def test_a_number_text_has_the_digits_of_the_shortest_form(number: float) -> None:
    digits = number_text(abs(number)).partition("e")[0].replace(".", "").strip("0")
    assert len(digits) <= 17
    shortest = repr(abs(number)).partition("e")[0].replace(".", "").strip("0")
    assert digits == shortest


@given(doubles)
def test_an_exponent_appears_exactly_outside_of_the_plain_range(number: float) -> None:
    plain = number == 0 or 1e-6 <= abs(number) < 1e21
    assert ("e" in number_text(number)) is not plain


@given(st.integers())
def test_integers_are_written_as_their_doubles(number: int) -> None:
    assert number_text(number) == number_text(
        to_double(float(number)) if abs(number) < 2**1000 else float(number)
    )


@pytest.mark.parametrize(
    "number, text",
    [(-0.0, "0"), (1e21, "1e+21"), (123e-20, "1.23e-18"), (2**53, "9007199254740992"), (0.000001, "0.000001"),
     (10**400, "Infinity"), (-(10**400), "-Infinity"), (math.nan, "NaN"), (True, "1")],
)  # fmt: skip
def test_corner_texts(number: float, text: str) -> None:
    assert number_text(number) == text


@given(st.integers(-(10**9), 10**9), st.integers(0, 8))
def test_decimals_are_counted(number: int, decimals: int) -> None:
    counted = count_decimals(number / 10**decimals)
    assert counted <= decimals
    assert number % 10 ** (decimals - counted) == 0


def test_kinds_of_numbers() -> None:
    assert [is_number(value) for value in (1, 1.5, math.nan, True, "1", None)] == [
        True,
        True,
        True,
        False,
        False,
        False,
    ]
    assert [is_integer(value) for value in (1, 1.0, 1.5, math.inf, True)] == [True, True, False, False, False]
    assert [is_finite(value) for value in (1, 1.5, math.inf, math.nan, False)] == [
        True,
        True,
        False,
        False,
        False,
    ]
