"""What of a folder is published, what stays out, what is refused, and the interface that comes with it."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from openresource.client import releases
from openresource.client.releases import (
    DocumentInvalid,
    EntryMissing,
    ExampleInvalid,
    MethodNotInProgram,
    NoManifest,
    NoSuchFolder,
    NotPublishable,
    ReleaseTooLarge,
    SecretInFolder,
    check_examples,
    merged_methods,
    read_release,
    with_interface,
)
from openresource.client.services import InterfaceMissing, parse_interface
from openresource.market.manifest_tables import InvalidManifest
from openresource.market.manifests import parse_manifest
from openresource.primitives.cids import folder_cid

MANIFEST = 'name = "s"\n[run]\nkind = "python"\nentry = "service:S"\n'
LINES = 'name = "s"\n[run]\nkind = "jsonl"\ncommand = ["./run.sh"]\n'


def write(folder: Path, **files: str | bytes) -> Path:
    for name, content in {"openresource.toml": MANIFEST, "service.py": "class S: ...", **files}.items():
        path = folder / name.replace("__", "/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)
    return folder


def test_the_release_is_the_folder_without_what_tools_leave_behind(tmp_path: Path) -> None:
    write(tmp_path, **{"data__words.txt": "a", "demo.toml": "", "x.pyc": "", ".git__config": "[core]"})
    for name in ("__pycache__", ".venv", ".mypy_cache"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "left").write_text("behind")
    release = read_release(tmp_path)
    assert set(release.files) == {"openresource.toml", "service.py", "data/words.txt"}
    assert release.bytes == sum(len(content) for content in release.files.values())
    assert release.program == folder_cid(release.files)


def test_the_program_is_what_its_files_are_and_not_where_they_lie(tmp_path: Path) -> None:
    one, two = write(tmp_path / "one"), write(tmp_path / "two")
    assert read_release(one).program == read_release(two).program
    (two / "service.py").write_text("class S: ... ")
    assert read_release(one).program != read_release(two).program


def test_what_was_written_out_is_the_release_again(tmp_path: Path) -> None:
    release = read_release(write(tmp_path / "from", deep__er__file="x"))
    release.write_to(tmp_path / "to")
    assert read_release(tmp_path / "to").program == release.program


@pytest.mark.parametrize("name", [".env", ".env.local", "wallet.json", "keys/id_ed25519", "funding.json"])
def test_a_likely_secret_is_never_published(tmp_path: Path, name: str) -> None:
    write(tmp_path)
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_text("secret")
    with pytest.raises(SecretInFolder, match=Path(name).name):
        read_release(tmp_path)


@pytest.mark.parametrize("target", ["/etc/passwd", "service.py", "."])
def test_links_are_refused_and_not_followed(tmp_path: Path, target: str) -> None:
    write(tmp_path)
    (tmp_path / "link").symlink_to(target)
    with pytest.raises(NotPublishable, match="link"):
        read_release(tmp_path)


def test_beside_a_page_that_was_made_links_to_published_files_are_copies_and_all_others_stay(
    tmp_path: Path,
) -> None:
    folder = tmp_path / "program"
    (folder / "deep").mkdir(parents=True)
    (folder / "run.sh").write_text("cat\n")
    (folder / ".env").write_text("SECRET=1")
    (tmp_path / "outside").write_text("private")
    links = {"deep/again": "../run.sh", "chain": "deep/again", "secret": ".env", "out": "../outside", "etc": "/etc/passwd",
             "loop": "loop", "folder": "deep", "gone": "nowhere", ".gitconfig": "/etc"}  # fmt: skip
    for name, target in links.items():
        (folder / name).symlink_to(target)
    page = '[run]\nkind = "cli"\ncommand = ["sh", "run.sh"]\n'
    release = read_release(folder, {"openresource.toml": f'name = "x"\n{page}'.encode()})
    assert set(release.files) == {"openresource.toml", "run.sh", "deep/again", "chain"}
    assert release.files["deep/again"] == release.files["chain"] == b"cat\n"
    assert set(release.left_out) == {".env", *links} - {"deep/again", "chain"}


def test_a_pipe_is_refused(tmp_path: Path) -> None:
    write(tmp_path)
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(NotPublishable, match="pipe"):
        read_release(tmp_path)


@pytest.mark.parametrize(
    ("place", "page", "beside"),
    [
        ("src", MANIFEST, "pyproject.toml"),
        ("src", MANIFEST, "setup.py"),
        ("code/py", MANIFEST + 'environment = {PYTHONPATH = "code/py"}\n', "notes.txt"),
    ],
)
def test_an_entry_may_lie_where_its_import_begins(tmp_path: Path, place: str, page: str, beside: str) -> None:
    files = {"openresource.toml": page, f"{place}/service.py": "class S: ...", beside: ""}
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    assert read_release(tmp_path).manifest.run.entry == "service:S"


def test_a_folder_that_is_too_large_is_refused_before_it_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path, **{f"file{number}": "x" for number in range(10)})
    monkeypatch.setattr(releases, "RELEASE_FILES_MAX", 5)
    with pytest.raises(ReleaseTooLarge, match="5 files"):
        read_release(tmp_path)
    (tmp_path / "huge").touch()
    os.truncate(tmp_path / "huge", releases.RELEASE_BYTES_MAX + 1)
    with pytest.raises(ReleaseTooLarge):
        read_release(tmp_path)


@pytest.mark.parametrize(
    ("files", "kind", "said"),
    [
        ({"openresource.toml": "name ="}, InvalidManifest, "not TOML"),
        ({"openresource.toml": b"name = '\xff'"}, DocumentInvalid, "UTF-8"),
        ({"openresource.toml": MANIFEST.replace("service:S", "main:S")}, EntryMissing, "no main.py"),
        ({"openresource.toml": LINES}, EntryMissing, "no run.sh"),
        (
            {"openresource.toml": MANIFEST + '[[methods]]\nname = "m"\nexample = "ex.json"\n'},
            InvalidManifest,
            "no such file",
        ),
        (
            {
                "openresource.toml": MANIFEST + '[[methods]]\nname = "m"\nexample = "ex.json"\n',
                "ex.json": "{",
            },
            DocumentInvalid,
            "ex.json",
        ),
    ],
)
def test_what_is_wrong_with_a_folder_is_named(
    tmp_path: Path, files: dict[str, Any], kind: type[Exception], said: str
) -> None:
    with pytest.raises(kind, match=said):
        read_release(write(tmp_path, **files))


def test_a_folder_that_is_none_and_one_without_a_manifest_are_told_apart(tmp_path: Path) -> None:
    with pytest.raises(NoSuchFolder):
        read_release(tmp_path / "nowhere")
    with pytest.raises(NoManifest):
        read_release(tmp_path)


DESCRIBED = [
    {"name": "a", "path": "/a", "summary": "A.", "input": {"type": "object"}, "output": {}, "stream": False},
    {"name": "b", "path": "/b", "summary": "B.", "input": {"type": "object"}, "output": {}, "stream": True},
]


def test_the_manifests_methods_come_first_and_its_words_win() -> None:
    manifest = parse_manifest(
        MANIFEST + '[[methods]]\nname = "b"\npath = "/v1/b"\nsummary = "Mine."\nexample = {input = {}}\n'
    )
    methods = merged_methods(manifest, DESCRIBED)
    assert [(one.name, one.path, one.summary, one.stream) for one in methods] == [
        ("b", "/v1/b", "Mine.", True),
        ("a", "/a", "A.", False),
    ]
    assert methods[0].input == {"type": "object"} and methods[0].example == {"input": {}}


def test_a_method_that_the_program_does_not_have_is_refused() -> None:
    with pytest.raises(MethodNotInProgram, match="has a, b"):
        merged_methods(parse_manifest(MANIFEST + '[[methods]]\nname = "c"\n'), DESCRIBED)


def test_an_example_that_does_not_fit_its_method_is_refused() -> None:
    text = (
        MANIFEST
        + '[[methods]]\nname = "m"\ninput = {type = "object", required = ["x"]}\nexample = {input = {}}\n'
    )
    with pytest.raises(ExampleInvalid, match=r"input\.x"):
        check_examples(parse_manifest(text).methods)


def test_the_interface_goes_into_the_published_bytes_and_not_into_the_folder(tmp_path: Path) -> None:
    release = with_interface(read_release(write(tmp_path)), DESCRIBED)
    assert not (tmp_path / "interface.json").exists()
    interface = parse_interface(release.files["interface.json"], "p")
    assert [method.name for method in interface.methods] == ["a", "b"] and interface.methods[1].stream
    # The same program describes itself in the same bytes, or its name would change.
    again = with_interface(read_release(tmp_path), [dict(reversed(entry.items())) for entry in DESCRIBED])
    assert again.program == release.program


def test_a_program_that_cannot_describe_itself_keeps_its_own_interface(tmp_path: Path) -> None:
    own = json.dumps({"methods": [{"name": "x", "path": "/x"}]})
    folder = write(tmp_path, **{"openresource.toml": LINES, "run.sh": "cat", "interface.json": own})
    assert with_interface(read_release(folder), None).files["interface.json"] == own.encode()
    (folder / "interface.json").write_text("[]")
    with pytest.raises(InterfaceMissing):
        with_interface(read_release(folder), None)
    (folder / "interface.json").unlink()
    methods = json.loads(with_interface(read_release(folder), None).files["interface.json"])["methods"]
    assert [method["name"] for method in methods] == ["call"]
