"""Turns messages of derived `.proto` files into JSON values and back; every member by the way its file describes."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from google.protobuf import descriptor_pb2, descriptor_pool, json_format, message_factory, struct_pb2
from google.protobuf.message import DecodeError

from openresource.adapters.grpc.descriptors import GrpcMethod, read_methods
from openresource.market.proto_files import (
    LIST,
    STRUCT,
    STRUCT_FILE,
    VALUE,
    WRAPPED,
    Field,
    Message,
    ProtoFile,
    Rpc,
    proto_file,
)
from openresource.primitives.errors import Refusal

FILE_NAME: Final = "interface.proto"
_FIELD = descriptor_pb2.FieldDescriptorProto
_TYPES: Final = {
    "string": _FIELD.TYPE_STRING,
    "int64": _FIELD.TYPE_INT64,
    "double": _FIELD.TYPE_DOUBLE,
    "bool": _FIELD.TYPE_BOOL,
    "bytes": _FIELD.TYPE_BYTES,
}
_OWN: Final[dict[str, Any]] = {
    STRUCT: struct_pb2.Struct,
    LIST: struct_pb2.ListValue,
    VALUE: struct_pb2.Value,
}


class NotAMessage(Refusal):
    template = "The request is no message of {method}: {reason}."
    way_out = "Use the service's .proto: GET /services/…/interface.proto at the provider."


class NoMessageForAnswer(Refusal):
    template = "The answer of {method} does not fit its .proto: {reason}."
    way_out = "Nothing was charged. Call it over HTTP, where any answer can pass."


@dataclass(frozen=True, slots=True)
class Mapped:
    """A method as gRPC clients call it: where, and how its messages become values."""

    path: str
    method: str
    streams: bool
    own: GrpcMethod | None = None
    rpc: Rpc | None = None
    input_class: Any = None
    output_class: Any = None

    def value_of(self, requests: list[bytes]) -> Any:
        """The input that the messages of a request state."""
        try:
            if self.own is not None and self.own.streams_in:
                return {"requests": [_plain(self.own.input_class, one) for one in requests]}
            if len(requests) != 1:
                raise NotAMessage(
                    method=self.method, reason=f"there are {len(requests)} messages and not one"
                )
            if self.own is not None:
                return _plain(self.own.input_class, requests[0])
            assert self.rpc is not None
            message = self.input_class.FromString(requests[0])
            return _value(self.rpc.input, message)
        except (DecodeError, json_format.SerializeToJsonError, ValueError) as problem:
            raise NotAMessage(method=self.method, reason=str(problem)[:300]) from None

    def message_of(self, value: Any) -> bytes:
        """An answer, or a part of a stream, as a message."""
        try:
            if self.own is not None:
                message = json_format.ParseDict(value, self.own.output_class(), ignore_unknown_fields=True)
            else:
                assert self.rpc is not None
                message = self.output_class()
                _fill(self.rpc.output, value, message)
            data: bytes = message.SerializeToString(deterministic=True)
            return data
        except (json_format.ParseError, ValueError, TypeError, KeyError, AttributeError) as problem:
            raise NoMessageForAnswer(method=self.method, reason=str(problem)[:300]) from None

    def answer_of(self, data: bytes) -> Any:
        """What a client reads: an answer's message as the value that it stands for."""
        if self.own is not None:
            return _plain(self.own.output_class, data)
        assert self.rpc is not None
        return _value(self.rpc.output, self.output_class.FromString(data))

    def request_of(self, value: Any) -> bytes:
        """What a client sends: an input as a message."""
        assert self.rpc is not None
        message = self.input_class()
        _fill(self.rpc.input, value, message)
        data: bytes = message.SerializeToString(deterministic=True)
        return data


def own_methods(descriptors: bytes) -> list[Mapped]:
    """The methods of a program that has a `.proto` itself."""
    return [
        Mapped(method.path, method.name, method.streams_out, own=method)
        for method in read_methods(descriptors).values()
    ]


def derived_methods(name: str, methods: Iterable[Mapping[str, Any]]) -> list[Mapped]:
    """The methods of any other service, by the file that its interface gives."""
    file = proto_file(name, methods)
    pool = descriptor_pool.DescriptorPool()
    pool.Add(_struct_file())
    pool.Add(_descriptor(file))
    return [
        Mapped(
            f"/{file.service_name}/{rpc.name}",
            rpc.method,
            rpc.streams,
            rpc=rpc,
            input_class=_class(pool, file, rpc.input),
            output_class=_class(pool, file, rpc.output),
        )
        for rpc in file.rpcs
    ]


def canonical(value: Any) -> bytes:
    """The one JSON text of a value: what receipts of mapped calls are made over."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()


def _plain(kind: Any, data: bytes) -> Any:
    return json_format.MessageToDict(kind.FromString(data))


def _class(pool: Any, file: ProtoFile, kind: Message | str) -> Any:
    name = kind if isinstance(kind, str) else f"{file.package}.{kind.name}"
    return message_factory.GetMessageClass(pool.FindMessageTypeByName(name))


def _struct_file() -> Any:
    copied = descriptor_pb2.FileDescriptorProto()
    struct_pb2.DESCRIPTOR.CopyToProto(copied)
    return copied


# ── Descriptors ──────────────────────────────────────────────────────────────────────────────────────────────


def _descriptor(file: ProtoFile) -> Any:
    made = descriptor_pb2.FileDescriptorProto(
        name=FILE_NAME, package=file.package, syntax="proto3", dependency=[STRUCT_FILE]
    )
    for message in file.messages:
        _add_message(made.message_type.add(), message, f".{file.package}")
    service = made.service.add(name=file.service)
    for rpc in file.rpcs:
        service.method.add(
            name=rpc.name,
            input_type=_type_name(rpc.input, f".{file.package}"),
            output_type=_type_name(rpc.output, f".{file.package}"),
            server_streaming=True if rpc.streams else None,
        )
    return made


def _add_message(made: Any, message: Message, scope: str) -> None:
    made.name = message.name
    inside = f"{scope}.{message.name}"
    for nested in message.messages:
        _add_message(made.nested_type.add(), nested, inside)
    for field in message.fields:
        added = made.field.add(name=field.name, number=field.number, json_name=field.name)
        added.label = _FIELD.LABEL_OPTIONAL if field.shape == "optional" else _FIELD.LABEL_REPEATED
        if field.shape == "map":
            entry = made.nested_type.add(name=_entry_name(field.name))
            entry.options.map_entry = True
            entry.field.add(
                name="key",
                json_name="key",
                number=1,
                type=_FIELD.TYPE_STRING,
                label=_FIELD.LABEL_OPTIONAL,
            )
            value = entry.field.add(name="value", json_name="value", number=2, label=_FIELD.LABEL_OPTIONAL)
            _set_type(value, field, inside)
            added.type, added.type_name = _FIELD.TYPE_MESSAGE, f"{inside}.{entry.name}"
            continue
        _set_type(added, field, inside)
        if field.shape == "optional" and field.kind in _TYPES:
            # How proto3 says `optional`: a group of one.
            added.proto3_optional = True
            added.oneof_index = len(made.oneof_decl)
            made.oneof_decl.add(name=f"_{field.name}")


def _set_type(made: Any, field: Field, scope: str) -> None:
    if field.kind in _TYPES:
        made.type = _TYPES[field.kind]
    else:
        made.type = _FIELD.TYPE_MESSAGE
        made.type_name = _type_name(field.message or field.kind, scope)


def _type_name(kind: Message | str, scope: str) -> str:
    return f".{kind}" if isinstance(kind, str) else f"{scope}.{kind.name}"


def _entry_name(name: str) -> str:
    return "".join(part[:1].upper() + part[1:] for part in name.split("_")) + "Entry"


# ── Values ───────────────────────────────────────────────────────────────────────────────────────────────────


def _value(kind: Message | str, message: Any) -> Any:
    if isinstance(kind, str):
        return json_format.MessageToDict(message)
    found: dict[str, Any] = {}
    for field in kind.fields:
        here = getattr(message, field.name)
        # An empty list or map cannot be told from a missing one.
        if field.shape == "repeated" and (here or field.is_required):
            found[field.name] = [_one(field, item) for item in here]
        elif field.shape == "map" and (here or field.is_required):
            found[field.name] = {name: _one(field, here[name]) for name in sorted(here)}
        elif field.shape == "optional" and message.HasField(field.name):
            found[field.name] = _one(field, here)
        elif field.shape == "optional" and field.is_required and field.is_nullable:
            found[field.name] = None
    if kind.is_wrapped:
        only = kind.fields[0]
        return found.get(WRAPPED, {"repeated": [], "map": {}}.get(only.shape))
    return found


def _one(field: Field, item: Any) -> Any:
    if field.message is not None:
        return _value(field.message, item)
    if field.kind in _OWN:
        return json_format.MessageToDict(item)
    if field.kind == "bytes":
        return base64.b64encode(item).decode()
    return item


def _fill(kind: Message | str, value: Any, message: Any) -> None:
    if isinstance(kind, str):
        json_format.ParseDict(value, message)
        return
    if kind.is_wrapped:
        value = {WRAPPED: value}
    known = {field.name: field for field in kind.fields}
    for name, item in value.items():
        field = known.get(name)
        if field is None or item is None:
            continue
        if field.shape == "repeated":
            for one in item:
                _append(field, one, getattr(message, name))
        elif field.shape == "map":
            for key, one in item.items():
                _put(field, key, one, getattr(message, name))
        elif field.message is not None or field.kind in _OWN:
            here = getattr(message, name)
            here.SetInParent()
            _fill(field.message or field.kind, item, here)
        else:
            setattr(message, name, _scalar(field, item))


def _append(field: Field, item: Any, here: Any) -> None:
    if field.message is not None or field.kind in _OWN:
        _fill(field.message or field.kind, item, here.add())
    else:
        here.append(_scalar(field, item))


def _put(field: Field, key: str, item: Any, here: Any) -> None:
    if field.message is not None or field.kind in _OWN:
        _fill(field.message or field.kind, item, here[key])
    else:
        here[key] = _scalar(field, item)


def _scalar(field: Field, item: Any) -> Any:
    if field.kind == "bytes":
        return base64.b64decode(item, validate=True)
    if field.kind == "int64" and isinstance(item, float) and item.is_integer():
        return int(item)
    return item
