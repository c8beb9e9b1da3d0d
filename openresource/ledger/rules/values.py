"""Values of a rule as Python holds them, and JavaScript's conversions and comparisons between them.

null is None; booleans, numbers (int or float) and texts are themselves; objects are dicts, arrays lists. The rest has
classes here. A dict that came from outside is never changed.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Final

from openresource.ledger.rules.errors import RuleDenied, RuleExhausted, RuleThrow
from openresource.ledger.rules.meter import Meter
from openresource.ledger.rules.numerals import big_integer_of_text, number_of_text
from openresource.ledger.rules.regex_matcher import Program
from openresource.ledger.rules.text import is_before, joined
from openresource.primitives.numbers import number_text, to_double

NESTING_MAX: Final = 60
NAN: Final = float("nan")
_SHORT_UNITS: Final = 512


class Undefined:
    """JavaScript's undefined."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "undefined"


UNDEFINED: Final = Undefined()


class BigInteger:
    """A BigInt."""

    __slots__ = ("number",)

    def __init__(self, number: int) -> None:
        self.number: int = number


class Boxed:
    """A primitive made an object by `new Number(…)` and its like."""

    __slots__ = ("primitive",)

    def __init__(self, primitive: object) -> None:
        self.primitive: object = primitive


class Regex:
    """A regular expression; `last_index` moves with the flags g and y."""

    __slots__ = ("flags", "last_index", "program", "source")

    def __init__(self, source: str, flags: str, program: Program) -> None:
        self.source: str = source
        self.flags: str = flags
        self.program: Program = program
        self.last_index: int = 0


class Match:
    """What a regular expression has found: an array with three more members."""

    __slots__ = ("groups", "index", "input", "items")

    def __init__(self, items: list[object], index: int, input: str, groups: object) -> None:
        self.items: list[object] = items
        self.index: int = index
        self.input: str = input
        self.groups: object = groups


class Function:
    """A function that rules may call; `body` gets at least `arity` arguments, missing ones undefined."""

    __slots__ = ("arity", "body", "name", "statics")

    def __init__(self, name: str, arity: int, body: Callable[[Any, object, list[object]], object]) -> None:
        self.name: str = name
        self.arity: int = arity
        self.body: Callable[[Any, object, list[object]], object] = body
        self.statics: dict[str, object] = {}


class HostObject:
    """An object of the evaluator's own whose members are functions, such as util."""

    __slots__ = ("members", "name")

    def __init__(self, name: str, members: dict[str, object]) -> None:
        self.name: str = name
        self.members: dict[str, object] = members


class StateObject:
    """An object that is read from the state only as far as a rule looks into it."""

    __slots__ = ()

    def get(self, key: str) -> object:
        """The member, or UNDEFINED."""
        raise NotImplementedError

    def keys(self) -> list[str]:
        """The labels in JavaScript's order."""
        raise NotImplementedError

    def count(self) -> int:
        """How many members there are."""
        raise NotImplementedError


def to_boolean(value: object) -> bool:
    """What a condition makes of a value."""
    if isinstance(value, bool):
        return value
    if isinstance(value, str):
        return value != ""
    if isinstance(value, int):
        return value != 0
    if isinstance(value, float):
        return value == value and value != 0
    if value is None or value is UNDEFINED:
        return False
    if isinstance(value, BigInteger):
        return value.number != 0
    return True


def type_of(value: object) -> str:
    """The operator typeof."""
    if isinstance(value, str):
        return "string"
    if isinstance(value, bool):
        return "boolean"
    if isinstance(value, (int, float)):
        return "number"
    if value is UNDEFINED:
        return "undefined"
    if isinstance(value, Function):
        return "function"
    if isinstance(value, BigInteger):
        return "bigint"
    return "object"


def is_number(value: object) -> bool:
    """Whether a value is a number, NaN and infinities included."""
    return isinstance(value, float) or (isinstance(value, int) and not isinstance(value, bool))


def is_object(value: object) -> bool:
    """Whether a value is an object rather than a primitive."""
    if value is None or value is UNDEFINED or isinstance(value, (str, int, float)):
        return False
    return not isinstance(value, BigInteger)


def is_dict(value: object) -> bool:
    """Whether a value is an object that is neither null nor an array nor a function."""
    return is_object(value) and not isinstance(value, (list, Match, Function))


def array_items(value: object) -> list[object] | None:
    """The items if a value is an array."""
    if isinstance(value, list):
        return value
    return value.items if isinstance(value, Match) else None


def strict_equals(one: object, other: object) -> bool:
    """The operator ===."""
    if isinstance(one, str):
        return isinstance(other, str) and one == other
    if one is other:
        return not (isinstance(one, float) and one != one)
    if isinstance(one, bool) or isinstance(other, bool):
        return False
    if isinstance(one, (int, float)):
        return isinstance(other, (int, float)) and one == other
    if isinstance(one, BigInteger):
        return isinstance(other, BigInteger) and one.number == other.number
    return False


def same_value_zero(one: object, other: object) -> bool:
    """Equality as includes() has it: === but NaN equals itself."""
    if isinstance(one, float) and one != one:
        return isinstance(other, float) and other != other
    return strict_equals(one, other)


def loose_equals(one: object, other: object, meter: Meter) -> bool:
    """The operator ==."""
    is_one_nothing = one is None or one is UNDEFINED
    is_other_nothing = other is None or other is UNDEFINED
    if is_one_nothing or is_other_nothing:
        return is_one_nothing and is_other_nothing
    if isinstance(one, bool):
        return loose_equals(1 if one else 0, other, meter)
    if isinstance(other, bool):
        return loose_equals(one, 1 if other else 0, meter)
    is_one_object = is_object(one)
    is_other_object = is_object(other)
    if is_one_object and is_other_object:
        return one is other
    if is_one_object:
        return loose_equals(to_primitive(one, False, meter), other, meter)
    if is_other_object:
        return loose_equals(one, to_primitive(other, False, meter), meter)
    if isinstance(one, str) and isinstance(other, str):
        return one == other
    if isinstance(one, BigInteger) or isinstance(other, BigInteger):
        return _order(_numeric_side(one), _numeric_side(other)) == 0
    return bool(to_number(one, meter) == to_number(other, meter))


def is_less(one: object, other: object, meter: Meter) -> int:
    """Whether one < other: 1 yes, 0 no, -1 neither because there is no order (NaN)."""
    if isinstance(one, (int, float)) and isinstance(other, (int, float)):
        return -1 if one != one or other != other else (1 if one < other else 0)
    left = to_primitive(one, False, meter)
    right = to_primitive(other, False, meter)
    if isinstance(left, str) and isinstance(right, str):
        return 1 if is_before(left, right) else 0
    if isinstance(left, BigInteger) or isinstance(right, BigInteger):
        order = _order(_numeric_side(left), _numeric_side(right))
        return -1 if order == 2 else (1 if order < 0 else 0)
    first = to_number(left, meter)
    second = to_number(right, meter)
    if first != first or second != second:
        return -1
    return 1 if first < second else 0


def to_number(value: object, meter: Meter) -> float | int:
    """The conversion to a number."""
    if isinstance(value, bool):
        return 1 if value else 0
    if isinstance(value, (int, float)):
        return value
    if isinstance(value, str):
        return number_of_text(value)
    if value is None:
        return 0
    if value is UNDEFINED:
        return NAN
    if isinstance(value, BigInteger):
        raise RuleThrow("Cannot convert a BigInt value to a number")
    return to_number(to_primitive(value, True, meter), meter)


def to_numeric(value: object, meter: Meter) -> object:
    """A number or a BigInteger."""
    primitive = to_primitive(value, True, meter)
    return primitive if isinstance(primitive, BigInteger) else to_number(primitive, meter)


def to_integer(value: object, meter: Meter) -> float | int:
    """A whole number or an infinity, as positions and counts are read."""
    number = to_number(value, meter)
    if isinstance(number, int):
        return number
    if number != number:
        return 0
    return number if math.isinf(number) else int(number)


def to_int32(value: object, meter: Meter) -> int:
    """The signed 32-bit integer that bitwise operators work on."""
    bits = to_uint32(value, meter)
    return bits - 0x100000000 if bits >= 0x80000000 else bits


def to_uint32(value: object, meter: Meter) -> int:
    """The unsigned 32-bit integer."""
    number = to_number(value, meter)
    if isinstance(number, float):
        if not math.isfinite(number):
            return 0
        return int(number) & 0xFFFFFFFF
    return number & 0xFFFFFFFF


def to_string(value: object, meter: Meter, depth: int = 0) -> str:
    """The conversion to a text."""
    if isinstance(value, str):
        return value
    if value is None:
        return "null"
    if value is UNDEFINED:
        return "undefined"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (int, float)):
        return number_text(value)
    if isinstance(value, BigInteger):
        return str(value.number)
    return to_string(to_primitive(value, True, meter, depth, True), meter, depth)


def to_key(value: object, meter: Meter) -> str:
    """A member's name."""
    return value if isinstance(value, str) else to_string(value, meter)


def to_primitive(
    value: object, prefers_number: bool, meter: Meter, depth: int = 0, prefers_string: bool = False
) -> object:
    """The primitive that stands for an object; a primitive stands for itself."""
    if value is None or value is UNDEFINED or isinstance(value, str | int | float | BigInteger):
        return value
    meter.spend(1)
    if isinstance(value, Boxed):
        return value.primitive
    items = array_items(value)
    if items is not None:
        return join(items, ",", meter, depth)
    if isinstance(value, Regex):
        return f"/{value.source}/{value.flags}"
    if isinstance(value, Function):
        raise RuleDenied("the text of functions is out of reach")
    own = own_member(value, "toString")
    value_of = own_member(value, "valueOf")
    if own is UNDEFINED and value_of is UNDEFINED:
        return "[object Object]"
    for member in (own, value_of) if prefers_string else (value_of, own):
        if isinstance(member, Function):
            result = call(member, meter, value, [])
            if not is_object(result):
                return result
        elif member is UNDEFINED and member is own:
            return "[object Object]"
    raise RuleThrow("Cannot convert object to primitive value")


def own_member(value: object, key: str) -> object:
    """An object's own member, or UNDEFINED; nothing inherited."""
    if isinstance(value, dict):
        return value.get(key, UNDEFINED)
    if isinstance(value, StateObject):
        return value.get(key)
    return UNDEFINED


def call(function: Function, meter: Meter, this: object, arguments: list[object]) -> object:
    """Calls a function; missing arguments are undefined."""
    meter.spend(1)
    missing = function.arity - len(arguments)
    if missing > 0:
        arguments = arguments + [UNDEFINED] * missing
    return function.body(meter, this, arguments)


def join(items: list[object], separator: str, meter: Meter, depth: int = 0) -> str:
    """The texts of an array's items; null and undefined are empty."""
    if depth > NESTING_MAX:
        raise RuleExhausted("the value is nested too deep")
    meter.spend_items(len(items))
    parts: list[str] = []
    length = 0
    for item in items:
        text = "" if item is None or item is UNDEFINED else to_string(item, meter, depth + 1)
        length += len(text) + len(separator)
        meter.spend_text(len(text) + len(separator))
        meter.refuse_text(length)
        parts.append(text)
    return joined(separator.join(parts))


def keys_of(value: object) -> list[str]:
    """The own keys of an object or array, in JavaScript's order."""
    if isinstance(value, dict):
        return property_keys(value)
    if isinstance(value, StateObject):
        return value.keys()
    if isinstance(value, list):
        return [str(position) for position in range(len(value))]
    return []


def property_keys(value: dict[str, object]) -> list[str]:
    """Keys of a dict: array indices ascending, the others as inserted."""
    indices = [key for key in value if key.isdigit() and is_index(key)]
    if not indices:
        return list(value)
    indices.sort(key=int)
    return indices + [key for key in value if not is_index(key)]


def is_index(key: str) -> bool:
    """Whether a key is a canonical array index."""
    if not key.isascii() or not key.isdigit() or len(key) > 10:
        return False
    return key == "0" or (key[0] != "0" and int(key) < 4294967295)


def deep_equals(one: object, other: object, meter: Meter, depth: int = 0) -> bool:
    """Whether two values are the same whatever the order of their keys."""
    meter.spend(1)
    if not is_object(one) or not is_object(other):
        return same_value_zero(one, other)
    if one is other:
        return True
    if depth > NESTING_MAX:
        raise RuleExhausted("the value is nested too deep")
    if isinstance(one, list) or isinstance(other, list):
        if not isinstance(one, list) or not isinstance(other, list) or len(one) != len(other):
            return False
        return all(deep_equals(left, right, meter, depth + 1) for left, right in zip(one, other, strict=True))
    if not isinstance(one, (dict, StateObject)) or not isinstance(other, (dict, StateObject)):
        return False
    keys = keys_of(one)
    other_keys = keys_of(other)
    if len(keys) != len(other_keys):
        return False
    present = set(other_keys)
    for key in keys:
        if key not in present:
            return False
        if not deep_equals(own_member(one, key), own_member(other, key), meter, depth + 1):
            return False
    return True


def _numeric_side(value: object) -> object:
    """One side of a comparison with a BigInt: a number, or an exact integer as BigInteger; NaN if it is none."""
    if isinstance(value, BigInteger):
        return value
    if isinstance(value, str):
        return big_integer_of_text(value)
    if value is UNDEFINED:
        return NAN
    if value is None:
        return 0
    return (1 if value else 0) if isinstance(value, bool) else value


def _order(one: object, other: object) -> int:
    """-1, 0 or 1 for less, equal, greater; 2 if there is no order. Python compares int and float exactly."""
    left = one.number if isinstance(one, BigInteger) else one
    right = other.number if isinstance(other, BigInteger) else other
    assert isinstance(left, (int, float)) and isinstance(right, (int, float))
    if left != left or right != right:
        return 2
    if left == right:
        return 0
    return -1 if left < right else 1


def add(one: object, other: object, meter: Meter) -> object:
    """The operator +."""
    if isinstance(one, str) and isinstance(other, str):
        return concatenate(one, other, meter)
    if is_number(one) and is_number(other):
        assert isinstance(one, (int, float)) and isinstance(other, (int, float))
        return sum_of(one, other)
    left = to_primitive(one, False, meter)
    right = to_primitive(other, False, meter)
    if isinstance(left, str) or isinstance(right, str):
        return concatenate(to_string(left, meter), to_string(right, meter), meter)
    if isinstance(left, BigInteger) or isinstance(right, BigInteger):
        if isinstance(left, BigInteger) and isinstance(right, BigInteger):
            return BigInteger(left.number + right.number)
        raise RuleThrow("Cannot mix BigInt and other types, use explicit conversions")
    return sum_of(to_number(left, meter), to_number(right, meter))


def sum_of(one: float | int, other: float | int) -> float | int:
    """The sum of two numbers as doubles add."""
    if isinstance(one, int) and isinstance(other, int):
        return to_double(one + other)
    return float(one) + float(other)


def concatenate(one: str, other: str, meter: Meter) -> str:
    """Two texts behind each other."""
    length = len(one) + len(other)
    # Short texts are paid for by the operator that joins them.
    if length > _SHORT_UNITS:
        meter.spend_text(length)
    text = one + other
    return text if text.isascii() else joined(text)
