"""A market for the pages: a node, a provider, a service with every kind of input, a buyer with coins; all real processes."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Playwright, sync_playwright

from openresource.client.homes import Home
from tests.cli.support import Serving, funded_home, run_cli, serving, write_program
from tests.support.network import NodeProcess, local_node_process
from tests.web.browsing import PROGRAMS, SWITCHES

MANIFEST = """
name = "studio"
version = "1.0.0"
summary = "Works on words: repeats, counts, spells and stops when told."
license = "MIT"
domain = "text"
exactness = "bit_exact"
royalty = "0.0001"

[run]
kind = "python"
entry = "service:Studio"

[resources]
memory = "128Mi"
timeout_s = 60

[[methods]]
name = "work"
example = {input = {text = "Bees dance.", times = 2}}
price = {model = "per_call", amount = "0.001"}
"""
PROGRAM = '''
import time
from collections.abc import Iterator
from typing import Literal


class Studio:
    """Works on words."""

    def work(
        self,
        text: str,
        times: int = 1,
        loud: bool = False,
        mood: Literal["glad", "sober"] = "glad",
        words: list[str] | None = None,
    ) -> dict:
        """Repeats a text and counts words in it."""
        said = " ".join([text] * times)
        said = said.upper() if loud else said
        table = [{"word": word, "times": said.lower().count(word.lower())} for word in words or ["bees"]]
        return {"text": said, "mood": mood, "counts": table, "letters": sorted(set(text.lower()))}

    def size(self, data: bytes) -> int:
        """How many bytes a file has."""
        return len(data)

    def spell(self, text: str, pause_ms: int = 0) -> Iterator[str]:
        """Letter by letter."""
        for letter in text:
            time.sleep(pause_ms / 1000)
            yield letter

    def markup(self) -> dict:
        """An answer that would like to be a page."""
        return {"<b>bold</b>": "<script>document.title='taken'</script>", "list": ["<img src=x onerror=alert(1)>"]}

    def refuse(self) -> str:
        """Always says no."""
        raise ValueError("not today")
'''


@dataclass(slots=True)
class Market:
    """Everything that a paid call needs."""

    folder: Path
    node: NodeProcess
    provider: Serving
    publisher: Home
    buyer: Home

    @property
    def provider_home(self) -> Path:
        return self.folder / "provider"

    @property
    def service(self) -> str:
        """The address of the service's page."""
        return f"/services/{self.publisher.address()}/studio"


@pytest.fixture(scope="session")
def market(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Market]:
    folder = tmp_path_factory.mktemp("market")
    with local_node_process(folder / "chain") as node:
        publisher = Home(folder / "publisher")
        publisher.create_wallet()
        words = (
            "provide",
            "--json",
            "--accept",
            "all",
            "--home",
            str(folder / "provider"),
            "--node",
            node.url,
        )
        with serving(*words) as provider:
            program = write_program(folder / "studio", source=PROGRAM, manifest=MANIFEST)
            done = run_cli(
                "publish", str(program), "--json", "--home", str(publisher.folder), "--node", node.url
            )
            assert done.code == 0, done.err
            buyer = funded_home(folder / "buyer", folder / "chain", node.url)
            yield Market(folder, node, provider, publisher, buyer)


# Not for the session: while it runs, its loop occupies this thread, and other modules have loops of their own.
@pytest.fixture(scope="module")
def playwright() -> Iterator[Playwright]:
    with sync_playwright() as running:
        yield running


@pytest.fixture(scope="module")
def browser(playwright: Playwright) -> Iterator[Browser]:
    program = next((found for name in PROGRAMS if (found := shutil.which(name))), None)
    if program is None:
        text = "not run: there is no Chromium on this machine (apt-get install chromium)"
        if os.environ.get("CI") == "true":
            pytest.fail(text)
        pytest.skip(text)
    running = playwright.chromium.launch(executable_path=program, args=list(SWITCHES))
    yield running
    running.close()
