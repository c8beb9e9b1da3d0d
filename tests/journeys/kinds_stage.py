"""The stage of the tests of kinds: a node, a provider with a gRPC door, a publisher, a buyer."""

from __future__ import annotations

import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc

from openresource.adapters.grpc.compiling import compile_proto
from openresource.adapters.grpc.descriptors import read_methods
from openresource.client import Client
from openresource.client.homes import Home
from tests.cli.support import Serving, funded_home, run_cli, serving
from tests.support.network import NodeProcess, local_node_process

HEAD = """
name = "{name}"
summary = "Does what a test asks."
license = "MIT"
[run]
{run}
[resources]
memory = "128Mi"
timeout_s = 6
"""
PYTHON = """
import os, time
from collections.abc import Iterator

class Program:
    def fine(self, text: str) -> str:
        return text.upper()
    def ticks(self, count: int) -> Iterator[int]:
        for number in range(count):
            yield number
            time.sleep(0.005)
    def refuse(self) -> str:
        raise ValueError("not today")
    def crash(self) -> str:
        os._exit(3)
    def eat(self) -> int:
        return len(bytearray(1 << 30))
    def hang(self) -> str:
        time.sleep(600)
        return ""
"""


@dataclass
class Scene:
    """Everybody at once."""

    folder: Path
    node: NodeProcess
    provider: Serving
    publisher: Home
    buyer: Home

    def publish(self, folder: Path) -> dict[str, Any]:
        """Publish a folder by the command, until it is placed."""
        place = ("--home", str(self.publisher.folder), "--node", self.node.url)
        told = run_cli("publish", str(folder), "--json", "--deadline", "240", *place)
        assert told.code == 0, told.err + told.out
        return dict(told.json)

    def client(self) -> Client:
        """A buyer."""
        return Client(self.buyer.folder, self.node.url)


@contextmanager
def kinds_stage(folder: Path) -> Iterator[Scene]:
    """Everybody for the tests of a file."""
    with local_node_process(folder / "chain") as node:
        publisher = Home(folder / "publisher")
        publisher.create_wallet()
        words = ("--json", "--accept", "all", "--port", "0", "--grpc-port", "0", "--node", node.url)
        with serving("provide", *words, "--home", str(folder / "provider")) as provider:
            buyer = funded_home(folder / "buyer", folder / "chain", node.url)
            yield Scene(folder, node, provider, publisher, buyer)


@contextmanager
def door(scene: Scene) -> Iterator[tuple[str, str]]:
    """`connect` with its gRPC door: both addresses."""
    place = ("--home", str(scene.buyer.folder), "--node", scene.node.url)
    with serving("connect", "--json", "--port", "0", "--grpc-port", "0", *place) as connect:
        yield connect.facts["url"], connect.facts["grpc"]


def rpcs(url: str, service: str) -> dict[str, Any]:
    """What a stock client makes of a service's .proto."""
    with urllib.request.urlopen(f"{url}/{service}/interface.proto", timeout=60) as answer:
        text = answer.read()
    return read_methods(compile_proto({"service.proto": text}, "service.proto"))


def invoke(address: str, rpc: Any, value: Any, **options: Any) -> Any:
    """A unary call, or all messages of a stream, as JSON; and what came after."""
    with grpc.insecure_channel(address) as channel:
        (request,) = rpc.requests_of(value)
        if rpc.streams_out:
            call = channel.unary_stream(rpc.path, rpc.input_class.SerializeToString, bytes)(
                request, timeout=60, **options
            )
            return [rpc.value_of(part) for part in call], dict(call.trailing_metadata())
        data, call = channel.unary_unary(rpc.path, rpc.input_class.SerializeToString, bytes).with_call(
            request, timeout=60, **options
        )
        return rpc.value_of(data), dict(call.trailing_metadata())
