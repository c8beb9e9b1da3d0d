"""Turns a folder into what will be published: its manifest, its files, and an interface that callers can read.

Nothing is run here and nothing is sent. What lies in the folder without belonging to the program stays out, and what
must never become public is refused.
"""

from __future__ import annotations

import base64
import fnmatch
import json
import os
import re
import stat
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from openresource.client.services import INTERFACE_BYTES_MAX, INTERFACE_FILE, parse_interface
from openresource.market.manifests import (
    MANIFEST_CHARACTERS_MAX,
    MANIFEST_FILE,
    Manifest,
    Method,
    document_files,
    parse_manifest,
    with_documents,
)
from openresource.market.schemas import check_value
from openresource.primitives.cids import folder_cid
from openresource.primitives.encoding import parse_json
from openresource.primitives.errors import Refusal

RELEASE_BYTES_MAX: Final = 64 * 1024 * 1024
RELEASE_FILES_MAX: Final = 2_000
DOCUMENT_BYTES_MAX: Final = 1024 * 1024
DOCUMENT_DEPTH_MAX: Final = 64

# Inputs with which a service is shown; they belong to nobody's program.
# What a .proto was compiled to, by its publisher.
DESCRIPTORS_FILE: Final = "interface.pb"
DEMO_FILE: Final = "demo.toml"
# What tools leave behind; a program never needs it.
LEFT_OUT_FOLDERS: Final = frozenset(
    (".git", ".hg", ".svn", "__pycache__", ".venv", ".mypy_cache", ".ruff_cache", ".pytest_cache", ".idea",
     ".vscode", ".ipynb_checkpoints")
)  # fmt: skip
# What marks a folder as one that a tool made and can make again.
MADE_BY_TOOLS: Final = ("CACHEDIR.TAG", "pyvenv.cfg")
LEFT_OUT_FILES: Final = ("*.pyc", ".DS_Store", "*.swp", ".gitignore", DEMO_FILE)
_LINE: Final = r"""^[ \t]*{member}[ \t]*=[ \t]*(?:"[^"\n]*"|'[^'\n]*')([ \t]*(?:\#.*)?)$"""
# What is published is public and stays: these are mistakes.
SECRET_FILES: Final = (".env", ".env.*", ".netrc", "id_rsa", "id_ed25519", "wallet.json", "funding.json")
SECRET_PATTERNS: Final = (".env.example", ".env.sample", ".env.template", ".env.dist", ".env.defaults")


class NoSuchFolder(Refusal):
    template = "There is no folder {folder}."
    way_out = "Name a folder with an openresource.toml in it."


class NoManifest(Refusal):
    template = "The folder {folder} has no openresource.toml."
    way_out = "Write one: openresource init {folder}"


class NotPublishable(Refusal):
    template = "{file} cannot be published: {reason}."
    way_out = "Move it out of the folder, or put a plain file in its place."


class VersionNotWritten(Refusal):
    template = "The version {version} cannot be written into openresource.toml."
    way_out = "Write version on a line of its own before the first table, or raise it by hand."


class NameNotWritten(Refusal):
    template = "The name {name} cannot be written into openresource.toml."
    way_out = "Fetch it with --no-publish, and write name and fork_of on lines of their own."


class ReleaseTooLarge(Refusal):
    template = "The folder {folder} has more than {limit} {unit}."
    way_out = "Publish the program only; models and data belong into a prepared runtime."


class SecretInFolder(Refusal):
    template = "{file} looks like a secret, and whatever is published is public and stays."
    way_out = "Move it out of the folder; a program needs no key of yours."


class EntryMissing(Refusal):
    template = "openresource.toml names {entry}, but the folder has no {file}."
    way_out = "Correct the entry in [run], or add the file."


class DocumentInvalid(Refusal):
    template = "{file} cannot be read: {reason}."
    way_out = "It must be one JSON object."


class MethodNotInProgram(Refusal):
    template = "openresource.toml names the method {method}; the program has {known}."
    way_out = "Correct the name in [[methods]], or give the program a public method of that name."


class ExampleInvalid(Refusal):
    template = "The example of {method} does not fit the method: {reason}"
    way_out = "Correct the example in openresource.toml; it is what every provider tries first."


@dataclass(frozen=True, slots=True)
class Release:
    """A folder as it will be published; `manifest` has its documents in place."""

    folder: Path
    files: Mapping[str, bytes]
    manifest: Manifest
    # What lies in the folder and cannot be published, where that is no mistake of its author's.
    left_out: tuple[str, ...] = ()

    @property
    def bytes(self) -> int:
        """The size of all files together."""
        return sum(len(content) for content in self.files.values())

    @property
    def program(self) -> str:
        """The CID that names exactly these files."""
        return folder_cid(self.files)

    def write_to(self, folder: Path) -> None:
        """Lay the files out below an empty folder."""
        for name, content in self.files.items():
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)


def read_release(folder: Path, additions: Mapping[str, bytes] | None = None) -> Release:
    """The release that a folder holds, checked as far as reading can.

    `additions` make a release of a folder that was not written for one: they lie beside its files, and links and what
    looks like a secret are left out instead of refused.
    """
    if not folder.is_dir():
        raise NoSuchFolder(folder=str(folder))
    if additions is None and not (folder / MANIFEST_FILE).exists():
        raise NoManifest(folder=str(folder))
    left_out: list[str] | None = None if additions is None else []
    files = _read_files(folder, left_out)
    release = _release_of(folder, {**files, **(additions or {})})
    return replace(release, left_out=tuple(left_out or ()))


def with_version(release: Release, version: str) -> Release:
    """The same release under another version's text; all else in its manifest stays as it was written."""
    text = release.files[MANIFEST_FILE].decode()
    fresh = _with_line(text, "version", version)
    if tomllib.loads(fresh) != {**tomllib.loads(text), "version": version}:
        raise VersionNotWritten(version=version)
    changed = _release_of(release.folder, {**release.files, MANIFEST_FILE: fresh.encode()})
    return replace(changed, left_out=release.left_out)


def forked_manifest(text: str, name: str, source: str) -> str:
    """A manifest under a name of one's own that says where it comes from; all else stays as it was written."""
    fresh = _with_line(_with_line(text, "fork_of", source), "name", name)
    if tomllib.loads(fresh) != {**tomllib.loads(text), "name": name, "fork_of": source}:
        raise NameNotWritten(name=name)
    return fresh


def _release_of(folder: Path, files: dict[str, bytes]) -> Release:
    content = files[MANIFEST_FILE]
    try:
        text = content[: 4 * MANIFEST_CHARACTERS_MAX + 1].decode()
    except UnicodeDecodeError as problem:
        raise DocumentInvalid(
            file=MANIFEST_FILE, reason=f"it is not UTF-8 ({problem.reason})", remedy="Save it as UTF-8."
        ) from None
    manifest = parse_manifest(text)
    documents = {name: _document(name, files) for name in document_files(manifest) if name in files}
    manifest = with_documents(manifest, documents)
    _check_entry(manifest, files)
    return Release(folder, files, manifest)


def with_interface(release: Release, described: Sequence[Mapping[str, Any]] | None) -> Release:
    """The release with its `interface.json`: what the program says about itself, completed by the manifest."""
    if described is None and INTERFACE_FILE in release.files:
        parse_interface(release.files[INTERFACE_FILE], release.manifest.name)
        return release
    methods = merged_methods(release.manifest, described)
    interface = {
        "spec": 1,
        "name": release.manifest.name,
        "version": release.manifest.version,
        "methods": [_method_json(method) for method in methods],
        **_grpc_json(release),
    }
    content = json.dumps(interface, indent=1, ensure_ascii=False, sort_keys=True).encode() + b"\n"
    if len(content) > INTERFACE_BYTES_MAX:
        raise ReleaseTooLarge(
            folder=str(release.folder),
            limit=INTERFACE_BYTES_MAX,
            unit="bytes in its interface",
            remedy="Shorten the schemas and examples of its methods.",
        )
    return replace(
        release,
        files={**release.files, INTERFACE_FILE: content},
        manifest=replace(release.manifest, methods=methods),
    )


def _grpc_json(release: Release) -> dict[str, Any]:
    """What gRPC clients need of a program that speaks gRPC itself."""
    descriptors = release.files.get(DESCRIPTORS_FILE)
    if release.manifest.run.tongue != "grpc" or descriptors is None:
        return {}
    proto = release.files.get(release.manifest.run.proto, b"").decode("utf-8", "replace")
    return {"grpc": {"descriptors": base64.b64encode(descriptors).decode(), "proto": proto}}


def merged_methods(manifest: Manifest, described: Sequence[Mapping[str, Any]] | None) -> tuple[Method, ...]:
    """The program's methods: those of the manifest first, each completed by what the program says about itself."""
    if described is None:
        return manifest.methods
    found = {str(entry["name"]): entry for entry in described}
    methods = []
    for method in manifest.methods:
        if method.name not in found:
            if manifest.run.tongue not in ("python", "grpc"):
                methods.append(method)
                continue
            raise MethodNotInProgram(method=method.name, known=", ".join(found))
        methods.append(_completed(method, found.pop(method.name)))
    methods.extend(
        _completed(Method(name, str(entry.get("path") or f"/{name}")), entry) for name, entry in found.items()
    )
    return tuple(methods)


def check_examples(methods: Sequence[Method]) -> None:
    """Refuse an example whose input does not fit its own method."""
    for method in methods:
        if isinstance(method.example, Mapping) and isinstance(method.input, Mapping):
            try:
                check_value(method.input, method.example.get("input"))
            except Refusal as refusal:
                raise ExampleInvalid(method=method.name, reason=refusal.message) from refusal


def _with_line(text: str, member: str, value: str) -> str:
    """The manifest with one of its top-level texts replaced, or put before everything else."""
    line = f'{member} = "{value}"'
    tables = re.search(r"^[ \t]*\[", text, re.MULTILINE)
    head = text[: tables.start()] if tables else text
    pattern = re.compile(_LINE.format(member=member), re.MULTILINE)
    fresh, count = pattern.subn(lambda found: f"{line}{found[1]}", head, count=1)
    return fresh + text[len(head) :] if count else f"{line}\n{text}"


def _completed(method: Method, entry: Mapping[str, Any]) -> Method:
    return replace(
        method,
        summary=method.summary or str(entry.get("summary") or ""),
        input=entry.get("input") if method.input is None else method.input,
        output=entry.get("output") if method.output is None else method.output,
        stream=method.stream or entry.get("stream") is True,
    )


def _method_json(method: Method) -> dict[str, Any]:
    members: dict[str, Any] = {
        "name": method.name,
        "path": method.path,
        "summary": method.summary,
        "input": method.input or {},
        "output": method.output or {},
        "stream": method.stream,
    }
    if method.example is not None:
        members["example"] = method.example
    return members


def _read_files(folder: Path, left_out: list[str] | None) -> dict[str, bytes]:
    """The files of a folder; what cannot be published goes to `left_out`, or is refused without such a list.

    With the list, a link to another file that is published becomes a copy of it.
    """
    files: dict[str, bytes] = {}
    links: list[str] = []
    bytes_left = RELEASE_BYTES_MAX
    for place, folders, names in os.walk(folder, onerror=_raise):
        folders[:] = sorted(name for name in folders if not _is_left_out(Path(place), name, names))
        for name in [*folders, *sorted(names)]:
            path = Path(place) / name
            relative = path.relative_to(folder).as_posix()
            mode = path.lstat().st_mode
            if stat.S_ISDIR(mode) or (_is_like(name, LEFT_OUT_FILES) and not stat.S_ISLNK(mode)):
                continue
            problem = _problem(name, relative, mode)
            if problem is not None and left_out is not None:
                (links if stat.S_ISLNK(mode) else left_out).append(relative)
                continue
            if problem is not None:
                raise problem
            bytes_left -= path.stat().st_size
            if bytes_left < 0:
                raise ReleaseTooLarge(folder=str(folder), limit=RELEASE_BYTES_MAX, unit="bytes")
            if len(files) >= RELEASE_FILES_MAX:
                raise ReleaseTooLarge(folder=str(folder), limit=RELEASE_FILES_MAX, unit="files")
            files[relative] = path.read_bytes()
    copies = {link: target for link in links if (target := _inner_target(folder, link)) in files}
    bytes_left -= sum(len(files[target]) for target in copies.values())
    if bytes_left < 0:
        raise ReleaseTooLarge(folder=str(folder), limit=RELEASE_BYTES_MAX, unit="bytes")
    if len(files) + len(copies) > RELEASE_FILES_MAX:
        raise ReleaseTooLarge(folder=str(folder), limit=RELEASE_FILES_MAX, unit="files")
    files |= {link: files[target] for link, target in copies.items()}
    if left_out is not None:
        left_out += [link for link in links if link not in copies]
    return files


def _inner_target(folder: Path, link: str) -> str:
    """What a link leads to, as a path below the folder; nothing for one that leads out."""
    target, top = Path(os.path.realpath(folder / link)), Path(os.path.realpath(folder))
    return target.relative_to(top).as_posix() if target.is_relative_to(top) else ""


def _is_left_out(place: Path, name: str, names: Sequence[str]) -> bool:
    """Whether tools fetch or make a folder again from what lies beside it."""
    if name in LEFT_OUT_FOLDERS or (name == "node_modules" and "package.json" in names):
        return True
    return any((place / name / mark).is_file() for mark in MADE_BY_TOOLS)


def _problem(name: str, relative: str, mode: int) -> Refusal | None:
    """Why a file cannot be published."""
    if stat.S_ISLNK(mode):
        return NotPublishable(
            file=relative, reason="it is a link, and links lead elsewhere on other machines"
        )
    if _is_like(name, SECRET_FILES) and name not in SECRET_PATTERNS:
        return SecretInFolder(file=relative)
    if not stat.S_ISREG(mode):
        return NotPublishable(file=relative, reason="it is neither a file nor a folder")
    return None


def _raise(error: OSError) -> None:
    raise error


def _is_like(name: str, patterns: Sequence[str]) -> bool:
    return any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)


def _document(name: str, files: Mapping[str, bytes]) -> Any:
    try:
        return parse_json(files[name], bytes_max=DOCUMENT_BYTES_MAX, depth_max=DOCUMENT_DEPTH_MAX)
    except Refusal as refusal:
        raise DocumentInvalid(file=name, reason=refusal.message.rstrip(".")) from refusal


def _check_entry(manifest: Manifest, files: Mapping[str, bytes]) -> None:
    run = manifest.run
    if run.entry:
        module = run.entry.partition(":")[0].replace(".", "/")
        # A build installs a project whose sources lie in src.
        installed = ["src"] if "pyproject.toml" in files or "setup.py" in files else []
        folders = ["", *run.environment.get("PYTHONPATH", "").split(":"), *installed]
        stems = [f"{folder.strip('/')}/{module}".lstrip("/") for folder in folders]
        if not any(f"{stem}.py" in files or f"{stem}/__init__.py" in files for stem in stems):
            raise EntryMissing(entry=run.entry, file=f"{module}.py")
        return
    is_built = bool(manifest.build.language or manifest.build.command)
    if run.command and run.command[0].startswith("./") and not is_built and run.command[0][2:] not in files:
        raise EntryMissing(entry=run.command[0], file=run.command[0][2:])
    for name in (run.proto, *(() if is_built else (run.module,))):
        if name and name not in files:
            raise EntryMissing(entry=name, file=name)
