"""The names that a rule can use besides its own variables."""

from __future__ import annotations

import math
from typing import Final

from openresource.ledger.rules.environment import Environment
from openresource.ledger.rules.errors import RuleThrow
from openresource.ledger.rules.meter import Meter
from openresource.ledger.rules.numerals import number_prefix
from openresource.ledger.rules.text import joined
from openresource.ledger.rules.values import (
    NAN,
    UNDEFINED,
    BigInteger,
    Boxed,
    Function,
    array_items,
    is_number,
    to_boolean,
    to_number,
    to_numeric,
    to_string,
    to_uint32,
)
from openresource.primitives.limits import SAFE_INTEGER_MAX
from openresource.primitives.numbers import is_integer, to_double


def _get_value(environment: Environment, this: object, arguments: list[object]) -> object:
    return environment.read("values", arguments[0])


def _get_rule(environment: Environment, this: object, arguments: list[object]) -> object:
    return environment.read("rules", arguments[0])


def _get_function(environment: Environment, this: object, arguments: list[object]) -> object:
    return environment.read("functions", arguments[0])


def _get_owner(environment: Environment, this: object, arguments: list[object]) -> object:
    return environment.read("owners", arguments[0])


def _eval_rule(environment: Environment, this: object, arguments: list[object]) -> object:
    return environment.evaluate_rule(arguments)


def _eval_owner(environment: Environment, this: object, arguments: list[object]) -> object:
    return environment.evaluate_owner(arguments)


def _number(meter: Meter, this: object, arguments: list[object]) -> object:
    if not arguments:
        return 0
    value = to_numeric(arguments[0], meter)
    return to_double(value.number) if isinstance(value, BigInteger) else value


def _string(meter: Meter, this: object, arguments: list[object]) -> object:
    return to_string(arguments[0], meter) if arguments else ""


def _boolean(meter: Meter, this: object, arguments: list[object]) -> object:
    return to_boolean(arguments[0]) if arguments else False


def _is_integer(meter: Meter, this: object, arguments: list[object]) -> object:
    return is_integer(arguments[0])


def _is_safe_integer(meter: Meter, this: object, arguments: list[object]) -> object:
    value = arguments[0]
    return isinstance(value, (int, float)) and is_integer(value) and abs(value) <= SAFE_INTEGER_MAX


def _is_finite(meter: Meter, this: object, arguments: list[object]) -> object:
    value = arguments[0]
    return isinstance(value, (int, float)) and is_number(value) and math.isfinite(value)


def _is_nan(meter: Meter, this: object, arguments: list[object]) -> object:
    value = arguments[0]
    return isinstance(value, float) and value != value


def _parse_float(meter: Meter, this: object, arguments: list[object]) -> object:
    return number_prefix(to_string(arguments[0], meter))


def _parse_int(meter: Meter, this: object, arguments: list[object]) -> object:
    text = to_string(arguments[0], meter).strip("\t\n\v\f\r \xa0\ufeff\u2028\u2029")
    sign = -1 if text.startswith("-") else 1
    if text[:1] in ("-", "+"):
        text = text[1:]
    radix = to_uint32(arguments[1], meter)
    if radix in (0, 16) and text[:2] in ("0x", "0X"):
        text = text[2:]
        radix = 16
    radix = radix or 10
    if not 2 <= radix <= 36:
        return NAN
    meter.spend_text(len(text))
    value = 0
    count = 0
    for character in text[:1_200]:
        digit = int(character, 36) if character.isascii() and character.isalnum() else 36
        if digit >= radix:
            break
        value = value * radix + digit
        count += 1
    if count == 0:
        return NAN
    return -0.0 if value == 0 and sign < 0 else to_double(sign * value)


def _from_char_code(meter: Meter, this: object, arguments: list[object]) -> object:
    return joined("".join([chr(to_uint32(argument, meter) & 0xFFFF) for argument in arguments]))


def _from_code_point(meter: Meter, this: object, arguments: list[object]) -> object:
    parts: list[str] = []
    for argument in arguments:
        number = to_number(argument, meter)
        if not is_integer(number) or not 0 <= number <= 0x10FFFF:
            raise RuleThrow("Invalid code point")
        parts.append(chr(int(number)))
    return joined("".join(parts))


def _with_statics(function: Function, statics: dict[str, object]) -> Function:
    function.statics.update(statics)
    return function


GET_VALUE: Final = Function("getValue", 1, _get_value)
NUMBER: Final = _with_statics(
    Function("Number", 0, _number),
    {
        "EPSILON": 2.0**-52,
        "MAX_SAFE_INTEGER": SAFE_INTEGER_MAX,
        "MAX_VALUE": 1.7976931348623157e308,
        "MIN_SAFE_INTEGER": -SAFE_INTEGER_MAX,
        "MIN_VALUE": 5e-324,
        "NEGATIVE_INFINITY": -math.inf,
        "NaN": NAN,
        "POSITIVE_INFINITY": math.inf,
        "isFinite": Function("isFinite", 1, _is_finite),
        "isInteger": Function("isInteger", 1, _is_integer),
        "isNaN": Function("isNaN", 1, _is_nan),
        "isSafeInteger": Function("isSafeInteger", 1, _is_safe_integer),
        "parseFloat": Function("parseFloat", 1, _parse_float),
        "parseInt": Function("parseInt", 2, _parse_int),
    },
)
STRING: Final = _with_statics(
    Function("String", 0, _string),
    {
        "fromCharCode": Function("fromCharCode", 0, _from_char_code),
        "fromCodePoint": Function("fromCodePoint", 0, _from_code_point),
    },
)
BOOLEAN: Final = Function("Boolean", 0, _boolean)

GLOBALS: Final[dict[str, object]] = {
    "Boolean": BOOLEAN,
    "Infinity": math.inf,
    "NaN": NAN,
    "Number": NUMBER,
    "String": STRING,
    "evalOwner": Function("evalOwner", 4, _eval_owner),
    "evalRule": Function("evalRule", 4, _eval_rule),
    "getFunction": Function("getFunction", 1, _get_function),
    "getOwner": Function("getOwner", 1, _get_owner),
    "getRule": Function("getRule", 1, _get_rule),
    "getValue": GET_VALUE,
    "undefined": UNDEFINED,
}


def construct(callee: object, arguments: list[object], meter: Meter) -> object:
    """new callee(…): only the three boxes of primitives can be made."""
    if callee is NUMBER:
        return Boxed(_number(meter, UNDEFINED, arguments))
    if callee is STRING:
        return Boxed(_string(meter, UNDEFINED, arguments))
    if callee is BOOLEAN:
        return Boxed(_boolean(meter, UNDEFINED, arguments))
    raise RuleThrow("the value is not a constructor")


def is_instance(value: object, of: object) -> bool:
    """The operator instanceof."""
    if of is NUMBER or of is STRING or of is BOOLEAN:
        if not isinstance(value, Boxed):
            return False
        inner = value.primitive
        if of is STRING:
            return isinstance(inner, str)
        return isinstance(inner, bool) if of is BOOLEAN else is_number(inner)
    raise RuleThrow("Right-hand side of 'instanceof' is not callable")


def spread(value: object, meter: Meter) -> list[object]:
    """The items of an iterable: an array's, or the characters of a text."""
    items = array_items(value)
    if items is not None:
        meter.spend_items(len(items))
        return items
    text = value.primitive if isinstance(value, Boxed) else value
    if isinstance(text, str):
        meter.spend_items(len(text))
        return list(text)
    raise RuleThrow("the value is not iterable")
