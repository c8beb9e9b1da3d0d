"""The nodes of a rule's expression. `height` bounds how deep evaluation can recurse."""

from __future__ import annotations


class Node:
    """A part of an expression."""

    __slots__ = ("height", "is_grouped")

    def __init__(self, height: int) -> None:
        self.height: int = height
        # Whether it stands in parentheses of its own.
        self.is_grouped: bool = False


class Literal(Node):
    """A value as it is written."""

    __slots__ = ("value",)

    def __init__(self, value: object) -> None:
        super().__init__(1)
        self.value: object = value


class Name(Node):
    """A variable."""

    __slots__ = ("name",)

    def __init__(self, name: str) -> None:
        super().__init__(1)
        self.name: str = name


class Pattern(Node):
    """A regular expression."""

    __slots__ = ("flags", "source")

    def __init__(self, source: str, flags: str) -> None:
        super().__init__(1)
        self.source: str = source
        self.flags: str = flags


class Template(Node):
    """Pieces of text with expressions between them."""

    __slots__ = ("expressions", "pieces")

    def __init__(self, pieces: list[str], expressions: list[Node]) -> None:
        super().__init__(1 + highest(expressions))
        self.pieces: list[str] = pieces
        self.expressions: list[Node] = expressions


class Items(Node):
    """An array, or the arguments of a call; None is a hole, and `spreads` says which are spread."""

    __slots__ = ("items", "spreads")

    def __init__(self, items: list[Node], spreads: list[bool]) -> None:
        super().__init__(1 + highest(items))
        self.items: list[Node] = items
        self.spreads: list[bool] = spreads


class Entries(Node):
    """An object; a key is an expression, a value without a key is spread."""

    __slots__ = ("keys", "values")

    def __init__(self, keys: list[Node | None], values: list[Node]) -> None:
        super().__init__(1 + max(highest(values), highest([key for key in keys if key is not None])))
        self.keys: list[Node | None] = keys
        self.values: list[Node] = values


class Unary(Node):
    """An operator before its operand."""

    __slots__ = ("operand", "operator")

    def __init__(self, operator: str, operand: Node) -> None:
        super().__init__(1 + operand.height)
        self.operator: str = operator
        self.operand: Node = operand


class Binary(Node):
    """An operator between two operands."""

    __slots__ = ("left", "operator", "right")

    def __init__(self, operator: str, left: Node, right: Node) -> None:
        super().__init__(1 + max(left.height, right.height))
        self.operator: str = operator
        self.left: Node = left
        self.right: Node = right


class Chain(Node):
    """Operands joined by one operator out of `&&`, `||`, `??`, `+` and `,`, from left to right."""

    __slots__ = ("items", "operator")

    def __init__(self, operator: str, items: list[Node]) -> None:
        super().__init__(1 + highest(items))
        self.operator: str = operator
        self.items: list[Node] = items

    def append(self, item: Node) -> None:
        """Adds an operand at the end."""
        self.items.append(item)
        self.height = max(self.height, 1 + item.height)


class Conditional(Node):
    """test ? yes : no."""

    __slots__ = ("no", "test", "yes")

    def __init__(self, test: Node, yes: Node, no: Node) -> None:
        super().__init__(1 + max(test.height, yes.height, no.height))
        self.test: Node = test
        self.yes: Node = yes
        self.no: Node = no


class Member(Node):
    """A member by an expression or by a written name; `is_optional` is `?.`."""

    __slots__ = ("is_optional", "key", "target")

    def __init__(self, target: Node, key: Node, is_optional: bool) -> None:
        super().__init__(1 + max(target.height, key.height))
        self.target: Node = target
        self.key: Node = key
        self.is_optional: bool = is_optional


class Call(Node):
    """A call."""

    __slots__ = ("arguments", "callee", "is_optional")

    def __init__(self, callee: Node, arguments: Items, is_optional: bool) -> None:
        super().__init__(1 + max(callee.height, arguments.height))
        self.callee: Node = callee
        self.arguments: Items = arguments
        self.is_optional: bool = is_optional


class New(Node):
    """A call of a constructor."""

    __slots__ = ("arguments", "callee")

    def __init__(self, callee: Node, arguments: Items) -> None:
        super().__init__(1 + max(callee.height, arguments.height))
        self.callee: Node = callee
        self.arguments: Items = arguments


class Optional(Node):
    """An expression that is undefined as a whole when one of its `?.` meets nothing."""

    __slots__ = ("body",)

    def __init__(self, body: Node) -> None:
        super().__init__(1 + body.height)
        self.body: Node = body


class Denied(Node):
    """Something that is written correctly but that a rule may not do; its parts are evaluated first."""

    __slots__ = ("parts", "reason")

    def __init__(self, reason: str, parts: list[Node]) -> None:
        super().__init__(1 + highest(parts))
        self.reason: str = reason
        self.parts: list[Node] = parts


class EmptyClass(Node):
    """A class without members: nothing but an object that is true."""

    __slots__ = ()

    def __init__(self) -> None:
        super().__init__(1)


def highest(nodes: list[Node]) -> int:
    """The greatest height among nodes."""
    height = 0
    for node in nodes:
        if node.height > height:
            height = node.height
    return height
