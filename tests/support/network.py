"""A local network for tests: a real node process on a free port, with money to give away.

    async with local_node() as node:
        key = await node.funded_key(5_000_000)
        chain = node.chain()          # closed with the node

`local_node_process(home)` is the same for tests that are not asynchronous.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import secrets
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import weakref
from collections.abc import AsyncIterator, Iterator, Mapping
from pathlib import Path
from typing import Any

from openresource.client.chain import Chain, set_value
from openresource.node.homes import NodeHome
from openresource.primitives.amounts import ain_number
from openresource.primitives.keys import PrivateKey, generate_key, private_key_from_hex
from tests.support.ports import hold_port, port_of

START_SECONDS_MAX = 60.0
STOP_SECONDS_MAX = 60.0


class NodeDidNotStart(Exception):
    """The node's own words are in the message."""


class NodeProcess:
    """A node in a process of its own; it can be killed and started again on the same home and port."""

    def __init__(self, home: Path, *, parameters: Mapping[str, Mapping[str, Any]] | None = None) -> None:
        """`parameters` go into the genesis document: {"market": {"channel_lifetime_ms": 5_000}}."""
        self.home = home
        self._parameters = parameters
        # Held until nobody knows this node any more: killed and started again, it finds its port free.
        holder = hold_port()
        self.port = port_of(holder)
        weakref.finalize(self, holder.close)
        self.genesis_hash = ""
        self.log_file = home / "node.log"
        self._process: subprocess.Popen[bytes] | None = None
        self._chains: list[Chain] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    @property
    def funding_key(self) -> PrivateKey:
        """The key of the public's account."""
        record = json.loads((self.home / "node" / "funding.json").read_text())
        return private_key_from_hex(record["private_key"])

    def start(self) -> float:
        """Start the process and wait until it says that it is ready; how many seconds that took."""
        self.home.mkdir(parents=True, exist_ok=True)
        if self._parameters is not None:
            self._write_genesis(self._parameters)
        began = time.monotonic()
        command = [
            sys.executable,
            "-m",
            "openresource.node",
            "--home",
            str(self.home),
            "--port",
            str(self.port),
        ]
        with open(self.log_file, "ab") as log:
            self._process = subprocess.Popen(
                command, stdout=subprocess.PIPE, stderr=log, stdin=subprocess.DEVNULL, env={**os.environ}
            )
        line = self._first_line()
        if not line.get("ready"):
            self.kill()
            raise NodeDidNotStart(f"{line}\n{self.log_file.read_text(errors='replace')[-4000:]}")
        self.port = line["port"]
        self.genesis_hash = line["genesis_hash"]
        return time.monotonic() - began

    def stop(self) -> int:
        """Ask for a graceful stop; the exit code."""
        return self._end(signal.SIGTERM)

    def kill(self) -> None:
        """kill -9."""
        self._end(signal.SIGKILL)

    def is_running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def chain(self, **options: Any) -> Chain:
        """A client of this node; closed with it by `local_node`."""
        chain = Chain(self.url, **options)
        self._chains.append(chain)
        return chain

    async def fund(self, address: str, amount_uain: int) -> str:
        """Pay an account by an ordinary transfer, final when this returns."""
        key = self.funding_key
        async with Chain(self.url) as chain:
            path = f"/transfer/{key.address}/{address}/{secrets.token_hex(8)}/value"
            return (await chain.submit_final(set_value(path, ain_number(amount_uain)), key)).tx_hash

    async def funded_key(self, amount_uain: int) -> PrivateKey:
        """A new key whose account holds an amount."""
        key = generate_key(secrets.token_bytes(32))
        await self.fund(key.address, amount_uain)
        return key

    async def close_chains(self) -> None:
        for chain in self._chains:
            await chain.close()
        self._chains.clear()

    def _write_genesis(self, parameters: Mapping[str, Mapping[str, Any]]) -> None:
        home = NodeHome(self.home)
        if not home.genesis_file.exists():
            home.ensure()
            document = home.genesis("local", time.time_ns() // 1_000_000)
            home.genesis_file.write_text(json.dumps({**document, "parameters": parameters}))

    def _first_line(self) -> dict[str, Any]:
        assert self._process is not None and self._process.stdout is not None
        readable, _, _ = select.select([self._process.stdout], [], [], START_SECONDS_MAX)
        line = self._process.stdout.readline() if readable else b""
        found: dict[str, Any] = json.loads(line) if line.strip() else {"ready": False}
        return found

    def _end(self, number: signal.Signals) -> int:
        process, self._process = self._process, None
        if process is None:
            return 0
        if process.poll() is None:
            process.send_signal(number)
        try:
            code = process.wait(STOP_SECONDS_MAX)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            raise
        finally:
            if process.stdout is not None:
                process.stdout.close()
        return code


@contextlib.contextmanager
def local_node_process(home: Path | None = None, **options: Any) -> Iterator[NodeProcess]:
    """A running node; a home that was not named is removed afterwards."""
    folder = Path(tempfile.mkdtemp(prefix="openresource-node-")) if home is None else home
    node = NodeProcess(folder, **options)
    try:
        node.start()
        yield node
    finally:
        try:
            node.kill()
        finally:
            if home is None:
                shutil.rmtree(folder, ignore_errors=True)


@contextlib.asynccontextmanager
async def local_node(home: Path | None = None, **options: Any) -> AsyncIterator[NodeProcess]:
    """A running node for asynchronous tests; its clients are closed with it."""
    with local_node_process(home, **options) as node:
        try:
            yield node
        finally:
            await node.close_chains()
            await asyncio.sleep(0)
