"""Finds out what a driver reaches by really starting a program: what a machine promises and what it does differ."""

from __future__ import annotations

import asyncio
import os
import tempfile
import threading
from collections.abc import Callable, Coroutine, Mapping
from pathlib import Path
from typing import Any, Final, Literal

from openresource.market.manifests import MANIFEST_FILE, parse_manifest
from openresource.primitives.errors import Refusal
from openresource.sandbox.driver import Capabilities, Instance, Limits, ProgramCall, Release, Sandbox
from openresource.sandbox.groups import make_groups

PROBE_SECONDS_MAX: Final = 30.0
WHY_NOT_CHARACTERS_MAX: Final = 500
_MANIFEST: Final = 'name = "probe"\n[run]\nkind = "python"\nentry = "probe:answer"\n'
_PROGRAM: Final = "def answer() -> int:\n    return 42\n"
_LIMITS: Final = Limits(memory_bytes=128 << 20, disk_bytes=1 << 20, processes=8, startup_seconds=20.0)


def probe_by_start(
    sandbox: Sandbox,
    level: str,
    *,
    disk: Literal["tmpfs", "watched", "none"],
    uses_groups: bool,
    **known: Any,
) -> Capabilities:
    """Capabilities after a start, a call and a stop, or why it did not come to that."""
    files = {MANIFEST_FILE: _MANIFEST, "probe.py": _PROGRAM}
    why_not = why_not_started(sandbox, files, "answer", b"{}", b"42")
    as_root = os.geteuid() == 0
    if why_not:
        return Capabilities(level, False, why_not, as_root=as_root, **known)
    groups = make_groups(_LIMITS) if uses_groups else None
    exact = groups is not None
    has_cpu = groups is not None and "cpu" in groups.controllers
    if groups is not None:
        groups.remove()
    return Capabilities(
        level,
        True,
        memory="cgroup" if exact else "rlimit",
        processes="cgroup" if exact else "rlimit",
        cpu="cgroup" if has_cpu else "none",
        disk=disk,
        as_root=as_root,
        **known,
    )


def why_not_started(
    sandbox: Sandbox, files: Mapping[str, str], method: str, body: bytes, answer: bytes
) -> str:
    """Why a program of these files cannot be run here; empty if its answer holds what is expected."""
    with tempfile.TemporaryDirectory(prefix="openresource-probe-") as name:
        folder = Path(name)
        for file, text in files.items():
            (folder / file).write_text(text)
        release = Release(folder, parse_manifest(files[MANIFEST_FILE]))
        return in_own_loop(lambda: _start(sandbox, release, method, body, answer))


def in_own_loop(trying: Callable[[], Coroutine[Any, Any, str]]) -> str:
    """What a trial says, or why it did not come to that; the caller may be inside an event loop already."""
    outcome: list[str] = []
    thread = threading.Thread(target=lambda: outcome.append(_try(trying)), name="sandbox-probe")
    thread.start()
    thread.join()
    return outcome[0]


def _try(trying: Callable[[], Coroutine[Any, Any, str]]) -> str:
    try:
        with asyncio.Runner(loop_factory=asyncio.SelectorEventLoop) as runner:
            return runner.run(trying())
    except TimeoutError:
        return "it took too long"
    except Refusal as refusal:
        return f"{refusal.message} {refusal.facts.get('stderr', '')}".strip()[:WHY_NOT_CHARACTERS_MAX]
    except OSError as problem:
        return f"{problem.strerror or problem}"[:WHY_NOT_CHARACTERS_MAX]


async def _start(sandbox: Sandbox, release: Release, method: str, body: bytes, answer: bytes) -> str:
    async with asyncio.timeout(PROBE_SECONDS_MAX):
        instance: Instance = await sandbox.start(release, _LIMITS)
    try:
        reply = await instance.call(ProgramCall(method, f"/{method}", body, deadline_seconds=10.0))
        return (
            "" if isinstance(reply.body, bytes) and answer in reply.body else "a program gave a wrong answer"
        )
    finally:
        await instance.stop()
