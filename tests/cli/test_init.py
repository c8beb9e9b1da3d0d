"""`init` begins a service that `check` accepts, whether the folder was empty or held a program already."""

from __future__ import annotations

from pathlib import Path

import pytest

from openresource.cli.init import find_entry
from tests.cli.support import run_here


@pytest.mark.sandbox
def test_an_empty_folder_becomes_a_service_that_works(tmp_path: Path) -> None:
    folder = tmp_path / "My Service"
    begun = run_here("init", str(folder), "--json")
    assert begun.code == 0 and begun.json["written"] == ["openresource.toml", "service.py"]
    assert begun.json["name"] == "my-service"
    tried = run_here("check", str(folder), "--json")
    assert tried.code == 0, tried.err + tried.out
    assert tried.json["examples"][0]["output"] == "HELLO!" and tried.json["dry_run"]


@pytest.mark.sandbox
def test_a_program_that_is_there_is_named_and_left_as_it_is(tmp_path: Path) -> None:
    source = "import math\n\n\ndef area(radius: float) -> float:\n    return math.pi * radius**2\n"
    (tmp_path / "main.py").write_text(source)
    begun = run_here("init", str(tmp_path), "--name", "circles", "--json")
    assert begun.json["entry"] == "main:area" and begun.json["written"] == ["openresource.toml"]
    assert (tmp_path / "main.py").read_text() == source
    assert run_here("check", str(tmp_path), "--json").json["methods"] == ["area"]


def test_nothing_is_overwritten(tmp_path: Path) -> None:
    (tmp_path / "openresource.toml").write_text("mine")
    refused = run_here("init", str(tmp_path))
    assert refused.code == 1 and "exists already" in refused.err
    assert (tmp_path / "openresource.toml").read_text() == "mine"


@pytest.mark.parametrize("name", ["Two Words", "-", "a" * 64, ""])
def test_a_name_that_no_service_can_have_is_refused(tmp_path: Path, name: str) -> None:
    refused = run_here("init", str(tmp_path / "---"), "--name", name)
    assert refused.code == 1 and "--name" in refused.err
    assert not (tmp_path / "---" / "openresource.toml").exists()


@pytest.mark.parametrize(
    ("source", "entry"),
    [
        ("class Model: ...\ndef other(): ...", "service:Model"),
        ("def _inner(): ...\nasync def outer(): ...", "service:outer"),
        ("x = 1", None),
        ("def broken(", None),
    ],
)
def test_the_entry_is_the_first_public_class_or_function(
    tmp_path: Path, source: str, entry: str | None
) -> None:
    (tmp_path / "service.py").write_text(source)
    assert find_entry(tmp_path) == entry
