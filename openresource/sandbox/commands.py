"""What is executed for each kind of program, and whether it is there at all."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from openresource.market.command_lines import parse_word
from openresource.market.generic_methods import is_generic
from openresource.market.manifests import Manifest, Method, Run, is_enveloped
from openresource.sandbox.driver import Limits, ProgramDidNotStart, Release
from openresource.sandbox.layout import (
    EGRESS_PORT,
    HTTP_PORT,
    SYSTEM_PATH,
    WASM_COMPILED,
    WASM_ENGINE,
    WASM_ENGINE_BYTES,
    WASM_GUEST,
    Layout,
)

# Isolated from the environment and the current folder, without site packages, writing no bytecode.
PYTHON_OPTIONS: Final = ("-I", "-S", "-B")
# More than a module gets done in a second: the clock ends a call first, unless time is cheaper than usual.
FUEL_PER_SECOND: Final = 2_000_000_000
PYTHON_NAMES: Final = ("python", "python3")


@dataclass(frozen=True, slots=True)
class Command:
    """Words to execute and what they add to the environment."""

    words: tuple[str, ...]
    environment: dict[str, str] = field(default_factory=dict)


def command_of(release: Release, layout: Layout, limits: Limits) -> Command:
    """The command of a release, as seen by the program; a relay to the network's door comes first where there is one."""
    command = _command_of(release, layout, limits)
    if not layout.egress:
        return command
    relay = (
        layout.python,
        *PYTHON_OPTIONS,
        f"{layout.guest}/egress_guest.py",
        str(EGRESS_PORT),
        layout.egress,
    )
    return Command((*relay, *command.words), command.environment)


def _command_of(release: Release, layout: Layout, limits: Limits) -> Command:
    run = release.manifest.run
    match wire_of(run):
        case "jsonl":
            return Command(run.command)
        case "http" | "grpc":
            port = port_of(run)
            options = json.dumps({"command": _with_port(run.command, port), "port": port})
            guest = f"{layout.guest}/http_guest.py"
            return Command(
                (layout.python, *PYTHON_OPTIONS, guest, options),
                {"PORT": str(port), "HOST": "127.0.0.1"},
            )
        case "cli":
            options = json.dumps(cli_options(release.manifest, layout.app, limits))
            return Command((layout.python, *PYTHON_OPTIONS, f"{layout.guest}/cli_guest.py", options))
        case "wasm":
            options = json.dumps(wasm_options(release, layout, limits))
            guest = f"{layout.place(WASM_GUEST)}/wasm_guest.py"
            return Command((layout.python, *PYTHON_OPTIONS, guest, options))
        case _:
            options = json.dumps(
                {
                    "entry": run.entry,
                    "app": layout.app,
                    "packages": layout.packages,
                    "modules": f"{layout.guest}/modules",
                    "concurrency": limits.concurrency,
                    "paths": run.environment.get("PYTHONPATH", ""),
                    "batch": [run.batch.size, run.batch.wait_ms] if run.batch is not None else None,
                }
            )
            return Command((layout.python, *PYTHON_OPTIONS, f"{layout.guest}/python_guest.py", options))


def wire_of(run: Run) -> str:
    """How our side speaks with the processes of a program: modules of WebAssembly are run by a guest of their own."""
    return run.kind if run.kind == "wasm" else run.tongue


def _with_port(words: Sequence[str], port: int) -> list[str]:
    """A command that is told its port by its words, as no shell is there to fill in variables."""
    return [word.replace("${PORT}", str(port)).replace("$PORT", str(port)) for word in words]


def port_of(run: Run) -> int:
    """The port on which a server is expected, inside its own network."""
    return run.port or HTTP_PORT


def cli_options(manifest: Manifest, app: str, limits: Limits) -> dict[str, Any]:
    """What the guest of a command-line program knows of its methods."""
    return {
        "command": manifest.run.command,
        "app": app,
        "output_bytes": limits.output_bytes,
        "methods": {method.name: _cli_method(method) for method in manifest.methods},
    }


def wasm_options(release: Release, layout: Layout, limits: Limits) -> dict[str, Any]:
    """What the worker of a module knows; without a compiled module it compiles."""
    manifest = release.manifest
    is_compiled = any(mount.target == WASM_COMPILED for mount in release.mounts)
    options = cli_options(manifest, layout.app, limits)
    for method in manifest.methods:
        described = options["methods"][method.name]
        described["name"] = method.name
        described["names"] = (
            list((method.input or {}).get("properties", {})) if not isinstance(method.input, str) else []
        )
        if manifest.run.tongue == "jsonl":
            described["generic"], described["result"] = False, "json"
    return {
        **options,
        "command": [os.path.basename(manifest.run.module)],
        "guest": layout.guest,
        "engine": layout.place(WASM_ENGINE),
        "source": f"{layout.app}/{manifest.run.module}",
        "compiled": layout.place(WASM_COMPILED) if is_compiled else "",
        "tongue": manifest.run.tongue,
        "enveloped": is_enveloped(manifest),
        "exact": manifest.exactness == "bit_exact",
        "fuel": int(limits.call_seconds * FUEL_PER_SECOND),
        "memory_bytes": limits.memory_bytes - WASM_ENGINE_BYTES,
        "call_seconds": limits.call_seconds,
        "environment": dict(manifest.run.environment),
    }


def _cli_method(method: Method) -> dict[str, Any]:
    described = method.input if isinstance(method.input, Mapping) else {}
    properties = described.get("properties", {})
    return {
        "generic": is_generic(method),
        "args": [[_part_json(part) for part in parse_word(word)] for word in method.args],
        "stdin": method.stdin,
        "result": method.result,
        "stream": method.stream,
        "binary": [name for name, part in properties.items() if _is_binary(part)],
        "defaults": {name: part["default"] for name, part in properties.items() if "default" in part},
        "output_is_binary": _is_binary(method.output),
    }


def _part_json(part: Any) -> dict[str, str]:
    return {"text": part.text, "member": part.member, "file": part.file}


def _is_binary(schema: object) -> bool:
    return isinstance(schema, Mapping) and schema.get("contentEncoding") == "base64"


def find_command(release: Release, tools: Sequence[Path]) -> None:
    """Refuse a command that is neither in the release nor among what programs find here."""
    run = release.manifest.run
    if run.kind == "python" or not run.command:
        return
    name = run.command[0]
    if "/" in name:
        inside = Path(os.path.normpath(release.folder / name))
        in_release = inside.is_relative_to(release.folder) and inside.is_file()
        if in_release or (os.path.isabs(name) and name.startswith("/usr/") and os.path.isfile(name)):
            return
    elif (
        name in PYTHON_NAMES
        or any(tool.name == name for tool in tools)
        or any(os.access(folder / name, os.X_OK) for folder in _shown_folders(release))
        or any(os.access(os.path.join(folder, name), os.X_OK) for folder in SYSTEM_PATH)
    ):
        return
    raise ProgramDidNotStart(
        reason=f"there is no {name} here",
        stderr="",
        remedy="Publish it with the program, or choose a provider that has it.",
    )


def _shown_folders(release: Release) -> list[Path]:
    """The folders of executables that come with a release, as they lie on this machine."""
    found = [release.runtime.folder / "bin"] if release.runtime is not None else []
    for folder in release.path:
        # What a build has put beside the program's own files, and the scripts of its packages.
        if folder.startswith("/app/"):
            found.append(release.folder / folder.removeprefix("/app/"))
        if folder.startswith("/runtime/") and release.runtime is not None:
            found.append(release.runtime.folder / folder.removeprefix("/runtime/"))
        for mount in release.mounts:
            if folder == mount.target or folder.startswith(mount.target + "/"):
                found.append(Path(f"{mount.source}{folder[len(mount.target) :]}"))
    return found
