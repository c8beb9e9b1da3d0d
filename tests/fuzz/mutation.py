"""Inputs that are nearly right: a seed from the corpus, spoilt in a few places."""

from __future__ import annotations

import copy
import random
from collections.abc import Sequence
from typing import Any

STRANGE_VALUES: tuple[Any, ...] = (
    None,
    True,
    False,
    0,
    -1,
    1,
    1.5,
    -2,
    2**31,
    2**53,
    2**64,
    10**400,
    1e308,
    -1e-320,
    "",
    "/",
    "//",
    "/values",
    "0x",
    "0x00",
    "0xzz",
    "$x",
    ".rule",
    ".function",
    ".owner",
    ".shard",
    "#",
    "*",
    "a/b",
    "1",
    "-1",
    "1e3",
    "NaN",
    "__proto__",
    "constructor",
    "\ud800",
    "\udc00x",
    "\U0001f680",
    "\x00",
    "\u2028",
    "x" * 300,
    "/a" * 40,
    [],
    {},
    [[]],
    {"": {}},
    {"a": None},
    [None],
    {".rule": {"write": True}},
    {"#x": 1},
)
DEEP_LEVELS = 40


class Mutator:
    """One source of chance and the ways to spoil something."""

    def __init__(self, chance: random.Random) -> None:
        self.chance = chance

    # Bytes and texts

    def data(self, seed: bytes, others: Sequence[bytes]) -> bytes:
        """Bytes with a few bits, bytes or stretches changed."""
        chance = self.chance
        data = bytearray(seed)
        for _ in range(chance.choice((1, 1, 1, 2, 3, 6))):
            at = chance.randrange(len(data) + 1)
            kind = chance.randrange(7)
            if kind == 0 and at < len(data):
                data[at] ^= 1 << chance.randrange(8)
            elif kind == 1 and at < len(data):
                data[at] = chance.choice(
                    (0, 0x22, 0x5B, 0x5C, 0x7B, 0x7D, 0x7F, 0x80, 0xFF, chance.randrange(256))
                )
            elif kind == 2:
                del data[at : at + chance.choice((1, 1, 2, 4, 16, 64))]
            elif kind == 3:
                data[at:at] = chance.randbytes(chance.choice((1, 1, 2, 4, 8)))
            elif kind == 4:
                end = at + chance.choice((1, 4, 16, 64))
                data[at:at] = data[at:end] * chance.choice((1, 2, 8))
            elif kind == 5:
                other = chance.choice(others)
                start = chance.randrange(len(other) + 1)
                data[at:at] = other[start : start + chance.choice((1, 8, 64))]
            else:
                del data[at:]
        return bytes(data)

    def pieces(self, seed: Sequence[str], words: Sequence[str], others: Sequence[Sequence[str]]) -> list[str]:
        """A text in pieces, with some left out, doubled, wrapped, or taken from elsewhere."""
        chance = self.chance
        text = list(seed)
        for _ in range(chance.choice((1, 1, 2, 3, 5))):
            at = chance.randrange(len(text) + 1)
            end = min(len(text), at + chance.choice((1, 1, 2, 4, 8)))
            kind = chance.randrange(7)
            if kind == 0:
                del text[at:end]
            elif kind == 1:
                text[at:at] = text[at:end] * chance.choice((1, 1, 2, 30))
            elif kind == 2:
                text.insert(at, chance.choice(words))
            elif kind == 3:
                text[at:end] = [chance.choice(words)]
            elif kind == 4:
                other = chance.choice(others)
                start = chance.randrange(len(other) + 1)
                text[at:at] = other[start : start + chance.choice((1, 4, 16))]
            elif kind == 5:
                opening, closing = chance.choice(
                    (("(", ")"), ("[", "]"), ("{", "}"), ("`${", "}`"), ("!", ""))
                )
                levels = chance.choice((1, 1, 2, DEEP_LEVELS, 300))
                text[at:end] = [opening] * levels + text[at:end] + [closing] * levels
            else:
                chance.shuffle(text)
        return text

    # JSON

    def value(self, seed: Any, others: Sequence[Any]) -> Any:
        """A copy of a JSON value with some parts changed."""
        chance = self.chance
        changed = copy.deepcopy(seed)
        for _ in range(chance.choice((1, 1, 1, 2, 2, 4))):
            changed = self._changed(changed, others)
        return changed

    def _changed(self, value: Any, others: Sequence[Any]) -> Any:
        chance = self.chance
        if isinstance(value, dict) and value and chance.random() < 0.8:
            key = chance.choice(list(value))
            kind = chance.randrange(8)
            if kind == 0:
                del value[key]
            elif kind == 1:
                value[self._key()] = self._other(others)
            elif kind == 2:
                value[key], value[self._key()] = self._other(others), value[key]
            else:
                value[key] = self._changed(value[key], others)
            return value
        if isinstance(value, list) and value and chance.random() < 0.8:
            at = chance.randrange(len(value))
            kind = chance.randrange(6)
            if kind == 0:
                del value[at]
            elif kind == 1:
                value[at:at] = value[at : at + 1] * chance.choice((1, 2, 60))
            else:
                value[at] = self._changed(value[at], others)
            return value
        if isinstance(value, str) and chance.random() < 0.4:
            return self._text(value)
        if chance.random() < 0.05:
            return self._deep(value)
        return self._other(others)

    def _other(self, others: Sequence[Any]) -> Any:
        chance = self.chance
        return copy.deepcopy(chance.choice(others if others and chance.random() < 0.3 else STRANGE_VALUES))

    def _key(self) -> str:
        texts = [value for value in STRANGE_VALUES if isinstance(value, str)]
        return self.chance.choice((*texts, "ref", "type", "value", "op_list", "nonce", "id", "params"))

    def _text(self, text: str) -> str:
        chance = self.chance
        at = chance.randrange(len(text) + 1)
        kind = chance.randrange(4)
        if kind == 0:
            return text[:at]
        if kind == 1:
            return text[:at] + chance.choice(("/", "$", "\ud800", "é", "0", "'", "\n", "|")) + text[at:]
        return text[:at] + text[at + 1 :] if kind == 2 else text * 2

    def _deep(self, value: Any) -> Any:
        for _ in range(self.chance.choice((2, DEEP_LEVELS, 120))):
            value = [value] if self.chance.random() < 0.5 else {"a": value}
        return value
