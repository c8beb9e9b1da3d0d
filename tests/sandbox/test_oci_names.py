"""Image archives of strangers carry no names: loaded as they are, one could take the name of an operator's own image."""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path
from typing import Any

import pytest

from openresource.adapters.oci.images import image_id_of, make_archive, write_nameless
from openresource.sandbox.driver import ProgramDidNotStart

INDEX = {
    "manifests": [{"digest": "sha256:" + "a" * 64, "size": 1, "Annotations": {"x": "y"}, "annotations": {"io.containerd.image.name": "postgres:16"}}],
    "annotations": {"org.opencontainers.image.ref.name": "postgres:16"},
}  # fmt: skip


def _members(file: Path) -> dict[str, bytes]:
    with tarfile.open(file) as tar:
        found = {one.name: tar.extractfile(one) for one in tar if one.isfile()}
        return {name: content.read() for name, content in found.items() if content is not None}


def _archive(file: Path, members: list[tuple[str, Any]]) -> Path:
    with tarfile.open(file, "w") as tar:
        for name, content in members:
            entry = tarfile.TarInfo(name)
            if isinstance(content, str):
                entry.type, entry.linkname = tarfile.SYMTYPE, content
                tar.addfile(entry)
            else:
                entry.size = len(content)
                tar.addfile(entry, io.BytesIO(content))
    return file


def test_names_are_left_out_and_the_image_is_the_same(tmp_path: Path) -> None:
    plain = tmp_path / "plain.tar"
    plain.write_bytes(make_archive({"answer": b"x"}, ["/answer"]))
    members = _members(plain)
    described = json.loads(members.pop("manifest.json"))
    named = [{**described[0], "RepoTags": ["postgres:16"], "repotags": ["postgres:16"]}]
    given = _archive(tmp_path / "given.tar", [
        *members.items(), ("./manifest.json", json.dumps(named).encode()), ("index.json", json.dumps(INDEX).encode()),
        ("repositories", b'{"postgres": {"16": "x"}}'), ("old/layer.tar", "../new/layer.tar"),
    ])  # fmt: skip
    write_nameless(given, tmp_path / "made.tar")
    assert b"postgres" not in (tmp_path / "made.tar").read_bytes()
    assert image_id_of(tmp_path / "made.tar") == image_id_of(plain)
    assert {
        name: content for name, content in _members(tmp_path / "made.tar").items() if name in members
    } == members


@pytest.mark.parametrize("members", [
    [("manifest.json", b"[]"), ("./manifest.json", b"[]")], [("a/../../manifest.json", b"[]")],
    [("link", "."), ("link/manifest.json", b"[]")], [("a/repositories", b"{}")], [("manifest.json", "other")],
    [("other", "manifest.json")], [("manifest.json", b"{")], [("index.json", b"[]")],
    [("manifest.json", b"[" + b" " * (5 << 20) + b"]")],
], ids=range(9))  # fmt: skip
def test_what_an_engine_might_read_otherwise_is_refused(
    tmp_path: Path, members: list[tuple[str, Any]]
) -> None:
    with pytest.raises(ProgramDidNotStart):
        write_nameless(_archive(tmp_path / "given.tar", members), tmp_path / "made.tar")
