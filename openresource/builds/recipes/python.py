"""Python: packages by a lock into a layer with its bytecode; requirements without a lock are resolved once.

Read are, the most exact first: uv.lock, poetry.lock, a requirements file, pyproject.toml. A project of its own (setup.py, or
a pyproject.toml whose sources lie in src) is installed beside its files.
"""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from openresource.builds.recipes import (
    BUILD,
    DEPENDENCIES,
    OUT,
    WORK,
    CannotBuild,
    Layer,
    Plan,
    Source,
    Step,
    command_steps,
)  # fmt: skip
from openresource.builds.registries import find_registry
from openresource.builds.toolchains import Toolchain, ToolchainMissing, find_toolchain, missing, python

LOCK = "requirements.lock"
REQUIREMENTS = ("requirements.lock", "requirements.txt", "requirements/base.txt")
LINES_MAX = 20_000
_HASH = re.compile(r"--hash[= ]sha256:[0-9a-f]{64}")
_INCLUDE = re.compile(r"(?m)^\s*(?:-r|--requirement|-c|--constraint)[ =]?\s*(\S{1,200})")
_LOCAL = re.compile(r"(?m)^\s*(?:-e\b|--editable\b|\./|\.\./|\.\s*$|file:)")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,100}")
_PLAIN_VERSION = re.compile(r"[0-9]{1,9}(?:\.[0-9]{1,9}){0,3}")
_NUMBER = re.compile(r"[A-Za-z0-9][A-Za-z0-9.!+_-]{0,60}")
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
_REQUIRES = re.compile(r">=\s*3\.([0-9]{1,2})|[~=]=\s*3\.([0-9]{1,2})")
_BASE = re.compile(r"python-(3\.[0-9]{1,2})")
INCLUDES_MAX = 20


class PythonRecipe:
    """uv where this machine has it, else pip; the interpreter is the one that the manifest or the project asks for."""

    version = 1

    def suits(self, source: Source) -> bool:
        """A Python program, or a command of Python's, with packages to install."""
        run = source.manifest.run
        is_python = run.kind == "python" or (bool(run.command) and self._is_command(source, run.command))
        return is_python and bool(source.manifest.build.command or self._wishes(source))

    def plan(self, source: Source) -> Plan:
        """The layer from the wishes, then the project itself where it needs to be installed."""
        own = python(_python_wish(source))
        wishes = self._wishes(source)
        installs_itself = self._installs_itself(source)
        steps = command_steps(source)
        installer: Toolchain | None = None
        if wishes or installs_itself:
            installer = _installer(own)
        layer = None
        if wishes:
            assert installer is not None
            layer = self._layer(source, wishes, own, installer)
        if layer is not None:
            # A project's own command may import its packages.
            packages: tuple[tuple[str, str], ...] = (
                ("PYTHONPATH", f"{DEPENDENCIES}/lib/python3.{_minor(own)}/site-packages"),
            )
            steps = tuple(replace(step, environment=packages) for step in steps)
        toolchains = (own,) if installer is None or installer is own else (own, installer)
        site = f"lib/python3.{_minor(own)}/site-packages"
        path: tuple[str, ...] = (f"/runtime/{site}/bin",) if layer is not None else ()
        packages = (("PYTHONPATH", f"{DEPENDENCIES}/{site}"),) if layer is not None else ()
        own_steps: list[Step] = [Step(step.words, step.folder, (*_index(), *packages)) for step in steps]
        if installs_itself:
            assert installer is not None
            own_steps.append(
                Step(
                    _install(own, installer, ("--no-deps", "--target", WORK, "./")),
                    environment=(*_index(), *_version_variables(source.manifest.version)),
                )
            )
            path = (*path, "/app/bin")
        return Plan(
            "python",
            self.version,
            toolchains=toolchains,
            registries=("python",),
            dependencies=layer,
            steps=tuple(own_steps),
            steps_have_network=bool(own_steps),
            dropped=("build",) if installs_itself and not source.has("build") else (),
            python=own if layer is not None else None,
            environment=(
                (("PYTHONPATH", f"/app:/runtime/{site}" if layer is not None else "/app"),)
                # A typed program's guest knows where things are; others look where this says.
                if source.manifest.run.kind != "python"
                else ()
            ),
            path=path,
        )

    def _layer(self, source: Source, wishes: str, own: Toolchain, installer: Toolchain) -> Layer:
        files = _with_includes(source, wishes)
        site = f"{OUT}/lib/python3.{_minor(own)}/site-packages"
        target = ("--target", site)
        lock = f"{OUT}/{LOCK}"
        steps: list[Step] = []
        install: tuple[str, ...]
        is_uv = installer.name == "uv"
        if wishes == "uv.lock":
            if not is_uv:
                raise missing("uv", "uv.lock is read by uv alone")
            export = (
                "uv",
                "export",
                "-q",
                "--frozen",
                "--no-dev",
                "--no-emit-project",
                "--format",
                "requirements-txt",
                "-o",
                lock,
            )
            steps.append(Step(export))
            install = ("--no-deps", "--require-hashes", *target, "-r", lock)
        elif wishes == "poetry.lock":
            files = {LOCK: _from_poetry(source.text("poetry.lock"))}
            steps.append(Step(("cp", LOCK, lock)))
            install = ("--no-deps", "--require-hashes", *target, "-r", LOCK)
        elif _is_locked(source.text(wishes)):
            steps.append(Step(("cp", wishes, lock)))
            install = ("--no-deps", "--require-hashes", *target, "-r", wishes)
        elif is_uv:
            resolve = (
                "uv",
                "pip",
                "compile",
                "-q",
                "--generate-hashes",
                "--no-annotate",
                "--python",
                own.shown,
                "-o",
                lock,
                wishes,
            )
            steps.append(Step(resolve, environment=_index()))
            install = ("--no-deps", "--require-hashes", *target, "-r", lock)
        else:
            named = ("-r", wishes) if wishes != "pyproject.toml" else tuple(_dependencies(source))
            install = ("--ignore-installed", *target, "--report", f"{OUT}/report.json", *named)
        steps.append(Step(_install(own, installer, install), environment=_index()))
        compile_all = "import compileall,sys; compileall.compile_dir(sys.argv[1], quiet=2, workers=1, invalidation_mode=__import__('py_compile').PycInvalidationMode.UNCHECKED_HASH)"
        # What some package ships for another Python does not compile, and nobody minds.
        steps.append(Step(("/bin/sh", "-c", '"$0" -I -S -c "$1" "$2" || true', own.shown, compile_all, site)))
        return Layer(files, tuple(steps), remarks=(installer.identity,))

    def _wishes(self, source: Source) -> str:
        """The file that says which packages are needed; empty if none are."""
        build = source.manifest.build
        if build.lock or (build.runtime and _base_version(source) is None):
            # A prepared runtime has its packages.
            return ""
        if build.requirements:
            if not source.has(build.requirements):
                raise CannotBuild(language="python", reason=f"there is no {build.requirements}")
            return build.requirements
        for name in ("uv.lock", "poetry.lock"):
            if source.has(name) and source.has("pyproject.toml"):
                return name
        for name in REQUIREMENTS:
            if source.has(name) and _has_lines(source.text(name)):
                return name
        return "pyproject.toml" if _dependencies(source) else ""

    def _installs_itself(self, source: Source) -> bool:
        """A project that is not importable as it lies there, or whose command is one of its own scripts."""
        if source.manifest.build.command or not (source.has("setup.py") or source.has("pyproject.toml")):
            return False
        command = source.manifest.run.command
        if command and command[0] in _scripts(source):
            return True
        module = source.manifest.run.entry.partition(":")[0].replace(".", "/")
        return bool(module) and (source.has(f"src/{module}.py") or source.has(f"src/{module}/__init__.py"))

    def _is_command(self, source: Source, command: Sequence[str]) -> bool:
        own = ("python", "python3", "uvicorn", "gunicorn", "flask", "hypercorn", "fastapi", "streamlit")
        return command[0] in own or command[0].endswith(".py") or command[0] in _scripts(source)


def _installer(own: Toolchain) -> Toolchain:
    try:
        return find_toolchain("uv")
    except ToolchainMissing:
        pass
    prefix = own.mounts[0].source if own.mounts else own.executable.parent.parent
    places = (f"lib/python3.{_minor(own)}/site-packages/pip", "lib/python3/dist-packages/pip")
    if any((prefix / place).is_dir() for place in places):
        return own
    raise missing("pip")


def _install(own: Toolchain, installer: Toolchain, options: Sequence[str]) -> tuple[str, ...]:
    if installer.name == "uv":
        return ("uv", "pip", "install", "-q", "--link-mode", "copy", "--python", own.shown, *options)
    common = (
        "--no-cache-dir",
        "--no-compile",
        "--disable-pip-version-check",
        "--no-input",
        "--progress-bar",
        "off",
    )
    return (own.shown, "-m", "pip", "install", "-q", *common, *options)


def _index() -> tuple[tuple[str, str], ...]:
    addresses = find_registry("python").addresses
    further = " ".join(addresses[1:])
    return (
        ("UV_CACHE_DIR", f"{BUILD}/tmp/uv"), ("UV_NO_CONFIG", "1"), ("UV_NO_PROGRESS", "1"),
        ("UV_PYTHON_DOWNLOADS", "never"), ("UV_DEFAULT_INDEX", addresses[0]), ("UV_EXTRA_INDEX_URL", further),
        ("UV_HTTP_TIMEOUT", "120"), ("PIP_INDEX_URL", addresses[0]), ("PIP_EXTRA_INDEX_URL", further),
        ("PIP_CONFIG_FILE", "/dev/null"), ("PIP_DEFAULT_TIMEOUT", "120"),
    )  # fmt: skip


def _version_variables(version: str) -> tuple[tuple[str, str], ...]:
    """What tools that read a version out of a repository's history are told, as a release has no history."""
    plain = _PLAIN_VERSION.match(version)
    told = plain[0] if plain is not None else "0"
    return (("SETUPTOOLS_SCM_PRETEND_VERSION", told), ("PBR_VERSION", told), ("PDM_BUILD_SCM_VERSION", told),
            ("POETRY_DYNAMIC_VERSIONING_BYPASS", told))  # fmt: skip


def _minor(own: Toolchain) -> str:
    return own.version.split(".")[1]


def _python_wish(source: Source) -> str:
    base = _base_version(source)
    wish = f"=={base}" if base else source.manifest.build.python
    if wish or not source.has("pyproject.toml"):
        return wish
    requires = _project(source).get("requires-python")
    match = _REQUIRES.search(requires) if isinstance(requires, str) else None
    if match is None:
        return ""
    return f">=3.{match[1]}" if match[1] else f"==3.{match[2]}"


def _base_version(source: Source) -> str | None:
    """The version of an interpreter that is named as runtime, such as python-3.12."""
    match = _BASE.fullmatch(source.manifest.build.runtime)
    return match[1] if match else None


def _project(source: Source) -> dict[str, Any]:
    try:
        project = tomllib.loads(source.text("pyproject.toml")).get("project")
    except (ValueError, RecursionError):
        raise CannotBuild(language="python", reason="pyproject.toml is not TOML") from None
    return project if isinstance(project, dict) else {}


def _dependencies(source: Source) -> list[str]:
    if not source.has("pyproject.toml"):
        return []
    named = _project(source).get("dependencies")
    return [word for word in named if isinstance(word, str)] if isinstance(named, list) else []


def _scripts(source: Source) -> frozenset[str]:
    if not source.has("pyproject.toml"):
        return frozenset()
    scripts = _project(source).get("scripts")
    return frozenset(scripts) if isinstance(scripts, dict) else frozenset()


def _has_lines(text: str) -> bool:
    return any(line.strip() and not line.lstrip().startswith("#") for line in text.splitlines()[:LINES_MAX])


def _is_locked(text: str) -> bool:
    """Whether every requirement names the digests of what may be installed."""
    joined = text.replace("\\\n", " ")
    lines = [
        line.strip() for line in joined.splitlines() if line.strip() and not line.lstrip().startswith("#")
    ]
    wanted = [line for line in lines if not line.startswith("-")]
    return bool(wanted) and all(_HASH.search(line) for line in wanted)


def _with_includes(source: Source, name: str) -> dict[str, bytes]:
    """A requirements file with those that it names; packages from the folder itself bind the layer to all of it."""
    if name == "uv.lock":
        return {part: source.read(part) for part in ("uv.lock", "pyproject.toml")}
    files: dict[str, bytes] = {}
    waiting = [name]
    while waiting and len(files) < INCLUDES_MAX:
        one = waiting.pop()
        if one in files or not source.has(one):
            continue
        files[one] = source.read(one)
        text = files[one].decode("utf-8", "replace")
        if _LOCAL.search(text):
            return {part: source.read(part) for part in source.names}
        folder = one.rpartition("/")[0]
        waiting += [f"{folder}/{part}" if folder else part for part in _INCLUDE.findall(text)]
    return files


def _from_poetry(text: str) -> bytes:
    """Poetry's lock as requirements with digests; groups other than the main one are left out where it tells them."""
    try:
        table = tomllib.loads(text)
    except (ValueError, RecursionError):
        raise CannotBuild(language="python", reason="poetry.lock is not TOML") from None
    lines: list[str] = []
    packages = table.get("package")
    for package in packages if isinstance(packages, list) else []:
        name, version = str(package.get("name", "")), str(package.get("version", ""))
        groups = package.get("groups", ["main"])
        if package.get("optional") or "main" not in groups or package.get("category", "main") != "main":
            continue
        if not _NAME.fullmatch(name) or not _NUMBER.fullmatch(version) or package.get("source"):
            raise CannotBuild(
                language="python", reason=f"poetry.lock takes {name or 'a package'} from outside a registry"
            )
        files = package.get("files") or table.get("metadata", {}).get("files", {}).get(name, [])
        digests = [str(file.get("hash", "")) for file in files if isinstance(file, dict)]
        hashes = " ".join(f"--hash={digest}" for digest in digests if _DIGEST.fullmatch(digest))
        markers = package.get("markers")
        condition = f" ; {markers}" if isinstance(markers, str) and "\n" not in markers else ""
        lines.append(f"{name}=={version}{condition} {hashes}")
    return ("\n".join(lines) + "\n").encode()


def report_lock(text: str) -> str:
    """The lock that pip's report of an installation stands for."""
    lines = []
    for item in json.loads(text).get("install", ()):
        metadata, archive = item["metadata"], item.get("download_info", {}).get("archive_info", {})
        digest = (archive.get("hashes") or {}).get("sha256", "")
        lines.append(
            f"{metadata['name']}=={metadata['version']}" + (f" --hash=sha256:{digest}" if digest else "")
        )
    return "\n".join(sorted(lines)) + "\n"
