"""Inputs of a call from the words of a command line, turned into what the method's schema wants.

`key=value` by the schema's type · `key=@file` a file's text, bytes or JSON by the schema (`@-` is standard input) ·
`key:=JSON` as it stands · `key=@@x` a text that begins with @.
"""

import base64
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from openresource.cli.output import usage_error
from openresource.primitives.encoding import parse_json
from openresource.primitives.errors import Refusal

INPUT_BYTES_MAX = 64 * 1024 * 1024
JSON_DEPTH_MAX = 64
TRUE_WORDS = ("true", "yes", "1")
FALSE_WORDS = ("false", "no", "0")


class InputNotUnderstood(Refusal):
    template = "The input {name} is {found}, but {expected}."
    way_out = "Write key=value, key=@file, or key:=JSON; see what the method takes: openresource services SERVICE --interface"
    exit_code = 2


class InputTooLarge(Refusal):
    template = "{file} has more than {bytes_max} bytes."
    way_out = "Send less at once."


@dataclass(frozen=True, slots=True)
class Given:
    """A method and its inputs as somebody typed them: in words, or all in one file."""

    method: str | None
    pairs: tuple[str, ...]
    file: str | None

    def inputs(self, schema: Mapping[str, Any]) -> dict[str, Any]:
        """The inputs by name, typed as the method's schema says."""
        return whole_input(self.file) if self.file is not None else inputs_from(self.pairs, schema)


def given(words: tuple[str, ...], file: str | None) -> Given:
    """The first word names the method unless it is an input."""
    is_named = bool(words) and "=" not in words[0]
    pairs = words[1:] if is_named else words
    if file is not None and pairs:
        usage_error("Give the inputs as key=value or in --input, not both.")
    return Given(words[0] if is_named else None, pairs, file)


def whole_input(file: str) -> dict[str, Any]:
    """The JSON object in a file, or on standard input for `-`."""
    value = _json("--input", _read(file))
    if not isinstance(value, dict):
        raise InputNotUnderstood(name="--input", found="not an object", expected="inputs are named")
    return value


def inputs_from(words: Sequence[str], schema: Mapping[str, Any]) -> dict[str, Any]:
    """The inputs that words like `text=hello` name."""
    found: dict[str, Any] = {}
    properties = schema.get("properties") or {}
    for word in words:
        name, equals, text = word.partition("=")
        if not equals or not name:
            raise InputNotUnderstood(
                name=word[:60], found="not of the form key=value", expected="every input has a name"
            )
        if name.endswith(":"):
            name = name[:-1]
            value = _json(name, text.encode())
        else:
            value = _value(name, text, properties.get(name) or {})
        if name in found:
            raise InputNotUnderstood(name=name, found="given twice", expected="each input is given once")
        found[name] = value
    return found


def _value(name: str, text: str, schema: Mapping[str, Any]) -> Any:
    if text.startswith("@@"):
        return text[1:]
    if text.startswith("@"):
        return _from_bytes(name, _read(text[1:]), schema)
    if schema.get("contentEncoding") == "base64":
        return base64.b64encode(text.encode()).decode()
    return _typed(name, text, schema)


def _from_bytes(name: str, content: bytes, schema: Mapping[str, Any]) -> Any:
    if schema.get("contentEncoding") == "base64":
        return base64.b64encode(content).decode()
    kinds = _kinds(schema)
    if "string" in kinds or not kinds:
        try:
            return content.decode()
        except UnicodeDecodeError:
            raise InputNotUnderstood(
                name=name, found="a file that is not UTF-8 text", expected="the method takes text here"
            ) from None
    return _json(name, content)


def _typed(name: str, text: str, schema: Mapping[str, Any]) -> Any:
    if "enum" in schema and text in schema["enum"]:
        return text
    kinds = _kinds(schema)
    if "string" in kinds:
        return text
    if kinds == {"boolean"} and text.lower() in (*TRUE_WORDS, *FALSE_WORDS):
        return text.lower() in TRUE_WORDS
    try:
        return _json(name, text.encode())
    except InputNotUnderstood:
        if kinds:
            expected = "it must be " + " or ".join(sorted(kinds))
            if kinds & {"array", "object"}:
                expected += ", written as JSON"
            raise InputNotUnderstood(name=name, found=repr(text[:60]), expected=expected) from None
        return text


def _kinds(schema: Mapping[str, Any]) -> set[str]:
    """The types that a schema allows; empty if it says nothing."""
    kinds = schema.get("type")
    found = set(kinds) if isinstance(kinds, list) else {kinds} if isinstance(kinds, str) else set()
    for choice in schema.get("anyOf") or ():
        if isinstance(choice, Mapping):
            found |= _kinds(choice)
    return found


def _json(name: str, content: bytes) -> Any:
    try:
        return parse_json(content, bytes_max=INPUT_BYTES_MAX, depth_max=JSON_DEPTH_MAX)
    except Refusal as refusal:
        raise InputNotUnderstood(name=name, found="not JSON", expected=refusal.message) from None


def _read(file: str) -> bytes:
    if file == "-":
        content = sys.stdin.buffer.read(INPUT_BYTES_MAX + 1)
    else:
        with Path(file).open("rb") as opened:
            content = opened.read(INPUT_BYTES_MAX + 1)
    if len(content) > INPUT_BYTES_MAX:
        raise InputTooLarge(file=file, bytes_max=INPUT_BYTES_MAX)
    return content


def usage_of(service: str, method: Any) -> str:
    """A command line that calls a method, with its example's input where there is one."""
    example = method.example.get("input") if method.example else None
    words = [f"openresource call {service} {method.name}"]
    if isinstance(example, Mapping):
        words.extend(_word(name, value) for name, value in example.items())
    else:
        words.extend(f"{name}=…" for name in method.parameters)
    return " ".join(words)


def _word(name: str, value: Any) -> str:
    import shlex

    if isinstance(value, str):
        return shlex.quote(f"{name}={value}" if not value.startswith("@") else f"{name}=@{value}")
    return shlex.quote(f"{name}:={json.dumps(value, ensure_ascii=False)}")
