"""Forms made from a method's description, and the inputs that a browser sends back with them.

Bodies are read within bounds, as `application/x-www-form-urlencoded` or `multipart/form-data`. What a person typed is
turned into what the description wants; whether it fits is decided by the description itself, before anything is paid.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal
from urllib.parse import parse_qsl

from starlette.requests import ClientDisconnect, Request

from openresource.client.services import Method
from openresource.primitives.encoding import parse_json
from openresource.primitives.errors import Refusal

BODY_BYTES_MAX: Final = 16 * 1024 * 1024
FIELDS_MAX: Final = 200
PART_HEAD_BYTES_MAX: Final = 4 * 1024
JSON_DEPTH_MAX: Final = 64
FIELDS_SHOWN_MAX: Final = 60
CHOICES_SHOWN_MAX: Final = 200
LONG_TEXT_CHARACTERS: Final = 60
PREFIX: Final = "in."
FILE_PREFIX: Final = "file."
WHOLE: Final = "whole"

FieldKind = Literal["text", "long", "number", "switch", "choice", "lines", "file", "json"]

_NAME = re.compile(rb'(?<![A-Za-z])name="([^"]*)"')
_FILE_NAME = re.compile(rb'filename="([^"]*)"')


class BodyTooLarge(Refusal):
    template = "The form has more than {bytes_max} bytes."
    way_out = "Send a smaller file here, or use: openresource call"


class FormNotUnderstood(Refusal):
    template = "The form cannot be read: {reason}."
    way_out = "Load the page again and send it from there."


class FieldNotUnderstood(Refusal):
    template = "{name} is {found}, but {expected}."
    way_out = "Correct it and call again; nothing was paid."


@dataclass(frozen=True, slots=True)
class Field:
    """One input of a method as a form shows it."""

    name: str
    kind: FieldKind
    label: str
    about: str
    is_required: bool
    value: str = ""
    is_on: bool = False
    choices: tuple[str, ...] = ()
    # Attributes of a number's input; empty where the description sets no bound.
    minimum: str = ""
    maximum: str = ""
    step: str = "any"
    takes_file: bool = False

    @property
    def identifier(self) -> str:
        """Ties the label to its input."""
        return "in-" + re.sub(r"[^A-Za-z0-9_-]", "-", self.name)


@dataclass(frozen=True, slots=True)
class Form:
    """What a browser sent: texts by name, files by name."""

    texts: Mapping[str, str] = field(default_factory=dict)
    files: Mapping[str, bytes] = field(default_factory=dict)


# From a description to fields.


def fields_of(method: Method) -> tuple[Field, ...]:
    """The fields of a method's form, filled with its example; without described inputs one field takes JSON."""
    properties = method.input.get("properties")
    example = method.example.get("input") if method.example else None
    values = example if isinstance(example, Mapping) else {}
    if not isinstance(properties, Mapping) or len(properties) > FIELDS_SHOWN_MAX:
        return (_whole(values),)
    required = method.input.get("required")
    names = required if isinstance(required, list | tuple) else ()
    fields = [
        _field(str(name), without_null(schema), name in names, values) for name, schema in properties.items()
    ]
    # What is needed comes first.
    return tuple(sorted(fields, key=lambda one: one.name not in names))


def _whole(values: Mapping[str, Any]) -> Field:
    return Field(
        WHOLE, "json", "Input", "All inputs as one JSON object.", True, value=_json_text(dict(values))
    )


def _field(name: str, schema: Mapping[str, Any], is_required: bool, values: Mapping[str, Any]) -> Field:
    value = values.get(name, schema.get("default"))
    kind = _kind(schema, value)
    about = str(schema.get("description") or schema.get("title") or "")
    if kind == "json":
        about = about or "Written as JSON."
    if kind == "lines":
        about = (about + " " if about else "") + "One per line."
    return Field(
        name=name,
        kind=kind,
        label=name[:1].upper() + name[1:].replace("_", " "),
        about=about,
        is_required=is_required and kind not in ("switch",),
        value=_shown(kind, value),
        is_on=value is True,
        choices=_choices(schema) if kind == "choice" else (),
        minimum=_bound(schema.get("minimum")),
        maximum=_bound(schema.get("maximum")),
        step="1" if "integer" in kinds_of(schema) and "number" not in kinds_of(schema) else "any",
        takes_file=kind == "long",
    )


def _kind(schema: Mapping[str, Any], value: Any) -> FieldKind:
    kinds = kinds_of(schema) - {"null"}
    choices = schema.get("enum")
    if isinstance(choices, list | tuple) and 0 < len(choices) <= CHOICES_SHOWN_MAX:
        return "choice"
    if schema.get("contentEncoding") == "base64":
        return "file"
    if kinds == {"string"}:
        return "long" if _is_long(schema, value) else "text"
    if kinds and kinds <= {"integer", "number"}:
        return "number"
    if kinds == {"boolean"}:
        return "switch"
    if kinds == {"array"} and isinstance(schema.get("items"), Mapping):
        inner = kinds_of(schema["items"])
        if inner == {"string"} and schema["items"].get("contentEncoding") is None:
            return "lines"
    return "json"


def without_null(schema: Any) -> Mapping[str, Any]:
    """The description of a value that may be left out: its only kind besides null; others stay as they are."""
    if not isinstance(schema, Mapping):
        return {}
    choices = schema.get("anyOf")
    if not isinstance(choices, list):
        return schema
    others = [one for one in choices if not (isinstance(one, Mapping) and one.get("type") == "null")]
    if len(others) != 1 or not isinstance(others[0], Mapping):
        return schema
    return {**others[0], **{name: part for name, part in schema.items() if name != "anyOf"}}


def kinds_of(schema: Mapping[str, Any]) -> set[str]:
    """The types that a description allows; empty if it says nothing."""
    kinds = schema.get("type")
    found = {kind for kind in (kinds if isinstance(kinds, list) else [kinds]) if isinstance(kind, str)}
    # Several kinds at once are written as JSON.
    return found if "anyOf" not in schema else found | {"object"}


def _is_long(schema: Mapping[str, Any], value: Any) -> bool:
    longest = schema.get("maxLength")
    if isinstance(longest, int) and longest <= LONG_TEXT_CHARACTERS:
        return False
    if isinstance(value, str) and ("\n" in value or len(value) > LONG_TEXT_CHARACTERS):
        return True
    return "format" not in schema


def _choices(schema: Mapping[str, Any]) -> tuple[str, ...]:
    return tuple(choice if isinstance(choice, str) else json.dumps(choice) for choice in schema["enum"])


def _bound(value: Any) -> str:
    return json.dumps(value) if isinstance(value, int | float) and not isinstance(value, bool) else ""


def _shown(kind: FieldKind, value: Any) -> str:
    if value is None or kind in ("switch", "file"):
        return ""
    if kind == "lines" and isinstance(value, list):
        return "\n".join(str(item) for item in value)
    return value if isinstance(value, str) and kind != "json" else _json_text(value)


def _json_text(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, indent=2 if isinstance(value, dict) else None)


# From what a browser sent to inputs.


def inputs_from(form: Form, fields: tuple[Field, ...], schema: Mapping[str, Any]) -> dict[str, Any]:
    """The inputs of a call; what was left empty and is not required is left out."""
    if len(fields) == 1 and fields[0].name == WHOLE:
        value = _json(fields[0].label, form.texts.get(PREFIX + WHOLE, ""))
        if not isinstance(value, dict):
            raise FieldNotUnderstood(name="The input", found="not an object", expected="inputs are named")
        return value
    properties: Mapping[str, Any] = schema.get("properties") or {}
    found: dict[str, Any] = {}
    for one in fields:
        given = _given(form, one, without_null(properties.get(one.name)))
        if given is not None:
            found[one.name] = given
    return found


def _given(form: Form, one: Field, schema: Mapping[str, Any]) -> Any:
    text = form.texts.get(PREFIX + one.name, "")
    content = form.files.get(FILE_PREFIX + one.name, b"")
    match one.kind:
        case "switch":
            return text == "on"
        case "file":
            return base64.b64encode(content).decode() if content or one.is_required else None
        case "lines":
            lines = [line for line in text.replace("\r\n", "\n").split("\n") if line.strip()]
            return lines if lines or one.is_required else None
        case "long" if content:
            return _text(one.label, content)
        case "long" | "text":
            # Browsers send line ends as two characters whatever was typed.
            return text.replace("\r\n", "\n") if text or one.is_required else None
        case "choice":
            return _chosen(text, schema) if text or one.is_required else None
        case _:
            return _json(one.label, text) if text.strip() or one.is_required else None


def _chosen(text: str, schema: Mapping[str, Any]) -> Any:
    for choice in schema.get("enum", ()):
        if text == (choice if isinstance(choice, str) else json.dumps(choice)):
            return choice
    return text


def _text(name: str, content: bytes) -> str:
    try:
        return content.decode()
    except UnicodeDecodeError:
        raise FieldNotUnderstood(
            name=name, found="a file that is not UTF-8 text", expected="this method takes text here"
        ) from None


def _json(name: str, text: str) -> Any:
    try:
        return parse_json(text.encode(), bytes_max=BODY_BYTES_MAX, depth_max=JSON_DEPTH_MAX)
    except (Refusal, UnicodeEncodeError) as refusal:
        reason = refusal.message if isinstance(refusal, Refusal) else "it is not UTF-8"
        raise FieldNotUnderstood(
            name=name, found="not understood", expected=f"JSON is needed: {reason}"
        ) from None


# Bodies.


async def read_form(request: Request, bytes_max: int = BODY_BYTES_MAX) -> Form:
    """The form in a request's body; what claims to be too large is not even read."""
    claimed = request.headers.get("content-length", "")
    if claimed.isdigit() and int(claimed) > bytes_max:
        raise BodyTooLarge(bytes_max=bytes_max)
    body = bytearray()
    try:
        async for piece in request.stream():
            body += piece
            if len(body) > bytes_max:
                raise BodyTooLarge(bytes_max=bytes_max)
    except ClientDisconnect:
        raise FormNotUnderstood(reason="it broke off") from None
    kind, _, parameters = request.headers.get("content-type", "").partition(";")
    match kind.strip().lower():
        case "application/x-www-form-urlencoded":
            return _from_text(bytes(body))
        case "multipart/form-data":
            return _from_parts(bytes(body), _boundary(parameters))
    raise FormNotUnderstood(reason="it is of a type that is not read here")


def _from_text(body: bytes) -> Form:
    try:
        pairs = parse_qsl(
            body.decode("ascii"), keep_blank_values=True, max_num_fields=FIELDS_MAX, errors="strict"
        )
    except ValueError as error:
        raise FormNotUnderstood(reason=str(error)) from None
    return Form(texts=dict(pairs))


def _boundary(parameters: str) -> bytes:
    for part in parameters.split(";"):
        name, _, value = part.strip().partition("=")
        if name.lower() == "boundary" and 0 < len(value.strip('"')) <= 200 and value.isascii():
            return b"--" + value.strip('"').encode()
    raise FormNotUnderstood(reason="it names no boundary")


def _from_parts(body: bytes, boundary: bytes) -> Form:
    """RFC 7578: parts between boundaries, each with a head that names it."""
    if not body.startswith(boundary):
        raise FormNotUnderstood(reason="it does not begin with its boundary")
    texts: dict[str, str] = {}
    files: dict[str, bytes] = {}
    pieces = body[len(boundary) :].split(b"\r\n" + boundary, FIELDS_MAX + 1)
    if len(pieces) > FIELDS_MAX:
        raise FormNotUnderstood(reason=f"it has more than {FIELDS_MAX} parts")
    for piece in pieces:
        if piece.startswith(b"--"):
            break
        head, separator, content = piece.partition(b"\r\n\r\n")
        named = _NAME.search(head)
        if not separator or named is None or len(head) > PART_HEAD_BYTES_MAX:
            raise FormNotUnderstood(reason="one of its parts has no name")
        name = named[1].decode("utf-8", "replace")
        if _FILE_NAME.search(head) is not None:
            files[name] = content
        else:
            texts[name] = content.decode("utf-8", "replace")
    return Form(texts, files)
