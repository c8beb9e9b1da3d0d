"""Starts the launcher with a plan: the one place from which a process of a program is made."""

from __future__ import annotations

import ctypes
import json
import os
import resource
import subprocess
import sys
from collections.abc import Mapping, Sequence
from typing import Any, Final

from openresource.sandbox.driver import Limits
from openresource.sandbox.processes import Ends, Process
from openresource.sandbox.zygotes import LAUNCHER, launch_by_zygote, launcher_environment

PR_SET_CHILD_SUBREAPER: Final = 36


def become_subreaper() -> None:
    """Orphans of programs come to this process, which reaps them, and not to a PID 1 that may never do."""
    ctypes.CDLL(None, use_errno=True).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def launch(plan: Mapping[str, Any], ends: Ends, keep: Sequence[int]) -> Process:
    """Run the launcher; it has become the program, or ended, when its descriptors close."""
    plan_file = memory_file(json.dumps(plan).encode())
    standard = {0: ends.child_stdin, 1: ends.child_stdout, 2: ends.child_stderr}
    try:
        launched = launch_by_zygote({**standard, **{number: number for number in keep}}, plan_file)
        if launched is not None:
            return launched
        return subprocess.Popen(
            [sys.executable, "-I", "-S", str(LAUNCHER), str(plan_file)],
            stdin=ends.child_stdin,
            stdout=ends.child_stdout,
            stderr=ends.child_stderr,
            pass_fds=(*keep, plan_file),
            cwd="/",
            env=launcher_environment(),
            start_new_session=True,
        )
    finally:
        os.close(plan_file)


def memory_file(data: bytes) -> int:
    """An unnamed file that holds these bytes, at its beginning."""
    descriptor = os.memfd_create("openresource", os.MFD_CLOEXEC)
    with open(descriptor, "wb", closefd=False) as file:
        file.write(data)
    os.lseek(descriptor, 0, os.SEEK_SET)
    return descriptor


def resource_limits(limits: Limits) -> dict[str, int]:
    """Limits of every single process; DATA and not AS, which Node and numerical libraries reserve far beyond use."""
    return {
        "RLIMIT_DATA": limits.memory_bytes,
        "RLIMIT_FSIZE": limits.disk_bytes,
        "RLIMIT_NOFILE": limits.open_files,
        "RLIMIT_CORE": 0,
        "RLIMIT_MEMLOCK": 64 << 10,
        "RLIMIT_MSGQUEUE": 0,
        "RLIMIT_SIGPENDING": 256,
        "RLIMIT_STACK": 8 << 20,
    }


def limit_processes(pid: int, count: int) -> None:
    """Bound the processes below one that waits to become a program."""
    resource.prlimit(pid, resource.RLIMIT_NPROC, (count, count))


def counts_processes_per_namespace() -> bool:
    """Since Linux 5.14 a user namespace has its own count; before, all of the user's processes count."""
    major, minor = os.uname().release.split(".")[:2]
    return (int(major), int(minor)) >= (5, 14)
