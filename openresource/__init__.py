"""The open backend for AI: publish a program, any machine runs it and is paid, anyone calls it.

From Python, begin with `openresource.Client` (or `AsyncClient`); what it refuses is a `Refusal`. The packages below are for those who build on it.
"""

from __future__ import annotations

import os
import sys
from importlib.machinery import SOURCE_SUFFIXES, FileFinder, ModuleSpec, SourceFileLoader
from typing import TYPE_CHECKING, Any, ClassVar

if TYPE_CHECKING:
    from openresource.client import AsyncClient, Client
    from openresource.primitives.errors import Refusal

__all__ = ["AsyncClient", "Client", "Refusal", "__version__"]
__version__ = "0.1.0"

_FOLDER = os.path.dirname(os.path.abspath(__file__))
_COMPILED_PACKAGES = ("openresource.primitives.", "openresource.ledger.")


class _SourcesOnly:
    """Finds the kernel's sources and overlooks compiled modules beside them."""

    finders: ClassVar[dict[str, FileFinder]] = {}

    @classmethod
    def find_spec(cls, name: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
        if path is None or not name.startswith(_COMPILED_PACKAGES):
            return None
        for folder in path:
            finder = cls.finders.get(folder)
            if finder is None:
                finder = FileFinder(folder, (SourceFileLoader, SOURCE_SUFFIXES))
                cls.finders[folder] = finder
            spec = finder.find_spec(name)
            if spec is not None:
                return spec
        return None


def _is_compiled_current() -> bool:
    """Whether the compiled kernel was made of the sources as they are now; `scripts/compile` notes them."""
    try:
        with open(os.path.join(_FOLDER, "compiled.stamp"), encoding="utf-8") as stamp:
            for line in stamp:
                modified_ns, size, name = line.rstrip("\n").split(" ", 2)
                facts = os.stat(os.path.join(_FOLDER, name))
                if (facts.st_mtime_ns, facts.st_size) != (int(modified_ns), int(size)):
                    return False
    except (OSError, ValueError):
        return False
    return True


if os.environ.get("OPENRESOURCE_PLAIN") == "1" or not _is_compiled_current():
    sys.meta_path.insert(0, _SourcesOnly)


def __getattr__(name: str) -> Any:
    if name in ("AsyncClient", "Client"):
        from openresource import client

        return getattr(client, name)
    if name == "Refusal":
        from openresource.primitives.errors import Refusal

        return Refusal
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
