"""Images for tests, made of what this machine has: no registry is asked for anything."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tempfile
from pathlib import Path

from openresource.adapters.oci.images import make_archive

PYTHON = Path("/usr/bin/python3")
LEFT_OUT = ("test", "tests", "idlelib", "tkinter", "turtledemo", "ensurepip", "distutils", "lib2to3", "__pycache__",
            "dist-packages", "pydoc_data", "unittest", "sqlite3")  # fmt: skip


def python_image(folder: Path) -> Path:
    """An archive with this machine's own Python and its standard library."""
    target = folder / "python.tar"
    if not target.exists():
        real = Path(os.path.realpath(PYTHON))
        library = Path("/usr/lib", real.name)
        files: dict[str, bytes] = {"usr/bin/python3": real.read_bytes()}
        modules = [
            path for path in library.rglob("*") if path.is_file() and not set(path.parts) & set(LEFT_OUT)
        ]
        for path in modules:
            files[str(path).lstrip("/")] = path.read_bytes()
        extensions = [path for path in modules if path.suffix == ".so"]
        for needed in _libraries([real, *extensions]):
            files[needed.lstrip("/")] = Path(needed).read_bytes()
        fresh = Path(tempfile.mkdtemp(dir=folder), "python.tar")
        fresh.write_bytes(make_archive(files, ["/usr/bin/python3"]))
        fresh.rename(target)
    return target


def can_make_python_image() -> bool:
    """Whether this machine has a Python of its own and can tell what that needs."""
    return PYTHON.exists() and shutil.which("ldd") is not None


def _libraries(binaries: list[Path]) -> set[str]:
    said = subprocess.run(["ldd", *map(str, binaries)], capture_output=True, text=True, check=False).stdout
    return set(re.findall(r"(/[^\s:()]+\.so[^\s:()]*) \(0x", said))
