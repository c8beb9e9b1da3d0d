"""What texts can do: the standard members of JavaScript's strings, in UTF-16 code units."""

from __future__ import annotations

import math
import unicodedata
from typing import Final

from openresource.ledger.rules.errors import RuleThrow
from openresource.ledger.rules.meter import Meter
from openresource.ledger.rules.numerals import WHITE_SPACE
from openresource.ledger.rules.regular import regex_matches, regex_replace, regex_search, regex_split
from openresource.ledger.rules.text import joined, units
from openresource.ledger.rules.values import (
    UNDEFINED,
    Function,
    Regex,
    call,
    to_integer,
    to_number,
    to_string,
    to_uint32,
)


def this_text(this: object, meter: Meter) -> str:
    """The text that a method was called on."""
    if this is None or this is UNDEFINED:
        raise RuleThrow("String.prototype method called on null or undefined")
    text = to_string(this, meter)
    meter.spend_text(len(text))
    return text


def _units(this: object, meter: Meter) -> str:
    return units(this_text(this, meter))


def _clamped(value: object, length: int, default: int, meter: Meter) -> int:
    """A position between 0 and a length."""
    if value is UNDEFINED:
        return default
    number = to_integer(value, meter)
    return int(min(max(number, 0), length))


def _relative(value: object, length: int, default: int, meter: Meter) -> int:
    """A position that counts from the end if it is negative."""
    if value is UNDEFINED:
        return default
    number = to_integer(value, meter)
    return int(max(length + number, 0)) if number < 0 else int(min(number, length))


def _char_at(meter: Meter, this: object, arguments: list[object]) -> object:
    text = _units(this, meter)
    at = to_integer(arguments[0], meter)
    return text[int(at)] if 0 <= at < len(text) else ""


def _char_code_at(meter: Meter, this: object, arguments: list[object]) -> object:
    text = _units(this, meter)
    at = to_integer(arguments[0], meter)
    return ord(text[int(at)]) if 0 <= at < len(text) else math.nan


def _code_point_at(meter: Meter, this: object, arguments: list[object]) -> object:
    text = _units(this, meter)
    at = to_integer(arguments[0], meter)
    if not 0 <= at < len(text):
        return UNDEFINED
    return ord(joined(text[int(at) : int(at) + 2])[0])


def _at(meter: Meter, this: object, arguments: list[object]) -> object:
    text = _units(this, meter)
    at = to_integer(arguments[0], meter)
    at = at + len(text) if at < 0 else at
    return text[int(at)] if 0 <= at < len(text) else UNDEFINED


def _concat(meter: Meter, this: object, arguments: list[object]) -> object:
    text = this_text(this, meter)
    for argument in arguments:
        piece = to_string(argument, meter)
        meter.spend_text(len(text) + len(piece))
        text += piece
    return joined(text)


def _no_regex(value: object, meter: Meter) -> str:
    if isinstance(value, Regex):
        raise RuleThrow("First argument must not be a regular expression")
    return units(to_string(value, meter))


def _starts_with(meter: Meter, this: object, arguments: list[object]) -> object:
    text = _units(this, meter)
    piece = _no_regex(arguments[0], meter)
    return text.startswith(piece, _clamped(arguments[1], len(text), 0, meter))


def _ends_with(meter: Meter, this: object, arguments: list[object]) -> object:
    text = _units(this, meter)
    piece = _no_regex(arguments[0], meter)
    end = _clamped(arguments[1], len(text), len(text), meter)
    return text[:end].endswith(piece)


def _includes(meter: Meter, this: object, arguments: list[object]) -> object:
    text = _units(this, meter)
    piece = _no_regex(arguments[0], meter)
    return text.find(piece, _clamped(arguments[1], len(text), 0, meter)) >= 0


def _index_of(meter: Meter, this: object, arguments: list[object]) -> object:
    text = _units(this, meter)
    piece = units(to_string(arguments[0], meter))
    return text.find(piece, _clamped(arguments[1], len(text), 0, meter))


def _last_index_of(meter: Meter, this: object, arguments: list[object]) -> object:
    text = _units(this, meter)
    piece = units(to_string(arguments[0], meter))
    number = to_number(arguments[1], meter)
    start = len(text) if number != number else _clamped(number, len(text), len(text), meter)
    return text.rfind(piece, 0, start + len(piece))


def _normalize(meter: Meter, this: object, arguments: list[object]) -> object:
    text = this_text(this, meter)
    form = "NFC" if arguments[0] is UNDEFINED else to_string(arguments[0], meter)
    meter.spend(len(text))
    if form == "NFC":
        return unicodedata.normalize("NFC", text)
    if form == "NFD":
        return unicodedata.normalize("NFD", text)
    if form == "NFKC":
        return unicodedata.normalize("NFKC", text)
    if form == "NFKD":
        return unicodedata.normalize("NFKD", text)
    raise RuleThrow("The normalization form should be one of NFC, NFD, NFKC, NFKD.")


def _padding(text: str, arguments: list[object], meter: Meter) -> str:
    length = to_integer(arguments[0], meter)
    filler = " " if arguments[1] is UNDEFINED else units(to_string(arguments[1], meter))
    missing = length - len(text)
    if missing <= 0 or not filler:
        return ""
    meter.spend_text(int(min(length, 1 << 40)))
    return (filler * (int(missing) // len(filler) + 1))[: int(missing)]


def _pad_start(meter: Meter, this: object, arguments: list[object]) -> object:
    text = _units(this, meter)
    return joined(_padding(text, arguments, meter) + text)


def _pad_end(meter: Meter, this: object, arguments: list[object]) -> object:
    text = _units(this, meter)
    return joined(text + _padding(text, arguments, meter))


def _repeat(meter: Meter, this: object, arguments: list[object]) -> object:
    text = this_text(this, meter)
    count = to_integer(arguments[0], meter)
    if count < 0 or math.isinf(count):
        raise RuleThrow("Invalid count value")
    meter.spend_text(int(min(len(text) * count, 1 << 40)))
    return joined(text * int(count)) if text else ""


def _slice(meter: Meter, this: object, arguments: list[object]) -> object:
    text = _units(this, meter)
    start = _relative(arguments[0], len(text), 0, meter)
    return joined(text[start : _relative(arguments[1], len(text), len(text), meter)])


def _substring(meter: Meter, this: object, arguments: list[object]) -> object:
    text = _units(this, meter)
    start = _clamped(arguments[0], len(text), 0, meter)
    end = _clamped(arguments[1], len(text), len(text), meter)
    return joined(text[min(start, end) : max(start, end)])


def _substr(meter: Meter, this: object, arguments: list[object]) -> object:
    text = _units(this, meter)
    start = _relative(arguments[0], len(text), 0, meter)
    count = _clamped(arguments[1], len(text), len(text), meter)
    return joined(text[start : start + count])


def _to_lower(meter: Meter, this: object, arguments: list[object]) -> object:
    return this_text(this, meter).lower()


def _to_upper(meter: Meter, this: object, arguments: list[object]) -> object:
    return this_text(this, meter).upper()


def _trim(meter: Meter, this: object, arguments: list[object]) -> object:
    return this_text(this, meter).strip(WHITE_SPACE)


def _trim_start(meter: Meter, this: object, arguments: list[object]) -> object:
    return this_text(this, meter).lstrip(WHITE_SPACE)


def _trim_end(meter: Meter, this: object, arguments: list[object]) -> object:
    return this_text(this, meter).rstrip(WHITE_SPACE)


def _same(meter: Meter, this: object, arguments: list[object]) -> object:
    return this_text(this, meter)


def _split(meter: Meter, this: object, arguments: list[object]) -> object:
    text = _units(this, meter)
    limit = 0xFFFFFFFF if arguments[1] is UNDEFINED else to_uint32(arguments[1], meter)
    separator = arguments[0]
    if isinstance(separator, Regex):
        return regex_split(separator, text, limit, meter)
    if separator is UNDEFINED:
        return [joined(text)] if limit > 0 else []
    mark = units(to_string(separator, meter))
    pieces = text.split(mark) if mark else list(text)
    meter.spend_items(len(pieces))
    return [joined(piece) for piece in pieces[:limit]]


def _replace(meter: Meter, this: object, arguments: list[object]) -> object:
    text = _units(this, meter)
    pattern = arguments[0]
    if isinstance(pattern, Regex):
        return regex_replace(pattern, text, arguments[1], meter)
    return _replace_text(text, units(to_string(pattern, meter)), arguments[1], False, meter)


def _replace_all(meter: Meter, this: object, arguments: list[object]) -> object:
    text = _units(this, meter)
    pattern = arguments[0]
    if isinstance(pattern, Regex):
        if "g" not in pattern.flags:
            raise RuleThrow("replaceAll must be called with a global RegExp")
        return regex_replace(pattern, text, arguments[1], meter)
    return _replace_text(text, units(to_string(pattern, meter)), arguments[1], True, meter)


def _replace_text(text: str, piece: str, replacement: object, is_all: bool, meter: Meter) -> str:
    template = replacement if isinstance(replacement, Function) else units(to_string(replacement, meter))
    parts: list[str] = []
    done = 0
    length = 0
    at = text.find(piece)
    while at >= 0:
        meter.spend(1)
        if isinstance(template, Function):
            new = units(to_string(call(template, meter, UNDEFINED, [joined(piece), at, joined(text)]), meter))
        else:
            new = _expanded(template, text, at, piece)
        parts.append(text[done:at])
        parts.append(new)
        length += at - done + len(new)
        meter.spend_text(at - done + len(new))
        meter.refuse_text(length)
        done = at + len(piece)
        if not is_all or done > len(text):
            break
        at = text.find(piece, done if piece else done + 1)
    return joined("".join(parts) + text[done:])


def _expanded(template: str, text: str, at: int, piece: str) -> str:
    """A replacement with $$, $&, $` and $' filled in."""
    if "$" not in template:
        return template
    parts: list[str] = []
    position = 0
    while position < len(template):
        mark = template[position : position + 2]
        if mark == "$$":
            parts.append("$")
        elif mark == "$&":
            parts.append(piece)
        elif mark == "$`":
            parts.append(text[:at])
        elif mark == "$'":
            parts.append(text[at + len(piece) :])
        else:
            parts.append(template[position])
            position -= 1
        position += 2
    return "".join(parts)


def _match(meter: Meter, this: object, arguments: list[object]) -> object:
    return regex_matches(arguments[0], _units(this, meter), meter)


def _search(meter: Meter, this: object, arguments: list[object]) -> object:
    return regex_search(arguments[0], _units(this, meter), meter)


STRING_METHODS: Final[dict[str, Function]] = {
    function.name: function
    for function in (
        Function("at", 1, _at),
        Function("charAt", 1, _char_at),
        Function("charCodeAt", 1, _char_code_at),
        Function("codePointAt", 1, _code_point_at),
        Function("concat", 0, _concat),
        Function("endsWith", 2, _ends_with),
        Function("includes", 2, _includes),
        Function("indexOf", 2, _index_of),
        Function("lastIndexOf", 2, _last_index_of),
        Function("match", 1, _match),
        Function("normalize", 1, _normalize),
        Function("padEnd", 2, _pad_end),
        Function("padStart", 2, _pad_start),
        Function("repeat", 1, _repeat),
        Function("replace", 2, _replace),
        Function("replaceAll", 2, _replace_all),
        Function("search", 1, _search),
        Function("slice", 2, _slice),
        Function("split", 2, _split),
        Function("startsWith", 2, _starts_with),
        Function("substr", 2, _substr),
        Function("substring", 2, _substring),
        Function("toLocaleLowerCase", 0, _to_lower),
        Function("toLocaleUpperCase", 0, _to_upper),
        Function("toLowerCase", 0, _to_lower),
        Function("toString", 0, _same),
        Function("toUpperCase", 0, _to_upper),
        Function("trim", 0, _trim),
        Function("trimEnd", 0, _trim_end),
        Function("trimLeft", 0, _trim_start),
        Function("trimRight", 0, _trim_end),
        Function("trimStart", 0, _trim_start),
        Function("valueOf", 0, _same),
    )
}
