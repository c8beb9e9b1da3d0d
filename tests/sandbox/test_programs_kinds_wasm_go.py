"""A module that an ordinary compiler has made: Go's own, for WASI preview 1."""

from __future__ import annotations

import base64
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from openresource.adapters.bubblewrap.driver import Bubblewrap
from openresource.adapters.wasm.driver import Wasm
from tests.sandbox.test_programs_kinds_wasm import manifest_of, run


@pytest.mark.skipif(shutil.which("go") is None, reason="no Go here")
def test_a_module_that_go_built_reads_and_writes_files(tmp_path: Path) -> None:
    driver = Wasm([Bubblewrap()], cache=tmp_path / "cache")
    if not driver.probe().available:
        pytest.skip(driver.probe().why_not)
    source = tmp_path / "source"
    source.mkdir()
    (source / "go.mod").write_text("module upper\n\ngo 1.21\n")
    (source / "main.go").write_text(
        'package main\nimport ("bytes"; "fmt"; "os")\nfunc main() {\n data, err := os.ReadFile(os.Args[1])\n'
        " if err != nil { fmt.Fprintln(os.Stderr, err); os.Exit(1) }\n"
        ' os.WriteFile("out.txt", bytes.ToUpper(data), 0o644)\n fmt.Print(len(data))\n}\n'
    )
    environment = {
        "GOOS": "wasip1",
        "GOARCH": "wasm",
        "PATH": "/usr/local/go/bin:/usr/local/bin:/usr/bin:/bin",
        "HOME": str(Path.home()),
        "GOTOOLCHAIN": "local",
        "GOFLAGS": "-mod=mod",
    }
    release = tmp_path / "release"
    release.mkdir()
    words = [str(shutil.which("go")), "build", "-o", str(release / "module.wasm"), "."]
    subprocess.run(words, cwd=source, env=environment, check=True, timeout=300)
    (release / "openresource.toml").write_text(manifest_of().replace("module.wat", "module.wasm"))
    files = {"in.txt": base64.b64encode(b"hello").decode()}
    calls: list[tuple[Any, ...]] = [
        ("run", {"args": ["in.txt"], "files": files}),
        ("run", {"args": ["gone"]}),
    ]
    found = run(driver, release, calls, memory_bytes=64 << 20)
    assert found[0][0]["files"] == {"out.txt": base64.b64encode(b"HELLO").decode()}
    assert found[0][0]["stdout"] == "5"
    assert found[1][0]["exit_code"] == 1 and "gone" in found[1][0]["stderr"]
