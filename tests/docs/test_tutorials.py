"""Commands in README and docs do what the pages say: each marked block is executed against a network of its own.

A block of `sh` after `<!-- tutorial: NAME -->` runs in an empty folder, with the home of somebody who holds coins and
the address of a node in the environment; http://127.0.0.1:8080 in it stands for that node. A provider takes everything.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from openresource.client.homes import Home
from tests.cli.support import environment, funded_home, run_cli, serving
from tests.support.network import local_node_process

pytestmark = [pytest.mark.tutorial, pytest.mark.journey]

ROOT = Path(__file__).parents[2]
NODE_ON_PAGES = "http://127.0.0.1:8080"
BLOCK_SECONDS_MAX = 180
PAGES = sorted(
    path for path in [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("examples/**/*.md")]
)
_BLOCK = re.compile(r"<!-- tutorial: ([a-z0-9-]+) -->\n+```(sh|bash|python)\n(.*?)```", re.DOTALL)
_PYTHON = re.compile(r"```python\n(.*?)```", re.DOTALL)

# What a reader is promised to see; a block that is not named here has to end well, no more.
PROMISED = {
    "push": r"(?s)Hello, Grace.*Good morning, Grace.*Hello, Grace",
    "shell": r'"TEXT": ?"IS ANYBODY THERE\?"',
    "node": r'"greeting": ?"Hello, Grace"',
    "detected-program": r'"stdout": ?"3',
    "python-program": r'"sum": ?5\b',
    "composition": r"(?s)It calls others.*flowers",
    "http-program": r'"greeting": ?"Hello, Grace"',
    "jsonl-program": r'"letters": ?5',
    "first-round": r"gist(.|\n)*AIN",
    "dry-run": r"Nothing was spent",
    "job": r"(?s)Accepted: .*Computed anew from the chain, the verdict is the one that was written\.",
    "job-python": r"ACCEPTED .* True$",
    "proof": r"[Pp]roof|genesis",
    "app": r'"scores"',
    "json-rpc": r'"symbol": ?"AIN"',
    "events": r"^(id|data):",
}


@dataclass(frozen=True)
class Block:
    """A marked block of a page."""

    page: str
    name: str
    language: str
    text: str


def blocks_of(path: Path) -> list[Block]:
    found = _BLOCK.findall(path.read_text())
    return [Block(str(path.relative_to(ROOT)), name, language, text) for name, language, text in found]


BLOCKS = [block for path in PAGES for block in blocks_of(path)]


@dataclass(frozen=True)
class Network:
    """A node, a provider that takes everything, and the samples of the package, published."""

    folder: Path
    url: str

    def home(self, name: str) -> Home:
        return funded_home(self.folder / name, self.folder / "node", self.url)


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Network]:
    folder = tmp_path_factory.mktemp("network")
    with local_node_process(folder / "node") as node:
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
        with serving(*words):
            network = Network(folder, node.url)
            publish(network, ROOT / "openresource" / "samples" / "gist")
            yield network


def publish(network: Network, program: Path) -> None:
    home = Home(network.folder / f"publisher-{program.name}")
    home.create_wallet()
    done = run_cli("publish", str(program), "--home", str(home.folder), "--node", network.url)
    assert done.code == 0, done.err


def run_words(command: list[str], network: Network, home: Home, folder: Path) -> str:
    """What a block prints; it has to end well, without a word about our inner workings."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    variables = {"OPENRESOURCE_HOME": str(home.folder), "OPENRESOURCE_NODE": network.url, "PATH": path}
    done = subprocess.run(
        command,
        cwd=folder,
        env=environment(variables),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=BLOCK_SECONDS_MAX,
    )
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    assert "Traceback" not in done.stderr
    return done.stdout


@pytest.mark.timeout(BLOCK_SECONDS_MAX + 120)
@pytest.mark.parametrize("block", BLOCKS, ids=lambda block: f"{block.page}:{block.name}")
def test_a_block_of_commands_does_what_its_page_says(block: Block, network: Network, tmp_path: Path) -> None:
    if re.search(r'\["node"', block.text) and shutil.which("node") is None:
        not_here("Node is not on this machine; scripts/system-parts fetches it")
    home = network.home(f"reader-{BLOCKS.index(block)}")
    text = block.text.replace(NODE_ON_PAGES, network.url)
    command = [sys.executable, "-c", text] if block.language == "python" else ["sh", "-eu", "-c", text]
    said = run_words(command, network, home, tmp_path)
    promised = PROMISED.get(block.name)
    if promised is not None:
        assert re.search(promised, said, re.MULTILINE), said


@pytest.mark.timeout(600)
def test_the_python_of_the_readme_finds_what_it_searches_for(network: Network, tmp_path: Path) -> None:
    (text,) = [text for text in _PYTHON.findall((ROOT / "README.md").read_text()) if "openresource" in text]
    example = ROOT / "examples" / "search"
    cache = Path(os.environ.get("OPENRESOURCE_CACHE") or Path.home() / ".cache" / "openresource")
    if not list((cache / "runtimes").glob("search-*/runtime.json")):
        not_here("the runtime of examples/search is not prepared; scripts/runtimes does that")
    publish(network, example)
    said = run_words([sys.executable, "-c", text], network, network.home("searcher"), tmp_path)
    assert "A bank can give you a loan." in said and "0x" in said


def test_each_name_is_given_once_and_each_promise_has_its_block() -> None:
    names = [block.name for block in BLOCKS]
    assert len(set(names)) == len(names)
    assert set(PROMISED) <= set(names)


def not_here(reason: str) -> None:
    """A contributor may lack a part; our own runs may not."""
    if os.environ.get("CI"):
        pytest.fail(reason)
    pytest.skip(reason)
