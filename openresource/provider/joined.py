"""Other machines that work for this provider: each keeps one connection to it and offers its sandboxes.

They bring a key that the operator has carried to them; they need no coins, no open port and no word on the chain. The
pools start instances there as they do here, and calls go to whichever instance is free.
"""

from __future__ import annotations

import asyncio
import hmac
import json
import logging
import secrets
import socket
import ssl
from collections.abc import Awaitable, Callable, Coroutine
from pathlib import Path
from typing import Any, Final

from openresource.market.hardware import bytes_text
from openresource.primitives.errors import Refusal
from openresource.provider.join_keys import KEY_FILE, SECRET_BYTES
from openresource.sandbox.budgets import Budget
from openresource.sandbox.driver import (
    Limits,
    OutputTooLarge,
    Overloaded,
    ProgramCall,
    ProgramCrashed,
    ProgramError,
    ProgramReply,
    Release,
    Usage,
)
from openresource.sandbox.drivers import rank
from openresource.sandbox.links import (
    BLOCK,
    BODY_BYTES_MAX,
    CALL,
    CANCEL,
    DONE,
    FAILED,
    HEAD,
    HELLO,
    LOST,
    NEED,
    PART,
    START,
    STOP,
    TAKEN,
    USAGE,
    WELCOME,
    Frame,
    Link,
    LinkLost,
    error_of,
)

log = logging.getLogger("openresource.provider.joined")

HELLO_SECONDS: Final = 10.0
HANDSHAKE_SECONDS: Final = 10.0
UNPROVEN_MAX: Final = 16
MACHINES_MAX: Final = 64
MEMORY_BYTES_MAX: Final = 1 << 44
CPU_MAX: Final = 4_096.0
BLOCKS_AT_ONCE: Final = 8
KEY_LOOK_SECONDS: Final = 1.0
TAKEN_BYTES: Final = 1 << 18
FRAMES_WAITING_MAX: Final = 10_000
SETTLE_SECONDS_MAX: Final = 1.0

GetBlock = Callable[[str], Awaitable[bytes]]


class PoolPortTaken(Refusal):
    template = "Machines cannot join at {host}:{port}: {reason}."
    way_out = "Choose another port with --pool-port, or stop what listens there."


class _Matter:
    """Something that was asked of a machine: its answer as it comes."""

    def __init__(self) -> None:
        self.frames: asyncio.Queue[Frame | LinkLost] = asyncio.Queue()
        self.waiting_bytes = 0

    def put(self, frame: Frame) -> bool:
        """One more frame; false when more of them wait than anybody may send."""
        self.waiting_bytes += len(frame.payload)
        self.frames.put_nowait(frame)
        return self.waiting_bytes <= BODY_BYTES_MAX and self.frames.qsize() <= FRAMES_WAITING_MAX

    async def next(self) -> Frame:
        """The next frame of it; a failure, or the machine's end, is raised."""
        frame = await self.frames.get()
        if isinstance(frame, LinkLost):
            raise frame
        self.waiting_bytes -= len(frame.payload)
        if frame.kind == FAILED:
            raise error_of(frame.head())
        return frame


class JoinedMachine:
    """One machine at the other end of a connection."""

    def __init__(self, link: Link, hello: dict[str, Any], get_block: GetBlock) -> None:
        self.link = link
        self.name = str(hello.get("name", ""))[:64] or link.machine
        self.memory_bytes = _whole(hello.get("memory_bytes"), MEMORY_BYTES_MAX)
        self.cpu = float(_whole(hello.get("cpu"), int(CPU_MAX)))
        levels = hello.get("levels")
        self.levels = tuple(
            (str(one[0])[:40], tuple(str(kind)[:20] for kind in one[1][:20]))
            for one in (levels[:16] if isinstance(levels, list) else [])
            if isinstance(one, list) and len(one) == 2 and isinstance(one[1], list)
        )
        self.used_bytes = 0
        self.instances: dict[int, JoinedInstance] = {}
        self.unfit_until: dict[str, float] = {}
        self._matters: dict[int, _Matter] = {}
        self._numbers = 0
        self._get_block = get_block
        self._gate = asyncio.Semaphore(BLOCKS_AT_ONCE)
        self._tasks: set[asyncio.Task[None]] = set()
        self.is_lost = False

    def can_run(self, kind: str, level: str) -> bool:
        """Whether it has a driver for this kind of program behind a wall that is thick enough."""
        return any(kind in kinds and rank(reached) >= rank(level) for reached, kinds in self.levels)

    def count(self, program: str) -> int:
        """How many instances of a program run there."""
        return sum(1 for one in self.instances.values() if one.program == program)

    async def serve(self) -> None:
        """Take what it says until the connection ends."""
        try:
            while True:
                self._take(await self.link.receive())
        finally:
            self.lose(self.link.lost("it has gone"))

    def lose(self, why: LinkLost) -> None:
        """It is gone: everything that was under way ends."""
        if self.is_lost:
            return
        self.is_lost = True
        self.link.close()
        for matter in self._matters.values():
            matter.frames.put_nowait(why)
        for instance in self.instances.values():
            instance.end(why)
        for task in self._tasks:
            task.cancel()

    def ask(self) -> tuple[int, _Matter]:
        """A new matter and its number."""
        if self.is_lost:
            raise self.link.lost("it has gone")
        self._numbers += 1
        matter = self._matters[self._numbers] = _Matter()
        return self._numbers, matter

    def forget(self, number: int) -> None:
        """A matter is over."""
        self._matters.pop(number, None)

    def keep(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Something is done beside the rest."""
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def start(self, release: Release, level: str, limits: Limits) -> JoinedInstance:
        """An instance there; the machine fetches and builds what it does not have."""
        number, matter = self.ask()
        self.used_bytes += limits.memory_bytes
        try:
            await self.link.send(START, number, {"program": release.program, "level": level})
            async with asyncio.timeout(limits.startup_seconds + HANDSHAKE_SECONDS):
                frame = await matter.next()
            head = frame.head()
            interface = head.get("interface")
            described = interface if isinstance(interface, dict) else {}
            instance = JoinedInstance(self, number, release.program, limits, described)
        except BaseException:
            self.used_bytes -= limits.memory_bytes
            if not self.is_lost:
                self.keep(self._say(STOP, number))
            raise
        finally:
            self.forget(number)
        self.instances[number] = instance
        return instance

    async def _say(self, kind: int, number: int) -> None:
        try:
            await self.link.send(kind, number)
        except LinkLost:
            # Whoever reads from it learns that too.
            return

    def _take(self, frame: Frame) -> None:
        match frame.kind:
            case k if k in (HEAD, PART, DONE, FAILED):
                matter = self._matters.get(frame.number)
                if matter is not None and not matter.put(frame):
                    raise self.link.lost("it sends more than it may")
            case k if k == LOST:
                instance = self.instances.get(frame.number)
                if instance is not None:
                    instance.end(error_of(frame.head()))
            case k if k == NEED:
                self.keep(self._give(frame.number, str(frame.head().get("cid", ""))[:100]))
            case _:
                raise self.link.lost("it spoke out of turn")

    async def _give(self, number: int, cid: str) -> None:
        """A block that it asked for; what it gets it verifies itself."""
        try:
            async with self._gate:
                data = await self._get_block(cid)
                await self.link.send_bytes(BLOCK, number, data)
        except LinkLost:
            return
        except Refusal as refusal:
            await self.link.send(FAILED, number, refusal.to_json())


class JoinedInstance:
    """An instance on another machine, as one of our own."""

    def __init__(
        self, machine: JoinedMachine, number: int, program: str, limits: Limits, interface: dict[str, Any]
    ) -> None:
        self.program = program
        self._machine = machine
        self._number = number
        self._limits = limits
        self._interface = interface
        self._fault: ProgramError | None = None
        self._in_flight = 0
        self._freed = asyncio.Event()
        self._has_stopped = False

    @property
    def alive(self) -> bool:
        return self._fault is None and not self._machine.is_lost

    @property
    def in_flight(self) -> int:
        return self._in_flight

    @property
    def interface(self) -> dict[str, Any]:
        return self._interface

    async def call(self, call: ProgramCall) -> ProgramReply:
        """A call over there, as it would be here."""
        if self._fault is not None:
            raise self._fault
        if self._in_flight >= self._limits.concurrency:
            raise Overloaded(concurrency=self._limits.concurrency)
        machine = self._machine
        number, matter = machine.ask()
        self._in_flight += 1
        goes_on = False
        try:
            await machine.link.send(
                CALL,
                number,
                {
                    "instance": self._number,
                    "method": call.method,
                    "path": call.path,
                    "content_type": call.content_type,
                    "deadline_seconds": call.deadline_seconds,
                    "http_method": call.http_method,
                    "bytes": len(call.body),
                },
            )
            await machine.link.send_body(number, call.body)
            head = (await matter.next()).head()
            reply = ProgramReply(_status(head.get("status")), str(head.get("content_type", ""))[:200], b"")
            if head.get("streams") is True:
                goes_on = True
                reply.body = _JoinedStream(self, machine, number, matter, reply)
                return reply
            await self._whole(matter, reply)
            return reply
        except (asyncio.CancelledError, OutputTooLarge):
            goes_on = True
            machine.keep(self.cancel(number, matter))
            raise
        finally:
            if not goes_on:
                self._over(number)

    async def _whole(self, matter: _Matter, reply: ProgramReply) -> None:
        parts: list[bytes] = []
        size = 0
        while (frame := await matter.next()).kind == PART:
            size += len(frame.payload)
            if size > self._limits.output_bytes:
                raise OutputTooLarge(what="answer", bytes_max=self._limits.output_bytes)
            parts.append(frame.payload)
        reply.body = b"".join(parts)
        count(reply, frame)

    async def cancel(self, number: int, matter: _Matter) -> None:
        """Nobody waits for a call any more; its place is free once the program is done with it."""
        try:
            await self._machine.link.send(CANCEL, number)
            while (await matter.next()).kind != DONE:
                continue
        except ProgramError as ended:
            log.debug("a call that was cancelled ended: %s", ended.message)
        finally:
            self._over(number)

    def _over(self, number: int) -> None:
        self._machine.forget(number)
        self._in_flight -= 1
        self._freed.set()

    async def until_free(self, in_flight_max: int) -> None:
        """Wait until it works on no more than so many calls, or has ended."""
        while self.alive and self._in_flight > in_flight_max:
            self._freed.clear()
            await self._freed.wait()

    async def usage(self) -> Usage:
        """What it has used since its start; nothing is known of one that has gone."""
        try:
            number, matter = self._machine.ask()
            try:
                await self._machine.link.send(USAGE, number, {"instance": self._number})
                figures = (await matter.next()).head()
            finally:
                self._machine.forget(number)
        except ProgramError:
            figures = {}
        names = ("cpu_ms", "wall_ms", "peak_rss_bytes", "bytes_in", "bytes_out")
        return Usage(*(_whole(figures.get(name), MEMORY_BYTES_MAX) for name in names))

    async def stop(self) -> None:
        """Ends it there."""
        if self._has_stopped:
            return
        self._has_stopped = True
        self._fault = self._fault or ProgramCrashed(reason="it was stopped", stderr="")
        self._freed.set()
        machine = self._machine
        machine.instances.pop(self._number, None)
        machine.used_bytes -= self._limits.memory_bytes
        if machine.is_lost:
            return
        await machine._say(STOP, self._number)

    def end(self, why: ProgramError) -> None:
        """It has ended by itself, or with its machine."""
        self._fault = self._fault or why
        self._freed.set()


class _JoinedStream:
    """A stream from another machine; what was read is told, so that more may come."""

    def __init__(
        self,
        instance: JoinedInstance,
        machine: JoinedMachine,
        number: int,
        matter: _Matter,
        reply: ProgramReply,
    ) -> None:
        self._instance = instance
        self._machine = machine
        self._number = number
        self._matter = matter
        self._reply = reply
        self._untold = self._bytes = 0
        self._is_over = False

    def __aiter__(self) -> _JoinedStream:
        return self

    async def __anext__(self) -> bytes:
        if self._is_over:
            raise StopAsyncIteration
        try:
            frame = await self._matter.next()
        except ProgramError:
            self._end()
            raise
        if frame.kind != PART:
            count(self._reply, frame)
            self._end()
            raise StopAsyncIteration
        self._untold += len(frame.payload)
        self._bytes += len(frame.payload)
        if self._bytes > self._instance._limits.output_bytes:
            await self.aclose()
            raise OutputTooLarge(what="answer", bytes_max=self._instance._limits.output_bytes)
        if self._untold >= TAKEN_BYTES:
            await self._machine.link.send(TAKEN, self._number, {"bytes": self._untold})
            self._untold = 0
        return frame.payload

    async def aclose(self) -> None:
        """Nobody listens any more; the program gets a moment to stop too."""
        if not self._is_over:
            self._is_over = True
            ending = self._machine.keep(self._instance.cancel(self._number, self._matter))
            await asyncio.wait((ending,), timeout=SETTLE_SECONDS_MAX)

    def _end(self) -> None:
        self._is_over = True
        self._instance._over(self._number)


class Hub:
    """Where machines join, and which have."""

    def __init__(self, folder: Path, secret: str, get_block: GetBlock) -> None:
        self._folder = folder
        self._secret = secret
        self._get_block = get_block
        self._listener: socket.socket | None = None
        self._unproven = 0
        self._serving: set[asyncio.Task[None]] = set()
        self._working: list[asyncio.Task[None]] = []
        self._budget: Budget | None = None
        self.machines: list[JoinedMachine] = []
        self.refused = 0

    async def open(self, host: str, port: int, context: ssl.SSLContext, budget: Budget | None) -> int:
        """Listen; gives the port."""
        self._budget = budget
        try:
            family = (await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM))[0][0]
            listener = socket.create_server((host, port), family=family, backlog=UNPROVEN_MAX)
        except OSError as error:
            raise PoolPortTaken(host=host, port=port, reason=error.strerror or str(error)) from None
        listener.setblocking(False)
        self._listener = listener
        self._working = [
            asyncio.create_task(self._accept(listener, context)),
            asyncio.create_task(self._watch_key()),
        ]
        return int(listener.getsockname()[1])

    async def close(self) -> None:
        """Let every machine go."""
        for task in (*self._working, *self._serving):
            task.cancel()
        await asyncio.gather(*self._working, *self._serving, return_exceptions=True)
        if self._listener is not None:
            self._listener.close()

    async def _accept(self, listener: socket.socket, context: ssl.SSLContext) -> None:
        """Strangers are counted before anything is done for them, a handshake included."""
        loop = asyncio.get_running_loop()
        while True:
            try:
                connection, peer = await loop.sock_accept(listener)
            except OSError as error:
                log.warning("machines cannot join just now: %s", error)
                await asyncio.sleep(KEY_LOOK_SECONDS)
                continue
            if self._unproven >= UNPROVEN_MAX or len(self.machines) >= MACHINES_MAX:
                connection.close()
                continue
            self._unproven += 1
            task = asyncio.create_task(self._serve(connection, f"{peer[0]}:{peer[1]}", context))
            self._serving.add(task)
            task.add_done_callback(self._serving.discard)

    async def _serve(self, connection: socket.socket, peer: str, context: ssl.SSLContext) -> None:
        machine: JoinedMachine | None = None
        link: Link | None = None
        try:
            try:
                async with asyncio.timeout(HELLO_SECONDS):
                    link = await _over_tls(connection, peer, context)
                    machine = await self._meet(link)
            finally:
                self._unproven -= 1
            if machine is not None:
                link.begin()
                self._add(machine)
                await machine.serve()
        except (ProgramError, OSError, TimeoutError) as problem:
            log.info("a machine at %s is gone: %s", peer, problem)
        finally:
            connection.close()
            if link is not None:
                link.close()
            if machine is not None:
                self._remove(machine)

    async def _meet(self, link: Link) -> JoinedMachine | None:
        """The machine behind a connection, if it brings the key."""
        frame = await link.receive()
        hello = frame.head()
        offered = str(hello.get("secret", ""))[:1_000]
        is_ours = hmac.compare_digest(offered.encode("utf-8", "replace"), self._secret.encode())
        if frame.kind != HELLO or not is_ours:
            self.refused += 1
            await link.send(FAILED, 0, {"reason": "the join key is not its own"})
            return None
        await link.send(WELCOME, 0, {})
        return JoinedMachine(link, hello, self._get_block)

    def _add(self, machine: JoinedMachine) -> None:
        self.machines.append(machine)
        if self._budget is not None:
            self._budget.memory_bytes += machine.memory_bytes
            self._budget.cpu += machine.cpu
        log.info("%s has joined with %s for programs", machine.name, bytes_text(machine.memory_bytes))

    def _remove(self, machine: JoinedMachine) -> None:
        if machine in self.machines:
            self.machines.remove(machine)
            if self._budget is not None:
                self._budget.memory_bytes -= machine.memory_bytes
                self._budget.cpu -= machine.cpu
            log.info("%s has left", machine.name)

    async def _watch_key(self) -> None:
        """A key that was renewed or taken away lets go of everybody who joined with the old one."""
        while True:
            await asyncio.sleep(KEY_LOOK_SECONDS)
            try:
                secret = str(json.loads((self._folder / KEY_FILE).read_text()).get("secret", ""))
            except (OSError, ValueError, AttributeError):
                secret = ""
            if not hmac.compare_digest(secret.encode(), self._secret.encode()):
                log.warning("the join key has changed: every machine must join again")
                # An empty word opens nothing.
                self._secret = secret or secrets.token_hex(SECRET_BYTES)
                for machine in list(self.machines):
                    machine.lose(machine.link.lost("its join key is not good any more"))


async def _over_tls(connection: socket.socket, peer: str, context: ssl.SSLContext) -> Link:
    # Frames are small and somebody waits for each.
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    reader = asyncio.StreamReader()
    protocol = asyncio.StreamReaderProtocol(reader)
    loop = asyncio.get_running_loop()
    transport, _ = await loop.connect_accepted_socket(
        lambda: protocol, connection, ssl=context, ssl_handshake_timeout=HANDSHAKE_SECONDS
    )
    return Link(reader, asyncio.StreamWriter(transport, protocol, reader, loop), peer)


def count(reply: ProgramReply, frame: Frame) -> None:
    """The figures at the end of an answer."""
    figures = frame.head()
    reply.cpu_ms = _whole(figures.get("cpu_ms"), 1 << 40)
    reply.wall_ms = _whole(figures.get("wall_ms"), 1 << 40)
    reply.fuel = _whole(figures.get("fuel"), 1 << 60)


def _whole(value: Any, most: int) -> int:
    """A whole number from another machine, within its bounds."""
    return value if type(value) is int and 0 <= value <= most else 0


def _status(value: Any) -> int:
    return value if type(value) is int and 100 <= value <= 599 else 502
