"""Tries a publisher's own program on this machine: in the best sandbox there is, else plainly, and says which.

`SandboxBench` and `PlainBench` are the two benches that publishing may be given.
"""

import asyncio
import contextlib
import json
import os
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from openresource.builds.cache import Cache
from openresource.builds.languages import find_languages
from openresource.builds.recipes import Source
from openresource.builds.workshop import GetBlock, Progress, Workshop
from openresource.client.releases import DESCRIPTORS_FILE
from openresource.client.releases import Release as PublishedRelease
from openresource.market.manifests import Manifest, Method
from openresource.primitives.errors import Refusal
from openresource.provider.releases import prepare_release
from openresource.provider.runtimes import RequirementsNotMet, choose_runtime, list_runtimes
from openresource.sandbox.driver import (
    JSON_TYPE,
    LINES_TYPE,
    Limits,
    OutputTooLarge,
    ProgramCall,
    ProgramDidNotStart,
    ProgramFailed,
    ProgramRefused,
    ProgramTimedOut,
    Runtime,
    limits_of,
)
from openresource.sandbox.drivers import Drivers
from openresource.sandbox.frames import ANSWER, CALL, CHUNK, END, HEADER, READY, REFUSED
from openresource.sandbox.layout import GUEST_FOLDER, packages_of
from openresource.sandbox.networks import ANY, Network

LAST_WORDS_BYTES_MAX: Final = 4_000
STOP_SECONDS: Final = 5.0
PLAIN: Final = "none"


class RuntimeNotHere(Refusal):
    template = "The program cannot be tried on this machine: {reason}"
    way_out = "Prepare it here first, for instance with scripts/runtimes; nothing untried is published."


class KindNeedsSandbox(Refusal):
    template = "A {kind} program cannot be tried here, as no sandbox starts on this machine."
    way_out = "Run `openresource doctor` to see what is missing, or publish from another machine."


class BuildNeedsSandbox(Refusal):
    template = "The program cannot be built here ({language}), as no sandbox starts on this machine."
    way_out = "Run `openresource doctor` to see what is missing, or publish from another machine."


def runtime_for(manifest: Manifest, cache: Path) -> Runtime | None:
    """The prepared runtime that a program names; whatever it needs and is not here is refused by name."""
    try:
        return choose_runtime(manifest, list_runtimes(cache), cache)
    except RequirementsNotMet as refusal:
        raise RuntimeNotHere(reason=str(refusal.facts["reason"])) from refusal


def make_workshop(drivers: Drivers, cache: Path, get_block: GetBlock | None = None) -> Workshop:
    """Where this machine builds programs; what is built stays in the cache."""
    return Workshop(Cache(cache / "builds"), drivers, find_languages(), get_block=get_block)


def with_descriptors(release: PublishedRelease) -> PublishedRelease:
    """The release with its `.proto` compiled, so that no provider has to read one."""
    run = release.manifest.run
    if run.tongue != "grpc":
        return release
    from openresource.adapters.grpc.compiling import compile_proto
    from openresource.adapters.grpc.extras import require_grpc

    require_grpc()
    compiled = compile_proto(release.files, run.proto)
    return replace(release, files={**release.files, DESCRIPTORS_FILE: compiled})


class SandboxBench:
    """Tries a program as a provider would run it."""

    def __init__(
        self,
        drivers: Drivers,
        cache: Path,
        *,
        progress: Progress = lambda _: None,
        get_block: GetBlock | None = None,
    ) -> None:
        self._drivers = drivers
        self._cache = cache
        self._progress = progress
        self._get_block = get_block

    def complete(self, release: PublishedRelease) -> PublishedRelease:
        """What is made of a program's files where it is published: the descriptors of its .proto."""
        return with_descriptors(release)

    @contextlib.asynccontextmanager
    async def start(self, folder: Path, manifest: Manifest) -> AsyncIterator["SandboxTrial"]:
        """Start a program; it is stopped when the context ends."""
        choice = await asyncio.to_thread(self._drivers.choose, manifest)
        runtime_for(manifest, self._cache)
        workshop = await asyncio.to_thread(make_workshop, self._drivers, self._cache, self._get_block)
        ready = await prepare_release(
            folder, manifest, list_runtimes(self._cache), workshop, progress=self._progress
        )
        limits = limits_of(manifest)
        # It is the publisher's own program on the publisher's own machine.
        sandbox = Network([ANY]).opened(choice.sandbox, manifest)
        instance = await sandbox.start(ready.release, limits)
        try:
            yield SandboxTrial(instance, choice.level, manifest, limits)
        finally:
            await instance.stop()


class SandboxTrial:
    """A program in a sandbox."""

    def __init__(self, instance: Any, level: str, manifest: Manifest, limits: Limits) -> None:
        self._instance = instance
        self._limits = limits
        self.level = level
        interface = instance.interface if manifest.run.tongue in ("python", "http", "grpc") else {}
        self.described: Sequence[Mapping[str, Any]] | None = interface.get("methods")

    async def call(self, method: Method, body: bytes) -> tuple[bytes, str]:
        """Body and type of an answer; anything else is raised."""
        reply = await self._instance.call(
            ProgramCall(method.name, method.path, body, deadline_seconds=self._limits.call_seconds)
        )
        content: bytes
        if isinstance(reply.body, bytes):
            content = reply.body
        else:
            content = b"".join([chunk async for chunk in reply.body])
        if reply.status >= 400:
            shown = content[:200].decode("utf-8", "replace")
            raise ProgramFailed(reason=f"it answered with status {reply.status}: {shown}")
        return content, reply.content_type


class PlainBench:
    """Tries a publisher's own Python program without a sandbox, for machines on which none starts."""

    def __init__(self, cache: Path) -> None:
        self._cache = cache

    @contextlib.asynccontextmanager
    async def start(self, folder: Path, manifest: Manifest) -> AsyncIterator["PlainTrial"]:
        """Start a program; it is stopped when the context ends."""
        if manifest.run.kind != "python":
            raise KindNeedsSandbox(kind=manifest.run.kind)
        language = await asyncio.to_thread(lambda: find_languages().of(Source(folder, manifest)))
        if language is not None and not (manifest.build.runtime or manifest.build.lock):
            raise BuildNeedsSandbox(language=language.name)
        runtime = runtime_for(manifest, self._cache)
        limits = limits_of(manifest)
        with tempfile.TemporaryFile() as words:
            trial = PlainTrial(folder, manifest, runtime, limits, words)
            try:
                await asyncio.to_thread(trial.wait_ready)
                yield trial
            finally:
                await asyncio.to_thread(trial.stop)


class PlainTrial:
    """A Python program in a process of its own, spoken to as in a sandbox."""

    level = PLAIN

    def __init__(
        self, folder: Path, manifest: Manifest, runtime: Runtime | None, limits: Limits, words: Any
    ) -> None:
        self.described: Sequence[Mapping[str, Any]] | None = None
        self._limits = limits
        self._words = words
        self._number = 0
        self._lock = threading.Lock()
        self._ours, theirs = socket.socketpair()
        options = {
            "entry": manifest.run.entry,
            "app": str(folder),
            "packages": str(runtime.folder / packages_of(runtime)) if runtime else "",
            "modules": str(GUEST_FOLDER / "modules"),
            "concurrency": 1,
        }
        python = str(runtime.python) if runtime else sys.executable
        with theirs:
            self._process = subprocess.Popen(
                [python, "-I", "-S", str(GUEST_FOLDER / "python_guest.py"), json.dumps(options)],
                stdin=theirs.fileno(),
                stdout=words,
                stderr=words,
                cwd=folder,
                env={
                    "PATH": os.defpath,
                    "LANG": "C.UTF-8",
                    "HOME": str(folder),
                    "PYTHONDONTWRITEBYTECODE": "1",
                },
                start_new_session=True,
            )

    def wait_ready(self) -> None:
        """Wait for the program's description of itself."""
        try:
            kind, payload = self._frame(self._limits.startup_seconds)
        except (TimeoutError, ConnectionError):
            reason = f"it was not ready within {self._limits.startup_seconds:g} seconds"
            raise ProgramDidNotStart(reason=reason, stderr=self._last_words()) from None
        if kind != READY:
            raise ProgramDidNotStart(reason=_problem(payload), stderr=self._last_words())
        self.described = json.loads(payload)["methods"]

    async def call(self, method: Method, body: bytes) -> tuple[bytes, str]:
        """Body and type of an answer; anything else is raised."""
        return await asyncio.to_thread(self._call, method, body)

    def stop(self) -> None:
        """End the process and everything it started."""
        self._ours.close()
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, 9)
        self._process.wait(STOP_SECONDS)

    def _call(self, method: Method, body: bytes) -> tuple[bytes, str]:
        with self._lock:
            self._number += 1
            name = method.name.encode()
            head = HEADER.pack(1 + len(name) + len(body), self._number, CALL)
            self._ours.sendall(head + bytes((len(name),)) + name + body)
            chunks: list[bytes] = []
            size = 0
            while True:
                try:
                    kind, payload = self._frame(self._limits.call_seconds)
                except TimeoutError:
                    raise ProgramTimedOut(seconds=self._limits.call_seconds) from None
                except ConnectionError:
                    raise ProgramFailed(reason=f"it ended: {self._last_words()}") from None
                if kind == ANSWER:
                    return payload, JSON_TYPE
                if kind == END:
                    return b"".join(chunks), LINES_TYPE
                if kind == CHUNK:
                    size += len(payload) + 1
                    if size > self._limits.output_bytes:
                        raise OutputTooLarge(what="answer", bytes_max=self._limits.output_bytes)
                    chunks.append(payload + b"\n")
                elif kind == REFUSED:
                    raise ProgramRefused(reason=_problem(payload))
                else:
                    raise ProgramFailed(reason=_problem(payload))

    def _frame(self, seconds: float) -> tuple[int, bytes]:
        self._ours.settimeout(seconds)
        length, _, kind = HEADER.unpack(self._exactly(HEADER.size))
        if length > max(self._limits.output_bytes, 1 << 20):
            raise OutputTooLarge(what="answer", bytes_max=self._limits.output_bytes)
        return kind, self._exactly(length)

    def _exactly(self, size: int) -> bytes:
        parts = bytearray()
        while len(parts) < size:
            part = self._ours.recv(min(size - len(parts), 1 << 18))
            if not part:
                raise ConnectionError("the program closed its end")
            parts += part
        return bytes(parts)

    def _last_words(self) -> str:
        size = self._words.seek(0, os.SEEK_END)
        self._words.seek(max(0, size - LAST_WORDS_BYTES_MAX))
        said: str = self._words.read(LAST_WORDS_BYTES_MAX).decode("utf-8", "replace").strip()
        return said


def _problem(payload: bytes) -> str:
    try:
        problem = json.loads(payload)
        return f"{problem['type']}: {problem['message']}"
    except (ValueError, KeyError, TypeError):
        return "it described its problem unreadably"
