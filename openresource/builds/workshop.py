"""One build in one sandbox: a folder that it may write, what it may read, the registries that it may reach, its log."""

from __future__ import annotations

import asyncio
import json
import os
import re
import shutil
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

from openresource.builds.cache import Cache
from openresource.builds.languages import Languages
from openresource.builds.recipes import BASE, BUILD, DEPENDENCIES, HOME, Step
from openresource.builds.registries import Registry
from openresource.builds.toolchains import TOOLCHAIN_FOLDER, Toolchain, certificates
from openresource.builds.trees import adopt
from openresource.market.manifests import Manifest, Method, Resources, Run
from openresource.primitives.errors import Refusal
from openresource.sandbox.driver import (
    Instance,
    KindNotServed,
    Limits,
    Mount,
    OutOfMemory,
    ProgramCall,
    ProgramTimedOut,
    Release,
    Sandbox,
)
from openresource.sandbox.drivers import Drivers
from openresource.sandbox.egress import Connection, EgressLimits, EgressProxy
from openresource.sandbox.layout import GUEST_FOLDER

LAST_LINES: Final = 12
LAST_CHARACTERS: Final = 1_500
LOOK_SECONDS: Final = 0.2
FULL_LOOK_SECONDS: Final = 3.0
FREE_BYTES_MIN: Final = 1 << 30
GUEST: Final = "build_guest.py"
INSIDE: Final = "inside"
# What becomes an entry of the cache.
RESULTS: Final = ("work", "out")
# What a step needs to know of the sandbox, as the sandbox names it.
PLACES: Final = (
    ("BUILD_FOLDER", BUILD),
    ("BUILD_DEPENDENCIES", DEPENDENCIES),
    ("BUILD_BASE", BASE),
    ("BUILD_TOOLCHAIN", TOOLCHAIN_FOLDER),
)
ANY_TARGET: Final = ("registry:443",)

BRIEF_LOOKED_AT: Final = 80
BRIEF_LINES: Final = 3
BRIEF_CHARACTERS: Final = 120
_TELLING = re.compile(r"(?i)\berror\b|\bfailed\b|not found|no such|cannot |missing")

Progress = Callable[[str], None]
# The blocks of content by CID, from anywhere: whoever asks verifies.
GetBlock = Callable[[str], Awaitable[bytes]]


class BuildFailed(Refusal):
    template = "The build of {name} failed: {reason}."
    way_out = (
        "Mend what its last words tell and publish it again; `openresource check FOLDER` builds it here."
    )

    @property
    def brief(self) -> str:
        """The same with the few lines that most likely say why, for a record that has room for no more."""
        said = [line.strip() for line in self.facts.get("log", ()) if not line.startswith("$ ")]
        telling = [line for line in said[-BRIEF_LOOKED_AT:] if _TELLING.search(line)][:BRIEF_LINES]
        words = " | ".join(line[:BRIEF_CHARACTERS] for line in telling or said[-BRIEF_LINES:])
        name, reason = self.facts.get("name", "?"), self.facts.get("reason", "?")
        return f"The build of {name} failed: {reason}." + (f" It said: {words}" if words else "")


class BuildNeedsNamespaces(Refusal):
    template = (
        "{name} has to be built, and no sandbox of this machine can hold a build: one needs a file system and a network "
        "of its own, so that it reaches package registries and nothing else ({reason})."
    )
    way_out = "Use a prepared runtime ([build] runtime), publish it built, or choose a provider of level bubblewrap."


@dataclass(frozen=True, slots=True)
class BuildLimits:
    """What one build may use."""

    seconds: float = 900.0
    memory_bytes: int = 4 << 30
    # Of one file, and of the sandbox's own folder in memory.
    file_bytes: int = 1 << 30
    disk_bytes: int = 6 << 30
    processes: int = 256
    open_files: int = 8_192
    cpu: float = 4.0
    network_bytes: int = 4 << 30
    log_bytes: int = 4 << 20


@dataclass(frozen=True, slots=True)
class Workshop:
    """What builds are made with on this machine; given by who wires things together."""

    cache: Cache
    drivers: Drivers
    languages: Languages
    limits: BuildLimits = field(default_factory=BuildLimits)
    get_block: GetBlock | None = None
    find_registry: Callable[[str], Registry] | None = None


@dataclass(slots=True)
class Done:
    """What a finished build has said, and whom it has called."""

    log: list[str]
    connections: list[Connection]
    seconds: float


async def carry_out(
    workshop: Workshop,
    name: str,
    folder: Path,
    steps: Sequence[Step],
    toolchains: Sequence[Toolchain],
    registries: Sequence[Registry],
    layers: Mapping[str, Path],
) -> Done:
    """Run steps over `inside` of a folder and own what they leave there; any failure is `BuildFailed`."""
    limits = workshop.limits
    sandbox = await asyncio.to_thread(_sandbox, workshop.drivers, name)
    inside, guest = folder / INSIDE, folder / "guest"
    guest.mkdir()
    for part in ("work", "out", "home", "tmp"):
        (inside / part).mkdir(parents=True, exist_ok=True)
    mounts, environment, path = _shown(toolchains)
    mounts += [Mount(layer, place) for place, layer in layers.items()]
    _lay_out(guest, steps, environment)
    mounts.append(Mount(inside, BUILD, writable=True))
    release = Release(guest, _MANIFEST, mounts=tuple(mounts), environment=PLACES, path=path)
    began = time.monotonic()
    done = Done([], [], 0.0)
    try:
        if registries:
            allowed = list(dict.fromkeys(host for registry in registries for host in registry.hosts))
            private = [host for registry in registries for host in registry.private_hosts]
            egress = EgressLimits(bytes=limits.network_bytes, connection_seconds=limits.seconds)
            async with EgressProxy(
                allowed, private_hosts=private, limits=egress, on_connection=done.connections.append
            ) as proxy:
                await _run(workshop, name, sandbox, replace(release, egress=proxy.folder), inside, done)
        else:
            await _run(workshop, name, sandbox, release, inside, done)
    finally:
        done.seconds = time.monotonic() - began
    try:
        removed = await asyncio.to_thread(_adopt, name, inside, limits.disk_bytes)
    except OSError as problem:
        raise _failed(name, f"it left files that cannot be kept ({problem.strerror})", done.log) from None
    done.log += [f"not kept: {path}" for path in removed[:LAST_LINES]]
    return done


async def _run(
    workshop: Workshop, name: str, sandbox: Sandbox, release: Release, inside: Path, done: Done
) -> None:
    limits = workshop.limits
    instance: Instance = await sandbox.start(
        release,
        Limits(
            memory_bytes=limits.memory_bytes,
            disk_bytes=limits.file_bytes,
            output_bytes=limits.log_bytes,
            processes=limits.processes,
            open_files=limits.open_files,
            cpu=limits.cpu,
            call_seconds=limits.seconds,
        ),
    )
    too_large = asyncio.create_task(_watch(inside, limits.disk_bytes))
    try:
        outcome = asyncio.create_task(_follow(instance, limits.seconds, done.log))
        await asyncio.wait({outcome, too_large}, return_when=asyncio.FIRST_COMPLETED)
        if too_large.done() and not outcome.done():
            outcome.cancel()
            await asyncio.gather(outcome, return_exceptions=True)
            raise _failed(
                name, f"it wrote more than {limits.disk_bytes >> 20} MiB, or the disk is full", done.log
            )
        code = await outcome
    except OutOfMemory:
        raise _failed(
            name, f"it needed more than {limits.memory_bytes >> 20} MiB of memory", done.log
        ) from None
    except ProgramTimedOut:
        raise _failed(name, f"it took longer than {limits.seconds:.0f} s", done.log) from None
    except Refusal as refusal:
        if isinstance(refusal, BuildFailed):
            raise
        raise _failed(name, refusal.message, done.log) from refusal
    finally:
        too_large.cancel()
        await asyncio.gather(too_large, return_exceptions=True)
        await instance.stop()
    if code:
        raise _failed(name, f"a step ended with code {code}" + _blocked(done.connections), done.log)


async def _follow(instance: Instance, seconds: float, log: list[str]) -> int:
    """Read the log to its end; the exit code of the last step."""
    reply = await instance.call(ProgramCall("build", "/build", b"{}", deadline_seconds=seconds))
    assert not isinstance(reply.body, bytes), "a stream was asked for"
    code = -1
    async for chunk in reply.body:
        for line in chunk.splitlines():
            value = json.loads(line) if line.strip() else {}
            if isinstance(value, dict) and isinstance(value.get("line"), str):
                log.append(
                    "".join(character if character.isprintable() else " " for character in value["line"])
                )
            elif isinstance(value, dict) and isinstance(value.get("exit"), int):
                code = value["exit"]
    return code


async def _watch(folder: Path, bytes_max: int) -> None:
    """Return when a folder has grown too large: counted now and then, and at once when the disk shrinks quickly."""
    free_then = shutil.disk_usage(folder).free
    counted = time.monotonic()
    while True:
        await asyncio.sleep(LOOK_SECONDS)
        free = shutil.disk_usage(folder).free
        if free < FREE_BYTES_MIN:
            return
        if free_then - free > bytes_max // 2 or time.monotonic() - counted > FULL_LOOK_SECONDS:
            if await asyncio.to_thread(_size, folder) > bytes_max:
                return
            free_then, counted = min(free_then, free + bytes_max // 2), time.monotonic()


def _size(folder: Path) -> int:
    """The bytes of a folder in which somebody is working: what vanishes meanwhile does not count."""
    total, layers = 0, [str(folder)]
    while layers:
        try:
            with os.scandir(layers.pop()) as entries:
                for entry in entries:
                    if entry.is_dir(follow_symlinks=False):
                        layers.append(entry.path)
                    total += entry.stat(follow_symlinks=False).st_blocks * 512
        except OSError:
            continue
    return total


def _sandbox(drivers: Drivers, name: str) -> Sandbox:
    """A driver that can open a network to listed hosts alone has namespaces, whether or not this build needs it."""
    wished = replace(_MANIFEST, resources=Resources(network=ANY_TARGET))
    try:
        return drivers.for_program(wished)
    except KindNotServed as refusal:
        raise BuildNeedsNamespaces(name=name, reason=str(refusal.facts.get("reason", ""))) from refusal


def _shown(
    toolchains: Sequence[Toolchain],
) -> tuple[list[Mount], tuple[tuple[str, str], ...], tuple[str, ...]]:
    """What a sandbox shows of toolchains, and by which variables and folders they are found."""
    mounts, variables = certificates()
    shown = {mount.target: mount for mount in mounts}
    for toolchain in toolchains:
        shown.update({mount.target: mount for mount in toolchain.mounts})
    environment = {
        "HOME": HOME,
        "TMPDIR": f"{BUILD}/tmp",
        "LANG": "C.UTF-8",
        "CI": "true",
        # Reproducible archives and wheels; some of them know no year before 1980.
        "SOURCE_DATE_EPOCH": "1000000000",
    }
    environment.update(variables)
    for toolchain in toolchains:
        environment.update(toolchain.environment)
    path = tuple(dict.fromkeys(folder for toolchain in toolchains for folder in toolchain.path))
    return list(shown.values()), tuple(environment.items()), path


def _adopt(name: str, inside: Path, bytes_max: int) -> list[str]:
    """Own what was left; a result is moved elsewhere later, so its links must not need what lies beside it."""
    removed = adopt(inside, bytes_max=bytes_max)
    for part in RESULTS:
        if (inside / part).is_symlink() or not (inside / part).is_dir():
            raise _failed(name, f"it put something else in the place of its folder {part}", ())
        removed += adopt(inside / part)
    return removed


def _lay_out(guest: Path, steps: Sequence[Step], environment: tuple[tuple[str, str], ...]) -> None:
    shutil.copyfile(GUEST_FOLDER / GUEST, guest / GUEST)
    written = [
        {
            "words": list(step.words),
            "folder": step.folder,
            "environment": {**dict(environment), **dict(step.environment)},
        }
        for step in steps
    ]
    (guest / "steps.json").write_text(json.dumps(written), encoding="utf-8")


def _blocked(connections: Sequence[Connection]) -> str:
    """Whom a build has called in vain: most often the reason why it failed."""
    refused = list(dict.fromkeys(one.target for one in connections if one.verdict != "allowed"))
    return f" (it asked for {', '.join(refused[:4])}, which builds may not reach)" if refused else ""


def _failed(name: str, reason: str, log: Sequence[str]) -> BuildFailed:
    said = [line for line in log if not line.startswith("$ ")]
    words = "\n".join(said[-LAST_LINES:])[-LAST_CHARACTERS:]
    message = f"The build of {name} failed: {reason}." + (f" Its last words:\n{words}" if words else "")
    return BuildFailed(message, name=name, reason=reason, log=list(log))


_MANIFEST: Final = Manifest(
    name="build",
    run=Run("jsonl", ("python3", GUEST)),
    methods=(Method("build", "/build", stream=True),),
)
