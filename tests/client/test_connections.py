"""HTTP to a stranger: answers of every allowed form are read whole, and whatever else comes breaks the connection."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from openresource.client.connections import Broken, Connections, NotConnected
from tests.support.ports import hold_port, port_of

BODY = bytes(range(256)) * 700


class Stranger:
    """Answers each request with the next of some bytes, in pieces as a test likes them."""

    def __init__(self, answers: list[bytes], *, cut: Callable[[bytes], list[bytes]] | None = None) -> None:
        self._answers = answers
        self._cut = cut or (lambda answer: [answer])
        self.connections = 0
        self.requests: list[bytes] = []
        self.is_patient = False

    async def __aenter__(self) -> Stranger:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *exception: object) -> None:
        self._server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                length = int(head.partition(b"Content-Length: ")[2].partition(b"\r")[0] or 0)
                self.requests.append(head + await reader.readexactly(length))
                answer = self._answers.pop(0)
                for piece in self._cut(answer):
                    writer.write(piece)
                    await writer.drain()
                if not self._answers and not self.is_patient:
                    return
        except (OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            return
        finally:
            writer.close()

    def connect(self, **options: Any) -> Connections:
        return Connections(
            "127.0.0.1", self.port, None, connections_max=options.get("most", 4), idle_seconds=30
        )


def run(work: Awaitable[Any]) -> Any:
    async def bounded() -> Any:
        return await asyncio.wait_for(work, 120)

    return asyncio.run(bounded())


async def ask(connections: Connections, body: bytes = b"", seconds: float = 60.0) -> tuple[int, bytes]:
    response = await connections.send("POST", "/p", {"X-A": "b"}, body, connect_seconds=60, seconds=seconds)
    pieces = []
    while piece := await response.next_piece():
        pieces.append(piece)
    await response.close()
    return response.status, b"".join(pieces)


def chunked(body: bytes, sizes: list[int]) -> bytes:
    parts, at = [], 0
    for size in [*sizes, len(body)]:
        chunk = body[at : at + size]
        at += size
        if chunk:
            parts.append(b"%x;x=y\r\n%s\r\n" % (len(chunk), chunk))
    return b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + b"".join(parts) + b"0\r\nX-T: 1\r\n\r\n"


def sized(body: bytes, more: bytes = b"") -> bytes:
    return b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n%s\r\n%s" % (len(body), more, body)


@pytest.mark.parametrize("seed", range(4))
def test_an_answer_is_whole_however_it_is_cut(seed: int) -> None:
    chance = random.Random(seed)

    def cut(answer: bytes) -> list[bytes]:
        places = sorted(chance.sample(range(len(answer)), 20))
        return [answer[a:b] for a, b in zip([0, *places], [*places, len(answer)], strict=True)]

    async def work() -> None:
        sizes = [chance.randrange(1, 50_000) for _ in range(5)]
        answers = [
            sized(BODY),
            chunked(BODY, sizes),
            b"HTTP/1.1 100 Continue\r\n\r\n" + sized(b""),
            sized(BODY[:1]),
        ]
        async with Stranger(answers, cut=cut) as stranger:
            connections = stranger.connect()
            assert await ask(connections, BODY) == (200, BODY)
            assert await ask(connections) == (200, BODY)
            assert await ask(connections) == (200, b"")
            assert await ask(connections) == (200, BODY[:1])
            assert stranger.connections == 1
            assert stranger.requests[0].endswith(b"\r\nX-A: b\r\nContent-Length: 179200\r\n\r\n" + BODY)
            await connections.close()

    run(work())


def test_an_answer_until_the_end_of_the_connection_uses_it_up() -> None:
    async def work() -> None:
        async with Stranger([b"HTTP/1.0 200 OK\r\n\r\n" + BODY]) as stranger:
            connections = stranger.connect()
            assert await ask(connections) == (200, BODY)
            await connections.close()
        async with Stranger([sized(b"a", b"Connection: close\r\n"), sized(b"b")]) as stranger:
            connections = stranger.connect()
            assert await ask(connections) == (200, b"a")
            assert await ask(connections) == (200, b"b")
            assert stranger.connections == 2
            await connections.close()

    run(work())


WRONG = [
    b"",
    b"HTTP/2 200 OK\r\n\r\n",
    b"HTTP/1.1 999 X\r\n\r\n",
    b"ICY 200 OK\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nno colon\r\n\r\n",
    b"HTTP/1.1 200 OK\r\n folded: x\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab",
    b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\nab",
    b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nabc",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\nab\r\n0\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n-1\r\nab\r\n0\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nabc\r\n0\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nffffffffffff\r\nab\r\n",
    b"HTTP/1.1 200 OK\r\nX: " + b"y" * 70_000 + b"\r\n\r\n",
    b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 200 + b"\r\n",
    b"HTTP/1.1 100 Continue\r\n\r\n" * 20,
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n" + b"X: y\r\n" * 200 + b"\r\n",
]


@pytest.mark.parametrize("answer", WRONG, ids=range(len(WRONG)))
def test_what_is_not_http_breaks_the_connection_and_the_next_request_gets_another_one(answer: bytes) -> None:
    async def work() -> None:
        async with Stranger([answer]) as stranger:
            connections = stranger.connect(most=1)
            with pytest.raises(Broken):
                await ask(connections)
            stranger._answers.append(sized(b"well"))
            assert await ask(connections) == (200, b"well")
            await connections.close()

    run(work())


@settings(max_examples=60, deadline=None)
@example(b"HTTP/1.1 200 \r\n\r\n")
@given(st.binary(max_size=200) | st.binary(max_size=60).map(lambda end: b"HTTP/1.1 200 OK\r\n" + end))
def test_whatever_comes_is_an_answer_or_broken(answer: bytes) -> None:
    async def work() -> None:
        async with Stranger([answer]) as stranger:
            connections = stranger.connect()
            try:
                status, _ = await ask(connections)
                assert 200 <= status < 600
            except Broken:
                assert not connections._idle
            await connections.close()

    run(work())


def test_silence_has_an_end_and_so_has_waiting_for_a_connection() -> None:
    async def work() -> None:
        async with Stranger([b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nab"]) as stranger:
            stranger.is_patient = True
            connections = stranger.connect(most=1)
            response = await connections.send("GET", "/", {}, b"", connect_seconds=60, seconds=60)
            assert await response.next_piece() == b"ab"
            with pytest.raises(NotConnected):
                await connections.send("GET", "/", {}, b"", connect_seconds=60, seconds=0.05)
            # What came has had its time; only the silence behind it is to be short.
            response._seconds = 0.2
            with pytest.raises(Broken, match="nothing came"):
                await response.next_piece()
            assert await response.next_piece() == b""
            # Its place is free again.
            stranger._answers.append(sized(b"x"))
            assert await ask(connections) == (200, b"x")
            await connections.close()

    run(work())


def test_nobody_there_is_not_connected_and_a_path_cannot_carry_a_header() -> None:
    async def work() -> None:
        async with Stranger([sized(b"")]) as stranger:
            connections = stranger.connect()
            response = await connections.send(
                "GET", "/a b\r\nX: y/é", {}, b"", connect_seconds=60, seconds=60
            )
            assert await response.next_piece() == b""
            assert stranger.requests[0].startswith(
                b"GET /a%20b%0D%0AX:%20y/%C3%A9 HTTP/1.1\r\nHost: 127.0.0.1:"
            )
            await connections.close()
        with hold_port() as nobody, pytest.raises(NotConnected):
            stranger.port = port_of(nobody)
            await ask(stranger.connect())

    run(work())
