"""Command lines as other tools write them, turned into a list of words that starts in a sandbox.

A word `$PORT` is replaced by the port when the program starts; servers that name a fixed port are told that one.
"""

from __future__ import annotations

import re
import shlex
from typing import Final

WORDS_MAX: Final = 64
LINE_CHARACTERS_MAX: Final = 4_000
# Commands of Python packages: the script that pip makes begins with a path of the machine that made it.
PYTHON_MODULES: Final = {
    "uvicorn": "uvicorn", "gunicorn": "gunicorn", "hypercorn": "hypercorn", "daphne": "daphne", "waitress-serve":
    "waitress", "flask": "flask", "streamlit": "streamlit", "celery": "celery", "fastapi": "fastapi", "litestar":
    "litestar", "chainlit": "chainlit", "panel": "panel", "bokeh": "bokeh", "granian": "granian", "django-admin": "django",
}  # fmt: skip
_SHELL = re.compile(r"[|;<>`\n]|&&|\$\(|\$[A-Za-z_{]")
_PORT_WORD = re.compile(r"\$\{PORT(?::?[-=]?[^{}]*)?\}|\$PORT\b")
_PORT_OPTION = re.compile(r"(--?(?:port|p|server\.port|listen-port|http-port)=?)([0-9]{2,5})?")
_BIND = re.compile(r"(.*?(?:0\.0\.0\.0|127\.0\.0\.1|localhost|\[::\])?:)([0-9]{2,5})")
_BIND_OPTIONS: Final = ("-b", "--bind", "--listen", "--addr", "--address", "-addr", "-listen")
_ANY_ADDRESS: Final = ("0.0.0.0", "::", "[::]")


def words_of(line: str) -> tuple[str, ...]:
    """The words of a command line; one that needs a shell gets one, nothing for what cannot be read."""
    line = " ".join(line.replace("\\\n", " ").split())[:LINE_CHARACTERS_MAX]
    plain = _PORT_WORD.sub("$PORT", line)
    try:
        words = shlex.split(plain)
    except ValueError:
        return ()
    while words and "=" in words[0] and words[0].partition("=")[0].isidentifier():
        # A variable before the command is what a shell would set; it makes it a line for a shell.
        return ("sh", "-c", line)
    if words and words[0] == "exec":
        words.pop(0)
    if not words or len(words) > WORDS_MAX:
        return ()
    if _SHELL.search(plain.replace("$PORT", "")) or words[0] in ("cd", "source", ".", "export"):
        return ("sh", "-c", line)
    return tuple(words)


def for_sandbox(words: tuple[str, ...]) -> tuple[str, ...]:
    """The same command where scripts of packages are modules, and ports and addresses are the sandbox's."""
    if not words or words[:2] == ("sh", "-c"):
        return words
    for runner, skipped in (("poetry", 2), ("pipenv", 2), ("uv", 2), ("pdm", 2), ("rye", 2), ("hatch", 2)):
        if words[0] == runner and len(words) > skipped and words[1] == "run":
            words = words[skipped:]
    name = words[0].rpartition("/")[2]
    if name in PYTHON_MODULES:
        words = ("python", "-m", PYTHON_MODULES[name], *words[1:])
        if name in ("fastapi", "flask") and words[3:4] == ("run",) and "--port" not in words:
            words = (*words, "--port", "$PORT")
    elif (name.startswith("python") and name.removeprefix("python").replace(".", "").isdigit()) or words[
        0
    ] in ("/usr/bin/python3", "/usr/local/bin/python"):
        words = ("python", *words[1:])
    return _with_port(words)


def port_in(words: tuple[str, ...]) -> bool:
    """Whether a command says which port to take."""
    return any("$PORT" in word for word in words)


def _with_port(words: tuple[str, ...]) -> tuple[str, ...]:
    changed: list[str] = []
    for number, word in enumerate(words):
        before = words[number - 1] if number else ""
        option = _PORT_OPTION.fullmatch(word)
        bound = _BIND.fullmatch(word.partition("=")[2] or word)
        if option is not None and option[2]:
            changed.append(option[1] + "$PORT")
        elif _PORT_OPTION.fullmatch(before) is not None and before[-1] != "=" and word.isdecimal():
            changed.append("$PORT")
        elif bound is not None and (before in _BIND_OPTIONS or word.partition("=")[0] in _BIND_OPTIONS):
            changed.append(_local(word[: len(word) - len(bound[2])]) + "$PORT")
        elif before in ("--host", "-h", "--ip", "-H") and word in _ANY_ADDRESS:
            changed.append("127.0.0.1")
        else:
            changed.append(_local(word) if "$PORT" in word else word)
    return tuple(changed)


def _local(word: str) -> str:
    return word.replace("0.0.0.0:", "127.0.0.1:").replace("[::]:", "127.0.0.1:")
