"""The door to the network: what is listed is reached, nothing else is, and everything that was asked for is on record."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import json
import os
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from openresource.adapters.bubblewrap.driver import Bubblewrap
from openresource.sandbox import egress
from openresource.sandbox.driver import Limits, ProgramCall
from openresource.sandbox.egress import (
    EgressLimits,
    EgressProxy,
    InvalidTarget,
    is_own,
    is_private,
    parse_target,
)
from openresource.sandbox.releases import load_release


def runs(test: Any) -> Any:
    """A test that is a coroutine, in an event loop of its own."""

    @functools.wraps(test)
    def run(*arguments: Any, **options: Any) -> None:
        asyncio.run(asyncio.wait_for(test(*arguments, **options), 60))

    return run


PROGRAM = """
import os, socket, urllib.request, urllib.error

class Program:
    def fetch(self, url: str) -> str:
        try:
            with urllib.request.urlopen(url, timeout=60) as answer:
                return answer.read().decode()
        except urllib.error.HTTPError as refused:
            return f"refused {refused.code} {refused.read().decode()}"

    def tunnel(self, target: str, send: str) -> str:
        host, port = os.environ["HTTPS_PROXY"].removeprefix("http://").split(":")
        with socket.create_connection((host, int(port)), timeout=60) as wire:
            wire.sendall(f"CONNECT {target} HTTP/1.1\\r\\nHost: {target}\\r\\n\\r\\n".encode())
            head = wire.recv(4096)
            if b" 200 " not in head.split(b"\\r\\n")[0]:
                return head.split(b"\\r\\n")[0].decode()
            wire.sendall(send.encode())
            wire.shutdown(socket.SHUT_WR)
            answer = b""
            while part := wire.recv(65536):
                answer += part
            return answer.decode()

    def direct(self, host: str, port: int) -> str:
        try:
            socket.create_connection((host, port), timeout=3).close()
            return "connected"
        except OSError as problem:
            return type(problem).__name__
"""
MANIFEST = 'name = "fetcher"\n[run]\nkind = "python"\nentry = "program:Program"\n'
LIMITS = Limits(memory_bytes=256 << 20, disk_bytes=8 << 20, processes=16)


async def _page(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    head = await reader.readuntil(b"\r\n\r\n")
    body = b"path " + head.split(b" ")[1] + b" close " + str(b"Connection: close" in head).encode()
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
    await writer.drain()
    writer.close()


async def _echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write((await reader.read())[::-1])
    await writer.drain()
    writer.close()


@contextlib.asynccontextmanager
async def _serving(handler: Any) -> AsyncIterator[int]:
    server = await asyncio.start_server(handler, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()


@contextlib.asynccontextmanager
async def _program(tmp_path: Path, egress: Path) -> AsyncIterator[Any]:
    folder = tmp_path / "program"
    folder.mkdir(exist_ok=True)
    (folder / "openresource.toml").write_text(MANIFEST)
    (folder / "program.py").write_text(PROGRAM)
    sandbox = Bubblewrap()
    if not sandbox.probe().available:
        pytest.skip("bubblewrap does not start on this machine")
    instance = await sandbox.start(replace(load_release(folder), egress=egress), LIMITS)

    async def call(method: str, **values: Any) -> Any:
        reply = await instance.call(ProgramCall(method, f"/{method}", json.dumps(values).encode()))
        assert isinstance(reply.body, bytes)
        return json.loads(reply.body)

    try:
        yield call
    finally:
        await instance.stop()


@pytest.mark.sandbox
@runs
async def test_a_program_reaches_what_is_listed_and_nothing_else(tmp_path: Path) -> None:
    async with _serving(_page) as page, _serving(_echo) as echo:
        listed = [f"localhost:{page}", f"localhost:{echo}"]
        async with (
            EgressProxy(listed, private_hosts=["localhost"]) as proxy,
            _program(tmp_path, proxy.folder) as call,
        ):
            assert await call("tunnel", target=f"localhost:{echo}", send="stressed") == "desserts"
            # NO_PROXY keeps local names to the program's own network, so this host goes by another spelling.
            assert "refused" in await call("fetch", url=f"http://elsewhere.test:{page}/x")
            assert "403" in await call("tunnel", target=f"127.0.0.1:{echo}", send="x")
            assert await call("direct", host="127.0.0.1", port=echo) == "ConnectionRefusedError"
            assert await call("direct", host="192.0.2.1", port=443) == "OSError"
        records = {(one.target, one.verdict) for one in proxy.log}
        assert (f"localhost:{echo}", "allowed") in records
        assert (f"elsewhere.test:{page}", "not on the list") in records
        carried = next(one for one in proxy.log if one.verdict == "allowed")
        assert (carried.bytes_out, carried.bytes_in) == (8, 8)
    assert not os.path.exists(proxy.folder)


async def _asked(proxy: EgressProxy, request: bytes) -> bytes:
    reader, writer = await asyncio.open_unix_connection(proxy.folder / "egress.sock")
    writer.write(request)
    answer = await reader.read()
    writer.close()
    return answer


@runs
async def test_plain_requests_go_through_one_at_a_time() -> None:
    async with (
        _serving(_page) as port,
        EgressProxy([f"localhost:{port}"], private_hosts=["localhost"]) as proxy,
    ):
        asked = f"GET http://localhost:{port}/a/b HTTP/1.1\r\nHost: x\r\nProxy-Connection: keep-alive\r\n\r\n"
        assert (await _asked(proxy, asked.encode())).endswith(b"path /a/b close True")


@runs
async def test_names_that_lead_to_private_addresses_are_refused_unless_the_operator_named_them() -> None:
    async with _serving(_echo) as port, EgressProxy([f"localhost:{port}", "10.1.2.3:80"]) as proxy:
        answer = await _asked(proxy, f"CONNECT localhost:{port} HTTP/1.1\r\n\r\n".encode())
        assert b"403" in answer and b"private" in answer
        assert b"private" in await _asked(proxy, b"GET http://10.1.2.3/ HTTP/1.1\r\n\r\n")
    assert [one.verdict for one in proxy.log] == ["a private address"] * 2


def test_addresses_of_this_machine_are_known_without_being_private() -> None:
    assert is_own("127.0.0.1")
    # Of documents, where nothing is.
    assert not is_own("192.0.2.1") and not is_own("2001:db8::1")


def test_a_public_address_of_this_machine_is_no_way_around_its_firewall(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(egress, "is_private", lambda address: False)

    @runs
    async def work() -> None:
        async with _serving(_echo) as port, EgressProxy([f"127.0.0.1:{port}"]) as proxy:
            assert b"403" in await _asked(proxy, f"CONNECT 127.0.0.1:{port} HTTP/1.1\r\n\r\n".encode())

    work()


@runs
async def test_bytes_time_and_connections_are_bounded() -> None:
    async def pours(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while True:
                writer.write(bytes(65536))
                await writer.drain()

    async def is_silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    async with _serving(pours) as pouring, _serving(is_silent) as silent:
        targets = [f"localhost:{pouring}", f"localhost:{silent}"]
        limits = EgressLimits(connections=2, bytes=1 << 20, connection_seconds=60, idle_seconds=60)
        async with EgressProxy(targets, private_hosts=["localhost"], limits=limits) as proxy:
            answer = await _asked(proxy, f"CONNECT localhost:{pouring} HTTP/1.1\r\n\r\n".encode())
            assert len(answer) <= 1 << 20
            assert b"403" in await _asked(proxy, f"CONNECT localhost:{pouring} HTTP/1.1\r\n\r\n".encode())
            assert [one.verdict for one in proxy.log] == ["cut: too many bytes"] * 2
        async with EgressProxy(targets, private_hosts=["localhost"], limits=limits) as proxy:
            asked = f"CONNECT localhost:{silent} HTTP/1.1\r\n\r\n".encode()
            async with contextlib.AsyncExitStack() as held:
                for _ in range(limits.connections):
                    reader, writer = await asyncio.open_unix_connection(proxy.folder / "egress.sock")
                    held.callback(writer.close)
                    writer.write(asked)
                    assert b" 200 " in await reader.readline()
                answers = await asyncio.gather(
                    *[_asked(proxy, asked) for _ in range(2)], return_exceptions=True
                )
                assert not any(isinstance(answer, bytes) and b"200" in answer for answer in answers)
        short = replace(limits, connection_seconds=0.3)
        async with EgressProxy(targets, private_hosts=["localhost"], limits=short) as proxy:
            for _ in range(2):
                await _asked(proxy, asked)
            assert [one.verdict for one in proxy.log] == ["cut: too long"] * 2


@pytest.mark.parametrize(
    "request_head",
    [b"\x16\x03\x01", b"GET / HTTP/1.1\r\n\r\n", b"CONNECT a:b HTTP/1.1\r\n\r\n", b"CONNECT a:99999 HTTP/1.1\r\n\r\n",
     b"GET ftp://x/ HTTP/1.1\r\n\r\n", b"G" * 40_000, b"GET http://a\x00b/ HTTP/1.1\r\n\r\n"],
)  # fmt: skip
@runs
async def test_what_is_no_request_is_refused(request_head: bytes) -> None:
    async with EgressProxy(["example.org:443"]) as proxy:
        reader, writer = await asyncio.open_unix_connection(proxy.folder / "egress.sock")
        writer.write(request_head)
        writer.write_eof()
        with contextlib.suppress(ConnectionError):
            answer = await reader.read()
            assert answer == b"" or b" 400 " in answer or b" 403 " in answer
        writer.close()
    assert all(one.verdict != "allowed" for one in proxy.log)


def test_targets_and_addresses_are_read_strictly() -> None:
    assert str(parse_target("Example.ORG.:443")) == "example.org:443"
    for text in ("example.org", "a b:1", "http://x:1", "x:0", "x:70000", "user@x:1", ""):
        with pytest.raises(InvalidTarget):
            parse_target(text)
    for address in (
        "127.0.0.1",
        "10.0.0.1",
        "169.254.169.254",
        "::1",
        "::ffff:10.0.0.1",
        "fe80::1%eth0",
        "64:ff9b::a00:1",
        "::127.0.0.1",
        "::ffff:0:127.0.0.1",
        "fec0::1",
        "0.0.0.0",
    ):
        assert is_private(address), address
    for address in ("93.184.216.34", "2606:2800:220:1::1", "64:ff9b::5db8:d822"):
        assert not is_private(address), address
