"""What is kept of builds: once for each lock and content, whole or not at all, never more than the bound."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from openresource.builds.artifacts import ArtifactMissing
from openresource.builds.cache import Cache
from openresource.primitives.cids import file_blocks, file_cid
from tests.builds.support import made, program, workshop

KEYS = [f"{number:064x}" for number in range(8)]


async def _put(cache: Cache, key: str, size: int) -> None:
    async with cache.making("releases", key) as (entry, fresh):
        assert entry is None
        (fresh / "content").mkdir()
        (fresh / "content" / "file").write_bytes(os.urandom(size))
        await cache.keep("releases", key, fresh, {})


def test_the_least_recently_used_goes_first_and_what_is_held_stays(tmp_path: Path) -> None:
    cache = Cache(tmp_path, bytes_max=3 << 20)

    async def fill() -> None:
        for number, key in enumerate(KEYS[:2]):
            await _put(cache, key, 1 << 20)
            os.utime(tmp_path / "releases" / key / "record.json", (number, number))
        held = cache.find("releases", KEYS[0])
        assert held is not None
        os.utime(tmp_path / "releases" / KEYS[0] / "record.json", (0, 0))
        for key in KEYS[2:5]:
            await _put(cache, key, 900_000)
        kept = {path.name for path in (tmp_path / "releases").iterdir()}
        assert KEYS[0] in kept and KEYS[1] not in kept and KEYS[4] in kept
        assert cache.total_bytes() <= 3 << 20
        del held
        cache.clear()
        await _put(cache, KEYS[6], 2 << 20)
        assert not (tmp_path / "releases" / KEYS[0]).exists()

    asyncio.run(fill())


def test_one_key_is_made_once_however_many_want_it(tmp_path: Path) -> None:
    cache, times = Cache(tmp_path), 0

    async def want() -> bytes:
        nonlocal times
        async with cache.making("dependencies", KEYS[0]) as (entry, fresh):
            if entry is None:
                times += 1
                await asyncio.sleep(0.05)
                (fresh / "content").mkdir()
                (fresh / "content" / "file").write_bytes(b"made")
                entry = await cache.keep("dependencies", KEYS[0], fresh, {})
            return (entry.content / "file").read_bytes()

    async def all_at_once() -> list[bytes]:
        return list(await asyncio.gather(*[want() for _ in range(6)]))

    assert asyncio.run(all_at_once()) == [b"made"] * 6
    assert times == 1


CRASH = """
import asyncio, os, sys
from pathlib import Path
from openresource.builds.cache import Cache

async def main():
    async with Cache(Path(sys.argv[1])).making("releases", sys.argv[2]) as (entry, fresh):
        (fresh / "half").write_text("half")
        print("half-way", flush=True)
        await asyncio.sleep(600)

asyncio.run(main())
"""


def test_a_killed_build_leaves_nothing_that_is_taken_for_a_whole_one(tmp_path: Path) -> None:
    maker = subprocess.Popen(
        [sys.executable, "-c", CRASH, str(tmp_path), KEYS[0]], stdout=subprocess.PIPE, text=True
    )
    assert maker.stdout is not None
    assert maker.stdout.readline() == "half-way\n"
    maker.kill()
    maker.wait()
    maker.stdout.close()
    cache = Cache(tmp_path)
    assert cache.find("releases", KEYS[0]) is None
    began = time.monotonic()
    asyncio.run(_put(cache, KEYS[0], 10))
    assert time.monotonic() - began < 10
    entry = cache.find("releases", KEYS[0])
    assert entry is not None and not (entry.folder / "half").exists()
    assert [path.name for path in (tmp_path / "releases").iterdir()] == [KEYS[0]]


def test_what_is_in_the_cache_but_no_entry_is_not_used(tmp_path: Path) -> None:
    cache = Cache(tmp_path)
    for key, text in ((KEYS[0], "not json"), (KEYS[1], "[]")):
        folder = tmp_path / "releases" / key
        folder.mkdir()
        (folder / "record.json").write_text(text)
    assert cache.find("releases", KEYS[0]) is None and cache.find("releases", KEYS[1]) is None
    asyncio.run(_put(cache, KEYS[1], 10))
    assert cache.find("releases", KEYS[1]) is not None


C = {
    "openresource.toml": 'name = "two"\n[run]\nkind = "cli"\ncommand = ["./two"]\n',
    "two.c": '#include <stdio.h>\nint main(void) { puts("2"); return 0; }\n',
}


@pytest.mark.sandbox
def test_the_same_content_is_built_once_and_another_one_anew(tmp_path: Path) -> None:
    shop = workshop(tmp_path)
    first = made(program(tmp_path / "one", dict(C)), shop)
    assert not first.is_cached and first.language == "c"
    second = made(program(tmp_path / "copy", dict(C)), shop)
    assert second.is_cached and second.build_cid == first.build_cid and second.folder == first.folder
    # The interface is written after the first build, and nothing is built anew for it.
    published = made(program(tmp_path / "published", {**C, "interface.json": "{}"}), shop)
    assert published.is_cached and published.build_cid == first.build_cid
    changed = made(program(tmp_path / "other", {**C, "two.c": C["two.c"].replace('"2"', '"3"')}), shop)
    assert not changed.is_cached and changed.build_cid != first.build_cid
    record = json.loads((first.folder / ".openresource" / "build.json").read_text())
    assert record["sources"].startswith("bafy") and record["toolchains"][0].startswith("c ")


@pytest.mark.sandbox
def test_artifacts_come_by_their_content_and_are_verified(tmp_path: Path) -> None:
    data = os.urandom(700_000)
    blocks: dict[str, bytes] = {}
    cid = file_blocks([data], blocks.__setitem__).cid.text
    manifest = (
        'name = "weighty"\n[run]\nkind = "cli"\ncommand = ["cat", "models/weights.bin"]\n'
        f'[[artifacts]]\nname = "weights"\ncid = "{cid}"\npath = "models/weights.bin"\n'
    )
    folder = program(tmp_path / "program", {"openresource.toml": manifest})

    async def get_block(name: str) -> bytes:
        return blocks[name]

    built = made(folder, workshop(tmp_path, get_block=get_block))
    assert (built.folder / "models" / "weights.bin").read_bytes() == data
    with pytest.raises(ArtifactMissing):
        made(folder, workshop(tmp_path / "elsewhere"))
    last = next(name for name in blocks if name != cid)
    blocks[last] = blocks[last][:-1] + b"x"
    with pytest.raises(Exception, match=r"(?i)block|cid"):
        made(folder, workshop(tmp_path / "lied to", get_block=get_block))
    assert file_cid(b"") not in blocks
