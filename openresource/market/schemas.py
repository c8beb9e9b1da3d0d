"""Decides whether a JSON value fits the description of a method's input or output.

The language is a small subset of JSON Schema: enough for forms, typed functions and files, and small enough that
every keyword is checked for real. `check_schema` judges a description, `check_value` judges a value.
"""

from __future__ import annotations

import binascii
import re
from collections.abc import Mapping
from typing import Any, Final

from openresource.primitives.errors import Refusal

SCHEMA_DEPTH_MAX: Final = 16
SCHEMA_NODES_MAX: Final = 1_000
VALUE_DEPTH_MAX: Final = 64
# Whoever sends a value has not paid yet, and meanwhile everybody else waits.
VALUE_STEPS_MAX: Final = 200_000
FAILED_CHOICE_STEPS: Final = 10
CHOICES_MAX: Final = 1_000
NAME_CHARACTERS_SHOWN: Final = 100

TYPES: Final = ("string", "number", "integer", "boolean", "object", "array", "null")
# Words that explain and never decide.
ANNOTATIONS: Final = frozenset(
    ("$schema", "$id", "title", "description", "default", "examples", "deprecated", "readOnly", "writeOnly",
     "contentMediaType", "$comment")
)  # fmt: skip
_WHOLE_NUMBERS: Final = ("minLength", "maxLength", "minItems", "maxItems")
_NUMBERS: Final = ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum")
KEYWORDS: Final = frozenset(
    ("type", "properties", "required", "additionalProperties", "items", "enum", "const", "anyOf", "format",
     "contentEncoding", *_WHOLE_NUMBERS, *_NUMBERS)
)  # fmt: skip
_FORMATS: Final = {
    "date": re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}"),
    "date-time": re.compile(
        r"[0-9]{4}-[0-9]{2}-[0-9]{2}[Tt ][0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]{1,9})?([Zz]|[+-][0-9]{2}:[0-9]{2})"
    ),
    "email": re.compile(r"[^@\s]{1,64}@[^@\s]{1,255}"),
    "uri": re.compile(r"[A-Za-z][A-Za-z0-9+.\-]{0,31}:\S{1,8192}"),
}

Schema = Mapping[str, Any]

# Where in a value one is: the place around it, and the step from there; made a text only when something is wrong.
_Place = tuple[Any, str | int] | str


class InvalidSchema(Refusal):
    template = "The schema's field {field} is {found}, but {expected}."
    way_out = "Use the keywords that are checked here: type, properties, required, items, enum, minimum, maximum, minLength, maxLength, additionalProperties, contentEncoding."


class InvalidValue(Refusal):
    template = "The field {field} is {found}, but {expected}."
    way_out = "Compare the value with the service's interface: `openresource services SERVICE --interface`."


class ValueTooLarge(Refusal):
    template = "Checking the value would take more than {steps_max} steps."
    way_out = "Send less at once, or send large data as bytes: a text with contentEncoding base64."


def check_schema(schema: object, *, field: str = "schema") -> None:
    """Refuse a description that uses what is not checked here, or that is too large."""
    _check_schema(schema, field, 0, [0])


def check_value(schema: Schema, value: object, *, field: str = "input") -> None:
    """Refuse a value that does not fit; the refusal names the field."""
    _check_value(schema, value, field, 0, [VALUE_STEPS_MAX])


def _check_schema(schema: object, field: str, depth: int, count: list[int]) -> None:
    count[0] += 1
    if depth > SCHEMA_DEPTH_MAX or count[0] > SCHEMA_NODES_MAX:
        raise InvalidSchema(
            field=field,
            found="too large",
            expected=f"at most {SCHEMA_DEPTH_MAX} levels and {SCHEMA_NODES_MAX} parts are read",
        )
    if not isinstance(schema, Mapping):
        raise InvalidSchema(field=field, found=shown(schema), expected="a schema is an object")
    for name in schema:
        if name not in KEYWORDS and name not in ANNOTATIONS:
            raise InvalidSchema(
                field=f"{field}.{name}", found="not known here", expected="nothing would check it"
            )
    _check_types(schema, field)
    for name in _WHOLE_NUMBERS:
        if name in schema and (type(schema[name]) is not int or schema[name] < 0):
            raise InvalidSchema(
                field=f"{field}.{name}", found=shown(schema[name]), expected="a count is a whole number"
            )
    for name in _NUMBERS:
        if name in schema and not _is_number(schema[name]):
            raise InvalidSchema(
                field=f"{field}.{name}", found=shown(schema[name]), expected="a bound is a number"
            )
    for name in ("enum", "anyOf"):
        choices = schema.get(name, ("one",))
        if not isinstance(choices, list | tuple) or not 0 < len(choices) <= CHOICES_MAX:
            raise InvalidSchema(
                field=f"{field}.{name}", found=shown(choices), expected="it lists the choices"
            )
    if schema.get("contentEncoding", "base64") != "base64":
        raise InvalidSchema(
            field=f"{field}.contentEncoding",
            found=shown(schema["contentEncoding"]),
            expected="only base64 is read",
        )
    if not isinstance(schema.get("format", ""), str):
        raise InvalidSchema(
            field=f"{field}.format", found=shown(schema["format"]), expected="a format is a text"
        )
    _check_parts(schema, field, depth, count)


def _check_types(schema: Schema, field: str) -> None:
    if "type" not in schema:
        return
    kinds = schema["type"]
    for kind in kinds if isinstance(kinds, list | tuple) and kinds else [kinds]:
        if not isinstance(kind, str) or kind not in TYPES:
            raise InvalidSchema(
                field=f"{field}.type", found=shown(kind), expected="a type is one of " + ", ".join(TYPES)
            )


def _check_parts(schema: Schema, field: str, depth: int, count: list[int]) -> None:
    properties = schema.get("properties", {})
    if not isinstance(properties, Mapping):
        raise InvalidSchema(field=f"{field}.properties", found=shown(properties), expected="it is an object")
    for name, part in properties.items():
        _check_schema(part, f"{field}.properties.{name}", depth + 1, count)
    required = schema.get("required", [])
    if not isinstance(required, list | tuple) or not all(isinstance(name, str) for name in required):
        raise InvalidSchema(field=f"{field}.required", found=shown(required), expected="it lists names")
    if "items" in schema:
        _check_schema(schema["items"], f"{field}.items", depth + 1, count)
    if not isinstance(schema.get("additionalProperties", True), bool):
        _check_schema(schema["additionalProperties"], f"{field}.additionalProperties", depth + 1, count)
    for number, part in enumerate(schema.get("anyOf", ())):
        _check_schema(part, f"{field}.anyOf[{number}]", depth + 1, count)


def _check_value(schema: Schema, value: object, field: _Place, depth: int, steps: list[int]) -> None:
    _spend(steps, 1)
    if depth > VALUE_DEPTH_MAX:
        raise InvalidValue(
            field=_text(field), found="nested too deeply", expected=f"{VALUE_DEPTH_MAX} levels are read"
        )
    kinds = schema.get("type")
    if kinds is not None:
        kinds = kinds if isinstance(kinds, list | tuple) else (kinds,)
        if not any(_is_a(value, kind) for kind in kinds):
            raise InvalidValue(
                field=_text(field),
                found=shown(value),
                expected="it must be " + " or ".join(map(_article, kinds)),
            )
    if "enum" in schema:
        _spend(steps, len(schema["enum"]))
    if "enum" in schema and not any(_same(value, choice) for choice in schema["enum"]):
        raise InvalidValue(
            field=_text(field),
            found=shown(value),
            expected="it must be one of " + ", ".join(map(shown, schema["enum"][:20])),
        )
    if "const" in schema and not _same(value, schema["const"]):
        raise InvalidValue(
            field=_text(field), found=shown(value), expected=f"it must be {shown(schema['const'])}"
        )
    if "anyOf" in schema:
        _check_choices(schema["anyOf"], value, field, depth, steps)
    if isinstance(value, str):
        _check_text(schema, value, field)
    elif isinstance(value, list | tuple):
        _check_count(schema, "Items", len(value), field, "items")
        if "items" in schema:
            for number, item in enumerate(value):
                _check_value(schema["items"], item, (field, number), depth + 1, steps)
    elif isinstance(value, Mapping):
        _check_object(schema, value, field, depth, steps)
    elif _is_number(value):
        _check_number(schema, value, field)


def _check_choices(choices: Any, value: object, field: _Place, depth: int, steps: list[int]) -> None:
    first: InvalidValue | None = None
    for choice in choices:
        try:
            _check_value(choice, value, field, depth + 1, steps)
            return
        except InvalidValue as refusal:
            _spend(steps, FAILED_CHOICE_STEPS)
            first = first or refusal
    if first is not None:
        raise first


def _check_text(schema: Schema, value: str, field: _Place) -> None:
    _check_count(schema, "Length", len(value), field, "characters")
    if schema.get("contentEncoding") == "base64":
        try:
            binascii.a2b_base64(value.encode("ascii"), strict_mode=True)
        except (ValueError, UnicodeEncodeError):
            raise InvalidValue(
                field=_text(field), found="not base64", expected="bytes travel as base64 text"
            ) from None
    pattern = _FORMATS.get(schema.get("format", ""))
    if pattern is not None and pattern.fullmatch(value) is None:
        raise InvalidValue(
            field=_text(field), found=shown(value), expected=f"it must be a {schema['format']}"
        )


def _check_count(schema: Schema, what: str, count: int, field: _Place, unit: str) -> None:
    if count < schema.get(f"min{what}", 0):
        raise InvalidValue(
            field=_text(field),
            found=f"{count} {unit} long",
            expected=f"at least {schema[f'min{what}']} are needed",
        )
    if f"max{what}" in schema and count > schema[f"max{what}"]:
        raise InvalidValue(
            field=_text(field),
            found=f"{count} {unit} long",
            expected=f"at most {schema[f'max{what}']} are taken",
        )


def _check_number(schema: Schema, value: Any, field: _Place) -> None:
    for name, fits, words in (
        ("minimum", value >= schema.get("minimum", value), "at least"),
        ("maximum", value <= schema.get("maximum", value), "at most"),
        ("exclusiveMinimum", value > schema.get("exclusiveMinimum", value - 1), "more than"),
        ("exclusiveMaximum", value < schema.get("exclusiveMaximum", value + 1), "less than"),
    ):
        if name in schema and not fits:
            raise InvalidValue(
                field=_text(field), found=shown(value), expected=f"it must be {words} {shown(schema[name])}"
            )


def _check_object(
    schema: Schema, value: Mapping[Any, Any], field: _Place, depth: int, steps: list[int]
) -> None:
    properties: Mapping[str, Any] = schema.get("properties", {})
    for name in schema.get("required", ()):
        if name not in value:
            raise InvalidValue(field=_text((field, name)), found="missing", expected="it is required")
    others = schema.get("additionalProperties", True)
    for name, item in value.items():
        if name in properties:
            _check_value(properties[name], item, (field, name), depth + 1, steps)
        elif others is False:
            raise InvalidValue(
                field=_text((field, name)),
                found="not known",
                expected="the names are " + (", ".join(properties) or "none"),
            )
        elif others is not True:
            _check_value(others, item, (field, name), depth + 1, steps)


def _spend(steps: list[int], count: int) -> None:
    steps[0] -= count
    if steps[0] < 0:
        raise ValueTooLarge(steps_max=VALUE_STEPS_MAX)


def _text(place: _Place) -> str:
    parts: list[str] = []
    while not isinstance(place, str):
        place, part = place
        parts.append(f"[{part}]" if isinstance(part, int) else f".{part[:NAME_CHARACTERS_SHOWN]}")
    return place + "".join(reversed(parts))


def _is_a(value: object, kind: str) -> bool:
    match kind:
        case "string":
            return isinstance(value, str)
        case "boolean":
            return isinstance(value, bool)
        case "null":
            return value is None
        case "array":
            return isinstance(value, list | tuple)
        case "object":
            return isinstance(value, Mapping)
        case "integer":
            return _is_number(value) and (
                isinstance(value, int) or (isinstance(value, float) and value.is_integer())
            )
        case _:
            return _is_number(value)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _same(left: object, right: object) -> bool:
    # JSON keeps true and 1 apart, Python does not.
    return left == right and isinstance(left, bool) == isinstance(right, bool)


def _article(kind: object) -> str:
    return f"an {kind}" if str(kind)[:1] in "aio" else ("null" if kind == "null" else f"a {kind}")


def shown(value: object) -> str:
    """A value as a refusal shows it: what it is, and at most a glimpse of its content."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, str):
        return f'"{value[:60]}…"' if len(value) > 60 else f'"{value}"'
    if isinstance(value, Mapping):
        return "an object"
    if isinstance(value, list | tuple):
        return "a list"
    return str(value)[:60]
