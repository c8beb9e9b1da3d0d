"""Reads `openresource.toml`, the page on which a program says what it is, how it runs and what it needs.

Only `name` and `run` are required. Whatever is misspelt, out of bounds or not served by this version is refused by
name, with what was found, what was expected and the way out. Files that a manifest points to are read by whoever holds
the folder and handed in as documents: nothing is opened here. The data is in `manifest_records`, the reading of its
sections in `manifest_sections`.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final

from openresource.market.command_lines import check_members
from openresource.market.jobs.comparators import (
    SUBJECTIVE,
    Verification,
    VerificationInvalid,
    read_verification,
)
from openresource.market.manifest_records import (
    EXACTNESS,
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
    Manifest,
    Method,
    Price,
    Resources,
    Run,
)
from openresource.market.manifest_sections import (
    PRICE_MODEL,
    PRICE_MODELS_LATER,
    check_concurrency,
    check_document,
    python_fits,
    read_amount,
    read_artifact,
    read_build,
    read_calls,
    read_methods,
    read_resources,
    read_run,
)
from openresource.market.manifest_tables import InvalidManifest, NotSupported, Table
from openresource.market.services import parse_fork_source
from openresource.primitives.errors import Refusal

__all__ = [
    "EXACTNESS",
    "GPU_VENDORS",
    "KINDS",
    "PRICE_MODEL",
    "PRICE_MODELS_LATER",
    "RESULTS",
    "SPEAKS",
    "VERBS",
    "Artifact",
    "Batch",
    "Build",
    "Calls",
    "Document",
    "InvalidManifest",
    "Manifest",
    "Method",
    "MissingRequirement",
    "NotSupported",
    "Price",
    "Resources",
    "Run",
    "declared_calls",
    "document_files",
    "is_enveloped",
    "missing_requirements",
    "parse_manifest",
    "python_fits",
    "with_documents",
]

MANIFEST_FILE: Final = "openresource.toml"
MANIFEST_CHARACTERS_MAX: Final = 65_536
KEY_DOTS_MAX: Final = 200
METHODS_MAX: Final = 64
TAGS_MAX: Final = 16
ARTIFACTS_MAX: Final = 16
FORK_CHARACTERS_MAX: Final = 200

# A word or a quote before a dot, as parts of a key have it.
_DOTTED = re.compile(r"[\w\"'][ \t]{0,8}\.")
_NAME = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?")
_VERSION = re.compile(r"[0-9]{1,9}\.[0-9]{1,9}\.[0-9]{1,9}(?:[-+][0-9A-Za-z.\-+]{1,40})?")
_LICENSE = re.compile(r"[A-Za-z0-9.\-+() :]{1,100}")
_TAG = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,38}[a-z0-9])?")


class MissingRequirement(Refusal):
    template = "This program needs {what}, which is not offered here."
    way_out = "Choose a provider that lists it, or leave it out of openresource.toml."


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
    run = read_run(table.table("run", required=True))
    resources = read_resources(table.table("resources"), run)
    methods = read_methods(table.tables("methods", METHODS_MAX), run)
    check_concurrency(run, resources, methods)
    royalty_uain = read_amount(table, "royalty") or 0
    price_cap_uain = read_amount(table, "price_cap")
    if price_cap_uain is not None and price_cap_uain < royalty_uain:
        raise table.wrong(
            "price_cap", "below the royalty", "the cap holds the royalty and the provider's part"
        )
    verification = _read_verification(table)
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
        exactness=verification.exactness,
        comparator=verification.comparator,
        royalty_uain=royalty_uain,
        price_cap_uain=price_cap_uain,
        build=read_build(table.table("build")),
        resources=resources,
        methods=methods,
        artifacts=tuple(read_artifact(part) for part in table.tables("artifacts", ARTIFACTS_MAX)),
        calls=read_calls(table.table("calls"), run),
        fork_of=_read_fork(table),
    )
    table.finish()
    return manifest


def _read_verification(table: Table) -> Verification:
    """How far two runs agree: `exactness`, or the table [verify], which can say more."""
    exactness = table.choice("exactness", EXACTNESS)
    verify = table.table("verify")
    stated = verify.choice("class", EXACTNESS)
    if exactness and stated and exactness != stated:
        raise verify.wrong("class", f'"{stated}"', f'it is what exactness says, which is "{exactness}"')
    record: dict[str, Any] = {"class": stated or exactness or SUBJECTIVE}
    if "comparator" in verify.values:
        comparator = verify.table("comparator")
        record["comparator"] = comparator.values
        for member in comparator.values:
            comparator.seen(member)
    verify.finish()
    try:
        return read_verification(record)
    except VerificationInvalid as refusal:
        where = "comparator" if refusal.member == "comparator" else f"comparator.{refusal.member}"
        raise verify.wrong(where, "not right", f"it {refusal.reason}") from refusal


def _read_fork(table: Table) -> str:
    text = table.text("fork_of", FORK_CHARACTERS_MAX)
    if text and parse_fork_source(text) is None:
        raise table.wrong("fork_of", text, "a source looks like 0x…/name@bafy…")
    return text


def declared_calls(text: bytes) -> Calls | None:
    """What a published manifest says of calls of other services; one that cannot be read says nothing."""
    try:
        return parse_manifest(text.decode()).calls
    except (Refusal, UnicodeDecodeError):
        return None


def is_enveloped(manifest: Manifest) -> bool:
    """Whether a program of JSON lines gets `{"id", "method", "input"}` instead of the bare input: it has several methods."""
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
                check_document(name, part, f"{where}.{name}")
            parts[name] = part
        methods.append(replace(method, **parts))
        check_members(methods[-1], where)
    return replace(manifest, methods=tuple(methods))


def missing_requirements(
    manifest: Manifest, runtimes: Mapping[str, str], *, python_minor: int | None = None
) -> list[MissingRequirement]:
    """What the program asks for and a provider does not have; `runtimes` maps lock digests to names."""
    build, resources = manifest.build, manifest.resources
    missing: list[MissingRequirement] = []
    is_named = build.runtime and not build.lock
    if (build.lock and build.lock not in runtimes) or (is_named and build.runtime not in runtimes.values()):
        offered = ", ".join(sorted(set(runtimes.values()))) or "none"
        missing.append(
            MissingRequirement(
                what=f"the runtime {build.runtime or 'with lock'}"
                + (f" ({build.lock})" if build.lock else ""),
                offered=offered,
                remedy=f"Choose a provider that lists this runtime; prepared here: {offered}.",
            )
        )
    if build.requirements and not (build.lock or build.runtime):
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
