"""Finds the compilers and interpreters of this machine, and which folders a sandbox must show for them to work."""

from __future__ import annotations

import functools
import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from openresource.market.manifests import python_fits
from openresource.primitives.errors import Refusal
from openresource.sandbox.driver import Mount

ANSWER_SECONDS_MAX: Final = 30.0
TOOLCHAIN_FOLDER: Final = "/toolchain"
PYTHON_MINORS: Final = (11, 12, 13)
WASI_TARGET: Final = "--target=wasm32-wasi"
WASI_HEADER: Final = "/usr/include/wasm32-wasi/stdio.h"
CERTIFICATES: Final = "/etc/ssl/certs/ca-certificates.crt"
INSTALL: Final = {
    "python": "apt install python3 python3-pip, or any Python from 3.11 to 3.13 on PATH",
    "pip": "apt install python3-pip, or put uv on PATH",
    "node": "apt install nodejs npm",
    "npm": "apt install npm",
    "go": "apt install golang-go",
    "rust": "apt install rustc cargo, or rustup",
    "java": "apt install default-jdk-headless",
    "maven": "apt install maven",
    "c": "apt install build-essential",
    "make": "apt install make",
    "cmake": "apt install cmake",
    "perl": "apt install perl",
    "gradle": "apt install gradle",
    "wasm-c": "apt install clang lld wasi-libc libclang-rt-dev-wasm32",
}
_VERSION = re.compile(r"([0-9]+(?:\.[0-9]+){1,3})")


class ToolchainMissing(Refusal):
    template = "This machine has no {toolchain}: {reason}."
    way_out = "Install it: {install}. Then `openresource doctor` lists it."


@dataclass(frozen=True, slots=True)
class Toolchain:
    """What compiles or runs a language here: its version, what a sandbox shows of it, and where it then lies."""

    name: str
    version: str
    executable: Path
    mounts: tuple[Mount, ...] = ()
    path: tuple[str, ...] = ()
    environment: tuple[tuple[str, str], ...] = ()

    @property
    def identity(self) -> str:
        """What a cached result depends on."""
        return f"{self.name} {self.version}"

    @property
    def shown(self) -> str:
        """The executable as a build sees it."""
        for mount in self.mounts:
            if self.executable.is_relative_to(mount.source):
                inside = self.executable.relative_to(mount.source)
                return mount.target if inside == Path() else f"{mount.target}/{inside}"
        return str(self.executable)


def missing(name: str, reason: str = "it was not found on PATH") -> ToolchainMissing:
    """The refusal that says how to install a toolchain."""
    return ToolchainMissing(toolchain=name, reason=reason, install=INSTALL.get(name, f"put {name} on PATH"))


def find_toolchain(name: str) -> Toolchain:
    """A toolchain of this machine by name, or a refusal that says what to install."""
    finder = {
        "node": node, "npm": npm, "go": go, "rust": rust, "java": java, "maven": maven,
        "python": python, "uv": uv, "wasm-c": wasm_c,
    }.get(name)  # fmt: skip
    if finder is not None:
        return finder()
    return _system(name, {"c": "cc"}.get(name, name))


def installed() -> dict[str, str]:
    """The toolchains of this machine, by name with their versions; what is missing is left out."""
    found: dict[str, str] = {}
    for name in (
        "python",
        "node",
        "npm",
        "go",
        "rust",
        "java",
        "maven",
        "c",
        "wasm-c",
        "make",
        "cmake",
        "sh",
        "perl",
    ):
        try:
            found[name] = find_toolchain(name).version
        except ToolchainMissing:
            continue
    return found


@functools.cache
def python(wanted: str = "") -> Toolchain:
    """A Python that satisfies a wish such as `>=3.12`; this process's own if it does."""
    for executable in _pythons():
        told = _ask(
            str(executable),
            *(
                "-I",
                "-S",
                "-c",
                "import sys; print(sys.base_prefix); print('.'.join(map(str, sys.version_info[:3])))",
            ),
        ).splitlines()
        if len(told) != 2:
            continue
        minor = int(told[1].split(".")[1])
        if minor not in PYTHON_MINORS or (wanted and not python_fits(wanted, minor)):
            continue
        prefix = Path(os.path.realpath(told[0]))
        real = prefix / "bin" / f"python3.{minor}"
        if not real.is_file():
            continue
        real = Path(os.path.realpath(real))
        if prefix.is_relative_to("/usr"):
            return Toolchain("python", told[1], real)
        shown = f"{TOOLCHAIN_FOLDER}/python"
        has_library = any((prefix / "lib").glob("libpython3*.so*"))
        environment = (("LD_LIBRARY_PATH", f"{shown}/lib"),) if has_library else ()
        return Toolchain("python", told[1], real, (Mount(prefix, shown),), (f"{shown}/bin",), environment)
    raise missing("python", f"none from 3.11 to 3.13 fits {wanted}" if wanted else "none from 3.11 to 3.13")


def _pythons() -> list[Path]:
    found = [Path(sys.executable)]
    for minor in PYTHON_MINORS:
        path = shutil.which(f"python3.{minor}")
        found += [Path(path)] if path else []
        found += sorted(Path.home().glob(f".pyenv/versions/3.{minor}*/bin/python3.{minor}"), reverse=True)
        found += [Path(f"/usr/bin/python3.{minor}"), Path(f"/usr/local/bin/python3.{minor}")]
    return [path for path in dict.fromkeys(found) if path.exists()]


@functools.cache
def uv() -> Toolchain:
    """The quick installer of Python packages, from PATH or from this project's own cache."""
    cache = os.environ.get("OPENRESOURCE_CACHE") or Path.home() / ".cache" / "openresource"
    candidates = [shutil.which("uv"), *sorted(map(str, Path(cache).glob("tools/*/bin/uv")))]
    for path in candidates:
        if path and os.access(path, os.X_OK):
            real = Path(os.path.realpath(path))
            mounts = () if real.is_relative_to("/usr") else (Mount(real, f"{TOOLCHAIN_FOLDER}/uv/uv"),)
            version = _version(_ask(str(real), "--version"))
            return Toolchain("uv", version, real, mounts, (f"{TOOLCHAIN_FOLDER}/uv",))
    raise missing("uv")


@functools.cache
def node() -> Toolchain:
    """Node, with the folder that it lives in."""
    return _prefixed("node", "node", levels=2)


@functools.cache
def npm() -> Toolchain:
    """npm, which may live apart from its Node."""
    own = node()
    beside = own.executable.parent / "npm"
    path = str(beside) if beside.exists() else shutil.which("npm")
    if not path:
        raise missing("npm")
    version = _version(_ask(path, "--version"))
    if own.mounts and beside.exists():
        return Toolchain("npm", version, own.executable.parent / "npm", own.mounts, own.path)
    real = Path(os.path.realpath(path))
    if not real.is_relative_to("/usr"):
        raise missing("npm", f"{real} lies neither below /usr nor beside Node")
    return Toolchain("npm", version, Path(path))


@functools.cache
def go() -> Toolchain:
    """Go by its GOROOT."""
    path = shutil.which("go") or next(
        (name for name in ("/usr/local/go/bin/go",) if os.path.exists(name)), ""
    )
    if not path:
        raise missing("go")
    root = Path(os.path.realpath(_ask(path, "env", "GOROOT").strip()))
    if not (root / "bin" / "go").exists():
        raise missing("go", "`go env GOROOT` names no folder with a go")
    version = _version(_ask(path, "version").replace("go version go", ""))
    if root.is_relative_to("/usr"):
        return Toolchain("go", version, root / "bin" / "go", (), (f"{root}/bin",))
    target = f"{TOOLCHAIN_FOLDER}/go"
    mounts = (Mount(root, target),)
    return Toolchain("go", version, root / "bin" / "go", mounts, (f"{target}/bin",), (("GOROOT", target),))


@functools.cache
def rust() -> Toolchain:
    """rustc and cargo of one toolchain, whether rustup or a distribution has put them there."""
    path = shutil.which("rustc") or str(Path.home() / ".cargo" / "bin" / "rustc")
    root = Path(os.path.realpath(_ask(path, "--print", "sysroot").strip() or "/nonexistent"))
    version = _version(_ask(path, "--version"))
    if not root.is_dir() or not version:
        raise missing("rust", "rustc was not found or names no toolchain")
    cargo = root / "bin" / "cargo"
    if not cargo.exists():
        cargo = Path(shutil.which("cargo") or "/nonexistent")
    if not cargo.exists():
        raise missing("rust", "there is rustc, but no cargo")
    if root.is_relative_to("/usr"):
        return Toolchain("rust", version, cargo)
    target = f"{TOOLCHAIN_FOLDER}/rust"
    return Toolchain("rust", version, cargo, (Mount(root, target),), (f"{target}/bin",))


@functools.cache
def java() -> Toolchain:
    """A JDK, with the settings that a distribution keeps elsewhere."""
    path = shutil.which("javac")
    if path is None:
        raise missing("java", "there is no javac")
    real = Path(os.path.realpath(path))
    home = real.parent.parent
    version = _version(_ask(str(real), "-version"))
    mounts = [Mount(folder, str(folder)) for folder in _linked_settings(home)]
    trusted = Path("/etc/ssl/certs/java")
    if trusted.is_dir():
        mounts.append(Mount(trusted, str(trusted)))
    if home.is_relative_to("/usr"):
        return Toolchain("java", version, real, tuple(mounts), (f"{home}/bin",), (("JAVA_HOME", str(home)),))
    if _is_someones(home):
        raise missing("java", f"{real} has no folder of its own: {home} holds more than a JDK")
    target = f"{TOOLCHAIN_FOLDER}/java"
    mounts.append(Mount(home, target))
    return Toolchain(
        "java", version, real, tuple(mounts), (f"{target}/bin",), (("JAVA_HOME", target),)
    )  # fmt: skip


def _linked_settings(home: Path) -> list[Path]:
    """Folders below /etc to which a JDK's own files point."""
    found: set[Path] = set()
    for part in ("conf", "lib"):
        for path in (home / part).rglob("*"):
            if path.is_symlink():
                real = Path(os.path.realpath(path))
                if real.is_relative_to("/etc") and real.exists() and not real.is_relative_to("/etc/ssl"):
                    found.add(Path(*real.parts[:3]))
    return sorted(found)


@functools.cache
def maven() -> Toolchain:
    """Maven's home."""
    path = shutil.which("mvn")
    if path is None:
        raise missing("maven")
    java()
    home = Path(os.path.realpath(path)).parent.parent
    if _is_someones(home):
        raise missing("maven", f"{path} has no folder of its own: {home} holds more than Maven")
    version = _version(_ask(path, "--version").replace("Apache Maven", ""))
    mounts = [] if home.is_relative_to("/usr") else [Mount(home, f"{TOOLCHAIN_FOLDER}/maven")]
    settings = Path(os.path.realpath(home / "conf"))
    if settings.is_relative_to("/etc"):
        mounts.append(Mount(settings, str(settings)))
    shown = str(home) if home.is_relative_to("/usr") else f"{TOOLCHAIN_FOLDER}/maven"
    return Toolchain("maven", version, home / "bin" / "mvn", tuple(mounts), (f"{shown}/bin",))


def certificates() -> tuple[tuple[Mount, ...], tuple[tuple[str, str], ...]]:
    """The authorities that this machine trusts, and the variables by which clients find them."""
    source = Path(os.environ.get("SSL_CERT_FILE") or CERTIFICATES)
    if not source.is_file():
        source = Path(CERTIFICATES)
    if not source.is_file():
        return (), ()
    names = ("SSL_CERT_FILE", "PIP_CERT", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "NODE_EXTRA_CA_CERTS",
             "CARGO_HTTP_CAINFO", "GIT_SSL_CAINFO")  # fmt: skip
    return (Mount(source, CERTIFICATES),), tuple((name, CERTIFICATES) for name in names)


@functools.cache
def wasm_c() -> Toolchain:
    """Clang with the C library of WASI."""
    toolchain = _system("wasm-c", "clang")
    if not os.path.exists(WASI_HEADER):
        raise missing("wasm-c", "clang is there, and the C library of WASI is not")
    return toolchain


def _system(name: str, command: str) -> Toolchain:
    path = shutil.which(command)
    if path is None:
        raise missing(name)
    real = Path(os.path.realpath(path))
    if not real.is_relative_to("/usr"):
        raise missing(name, f"{real} lies outside of /usr, where builds do not see it")
    version = "" if command in ("sh", "awk") else _version(_ask(path, "--version"))
    return Toolchain(name, version, Path("/usr/bin", command) if path.startswith("/bin/") else Path(path))


def _prefixed(name: str, command: str, levels: int) -> Toolchain:
    """A toolchain that is one folder with `bin` in it."""
    path = shutil.which(command)
    if path is None:
        raise missing(name)
    real = Path(os.path.realpath(path))
    version = _version(_ask(path, "--version"))
    if real.is_relative_to("/usr"):
        return Toolchain(name, version, real)
    prefix = real.parents[levels - 1]
    if _is_someones(prefix):
        raise missing(
            name, f"{real} has no folder of its own: {prefix} holds more than {name}, and builds would see it"
        )
    target = f"{TOOLCHAIN_FOLDER}/{name}"
    return Toolchain(name, version, real, (Mount(prefix, target),), (f"{target}/bin",))


def _is_someones(prefix: Path) -> bool:
    """Whether a folder is, or holds, somebody's home or what lies there beside programs."""
    home = Path(os.path.realpath(Path.home()))
    return home.is_relative_to(prefix) or prefix == home / ".local" or prefix == Path("/home")


def _ask(*words: str) -> str:
    """What one of the operator's own tools says about itself; empty if it does not answer."""
    try:
        done = subprocess.run(
            words, capture_output=True, text=True, timeout=ANSWER_SECONDS_MAX, check=False, cwd="/",
            stdin=subprocess.DEVNULL,
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout or done.stderr if done.returncode == 0 else ""


def _version(text: str) -> str:
    match = _VERSION.search(text)
    return match[1] if match else ""
