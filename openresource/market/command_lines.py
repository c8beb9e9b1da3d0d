"""Reads the words of a command line that a method declares: which are constant, and which stand for an input.

    "{name}"             the input's member as text; a list becomes several words where it stands alone
    "{name:file}"        a file made of the member, called like it; "{name:page.png}" calls it page.png
    "{out:page.png}"     a file that the program writes, which is part of the answer
    "{app}"              the folder of the release
    "{{" and "}}"        braces that mean themselves

A word whose member is missing from the input is left out.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from openresource.market.manifest_records import Method
from openresource.market.manifest_tables import InvalidManifest

OUT: Final = "out"
APP: Final = "app"
OWN_NAME: Final = "file"
FILES_SCHEMA: Final[dict[str, Any]] = {
    "type": "object",
    "additionalProperties": {"type": "string", "contentEncoding": "base64"},
}
_PART = re.compile(r"\{\{|\}\}|\{([A-Za-z_][A-Za-z0-9_]{0,63})(?::([A-Za-z0-9_-][A-Za-z0-9._-]{0,127}))?\}")


@dataclass(frozen=True, slots=True)
class Part:
    """A piece of a word: constant text, or a member; with a file name it stands for that file's path."""

    text: str = ""
    member: str = ""
    file: str = ""


def parse_word(word: str) -> tuple[Part, ...]:
    """The pieces of a word."""
    parts: list[Part] = []
    constant = ""
    at = 0
    for match in _PART.finditer(word):
        constant += word[at : match.start()]
        at = match.end()
        if match[1] is None:
            constant += match[0][0]
            continue
        if constant:
            parts.append(Part(text=constant))
            constant = ""
        name = match[1] if match[2] == OWN_NAME else match[2] or ""
        parts.append(Part(member=match[1], file=name))
    constant += word[at:]
    if constant or not parts:
        parts.append(Part(text=constant))
    return tuple(parts)


def inputs_of(args: Sequence[str], stdin: str) -> dict[str, bool]:
    """The members that a command line takes, each with whether it is a file."""
    found: dict[str, bool] = {}
    for word in args:
        for part in parse_word(word):
            if part.member and part.member != OUT and not (part.member == APP and not part.file):
                found[part.member] = found.get(part.member, False) or bool(part.file)
    if stdin:
        found.setdefault(stdin, False)
    return found


def completed(method: Method) -> Method:
    """The method with the schemas that its command line implies, where it declares none."""
    taken = inputs_of(method.args, method.stdin)
    if method.input is None:
        properties: dict[str, Any] = {}
        for name, is_file in taken.items():
            if is_file:
                properties[name] = {"type": "string", "contentEncoding": "base64"}
            else:
                properties[name] = {
                    "type": "string" if name == method.stdin else ["string", "number", "boolean"]
                }
        schema = {
            "type": "object",
            "properties": properties,
            "required": list(properties),
            "additionalProperties": False,
        }
        method = replace(method, input=schema)
    if method.output is None and method.result == "stdout":
        method = replace(method, output={"type": "string"})
    elif method.output is None and method.result == "files":
        output = {
            "type": "object",
            "properties": {"files": FILES_SCHEMA, "stdout": {"type": "string"}},
            "required": ["files", "stdout"],
        }
        method = replace(method, output=output)
    return method


def check_members(method: Method, field: str) -> None:
    """Refuse a command line that names what the input does not have."""
    if not isinstance(method.input, Mapping):
        return
    known = method.input.get("properties")
    if not isinstance(known, Mapping) or method.input.get("additionalProperties") not in (None, False):
        return
    for name in inputs_of(method.args, method.stdin):
        if name not in known:
            raise InvalidManifest(
                field=f"{field}.args",
                found=f'with "{{{name}}}"',
                expected=f"the input has {', '.join(known) or 'no members'}",
                remedy="Add it to the input, or write {{ and }} for braces that mean themselves.",
            )
