"""Folders of a process: held while it lives, removed by the next one if it was killed."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from openresource.sandbox.folders import YOUNG_SECONDS, make_folder, remove_folder, sweep

ROOT = Path(__file__).parents[2]
OWNER = """
import sys
from openresource.sandbox.folders import make_folder
for _ in range(2):
    print(make_folder("broker"), flush=True)
sys.stdin.read()
"""
REMOVER = """
import os, threading
from openresource.sandbox.folders import make_folder, remove_folder, wipe_folder
# The first one also looks for what others have left, in a thread.
remove_folder(make_folder("egress"))
for thread in threading.enumerate():
    if thread.name == "folders-sweep":
        thread.join()
descriptors = os.listdir("/proc/self/fd")
for end in (remove_folder, wipe_folder):
    folder = make_folder("egress")
    end(folder)
    assert not folder.exists()
assert os.listdir("/proc/self/fd") == descriptors
"""


def grow_old(folder: Path) -> None:
    when = folder.stat().st_mtime - YOUNG_SECONDS - 1
    os.utime(folder, (when, when))


@pytest.fixture(autouse=True)
def own_temporary_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    return tmp_path


def test_only_what_a_killed_process_has_left_is_removed(tmp_path: Path) -> None:
    ours = make_folder("program")
    owner = subprocess.Popen(
        [sys.executable, "-c", OWNER],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        env={**os.environ, "TMPDIR": str(tmp_path)},
    )
    with owner:
        assert owner.stdout is not None
        try:
            theirs = [Path(owner.stdout.readline().strip()) for _ in range(2)]
            for folder in (ours, *theirs):
                (folder / "file").write_text("x")
                grow_old(folder)
            assert sweep(tmp_path) == []
        finally:
            owner.kill()
    # Deeper than any recursion, locked, and with a way out that must not be followed.
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "kept").write_text("kept")
    here = os.open(theirs[0], os.O_RDONLY)
    try:
        for _ in range(1_200):
            os.mkdir("d", dir_fd=here)
            deeper = os.open("d", os.O_RDONLY, dir_fd=here)
            os.close(here)
            here = deeper
        os.symlink(outside, "link", dir_fd=here)
    finally:
        os.close(here)
    (theirs[0] / "d").chmod(0)
    grow_old(theirs[0])
    (theirs[1] / "young").write_text("x")
    assert sweep(tmp_path) == [theirs[0]]
    assert ours.exists() and theirs[1].exists() and (outside / "kept").exists()
    grow_old(theirs[1])
    assert sweep(tmp_path) == [theirs[1]]
    remove_folder(ours)
    assert not ours.exists() and sweep(tmp_path) == []


def test_folders_of_others_and_other_things_stay(tmp_path: Path) -> None:
    for name in ("openresource-shown", "openresource-broker-", "broker-abc", "openresource-broker-a.b"):
        (tmp_path / name).mkdir()
        grow_old(tmp_path / name)
    (tmp_path / "openresource-broker-file").write_text("x")
    (tmp_path / "openresource-broker-link").symlink_to(tmp_path / "openresource-shown")
    os.utime(tmp_path / "openresource-broker-file", (0, 0))
    os.utime(tmp_path / "openresource-broker-link", (0, 0), follow_symlinks=False)
    before = sorted(tmp_path.iterdir())
    assert sweep(tmp_path) == [] and sorted(tmp_path.iterdir()) == before


def test_a_folder_that_is_removed_leaves_no_descriptor(tmp_path: Path) -> None:
    # In a process of its own: what other tests hold open in this one goes at its own time.
    done = subprocess.run(
        [sys.executable, "-c", REMOVER],
        cwd=ROOT,
        env={**os.environ, "TMPDIR": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
