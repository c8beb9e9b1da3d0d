"""What a program's own last words ask for, where they are of a kind that every second project knows."""

from __future__ import annotations

import re
from typing import Final

WORDS_CHARACTERS_MAX: Final = 20_000
_NATIVE: Final = re.compile(
    r"/node_modules/((?:@[a-z0-9._~-]{1,100}/)?[a-z0-9._~-]{1,100})/[^\s']{0,200}\.node\b"
)
_NO_BINDING: Final = ("Could not locate the bindings file", "Cannot find module", "No native build was found")
_NO_PYTHON_MODULE: Final = re.compile(r"No module named '?([A-Za-z_][\w.]{0,100})")
_NO_NODE_MODULE: Final = re.compile(
    r"Cannot find (?:module|package) '((?:@[a-z0-9._~-]{1,100}/)?[a-z0-9_~-][a-z0-9._~-]{0,100})"
)
_NO_NETWORK: Final = re.compile(
    r"Name or service not known|Temporary failure in name resolution|no such host|getaddrinfo (?:ENOTFOUND|EAI_AGAIN)"
    r"|ECONNREFUSED|Connection refused|Network is unreachable"
)


def hint_of_words(words: str) -> str:
    """The way out that last words name; nothing where they name none."""
    words = words[-WORDS_CHARACTERS_MAX:]
    native = _NATIVE.search(words)
    if native is not None and any(said in words for said in _NO_BINDING):
        return (
            f"{native[1]} compiles a part of itself when it is installed, and scripts of packages run only where "
            f'package.json allows it: "trustedDependencies": ["{native[1]}"].'
        )
    module = _NO_PYTHON_MODULE.search(words)
    if module is not None:
        package = module[1].partition(".")[0]
        return (
            f"It imports {package}, which is not installed: name its package in requirements.txt, or, if {package} is "
            'part of the project, the step that makes it: command = "…" in [build] of openresource.toml.'
        )
    module = _NO_NODE_MODULE.search(words)
    if module is not None:
        return (
            f"It needs {module[1]}, which is not installed: name it among the dependencies in package.json."
        )
    if _NO_NETWORK.search(words):
        return (
            "It seems to reach for another machine or a database when it starts; programs have no network. What "
            "`network` in [resources] names is reached if the provider allows it; let it start without the rest."
        )
    return ""
