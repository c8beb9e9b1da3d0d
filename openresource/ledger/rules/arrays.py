"""What arrays can do: the standard members of JavaScript's arrays. Every array belongs to one evaluation."""

from __future__ import annotations

import functools
import math
from typing import Final

from openresource.ledger.rules.errors import RuleExhausted, RuleThrow
from openresource.ledger.rules.meter import Meter
from openresource.ledger.rules.text import is_before
from openresource.ledger.rules.values import (
    NESTING_MAX,
    UNDEFINED,
    Function,
    array_items,
    call,
    join,
    same_value_zero,
    strict_equals,
    to_boolean,
    to_integer,
    to_number,
    to_string,
)


def _items(this: object, meter: Meter) -> list[object]:
    items = array_items(this)
    if items is None:
        raise RuleThrow("Array.prototype method called on something that is no array")
    meter.spend_items(len(items))
    return items


def _callback(value: object) -> Function:
    if not isinstance(value, Function):
        raise RuleThrow("the argument is not a function")
    return value


def _relative(value: object, length: int, default: int, meter: Meter) -> int:
    if value is UNDEFINED:
        return default
    number = to_integer(value, meter)
    return int(max(length + number, 0)) if number < 0 else int(min(number, length))


def _at(meter: Meter, this: object, arguments: list[object]) -> object:
    items = _items(this, meter)
    at = to_integer(arguments[0], meter)
    at = at + len(items) if at < 0 else at
    return items[int(at)] if 0 <= at < len(items) else UNDEFINED


def _concat(meter: Meter, this: object, arguments: list[object]) -> object:
    result = list(_items(this, meter))
    for argument in arguments:
        more = array_items(argument)
        if more is not None:
            meter.spend_items(len(result) + len(more))
            result.extend(more)
        else:
            result.append(argument)
    return result


def _every(meter: Meter, this: object, arguments: list[object]) -> object:
    items = _items(this, meter)
    function = _callback(arguments[0])
    for position, item in enumerate(list(items)):
        if not to_boolean(call(function, meter, arguments[1], [item, position, items])):
            return False
    return True


def _some(meter: Meter, this: object, arguments: list[object]) -> object:
    items = _items(this, meter)
    function = _callback(arguments[0])
    for position, item in enumerate(list(items)):
        if to_boolean(call(function, meter, arguments[1], [item, position, items])):
            return True
    return False


def _filter(meter: Meter, this: object, arguments: list[object]) -> object:
    items = _items(this, meter)
    function = _callback(arguments[0])
    result: list[object] = []
    for position, item in enumerate(list(items)):
        if to_boolean(call(function, meter, arguments[1], [item, position, items])):
            result.append(item)
    return result


def _found_index(meter: Meter, this: object, arguments: list[object]) -> int:
    items = _items(this, meter)
    function = _callback(arguments[0])
    for position, item in enumerate(list(items)):
        if to_boolean(call(function, meter, arguments[1], [item, position, items])):
            return position
    return -1


def _find(meter: Meter, this: object, arguments: list[object]) -> object:
    position = _found_index(meter, this, arguments)
    items = _items(this, meter)
    return items[position] if 0 <= position < len(items) else UNDEFINED


def _find_index(meter: Meter, this: object, arguments: list[object]) -> object:
    return _found_index(meter, this, arguments)


def _map(meter: Meter, this: object, arguments: list[object]) -> object:
    items = _items(this, meter)
    function = _callback(arguments[0])
    result: list[object] = []
    for position, item in enumerate(list(items)):
        result.append(call(function, meter, arguments[1], [item, position, items]))
    return result


def _flat_map(meter: Meter, this: object, arguments: list[object]) -> object:
    mapped = _map(meter, this, arguments)
    assert isinstance(mapped, list)
    return _flattened(mapped, 1, meter)


def _for_each(meter: Meter, this: object, arguments: list[object]) -> object:
    _map(meter, this, arguments)
    return UNDEFINED


def _flat(meter: Meter, this: object, arguments: list[object]) -> object:
    depth = 1 if arguments[0] is UNDEFINED else to_integer(arguments[0], meter)
    return _flattened(_items(this, meter), depth, meter)


def _flattened(items: list[object], depth: float | int, meter: Meter, level: int = 0) -> list[object]:
    if level > NESTING_MAX:
        raise RuleExhausted("the value is nested too deep")
    result: list[object] = []
    for item in items:
        inner = array_items(item)
        if inner is not None and depth >= 1:
            result.extend(_flattened(inner, depth - 1, meter, level + 1))
        else:
            result.append(item)
            meter.spend(1)
    return result


def _includes(meter: Meter, this: object, arguments: list[object]) -> object:
    items = _items(this, meter)
    start = _relative(arguments[1], len(items), 0, meter)
    return any(same_value_zero(item, arguments[0]) for item in items[start:])


def _index_of(meter: Meter, this: object, arguments: list[object]) -> object:
    items = _items(this, meter)
    for position in range(_relative(arguments[1], len(items), 0, meter), len(items)):
        if strict_equals(items[position], arguments[0]):
            return position
    return -1


def _last_index_of(meter: Meter, this: object, arguments: list[object]) -> object:
    items = _items(this, meter)
    end: float | int = len(items) - 1
    if len(arguments) > 1:
        start = to_integer(arguments[1], meter)
        end = min(start, len(items) - 1) if start >= 0 else len(items) + start
    position = int(end) if not math.isinf(end) else -1
    while position >= 0:
        if strict_equals(items[position], arguments[0]):
            return position
        position -= 1
    return -1


def _join(meter: Meter, this: object, arguments: list[object]) -> object:
    return join(
        _items(this, meter), "," if arguments[0] is UNDEFINED else to_string(arguments[0], meter), meter
    )


def _to_string(meter: Meter, this: object, arguments: list[object]) -> object:
    return join(_items(this, meter), ",", meter)


def _pop(meter: Meter, this: object, arguments: list[object]) -> object:
    items = _items(this, meter)
    return items.pop() if items else UNDEFINED


def _push(meter: Meter, this: object, arguments: list[object]) -> object:
    items = _items(this, meter)
    items.extend(arguments)
    return len(items)


def _shift(meter: Meter, this: object, arguments: list[object]) -> object:
    items = _items(this, meter)
    return items.pop(0) if items else UNDEFINED


def _unshift(meter: Meter, this: object, arguments: list[object]) -> object:
    items = _items(this, meter)
    items[:0] = arguments
    return len(items)


def _reverse(meter: Meter, this: object, arguments: list[object]) -> object:
    items = _items(this, meter)
    items.reverse()
    return items


def _fill(meter: Meter, this: object, arguments: list[object]) -> object:
    items = _items(this, meter)
    start = _relative(arguments[1], len(items), 0, meter)
    for position in range(start, _relative(arguments[2], len(items), len(items), meter)):
        items[position] = arguments[0]
    return items


def _slice(meter: Meter, this: object, arguments: list[object]) -> object:
    items = _items(this, meter)
    start = _relative(arguments[0], len(items), 0, meter)
    return items[start : _relative(arguments[1], len(items), len(items), meter)]


def _splice(meter: Meter, this: object, arguments: list[object]) -> object:
    items = _items(this, meter)
    start = _relative(arguments[0], len(items), 0, meter) if arguments else 0
    count = 0
    if len(arguments) == 1:
        count = len(items) - start
    elif len(arguments) > 1:
        count = int(min(max(to_integer(arguments[1], meter), 0), len(items) - start))
    removed = items[start : start + count]
    items[start : start + count] = arguments[2:]
    return removed


def _reduce(meter: Meter, this: object, arguments: list[object]) -> object:
    return _reduced(meter, this, arguments, False)


def _reduce_right(meter: Meter, this: object, arguments: list[object]) -> object:
    return _reduced(meter, this, arguments, True)


def _reduced(meter: Meter, this: object, arguments: list[object], is_backwards: bool) -> object:
    items = _items(this, meter)
    function = _callback(arguments[0])
    positions = list(range(len(items)))
    if is_backwards:
        positions.reverse()
    if len(arguments) > 1:
        result = arguments[1]
    elif positions:
        result = items[positions.pop(0)]
    else:
        raise RuleThrow("Reduce of empty array with no initial value")
    for position in positions:
        if position < len(items):
            result = call(function, meter, UNDEFINED, [result, items[position], position, items])
    return result


def _sort(meter: Meter, this: object, arguments: list[object]) -> object:
    items = _items(this, meter)
    function = arguments[0]
    if function is not UNDEFINED and not isinstance(function, Function):
        raise RuleThrow("The comparison function must be either a function or undefined")

    def compare(one: object, other: object) -> int:
        meter.spend(1)
        if isinstance(function, Function):
            order = to_number(call(function, meter, UNDEFINED, [one, other]), meter)
            return -1 if order < 0 else (1 if order > 0 else 0)
        left = to_string(one, meter)
        right = to_string(other, meter)
        return 0 if left == right else (-1 if is_before(left, right) else 1)

    present = [item for item in items if item is not UNDEFINED]
    missing = len(items) - len(present)
    present.sort(key=functools.cmp_to_key(compare))
    items[:] = present + [UNDEFINED] * missing
    return items


ARRAY_METHODS: Final[dict[str, Function]] = {
    function.name: function
    for function in (
        Function("at", 1, _at),
        Function("concat", 0, _concat),
        Function("every", 2, _every),
        Function("fill", 3, _fill),
        Function("filter", 2, _filter),
        Function("find", 2, _find),
        Function("findIndex", 2, _find_index),
        Function("flat", 1, _flat),
        Function("flatMap", 2, _flat_map),
        Function("forEach", 2, _for_each),
        Function("includes", 2, _includes),
        Function("indexOf", 2, _index_of),
        Function("join", 1, _join),
        Function("lastIndexOf", 1, _last_index_of),
        Function("map", 2, _map),
        Function("pop", 0, _pop),
        Function("push", 0, _push),
        Function("reduce", 1, _reduce),
        Function("reduceRight", 1, _reduce_right),
        Function("reverse", 0, _reverse),
        Function("shift", 0, _shift),
        Function("slice", 2, _slice),
        Function("some", 2, _some),
        Function("sort", 1, _sort),
        Function("splice", 0, _splice),
        Function("toString", 0, _to_string),
        Function("unshift", 0, _unshift),
    )
}
