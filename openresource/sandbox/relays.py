"""A unix socket outside that leads to a server inside a sandbox, for clients that want an address and no socket."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from pathlib import Path
from typing import Final

from openresource.sandbox.doorways import Broken, Doorway
from openresource.sandbox.folders import make_folder, remove_folder

CONNECTIONS_MAX: Final = 64
READ_BYTES: Final = 1 << 16
SOCKET_NAME: Final = "program.sock"


class Relay:
    """Joins each connection that comes to its socket with one into the sandbox."""

    def __init__(self, doorway: Doorway) -> None:
        self._doorway = doorway
        # Only this user reaches it.
        self._folder = make_folder("relay")
        self._loop = asyncio.get_running_loop()
        self._tasks: set[asyncio.Task[None]] = set()
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._listener.bind(str(self.path))
        os.chmod(self.path, 0o600)
        self._listener.listen(CONNECTIONS_MAX)
        self._listener.setblocking(False)
        self._accepting = self._loop.create_task(self._accept())

    @property
    def path(self) -> Path:
        """Where clients connect."""
        return self._folder / SOCKET_NAME

    def close(self) -> None:
        """Hang up on everybody."""
        self._accepting.cancel()
        for task in self._tasks:
            task.cancel()
        self._listener.close()
        remove_folder(self._folder)

    async def _accept(self) -> None:
        while True:
            outer, _ = await self._loop.sock_accept(self._listener)
            if len(self._tasks) >= CONNECTIONS_MAX:
                outer.close()
                continue
            task = self._loop.create_task(self._join(outer))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _join(self, outer: socket.socket) -> None:
        with outer:
            outer.setblocking(False)
            try:
                inner = await self._doorway.connect()
            except Broken:
                return
            with inner:
                inner.setblocking(False)
                ways = [
                    asyncio.ensure_future(self._pump(outer, inner)),
                    asyncio.ensure_future(self._pump(inner, outer)),
                ]
                try:
                    await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
                finally:
                    for way in ways:
                        way.cancel()
                    await asyncio.gather(*ways, return_exceptions=True)

    async def _pump(self, source: socket.socket, target: socket.socket) -> None:
        """Bytes from one to the other until either ends; never waits in the kernel."""
        with contextlib.suppress(OSError):
            while True:
                try:
                    data = source.recv(READ_BYTES, socket.MSG_DONTWAIT)
                except BlockingIOError:
                    await self._until(source, self._loop.add_reader, self._loop.remove_reader)
                    continue
                if not data:
                    return
                rest = memoryview(data)
                while rest:
                    try:
                        rest = rest[target.send(rest, socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL) :]
                    except BlockingIOError:
                        await self._until(target, self._loop.add_writer, self._loop.remove_writer)

    async def _until(self, one: socket.socket, add: object, remove: object) -> None:
        waiter: asyncio.Future[None] = self._loop.create_future()
        assert callable(add) and callable(remove)
        add(one.fileno(), _wake, waiter)
        try:
            await waiter
        finally:
            if one.fileno() >= 0:
                remove(one.fileno())


def _wake(waiter: asyncio.Future[None]) -> None:
    if not waiter.done():
        waiter.set_result(None)
