"""Expressions become closures over an environment; what can be decided once is decided here.

The language has no loops and no functions of its own, so an evaluation visits each part at most once; parts whose cost
depends on data pay the meter.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from openresource.ledger.rule_util_chain import UTIL_MEMBERS
from openresource.ledger.rules import closures
from openresource.ledger.rules.closures import Closure
from openresource.ledger.rules.environment import Environment
from openresource.ledger.rules.errors import RuleSyntaxError
from openresource.ledger.rules.globals import GLOBALS
from openresource.ledger.rules.lexer import is_identifier_name
from openresource.ledger.rules.meter import Meter
from openresource.ledger.rules.parser import parse_rule
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
from openresource.ledger.rules.values import Function, HostObject, to_boolean, to_key

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
            return closures.constant(node.value)
        if isinstance(node, Name):
            return self._name(node.name)
        if isinstance(node, Call):
            return self._call(node, False)
        if isinstance(node, Unary):
            return self._unary(node)
        if isinstance(node, Conditional):
            return closures.conditional(
                self.closure(node.test), self.closure(node.yes), self.closure(node.no)
            )
        if isinstance(node, Template):
            return closures.template(node.pieces, self._all(node.expressions))
        if isinstance(node, Items):
            return closures.array(self._list(node))
        if isinstance(node, Entries):
            return self._object(node)
        return self._rare(node)

    def _rare(self, node: Node) -> Closure:
        if isinstance(node, Optional):
            return closures.optional(self._linked(node.body))
        if isinstance(node, Pattern):
            return closures.pattern(node.source, node.flags)
        if isinstance(node, New):
            return closures.new_of(self.closure(node.callee), self._list(node.arguments))
        if isinstance(node, EmptyClass):
            return closures.constant(Function("", 0, closures.no_call))
        assert isinstance(node, Denied)
        return closures.denied(self._all(node.parts), node.reason)

    def _all(self, nodes: list[Node]) -> list[Closure]:
        return [self.closure(node) for node in nodes]

    # Variables

    def _name(self, name: str) -> Closure:
        if name in self.variables:
            return closures.variable(self.variables.index(name))
        if name == "data":
            self.uses_data = True
        known = closures.VARIABLES.get(name)
        if known is not None:
            return known
        if name == "util":
            return closures.constant(_UTIL_OBJECT)
        if name in GLOBALS:
            return closures.constant(GLOBALS[name])
        return closures.unbound(name)

    def _is_bound(self, name: str) -> bool:
        return name in self.variables or name in closures.VARIABLES or name == "util" or name in GLOBALS

    # Operators

    def _chain(self, node: Chain) -> Closure:
        items = self._all(node.items)
        operator = node.operator
        if operator == "&&":
            return closures.all_of(items)
        if operator == "||":
            return closures.any_of(items)
        if operator == "??":
            return closures.first_present(items)
        if operator == "+":
            return closures.total_of(items)
        return closures.last(items)

    def _binary(self, node: Binary) -> Closure:
        left = self.closure(node.left)
        right = self.closure(node.right)
        operator = node.operator
        if operator == "===" or operator == "!==":
            return closures.identity(node, left, right)
        return closures.binary_closure(operator, left, right)

    def _unary(self, node: Unary) -> Closure:
        operator = node.operator
        operand = node.operand
        if operator == "typeof" and isinstance(operand, Name) and not self._is_bound(operand.name):
            return closures.constant("undefined")
        return closures.unary_closure(operator, self.closure(operand))

    # Members and calls

    def _member(self, node: Member, is_linked: bool) -> Closure:
        target = node.target
        key = node.key
        if isinstance(target, Name) and isinstance(key, Literal):
            if target.name == "auth" and not node.is_optional:
                if key.value == "addr":
                    return closures.address
                if key.value == "fid":
                    return closures.function_id
            if target.name == "util" and isinstance(key.value, str):
                member = UTIL_MEMBERS.get(key.value)
                if member is not None:
                    return closures.constant(member)
        object_closure = self._linked(target) if is_linked else self.closure(target)
        if isinstance(key, Literal):
            name = to_key(key.value, Meter(1))
            return (
                closures.linked_member(object_closure, name, node.is_optional)
                if is_linked
                else closures.member(object_closure, name)
            )
        key_closure = self.closure(key)
        if is_linked:
            return closures.linked_item(object_closure, key_closure, node.is_optional)
        return closures.item(object_closure, key_closure)

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
            return closures.spread_list(items, node.spreads)
        return closures.list_of(items)

    def _call(self, node: Call, is_linked: bool) -> Closure:
        callee = node.callee
        arguments = node.arguments
        is_simple = True not in arguments.spreads
        if is_simple and not is_linked:
            known = self._known_function(callee)
            if known is not None:
                return closures.known_call(known, self._all(arguments.items))
        argument_list = self._list(arguments)
        if isinstance(callee, Member):
            target = self._linked(callee.target) if is_linked else self.closure(callee.target)
            key = self.closure(callee.key)
            return closures.method_call(target, key, callee.is_optional, node.is_optional, argument_list)
        function = self._linked(callee) if is_linked else self.closure(callee)
        return closures.function_call(function, node.is_optional, argument_list)

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
                return closures.denied([], "'__proto__' is out of reach")
            keys.append(None if key is None else self.closure(key))
        return closures.object_of(keys, self._all(node.values))
