"""Reads the sections of a manifest: how the program is started, what it needs, what it does.

What a kind needs, what it may have and what belongs to another one stands in three tables below.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Final

from openresource.market.allowances import DEPTH_DEFAULT, DEPTH_MAX, SERVICES_MAX, is_service_text
from openresource.market.command_lines import completed
from openresource.market.generic_methods import generic_methods, is_generic
from openresource.market.manifest_records import (
    GPU_VENDORS,
    KINDS,
    RESULTS,
    SPEAKS,
    VERBS,
    Artifact,
    Batch,
    Build,
    Calls,
    Document,
    Method,
    Price,
    Resources,
    Run,
)
from openresource.market.manifest_tables import InvalidManifest, NotSupported, Table
from openresource.market.schemas import InvalidSchema, Schema, check_schema, shown
from openresource.primitives.amounts import InvalidAmount, uain_from_text

COMMAND_WORDS_MAX: Final = 64
PACKAGES_MAX: Final = 64
OUTPUTS_MAX: Final = 16
HOSTS_MAX: Final = 64
VARIABLES_MAX: Final = 32
VARIABLE_CHARACTERS_MAX: Final = 1_000
BATCH_SIZE_MAX: Final = 64
OPENAPI_DEFAULT: Final = Run("http").openapi
PRICE_MODEL: Final = "per_call"
PRICE_MODELS_LATER: Final = ("per_second", "per_token", "per_mb")

# What each kind cannot be started without, and what it may have besides.
_NEEDS: Final[dict[str, tuple[str, ...]]] = {
    "python": ("entry",),
    "http": ("command",),
    "jsonl": ("command",),
    "cli": ("command",),
    "grpc": ("command", "proto"),
    "wasm": ("module",),
    "oci": ("image",),
}
_MAY: Final[dict[str, tuple[str, ...]]] = {
    "python": ("batch",),
    "http": ("health", "port"),
    "jsonl": (),
    "cli": (),
    "grpc": ("port",),
    "wasm": ("speaks", "health", "port"),
    "oci": ("speaks", "health", "port", "command", "proto"),
}
_NEEDED: Final = {
    "entry": '{article} program names its entry, such as "predict:Predictor"',
    "command": "{article} program has a command, a list of texts",
    "proto": "{article} program names its .proto file",
    "module": '{article} program names its module, such as "service.wasm"',
    "image": "{article} program names its image, name@sha256:… or a file of the release",
}
_OWNERS: Final = {
    "entry": "python",
    "command": "http, jsonl, cli, grpc and oci",
    "health": "http",
    "module": "wasm",
    "image": "oci",
    "proto": "grpc",
    "speaks": "wasm and oci",
    "port": "http and grpc",
    "batch": "python",
}

_TAG = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,38}[a-z0-9])?")
_RUNTIME = re.compile(r"[a-z0-9](?:[a-z0-9.-]{0,38}[a-z0-9])?")
_LICENSE = re.compile(r"[A-Za-z0-9.\-+() :]{1,100}")
_ENTRY = re.compile(
    r"[A-Za-z_][A-Za-z0-9_]{0,63}(?:\.[A-Za-z_][A-Za-z0-9_]{0,63}){0,7}:(?:[A-Za-z_][A-Za-z0-9_]{0,63}|\*)"
)
_METHOD = re.compile(r"[A-Za-z_][A-Za-z0-9_-]{0,63}")
_MEMBER = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,63}")
_METHOD_PATH = re.compile(
    r"/(?:[A-Za-z0-9_~-][A-Za-z0-9._~-]{0,63}(?:/[A-Za-z0-9_~-][A-Za-z0-9._~-]{0,63}){0,7})?"
)
_FILE = re.compile(r"(?:[A-Za-z0-9_-][A-Za-z0-9._ -]{0,127}/){0,8}[A-Za-z0-9_-][A-Za-z0-9._ -]{0,127}")
_IMAGE = re.compile(r"[a-z0-9][a-z0-9._:/-]{0,254}@sha256:[0-9a-f]{64}|" + _FILE.pattern)
_HOST = re.compile(r"(?:[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?\.){1,8}[a-z][a-z0-9-]{0,61}:[1-9][0-9]{0,4}")
_LOCK = re.compile(r"sha256:[0-9a-f]{64}")
_SIZE = re.compile(r"([0-9]{1,9}) ?(Ki|Mi|Gi)?")
_PYTHON = re.compile(r"(?:>=|==)? ?3\.([0-9]{1,2})")
_UNITS: Final = {None: 1, "Ki": 1 << 10, "Mi": 1 << 20, "Gi": 1 << 30}

_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,63}")
_VARIABLES_OURS: Final = frozenset(("PATH", "HOME", "TMPDIR", "PORT", "HOST"))
_VARIABLES_OURS_BEGIN: Final = ("OPENRESOURCE_", "LD_")
_SECRET_WORDS: Final = frozenset(
    ("SECRET", "SECRETS", "TOKEN", "PASSWORD", "PASSWD", "CREDENTIAL", "CREDENTIALS", "KEY", "APIKEY", "MNEMONIC")
)  # fmt: skip


def read_run(table: Table) -> Run:
    """How the program is started, with what belongs to its kind and nothing else."""
    kind = table.choice("kind", KINDS, required=True)
    run = Run(
        kind=kind,
        command=tuple(table.texts("command", COMMAND_WORDS_MAX, 4_096)),
        entry=table.matching("entry", _ENTRY, 'an entry looks like "predict:Predictor"'),
        health=table.matching("health", _METHOD_PATH, "a path such as /healthz"),
        startup_seconds=table.integer("startup_s", 60, 1, 600),
        module=table.matching("module", _FILE, "a file of the release, such as service.wasm"),
        image=table.matching("image", _IMAGE, "an image is name@sha256:… or a file of the release"),
        proto=table.matching("proto", _FILE, "a file of the release, such as service.proto"),
        speaks=table.choice("speaks", SPEAKS[kind]) if kind in SPEAKS else table.text("speaks", 20),
        port=table.integer("port", 0, 0, 65_535),
        environment=_environment(table.table("environment")),
        batch=_batch(table),
        openapi=_openapi(table),
    )
    if kind in SPEAKS and not run.speaks:
        run = replace(run, speaks=SPEAKS[kind][0])
    _check_run(table, run)
    table.finish()
    return run


def _check_run(table: Table, run: Run) -> None:
    """Refuse what is missing for a kind, and what belongs to another one."""
    for key in _NEEDS[run.kind]:
        value = getattr(run, key)
        if not value or value[0] == "":
            raise table.wrong(key, "missing", _NEEDED[key].format(article=_article(run.kind)))
    allowed = {*_NEEDS[run.kind], *_MAY[run.kind]}
    for key, owners in _OWNERS.items():
        if getattr(run, key) and key not in allowed:
            raise table.wrong(key, shown(table.values[key]), f"only {owners} programs have it")
    if run.proto and run.kind == "oci" and run.speaks != "grpc":
        raise table.wrong("proto", f'"{run.proto}"', 'it is for images with speaks = "grpc"')
    if run.kind == "oci" and run.speaks == "grpc" and not run.proto:
        raise table.wrong("proto", "missing", "a program that speaks gRPC names its .proto file")
    if "openapi" in table.values and run.tongue != "http":
        raise table.wrong("openapi", "given", f"a {run.tongue} program has no such page")
    if (run.health or run.port) and run.tongue not in ("http", "grpc"):
        raise table.wrong("port" if run.port else "health", "given", f"a {run.tongue} program has no port")


def _article(kind: str) -> str:
    return f"an {kind}" if kind == "oci" else f"a {kind}"


def _environment(table: Table) -> dict[str, str]:
    """Variables for the program; whatever is published is public, so that no secret may be among them."""
    found: dict[str, str] = {}
    for name in table.values:
        if _VARIABLE.fullmatch(name) is None:
            raise table.wrong(name, "no name of a variable", "names are letters, digits and _")
        if name in _VARIABLES_OURS or name.startswith(_VARIABLES_OURS_BEGIN):
            raise table.wrong(name, "given", "this variable is set by whoever runs the program")
        if _SECRET_WORDS & set(name.upper().split("_")):
            raise InvalidManifest(
                field=table.name(name),
                found="named like a secret",
                expected="whatever is published is public and stays",
                remedy="Let callers send it as input, or give the variable another name if it is no secret.",
            )
        found[name] = table.text(name, VARIABLE_CHARACTERS_MAX)
    if len(found) > VARIABLES_MAX:
        raise InvalidManifest(
            field=table.path, found=f"{len(found)} long", expected=f"at most {VARIABLES_MAX} are read"
        )
    return found


def _openapi(table: Table) -> str:
    if table.values.get("openapi") == "none":
        table.seen("openapi")
        return ""
    given = table.matching("openapi", _METHOD_PATH, 'a path such as /openapi.json, or "none"')
    return given or OPENAPI_DEFAULT


def _batch(table: Table) -> Batch | None:
    part = table.table("batch")
    if not part.values:
        return None
    batch = Batch(
        size=part.integer("size", 8, 2, BATCH_SIZE_MAX), wait_ms=part.integer("wait_ms", 10, 0, 10_000)
    )
    part.finish()
    return batch


def read_build(table: Table) -> Build:
    """What must be there before the program can start."""
    output = table.values.get("output")
    build = Build(
        runtime=table.matching("runtime", _RUNTIME, "a runtime's name is a short word such as python-3.11"),
        lock=table.matching("lock", _LOCK, "a lock is sha256: and 64 hex digits"),
        language=table.matching("language", _TAG, "a language is a short word such as python"),
        python=table.matching("python", _PYTHON, 'a Python version looks like ">=3.11"'),
        requirements=table.matching("requirements", _FILE, "a file beside openresource.toml"),
        system=tuple(table.texts("system", PACKAGES_MAX, 100)),
        command=table.text("command", 1_000),
        output=(
            (table.matching("output", _FILE, "a file or folder that the build makes"),)
            if isinstance(output, str)
            else tuple(table.words("output", OUTPUTS_MAX, _FILE, "a file or folder that the build makes"))
        ),
    )
    table.finish()
    return build


def read_resources(table: Table, run: Run) -> Resources:
    """What the program may use; a program with batches takes as many calls at once as a batch holds."""
    gpu = table.table("gpu")
    gpu_count = gpu.integer("count", 0, 0, 64)
    gpu_memory_bytes = _size(gpu, "memory", 0, 0, 1 << 40)
    gpu_vendor = gpu.choice("vendor", GPU_VENDORS) or "any"
    gpu.finish()
    resources = Resources(
        cpu=table.number("cpu", 1.0, 0.05, 256),
        memory_bytes=_size(table, "memory", 512 << 20, 16 << 20, 1 << 40),
        disk_bytes=_size(table, "disk", 64 << 20, 64 << 10, 1 << 40),
        output_bytes=_size(table, "output", 8 << 20, 1 << 10, 256 << 20),
        processes=table.integer("pids", 64, 1, 4_096),
        timeout_seconds=table.integer("timeout_s", 30, 1, 86_400),
        concurrency=table.integer("concurrency", run.batch.size if run.batch else 1, 1, 256),
        gpu_count=gpu_count,
        network=tuple(_network(table)),
        gpu_memory_bytes=gpu_memory_bytes,
        gpu_vendor=gpu_vendor,
    )
    if run.batch is not None and resources.concurrency < run.batch.size:
        raise table.wrong(
            "concurrency",
            str(resources.concurrency),
            f"a batch of {run.batch.size} needs as many calls at once",
        )
    table.finish()
    return resources


def _network(table: Table) -> list[str]:
    if table.values.get("network") == "none":
        table.seen("network")
        return []
    return table.words("network", HOSTS_MAX, _HOST, 'an address looks like "api.example.org:443"')


def read_methods(tables: list[Table], run: Run) -> tuple[Method, ...]:
    """What it does; a program that says nothing gets the one generic method of its kind.

    The generic method named without an input of its own is the generic one, with an example and a price.
    """
    methods = [_method(table, run) for table in tables]
    for number, method in enumerate(methods):
        if any(method.name == other.name or method.path == other.path for other in methods[:number]):
            raise tables[number].wrong(
                "name", f'"{method.name}"', "names and paths of methods differ from one another"
            )
    return tuple(methods) or generic_methods(run.tongue)


def _method(table: Table, run: Run) -> Method:
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
        args=tuple(table.texts("args", COMMAND_WORDS_MAX, 4_096)),
        stdin=table.matching("stdin", _MEMBER, "the name of a member of the input"),
        result=table.choice("result", RESULTS) or "stdout",
        verb=table.choice("verb", VERBS) or "POST",
    )
    for key, tongue in (("args", "cli"), ("stdin", "cli"), ("result", "cli"), ("verb", "http")):
        if key in table.values and run.tongue != tongue:
            raise table.wrong(key, "given", f"it is for {tongue} programs, and this one is {run.tongue}")
    table.finish()
    for known in generic_methods(run.tongue):
        if (
            known.name == name
            and known.input
            and not {"input", "args", "stdin", "path", "verb"} & set(table.values)
        ):
            return replace(
                known, summary=method.summary or known.summary, example=method.example, price=method.price
            )
    return completed(method) if run.tongue == "cli" else method


def _document(table: Table, name: str) -> Document | None:
    if isinstance(table.values.get(name), dict):
        table.seen(name)
        document: Schema = table.values[name]
        check_document(name, document, table.name(name))
        return document
    return table.matching(name, _FILE, "a file beside openresource.toml, or a table") or None


def check_document(name: str, document: object, field_name: str) -> None:
    """Refuse a schema or an example that is none."""
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
    amount_uain = read_amount(table, "amount")
    if amount_uain is None:
        raise table.wrong("amount", "missing", 'a price has an amount in AIN, such as "0.0002"')
    table.finish()
    return Price(model, amount_uain)


def read_artifact(table: Table) -> Artifact:
    """A large file by its content identifier."""
    artifact = Artifact(
        name=table.matching("name", _METHOD, "an artifact's name starts with a letter", required=True),
        cid=table.matching("cid", re.compile(r"[A-Za-z0-9]{20,128}"), "a content identifier", required=True),
        path=table.matching("path", _FILE, "a file beside openresource.toml", required=True),
        license=table.matching("license", _LICENSE, "a license is an SPDX expression"),
    )
    table.finish()
    return artifact


def read_calls(table: Table, run: Run) -> Calls | None:
    """The services that a program calls; a program without the section calls nobody."""
    if not table.values:
        return None
    services = table.texts("services", SERVICES_MAX, 250)
    for service in services:
        if not is_service_text(service):
            raise table.wrong(
                "services",
                shown(service),
                "it is name or publisher/name, either with @version; or the word any",
            )
    if not services:
        raise table.wrong("services", "missing", 'it names what the program calls, such as ["search"]')
    if run.kind == "wasm":
        raise table.wrong("services", shown(services), "modules have no way to the broker")
    calls = Calls(
        tuple(services),
        read_amount(table, "allowance") or 0,
        table.integer("depth", DEPTH_DEFAULT, 1, DEPTH_MAX),
    )
    table.finish()
    return calls


def read_amount(table: Table, name: str) -> int | None:
    """An amount of AIN in µAIN; missing reads as None."""
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


def check_concurrency(run: Run, resources: Resources, methods: tuple[Method, ...]) -> None:
    """Refuse calls at once where the answers could not be told apart, or callers not be kept apart."""
    if run.tongue == "jsonl" and run.kind != "wasm" and len(methods) <= 1 and resources.concurrency > 1:
        raise NotSupported(
            field="resources.concurrency",
            found=str(resources.concurrency),
            remedy="Leave it out: a jsonl program with one method answers line by line.",
        )
    if (
        run.tongue == "cli"
        and run.kind != "wasm"
        and any(map(is_generic, methods))
        and resources.concurrency > 1
    ):
        # Whoever writes the whole command line could have the program read what is another caller's.
        raise NotSupported(
            field="resources.concurrency",
            found=str(resources.concurrency),
            remedy="Leave it out, or declare methods: callers who write the whole command line take turns.",
        )


def python_fits(wanted: str, minor: int) -> bool:
    """Whether Python 3.`minor` satisfies `>=3.11`, `==3.11` or `3.11`."""
    match = _PYTHON.fullmatch(wanted)
    if match is None:
        return False
    return minor >= int(match[1]) if wanted.startswith(">=") else minor == int(match[1])
