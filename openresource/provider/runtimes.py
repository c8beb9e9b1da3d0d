"""The prepared runtimes of this machine: environments that programs name by the digest of their lock file."""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from openresource.market.manifests import Manifest, missing_requirements
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


def choose_runtime(manifest: Manifest, runtimes: Mapping[str, Runtime]) -> Runtime | None:
    """The runtime that a program names; whatever else it needs and is not here is refused by name."""
    missing = missing_requirements(
        manifest,
        {lock: runtime.name for lock, runtime in runtimes.items()},
        python_minor=sys.version_info.minor,
    )
    if missing:
        raise RequirementsNotMet(
            reason=" ".join(f"{refusal.message} {refusal.remedy}" for refusal in missing[:3])
        )
    too_much = above_ceiling(manifest)
    if too_much:
        raise RequirementsNotMet(reason="it asks for " + ", ".join(too_much) + ".")
    return runtimes.get(manifest.build.lock) if manifest.build.lock else None


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
