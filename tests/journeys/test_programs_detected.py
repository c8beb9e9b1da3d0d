"""Folders that never heard of this project, published as they are on a real network, placed, and called."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from openresource.cli.detecting import additions_of, detect_folder
from openresource.cli.sandboxes import find_drivers
from openresource.cli.trials import SandboxBench
from openresource.client.publishing import Publisher, prepare
from openresource.client.services import Directory
from openresource.provider.runtimes import cache_folder
from tests.journeys.test_programs_languages import PLACED_SECONDS_MAX, Stage

APPLICATION = """
import json

async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        raise RuntimeError("no life cycle")
    page = {"openapi": "3.1.0", "paths": {"/areas/{width}": {"get": {"operationId": "area", "parameters": [
        {"name": "width", "in": "path", "required": True, "schema": {"type": "integer"}},
        {"name": "height", "in": "query", "schema": {"type": "integer"}}]}}}}
    value = page
    if scope["path"] != "/openapi.json":
        height = int(scope["query_string"].decode().partition("height=")[2] or 1)
        value = {"area": int(scope["path"].rpartition("/")[2]) * height}
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"application/json")]})
    await send({"type": "http.response.body", "body": json.dumps(value).encode()})
"""
# Folder, its files, the kind, a method with an input, and the answer.
FOLDERS: list[tuple[str, dict[str, str], str, str, dict[str, Any], Any]] = [
    (
        "word-tools",
        {"word_tools.py": "def initials(text: str, upper: bool = True) -> str:\n"
                          "    found = ''.join(word[0] for word in text.split())\n    return found.upper() if upper else found\n"
                          "def longest(words: list[str]) -> str:\n    return max(words, key=len)\n"},
        "python", "longest", {"words": ["a", "ccc", "bb"]}, "ccc",
    ),
    (
        "sorted-lines",
        {"sort.sh": "#!/bin/sh\nsort \"$@\"\n", "README.md": "# Sorted\n\nSorts the lines of a text.\n"},
        "cli", "run", {"args": ["-r"], "stdin": "a\nb\n"}, {"exit_code": 0, "stdout": "b\na\n", "stderr": "", "files": {}},
    ),
    (
        "areas",
        {"Procfile": "web: python -m openresource_serving web:app\n", "web.py": APPLICATION},
        "http", "area", {"width": 6, "height": 7}, {"area": 42},
    ),
    (
        "vowels",
        {"package.json": '{"name": "vowels", "main": "index.js", "license": "MIT"}',
         "index.js": "exports.count = text => (text.match(/[aeiou]/g) || []).length;\nexports.none = text => text.replace(/[aeiou]/g, '');\n"},
        "jsonl", "none", {"args": ["banana"]}, "bnn",
    ),
    (
        "count-bytes",
        {"count.c": "#include <stdio.h>\nint main(void) { int n = 0; while (getchar() != EOF) n++; printf(\"%d\\n\", n); return 0; }\n"},
        "cli", "run", {"stdin": "12345"}, {"exit_code": 0, "stdout": "5\n", "stderr": "", "files": {}},
    ),
]  # fmt: skip


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    """One network for all of them."""
    made = Stage(tmp_path_factory.mktemp("detected"))
    yield made
    made.close()


@pytest.mark.sandbox
@pytest.mark.timeout(600)
@pytest.mark.parametrize(
    ("name", "files", "kind", "method", "asked", "answer"), FOLDERS, ids=[one[0] for one in FOLDERS]
)
def test_programs_without_a_page_are_published_as_they_are(
    stage: Stage,
    tmp_path: Path,
    name: str,
    files: dict[str, str],
    kind: str,
    method: str,
    asked: dict[str, Any],
    answer: Any,
) -> None:
    for tool, needed in (("node", "package.json"), ("cc", "count.c")):
        if needed in files and shutil.which(tool) is None:
            pytest.skip(f"{tool} is not installed here: apt install nodejs gcc")
    folder = tmp_path / name
    folder.mkdir()
    for path, text in files.items():
        (folder / path).write_text(text)

    async def journey() -> None:
        market = stage.market
        detected = await asyncio.to_thread(detect_folder, folder)
        assert detected is not None and detected.kind == kind
        bench = SandboxBench(find_drivers(), cache_folder())
        prepared = await prepare(folder, bench, additions=additions_of(detected))
        assert method in [one.name for one in prepared.manifest.methods]
        publisher = Publisher(market.chain, Directory(market.chain), market.publisher)
        publication = await publisher.publish(prepared)
        await publisher.wait_placed(prepared, publication, deadline_seconds=PLACED_SECONDS_MAX)
        service = f"{market.publisher.address}/{name}"
        reply = await stage.client.call(service, method, **asked)
        assert reply.value == answer
        if kind == "http":
            told = await stage.client.call(service, "request", path="/openapi.json")
            assert told.value["status"] == 200 and told.value["body"]["openapi"] == "3.1.0"

    stage.run(journey())
    assert sorted(path.name for path in folder.iterdir()) == sorted(files)
