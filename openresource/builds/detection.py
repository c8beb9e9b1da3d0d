"""Says what a folder is, how it would be built, started and spoken to, and why: nothing is run to find out.

The first detector in `ORDER` that knows the folder decides. Whoever made the folder may be hostile; see `files.py` for
the bounds of what is read.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

from openresource.builds.detectors.c_family import detect_c
from openresource.builds.detectors.cog import detect_cog
from openresource.builds.detectors.dockerfile import detect_dockerfile
from openresource.builds.detectors.golang import detect_go
from openresource.builds.detectors.grpc_servers import detect_grpc
from openresource.builds.detectors.java import detect_java
from openresource.builds.detectors.node import detect_node
from openresource.builds.detectors.procfile import detect_procfile
from openresource.builds.detectors.python_apps import detect_app, detect_self_serving
from openresource.builds.detectors.python_programs import (
    detect_agent_tools,
    detect_commands,
    detect_functions,
    detect_library,
    detect_predictor,
)
from openresource.builds.detectors.python_programs import detect_script as detect_python_script
from openresource.builds.detectors.rust import detect_rust
from openresource.builds.detectors.scripts import detect_script
from openresource.builds.detectors.wasm import detect_wasm
from openresource.builds.facts import facts_of
from openresource.builds.files import Files
from openresource.builds.findings import Finding, manifest_text
from openresource.builds.python_code import ASIDE_FOLDERS
from openresource.market.manifests import MANIFEST_FILE, InvalidManifest, parse_manifest
from openresource.primitives.errors import Refusal

MARKS: Final = (
    "cog.yaml",
    "Procfile",
    "Dockerfile",
    "package.json",
    "go.mod",
    "Cargo.toml",
    "pom.xml",
    "pyproject.toml",
)
DEEPER_FOLDERS_MAX: Final = 3
DEEPER_SHOWN_MAX: Final = 6

PACKAGE_PAGES: Final = (
    "requirements.txt",
    "pyproject.toml",
    "package.json",
    "pom.xml",
    "build.gradle",
    "go.mod",
    "Cargo.toml",
)
SERVER_SOURCES: Final = (".py", ".js", ".mjs", ".ts", ".go", ".rs", ".java")
SOURCES_MAX: Final = 100
# What shows that a server describes itself, and where.
OPENAPI_SIGNS: Final = (
    ("springdoc", "/v3/api-docs"), ("litestar", "/schema/openapi.json"), ("/openapi.json", "/openapi.json"),
    ("openapi.json", "/openapi.json"), ("fastapi", "/openapi.json"), ("FastAPI", "/openapi.json"),
    ("apiflask", "/openapi.json"), ("@fastify/swagger", "/documentation/json"),
)  # fmt: skip

Detector = Callable[[Files], Finding | None]


class NothingFound(Refusal):
    template = "Nothing at the top of {folder} says how it would be run{seen}."
    way_out = (
        "The lightest way: a main.py with a typed function, a script that begins with #!, or a Procfile with the line "
        "«web: COMMAND» for a server that reads $PORT."
    )


@dataclass(frozen=True, slots=True)
class Detected:
    """What a folder is: the page to publish it with, and from what that was concluded.

    `files` are small ones that have to lie beside the page, such as a bridge to a library's functions.
    """

    manifest_text: str
    language: str
    kind: str
    because: str
    remarks: tuple[str, ...] = ()
    files: Mapping[str, bytes] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Step:
    """One step of the order: what is looked for, what it becomes."""

    looks_for: str
    becomes: str
    detect: Detector


def _language(files: Files) -> Finding | None:
    """What a folder is if nothing but its own sources may say so."""
    for step in LANGUAGES:
        finding = step.detect(files)
        if finding is not None:
            return finding
    return None


LANGUAGES: Final = (
    Step("an application object of FastAPI, Starlette, Quart, Litestar, Flask, Bottle, Falcon or Django", "http", detect_app),
    Step("`package.json` (or a lone `.js`): a server, `bin`, `start`, or `main` with exported functions", "http, cli, jsonl", detect_node),
    Step("`go.mod` or `.go`: a package main", "http, cli", detect_go),
    Step("`Cargo.toml`: a binary", "http, cli", detect_rust),
    Step("`pom.xml`, `build.gradle` or `.java`: a class with main", "http, cli", detect_java),
    Step("a Streamlit or Gradio page, or a Python file that opens a port itself", "http", detect_self_serving),
    Step("an MCP server's tools, where they are typed functions", "python", detect_agent_tools),
    Step("`service.py`, `predict.py`, `main.py` …: a class or functions whose parameters say their types", "python", detect_functions),
    Step("a command that a Python project installs, or a file with argparse, click, Typer, Fire or docopt", "cli", detect_commands),
    Step("a Python library with one clear module of typed functions", "python", detect_library),
    Step("`CMakeLists.txt`, `Makefile` or C and C++ sources with main", "cli, http", detect_c),
    Step("a Python file that does something when it is run", "cli", detect_python_script),
    Step("a script: shell, Perl, awk, Ruby, Lua, PHP, Tcl, or a `#!` line", "cli, http", detect_script),
)  # fmt: skip

ORDER: Final = (
    Step("`cog.yaml`: what predicts, with its packages", "python", detect_cog),
    Step(
        "`Procfile`: the line `web:`, else its first line",
        "http, cli",
        lambda files: detect_procfile(files, _language),
    ),
    Step("`predict.py`: a class or a function `predict`", "python", detect_predictor),
    Step(
        "`Dockerfile`: CMD, ENTRYPOINT, EXPOSE and ENV, built by the recipe of the language beside it",
        "http, cli, oci",
        lambda files: detect_dockerfile(files, _language),
    ),
    Step(
        "a `.proto` with a service, beside sources that open a gRPC server",
        "grpc",
        lambda files: detect_grpc(files, _language),
    ),
    *LANGUAGES[:1],
    Step("`*.wasm`: a module of WASI", "wasm", detect_wasm),
    *LANGUAGES[1:],
)


def detect(files: Files, others: Sequence[Detector] = ()) -> Detected:
    """The page for a folder; `others` are the detectors of languages that were added from outside, and go last."""
    if MANIFEST_FILE in files:
        text = files.text(MANIFEST_FILE)
        manifest = parse_manifest(text)
        return Detected(text, manifest.build.language, manifest.run.kind, f"It has its own {MANIFEST_FILE}.")
    facts = facts_of(files)
    own = [step.detect for step in ORDER]
    for number, detector in enumerate((*own, *others)):
        finding = detector(files)
        if finding is None:
            continue
        if finding.kind == "http" and not finding.openapi:
            finding = replace(finding, openapi=openapi_path(files))
        if not facts.license:
            finding = replace(finding, remarks=(*finding.remarks, "No licence was recognised; name one."))
        text = manifest_text(finding, facts, is_ours=number < len(own))
        try:
            parse_manifest(text)
        except InvalidManifest:
            # Names and commands that no page can hold; another detector may know the folder as well.
            continue
        kept = {name: content for name, content in finding.files.items() if name not in files}
        return Detected(text, finding.language, finding.kind, finding.because, finding.remarks, kept)
    deeper = deeper_programs(files)
    there = [name for name in MARKS if name in files]
    raise NothingFound(
        folder=files.name or "the folder",
        seen=f": its {' and '.join(there)} neither start nor install anything" if there else "",
        files=len(files.names),
        deeper=deeper,
        remedy=f"Programs seem to lie deeper; name one of these folders: {', '.join(deeper)}."
        if deeper
        else "",
    )


def openapi_path(files: Files) -> str:
    """Where a server describes its own methods, if its sources or its packages show that it does."""
    pages = [name for name in files.names if name.rpartition("/")[2] in PACKAGE_PAGES and name.count("/") < 3]
    sources = [
        name
        for name in files.ending(*SERVER_SOURCES, depth_max=4)
        if not set(name.split("/")[:-1]) & ASIDE_FOLDERS
    ]
    text = "\n".join(files.text(name) for name in (*pages, *sources[:SOURCES_MAX]))
    return next((path for word, path in OPENAPI_SIGNS if word in text), "")


def deeper_programs(files: Files) -> list[str]:
    """Folders below that look like programs of their own."""
    found = [
        name.rpartition("/")[0]
        for name in files.names
        if 0 < name.count("/") <= DEEPER_FOLDERS_MAX
        and name.rpartition("/")[2] in (*MARKS, "main.py", "app.py")
    ]
    kept = [folder for folder in dict.fromkeys(found) if not set(folder.split("/")) & ASIDE_FOLDERS]
    return kept[:DEEPER_SHOWN_MAX]
