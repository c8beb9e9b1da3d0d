"""gRPC servers inside a sandbox: JSON in, JSON out, streams, their own refusals, deadlines, and an end."""

from __future__ import annotations

import asyncio
import json
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from openresource.adapters.bubblewrap.driver import Bubblewrap
from openresource.adapters.grpc.channel import open_grpc
from openresource.adapters.grpc.compiling import ProtoInvalid, compile_proto
from openresource.adapters.grpc.descriptors import read_methods
from openresource.market.schemas import check_schema, check_value
from openresource.primitives.errors import Refusal
from openresource.sandbox.driver import Limits, ProgramCall, ProgramDidNotStart, Release, Runtime
from openresource.sandbox.releases import load_manifest
from openresource.sandbox.tongues import add_tongue

EXAMPLE = Path(__file__).parents[2] / "examples" / "hello-grpc"
LIMITS = Limits(memory_bytes=512 << 20, concurrency=4, call_seconds=60.0, startup_seconds=60.0)


@pytest.fixture(scope="module")
def release() -> Iterator[Release]:
    """The tutorial's program, compiled, with this environment as its runtime."""
    add_tongue("grpc", open_grpc)
    with tempfile.TemporaryDirectory(prefix="openresource-test-") as name:
        folder = Path(name)
        for file in EXAMPLE.iterdir():
            if file.is_file():
                (folder / file.name).write_bytes(file.read_bytes())
        compiled = compile_proto({"greeter.proto": (EXAMPLE / "greeter.proto").read_bytes()}, "greeter.proto")
        (folder / "interface.pb").write_bytes(compiled)
        runtime = Runtime("test", "", Path(sys.prefix), Path(sys.executable))
        yield Release(folder, load_manifest(folder), runtime)


def run(release: Release, calls: list[tuple[Any, ...]], together: bool = False, **limits: Any) -> Any:
    """Start the program, make calls, stop it."""

    async def work() -> Any:
        from dataclasses import replace

        sandbox = Bubblewrap()
        if not sandbox.probe().available:
            pytest.skip(sandbox.probe().why_not)
        instance = await sandbox.start(release, replace(LIMITS, **limits))
        try:
            if together:
                return await asyncio.gather(*(one(instance, *call) for call in calls)), instance.interface
            return [await one(instance, *call) for call in calls], instance.interface
        finally:
            await instance.stop()

    return asyncio.run(work())


async def one(instance: Any, method: str, value: Any, take: int = 0) -> Any:
    """The answer, the chunks of a stream, or the refusal's name and words."""
    try:
        reply = await instance.call(ProgramCall(method, f"/{method}", json.dumps(value).encode()))
        if isinstance(reply.body, bytes):
            return json.loads(reply.body)
        chunks = []
        async for chunk in reply.body:
            chunks.append(json.loads(chunk))
            if len(chunks) == take:
                await reply.body.aclose()
                break
        return chunks
    except Refusal as refusal:
        return type(refusal).__name__, refusal.message


def test_calls_streams_and_refusals_pass_as_json(release: Release) -> None:
    calls = [
        ("Greet", {"name": "Ada", "mood": "MERRY"}),
        ("Greet", {}),
        ("Greet", {"nome": "Ada"}),
        ("Count", {"name": "Bo", "times": 3}),
        ("Count", {"name": "Bo", "times": 100000}, 2),
        ("Together", {"requests": [{"name": "Ada"}, {"name": "Bo"}]}),
        ("Gone", {}),
        ("Greet", {"name": "Cy"}),
    ]
    found, interface = run(release, calls)
    assert found[0] == {"greeting": "Hello, Ada!", "letters": "3"}
    assert found[1] == ("ProgramRefused", "The program refused the input: a name is needed")
    assert found[2][0] == "ProgramRefused" and "nome" in found[2][1]
    assert [part["greeting"] for part in found[3]] == ["Hello 1, Bo", "Hello 2, Bo", "Hello 3, Bo"]
    assert len(found[4]) == 2
    assert found[5] == {"greeting": "Hello, Ada and Bo.", "letters": "5"}
    assert found[6][0] == "ProgramRefused"
    assert found[7] == {"greeting": "Hello, Cy.", "letters": "2"}
    assert [method["name"] for method in interface["methods"]] == ["Greet", "Count", "Together"]
    for method in interface["methods"]:
        check_schema(method["input"])
        check_schema(method["output"])
    assert interface["methods"][0]["summary"] == "One greeting for one name."


def test_calls_run_side_by_side_and_long_ones_are_ended(release: Release) -> None:
    side_by_side, _ = run(release, [("Count", {"name": "x", "times": 20})] * 4, together=True)
    assert [len(chunks) for chunks in side_by_side] == [20] * 4
    late, _ = run(release, [("Count", {"name": "x", "times": 100000})], call_seconds=1.0)
    assert late[0][0] == "ProgramTimedOut"


def test_a_release_without_descriptors_does_not_start(release: Release, tmp_path: Path) -> None:
    for file in release.folder.iterdir():
        if file.name != "interface.pb":
            (tmp_path / file.name).write_bytes(file.read_bytes())
    with pytest.raises(ProgramDidNotStart, match=r"interface\.pb"):
        run(Release(tmp_path, release.manifest, release.runtime), [])
    (tmp_path / "interface.pb").write_bytes(b"\xff" * 1000)
    with pytest.raises(ProgramDidNotStart, match="cannot be used"):
        run(Release(tmp_path, release.manifest, release.runtime), [])


def test_what_does_not_compile_is_refused_with_the_compilers_words() -> None:
    with pytest.raises(ProtoInvalid, match=r"service\.proto"):
        compile_proto({"service.proto": b'syntax = "proto3"; message {'}, "service.proto")
    with pytest.raises(Refusal, match="methods"):
        compile_proto({"service.proto": b'syntax = "proto3"; message A {}'}, "service.proto")


def test_descriptions_hold_for_all_kinds_of_fields() -> None:
    proto = b"""syntax = "proto3";
import "google/protobuf/timestamp.proto";
import "google/protobuf/struct.proto";
message Tree { string name = 1; repeated Tree children = 2; }
message All {
  int64 long_number = 1; uint32 small = 2; double wide = 3; bytes data = 4; bool yes = 5;
  map<string, int32> counts = 6; repeated string words = 7; google.protobuf.Timestamp at = 8;
  google.protobuf.Struct open = 9; Tree tree = 10; oneof one { string left = 11; int32 right = 12; }
}
service Everything { rpc Echo(All) returns (All); }
"""
    method = read_methods(compile_proto({"all.proto": proto}, "all.proto"))["Echo"]
    described = method.described()
    check_schema(described["input"])
    value = {
        "longNumber": "9007199254740993", "small": 1, "wide": 0.5, "data": "AAE=", "yes": True,
        "counts": {"a": 1}, "words": ["x"], "at": "2020-01-02T03:04:05Z", "open": {"x": [1, None]},
        "tree": {"name": "a", "children": [{"name": "b"}]}, "left": "l",
    }  # fmt: skip
    check_value(described["input"], value)
    again = method.value_of(method.requests_of(value)[0].SerializeToString())
    assert again == value
    check_value(described["output"], again)
