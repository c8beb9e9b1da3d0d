"""Connections of the door: the same answers however a request arrives, strict parsing, and bounds on who is slow."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from random import Random
from typing import Any

import pytest
from uvicorn.config import Config
from uvicorn.server import ServerState

from openresource.node import connections
from openresource.node.connections import Answer, Connection, Head, Lane, Lanes, answer_head
from openresource.node.server import Server
from tests.node.ain_served import StillNode
from tests.node.simple_node import ALICE, running_door

SECONDS_MAX = 60
REQUEST = b"POST /lane HTTP/1.1\r\nhost: here\r\ncontent-length: 4\r\n\r\nbody"

Reader, Writer = asyncio.StreamReader, asyncio.StreamWriter
Story = Callable[[Reader, Writer], Awaitable[None]]


class TwoWays:
    """A lane for POST /lane, and an application for everything; each says that it answered, and what it was sent."""

    def __init__(self) -> None:
        self.heads = 0

    def lane(self, head: Head) -> Lane | None:
        self.heads += 1
        if head.verb != "POST" or head.path != "/lane":
            return None

        def lane(body: bytes, caller: str) -> Answer | None:
            if body == b"fail":
                raise ZeroDivisionError("inside")
            return None if body == b"slow" else (answer_head(200, []), b"lane " + body)

        return lane

    async def application(self, scope: Any, receive: Any, send: Any) -> None:
        body, has_more = b"", True
        while has_more:
            message = await receive()
            if message["type"] == "http.disconnect":
                return
            body += message.get("body", b"")
            has_more = message.get("more_body", False)
        told = b"application " + body
        length = (b"content-length", str(len(told)).encode())
        await send({"type": "http.response.start", "status": 200, "headers": [length]})
        await send({"type": "http.response.body", "body": told})


def connected(story: Story, ways: TwoWays | None = None) -> None:
    """One connection to a server of both ways."""
    both = ways or TwoWays()

    async def run() -> None:
        server = Server("127.0.0.1", 0)
        await server.start(both.application, both.lane)
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        try:
            async with asyncio.timeout(SECONDS_MAX):
                await story(reader, writer)
        finally:
            writer.close()
            await server.stop()

    asyncio.run(run())


async def heard(reader: Reader) -> tuple[bytes, bytes]:
    """The next answer: its head, its body."""
    head = await reader.readuntil(b"\r\n\r\n")
    lines = dict(line.lower().split(b": ", 1) for line in head.split(b"\r\n")[1:] if line)
    return head, await reader.readexactly(int(lines.get(b"content-length", b"0")))


def test_a_request_is_answered_the_same_however_it_is_cut() -> None:
    async def story(reader: Reader, writer: Writer) -> None:
        for cut in range(len(REQUEST) + 1):
            writer.write(REQUEST[:cut])
            await writer.drain()
            await asyncio.sleep(0)
            writer.write(REQUEST[cut:])
            assert (await heard(reader))[1] == b"lane body"

    connected(story)


def test_a_head_that_is_known_is_not_parsed_again() -> None:
    ways = TwoWays()

    async def story(reader: Reader, writer: Writer) -> None:
        for body in (b"body", b"bodi", b"slow", b"fail", b"body"):
            writer.write(REQUEST[:-4] + body)
            way = b"application " if body in (b"slow", b"fail") else b"lane "
            assert (await heard(reader))[1] == way + body
        # The first one, and those that their lane declined or failed at.
        assert ways.heads == 3
        # Less and more than its length are another matter.
        writer.write(REQUEST[:-1])
        await writer.drain()
        await asyncio.sleep(0.01)
        writer.write(b"X" + REQUEST)
        assert [(await heard(reader))[1] for _ in range(2)] == [b"lane bodX", b"lane body"]

    connected(story, ways)


def test_requests_sent_together_are_answered_in_order() -> None:
    async def story(reader: Reader, writer: Writer) -> None:
        bodies = [b"slow" if number % 7 == 3 else f"{number:04d}".encode() for number in range(500)]
        writer.write(b"".join(REQUEST[:-4] + body for body in bodies))
        for body in bodies:
            told = (await heard(reader))[1]
            assert told.endswith(b" " + body)
            assert body != b"slow" or told.startswith(b"application")

    connected(story)


@pytest.mark.parametrize(
    ("head", "body"),
    [
        (b"POST /lane HTTP/1.0\r\ncontent-length: 4", b"body"),
        (b"POST /lane HTTP/1.1\r\nconnection: close\r\ncontent-length: 4", b"body"),
        (b"POST /lane HTTP/1.1\r\ntransfer-encoding: chunked", b"4\r\nbody\r\n0\r\n\r\n"),
        (b"POST /l%61ne HTTP/1.1\r\ncontent-length: 4", b"body"),
        (b"POST http://here/lane HTTP/1.1\r\ncontent-length: 4", b"body"),
        (b"POST /lane HTTP/1.1\r\nhost: here\r\nhost: there\r\ncontent-length: 4", b"body"),
        (b"PUT /lane HTTP/1.1\r\ncontent-length: 4", b"body"),
    ],
)
def test_what_is_unusual_goes_to_the_application(head: bytes, body: bytes) -> None:
    async def story(reader: Reader, writer: Writer) -> None:
        writer.write(head + b"\r\n\r\n" + body)
        assert (await heard(reader))[1] == b"application body"

    connected(story)


def test_who_waits_for_leave_to_send_the_body_gets_it() -> None:
    async def story(reader: Reader, writer: Writer) -> None:
        writer.write(b"POST /lane HTTP/1.1\r\nexpect: 100-continue\r\ncontent-length: 4\r\n\r\n")
        assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 100 ")
        writer.write(b"body")
        assert (await heard(reader))[1] == b"application body"

    connected(story)


def test_a_large_body_goes_to_the_application() -> None:
    async def story(reader: Reader, writer: Writer) -> None:
        size = connections.LANE_BODY_BYTES_MAX + 1
        writer.write(b"POST /lane HTTP/1.1\r\ncontent-length: %d\r\n\r\n" % size + b"x" * size)
        assert (await heard(reader))[1] == b"application " + b"x" * size

    connected(story)


@pytest.mark.parametrize(
    "raw",
    [
        b"POST /lane HTTP/1.1\r\ncontent-length: 4\r\ncontent-length: 5\r\n\r\nbody",
        b"POST /lane HTTP/1.1\r\ncontent-length: 4\r\ncontent-length: 4\r\n\r\nbody",
        b"POST /lane HTTP/1.1\r\ncontent-length: 4\r\ntransfer-encoding: chunked\r\n\r\n4\r\nbody\r\n0\r\n\r\n",
        b"POST /lane HTTP/1.1\r\ncontent-length : 4\r\n\r\nbody",
        b"POST /lane HTTP/1.1\r\ncontent-length: +4\r\n\r\nbody",
        b"POST /lane HTTP/1.1\ncontent-length: 4\n\nbody",
        b"POST /lane HTTP/1.1\r\nx: a\rcontent-length: 4\r\n\r\nbody",
        b"nonsense\r\n\r\n",
    ],
)
def test_what_is_no_clean_http_is_refused_before_and_behind_good_requests(raw: bytes) -> None:
    async def story(reader: Reader, writer: Writer) -> None:
        for _ in range(2):
            writer.write(REQUEST)
            assert (await heard(reader))[1] == b"lane body"
        writer.write(raw)
        head = await reader.readuntil(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 400 ") and b"connection: close" in head
        assert await reader.read() == b"Invalid HTTP request received."

    connected(story)


def test_a_head_that_is_too_long_ends_the_connection() -> None:
    async def story(reader: Reader, writer: Writer) -> None:
        writer.write(b"POST /lane HTTP/1.1\r\nx: " + b"x" * 40_000 + b"\r\ncontent-length: 4\r\n\r\nbody")
        with contextlib.suppress(ConnectionError):
            assert await reader.read() == b""

    connected(story)


def test_a_request_that_does_not_arrive_ends_the_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "ARRIVAL_SECONDS_MAX", 0.05)

    async def story(reader: Reader, writer: Writer) -> None:
        for _ in range(2):
            writer.write(REQUEST)
            assert (await heard(reader))[1] == b"lane body"
        writer.write(REQUEST[:-1])
        assert await reader.read() == b""

    connected(story)


class Line:
    """A transport that keeps what is written, and may be full behind each answer."""

    def __init__(self, *, is_narrow: bool = False) -> None:
        self.is_narrow = is_narrow
        self.protocol: Any = None
        self.written: list[bytes] = []
        self.is_reading = True
        self.is_closed = False

    def write(self, data: bytes) -> None:
        if not self.is_closed:
            self.written.append(data)
        if self.is_narrow:
            self.protocol.pause_writing()

    def pause_reading(self) -> None:
        self.is_reading = False

    def resume_reading(self) -> None:
        self.is_reading = True

    def is_closing(self) -> bool:
        return self.is_closed

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return default

    def close(self) -> None:
        self.is_closed = True


@contextlib.asynccontextmanager
async def lined(line: Line, ways: TwoWays, lanes: Lanes | None) -> AsyncIterator[Connection]:
    """A connection on a line."""
    config = Config(
        ways.application,
        ws="none",
        lifespan="off",
        interface="asgi3",
        proxy_headers=False,
        log_config=None,
        timeout_keep_alive=connections.KEEP_ALIVE_SECONDS,
    )
    config.load()
    made = Connection(config, ServerState(), {}, asyncio.get_running_loop(), lanes=lanes, heads={})
    line.protocol = made
    made.connection_made(line)  # type: ignore[arg-type]
    yield made
    line.is_closed, line.is_narrow = True, False
    made.connection_lost(ConnectionResetError())
    async with asyncio.timeout(SECONDS_MAX):
        await asyncio.gather(*made.tasks)


async def settle(connection: Connection) -> None:
    """Returns when nothing is answered any more."""
    for _ in range(8):
        await asyncio.sleep(0)
    while connection.tasks and not connection.transport.is_closing():
        before = len(connection.tasks)
        for _ in range(8):
            await asyncio.sleep(0)
        if len(connection.tasks) == before:
            return


@pytest.mark.parametrize("sent", [[], [REQUEST], [REQUEST, REQUEST], [REQUEST[:-4] + b"slow", REQUEST]])
def test_a_silent_connection_is_closed(sent: list[bytes], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "KEEP_ALIVE_SECONDS", 0.05)

    async def run() -> None:
        ways, line = TwoWays(), Line()
        async with lined(line, ways, ways.lane) as connection, asyncio.timeout(SECONDS_MAX):
            connection.timeout_keep_alive = 0.05  # type: ignore[assignment]
            for one in sent:
                connection.data_received(one)
                await settle(connection)
            while not line.is_closed:
                await asyncio.sleep(0.01)

    asyncio.run(run())


def test_who_does_not_read_is_not_read_from() -> None:
    async def run() -> None:
        ways, line = TwoWays(), Line(is_narrow=True)
        async with lined(line, ways, ways.lane) as connection:
            for _ in range(2):
                connection.data_received(REQUEST * 100)
                await settle(connection)
                assert len(line.written) == 1
            assert not line.is_reading

    asyncio.run(run())


PIECES = [
    REQUEST,
    REQUEST,
    REQUEST,
    REQUEST[:-4] + b"slow",
    REQUEST[:-1],
    REQUEST[:30],
    REQUEST.replace(b"/lane", b"/other"),
    REQUEST.replace(b"content-length: 4", b"content-length: 44"),
    REQUEST.replace(b"content-length: 4", b"content-length: 4\r\ncontent-length: 4"),
    REQUEST.replace(b"content-length: 4", b"Transfer-Encoding: chunked").replace(
        b"body", b"4\r\nbody\r\n0\r\n\r\n"
    ),
    REQUEST.replace(b"host: here", b"connection: close"),
    REQUEST.replace(b"host: here", b"host: here\r\n folded"),
    REQUEST.replace(b"host: here", b"upgrade: websocket\r\nconnection: upgrade"),
    REQUEST.replace(b"\r\n", b"\n"),
    REQUEST.replace(b"1.1", b"1.0"),
    b"GET /lane HTTP/1.1\r\n\r\n",
    b"\r\n",
    b"body",
    b"\x00",
]


def test_whatever_arrives_is_understood_as_without_lanes() -> None:
    """What is smuggled past one way and not past the other would show as another answer, or as one more or less."""

    async def answers(chunks: list[bytes], has_lanes: bool) -> tuple[list[bytes], bool]:
        ways, line = TwoWays(), Line()
        async with lined(line, ways, ways.lane if has_lanes else None) as connection:
            for chunk in chunks:
                if not line.is_closed:
                    connection.data_received(chunk)
                    await settle(connection)
            text = b"".join(line.written).replace(b"connection: close\r\n", b"")
            text = re.sub(rb"content-length: [0-9]+", b"", text)
            return re.findall(
                rb"HTTP/1.1.*?(?=HTTP/1.1|\Z)", text.replace(b"application ", b"lane "), re.S
            ), line.is_closed

    async def run() -> None:
        by_length: dict[int, int] = {}
        for seed in range(400):
            random = Random(seed)
            sent = b"".join(
                [REQUEST] * random.randrange(3) + random.choices(PIECES, k=random.randrange(1, 7))
            )
            chunks, at = [], 0
            while at < len(sent):
                size = random.choice((len(REQUEST), len(REQUEST), random.randrange(1, 200)))
                chunks.append(sent[at : at + size])
                at += size
            fast, is_fast_closed = await answers(chunks, True)
            slow, is_slow_closed = await answers(chunks, False)
            assert is_fast_closed == is_slow_closed, seed
            if slow and slow[-1].startswith(b"HTTP/1.1 400"):
                # What was wrong is said before what still ran is answered, and that is dropped; lanes are done by then.
                assert fast[-1] == slow.pop(), seed
                fast = fast[: len(slow)]
            assert fast == slow, seed
            by_length[len(slow)] = by_length.get(len(slow), 0) + 1
        assert len(by_length) > 4

    asyncio.run(run())


# The doors' lanes beside their applications.

CALLS: list[dict[str, Any]] = [
    {"method": "net_getChainId", "params": {}},
    {"method": "net_getChainId", "params": {"protoVer": "0.1.0"}},
    {"method": "net_getChainId", "params": ["1.0.0"]},
    {"method": "net_getChainId", "jsonrpc": "1.0"},
    {"method": "net_getChainId", "id": {}},
    {"method": "net_getChainId", "id": None},
    {"method": "net_getChainId", "id": 1.5},
    {"method": "no_such"},
    {"method": 5},
    {"method": "ain_get", "params": {"protoVer": "1", "type": "GET_VALUE", "ref": "/accounts"}},
    {"method": "ain_get", "params": {"protoVer": "1", "type": "GET_VALUE", "ref": "/no\u00e4\ud83d\ude00"}},
    {
        "method": "ain_get",
        "params": {"protoVer": "1", "type": "GET_VALUE", "ref": {"a": []}, "is_final": True},
    },
    {"method": "ain_get", "params": {"protoVer": "1", "type": "GET_RULE", "ref": "/", "is_shallow": True}},
    {
        "method": "ain_get",
        "params": {"protoVer": "1", "type": "GET_VALUE", "ref": "/", "include_version": True},
    },
    {"method": "ain_get", "params": {"protoVer": "1", "type": "nothing"}},
    {"method": "ain_getBlockByNumber", "params": {"protoVer": "1", "number": 0}},
    {"method": "ain_getBlockByNumber", "params": {"protoVer": "1", "number": 99}},
    {"method": "ain_sendSignedTransaction", "params": {"protoVer": "1"}},
]
RAW = [b"{}", b"[]", b"5", b"{", b'{"a":1e999}', b'{"a":"\xff"}', b"[" * 500, b'[{"jsonrpc":"2.0"}]']
BODIES = [json.dumps({"jsonrpc": "2.0", "id": 7, **call}).encode() for call in CALLS] + RAW
PATHS = ["/json-rpc", "/json-rpc?protoVer=1.0.0", "/json-rpc?protoVer=0.1.0", "/json-rpc/"]
ROUTES = [
    "/",
    "/health_check",
    "/last_block_number/",
    "/get_value?ref=/accounts",
    "/get_value?ref=/accounts&ref=/rules",
    "/get_rule?ref=/&is_shallow=true",
    "/get_value?ref=%2Faccounts%ff",
    "/get_address",
    "/get_block_by_number?number=0",
    "/no_such",
    "/get_value?" + "a=1&" * 100,
]


def plain_headers(headers: dict[str, str]) -> dict[str, str]:
    return {name: text for name, text in headers.items() if name != "content-length"}


@pytest.mark.parametrize("is_limited", [False, True])
def test_lanes_of_an_ai_network_node_answer_as_its_application_does(is_limited: bool) -> None:
    environment = {"ENABLE_EXPRESS_RATE_LIMIT": "true" if is_limited else "false"}
    fast, slow = StillNode(environment), StillNode(environment)
    asked = [("POST", path, body) for path in PATHS for body in BODIES]
    asked += [("GET", path, None) for path in ROUTES * 3]
    by_lane = 0
    for origin in ("", "http://localhost:3000", "https://evil.example"):
        headers = {"origin": origin} if origin else {}
        for verb, path, body in asked:
            first = fast.ask(verb, path, body, headers=headers)
            second = slow.ask(verb, path, body, headers=headers, without_lanes=True)
            assert (first.status, first.body) == (second.status, second.body), (verb, path, body)
            assert plain_headers(first.headers) == plain_headers(second.headers), (verb, path, body)
            by_lane += first.is_by_lane
            assert not second.is_by_lane
    assert by_lane > 90


def test_the_lane_of_a_node_answers_as_its_application_does(tmp_path: Path) -> None:
    async def run() -> None:
        async with asyncio.timeout(SECONDS_MAX), running_door(tmp_path) as (_, chain):
            await chain.write("/apps/a", {"b": {"c": 1.5, "1": "\u00e4"}, "d": True}, ALICE)
            port = int(chain.url.rpartition(":")[2])
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            listed = {"method": "ain_get", "params": {"protoVer": "1", "type": "GET_VALUE", "ref": "/apps"}}
            bodies = [json.dumps({"jsonrpc": "2.0", "id": 7, **listed}).encode(), *BODIES]
            common = b"host: 127.0.0.1:%d\r\ncontent-type: application/json\r\n" % port
            for body in bodies:
                told = []
                for framing in (
                    b"content-length: %d\r\n\r\n%b" % (len(body), body),
                    b"content-length: %d\r\n\r\n%b" % (len(body), body),
                    b"transfer-encoding: chunked\r\n\r\n%x\r\n%b\r\n0\r\n\r\n" % (len(body), body),
                ):
                    writer.write(b"POST /json-rpc HTTP/1.1\r\n" + common + framing)
                    head, answer = await heard(reader)
                    lines = {line.partition(b" ")[0]: line for line in head.split(b"\r\n")}
                    # A second may pass in between.
                    told.append((sorted(lines), {**lines, b"date:": b""}, answer))
                assert told[0] == told[1] == told[2], body
            writer.write(b"POST /json-rpc HTTP/1.1\r\nhost: evil.example\r\ncontent-length: 2\r\n\r\n{}")
            assert (await heard(reader))[0].startswith(b"HTTP/1.1 421 ")
            writer.close()

    asyncio.run(run())
