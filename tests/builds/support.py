"""A workshop in a temporary folder, programs made of a few files, and a package registry that lives on loopback."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import os
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from openresource.adapters.bubblewrap.driver import Bubblewrap
from openresource.builds.building import Built, build
from openresource.builds.cache import Cache
from openresource.builds.languages import find_languages
from openresource.builds.workshop import BuildLimits, Workshop
from openresource.cli.sandboxes import own_tools
from openresource.sandbox.drivers import Drivers
from openresource.sandbox.releases import load_manifest

REGISTRY_HOST = "registry.test"
BUILD_SECONDS_MAX = 240.0


@functools.cache
def drivers() -> Drivers:
    """The driver that builds; where it does not start these tests cannot run."""
    sandbox = Bubblewrap(tools=own_tools())
    seen = sandbox.probe()
    if not seen.available:
        pytest.skip(f"no sandbox with namespaces of its own starts on this machine: {seen.why_not}")
    return Drivers([sandbox])


def workshop(folder: Path, **options: Any) -> Workshop:
    """A workshop whose cache lies in a folder."""
    limits = options.pop("limits", BuildLimits(seconds=120))
    return Workshop(Cache(folder / "cache"), drivers(), find_languages(), limits=limits, **options)


def program(folder: Path, files: dict[str, str | bytes]) -> Path:
    """A program of these files."""
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)
    return folder


def made(folder: Path, shop: Workshop, **options: Any) -> Built:
    """What a folder becomes."""
    return asyncio.run(
        asyncio.wait_for(build(folder, load_manifest(folder), workshop=shop, **options), BUILD_SECONDS_MAX)
    )


class Registry:
    """A package registry over plain HTTP: whatever was put in is served, and who asked how is on record."""

    def __init__(self) -> None:
        self.pages: dict[str, tuple[str, bytes]] = {}
        self.asked: list[tuple[str, dict[str, str]]] = []
        registry = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                path = self.path.partition("?")[0]
                registry.asked.append((path, {name.lower(): value for name, value in self.headers.items()}))
                kind, body = registry.pages.get(path, ("", b""))
                self.send_response(200 if kind else 404)
                self.send_header("Content-Type", kind or "text/plain")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                if self.command == "GET":
                    self.wfile.write(body)

            do_HEAD = do_GET

            def log_message(self, *words: Any) -> None:
                """Tests keep quiet."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever)
        self._thread.start()

    @property
    def address(self) -> str:
        return f"http://{REGISTRY_HOST}:{self._server.server_port}"

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


@contextlib.contextmanager
def local_registry(patch: pytest.MonkeyPatch) -> Iterator[Registry]:
    """A registry under a name of its own that the operator of this machine has configured."""
    real = asyncio.BaseEventLoop.getaddrinfo

    async def getaddrinfo(loop: Any, host: Any, port: Any, **options: Any) -> Any:
        return await real(loop, "127.0.0.1" if host == REGISTRY_HOST else host, port, **options)

    patch.setattr(asyncio.BaseEventLoop, "getaddrinfo", getaddrinfo)
    registry = Registry()
    try:
        yield registry
    finally:
        registry.close()


def left_processes() -> set[int]:
    """The processes below this one, without the launcher that waits for the next program."""
    from openresource.sandbox.proc import descendants
    from openresource.sandbox.zygotes import zygote_pid

    zygote_pid()
    return set(descendants(os.getpid())[1:])
