"""Expressions become closures over an environment; what can be decided once is decided here.

The language has no loops and no functions of its own, so an evaluation visits each part at most once; parts whose cost
depends on data pay the meter.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from openresource.ledger.rule_util_chain import UTIL_MEMBERS
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
from openresource.ledger.rules.errors import RuleDenied, RuleSyntaxError, RuleThrow
from openresource.ledger.rules.globals import GET_VALUE, GLOBALS, construct, is_instance, spread
from openresource.ledger.rules.lexer import is_identifier_name
from openresource.ledger.rules.members import get_item, get_member, has_member
from openresource.ledger.rules.meter import Meter
from openresource.ledger.rules.parser import parse_rule
from openresource.ledger.rules.regular import make_regex
from openresource.ledger.rules.syntax import (
    Binary,
    Call,
    Chain,
    Conditional,
    Denied,
    EmptyClass,
    Entries,
    Items,
    Literal,
    Member,
    Name,
    New,
    Node,
    Optional,
    Pattern,
    Template,
    Unary,
)
from openresource.ledger.rules.values import (
    UNDEFINED,
    Function,
    HostObject,
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


_SKIPPED: Final = Skipped()
_UTIL_OBJECT: Final = HostObject("util", dict(UTIL_MEMBERS))


class CompiledRule:
    """A rule's text, ready to be evaluated."""

    __slots__ = ("closure", "cost", "height", "uses_data")

    def __init__(self, closure: Closure, cost: int, height: int, uses_data: bool) -> None:
        self.closure: Closure = closure
        self.cost: int = cost
        self.height: int = height
        # Whether it looks at data; if not, nobody needs to read it.
        self.uses_data: bool = uses_data

    def holds(self, environment: Environment) -> bool:
        """The rule's answer; a RuleThrow stands for an error."""
        environment.spend(self.cost)
        return to_boolean(self.closure(environment))


def compile_rule(text: str, variables: list[str]) -> CompiledRule:
    """Compiles a rule whose path has these variables; a RuleSyntaxError says that it is none."""
    for variable in variables:
        if not is_identifier_name(variable):
            raise RuleSyntaxError(f"Unexpected token in the variable '{variable}'")
    compiler = _Compiler(variables)
    expression = parse_rule(text)
    closure = compiler.closure(expression)
    return CompiledRule(closure, compiler.cost, expression.height, compiler.uses_data)


class _Compiler:
    __slots__ = ("cost", "uses_data", "variables")

    def __init__(self, variables: list[str]) -> None:
        self.variables: list[str] = variables
        self.cost: int = 0
        self.uses_data: bool = False

    def closure(self, node: Node) -> Closure:
        """The closure of any node."""
        self.cost += 1
        if isinstance(node, Chain):
            return self._chain(node)
        if isinstance(node, Binary):
            return self._binary(node)
        if isinstance(node, Member):
            return self._member(node, False)
        if isinstance(node, Literal):
            return _constant(node.value)
        if isinstance(node, Name):
            return self._name(node.name)
        if isinstance(node, Call):
            return self._call(node, False)
        if isinstance(node, Unary):
            return self._unary(node)
        if isinstance(node, Conditional):
            return _conditional(self.closure(node.test), self.closure(node.yes), self.closure(node.no))
        if isinstance(node, Template):
            return _template(node.pieces, self._all(node.expressions))
        if isinstance(node, Items):
            return _array(self._list(node))
        if isinstance(node, Entries):
            return self._object(node)
        return self._rare(node)

    def _rare(self, node: Node) -> Closure:
        if isinstance(node, Optional):
            return _optional(self._linked(node.body))
        if isinstance(node, Pattern):
            return _pattern(node.source, node.flags)
        if isinstance(node, New):
            return _new(self.closure(node.callee), self._list(node.arguments))
        if isinstance(node, EmptyClass):
            return _constant(Function("", 0, _no_call))
        assert isinstance(node, Denied)
        return _denied(self._all(node.parts), node.reason)

    def _all(self, nodes: list[Node]) -> list[Closure]:
        return [self.closure(node) for node in nodes]

    # Variables

    def _name(self, name: str) -> Closure:
        if name in self.variables:
            return _variable(self.variables.index(name))
        if name == "data":
            self.uses_data = True
        known = _VARIABLES.get(name)
        if known is not None:
            return known
        if name == "util":
            return _constant(_UTIL_OBJECT)
        if name in GLOBALS:
            return _constant(GLOBALS[name])
        return _unbound(name)

    def _is_bound(self, name: str) -> bool:
        return name in self.variables or name in _VARIABLES or name == "util" or name in GLOBALS

    # Operators

    def _chain(self, node: Chain) -> Closure:
        items = self._all(node.items)
        operator = node.operator
        if operator == "&&":
            return _all_of(items)
        if operator == "||":
            return _any_of(items)
        if operator == "??":
            return _first_present(items)
        if operator == "+":
            return _sum(items)
        return _last(items)

    def _binary(self, node: Binary) -> Closure:
        left = self.closure(node.left)
        right = self.closure(node.right)
        operator = node.operator
        if operator == "===" or operator == "!==":
            return _identity(node, left, right)
        return _binary_closure(operator, left, right)

    def _unary(self, node: Unary) -> Closure:
        operator = node.operator
        operand = node.operand
        if operator == "typeof" and isinstance(operand, Name) and not self._is_bound(operand.name):
            return _constant("undefined")
        return _unary_closure(operator, self.closure(operand))

    # Members and calls

    def _member(self, node: Member, is_linked: bool) -> Closure:
        target = node.target
        key = node.key
        if isinstance(target, Name) and isinstance(key, Literal):
            if target.name == "auth" and not node.is_optional:
                if key.value == "addr":
                    return _address
                if key.value == "fid":
                    return _function_id
            if target.name == "util" and isinstance(key.value, str):
                member = UTIL_MEMBERS.get(key.value)
                if member is not None:
                    return _constant(member)
        object_closure = self._linked(target) if is_linked else self.closure(target)
        if isinstance(key, Literal):
            name = to_key(key.value, Meter(1))
            return (
                _linked_member(object_closure, name, node.is_optional)
                if is_linked
                else _member(object_closure, name)
            )
        key_closure = self.closure(key)
        if is_linked:
            return _linked_item(object_closure, key_closure, node.is_optional)
        return _item(object_closure, key_closure)

    def _linked(self, node: Node) -> Closure:
        """A part of an optional chain: passes on that the chain was skipped."""
        if isinstance(node, Member) and not node.is_grouped:
            return self._member(node, True)
        if isinstance(node, Call) and not node.is_grouped:
            return self._call(node, True)
        return self.closure(node)

    def _list(self, node: Items) -> Callable[[Environment], list[object]]:
        items = self._all(node.items)
        if True in node.spreads:
            return _spread_list(items, node.spreads)
        return _list_of(items)

    def _call(self, node: Call, is_linked: bool) -> Closure:
        callee = node.callee
        arguments = node.arguments
        is_simple = True not in arguments.spreads
        if is_simple and not is_linked:
            known = self._known_function(callee)
            if known is not None:
                return _known_call(known, self._all(arguments.items))
        argument_list = self._list(arguments)
        if isinstance(callee, Member):
            target = self._linked(callee.target) if is_linked else self.closure(callee.target)
            key = self.closure(callee.key)
            return _method_call(target, key, callee.is_optional, node.is_optional, argument_list)
        function = self._linked(callee) if is_linked else self.closure(callee)
        return _function_call(function, node.is_optional, argument_list)

    def _known_function(self, callee: Node) -> Function | None:
        """The function that is called, if that is known from the text."""
        if isinstance(callee, Name):
            found = GLOBALS.get(callee.name)
            return found if isinstance(found, Function) else None
        if isinstance(callee, Member) and not callee.is_optional:
            target = callee.target
            key = callee.key
            if isinstance(target, Name) and isinstance(key, Literal) and target.name == "util":
                return UTIL_MEMBERS.get(key.value) if isinstance(key.value, str) else None
        return None

    def _object(self, node: Entries) -> Closure:
        keys: list[Closure | None] = []
        for key in node.keys:
            if isinstance(key, Literal) and key.value == "__proto__":
                return _denied([], "'__proto__' is out of reach")
            keys.append(None if key is None else self.closure(key))
        return _object(keys, self._all(node.values))


# Closures. Each function below holds what its closure needs.


def _constant(value: object) -> Closure:
    def constant(environment: Environment) -> object:
        return value

    return constant


def _variable(position: int) -> Closure:
    def variable(environment: Environment) -> object:
        return environment.variables[position]

    return variable


def _unbound(name: str) -> Closure:
    def unbound(environment: Environment) -> object:
        raise RuleThrow(f"{name} is not defined")

    return unbound


def _auth(environment: Environment) -> object:
    return environment.auth_value()


def _address(environment: Environment) -> object:
    return environment.address()


def _function_id(environment: Environment) -> object:
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


_VARIABLES: Final[dict[str, Closure]] = {
    "auth": _auth,
    "blockNumber": _block_number,
    "blockTime": _block_time,
    "currentTime": _time,
    "data": _data,
    "newData": _new_data,
    "parsedValuePath": _path,
}


def _no_call(environment: Environment, this: object, arguments: list[object]) -> object:
    raise RuleThrow("Class constructor cannot be invoked without 'new'")


def _all_of(items: list[Closure]) -> Closure:
    def all_of(environment: Environment) -> object:
        value: object = True
        for item in items:
            value = item(environment)
            if value is not True and not to_boolean(value):
                return value
        return value

    return all_of


def _any_of(items: list[Closure]) -> Closure:
    def any_of(environment: Environment) -> object:
        value: object = False
        for item in items:
            value = item(environment)
            if value is not False and to_boolean(value):
                return value
        return value

    return any_of


def _first_present(items: list[Closure]) -> Closure:
    def first_present(environment: Environment) -> object:
        value: object = None
        for item in items:
            value = item(environment)
            if value is not None and value is not UNDEFINED:
                return value
        return value

    return first_present


def _sum(items: list[Closure]) -> Closure:
    first = items[0]
    others = items[1:]

    def total(environment: Environment) -> object:
        value = first(environment)
        for other in others:
            more = other(environment)
            if isinstance(value, str) and isinstance(more, str):
                value = concatenate(value, more, environment)
            else:
                value = add(value, more, environment)
        return value

    return total


def _last(items: list[Closure]) -> Closure:
    def last(environment: Environment) -> object:
        value: object = UNDEFINED
        for item in items:
            value = item(environment)
        return value

    return last


def _identity(node: Binary, left: Closure, right: Closure) -> Closure:
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
    def is_text(environment: Environment) -> object:
        return operand(environment) == text

    return is_text


def _differs_from_text(operand: Closure, text: str) -> Closure:
    def differs_from_text(environment: Environment) -> object:
        return operand(environment) != text

    return differs_from_text


def _is_same(operand: Closure, value: object) -> Closure:
    def is_same(environment: Environment) -> object:
        return operand(environment) is value

    return is_same


def _is_other_than(operand: Closure, value: object) -> Closure:
    def is_other_than(environment: Environment) -> object:
        return operand(environment) is not value

    return is_other_than


def _identical(left: Closure, right: Closure) -> Closure:
    def identical(environment: Environment) -> object:
        return strict_equals(left(environment), right(environment))

    return identical


def _not_identical(left: Closure, right: Closure) -> Closure:
    def not_identical(environment: Environment) -> object:
        return not strict_equals(left(environment), right(environment))

    return not_identical


def _binary_closure(operator: str, left: Closure, right: Closure) -> Closure:
    operation = _OPERATIONS.get(operator)
    if operation is None:
        return _bitwise(operator, left, right)

    def binary(environment: Environment) -> object:
        return operation(left(environment), right(environment), environment)

    return binary


def _bitwise(operator: str, left: Closure, right: Closure) -> Closure:
    def bits(environment: Environment) -> object:
        return bitwise(operator, left(environment), right(environment), environment)

    return bits


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


def _unary_closure(operator: str, operand: Closure) -> Closure:
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


def _conditional(test: Closure, yes: Closure, no: Closure) -> Closure:
    def conditional(environment: Environment) -> object:
        return yes(environment) if to_boolean(test(environment)) else no(environment)

    return conditional


def _template(pieces: list[str], expressions: list[Closure]) -> Closure:
    def template(environment: Environment) -> object:
        text = pieces[0]
        for position, expression in enumerate(expressions):
            text = concatenate(text, to_string(expression(environment), environment), environment)
            text = concatenate(text, pieces[position + 1], environment)
        return text

    return template


def _pattern(source: str, flags: str) -> Closure:
    program = make_regex(source, flags)

    def pattern(environment: Environment) -> object:
        return make_regex(source, flags) if program.last_index else program

    # A regular expression without state may be shared; the others are made anew for each evaluation.
    def fresh(environment: Environment) -> object:
        return make_regex(source, flags)

    return fresh if "g" in flags or "y" in flags else pattern


def _denied(parts: list[Closure], reason: str) -> Closure:
    def denied(environment: Environment) -> object:
        for part in parts:
            part(environment)
        raise RuleDenied(reason)

    return denied


def _list_of(items: list[Closure]) -> Callable[[Environment], list[object]]:
    def list_of(environment: Environment) -> list[object]:
        return [item(environment) for item in items]

    return list_of


def _spread_list(items: list[Closure], spreads: list[bool]) -> Callable[[Environment], list[object]]:
    def spread_list(environment: Environment) -> list[object]:
        result: list[object] = []
        for position, item in enumerate(items):
            value = item(environment)
            if spreads[position]:
                result.extend(spread(value, environment))
                environment.spend_items(len(result))
            else:
                result.append(value)
        return result

    return spread_list


def _array(items: Callable[[Environment], list[object]]) -> Closure:
    def array(environment: Environment) -> object:
        return items(environment)

    return array


def _object(keys: list[Closure | None], values: list[Closure]) -> Closure:
    def made(environment: Environment) -> object:
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

    return made


def _member(target: Closure, name: str) -> Closure:
    def member(environment: Environment) -> object:
        return get_member(target(environment), name, environment)

    return member


def _item(target: Closure, key: Closure) -> Closure:
    def item(environment: Environment) -> object:
        value = target(environment)
        return get_item(value, key(environment), environment)

    return item


def _linked_member(target: Closure, name: str, is_optional: bool) -> Closure:
    def member(environment: Environment) -> object:
        value = target(environment)
        if value is _SKIPPED or (is_optional and (value is None or value is UNDEFINED)):
            return _SKIPPED
        return get_member(value, name, environment)

    return member


def _linked_item(target: Closure, key: Closure, is_optional: bool) -> Closure:
    def item(environment: Environment) -> object:
        value = target(environment)
        if value is _SKIPPED or (is_optional and (value is None or value is UNDEFINED)):
            return _SKIPPED
        return get_item(value, key(environment), environment)

    return item


def _optional(body: Closure) -> Closure:
    def optional(environment: Environment) -> object:
        value = body(environment)
        return UNDEFINED if value is _SKIPPED else value

    return optional


def _new(callee: Closure, arguments: Callable[[Environment], list[object]]) -> Closure:
    def new(environment: Environment) -> object:
        function = callee(environment)
        return construct(function, arguments(environment), environment)

    return new


def _known_call(function: Function, arguments: list[Closure]) -> Closure:
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

    def call_known(environment: Environment) -> object:
        return body(environment, UNDEFINED, [argument(environment) for argument in arguments] + padding)

    return call_known


def _function_call(
    callee: Closure, is_optional: bool, arguments: Callable[[Environment], list[object]]
) -> Closure:
    def function_call(environment: Environment) -> object:
        function = callee(environment)
        if function is _SKIPPED or (is_optional and (function is None or function is UNDEFINED)):
            return _SKIPPED
        given = arguments(environment)
        if not isinstance(function, Function):
            raise RuleThrow("the value is not a function")
        return call(function, environment, UNDEFINED, given)

    return function_call


def _method_call(
    target: Closure,
    key: Closure,
    is_member_optional: bool,
    is_call_optional: bool,
    arguments: Callable[[Environment], list[object]],
) -> Closure:
    def method_call(environment: Environment) -> object:
        this = target(environment)
        if this is _SKIPPED or (is_member_optional and (this is None or this is UNDEFINED)):
            return _SKIPPED
        function = get_item(this, key(environment), environment)
        if is_call_optional and (function is None or function is UNDEFINED):
            return _SKIPPED
        given = arguments(environment)
        if not isinstance(function, Function):
            raise RuleThrow("the member is not a function")
        return call(function, environment, this, given)

    return method_call
