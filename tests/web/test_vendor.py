"""The files of others are what their makers released, and the list of them is complete."""

from __future__ import annotations

import hashlib
from pathlib import Path

import openresource.web

VENDOR = Path(openresource.web.__file__).parent / "vendor"


def listed() -> dict[str, str]:
    rows = [line.split() for line in (VENDOR / "VENDOR.txt").read_text().splitlines()]
    return {row[1]: row[0] for row in rows if len(row) == 3 and len(row[0]) == 64}


def test_each_file_has_the_hash_that_is_written_down() -> None:
    assert len(listed()) == 2
    for name, digest in listed().items():
        assert hashlib.sha256((VENDOR / name).read_bytes()).hexdigest() == digest, name


def test_no_file_is_there_that_is_not_listed() -> None:
    files = {file.name for file in VENDOR.iterdir()}
    assert files == {*listed(), "VENDOR.txt", "LICENSE.txt"}
    assert "Zero-Clause BSD" in (VENDOR / "LICENSE.txt").read_text()
