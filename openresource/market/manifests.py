"""Reads `openresource.toml`, the page on which a program says what it is, how it runs and what it needs.

Only `name` and `run` are required. Whatever is misspelt, out of bounds or not served by this version is refused by
name, with what was found, what was expected and the way out. Files that a manifest points to are read by whoever holds
the folder and handed in as documents: nothing is opened here.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final

from openresource.market.manifest_tables import InvalidManifest, NotSupported, Table
from openresource.market.schemas import InvalidSchema, Schema, check_schema
from openresource.primitives.amounts import InvalidAmount, uain_from_text
from openresource.primitives.errors import Refusal

MANIFEST_FILE: Final = "openresource.toml"
MANIFEST_CHARACTERS_MAX: Final = 65_536
KEY_DOTS_MAX: Final = 200
METHODS_MAX: Final = 64
TAGS_MAX: Final = 16
COMMAND_WORDS_MAX: Final = 64
ARTIFACTS_MAX: Final = 16
PACKAGES_MAX: Final = 64

KINDS: Final = ("python", "http", "jsonl")
KINDS_LATER: Final = ("cli", "wasm", "oci", "grpc")
EXACTNESS: Final = ("bit_exact", "class_exact", "tolerant", "subjective")
PRICE_MODEL: Final = "per_call"
PRICE_MODELS_LATER: Final = ("per_second", "per_token", "per_mb")
DEFAULT_METHOD: Final = "call"

# A word or a quote before a dot, as parts of a key have it.
_DOTTED = re.compile(r"[\w\"'][ \t]{0,8}\.")
_NAME = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?")
_VERSION = re.compile(r"[0-9]{1,9}\.[0-9]{1,9}\.[0-9]{1,9}(?:[-+][0-9A-Za-z.\-+]{1,40})?")
_LICENSE = re.compile(r"[A-Za-z0-9.\-+() :]{1,100}")
_TAG = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,38}[a-z0-9])?")
_ENTRY = re.compile(
    r"[A-Za-z_][A-Za-z0-9_]{0,63}(?:\.[A-Za-z_][A-Za-z0-9_]{0,63}){0,7}:[A-Za-z_][A-Za-z0-9_]{0,63}"
)
_METHOD = re.compile(r"[A-Za-z_][A-Za-z0-9_-]{0,63}")
_METHOD_PATH = re.compile(
    r"/(?:[A-Za-z0-9_~-][A-Za-z0-9._~-]{0,63}(?:/[A-Za-z0-9_~-][A-Za-z0-9._~-]{0,63}){0,7})?"
)
_FILE = re.compile(r"(?:[A-Za-z0-9_-][A-Za-z0-9._ -]{0,127}/){0,8}[A-Za-z0-9_-][A-Za-z0-9._ -]{0,127}")
_LOCK = re.compile(r"sha256:[0-9a-f]{64}")
_SIZE = re.compile(r"([0-9]{1,9}) ?(Ki|Mi|Gi)?")
_PYTHON = re.compile(r"(?:>=|==)? ?3\.([0-9]{1,2})")
_UNITS: Final = {None: 1, "Ki": 1 << 10, "Mi": 1 << 20, "Gi": 1 << 30}

# A description or an example: given in the manifest, or the name of a file of the release.
Document = Mapping[str, Any] | str


class MissingRequirement(Refusal):
    template = "This program needs {what}, which is not offered here."
    way_out = "Choose a provider that lists it, or leave it out of openresource.toml."


@dataclass(frozen=True, slots=True)
class Run:
    """How the program is started and spoken to."""

    kind: str
    command: tuple[str, ...] = ()
    entry: str = ""
    health: str = ""
    startup_seconds: int = 60


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


@dataclass(frozen=True, slots=True)
class Price:
    """The ask that the publisher suggests for one unit."""

    model: str
    amount_uain: int


@dataclass(frozen=True, slots=True)
class Method:
    """One thing that a program does."""

    name: str
    path: str
    summary: str = ""
    input: Document | None = None
    output: Document | None = None
    example: Document | None = None
    stream: bool = False
    price: Price | None = None


@dataclass(frozen=True, slots=True)
class Artifact:
    """A large file that comes by its content identifier."""

    name: str
    cid: str
    path: str
    license: str = ""


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


def parse_manifest(text: str) -> Manifest:
    """The manifest that a text states, or a refusal that names the field."""
    if len(text) > MANIFEST_CHARACTERS_MAX:
        raise InvalidManifest(
            field="the file",
            found=f"{len(text)} characters long",
            expected=f"at most {MANIFEST_CHARACTERS_MAX} are read",
            remedy="Move schemas and examples into files of their own.",
        )
    if any(line.count(".") > KEY_DOTS_MAX < len(_DOTTED.findall(line)) for line in text.split("\n")):
        # The time that the reader takes grows with the square of a key's parts.
        raise InvalidManifest(
            field="the file",
            found="a line with too many dots",
            expected=f"at most {KEY_DOTS_MAX} words with a dot stand on a line",
            remedy="Break the line.",
        )
    try:
        values = tomllib.loads(text)
    except (ValueError, RecursionError) as problem:
        raise InvalidManifest(
            field="the file",
            found=f"not TOML ({problem})",
            expected="it is written in TOML",
            remedy="Mend that line.",
        ) from None
    table = Table(values, "")
    table.integer("spec", 1, 1, 1)
    run = _run(table.table("run", required=True))
    resources = _resources(table.table("resources"))
    methods = _methods(table.tables("methods", METHODS_MAX), run)
    _check_concurrency(run, resources, methods)
    royalty_uain = _amount(table, "royalty") or 0
    price_cap_uain = _amount(table, "price_cap")
    if price_cap_uain is not None and price_cap_uain < royalty_uain:
        raise table.wrong(
            "price_cap", "below the royalty", "the cap holds the royalty and the provider's part"
        )
    manifest = Manifest(
        name=table.matching(
            "name", _NAME, "a name is a DNS label: a-z, 0-9 and -, at most 63", required=True
        ),
        run=run,
        version=table.matching("version", _VERSION, "a version looks like 1.2.0") or "0.1.0",
        summary=table.text("summary", 300),
        license=table.matching("license", _LICENSE, "a license is an SPDX expression such as Apache-2.0"),
        domain=table.matching("domain", _TAG, "a domain is one word such as text"),
        tags=tuple(table.words("tags", TAGS_MAX, _TAG, "a tag is a short word: a-z, 0-9 and -")),
        exactness=table.choice("exactness", EXACTNESS) or "subjective",
        royalty_uain=royalty_uain,
        price_cap_uain=price_cap_uain,
        build=_build(table.table("build")),
        resources=resources,
        methods=methods,
        artifacts=tuple(_artifact(part) for part in table.tables("artifacts", ARTIFACTS_MAX)),
    )
    table.finish()
    return manifest


def is_enveloped(manifest: Manifest) -> bool:
    """Whether a `jsonl` program gets `{"id", "method", "input"}` instead of the bare input: it has several methods."""
    return len(manifest.methods) > 1


def document_files(manifest: Manifest) -> tuple[str, ...]:
    """The files of the release that the manifest points to."""
    parts = [part for method in manifest.methods for part in (method.input, method.output, method.example)]
    return tuple(sorted({part for part in parts if isinstance(part, str)}))


def with_documents(manifest: Manifest, documents: Mapping[str, object]) -> Manifest:
    """The same manifest with every file that it points to put in its place, checked."""
    methods = []
    for number, method in enumerate(manifest.methods):
        where = f"methods[{number}]"
        parts: dict[str, Any] = {}
        for name in ("input", "output", "example"):
            part = getattr(method, name)
            if isinstance(part, str):
                if part not in documents:
                    raise InvalidManifest(
                        field=f"{where}.{name}",
                        found=f'"{part}"',
                        expected="there is no such file beside openresource.toml",
                    )
                part = documents[part]
            if part is not None:
                _check_document(name, part, f"{where}.{name}")
            parts[name] = part
        methods.append(replace(method, **parts))
    return replace(manifest, methods=tuple(methods))


def missing_requirements(
    manifest: Manifest, runtimes: Mapping[str, str], *, python_minor: int | None = None
) -> list[MissingRequirement]:
    """What the program asks for and a provider does not have; `runtimes` maps lock digests to names."""
    build, resources = manifest.build, manifest.resources
    missing: list[MissingRequirement] = []
    if build.lock and build.lock not in runtimes:
        offered = ", ".join(sorted(set(runtimes.values()))) or "none"
        missing.append(
            MissingRequirement(
                what=f"the runtime {build.runtime or 'with lock'} ({build.lock})",
                offered=offered,
                remedy=f"Choose a provider that lists this lock digest; prepared here: {offered}.",
            )
        )
    if build.requirements and not build.lock:
        missing.append(
            MissingRequirement(
                what=f"packages of {build.requirements}",
                remedy="Name a prepared runtime by [build] runtime and lock, or use the standard library only.",
            )
        )
    if build.system:
        missing.append(MissingRequirement(what="system packages: " + ", ".join(build.system)))
    if build.command:
        missing.append(MissingRequirement(what="a build command", remedy="Publish the program built."))
    if build.python and python_minor is not None and not python_fits(build.python, python_minor):
        missing.append(MissingRequirement(what=f"Python {build.python}", offered=f"3.{python_minor}"))
    if resources.gpu_count:
        missing.append(MissingRequirement(what=f"{resources.gpu_count} GPU"))
    if resources.network:
        missing.append(
            MissingRequirement(
                what="network access to " + ", ".join(resources.network),
                remedy="Programs have no network; take what is needed as input, or publish it with the program.",
            )
        )
    for artifact in manifest.artifacts:
        missing.append(MissingRequirement(what=f"the artifact {artifact.name} ({artifact.cid})"))
    return missing


def python_fits(wanted: str, minor: int) -> bool:
    """Whether Python 3.`minor` satisfies `>=3.11`, `==3.11` or `3.11`."""
    match = _PYTHON.fullmatch(wanted)
    if match is None:
        return False
    return minor >= int(match[1]) if wanted.startswith(">=") else minor == int(match[1])


def _run(table: Table) -> Run:
    kind = table.choice("kind", KINDS, later=KINDS_LATER, required=True)
    startup_seconds = table.integer("startup_s", 60, 1, 600)
    health = table.matching("health", _METHOD_PATH, "a path such as /healthz")
    command = tuple(table.texts("command", COMMAND_WORDS_MAX, 4_096))
    entry = table.matching("entry", _ENTRY, 'an entry looks like "predict:Predictor"')
    if kind == "python":
        if not entry:
            raise table.wrong(
                "entry", "missing", 'a python program names its entry, such as "predict:Predictor"'
            )
        if command:
            raise table.wrong("command", "given", "a python program has an entry and no command")
    else:
        if not command or not command[0]:
            raise table.wrong("command", "missing", f"a {kind} program has a command, a list of texts")
        if entry:
            raise table.wrong("entry", f'"{entry}"', "only python programs have an entry")
    if health and kind != "http":
        raise table.wrong("health", f'"{health}"', "only http programs have a health path")
    table.finish()
    return Run(kind, command, entry, health, startup_seconds)


def _build(table: Table) -> Build:
    build = Build(
        runtime=table.matching("runtime", _TAG, "a runtime's name is a short word"),
        lock=table.matching("lock", _LOCK, "a lock is sha256: and 64 hex digits"),
        language=table.matching("language", _TAG, "a language is a short word such as python"),
        python=table.matching("python", _PYTHON, 'a Python version looks like ">=3.11"'),
        requirements=table.matching("requirements", _FILE, "a file beside openresource.toml"),
        system=tuple(table.texts("system", PACKAGES_MAX, 100)),
        command=table.text("command", 1_000),
    )
    if build.runtime and not build.lock:
        raise table.wrong("lock", "missing", "a runtime is named together with its lock digest, sha256:…")
    table.finish()
    return build


def _resources(table: Table) -> Resources:
    gpu = table.table("gpu")
    gpu_count = gpu.integer("count", 0, 0, 64)
    gpu.text("memory", 20)
    gpu.text("vendor", 20)
    gpu.finish()
    resources = Resources(
        cpu=table.number("cpu", 1.0, 0.05, 256),
        memory_bytes=_size(table, "memory", 512 << 20, 16 << 20, 1 << 40),
        disk_bytes=_size(table, "disk", 64 << 20, 64 << 10, 1 << 40),
        output_bytes=_size(table, "output", 8 << 20, 1 << 10, 256 << 20),
        processes=table.integer("pids", 64, 1, 4_096),
        timeout_seconds=table.integer("timeout_s", 30, 1, 86_400),
        concurrency=table.integer("concurrency", 1, 1, 256),
        gpu_count=gpu_count,
        network=tuple(_network(table)),
    )
    table.finish()
    return resources


def _network(table: Table) -> list[str]:
    if table.values.get("network") == "none":
        table.seen("network")
        return []
    return table.texts("network", 64, 300)


def _methods(tables: list[Table], run: Run) -> tuple[Method, ...]:
    methods = [_method(table) for table in tables]
    for number, method in enumerate(methods):
        if any(method.name == other.name or method.path == other.path for other in methods[:number]):
            raise tables[number].wrong(
                "name", f'"{method.name}"', "names and paths of methods differ from one another"
            )
    if not methods and run.kind != "python":
        methods.append(Method(DEFAULT_METHOD, "/" if run.kind == "http" else f"/{DEFAULT_METHOD}"))
    return tuple(methods)


def _method(table: Table) -> Method:
    name = table.matching("name", _METHOD, "a method's name starts with a letter", required=True)
    path = table.matching(
        "path", _METHOD_PATH, "a path starts with / and is made of letters, digits, _ and -"
    )
    method = Method(
        name=name,
        path=path or f"/{name}",
        summary=table.text("summary", 300),
        input=_document(table, "input"),
        output=_document(table, "output"),
        example=_document(table, "example"),
        stream=table.flag("stream"),
        price=_price(table.table("price")),
    )
    table.finish()
    return method


def _document(table: Table, name: str) -> Document | None:
    if isinstance(table.values.get(name), dict):
        table.seen(name)
        document: Schema = table.values[name]
        _check_document(name, document, table.name(name))
        return document
    return table.matching(name, _FILE, "a file beside openresource.toml, or a table") or None


def _check_document(name: str, document: object, field_name: str) -> None:
    if not isinstance(document, Mapping):
        raise InvalidManifest(field=field_name, found="not an object", expected="it is a JSON object")
    if name == "example":
        if "input" not in document or not set(document) <= {"input", "output", "summary"}:
            raise InvalidManifest(
                field=field_name,
                found=f"with {', '.join(document)}",
                expected="an example has input, and may have output",
            )
        return
    try:
        check_schema(document, field=field_name)
    except InvalidSchema as refusal:
        raise InvalidManifest(
            field=refusal.field, found=refusal.found, expected=refusal.expected, remedy=refusal.way_out
        ) from None


def _price(table: Table) -> Price | None:
    if not table.values:
        return None
    model = table.choice("model", (PRICE_MODEL,), later=PRICE_MODELS_LATER) or PRICE_MODEL
    amount_uain = _amount(table, "amount")
    if amount_uain is None:
        raise table.wrong("amount", "missing", 'a price has an amount in AIN, such as "0.0002"')
    table.finish()
    return Price(model, amount_uain)


def _artifact(table: Table) -> Artifact:
    artifact = Artifact(
        name=table.matching("name", _METHOD, "an artifact's name starts with a letter", required=True),
        cid=table.matching("cid", re.compile(r"[A-Za-z0-9]{20,128}"), "a content identifier", required=True),
        path=table.matching("path", _FILE, "a file beside openresource.toml", required=True),
        license=table.matching("license", _LICENSE, "a license is an SPDX expression"),
    )
    table.finish()
    return artifact


def _amount(table: Table, name: str) -> int | None:
    if name in table.values and not isinstance(table.values[name], str):
        raise table.wrong(name, str(table.values[name])[:40], f'amounts are texts: write {name} = "0.0002"')
    text = table.text(name, 40)
    if not text:
        return None
    try:
        return uain_from_text(text)
    except InvalidAmount as refusal:
        raise table.wrong(
            name, f'"{text}"', f"an amount is a decimal text of AIN: {refusal.reason}"
        ) from None


def _size(table: Table, name: str, default: int, minimum: int, maximum: int) -> int:
    value = table.values.get(name)
    if isinstance(value, int) and not isinstance(value, bool):
        return table.integer(name, default, minimum, maximum)
    text = table.matching(name, _SIZE, "a size is a number with Ki, Mi or Gi")
    if not text:
        return default
    match = _SIZE.fullmatch(text)
    assert match is not None
    size = int(match[1]) * _UNITS[match[2]]
    if not minimum <= size <= maximum:
        raise table.wrong(name, f'"{text}"', f"it lies between {minimum} and {maximum} bytes")
    return size


def _check_concurrency(run: Run, resources: Resources, methods: tuple[Method, ...]) -> None:
    if run.kind == "jsonl" and len(methods) <= 1 and resources.concurrency > 1:
        raise NotSupported(
            field="resources.concurrency",
            found=str(resources.concurrency),
            remedy="Leave it out: a jsonl program with one method answers line by line.",
        )
