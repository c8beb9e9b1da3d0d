"""Runs the command line as a person does: a process, its exit code, its two outputs; and long-running ones with a ready line."""

from __future__ import annotations

import contextlib
import io
import json
import os
import queue
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from openresource.cli.main import main
from openresource.client.homes import Home
from tests.support.pipes import Lines
from tests.support.ports import keep_port

COMMAND_SECONDS_MAX = 120.0
READY_SECONDS_MAX = 120.0
STOP_SECONDS_MAX = 60.0
# From the port that `up` is given: the chain, pages, the plain address, three providers.
UP_PORT_OFFSETS = (0, 1, 2, 10, 11, 12)

MANIFEST = """
name = "{name}"
version = "{version}"
summary = "Says it again, louder."
license = "MIT"
royalty = "0.0001"

[run]
kind = "python"
entry = "service:Service"

[resources]
memory = "128Mi"
timeout_s = 10

[[methods]]
name = "shout"
example = {{input = {{text = "hello"}}}}
price = {{model = "per_call", amount = "0.001"}}
"""
PROGRAM = '''
from collections.abc import Iterator


class Service:
    """Says it again, louder."""

    def shout(self, text: str, times: int = 1) -> str:
        """In capitals."""
        return text.upper() * times

    def letters(self, text: str) -> Iterator[str]:
        """One after the other."""
        yield from text

    def size(self, data: bytes) -> int:
        """How many bytes."""
        return len(data)

    def refuse(self) -> str:
        """Always says no."""
        raise ValueError("not today")
'''


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a command left."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """The last line of standard output."""
        return json.loads(self.out.strip().splitlines()[-1])

    def is_plain(self) -> bool:
        """Whether no inner working was shown to the person."""
        lines = (self.out + self.err).splitlines()
        return not any(line.startswith("Traceback") or "defect in Open Resource" in line for line in lines)


def environment(extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """The environment of a command: nothing of ours leads it to another home or node."""
    names = ("OPENRESOURCE_HOME", "OPENRESOURCE_NODE", "OPENRESOURCE_PASSPHRASE_FILE", "OPENRESOURCE_DEBUG")
    return {name: value for name, value in os.environ.items() if name not in names} | dict(extra or {})


def run_cli(*words: str, input: str | None = None, env: Mapping[str, str] | None = None) -> Outcome:
    """One command to its end."""
    done = subprocess.run(
        [sys.executable, "-m", "openresource", *words],
        input=input,
        stdin=None if input is not None else subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=COMMAND_SECONDS_MAX,
        env=environment(env),
    )
    return Outcome(done.returncode, done.stdout, done.stderr)


def run_here(*words: str, input: str | None = None) -> Outcome:
    """The same within this process, for the many small cases: all but the interpreter's start is as in `run_cli`."""
    out, err = (io.TextIOWrapper(io.BytesIO(), "utf-8", write_through=True) for _ in range(2))
    kept = dict(os.environ)
    os.environ.clear()
    os.environ.update(environment())
    try:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(sys, "argv", ["openresource", *words])
            patch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO((input or "").encode())))
            patch.setattr(sys, "stdout", out)
            patch.setattr(sys, "stderr", err)
            try:
                main()
                code: Any = 0
            except SystemExit as ended:
                code = ended.code or 0
    finally:
        os.environ.clear()
        os.environ.update(kept)
    return Outcome(int(code), *(one.buffer.getvalue().decode() for one in (out, err)))


class Serving:
    """A command that serves: started until its ready line, ended by SIGTERM."""

    def __init__(self, *words: str) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "openresource", *words],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=environment(),
        )
        assert self._process.stdout is not None and self._process.stderr is not None
        self._out, self._err = Lines(self._process.stdout), Lines(self._process.stderr)
        self.facts = self._ready()

    def _ready(self) -> dict[str, Any]:
        ends = time.monotonic() + READY_SECONDS_MAX
        with contextlib.suppress(queue.Empty):
            while line := self._out.next(ends - time.monotonic()):
                if (facts := json.loads(line)).get("ready"):
                    return dict(facts)
        self.kill()
        raise AssertionError(f"it did not become ready: {self._err.rest(STOP_SECONDS_MAX)[-4000:]}")

    def next_line(self) -> str:
        """What it says next, waited for."""
        try:
            return self._out.next(READY_SECONDS_MAX)
        except queue.Empty:
            raise AssertionError("it says nothing") from None

    def send(self, number: signal.Signals) -> None:
        self._process.send_signal(number)

    def stop(self) -> Outcome:
        """SIGTERM, and all that it said."""
        if self._process.poll() is None:
            self._process.terminate()
        try:
            self._process.wait(STOP_SECONDS_MAX)
        except subprocess.TimeoutExpired:
            self.kill()
            raise
        said = (one.rest(STOP_SECONDS_MAX) for one in (self._out, self._err))
        return Outcome(self._process.returncode, *said)

    def kill(self) -> None:
        self._process.kill()
        self._process.wait(STOP_SECONDS_MAX)


@contextmanager
def serving(*words: str) -> Iterator[Serving]:
    """A serving command for a while."""
    process = Serving(*words)
    try:
        yield process
    finally:
        process.stop()


def write_program(
    folder: Path, *, name: str = "shout", version: str = "1.0.0", source: str = PROGRAM, manifest: str = ""
) -> Path:
    """A folder that can be published."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "openresource.toml").write_text(manifest or MANIFEST.format(name=name, version=version))
    (folder / "service.py").write_text(source)
    return folder


def funded_home(folder: Path, node_home: Path, node_url: str, amount: str = "5") -> Home:
    """A home whose wallet was paid by an ordinary transfer from the node's funding key."""
    home = Home(folder)
    address = home.create_wallet().address
    bank = Home(folder.parent / f"{folder.name}-bank")
    bank.ensure()
    record = json.loads((node_home / "node" / "funding.json").read_text())
    bank.write_secret("wallet.json", record)
    sent = run_cli("wallet", "send", address, amount, "--home", str(bank.folder), "--node", node_url)
    assert sent.code == 0, sent.err
    return home


def free_up_port() -> int:
    """A port for `up` whose neighbours are free as well, and stay so."""
    for _ in range(200):
        # Below those that connections go out from.
        base = random.randrange(20_000, 32_000)
        try:
            for offset in UP_PORT_OFFSETS:
                keep_port(base + offset)
        except OSError:
            continue
        return base
    raise AssertionError("no free ports")
