"""Texts as JavaScript counts them: in UTF-16 code units.

A Python string here holds a pair of surrogates as the one character it stands for, and lone surrogates as they are.
`units` spreads a text into one character for each code unit; `joined` puts pairs together again.
"""

from __future__ import annotations

import re
from typing import Final

_WIDE: Final = re.compile(r"[\U00010000-\U0010ffff]")
_PAIR: Final = re.compile(r"[\ud800-\udbff][\udc00-\udfff]")
_FROM_SURROGATES_UP: Final = re.compile(r"[\ud800-\U0010ffff]")


def word_set(text: str) -> frozenset[str]:
    """The words of a text."""
    return frozenset(text.split())


def units(text: str) -> str:
    """The text with one character for each code unit."""
    if text.isascii() or _WIDE.search(text) is None:
        return text
    return _WIDE.sub(_spread, text)


def joined(text: str) -> str:
    """The text with every pair of surrogates as one character."""
    if text.isascii() or _PAIR.search(text) is None:
        return text
    return _PAIR.sub(_joined_pair, text)


def is_before(one: str, other: str) -> bool:
    """Whether a text comes before another in the order of code units."""
    if one.isascii() or other.isascii():
        return one < other
    if _FROM_SURROGATES_UP.search(one) is None or _FROM_SURROGATES_UP.search(other) is None:
        return one < other
    return one.encode("utf-16-be", "surrogatepass") < other.encode("utf-16-be", "surrogatepass")


def _spread(match: re.Match[str]) -> str:
    point = ord(match.group()) - 0x10000
    return chr(0xD800 + (point >> 10)) + chr(0xDC00 + (point & 0x3FF))


def _joined_pair(match: re.Match[str]) -> str:
    pair = match.group()
    return chr(0x10000 + ((ord(pair[0]) - 0xD800) << 10) + (ord(pair[1]) - 0xDC00))
