"""What regular expressions can do with texts: test, find, replace, split."""

from __future__ import annotations

from openresource.ledger.rules.errors import RuleThrow, RuleTokenError
from openresource.ledger.rules.meter import Meter
from openresource.ledger.rules.regex_matcher import Program
from openresource.ledger.rules.regex_parser import parse_regex
from openresource.ledger.rules.text import joined, units
from openresource.ledger.rules.values import (
    UNDEFINED,
    Function,
    Match,
    Regex,
    call,
    to_string,
)


def make_regex(source: str, flags: str) -> Regex:
    """A regular expression; an invalid one throws."""
    try:
        pattern = parse_regex(source, flags)
    except RuleTokenError as error:
        raise RuleThrow(str(error)) from error
    return Regex(source, flags, Program(pattern))


def regex_exec(regex: Regex, text: str, meter: Meter) -> list[int] | None:
    """The next match in a text of code units, with lastIndex moved as the flags ask."""
    moves = "g" in regex.flags or "y" in regex.flags
    start = regex.last_index if moves else 0
    if start > len(text):
        regex.last_index = 0
        return None
    found = _find(regex, text, start, "y" in regex.flags, meter)
    if moves:
        regex.last_index = 0 if found is None else found[1]
    return found


def match_object(regex: Regex, text: str, found: list[int]) -> Match:
    """A match as exec() returns it."""
    groups: object = UNDEFINED
    names = regex.program.group_names
    if names:
        groups = {name: group_text(text, found, names[name]) for name in names}
    items = [group_text(text, found, group) for group in range(len(found) // 2)]
    return Match(items, found[0], joined(text), groups)


def group_text(text: str, found: list[int], group: int) -> object:
    """What a group has captured, or undefined."""
    begin = found[2 * group]
    end = found[2 * group + 1]
    return joined(text[begin:end]) if begin >= 0 and end >= 0 else UNDEFINED


def regex_matches(pattern: object, text: str, meter: Meter) -> object:
    """What text.match(pattern) gives."""
    regex = pattern if isinstance(pattern, Regex) else _from_text(pattern, meter)
    if "g" not in regex.flags:
        found = regex_exec(regex, text, meter)
        return None if found is None else match_object(regex, text, found)
    pieces: list[object] = [group_text(text, found, 0) for found in _all_matches(regex, text, meter)]
    return pieces or None


def regex_search(pattern: object, text: str, meter: Meter) -> object:
    """Where a pattern is found first, or -1."""
    regex = pattern if isinstance(pattern, Regex) else _from_text(pattern, meter)
    found = _find(regex, text, 0, "y" in regex.flags, meter)
    return -1 if found is None else found[0]


def regex_split(regex: Regex, text: str, limit: int, meter: Meter) -> list[object]:
    """What text.split(regex, limit) gives."""
    pieces: list[object] = []
    if limit == 0:
        return pieces
    if not text:
        return [] if _find(regex, text, 0, True, meter) is not None else [""]
    done = 0
    at = 0
    while at < len(text):
        found = _find(regex, text, at, True, meter)
        if found is None or found[1] == done:
            at = _advanced(regex, text, at)
            continue
        pieces.append(joined(text[done:at]))
        for group in range(1, len(found) // 2):
            pieces.append(group_text(text, found, group))
        if len(pieces) >= limit:
            return pieces[:limit]
        done = found[1]
        at = done
    pieces.append(joined(text[done:]))
    return pieces


def regex_replace(regex: Regex, text: str, replacement: object, meter: Meter) -> str:
    """What text.replace(regex, replacement) gives."""
    template = "" if isinstance(replacement, Function) else units(to_string(replacement, meter))
    matches: list[list[int]] = []
    if "g" in regex.flags:
        matches = _all_matches(regex, text, meter)
    else:
        found = regex_exec(regex, text, meter)
        if found is not None:
            matches = [found]
    parts: list[str] = []
    done = 0
    length = 0
    for found in matches:
        if isinstance(replacement, Function):
            arguments: list[object] = [group_text(text, found, group) for group in range(len(found) // 2)]
            arguments.append(found[0])
            arguments.append(joined(text))
            new = units(to_string(call(replacement, meter, UNDEFINED, arguments), meter))
        else:
            new = _expanded(template, text, found, regex)
        parts.append(text[done : found[0]])
        parts.append(new)
        length += found[0] - done + len(new)
        meter.spend_text(found[0] - done + len(new))
        meter.refuse_text(length)
        done = found[1]
    return joined("".join(parts) + text[done:])


def _from_text(pattern: object, meter: Meter) -> Regex:
    return make_regex("(?:)" if pattern is UNDEFINED else to_string(pattern, meter), "")


def _all_matches(regex: Regex, text: str, meter: Meter) -> list[list[int]]:
    matches: list[list[int]] = []
    at = 0
    while at <= len(text):
        found = _find(regex, text, at, "y" in regex.flags, meter)
        if found is None:
            break
        matches.append(found)
        at = found[1] if found[1] > found[0] else _advanced(regex, text, found[1])
    regex.last_index = 0
    return matches


def _advanced(regex: Regex, text: str, at: int) -> int:
    """The next position at which to look; the flag u passes over both halves of a character."""
    if not regex.program.is_unicode or at + 1 >= len(text):
        return at + 1
    is_pair = 0xD800 <= ord(text[at]) <= 0xDBFF and 0xDC00 <= ord(text[at + 1]) <= 0xDFFF
    return at + 2 if is_pair else at + 1


def _find(regex: Regex, text: str, start: int, is_sticky: bool, meter: Meter) -> list[int] | None:
    """A match in a text of code units; a pattern with the flag u sees whole characters."""
    program = regex.program
    if not program.is_unicode or text.isascii():
        return program.match(text, start, meter) if is_sticky else program.search(text, start, meter)
    whole = joined(text)
    meter.spend_text(len(text))
    # Where each character of the whole text begins in code units.
    offsets: list[int] = []
    offset = 0
    for character in whole:
        offsets.append(offset)
        offset += 2 if character > "\uffff" else 1
    offsets.append(offset)
    begin = 0
    while begin < len(whole) and offsets[begin + 1] <= start:
        begin += 1
    found = program.match(whole, begin, meter) if is_sticky else program.search(whole, begin, meter)
    return None if found is None else [offsets[place] if place >= 0 else -1 for place in found]


def _expanded(template: str, text: str, found: list[int], regex: Regex) -> str:
    """A replacement with $$, $&, $`, $', $1 … $99 and $<name> filled in."""
    if "$" not in template:
        return template
    parts: list[str] = []
    at = 0
    group_count = len(found) // 2 - 1
    names = regex.program.group_names
    while at < len(template):
        mark = template[at + 1 : at + 2] if template[at] == "$" else ""
        taken = 2
        if mark == "$":
            parts.append("$")
        elif mark == "&":
            parts.append(text[found[0] : found[1]])
        elif mark == "`":
            parts.append(text[: found[0]])
        elif mark == "'":
            parts.append(text[found[1] :])
        elif mark and "0" <= mark <= "9":
            digits = template[at + 1 : at + 3]
            if len(digits) == 2 and "0" <= digits[1] <= "9" and 1 <= int(digits) <= group_count:
                taken = 3
            else:
                digits = mark
            if 1 <= int(digits) <= group_count:
                parts.append(_captured(text, found, int(digits)))
            else:
                parts.append("$" + digits)
        elif mark == "<" and names and ">" in template[at:]:
            end = template.index(">", at)
            number = names.get(template[at + 2 : end], 0)
            if number:
                parts.append(_captured(text, found, number))
            taken = end + 1 - at
        else:
            parts.append(template[at])
            taken = 1
        at += taken
    return "".join(parts)


def _captured(text: str, found: list[int], group: int) -> str:
    begin = found[2 * group]
    end = found[2 * group + 1]
    return text[begin:end] if begin >= 0 and end >= 0 else ""
