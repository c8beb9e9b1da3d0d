"""A family of processes: awaited by ready lines, ended in order, and no child outlives its parent."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from openresource.cli.supervisor import Child, ChildDidNotStart, ChildEnded, Supervisor

GONE_SECONDS_MAX = 60.0


def module(folder: Path, name: str, source: str) -> None:
    (folder / f"{name}.py").write_text(textwrap.dedent(source))


@pytest.fixture(autouse=True)
def children_find_their_modules(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = str(Path(__file__).parents[2])
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}{os.pathsep}{root}")


READY = 'import json, sys, time\nprint("a word before")\nprint(json.dumps({"ready": True, "port": 7}), flush=True)\n'


def test_a_child_is_ready_when_it_says_so_and_ends_when_asked(tmp_path: Path) -> None:
    module(tmp_path, "good_child", READY + "time.sleep(100)\n")

    async def scenario() -> None:
        family = Supervisor()
        child = Child("good", ("good_child",), tmp_path / "log")
        await family.start([child])
        assert (await child.ready())["port"] == 7
        began = time.monotonic()
        await family.stop((("good",),))
        assert time.monotonic() - began < GONE_SECONDS_MAX
        assert child.process is not None and child.process.returncode is not None

    asyncio.run(scenario())


def test_a_child_that_refuses_is_quoted(tmp_path: Path) -> None:
    module(
        tmp_path,
        "refusing_child",
        'print(\'{"ready": false, "error": {"message": "The port is taken.", "remedy": "Take another."}}\')',
    )

    async def scenario() -> None:
        child = Child("poor", ("refusing_child",), tmp_path / "log")
        await child.start()
        with pytest.raises(ChildDidNotStart, match="The port is taken") as caught:
            await child.ready()
        assert caught.value.remedy == "Take another."
        await child.stop()

    asyncio.run(scenario())


def test_a_child_that_dies_at_once_is_quoted_with_its_last_words(tmp_path: Path) -> None:
    module(tmp_path, "dying_child", 'raise SystemExit("no room here")')

    async def scenario() -> None:
        child = Child("dying", ("dying_child",), tmp_path / "log")
        await child.start()
        with pytest.raises(ChildDidNotStart, match="no room here"):
            await child.ready()
        await child.stop()

    asyncio.run(scenario())


def test_a_child_that_ends_by_itself_later_is_reported(tmp_path: Path) -> None:
    module(tmp_path, "brief_child", READY + "raise SystemExit(3)\n")

    async def scenario() -> None:
        family = Supervisor()
        child = Child("brief", ("brief_child",), tmp_path / "log")
        await family.start([child])
        await child.ready()
        with pytest.raises(ChildEnded, match="code 3"):
            await asyncio.wait_for(family.watch(), GONE_SECONDS_MAX)
        await family.stop(())

    asyncio.run(scenario())


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel's help is Linux's")
@pytest.mark.kill
def test_no_child_outlives_a_killed_parent(tmp_path: Path) -> None:
    module(tmp_path, "lasting_child", READY + "time.sleep(100)\n")
    module(
        tmp_path,
        "parent",
        """
        import asyncio, pathlib, sys
        from openresource.cli.supervisor import Child
        async def main():
            child = Child("lasting", ("lasting_child",), pathlib.Path(sys.argv[1]))
            await child.start()
            await child.ready()
            print(child.process.pid, flush=True)
            await asyncio.sleep(100)
        asyncio.run(main())
        """,
    )
    parent = subprocess.Popen(
        [sys.executable, "-m", "parent", str(tmp_path / "log")], stdout=subprocess.PIPE, text=True
    )
    assert parent.stdout is not None
    child_pid = int(parent.stdout.readline())
    parent.send_signal(signal.SIGKILL)
    parent.wait(GONE_SECONDS_MAX)
    parent.stdout.close()
    ends = time.monotonic() + GONE_SECONDS_MAX
    while is_running(child_pid):
        assert time.monotonic() < ends, "the child lives on"
        time.sleep(0.02)


def is_running(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/stat") as stat:
            return stat.read().rpartition(")")[2].split()[0] not in ("Z", "X")
    except OSError:
        return False
