"""The one door out of a sandbox: a unix socket on which a program may ask for calls to other services.

It is there from the first day, so that programs can be written against it; calls between services are not open yet,
and every request is answered with a refusal that says so.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import tempfile
from pathlib import Path
from typing import Final

import msgspec

from openresource.primitives.errors import Refusal
from openresource.sandbox.layout import BROKER_NAME

REQUEST_BYTES_MAX: Final = 1 << 20
CONNECTIONS_MAX: Final = 16


class BrokerClosed(Refusal):
    template = "Calls from a program to other services are not open yet."
    way_out = "Take what you need as input, or let your caller make both calls."


class BrokerRequestInvalid(Refusal):
    template = "A request to the broker is one line of JSON, at most {bytes_max} bytes."
    way_out = 'Send {{"service": "name", "method": "name", "input": {{}}}} and a newline.'


class Broker:
    """A listening socket in a folder of its own, for one instance."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.path = folder / BROKER_NAME
        self.requests = 0
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()

    @classmethod
    async def open(cls) -> Broker:
        """A broker in a new folder; programs under another uid may enter it, nobody may list its parent."""
        parent = Path(tempfile.mkdtemp(prefix="openresource-broker-"))
        broker = cls(parent / "sock")
        try:
            broker.folder.mkdir()
            os.chmod(broker.folder, 0o755)
            opening = asyncio.ensure_future(
                asyncio.start_unix_server(broker._serve, broker.path, limit=REQUEST_BYTES_MAX)
            )
            try:
                await asyncio.shield(opening)
            finally:
                # Cancelled half-way, asyncio would forget a socket that listens already.
                broker._server = await opening
            os.chmod(broker.path, 0o666)
        except BaseException:
            await broker.close()
            raise
        return broker

    async def close(self) -> None:
        """Hang up and remove the folder."""
        if self._server is not None:
            self._server.close()
            self._server = None
        for writer in list(self._writers):
            writer.transport.abort()
        shutil.rmtree(self.folder.parent, ignore_errors=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if len(self._writers) >= CONNECTIONS_MAX:
            writer.transport.abort()
            return
        self._writers.add(writer)
        try:
            while True:
                try:
                    line = await reader.readuntil(b"\n")
                except asyncio.LimitOverrunError:
                    writer.write(_refused(BrokerRequestInvalid(bytes_max=REQUEST_BYTES_MAX)))
                    await writer.drain()
                    return
                self.requests += 1
                writer.write(self._answer(line))
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            return
        finally:
            self._writers.discard(writer)
            writer.transport.abort()

    def _answer(self, line: bytes) -> bytes:
        try:
            request = msgspec.json.decode(line)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return _refused(BrokerRequestInvalid(bytes_max=REQUEST_BYTES_MAX))
        service = request.get("service") if isinstance(request, dict) else None
        return _refused(BrokerClosed(service=str(service)[:200]))


def _refused(refusal: Refusal) -> bytes:
    return msgspec.json.encode({"error": refusal.to_json()}) + b"\n"
