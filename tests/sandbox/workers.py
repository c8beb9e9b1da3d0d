"""Workers for tests: this process's own identity, a plain user's, and either where namespaces are refused."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import sysconfig
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import openresource
from openresource.sandbox.launching import LAUNCHER, memory_file

ROOT = Path(openresource.__file__).parent.parent
PLAIN_UID = 61_501
STAGE = "/mnt"
IS_ROOT = os.geteuid() == 0
# (level, identity); a plain user's machine can only try the plain ones.
MODES = [
    (level, identity)
    for identity in (("root", "plain") if IS_ROOT else ("plain",))
    for level in ("bubblewrap", "confined")
]
PYTHON = 'name = "attack"\n[run]\nkind = "python"\nentry = "program:Program"\n'
LIMITS: dict[str, Any] = {
    "memory_bytes": 256 << 20,
    "disk_bytes": 8 << 20,
    "processes": 32,
    "startup_seconds": 30.0,
}


class Worker:
    """One worker process and its two pipes."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def ask(self, job: dict[str, Any]) -> Any:
        """Send a job, wait for its result."""
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.write(json.dumps(job) + "\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        assert line, "the worker has ended"
        return json.loads(line)

    def run(
        self, level: str, files: dict[str, str], steps: list[Any], manifest: str = PYTHON, **limits: Any
    ) -> Any:
        """Start a program of these files, take these steps, stop it."""
        return self.ask(
            {
                "level": level,
                "files": {"openresource.toml": manifest, **files},
                "steps": steps,
                "limits": {**LIMITS, **limits},
            }
        )


@contextmanager
def worker(identity: str, prefix: list[str] | None = None) -> Iterator[Worker]:
    """A worker under an identity; `prefix` is a command that runs it, such as one that refuses namespaces."""
    as_somebody_else = IS_ROOT and identity == "plain"
    words = [*(prefix or []), sys.executable, "-m", "tests.sandbox.worker"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    descriptors: tuple[int, ...] = ()
    if as_somebody_else:
        words, descriptors = _as_plain_user(prefix or [])
        environment = {}
    process = subprocess.Popen(
        words,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        env=environment,
        pass_fds=descriptors,
    )
    for descriptor in descriptors:
        os.close(descriptor)
    try:
        yield Worker(process)
    finally:
        assert process.stdin is not None and process.stdout is not None
        process.stdin.close()
        process.wait(60)
        process.stdout.close()


def _as_plain_user(prefix: list[str]) -> tuple[list[str], tuple[int, ...]]:
    """The worker under another uid, which sees root's Python and packages through private mounts."""
    version = f"python3.{sys.version_info.minor}"
    plan = {
        "stage": {
            "point": STAGE,
            "binds": [
                (os.path.realpath(sys.base_prefix), "python"),
                (str(ROOT), "repository"),
                (sysconfig.get_paths()["purelib"], "packages"),
            ],
        },
        "uid": PLAIN_UID,
        "argv": [
            f"{STAGE}/python/bin/{version}",
            *[word.replace(str(ROOT), f"{STAGE}/repository") for word in prefix[1:]],
            *([f"{STAGE}/python/bin/{version}"] if prefix else []),
            "-m",
            "tests.sandbox.worker",
        ],
        "folder": f"{STAGE}/repository",
        "env": {
            "PYTHONPATH": f"{STAGE}/repository:{STAGE}/packages",
            "PATH": os.environ["PATH"],
            "HOME": "/nonexistent",
        },
    }
    descriptor = memory_file(json.dumps(plan).encode())
    return [sys.executable, "-I", "-S", str(LAUNCHER), str(descriptor)], (descriptor,)
