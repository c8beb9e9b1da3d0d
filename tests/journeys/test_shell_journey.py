"""The whole way as people go it: a node and a provider as processes, our command and a stock client of OpenSSH."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import queue
import select
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from openresource.client.homes import Home
from tests.cli.support import Outcome, environment, funded_home, run_cli
from tests.support.network import NodeProcess, local_node_process
from tests.support.pipes import Lines

pytestmark = pytest.mark.journey
READY_SECONDS_MAX = 60.0


@dataclass
class Street:
    """Everybody's homes, and the machine that opens."""

    node: NodeProcess
    owner: Home
    tenant: Home
    provider: Path
    facts: dict[str, Any]

    def shell(self, home: Home, *words: str, input: str | None = None) -> Outcome:
        return run_cli("shell", "--home", str(home.folder), "--node", self.node.url, *words, input=input)


@pytest.fixture(scope="module")
def street(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Street]:
    folder = tmp_path_factory.mktemp("shell")
    with local_node_process(folder / "node") as node:
        owner = Home(folder / "owner")
        address = owner.create_wallet().address
        tenant = funded_home(folder / "tenant", folder / "node", node.url)
        words = ["provide", "--home", str(folder / "provider"), "--node", node.url, "--json", "--shell"]
        words += [
            "--shell-owner",
            address,
            "--shell-name",
            "attic",
            "--shell-rent",
            "0.001",
            "--region",
            "kr-seoul",
        ]
        process = subprocess.Popen(
            [sys.executable, "-m", "openresource", *words],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env=environment({"SECRET_OF_THE_HOST": "swordfish"}),
        )
        try:
            yield Street(node, owner, tenant, folder / "provider", _opened(process))
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(60)


def _opened(process: subprocess.Popen[str]) -> dict[str, Any]:
    assert process.stdout is not None
    out = Lines(process.stdout)
    ends = time.monotonic() + READY_SECONDS_MAX
    with contextlib.suppress(queue.Empty):
        while line := out.next(ends - time.monotonic()):
            facts = json.loads(line)
            if "shell" in facts:
                return dict(facts)
    raise AssertionError("the machine did not open")


def test_shell_the_owner_comes_in_by_name_address_and_endpoint(street: Street) -> None:
    listed = street.shell(street.owner, "--json").json
    assert listed[0]["machine"] == street.facts["machine"] and listed[0]["right"] == "owner"
    assert listed[0]["name"] == "attic" and listed[0]["region"] == "kr-seoul"
    for node in ("attic", street.facts["machine"], street.facts["shell"].removeprefix("ssh://")):
        done = street.shell(street.owner, node, "--", "echo", "$((6*7))", ";", "exit", "3")
        assert (done.code, done.out, done.err) == (3, "42\n", "")
    done = street.shell(street.owner, "attic", "--", "tr a-z A-Z", input="piped\n")
    assert (done.code, done.out) == (0, "PIPED\n")
    done = street.shell(street.owner, "attic", "--", "env; cat /proc/*/environ /proc/*/cmdline")
    assert "swordfish" not in done.out and str(street.provider) not in done.out
    assert oct((street.owner.folder / "ssh" / "id_ed25519").stat().st_mode & 0o777) == "0o600"


def test_shell_a_tenant_rents_and_comes_in_and_a_stranger_does_not(street: Street, tmp_path: Path) -> None:
    stranger = Home(tmp_path / "stranger")
    stranger.create_wallet()
    refused = street.shell(stranger, "attic", "--", "true")
    assert refused.code == 1 and "--rent" in refused.err and refused.is_plain()
    planned = street.shell(street.tenant, "attic", "--rent", "5", "--dry-run", "--json").json
    assert planned["cost_uain"] == 5_000 and planned["dry_run"]
    over = street.shell(street.tenant, "attic", "--rent", "1440", "--dry-run")
    own = street.shell(street.owner, "attic", "--rent", "5")
    assert own.code == 1 and "is yours" in own.err and own.is_plain()
    assert over.code in (0, 5)
    done = street.shell(street.tenant, "attic", "--rent", "5", "--", "echo rented")
    assert (done.code, done.out) == (0, "rented\n") and "0.005 AIN" in done.err
    missing = street.shell(street.tenant, "cellar", "--", "true")
    assert missing.code == 1 and "cellar" in missing.err


def test_shell_the_owner_admits_a_guest_and_dismisses_it(street: Street, tmp_path: Path) -> None:
    guest = Home(tmp_path / "guest")
    address = guest.create_wallet().address
    admitted = street.shell(street.owner, "attic", "--admit", address, "--minutes", "10", "--json").json
    assert admitted["guest"] == address
    assert street.shell(guest, "attic", "--", "echo hello").out == "hello\n"
    assert street.shell(street.tenant, "attic", "--admit", address).code == 1
    assert street.shell(street.owner, "attic", "--dismiss", address).code == 0
    assert street.shell(guest, "attic", "--", "echo hello").code == 1


def test_shell_the_audit_trail_is_there_and_whole(street: Street) -> None:
    street.shell(street.owner, "attic", "--", "echo for the record")
    checked = run_cli("shell", "--audit", "--home", str(street.provider), "--json").json
    assert checked["entries"] >= 3 and len(checked["digest"]) == 64
    assert "echo for the record" in Path(checked["file"]).read_text()
    # What was changed afterwards is seen.
    copy = street.provider.parent / "copied"
    (copy / "provider" / "shells").mkdir(parents=True)
    text = Path(checked["file"]).read_text().replace("for the record", "nothing at all")
    (copy / "provider" / "shells" / "audit.jsonl").write_text(text)
    broken = run_cli("shell", "--audit", "--home", str(copy))
    assert broken.code == 1 and "not what was written" in broken.err


@pytest.mark.skipif(shutil.which("ssh") is None, reason="there is no client of OpenSSH here")
def test_shell_a_stock_client_comes_in_and_pins_the_host_key(street: Street) -> None:
    printed = street.shell(street.owner, "attic", "--print", "--json").json
    words = shlex.split(printed["command"])
    done = subprocess.run(
        [*words, "cat; exit 9"], input=b"through ssh", capture_output=True, timeout=60, check=False
    )
    assert (done.returncode, done.stdout) == (9, b"through ssh"), done.stderr
    forwarded = subprocess.run(
        [*words[:-1], "-o", "ExitOnForwardFailure=yes", "-R", "0:127.0.0.1:1", words[-1], "true"],
        capture_output=True,
        timeout=60,
        check=False,
    )
    assert forwarded.returncode == 255
    # Another key at the same place is noticed by the client.
    known = Path(printed["known_hosts_file"])
    kept = known.read_text()
    known.write_text(kept.replace(kept.split()[-1], "AAAAC3NzaC1lZDI1NTE5AAAAI" + "A" * 43))
    try:
        done = subprocess.run([*words, "true"], capture_output=True, timeout=60, check=False)
        assert done.returncode == 255 and b"HOST IDENTIFICATION HAS CHANGED" in done.stderr
    finally:
        known.write_text(kept)


def test_shell_our_client_at_a_terminal(street: Street) -> None:
    words = ["shell", "attic", "--home", str(street.owner.folder), "--node", street.node.url]
    pid, terminal = pty.fork()
    if pid == 0:
        os.environ["TERM"] = "xterm"
        os.execve(sys.executable, [sys.executable, "-m", "openresource", *words], environment())
    said = b""

    def read_until(text: bytes) -> None:
        nonlocal said
        ends = time.monotonic() + 60
        while text not in said:
            assert time.monotonic() < ends, said
            readable, _, _ = select.select([terminal], [], [], 1.0)
            if readable:
                try:
                    said += os.read(terminal, 4_096)
                except OSError:
                    return

    read_until(b"There is no network.")
    os.write(terminal, b"echo $((40+2)); tty\r")
    read_until(b"/dev/pts/")
    assert b"42" in said
    os.write(terminal, b"exit 11\r")
    read_until(b"exit 11")
    read_until(b"never said")
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 11
    os.close(terminal)
