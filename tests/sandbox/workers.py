"""Workers for tests: this process's own identity, a plain user's, and either where namespaces are refused."""

from __future__ import annotations

import json
import os
import socket
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
STAGE = "/mnt"
IS_ROOT = os.geteuid() == 0
IDENTITIES = ("root", "plain") if IS_ROOT else ("plain",)
# (level, identity); a plain user's machine can only try the plain ones.
MODES = [(level, identity) for identity in IDENTITIES for level in ("bubblewrap", "confined")]
# Drivers of runtimes that this machine may lack, which is then said; a start costs so much there that one identity has
# to do.
EXTRA_MODES = [("gvisor", IDENTITIES[0]), ("oci", IDENTITIES[0])]
# In every worker's environment; no program may find it.
SECRET_NAME, SECRET = "TEST_SECRET", "swordfish-7f3a"
PYTHON = 'name = "attack"\n[run]\nkind = "python"\nentry = "program:Program"\n'
LIMITS: dict[str, Any] = {
    "memory_bytes": 256 << 20,
    "disk_bytes": 8 << 20,
    "processes": 32,
    "startup_seconds": 60.0,
}


def _own_uid() -> tuple[int, socket.socket | None]:
    """A user that no other test process of this machine has: processes are counted per user."""
    if sys.platform != "linux":
        return 61_501, None
    for number in range(61_501, 61_600):
        holder = socket.socket(socket.AF_UNIX)
        try:
            # The kernel gives the name back when this process ends.
            holder.bind(f"\0openresource-test-uid-{number}")
            return number, holder
        except OSError:
            holder.close()
    raise AssertionError("every user for tests is taken")


PLAIN_UID, _uid_holder = _own_uid()


class Worker:
    """One worker process and its two pipes."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    @property
    def pid(self) -> int:
        """Its process number."""
        return self._process.pid

    def kill(self) -> None:
        """End it without a chance to tidy up."""
        self._process.kill()
        self._process.wait()

    def send(self, job: dict[str, Any]) -> None:
        """Send a job and do not wait."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(job) + "\n")
        self._process.stdin.flush()

    def ask(self, job: dict[str, Any]) -> Any:
        """Send a job, wait for its result."""
        self.send(job)
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        assert line, "the worker has ended"
        return json.loads(line)

    def run(
        self,
        level: str,
        files: dict[str, str],
        steps: list[Any],
        manifest: str = PYTHON,
        links: dict[str, str] | None = None,
        copies: dict[str, str] | None = None,
        **limits: Any,
    ) -> Any:
        """Start a program of these files, take these steps, stop it."""
        return self.ask(
            {
                "level": level,
                "files": {"openresource.toml": manifest, **files},
                "links": links or {},
                "copies": copies or {},
                "steps": steps,
                "limits": {**LIMITS, **limits},
            }
        )


@contextmanager
def worker(identity: str, refused: str = "") -> Iterator[Worker]:
    """A worker under an identity, on a machine that refuses what is named."""
    as_somebody_else = IS_ROOT and identity == "plain"
    words = _words(sys.executable, refused)
    environment = {**os.environ, "PYTHONPATH": str(ROOT), SECRET_NAME: SECRET}
    descriptors: tuple[int, ...] = ()
    if as_somebody_else:
        words, descriptors = _as_plain_user(refused)
        environment = {"HOME": "/nonexistent"}
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
        if process.poll() is None:
            process.stdin.close()
        process.wait(60)
        process.stdout.close()


def _words(python: str, refused: str) -> list[str]:
    words = [python, "-m", "tests.sandbox.worker"]
    return [python, "-m", "tests.sandbox.refuse", refused, *words] if refused else words


def _as_plain_user(refused: str) -> tuple[list[str], tuple[int, ...]]:
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
        "argv": _words(f"{STAGE}/python/bin/{version}", refused),
        "folder": f"{STAGE}/repository",
        "env": {
            "PYTHONPATH": f"{STAGE}/repository:{STAGE}/packages",
            "PATH": os.environ["PATH"],
            "HOME": "/nonexistent",
            # An interpreter built with a shared library looks for it where it was installed.
            "LD_LIBRARY_PATH": f"{STAGE}/python/lib",
            SECRET_NAME: SECRET,
        },
    }
    descriptor = memory_file(json.dumps(plan).encode())
    return [sys.executable, "-I", "-S", str(LAUNCHER), str(descriptor)], (descriptor,)
