"""Runtimes that need no preparation, named after an interpreter of this machine: `python-3.12`, `node-20`, `java-17`."""

from __future__ import annotations

import functools
import hashlib
import re
from pathlib import Path
from typing import Final

from openresource.builds.toolchains import (
    PYTHON_MINORS,
    Toolchain,
    ToolchainMissing,
    find_toolchain,
    python,
)  # fmt: skip
from openresource.sandbox.driver import Runtime

PYTHON: Final = "python"
WITH_MAJOR: Final = ("node", "java")
_NAME = re.compile(r"(python-3\.[0-9]{1,2}|node-[0-9]{1,3}|java-[0-9]{1,3})")


@functools.cache
def base_names() -> tuple[str, ...]:
    """The runtimes that this machine's interpreters give."""
    names = []
    for minor in PYTHON_MINORS:
        try:
            names.append(f"{PYTHON}-{'.'.join(python(f'==3.{minor}').version.split('.')[:2])}")
        except ToolchainMissing:
            continue
    for name in WITH_MAJOR:
        try:
            names.append(f"{name}-{find_toolchain(name).version.split('.')[0]}")
        except ToolchainMissing:
            continue
    return tuple(names)


def base_toolchain(name: str) -> Toolchain | None:
    """The interpreter that a runtime's name means; None if it means none of this machine."""
    if _NAME.fullmatch(name) is None:
        return None
    language, _, version = name.partition("-")
    try:
        if language == PYTHON:
            return python(f"=={version}")
        found = find_toolchain(language)
    except ToolchainMissing:
        return None
    return found if found.version.split(".")[0] == version else None


def base_runtime(name: str, cache: Path) -> Runtime | None:
    """A Python of this machine with nothing but its standard library, as a runtime."""
    found = base_toolchain(name)
    if found is None or found.name != PYTHON:
        return None
    folder = cache / "bases" / name
    minor = found.version.split(".")[1]
    (folder / f"lib/python3.{minor}/site-packages").mkdir(parents=True, exist_ok=True)
    for part in (cache / "bases", folder):
        part.chmod(0o755)
    digest = hashlib.sha256(f"{name} {found.version}".encode()).hexdigest()
    return Runtime(name, f"sha256:{digest}", folder, found.executable)
