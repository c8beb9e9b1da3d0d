"""This machine works for another provider: one connection out, by a key that was carried here, and sandboxes offered.

It holds no coins and opens no port. What it runs it fetches by content over the same connection, verifies, builds and
starts behind its own walls; the provider that it joined pays nobody here, as both belong to one operator.
"""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import logging
import shutil
import ssl
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from cryptography import x509

from openresource.builds.workshop import Workshop
from openresource.client import content
from openresource.primitives.cids import parse_cid
from openresource.primitives.errors import Refusal
from openresource.provider.join_keys import JoinKey
from openresource.provider.releases import Ready, drop_releases, prepare_release
from openresource.provider.tls import spki_hash
from openresource.sandbox.budgets import NoMemoryLeft
from openresource.sandbox.driver import (
    Instance,
    Limits,
    ProgramCall,
    ProgramCrashed,
    ProgramError,
    Runtime,
    Sandbox,
    limits_of,
)
from openresource.sandbox.drivers import Drivers, rank
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
    PART_BYTES,
    START,
    STOP,
    TAKEN,
    USAGE,
    WELCOME,
    Frame,
    Link,
    LinkLost,
    Window,
    error_head,
)
from openresource.sandbox.releases import load_manifest

log = logging.getLogger("openresource.provider.joining")

CONNECT_SECONDS: Final = 15.0
BLOCK_SECONDS: Final = 60.0
RETRY_SECONDS_FIRST: Final = 1.0
RETRY_SECONDS_MAX: Final = 30.0
LOOK_SECONDS: Final = 0.5
INSTANCES_MAX: Final = 256
CALLS_MAX: Final = 1_024
RELEASES_KEPT_SECONDS: Final = 24 * 60 * 60.0


class JoinRefused(Refusal):
    template = "The provider at {endpoint} does not take this machine: {reason}."
    way_out = "Get a new join key: openresource provide --pool prints it."


class WrongProvider(Refusal):
    template = "What answers at {endpoint} does not have the key that the join key names."
    way_out = "Somebody stands between, or the provider has a new key. Nothing was sent; get a new join key."


class ProviderAway(Refusal):
    template = "The provider at {endpoint} does not answer: {reason}."
    way_out = "It is tried again by itself."


@dataclass(frozen=True, slots=True)
class Workplace:
    """What this machine gives to programs."""

    name: str
    folder: Path
    drivers: Drivers
    workshop: Callable[[Callable[[str], Awaitable[bytes]]], Workshop]
    runtimes: Mapping[str, Runtime]
    memory_bytes: int
    cpu: int
    min_level: str = "confined"

    @property
    def releases(self) -> Path:
        """Where programs lie."""
        return self.folder / "releases"


@dataclass(slots=True)
class _Running:
    instance: Instance
    program: str
    limits: Limits
    is_known_lost: bool = False
    # Calls that somebody still waits for.
    calls: int = 0


class Joining:
    """A machine that works for a provider, until it is told to end."""

    def __init__(self, key: JoinKey, place: Workplace, say: Callable[[str], None]) -> None:
        self._key = key
        self._place = place
        self._say = say
        self.instances = 0
        self.calls = 0

    @property
    def endpoint(self) -> str:
        """Where the provider is."""
        return f"{self._key.host}:{self._key.port}"

    async def run(self) -> None:
        """Join, work, and join again when the connection has ended; until cancelled or refused."""
        delay = RETRY_SECONDS_FIRST
        while True:
            try:
                link = await self._connect()
            except ProviderAway as refusal:
                self._say(f"{refusal.message} Trying again in {delay:.0f} s.")
                await asyncio.sleep(delay)
                delay = min(delay * 2, RETRY_SECONDS_MAX)
                continue
            delay = RETRY_SECONDS_FIRST
            self._say(f"Joined the provider at {self.endpoint}.")
            work = _Work(link, self._place, self)
            try:
                await work.serve()
            except LinkLost as refusal:
                self._say(refusal.message)
            finally:
                await work.end()
            await asyncio.sleep(delay)

    async def _connect(self) -> Link:
        # The key names the other side's own certificate; no authority is asked.
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        try:
            async with asyncio.timeout(CONNECT_SECONDS):
                reader, writer = await asyncio.open_connection(self._key.host, self._key.port, ssl=context)
        except (OSError, TimeoutError) as error:
            reason = str(error) or "it took too long"
            raise ProviderAway(endpoint=self.endpoint, reason=reason) from None
        link = Link(reader, writer, self.endpoint)
        try:
            self._check_pin(writer)
            await link.send(HELLO, 0, self._hello())
            async with asyncio.timeout(CONNECT_SECONDS):
                answer = await link.receive()
            if answer.kind != WELCOME:
                raise JoinRefused(endpoint=self.endpoint, reason=str(answer.head().get("reason", ""))[:200])
        except (LinkLost, TimeoutError) as problem:
            link.close()
            raise ProviderAway(endpoint=self.endpoint, reason=str(problem) or "it took too long") from None
        except BaseException:
            link.close()
            raise
        link.begin()
        return link

    def _check_pin(self, writer: asyncio.StreamWriter) -> None:
        """Before anything is sent: is this the provider that the key was made by?"""
        tls = writer.get_extra_info("ssl_object")
        certificate = tls.getpeercert(binary_form=True) if tls is not None else None
        found = spki_hash(x509.load_der_x509_certificate(certificate).public_key()) if certificate else ""
        if not hmac.compare_digest(found.encode(), self._key.pin.encode()):
            raise WrongProvider(endpoint=self.endpoint)

    def _hello(self) -> dict[str, Any]:
        place = self._place
        levels = [
            [one.level, list(one.kinds)]
            for one in place.drivers.capabilities
            if one.available and not one.gpus and rank(one.level) >= rank(place.min_level)
        ]
        return {
            "secret": self._key.secret,
            "name": place.name,
            "memory_bytes": place.memory_bytes,
            "cpu": place.cpu,
            "levels": levels,
        }


class _Work:
    """What is done over one connection."""

    def __init__(self, link: Link, place: Workplace, joining: Joining) -> None:
        self._link = link
        self._place = place
        self._joining = joining
        self._instances: dict[int, _Running] = {}
        self._calls: dict[int, asyncio.Task[None]] = {}
        self._bodies: dict[int, tuple[dict[str, Any], bytearray]] = {}
        self._windows: dict[int, Window] = {}
        self._blocks: dict[int, asyncio.Future[bytes]] = {}
        self._numbers = 0
        self._ready: dict[str, asyncio.Task[tuple[Ready, Sandbox]]] = {}
        self._starting: dict[int, asyncio.Task[None]] = {}
        self._starting_bytes = 0
        self._workshop = place.workshop(self._get_block)
        self._tending = asyncio.create_task(self._tend())

    async def serve(self) -> None:
        """Take what is asked until the connection ends."""
        while True:
            self._take(await self._link.receive())

    async def end(self) -> None:
        """Stop everything that was done for it."""
        self._link.close()
        self._tending.cancel()
        tasks = [*self._calls.values(), *self._starting.values(), *self._ready.values(), self._tending]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        running, self._instances = list(self._instances.values()), {}
        await asyncio.gather(*(one.instance.stop() for one in running), return_exceptions=True)
        self._joining.instances = 0

    def _take(self, frame: Frame) -> None:
        match frame.kind:
            case k if k == START:
                self._begin_start(frame.number, frame.head())
            case k if k == CALL:
                self._begin_call(frame.number, frame.head())
            case k if k == PART:
                self._part(frame)
            case k if k == CANCEL:
                if frame.number in self._calls:
                    self._calls[frame.number].cancel()
                elif self._bodies.pop(frame.number, None) is not None:
                    self._keep(self._link.send(DONE, frame.number, {}))
            case k if k == STOP:
                self._stop(frame.number)
            case k if k == USAGE:
                self._keep(self._usage(frame.number, frame.head()))
            case k if k == TAKEN:
                window = self._windows.get(frame.number)
                taken = frame.head().get("bytes")
                if window is not None and type(taken) is int and taken > 0:
                    window.taken(taken)
            case k if k in (BLOCK, FAILED):
                waiting = self._blocks.get(frame.number)
                if waiting is not None and not waiting.done():
                    waiting.set_result(frame.payload if k == BLOCK else b"")
            case _:
                raise self._link.lost("it spoke out of turn")

    # Instances

    def _begin_start(self, number: int, head: dict[str, Any]) -> None:
        program, level = str(head.get("program", ""))[:100], str(head.get("level", ""))[:40]
        task = asyncio.create_task(self._start(number, program, level))
        self._starting[number] = task
        task.add_done_callback(lambda _: self._starting.pop(number, None))

    async def _start(self, number: int, program: str, level: str) -> None:
        try:
            ready, sandbox = await self._prepared(program, level)
            limits = limits_of(ready.release.manifest)
            used_bytes = self._starting_bytes + sum(
                one.limits.memory_bytes for one in self._instances.values()
            )
            if (
                used_bytes + limits.memory_bytes > self._place.memory_bytes
                or len(self._instances) >= INSTANCES_MAX
            ):
                raise NoMemoryLeft(
                    used_bytes=used_bytes,
                    memory_bytes=self._place.memory_bytes,
                    bytes=limits.memory_bytes,
                    concurrency=0,
                )
            self._starting_bytes += limits.memory_bytes
            try:
                instance = await sandbox.start(ready.release, limits)
            finally:
                self._starting_bytes -= limits.memory_bytes
        except LinkLost:
            return
        except Refusal as refusal:
            await self._answer_failed(number, refusal)
            return
        self._instances[number] = _Running(instance, program, limits)
        self._joining.instances = len(self._instances)
        with contextlib.suppress(LinkLost):
            await self._link.send(HEAD, number, {"interface": instance.interface})

    async def _prepared(self, program: str, level: str) -> tuple[Ready, Sandbox]:
        """A program as it is started here; who asks at once shares one fetch and one build."""
        key = f"{program} {level}"
        task = self._ready.get(key)
        if task is None:
            task = self._ready[key] = asyncio.create_task(self._prepare(program, level))
        try:
            return await asyncio.shield(task)
        except Refusal:
            self._ready.pop(key, None)
            raise

    async def _prepare(self, program: str, level: str) -> tuple[Ready, Sandbox]:
        place = self._place
        folder = await self._fetched(program)
        manifest = await asyncio.to_thread(load_manifest, folder)
        least = max(level, place.min_level, key=rank)
        choice = await asyncio.to_thread(place.drivers.choose, manifest, least)
        ready = await prepare_release(folder, manifest, place.runtimes, self._workshop)
        return ready, choice.sandbox

    async def _fetched(self, program: str) -> Path:
        # A name that is no CID must not become a path.
        parse_cid(program)
        folder = self._place.releases / program
        if folder.is_dir():
            return folder
        fresh = self._place.releases / f".{program}.new"
        await asyncio.to_thread(shutil.rmtree, fresh, True)
        self._place.releases.mkdir(parents=True, exist_ok=True)
        try:
            await content.get_folder(
                program,
                fresh,
                self._get_block,
                bytes_max=content.FOLDER_BYTES_MAX,
                files_max=content.FOLDER_FILES_MAX,
            )
            await asyncio.to_thread(fresh.rename, folder)
        finally:
            await asyncio.to_thread(shutil.rmtree, fresh, True)
        return folder

    async def _get_block(self, cid: str) -> bytes:
        """A block of content from the provider, verified here."""
        self._numbers += 1
        number = self._numbers
        waiting = self._blocks[number] = asyncio.get_running_loop().create_future()
        try:
            await self._link.send(NEED, number, {"cid": cid})
            async with asyncio.timeout(BLOCK_SECONDS):
                data: bytes = await waiting
        except TimeoutError:
            raise self._link.lost("it does not send a part of a program") from None
        finally:
            del self._blocks[number]
        content.verify(cid, data)
        return data

    def _stop(self, number: int) -> None:
        starting = self._starting.get(number)
        if starting is not None:
            starting.cancel()
        running = self._instances.pop(number, None)
        self._joining.instances = len(self._instances)
        if running is not None:
            self._keep(running.instance.stop())

    async def _usage(self, number: int, head: dict[str, Any]) -> None:
        running = self._instances.get(_number(head.get("instance")))
        figures: dict[str, int] = {}
        if running is not None and running.instance.alive:
            used = await running.instance.usage()
            figures = {
                "cpu_ms": used.cpu_ms,
                "wall_ms": used.wall_ms,
                "peak_rss_bytes": used.peak_rss_bytes,
                "bytes_in": used.bytes_in,
                "bytes_out": used.bytes_out,
            }
        await self._link.send(HEAD, number, figures)

    async def _tend(self) -> None:
        """Tells of instances that have ended by themselves, and clears away what nobody runs."""
        cleared_at = time.monotonic()
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            for number, running in list(self._instances.items()):
                if not running.instance.alive and not running.is_known_lost:
                    running.is_known_lost = True
                    why = ProgramCrashed(reason="it has ended", stderr="")
                    with contextlib.suppress(LinkLost):
                        await self._link.send(LOST, number, error_head(why))
            if time.monotonic() - cleared_at > RELEASES_KEPT_SECONDS:
                cleared_at = time.monotonic()
                kept = {running.program for running in self._instances.values()}
                await asyncio.to_thread(
                    drop_releases, self._place.releases, kept, time.time() - RELEASES_KEPT_SECONDS
                )

    # Calls

    def _begin_call(self, number: int, head: dict[str, Any]) -> None:
        if len(self._calls) + len(self._bodies) >= CALLS_MAX:
            raise self._link.lost("it asks more at once than it may")
        size = head.get("bytes")
        if type(size) is not int or not 0 <= size <= BODY_BYTES_MAX:
            raise self._link.lost("it sent what is no call")
        self._bodies[number] = (head, bytearray())
        self._go_when_whole(number)

    def _part(self, frame: Frame) -> None:
        found = self._bodies.get(frame.number)
        if found is None:
            # Its call was cancelled meanwhile.
            return
        head, body = found
        body += frame.payload
        if len(body) > head["bytes"]:
            raise self._link.lost("it sent more than it said")
        self._go_when_whole(frame.number)

    def _go_when_whole(self, number: int) -> None:
        head, body = self._bodies[number]
        if len(body) < head["bytes"]:
            return
        del self._bodies[number]
        task = asyncio.create_task(self._call(number, head, bytes(body)))
        self._calls[number] = task
        task.add_done_callback(lambda _: self._calls.pop(number, None))

    async def _call(self, number: int, head: dict[str, Any], body: bytes) -> None:
        self._joining.calls += 1
        running = self._instances.get(_number(head.get("instance")))
        if running is None:
            await self._answer_failed(number, ProgramCrashed(reason="it has ended", stderr=""))
            return
        running.calls += 1
        try:
            await self._answer(number, running, _call_of(head, body))
        except asyncio.CancelledError:
            self._keep(self._say_when_free(number, running))
            raise
        except LinkLost:
            return
        except Refusal as refusal:
            await self._answer_failed(number, refusal)
        finally:
            running.calls -= 1

    async def _say_when_free(self, number: int, running: _Running) -> None:
        """A call that nobody waits for is over when the program is done with it."""
        await running.instance.until_free(running.calls)
        await self._link.send(DONE, number, {})

    async def _answer(self, number: int, running: _Running, call: ProgramCall) -> None:
        reply = await running.instance.call(call)
        streams = not isinstance(reply.body, bytes)
        await self._link.send(
            HEAD,
            number,
            {"status": reply.status, "content_type": reply.content_type, "streams": streams},
        )
        if isinstance(reply.body, bytes):
            await self._link.send_body(number, reply.body)
        else:
            await self._stream(number, reply.body)
        figures = {"cpu_ms": reply.cpu_ms, "wall_ms": reply.wall_ms, "fuel": reply.fuel}
        await self._link.send(DONE, number, figures)

    async def _stream(self, number: int, stream: Any) -> None:
        window = self._windows[number] = Window()
        try:
            async for chunk in stream:
                for start in range(0, len(chunk), PART_BYTES):
                    part = chunk[start : start + PART_BYTES]
                    await window.wait(len(part))
                    await self._link.send_bytes(PART, number, part)
        finally:
            del self._windows[number]
            await stream.aclose()

    async def _answer_failed(self, number: int, refusal: Refusal) -> None:
        with contextlib.suppress(LinkLost):
            await self._link.send(FAILED, number, error_head(refusal))

    def _keep(self, work: Awaitable[None]) -> None:
        self._numbers += 1
        number = -self._numbers
        task = asyncio.ensure_future(self._quietly(work))
        assert isinstance(task, asyncio.Task)
        self._calls[number] = task
        task.add_done_callback(lambda _: self._calls.pop(number, None))

    async def _quietly(self, work: Awaitable[None]) -> None:
        try:
            await work
        except (LinkLost, ProgramError) as problem:
            log.info("on the way out: %s", problem)


def _call_of(head: dict[str, Any], body: bytes) -> ProgramCall:
    deadline = head.get("deadline_seconds")
    return ProgramCall(
        method=str(head.get("method", ""))[:200],
        path=str(head.get("path", ""))[:2_000],
        body=body,
        content_type=str(head.get("content_type", ""))[:200],
        deadline_seconds=float(deadline) if isinstance(deadline, int | float) and deadline > 0 else 30.0,
        http_method=str(head.get("http_method", "POST"))[:20],
    )


def _number(value: Any) -> int:
    return value if type(value) is int else -1
