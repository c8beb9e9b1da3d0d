"""The whole network on one machine: it walks its journey, conserves every coin, refuses what is taken, leaves nothing behind."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from openresource.client.homes import Home
from tests.cli.support import UP_PORT_OFFSETS, environment, free_up_port, run_cli

pytestmark = [pytest.mark.journey, pytest.mark.timeout(300)]

STOP_SECONDS_MAX = 90.0


def once(folder: Path) -> dict[str, Any]:
    done = run_cli("up", "--once", "--json", "--port", str(free_up_port()), "--home", str(folder))
    assert done.code == 0, done.err
    assert len(done.out.strip().splitlines()) == 1
    record: dict[str, Any] = done.json
    return record


def test_the_journey_pays_everybody_and_no_coin_is_made_or_lost_also_the_second_time(tmp_path: Path) -> None:
    for run in (1, 2):
        record = once(tmp_path / "network")
        before, after = record["balances"]["before"], record["balances"]["after"]
        assert record["supply"]["before"] == record["supply"]["after"] == 700_000_000 * 1_000_000
        assert after["publisher"] > before["publisher"], run
        assert after["buyer"] < before["buyer"]
        assert sum(after[f"provider-{number}"] - before[f"provider-{number}"] for number in (1, 2, 3)) > 0
        assert after["treasury"] > before["treasury"]
        caught = record["liar"]
        assert caught["is_caught"] and caught["fault"] == "wrong_digest", run
        assert caught["slashed_uain"] == 1_000_000 == before["bond-3"] - after["bond-3"]
        assert caught["job"]["status"] in ("REFUTED", "ACCEPTED")
        assert caught["result"]["summary"] == "The rain began at noon and filled the river within an hour."
        if caught["role"] == "worker":
            # Whoever asked saw the lie first, marked as what it was: a result that nobody had checked.
            assert caught["provisional"]["summary"] != caught["result"]["summary"]
            assert caught["provisional_ms"] <= caught["verdict_ms"] and caught["job"]["paid_uain"] == 0
        assert (before["bond-1"], before["bond-2"]) == (after["bond-1"], after["bond-2"])
        # What left the buyer arrived with the others: all channels are settled and the hold is used up.
        assert sum(before.values()) == sum(after.values())
        names = [step["name"] for step in record["steps"]]
        assert {
            "chain",
            "published, placed, tested",
            "program started by a write",
            "a liar is caught",
            "claims on the chain",
        } <= set(names)
        assert record["wall_seconds"] > 0 and all(step["milliseconds"] >= 0 for step in record["steps"])


def test_it_stays_until_it_is_told_to_end_and_leaves_nothing_behind(tmp_path: Path) -> None:
    port, folder = free_up_port(), tmp_path / "network"
    process = subprocess.Popen(
        [sys.executable, "-m", "openresource", "up", "--port", str(port), "--home", str(folder)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=environment(),
    )
    try:
        assert process.stdout is not None
        said = []
        for line in process.stdout:
            said.append(line)
            if "Ctrl-C ends everything" in line:
                break
        text = "".join(said)
        assert "Simulated:" in text and "Real:" in text and f"http://127.0.0.1:{port + 2}/" in text, text
        listed = json.load(urllib.request.urlopen(f"http://127.0.0.1:{port + 2}/"))
        assert {one["name"] for one in listed["services"]} >= {"gist", "scrub"}
        request = urllib.request.Request(
            f"http://127.0.0.1:{port + 2}/scrub", data=b'{"text": "a@example.org"}'
        )
        with urllib.request.urlopen(request) as answer:
            assert json.load(answer)["text"] == "[EMAIL_1]"
        taken = run_cli("up", "--once", "--port", str(port), "--home", str(tmp_path / "other"))
        assert taken.code == 1 and f"Port {port} " in taken.err and "--port" in taken.err and taken.is_plain()
        busy = run_cli("up", "--once", "--port", str(free_up_port()), "--home", str(folder))
        assert busy.code == 1 and "in use" in busy.err and busy.is_plain()
        process.send_signal(signal.SIGINT)
        rest, _ = process.communicate(timeout=STOP_SECONDS_MAX)
        assert process.returncode == 0, rest
    finally:
        if process.poll() is None:
            process.kill()
            process.communicate()
    for offset in UP_PORT_OFFSETS:
        with socket.socket() as free:
            free.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            free.bind(("127.0.0.1", port + offset))
    # The deposit that the plain address paid from came home when the providers left.
    Home(folder).lock("up").close()


def test_a_folder_without_programs_is_refused_before_anything_starts(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    refused = run_cli("up", "--once", "--examples", str(tmp_path / "empty"), "--port", str(free_up_port()))
    assert refused.code == 1 and "openresource.toml" in refused.err and refused.is_plain()


def test_a_program_that_does_not_start_ends_it_in_order(tmp_path: Path) -> None:
    broken = tmp_path / "broken"
    broken.mkdir()
    (broken / "openresource.toml").write_text(
        'name = "broken"\n[run]\nkind = "python"\nentry = "service:S"\n'
    )
    (broken / "service.py").write_text("import no_such_package\n")
    ended = run_cli(
        "up",
        "--once",
        "--examples",
        str(broken),
        "--port",
        str(free_up_port()),
        "--home",
        str(tmp_path / "network"),
    )
    assert ended.code == 1 and "no_such_package" in ended.err and ended.is_plain()
