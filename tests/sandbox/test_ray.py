"""Ray: what crosses between machines, what is refused without it, and a real cluster of one where Ray is installed."""

from __future__ import annotations

import asyncio
import importlib.util
import json
from pathlib import Path

import pytest

from openresource.adapters.bubblewrap.driver import Bubblewrap
from openresource.adapters.ray.driver import RayPlacement, _refusal
from openresource.adapters.ray.keeper import Keeper, packed, told
from openresource.market.manifests import Calls, parse_manifest
from openresource.primitives.errors import Refusal
from openresource.sandbox.driver import (
    KindNotServed,
    Limits,
    Mount,
    OutOfMemory,
    ProgramCall,
    ProgramCrashed,
    ProgramDidNotStart,
    ProgramRefused,
    Release,
)

pytestmark = pytest.mark.sandbox
MANIFEST = 'name = "sums"\n[run]\nkind = "python"\nentry = "sums:Sums"\n'
SOURCE = """
class Sums:
    def add(self, a: int, b: int) -> int:
        if a < 0:
            raise ValueError("not below zero")
        return a + b
    def count(self, to: int):
        yield from range(to)
    def end(self) -> None:
        import os
        os._exit(3)
"""
LIMITS = Limits(memory_bytes=256 << 20, concurrency=2)


@pytest.fixture
def release(tmp_path: Path) -> Release:
    """A program in a folder."""
    folder = tmp_path / "release"
    folder.mkdir()
    (folder / "openresource.toml").write_text(MANIFEST)
    (folder / "sums.py").write_text(SOURCE)
    return Release(folder, parse_manifest(MANIFEST))


def test_refusals_keep_their_type_on_the_way() -> None:
    for refusal in (
        OutOfMemory(memory_bytes=7),
        ProgramRefused(reason="no", status=400),
        ProgramDidNotStart(reason="x", stderr="y"),
    ):
        back = _refusal(json.loads(json.dumps(told(refusal))))
        assert type(back) is type(refusal) and back.message == refusal.message

    class Strange(Refusal):
        template = "Strange."
        way_out = "None."

    assert isinstance(_refusal(told(Strange())), ProgramCrashed)
    assert isinstance(_refusal({"refusal": "LEVELS", "facts": {}}), ProgramCrashed)


def test_an_archive_holds_files_alone(tmp_path: Path) -> None:
    import io
    import tarfile

    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "file").write_text("x")
    (tmp_path / "link").symlink_to("/etc/passwd")
    with tarfile.open(fileobj=io.BytesIO(packed(tmp_path))) as tar:
        assert tar.getnames() == ["a/file"]


def test_the_keeper_runs_a_program_in_this_machines_sandbox(release: Release) -> None:
    if not Bubblewrap().probe().available:
        pytest.skip(f"bubblewrap does not start here: {Bubblewrap().probe().why_not}")

    async def work() -> None:
        from dataclasses import asdict

        keeper = Keeper()
        assert (await keeper.probe())["level"] == "bubblewrap"
        started = await keeper.start(packed(release.folder), asdict(LIMITS))
        assert started["level"] == "bubblewrap"
        reply = await keeper.call(asdict(ProgramCall("add", "/add", b'{"a": 2, "b": 3}')))
        assert reply["body"] == b"5" and reply["alive"]
        refused = await keeper.call(asdict(ProgramCall("add", "/add", b'{"a": -2, "b": 3}')))
        assert refused["refusal"] == "ProgramRefused"
        assert (await keeper.usage())["bytes_in"] > 0
        await keeper.stop()

    asyncio.run(work())


def test_without_ray_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    real = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "ray" else real(name))
    capabilities = RayPlacement().probe()
    assert not capabilities.available and "openresource[ray]" in capabilities.why_not


def test_what_cannot_be_brought_to_another_machine_is_refused(release: Release, tmp_path: Path) -> None:
    from dataclasses import replace

    async def work() -> None:
        await RayPlacement().start(replace(release, mounts=(Mount(tmp_path, "/m"),)), LIMITS)

    with pytest.raises(KindNotServed):
        asyncio.run(work())

    async def calling() -> None:
        manifest = replace(release.manifest, calls=Calls(("gist",)))
        await RayPlacement().start(replace(release, manifest=manifest), LIMITS)

    with pytest.raises(KindNotServed, match="the broker is on this machine"):
        asyncio.run(calling())


def test_a_real_cluster_of_one_places_calls_and_clears_away(release: Release) -> None:
    if importlib.util.find_spec("ray") is None:
        pytest.skip("ray is not installed here; scripts/long ray runs this with it")
    placement = RayPlacement("local")
    capabilities = placement.probe()
    assert capabilities.available, capabilities.why_not

    async def work() -> None:
        instance = await placement.start(release, LIMITS)
        assert {one["name"] for one in instance.interface["methods"]} == {"add", "count", "end"}
        reply = await instance.call(ProgramCall("add", "/add", b'{"a": 2, "b": 3}'))
        assert reply.body == b"5"
        with pytest.raises(ProgramRefused):
            await instance.call(ProgramCall("add", "/add", b'{"a": -1, "b": 3}'))
        stream = await instance.call(ProgramCall("count", "/count", b'{"to": 3}'))
        assert not isinstance(stream.body, bytes)
        assert [chunk async for chunk in stream.body] == [b"0\n", b"1\n", b"2\n"]
        with pytest.raises(ProgramCrashed):
            await instance.call(ProgramCall("end", "/end", b"{}"))
        assert not instance.alive
        await instance.until_free(0)
        await instance.stop()

    asyncio.run(work())
    import ray

    ray.shutdown()
