"""Numbers as they are written in rules, and texts that JavaScript's Number() reads as numbers."""

from __future__ import annotations

import re
from typing import Final

from openresource.ledger.rules.errors import RuleTokenError
from openresource.primitives.numbers import to_double

# Digits of a big integer; more would make arithmetic slow.
BIG_INTEGER_DIGITS_MAX: Final = 1_000

WHITE_SPACE: Final = (
    "\t\n\v\f\r \xa0\ufeff\u1680\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200a"
    "\u2028\u2029\u202f\u205f\u3000"
)

_DIGITS: Final = r"[0-9](?:_?[0-9])*"
_NUMERAL: Final = re.compile(
    rf"""
    (?P<radix>0(?:[xX][0-9a-fA-F](?:_?[0-9a-fA-F])*|[oO][0-7](?:_?[0-7])*|[bB][01](?:_?[01])*))(?P<radix_n>n)?
  | (?P<big>0|[1-9](?:_?[0-9])*)n
  | (?P<legacy>0[0-9_]+)
  | (?P<decimal>(?:(?:0|[1-9](?:_?[0-9])*)(?:\.(?:{_DIGITS})?)?|\.{_DIGITS})(?:[eE][+-]?{_DIGITS})?)
    """,
    re.VERBOSE,
)
_DECIMAL_TEXT: Final = re.compile(
    r"[+-]?(?:[0-9]+\.?[0-9]*(?:[eE][+-]?[0-9]+)?|\.[0-9]+(?:[eE][+-]?[0-9]+)?)"
)
_INTEGER_TEXT: Final = re.compile("[+-]?[0-9]+")
_RADIX_TEXT: Final = re.compile(r"0[xX][0-9a-fA-F]+|0[oO][0-7]+|0[bB][01]+")


def numeral_value(text: str, at: int) -> tuple[str, float | int, bool]:
    """A numeral's text as written at a position, its value, and whether it is a big integer."""
    match = _NUMERAL.match(text, at)
    if match is None:
        raise RuleTokenError("Invalid number")
    written = match.group()
    if match.group("legacy") is not None:
        raise RuleTokenError("Invalid number")
    radix = match.group("radix")
    if radix is not None:
        whole = int(radix.replace("_", ""), 0)
        if match.group("radix_n") is not None:
            return written, _bounded(whole, written), True
        return written, to_double(whole), False
    big = match.group("big")
    if big is not None:
        return written, _bounded(_integer(big.replace("_", "")), written), True
    return written, to_double(float(written.replace("_", ""))), False


def number_of_text(text: str) -> float | int:
    """What Number(text) gives."""
    if text.isascii() and text.isdigit() and len(text) < 16:
        return int(text)
    stripped = text.strip(WHITE_SPACE)
    if not stripped:
        return 0
    if _DECIMAL_TEXT.fullmatch(stripped):
        return _signed(stripped)
    if _RADIX_TEXT.fullmatch(stripped):
        return to_double(int(stripped, 0))
    if stripped == "Infinity" or stripped == "+Infinity":
        return float("inf")
    if stripped == "-Infinity":
        return float("-inf")
    return float("nan")


def big_integer_of_text(text: str) -> float | int:
    """The integer that a text stands for beside a BigInt; NaN if it is none, or one that is too long to be exact."""
    stripped = text.strip(WHITE_SPACE)
    if not stripped:
        return 0
    if len(stripped) > BIG_INTEGER_DIGITS_MAX:
        return number_of_text(stripped)
    if _INTEGER_TEXT.fullmatch(stripped):
        return int(stripped)
    return int(stripped, 0) if _RADIX_TEXT.fullmatch(stripped) else float("nan")


def number_prefix(text: str) -> float | int:
    """What parseFloat(text) gives: the longest beginning that is a decimal number."""
    stripped = text.lstrip(WHITE_SPACE)
    match = _DECIMAL_TEXT.match(stripped)
    if match is not None:
        return _signed(match.group())
    for sign, value in (("", "inf"), ("+", "inf"), ("-", "-inf")):
        if stripped.startswith(sign + "Infinity"):
            return float(value)
    return float("nan")


def _signed(text: str) -> float | int:
    value = float(text)
    # A negative zero stays one.
    return value if value == 0 and text.startswith("-") else to_double(value)


def _integer(digits: str) -> int:
    if len(digits) > BIG_INTEGER_DIGITS_MAX:
        raise RuleTokenError("the big integer is too long")
    return int(digits)


def _bounded(value: int, written: str) -> int:
    if len(written) > BIG_INTEGER_DIGITS_MAX:
        raise RuleTokenError("the big integer is too long")
    return value
