"""cog.yaml: a model with a class that predicts, and the packages that it is built with."""

from __future__ import annotations

import re
from typing import Any, Final

from openresource.builds.files import Files
from openresource.builds.findings import Finding
from openresource.builds.python_code import python_sources

GENERATED_FILE: Final = "requirements.cog.txt"
YAML_LINES_MAX: Final = 500
_PAIR = re.compile(
    r"""(?P<indent> *)(?P<dash>- )?(?P<key>["']?[A-Za-z_][A-Za-z0-9_-]*["']?):(?:\s+(?P<value>.*))?$"""
)
_ITEM = re.compile(r"(?P<indent> *)- (?P<value>.*)$")
_TARGET = re.compile(r"([A-Za-z0-9_./-]{1,200})\.py:([A-Za-z_][A-Za-z0-9_]{0,63})")


def detect_cog(files: Files) -> Finding | None:
    """A cog.yaml that names what predicts."""
    if "cog.yaml" not in files:
        return None
    content = read_plain_yaml(files.text("cog.yaml"))
    target = _TARGET.fullmatch(str(content.get("predict") or ""))
    if target is None or f"{target[1]}.py" not in files:
        return None
    build = content.get("build")
    build = build if isinstance(build, dict) else {}
    remarks: list[str] = []
    made: dict[str, bytes] = {}
    requirements = str(build.get("python_requirements") or "")
    packages = build.get("python_packages")
    if isinstance(packages, list) and packages:
        made[GENERATED_FILE] = ("\n".join(str(one) for one in packages) + "\n").encode()
        requirements = GENERATED_FILE
        remarks.append(f"{GENERATED_FILE} is made from python_packages of cog.yaml.")
    if isinstance(build.get("run"), list) and build["run"]:
        remarks.append("The commands below build.run of cog.yaml are not run; add what they install by hand.")
    system = build.get("system_packages")
    wanted = str(build.get("python_version") or "")
    if wanted:
        remarks.append(f"cog.yaml asks for Python {wanted[:20]}; it runs with the one that is here.")
    if not any(source.file == f"{target[1]}.py" for source in python_sources(files)):
        remarks.append(f"{target[1]}.py cannot be parsed by this Python.")
    is_gpu = str(build.get("gpu", "")).lower() == "true"
    return Finding(
        "python",
        "python",
        f"cog.yaml says that {target[1]}.py:{target[2]} predicts.",
        entry=f"{target[1].replace('/', '.')}:{target[2]}",
        requirements=requirements if requirements in files or requirements in made else "",
        system=tuple(str(one) for one in system) if isinstance(system, list) else (),
        memory="2Gi" if is_gpu else "1Gi",
        gpu_count=1 if is_gpu else 0,
        remarks=tuple(remarks),
        files=made,
    )


def read_plain_yaml(text: str) -> dict[str, Any]:
    """The plain part of YAML that such pages are made of: nested keys, lists of texts, texts. What is more is left out."""
    root: dict[str, Any] = {}
    # Where we are: indentation and the table or list that is filled there.
    places: list[tuple[int, dict[str, Any] | list[Any]]] = [(-1, root)]
    pending: tuple[int, dict[str, Any], str] | None = None
    for line in text.splitlines()[:YAML_LINES_MAX]:
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        item, pair = _ITEM.match(line), _PAIR.match(line)
        indent = len(line) - len(line.lstrip())
        if item is not None:
            if pending is not None and indent >= pending[0]:
                values: list[Any] = []
                pending[1][pending[2]] = values
                places.append((indent, values))
                pending = None
            while len(places) > 1 and (places[-1][0] > indent or not isinstance(places[-1][1], list)):
                places.pop()
            if isinstance(places[-1][1], list) and len(places[-1][1]) < 200:
                places[-1][1].append(_scalar(item["value"]))
            continue
        if pair is None:
            continue
        if pending is not None and indent > pending[0]:
            table: dict[str, Any] = {}
            pending[1][pending[2]] = table
            places.append((indent, table))
        pending = None
        while len(places) > 1 and (places[-1][0] > indent or not isinstance(places[-1][1], dict)):
            places.pop()
        top = places[-1][1]
        assert isinstance(top, dict)
        key = pair["key"].strip("\"'")
        value = (pair["value"] or "").strip()
        if value and not value.startswith("#"):
            top[key] = _flow(value)
        else:
            pending = (indent, top, key)
    return root


def _flow(value: str) -> Any:
    if value.startswith("[") and value.endswith("]"):
        return [_scalar(part) for part in value[1:-1].split(",") if part.strip()]
    return _scalar(value)


def _scalar(value: str) -> str:
    text = value.strip()
    if len(text) >= 2 and text[0] == text[-1] and text[0] in "\"'":
        return text[1:-1]
    return text.partition(" #")[0].strip()
