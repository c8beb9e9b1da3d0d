"""The server's bounds: heads that grow without end and requests that never end do not stay."""

from __future__ import annotations

import asyncio
import datetime
import ssl
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from openresource.provider import server
from openresource.provider.server import GatewayServer, PortTaken
from openresource.provider.tls import load_or_make_identity, server_context


async def hello(scope: Any, receive: Any, send: Any) -> None:
    message = await receive()
    body = b"%d bytes" % len(message.get("body", b""))
    await send(
        {
            "type": "http.response.start",
            "status": 200,
            "headers": [(b"content-length", str(len(body)).encode())],
        }
    )
    await send({"type": "http.response.body", "body": body})


def with_a_server(folder: Path, work: Callable[[GatewayServer, ssl.SSLContext], Awaitable[None]]) -> None:
    async def body() -> None:
        identity = load_or_make_identity(
            folder / "tls.pem", "127.0.0.1", now=datetime.datetime.now(datetime.UTC)
        )
        listening = GatewayServer(hello, server_context(identity), "127.0.0.1", 0)
        await listening.start()
        try:
            await work(listening, ssl.create_default_context(cafile=str(identity.path)))
        finally:
            await listening.stop(1)

    asyncio.run(asyncio.wait_for(body(), 60))


def test_keep_alive_and_head_and_pipelining(tmp_path: Path) -> None:
    async def work(listening: GatewayServer, trust: ssl.SSLContext) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", listening.port, ssl=trust)
        writer.write(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nabc" * 3)
        for _ in range(3):
            head = await reader.readuntil(b"\r\n\r\n")
            assert head.startswith(b"HTTP/1.1 200")
            assert await reader.readexactly(7) == b"3 bytes"
        writer.write(b"HEAD / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        rest = await reader.read()
        assert rest.startswith(b"HTTP/1.1 200") and rest.endswith(b"connection: close\r\n\r\n")
        writer.close()

    with_a_server(tmp_path, work)


@pytest.mark.parametrize(
    "head",
    [
        b"GET /" + b"a" * 80_000,
        b"GET / HTTP/1.1\r\n" + b"x: y\r\n" * 200,
        b"GET / HTTP/1.1\r\nx: " + b"y" * 80_000,
    ],
)
def test_a_head_without_end_is_cut_off(tmp_path: Path, head: bytes) -> None:
    async def work(listening: GatewayServer, trust: ssl.SSLContext) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", listening.port, ssl=trust)
        writer.write(head)
        writer.write(b" HTTP/1.1\r\n\r\n" if b"HTTP" not in head else b"\r\n\r\n")
        answer = b""
        try:
            answer = await reader.read()
        except ConnectionError:
            pass
        assert b"200" not in answer[:20]
        writer.close()

    with_a_server(tmp_path, work)


def test_a_request_that_never_ends_is_cut_off(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "REQUEST_SECONDS_MAX", 0.2)

    async def work(listening: GatewayServer, trust: ssl.SSLContext) -> None:
        for begun in (b"", b"GET / HT", b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\nabc"):
            reader, writer = await asyncio.open_connection("127.0.0.1", listening.port, ssl=trust)
            writer.write(begun)
            async with asyncio.timeout(60):
                try:
                    await reader.read()
                except ConnectionError:
                    pass
            writer.close()

    with_a_server(tmp_path, work)


def test_a_port_that_is_taken_is_a_refusal(tmp_path: Path) -> None:
    async def work(listening: GatewayServer, trust: ssl.SSLContext) -> None:
        with pytest.raises(PortTaken) as caught:
            GatewayServer(hello, trust, "127.0.0.1", listening.port)
        assert "--port" in caught.value.remedy

    with_a_server(tmp_path, work)
