"""The `.proto` of a service: what each schema becomes, and that values come through it unchanged."""

from __future__ import annotations

from typing import Any

import pytest
from google.protobuf import descriptor_pb2
from hypothesis import given, settings
from hypothesis import strategies as st

from openresource.adapters.grpc.compiling import compile_proto
from openresource.adapters.grpc.messages import NotAMessage, _descriptor, canonical, derived_methods
from openresource.market.proto_files import proto_file, proto_text

PERSON = {
    "type": "object",
    "properties": {
        "name": {"type": "string"},
        "age": {"type": ["integer", "null"]},
        "size": {"type": "number"},
        "is_here": {"type": "boolean"},
        "photo": {"type": "string", "contentEncoding": "base64"},
        "words": {"type": "array", "items": {"type": "string"}},
        "counts": {"type": "object", "additionalProperties": {"type": "integer"}},
        "mood": {"enum": ["calm", "merry"]},
        "home": {"type": "object", "properties": {"street": {"type": "string"}}, "required": ["street"]},
        "friends": {"type": "array", "items": {"type": "object", "properties": {"name": {"type": "string"}}}},
        "anything": {},
        "rows": {"type": "array", "items": {"type": "array", "items": {"type": "number"}}},
    },
    "required": ["name", "words"],
}
METHODS = [
    {"name": "greet", "summary": "Says hello.", "input": PERSON, "output": {"type": "string"}},
    {"name": "list-all", "input": {}, "output": {"type": "array", "items": {"type": "integer"}}},
    {"name": "ticks", "input": {"type": "object"}, "output": PERSON, "stream": True},
    {"name": "open", "input": {"type": "object", "properties": {"a b": {}}}, "output": {}},
]
TEXT = """syntax = "proto3";

package openresource.hello_world;

import "google/protobuf/struct.proto";

service HelloWorld {
  // Says hello.
  rpc Greet(GreetInput) returns (GreetOutput);
  rpc ListAll(google.protobuf.Struct) returns (ListAllOutput);
  rpc Ticks(google.protobuf.Struct) returns (stream TicksOutput);
  rpc Open(google.protobuf.Struct) returns (OpenOutput);
}

message GreetInput {
  message Friends {
    optional string name = 1;
  }
  message Home {
    optional string street = 1;
  }
  optional int64 age = 1;
  google.protobuf.Value anything = 2;
  map<string, int64> counts = 3;
  repeated Friends friends = 4;
  Home home = 5;
  optional bool is_here = 6 [json_name = "is_here"];
  optional string mood = 7;
  optional string name = 8;
  optional bytes photo = 9;
  google.protobuf.ListValue rows = 10;
  optional double size = 11;
  repeated string words = 12;
}
"""


def test_a_file_is_derived_as_documented() -> None:
    assert proto_text(proto_file("hello-world", METHODS)).startswith(TEXT)


def test_the_text_and_the_descriptors_say_the_same() -> None:
    file = proto_file("hello-world", METHODS)
    compiled = compile_proto({"interface.proto": proto_text(file).encode()}, "interface.proto")
    theirs = descriptor_pb2.FileDescriptorSet.FromString(compiled).file[-1]
    ours = _descriptor(file)
    for message in (theirs, ours):
        message.ClearField("source_code_info")
    assert theirs == ours


def test_names_that_collide_or_are_no_names_find_a_way() -> None:
    methods = [
        {"name": "a-b", "input": {}, "output": {}},
        {"name": "a_b", "input": {}, "output": {}},
        {"name": "1st", "input": {"type": "object", "properties": {"a_b": {}, "aB": {}}}, "output": {}},
    ]
    file = proto_file("3d-ABInput", methods)
    assert [rpc.name for rpc in file.rpcs] == ["AB", "AB2", "N1st"]
    compile_proto({"interface.proto": proto_text(file).encode()}, "interface.proto")


people = st.fixed_dictionaries(
    {"name": st.text(), "words": st.lists(st.text())},
    optional={
        "age": st.integers(-(2**63), 2**63 - 1),
        "size": st.floats(allow_nan=False),
        "is_here": st.booleans(),
        "photo": st.sampled_from(["", "AAE=", "/w=="]),
        "counts": st.dictionaries(st.text(), st.integers(-5, 5), min_size=1),
        "mood": st.sampled_from(["calm", "merry"]),
        "home": st.fixed_dictionaries({"street": st.text()}),
        "friends": st.lists(st.fixed_dictionaries({}, optional={"name": st.text()}), min_size=1),
        "anything": st.recursive(
            st.booleans() | st.text() | st.integers(-(2**53), 2**53),
            lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
            max_leaves=5,
        ),
        "rows": st.lists(st.lists(st.floats(-1e6, 1e6).filter(lambda one: not one.is_integer()))),
    },
)


@settings(max_examples=60, deadline=None)
@given(people)
def test_inputs_come_through_messages_unchanged(value: dict[str, Any]) -> None:
    greet = derived_methods("hello-world", METHODS)[0]
    found = greet.value_of([greet.request_of(value)])
    assert found == value
    assert canonical(found) == canonical({name: found[name] for name in sorted(found)})


@pytest.mark.parametrize(
    ("method", "value"),
    [
        (0, "hello"),
        (1, [1, 2, 3]),
        (1, []),
        (2, {"name": "x", "words": []}),
        (3, None),
        (3, {"a": [1]}),
        (3, 7),
    ],
)
def test_answers_come_through_messages_unchanged(method: int, value: Any) -> None:
    mapped = derived_methods("hello-world", METHODS)[method]
    assert mapped.answer_of(mapped.message_of(value)) == value


def test_bytes_that_are_no_message_are_refused() -> None:
    greet = derived_methods("hello-world", METHODS)[0]
    for requests in ([b"\xff\xff"], [], [b"", b""]):
        with pytest.raises(NotAMessage):
            greet.value_of(requests)
