"""The page for those who come from AI Network: its pairs of blocks are executed, say the same, and ours is no longer."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.cli.support import environment, funded_home
from tests.journeys.test_ain_clients import client_folder
from tests.support.ain_nodes import ain_nodes
from tests.support.network import local_node_process
from tests.vectors_support import load_vectors

pytestmark = [pytest.mark.tutorial, pytest.mark.journey, pytest.mark.timeout(300)]

PAGE = Path(__file__).parents[2] / "docs" / "coming-from-ai-network.md"
RUN_SECONDS_MAX = 120
MARK = "== "
_PAIR = re.compile(r"<!-- side by side: ([a-z-]+) -->\n+```js\n(.*?)```\n+```python\n(.*?)```", re.DOTALL)


@dataclass(frozen=True)
class Pair:
    """What somebody wants to do, as both would write it."""

    name: str
    script: str
    python: str


PAIRS = [Pair(*found) for found in _PAIR.findall(PAGE.read_text())]


def test_the_page_has_its_pairs() -> None:
    names = [pair.name for pair in PAIRS]
    assert len(names) == PAGE.read_text().count("<!-- side by side: ") == len(set(names)) > 8


@pytest.mark.parametrize("pair", PAIRS, ids=lambda pair: pair.name)
def test_ours_is_at_least_as_short(pair: Pair) -> None:
    assert len(pair.python.splitlines()) <= len(pair.script.splitlines())
    assert len(pair.python) <= len(pair.script)


def test_both_sides_say_the_same(tmp_path: Path) -> None:
    theirs, ours = _said_by_scripts(tmp_path), _said_by_python(tmp_path)
    # Loading ain-js says which of its libraries it found.
    del theirs["begin"], ours["begin"]
    assert theirs == ours
    assert theirs["value"] == "7" and theirs["denied"] == "12103" and theirs["watch"] == "11"


def _said_by_scripts(folder: Path) -> dict[str, str]:
    packages = client_folder("ain-js", "ain-js/package-lock.json") / "node_modules"
    node = shutil.which("node")
    if node is None:
        pytest.skip("Node is not on this machine: scripts/system-parts fetches it")
    key = load_vectors("ain/genesis/test_accounts.json")["others"][9]["private_key"]
    blocks = "\n".join(f"console.log('{MARK}{pair.name}');\n{pair.script}" for pair in PAIRS)
    with ain_nodes(folder, "1-node", 1, {}) as (one,):
        text = blocks.replace("http://127.0.0.1:8081", one.url).replace("ws://127.0.0.1:5100", one.event_url)
        text = f"(async () => {{\n{text}\nprocess.exit(0);\n}})().catch((error) => {{ console.error(error); process.exit(1); }});"
        variables = {"NODE_PATH": str(packages), "PRIVATE_KEY": key, "PATH": os.environ["PATH"]}
        return _sections(_run([node, "-e", text], folder, variables))


def _said_by_python(folder: Path) -> dict[str, str]:
    with local_node_process(folder / "ours") as node:
        home = funded_home(folder / "reader", folder / "ours", node.url)
        text = "\n".join(f"print('{MARK}{pair.name}')\n{pair.python}" for pair in PAIRS)
        variables = {"OPENRESOURCE_HOME": str(home.folder), "OPENRESOURCE_NODE": node.url}
        return _sections(_run([sys.executable, "-c", text], folder, environment(variables)))


def _run(command: list[str], folder: Path, variables: dict[str, str]) -> str:
    done = subprocess.run(
        command,
        cwd=folder,
        env=variables,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=RUN_SECONDS_MAX,
        check=False,
    )
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    return done.stdout


def _sections(said: str) -> dict[str, str]:
    """What was said below each mark."""
    parts = re.split(rf"^{MARK}([a-z-]+)\n", said, flags=re.MULTILINE)[1:]
    return {name: text.strip() for name, text in zip(parts[::2], parts[1::2], strict=True)}
