"""go.mod: a package called main, at the top or below cmd/, that serves or runs once."""

from __future__ import annotations

import re
from typing import Final

from openresource.builds.detectors.python_apps import is_port
from openresource.builds.facts import label_of
from openresource.builds.files import Files, inner_project
from openresource.builds.findings import Finding

SERVER_WORDS: Final = (
    "ListenAndServe", "http.Serve(", "gin.Default", "gin.New", "echo.New", "fiber.New", "chi.NewRouter", ".Run(\":",
)  # fmt: skip
SOURCES_MAX: Final = 200
ASIDE_FOLDERS: Final = ("vendor", "testdata", "examples", "example", "_examples", "tools", "third_party")
_COMMENT = re.compile(r"^[ \t]*//[^\n]*$|/\*[\s\S]*?\*/", re.MULTILINE)
_MAIN = re.compile(r"^package main\b", re.MULTILINE)
_MAIN_FUNCTION = re.compile(r"^func main\(\)", re.MULTILINE)
_PORT = re.compile(r"""["'`](?:localhost|127\.0\.0\.1|0\.0\.0\.0)?:([1-9][0-9]{3,4})["'`]""")
_IGNORED = re.compile(r"^//(?:go:build|\s*\+build) .*ignore", re.MULTILINE)
_FLAG = re.compile(r"""flag\.(?:String|StringVar)\((?:&\w+,\s*)?"(addr|listen|bind|address)"\s*,""")
_PORT_FLAG = re.compile(r"""flag\.(?:Int|String|IntVar|StringVar)\((?:&\w+,\s*)?"(port)"\s*,""")


def detect_go(files: Files) -> Finding | None:
    """The main package of a module, or of a folder with Go files and no module."""
    sources = [name for name in files.ending(".go", depth_max=5) if not name.endswith("_test.go")]
    mains: dict[str, list[str]] = {}
    others: list[str] = []
    for name in sources[:SOURCES_MAX]:
        folder = name.rpartition("/")[0]
        text = files.text(name)
        is_other = bool(inner_project(files, name, "go.mod"))
        if folder.split("/")[0] in ASIDE_FOLDERS or is_other or _IGNORED.search(text):
            continue
        # An example in a comment serves nobody.
        text = _COMMENT.sub("", text)
        if _MAIN.search(text):
            mains.setdefault(folder, []).append(text)
        else:
            others.append(text)
    mains = {
        folder: texts for folder, texts in mains.items() if any(_MAIN_FUNCTION.search(text) for text in texts)
    }
    if not mains:
        return None
    ranked = sorted(mains, key=lambda folder: _rank(folder, files.name))
    chosen = ranked[0]
    name = label_of(chosen or files.name) or "program"
    text = "\n".join(mains[chosen])
    everything = "\n".join([text, *others])
    is_server = any(word in everything for word in SERVER_WORDS)
    place = f"./{chosen}" if chosen else "."
    made = {} if "go.mod" in files else {"go.mod": f"module {name}\n\ngo 1.20\n".encode()}
    remarks = (f"Other commands were passed over: {', '.join(ranked[1:6])}.",) if len(ranked) > 1 else ()
    where = f"The Go package {place}" if chosen else "The Go package at the top"
    command: tuple[str, ...] = (f"./bin/{name}",)
    port = 0
    if is_server:
        command, port = _served(command, everything)
        said = f"the port {port}" if port else "the port that it is told"
        because = f"{where} serves HTTP on {said}."
    else:
        because = f"{where} is a command line."
    return Finding(
        "go",
        "http" if is_server else "cli",
        because,
        command=command,
        port=port,
        build_command=f"go build -trimpath -o bin/{name} {place}",
        output=(f"bin/{name}",),
        remarks=remarks,
        files=made,
    )


def _served(command: tuple[str, ...], text: str) -> tuple[tuple[str, ...], int]:
    """The command and the port of a server: told by a variable, by a flag, or its own."""
    if '"PORT"' in text:
        return command, 0
    flag = _FLAG.search(text)
    if flag is not None:
        return (*command, f"-{flag[1]}", "127.0.0.1:$PORT"), 0
    flag = _PORT_FLAG.search(text)
    if flag is not None:
        return (*command, f"-{flag[1]}", "$PORT"), 0
    match = _PORT.search(text)
    number = int(match[1]) if match is not None else 0
    if is_port(number):
        return command, number
    return command, 0 if "gin." in text else 8080


def _rank(folder: str, name: str) -> tuple[int, int, str]:
    last = folder.rpartition("/")[2]
    return (
        0 if last == name or not folder else 1 if last in ("server", "main", "app", "api") else 2,
        folder.count("/"),
        folder,
    )
