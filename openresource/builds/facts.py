"""Name, version, summary and licence of a project, from whatever it says about itself."""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from openresource.builds.files import Files
from openresource.builds.licenses import license_of_text, license_of_word

SUMMARY_CHARACTERS_MAX: Final = 200
NAME_CHARACTERS_MAX: Final = 63
KEY_DOTS_MAX: Final = 200
README_LINES_MAX: Final = 200
DEFAULT_NAME: Final = "service"
LICENSE_FILES: Final = (
    "LICENSE", "LICENSE.txt", "LICENSE.md", "LICENSE.rst", "LICENCE", "LICENCE.txt", "LICENCE.md", "COPYING",
    "COPYING.txt", "COPYING.md", "UNLICENSE", "license", "license.txt", "LICENSE-MIT", "LICENSE-APACHE", "License.txt",
)  # fmt: skip

_NOT_IN_NAMES = re.compile(r"[^a-z0-9]+")
_VERSION = re.compile(r"[0-9]{1,9}\.[0-9]{1,9}\.[0-9]{1,9}")
_DOTTED = re.compile(r"[\w\"'][ \t]{0,8}\.")
_LINK = re.compile(r"!?\[([^\[\]]{0,200})\]\([^()\s]{0,500}\)")
_TAG = re.compile(r"<[^<>]{0,500}>")
_MARKS = re.compile(r"[*_`]{1,3}")
_NO_PROSE = ("#", "=", "-", "|", ">", "```", "~~~", "..", "[!", "![", "<", ":", "http", "* ", "+ ", "$", "@")


@dataclass(frozen=True, slots=True)
class Facts:
    """What a project says of itself."""

    name: str
    version: str = "0.1.0"
    summary: str = ""
    license: str = ""


def facts_of(files: Files) -> Facts:
    """The facts of a project; each is found or left out, and none is invented."""
    project = pyproject_of(files)
    package = json_object(files.text("package.json"))
    cargo = table_in(toml_object(files.text("Cargo.toml")), "package")
    sources = (project, package, cargo)
    names = (files.name, *(str(source.get("name") or "") for source in sources))
    versions = (str(source.get("version") or "") for source in sources)
    summaries = (plain_line(str(source.get("description") or "")) for source in sources)
    return Facts(
        name=next((label for name in names if (label := label_of(name))), DEFAULT_NAME),
        version=next((text for text in versions if _VERSION.fullmatch(text)), "0.1.0"),
        summary=next((text for text in summaries if text), "") or _summary_of_readme(files),
        license=_license_of(files, project, package, cargo),
    )


def label_of(name: str) -> str:
    """A DNS label from any name, or nothing."""
    return _NOT_IN_NAMES.sub("-", name.lower().rpartition("/")[2]).strip("-")[:NAME_CHARACTERS_MAX].strip("-")


def pyproject_of(files: Files) -> Mapping[str, Any]:
    """The [project] table of a pyproject.toml, or what Poetry has in its place."""
    content = toml_object(files.text("pyproject.toml"))
    project = table_in(content, "project")
    return project or table_in(content, "tool", "poetry")


def toml_object(text: str) -> dict[str, Any]:
    """What a TOML text says; nothing where it is broken or made to be slow."""
    if any(line.count(".") > KEY_DOTS_MAX < len(_DOTTED.findall(line)) for line in text.split("\n")):
        return {}
    try:
        return tomllib.loads(text)
    except (ValueError, RecursionError):
        return {}


def json_object(text: str) -> dict[str, Any]:
    """What a JSON text says, if it is an object."""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}


def plain_line(text: str) -> str:
    """The first sentences of a text on one line, without markup and short enough for a list."""
    text = _MARKS.sub("", _TAG.sub("", _LINK.sub(r"\1", text[:4_000])))
    line = " ".join("".join(part if part.isprintable() else " " for part in text).split())
    if len(line) <= SUMMARY_CHARACTERS_MAX:
        return line
    end = line.rfind(". ", 0, SUMMARY_CHARACTERS_MAX)
    return line[: end + 1] if end > 40 else line[: SUMMARY_CHARACTERS_MAX - 1].rstrip() + "…"


def _summary_of_readme(files: Files) -> str:
    name = files.first(
        "README.md", "README.rst", "README.txt", "README", "readme.md", "Readme.md", "README.markdown"
    )
    lines = files.text(name).splitlines()[:README_LINES_MAX]
    paragraph: list[str] = []
    is_code = False
    for line in lines:
        if line.lstrip().startswith(("```", "~~~")):
            is_code = not is_code
        is_prose = not is_code and bool(line.strip()) and not line.startswith(("    ", "\t"))
        if is_prose and not line.lstrip().startswith(_NO_PROSE) and (paragraph or len(line.split()) > 2):
            paragraph.append(line.strip())
        elif paragraph:
            break
    return plain_line(" ".join(paragraph))


def _license_of(files: Files, project: Mapping[str, Any], *others: Mapping[str, Any]) -> str:
    stated = project.get("license")
    if isinstance(stated, Mapping):
        stated = stated.get("text") or files.text(str(stated.get("file") or ""))
    words = [stated, *(other.get("license") for other in others)]
    for word in words:
        if isinstance(word, str) and word and (found := license_of_word(word)):
            return found
    for name in LICENSE_FILES:
        if name in files and (found := license_of_text(files.text(name))):
            return found
    classifiers = project.get("classifiers")
    for classifier in classifiers if isinstance(classifiers, list) else ():
        is_license = isinstance(classifier, str) and classifier.startswith("License ::")
        if is_license and (found := license_of_word(classifier.rpartition("::")[2].strip())):
            return found
    return ""


def table_in(content: Mapping[str, Any], *keys: str) -> Mapping[str, Any]:
    """A table inside of tables, or an empty one."""
    for key in keys:
        inner = content.get(key)
        if not isinstance(inner, Mapping):
            return {}
        content = inner
    return content
