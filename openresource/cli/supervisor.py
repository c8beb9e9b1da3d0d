"""Child processes that belong together: started at once, awaited by their ready lines, ended in order.

A child says on its first line of standard output, as JSON, whether it is ready; the rest goes to a log file. Should
this process be killed, the kernel ends its children as well.
"""

import asyncio
import contextlib
import ctypes
import json
import os
import signal
import sys
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from openresource.primitives.errors import Refusal

READY_SECONDS: Final = 180.0
STOP_SECONDS: Final = 40.0
LINE_BYTES_MAX: Final = 1024 * 1024
LINES_KEPT: Final = 200
LOG_READ_CHARACTERS_MAX: Final = 4_000
PR_SET_PDEATHSIG: Final = 1


class ChildDidNotStart(Refusal):
    template = "{name} did not start: {reason}"
    way_out = "Its log is {log}."


class ChildEnded(Refusal):
    template = "{name} ended by itself with code {exit_code}."
    way_out = "Its log is {log}. Run the command again; what was final is on the disk."


@dataclass(slots=True)
class Child:
    """One process: its command, its log, what it said when it was ready."""

    name: str
    arguments: tuple[str, ...]
    log: Path
    facts: dict[str, Any] = field(default_factory=dict)
    started_at: float = 0.0
    ready_seconds: float = 0.0
    lines: deque[str] = field(default_factory=lambda: deque(maxlen=LINES_KEPT))
    process: asyncio.subprocess.Process | None = None
    _draining: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Start the process; `ready` says when it can be used."""
        self.started_at = time.monotonic()
        self.log.parent.mkdir(parents=True, exist_ok=True)
        with self.log.open("ab") as log:
            self.process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                *self.arguments,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=log,
                limit=LINE_BYTES_MAX,
                env=child_environment(),
                # Ctrl-C reaches this process alone, which ends its children in order.
                start_new_session=True,
                preexec_fn=_die_with_parent if sys.platform == "linux" else None,
            )

    async def ready(self) -> dict[str, Any]:
        """Wait for the ready line; what came instead becomes a refusal."""
        assert self.process is not None and self.process.stdout is not None
        while True:
            try:
                async with asyncio.timeout(READY_SECONDS):
                    line = await self.process.stdout.readline()
            except TimeoutError:
                raise self._did_not_start(f"it was not ready within {READY_SECONDS:.0f} seconds.") from None
            if not line:
                await self.process.wait()
                raise self._did_not_start(self._last_words())
            facts = _parsed(line)
            if facts.get("ready") is True:
                self.facts = facts
                self.ready_seconds = time.monotonic() - self.started_at
                self._draining = asyncio.create_task(self._drain())
                return facts
            if isinstance(facts.get("error"), dict):
                error = facts["error"]
                raise ChildDidNotStart(
                    f"{self.name} did not start: {error.get('message')}",
                    remedy=str(error.get("remedy") or ""),
                )

    async def ended(self) -> int:
        """Wait until it ends by itself."""
        assert self.process is not None
        return await self.process.wait()

    async def stop(self) -> None:
        """Ask it to end, wait for it, and kill it if it does not."""
        process = self.process
        if process is None:
            return
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                process.send_signal(signal.SIGTERM)
        try:
            async with asyncio.timeout(STOP_SECONDS):
                await process.wait()
        except TimeoutError:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            await process.wait()
        if self._draining is not None:
            await self._draining
            self._draining = None

    async def _drain(self) -> None:
        # A pipe that nobody reads would stop the child.
        assert self.process is not None and self.process.stdout is not None
        while line := await self.process.stdout.readline():
            self.lines.append(line.decode("utf-8", "replace").rstrip())

    def _did_not_start(self, reason: str) -> ChildDidNotStart:
        return ChildDidNotStart(name=self.name, reason=reason, log=str(self.log))

    def _last_words(self) -> str:
        """The last line of its log."""
        try:
            lines = self.log.read_text(errors="replace")[-LOG_READ_CHARACTERS_MAX:].strip().splitlines()
        except OSError:
            lines = []
        return lines[-1] if lines else "it said nothing."


class Supervisor:
    """A family of children; later ones end first."""

    def __init__(self) -> None:
        self.children: list[Child] = []
        self.is_stopping = False

    async def start(self, children: Sequence[Child]) -> None:
        """Start several at once, without waiting for them."""
        self.children.extend(children)
        await asyncio.gather(*(child.start() for child in children))

    async def watch(self) -> None:
        """Returns never; raises when a child ends that nobody asked to end."""
        waits = {asyncio.create_task(child.ended()): child for child in self.children}
        try:
            done, _ = await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for wait in waits:
                wait.cancel()
        ended = done.pop()
        child = waits[ended]
        raise ChildEnded(name=child.name, exit_code=ended.result(), log=str(child.log))

    async def stop(self, groups: Sequence[Sequence[str]]) -> None:
        """End the children group by group, those of one group at the same time, the rest last."""
        self.is_stopping = True
        named = {name for group in groups for name in group}
        rest = [child.name for child in self.children if child.name not in named]
        for group in (*groups, rest):
            await asyncio.gather(*(child.stop() for child in self.children if child.name in group))
        self.children.clear()


def child_environment() -> dict[str, str]:
    """The environment of children: ours, without what would point them at another home or node."""
    hidden = ("OPENRESOURCE_HOME", "OPENRESOURCE_NODE", "OPENRESOURCE_PASSPHRASE_FILE")
    return {name: value for name, value in os.environ.items() if name not in hidden}


def _parsed(line: bytes) -> dict[str, Any]:
    try:
        found = json.loads(line)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _die_with_parent() -> None:
    libc.prctl(PR_SET_PDEATHSIG, signal.SIGTERM)


# Loaded before any fork: afterwards nothing may be allocated.
libc: Any = ctypes.CDLL(None) if sys.platform == "linux" else None
