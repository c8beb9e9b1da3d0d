"""The seam: what a driver gives, what starting a program takes, and every way in which a call can end."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal, Protocol

from openresource.market.manifests import Manifest
from openresource.market.placements import ISOLATION_LEVELS
from openresource.primitives.errors import Refusal

# Names of isolation levels and their ranks: a higher one satisfies a lower demand.
LEVELS: Final = ISOLATION_LEVELS
# Who holds a limit: the kernel's group, a limit of each process with the watch over their sum, the watch alone, the size
# of a file system in memory, the engine or runtime below the driver, or nobody.
Holder = Literal["cgroup", "rlimit", "watch", "watched", "tmpfs", "engine", "none"]
JSON_TYPE: Final = "application/json"
LINES_TYPE: Final = "application/x-ndjson"
STDERR_SHOWN_CHARACTERS_MAX: Final = 4_000


@dataclass(frozen=True, slots=True)
class Capabilities:
    """What a driver reaches on this machine; found by a real start."""

    level: str
    available: bool
    why_not: str = ""
    memory: Holder = "rlimit"
    processes: Holder = "rlimit"
    cpu: Holder = "none"
    disk: Holder = "none"
    # `proxy`: addresses that a program names and its operator allows, each by way of a proxy with a log.
    network: Literal["none", "proxy"] = "none"
    # Devices that a program can be given for itself alone; a driver with any takes only programs that need one.
    gpus: int = 0
    # Vendor and bytes of memory of each; 0 bytes where that is not known.
    gpu_kinds: tuple[tuple[str, int], ...] = ()
    as_root: bool = False
    kinds: tuple[str, ...] = ("python", "http", "jsonl", "cli", "grpc")
    details: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class Mount:
    """A folder or file of this machine that the program may read at `target`; a build may write its own."""

    source: Path
    target: str
    writable: bool = False


@dataclass(frozen=True, slots=True)
class Runtime:
    """A prepared environment: interpreter and packages, named by the digest of its lock file."""

    name: str
    lock: str
    folder: Path
    python: Path
    mounts: tuple[Mount, ...] = ()


@dataclass(frozen=True, slots=True)
class Release:
    """A program as it lies on this machine.

    `path` are folders of executables as the program sees them, below a mount. With `egress`, the folder of an open
    `EgressProxy`, the program finds a proxy in its environment; without it there is no network at all. `held` keeps
    what the release was made of from being cleared away for as long as somebody has the release.
    """

    folder: Path
    manifest: Manifest
    runtime: Runtime | None = None
    mounts: tuple[Mount, ...] = ()
    environment: tuple[tuple[str, str], ...] = ()
    path: tuple[str, ...] = ()
    egress: Path | None = None
    held: object = None
    # The name of the program's content, where it came from a registry of programs.
    program: str = ""


@dataclass(frozen=True, slots=True)
class Limits:
    """What one instance may use at most."""

    memory_bytes: int = 512 << 20
    disk_bytes: int = 64 << 20
    input_bytes: int = 8 << 20
    output_bytes: int = 8 << 20
    stderr_bytes: int = 1 << 20
    processes: int = 64
    open_files: int = 256
    cpu: float = 1.0
    concurrency: int = 1
    startup_seconds: float = 60.0
    call_seconds: float = 30.0
    # Between calls a program may tidy up, not mine.
    idle_cpu_seconds: float = 10.0


@dataclass(frozen=True, slots=True)
class InnerRequest:
    """What a program asks of another service, on behalf of the call that it works on; empty means the usual."""

    service: str
    method: str
    input: dict[str, Any]
    max_price_uain: int | None = None
    allowance_uain: int | None = None
    deadline_seconds: float | None = None
    policy: str = ""


@dataclass(frozen=True, slots=True)
class InnerAnswer:
    """What the other service gave, and what the program may know of it: price, total, receipt, provider, version."""

    output: Any
    facts: dict[str, Any]


class Asker(Protocol):
    """Where a program's requests go during one call; whoever made that call answers them, or says no by a Refusal."""

    def left(self) -> dict[str, Any]: ...

    async def ask(self, request: InnerRequest) -> InnerAnswer: ...


@dataclass(frozen=True, slots=True)
class ProgramCall:
    """One request to a program; with an `asker` the program may call other services, by the secret that comes along."""

    method: str
    path: str
    body: bytes
    content_type: str = JSON_TYPE
    deadline_seconds: float = 30.0
    http_method: str = "POST"
    # Whether the program is stopped when its caller goes and it does not give up by itself.
    ends_with_caller: bool = False
    asker: Asker | None = None
    secret: str = ""


class ProgramStream(Protocol):
    """The chunks of a streamed answer; closing it early cancels the program's work where it can be cancelled."""

    def __aiter__(self) -> AsyncIterator[bytes]: ...

    async def __anext__(self) -> bytes: ...

    async def aclose(self) -> None: ...


@dataclass(slots=True)
class ProgramReply:
    """A program's answer: bytes, or a stream of them.

    Streams of `python` and `jsonl` programs are JSON lines, one chunk each with its newline; those of `http` programs
    are the body's bytes as they come. The figures of a stream are complete once it has ended.
    """

    status: int
    content_type: str
    body: bytes | ProgramStream
    cpu_ms: int = 0
    wall_ms: int = 0
    # Units of deterministic work, where the engine counts them.
    fuel: int = 0


@dataclass(frozen=True, slots=True)
class Usage:
    """What an instance has used since its start."""

    cpu_ms: int
    wall_ms: int
    peak_rss_bytes: int
    bytes_in: int
    bytes_out: int


class Instance(Protocol):
    """A running program; `in_flight` counts calls whose callers have gone as well, until the program is done with them."""

    @property
    def alive(self) -> bool: ...

    @property
    def in_flight(self) -> int: ...

    @property
    def interface(self) -> dict[str, Any]: ...

    async def call(self, call: ProgramCall) -> ProgramReply: ...

    async def until_free(self, in_flight_max: int) -> None: ...

    async def usage(self) -> Usage: ...

    async def stop(self) -> None: ...


class Sandbox(Protocol):
    """A way to run programs; `start` refuses what it cannot hold to its limits."""

    def probe(self) -> Capabilities: ...

    async def start(self, release: Release, limits: Limits) -> Instance: ...


class ProgramError(Refusal):
    """Any way in which a call to a program does not end in an answer."""


class ProgramDidNotStart(ProgramError):
    template = "The program did not start: {reason}."
    way_out = "Read its last words below, mend it and publish it again: {stderr}"


class ProgramCrashed(ProgramError):
    template = "The program ended while it was working: {reason}."
    way_out = "Its last words were: {stderr}"


class OutOfMemory(ProgramCrashed):
    template = "The program needed more than its {memory_bytes} bytes of memory and was stopped."
    way_out = "Raise [resources] memory in openresource.toml, or send a smaller input."


class ProgramTimedOut(ProgramError):
    template = "The program gave no answer within {seconds} seconds and was stopped."
    way_out = "Send a smaller input, or raise [resources] timeout_s."


class OutputTooLarge(ProgramError):
    template = "The program's {what} grew past {bytes_max} bytes and it was stopped."
    way_out = "Answer less at once, stream it, or raise [resources] output."


class InputTooLarge(ProgramError):
    template = "The input has {bytes} bytes; at most {bytes_max} are taken."
    way_out = "Send less at once."


class DiskFull(ProgramCrashed):
    template = "The program wrote more than its {disk_bytes} bytes of disk and was stopped."
    way_out = "Write less, or raise [resources] disk."


class ProgramRefused(ProgramError):
    """The program's own no: the caller's input does not suit it."""

    template = "The program refused the input: {reason}"
    way_out = "Change the input; the service's interface has an example."


class ProgramFailed(ProgramError):
    """The program failed on this input and lives on."""

    template = "The program failed: {reason}"
    way_out = "Tell its publisher; another input may work."


class Overloaded(ProgramError):
    template = "The program works on {concurrency} calls already, as many as it takes at once."
    way_out = "Try again when one has ended."


class KindNotServed(ProgramError):
    template = "A {kind} program cannot be run at level {level}: {reason}."
    way_out = (
        "Choose a provider with a driver that serves it; `openresource doctor` lists those of this machine."
    )


class SandboxUnavailable(ProgramError):
    template = "No sandbox can be started here at level {level}: {why_not}."
    way_out = "Run `openresource doctor`: it says what this machine lacks."


def limits_of(manifest: Manifest, ceiling: Limits | None = None) -> Limits:
    """The limits that a manifest asks for, none above the provider's ceiling."""
    top, resources = ceiling or CEILING, manifest.resources
    return Limits(
        memory_bytes=min(resources.memory_bytes, top.memory_bytes),
        disk_bytes=min(resources.disk_bytes, top.disk_bytes),
        input_bytes=top.input_bytes,
        output_bytes=min(resources.output_bytes, top.output_bytes),
        stderr_bytes=top.stderr_bytes,
        processes=min(resources.processes, top.processes),
        open_files=top.open_files,
        cpu=min(resources.cpu, top.cpu),
        concurrency=min(resources.concurrency, top.concurrency),
        startup_seconds=min(manifest.run.startup_seconds, top.startup_seconds),
        call_seconds=min(resources.timeout_seconds, top.call_seconds),
        idle_cpu_seconds=top.idle_cpu_seconds,
    )


def above_ceiling(manifest: Manifest, ceiling: Limits | None = None) -> list[str]:
    """Which of the manifest's wishes a provider's ceiling would cut; such a program is better refused than starved."""
    top, resources = ceiling or CEILING, manifest.resources
    wishes = (
        ("memory", resources.memory_bytes, top.memory_bytes),
        ("disk", resources.disk_bytes, top.disk_bytes),
        ("cpu", resources.cpu, top.cpu),
        ("pids", resources.processes, top.processes),
        ("timeout_s", resources.timeout_seconds, top.call_seconds),
    )
    return [f"{name} = {wish} (at most {most} here)" for name, wish, most in wishes if wish > most]


CEILING: Final = Limits(
    memory_bytes=4 << 30,
    disk_bytes=1 << 30,
    input_bytes=32 << 20,
    output_bytes=32 << 20,
    processes=256,
    cpu=64.0,
    concurrency=64,
    startup_seconds=300.0,
    call_seconds=600.0,
)
