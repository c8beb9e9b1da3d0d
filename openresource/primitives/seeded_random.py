"""The random numbers that AI Network's clients draw from a text, so that everyone draws the same."""

from __future__ import annotations

from typing import Final

from openresource.primitives.encoding import utf16_order

_WIDTH: Final = 256
_MASK: Final = 255
_CHUNKS: Final = 6
_SIGNIFICANT: Final = 2.0**52
_TOO_MANY: Final = 2.0**53


class SeededRandom:
    """A stream of doubles in [0, 1), made by RC4 from a text seed."""

    def __init__(self, seed: str) -> None:
        key = _mixed_key(seed)
        state = list(range(_WIDTH))
        j = 0
        for i in range(_WIDTH):
            j = j + key[i % len(key)] + state[i] & _MASK
            state[i], state[j] = state[j], state[i]
        self._state: list[int] = state
        self._i: int = 0
        self._j: int = 0
        # The first bytes of RC4 betray the key and are thrown away.
        self._next(_WIDTH)

    def random(self) -> float:
        """The next number."""
        numerator = float(self._next(_CHUNKS))
        denominator = float(_WIDTH**_CHUNKS)
        extra = 0
        while numerator < _SIGNIFICANT:
            numerator = (numerator + extra) * _WIDTH
            denominator *= _WIDTH
            extra = self._next(1)
        while numerator >= _TOO_MANY:
            numerator /= 2
            denominator /= 2
            extra >>= 1
        return (numerator + extra) / denominator

    def _next(self, count: int) -> int:
        """The next bytes of the stream as one big-endian number."""
        state = self._state
        i = self._i
        j = self._j
        number = 0
        for _ in range(count):
            i = i + 1 & _MASK
            moved = state[i]
            j = j + moved & _MASK
            other = state[j]
            state[i] = other
            state[j] = moved
            number = number << 8 | state[moved + other & _MASK]
        self._i = i
        self._j = j
        return number


def _mixed_key(seed: str) -> list[int]:
    """At most 256 numbers into which all code units of the seed are smeared."""
    units = utf16_order(seed)
    key: list[int] = []
    smear = 0
    for place in range(len(units) // 2):
        unit = units[2 * place] << 8 | units[2 * place + 1]
        slot = place & _MASK
        if slot < len(key):
            smear = _int32(smear ^ key[slot] * 19)
            key[slot] = smear + unit & _MASK
        else:
            key.append(smear + unit & _MASK)
    return key or [0]


def _int32(number: int) -> int:
    number &= 0xFFFFFFFF
    return number - 0x100000000 if number & 0x80000000 else number
