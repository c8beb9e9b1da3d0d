"""What a language needs to become a program that runs: one small class for each, and the words they are written in.

A recipe looks at a folder and plans: a dependency layer (from lock files alone, so that every program with the same
lock shares it), then steps beside the program's own files. It carries nothing out and sees no network; `building.py`
does that. `languages.py` lists the recipes, those of other packages included.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Protocol

from openresource.builds.toolchains import Toolchain
from openresource.market.manifests import Manifest
from openresource.primitives.errors import Refusal

# Places in the sandbox of a build; the sandbox puts its own in where it has them elsewhere.
BUILD: Final = "/build"
WORK: Final = f"{BUILD}/work"
OUT: Final = f"{BUILD}/out"
HOME: Final = f"{BUILD}/home"
DEPENDENCIES: Final = "/dependencies"
BASE: Final = "/base"
SOURCE_BYTES_MAX: Final = 4 << 20
SOURCE_ENTRIES_MAX: Final = 20_000


class CannotBuild(Refusal):
    template = "This folder cannot be built as {language}: {reason}."
    way_out = "Say in [build] how it is made, or publish it built."


@dataclass(frozen=True, slots=True)
class Step:
    """One command of a build; its folder is below the work folder."""

    words: tuple[str, ...]
    folder: str = WORK
    environment: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class Layer:
    """Dependencies: made from these files and nothing else, with a network that ends at the registries."""

    files: Mapping[str, bytes]
    steps: tuple[Step, ...]
    # Whatever else the result depends on besides files, steps and toolchains.
    remarks: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Plan:
    """How a folder becomes a program."""

    language: str
    version: int
    toolchains: tuple[Toolchain, ...] = ()
    # Registries by language that the steps may reach.
    registries: tuple[str, ...] = ()
    dependencies: Layer | None = None
    # What every program of the language shares, such as a compiled standard library: nobody's files go into it.
    base: Layer | None = None
    steps: tuple[Step, ...] = ()
    steps_have_network: bool = False
    # Folders of the dependency layer that the program gets at these places of its own folder.
    carried: tuple[tuple[str, str], ...] = ()
    # What is removed from the program's folder when the steps are done.
    dropped: tuple[str, ...] = ()
    # The layer is a Python runtime with this interpreter.
    python: Toolchain | None = None
    # Toolchains that the program needs while it runs.
    runs_with: tuple[Toolchain, ...] = ()
    environment: tuple[tuple[str, str], ...] = ()
    path: tuple[str, ...] = ()
    remarks: tuple[str, ...] = ()

    @property
    def is_empty(self) -> bool:
        """Whether the folder runs as it is."""
        return self.dependencies is None and not self.steps and not self.runs_with


@dataclass(slots=True)
class Source:
    """A program's folder as recipes see it: read-only, bounded, links never followed."""

    folder: Path
    manifest: Manifest
    names: tuple[str, ...] = field(default=())

    def __post_init__(self) -> None:
        if not self.names:
            self.names = tuple(sorted(_names(self.folder)))

    def has(self, name: str) -> bool:
        """Whether there is such a file."""
        return name in self.names

    def read(self, name: str) -> bytes:
        """A file's bytes; one that is missing is empty, one that is too large is refused."""
        if name not in self.names:
            return b""
        with open(self.folder / name, "rb") as file:
            data = file.read(SOURCE_BYTES_MAX + 1)
        if len(data) > SOURCE_BYTES_MAX:
            raise CannotBuild(language="a program", reason=f"{name} is larger than {SOURCE_BYTES_MAX} bytes")
        return data

    def text(self, name: str) -> str:
        """A file as text."""
        return self.read(name).decode("utf-8", "replace")

    def ending(self, *endings: str) -> list[str]:
        """Files whose names end so."""
        return [name for name in self.names if name.endswith(endings)]

    @property
    def target(self) -> str:
        """The file of the release that the command starts and that is not there yet; empty if there is none such."""
        command = self.manifest.run.command
        if not command or "/" not in command[0] or command[0].startswith("/"):
            return ""
        name = os.path.normpath(command[0])
        return "" if name.startswith("..") or self.has(name) else name


class Recipe(Protocol):
    """Plans the build of one language."""

    def suits(self, source: Source) -> bool:
        """Whether a folder whose manifest names no language is one of this."""
        ...

    def plan(self, source: Source) -> Plan:
        """How it is built; a missing toolchain is a refusal."""
        ...


def command_steps(source: Source) -> tuple[Step, ...]:
    """The manifest's own build command, in a shell of the sandbox."""
    command = source.manifest.build.command
    return (Step(("/bin/sh", "-ec", command)),) if command else ()


def _names(folder: Path) -> list[str]:
    found: list[str] = []
    for parent, folders, files in os.walk(folder):
        folders[:] = [
            name for name in folders if name not in (".git", "node_modules", "__pycache__", ".venv")
        ]
        for name in files:
            path = os.path.join(parent, name)
            if not os.path.islink(path) and os.path.isfile(path):
                found.append(os.path.relpath(path, folder))
        if len(found) > SOURCE_ENTRIES_MAX:
            raise CannotBuild(language="a program", reason=f"it has more than {SOURCE_ENTRIES_MAX} files")
    return found
