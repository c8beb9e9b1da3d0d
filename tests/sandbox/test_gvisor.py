"""gVisor: what its bundle says, and programs of each kind that it serves where `runsc` is installed."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from openresource.adapters.gvisor.bundles import write_bundle
from openresource.adapters.gvisor.driver import Gvisor
from openresource.market.manifests import parse_manifest
from openresource.sandbox.driver import Limits, Release
from openresource.sandbox.layout import interpreter_of
from openresource.sandbox.views import view_of
from tests.sandbox.workers import IDENTITIES, Worker

pytestmark = pytest.mark.sandbox
needs_runsc = pytest.mark.skipif(
    shutil.which("runsc") is None, reason="runsc is not installed on this machine"
)
MANIFEST = 'name = "sums"\n[run]\nkind = "python"\nentry = "sums:add"\n'


def test_the_bundle_gives_nothing_that_a_program_does_not_need(tmp_path: Path) -> None:
    app, broker, bundle = tmp_path / "app", tmp_path / "sock", tmp_path / "bundle"
    for folder in (app, broker, bundle):
        folder.mkdir()
    view = view_of(Release(app, parse_manifest(MANIFEST)), interpreter_of(None), broker, ())
    write_bundle(bundle, view, Limits(disk_bytes=1 << 20), {"LANG": "C"}, ["/tools/python", "x.py"])
    written = json.loads((bundle / "config.json").read_text())
    process = written["process"]
    assert process["noNewPrivileges"] and process["user"]["uid"] == 65_534
    assert set(map(tuple, process["capabilities"].values())) == {()}
    assert process["env"] == ["LANG=C"] and process["cwd"] == "/app"
    assert written["root"]["readonly"]
    shown = {mount["destination"]: mount for mount in written["mounts"]}
    assert all("ro" in mount["options"] for mount in shown.values() if mount["type"] == "bind")
    assert "size=1048576" in shown["/tmp"]["options"]
    assert not {"/root", "/home", "/etc", "/var", "/run", "/"} & set(shown)
    for place, mount in shown.items():
        if mount["type"] == "bind":
            assert (bundle / "rootfs" / place.lstrip("/")).is_dir() == os.path.isdir(mount["source"])


def test_without_its_binary_the_driver_says_how_to_get_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: None)
    capabilities = Gvisor().probe()
    assert not capabilities.available and "apt install runsc" in capabilities.why_not


@needs_runsc
@pytest.mark.parametrize("identity", IDENTITIES)
def test_kinds_that_need_no_network_run(workers: Callable[[str], Worker], identity: str) -> None:
    outcome: Any = workers(identity).run(
        "gvisor", {"sums.py": "def add(a: int, b: int) -> int:\n    return a + b\n"},
        [{"call": "add", "input": {"a": 2, "b": 3}}], manifest=MANIFEST,
    )  # fmt: skip
    assert outcome["replies"][0]["body"] == "5" and outcome["left"] == []
    lines = 'name = "echo"\n[run]\nkind = "jsonl"\ncommand = ["cat"]\n[[methods]]\nname = "echo"\n'
    outcome = workers(identity).run("gvisor", {}, [{"call": "echo", "input": {"a": 1}}], manifest=lines)
    assert json.loads(outcome["replies"][0]["body"]) == {"a": 1}


@needs_runsc
def test_a_server_is_refused_by_name(workers: Callable[[str], Worker]) -> None:
    manifest = 'name = "web"\n[run]\nkind = "http"\ncommand = ["python3", "app.py"]\n'
    outcome = workers(IDENTITIES[0]).run("gvisor", {"app.py": ""}, [], manifest=manifest)
    assert outcome["error"]["error"] == "KindNotServed"
