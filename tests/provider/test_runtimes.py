"""Which runtime a program gets: by its lock, by its name alone, or an interpreter of this machine."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import pytest

from openresource.market.manifests import Manifest, parse_manifest
from openresource.provider.runtimes import RequirementsNotMet, choose_runtime, list_runtimes, runtime_names

LOCKS = [f"sha256:{digit * 64}" for digit in "12"]
OWN = f"python-3.{sys.version_info.minor}"


def _manifest(build: str) -> Manifest:
    return parse_manifest(f'name = "x"\n[run]\nkind = "python"\nentry = "x:y"\n[build]\n{build}\n')


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    for number, lock in enumerate(LOCKS):
        folder = tmp_path / "runtimes" / f"ml-{number}"
        (folder / "bin").mkdir(parents=True)
        (folder / "bin" / "python").symlink_to(sys.executable)
        (folder / "runtime.json").write_text(json.dumps({"name": "ml", "lock": lock, "python": "bin/python"}))
        os.utime(folder, (number, number))
    return tmp_path


def test_a_runtime_is_found_by_its_lock_or_the_newest_by_its_name(cache: Path) -> None:
    runtimes = list_runtimes(cache)
    by_lock = choose_runtime(_manifest(f'runtime = "ml"\nlock = "{LOCKS[0]}"'), runtimes, cache)
    assert by_lock is not None and by_lock.lock == LOCKS[0]
    by_name = choose_runtime(_manifest('runtime = "ml"'), runtimes, cache)
    assert by_name is not None and by_name.lock == LOCKS[1]
    assert choose_runtime(_manifest(""), runtimes, cache) is None


def test_an_interpreter_of_this_machine_is_a_runtime(cache: Path) -> None:
    runtime = choose_runtime(_manifest(f'runtime = "{OWN}"'), {}, cache)
    assert runtime is not None and runtime.name == OWN and runtime.python.is_file()


def test_what_is_not_here_is_refused_with_what_is(cache: Path) -> None:
    runtimes = list_runtimes(cache)
    assert {"ml", OWN} <= set(runtime_names(runtimes))
    for build in (
        'runtime = "gone"',
        f'runtime = "ml"\nlock = "sha256:{"3" * 64}"',
        'runtime = "python-3.99"',
    ):
        with pytest.raises(RequirementsNotMet) as refusal:
            choose_runtime(_manifest(build), runtimes, cache)
        assert "ml" in str(refusal.value) and OWN in str(refusal.value)
