"""The hub where machines join, against machines that bring the key and then do not behave."""

from __future__ import annotations

import asyncio
import datetime
import random
import ssl
import struct
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from openresource.market.manifests import parse_manifest
from openresource.provider import joined
from openresource.provider.join_keys import load_or_make_secret
from openresource.provider.joined import Hub, JoinedMachine
from openresource.provider.tls import load_or_make_identity, server_context
from openresource.sandbox import links
from openresource.sandbox.budgets import Budget
from openresource.sandbox.driver import (
    Limits,
    OutOfMemory,
    OutputTooLarge,
    Overloaded,
    ProgramCall,
    ProgramCrashed,
    ProgramDidNotStart,
    ProgramError,
    Release,
)
from openresource.sandbox.links import (
    CALL,
    CANCEL,
    DONE,
    FAILED,
    HEAD,
    HELLO,
    LOST,
    PART,
    START,
    WELCOME,
    Frame,
    Link,
    LinkLost,
    error_head,
    error_of,
)

MANIFEST = 'name = "x"\n[run]\nkind = "python"\nentry = "x:y"\n'
RELEASE = Release(Path("/"), parse_manifest(MANIFEST), program="bafy")
LIMITS = Limits(output_bytes=100_000, startup_seconds=60.0)


@pytest.fixture(autouse=True)
def patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """However slow this machine is, nobody is taken for silent."""
    monkeypatch.setattr(links, "SILENCE_SECONDS_MAX", 60.0)
    monkeypatch.setattr(joined, "HELLO_SECONDS", 60.0)
    monkeypatch.setattr(joined, "HANDSHAKE_SECONDS", 60.0)


class Stage:
    """A hub and a way to it."""

    def __init__(self, hub: Hub, port: int, secret: str, budget: Budget) -> None:
        self.hub, self.port, self.secret, self.budget = hub, port, secret, budget

    async def connect(self, **hello: Any) -> Link:
        """A connection that has said hello."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port, ssl=context)
        link = Link(reader, writer, "hub")
        said = {
            "secret": self.secret,
            "memory_bytes": 1 << 30,
            "cpu": 2,
            "levels": [["bubblewrap", ["python"]]],
        }
        await link.send(HELLO, 0, said | hello)
        return link

    async def machine(self, **hello: Any) -> tuple[Link, JoinedMachine]:
        """Both ends of a machine that has joined."""
        link = await self.connect(**hello)
        assert (await link.receive()).kind == WELCOME
        async with asyncio.timeout(60):
            while not self.hub.machines:
                await asyncio.sleep(0.01)
        return link, self.hub.machines[-1]


def on_a_stage(folder: Path, work: Callable[[Stage], Awaitable[None]]) -> None:
    async def body() -> None:
        identity = load_or_make_identity(
            folder / "join.pem", "127.0.0.1", now=datetime.datetime.now(datetime.UTC)
        )
        secret = load_or_make_secret(folder)

        async def no_block(cid: str) -> bytes:
            raise ProgramDidNotStart(reason="there is no such block", stderr="")

        budget = Budget(1 << 30, 2.0)
        hub = Hub(folder, secret, no_block)
        port = await hub.open("127.0.0.1", 0, server_context(identity), budget)
        try:
            await work(Stage(hub, port, secret, budget))
        finally:
            await hub.close()

    asyncio.run(asyncio.wait_for(body(), 60))


async def gone(hub: Hub) -> None:
    async with asyncio.timeout(60):
        while hub.machines:
            await asyncio.sleep(0.01)


def test_a_machine_brings_memory_and_takes_it_along(tmp_path: Path) -> None:
    async def work(stage: Stage) -> None:
        link, machine = await stage.machine(name="second")
        assert machine.can_run("python", "bubblewrap") and not machine.can_run("python", "gvisor")
        assert not machine.can_run("http", "") and machine.name == "second"
        assert (stage.budget.memory_bytes, stage.budget.cpu) == (2 << 30, 4.0)
        link.close()
        await gone(stage.hub)
        assert (stage.budget.memory_bytes, stage.budget.cpu) == (1 << 30, 2.0)

    on_a_stage(tmp_path, work)


@pytest.mark.parametrize(
    "hello",
    [
        {"secret": "0" * 64},
        {"secret": ""},
        {"secret": None},
        {"secret": "\ud800"},
        {"secret": ["x"]},
    ],
)
def test_without_the_word_nobody_joins(tmp_path: Path, hello: dict[str, Any]) -> None:
    async def work(stage: Stage) -> None:
        link = await stage.connect(**hello)
        assert (await link.receive()).kind == FAILED
        assert not stage.hub.machines and stage.hub.refused == 1

    on_a_stage(tmp_path, work)


@pytest.mark.parametrize(
    "hello",
    [
        {"levels": "all", "memory_bytes": -5, "cpu": 10**9, "name": 7},
        {"levels": [["bubblewrap"], 3, [["x"], ["y"]], [None, [None]]], "memory_bytes": "much", "cpu": None},
    ],
)
def test_what_a_machine_says_of_itself_is_bounded(tmp_path: Path, hello: dict[str, Any]) -> None:
    async def work(stage: Stage) -> None:
        _, machine = await stage.machine(**hello)
        assert (machine.memory_bytes, machine.cpu) == (0, 0.0)
        assert not machine.can_run("python", "")

    on_a_stage(tmp_path, work)


@pytest.mark.parametrize(
    "data",
    [
        random.Random(7).randbytes(200),
        struct.pack(">IBI", 1 << 31, PART, 1),
        struct.pack(">IBI", 2, LOST, 1) + b"[]",
        struct.pack(">IBI", 0, 99, 1),
        struct.pack(">IBI", 0, START, 1),
        struct.pack(">IBI", 4, 2, 1) + b"null",
    ],
)
def test_a_machine_that_sends_nonsense_is_let_go(tmp_path: Path, data: bytes) -> None:
    async def work(stage: Stage) -> None:
        link, _ = await stage.machine()
        link._writer.write(data)
        await link._writer.drain()
        if data[4:5] == bytes([LOST]):
            # Of an instance that is not there: harmless.
            link.close()
        await gone(stage.hub)

    on_a_stage(tmp_path, work)


async def answer_start(link: Link) -> Frame:
    """The other side of a start."""
    frame = await link.receive()
    assert frame.kind == START and frame.head()["program"] == "bafy"
    await link.send(HEAD, frame.number, {"interface": {"methods": []}})
    return frame


def test_calls_streams_and_failures_come_as_they_were(tmp_path: Path) -> None:
    async def work(stage: Stage) -> None:
        link, machine = await stage.machine()
        starting = asyncio.create_task(machine.start(RELEASE, "bubblewrap", LIMITS))
        await answer_start(link)
        instance = await starting
        assert instance.alive and machine.count("bafy") == 1 and machine.used_bytes == LIMITS.memory_bytes
        calling = asyncio.create_task(instance.call(ProgramCall("m", "/m", b"body")))
        head = await link.receive()
        assert head.kind == CALL and head.head()["bytes"] == 4 and (await link.receive()).payload == b"body"
        await link.send(HEAD, head.number, {"status": 200, "content_type": "a/b", "streams": False})
        await link.send_bytes(PART, head.number, b"ans")
        await link.send_bytes(PART, head.number, b"wer")
        await link.send(DONE, head.number, {"cpu_ms": 3, "wall_ms": -1, "fuel": "x"})
        reply = await calling
        assert (reply.status, reply.content_type, reply.body, reply.cpu_ms, reply.wall_ms, reply.fuel) == (
            200,
            "a/b",
            b"answer",
            3,
            0,
            0,
        )
        calling = asyncio.create_task(instance.call(ProgramCall("m", "/m", b"")))
        head = await link.receive()
        await link.send(FAILED, head.number, error_head(OutOfMemory(memory_bytes=7, stderr="")))
        with pytest.raises(OutOfMemory) as failed:
            await calling
        assert "7 bytes" in failed.value.message
        # Whoever answers without an end is cut off, and so is the call.
        calling = asyncio.create_task(instance.call(ProgramCall("m", "/m", b"")))
        head = await link.receive()
        await link.send(HEAD, head.number, {"status": 200, "content_type": "a/b", "streams": False})
        for _ in range(3):
            await link.send_bytes(PART, head.number, b"x" * 50_000)
        with pytest.raises(OutputTooLarge):
            await calling
        assert (await link.receive()).kind == CANCEL
        await link.send(DONE, head.number, {})
        await asyncio.wait_for(instance.until_free(0), 60)
        # A machine that goes with a call on it.
        calling = asyncio.create_task(instance.call(ProgramCall("m", "/m", b"")))
        await link.receive()
        link.close()
        with pytest.raises(LinkLost):
            await calling
        assert not instance.alive
        await instance.stop()
        assert machine.used_bytes == 0

    on_a_stage(tmp_path, work)


def test_a_place_is_free_when_the_program_over_there_is_done_with_it(tmp_path: Path) -> None:
    async def work(stage: Stage) -> None:
        link, machine = await stage.machine()
        starting = asyncio.create_task(machine.start(RELEASE, "bubblewrap", LIMITS))
        await answer_start(link)
        instance = await starting
        calling = asyncio.create_task(instance.call(ProgramCall("m", "/m", b"")))
        head = await link.receive()
        calling.cancel()
        await asyncio.gather(calling, return_exceptions=True)
        cancelled = await link.receive()
        assert (cancelled.kind, cancelled.number) == (CANCEL, head.number) and instance.in_flight == 1
        with pytest.raises(Overloaded):
            await instance.call(ProgramCall("m", "/m", b""))
        await link.send(DONE, head.number, {})
        await asyncio.wait_for(instance.until_free(0), 60)
        # A stream that is left early, with parts of it still on their way.
        calling = asyncio.create_task(instance.call(ProgramCall("m", "/m", b"")))
        head = await link.receive()
        await link.send(HEAD, head.number, {"status": 200, "content_type": "a/b", "streams": True})
        for _ in range(3):
            await link.send_bytes(PART, head.number, b"part")
        reply = await calling
        assert not isinstance(reply.body, bytes) and await anext(reply.body) == b"part"
        leaving = asyncio.create_task(reply.body.aclose())
        assert (await link.receive()).kind == CANCEL and instance.in_flight == 1
        await link.send(DONE, head.number, {})
        await leaving
        await asyncio.wait_for(instance.until_free(0), 60)
        assert instance.in_flight == 0
        with pytest.raises(StopAsyncIteration):
            await anext(reply.body)

    on_a_stage(tmp_path, work)


def test_a_start_that_fails_over_there_is_told_here(tmp_path: Path) -> None:
    async def work(stage: Stage) -> None:
        link, machine = await stage.machine()
        starting = asyncio.create_task(machine.start(RELEASE, "bubblewrap", LIMITS))
        frame = await link.receive()
        await link.send(FAILED, frame.number, error_head(ProgramDidNotStart(reason="no python", stderr="")))
        with pytest.raises(ProgramDidNotStart) as failed:
            await starting
        assert "no python" in failed.value.message and machine.used_bytes == 0 and not machine.instances

    on_a_stage(tmp_path, work)


@pytest.mark.parametrize(
    "head",
    [
        {},
        {"type": "os.system", "message": 5},
        {"type": "OutOfMemory", "facts": {"x" * 500: [1]}},
        {"facts": 7},
        {"type": "ProgramFailed", "facts": {"remedy": "of the facts", "message": 1, "self": 2}},
    ],
)
def test_whatever_fails_over_there_is_a_refusal_here(head: dict[str, Any]) -> None:
    refusal = error_of(head)
    assert isinstance(refusal, ProgramError) and isinstance(str(refusal), str)


def test_a_refusal_travels_with_its_facts() -> None:
    there = error_of(error_head(ProgramCrashed(reason="it fell", stderr="last words")))
    assert type(there) is ProgramCrashed and there.facts["stderr"] == "last words"
