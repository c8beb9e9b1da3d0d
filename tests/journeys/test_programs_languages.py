"""Every language's tutorial service: built in a sandbox, published on a real network, placed, called, compared."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from openresource.builds.toolchains import ToolchainMissing, find_toolchain
from openresource.cli.sandboxes import find_drivers
from openresource.cli.trials import SandboxBench
from openresource.client.publishing import Prepared, Publisher, prepare
from openresource.client.releases import read_release
from openresource.client.services import Directory
from openresource.provider.runtimes import cache_folder
from tests.provider.market import Market, open_market

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
SECONDS_MAX = 540.0
PLACED_SECONDS_MAX = 300.0
# Example, what it needs on this machine, an input that is not the example's, and the answer.
SERVICES: list[tuple[str, tuple[str, ...], dict[str, Any], Any]] = [
    ("hello-c", ("c", "make"), {"number": 3599}, {"number": 3599, "factors": [59, 61]}),
    ("hello-shell", ("sh",), {"text": "b a b", "count": 1}, "2 b"),
    ("hello-python", ("python",), {"title": "Émile Zola"}, {"slug": "emile-zola", "letters": 10}),
    ("hello-node", ("node", "npm"), {"text": "- one\n- two"}, {"html": "<ul>\n<li>one</li>\n<li>two</li>\n</ul>\n"}),
    ("hello-go", ("go",), {"text": "naïve"}, {"text": "naive", "changed": 1}),
    ("hello-rust", ("rust", "c"), {"a": "flaw", "b": "lawn"},
     {"levenshtein": 2, "damerau": 2, "jaro_winkler": 0.833, "dice": 0.667}),
    ("hello-java", ("java", "maven"), {"name": "Schmidt"}, {"soundex": "S530", "metaphone": "XMT", "cologne": "862"}),
]  # fmt: skip


class Stage:
    """One market for all of them, in an event loop that outlives a test."""

    def __init__(self, folder: Path) -> None:
        self._runner = asyncio.Runner()
        self._market = open_market(folder)
        self.market: Market = self._runner.run(self._market.__aenter__())
        self.client = self._runner.run(self._open())

    async def _open(self) -> Any:
        await self.market.provide(cache=cache_folder())
        return await self.market.buyer()

    def run(self, work: Any) -> Any:
        return self._runner.run(asyncio.wait_for(work, SECONDS_MAX))

    def close(self) -> None:
        self._runner.run(self.client.close())
        self._runner.run(self._market.__aexit__(None, None, None))
        self._runner.close()


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    made = Stage(tmp_path_factory.mktemp("languages"))
    yield made
    made.close()


@pytest.mark.sandbox
@pytest.mark.timeout(600)
@pytest.mark.parametrize(("name", "needs", "asked", "answer"), SERVICES, ids=[one[0] for one in SERVICES])
def test_programs_of_each_language_are_built_placed_and_called(
    stage: Stage, name: str, needs: tuple[str, ...], asked: dict[str, Any], answer: Any
) -> None:
    for toolchain in needs:
        try:
            find_toolchain(toolchain)
        except ToolchainMissing as refusal:
            pytest.skip(f"{refusal.message} {refusal.remedy}")

    async def journey() -> None:
        market = stage.market
        said: list[str] = []
        bench = SandboxBench(find_drivers(), cache_folder(), progress=said.append)
        prepared = await prepare(EXAMPLES / name, bench)
        assert prepared.level == "bubblewrap"
        publisher = Publisher(market.chain, Directory(market.chain), market.publisher)
        publication = await publisher.publish(prepared)
        placed = await publisher.wait_placed(prepared, publication, deadline_seconds=PLACED_SECONDS_MAX)
        record = await market.chain.read(
            f"/placements/{market.publisher.address}/{name}/{prepared.program}/{market.provider_key.address}"
        )
        assert record["start_ms"] >= 1
        if name != "hello-shell":
            assert record["build"].startswith("bafy")
        reply = await stage.client.call(f"{market.publisher.address}/{name}", **asked)
        assert json.loads(json.dumps(reply.value)) == answer, placed.value

    stage.run(journey())


@pytest.mark.sandbox
def test_programs_that_do_not_build_are_refused_with_the_lines_that_say_why(
    stage: Stage, tmp_path: Path
) -> None:
    try:
        find_toolchain("c")
    except ToolchainMissing as refusal:
        pytest.skip(refusal.message)
    (tmp_path / "openresource.toml").write_text(
        'name = "broken"\n[run]\nkind = "cli"\ncommand = ["./broken"]\n[build]\nlanguage = "c"\n'
    )
    (tmp_path / "broken.c").write_text("imt main(void) { return 0; }\n")

    async def journey() -> None:
        market = stage.market
        release = read_release(tmp_path)
        prepared = Prepared(release, release.program, "none", ())
        publisher = Publisher(market.chain, Directory(market.chain), market.publisher)
        publication = await publisher.publish(prepared)
        path = (
            f"/placements/{market.publisher.address}/broken/{release.program}/{market.provider_key.address}"
        )
        record: Any = None
        while not isinstance(record, dict) or record.get("status") != "REFUSED":
            await asyncio.sleep(0.1)
            record = await market.chain.read(path)
        assert publication.is_new
        assert record["reason"].startswith(
            "The build of broken failed: a step ended with code 1. It said: broken.c:1:1: error"
        )

    stage.run(asyncio.wait_for(journey(), 150))
