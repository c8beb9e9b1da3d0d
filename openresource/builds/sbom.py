"""What a program is made of, with licences: a bill of materials in CycloneDX 1.6, read from what was installed.

Nothing is asked of anybody: names, versions and licences are those that packages carry. What strangers wrote is read
within bounds and never run.
"""

from __future__ import annotations

import email.parser
import json
import re
import tomllib
import uuid
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote
from xml.etree import ElementTree

from openresource.builds.licenses import license_of_text, license_of_word

COMPONENTS_MAX: Final = 5_000
FILE_BYTES_MAX: Final = 1 << 20
LICENSE_FILES: Final = (
    "LICENSE",
    "LICENSE.txt",
    "LICENSE.md",
    "COPYING",
    "LICENCE",
    "license",
    "LICENSE-MIT",
)
BARE: Final = frozenset(("MIT", "ISC", "Zlib", "Unlicense", "WTFPL", "X11", "NCSA", "PostgreSQL", "Ruby"))
JAR_LICENSES: Final = (
    "META-INF/LICENSE.txt",
    "META-INF/LICENSE",
    "META-INF/LICENSE.md",
    "LICENSE.txt",
    "LICENSE",
)
NOT_STATED: Final = "NOASSERTION"
_CLASSIFIER: Final = "License :: OSI Approved :: "
_GO_NAME = re.compile(r"!([a-z])")


@dataclass(frozen=True, slots=True)
class Component:
    """A package that went into a program."""

    ecosystem: str
    name: str
    version: str
    license: str = ""

    @property
    def package_url(self) -> str:
        """Its name in all registries (purl)."""
        kind = {"python": "pypi", "node": "npm", "go": "golang", "rust": "cargo", "java": "maven"}[
            self.ecosystem
        ]
        name = self.name.lower().replace("_", "-") if kind == "pypi" else self.name
        path = "/".join(quote(part, safe="") for part in name.replace(":", "/").split("/"))
        return f"pkg:{kind}/{path}@{quote(self.version, safe='')}"


def find_components(language: str, dependencies: Path | None, release: Path) -> tuple[Component, ...]:
    """The packages in a dependency layer, or in a release that brought its own."""
    readers = {"python": _python, "node": _node, "go": _go, "rust": _rust, "java": _java}
    found: dict[tuple[str, str], Component] = {}
    if language in readers:
        for place in (dependencies, release):
            if place is not None:
                for component in readers[language](place):
                    found.setdefault((component.name, component.version), component)
                    if len(found) >= COMPONENTS_MAX:
                        break
    return tuple(sorted(found.values(), key=lambda one: (one.name, one.version)))


def bill_of_materials(
    name: str, version: str, license: str, components: tuple[Component, ...]
) -> dict[str, Any]:
    """The CycloneDX document; the same program with the same packages gives the same bytes."""
    main: dict[str, Any] = {
        "type": "application",
        "name": name,
        "version": version,
        "bom-ref": f"program:{name}@{version}",
    }
    main |= _licenses(license)
    parts = [
        {
            "type": "library",
            "bom-ref": component.package_url,
            "name": component.name,
            "version": component.version,
            "purl": component.package_url,
            **_licenses(component.license),
        }
        for component in components
    ]
    seed = json.dumps([main, parts], sort_keys=True)
    return {
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "serialNumber": f"urn:uuid:{uuid.uuid5(uuid.NAMESPACE_URL, seed)}",
        "version": 1,
        "metadata": {
            "component": main,
            "tools": {"components": [{"type": "application", "name": "openresource"}]},
        },
        "components": parts,
        "dependencies": [
            {"ref": main["bom-ref"], "dependsOn": sorted({part["bom-ref"] for part in parts})},
        ],
    }


def _licenses(text: str) -> dict[str, Any]:
    """A licence as CycloneDX has it: an expression where it is one, else a name."""
    if not text or text == NOT_STATED:
        return {}
    named = license_of_word(text)
    # A bare word such as BSD is no identifier of the SPDX list.
    if named and (named in BARE or any(mark in named for mark in "-0123456789")):
        return {"licenses": [{"expression": named}]}
    return {"licenses": [{"license": {"name": text[:200]}}]}


def _python(place: Path) -> Iterator[Component]:
    for file in sorted(place.glob("lib/python3.*/site-packages/*.dist-info/METADATA")):
        headers = email.parser.HeaderParser().parsestr(_text(file).partition("\n\n")[0])
        stated = headers.get("License-Expression") or ""
        if not stated:
            classifiers = [
                value.removeprefix(_CLASSIFIER)
                for value in headers.get_all("Classifier", [])
                if value.startswith(_CLASSIFIER)
            ]
            stated = (headers.get("License") or "").strip()
            stated = stated if stated and len(stated) < 100 else classifiers[0] if classifiers else ""
        yield Component("python", str(headers.get("Name", "?")), str(headers.get("Version", "?")), stated)


def _node(place: Path) -> Iterator[Component]:
    waiting = [place / "node_modules"]
    while waiting:
        folder = waiting.pop()
        if not folder.is_dir() or folder.is_symlink():
            continue
        for entry in sorted(folder.iterdir()):
            if entry.name.startswith(".") or entry.is_symlink() or not entry.is_dir():
                continue
            if entry.name.startswith("@"):
                waiting.append(entry)
                continue
            package = _json(entry / "package.json")
            if isinstance(package.get("name"), str) and isinstance(package.get("version"), str):
                stated = package.get("license")
                if isinstance(stated, dict):
                    stated = stated.get("type")
                yield Component(
                    "node", package["name"], package["version"], stated if isinstance(stated, str) else ""
                )
            waiting.append(entry / "node_modules")


def _go(place: Path) -> Iterator[Component]:
    for archive in sorted((place / "download").rglob("@v/*.zip")):
        name = archive.parent.parent.relative_to(place / "download").as_posix()
        # Capital letters are written as an exclamation mark and the small one.
        name = _GO_NAME.sub(lambda match: match[1].upper(), name)
        version = archive.name.removesuffix(".zip")
        yield Component("go", name, version, _license_in_archive(archive, f"{name}@{version}/"))


def _rust(place: Path) -> Iterator[Component]:
    for file in sorted((place / "vendor").glob("*/Cargo.toml")):
        try:
            package = tomllib.loads(_text(file)).get("package")
        except (ValueError, RecursionError):
            continue
        if isinstance(package, dict) and isinstance(package.get("name"), str):
            stated = package.get("license")
            stated = stated.replace("/", " OR ") if isinstance(stated, str) else ""
            yield Component("rust", package["name"], str(package.get("version", "?")), stated)


def _java(place: Path) -> Iterator[Component]:
    """The jars that lie beside a program; their own poms tell what they are."""
    for jar in sorted([*place.glob("target/dependency/*.jar"), *place.glob("lib/*.jar")]):
        try:
            with zipfile.ZipFile(jar) as archive:
                poms = [
                    name
                    for name in archive.namelist()
                    if name.startswith("META-INF/maven/") and name.endswith("/pom.xml")
                ]
                text = _member(archive, poms[0]) if len(poms) == 1 else ""
                inside = next((name for name in JAR_LICENSES if name in archive.namelist()), "")
                legal = license_of_text(_member(archive, inside)) if inside else ""
        except (OSError, zipfile.BadZipFile):
            continue
        name, version, stated = _pom(text)
        if not name:
            stem, _, number = jar.name.removesuffix(".jar").rpartition("-")
            name, version = (stem, number) if stem else (number, "?")
        yield Component("java", name, version or "?", stated or legal)


def _pom(text: str) -> tuple[str, str, str]:
    if not text or "<!DOCTYPE" in text or "<!ENTITY" in text:
        return "", "", ""
    try:
        root = ElementTree.fromstring(text)
    except ElementTree.ParseError:
        return "", "", ""
    space = root.tag.partition("}")[0] + "}" if root.tag.startswith("{") else ""

    def find(path: str) -> str:
        return (root.findtext("/".join(space + part for part in path.split("/"))) or "").strip()

    group = find("groupId") or find("parent/groupId")
    version = find("version") or find("parent/version")
    artifact = find("artifactId")
    return (f"{group}:{artifact}" if artifact else ""), version, find("licenses/license/name")


def _license_in_archive(path: Path, prefix: str) -> str:
    try:
        with zipfile.ZipFile(path) as archive:
            names = set(archive.namelist())
            for name in LICENSE_FILES:
                if prefix + name in names:
                    return license_of_text(_member(archive, prefix + name))
    except (OSError, zipfile.BadZipFile):
        return ""
    return ""


def _member(archive: zipfile.ZipFile, name: str) -> str:
    with archive.open(name) as file:
        return file.read(FILE_BYTES_MAX).decode("utf-8", "replace")


def _text(file: Path) -> str:
    try:
        with open(file, "rb") as opened:
            return opened.read(FILE_BYTES_MAX).decode("utf-8", "replace")
    except OSError:
        return ""


def _json(file: Path) -> dict[str, Any]:
    try:
        value = json.loads(_text(file) or "{}")
    except (ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}
