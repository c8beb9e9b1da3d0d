"""Which members a value has for a rule: its own data and the standard members; constructors are out of reach."""

from __future__ import annotations

from typing import Final

from openresource.ledger.rules.arrays import ARRAY_METHODS
from openresource.ledger.rules.errors import RuleDenied, RuleThrow
from openresource.ledger.rules.meter import Meter
from openresource.ledger.rules.numbers import BOOLEAN_METHODS, NUMBER_METHODS
from openresource.ledger.rules.regular import match_object, regex_exec
from openresource.ledger.rules.strings import STRING_METHODS
from openresource.ledger.rules.text import joined, units
from openresource.ledger.rules.values import (
    UNDEFINED,
    BigInteger,
    Boxed,
    Function,
    HostObject,
    Match,
    Regex,
    StateObject,
    is_index,
    is_object,
    keys_of,
    to_key,
    to_primitive,
    to_string,
)

# Members that every object inherits and that lead out of the data, to code.
_DENIED: Final = frozenset(
    (
        "constructor",
        "__proto__",
        "prototype",
        "__defineGetter__",
        "__defineSetter__",
        "__lookupGetter__",
        "__lookupSetter__",
    )
)
# Members of functions that would call them in other ways or show what they are made of.
_DENIED_OF_FUNCTIONS: Final = frozenset(
    (
        "apply",
        "bind",
        "call",
        "caller",
        "arguments",
        "name",
        "length",
        "toString",
        "toLocaleString",
        "valueOf",
    )
)

# The names that every plain object answers to, whatever its data.
INHERITED_NAMES: Final = frozenset(
    (
        *_DENIED - {"prototype"},
        "hasOwnProperty",
        "isPrototypeOf",
        "propertyIsEnumerable",
        "toLocaleString",
        "toString",
        "valueOf",
    )
)


def get_member(value: object, key: str, meter: Meter) -> object:
    """The member of a value with a name; undefined if there is none."""
    if isinstance(value, dict):
        found: object = value.get(key, UNDEFINED)
        return _inherited(key) if found is UNDEFINED and key not in value else found
    if isinstance(value, StateObject):
        found = value.get(key)
        return _inherited(key) if found is UNDEFINED else found
    if isinstance(value, str):
        return _text_member(value, key, meter)
    if isinstance(value, list):
        return _array_member(value, key)
    if value is None or value is UNDEFINED:
        kind = "null" if value is None else "undefined"
        raise RuleThrow(f"Cannot read properties of {kind} (reading '{key}')")
    if isinstance(value, bool):
        return BOOLEAN_METHODS.get(key) or _inherited(key)
    if isinstance(value, int | float | BigInteger):
        return NUMBER_METHODS.get(key) or _inherited(key)
    return _special_member(value, key, meter)


def get_item(value: object, key: object, meter: Meter) -> object:
    """value[key]."""
    if isinstance(value, list) and isinstance(key, int) and not isinstance(key, bool):
        return value[key] if 0 <= key < len(value) else UNDEFINED
    if value is None or value is UNDEFINED:
        raise RuleThrow("Cannot read properties of null or undefined")
    return get_member(value, to_key(key, meter), meter)


def has_member(value: object, key: object, meter: Meter) -> bool:
    """The operator in."""
    if not is_object(value):
        raise RuleThrow("Cannot use 'in' operator to search in a primitive")
    name = to_key(key, meter)
    if has_own(value, name):
        return True
    if isinstance(value, dict | StateObject):
        return name in INHERITED_NAMES
    try:
        return get_member(value, name, meter) is not UNDEFINED
    except RuleDenied:
        return True


def has_own(value: object, name: str) -> bool:
    """Whether an object has a member of its own."""
    if isinstance(value, dict):
        return name in value
    if isinstance(value, StateObject):
        return value.get(name) is not UNDEFINED
    if isinstance(value, list):
        return name == "length" or (is_index(name) and int(name) < len(value))
    if isinstance(value, Match):
        return name in ("length", "index", "input", "groups") or (
            is_index(name) and int(name) < len(value.items)
        )
    if isinstance(value, str):
        return name == "length" or (is_index(name) and int(name) < len(units(value)))
    if isinstance(value, Boxed):
        return has_own(value.primitive, name)
    if isinstance(value, HostObject):
        return name in value.members
    if isinstance(value, Function):
        return name in value.statics
    return isinstance(value, Regex) and name == "lastIndex"


def _text_member(text: str, key: str, meter: Meter) -> object:
    if key == "length":
        return len(text) if text.isascii() else len(units(text))
    method = STRING_METHODS.get(key)
    if method is not None:
        return method
    if is_index(key):
        meter.spend_text(len(text))
        spread = units(text)
        position = int(key)
        return spread[position] if position < len(spread) else UNDEFINED
    return _inherited(key)


def _array_member(items: list[object], key: str) -> object:
    if key == "length":
        return len(items)
    if is_index(key):
        position = int(key)
        return items[position] if position < len(items) else UNDEFINED
    method = ARRAY_METHODS.get(key)
    return method if method is not None else _inherited(key)


def _special_member(value: object, key: str, meter: Meter) -> object:
    if isinstance(value, HostObject):
        member = value.members.get(key, UNDEFINED)
        return member if member is not UNDEFINED else _inherited(key)
    if isinstance(value, Function):
        static = value.statics.get(key, UNDEFINED)
        if static is not UNDEFINED:
            return static
        if key in _DENIED_OF_FUNCTIONS:
            raise RuleDenied(f"'{key}' of functions is out of reach")
        return _inherited(key)
    if isinstance(value, Boxed):
        return get_member(value.primitive, key, meter)
    if isinstance(value, Match):
        if key == "index":
            return value.index
        if key == "input":
            return value.input
        return value.groups if key == "groups" else _array_member(value.items, key)
    assert isinstance(value, Regex)
    if key == "source":
        return value.source
    if key == "flags":
        return value.flags
    if key == "lastIndex":
        return value.last_index
    flag = _REGEX_FLAGS.get(key)
    if flag is not None:
        return flag in value.flags
    method = _REGEX_METHODS.get(key)
    return method if method is not None else _inherited(key)


def _inherited(key: str) -> object:
    method = _OBJECT_METHODS.get(key)
    if method is not None:
        return method
    if key in _DENIED:
        raise RuleDenied(f"'{key}' is out of reach")
    return UNDEFINED


def _has_own_property(meter: Meter, this: object, arguments: list[object]) -> object:
    if this is None or this is UNDEFINED:
        raise RuleThrow("Cannot convert undefined or null to object")
    return has_own(this, to_key(arguments[0], meter))


def _is_enumerable(meter: Meter, this: object, arguments: list[object]) -> object:
    name = to_key(arguments[0], meter)
    return has_own(this, name) and name in keys_of(this)


def _object_text(meter: Meter, this: object, arguments: list[object]) -> object:
    primitive = to_primitive(this, False, meter)
    return primitive if isinstance(primitive, str) else to_string(primitive, meter)


def _itself(meter: Meter, this: object, arguments: list[object]) -> object:
    return this


def _false(meter: Meter, this: object, arguments: list[object]) -> object:
    return False


_OBJECT_METHODS: Final[dict[str, Function]] = {
    "hasOwnProperty": Function("hasOwnProperty", 1, _has_own_property),
    "isPrototypeOf": Function("isPrototypeOf", 1, _false),
    "propertyIsEnumerable": Function("propertyIsEnumerable", 1, _is_enumerable),
    "toLocaleString": Function("toLocaleString", 0, _object_text),
    "toString": Function("toString", 0, _object_text),
    "valueOf": Function("valueOf", 0, _itself),
}


def _regex_of(this: object) -> Regex:
    if not isinstance(this, Regex):
        raise RuleThrow("Receiver is not a RegExp")
    return this


def _test(meter: Meter, this: object, arguments: list[object]) -> object:
    text = units(to_string(arguments[0], meter))
    meter.spend_text(len(text))
    return regex_exec(_regex_of(this), text, meter) is not None


def _exec(meter: Meter, this: object, arguments: list[object]) -> object:
    regex = _regex_of(this)
    text = units(joined(to_string(arguments[0], meter)))
    meter.spend_text(len(text))
    found = regex_exec(regex, text, meter)
    return None if found is None else match_object(regex, text, found)


_REGEX_METHODS: Final[dict[str, Function]] = {
    "exec": Function("exec", 1, _exec),
    "test": Function("test", 1, _test),
    "toString": Function("toString", 0, _object_text),
}
_REGEX_FLAGS: Final = {
    "dotAll": "s",
    "global": "g",
    "ignoreCase": "i",
    "multiline": "m",
    "sticky": "y",
    "unicode": "u",
}
