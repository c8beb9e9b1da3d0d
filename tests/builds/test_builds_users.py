"""Builds under every user: root gives each build a user of its own, a plain user has to do with one."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from openresource.adapters.confined.driver import Confined
from openresource.builds.building import build
from openresource.builds.cache import Cache
from openresource.builds.languages import find_languages
from openresource.builds.workshop import BuildNeedsNamespaces, Workshop
from openresource.sandbox.drivers import Drivers
from openresource.sandbox.launching import LAUNCHER, memory_file
from openresource.sandbox.releases import load_manifest
from tests.builds.support import program
from tests.sandbox.workers import IS_ROOT, PLAIN_UID, ROOT, STAGE

pytestmark = [pytest.mark.sandbox, pytest.mark.timeout(300)]
PROGRAM: dict[str, str | bytes] = {
    "openresource.toml": 'name = "double"\n[run]\nkind = "cli"\ncommand = ["./double"]\n'
    '[[methods]]\nname = "double"\nargs = ["{number}"]\nresult = "json"\n',
    "double.c": '#include <stdio.h>\n#include <stdlib.h>\nint main(int n, char **w) { printf("%d\\n", n > 1 ? 2 * atoi(w[1]) : 0); }\n',
}


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that every user can reach."""
    folder = Path(tempfile.mkdtemp(prefix="openresource-test-builds-"))
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


def test_a_plain_user_builds_and_runs(open_folder: Path) -> None:
    folder = program(open_folder / "program", PROGRAM)
    place = open_folder / "cache"
    place.mkdir()
    arguments = ["-m", "tests.builds.plain_user", str(folder), str(place), '{"number": 21}']
    words, descriptors = [sys.executable, *arguments], ()
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    if IS_ROOT:
        os.chown(place, PLAIN_UID, PLAIN_UID)
        plan = {
            "stage": {
                "point": STAGE,
                "binds": [
                    (os.path.realpath(sys.base_prefix), "python"),
                    (str(ROOT), "repository"),
                    (sysconfig.get_paths()["purelib"], "packages"),
                ],
            },
            "uid": PLAIN_UID,
            "argv": [f"{STAGE}/python/bin/python3.{sys.version_info.minor}", *arguments],
            "folder": f"{STAGE}/repository",
            "env": {
                "PYTHONPATH": f"{STAGE}/repository:{STAGE}/packages",
                "PATH": "/usr/local/bin:/usr/bin:/bin",
                "HOME": "/nonexistent",
                "LD_LIBRARY_PATH": f"{STAGE}/python/lib",
            },
        }
        descriptor = memory_file(json.dumps(plan).encode())
        words = [sys.executable, "-I", "-S", str(LAUNCHER), str(descriptor)]
        descriptors = (descriptor,)
    done = subprocess.run(
        words, capture_output=True, text=True, check=False, timeout=240, env=environment, cwd=ROOT, pass_fds=descriptors
    )  # fmt: skip
    for descriptor in descriptors:
        os.close(descriptor)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["uid"] != 0 and told.get("answer") == "42", told
    assert told["cid"].startswith("bafy")


def test_where_nothing_has_namespaces_a_build_is_refused_with_the_ways_out(tmp_path: Path) -> None:
    folder = program(tmp_path / "program", PROGRAM)
    shop = Workshop(Cache(tmp_path / "cache"), Drivers([Confined()]), find_languages())
    with pytest.raises(BuildNeedsNamespaces) as refusal:
        asyncio.run(build(folder, load_manifest(folder), workshop=shop))
    assert "prepared runtime" in refusal.value.remedy and "double has to be built" in refusal.value.message
    assert not list((tmp_path / "cache" / "releases").iterdir())
