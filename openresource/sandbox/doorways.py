"""Hands out connections to a server inside a sandbox: the guest beside it connects and passes the socket out.

Whoever made these sockets may be hostile: no read or write here ever waits in the kernel, because the other end could
switch a shared socket back to blocking.
"""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Callable
from typing import Final

from openresource.sandbox.driver import ProgramCrashed, ProgramError

CONNECT: Final = b"c"
READY: Final = b"R"
CONNECTED: Final = b"+"


class Broken(Exception):
    """The connection ended or made no sense."""


class Ended(Broken):
    """Who hands out connections is gone, and with it the program."""


class Doorway:
    """The guest's control socket: one question at a time, one connection for each."""

    def __init__(
        self, control: socket.socket, on_lost: Callable[[], None], on_fault: Callable[[ProgramError], None]
    ) -> None:
        self._on_lost = on_lost
        self._on_fault = on_fault
        self._loop = asyncio.get_running_loop()
        self._listening: asyncio.Future[None] = self._loop.create_future()
        self._asked: asyncio.Future[socket.socket] | None = None
        self._asking = asyncio.Lock()
        self._control: socket.socket | None = control
        control.setblocking(False)
        self._loop.add_reader(control.fileno(), self._controlled)

    @property
    def is_open(self) -> bool:
        """Whether connections can be asked for."""
        return self._control is not None

    async def listening(self) -> None:
        """Wait until the program's port answers."""
        await asyncio.shield(self._listening)

    async def connect(self) -> socket.socket:
        """A connection to the program."""
        async with self._asking:
            if self._control is None:
                raise Ended("it has ended")
            self._asked = self._loop.create_future()
            try:
                self._control.send(CONNECT)
                return await self._asked
            except OSError:
                raise Ended("it has ended") from None
            finally:
                self._asked = None

    def close(self) -> None:
        """Hang up."""
        if self._control is not None:
            self._loop.remove_reader(self._control.fileno())
            self._control.close()
            self._control = None
        for future in (self._listening, self._asked):
            if future is not None and not future.done():
                future.cancel()

    def _controlled(self) -> None:
        """The guest has said something or has gone."""
        assert self._control is not None
        try:
            word, descriptors, _, _ = socket.recv_fds(self._control, 1, 1, socket.MSG_CMSG_CLOEXEC)
        except BlockingIOError:
            return
        except OSError:
            word, descriptors = b"", []
        connection = _tcp(descriptors)
        if not word:
            self._loop.remove_reader(self._control.fileno())
            if self._asked is not None and not self._asked.done():
                self._asked.set_exception(Ended("it has ended"))
            self._on_lost()
        elif word == READY and connection is None and not self._listening.done():
            self._listening.set_result(None)
        elif self._asked is not None and not self._asked.done():
            if word == CONNECTED and connection is not None:
                self._asked.set_result(connection)
                return
            self._asked.set_exception(Broken("its port does not answer"))
        elif word != CONNECTED:
            self._on_fault(ProgramCrashed(reason="it spoke out of turn", stderr=""))
        if connection is not None:
            connection.close()


def _tcp(descriptors: list[int]) -> socket.socket | None:
    """The one TCP socket among what a stranger has sent; anything else is closed."""
    found = None
    for descriptor in descriptors:
        try:
            candidate = socket.socket(fileno=descriptor)
        except OSError:
            os.close(descriptor)
            continue
        is_tcp = (
            candidate.family in (socket.AF_INET, socket.AF_INET6) and candidate.type == socket.SOCK_STREAM
        )
        if found is None and is_tcp:
            found = candidate
        else:
            candidate.close()
    return found
