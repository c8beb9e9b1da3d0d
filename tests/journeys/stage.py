"""The stage of the kill test: a node, two providers and a buyer as processes of their own, and the books of all of them."""

from __future__ import annotations

import contextlib
import json
import os
import queue
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from openresource.client.homes import Home
from openresource.primitives.keys import PrivateKey
from tests.support.network import NodeProcess
from tests.support.pipes import Lines

READY_SECONDS_MAX = 120.0
STOP_SECONDS_MAX = 60.0
ROOT = Path(__file__).resolve().parents[2]
NAMES = ("OPENRESOURCE_HOME", "OPENRESOURCE_NODE", "OPENRESOURCE_PASSPHRASE_FILE")

MANIFEST = """
name = "shout"
summary = "Says it louder."
license = "MIT"
royalty = "0.00002"
[run]
kind = "jsonl"
command = ["sh", "shout.sh"]
[[methods]]
name = "shout"
example = {input = {text = "hello"}}
price = {model = "per_call", amount = "0.0001"}
"""
PROGRAM = r"""while read -r line; do
  printf '%s\n' "$line" | sed 's/.*"text": *"\([^"]*\)".*/"\1"/' | tr '[:lower:]' '[:upper:]'
done
"""


class Child:
    """A process that can be killed and started again."""

    def __init__(self, name: str, command: list[str], log: Path, *, says_ready: bool) -> None:
        self.name = name
        self._command = command
        self._log = log
        self._says_ready = says_ready
        self._process: subprocess.Popen[str] | None = None
        self.facts: dict[str, Any] = {}

    def add_words(self, *words: str) -> None:
        """More of its command line, before it starts."""
        self._command += words

    def start(self) -> None:
        """Starts it, and waits until it says that it is ready."""
        environment = {name: value for name, value in os.environ.items() if name not in NAMES}
        with open(self._log, "ab") as log:
            self._process = subprocess.Popen(
                self._command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE if self._says_ready else log,
                stderr=log,
                cwd=ROOT,
                env=environment,
                text=True,
            )
        if self._says_ready:
            self._wait_ready()

    def is_running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def send(self, number: signal.Signals) -> None:
        """A signal that does not end it, if it runs."""
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(number)

    def kill(self) -> None:
        """kill -9."""
        self.end(signal.SIGKILL)

    def end(self, number: signal.Signals, *, patience_seconds: float = STOP_SECONDS_MAX) -> None:
        """Ends it by a signal and waits until it is gone; who takes longer than our patience is killed."""
        process, self._process = self._process, None
        if process is not None:
            process.send_signal(number)
            try:
                process.wait(patience_seconds)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait(STOP_SECONDS_MAX)

    def _wait_ready(self) -> None:
        assert self._process is not None and self._process.stdout is not None
        # All that it says is read, also what it says later.
        out = Lines(self._process.stdout)
        ends = time.monotonic() + READY_SECONDS_MAX
        with contextlib.suppress(queue.Empty):
            while line := out.next(ends - time.monotonic()):
                if (facts := json.loads(line)).get("ready"):
                    self.facts = facts
                    return
        raise AssertionError(f"{self.name} did not become ready:\n{self.last_words()}")

    def last_words(self) -> str:
        return self._log.read_text(errors="replace")[-3_000:]


class NodeChild(NodeProcess):
    """The node under the same words."""

    name = "node"

    def end(self, number: signal.Signals) -> None:
        self._end(number)


@dataclass
class Log:
    """What the buyer was told, as far as it reached the disk."""

    path: Path

    def lines(self) -> list[dict[str, Any]]:
        """Every whole line; one that a kill cut off was never acknowledged."""
        if not self.path.exists():
            return []
        *whole, _ = self.path.read_bytes().split(b"\n")
        return [record for line in whole if (record := _parsed(line)) is not None]

    def answers(self) -> list[dict[str, Any]]:
        return [line for line in self.lines() if "answer" in line]

    def finals(self) -> list[str]:
        return [str(line["final"]) for line in self.lines() if "final" in line]


def _parsed(line: bytes) -> dict[str, Any] | None:
    try:
        return dict(json.loads(line)) if line else None
    except ValueError:
        return None


@dataclass
class Stage:
    """Everybody at once."""

    folder: Path
    node: NodeChild
    providers: list[Child]
    buyer: Child
    log: Log
    publisher: PrivateKey
    friend: str
    homes: dict[str, Home] = field(default_factory=dict)

    def everybody(self) -> list[Any]:
        return [self.node, *self.providers, self.buyer]

    def last_words(self) -> str:
        """What each process wrote last, for a failure's report."""
        files = [*sorted(self.folder.glob("*.log")), self.node.log_file]
        return "\n".join(f"── {file.name}\n{file.read_text(errors='replace')[-2_000:]}" for file in files)

    def receipts(self) -> list[dict[str, Any]]:
        """All receipts in the providers' books; read when the providers have ended, so that they are on the disk."""
        found = []
        for child in self.providers:
            path = self.homes[child.name].folder / "provider" / "provider.sqlite"
            with sqlite3.connect(f"file:{path}?mode=ro", uri=True) as books:
                found += [json.loads(row[0]) for row in books.execute("SELECT json FROM receipts")]
            books.close()
        return found


def command_line(*words: str) -> list[str]:
    return [sys.executable, "-m", "openresource", *words]


def provider_child(folder: Path, name: str, home: Home, node_url: str) -> Child:
    words = ("provide", "--json", "--accept", "all", "--home", str(home.folder), "--node", node_url)
    return Child(name, command_line(*words), folder / f"{name}.log", says_ready=True)


def buyer_child(folder: Path, home: Home, node_url: str, service: str, friend: str, log: Path) -> Child:
    options = {"--home": str(home.folder), "--node": node_url, "--service": service, "--friend": friend}
    command = [sys.executable, "-m", "tests.journeys.buyer_process", "--log", str(log)]
    for option, value in options.items():
        command += [option, value]
    return Child("buyer", command, folder / "buyer.log", says_ready=False)


def write_program(folder: Path) -> Path:
    """A shell script; it starts in no time."""
    folder.mkdir()
    (folder / "openresource.toml").write_text(MANIFEST)
    (folder / "shout.sh").write_text(PROGRAM)
    return folder


def wait_until(condition: Callable[[], Any], seconds: float, what: str) -> Any:
    """Waits for a condition."""
    ends = time.monotonic() + seconds
    while True:
        found = condition()
        if found:
            return found
        assert time.monotonic() < ends, f"waited {seconds} s for {what}"
        time.sleep(0.02)


@contextmanager
def ended(stage: Stage) -> Iterator[Stage]:
    """Everybody is gone afterwards, whatever happened."""
    try:
        yield stage
    finally:
        for one in reversed(stage.everybody()):
            one.kill()
