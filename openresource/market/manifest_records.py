"""What `openresource.toml` says, as data: the tables of a manifest and the words that they are made of."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from openresource.market.jobs.comparators import CLASSES, Comparator, Verification

KINDS: Final = ("python", "http", "jsonl", "cli", "grpc", "wasm", "oci")
# What a module or an image may be spoken to as; the first is meant where a manifest names none.
SPEAKS: Final = {"wasm": ("jsonl", "cli", "http"), "oci": ("http", "jsonl", "cli", "grpc")}
EXACTNESS: Final = CLASSES
VERBS: Final = ("POST", "GET", "PUT", "PATCH", "DELETE")
RESULTS: Final = ("stdout", "json", "files")
GPU_VENDORS: Final = ("any", "nvidia", "amd", "intel")

# A description or an example: given in the manifest, or the name of a file of the release.
Document = Mapping[str, Any] | str


@dataclass(frozen=True, slots=True)
class Batch:
    """How many concurrent calls are collected into one, and how long the first of them waits for others."""

    size: int
    wait_ms: int


@dataclass(frozen=True, slots=True)
class Run:
    """How the program is started and spoken to."""

    kind: str
    command: tuple[str, ...] = ()
    entry: str = ""
    health: str = ""
    startup_seconds: int = 60
    module: str = ""
    image: str = ""
    proto: str = ""
    speaks: str = ""
    port: int = 0
    environment: Mapping[str, str] = field(default_factory=dict)
    batch: Batch | None = None
    # Where a server that declares no methods may describe them; empty if it is not to be asked.
    openapi: str = "/openapi.json"

    @property
    def tongue(self) -> str:
        """How it is spoken to, whatever it is packed in: for modules and images what they speak, else the kind."""
        return self.speaks or self.kind


@dataclass(frozen=True, slots=True)
class Build:
    """What must be there before the program can start."""

    runtime: str = ""
    lock: str = ""
    language: str = ""
    python: str = ""
    requirements: str = ""
    system: tuple[str, ...] = ()
    command: str = ""
    output: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Resources:
    """What the program may use."""

    cpu: float = 1.0
    memory_bytes: int = 512 << 20
    disk_bytes: int = 64 << 20
    output_bytes: int = 8 << 20
    processes: int = 64
    timeout_seconds: int = 30
    concurrency: int = 1
    gpu_count: int = 0
    network: tuple[str, ...] = ()
    gpu_memory_bytes: int = 0
    gpu_vendor: str = "any"


@dataclass(frozen=True, slots=True)
class Price:
    """The ask that the publisher suggests for one unit."""

    model: str
    amount_uain: int


@dataclass(frozen=True, slots=True)
class Method:
    """One thing that a program does; `args`, `stdin`, `result` are those of `cli` programs, `verb` of `http` ones."""

    name: str
    path: str
    summary: str = ""
    input: Document | None = None
    output: Document | None = None
    example: Document | None = None
    stream: bool = False
    price: Price | None = None
    args: tuple[str, ...] = ()
    stdin: str = ""
    result: str = "stdout"
    verb: str = "POST"


@dataclass(frozen=True, slots=True)
class Artifact:
    """A large file that comes by its content identifier."""

    name: str
    cid: str
    path: str
    license: str = ""


@dataclass(frozen=True, slots=True)
class Calls:
    """Which other services the program calls, what that usually costs in one call of it, and how deep they nest."""

    services: tuple[str, ...]
    allowance_uain: int = 0
    depth: int = 1


@dataclass(frozen=True, slots=True)
class Manifest:
    """Everything that `openresource.toml` says."""

    name: str
    run: Run
    version: str = "0.1.0"
    summary: str = ""
    license: str = ""
    domain: str = ""
    tags: tuple[str, ...] = ()
    exactness: str = "subjective"
    royalty_uain: int = 0
    price_cap_uain: int | None = None
    build: Build = field(default_factory=Build)
    resources: Resources = field(default_factory=Resources)
    methods: tuple[Method, ...] = ()
    artifacts: tuple[Artifact, ...] = ()
    # None: it calls nobody, and gets no way to.
    calls: Calls | None = None
    # The exact version of another service that it was made from, as <publisher>/<name>@<program>.
    fork_of: str = ""
    # How results are compared, within the class that `exactness` names.
    comparator: Comparator | None = None

    @property
    def verification(self) -> Verification:
        """How far two honest runs agree."""
        return Verification(self.exactness, self.comparator)
