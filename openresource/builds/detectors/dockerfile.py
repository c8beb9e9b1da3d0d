"""Dockerfile: what it starts and where it listens, built by the recipe of its own language.

An image is not built here. A Dockerfile that only wraps an image named by digest is that image; of every other one the
command, the port and the variables are taken, and the language is recognised from the files beside it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

from openresource.builds.command_words import for_sandbox, port_in, words_of
from openresource.builds.detectors.procfile import base_of, language_of_command, with_runner
from openresource.builds.detectors.python_apps import is_port
from openresource.builds.files import Files
from openresource.builds.findings import Finding

_INSTRUCTION = re.compile(r"\s*([A-Za-z]{2,12})\s+(.*)", re.DOTALL)
_DIGEST = re.compile(r"[a-z0-9][a-z0-9._:/-]{0,254}@sha256:[0-9a-f]{64}")
_VARIABLE = re.compile(r"([A-Z_][A-Z0-9_]{0,63})=(\"[^\"$]{0,200}\"|[^\s\"$]{0,200})")
_KEPT_VARIABLES = re.compile(r"(?!PATH|HOME|PORT|HOST|TMPDIR|LD_|OPENRESOURCE_|PYTHON(?!PATH)|PIP_|DEBIAN)")
_SECRETS = ("SECRET", "TOKEN", "PASSWORD", "KEY", "CREDENTIAL")
IMAGE_LANGUAGES = {
    "python": "python", "node": "node", "golang": "go", "rust": "rust", "openjdk": "java", "maven": "java",
    "gradle": "java", "eclipse-temurin": "java", "gcc": "c", "ruby": "ruby", "perl": "perl",
}  # fmt: skip

Detector = Callable[[Files], Finding | None]


@dataclass(frozen=True, slots=True)
class _Dockerfile:
    """The instructions of the last stage that matter when it starts."""

    image: str = ""
    entrypoint: tuple[str, ...] = ()
    command: tuple[str, ...] = ()
    port: int = 0
    variables: Mapping[str, str] = field(default_factory=dict)
    is_bare: bool = True


def detect_dockerfile(files: Files, language: Detector) -> Finding | None:
    """What a Dockerfile would start; `language` says how the folder is built without it."""
    name = files.first("Dockerfile", "Containerfile")
    if not name:
        return None
    docker = _read(files.text(name))
    words = tuple(word for word in (*docker.entrypoint, *docker.command) if word)
    if docker.is_bare and _DIGEST.fullmatch(docker.image):
        return Finding(
            "",
            "oci",
            f"{name} wraps the image {docker.image[:60]}… and adds nothing.",
            image=docker.image,
            command=words,
            speaks="http" if docker.port else "cli",
            port=docker.port,
        )
    found = language(files)
    command = _usable(for_sandbox(words), files)
    if found is None:
        return _by_command(files, name, docker, command)
    if not command or found.is_compiled or found.kind == "python":
        # A compiled program lies elsewhere here than in the image, and typed functions say more than a command.
        said = f"{found.because.rstrip('.')}; {name} is not needed for it."
        return replace(found, because=said)
    found = base_of(files, found, command)
    port = 0 if port_in(command) else found.port or docker.port
    kind = "http" if docker.port or port_in(command) else found.kind
    return replace(
        with_runner(found, command),
        kind=kind,
        because=f"{name} starts it with: {' '.join(words)[:120]}",
        command=command,
        entry="",
        port=port if kind == "http" else 0,
        environment={**found.environment, **docker.variables},
        methods=(),
    )


def _by_command(files: Files, name: str, docker: _Dockerfile, command: tuple[str, ...]) -> Finding | None:
    language = language_of_command(command) or _language_of_image(docker.image)
    if not command or not language:
        return None
    kind = "http" if docker.port or port_in(command) else "cli"
    return Finding(
        language,
        kind,
        f"{name} starts it with: {' '.join(command)[:120]}",
        command=command,
        port=docker.port if kind == "http" and not port_in(command) else 0,
        environment=docker.variables,
        remarks=(f"What {name} installs with RUN is not installed here.",),
    )


def _usable(words: tuple[str, ...], files: Files) -> tuple[str, ...]:
    """A command whose files are in the folder; paths of the image become paths of the folder."""
    changed: list[str] = []
    for word in words:
        for prefix in (
            "/app/",
            "/usr/src/app/",
            "/code/",
            "/src/",
            "/srv/",
            "./",
            "/opt/app/",
            "/workspace/",
        ):
            inside = word.removeprefix(prefix)
            if inside != word and inside in files:
                word = inside if prefix != "./" else word
        changed.append(word)
    first = changed[0] if changed else ""
    if not first or (first.startswith(("/", "./")) and first.removeprefix("./") not in files):
        return ()
    if first in files and "/" not in first:
        changed[0] = f"./{first}"
    script = next(
        (word for word in changed[1:] if word.endswith((".py", ".js", ".mjs", ".sh", ".rb", ".pl"))), ""
    )
    return tuple(changed) if not script or script.removeprefix("./") in files else ()


def _read(text: str) -> _Dockerfile:
    found = _Dockerfile()
    for line in re.sub(r"\\[ \t]*\n", " ", text).split("\n"):
        match = _INSTRUCTION.match(line)
        if match is None or line.lstrip().startswith("#"):
            continue
        word, rest = match[1].upper(), match[2].strip()
        if word == "FROM":
            words = [part for part in rest.split() if not part.startswith("--")]
            found = _Dockerfile(image=words[0] if words else "")
        elif word == "CMD":
            found = replace(found, command=_words(rest))
        elif word == "ENTRYPOINT":
            found = replace(found, entrypoint=_words(rest), command=())
        elif word == "EXPOSE":
            port = rest.split()[0].partition("/")[0] if rest else ""
            number = int(port) if port.isdecimal() and len(port) < 6 else 0
            found = replace(found, port=number if is_port(number) else 0)
        elif word == "ENV":
            found = replace(found, variables={**found.variables, **_variables(rest)})
        elif word in ("RUN", "COPY", "ADD"):
            found = replace(found, is_bare=False)
    return found


def _words(rest: str) -> tuple[str, ...]:
    if rest.startswith("["):
        try:
            words = json.loads(rest)
        except (ValueError, RecursionError):
            return ()
        if isinstance(words, list) and all(isinstance(word, str) for word in words):
            if words[:2] in (["sh", "-c"], ["/bin/sh", "-c"], ["bash", "-c"]) and len(words) == 3:
                return words_of(words[2])
            return tuple(words)
        return ()
    return words_of(rest)


def _variables(rest: str) -> dict[str, str]:
    if "=" not in rest.split()[0]:
        name, _, value = rest.partition(" ")
        rest = f"{name}={value.strip()}" if " " not in value.strip() else f'{name}="{value.strip()}"'
    return {
        name: value.strip('"')
        for name, value in _VARIABLE.findall(rest)
        if _KEPT_VARIABLES.match(name) and not any(word in name for word in _SECRETS)
    }


def _language_of_image(image: str) -> str:
    return IMAGE_LANGUAGES.get(image.partition("@")[0].partition(":")[0].rpartition("/")[2], "")
