"""One call on its way through a program: its answer, or its stream, or why there is neither."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable
from typing import Final

from openresource.sandbox.driver import OutputTooLarge, ProgramError, ProgramReply

# More than this waiting unread, and the program is no longer listened to.
UNREAD_BYTES_MAX: Final = 1 << 20
SETTLE_SECONDS_MAX: Final = 1.0


class Ticket:
    """What a channel fills and a caller waits for; it is closed exactly once."""

    def __init__(
        self,
        number: int,
        output_bytes_max: int,
        *,
        on_close: Callable[[Ticket], None],
        on_overflow: Callable[[ProgramError], None],
        on_cancel: Callable[[Ticket], None],
        on_pressure: Callable[[bool], None],
    ) -> None:
        self.number = number
        self.first: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.timer: asyncio.TimerHandle | None = None
        self.closed = False
        self.cancelled = False
        self.streams = False
        self.began_ns = 0
        self.began_cpu_ns = 0
        # What the guest has measured of one process among several.
        self.told_cpu_ms = 0
        # By which the program asks the broker for this call; empty if it may not.
        self.secret = ""
        self.reply = ProgramReply(200, "", b"")
        self._bytes = 0
        self._bytes_max = output_bytes_max
        self._unread: deque[bytes] = deque()
        self._unread_bytes = 0
        self._pressing = False
        self._error: ProgramError | None = None
        self._more: asyncio.Future[None] | None = None
        self._drained: asyncio.Future[None] | None = None
        self._on_close = on_close
        self._on_overflow = on_overflow
        self._on_cancel = on_cancel
        self._on_pressure = on_pressure

    @property
    def bytes_out(self) -> int:
        """How much the program has answered so far."""
        return self._bytes

    def answer(self, status: int, content_type: str, body: bytes) -> None:
        """The whole answer."""
        if not self.closed and self._count(len(body)):
            self.reply.status, self.reply.content_type, self.reply.body = status, content_type, body
            self._close(None)

    def begin_stream(self, status: int, content_type: str) -> None:
        """The answer's head; chunks follow."""
        if not self.closed and not self.streams:
            self.streams = True
            self.reply.status, self.reply.content_type, self.reply.body = status, content_type, Stream(self)

    def chunk(self, data: bytes) -> None:
        """One more part of a stream."""
        if self.closed or not self._count(len(data)) or self.cancelled:
            return
        self._unread.append(data)
        self._unread_bytes += len(data)
        self._wake()
        if self._unread_bytes > UNREAD_BYTES_MAX and not self._pressing:
            self._pressing = True
            self._on_pressure(True)

    def end(self) -> None:
        """The stream's end."""
        if not self.closed:
            self._close(None)

    def fail(self, error: ProgramError) -> None:
        """No answer, or no more of it."""
        if not self.closed:
            self._close(error)

    def cancel(self) -> None:
        """Nobody waits any more: what still comes is dropped, and the program is told where it can be."""
        if self.closed or self.cancelled:
            return
        self.cancelled = True
        self._unread.clear()
        self._release_pressure()
        self._on_cancel(self)

    async def settle(self) -> None:
        """Wait a moment for the end."""
        deadline = time.monotonic() + SETTLE_SECONDS_MAX
        while not self.closed and (left := deadline - time.monotonic()) > 0:
            self._more = asyncio.get_running_loop().create_future()
            try:
                await asyncio.wait((self._more,), timeout=left)
            finally:
                self._more = None

    async def drained(self) -> None:
        """Wait while the caller has too much left to read."""
        if self._pressing:
            self._drained = asyncio.get_running_loop().create_future()
            try:
                await self._drained
            finally:
                self._drained = None

    async def next(self) -> bytes:
        """The next part of the stream."""
        while not self._unread:
            if self.closed or self.cancelled:
                if self._error is not None and not self.cancelled:
                    raise self._error
                raise StopAsyncIteration
            self._more = asyncio.get_running_loop().create_future()
            try:
                await self._more
            finally:
                self._more = None
        data = self._unread.popleft()
        self._unread_bytes -= len(data)
        if self._unread_bytes <= UNREAD_BYTES_MAX // 2:
            self._release_pressure()
        return data

    def _count(self, size: int) -> bool:
        self._bytes += size
        if self._bytes <= self._bytes_max:
            return True
        self._on_overflow(OutputTooLarge(what="answer", bytes_max=self._bytes_max))
        return False

    def _close(self, error: ProgramError | None) -> None:
        self.closed = True
        self._error = error
        if self.timer is not None:
            self.timer.cancel()
        self._release_pressure()
        self._on_close(self)
        if not self.first.done():
            if error is None or self.streams:
                self.first.set_result(None)
            else:
                self.first.set_exception(error)
                # A caller that has gone does not ask for it any more.
                self.first.exception()
        self._wake()

    def _wake(self) -> None:
        if self.streams and not self.first.done():
            self.first.set_result(None)
        if self._more is not None and not self._more.done():
            self._more.set_result(None)

    def _release_pressure(self) -> None:
        if self._pressing:
            self._pressing = False
            self._on_pressure(False)
            if self._drained is not None and not self._drained.done():
                self._drained.set_result(None)


class Stream:
    """The body of a streamed answer."""

    def __init__(self, ticket: Ticket) -> None:
        self._ticket = ticket

    def __aiter__(self) -> Stream:
        return self

    async def __anext__(self) -> bytes:
        return await self._ticket.next()

    async def aclose(self) -> None:
        """Stop listening, and give the program a moment to stop too, so that its place is free for the next call."""
        self._ticket.cancel()
        await self._ticket.settle()
