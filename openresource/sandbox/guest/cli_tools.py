"""What the guests of single calls need besides: reading values, removing files, finding processes."""

import base64
import binascii
import json
import os
import shutil
import sys
from typing import Any

REFUSED = 14


class Problem(Exception):
    """A call ends without an answer; `kind` is the frame that says so."""

    def __init__(self, kind: int, name: str, message: str, status: int = 422) -> None:
        super().__init__(message)
        self.kind, self.name, self.status = kind, name, status


def parsed(body: bytes) -> Any:
    """The input: an object."""
    try:
        value = json.loads(body or b"{}")
    except (ValueError, RecursionError) as problem:
        raise Problem(REFUSED, "NotJson", f"the input is not JSON ({problem})", 400) from None
    if not isinstance(value, dict):
        raise Problem(REFUSED, "NotAnObject", "the input is not an object")
    return value


def as_text(value: Any) -> str:
    """A value as a word of a command line."""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def decoded(text: Any, name: str) -> bytes:
    """Bytes from base64."""
    try:
        return binascii.a2b_base64(text, strict_mode=True)
    except (ValueError, TypeError):
        raise Problem(REFUSED, "NotBase64", f"{name[:80]} is not base64") from None


def readable(data: bytearray) -> tuple[str, str]:
    """Bytes as text where they are, else as base64, which is said."""
    try:
        return data.decode(), ""
    except UnicodeDecodeError:
        return base64.b64encode(data).decode(), "base64"


def no_constant(name: str) -> Any:
    """NaN and infinities are no JSON."""
    raise ValueError(f"{name} is not a JSON number")


def no_follow(path: str, flags: int) -> int:
    """Open a file that is not a link."""
    return os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK)


def stamp(status: os.stat_result) -> tuple[int, int, int]:
    """What tells a changed file from an unchanged one."""
    return status.st_ino, status.st_size, status.st_mtime_ns


def remove(path: str) -> None:
    """Remove a file or a folder, also one whose modes were changed."""
    try:
        if os.path.isdir(path) and not os.path.islink(path):
            shutil.rmtree(path, onerror=open_and_again)
        else:
            os.unlink(path)
    except OSError as problem:
        sys.stderr.write(f"cannot remove {path}: {problem.strerror}\n")


def open_and_again(function: Any, path: str, _: Any) -> None:
    """A folder that its program has closed is opened first."""
    os.chmod(os.path.dirname(path), 0o700)
    if os.path.isdir(path) and not os.path.islink(path):
        os.chmod(path, 0o700)
        shutil.rmtree(path, ignore_errors=True)
    else:
        os.unlink(path)


def can_list(folder: str) -> bool:
    """Whether a folder may be looked at."""
    try:
        os.listdir(folder)
    except OSError:
        return False
    return True


def parents() -> dict[int, list[int]]:
    """Process numbers by their parent."""
    found: dict[int, list[int]] = {}
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                with open(f"/proc/{name}/stat", "rb") as stat:
                    fields = stat.read().rpartition(b")")[2].split()
            except OSError:
                continue
            found.setdefault(int(fields[1]), []).append(int(name))
    return found


def children() -> list[int]:
    """Our own children."""
    return parents().get(os.getpid(), [])


def below(roots: list[int]) -> list[int]:
    """Processes below some, themselves included unless it is us."""
    by_parent = parents() if roots else {}
    found = [pid for pid in roots if pid != os.getpid()]
    layer = list(roots)
    while layer:
        layer = [child for parent in layer for child in by_parent.get(parent, ())]
        found += layer
    return found


def is_marked(pid: int, mark: bytes) -> bool:
    """Whether a process belongs to a call by its environment."""
    try:
        with open(f"/proc/{pid}/environ", "rb") as environment:
            return mark in environment.read(1 << 18).split(b"\0")
    except OSError:
        return False
