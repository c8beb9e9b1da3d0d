"""Nodes of AI Network's kind for tests: processes on this machine, told everything by environment variables."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.support.ain_traces import Http
from tests.support.ports import keep_port
from tests.vectors_support import load_vectors

START_SECONDS_MAX = 60.0
STOP_SECONDS_MAX = 60.0


@dataclass(slots=True)
class RunningNode:
    """One node's process."""

    process: subprocess.Popen[bytes]
    port: int
    p2p_port: int
    event_port: int
    log: Path
    given: Mapping[str, str]

    def kill(self) -> None:
        """End it in the middle of whatever it does."""
        self.process.kill()
        self.process.wait()

    def start_again(self) -> None:
        """Start it as it was started before, where its data still lies."""
        self.process = _started(self.log.parent, self.log, self.given)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def event_url(self) -> str:
        return f"ws://127.0.0.1:{self.event_port}/"

    def log_end(self) -> str:
        """What it said last."""
        return self.log.read_text(errors="replace")[-3000:]


def free_ports(count: int) -> list[int]:
    """Ports of which nobody has one now, and nobody else gets one until long after."""
    return [keep_port() for _ in range(count)]


@contextlib.contextmanager
def ain_nodes(
    folder: Path, configuration: str, count: int, environment: Mapping[str, str]
) -> Iterator[list[RunningNode]]:
    """Nodes of one network, the last one with an event handler; they serve when this is entered."""
    ports = free_ports(3 * count)
    first_door = f"http://127.0.0.1:{ports[0]}/json-rpc"
    keys = [account["private_key"] for account in load_vectors("ain/genesis/test_accounts.json")["others"]]
    nodes: list[RunningNode] = []
    try:
        for index in range(count):
            port, p2p_port, event_port = ports[3 * index : 3 * index + 3]
            given = {
                "BLOCKCHAIN_CONFIGS_DIR": configuration
                if "/" in configuration
                else f"blockchain-configs/{configuration}",
                "BLOCKCHAIN_DATA_DIR": str(folder / f"data{index}"),
                "CONSOLE_LOG": "false",
                "ENABLE_EVENT_HANDLER": "true" if index == count - 1 else "false",
                "ENABLE_EXPRESS_RATE_LIMIT": "false",
                "ENABLE_STATUS_REPORT_TO_TRACKER": "false",
                "EVENT_HANDLER_PORT": str(event_port),
                "P2P_PORT": str(p2p_port),
                "PEER_CANDIDATE_JSON_RPC_URL": first_door,
                "PORT": str(port),
                "UNSAFE_PRIVATE_KEY": keys[index],
                **environment,
            }
            log = folder / f"node{index}.log"
            process = _started(folder, log, given)
            nodes.append(RunningNode(process, port, p2p_port, event_port, log, given))
            if index == 0:
                _wait(nodes, lambda http: http.request("GET", "/").status == 200)
        _wait(nodes, lambda http: http.request("GET", "/health_check").text == "true")
        yield nodes
    finally:
        stop(nodes)


def _started(folder: Path, log: Path, given: Mapping[str, str]) -> subprocess.Popen[bytes]:
    with log.open("ab") as output:
        return subprocess.Popen(
            [str(Path(sys.executable).with_name("openresource")), "node", "start", "--ain-environment"],
            cwd=folder,
            env={**_bare_environment(), **given},
            stdout=output,
            stderr=subprocess.STDOUT,
        )


def stop(nodes: Sequence[RunningNode]) -> None:
    """Ask every node to end, and see to it."""
    for node in nodes:
        if node.process.poll() is None:
            node.process.send_signal(signal.SIGTERM)
    for node in nodes:
        try:
            node.process.wait(STOP_SECONDS_MAX)
        except subprocess.TimeoutExpired:
            node.process.kill()
            node.process.wait()


def wait_for_block(node: RunningNode, number: int, seconds_max: float = 60.0) -> None:
    """Wait until a block is final."""
    deadline = time.monotonic() + seconds_max
    http = Http(node.port)
    try:
        while http.call("ain_getLastBlockNumber") < number:
            assert time.monotonic() < deadline, f"block {number} is not final:\n{node.log_end()}"
            time.sleep(0.02)
    finally:
        http.close()


def _wait(nodes: Sequence[RunningNode], is_there: object) -> None:
    assert callable(is_there)
    deadline = time.monotonic() + START_SECONDS_MAX
    for node in nodes:
        while True:
            assert node.process.poll() is None, f"the node ended:\n{node.log_end()}"
            assert time.monotonic() < deadline, f"the node does not serve:\n{node.log_end()}"
            http = Http(node.port)
            try:
                if is_there(http):
                    break
            except OSError:
                pass
            finally:
                http.close()
            time.sleep(0.05)


def _bare_environment() -> dict[str, str]:
    """What a process needs of ours: nothing that a node reads as its configuration."""
    return {name: os.environ[name] for name in ("PATH", "HOME", "LANG", "TMPDIR") if name in os.environ}
