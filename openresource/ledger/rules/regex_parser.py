"""JavaScript's regular expressions, read into nodes; what this module refuses is no pattern."""

from __future__ import annotations

import unicodedata
from typing import Final

from openresource.ledger.rules.errors import RuleTokenError
from openresource.ledger.rules.text import units, word_set

NESTING_MAX: Final = 40
GROUPS_MAX: Final = 200
REPEATS_MAX: Final = 2**31
UNBOUNDED: Final = -1

_SYNTAX: Final = frozenset("^$\\.*+?()[]{}|/")
_CATEGORIES: Final = word_set(
    "L Lu Ll Lt Lm Lo M Mn Mc Me N Nd Nl No P Pc Pd Ps Pe Pi Pf Po S Sm Sc Sk So Z Zs Zl Zp C Cc Cf Cs Co Cn"
)
_CONTROL_ESCAPES: Final = {"t": 9, "n": 10, "v": 11, "f": 12, "r": 13}


class RegexNode:
    """One part of a pattern."""

    __slots__ = ()


class Single(RegexNode):
    """One character."""

    __slots__ = ("point",)

    def __init__(self, point: int) -> None:
        self.point: int = point


class Many(RegexNode):
    """One character out of a class: ranges, and named classes such as `d`, `W` or `pLu`."""

    __slots__ = ("is_negated", "names", "ranges")

    def __init__(self, is_negated: bool) -> None:
        self.is_negated: bool = is_negated
        self.ranges: list[tuple[int, int]] = []
        self.names: list[str] = []


class AnyCharacter(RegexNode):
    """The dot."""

    __slots__ = ()


class Sequence(RegexNode):
    """Parts one behind the other."""

    __slots__ = ("parts",)

    def __init__(self, parts: list[RegexNode]) -> None:
        self.parts: list[RegexNode] = parts


class Choice(RegexNode):
    """Alternatives, the first that fits wins."""

    __slots__ = ("options",)

    def __init__(self, options: list[RegexNode]) -> None:
        self.options: list[RegexNode] = options


class Group(RegexNode):
    """A capturing group."""

    __slots__ = ("body", "number")

    def __init__(self, body: RegexNode, number: int) -> None:
        self.body: RegexNode = body
        self.number: int = number


class Repeat(RegexNode):
    """A part some times; `groups` are the numbers of the captures inside, from and below."""

    __slots__ = ("body", "group_end", "group_start", "is_lazy", "least", "most")

    def __init__(
        self, body: RegexNode, least: int, most: int, is_lazy: bool, group_start: int, group_end: int
    ) -> None:
        self.body: RegexNode = body
        self.least: int = least
        self.most: int = most
        self.is_lazy: bool = is_lazy
        self.group_start: int = group_start
        self.group_end: int = group_end


class Edge(RegexNode):
    """An assertion about the place: `^`, `$`, `b` or `B`."""

    __slots__ = ("kind",)

    def __init__(self, kind: str) -> None:
        self.kind: str = kind


class Look(RegexNode):
    """A look ahead or behind."""

    __slots__ = ("body", "is_ahead", "is_negated")

    def __init__(self, body: RegexNode, is_ahead: bool, is_negated: bool) -> None:
        self.body: RegexNode = body
        self.is_ahead: bool = is_ahead
        self.is_negated: bool = is_negated


class Back(RegexNode):
    """What a group has captured, once more."""

    __slots__ = ("name", "number")

    def __init__(self, number: int, name: str) -> None:
        self.number: int = number
        self.name: str = name


class Pattern:
    """A whole regular expression."""

    __slots__ = ("body", "flags", "group_count", "group_names")

    def __init__(self, body: RegexNode, flags: str, group_count: int, group_names: dict[str, int]) -> None:
        self.body: RegexNode = body
        self.flags: str = flags
        self.group_count: int = group_count
        self.group_names: dict[str, int] = group_names


def parse_regex(source: str, flags: str) -> Pattern:
    """The pattern of a regular expression; a RuleTokenError says that it is none."""
    for flag in flags:
        if flag not in "gimsuy" or flags.count(flag) > 1:
            raise RuleTokenError("Invalid regular expression flag")
    text = source if "u" in flags else units(source)
    # A group's name makes \k a reference everywhere in the pattern.
    parser = _RegexParser(text, "u" in flags, "(?<" in text and _has_named_group(text))
    body = parser.choice(0)
    if parser.at < len(text):
        raise RuleTokenError("Invalid regular expression: unmatched ')'")
    for back in parser.backs:
        if back.name:
            if back.name not in parser.names:
                raise RuleTokenError("Invalid regular expression: invalid named capture referenced")
            back.number = parser.names[back.name]
    return Pattern(body, flags, parser.groups, parser.names)


def _has_named_group(text: str) -> bool:
    at = text.find("(?<")
    while at >= 0:
        if text[at + 3 : at + 4] not in ("=", "!"):
            return True
        at = text.find("(?<", at + 3)
    return False


def _count_groups(text: str) -> int:
    """How many capturing groups a pattern has; decides whether \\7 is a reference."""
    count = 0
    at = 0
    in_class = False
    while at < len(text):
        character = text[at]
        if character == "\\":
            at += 1
        elif in_class:
            in_class = character != "]"
        elif character == "[":
            in_class = True
        elif character == "(" and (
            text[at + 1 : at + 2] != "?"
            or (text[at + 2 : at + 3] == "<" and text[at + 3 : at + 4] not in ("=", "!"))
        ):
            count += 1
        at += 1
    return count


class _RegexParser:
    __slots__ = ("at", "backs", "group_total", "groups", "has_names", "is_unicode", "names", "text")

    def __init__(self, text: str, is_unicode: bool, has_names: bool) -> None:
        self.text: str = text
        self.at: int = 0
        self.groups: int = 0
        self.group_total: int = _count_groups(text)
        self.is_unicode: bool = is_unicode
        self.has_names: bool = has_names
        self.names: dict[str, int] = {}
        self.backs: list[Back] = []
        if self.group_total > GROUPS_MAX:
            raise RuleTokenError("Invalid regular expression: too many groups")

    def choice(self, depth: int) -> RegexNode:
        if depth > NESTING_MAX:
            raise RuleTokenError("Invalid regular expression: nested too deep")
        options = [self._sequence(depth)]
        while self._take("|"):
            options.append(self._sequence(depth))
        return options[0] if len(options) == 1 else Choice(options)

    def _sequence(self, depth: int) -> RegexNode:
        parts: list[RegexNode] = []
        while self.at < len(self.text) and self.text[self.at] not in "|)":
            group_start = self.groups + 1
            part = self._term(depth)
            is_edge = isinstance(part, Edge)
            is_look = isinstance(part, Look)
            can_repeat = not is_edge and (not is_look or (not self.is_unicode and _is_ahead(part)))
            parts.append(self._repeated(part, group_start, can_repeat))
        return Sequence(parts)

    def _take(self, piece: str) -> bool:
        if self.text.startswith(piece, self.at):
            self.at += len(piece)
            return True
        return False

    def _need(self, piece: str, reason: str) -> None:
        if not self._take(piece):
            raise RuleTokenError("Invalid regular expression: " + reason)

    def _repeated(self, part: RegexNode, group_start: int, can_repeat: bool) -> RegexNode:
        if self.at >= len(self.text):
            return part
        character = self.text[self.at]
        least = 0
        most = UNBOUNDED
        if character == "*":
            self.at += 1
        elif character == "+":
            self.at += 1
            least = 1
        elif character == "?":
            self.at += 1
            most = 1
        elif character == "{":
            bounds = self._bounds()
            if bounds is None:
                if self.is_unicode:
                    raise RuleTokenError("Invalid regular expression: incomplete quantifier")
                return part
            least, most = bounds
        else:
            return part
        if not can_repeat:
            raise RuleTokenError("Invalid regular expression: nothing to repeat")
        is_lazy = self._take("?")
        return Repeat(part, least, most, is_lazy, group_start, self.groups + 1)

    def _bounds(self) -> tuple[int, int] | None:
        """The numbers of a {n,m} that begins here; None, and nothing read, if it is none."""
        end = self.text.find("}", self.at)
        if end < 0:
            return None
        low, comma, high = self.text[self.at + 1 : end].partition(",")
        if not _is_digits(low) or (high and not _is_digits(high)):
            return None
        self.at = end + 1
        least = _bounded(low)
        most = least if not comma else (_bounded(high) if high else UNBOUNDED)
        if most != UNBOUNDED and most < least:
            raise RuleTokenError("Invalid regular expression: numbers out of order in {} quantifier")
        return least, most

    def _term(self, depth: int) -> RegexNode:
        character = self.text[self.at]
        if character == "(":
            return self._group(depth)
        if character == "[":
            return self._class()
        if character == "\\":
            return self._escape()
        self.at += 1
        if character == "^" or character == "$":
            return Edge(character)
        if character == ".":
            return AnyCharacter()
        if character in "*+?":
            raise RuleTokenError("Invalid regular expression: nothing to repeat")
        if character == "{":
            self.at -= 1
            if self.is_unicode or self._bounds() is not None:
                raise RuleTokenError("Invalid regular expression: nothing to repeat")
            self.at += 1
        elif character in "]}" and self.is_unicode:
            raise RuleTokenError("Invalid regular expression: lone quantifier brackets")
        return Single(ord(character))

    def _group(self, depth: int) -> RegexNode:
        self.at += 1
        result: RegexNode
        if self._take("?:"):
            result = self.choice(depth + 1)
        elif self._take("?="):
            result = Look(self.choice(depth + 1), True, False)
        elif self._take("?!"):
            result = Look(self.choice(depth + 1), True, True)
        elif self._take("?<="):
            result = Look(self.choice(depth + 1), False, False)
        elif self._take("?<!"):
            result = Look(self.choice(depth + 1), False, True)
        else:
            name = ""
            if self._take("?<"):
                name = self._group_name()
            elif self.text.startswith("?", self.at):
                raise RuleTokenError("Invalid regular expression: invalid group")
            self.groups += 1
            number = self.groups
            if name:
                if name in self.names:
                    raise RuleTokenError("Invalid regular expression: duplicate capture group name")
                self.names[name] = number
            result = Group(self.choice(depth + 1), number)
        self._need(")", "unterminated group")
        return result

    def _group_name(self) -> str:
        end = self.text.find(">", self.at)
        name = self.text[self.at : end] if end > 0 else ""
        if not name.replace("$", "_").isidentifier():
            raise RuleTokenError("Invalid regular expression: invalid capture group name")
        self.at = end + 1
        return name

    def _escape(self) -> RegexNode:
        self.at += 1
        if self.at >= len(self.text):
            raise RuleTokenError("Invalid regular expression: \\ at end of pattern")
        character = self.text[self.at]
        if character == "b" or character == "B":
            self.at += 1
            return Edge(character)
        if character == "k" and (self.has_names or self.is_unicode):
            self.at += 1
            self._need("<", "invalid named reference")
            back = Back(0, self._group_name())
            self.backs.append(back)
            return back
        if "1" <= character <= "9":
            end = self.at
            while end < len(self.text) and "0" <= self.text[end] <= "9":
                end += 1
            number = _bounded(self.text[self.at : end])
            if number <= self.group_total:
                self.at = end
                return Back(number, "")
            if self.is_unicode:
                raise RuleTokenError("Invalid regular expression: invalid escape")
        named = self._named_class()
        if named:
            many = Many(False)
            many.names.append(named)
            return many
        return Single(self._character_escape(False))

    def _named_class(self) -> str:
        """The name of a class such as \\d that stands here behind its backslash; empty if none does."""
        character = self.text[self.at]
        if character in "dDwWsS":
            self.at += 1
            return character
        if self.is_unicode and character in "pP":
            self.at += 1
            self._need("{", "invalid property name")
            end = self.text.find("}", self.at)
            name = self.text[self.at : end] if end > 0 else ""
            for prefix in ("General_Category=", "gc="):
                name = name.removeprefix(prefix)
            if name not in _CATEGORIES:
                raise RuleTokenError("Invalid regular expression: invalid property name")
            self.at = end + 1
            return character + name
        return ""

    def _character_escape(self, in_class: bool) -> int:
        """The character that an escape stands for; the backslash has been read."""
        text = self.text
        character = text[self.at]
        self.at += 1
        control = _CONTROL_ESCAPES.get(character)
        if control is not None:
            return control
        if character == "c":
            letter = text[self.at : self.at + 1]
            if letter.isascii() and (
                letter.isalpha() or (in_class and not self.is_unicode and _is_word(letter))
            ):
                self.at += 1
                return ord(letter) % 32
            if self.is_unicode:
                raise RuleTokenError("Invalid regular expression: invalid unicode escape")
            self.at -= 1
            return 0x5C
        if character == "0" and not text[self.at : self.at + 1].isdigit():
            return 0
        if "0" <= character <= "7" and not self.is_unicode:
            return self._octal(character)
        if character == "x":
            point = self._hex(2)
            if point >= 0:
                return point
        elif character == "u":
            point = self._unicode_escape()
            if point >= 0:
                return point
        if self.is_unicode and not (character in _SYNTAX or (in_class and character == "-")):
            raise RuleTokenError("Invalid regular expression: invalid escape")
        if character == "k" and self.has_names:
            raise RuleTokenError("Invalid regular expression: invalid named reference")
        return ord(character)

    def _octal(self, first: str) -> int:
        digits = first
        length_max = 3 if first <= "3" else 2
        while len(digits) < length_max and "0" <= self.text[self.at : self.at + 1] <= "7":
            digits += self.text[self.at]
            self.at += 1
        return int(digits, 8)

    def _hex(self, length: int) -> int:
        digits = self.text[self.at : self.at + length]
        if len(digits) == length and all(digit in "0123456789abcdefABCDEF" for digit in digits):
            self.at += length
            return int(digits, 16)
        return -1

    def _unicode_escape(self) -> int:
        if self.is_unicode and self._take("{"):
            end = self.text.find("}", self.at)
            digits = self.text[self.at : end] if end > 0 else ""
            if digits and all(digit in "0123456789abcdefABCDEF" for digit in digits):
                point = int(digits, 16) if len(digits.lstrip("0")) <= 6 else 0x110000
                if point <= 0x10FFFF:
                    self.at = end + 1
                    return point
            raise RuleTokenError("Invalid regular expression: invalid unicode escape")
        high = self._hex(4)
        if self.is_unicode and 0xD800 <= high <= 0xDBFF and self.text.startswith("\\u", self.at):
            mark = self.at
            self.at += 2
            low = self._hex(4)
            if 0xDC00 <= low <= 0xDFFF:
                return 0x10000 + ((high - 0xD800) << 10) + (low - 0xDC00)
            self.at = mark
        return high

    def _class(self) -> RegexNode:
        self.at += 1
        many = Many(self._take("^"))
        while True:
            if self.at >= len(self.text):
                raise RuleTokenError("Invalid regular expression: missing ]")
            if self._take("]"):
                return many
            low = self._class_atom(many)
            if not (
                self.text.startswith("-", self.at) and self.text[self.at + 1 : self.at + 2] not in ("]", "")
            ):
                if low >= 0:
                    many.ranges.append((low, low))
                continue
            self.at += 1
            high = self._class_atom(many)
            if low < 0 or high < 0:
                if self.is_unicode:
                    raise RuleTokenError("Invalid regular expression: invalid character class")
                many.ranges.append((0x2D, 0x2D))
                for point in (low, high):
                    if point >= 0:
                        many.ranges.append((point, point))
            elif low > high:
                raise RuleTokenError("Invalid regular expression: range out of order in character class")
            else:
                many.ranges.append((low, high))

    def _class_atom(self, many: Many) -> int:
        """One character of a class; -1 if it was a named class, which is put into the class at once."""
        if not self._take("\\"):
            self.at += 1
            return ord(self.text[self.at - 1])
        if self.at >= len(self.text):
            raise RuleTokenError("Invalid regular expression: \\ at end of pattern")
        if self._take("b"):
            return 8
        named = self._named_class()
        if named:
            many.names.append(named)
            return -1
        return self._character_escape(True)


def in_named_class(name: str, point: int) -> bool:
    """Whether a character belongs to a named class."""
    kind = name[0]
    if kind == "d" or kind == "D":
        return (0x30 <= point <= 0x39) == (kind == "d")
    if kind == "w" or kind == "W":
        is_word = 0x30 <= point <= 0x39 or 0x41 <= point <= 0x5A or 0x61 <= point <= 0x7A or point == 0x5F
        return is_word == (kind == "w")
    if kind == "s" or kind == "S":
        is_space = 9 <= point <= 13 or point in _SPACES
        return is_space == (kind == "s")
    category = unicodedata.category(chr(point))
    return category.startswith(name[1:]) == (kind == "p")


_SPACES: Final = frozenset(
    (0x20, 0xA0, 0xFEFF, 0x1680, *range(0x2000, 0x200B), 0x2028, 0x2029, 0x202F, 0x205F, 0x3000)
)


def _is_ahead(part: RegexNode) -> bool:
    return isinstance(part, Look) and part.is_ahead


def _is_digits(text: str) -> bool:
    return text.isascii() and text.isdigit()


def _is_word(letter: str) -> bool:
    return letter.isalnum() or letter == "_"


def _bounded(digits: str) -> int:
    return min(int(digits), REPEATS_MAX) if len(digits) < 12 else REPEATS_MAX
