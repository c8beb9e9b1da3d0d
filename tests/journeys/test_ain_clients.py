"""AI Network's own clients, unmodified from their registries, live a developer's day on two of our nodes."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.ain_nodes import RunningNode, ain_nodes
from tests.vectors_support import load_vectors

pytestmark = [pytest.mark.journey, pytest.mark.timeout(600)]

ROOT = Path(__file__).parents[2]
JOURNEYS = Path(__file__).with_name("ain_clients")
DAY_SECONDS_MAX = 540
CHECKS_MIN = 100
# By default ten unpaid transactions of an account may wait; a day of quick tests has more.
ENVIRONMENT = {"TX_POOL_SIZE_LIMIT_PER_ACCOUNT": "1000"}

RecordProperty = Callable[[str, object], None]


def client_folder(name: str, lock: str) -> Path:
    """Where scripts/ain-clients puts a client."""
    cache = os.environ.get("OPENRESOURCE_CACHE")
    if not cache:
        cache = str(Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "openresource")
    digest = hashlib.sha256((ROOT / "locks" / lock).read_bytes()).hexdigest()
    folder = Path(cache) / "tools" / f"{name}-{digest[:12]}"
    if not folder.is_dir():
        pytest.skip(f"{name} is not on this machine: scripts/ain-clients fetches it")
    return folder


def test_ain_py_lives_a_day_on_our_nodes(tmp_path: Path, record_property: RecordProperty) -> None:
    folder = client_folder("ain-py", "ain-py.lock")
    with ain_nodes(tmp_path, "2-nodes", 2, ENVIRONMENT) as nodes:
        arguments = [nodes[-1].url, *_accounts(9, 8)]
        command = [str(folder / "bin" / "python"), str(JOURNEYS / "with_ain_py.py"), *arguments]
        _live(command, {}, nodes, record_property)


def test_ain_js_lives_a_day_on_our_nodes(tmp_path: Path, record_property: RecordProperty) -> None:
    folder = client_folder("ain-js", "ain-js/package-lock.json")
    node = shutil.which("node")
    if node is None:
        pytest.skip("Node is not on this machine: scripts/system-parts fetches it")
    with ain_nodes(tmp_path, "2-nodes", 2, ENVIRONMENT) as nodes:
        arguments = [nodes[-1].url, nodes[-1].event_url, *_accounts(7, 6)]
        command = [node, str(JOURNEYS / "with_ain_js.js"), *arguments]
        _live(command, {"NODE_PATH": str(folder / "node_modules")}, nodes, record_property)


def _accounts(me: int, other: int) -> list[str]:
    """The address of the second node, and the keys of two accounts that have money."""
    accounts = load_vectors("ain/genesis/test_accounts.json")["others"]
    return [accounts[1]["address"], accounts[me]["private_key"], accounts[other]["private_key"]]


def _live(
    command: list[str],
    environment: dict[str, str],
    nodes: list[RunningNode],
    record_property: RecordProperty,
) -> None:
    inherited = {name: os.environ[name] for name in ("PATH", "HOME", "LANG") if name in os.environ}
    outcome = subprocess.run(
        command,
        env={**inherited, **environment},
        capture_output=True,
        text=True,
        timeout=DAY_SECONDS_MAX,
        check=False,
    )
    lines = [json.loads(line) for line in outcome.stdout.splitlines() if line.startswith("{")]
    failed = [line for line in lines if "check" in line and not line["ok"]]
    logs = "\n".join(node.log_end() for node in nodes)
    assert not failed, failed
    assert outcome.returncode == 0, f"{outcome.stderr[-3000:]}\n{logs}"
    summary = lines[-1]
    assert summary["checks"] == sum("check" in line for line in lines) >= CHECKS_MIN
    said = f"{summary['client']} {summary['version']}: {summary['checks']} checks"
    print(said)
    record_property("AI Network client", said)
