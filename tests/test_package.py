"""What `import openresource` does: little, and the right kind of kernel."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import openresource

ROOT = Path(__file__).resolve().parents[1]


def test_the_package_shows_its_client_lazily() -> None:
    assert openresource.__version__
    assert openresource.Client.__name__ == "Client"
    assert openresource.AsyncClient.__name__ == "AsyncClient"
    with pytest.raises(AttributeError):
        _ = openresource.Nonsense
    script = "import sys, openresource; print(sum(name.startswith('openresource') for name in sys.modules))"
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "1"


def test_plain_python_can_be_asked_for() -> None:
    script = (
        "import openresource.ledger.tree as tree, openresource.ledger.rules as rules; print(tree.__file__)"
    )
    environment = {**os.environ, "OPENRESOURCE_PLAIN": "1"}
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, env=environment, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == str(ROOT / "openresource/ledger/tree.py")


def test_compiled_modules_count_only_while_their_sources_are_unchanged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(openresource, "_FOLDER", str(tmp_path))
    assert not openresource._is_compiled_current()
    source = tmp_path / "tree.py"
    source.write_text("one")
    facts = source.stat()
    (tmp_path / "compiled.stamp").write_text(f"{facts.st_mtime_ns} {facts.st_size} tree.py\n")
    assert openresource._is_compiled_current()
    source.write_text("another")
    assert not openresource._is_compiled_current()
    source.unlink()
    assert not openresource._is_compiled_current()
    (tmp_path / "compiled.stamp").write_text("nonsense\n")
    assert not openresource._is_compiled_current()


def test_compiling_without_a_compiler_says_so_and_leaves_plain_python(tmp_path: Path) -> None:
    copy = tmp_path / "clone"
    (copy / "scripts").mkdir(parents=True)
    (copy / "scripts/compile").write_bytes((ROOT / "scripts/compile").read_bytes())
    for name in ("primitives", "ledger"):
        (copy / "openresource" / name).mkdir(parents=True)
        (copy / "openresource" / name / "one.py").write_text("X = 1\n")
    environment = {
        **os.environ,
        "PATH": str(tmp_path),
        "CC": "no-such-compiler",
        "OPENRESOURCE_CACHE": str(tmp_path / "c"),
    }
    command = [sys.executable, str(copy / "scripts/compile")]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (1, "")
    assert "C compiler" in done.stdout
    done = subprocess.run([*command, "--quiet"], env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (1, "", "")
    done = subprocess.run([*command, "--clean"], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0
    assert sorted(path.name for path in (copy / "openresource").rglob("*.*")) == ["one.py", "one.py"]
