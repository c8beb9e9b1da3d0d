"""Which packages a Python project asks for, and where it says so."""

from __future__ import annotations

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
_PYTHON_AT_LEAST = re.compile(r">=\s*3\.([0-9]{1,2})")
_PACKAGE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,80}")

# Packages that are called otherwise when they are imported.
NAMES_TO_INSTALL: Final = {
    "PIL": "Pillow", "bs4": "beautifulsoup4", "cv2": "opencv-python-headless", "dateutil": "python-dateutil",
    "docx": "python-docx", "dotenv": "python-dotenv", "fitz": "PyMuPDF", "git": "GitPython", "jose": "python-jose",
    "jwt": "PyJWT", "magic": "python-magic", "markdown": "Markdown", "OpenSSL": "pyOpenSSL", "pptx": "python-pptx",
    "serial": "pyserial", "skimage": "scikit-image", "sklearn": "scikit-learn", "slugify": "python-slugify",
    "usb": "pyusb", "yaml": "PyYAML", "zmq": "pyzmq", "Crypto": "pycryptodome", "attr": "attrs", "google": "protobuf",
}  # fmt: skip


def requirements_file(files: Files) -> str:
    """The file that names the packages of a project, if there is one."""
    named = files.first(*REQUIREMENT_FILES)
    if named:
        return named
    project = pyproject_of(files)
    if project.get("dependencies"):
        return "pyproject.toml"
    if "Pipfile" in files:
        return "Pipfile"
    return "setup.cfg" if "install_requires" in files.text("setup.cfg") else (
        "setup.py" if "install_requires" in files.text("setup.py") else ""
    )  # fmt: skip


def packages_asked(files: Files) -> str:
    """Everything that the project says about packages, in lower case: enough to know whether a server is among them."""
    texts = [files.text(name) for name in REQUIREMENT_FILES if name in files]
    texts += [
        files.text(name) for name in ("pyproject.toml", "Pipfile", "setup.cfg", "setup.py") if name in files
    ]
    return "\n".join(texts).lower()


def asks_for(files: Files, package: str) -> bool:
    """Whether a project names a package among its requirements."""
    return (
        re.search(rf"(?<![\w.-]){re.escape(package)}(?![\w.-]*=\s*\[)(?![\w-])", packages_asked(files))
        is not None
    )


def generated_requirements(files: Files, sources: list[Source]) -> tuple[dict[str, bytes], tuple[str, ...]]:
    """A requirements file from the imports, where a project names none; with the remark that says so."""
    if requirements_file(files) or "pyproject.toml" in files or "setup.py" in files or "setup.cfg" in files:
        return {}, ()
    packages = [
        NAMES_TO_INSTALL.get(name, name) for name in third_party(sources, files) if _PACKAGE.fullmatch(name)
    ][:PACKAGES_MAX]
    if not packages:
        return {}, ()
    remark = (
        f"No file names its packages, so {GENERATED_FILE} is made from the imports: {', '.join(packages)}."
    )
    return {GENERATED_FILE: ("\n".join(packages) + "\n").encode()}, (remark,)


def python_wanted(files: Files) -> str:
    """The Python that a project needs, where that is more than every machine here has."""
    wanted = str(pyproject_of(files).get("requires-python") or "")
    match = _PYTHON_AT_LEAST.match(wanted)
    return f">=3.{match[1]}" if match is not None and int(match[1]) >= 12 else ""


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
