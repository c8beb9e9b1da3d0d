"""Amounts are exact in every form they take."""

from __future__ import annotations

from decimal import Decimal
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from openresource.primitives.amounts import (
    PPM,
    UAIN_MAX,
    AmountOutOfRange,
    InvalidAmount,
    NotWholeUain,
    ShareOutOfRange,
    ain_number,
    split_ppm,
    text_from_uain,
    uain_from_text,
    uain_of_number,
)
from openresource.primitives.encoding import canonical_json, parse_json

amounts_uain = st.integers(0, UAIN_MAX)


@given(amounts_uain)
def test_every_amount_survives_text_tree_and_wire(amount_uain: int) -> None:
    assert uain_from_text(text_from_uain(amount_uain)) == amount_uain
    stored = ain_number(amount_uain)
    assert uain_of_number(stored) == amount_uain
    assert uain_of_number(parse_json(canonical_json([stored]).encode())[0]) == amount_uain


@given(amounts_uain)
def test_the_text_is_the_exact_decimal(amount_uain: int) -> None:
    assert Decimal(text_from_uain(amount_uain)) == Decimal(amount_uain) / 10**6


@given(st.floats(0, 1e9))
def test_a_number_that_no_amount_is_stored_as_is_refused(value: float) -> None:
    try:
        amount_uain = uain_of_number(value)
    except NotWholeUain:
        assert Fraction(value) * 10**6 % 1 != 0
    else:
        assert ain_number(amount_uain) == value


@pytest.mark.parametrize(
    "value", [-1, -0.5, 1e9 + 1, float("nan"), float("inf"), 0.0000001, 1.0000005, 10**400]
)
def test_numbers_outside_are_refused(value: float) -> None:
    with pytest.raises(NotWholeUain):
        uain_of_number(value)


@pytest.mark.parametrize(
    "text, amount_uain", [("0.0002", 200), ("1", 1_000_000), ("0", 0), ("000.100000", 100_000)]
)
def test_texts_are_read(text: str, amount_uain: int) -> None:
    assert uain_from_text(text) == amount_uain


@pytest.mark.parametrize(
    "text",
    [
        "",
        "-1",
        "+1",
        "1e3",
        "0.0000001",
        "1.",
        ".5",
        " 1",
        "1 ",
        "1,5",
        "0x1",
        "٣",
        "1_000",
        "nan",
        "1000000001",
    ],
)
def test_other_texts_are_refused_with_the_reason(text: str) -> None:
    with pytest.raises(InvalidAmount) as refusal:
        uain_from_text(text)
    assert refusal.value.reason
    assert refusal.value.remedy


@given(amounts_uain, st.integers(0, PPM))
def test_a_split_loses_nothing_and_favours_the_remainder(total_uain: int, share_ppm: int) -> None:
    share_uain, rest_uain = split_ppm(total_uain, share_ppm)
    assert share_uain + rest_uain == total_uain
    assert 0 <= Fraction(total_uain * share_ppm, PPM) - share_uain < 1


def test_what_is_out_of_range_is_refused() -> None:
    for amount_uain in (-1, UAIN_MAX + 1):
        with pytest.raises(AmountOutOfRange):
            ain_number(amount_uain)
    for share_ppm in (-1, PPM + 1):
        with pytest.raises(ShareOutOfRange):
            split_ppm(1, share_ppm)
    assert text_from_uain(-1_500_000) == "-1.5"
