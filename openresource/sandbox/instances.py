"""One running program, whatever its kind and its driver: calls in, answers out, and one reason for its end."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from openresource.market.manifests import is_enveloped
from openresource.sandbox.broker import Broker
from openresource.sandbox.commands import port_of, wire_of
from openresource.sandbox.driver import (
    InputTooLarge,
    Limits,
    OutOfMemory,
    OutputTooLarge,
    Overloaded,
    ProgramCall,
    ProgramCrashed,
    ProgramDidNotStart,
    ProgramError,
    ProgramReply,
    ProgramTimedOut,
    Release,
    Usage,
)
from openresource.sandbox.frames import FrameChannel
from openresource.sandbox.http import HttpChannel
from openresource.sandbox.lines import LineChannel
from openresource.sandbox.processes import Ends, GuestProcess, signal_name
from openresource.sandbox.requests import Requests
from openresource.sandbox.tickets import Ticket
from openresource.sandbox.tongues import Channel, Opening, opener_of
from openresource.sandbox.watch import DESCRIPTORS_MAX, Watch

# A busy machine takes a while to end a program that has gone; without its end nobody knows why it went.
LAST_WORDS_SECONDS: Final = 5.0
NUMBER_MAX: Final = 2**31
# What runtimes say when memory has run out; Node and C++ end without an exception that we would see.
OUT_OF_MEMORY_WORDS: Final = (
    "MemoryError",
    "heap out of memory",
    "bad_alloc",
    "Cannot allocate memory",
    "out of memory",
)


@dataclass(frozen=True, slots=True)
class Watched:
    """What a driver's watch looks at besides processes."""

    inner_folders: tuple[str, ...] = ()
    disk_folder: Path | None = None
    # More where the descriptors of a runtime are counted too, whose own memory is bounded.
    descriptors_max: int = DESCRIPTORS_MAX
    # What a runtime needs for itself, beside the program's memory.
    own_bytes: int = 0


class RunningInstance:
    """An instance of the seam; made by `start_instance` alone."""

    def __init__(self, process: GuestProcess, limits: Limits, broker: Broker | None = None) -> None:
        self._broker = broker
        if broker is not None:
            broker.serve(lambda: len(self._tickets))
        self._interface: dict[str, Any] = {}
        self.pid = process.root
        self._process = process
        self._limits = limits
        self._loop = asyncio.get_running_loop()
        self._channel: Channel | None = None
        self._watch: Watch | None = None
        self._tickets: dict[int, Ticket] = {}
        self._number = 0
        self._began_ns = time.monotonic_ns()
        self._bytes_in = self._bytes_out = 0
        self._stderr_allowed = limits.stderr_bytes
        self._fault: ProgramError | None = None
        self._failing: asyncio.Task[None] | None = None
        self._waiters: set[asyncio.Future[None]] = set()
        self.is_starting = True
        process.on_stderr = self._on_stderr

    @property
    def alive(self) -> bool:
        """Whether it takes calls."""
        return self._fault is None and self._failing is None

    @property
    def interface(self) -> dict[str, Any]:
        """What a Python program says of its methods; empty for other kinds."""
        return self._interface

    @property
    def in_flight(self) -> int:
        """How many calls it works on, those of callers who have gone included."""
        return len(self._tickets)

    async def call(self, call: ProgramCall) -> ProgramReply:
        """The program's answer, or one of the typed ways in which there is none."""
        if not self.alive:
            raise self._fault or ProgramCrashed(reason="it has ended", stderr=self._process.last_words())
        if len(self._tickets) >= self._limits.concurrency:
            raise Overloaded(concurrency=self._limits.concurrency)
        if len(call.body) > self._limits.input_bytes:
            raise InputTooLarge(bytes=len(call.body), bytes_max=self._limits.input_bytes)
        ticket = self._ticket(min(call.deadline_seconds, self._limits.call_seconds))
        self._bytes_in += len(call.body)
        if call.asker is not None and self._broker is not None:
            ticket.secret = self._broker.grant(call.asker)
            call = replace(call, secret=ticket.secret)
        assert self._channel is not None
        self._channel.begin(ticket, call)
        try:
            await ticket.first
        except asyncio.CancelledError:
            ticket.cancel()
            raise
        return ticket.reply

    async def until_free(self, in_flight_max: int) -> None:
        """Wait until the program works on no more than so many calls, or has ended."""
        while self.alive and len(self._tickets) > in_flight_max:
            waiter: asyncio.Future[None] = self._loop.create_future()
            self._waiters.add(waiter)
            try:
                await waiter
            finally:
                self._waiters.discard(waiter)

    async def usage(self) -> Usage:
        """What it has used since its start."""
        peak = cpu_ms = 0
        if self._watch is not None:
            if self.alive:
                self._watch.look()
            peak, cpu_ms = self._watch.peak_resident_bytes, self._watch.cpu_ms
        flowing = sum(ticket.bytes_out for ticket in self._tickets.values())
        return Usage(
            cpu_ms=cpu_ms,
            wall_ms=(time.monotonic_ns() - self._began_ns) // 1_000_000,
            peak_rss_bytes=peak,
            bytes_in=self._bytes_in,
            bytes_out=self._bytes_out + flowing,
        )

    async def stop(self) -> None:
        """Kill the whole tree, reap it, wipe what it wrote; asking twice does no harm."""
        if self._fault is None:
            self._fault = ProgramCrashed(reason="it was stopped", stderr="")
        self._let_go(self._fault)
        await self._process.end()

    def fail(self, fault: ProgramError) -> None:
        """The instance is at its end for this reason; everything still open ends with it."""
        if self._fault is not None:
            return
        self._fault = fault
        self._process.kill()
        self._let_go(fault)
        # Nobody awaits this; the task is held by the process itself.
        self._failing = self._loop.create_task(self._process.end())

    def attach(self, channel: Channel, watch: Watch) -> None:
        """The channel to the program and the watch over it."""
        self._channel, self._watch = channel, watch

    def begin(self, interface: dict[str, Any]) -> None:
        """The program is ready."""
        self._interface = interface
        self.is_starting = False

    def lost(self) -> None:
        """The channel has closed by itself: find out why."""
        if self._fault is None and self._failing is None:
            self._failing = self._loop.create_task(self._explain())

    async def explanation(self, reason: str) -> ProgramError:
        """Why the program has ended, from its exit code and its last words."""
        try:
            async with asyncio.timeout(LAST_WORDS_SECONDS):
                await self._process.has_ended.wait()
        except TimeoutError:
            self._process.kill()
        words = self._process.last_words()
        groups = self._process.groups
        code = self._process.exit_code
        if (groups is not None and groups.oom_kills()) or any(text in words for text in OUT_OF_MEMORY_WORDS):
            return OutOfMemory(memory_bytes=self._limits.memory_bytes, stderr=words)
        return ProgramCrashed(reason=reason if code is None else signal_name(code), stderr=words)

    async def _explain(self) -> None:
        fault = await self.explanation("it closed its end")
        if self._fault is None:
            self._fault = fault
            self._let_go(fault)
        await self._process.end()

    def _let_go(self, fault: ProgramError) -> None:
        if self._watch is not None:
            self._watch.stop()
        for ticket in list(self._tickets.values()):
            ticket.fail(fault)
        if self._channel is not None:
            self._channel.close()
        self._wake()

    def _wake(self) -> None:
        for waiter in self._waiters:
            if not waiter.done():
                waiter.set_result(None)

    def _ticket(self, seconds: float) -> Ticket:
        self._number = self._number % NUMBER_MAX + 1
        assert self._channel is not None
        ticket = Ticket(
            self._number,
            self._limits.output_bytes,
            on_close=self._closed,
            on_overflow=self.fail,
            on_cancel=self._channel.cancel,
            on_pressure=self._channel.press,
        )
        self._tickets[ticket.number] = ticket
        if len(self._tickets) == 1:
            self._stderr_allowed = self._process.stderr_bytes + self._limits.stderr_bytes
        ticket.began_ns = time.monotonic_ns()
        ticket.began_cpu_ns = self._process.cpu_ns()
        ticket.timer = self._loop.call_later(max(seconds, 0.001), self._expired, ticket, seconds)
        return ticket

    def _closed(self, ticket: Ticket) -> None:
        self._tickets.pop(ticket.number, None)
        if ticket.secret and self._broker is not None:
            self._broker.revoke(ticket.secret)
        self._bytes_out += ticket.bytes_out
        ticket.reply.wall_ms = (time.monotonic_ns() - ticket.began_ns) // 1_000_000
        self._wake()
        if self._fault is None:
            measured_ms = max(0, self._process.cpu_ns() - ticket.began_cpu_ns) // 1_000_000
            ticket.reply.cpu_ms = max(measured_ms, ticket.told_cpu_ms)

    def _expired(self, ticket: Ticket, seconds: float) -> None:
        late = ProgramTimedOut(seconds=seconds)
        assert self._channel is not None
        if not self._channel.expire(ticket, late):
            self.fail(late)

    def _on_stderr(self) -> None:
        if self._process.stderr_bytes > self._stderr_allowed:
            self.fail(OutputTooLarge(what="standard error", bytes_max=self._limits.stderr_bytes))


async def start_instance(
    process: GuestProcess,
    ends: Ends,
    release: Release,
    limits: Limits,
    watched: Watched,
    broker: Broker | None = None,
) -> RunningInstance:
    """Speak with a started process until it is ready; whatever goes wrong leaves nothing behind.

    Without a broker of its own a program calls no other services.
    """
    instance = RunningInstance(process, limits, broker)
    try:
        channel = await _channel(ends, release, limits, instance)
        watch = Watch(
            process,
            limits,
            is_busy=lambda: instance.is_starting or instance.in_flight > 0,
            on_violation=instance.fail,
            inner_folders=watched.inner_folders,
            disk_folder=watched.disk_folder,
            descriptors_max=watched.descriptors_max,
            own_bytes=watched.own_bytes,
        )
        instance.attach(channel, watch)
        instance.begin(await _ready(instance, process, channel, limits))
        return instance
    except BaseException:
        await instance.stop()
        raise
    finally:
        ends.close_ours()


async def _ready(
    instance: RunningInstance, process: GuestProcess, channel: Channel, limits: Limits
) -> dict[str, Any]:
    ready = asyncio.ensure_future(channel.ready())
    ended = asyncio.ensure_future(process.has_ended.wait())
    try:
        await asyncio.wait(
            (ready, ended), timeout=limits.startup_seconds, return_when=asyncio.FIRST_COMPLETED
        )
        if ready.done() and not ready.cancelled() and ready.exception() is None:
            return ready.result()
        if not ready.done() and not ended.done():
            raise ProgramDidNotStart(
                reason=f"it was not ready within {limits.startup_seconds:g} seconds",
                stderr=process.last_words(),
            )
        why = await instance.explanation("it ended before it was ready")
        if isinstance(why, OutOfMemory):
            raise why
        problem = ready.exception() if ready.done() and not ready.cancelled() else None
        told = problem.facts["reason"] if isinstance(problem, ProgramDidNotStart) else why.facts["reason"]
        if isinstance(told, str) and told.startswith("it ended"):
            told = why.facts["reason"]
        if isinstance(channel, HttpChannel) and channel.asked_for:
            told = f'{told}, asked for {channel.asked_for}; openapi = "none" in [run] leaves that out'
        raise ProgramDidNotStart(reason=told, stderr=process.last_words())
    finally:
        ready.cancel()
        ended.cancel()


async def _channel(ends: Ends, release: Release, limits: Limits, instance: RunningInstance) -> Channel:
    manifest = release.manifest
    streaming = frozenset(method.name for method in manifest.methods if method.stream)
    lost: Callable[[], None] = instance.lost
    fail: Callable[[ProgramError], None] = instance.fail
    channel: Channel
    wire = wire_of(manifest.run)
    match wire:
        case "jsonl":
            stdin, stdout = ends.stdin, ends.stdout
            ends.stdin = ends.stdout = -1
            channel = await LineChannel.open(
                stdin, stdout, limits.output_bytes, is_enveloped(manifest), streaming, lost, fail
            )
        case "http":
            control, ends.control = ends.control, None
            assert control is not None
            channel = HttpChannel(
                control,
                limits.output_bytes,
                port_of(manifest.run),
                manifest.run.health,
                streaming,
                Requests(manifest),
                lost,
                fail,
            )
        case "grpc":
            opener = opener_of(wire, manifest.run.kind)
            control, ends.control = ends.control, None
            assert control is not None
            channel = await opener(Opening(control, release, limits, lost, fail))
        case _:
            control, ends.control = ends.control, None
            assert control is not None
            channel = await FrameChannel.open(
                control, limits.output_bytes, limits.memory_bytes, lost, fail, wire in ("cli", "wasm")
            )
    return channel
