"""What a detector says of a program, and the page that is made of it: a complete, commented `openresource.toml`."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from openresource.builds.facts import Facts
from openresource.market.manifest_sections import OPENAPI_DEFAULT

# Languages with a recipe; a script of another one needs its interpreter and nothing else.
BUILT_LANGUAGES: Final = ("python", "node", "go", "rust", "java", "c", "shell", "perl")
COMPILED_LANGUAGES: Final = ("go", "rust", "java", "c")
REMARK_CHARACTERS_MAX: Final = 200
_PLAIN_KEY = re.compile(r"[A-Za-z0-9_-]+")


@dataclass(frozen=True, slots=True)
class FoundMethod:
    """A method that can be read from the code, for programs that do not tell their own."""

    name: str
    summary: str = ""
    input: Mapping[str, Any] = field(default_factory=dict)
    path: str = ""
    verb: str = ""
    args: tuple[str, ...] = ()
    stdin: str = ""
    result: str = ""


@dataclass(frozen=True, slots=True)
class Finding:
    """How a program would be built, started and spoken to, and from what this was concluded."""

    language: str
    kind: str
    because: str
    command: tuple[str, ...] = ()
    entry: str = ""
    module: str = ""
    image: str = ""
    proto: str = ""
    speaks: str = ""
    port: int = 0
    health: str = ""
    # The path of its OpenAPI document; nothing for a server that shows no sign of one.
    openapi: str = ""
    environment: Mapping[str, str] = field(default_factory=dict)
    requirements: str = ""
    python: str = ""
    system: tuple[str, ...] = ()
    build_command: str = ""
    output: tuple[str, ...] = ()
    memory: str = ""
    gpu_count: int = 0
    methods: tuple[FoundMethod, ...] = ()
    remarks: tuple[str, ...] = ()
    # Small files that the program needs beside its own, such as a bridge to the functions of a library.
    files: Mapping[str, bytes] = field(default_factory=dict)

    @property
    def is_compiled(self) -> bool:
        """Whether what is started lies where our own recipe puts it, and not where another tool would."""
        return self.language in COMPILED_LANGUAGES


def manifest_text(finding: Finding, facts: Facts, *, is_ours: bool = True) -> str:
    """The page of a program, with a comment wherever a reader would ask why; a language from outside has its recipe."""
    is_built = not is_ours or finding.language in BUILT_LANGUAGES
    lines = [
        f"# {_comment(finding.because)}",
        *(f"# {_comment(remark)}" for remark in finding.remarks),
        f"name = {toml_text(facts.name)}",
        f"version = {toml_text(facts.version)}",
        *_given("summary", facts.summary),
        *_given("license", facts.license),
        '# royalty = "0.0001"   # what you earn of every call, in AIN',
        "",
        "[run]",
        f"kind = {toml_text(finding.kind)}",
        *_given("entry", finding.entry),
        *_given("command", finding.command),
        *_given("module", finding.module),
        *_given("image", finding.image),
        *_given("proto", finding.proto),
        *_given("speaks", finding.speaks),
    ]
    if finding.port:
        lines.append(f"port = {finding.port}   # the program listens there instead of on $PORT")
    lines += _given("health", finding.health)
    if (finding.speaks or finding.kind) == "http" and not finding.openapi:
        lines.append('openapi = "none"   # or the path of its OpenAPI document, which then gives it methods')
    elif finding.openapi != OPENAPI_DEFAULT:
        lines += _given("openapi", finding.openapi)
    if finding.environment:
        lines.append(f"environment = {toml_value(dict(finding.environment))}")
    build = [
        *_given("language", finding.language if is_built else ""),
        *_given("requirements", finding.requirements),
        *_given("python", finding.python),
        *_given("system", finding.system),
        *_given("command", finding.build_command),
        *_given("output", finding.output),
    ]
    if build:
        lines += ["", "[build]", *build]
    lines += ["", "[resources]", f"memory = {toml_text(finding.memory or '512Mi')}"]
    if finding.gpu_count:
        lines.append(f"gpu = {{count = {finding.gpu_count}}}")
    for method in finding.methods:
        lines += ["", "[[methods]]", *_method_lines(method)]
    if not finding.methods:
        lines += ["", *_EXAMPLES.get(finding.speaks or finding.kind, ())]
    return "\n".join(lines).rstrip() + "\n"


def toml_text(text: str) -> str:
    """A text as TOML writes it; JSON's escapes are a part of TOML's."""
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")


def toml_value(value: Any) -> str:
    """A value as TOML writes it on one line."""
    if isinstance(value, Mapping):
        pairs = (f"{_toml_key(str(key))} = {toml_value(part)}" for key, part in value.items())
        return "{" + ", ".join(pairs) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(toml_value(part) for part in value) + "]"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return repr(value)
    return toml_text(str(value))


def _toml_key(key: str) -> str:
    return key if _PLAIN_KEY.fullmatch(key) else toml_text(key)


def _given(key: str, value: str | tuple[str, ...]) -> list[str]:
    return [f"{key} = {toml_value(value)}"] if value else []


def _comment(text: str) -> str:
    return " ".join("".join(part if part.isprintable() else " " for part in text).split())[
        :REMARK_CHARACTERS_MAX
    ]


def _method_lines(method: FoundMethod) -> list[str]:
    lines = [
        f"name = {toml_text(method.name)}",
        *_given("path", method.path),
        *_given("verb", method.verb),
        *_given("summary", method.summary),
        *_given("args", method.args),
        *_given("stdin", method.stdin),
        *_given("result", method.result),
    ]
    if method.input:
        lines.append(f"input = {toml_value(method.input)}")
    return lines


# What a reader would add first; comments, as nobody but the author knows a good input.
_EXAMPLES: Final[dict[str, tuple[str, ...]]] = {
    "python": (
        "# Its methods and their types are read from the code. An example is tried before anything is published:",
        "# [[methods]]",
        '# name = "the_method"',
        '# example = {input = {text = "hello"}}',
    ),
    "cli": (
        "# It is called as `run` with {args, stdin, files}. A method of its own is nicer to call:",
        "# [[methods]]",
        '# name = "convert"',
        '# args = ["--input", "{document:file}"]',
        '# example = {input = {document = "aGVsbG8="}}',
    ),
    "http": (
        "# It is called as `request` with {method, path, query, headers, body}, and by the methods of its OpenAPI page.",
        "# [[methods]]",
        '# name = "greet"',
        '# path = "/greet"',
        '# example = {input = {name = "Ada"}}',
    ),
    "jsonl": (
        "# A line in, a line out. An example is tried before anything is published:",
        "# [[methods]]",
        '# name = "call"',
        '# example = {input = {text = "hello"}}',
    ),
}
