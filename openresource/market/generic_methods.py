"""The methods of programs that declare none: any command line, any request, any line of JSON.

They make a program callable that never heard of this project; whoever declares methods gives its callers more.
"""

from __future__ import annotations

from typing import Any, Final

from openresource.market.manifest_records import VERBS, Method

_TEXTS: Final[dict[str, Any]] = {"type": "object", "additionalProperties": {"type": "string"}}
_FILES: Final[dict[str, Any]] = {
    "type": "object",
    "additionalProperties": {"type": "string", "contentEncoding": "base64"},
}

RUN: Final = Method(
    name="run",
    path="/run",
    summary="Runs the program once, with arguments, standard input and files of the caller's.",
    input={
        "type": "object",
        "properties": {
            "args": {"type": "array", "items": {"type": "string"}, "maxItems": 256},
            "stdin": {"type": "string"},
            "files": {**_FILES, "description": "name and content of files that it finds in its folder"},
        },
        "additionalProperties": False,
    },
    output={
        "type": "object",
        "properties": {
            "exit_code": {"type": "integer"},
            "stdout": {"type": "string"},
            "stderr": {"type": "string"},
            "files": {**_FILES, "description": "what it wrote into its folder"},
        },
        "required": ["exit_code", "stdout", "stderr", "files"],
    },
    result="files",
)

REQUEST: Final = Method(
    name="request",
    path="/request",
    summary="Sends one HTTP request to the program's own server and gives back its answer, whatever the status.",
    input={
        "type": "object",
        "properties": {
            "method": {"type": "string", "enum": [*VERBS, "HEAD", "OPTIONS"], "default": "GET"},
            "path": {"type": "string", "default": "/", "maxLength": 8_000},
            "query": {
                "type": "object",
                "additionalProperties": {
                    "anyOf": [
                        {"type": "string"},
                        {"type": "number"},
                        {"type": "boolean"},
                        {"type": "array", "items": {"type": "string"}},
                    ]
                },
            },
            "headers": _TEXTS,
            "body": {"description": "a text is sent as it is, anything else as JSON"},
            "encoding": {"type": "string", "enum": ["base64"], "description": "the body is base64 of bytes"},
        },
        "additionalProperties": False,
    },
    output={
        "type": "object",
        "properties": {
            "status": {"type": "integer"},
            "headers": _TEXTS,
            "body": {"description": "the JSON value, or a text; base64 where `encoding` says so"},
            "encoding": {"type": "string", "enum": ["base64"]},
        },
        "required": ["status", "headers", "body"],
    },
)

CALL: Final = Method(name="call", path="/call")

# A python program tells its own methods, a grpc one has them in its .proto.
_GENERIC: Final = {"cli": (RUN,), "http": (REQUEST,), "jsonl": (CALL,)}


def generic_methods(tongue: str) -> tuple[Method, ...]:
    """What a program that is spoken to in this way can do without saying so."""
    return _GENERIC.get(tongue, ())


def is_generic(method: Method) -> bool:
    """Whether a method is one that its program did not declare."""
    return any(method.name == one.name and method.input == one.input for (one,) in _GENERIC.values())
