"""Runs inside the sandbox of a build: carries out the steps of `steps.json` and prints what they say as lines of JSON.

Each line of a step is `{"line": …}`, the end is `{"exit": code, "steps": how many}` and an empty line. Places in the steps
are replaced by where this sandbox has them, as the environment tells.
"""

from __future__ import annotations

import json
import os
import re
import select
import signal
import subprocess
import sys
import time

# Importing it would cost as much time as all our own work.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

PLACES = {
    "/build": "BUILD_FOLDER",
    "/dependencies": "BUILD_DEPENDENCIES",
    "/base": "BUILD_BASE",
    "/toolchain": "BUILD_TOOLCHAIN",
}
# Ours, and what was made for our own interpreter.
HIDDEN = ("BUILD_", "PYTHON", "LD_LIBRARY_PATH", "OPENRESOURCE_")
COLOURS = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")
LOG_BYTES_MAX = 1 << 20
LINE_CHARACTERS_MAX = 1_000
TAIL_LINES = 60
AFTERWARDS_SECONDS = 1.0


class Log:
    """Passes lines on until there are too many; of the rest it keeps the last ones."""

    def __init__(self) -> None:
        self.left = LOG_BYTES_MAX
        self.tail: list[str] = []

    def say(self, line: str) -> None:
        """One line."""
        line = COLOURS.sub("", line)[:LINE_CHARACTERS_MAX]
        if self.left > 0:
            self.left -= len(line) + 12
            tell({"line": line})
        else:
            self.tail.append(line)
            del self.tail[:-TAIL_LINES]

    def finish(self) -> None:
        """Say what was kept."""
        if self.tail:
            tell({"line": "…"})
        for line in self.tail:
            tell({"line": line})
        self.tail = []


def tell(value: Any) -> None:
    """One value of the stream."""
    sys.stdout.write(json.dumps(value) + "\n")
    sys.stdout.flush()


def placed(text: str) -> str:
    """A text with every place where this sandbox has it."""
    for wished, name in PLACES.items():
        shown = os.environ.get(name, wished)
        if shown != wished:
            text = re.sub(rf"(?<![A-Za-z0-9_.-]){wished}(?![A-Za-z0-9_.-])", shown.replace("\\", ""), text)
    return text


def carry_out(step: Any, log: Log) -> int:
    """Run one command to its end; what it leaves in the background does not hold us up."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(HIDDEN)}
    environment.update({name: placed(value) for name, value in step["environment"].items()})
    words = [placed(word) for word in step["words"]]
    # Not the whole of a script.
    log.say("$ " + " ".join(words)[:300])
    try:
        process = subprocess.Popen(
            words,
            cwd=placed(step["folder"]),
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    except OSError as problem:
        log.say(f"{words[0]}: {problem.strerror}")
        return 127
    assert process.stdout is not None
    stream = process.stdout.fileno()
    ended = os.pidfd_open(process.pid)
    rest, is_over, until = b"", False, 0.0
    while True:
        waits = max(0.0, until - time.monotonic()) if is_over else None
        readable = select.select([stream] if is_over else [stream, ended], [], [], waits)[0]
        if ended in readable:
            is_over, until = True, time.monotonic() + AFTERWARDS_SECONDS
        if stream in readable:
            part = os.read(stream, 1 << 16)
            lines = (rest + part).replace(b"\r", b"\n").split(b"\n")
            rest = lines.pop()[-LINE_CHARACTERS_MAX:]
            for line in lines:
                if line.strip():
                    log.say(line.decode("utf-8", "replace"))
            if not part:
                break
        if is_over and (not readable or time.monotonic() > until):
            break
    if rest.strip():
        log.say(rest.decode("utf-8", "replace"))
    code = process.wait()
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        pass
    return code


def main() -> None:
    """Wait to be asked, then carry out all steps or those up to the first that fails."""
    with open("steps.json", encoding="utf-8") as file:
        steps = json.load(file)
    for _ in sys.stdin:
        log = Log()
        code = done = 0
        for step in steps:
            code = carry_out(step, log)
            if code:
                break
            done += 1
        log.finish()
        tell({"exit": code, "steps": done})
        sys.stdout.write("\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
