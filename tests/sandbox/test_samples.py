"""The packaged samples: their examples are true, in the real sandbox, and their checks are what they say."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

import openresource
from openresource.adapters.bubblewrap.driver import Bubblewrap
from openresource.adapters.confined.driver import Confined
from openresource.market.schemas import check_value
from openresource.sandbox.driver import Instance, ProgramCall, Sandbox, limits_of
from openresource.sandbox.interfaces import interface_of
from openresource.sandbox.releases import load_release

SAMPLES = Path(openresource.__file__).parent / "samples"
NAMES = sorted(path.parent.name for path in SAMPLES.glob("*/openresource.toml"))


def best() -> Sandbox:
    """The strongest sandbox here."""
    wrapped = Bubblewrap()
    return wrapped if wrapped.probe().available else Confined()


def test_two_samples_are_packaged() -> None:
    assert len(NAMES) >= 2
    assert not list(SAMPLES.rglob("__init__.py"))


@pytest.mark.sandbox
@pytest.mark.parametrize("name", NAMES)
def test_sandbox_sample_gives_what_its_examples_say(name: str) -> None:
    asyncio.run(examples(name))


async def examples(name: str) -> None:
    release = load_release(SAMPLES / name)
    assert release.manifest.license == "Apache-2.0" and release.manifest.royalty_uain > 0
    instance: Instance = await best().start(release, limits_of(release.manifest))
    try:
        methods = interface_of(release.manifest, instance.interface)["methods"]
        assert {method["name"] for method in methods} == {method.name for method in release.manifest.methods}
        for method in methods:
            example = method["example"]
            check_value(method["input"], example["input"])
            body = json.dumps(example["input"]).encode()
            reply = await instance.call(ProgramCall(method["name"], method["path"], body))
            assert isinstance(reply.body, bytes)
            answer: Any = json.loads(reply.body)
            check_value(method["output"], answer, field="output")
            assert answer == example["output"]
    finally:
        await instance.stop()
