"""What numbers can do: their texts in other forms, digit by digit as JavaScript writes them."""

from __future__ import annotations

import math
from typing import Final

from openresource.ledger.rules.errors import RuleThrow
from openresource.ledger.rules.meter import Meter
from openresource.ledger.rules.values import (
    UNDEFINED,
    BigInteger,
    Boxed,
    Function,
    to_integer,
)
from openresource.primitives.numbers import number_text

_DIGITS: Final = "0123456789abcdefghijklmnopqrstuvwxyz"


def _this_number(this: object) -> float | int:
    value = this.primitive if isinstance(this, Boxed) else this
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise RuleThrow("Number.prototype method called on something that is no number")
    return value


def _to_string(meter: Meter, this: object, arguments: list[object]) -> object:
    if isinstance(this, BigInteger):
        return str(this.number)
    number = _this_number(this)
    radix = 10 if arguments[0] is UNDEFINED else to_integer(arguments[0], meter)
    if not 2 <= radix <= 36:
        raise RuleThrow("toString() radix must be between 2 and 36")
    if radix == 10 or not math.isfinite(number):
        return number_text(number)
    return _radix_text(float(number), int(radix))


def _radix_text(value: float, radix: int) -> str:
    """Enough digits to tell the number from its neighbours, the last one rounded."""
    magnitude = abs(value)
    whole = math.floor(magnitude)
    fraction = magnitude - whole
    digits: list[int] = []
    # Half the distance to the next double: digits beyond it say nothing.
    delta = max(0.5 * (math.nextafter(magnitude, math.inf) - magnitude), math.ulp(0.0))
    if fraction >= delta:
        while True:
            fraction *= radix
            delta *= radix
            digit = int(fraction)
            digits.append(digit)
            fraction -= digit
            if (fraction > 0.5 or (fraction == 0.5 and digit % 2 == 1)) and fraction + delta > 1:
                whole += _round_up(digits, radix)
                break
            if fraction < delta:
                break
    text = "".join([_DIGITS[digit] for digit in digits])
    sign = "-" if value < 0 else ""
    return sign + _whole_text(whole, radix) + ("." + text if text else "")


def _round_up(digits: list[int], radix: int) -> int:
    """Adds one to the last digit; what is carried beyond the first."""
    while digits:
        if digits[-1] + 1 < radix:
            digits[-1] += 1
            return 0
        digits.pop()
    return 1


def _whole_text(whole: int, radix: int) -> str:
    if whole == 0:
        return "0"
    # Digits below the precision of a double are zeros; the ones above come from divisions of doubles.
    value = float(whole)
    zeros = 0
    while value >= 2.0**53:
        value /= radix
        zeros += 1
    digits: list[str] = []
    while value > 0:
        rest = math.fmod(value, radix)
        digits.append(_DIGITS[int(rest)])
        value = (value - rest) / radix
    return "".join(reversed(digits)) + "0" * zeros


def _fraction_digits(value: object, least: int, meter: Meter) -> int:
    digits = to_integer(value, meter)
    if not least <= digits <= 100:
        raise RuleThrow(f"the number of digits must be between {least} and 100")
    return int(digits)


def _to_fixed(meter: Meter, this: object, arguments: list[object]) -> object:
    number = _this_number(this)
    places = _fraction_digits(arguments[0], 0, meter)
    if not math.isfinite(number) or abs(number) >= 1e21:
        return number_text(number)
    scaled = _scaled(abs(number), places)
    digits = str(scaled).rjust(places + 1, "0")
    text = digits if places == 0 else f"{digits[:-places]}.{digits[-places:]}"
    # JavaScript keeps the sign of a negative number that rounds to zero.
    return "-" + text if number < 0 else text


def _scaled(number: float | int, places: int) -> int:
    """A magnitude times a power of ten as the nearest integer; of two equally near ones the larger."""
    top, bottom = number.as_integer_ratio()
    if places >= 0:
        top *= 10**places
    else:
        bottom *= 10**-places
    return (2 * top + bottom) // (2 * bottom)


def _significant(number: float | int, count: int) -> tuple[str, int]:
    """That many significant digits of a magnitude, and the decimal exponent of the first."""
    if number == 0:
        return "0" * count, 0
    exponent = math.floor(math.log10(number))
    # The logarithm may be one off.
    if not _reaches(number, exponent):
        exponent -= 1
    elif _reaches(number, exponent + 1):
        exponent += 1
    digits = str(_scaled(number, count - 1 - exponent))
    if len(digits) > count:
        exponent += 1
        digits = str(_scaled(number, count - 1 - exponent))
    return digits, exponent


def _reaches(number: float | int, exponent: int) -> bool:
    """Whether a magnitude is at least a power of ten."""
    top, bottom = number.as_integer_ratio()
    power: int = 10 ** abs(exponent)
    return top >= bottom * power if exponent >= 0 else top * power >= bottom


def _to_precision(meter: Meter, this: object, arguments: list[object]) -> object:
    number = _this_number(this)
    if arguments[0] is UNDEFINED:
        return number_text(number)
    count_wanted = to_integer(arguments[0], meter)
    if not math.isfinite(number):
        return number_text(number)
    count = _fraction_digits(count_wanted, 1, meter)
    sign = "-" if number < 0 else ""
    digits, exponent = _significant(abs(number), count)
    if exponent < -6 or exponent >= count:
        return sign + _with_exponent(digits, exponent)
    if exponent == count - 1:
        return sign + digits
    if exponent >= 0:
        return f"{sign}{digits[: exponent + 1]}.{digits[exponent + 1 :]}"
    return f"{sign}0.{'0' * (-exponent - 1)}{digits}"


def _to_exponential(meter: Meter, this: object, arguments: list[object]) -> object:
    number = _this_number(this)
    wanted = arguments[0]
    if not math.isfinite(number):
        return number_text(number)
    sign = "-" if number < 0 else ""
    if wanted is UNDEFINED:
        mantissa, _, power = repr(abs(float(number))).partition("e")
        whole, _, fraction = mantissa.partition(".")
        kept = (whole + fraction).strip("0")
        digits = kept or "0"
        leading = len(whole + fraction) - len((whole + fraction).lstrip("0"))
        exponent = len(whole) - 1 - leading + int(power or "0") if kept else 0
    else:
        digits, exponent = _significant(abs(number), _fraction_digits(wanted, 0, meter) + 1)
    return sign + _with_exponent(digits, exponent)


def _with_exponent(digits: str, exponent: int) -> str:
    mantissa = digits if len(digits) == 1 else f"{digits[0]}.{digits[1:]}"
    return f"{mantissa}e{'+' if exponent >= 0 else '-'}{abs(exponent)}"


def _value_of(meter: Meter, this: object, arguments: list[object]) -> object:
    return this.primitive if isinstance(this, Boxed) else this


def _boolean_text(meter: Meter, this: object, arguments: list[object]) -> object:
    value = this.primitive if isinstance(this, Boxed) else this
    return "true" if value is True else "false"


NUMBER_METHODS: Final[dict[str, Function]] = {
    "toExponential": Function("toExponential", 1, _to_exponential),
    "toFixed": Function("toFixed", 1, _to_fixed),
    "toPrecision": Function("toPrecision", 1, _to_precision),
    "toString": Function("toString", 1, _to_string),
    "valueOf": Function("valueOf", 0, _value_of),
}

BOOLEAN_METHODS: Final[dict[str, Function]] = {
    "toString": Function("toString", 0, _boolean_text),
    "valueOf": Function("valueOf", 0, _value_of),
}
