"""Each example in the real sandbox, on real input, beside its plain library: the same answers, and what the sandbox adds."""

from __future__ import annotations

import asyncio
import base64
import io
import json
import wave
from typing import Any

import pytest

from openresource.adapters.bubblewrap.driver import Bubblewrap
from openresource.adapters.confined.driver import Confined
from openresource.market.schemas import check_value
from openresource.sandbox.driver import Sandbox
from openresource.sandbox.interfaces import interface_of
from tests.examples.support import (
    EXAMPLES,
    NAMES,
    START_SECONDS_MAX,
    Plain,
    call,
    manifest_of,
    quickest,
    run_plain,
    runtime_of,
    same,
    start,
)

# Plain programs of an example, where they are not called like it.
PROGRAMS = {"vision": ("vision", "digit")}
PAIRS = [(name, program) for name in NAMES for program in PROGRAMS.get(name, (name,))]


def best() -> Sandbox:
    """The strongest sandbox here."""
    wrapped = Bubblewrap()
    return wrapped if wrapped.probe().available else Confined()


def test_the_examples_cover_all_six_domains() -> None:
    domains = {manifest_of(name).domain for name in NAMES}
    assert {"image", "speech", "text", "time-series", "bio", "network"} <= domains
    assert len(NAMES) >= 12


@pytest.mark.parametrize("name", NAMES)
def test_an_example_has_a_card_a_licence_a_price_and_its_figures(name: str) -> None:
    manifest = manifest_of(name)
    card = (EXAMPLES / name / "CARD.md").read_text()
    for heading in ("## What it does", "## Limits", "## Licences", "## Quality", "## Cost"):
        assert heading in card, f"{name} says nothing under {heading}"
    assert manifest.license and manifest.summary and manifest.royalty_uain > 0
    figures = json.loads((EXAMPLES / "figures.json").read_text())[name]
    assert figures["headline"] and figures["set"] and figures["figures"]
    assert figures["start_ms"] > 0 and figures["call_ms"] > 0 and figures["memory_mb"] > 0


@pytest.mark.timeout(300)
@pytest.mark.parametrize(("name", "program"), PAIRS, ids=[f"{name}-{program}" for name, program in PAIRS])
def test_an_example_says_what_its_plain_library_says(
    name: str, program: str, record_property: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    runtime_of(name)
    plain = run_plain(name, program)
    milliseconds, seconds = asyncio.run(compared(name, plain))
    added = milliseconds - plain.milliseconds
    record_property("overhead_ms", round(added, 2))
    with capsys.disabled():
        print(
            f"\n  {name}.{plain.method}: ready in {seconds:.1f} s; {milliseconds:.2f} ms here,"
            f" {plain.milliseconds:.2f} ms by the library, {added:+.2f} ms",
            flush=True,
        )


async def compared(name: str, plain: Plain) -> tuple[float, float]:
    instance, seconds = await start(name, best())
    try:
        assert seconds < START_SECONDS_MAX
        answer, milliseconds = await quickest(instance, plain.method, plain.input)
        same(samples_of(answer) if name == "speak" else answer, plain.output)
        await its_examples_hold(name, instance)
    finally:
        await instance.stop()
    return milliseconds, seconds


async def its_examples_hold(name: str, instance: Any) -> None:
    for method in interface_of(manifest_of(name), instance.interface)["methods"]:
        example = method.get("example")
        if example is None:
            continue
        check_value(method["input"], example["input"])
        told = await call(instance, method["name"], example["input"])
        check_value(method["output"], told, field="output")
        if "output" in example:
            assert told == example["output"]


def samples_of(answer: dict[str, Any]) -> dict[str, str]:
    """The samples of a WAV file, as the plain program gives them."""
    with wave.open(io.BytesIO(base64.b64decode(answer["wav"]))) as file:
        assert (file.getnchannels(), file.getsampwidth(), file.getframerate()) == (1, 2, 24_000)
        return {"samples": base64.b64encode(file.readframes(file.getnframes())).decode()}
