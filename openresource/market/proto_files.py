"""Derives a `.proto` from a service's interface, so that gRPC clients can call services that know only JSON.

The package is `openresource.<name>`, the service its name in CamelCase, each method an rpc. Members are numbered by the
order of their names, so that everybody derives the same file from the same interface:

    string                 string (bytes where its contentEncoding is base64)
    integer                int64
    number                 double
    boolean                bool
    array of one kind      repeated (google.protobuf.ListValue where items are arrays, or not said)
    object with members    a message of its own
    object of one kind     map<string, …> (google.protobuf.Struct where values are not said)
    anything else          google.protobuf.Value

A single member that may be missing is `optional`. An input that is no object with members is a Struct; an output that
is no object is a message with the one field `value`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

PACKAGE: Final = "openresource"
STRUCT_FILE: Final = "google/protobuf/struct.proto"
STRUCT: Final = "google.protobuf.Struct"
LIST: Final = "google.protobuf.ListValue"
VALUE: Final = "google.protobuf.Value"
DEPTH_MAX: Final = 12
WRAPPED: Final = "value"
SUMMARY_CHARACTERS_MAX: Final = 300
_SCALARS: Final = {"string": "string", "integer": "int64", "number": "double", "boolean": "bool"}
_FIELD = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,63}")


@dataclass(frozen=True, slots=True)
class Field:
    """A member: a scalar, one of protobuf's own types by its full name, or a message of this file."""

    name: str
    number: int
    kind: str
    message: Message | None = None
    shape: str = "optional"  # or repeated, or map
    is_required: bool = False
    is_nullable: bool = False


@dataclass(frozen=True, slots=True)
class Message:
    """A message of the file."""

    name: str
    fields: tuple[Field, ...]
    messages: tuple[Message, ...] = ()
    # An output that is no object stands in its one field.
    is_wrapped: bool = False


@dataclass(frozen=True, slots=True)
class Rpc:
    """A method; input and output are messages of the file, or protobuf's own by their full names."""

    name: str
    method: str
    summary: str
    input: Message | str
    output: Message | str
    streams: bool


@dataclass(frozen=True, slots=True)
class ProtoFile:
    """Everything that a client needs to know."""

    package: str
    service: str
    rpcs: tuple[Rpc, ...]

    @property
    def service_name(self) -> str:
        """The service with its package, as it stands in the path of a call."""
        return f"{self.package}.{self.service}"

    @property
    def messages(self) -> tuple[Message, ...]:
        """The messages that stand beside the service."""
        return tuple(one for rpc in self.rpcs for one in (rpc.input, rpc.output) if isinstance(one, Message))


def proto_file(name: str, methods: Iterable[Mapping[str, Any]]) -> ProtoFile:
    """The file of a service; `methods` are those of its interface.json."""
    found = list(methods)
    names = _unique([_camel(str(method["name"])) for method in found])
    rpcs = []
    for method, rpc_name in zip(found, names, strict=True):
        rpcs.append(
            Rpc(
                name=rpc_name,
                method=str(method["name"]),
                summary=" ".join(str(method.get("summary") or "").split())[:SUMMARY_CHARACTERS_MAX],
                input=_input(rpc_name, method.get("input")),
                output=_output(rpc_name, method.get("output")),
                streams=method.get("stream") is True,
            )
        )
    file = ProtoFile(f"{PACKAGE}.{package_part(name)}", _camel(name), tuple(rpcs))
    if any(message.name == file.service for message in file.messages):
        file = replace(file, service=f"{file.service}Service")
    return file


def package_part(name: str) -> str:
    """A service's name as a part of a package."""
    part = name.replace("-", "_")
    return f"_{part}" if part[:1].isdigit() else part


def proto_text(file: ProtoFile) -> str:
    """The file as text."""
    lines = ['syntax = "proto3";', "", f"package {file.package};", "", f'import "{STRUCT_FILE}";', ""]
    lines.append(f"service {file.service} {{")
    for rpc in file.rpcs:
        if rpc.summary:
            lines.append(f"  // {rpc.summary}")
        stream = "stream " if rpc.streams else ""
        lines.append(f"  rpc {rpc.name}({_type_text(rpc.input)}) returns ({stream}{_type_text(rpc.output)});")
    lines.append("}")
    for message in file.messages:
        lines += ["", *_message_lines(message, "")]
    return "\n".join(lines) + "\n"


def _type_text(kind: Message | str) -> str:
    return kind if isinstance(kind, str) else kind.name


def _message_lines(message: Message, indent: str) -> list[str]:
    lines = [f"{indent}message {message.name} {{"]
    for nested in message.messages:
        lines += _message_lines(nested, indent + "  ")
    for field in message.fields:
        kind = field.kind if field.message is None else field.message.name
        words = {"optional": "optional ", "repeated": "repeated ", "map": ""}[field.shape]
        if field.kind.startswith("google.") or field.message is not None:
            # Messages know by themselves whether they are there.
            words = "repeated " if field.shape == "repeated" else ""
        kind = f"map<string, {kind}>" if field.shape == "map" else kind
        option = f' [json_name = "{field.name}"]' if _default_json_name(field.name) != field.name else ""
        lines.append(f"{indent}  {words}{kind} {field.name} = {field.number}{option};")
    return [*lines, f"{indent}}}"]


def _default_json_name(name: str) -> str:
    first, *rest = name.split("_")
    return first + "".join(part[:1].upper() + part[1:] for part in rest)


def _input(rpc: str, schema: object) -> Message | str:
    return _message(f"{rpc}Input", schema, 0) or STRUCT


def _output(rpc: str, schema: object) -> Message | str:
    message = _message(f"{rpc}Output", schema, 0)
    if message is not None:
        return message
    field = _field(WRAPPED, 1, schema, 0)
    if field.kind == STRUCT and field.shape == "optional":
        return STRUCT
    nested = (field.message,) if field.message is not None else ()
    return Message(f"{rpc}Output", (field,), nested, is_wrapped=True)


def _message(name: str, schema: object, depth: int) -> Message | None:
    """The message of an object whose members are all said; None where it cannot be one."""
    if not isinstance(schema, Mapping) or schema.get("type") != "object" or depth > DEPTH_MAX:
        return None
    properties = schema.get("properties")
    if not isinstance(properties, Mapping) or not properties:
        return None
    # Further members would have no place.
    if schema.get("additionalProperties", False) not in (False, True) or "anyOf" in schema:
        return None
    members = sorted(properties)
    if not all(_FIELD.fullmatch(member) for member in members):
        return None
    if len({_default_json_name(member) for member in members}) != len(members):
        return None
    required = schema.get("required", ())
    fields = tuple(
        replace(
            _field(member, number, properties[member], depth + 1),
            is_required=member in required,
            is_nullable=_is_nullable(properties[member]),
        )
        for number, member in enumerate(members, 1)
    )
    nested = tuple(field.message for field in fields if field.message is not None)
    return Message(name, fields, nested)


def _field(name: str, number: int, schema: object, depth: int) -> Field:
    kind, message = _single(name, schema, depth)
    if kind == LIST and isinstance(schema, Mapping):
        item_kind, item = _single(name, schema.get("items", {}), depth + 1)
        if item_kind != LIST and schema.get("items"):
            return Field(name, number, item_kind, item, "repeated")
    values = schema.get("additionalProperties") if isinstance(schema, Mapping) else None
    if (
        kind == STRUCT
        and isinstance(values, Mapping)
        and isinstance(schema, Mapping)
        and not schema.get("properties")
    ):
        value_kind, value = _single(name, values, depth + 1)
        return Field(name, number, value_kind, value, "map")
    return Field(name, number, kind, message)


def _single(name: str, schema: object, depth: int) -> tuple[str, Message | None]:
    """The kind of one value."""
    if not isinstance(schema, Mapping) or "anyOf" in schema or depth > DEPTH_MAX:
        return VALUE, None
    kind = schema.get("type")
    if isinstance(kind, list | tuple):
        kinds = [one for one in kind if one != "null"]
        kind = kinds[0] if len(kinds) == 1 else None
    if kind is None:
        choices = schema.get("enum", (schema["const"],) if "const" in schema else ())
        kind = "string" if choices and all(isinstance(one, str) for one in choices) else None
    if kind == "object":
        message = _message(_camel(name), {**schema, "type": "object"}, depth)
        return (message.name, message) if message is not None else (STRUCT, None)
    if kind == "array":
        return LIST, None
    if kind == "string" and schema.get("contentEncoding") == "base64":
        return "bytes", None
    return _SCALARS.get(str(kind), VALUE), None


def _is_nullable(schema: object) -> bool:
    kinds = schema.get("type") if isinstance(schema, Mapping) else None
    return isinstance(kinds, list | tuple) and "null" in kinds


def _camel(name: str) -> str:
    words = [word for word in re.split(r"[^A-Za-z0-9]+", name) if word]
    text = "".join(word[0].upper() + word[1:] for word in words) or "Service"
    return f"N{text}" if text[0].isdigit() else text


def _unique(names: list[str]) -> list[str]:
    found: list[str] = []
    for name in names:
        fresh, number = name, 2
        while fresh in found:
            fresh, number = f"{name}{number}", number + 1
        found.append(fresh)
    return found
