"""Tokens of a rule: JavaScript's (ES2021, strict mode), with the same decisions where a slash may mean two things."""

from __future__ import annotations

import re
from typing import Final

from openresource.ledger.rules.errors import RuleTokenError
from openresource.ledger.rules.numerals import numeral_value
from openresource.ledger.rules.regex_parser import parse_regex
from openresource.ledger.rules.text import joined, word_set
from openresource.primitives.numbers import to_double

IDENTIFIER: Final = 0
KEYWORD: Final = 1
NUMBER: Final = 2
BIG_INTEGER: Final = 3
STRING: Final = 4
TEMPLATE: Final = 5
REGEX: Final = 6
PUNCTUATOR: Final = 7
END: Final = 8

TEXT_CHARACTERS_MAX: Final = 100_000

KEYWORDS: Final = word_set(
    "break case catch class const continue debugger default delete do else export extends false "
    "finally for function if import in instanceof new null return super switch this throw true try "
    "typeof var void while with"
)

# After these an expression may begin, so that a slash begins a regular expression.
_KEYWORDS_BEFORE_EXPRESSION: Final = word_set(
    "case default delete do else extends in instanceof new return throw typeof void"
)

_NEWLINES: Final = "\n\r\u2028\u2029"
_BLANK: Final = r"\t\x0b\x0c \xa0\ufeff\u1680\u2000-\u200a\u202f\u205f\u3000\n\r\u2028\u2029"

_TOKEN: Final = re.compile(
    rf"""
    [ ]*+(?:
    (?P<blank>[{_BLANK}]+)
  | (?P<line>//[^\n\r\u2028\u2029]*|<!--[^\n\r\u2028\u2029]*)
  | (?P<block>/\*)
  | (?P<name>[A-Za-z_$][A-Za-z0-9_$]*+(?![^\x00-\x7f]|\\))
  | (?P<string>'[^'\\\n\r]*'|"[^"\\\n\r]*")
  | (?P<number>(?:[1-9][0-9]*|0)(?![0-9A-Za-z_$.\\]|[^\x00-\x7f]))
  | (?P<punctuator>>>>=|\.\.\.|===|!==|\*\*=|<<=|>>=|>>>|&&=|\|\|=|\?\?=|=>|==|!=|<=|>=|&&|\|\||\?\?|\?\.(?![0-9])
      |\+\+|--|\+=|-=|\*=|%=|&=|\|=|\^=|<<|>>|\*\*|[{{}}()\[\];,<>+\-*%&|^!~?:=]|\.(?![0-9]))
  | (?P<slash>/)
  | (?P<quote>['"])
  | (?P<template>`)
  | (?P<digit>\.?[0-9])
  | (?P<wide>[^\x00-\x7f]|[A-Za-z_$\\])
    )
    """,
    re.VERBOSE,
)

_HEX_DIGITS: Final = frozenset("0123456789abcdefABCDEF")
_SINGLE_ESCAPES: Final = {"n": "\n", "t": "\t", "b": "\b", "v": "\v", "f": "\f", "r": "\r"}


class Token:
    """One token; `value` is a name, a string's value, a punctuator's text or a regular expression's pattern."""

    __slots__ = ("flags", "follows_newline", "is_escaped", "is_tail", "kind", "number", "start", "value")

    def __init__(self, kind: int, value: str, start: int, follows_newline: bool) -> None:
        self.kind: int = kind
        self.value: str = value
        self.start: int = start
        self.follows_newline: bool = follows_newline
        self.number: float | int = 0
        self.flags: str = ""
        # A name written with escapes is no keyword, nor is a template with wrong escapes a text; a piece of a
        # template may be its last, a closing bracket may end an expression.
        self.is_escaped: bool = False
        self.is_tail: bool = False

    def __repr__(self) -> str:
        return f"Token({self.kind}, {self.value!r})"


def tokenize(text: str) -> list[Token]:
    """The tokens of a rule's text, an END behind them."""
    if len(text) > TEXT_CHARACTERS_MAX:
        raise RuleTokenError("the rule is too long")
    return _Lexer(text).run()


def is_identifier_start(character: str) -> bool:
    """Whether a name may begin with a character."""
    return character.isidentifier() or character == "$"


def is_identifier_part(character: str) -> bool:
    """Whether a name may continue with a character."""
    return (
        ("a" + character).isidentifier() or character == "$" or character == "\u200c" or character == "\u200d"
    )


def is_identifier_name(text: str) -> bool:
    """Whether a text is a name as JavaScript takes it (a keyword is one too)."""
    return bool(text) and is_identifier_start(text[0]) and all(is_identifier_part(item) for item in text[1:])


class _Lexer:
    __slots__ = ("_at", "_braces", "_follows_newline", "_parentheses", "_text", "_tokens")

    def __init__(self, text: str) -> None:
        self._text: str = text
        self._at: int = 0
        self._tokens: list[Token] = []
        self._follows_newline: bool = False
        # What each open brace is: "{" a block, "o" an object, "`" a template's hole.
        self._braces: list[str] = []
        # Whether each open parenthesis belongs to if, for, while or with.
        self._parentheses: list[bool] = []

    def run(self) -> list[Token]:
        text = self._text
        tokens = self._tokens
        match_at = _TOKEN.match
        end = len(text.rstrip(" "))
        while self._at < end:
            match = match_at(text, self._at)
            if match is None or match.lastgroup is None:
                raise RuleTokenError(f"Unexpected character '{text[self._at :].lstrip(' ')[:1]}'")
            kind = match.lastgroup
            piece = match.group(kind)
            self._at = match.end()
            at = self._at - len(piece)
            if kind == "blank":
                if not self._follows_newline and _has_newline(piece):
                    self._follows_newline = True
            elif kind == "name":
                self._add(KEYWORD if piece in KEYWORDS else IDENTIFIER, piece, at)
            elif kind == "punctuator":
                self._punctuator(piece, at)
            elif kind == "string":
                self._add(STRING, piece[1:-1], at)
            elif kind == "number":
                self._number(piece, at)
            else:
                self._rare(kind, at)
        tokens.append(Token(END, "", len(text), self._follows_newline))
        return tokens

    def _rare(self, kind: str, at: int) -> None:
        if kind == "line":
            return
        if kind == "block":
            self._block_comment(at)
        elif kind == "slash":
            self._slash(at)
        elif kind == "quote":
            self._string(at)
        elif kind == "template":
            self._template(at)
        elif kind == "digit":
            text, number, is_big = numeral_value(self._text, at)
            self._at = at + len(text)
            self._refuse_name_here()
            token = self._add(BIG_INTEGER if is_big else NUMBER, text, at)
            token.number = number
        else:
            self._wide_name(at)

    def _add(self, kind: int, value: str, start: int) -> Token:
        token = Token(kind, value, start, self._follows_newline)
        self._follows_newline = False
        self._tokens.append(token)
        return token

    def _number(self, piece: str, at: int) -> None:
        token = self._add(NUMBER, piece, at)
        token.number = int(piece) if len(piece) < 16 else to_double(float(piece))

    def _punctuator(self, piece: str, at: int) -> None:
        if piece == "{":
            self._braces.append("o" if self._expects_expression(True) else "{")
        elif piece == "(":
            self._parentheses.append(self._follows_condition_keyword())
        elif piece == "}":
            if self._braces and self._braces[-1] == "`":
                self._braces.pop()
                self._template(at)
                return
        elif piece == "--" and self._text.startswith(">", self._at) and self._follows_newline:
            # Scripts may end an HTML comment at the start of a line; the rest of the line is a comment.
            while self._at < len(self._text) and self._text[self._at] not in _NEWLINES:
                self._at += 1
            return
        token = self._add(PUNCTUATOR, piece, at)
        if piece == "}":
            token.is_tail = bool(self._braces) and self._braces.pop() == "o"
        elif piece == ")":
            token.is_tail = bool(self._parentheses) and not self._parentheses.pop()

    def _follows_condition_keyword(self) -> bool:
        if not self._tokens:
            return False
        before = self._tokens[-1]
        return (
            before.kind == KEYWORD
            and before.value in ("if", "for", "while", "with")
            and not self._is_member(-1)
        )

    def _is_member(self, position: int) -> bool:
        """Whether the token at a position (from the end) is a name behind a dot."""
        before = position - 1
        if len(self._tokens) < -before:
            return False
        token = self._tokens[before]
        return token.kind == PUNCTUATOR and (token.value == "." or token.value == "?.")

    def _expects_expression(self, is_brace: bool) -> bool:
        """Whether an expression may begin here, judged by the token before."""
        if not self._tokens:
            # The text is the operand of a return; on a line of its own a brace opens a block.
            return not (is_brace and self._follows_newline)
        position = len(self._tokens) - 1
        last = self._tokens[position]
        # Steps before or behind an operand change nothing.
        while last.kind == PUNCTUATOR and (last.value == "++" or last.value == "--") and position > 0:
            position -= 1
            last = self._tokens[position]
        if last.kind == PUNCTUATOR:
            if last.value == ")":
                return not last.is_tail and not is_brace
            if last.value == "]" or last.value == "." or last.value == "?.":
                return False
            if last.value == "}":
                return not last.is_tail
            if is_brace and (last.value == ";" or last.value == "{"):
                return False
            if is_brace and last.value == ":":
                return (bool(self._braces) and self._braces[-1] == "o") or self._has_question()
            return not (is_brace and last.value == "=>")
        if last.kind == KEYWORD and not self._is_member(-1):
            if is_brace and last.value in ("else", "do"):
                return False
            if is_brace and last.value == "return":
                return not self._follows_newline
            return last.value in _KEYWORDS_BEFORE_EXPRESSION
        return last.kind == TEMPLATE and not last.is_tail

    def _has_question(self) -> bool:
        for token in reversed(self._tokens):
            if token.kind == PUNCTUATOR:
                if token.value == "?":
                    return True
                if token.value in (";", "{", "}"):
                    return False
        return False

    def _slash(self, at: int) -> None:
        text = self._text
        if not self._expects_expression(False):
            piece = "/=" if text.startswith("=", at + 1) else "/"
            self._at = at + len(piece)
            self._add(PUNCTUATOR, piece, at)
            return
        position = at + 1
        in_class = False
        while True:
            if position >= len(text) or text[position] in _NEWLINES:
                raise RuleTokenError("Unterminated regular expression")
            character = text[position]
            if character == "\\":
                position += 1
                if position >= len(text) or text[position] in _NEWLINES:
                    raise RuleTokenError("Unterminated regular expression")
            elif character == "[":
                in_class = True
            elif character == "]":
                in_class = False
            elif character == "/" and not in_class:
                break
            position += 1
        pattern = text[at + 1 : position]
        position += 1
        start = position
        while position < len(text) and is_identifier_part(text[position]):
            position += 1
        flags = text[start:position]
        if text.startswith("\\", position):
            raise RuleTokenError("Unexpected token")
        parse_regex(pattern, flags)
        self._at = position
        token = self._add(REGEX, pattern, at)
        token.flags = flags

    def _block_comment(self, at: int) -> None:
        end = self._text.find("*/", at + 2)
        if end < 0:
            raise RuleTokenError("Unterminated comment")
        if not self._follows_newline and _has_newline(self._text[at:end]):
            self._follows_newline = True
        self._at = end + 2

    def _string(self, at: int) -> None:
        text = self._text
        quote = text[at]
        parts: list[str] = []
        position = at + 1
        while True:
            if position >= len(text):
                raise RuleTokenError("Unterminated string constant")
            character = text[position]
            if character == quote:
                break
            if character == "\n" or character == "\r":
                raise RuleTokenError("Unterminated string constant")
            if character == "\\":
                piece, position = _escape(text, position)
                parts.append(piece)
            else:
                parts.append(character)
                position += 1
        self._at = position + 1
        self._add(STRING, joined("".join(parts)), at)

    def _template(self, at: int) -> None:
        """One piece of a template: from a backtick or a closing brace to the next hole or the end."""
        text = self._text
        parts: list[str] = []
        position = at + 1
        if position == len(text):
            # A template that does not even begin is for the parser to refuse.
            self._at = position
            self._add(TEMPLATE, "", at).flags = "head" if text[at] == "`" else "middle"
            return
        is_broken = False
        while True:
            if position >= len(text):
                raise RuleTokenError("Unterminated template")
            character = text[position]
            if character == "`":
                break
            if character == "$" and text.startswith("{", position + 1):
                break
            if character == "\\":
                try:
                    piece, position = _escape(text, position)
                except RuleTokenError:
                    # Only the parser refuses it: a tag might want the text as it is written.
                    is_broken = True
                    piece = ""
                    position += 2
                parts.append(piece)
            elif character == "\r":
                parts.append("\n")
                position += 2 if text.startswith("\n", position + 1) else 1
            else:
                parts.append(character)
                position += 1
        is_tail = text[position] == "`"
        self._at = position + (1 if is_tail else 2)
        is_head = text[at] == "`"
        token = self._add(TEMPLATE, joined("".join(parts)), at)
        token.is_tail = is_tail
        token.is_escaped = is_broken
        token.flags = "head" if is_head else "middle"
        if not is_tail:
            self._braces.append("`")

    def _wide_name(self, at: int) -> None:
        """A name with escapes or with letters beyond ASCII."""
        text = self._text
        parts: list[str] = []
        position = at
        is_escaped = False
        while position < len(text):
            character = text[position]
            if character == "\\":
                if not text.startswith("u", position + 1):
                    raise RuleTokenError("Expecting Unicode escape sequence \\uXXXX")
                is_escaped = True
                character, position = _escape(text, position)
                is_fitting = is_identifier_part(character) if parts else is_identifier_start(character)
                if not is_fitting:
                    raise RuleTokenError("Invalid Unicode escape")
                parts.append(character)
                continue
            if not (is_identifier_part(character) if parts else is_identifier_start(character)):
                break
            parts.append(character)
            position += 1
        if not parts:
            raise RuleTokenError(f"Unexpected character '{text[at]}'")
        self._at = position
        name = "".join(parts)
        token = self._add(KEYWORD if name in KEYWORDS else IDENTIFIER, name, at)
        token.is_escaped = is_escaped

    def _refuse_name_here(self) -> None:
        if self._at < len(self._text):
            character = self._text[self._at]
            if character == "\\" or is_identifier_start(character):
                raise RuleTokenError("Identifier directly after number")


def _has_newline(piece: str) -> bool:
    return "\n" in piece or "\r" in piece or "\u2028" in piece or "\u2029" in piece


def _escape(text: str, at: int) -> tuple[str, int]:
    """The character behind a backslash, and the position after it."""
    if at + 1 >= len(text):
        raise RuleTokenError("Unterminated string constant")
    character = text[at + 1]
    simple = _SINGLE_ESCAPES.get(character)
    if simple is not None:
        return simple, at + 2
    if character == "\r" and text.startswith("\n", at + 2):
        return "", at + 3
    if character in _NEWLINES:
        return "", at + 2
    if character == "x":
        return _hex_escape(text, at + 2, 2), at + 4
    if character == "u":
        if text.startswith("{", at + 2):
            end = text.find("}", at + 3)
            digits = text[at + 3 : end] if end > 0 else ""
            significant = digits.lstrip("0")
            if not digits or len(significant) > 6 or not _is_hex(digits) or int(digits, 16) > 0x10FFFF:
                raise RuleTokenError("Bad character escape sequence")
            return chr(int(digits, 16)), end + 1
        return _hex_escape(text, at + 2, 4), at + 6
    if "0" <= character <= "9":
        if character == "0" and not (at + 2 < len(text) and "0" <= text[at + 2] <= "9"):
            return "\0", at + 2
        raise RuleTokenError("Octal literal in strict mode")
    return character, at + 2


def _hex_escape(text: str, start: int, length: int) -> str:
    digits = text[start : start + length]
    if len(digits) < length or not _is_hex(digits):
        raise RuleTokenError("Bad character escape sequence")
    return chr(int(digits, 16))


def _is_hex(digits: str) -> bool:
    return all(digit in _HEX_DIGITS for digit in digits)
