"""Addresses of running programs: the operator's word, the proxy of each instance, and the log of what was reached."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from openresource.adapters.bubblewrap.driver import Bubblewrap
from openresource.market.manifests import Manifest, parse_manifest
from openresource.sandbox.driver import Limits, ProgramCall, Release
from openresource.sandbox.networks import LOG_NAME, Network, NetworkNotAllowed

pytestmark = pytest.mark.sandbox
PROGRAM = """
import urllib.request, urllib.error
def fetch(url: str) -> str:
    try:
        with urllib.request.urlopen(url, timeout=60) as answer:
            return answer.read().decode()
    except urllib.error.HTTPError as problem:
        return f"status {problem.code}"
    except OSError as problem:
        return f"no: {problem}"
"""


def manifest(network: str) -> Manifest:
    """A program that wants to reach something."""
    return parse_manifest(
        f'name = "fetcher"\n[run]\nkind = "python"\nentry = "fetcher:fetch"\n[resources]\nnetwork = {network}'
    )


@pytest.fixture
def server() -> Iterator[int]:
    """A small server on this machine, which stands for one in the operator's own network."""
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    listener.listen()

    def serve() -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            with connection:
                connection.recv(65_536)
                connection.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\nconnection: close\r\n\r\nhello")

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    yield int(listener.getsockname()[1])
    listener.shutdown(socket.SHUT_RDWR)
    listener.close()
    thread.join(5)


def test_nothing_is_allowed_unless_the_operator_says_so() -> None:
    with pytest.raises(NetworkNotAllowed) as caught:
        Network().check(manifest('["api.example.org:443"]'))
    assert "allows nothing" in caught.value.message and "--allow-network" in caught.value.remedy
    Network().check(manifest('"none"'))
    Network(["api.example.org:443"]).check(manifest('["api.example.org:443"]'))
    Network(["any"]).check(manifest('["api.example.org:443", "other.example.org:80"]'))
    for allowed in ("api.example.org:80", "example.org:443"):
        with pytest.raises(NetworkNotAllowed):
            Network([allowed]).check(manifest('["api.example.org:443"]'))


def test_a_program_without_wishes_gets_no_proxy() -> None:
    sandbox: Any = object()
    assert Network(["any"]).opened(sandbox, manifest('"none"')) is sandbox


def test_a_program_reaches_what_is_listed_and_nothing_else(tmp_path: Path, server: int) -> None:
    sandbox = Bubblewrap()
    if not sandbox.probe().available:
        pytest.skip(f"bubblewrap does not start here: {sandbox.probe().why_not}")
    folder = tmp_path / "release"
    folder.mkdir()
    (folder / "fetcher.py").write_text(PROGRAM)
    # A manifest names hosts of the world; this one stands for such a host.
    named = manifest('["api.example.org:443"]')
    wanted = replace(named, resources=replace(named.resources, network=(f"localhost:{server}",)))
    network = Network(["any"], private_hosts=["localhost"], folder=tmp_path, clock_ms=lambda: 7)

    async def work() -> list[str]:
        instance = await network.opened(sandbox, wanted).start(Release(folder, wanted), Limits())
        try:
            assert instance.alive and instance.in_flight == 0 and instance.interface["methods"]
            said = []
            # Loopback is never asked of the proxy, so the machine is named otherwise.
            for url in (
                f"http://LOCALHOST.:{server}/",
                f"http://localhost:{server + 1}/x",
                "http://192.0.2.1/",
            ):
                call = ProgramCall("fetch", "/fetch", json.dumps({"url": url}).encode())
                reply = await instance.call(call)
                assert isinstance(reply.body, bytes)
                said.append(json.loads(reply.body))
            assert (await instance.usage()).bytes_in > 0
            return said
        finally:
            await instance.stop()

    allowed, own_loopback, foreign = asyncio.run(work())
    assert allowed == "hello"
    assert own_loopback.startswith("no:")
    assert foreign == "status 403"
    targets = {(one.target, one.verdict) for one in network.log}
    assert targets == {(f"localhost:{server}", "allowed"), ("192.0.2.1:80", "not on the list")}
    lines = [json.loads(line) for line in (tmp_path / LOG_NAME).read_text().splitlines()]
    assert {line["service"] for line in lines} == {"fetcher"} and lines[0]["at_ms"] == 7
    assert next(line for line in lines if line["verdict"] == "allowed")["bytes_in"] > 0
