"""Numbers as every JavaScript peer has them: IEEE doubles, and the one text that each of them is written with."""

from __future__ import annotations

import math
from typing import Any, Final

from openresource.primitives.limits import SAFE_INTEGER_MAX

MS_PER_DAY: Final = 86_400_000

# Below this magnitude a number is written without an exponent, from 10^-6 upwards.
_PLAIN_DIGITS_MAX: Final = 21


def is_number(value: Any) -> bool:
    """Whether a value is a number (a boolean is none)."""
    return (isinstance(value, int) and not isinstance(value, bool)) or isinstance(value, float)


def is_integer(value: Any) -> bool:
    """Whether a value is a finite number without a fraction; 1.0 counts."""
    if isinstance(value, float):
        return value.is_integer()
    return isinstance(value, int) and not isinstance(value, bool)


def is_finite(value: Any) -> bool:
    """Whether a value is a number that is neither infinite nor NaN."""
    if isinstance(value, float):
        return math.isfinite(value)
    return isinstance(value, int) and not isinstance(value, bool)


def to_double(value: int | float) -> float | int:
    """The nearest double, kept as an integer while integers up to it are exact."""
    if isinstance(value, int):
        if -SAFE_INTEGER_MAX <= value <= SAFE_INTEGER_MAX:
            return value
        try:
            return float(value)
        except OverflowError:
            return math.inf if value > 0 else -math.inf
    if -SAFE_INTEGER_MAX <= value <= SAFE_INTEGER_MAX and value.is_integer():
        return int(value)
    return value


def number_text(value: int | float) -> str:
    """The shortest decimal text that reads back as the same double, written as JavaScript writes it."""
    if isinstance(value, int):
        if -SAFE_INTEGER_MAX <= value <= SAFE_INTEGER_MAX:
            return str(int(value))
        return _double_text(float(to_double(value)))
    return _double_text(value)


def count_decimals(value: int | float) -> int:
    """How many digits after the decimal point a number needs when written without an exponent."""
    if isinstance(value, int):
        return 0
    # Python's digits are JavaScript's; only where the exponent begins differs.
    _, point, digits = repr(value).partition(".")
    if point and "e" not in digits:
        return 0 if digits == "0" else len(digits)
    text = number_text(value)
    mantissa, _, exponent = text.partition("e")
    _, _, fraction = mantissa.partition(".")
    return max(0, len(fraction) - int(exponent or "0"))


def start_of_day_ms(at_ms: int) -> int:
    """The first millisecond of the day in UTC."""
    return at_ms - at_ms % MS_PER_DAY


def is_integer_text(text: str) -> bool:
    """Whether a text is an optional minus sign and ASCII digits."""
    digits = text[1:] if text.startswith("-") else text
    return digits.isascii() and digits.isdigit()


def is_decimal_text(text: str) -> bool:
    """Whether a text is an optional minus sign, ASCII digits, a point, and ASCII digits."""
    whole, point, fraction = (text[1:] if text.startswith("-") else text).partition(".")
    return bool(point) and text.isascii() and whole.isdigit() and fraction.isdigit()


def _double_text(value: float) -> str:
    if not math.isfinite(value):
        if math.isnan(value):
            return "NaN"
        return "Infinity" if value > 0 else "-Infinity"
    if -SAFE_INTEGER_MAX <= value <= SAFE_INTEGER_MAX and value.is_integer():
        return str(int(value))
    sign, digits, point = _shortest_digits(value)
    if len(digits) <= point <= _PLAIN_DIGITS_MAX:
        return sign + digits + "0" * (point - len(digits))
    if 0 < point <= _PLAIN_DIGITS_MAX:
        return f"{sign}{digits[:point]}.{digits[point:]}"
    if -6 < point <= 0:
        return f"{sign}0.{'0' * -point}{digits}"
    mantissa = digits if len(digits) == 1 else f"{digits[0]}.{digits[1:]}"
    return f"{sign}{mantissa}e{'+' if point > 0 else '-'}{abs(point - 1)}"


def _shortest_digits(value: float) -> tuple[str, str, int]:
    """Sign, significant digits, and the position of the decimal point relative to the first of them."""
    text = repr(value)
    sign = "-" if text.startswith("-") else ""
    mantissa, _, exponent = text.lstrip("-").partition("e")
    whole, _, fraction = mantissa.partition(".")
    digits = (whole + fraction).lstrip("0")
    leading = len(whole + fraction) - len(digits)
    return sign, digits.rstrip("0"), len(whole) - leading + int(exponent or "0")
