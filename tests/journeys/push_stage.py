"""The stage of the push tests: a node, a provider that takes everything, a repository with a real git, buyers at work."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from openresource.client import AsyncClient, Client
from openresource.client.homes import Home
from openresource.primitives.errors import Refusal
from tests.cli.support import Outcome, Serving, environment, funded_home, run_cli, serving
from tests.support.network import NodeProcess, local_node_process

GRACE_SECONDS = 1.0
PUSH_SECONDS_MAX = 120.0
CALLS_PER_SECOND = 50
# Many callers that are late together must not become a crowd without end.
CALLS_AT_ONCE_MAX = 200

MANIFEST = """
name = "{name}"
version = "0.1.0"
summary = "Says which commit it is."
license = "MIT"
[run]
kind = "jsonl"
command = ["sh", "say.sh"]
[resources]
memory = "64Mi"
[[methods]]
name = "say"
example = {{input = {{text = "hello"}}}}
price = {{model = "per_call", amount = "0.00002"}}
"""
# A shell starts in no time and answers in less.
PROGRAM = """while read -r line; do printf '"%s"\\n' '{word}'; done
"""


@dataclass(frozen=True)
class Pushed:
    """A push as its user saw it."""

    code: int
    said: str
    seconds: float

    @property
    def remote(self) -> list[str]:
        """What the other side said, line by line."""
        return [
            line.removeprefix("remote: ").rstrip()
            for line in self.said.splitlines()
            if line.startswith("remote: ")
        ]


class Repository:
    """A work tree with a history."""

    def __init__(self, folder: Path, name: str, branch: str = "main") -> None:
        self.folder = folder
        self.name = name
        self.branch = branch
        folder.mkdir(parents=True)
        self.git("init", "--quiet", f"--initial-branch={branch}")
        self.write("openresource.toml", MANIFEST.format(name=name))

    def git(self, *words: str, input: bytes | None = None) -> str:
        """A git command of the repository's owner, who has no settings of his own."""
        who = {"GIT_CONFIG_GLOBAL": "/dev/null", "GIT_CONFIG_NOSYSTEM": "1"}
        for role in ("AUTHOR", "COMMITTER"):
            who |= {f"GIT_{role}_NAME": "Ada", f"GIT_{role}_EMAIL": "ada@example.org"}
        done = subprocess.run(
            ["git", *words],
            cwd=self.folder,
            env=environment(who),
            input=input,
            stdin=None if input is not None else subprocess.DEVNULL,
            capture_output=True,
            timeout=PUSH_SECONDS_MAX,
        )
        assert done.returncode == 0, done.stderr.decode()
        return done.stdout.decode().strip()

    def write(self, path: str, text: str) -> None:
        file = self.folder / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)

    def commit(self, word: str, program: str | None = None) -> str:
        """A commit whose program answers with a word."""
        self.write("say.sh", program or PROGRAM.format(word=word))
        self.git("add", "--all")
        self.git("commit", "--quiet", "--allow-empty", "--message", word)
        return self.git("rev-parse", "HEAD")

    def push(self, *words: str) -> Pushed:
        """A push, whatever becomes of it."""
        began = time.monotonic()
        done = subprocess.run(
            ["git", "push", "openresource", *(words or (self.branch,))],
            cwd=self.folder,
            env=environment({"GIT_CONFIG_GLOBAL": "/dev/null"}),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=PUSH_SECONDS_MAX,
        )
        assert "Traceback" not in done.stderr, done.stderr
        return Pushed(done.returncode, done.stderr, time.monotonic() - began)


@dataclass
class Stage:
    """Everybody at once."""

    folder: Path
    node: NodeProcess
    provider: Serving
    publisher: Home
    buyer: Home
    homes: int = 0
    repositories: list[Repository] = field(default_factory=list)

    @property
    def address(self) -> str:
        return self.publisher.address()

    def cli(self, *words: str) -> Outcome:
        """A command of the publisher."""
        return run_cli(*words, "--home", str(self.publisher.folder), "--node", self.node.url)

    def repository(self, name: str, branch: str = "main", *options: str) -> Repository:
        """A repository with the publisher's remote."""
        made = Repository(self.folder / f"{name}-work", name, branch)
        told = self.cli("publish", "--git", str(made.folder), "--json", *options)
        assert told.code == 0, told.err
        made.git("remote", "add", "openresource", told.json["repository"])
        return made

    def remote(self, name: str) -> Path:
        return self.publisher.folder / "git" / f"{name}.git"

    def remote_tip(self, name: str, branch: str = "main") -> str:
        """Where the remote's branch is; empty if there is none."""
        done = subprocess.run(
            ["git", "--git-dir", str(self.remote(name)), "rev-parse", "--quiet", "--verify", branch],
            capture_output=True,
            text=True,
            env=environment(),
        )
        return done.stdout.strip()

    def client(self) -> Client:
        """A client of the buyer that lives long."""
        return Client(self.buyer.folder, self.node.url)

    async def read(self, path: str) -> Any:
        async with self.node.chain() as chain:
            return await chain.read(path)

    def placement(self, name: str, program: str) -> Any:
        """What the provider says about a version."""
        path = f"/placements/{self.address}/{name}/{program}/{self.provider.facts['provider']}"
        return asyncio.run(self.read(path))

    def until_gone(self, name: str, program: str) -> None:
        """Waits until the provider has let a version go."""
        wait_until(
            lambda: (record := self.placement(name, program)) and record["status"] == "GONE",
            60,
            "an old version to go",
        )

    def latest(self, name: str) -> dict[str, Any]:
        """The chosen version's record."""

        async def found() -> dict[str, Any]:
            program = await self.read(f"/services/{self.address}/{name}/latest")
            record = await self.read(f"/services/{self.address}/{name}/versions/{program}")
            return {**record, "program": program}

        return asyncio.run(found())


@contextmanager
def stage(folder: Path) -> Iterator[Stage]:
    """Everybody for the tests of a file."""
    if shutil.which("git") is None:
        if os.environ.get("CI"):
            pytest.fail("git is not on this machine")
        pytest.skip("git is not on this machine")
    with local_node_process(folder / "chain") as node:
        publisher = Home(folder / "publisher")
        publisher.create_wallet()
        words = (
            "--json",
            "--accept",
            "all",
            "--capacity",
            "4",
            "--grace",
            str(GRACE_SECONDS),
            "--node",
            node.url,
        )
        with serving("provide", *words, "--home", str(folder / "provider")) as provider:
            buyer = funded_home(folder / "buyer", folder / "chain", node.url)
            yield Stage(folder, node, provider, publisher, buyer)


@dataclass(frozen=True)
class Call:
    """One call of the load."""

    began: float
    ended: float
    value: Any
    failure: str


class Load:
    """Calls at a fixed pace, whatever becomes of them, from one long-lived client in a thread of its own."""

    def __init__(self, home: Home, node_url: str, service: str) -> None:
        self.calls: list[Call] = []
        self._home = home
        self._node_url = node_url
        self._service = service
        self._stop = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()), name="load")

    def __enter__(self) -> Load:
        self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self.stop()

    def stop(self) -> list[Call]:
        """Lets the calls in flight end; gives all of them."""
        self._stop.set()
        self._thread.join()
        return self.calls

    def answered(self, count: int, seconds: float = 60.0) -> None:
        """Waits until so many more calls have ended."""
        wanted = len(self.calls) + count
        wait_until(lambda: len(self.calls) >= wanted, seconds, f"{count} calls")

    async def _run(self) -> None:
        async with AsyncClient(self._home, self._node_url) as client:
            running: set[asyncio.Task[None]] = set()
            began, number = time.monotonic(), 0
            while not self._stop.is_set():
                number += 1
                if len(running) < CALLS_AT_ONCE_MAX:
                    task = asyncio.create_task(self._call(client, number))
                    running.add(task)
                    task.add_done_callback(running.discard)
                await asyncio.sleep(max(0.0, began + number / CALLS_PER_SECOND - time.monotonic()))
            await asyncio.gather(*running)

    async def _call(self, client: AsyncClient, number: int) -> None:
        began = time.monotonic()
        value, failure = None, ""
        try:
            value = (await client.call(self._service, text=str(number))).value
        except Refusal as refusal:
            failure = f"{refusal.code}: {refusal.message}"
        except Exception as error:  # Whatever it is, it is a call that failed, and the test says so.
            failure = repr(error)
        self.calls.append(Call(began, time.monotonic(), value, failure))


def wait_until(condition: Callable[[], Any], seconds: float, what: str) -> Any:
    """Waits for a condition."""
    ends = time.monotonic() + seconds
    while True:
        found = condition()
        if found:
            return found
        assert time.monotonic() < ends, f"waited {seconds} s for {what}"
        time.sleep(0.02)


def failures(calls: list[Call]) -> list[str]:
    return [call.failure for call in calls if call.failure]


def figures(name: str, **values: float | str) -> None:
    """What was measured, for whoever runs with -s."""
    print(json.dumps({"measured": name, **values}))
