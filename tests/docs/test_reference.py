"""The reference pages say what the code says."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def run_make_docs(*arguments: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, ROOT / "scripts" / "make-docs", *arguments],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def test_no_page_is_stale():
    checked = run_make_docs("--check")
    assert checked.returncode == 0, checked.stdout + checked.stderr


def test_anything_but_check_is_refused():
    assert run_make_docs("--chekc").returncode == 2
