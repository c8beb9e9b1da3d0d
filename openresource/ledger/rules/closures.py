"""The closures that expressions become; each function here holds what its closure needs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from openresource.ledger.rules.arithmetic import (
    bitwise,
    divide,
    invert,
    multiply,
    negate,
    power,
    remainder,
    subtract,
)
from openresource.ledger.rules.environment import Environment
from openresource.ledger.rules.errors import RuleDenied, RuleThrow
from openresource.ledger.rules.globals import GET_VALUE, construct, is_instance, spread
from openresource.ledger.rules.members import get_item, get_member, has_member
from openresource.ledger.rules.meter import Meter
from openresource.ledger.rules.regular import make_regex
from openresource.ledger.rules.syntax import Binary, Literal
from openresource.ledger.rules.values import (
    UNDEFINED,
    Function,
    Undefined,
    add,
    call,
    concatenate,
    is_less,
    keys_of,
    loose_equals,
    strict_equals,
    to_boolean,
    to_key,
    to_number,
    to_string,
    type_of,
)

Closure = Callable[[Environment], object]


class Skipped(Undefined):
    """What an optional chain is after a `?.` that met nothing; turns into undefined at the chain's end."""

    __slots__ = ()


SKIPPED: Final = Skipped()


def constant(value: object) -> Closure:
    """Always the same value."""

    def evaluate(environment: Environment) -> object:
        return value

    return evaluate


def variable(position: int) -> Closure:
    """A variable of the path."""

    def evaluate(environment: Environment) -> object:
        return environment.variables[position]

    return evaluate


def unbound(name: str) -> Closure:
    """A name that nothing is bound to."""

    def evaluate(environment: Environment) -> object:
        raise RuleThrow(f"{name} is not defined")

    return evaluate


def _auth(environment: Environment) -> object:
    return environment.auth_value()


def address(environment: Environment) -> object:
    """auth.addr."""
    return environment.address()


def function_id(environment: Environment) -> object:
    """auth.fid."""
    return environment.function_id()


def _data(environment: Environment) -> object:
    return environment.data


def _new_data(environment: Environment) -> object:
    return environment.new_data


def _time(environment: Environment) -> object:
    return environment.time


def _block_number(environment: Environment) -> object:
    return environment.block_number


def _block_time(environment: Environment) -> object:
    return environment.block_time


def _path(environment: Environment) -> object:
    return environment.path_value()


VARIABLES: Final[dict[str, Closure]] = {
    "auth": _auth,
    "blockNumber": _block_number,
    "blockTime": _block_time,
    "currentTime": _time,
    "data": _data,
    "newData": _new_data,
    "parsedValuePath": _path,
}


def no_call(environment: Environment, this: object, arguments: list[object]) -> object:
    """The body of a class, which cannot be called."""
    raise RuleThrow("Class constructor cannot be invoked without 'new'")


def all_of(items: list[Closure]) -> Closure:
    """&&, of any number of operands."""

    def evaluate(environment: Environment) -> object:
        value: object = True
        for item in items:
            value = item(environment)
            if value is not True and not to_boolean(value):
                return value
        return value

    return evaluate


def any_of(items: list[Closure]) -> Closure:
    """||, of any number of operands."""

    def evaluate(environment: Environment) -> object:
        value: object = False
        for item in items:
            value = item(environment)
            if value is not False and to_boolean(value):
                return value
        return value

    return evaluate


def first_present(items: list[Closure]) -> Closure:
    """??, of any number of operands."""

    def evaluate(environment: Environment) -> object:
        value: object = None
        for item in items:
            value = item(environment)
            if value is not None and value is not UNDEFINED:
                return value
        return value

    return evaluate


def total_of(items: list[Closure]) -> Closure:
    """+, of any number of operands."""
    first = items[0]
    others = items[1:]

    def evaluate(environment: Environment) -> object:
        value = first(environment)
        for other in others:
            more = other(environment)
            if isinstance(value, str) and isinstance(more, str):
                value = concatenate(value, more, environment)
            else:
                value = add(value, more, environment)
        return value

    return evaluate


def last(items: list[Closure]) -> Closure:
    """The comma."""

    def evaluate(environment: Environment) -> object:
        value: object = UNDEFINED
        for item in items:
            value = item(environment)
        return value

    return evaluate


def identity(node: Binary, left: Closure, right: Closure) -> Closure:
    """=== and !==, shorter where one side is a written text or null."""
    is_negated = node.operator == "!=="
    literal = node.right if isinstance(node.right, Literal) else node.left
    other = left if literal is node.right else right
    if isinstance(literal, Literal):
        value = literal.value
        if isinstance(value, str):
            return _differs_from_text(other, value) if is_negated else _is_text(other, value)
        if value is None or value is True or value is False:
            return _is_other_than(other, value) if is_negated else _is_same(other, value)
    return _not_identical(left, right) if is_negated else _identical(left, right)


def _is_text(operand: Closure, text: str) -> Closure:
    def evaluate(environment: Environment) -> object:
        return operand(environment) == text

    return evaluate


def _differs_from_text(operand: Closure, text: str) -> Closure:
    def evaluate(environment: Environment) -> object:
        return operand(environment) != text

    return evaluate


def _is_same(operand: Closure, value: object) -> Closure:
    def evaluate(environment: Environment) -> object:
        return operand(environment) is value

    return evaluate


def _is_other_than(operand: Closure, value: object) -> Closure:
    def evaluate(environment: Environment) -> object:
        return operand(environment) is not value

    return evaluate


def _identical(left: Closure, right: Closure) -> Closure:
    def evaluate(environment: Environment) -> object:
        return strict_equals(left(environment), right(environment))

    return evaluate


def _not_identical(left: Closure, right: Closure) -> Closure:
    def evaluate(environment: Environment) -> object:
        return not strict_equals(left(environment), right(environment))

    return evaluate


def binary_closure(operator: str, left: Closure, right: Closure) -> Closure:
    """Any other operator between two operands."""
    operation = _OPERATIONS.get(operator)
    if operation is None:
        return _bitwise(operator, left, right)

    def evaluate(environment: Environment) -> object:
        return operation(left(environment), right(environment), environment)

    return evaluate


def _bitwise(operator: str, left: Closure, right: Closure) -> Closure:
    def evaluate(environment: Environment) -> object:
        return bitwise(operator, left(environment), right(environment), environment)

    return evaluate


def _equal(one: object, other: object, meter: Meter) -> object:
    return loose_equals(one, other, meter)


def _unequal(one: object, other: object, meter: Meter) -> object:
    return not loose_equals(one, other, meter)


def _less(one: object, other: object, meter: Meter) -> object:
    return is_less(one, other, meter) == 1


def _greater(one: object, other: object, meter: Meter) -> object:
    return is_less(other, one, meter) == 1


def _at_most(one: object, other: object, meter: Meter) -> object:
    return is_less(other, one, meter) == 0


def _at_least(one: object, other: object, meter: Meter) -> object:
    return is_less(one, other, meter) == 0


def _contains(one: object, other: object, meter: Meter) -> object:
    return has_member(other, one, meter)


def _is_instance(one: object, other: object, meter: Meter) -> object:
    return is_instance(one, other)


_OPERATIONS: Final[dict[str, Callable[[object, object, Meter], object]]] = {
    "!=": _unequal,
    "%": remainder,
    "*": multiply,
    "**": power,
    "-": subtract,
    "/": divide,
    "<": _less,
    "<=": _at_most,
    "==": _equal,
    ">": _greater,
    ">=": _at_least,
    "in": _contains,
    "instanceof": _is_instance,
}


def unary_closure(operator: str, operand: Closure) -> Closure:
    """An operator before its operand."""

    def negation(environment: Environment) -> object:
        return not to_boolean(operand(environment))

    def minus(environment: Environment) -> object:
        return negate(operand(environment), environment)

    def plus(environment: Environment) -> object:
        return to_number(operand(environment), environment)

    def inversion(environment: Environment) -> object:
        return invert(operand(environment), environment)

    def kind(environment: Environment) -> object:
        return type_of(operand(environment))

    def nothing(environment: Environment) -> object:
        operand(environment)
        return UNDEFINED

    if operator == "!":
        return negation
    if operator == "-":
        return minus
    if operator == "+":
        return plus
    if operator == "~":
        return inversion
    return kind if operator == "typeof" else nothing


def conditional(test: Closure, yes: Closure, no: Closure) -> Closure:
    """test ? yes : no."""

    def evaluate(environment: Environment) -> object:
        return yes(environment) if to_boolean(test(environment)) else no(environment)

    return evaluate


def template(pieces: list[str], expressions: list[Closure]) -> Closure:
    """A template."""

    def evaluate(environment: Environment) -> object:
        text = pieces[0]
        for position, expression in enumerate(expressions):
            text = concatenate(text, to_string(expression(environment), environment), environment)
            text = concatenate(text, pieces[position + 1], environment)
        return text

    return evaluate


def pattern(source: str, flags: str) -> Closure:
    """A regular expression; one that remembers a position is made anew for each evaluation."""
    shared = make_regex(source, flags)
    if "g" not in flags and "y" not in flags:
        return constant(shared)

    def evaluate(environment: Environment) -> object:
        return make_regex(source, flags)

    return evaluate


def denied(parts: list[Closure], reason: str) -> Closure:
    """Evaluates the parts and then refuses."""

    def evaluate(environment: Environment) -> object:
        for part in parts:
            part(environment)
        raise RuleDenied(reason)

    return evaluate


def list_of(items: list[Closure]) -> Callable[[Environment], list[object]]:
    """The values of a list of expressions."""

    def evaluate(environment: Environment) -> list[object]:
        return [item(environment) for item in items]

    return evaluate


def spread_list(items: list[Closure], spreads: list[bool]) -> Callable[[Environment], list[object]]:
    """The values of a list in which some are spread."""

    def evaluate(environment: Environment) -> list[object]:
        result: list[object] = []
        for position, item in enumerate(items):
            value = item(environment)
            if spreads[position]:
                result.extend(spread(value, environment))
                environment.spend_items(len(result))
            else:
                result.append(value)
        return result

    return evaluate


def array(items: Callable[[Environment], list[object]]) -> Closure:
    """An array."""

    def evaluate(environment: Environment) -> object:
        return items(environment)

    return evaluate


def object_of(keys: list[Closure | None], values: list[Closure]) -> Closure:
    """An object; a value without a key is spread."""

    def evaluate(environment: Environment) -> object:
        result: dict[str, object] = {}
        for position, value in enumerate(values):
            key = keys[position]
            if key is None:
                source = value(environment)
                for name in list(source) if isinstance(source, str) else keys_of(source):
                    environment.spend(1)
                    result[name] = get_member(source, name, environment)
            else:
                name = to_key(key(environment), environment)
                result[name] = value(environment)
        return result

    return evaluate


def member(target: Closure, name: str) -> Closure:
    """A member with a written name."""

    def evaluate(environment: Environment) -> object:
        return get_member(target(environment), name, environment)

    return evaluate


def item(target: Closure, key: Closure) -> Closure:
    """A member with a computed name."""

    def evaluate(environment: Environment) -> object:
        value = target(environment)
        return get_item(value, key(environment), environment)

    return evaluate


def linked_member(target: Closure, name: str, is_optional: bool) -> Closure:
    """A member in an optional chain."""

    def evaluate(environment: Environment) -> object:
        value = target(environment)
        if value is SKIPPED or (is_optional and (value is None or value is UNDEFINED)):
            return SKIPPED
        return get_member(value, name, environment)

    return evaluate


def linked_item(target: Closure, key: Closure, is_optional: bool) -> Closure:
    """A member with a computed name in an optional chain."""

    def evaluate(environment: Environment) -> object:
        value = target(environment)
        if value is SKIPPED or (is_optional and (value is None or value is UNDEFINED)):
            return SKIPPED
        return get_item(value, key(environment), environment)

    return evaluate


def optional(body: Closure) -> Closure:
    """A whole optional chain."""

    def evaluate(environment: Environment) -> object:
        value = body(environment)
        return UNDEFINED if value is SKIPPED else value

    return evaluate


def new_of(callee: Closure, arguments: Callable[[Environment], list[object]]) -> Closure:
    """new."""

    def evaluate(environment: Environment) -> object:
        function = callee(environment)
        return construct(function, arguments(environment), environment)

    return evaluate


def known_call(function: Function, arguments: list[Closure]) -> Closure:
    """A call of a function that is known from the text."""
    body = function.body
    padding: list[object] = [UNDEFINED] * (function.arity - len(arguments))
    if len(arguments) == 1 and not padding:
        only = arguments[0]
        if function is GET_VALUE:

            def read(environment: Environment) -> object:
                return environment.read("values", only(environment))

            return read

        def call_with_one(environment: Environment) -> object:
            return body(environment, UNDEFINED, [only(environment)])

        return call_with_one

    def evaluate(environment: Environment) -> object:
        return body(environment, UNDEFINED, [argument(environment) for argument in arguments] + padding)

    return evaluate


def function_call(
    callee: Closure, is_optional: bool, arguments: Callable[[Environment], list[object]]
) -> Closure:
    """A call of a value."""

    def evaluate(environment: Environment) -> object:
        function = callee(environment)
        if function is SKIPPED or (is_optional and (function is None or function is UNDEFINED)):
            return SKIPPED
        given = arguments(environment)
        if not isinstance(function, Function):
            raise RuleThrow("the value is not a function")
        return call(function, environment, UNDEFINED, given)

    return evaluate


def method_call(
    target: Closure,
    key: Closure,
    is_member_optional: bool,
    is_call_optional: bool,
    arguments: Callable[[Environment], list[object]],
) -> Closure:
    """A call of a member."""

    def evaluate(environment: Environment) -> object:
        this = target(environment)
        if this is SKIPPED or (is_member_optional and (this is None or this is UNDEFINED)):
            return SKIPPED
        function = get_item(this, key(environment), environment)
        if is_call_optional and (function is None or function is UNDEFINED):
            return SKIPPED
        given = arguments(environment)
        if not isinstance(function, Function):
            raise RuleThrow("the member is not a function")
        return call(function, environment, this, given)

    return evaluate
