"""The prepared runtimes of this machine: environments that programs name by the digest of their lock file."""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from openresource.builds.prepared import base_names, base_runtime, base_toolchain
from openresource.builds.toolchains import ToolchainMissing, python
from openresource.market.manifests import Manifest, python_fits
from openresource.primitives.errors import Refusal
from openresource.sandbox.driver import Runtime, above_ceiling

RUNTIME_FILE = "runtime.json"
RUNTIME_FILE_BYTES_MAX = 64 * 1024
RUNTIMES_MAX = 500

_LOCK = re.compile("sha256:[0-9a-f]{64}")
_NAME = re.compile("[a-z0-9][a-z0-9._-]{0,62}")


class RequirementsNotMet(Refusal):
    template = "This provider cannot run the program: {reason}"
    way_out = "Publish a version that needs less, or wait for a provider that offers it."


def cache_folder(environment: Mapping[str, str] = os.environ) -> Path:
    """Where what can be made again is kept."""
    if environment.get("OPENRESOURCE_CACHE"):
        return Path(environment["OPENRESOURCE_CACHE"])
    base = environment.get("XDG_CACHE_HOME") or str(
        Path(environment.get("HOME", "~")).expanduser() / ".cache"
    )
    return Path(base) / "openresource"


def list_runtimes(cache: Path) -> dict[str, Runtime]:
    """The runtimes below a cache folder, by lock digest; what is not whole is left out."""
    folder = cache / "runtimes"
    found: dict[str, Runtime] = {}
    if not folder.is_dir():
        return found
    for entry in sorted(folder.iterdir())[:RUNTIMES_MAX]:
        runtime = _read_runtime(entry)
        if runtime is not None:
            found.setdefault(runtime.lock, runtime)
    return found


def choose_runtime(
    manifest: Manifest, runtimes: Mapping[str, Runtime], cache: Path | None = None
) -> Runtime | None:
    """The runtime that a program names, by its lock or by its name alone; one that is not here is refused.

    What a build brings is not looked at: packages, commands, files by their identifiers. Nor is what drivers give.
    """
    build = manifest.build
    too_much = above_ceiling(manifest)
    if too_much:
        raise RequirementsNotMet(reason="it asks for " + ", ".join(too_much) + ".")
    if not build.lock and not build.runtime:
        return _other_python(build.python, cache or cache_folder())
    found = runtimes.get(build.lock)
    if found is None and not build.lock:
        # Of several with one name the last one prepared.
        named = [runtime for runtime in runtimes.values() if runtime.name == build.runtime]
        found = max(named, key=lambda runtime: runtime.folder.stat().st_mtime, default=None)
        if found is None and base_toolchain(build.runtime) is not None:
            # Node's and Java's own need no folder of packages; the build shows them.
            return base_runtime(build.runtime, cache or cache_folder())
    if found is None:
        offered = ", ".join(runtime_names(runtimes))
        lock = f" ({build.lock})" if build.lock else ""
        raise RequirementsNotMet(
            reason=f"the runtime {build.runtime or 'with lock'}{lock} is not prepared here; there are {offered}."
        )
    return found


def _other_python(wish: str, cache: Path) -> Runtime | None:
    """Another Python of this machine, if the wish is for one."""
    if not wish or python_fits(wish, sys.version_info.minor):
        return None
    try:
        version = python(wish).version
    except ToolchainMissing as refusal:
        raise RequirementsNotMet(reason=f"{refusal.message} {refusal.remedy}") from refusal
    return base_runtime("python-" + ".".join(version.split(".")[:2]), cache)


def runtime_names(runtimes: Mapping[str, Runtime]) -> tuple[str, ...]:
    """What programs may name here: prepared runtimes, and the interpreters of this machine."""
    return tuple(sorted({runtime.name for runtime in runtimes.values()} | set(base_names())))


def _read_runtime(folder: Path) -> Runtime | None:
    file = folder / RUNTIME_FILE
    try:
        if file.stat().st_size > RUNTIME_FILE_BYTES_MAX:
            return None
        described: Any = json.loads(file.read_bytes())
    except (OSError, ValueError):
        return None
    if not isinstance(described, dict):
        return None
    name, lock, python = (described.get(member) for member in ("name", "lock", "python"))
    if not isinstance(name, str) or _NAME.fullmatch(name) is None:
        return None
    if not isinstance(lock, str) or _LOCK.fullmatch(lock) is None or not isinstance(python, str):
        return None
    interpreter = folder / python
    return Runtime(name, lock, folder, interpreter) if os.access(interpreter, os.X_OK) else None
