"""Strangers' large messages at the gRPC door: few bytes that stand for very many values keep nobody waiting."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Any

import pytest

pytest.importorskip("grpc")

from google.protobuf import descriptor_pb2

from openresource.adapters.grpc.door import ProviderDoor
from openresource.adapters.grpc.messages import own_methods
from openresource.adapters.grpc.servers import Incoming

pytestmark = [pytest.mark.journey, pytest.mark.timeout(180)]
COUNT = 200_000
STEP_SECONDS = 0.01


def _descriptors() -> bytes:
    """A method that takes any number of empty messages."""
    file = descriptor_pb2.FileDescriptorProto(name="a.proto", package="a", syntax="proto3")
    file.message_type.add(name="Empty")
    many = file.message_type.add(name="Many")
    many.field.add(name="items", number=1, type=11, label=3, type_name=".a.Empty")
    file.service.add(name="Counting").method.add(name="Count", input_type=".a.Many", output_type=".a.Empty")
    return descriptor_pb2.FileDescriptorSet(file=[file]).SerializeToString()


def test_messages_are_counted_while_their_request_has_no_end() -> None:
    nothing: Any = None
    counted: list[int] = []

    async def requests() -> AsyncIterator[bytes]:
        yield b"x" * 10
        yield b"x" * 20
        assert counted == [10, 20]

    async def work() -> None:
        incoming = Incoming("/a.Counting/Count", {}, requests(), nothing)
        assert len(await incoming.messages(100, counted.append)) == 2

    asyncio.run(work())


def test_a_bomb_of_empty_messages_does_not_stop_the_provider() -> None:
    nothing: Any = None

    async def work() -> tuple[bytes, float]:
        door = ProviderDoor(nothing, nothing, nothing)
        reading = asyncio.create_task(door._input_of(own_methods(_descriptors())[0], [b"\x0a\x00" * COUNT]))
        longest = 0.0
        while not reading.done():
            began = time.process_time()
            await asyncio.sleep(STEP_SECONDS)
            longest = max(longest, time.process_time() - began)
        return await reading, longest

    began = time.process_time()
    text, longest = asyncio.run(work())
    assert text.count(b"{}") == COUNT
    # It had several turns meanwhile, however slow this machine is and whatever else it does.
    assert longest < (time.process_time() - began) / 2
