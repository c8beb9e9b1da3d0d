"""Control groups of both versions: real ones where this machine gives them, a fake tree for what it lacks."""

from __future__ import annotations

import os
import subprocess
import time
from pathlib import Path

import pytest

from openresource.sandbox import groups
from openresource.sandbox.driver import Limits
from openresource.sandbox.groups import (
    OWN_LEAF,
    OWN_PROCESSES,
    make_groups,
    make_version_2,
    pass_on,
    unified_candidates,
)

LIMITS = Limits(memory_bytes=64 << 20, processes=8, cpu=0.5)


def tree(folder: Path, offered: str = "cpuset cpu memory pids", passed_on: str = "", pids: str = "") -> Path:
    """A group as files; what the kernel would do with what is written there it does not do."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "cgroup.controllers").write_text(offered)
    (folder / "cgroup.subtree_control").write_text(passed_on)
    (folder / "cgroup.procs").write_text(pids)
    return folder


def test_a_unified_group_gets_every_bound(tmp_path: Path) -> None:
    parent = tree(tmp_path / "mine", passed_on="cpu memory pids")
    group = make_version_2(parent, "one", LIMITS)
    assert group is not None and group.controllers == {"cpu", "memory", "pids"}
    made = {file.name: file.read_text() for file in group.folder.iterdir()}
    assert made == {
        "memory.max": str(64 << 20), "pids.max": str(8 + OWN_PROCESSES), "cpu.max": "50000 100000",
    }  # fmt: skip
    assert group.enter_files == [str(parent / "one" / "cgroup.procs")]


def test_a_unified_group_is_read_as_the_kernel_writes_it(tmp_path: Path) -> None:
    parent = tree(tmp_path / "mine", passed_on="memory pids")
    group = make_version_2(parent, "one", LIMITS)
    assert group is not None and "cpu" not in group.controllers
    assert group.cpu_ns() is None and group.oom_kills() == 0 and group.peak_bytes() == 0
    (group.folder / "cpu.stat").write_text("usage_usec 1500\nuser_usec 1000\n")
    (group.folder / "memory.events").write_text("low 0\noom 3\noom_kill 2\noom_group_kill 1\n")
    (group.folder / "memory.current").write_text("4096\n")
    assert (group.cpu_ns(), group.oom_kills(), group.peak_bytes()) == (1_500_000, 2, 4096)
    (group.folder / "memory.peak").write_text("8192\n")
    assert group.peak_bytes() == 8192
    assert groups.held_bytes(group) == LIMITS.memory_bytes
    group.kill()
    assert (group.folder / "cgroup.kill").read_text() == "1"


def test_without_memory_and_processes_there_is_no_group(tmp_path: Path) -> None:
    for passed_on in ("", "cpu", "cpu memory", "pids"):
        assert make_version_2(tree(tmp_path / "mine", passed_on=passed_on), "one", LIMITS) is None


def test_controllers_are_passed_on_where_they_are_offered(tmp_path: Path) -> None:
    parent = tree(tmp_path / "mine")
    assert pass_on(parent, frozenset())
    assert (parent / "cgroup.subtree_control").read_text() == "+memory +pids +cpu"
    assert not pass_on(tree(tmp_path / "other", offered="cpu"), frozenset())


def test_our_own_processes_make_room_and_others_are_let_be(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # As the kernel does: a group with processes of its own cannot pass anything on.
    write = groups._write

    def refusing(path: Path, text: str) -> bool:
        is_busy = path.name == "cgroup.subtree_control" and (path.parent / "cgroup.procs").read_text().strip()
        if path.parent.name == OWN_LEAF:
            (path.parent.parent / "cgroup.procs").write_text("")
        return not is_busy and write(path, text)

    monkeypatch.setattr(groups, "_write", refusing)
    foreign = tree(tmp_path / "foreign", pids="1\n42\n")
    assert not pass_on(foreign, frozenset((42,)))
    assert not (foreign / OWN_LEAF).exists()
    mine = tree(tmp_path / "mine", pids="42\n")
    assert pass_on(mine, frozenset((42, 43)))
    assert (mine / OWN_LEAF / "cgroup.procs").read_text() == "42"
    assert "+memory" in (mine / "cgroup.subtree_control").read_text()


def test_our_place_and_those_above_it_are_candidates() -> None:
    mounts = "tmpfs /sys tmpfs rw 0 0\ncgroup2 /sys/fs/cgroup cgroup2 rw 0 0\n"
    own = "1:name=systemd:/x\n0::/user.slice/run-7.scope\n"
    assert [str(place) for place in unified_candidates(own, mounts)] == [
        "/sys/fs/cgroup/user.slice/run-7.scope", "/sys/fs/cgroup/user.slice", "/sys/fs/cgroup",
    ]  # fmt: skip
    assert unified_candidates("4:memory:/\n", mounts) == []
    assert unified_candidates(own, "proc /proc proc rw 0 0\n") == []


def test_a_real_group_holds_a_real_process() -> None:
    made = make_groups(LIMITS)
    if made is None:
        pytest.skip("this machine gives no control groups to this user")
    try:
        assert {"memory", "pids"} <= made.controllers
        assert groups.held_bytes(made) == LIMITS.memory_bytes
        eater = "import sys; sys.stdin.readline(); x = bytearray(300 << 20); print(len(x))"
        process = subprocess.Popen(
            ["/usr/bin/env", "python3", "-c", eater], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        for file in made.enter_files:
            Path(file).write_text(str(process.pid))
        output, _ = process.communicate("go\n", timeout=120)
        assert output == "" and process.returncode == -9
        assert made.oom_kills() == 1 and made.peak_bytes() >= 60 << 20
        assert (made.cpu_ns() or 0) > 0
    finally:
        deadline = time.monotonic() + 60
        while not made.remove() and time.monotonic() < deadline:
            os.sched_yield()
    assert made.remove()
