"""The audit trail of a machine: who did what, when and from where, in a file that only grows.

Each line carries the digest of itself and of everything before it. Who has noted a digest can see later whether the
lines up to it are still the same.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from openresource.primitives.errors import Refusal
from openresource.primitives.hashing import sha256

log = logging.getLogger("openresource.provider.audits")

FILE_BYTES_MAX: Final = 64 << 20
FILES_KEPT: Final = 16
LINE_BYTES_MAX: Final = 64 << 10
BEGINNING: Final = "0" * 64


class AuditBroken(Refusal):
    template = "Line {line} of the audit trail {file} is not what was written there: {reason}."
    way_out = "Somebody changed the file, or a disk lost a part of it. Compare with a copy."


class Audit:
    """The trail of one machine, open for more."""

    def __init__(self, folder: Path, clock_ms: Callable[[], int]) -> None:
        self._folder = folder
        self._clock_ms = clock_ms
        self._file = -1
        self._bytes = 0
        self._is_synced = True
        self.digest = BEGINNING
        self.entries = 0

    @property
    def path(self) -> Path:
        """The file that grows now."""
        return self._folder / "audit.jsonl"

    def open(self) -> None:
        """Goes on where the trail ends; a line that a crash has torn is cut off, and that is written down."""
        self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._file = os.open(self.path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
        data = self.path.read_bytes()
        whole = data.rfind(b"\n") + 1
        if whole < len(data):
            os.ftruncate(self._file, whole)
        self._bytes = whole
        self.entries, self.digest = verify_lines(self.path.name, data[:whole])
        if whole < len(data):
            self.write("torn", bytes=len(data) - whole)

    def write(self, event: str, *, is_lasting: bool = False, **facts: Any) -> None:
        """One more line; on the disk when this returns if it must last, else with the next `sync`."""
        entry = {"at_ms": self._clock_ms(), "event": event, **facts}
        text = json.dumps(entry, ensure_ascii=True)
        assert len(text) <= LINE_BYTES_MAX, "who writes bounds what is written"
        self.digest = _next(self.digest, text)
        line = json.dumps({"entry": text, "digest": self.digest}).encode() + b"\n"
        self._append(line)
        self.entries += 1
        if is_lasting:
            self.sync()
        if self._bytes > FILE_BYTES_MAX:
            self._turn_over()

    def sync(self) -> None:
        """Everything that was written is on the disk when this returns."""
        if not self._is_synced and self._file >= 0:
            os.fdatasync(self._file)
            self._is_synced = True

    def close(self) -> None:
        """Write no more."""
        self.sync()
        if self._file >= 0:
            os.close(self._file)
            self._file = -1

    def _append(self, line: bytes) -> None:
        while line:
            written = os.write(self._file, line)
            line = line[written:]
            self._bytes += written
        self._is_synced = False

    def _turn_over(self) -> None:
        """A new file, which begins with the digest at which the last one ended."""
        self.close()
        numbers = sorted(int(one.stem.partition("-")[2]) for one in self._folder.glob("audit-*.jsonl"))
        for number in numbers[: max(0, len(numbers) - FILES_KEPT + 1)]:
            log.warning("the oldest part of the audit trail is dropped: audit-%d.jsonl", number)
            (self._folder / f"audit-{number}.jsonl").unlink()
        self.path.rename(self._folder / f"audit-{(numbers[-1] if numbers else 0) + 1}.jsonl")
        before, self.digest, self._bytes = self.digest, BEGINNING, 0
        self._file = os.open(self.path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
        self.write("continued", digest=before)


def verify(file: Path) -> tuple[int, str]:
    """How many lines a trail has and its digest, each line checked against the one before."""
    return verify_lines(file.name, file.read_bytes())


def verify_lines(name: str, data: bytes) -> tuple[int, str]:
    """The same for its bytes."""
    digest = BEGINNING
    lines = data.splitlines()
    for number, line in enumerate(lines, 1):
        try:
            record = json.loads(line)
            text, said = record["entry"], record["digest"]
        except (ValueError, KeyError, TypeError):
            raise AuditBroken(file=name, line=number, reason="it cannot be read") from None
        digest = _next(digest, str(text))
        if said != digest:
            raise AuditBroken(file=name, line=number, reason="its digest is another")
    return len(lines), digest


def entries_of(file: Path) -> list[dict[str, Any]]:
    """The events of a trail, as they were written."""
    found = []
    for line in file.read_bytes().splitlines():
        try:
            found.append(json.loads(json.loads(line)["entry"]))
        except (ValueError, KeyError, TypeError):
            # Cut at the bound, or broken: `verify` says which.
            continue
    return found


def _next(digest: str, text: str) -> str:
    return sha256(bytes.fromhex(digest) + text.encode()).hex()


class TypedLines:
    """Lines as somebody types them at a terminal, as well as keystrokes tell."""

    CHARACTERS_MAX: Final = 2_000

    def __init__(self) -> None:
        self._line = bytearray()
        self._escape = ""

    def feed(self, data: bytes) -> list[str]:
        """The lines that these keystrokes end."""
        lines: list[str] = []
        for byte in data:
            self._key(byte, lines)
        return lines

    def _key(self, byte: int, lines: list[str]) -> None:
        if self._escape:
            # ESC [ … letter, or ESC and one character: keys that write nothing.
            is_begun = self._escape == "begun"
            if is_begun and byte in b"[O":
                self._escape = "inside"
            elif is_begun or 0x40 <= byte <= 0x7E:
                self._escape = ""
        elif byte == 0x1B:
            self._escape = "begun"
        elif byte in b"\r\n":
            if self._line:
                lines.append(self._line.decode("utf-8", "replace"))
            self._line.clear()
        elif byte in (0x7F, 0x08):
            del self._line[-1:]
        elif byte in (0x03, 0x15):
            self._line.clear()
        elif byte >= 0x20 and len(self._line) < self.CHARACTERS_MAX:
            self._line.append(byte)
