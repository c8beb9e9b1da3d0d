"""Whether two outputs agree: by digest where runs are exact, within a stated tolerance where they are not.

Arithmetic is exact everywhere: numbers are fractions of their texts, so that every node decides alike. What is `subjective`
agrees with everything, as nobody can be wrong about it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction
from operator import mul
from typing import Any, Final

from openresource.market.codes import ResultCode
from openresource.primitives.errors import Refusal

BIT_EXACT: Final = "bit_exact"
CLASS_EXACT: Final = "class_exact"
TOLERANT: Final = "tolerant"
SUBJECTIVE: Final = "subjective"
CLASSES: Final = (BIT_EXACT, CLASS_EXACT, TOLERANT, SUBJECTIVE)
EXACT: Final = (BIT_EXACT, CLASS_EXACT)

ALLCLOSE: Final = "allclose"
COSINE: Final = "cosine"
PREFIX: Final = "prefix"
EDIT_DISTANCE: Final = "edit_distance"

# A comparator's members: which it needs, and what they may be at most.
COMPARATORS: Final[dict[str, tuple[str, ...]]] = {
    ALLCLOSE: ("rtol", "atol"),
    COSINE: ("tau",),
    PREFIX: ("n",),
    EDIT_DISTANCE: ("d",),
}
PREFIX_MAX: Final = 16_384
# An edit distance costs characters times distance, and every node computes it.
EDIT_DISTANCE_MAX: Final = 32
OUTPUT_BYTES_MAX: Final = 16 * 1024

_DECIMAL = re.compile(r"[0-9]{1,9}(?:\.[0-9]{1,18})?(?:e-?[0-9]{1,2})?")
_WHOLE = re.compile(r"[0-9]{1,5}")


class VerificationInvalid(Refusal):
    result_code = ResultCode.VERIFICATION_INVALID
    template = "The verification is not valid: {member} {reason}."
    way_out = 'Write {{class: "bit_exact"}}, or {{class: "tolerant", comparator: {{name: "allclose", rtol: "1e-5"}}}}.'


@dataclass(frozen=True, slots=True)
class Comparator:
    """A tolerance by name; the members that do not belong to it are 0."""

    name: str
    rtol: Fraction = Fraction(0)
    atol: Fraction = Fraction(0)
    tau: Fraction = Fraction(0)
    n: int = 0
    d: int = 0


@dataclass(frozen=True, slots=True)
class Verification:
    """How far two honest runs of a program agree, by its publisher's word."""

    exactness: str = SUBJECTIVE
    comparator: Comparator | None = None

    @property
    def is_exact(self) -> bool:
        """Whether a different digest proves that somebody is wrong."""
        return self.exactness in EXACT

    @property
    def is_comparable(self) -> bool:
        """Whether two results can be held against each other at all."""
        return self.is_exact or (self.exactness == TOLERANT and self.comparator is not None)

    @property
    def needs_outputs(self) -> bool:
        """Whether comparing takes the outputs themselves; else their digests do."""
        return self.exactness == TOLERANT


def read_verification(record: Any, exactness: str = SUBJECTIVE) -> Verification:
    """What a version says at `verify`; without it, its exactness alone."""
    if record is None:
        return Verification(exactness)
    if not isinstance(record, Mapping):
        raise VerificationInvalid(member="verify", reason="must be an object")
    for member in record:
        if member not in ("class", "comparator"):
            raise VerificationInvalid(member=str(member), reason="is not a member that is known here")
    kind = record.get("class", exactness)
    if kind not in CLASSES:
        raise VerificationInvalid(member="class", reason=f"must be one of {', '.join(CLASSES)}")
    comparator = record.get("comparator")
    if comparator is not None and kind != TOLERANT:
        raise VerificationInvalid(member="comparator", reason=f"belongs to {TOLERANT} programs only")
    return Verification(kind, None if comparator is None else read_comparator(comparator))


def verification_record(verification: Verification) -> dict[str, Any]:
    """The member `verify` of a version."""
    members: dict[str, Any] = {"class": verification.exactness}
    comparator = verification.comparator
    if comparator is not None:
        texts = {
            name: _text(getattr(comparator, name))
            for name in COMPARATORS[comparator.name]
            if getattr(comparator, name)
        }
        members["comparator"] = {"name": comparator.name, **texts}
    return members


def read_comparator(record: Any) -> Comparator:
    """A comparator with its members as decimal texts."""
    if not isinstance(record, Mapping) or record.get("name") not in COMPARATORS:
        raise VerificationInvalid(member="comparator", reason=f"must name one of {', '.join(COMPARATORS)}")
    name = str(record["name"])
    known = COMPARATORS[name]
    values: dict[str, Any] = {}
    for member, text in record.items():
        if member == "name":
            continue
        if member not in known:
            raise VerificationInvalid(member=str(member), reason=f"is no member of {name}")
        values[member] = _whole(member, text) if member in ("n", "d") else _fraction(member, text)
    missing = [member for member in known if member not in values]
    if name == ALLCLOSE:
        missing = [] if values else ["rtol"]
    if missing:
        raise VerificationInvalid(member=missing[0], reason=f"is needed by {name}")
    if values.get("tau", Fraction(1)) > 1:
        raise VerificationInvalid(member="tau", reason="must be at most 1")
    return Comparator(name, **values)


def outputs_agree(comparator: Comparator, left: Any, right: Any) -> bool:
    """Whether two outputs agree within a tolerance; whichever comes first."""
    if comparator.name == ALLCLOSE:
        return _all_close(left, right, comparator.rtol, comparator.atol)
    if comparator.name == COSINE:
        return _is_near(left, right, comparator.tau)
    first, second = _as_text(left), _as_text(right)
    if comparator.name == PREFIX:
        return first[: comparator.n] == second[: comparator.n]
    return edit_distance_within(first, second, comparator.d)


def edit_distance_within(left: str, right: str, distance_max: int) -> bool:
    """Whether so many insertions, deletions and replacements make one text of the other."""
    # Along each diagonal only the furthest place counts that so many changes reach: every node computes this, and a
    # table of all places would let a few long texts stop the chain.
    last = len(right) - len(left)
    if abs(last) > distance_max:
        return False
    reached = {0: _same_from(left, right, 0, 0)}
    for _ in range(distance_max):
        if reached.get(last, -1) >= len(left):
            break
        further: dict[int, int] = {}
        for diagonal in range(min(reached) - 1, max(reached) + 2):
            row = max(
                reached.get(diagonal, -2) + 1,
                reached.get(diagonal + 1, -2) + 1,
                reached.get(diagonal - 1, -2),
            )
            row = min(row, len(left), len(right) - diagonal)
            if row >= 0 and row + diagonal >= 0:
                further[diagonal] = row + _same_from(left, right, row, row + diagonal)
        reached = further
    return reached.get(last, -1) >= len(left)


def _same_from(left: str, right: str, row: int, column: int) -> int:
    """How many characters from two places on are the same."""
    longest = min(len(left) - row, len(right) - column)
    same, width = 0, 32
    while (
        same < longest
        and left[row + same : row + same + width] == right[column + same : column + same + width]
    ):
        same, width = same + width, width * 2
    if same >= longest:
        return longest
    low, high = same, min(longest, same + width)
    while low < high:
        middle = (low + high + 1) // 2
        if left[row + same : row + middle] == right[column + same : column + middle]:
            low = middle
        else:
            high = middle - 1
    return low


def _all_close(left: Any, right: Any, rtol: Fraction, atol: Fraction) -> bool:
    if _is_number(left) and _is_number(right):
        (first, second), scale = _whole_numbers([left, right])
        # |a - b| <= atol + rtol * max(|a|, |b|), times 10^scale and both denominators: fractions would be reduced each time.
        allowed = atol.numerator * 10**scale * rtol.denominator
        allowed += rtol.numerator * max(abs(first), abs(second)) * atol.denominator
        return bool(abs(first - second) * atol.denominator * rtol.denominator <= allowed)
    if isinstance(left, Mapping) and isinstance(right, Mapping):
        return left.keys() == right.keys() and all(
            _all_close(left[key], right[key], rtol, atol) for key in left
        )
    if isinstance(left, list | tuple) and isinstance(right, list | tuple):
        return len(left) == len(right) and all(
            _all_close(one, other, rtol, atol) for one, other in zip(left, right, strict=True)
        )
    return type(left) is type(right) and bool(left == right)


def _is_near(left: Any, right: Any, tau: Fraction) -> bool:
    first, second = list(_numbers(left)), list(_numbers(right))
    if len(first) != len(second) or not first:
        return bool(left == right)
    # An angle stays the same when a vector grows, so each may be made of whole numbers in its own scale.
    (one, _), (other, _) = _whole_numbers(first), _whole_numbers(second)
    dot = sum(map(mul, one, other))
    lengths = sum(map(mul, one, one)) * sum(map(mul, other, other))
    if lengths == 0:
        return not any(one) and not any(other)
    # cos >= tau without a root: both sides squared, as far as the sign allows.
    return bool(dot >= 0 and (dot * tau.denominator) ** 2 >= tau.numerator**2 * lengths)


def _numbers(value: Any) -> Iterator[int | float]:
    if _is_number(value):
        yield value
    elif isinstance(value, Mapping):
        # Lists are objects with their places as keys in the tree; both orders must be the same.
        for key in sorted(value, key=lambda text: (len(text), text)):
            yield from _numbers(value[key])
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _numbers(item)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _whole_numbers(values: list[int | float]) -> tuple[list[int], int]:
    """Numbers times a power of ten that makes all of them whole, and the exponent of that power."""
    parts = [_digits(value) for value in values]
    scale = max(0, -min(exponent for _, exponent in parts))
    powers = {exponent: 10 ** (exponent + scale) for _, exponent in parts}
    return [digits * powers[exponent] for digits, exponent in parts], scale


def _digits(value: int | float) -> tuple[int, int]:
    """A number as whole digits and an exponent of ten."""
    if isinstance(value, int):
        return value, 0
    # The shortest text of a double is what its JSON says; its binary value would be another number.
    mantissa, _, exponent = repr(value).partition("e")
    whole, _, part = mantissa.partition(".")
    return int(whole + part), int(exponent or 0) - len(part)


def _as_text(value: Any) -> str:
    """What a prefix or an edit distance is taken of: a text, or the only text in an object, or parts by position."""
    if isinstance(value, str):
        return value
    if isinstance(value, Mapping):
        return "".join(_as_text(value[key]) for key in sorted(value, key=lambda text: (len(text), text)))
    if isinstance(value, list | tuple):
        return "".join(_as_text(item) for item in value)
    return "" if value is None else str(value)


def _fraction(member: str, text: Any) -> Fraction:
    if not isinstance(text, str) or _DECIMAL.fullmatch(text) is None:
        raise VerificationInvalid(member=member, reason="must be a decimal text such as 1e-5 or 0.99")
    return Fraction(Decimal(text))


def _whole(member: str, text: Any) -> int:
    highest = EDIT_DISTANCE_MAX if member == "d" else PREFIX_MAX
    value = text if isinstance(text, str) else str(text) if isinstance(text, int) else ""
    if _WHOLE.fullmatch(value) is None or not 1 <= int(value) <= highest:
        raise VerificationInvalid(member=member, reason=f"must be a whole number from 1 to {highest}")
    return int(value)


def _text(value: Fraction | int) -> str:
    if isinstance(value, int):
        return str(value)
    # Every fraction here was read from a decimal text, so that its decimals end.
    scale = 0
    while (value * 10**scale).denominator != 1:
        scale += 1
    return f"{value.numerator * 10**scale // value.denominator}e-{scale}" if scale else str(value.numerator)
