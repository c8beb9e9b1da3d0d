"""The same attacks as lines of JSON in a container: a wrapper calls the program's methods, an image holds its Python."""

from __future__ import annotations

import shutil
import tempfile
from functools import cache
from pathlib import Path

from tests.sandbox.images import can_make_python_image, python_image

MANIFEST = """
name = "attack"
[run]
kind = "oci"
image = "python.tar"
speaks = "jsonl"
command = ["python3", "-u", "/release/lines.py"]
[[methods]]
name = "attack"
stream = {stream}
[[methods]]
name = "ping"
"""
WRAPPER = """
import inspect, json, os, sys
sys.path.insert(0, "/release")
answers = os.fdopen(os.dup(1), "w", buffering=1)
os.dup2(2, 1)
import program
served = program.Program()
for line in sys.stdin:
    call = json.loads(line)
    number = call["id"]
    try:
        result = getattr(served, call["method"])(**(call["input"] or {}))
        if inspect.isgenerator(result):
            for chunk in result:
                answers.write(json.dumps({"id": number, "chunk": chunk}) + "\\n")
            answers.write(json.dumps({"id": number, "done": True}) + "\\n")
        else:
            answers.write(json.dumps({"id": number, "output": result}) + "\\n")
    except MemoryError:
        sys.stderr.write("MemoryError\\n")
        os._exit(1)
    except Exception as problem:
        answers.write(json.dumps({"id": number, "error": f"{type(problem).__name__}: {problem}"}) + "\\n")
"""


@cache
def archive() -> str:
    """The image, made once for this session."""
    return str(python_image(Path(tempfile.mkdtemp(prefix="openresource-test-image-"))))


def in_container(files: dict[str, str], stream: bool = False) -> tuple[dict[str, str], str, dict[str, str]]:
    """Files, manifest and copies of a Python program as a container."""
    manifest = MANIFEST.replace("{stream}", "true" if stream else "false")
    return {**files, "lines.py": WRAPPER}, manifest, {"python.tar": archive()}


@cache
def engine_missing() -> str:
    """Why no container can be started here; empty if one can."""
    if shutil.which("podman") is None and shutil.which("docker") is None:
        return "neither podman nor docker is installed on this machine"
    if not can_make_python_image():
        return "this machine has no Python in /usr/bin of which an image could be made"
    from openresource.adapters.oci.driver import Oci

    return Oci().probe().why_not


def runsc_missing() -> str:
    """Why gVisor cannot be started here; empty if it can."""
    return "" if shutil.which("runsc") else "runsc is not installed on this machine"
