"""The parts of a push alone: what a tree may hold, which addresses are taken, how a version is written, what a hook reads."""

from __future__ import annotations

import asyncio
import subprocess
import tomllib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from openresource.adapters.git.commands import GitMissing, environment, run_git
from openresource.adapters.git.repositories import accepted_address, accepted_branch, looks_like_repository
from openresource.adapters.git.trees import (
    TREE_BYTES_MAX,
    TREE_FILES_MAX,
    TreeNotAccepted,
    TreeTooLarge,
    export_tree,
    read_listing,
)
from openresource.cli.receive import RefNotTaken, TooManyRefs, read_updates, take_quarantine
from openresource.cli.remotes import NameNotClear, RemoteUnreadable, load_remote, name_of, plain_name
from openresource.client.releases import read_release, with_version
from openresource.primitives.errors import Refusal

OBJECT = "ab" * 20
MANIFEST = """\
# A comment with version = "9.9.9" in it.
name = "hello"
{line}summary = "Greets."
[run]
kind = "jsonl"
command = ["sh", "hello.sh"]
[[methods]]
name = "greet"
example = {{input = {{version = "0.0.1"}}}}
"""


def entry(path: str | bytes, mode: str = "100644", size: int = 1) -> bytes:
    raw = path if isinstance(path, bytes) else path.encode()
    kind = "commit" if mode == "160000" else "blob"
    return f"{mode} {kind} {OBJECT} {'-' if kind == 'commit' else size:>7}\t".encode() + raw + b"\0"


# ── Trees ────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_tree_is_its_files_with_their_right_to_run() -> None:
    listing = (
        entry("a.txt") + entry("bin/run", "100755", 20) + entry("third/party", "160000") + entry(".venv/x")
    )
    files, submodules = read_listing(listing)
    assert [(file.path, file.mode, file.size) for file in files] == [
        ("a.txt", 0o644, 1),
        ("bin/run", 0o755, 20),
    ]
    assert submodules == ["third/party"]


@pytest.mark.parametrize(
    "path",
    [
        "../a", "a/../b", "/a", "a//b", "./a", "a/.", ".git", ".GIT/hooks/pre-receive", "a/.git/config",
        "a\nb", "a\x1b[2J", "a\\b", "a\x00b"[:1] + "\x7f", b"\xff\xfe", "x" * 256, "/".join("d" * 40), "y/" * 400 + "z",
    ],
)  # fmt: skip
def test_a_name_that_leads_elsewhere_is_refused(path: str | bytes) -> None:
    with pytest.raises(TreeNotAccepted) as refusal:
        read_listing(entry(path))
    assert "\x1b" not in refusal.value.message and "\n" not in refusal.value.message


@pytest.mark.parametrize("mode", ["120000", "040000", "100000", "160755"])
def test_what_is_no_plain_file_is_refused(mode: str) -> None:
    with pytest.raises(TreeNotAccepted):
        read_listing(entry("a", mode))


def test_links_of_a_repository_of_others_are_copies_of_its_files_or_stay_behind(tmp_path: Path) -> None:
    links = {"deep/again": "../run.sh", "chain": "deep/again", "out": "../outside", "etc": "/etc/passwd", "a": "b", "b": "a",
             "folder": "deep", "gone": "nowhere", "git": ".git/config", "over": "deep/../../../run.sh"}  # fmt: skip
    work = tmp_path / "work"
    (work / "deep").mkdir(parents=True)
    (work / "deep" / "file").write_text("x")
    (work / "run.sh").write_text("cat\n")
    (work / "run.sh").chmod(0o755)
    for name, target in links.items():
        (work / name).symlink_to(target)
    git = ["git", "-c", "user.name=a", "-c", "user.email=a@b", "-C", str(work)]
    for words in (["init", "-q"], ["add", "--all"], ["commit", "-q", "-m", "x"]):
        subprocess.run([*git, *words], check=True)
    commit = subprocess.run(
        [*git, "rev-parse", "HEAD"], check=True, capture_output=True, text=True
    ).stdout.strip()
    with pytest.raises(TreeNotAccepted, match="it is a link"):
        asyncio.run(export_tree(work / ".git", commit, tmp_path))
    exported = asyncio.run(export_tree(work / ".git", commit, tmp_path / "to", takes_links=True))
    names = sorted(
        path.relative_to(tmp_path / "to").as_posix()
        for path in (tmp_path / "to").rglob("*")
        if path.is_file()
    )
    assert names == ["chain", "deep/again", "deep/file", "run.sh"] and exported.files == 4
    assert (tmp_path / "to" / "chain").read_text() == "cat\n"
    assert not any(path.is_symlink() for path in (tmp_path / "to").rglob("*"))
    assert exported.remarks == ("8 links to no file of it are left out, such as a",)


def test_a_file_and_a_folder_of_one_name_are_refused() -> None:
    with pytest.raises(TreeNotAccepted):
        read_listing(entry("a") + entry("a/b"))
    with pytest.raises(TreeNotAccepted):
        read_listing(entry("a") + entry("a"))


def test_a_tree_has_bounds() -> None:
    with pytest.raises(TreeTooLarge):
        read_listing(entry("a", size=TREE_BYTES_MAX) + entry("b", size=1))
    with pytest.raises(TreeTooLarge):
        read_listing(b"".join(entry(f"f{number}") for number in range(TREE_FILES_MAX + 1)))


@given(st.lists(st.binary(min_size=1, max_size=40).filter(lambda raw: b"\0" not in raw), max_size=5))
def test_whatever_a_tree_is_called_no_file_leaves_its_folder(names: list[bytes]) -> None:
    try:
        files, _ = read_listing(b"".join(entry(name) for name in names))
    except Refusal:
        return
    base = Path("/base")
    for file in files:
        assert (base / file.path).resolve().is_relative_to(base)
        assert file.path.isprintable() or file.path.encode().decode() == file.path


# ── Addresses ────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("text", "given_to_git"),
    [
        ("https://example.org/a/b.git", "https://example.org/a/b.git"),
        ("ssh://git@example.org/a.git", "ssh://git@example.org/a.git"),
        ("git@example.org:a/b.git", "ssh://git@example.org/a/b.git"),
        ("/srv/a.git", "file:///srv/a.git"),
        ("file:///srv/a.git", "file:///srv/a.git"),
    ],
)
def test_the_usual_addresses_are_taken(text: str, given_to_git: str) -> None:
    assert accepted_address(text) == given_to_git
    assert looks_like_repository(text)


@given(st.text(max_size=60))
def test_no_text_becomes_an_option_or_another_transport(text: str) -> None:
    try:
        address = accepted_address(text)
    except Refusal:
        return
    assert address.startswith(("https://", "ssh://", "file:///"))
    assert "@-" not in address and "//-" not in address


@pytest.mark.parametrize(
    "text", ["-x", "--upload-pack=x", "a..b", "a b", "", "a.lock", "/a", "a/", "a~1", "a^"]
)
def test_a_branch_is_no_option_and_no_expression(text: str) -> None:
    with pytest.raises(Refusal):
        accepted_branch(text)


def test_git_gets_an_environment_made_from_a_list() -> None:
    found = environment(
        {
            "PATH": "/bin",
            "GIT_DIR": "/x",
            "GIT_SSH_COMMAND": "evil",
            "GIT_PROXY_COMMAND": "evil",
            "SECRET": "s",
        }
    )
    assert found["PATH"] == "/bin" and found["GIT_TERMINAL_PROMPT"] == "0"
    assert found["GIT_ALLOW_PROTOCOL"] == "https:ssh:file" and "evil" not in found.values()
    assert not {"GIT_DIR", "GIT_PROXY_COMMAND", "SECRET"} & found.keys()


def test_a_machine_without_git_is_told_so(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(GitMissing) as refusal:
        asyncio.run(run_git(["version"]))
    assert "apt install git" in refusal.value.remedy


# ── Versions ─────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    "line", ["", 'version = "0.1.0"\n', "version='0.1.0'   # now\n", '  version   =   "0.1.0"\n']
)
def test_a_version_is_written_and_all_else_stays(tmp_path: Path, line: str) -> None:
    (tmp_path / "openresource.toml").write_text(MANIFEST.format(line=line))
    (tmp_path / "hello.sh").write_text("cat\n")
    before = read_release(tmp_path)
    after = with_version(before, "0.1.0+1f6c80b729")
    assert after.manifest.version == "0.1.0+1f6c80b729"
    texts = [tomllib.loads(one.files["openresource.toml"].decode()) for one in (before, after)]
    assert {**texts[0], "version": "0.1.0+1f6c80b729"} == texts[1]
    assert texts[1]["methods"][0]["example"]["input"] == {"version": "0.0.1"}
    assert after.files["hello.sh"] == before.files["hello.sh"]
    assert (tmp_path / "openresource.toml").read_text() == MANIFEST.format(line=line), (
        "the folder stays as it is"
    )


# ── The hook ─────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_hook_reads_what_git_gives_it() -> None:
    zero = "0" * 40
    updates = read_updates(f"{zero} {OBJECT} refs/heads/main\n{OBJECT} {zero} refs/tags/v 1\n", "main")
    assert [(one.ref, one.is_deletion) for one in updates] == [
        ("refs/heads/main", False),
        ("refs/tags/v 1", True),
    ]
    with pytest.raises(RefNotTaken):
        read_updates(f"{zero} {OBJECT} refs/notes/x\n", "main")
    with pytest.raises(TooManyRefs):
        read_updates("".join(f"{zero} {OBJECT} refs/heads/b{number}\n" for number in range(101)), "main")


def test_gits_own_variables_mislead_no_other_git() -> None:
    variables = {"PATH": "/bin", "GIT_DIR": ".", "GIT_OBJECT_DIRECTORY": "/q", "GIT_PUSH_OPTION_COUNT": "1"}
    assert take_quarantine(variables) == {"GIT_OBJECT_DIRECTORY": "/q"}
    assert variables == {"PATH": "/bin"}


def test_a_remote_is_named_after_its_service(tmp_path: Path) -> None:
    folder = tmp_path / "My Tool_2"
    folder.mkdir()
    assert name_of(str(folder)) == "my-tool-2"
    (folder / "openresource.toml").write_text('name = "tool"\n')
    assert name_of(str(folder)) == "tool" and name_of("other") == "other"
    for wrong in ("no/such/folder", "Bad Name"):
        with pytest.raises(NameNotClear):
            name_of(wrong)
    assert plain_name("x" * 80) == "x" * 63 and plain_name("--") == ""


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"name": "a", "more": 1}'])
def test_a_remote_whose_record_is_broken_refuses_pushes(tmp_path: Path, text: str) -> None:
    (tmp_path / "openresource.json").write_text(text)
    with pytest.raises(RemoteUnreadable):
        load_remote(tmp_path)
