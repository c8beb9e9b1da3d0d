"""A gRPC server asks the broker in the name of its call, which the call's metadata says."""

from __future__ import annotations

import asyncio
import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from openresource.adapters.bubblewrap.driver import Bubblewrap
from openresource.adapters.grpc.channel import open_grpc
from openresource.adapters.grpc.compiling import compile_proto
from openresource.sandbox.driver import InnerAnswer, InnerRequest, Limits, ProgramCall, Release, Runtime
from openresource.sandbox.releases import load_manifest
from openresource.sandbox.tongues import add_tongue

pytestmark = pytest.mark.sandbox
PROTO = """
syntax = "proto3";
package asking;
message Question { string text = 1; }
message Answer { string text = 1; }
service Asking { rpc Ask(Question) returns (Answer); rpc Each(Question) returns (stream Answer); }
"""
SERVER = """
import os
from concurrent import futures
import grpc
from grpc_tools import protoc
from openresource_broker import BrokerRefused, call

protoc.main(["", "-I.", "--python_out=/tmp", "--grpc_python_out=/tmp", "asking.proto"])
import sys
sys.path.insert(0, "/tmp")
import asking_pb2, asking_pb2_grpc

def asked(context):
    token = dict(context.invocation_metadata()).get("openresource-call")
    try:
        return call("search", {}, token=token)
    except BrokerRefused as refusal:
        return refusal.code

class Asking(asking_pb2_grpc.AskingServicer):
    def Ask(self, request, context):
        return asking_pb2.Answer(text=asked(context))
    def Each(self, request, context):
        for _ in range(2):
            yield asking_pb2.Answer(text=asked(context))

server = grpc.server(futures.ThreadPoolExecutor(4))
asking_pb2_grpc.add_AskingServicer_to_server(Asking(), server)
server.add_insecure_port(f"127.0.0.1:{os.environ['PORT']}")
server.start()
server.wait_for_termination()
"""
MANIFEST = """
name = "asking"
[run]
kind = "grpc"
command = ["python", "server.py"]
proto = "asking.proto"
[resources]
concurrency = 4
"""


@dataclass
class Named:
    """Answers with its own name."""

    name: str

    def left(self) -> dict[str, Any]:
        return {}

    async def ask(self, request: InnerRequest) -> InnerAnswer:
        await asyncio.sleep(0.1)
        return InnerAnswer(self.name, {})


def test_calls_of_a_grpc_server_side_by_side_ask_each_for_itself(tmp_path: Path) -> None:
    add_tongue("grpc", open_grpc)
    for name, text in {"asking.proto": PROTO, "server.py": SERVER, "openresource.toml": MANIFEST}.items():
        (tmp_path / name).write_text(text)
    (tmp_path / "interface.pb").write_bytes(compile_proto({"asking.proto": PROTO.encode()}, "asking.proto"))
    release = Release(
        tmp_path, load_manifest(tmp_path), Runtime("test", "", Path(sys.prefix), Path(sys.executable))
    )
    limits = Limits(memory_bytes=512 << 20, concurrency=4, startup_seconds=60.0)

    async def told(instance: Any, method: str, asker: Named | None) -> Any:
        reply = await instance.call(ProgramCall(method, f"/{method}", b'{"text": "x"}', asker=asker))
        if isinstance(reply.body, bytes):
            return json.loads(reply.body)["text"]
        return [json.loads(chunk)["text"] async for chunk in reply.body]

    async def main() -> Any:
        sandbox = Bubblewrap()
        if not sandbox.probe().available:
            pytest.skip(sandbox.probe().why_not)
        instance = await sandbox.start(release, limits)
        try:
            methods = {one["name"] for one in instance.interface["methods"]}
            ask, each = (
                next(name for name in methods if name.lower().endswith(word)) for word in ("ask", "each")
            )
            return await asyncio.gather(
                told(instance, ask, Named("one")),
                told(instance, ask, Named("two")),
                told(instance, each, Named("three")),
                told(instance, ask, None),
            )
        finally:
            await instance.stop()

    found = asyncio.run(asyncio.wait_for(main(), 90))
    assert found[:3] == ["one", "two", ["three", "three"]]
    assert found[3] in ("call-not-named", "no-allowance")
