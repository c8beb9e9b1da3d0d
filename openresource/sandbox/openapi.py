"""Reads what an HTTP program says of itself in an OpenAPI document: its methods, and how each becomes a request.

A stranger wrote the document: its size, depth and counts have bounds, references are followed a few steps only, and
what is not understood is left out rather than guessed.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from openresource.market.schemas import ANNOTATIONS, KEYWORDS, InvalidSchema, check_schema

DOCUMENT_BYTES_MAX: Final = 1 << 20
OPERATIONS_MAX: Final = 60
PARAMETERS_MAX: Final = 40
SCHEMA_DEPTH_MAX: Final = 10
SCHEMA_PARTS_MAX: Final = 400
SUMMARY_CHARACTERS_MAX: Final = 300
VERBS: Final = ("get", "post", "put", "patch", "delete")
JSON_BODY: Final = "application/json"
FORM_BODY: Final = "application/x-www-form-urlencoded"
PARTS_BODY: Final = "multipart/form-data"
BYTES_BODY: Final = "application/octet-stream"
BODIES: Final = (JSON_BODY, FORM_BODY, PARTS_BODY, BYTES_BODY)

_NOT_IN_NAMES = re.compile(r"[^A-Za-z0-9]+")
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_-]{0,63}")
_PATH = re.compile(r"/[!-~]{0,500}")
_HOLE = re.compile(r"\{([A-Za-z0-9_.-]{1,64})\}")
_KEPT: Final = (KEYWORDS | ANNOTATIONS) - {"$schema", "$id", "$comment", "examples"}


@dataclass(frozen=True, slots=True)
class Route:
    """How the input of a method becomes a request: which members go into the path, the query and the body."""

    verb: str
    path: str
    in_path: tuple[str, ...] = ()
    in_query: tuple[str, ...] = ()
    in_body: tuple[str, ...] = ()
    # The body is this one member's value, not an object of members.
    whole_body: str = ""
    body_type: str = ""
    # Members that are bytes, base64 in the input.
    binary: frozenset[str] = frozenset()


def read_openapi(content: bytes) -> tuple[list[dict[str, Any]], dict[str, Route]]:
    """The methods that a document describes and their routes; empty where it is none."""
    try:
        document = json.loads(content[: DOCUMENT_BYTES_MAX + 1])
    except (ValueError, RecursionError):
        return [], {}
    paths = document.get("paths") if isinstance(document, dict) else None
    if not isinstance(paths, dict) or not isinstance(document.get("openapi"), str):
        return [], {}
    methods: list[dict[str, Any]] = []
    routes: dict[str, Route] = {}
    for path, entry in paths.items():
        if not isinstance(entry, dict) or _PATH.fullmatch(path) is None:
            continue
        for verb in VERBS:
            if len(methods) >= OPERATIONS_MAX:
                return methods, routes
            if isinstance(entry.get(verb), dict):
                read = _operation(document, path, verb, entry[verb], entry.get("parameters"))
                name = _name(path, verb, entry[verb], routes)
                if read is not None and name:
                    described, route = read
                    methods.append({"name": name, **described})
                    routes[name] = route
    return methods, routes


def _operation(
    document: dict[str, Any], path: str, verb: str, operation: dict[str, Any], shared: object
) -> tuple[dict[str, Any], Route] | None:
    """One operation's part of the interface and its route; None where an input could not be sent."""
    properties: dict[str, Any] = {}
    required: list[str] = []
    places: dict[str, list[str]] = {"path": [], "query": []}
    for parameter in [*_list(shared), *_list(operation.get("parameters"))][:PARAMETERS_MAX]:
        parameter = _resolved(document, parameter)
        name, place = parameter.get("name"), parameter.get("in")
        if not isinstance(name, str) or len(name) > 64:
            continue
        if place not in places:
            if parameter.get("required") is True and place != "cookie":
                return None
            continue
        if name not in places[place]:
            places[place].append(name)
        properties[name] = {**_schema(document, parameter.get("schema")), **_words(parameter)}
        if (parameter.get("required") is True or place == "path") and name not in required:
            required.append(name)
    if set(_HOLE.findall(path)) - set(places["path"]):
        return None
    body = _resolved(document, operation.get("requestBody"))
    route = Route(verb.upper(), path, tuple(places["path"]), tuple(places["query"]))
    if body:
        with_body = _body(document, body, route, properties, required)
        if with_body is None:
            return None
        route = with_body
    summary = operation.get("summary") or operation.get("description") or ""
    return {
        "summary": " ".join(str(summary).split())[:SUMMARY_CHARACTERS_MAX],
        "input": {
            "type": "object",
            "properties": properties,
            "required": required,
            "additionalProperties": False,
        },
        "output": _output(document, operation),
        "stream": False,
    }, route


def _body(
    document: dict[str, Any],
    body: dict[str, Any],
    route: Route,
    properties: dict[str, Any],
    required: list[str],
) -> Route | None:
    """The route with its body; the members of an object stand beside the parameters."""
    content = body.get("content")
    content = content if isinstance(content, dict) else {}
    kind = next((kind for kind in BODIES if kind in content), "")
    if not kind:
        return None if body.get("required") is True else route
    stated = _table(content[kind]).get("schema")
    schema = _schema(document, stated)
    if kind == BYTES_BODY:
        schema = {"type": "string", "contentEncoding": "base64"}
    members = _table(schema.get("properties"))
    if schema.get("type") == "object" and members and not set(members) & set(properties):
        properties.update(members)
        wanted = [name for name in _list(schema.get("required")) if name in members]
        if body.get("required") is True or not route.in_path + route.in_query:
            required.extend(wanted)
        binary = frozenset(name for name, part in members.items() if part.get("contentEncoding") == "base64")
        return Route(route.verb, route.path, route.in_path, route.in_query, tuple(members), "", kind,
                     frozenset() if kind == JSON_BODY else binary)  # fmt: skip
    if kind in (FORM_BODY, PARTS_BODY) or "body" in properties:
        return None
    properties["body"] = schema
    if body.get("required") is True:
        required.append("body")
    binary = frozenset(("body",)) if kind == BYTES_BODY else frozenset()
    return Route(route.verb, route.path, route.in_path, route.in_query, (), "body", kind, binary)


def _output(document: dict[str, Any], operation: dict[str, Any]) -> dict[str, Any]:
    responses = _table(operation.get("responses"))
    for status in ("200", "201", "202", "default"):
        response = _resolved(document, responses.get(status))
        content = _table(response.get("content"))
        if JSON_BODY in content:
            return _schema(document, _table(content[JSON_BODY]).get("schema"))
    return {}


def _name(path: str, verb: str, operation: dict[str, Any], taken: Mapping[str, Route]) -> str:
    """What the document calls an operation, without the path that some frameworks append; else made of the path."""
    told = str(operation.get("operationId") or "")
    from_path = "_".join(part for part in _NOT_IN_NAMES.split(path) if part)
    appended = re.sub(r"\W", "_", f"{path}_{verb}")
    candidates = (
        told.removesuffix(appended) if told != appended else "",
        told,
        f"{verb}_{from_path}" if from_path else verb,
    )
    for candidate in candidates:
        name = re.sub(r"[^A-Za-z0-9_-]+", "_", candidate).strip("_-")[:64]
        if _NAME.fullmatch(name) and name not in taken and name != "request":
            return name
    return ""


def _schema(document: dict[str, Any], stated: object) -> dict[str, Any]:
    """A schema in the words that are checked here; one that cannot be put so describes nothing."""
    schema = _plain(document, stated, 0, [SCHEMA_PARTS_MAX])
    try:
        check_schema(schema)
    except InvalidSchema:
        return {}
    return schema


def _plain(document: dict[str, Any], stated: object, depth: int, left: list[int]) -> dict[str, Any]:
    left[0] -= 1
    if depth > SCHEMA_DEPTH_MAX or left[0] < 0:
        return {}
    schema = _resolved(document, stated)
    parts = _list(schema.get("allOf"))
    if len(parts) == 1 and "type" not in schema:
        schema = {**_resolved(document, parts[0]), **{key: schema[key] for key in schema if key != "allOf"}}
    found = {key: schema[key] for key in schema if key in _KEPT}
    kind = found.get("type")
    if isinstance(kind, list):
        found.pop("type")
        choices = [{**found, "type": one} for one in kind if isinstance(one, str)]
        return {"anyOf": [_plain(document, one, depth + 1, left) for one in choices]} if choices else {}
    if schema.get("format") in ("binary", "byte") and kind == "string":
        found = {"type": "string", "contentEncoding": "base64", **_words(schema)}
    for bound in ("exclusiveMinimum", "exclusiveMaximum"):
        if isinstance(found.get(bound), bool):
            found.pop(bound)
    if isinstance(found.get("properties"), dict):
        found["properties"] = {
            str(name): _plain(document, part, depth + 1, left) for name, part in found["properties"].items()
        }
    for key in ("items", "additionalProperties"):
        if isinstance(found.get(key), dict):
            found[key] = _plain(document, found[key], depth + 1, left)
    choices = _list(schema.get("anyOf")) or _list(schema.get("oneOf"))
    found.pop("anyOf", None)
    if choices:
        found["anyOf"] = [_plain(document, choice, depth + 1, left) for choice in choices]
    if schema.get("nullable") is True and "type" in found:
        return {"anyOf": [found, {"type": "null"}]}
    return found


def _resolved(document: dict[str, Any], value: object) -> dict[str, Any]:
    """A part of the document, with a reference inside of it followed."""
    for _ in range(4):
        if not isinstance(value, dict):
            return {}
        reference = value.get("$ref")
        if not isinstance(reference, str):
            return value
        value = document
        for part in reference.removeprefix("#/").split("/")[:8]:
            key = part.replace("~1", "/").replace("~0", "~")
            value = value.get(key) if isinstance(value, dict) else None
    return {}


def _words(part: Mapping[str, Any]) -> dict[str, str]:
    text = part.get("description")
    return {"description": text[:SUMMARY_CHARACTERS_MAX]} if isinstance(text, str) and text else {}


def _table(value: object) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _list(value: object) -> list[Any]:
    return value if isinstance(value, list) else []
