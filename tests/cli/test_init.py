"""`init` begins a service that `check` accepts, whether the folder was empty or held a program already."""

from __future__ import annotations

from pathlib import Path

import pytest

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
    ("name", "source", "entry"),
    [
        ("service.py", "class Model:\n    def turn(self, x): ...\ndef other(): ...", "service:Model"),
        ("service.py", "def _inner(): ...\nasync def outer(): ...", "service:outer"),
        ("main.py", "def a(x: int) -> int: ...\ndef b(x: str) -> str: ...", "main:*"),
    ],
)
def test_the_entry_is_what_the_code_offers(tmp_path: Path, name: str, source: str, entry: str) -> None:
    (tmp_path / name).write_text(source)
    assert run_here("init", str(tmp_path), "--name", "x", "--json").json["entry"] == entry


def test_a_folder_that_says_nothing_is_refused_with_the_lightest_way(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("hello")
    refused = run_here("init", str(tmp_path), "--name", "x")
    assert refused.code == 1 and "main.py" in refused.err
    assert not (tmp_path / "openresource.toml").exists()


@pytest.mark.sandbox
def test_a_program_that_never_heard_of_us_is_checked_as_it_is(tmp_path: Path) -> None:
    folder = tmp_path / "count-lines"
    folder.mkdir()
    (folder / "count.sh").write_text('#!/bin/sh\necho usage: count "$@"\n')
    (folder / ".env").write_text("SECRET=1")
    before = sorted(path.name for path in folder.iterdir())
    tried = run_here("check", str(folder), "--json")
    assert tried.code == 0, tried.err + tried.out
    assert tried.json["kind"] == "cli" and tried.json["methods"] == ["run"]
    assert "count.sh" in tried.json["detected"]["because"]
    assert tried.json["tries"][0]["said"] == "exit code 0: usage: count --help"
    assert sorted(path.name for path in folder.iterdir()) == before
    shown = run_here("check", str(folder))
    assert "starts    sh count.sh" in shown.err and "not published: .env" in shown.err
    assert "example" in shown.out


@pytest.mark.sandbox
def test_a_generic_method_with_an_example_is_tried_with_it(tmp_path: Path) -> None:
    (tmp_path / "say.sh").write_text('#!/bin/sh\necho "$1"\n')
    (tmp_path / "openresource.toml").write_text(
        'name = "say"\n[run]\nkind = "cli"\ncommand = ["sh", "say.sh"]\n'
        '[[methods]]\nname = "run"\nexample = {input = {args = ["hi"]}}\n'
    )
    tried = run_here("check", str(tmp_path), "--json")
    assert tried.code == 0, tried.err + tried.out
    assert tried.json["examples"][0]["output"]["stdout"] == "hi\n"
    assert tried.json["detected"] is None and tried.json["tries"] == []
