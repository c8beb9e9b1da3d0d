"""Which packages a Python project asks for, and where it says so."""

from __future__ import annotations

import ast
import re
from collections.abc import Mapping
from typing import Any, Final

from openresource.builds.facts import pyproject_of, table_in, toml_object
from openresource.builds.files import Files
from openresource.builds.python_code import Source, third_party

REQUIREMENT_FILES: Final = (
    "requirements.txt", "requirements/base.txt", "requirements/prod.txt", "requirements/production.txt",
    "requirements/requirements.txt", "requirements-prod.txt", "requirements/main.txt",
)  # fmt: skip
GENERATED_FILE: Final = "requirements.txt"
PACKAGES_MAX: Final = 40
# The Pythons that programs find here; a newer one that a project was written with is not insisted on.
OLDEST_MINOR: Final = 11
NEWEST_MINOR: Final = 13
_PYTHON_VERSION = re.compile(r"\b3\.([0-9]{1,2})")
_PYTHON_AT_LEAST = re.compile(r">=\s*3\.([0-9]{1,2})")
SETUP_CHARACTERS_MAX: Final = 100_000
_REQUIREMENT = re.compile(
    r"[A-Za-z0-9][A-Za-z0-9._-]{0,80}(?:\[[A-Za-z0-9,._ -]{1,80}\])?[ A-Za-z0-9.,<>=!~*'\";_()+-]{0,120}"
)
_INSTALL_REQUIRES = re.compile(
    r"^install_requires\s*=[ \t]*((?:.*\n?)(?:^[ \t]+.*\n?|^[ \t]*\n)*)", re.MULTILINE
)
_CARET = re.compile(r"(\^|~)([0-9]{1,6}(?:\.[0-9]{1,6}){0,3})([.a-z0-9]{0,20})")

# Packages that are called otherwise when they are imported.
NAMES_TO_INSTALL: Final = {
    "PIL": "Pillow", "bs4": "beautifulsoup4", "cv2": "opencv-python-headless", "dateutil": "python-dateutil",
    "docx": "python-docx", "dotenv": "python-dotenv", "fitz": "PyMuPDF", "git": "GitPython", "jose": "python-jose",
    "jwt": "PyJWT", "magic": "python-magic", "markdown": "Markdown", "OpenSSL": "pyOpenSSL", "pptx": "python-pptx",
    "serial": "pyserial", "skimage": "scikit-image", "sklearn": "scikit-learn", "slugify": "python-slugify",
    "usb": "pyusb", "yaml": "PyYAML", "zmq": "pyzmq", "Crypto": "pycryptodome", "attr": "attrs", "google": "protobuf",
}  # fmt: skip


def requirements_file(files: Files, root: str = "") -> str:
    """The file that a recipe reads packages from; nothing where a lock says it better or no such file is there."""
    for place in dict.fromkeys((root, "")):
        inside = f"{place}/" if place and place not in ("src", "lib") else ""
        if files.first(f"{inside}uv.lock", f"{inside}poetry.lock") and not inside:
            return ""
        named = files.first(*(f"{inside}{name}" for name in REQUIREMENT_FILES))
        if named:
            return named
        project = toml_object(files.text(f"{inside}pyproject.toml"))
        if table_in(project, "project").get("dependencies"):
            return f"{inside}pyproject.toml"
    return ""


def packages_asked(files: Files) -> str:
    """Everything that the project says about packages, in lower case: enough to know whether a server is among them."""
    names = (*REQUIREMENT_FILES, "pyproject.toml", "Pipfile", "setup.cfg", "setup.py")
    texts = [files.text(f"{place}{name}") for place in ("", "backend/", "server/", "api/") for name in names]
    return "\n".join(texts).lower()


def asks_for(files: Files, package: str) -> bool:
    """Whether a project names a package among its requirements."""
    return (
        re.search(rf"(?<![\w.-]){re.escape(package)}(?![\w.-]*=\s*\[)(?![\w-])", packages_asked(files))
        is not None
    )


def generated_requirements(
    files: Files, sources: list[Source], root: str = ""
) -> tuple[dict[str, bytes], tuple[str, ...]]:
    """A requirements file where no recipe could read one: from what the project says elsewhere, else from its imports."""
    if requirements_file(files, root) or files.first("uv.lock", "poetry.lock"):
        return {}, ()
    packages, where = _stated(files, f"{root}/" if root not in ("", "src", "lib") else "")
    if not packages and not files.first("setup.py", "setup.cfg") and "project" not in toml_object(
        files.text("pyproject.toml")
    ):  # fmt: skip
        packages = [NAMES_TO_INSTALL.get(name, name) for name in third_party(sources, files)]
        where = "the imports, as no file names its packages"
    packages = [name for name in packages if _REQUIREMENT.fullmatch(name)][:PACKAGES_MAX]
    if not packages:
        return {}, ()
    remark = f"{GENERATED_FILE} is made from {where}: {', '.join(packages)}."
    return {GENERATED_FILE: ("\n".join(packages) + "\n").encode()}, (remark,)


def _stated(files: Files, root: str) -> tuple[list[str], str]:
    """The packages that setup.py, setup.cfg, Poetry's table or a Pipfile name, and which of them it was."""
    # What a library is developed with is not what it needs.
    is_library = bool(files.first("setup.py", "setup.cfg") or pyproject_of(files))
    for place in dict.fromkeys((root, "")):
        poetry = toml_object(files.text(f"{place}pyproject.toml"))
        found = {
            "setup.py": _of_setup(files.text(f"{place}setup.py")),
            "setup.cfg": _of_setup_cfg(files.text(f"{place}setup.cfg")),
            "pyproject.toml": _of_table(table_in(poetry, "tool", "poetry", "dependencies")),
            "Pipfile": _of_table(table_in(toml_object(files.text(f"{place}Pipfile")), "packages")),
        }
        for name, packages in found.items():
            if packages and not (name == "Pipfile" and is_library):
                return packages, place + name
    return [], ""


def _of_setup(text: str) -> list[str]:
    """install_requires of a setup.py, where it is written out or a name for a list that is."""
    try:
        tree = ast.parse(text[:SETUP_CHARACTERS_MAX])
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return []
    named = {
        target.id: node.value
        for node in tree.body
        if isinstance(node, ast.Assign)
        for target in node.targets
        if isinstance(target, ast.Name)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.keyword) and node.arg == "install_requires":
            value = named.get(node.value.id, node.value) if isinstance(node.value, ast.Name) else node.value
            if isinstance(value, ast.List | ast.Tuple):
                return [
                    part.value
                    for part in value.elts
                    if isinstance(part, ast.Constant) and isinstance(part.value, str)
                ]
    return []


def _of_setup_cfg(text: str) -> list[str]:
    match = _INSTALL_REQUIRES.search(text)
    return [line.strip() for line in match[1].splitlines() if line.strip()] if match is not None else []


def _of_table(packages: Mapping[str, Any]) -> list[str]:
    """Poetry's and Pipenv's wishes as pip writes them."""
    found = []
    for name, wish in packages.items():
        extras = ""
        if isinstance(wish, Mapping):
            named = wish.get("extras")
            extras = f"[{','.join(map(str, named))}]" if isinstance(named, list) and named else ""
            wish = "" if wish.get("optional") else wish.get("version", "*")
        if name.lower() == "python" or not isinstance(wish, str) or not wish:
            continue
        found.append(name + extras + _wish(wish.strip()))
    return found


def _wish(wish: str) -> str:
    caret = _CARET.fullmatch(wish)
    if caret is None:
        return "" if wish == "*" else wish if wish[:1] in "<>=!~" else f"=={wish}"
    parts = [int(part) for part in caret[2].split(".")]
    kept = next((number for number, part in enumerate(parts) if part), len(parts) - 1)
    if caret[1] == "~":
        kept = min(1, len(parts) - 1)
    upper = [*parts[:kept], parts[kept] + 1]
    return f">={caret[2]}{caret[3]},<{'.'.join(map(str, upper))}"


def python_wanted(files: Files) -> str:
    """The Python that a project needs, where that is more than every machine here has."""
    wanted = str(pyproject_of(files).get("requires-python") or "")
    match = _PYTHON_AT_LEAST.match(wanted)
    if match is None:
        match = _PYTHON_VERSION.search(files.text(".python-version")[:200] or files.text("runtime.txt")[:200])
    minor = min(int(match[1]), NEWEST_MINOR) if match is not None else 0
    return f">=3.{minor}" if minor > OLDEST_MINOR else ""


def project_scripts(files: Files) -> dict[str, str]:
    """The commands of a project that any installer of packages can install: those of its [project] table."""
    return _texts(table_in(toml_object(files.text("pyproject.toml")), "project", "scripts"))


def console_scripts(files: Files) -> dict[str, str]:
    """The commands that a project installs: name → module:function."""
    project = pyproject_of(files)
    scripts = project.get("scripts")
    found = _texts(scripts)
    if not found:
        found = _texts(table_in(toml_object(files.text("pyproject.toml")), "tool", "poetry", "scripts"))
    if not found:
        text = files.text("setup.cfg") + "\n" + files.text("setup.py")
        _, _, after = text.partition("console_scripts")
        for name, target in re.findall(r"([\w.-]{1,60})\s*=\s*([\w.]{1,200}:[\w.]{1,100})", after[:2_000]):
            found[name] = target
    return found


def _texts(scripts: Any) -> dict[str, str]:
    if not isinstance(scripts, Mapping):
        return {}
    return {
        str(name): target for name, target in scripts.items() if isinstance(target, str) and ":" in target
    }
