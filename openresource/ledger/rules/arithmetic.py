"""Arithmetic of doubles and big integers with JavaScript's conversions."""

from __future__ import annotations

import math
from typing import Final

from openresource.ledger.rules.errors import RuleExhausted, RuleThrow
from openresource.ledger.rules.meter import Meter
from openresource.ledger.rules.values import (
    NAN,
    BigInteger,
    to_int32,
    to_numeric,
    to_uint32,
)
from openresource.primitives.numbers import to_double

# Python writes integers of up to 4,300 digits.
BIG_BITS_MAX: Final = 12_000


def subtract(one: object, other: object, meter: Meter) -> object:
    """The operator -."""
    left, right = _operands(one, other, meter)
    if isinstance(left, BigInteger) and isinstance(right, BigInteger):
        return BigInteger(left.number - right.number)
    first, second = _doubles(left, right)
    if isinstance(first, int) and isinstance(second, int):
        return to_double(first - second)
    return float(first) - float(second)


def multiply(one: object, other: object, meter: Meter) -> object:
    """The operator *."""
    left, right = _operands(one, other, meter)
    if isinstance(left, BigInteger) and isinstance(right, BigInteger):
        return _bounded(left.number * right.number)
    first, second = _doubles(left, right)
    if isinstance(first, int) and isinstance(second, int):
        product = first * second
        if product == 0 and (first < 0 or second < 0):
            return -0.0
        return to_double(product)
    return float(first) * float(second)


def divide(one: object, other: object, meter: Meter) -> object:
    """The operator /."""
    left, right = _operands(one, other, meter)
    if isinstance(left, BigInteger) and isinstance(right, BigInteger):
        if right.number == 0:
            raise RuleThrow("Division by zero")
        quotient = abs(left.number) // abs(right.number)
        return BigInteger(quotient if (left.number < 0) == (right.number < 0) else -quotient)
    numbers = _doubles(left, right)
    first = float(numbers[0])
    second = float(numbers[1])
    if second == 0:
        if first == 0 or first != first:
            return NAN
        return math.copysign(math.inf, first) * math.copysign(1.0, second)
    return first / second


def remainder(one: object, other: object, meter: Meter) -> object:
    """The operator %."""
    left, right = _operands(one, other, meter)
    if isinstance(left, BigInteger) and isinstance(right, BigInteger):
        if right.number == 0:
            raise RuleThrow("Division by zero")
        rest = abs(left.number) % abs(right.number)
        return BigInteger(-rest if left.number < 0 else rest)
    numbers = _doubles(left, right)
    first = float(numbers[0])
    second = float(numbers[1])
    if second == 0 or math.isinf(first) or first != first or second != second:
        return NAN
    return math.fmod(first, second)


def power(one: object, other: object, meter: Meter) -> object:
    """The operator **."""
    left, right = _operands(one, other, meter)
    if isinstance(left, BigInteger) and isinstance(right, BigInteger):
        if right.number < 0:
            raise RuleThrow("Exponent must be non-negative")
        if abs(left.number) > 1 and left.number.bit_length() * right.number > BIG_BITS_MAX:
            raise RuleExhausted("Maximum BigInt size exceeded")
        # Powers of 0, 1 and -1 depend on the exponent's parity only.
        exponent = right.number if abs(left.number) > 1 or right.number < 2 else 2 + right.number % 2
        return BigInteger(pow(left.number, exponent))
    numbers = _doubles(left, right)
    return _power(float(numbers[0]), float(numbers[1]))


def bitwise(operator: str, one: object, other: object, meter: Meter) -> object:
    """The operators & | ^ << >> >>>."""
    left, right = _operands(one, other, meter)
    if isinstance(left, BigInteger) and isinstance(right, BigInteger):
        return _big_bitwise(operator, left.number, right.number)
    if operator == "&":
        return to_int32(left, meter) & to_int32(right, meter)
    if operator == "|":
        return to_int32(left, meter) | to_int32(right, meter)
    if operator == "^":
        return to_int32(left, meter) ^ to_int32(right, meter)
    count = to_uint32(right, meter) & 31
    if operator == "<<":
        return to_int32((to_int32(left, meter) << count) & 0xFFFFFFFF, meter)
    if operator == ">>":
        return to_int32(left, meter) >> count
    return to_uint32(left, meter) >> count


def negate(value: object, meter: Meter) -> object:
    """The unary operator -."""
    number = to_numeric(value, meter)
    if isinstance(number, BigInteger):
        return BigInteger(-number.number)
    assert isinstance(number, (int, float))
    if isinstance(number, int) and number != 0:
        return -number
    return -float(number)


def invert(value: object, meter: Meter) -> object:
    """The unary operator ~."""
    number = to_numeric(value, meter)
    if isinstance(number, BigInteger):
        return BigInteger(~number.number)
    return ~to_int32(number, meter)


def _operands(one: object, other: object, meter: Meter) -> tuple[object, object]:
    left = to_numeric(one, meter)
    right = to_numeric(other, meter)
    if isinstance(left, BigInteger) != isinstance(right, BigInteger):
        raise RuleThrow("Cannot mix BigInt and other types, use explicit conversions")
    return left, right


def _doubles(left: object, right: object) -> tuple[float | int, float | int]:
    assert isinstance(left, (int, float)) and isinstance(right, (int, float))
    return left, right


def _power(base: float, exponent: float) -> float:
    if exponent != exponent:
        return NAN
    if math.isinf(exponent) and abs(base) == 1:
        return NAN
    try:
        return math.pow(base, exponent)
    except OverflowError:
        is_odd = exponent.is_integer() and math.fmod(exponent, 2) != 0
        return -math.inf if base < 0 and is_odd else math.inf
    except ValueError:
        if base == 0:
            is_odd = exponent.is_integer() and math.fmod(exponent, 2) != 0
            return -math.inf if is_odd and math.copysign(1.0, base) < 0 else math.inf
        return NAN


def _big_bitwise(operator: str, left: int, right: int) -> BigInteger:
    if operator == "&":
        return BigInteger(left & right)
    if operator == "|":
        return BigInteger(left | right)
    if operator == "^":
        return BigInteger(left ^ right)
    if operator == ">>>":
        raise RuleThrow("BigInts have no unsigned right shift, use >> instead")
    count = right if operator == "<<" else -right
    if count <= 0:
        return BigInteger(left >> min(-count, BIG_BITS_MAX))
    if left != 0 and count + left.bit_length() > BIG_BITS_MAX:
        raise RuleExhausted("Maximum BigInt size exceeded")
    return BigInteger(left << count if left else 0)


def _bounded(number: int) -> BigInteger:
    if number.bit_length() > BIG_BITS_MAX:
        raise RuleExhausted("Maximum BigInt size exceeded")
    return BigInteger(number)
