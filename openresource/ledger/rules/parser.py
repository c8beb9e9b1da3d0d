"""From tokens to an expression: a Pratt parser for the operand of `return` and the dead statements behind it."""

from __future__ import annotations

from typing import Final

from openresource.ledger.rules.errors import RuleSyntaxError
from openresource.ledger.rules.lexer import (
    BIG_INTEGER,
    END,
    IDENTIFIER,
    KEYWORD,
    NUMBER,
    PUNCTUATOR,
    REGEX,
    STRING,
    TEMPLATE,
    Token,
    tokenize,
)
from openresource.ledger.rules.meter import Meter
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
from openresource.ledger.rules.text import word_set
from openresource.ledger.rules.values import UNDEFINED, BigInteger, to_key

# Open brackets and operators inside each other while parsing, and calls inside each other while evaluating; both
# keep far away from the depth at which Python itself gives up, and are the same wherever the rule is read.
NESTING_MAX: Final = 80
HEIGHT_MAX: Final = 80

_COMMA: Final = 1
_ASSIGNMENT: Final = 2
_CONDITIONAL: Final = 3
_UNARY: Final = 15
_POWER: Final = 14

# How strongly each binary operator binds.
_BINDING: Final = {
    "??": 4, "||": 4, "&&": 5, "|": 6, "^": 7, "&": 8,
    "==": 9, "!=": 9, "===": 9, "!==": 9,
    "<": 10, ">": 10, "<=": 10, ">=": 10, "in": 10, "instanceof": 10,
    "<<": 11, ">>": 11, ">>>": 11, "+": 12, "-": 12, "*": 13, "/": 13, "%": 13, "**": _POWER,
}  # fmt: skip
_ASSIGNMENTS: Final = frozenset(
    ("=", "+=", "-=", "*=", "/=", "%=", "**=", "<<=", ">>=", ">>>=", "&=", "|=", "^=", "&&=", "||=", "??=")
)
_FLAT: Final = frozenset(("&&", "||", "??", "+"))
_UNARY_WORDS: Final = frozenset(("typeof", "void", "delete"))
_UNARY_SIGNS: Final = frozenset(("!", "-", "+", "~"))

# Names that strict code keeps for itself.
_RESERVED: Final = word_set("enum implements interface let package private protected public static yield")
_CONSTANTS: Final[dict[str, object]] = {"true": True, "false": False, "null": None, "this": UNDEFINED}


def parse_rule(text: str) -> Node:
    """The expression that a rule's text returns."""
    return _Parser(tokenize(text)).rule()


class _Parser:
    __slots__ = ("_at", "_nesting", "_token", "_tokens")

    def __init__(self, tokens: list[Token]) -> None:
        self._tokens: list[Token] = tokens
        self._at: int = 0
        self._token: Token = tokens[0]
        self._nesting: int = 0

    def rule(self) -> Node:
        """The operand; a line break before it ends the return statement at once."""
        result: Node = Literal(UNDEFINED)
        token = self._token
        if token.kind != END and not token.follows_newline and not self._is(";"):
            result = self._sequence()
            self._end_statement()
        self._statements()
        if self._token.kind != END:
            raise self._unexpected()
        return result

    # Tokens

    def _next(self) -> Token:
        token = self._token
        if token.kind != END:
            self._at += 1
            self._token = self._tokens[self._at]
        return token

    def _is(self, punctuator: str) -> bool:
        token = self._token
        return token.kind == PUNCTUATOR and token.value == punctuator

    def _is_word(self, word: str) -> bool:
        token = self._token
        return token.kind == KEYWORD and token.value == word and not token.is_escaped

    def _take(self, punctuator: str) -> bool:
        if self._is(punctuator):
            self._next()
            return True
        return False

    def _need(self, punctuator: str) -> None:
        if not self._take(punctuator):
            raise self._unexpected()

    def _unexpected(self) -> RuleSyntaxError:
        token = self._token
        if token.kind == END:
            return RuleSyntaxError("Unexpected token '}'")
        if token.kind == STRING:
            return RuleSyntaxError("Unexpected string")
        if token.kind == NUMBER or token.kind == BIG_INTEGER:
            return RuleSyntaxError("Unexpected number")
        if token.kind == TEMPLATE:
            return RuleSyntaxError("Unexpected template string")
        if token.kind == IDENTIFIER:
            return RuleSyntaxError("Unexpected identifier")
        return RuleSyntaxError(f"Unexpected token '{token.value}'")

    def _enter(self) -> None:
        self._nesting += 1
        if self._nesting > NESTING_MAX:
            raise RuleSyntaxError("the rule is nested too deep")

    def _checked(self, node: Node) -> Node:
        if node.height > HEIGHT_MAX:
            raise RuleSyntaxError("the rule is nested too deep")
        return node

    # Statements behind the first are never run; they only have to be correct.

    def _end_statement(self) -> None:
        token = self._token
        if self._take(";") or token.kind == END or token.follows_newline or self._is("}"):
            return
        raise self._unexpected()

    def _statements(self) -> None:
        while self._token.kind != END and not self._is("}"):
            self._statement()

    def _statement(self) -> None:
        self._enter()
        if self._take(";"):
            pass
        elif self._take("{"):
            self._statements()
            self._need("}")
        elif self._is_word("if"):
            self._next()
            self._condition()
            self._statement()
            if self._is_word("else"):
                self._next()
                self._statement()
        elif self._is_word("while"):
            self._next()
            self._condition()
            self._statement()
        elif self._is_word("return") or self._is_word("throw"):
            is_throw = self._next().value == "throw"
            has_operand = not (
                self._token.kind == END or self._token.follows_newline or self._is(";") or self._is("}")
            )
            if has_operand:
                self._sequence()
            elif is_throw:
                raise self._unexpected()
            self._end_statement()
        elif self._is_word("var"):
            self._next()
            self._declarations()
        elif self._is_word("debugger"):
            self._next()
            self._end_statement()
        else:
            self._sequence()
            self._end_statement()
        self._nesting -= 1

    def _condition(self) -> None:
        self._need("(")
        self._sequence()
        self._need(")")

    def _declarations(self) -> None:
        while True:
            self._name(self._next())
            if self._take("="):
                self._expression(_ASSIGNMENT)
            if not self._take(","):
                break
        self._end_statement()

    # Expressions

    def _sequence(self) -> Node:
        first = self._expression(_ASSIGNMENT)
        if not self._is(","):
            return first
        chain = Chain(",", [first])
        while self._take(","):
            chain.append(self._expression(_ASSIGNMENT))
        return self._checked(chain)

    def _expression(self, least: int) -> Node:
        self._enter()
        left = self._unary()
        while True:
            token = self._token
            if token.kind != PUNCTUATOR and (token.kind != KEYWORD or token.is_escaped):
                break
            operator = token.value
            binding = _BINDING.get(operator, 0)
            if binding == 0:
                if operator == "?" and least <= _CONDITIONAL:
                    left = self._conditional(left)
                    continue
                if operator in _ASSIGNMENTS and least <= _ASSIGNMENT:
                    left = self._assignment(left)
                break
            if binding < least or (token.kind == KEYWORD and operator not in ("in", "instanceof")):
                break
            self._next()
            left = self._joined(operator, binding, left)
        self._nesting -= 1
        return left

    def _joined(self, operator: str, binding: int, left: Node) -> Node:
        if operator == "**":
            if isinstance(left, Unary) and not left.is_grouped:
                raise RuleSyntaxError(
                    "Unary operator used immediately before exponentiation expression. "
                    "Parenthesis must be used to disambiguate operator precedence"
                )
            return self._checked(Binary(operator, left, self._expression(_POWER)))
        right = self._expression(binding + 1)
        if operator == "??" or operator == "||":
            _refuse_mixture(operator, left)
            _refuse_mixture(operator, right)
        if operator in _FLAT:
            if isinstance(left, Chain) and left.operator == operator and not left.is_grouped:
                left.append(right)
                return self._checked(left)
            return self._checked(Chain(operator, [left, right]))
        return self._checked(Binary(operator, left, right))

    def _conditional(self, test: Node) -> Node:
        self._next()
        yes = self._expression(_ASSIGNMENT)
        self._need(":")
        no = self._expression(_ASSIGNMENT)
        return self._checked(Conditional(test, yes, no))

    def _assignment(self, target: Node) -> Node:
        operator = self._next().value
        is_pattern = isinstance(target, Entries | Items) and operator == "=" and not target.is_grouped
        if not is_pattern:
            self._refuse_target(target, "Invalid left-hand side in assignment")
        value = self._expression(_ASSIGNMENT)
        return self._checked(Denied("a rule cannot assign", [target, value]))

    def _refuse_target(self, target: Node, reason: str) -> None:
        if isinstance(target, Name) and target.name not in ("eval", "arguments"):
            return
        if isinstance(target, Member):
            return
        raise RuleSyntaxError(reason)

    def _unary(self) -> Node:
        token = self._token
        if token.kind == PUNCTUATOR:
            if token.value in _UNARY_SIGNS:
                self._next()
                return self._prefixed(token.value)
            if token.value == "++" or token.value == "--":
                self._next()
                self._enter()
                operand = self._unary()
                self._nesting -= 1
                self._refuse_target(operand, "Invalid left-hand side expression in prefix operation")
                return self._checked(Denied("a rule cannot assign", [operand]))
        elif token.kind == KEYWORD and token.value in _UNARY_WORDS and not token.is_escaped:
            self._next()
            return self._prefixed(token.value)
        return self._postfix()

    def _prefixed(self, operator: str) -> Node:
        self._enter()
        operand = self._unary()
        self._nesting -= 1
        if operator == "delete":
            if isinstance(operand, Name):
                raise RuleSyntaxError("Delete of an unqualified identifier in strict mode.")
            return self._checked(Denied("a rule cannot delete", [operand]))
        return self._checked(Unary(operator, operand))

    def _postfix(self) -> Node:
        node = self._access(self._primary(), True)
        token = self._token
        is_step = token.kind == PUNCTUATOR and (token.value == "++" or token.value == "--")
        if is_step and not token.follows_newline:
            self._refuse_target(node, "Invalid left-hand side expression in postfix operation")
            self._next()
            return self._checked(Denied("a rule cannot assign", [node]))
        return node

    def _access(self, node: Node, can_call: bool) -> Node:
        """Members and calls behind an expression; `new` takes members only."""
        has_optional = False
        while True:
            token = self._token
            if token.kind == PUNCTUATOR:
                sign = token.value
                if sign == ".":
                    self._next()
                    node = Member(node, Literal(self._member_name()), False)
                elif sign == "[":
                    self._next()
                    node = Member(node, self._sequence(), False)
                    self._need("]")
                elif sign == "(" and can_call:
                    node = Call(node, self._arguments(), False)
                elif sign == "?.":
                    if not can_call:
                        raise RuleSyntaxError("Invalid optional chain from new expression")
                    self._next()
                    has_optional = True
                    if self._is("("):
                        node = Call(node, self._arguments(), True)
                    elif self._take("["):
                        node = Member(node, self._sequence(), True)
                        self._need("]")
                    else:
                        node = Member(node, Literal(self._member_name()), True)
                else:
                    break
            elif token.kind == TEMPLATE and token.flags == "head":
                if has_optional:
                    raise RuleSyntaxError("Invalid tagged template on optional chain")
                node = Denied("tagged templates are out of reach", [node, self._template()])
            else:
                break
            self._checked(node)
        return self._checked(Optional(node)) if has_optional else node

    def _member_name(self) -> str:
        token = self._next()
        if token.kind != IDENTIFIER and token.kind != KEYWORD:
            self._at -= 1
            self._token = token
            raise self._unexpected()
        return token.value

    def _arguments(self) -> Items:
        self._need("(")
        return self._items(")")

    def _items(self, closing: str) -> Items:
        items: list[Node] = []
        spreads: list[bool] = []
        while not self._take(closing):
            if closing == "]" and self._take(","):
                items.append(Literal(UNDEFINED))
                spreads.append(False)
                continue
            spreads.append(self._take("..."))
            items.append(self._expression(_ASSIGNMENT))
            if not self._is(closing):
                self._need(",")
        return Items(items, spreads)

    def _primary(self) -> Node:
        token = self._next()
        kind = token.kind
        if kind == IDENTIFIER:
            return Name(self._name(token))
        if kind == STRING:
            return Literal(token.value)
        if kind == NUMBER:
            return Literal(token.number)
        if kind == PUNCTUATOR:
            if token.value == "(":
                node = self._sequence()
                self._need(")")
                node.is_grouped = True
                return node
            if token.value == "[":
                return self._checked(self._items("]"))
            if token.value == "{":
                return self._checked(self._entries())
        elif kind == KEYWORD and not token.is_escaped:
            return self._keyword(token)
        elif kind == TEMPLATE and token.flags == "head":
            self._back(token)
            return self._template()
        elif kind == REGEX:
            return Pattern(token.value, token.flags)
        elif kind == BIG_INTEGER:
            return Literal(BigInteger(int(token.value.replace("_", "")[:-1], 0)))
        self._back(token)
        raise self._unexpected()

    def _back(self, token: Token) -> None:
        if token.kind != END:
            self._at -= 1
            self._token = token

    def _name(self, token: Token) -> str:
        if token.kind != IDENTIFIER:
            self._back(token)
            raise self._unexpected()
        if token.value in _RESERVED:
            raise RuleSyntaxError("Unexpected strict mode reserved word")
        return token.value

    def _keyword(self, token: Token) -> Node:
        word = token.value
        if word in _CONSTANTS:
            return Literal(_CONSTANTS[word])
        if word == "new":
            return self._new()
        if word == "class":
            return self._class()
        if word == "import" and self._is("("):
            arguments = self._arguments()
            if len(arguments.items) != 1 or arguments.spreads[0]:
                raise RuleSyntaxError("import() requires a specifier")
            return Denied("modules are out of reach", arguments.items)
        self._back(token)
        raise self._unexpected()

    def _new(self) -> Node:
        if self._take("."):
            if self._member_name() != "target":
                raise RuleSyntaxError("Unexpected token")
            return Literal(UNDEFINED)
        self._enter()
        token = self._token
        if token.kind == KEYWORD and token.value == "new":
            self._next()
            callee = self._new()
        else:
            callee = self._primary()
        callee = self._access(callee, False)
        self._nesting -= 1
        arguments = self._arguments() if self._is("(") else Items([], [])
        return self._checked(New(callee, arguments))

    def _class(self) -> Node:
        parts: list[Node] = []
        if self._token.kind == IDENTIFIER:
            self._name(self._next())
        if self._is_word("extends"):
            self._next()
            parts.append(self._access(self._primary(), True))
        self._need("{")
        while self._take(";"):
            pass
        if not self._take("}"):
            raise RuleSyntaxError("classes with members are no part of rules")
        return Denied("classes are out of reach", parts) if parts else EmptyClass()

    def _template(self) -> Node:
        token = self._next()
        is_broken = token.is_escaped
        pieces = [token.value]
        expressions: list[Node] = []
        while not token.is_tail:
            expressions.append(self._sequence())
            token = self._next()
            if token.kind != TEMPLATE or token.flags == "head":
                self._back(token)
                raise self._unexpected()
            is_broken = is_broken or token.is_escaped
            pieces.append(token.value)
        if is_broken:
            raise RuleSyntaxError("Invalid escape sequence in template")
        return self._checked(Template(pieces, expressions))

    def _entries(self) -> Node:
        keys: list[Node | None] = []
        values: list[Node] = []
        while not self._take("}"):
            if self._take("..."):
                keys.append(None)
                values.append(self._expression(_ASSIGNMENT))
            else:
                self._entry(keys, values)
            if not self._is("}"):
                self._need(",")
        return Entries(keys, values)

    def _entry(self, keys: list[Node | None], values: list[Node]) -> None:
        token = self._next()
        key: Node
        if token.kind == IDENTIFIER or token.kind == KEYWORD or token.kind == STRING:
            key = Literal(token.value)
        elif token.kind == NUMBER:
            key = Literal(to_key(token.number, Meter(1)))
        elif token.kind == PUNCTUATOR and token.value == "[":
            key = self._expression(_ASSIGNMENT)
            self._need("]")
        else:
            self._back(token)
            raise self._unexpected()
        keys.append(key)
        if self._take(":"):
            values.append(self._expression(_ASSIGNMENT))
        elif token.kind == IDENTIFIER and (self._is(",") or self._is("}")):
            values.append(Name(self._name(token)))
        elif self._token.kind == PUNCTUATOR and self._token.value not in ("(", "=", "*", "["):
            raise self._unexpected()
        else:
            raise RuleSyntaxError("methods are no part of rules")


def _refuse_mixture(operator: str, side: Node) -> None:
    """Refuses `a ?? b || c` without parentheses."""
    other = ("||", "&&") if operator == "??" else ("??",)
    if isinstance(side, Chain) and side.operator in other and not side.is_grouped:
        raise RuleSyntaxError(f"Unexpected token '{operator}'")
