"""Where things lie for a program: the same few places at every level, and an environment made from nothing."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from openresource.primitives.errors import Refusal
from openresource.sandbox.driver import Limits, Release, Runtime

GUEST_FOLDER: Final = Path(__file__).parent / "guest"
SYSTEM_PATH: Final = ("/usr/local/bin", "/usr/bin", "/bin")
HTTP_PORT: Final = 8080
# Where the driver of modules shows what its worker needs.
WASM_ENGINE: Final = "/wasm/engine"
WASM_GUEST: Final = "/wasm/guest"
WASM_COMPILED: Final = "/wasm/module.cwasm"
# Python and the engine, beside a module's own memory.
WASM_ENGINE_BYTES: Final = 192 << 20
BROKER_NAME: Final = "broker.sock"
THREAD_NAMES: Final = (
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "NUMEXPR_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
    "RAYON_NUM_THREADS",
)
EGRESS_PORT: Final = 3128
_PROXY: Final = f"http://127.0.0.1:{EGRESS_PORT}"
PROXY_ENVIRONMENT: Final = {
    **dict.fromkeys(("HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy"), _PROXY),
    **dict.fromkeys(("NO_PROXY", "no_proxy"), "127.0.0.1,localhost,::1"),
    # Node asks for this word before it looks at the others.
    "NODE_USE_ENV_PROXY": "1",
}
_VERSION = re.compile(r"python3\.([0-9]{1,2})")


class NoInterpreter(Refusal):
    template = "No usable Python was found at {path}."
    way_out = "Prepare the runtime again with Python 3.11, 3.12 or 3.13."


@dataclass(frozen=True, slots=True)
class Interpreter:
    """A Python of this machine: the folder it lives in and the executable below it."""

    prefix: Path
    executable: Path
    minor: int

    @property
    def is_system(self) -> bool:
        """Whether it lies below /usr, which programs see anyway."""
        return self.prefix.is_relative_to("/usr")


@dataclass(frozen=True, slots=True)
class Layout:
    """The places as the program sees them."""

    app: str
    guest: str
    python: str
    home: str
    packages: str = ""
    library_path: str = ""
    tools: tuple[str, ...] = ()
    broker: str = ""
    egress: str = ""
    # Where a driver shows mounts, if it is not where they were wished.
    moved: tuple[tuple[str, str], ...] = ()

    def place(self, text: str) -> str:
        """A path as the program sees it; what lies below no mount stays as it is."""
        for wished, shown in self.moved:
            if text == wished or text.startswith(wished + "/"):
                return shown + text[len(wished) :]
        return text


def interpreter_of(runtime: Runtime | None) -> Interpreter:
    """The interpreter below a runtime, or this process's own."""
    if runtime is None:
        # Not `sys.executable`: in a virtual environment that is a link into a folder that is not shown to programs.
        return _interpreter(
            Path(os.path.realpath(sys.executable)), Path(sys.base_prefix), sys.version_info.minor
        )
    executable = Path(os.path.realpath(runtime.python))
    match = _VERSION.search(executable.name) or _VERSION.search(_packages_folder(runtime).parent.name)
    if not executable.is_file() or match is None:
        raise NoInterpreter(path=str(runtime.python))
    return _interpreter(executable, executable.parent.parent, int(match[1]))


def packages_of(runtime: Runtime) -> Path:
    """The folder of a runtime's packages, below the runtime's folder."""
    return _packages_folder(runtime).relative_to(runtime.folder)


def environment(layout: Layout, release: Release, limits: Limits, extra: Mapping[str, str]) -> dict[str, str]:
    """Everything that a program finds in its environment."""
    threads = str(max(1, int(limits.cpu)))
    values = {
        "PATH": ":".join((*layout.tools, *[layout.place(folder) for folder in release.path], *SYSTEM_PATH)),
        "HOME": layout.home,
        "TMPDIR": layout.home,
        "LANG": "C.UTF-8",
        "TZ": "UTC",
        "PYTHONUNBUFFERED": "1",
        "PYTHONDONTWRITEBYTECODE": "1",
        "MALLOC_ARENA_MAX": "2",
        "TOKENIZERS_PARALLELISM": "false",
        "OPENRESOURCE_SERVICE": release.manifest.name,
        "OPENRESOURCE_BROKER": layout.broker,
    }
    # Spinning worker threads of several services on few cores cost more than they bring.
    values.update((name, threads) for name in THREAD_NAMES)
    if layout.library_path:
        values["LD_LIBRARY_PATH"] = layout.library_path
    if layout.egress:
        values.update(PROXY_ENVIRONMENT)
    values.update((name, _placed(layout, name, value)) for name, value in release.environment)
    if release.manifest.run.kind != "wasm":
        # A module gets its variables from its worker; among the worker's own some would have libraries load the
        # publisher's machine code, outside of the engine and into what is kept of modules for everybody.
        values.update(release.manifest.run.environment)
    values["PYTHONPATH"] = ":".join(_python_path(layout, values.get("PYTHONPATH", "")))
    return {**values, **extra}


def _python_path(layout: Layout, wished: str) -> list[str]:
    """Where Python looks: the program's own folders first, then its packages, then what we bring."""
    own = [part if part.startswith("/") else f"{layout.app}/{part}" for part in wished.split(":") if part]
    return [*own, *([layout.packages] if layout.packages else []), f"{layout.guest}/modules"]


def _placed(layout: Layout, name: str, value: str) -> str:
    """A variable as the program sees it: a path, or a list of paths where the name says so."""
    if name.endswith("PATH"):
        return ":".join(layout.place(part) for part in value.split(":"))
    return layout.place(value)


def own_library_folder(interpreter: Interpreter) -> Path | None:
    """The folder of libpython where the interpreter is linked to it by an absolute path that programs do not see."""
    folder = interpreter.prefix / "lib"
    if not interpreter.is_system and any(folder.glob("libpython3*.so*")):
        return folder
    return None


def _interpreter(executable: Path, prefix: Path, minor: int) -> Interpreter:
    prefix = Path(os.path.realpath(prefix))
    if not executable.is_relative_to(prefix):
        raise NoInterpreter(path=str(executable))
    return Interpreter(prefix, executable, minor)


def _packages_folder(runtime: Runtime) -> Path:
    for folder in sorted(runtime.folder.glob("lib/python3.*/site-packages")):
        return folder
    raise NoInterpreter(path=str(runtime.folder))
