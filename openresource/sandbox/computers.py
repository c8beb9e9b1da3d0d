"""A sandbox that people work in: shells and commands in it, each with its input, its output and its exit code.

It is an ordinary program to its driver, so every wall and every limit of programs holds for people too.
"""

from __future__ import annotations

import base64
import binascii
import json
import secrets
import shutil
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from openresource.market.manifests import MANIFEST_FILE, parse_manifest
from openresource.sandbox.driver import Instance, Limits, ProgramCall, ProgramCrashed, Release, Sandbox
from openresource.sandbox.layout import GUEST_FOLDER

GUEST_FILE: Final = "shell_guest.py"
CALL_SECONDS: Final = 60.0
WRITE_BYTES_MAX: Final = 1 << 16
READ_BYTES_MAX: Final = 1 << 17
ANSWER_BYTES_MAX: Final = 1 << 20
SESSIONS_MAX: Final = 16
# For each session one call reads, one writes, and one may be in between.
CALLS_MAX: Final = 4 * SESSIONS_MAX
COMMAND_CHARACTERS_MAX: Final = 32_768
TERMINAL_SIDE_MAX: Final = 10_000
METHODS: Final = ("open", "read", "write", "resize", "signal", "hangup")
_MANIFEST: Final = (
    'name = "computer"\n[run]\nkind = "jsonl"\ncommand = ["python3", "-I", "-S", "-B", "shell.py"]\n'
    + "".join(f'[[methods]]\nname = "{name}"\n' for name in METHODS)
)


@dataclass(frozen=True, slots=True)
class Terminal:
    """What a person sits at."""

    name: str
    rows: int
    columns: int


@dataclass(frozen=True, slots=True)
class Said:
    """What a command has written since it was last read."""

    out: bytes = b""
    err: bytes = b""


@dataclass(frozen=True, slots=True)
class Ended:
    """How a command ended: an exit code, or the name of a signal."""

    exit_code: int = 0
    signal: str = ""


def prepare_computer(folder: Path) -> Release:
    """The release of a computer, laid down in a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / MANIFEST_FILE).write_text(_MANIFEST)
    shutil.copyfile(GUEST_FOLDER / GUEST_FILE, folder / "shell.py")
    return Release(folder, parse_manifest(_MANIFEST))


def computer_limits(limits: Limits) -> Limits:
    """Limits of one computer: those asked for, with room for the calls that carry its sessions."""
    return Limits(
        memory_bytes=limits.memory_bytes,
        disk_bytes=limits.disk_bytes,
        input_bytes=ANSWER_BYTES_MAX,
        output_bytes=ANSWER_BYTES_MAX,
        processes=limits.processes,
        open_files=limits.open_files,
        cpu=limits.cpu,
        concurrency=CALLS_MAX,
        call_seconds=CALL_SECONDS,
        idle_cpu_seconds=limits.idle_cpu_seconds,
    )


class Computer:
    """A running sandbox with a guest of ours in it."""

    def __init__(self, instance: Instance) -> None:
        self._instance = instance

    @classmethod
    async def start(cls, sandbox: Sandbox, release: Release, limits: Limits) -> Computer:
        """A computer with nothing running in it."""
        return cls(await sandbox.start(release, computer_limits(limits)))

    @property
    def is_alive(self) -> bool:
        """Whether shells can be opened."""
        return self._instance.alive

    async def open(self, command: str | None, terminal: Terminal | None) -> Shell:
        """A shell, or one command."""
        name = secrets.token_hex(8)
        given = None
        if terminal is not None:
            given = {"name": terminal.name, "rows": side(terminal.rows), "columns": side(terminal.columns)}
        await self.ask("open", {"session": name, "command": command, "terminal": given})
        return Shell(self, name)

    async def ask(self, method: str, given: dict[str, Any]) -> dict[str, Any]:
        """One call to the guest; what it answers was written by a stranger."""
        body = json.dumps(given).encode()
        reply = await self._instance.call(
            ProgramCall(method, f"/{method}", body, deadline_seconds=CALL_SECONDS)
        )
        if not isinstance(reply.body, bytes):
            raise ProgramCrashed(reason="it streamed where it should answer", stderr="")
        try:
            value = json.loads(reply.body)
        except (ValueError, RecursionError):
            value = None
        if not isinstance(value, dict):
            raise ProgramCrashed(reason="it answered in a form of its own", stderr="")
        return value

    async def stop(self) -> None:
        """Ends every process of it."""
        await self._instance.stop()


class Shell:
    """One session in a computer."""

    def __init__(self, computer: Computer, name: str) -> None:
        self._computer = computer
        self._name = name

    async def said(self) -> AsyncIterator[Said | Ended]:
        """Everything that it writes, and at last how it ended; nothing is read before it is asked for."""
        while True:
            answer = await self._computer.ask("read", {"session": self._name})
            if "exit" in answer or "signal" in answer:
                yield _ended(answer)
                return
            said = Said(_bytes(answer.get("out")), _bytes(answer.get("err")))
            if said.out or said.err:
                yield said

    async def write(self, data: bytes, *, ends: bool = False) -> None:
        """Input for it; returns when most of it is taken."""
        for start in range(0, max(1, len(data)), WRITE_BYTES_MAX):
            part = data[start : start + WRITE_BYTES_MAX]
            is_last = start + WRITE_BYTES_MAX >= len(data)
            waiting = await self._send(part, ends=ends and is_last)
            while waiting > WRITE_BYTES_MAX * 4:
                waiting = await self._send(b"", ends=False)

    async def resize(self, rows: int, columns: int) -> None:
        """The window has another size."""
        given = {"session": self._name, "rows": side(rows), "columns": side(columns)}
        await self._computer.ask("resize", given)

    async def signal(self, name: str) -> None:
        """A signal for what runs in the foreground."""
        await self._computer.ask("signal", {"session": self._name, "name": name})

    async def hang_up(self) -> None:
        """Nobody is there any more."""
        await self._computer.ask("hangup", {"session": self._name})

    async def _send(self, data: bytes, *, ends: bool) -> int:
        given = {"session": self._name, "data": base64.b64encode(data).decode(), "end": ends}
        waiting = (await self._computer.ask("write", given)).get("waiting")
        return waiting if type(waiting) is int else 0


def side(length: int) -> int:
    """A side of a window within sensible bounds."""
    return max(1, min(int(length), TERMINAL_SIDE_MAX))


def _ended(answer: dict[str, Any]) -> Ended:
    code, signal = answer.get("exit"), answer.get("signal")
    if isinstance(signal, str) and signal.isalnum() and len(signal) < 20:
        return Ended(signal=signal)
    return Ended(exit_code=code if type(code) is int and 0 <= code <= 255 else 255)


def _bytes(value: Any) -> bytes:
    if value is None:
        return b""
    try:
        data = base64.b64decode(value, validate=True)
    except (binascii.Error, ValueError, TypeError):
        raise ProgramCrashed(reason="it wrote what cannot be read", stderr="") from None
    if len(data) > READ_BYTES_MAX:
        raise ProgramCrashed(reason="it wrote too much at once", stderr="")
    return data
