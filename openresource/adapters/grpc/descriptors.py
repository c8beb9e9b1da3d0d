"""Reads a compiled `.proto` and says what its methods take and give, as JSON by protobuf's canonical mapping.

The bytes come from a publisher: what is read is bounded, and a provider never sees the text that they were made of.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from google.protobuf import descriptor_pb2, descriptor_pool, json_format, message_factory
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import DecodeError

from openresource.market.manifests import METHODS_MAX
from openresource.primitives.errors import Refusal

DESCRIPTORS_FILE: Final = "interface.pb"
DESCRIPTORS_BYTES_MAX: Final = 1 << 20
SCHEMA_DEPTH_MAX: Final = 6
SCHEMA_NODES_MAX: Final = 300
SUMMARY_CHARACTERS_MAX: Final = 300
REQUESTS: Final = "requests"

_INTEGERS: Final = (
    FieldDescriptor.CPPTYPE_INT32,
    FieldDescriptor.CPPTYPE_UINT32,
)
_LONG_INTEGERS: Final = (FieldDescriptor.CPPTYPE_INT64, FieldDescriptor.CPPTYPE_UINT64)
_FLOATS: Final = (FieldDescriptor.CPPTYPE_FLOAT, FieldDescriptor.CPPTYPE_DOUBLE)
_ANYTHING: Final[dict[str, Any]] = {}
# Messages that have a form of their own in JSON.
_WELL_KNOWN: Final[Mapping[str, Mapping[str, Any]]] = {
    "google.protobuf.Timestamp": {"type": "string", "format": "date-time"},
    "google.protobuf.Duration": {"type": "string"},
    "google.protobuf.FieldMask": {"type": "string"},
    "google.protobuf.Struct": {"type": "object"},
    "google.protobuf.ListValue": {"type": "array"},
    "google.protobuf.Value": _ANYTHING,
    "google.protobuf.Any": {"type": "object"},
    "google.protobuf.StringValue": {"type": ["string", "null"]},
    "google.protobuf.BytesValue": {"type": ["string", "null"]},
    "google.protobuf.BoolValue": {"type": ["boolean", "null"]},
    "google.protobuf.DoubleValue": {"type": ["number", "string", "null"]},
    "google.protobuf.FloatValue": {"type": ["number", "string", "null"]},
    "google.protobuf.Int32Value": {"type": ["integer", "null"]},
    "google.protobuf.UInt32Value": {"type": ["integer", "null"]},
    "google.protobuf.Int64Value": {"type": ["string", "integer", "null"]},
    "google.protobuf.UInt64Value": {"type": ["string", "integer", "null"]},
}


class DescriptorsInvalid(Refusal):
    template = "The compiled .proto cannot be used: {reason}."
    way_out = "Mend the .proto file and publish the program as a new version."


@dataclass(frozen=True, slots=True)
class GrpcMethod:
    """One method of a gRPC service."""

    name: str
    path: str
    summary: str
    input_class: Any
    output_class: Any
    streams_in: bool
    streams_out: bool

    def requests_of(self, value: Any) -> list[Any]:
        """The messages of an input; a method that takes a stream of them has a list."""
        if not self.streams_in:
            return [json_format.ParseDict(value, self.input_class(), max_recursion_depth=64)]
        return [
            json_format.ParseDict(one, self.input_class(), max_recursion_depth=64)
            for one in value.get(REQUESTS, ())
        ]

    def value_of(self, data: bytes) -> Any:
        """A message of the program as a JSON value."""
        message = self.output_class()
        message.ParseFromString(data)
        return json_format.MessageToDict(message)

    def described(self) -> dict[str, Any]:
        """The method as interfaces tell it."""
        count = [0]
        taken = schema_of(self.input_class.DESCRIPTOR, count)
        if self.streams_in:
            taken = {
                "type": "object",
                "properties": {REQUESTS: {"type": "array", "items": taken}},
                "required": [REQUESTS],
                "additionalProperties": False,
            }
        return {
            "name": self.name,
            "path": f"/{self.name}",
            "summary": self.summary,
            "input": taken,
            "output": schema_of(self.output_class.DESCRIPTOR, count, is_output=True),
            "stream": self.streams_out,
        }


def read_methods(data: bytes) -> dict[str, GrpcMethod]:
    """The methods of all services of a descriptor set, by the names under which they are called."""
    if len(data) > DESCRIPTORS_BYTES_MAX:
        raise DescriptorsInvalid(reason=f"it is longer than {DESCRIPTORS_BYTES_MAX} bytes")
    try:
        return _methods(descriptor_pb2.FileDescriptorSet.FromString(data))
    except (DecodeError, TypeError, ValueError, KeyError, RecursionError) as problem:
        raise DescriptorsInvalid(reason=str(problem)[:300]) from None


def _methods(files: Any) -> dict[str, GrpcMethod]:
    pool = descriptor_pool.DescriptorPool()
    for file in files.file:
        pool.Add(file)
    services = [
        (
            pool.FindServiceByName(f"{file.package}.{service.name}" if file.package else service.name),
            file,
            number,
        )
        for file in files.file
        for number, service in enumerate(file.service)
    ]
    names = [method.name for service, _, _ in services for method in service.methods]
    found: dict[str, GrpcMethod] = {}
    for service, file, number in services:
        comments = _comments(file, number)
        for place, method in enumerate(service.methods):
            # Two services may have methods of one name.
            name = method.name if names.count(method.name) == 1 else f"{service.name}-{method.name}"
            found[name] = GrpcMethod(
                name=name,
                path=f"/{service.full_name}/{method.name}",
                summary=comments.get(place, ""),
                input_class=message_factory.GetMessageClass(method.input_type),
                output_class=message_factory.GetMessageClass(method.output_type),
                streams_in=bool(method.client_streaming),
                streams_out=bool(method.server_streaming),
            )
    if not 0 < len(found) <= METHODS_MAX:
        raise DescriptorsInvalid(reason=f"it has {len(found)} methods; 1 to {METHODS_MAX} are served")
    return found


def schema_of(
    message: Descriptor, count: list[int], depth: int = 0, *, is_output: bool = False
) -> dict[str, Any]:
    """The description of a message's JSON; what is nested too deeply is left open."""
    known = _WELL_KNOWN.get(message.full_name)
    if known is not None:
        return dict(known)
    count[0] += 1
    if depth >= SCHEMA_DEPTH_MAX or count[0] > SCHEMA_NODES_MAX:
        return {"type": "object"}
    properties = {field.json_name: _field_schema(field, count, depth, is_output) for field in message.fields}
    return {"type": "object", "properties": properties, "additionalProperties": False}


def _field_schema(field: Any, count: list[int], depth: int, is_output: bool) -> dict[str, Any]:
    kind = field.message_type
    if kind is not None and kind.GetOptions().map_entry:
        value = _single_schema(kind.fields_by_name["value"], count, depth, is_output)
        return {"type": "object", "additionalProperties": value or True}
    single = _single_schema(field, count, depth, is_output)
    return {"type": "array", "items": single} if field.is_repeated else single


def _single_schema(field: Any, count: list[int], depth: int, is_output: bool) -> dict[str, Any]:
    count[0] += 1
    kind = field.cpp_type
    if kind == FieldDescriptor.CPPTYPE_MESSAGE:
        return schema_of(field.message_type, count, depth + 1, is_output=is_output)
    if kind == FieldDescriptor.CPPTYPE_ENUM:
        names = [value.name for value in field.enum_type.values]
        # An enumeration may grow, and then its new numbers have no name yet.
        return {"type": ["string", "integer"]} if is_output or len(names) > 200 else {"enum": names}
    if kind == FieldDescriptor.CPPTYPE_BOOL:
        return {"type": "boolean"}
    if kind in _INTEGERS:
        return {"type": "integer"}
    if kind in _LONG_INTEGERS:
        return {"type": "string"} if is_output else {"type": ["string", "integer"]}
    if kind in _FLOATS:
        return {"type": ["number", "string"]}
    if field.type == FieldDescriptor.TYPE_BYTES:
        return {"type": "string", "contentEncoding": "base64"}
    return {"type": "string"}


def _comments(file: Any, service: int) -> dict[int, str]:
    """The first line of the comment before each method of a service."""
    found: dict[int, str] = {}
    for location in file.source_code_info.location:
        path = list(location.path)
        if len(path) == 4 and path[:3] == [6, service, 2]:
            lines = [line.strip() for line in location.leading_comments.splitlines() if line.strip()]
            if lines:
                found[path[3]] = lines[0][:SUMMARY_CHARACTERS_MAX]
    return found
