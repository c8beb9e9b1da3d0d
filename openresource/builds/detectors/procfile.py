"""Procfile: the line `web:` is a server on $PORT, another line is a command."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace

from openresource.builds.command_words import PYTHON_MODULES, for_sandbox, words_of
from openresource.builds.detectors.python_apps import python_finding
from openresource.builds.files import Files
from openresource.builds.findings import Finding
from openresource.builds.python_code import python_sources
from openresource.builds.python_packages import GENERATED_FILE

_LINE = re.compile(r"([A-Za-z0-9_-]{1,40}):\s*(\S.*)")

LINES_MAX = 50

Detector = Callable[[Files], Finding | None]


def detect_procfile(files: Files, language: Detector) -> Finding | None:
    """What a Procfile starts; `language` says how the folder is built."""
    if "Procfile" not in files:
        return None
    matches = (_LINE.match(line) for line in files.text("Procfile").splitlines()[:LINES_MAX])
    lines = {match[1]: match[2] for match in matches if match is not None}
    name = "web" if "web" in lines else next((name for name in lines if name != "release"), "")
    words = for_sandbox(words_of(lines.get(name, "")))
    if not words:
        return None
    others = [other for other in lines if other != name]
    remarks = (f"Only one process is started; passed over: {', '.join(others[:5])}.",) if others else ()
    found = language(files)
    if (
        found is not None
        and found.is_compiled
        and words[0] != "sh"
        and words[0].removeprefix("./") not in files
    ):
        # The line names what the other tool's build makes; ours lies elsewhere.
        words = (*found.command[:1], *words[1:])
    base = with_runner(base_of(files, found, words), words)
    return replace(
        base,
        kind="http" if name == "web" else "cli",
        because=f"Procfile starts «{name}» with: {lines[name][:100]}",
        command=words,
        entry="",
        port=0,
        methods=(),
        environment={name: value for name, value in base.environment.items() if name == "PYTHONPATH"},
        remarks=(*remarks, *base.remarks),
    )


def base_of(files: Files, found: Finding | None, words: tuple[str, ...]) -> Finding:
    """How a folder is built whose command is known: what was found in it, unless the command is of another language.

    Beside an application that is made by a function of its own lie scripts, and pages that Node puts together.
    """
    language = language_of_command(words)
    if found is not None and (found.language == language or language not in ("python", "node")):
        return found
    finding = Finding(language, "http", "")
    return python_finding(files, python_sources(files), finding) if language == "python" else finding


def with_runner(finding: Finding, words: tuple[str, ...]) -> Finding:
    """A finding whose made list of packages has the server that its command starts."""
    made = finding.files.get(GENERATED_FILE, b"").decode()
    runner = words[2] if words[:2] == ("python", "-m") and len(words) > 2 else ""
    if not made or runner not in PYTHON_MODULES.values() or runner in made.lower():
        return finding
    return replace(finding, files={**finding.files, GENERATED_FILE: f"{made}{runner}\n".encode()})


def language_of_command(words: tuple[str, ...]) -> str:
    """The language that a command's first word is of."""
    name = words[0].rpartition("/")[2] if words else ""
    return {
        "python": "python",
        "node": "node",
        "npm": "node",
        "npx": "node",
        "yarn": "node",
        "pnpm": "node",
        "java": "java",
        "sh": "shell",
        "bash": "shell",
        "perl": "perl",
        "ruby": "ruby",
    }.get(name, "")
