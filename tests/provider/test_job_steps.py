"""Binding to a result: it lies on this machine's disk before anybody else hears of it, signature and all."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from openresource.client.chain import NodeAway
from openresource.client.content import cid_of_bytes
from openresource.ledger.draft import NetworkDomain
from openresource.market.jobs.verdicts import DONE
from openresource.primitives.keys import generate_key
from openresource.provider.commits import Commits
from openresource.provider.duties import Own
from openresource.provider.executions import Given, Result
from openresource.provider.job_steps import Steps
from openresource.provider.metrics import Metrics

KEY = generate_key(b"provider".ljust(32, b"."))
BUYER = generate_key(b"buyer".ljust(32, b"."))
JOB = "ab" * 16
RECORD = {"request": {"policy": "audited"}}


class Chain:
    """A node whose content store is away for a while; it notes what it is given, in order."""

    def __init__(self, commits: Commits, is_away: bool) -> None:
        self.commits = commits
        self.is_away = is_away
        self.heard: list[Any] = []

    async def domain(self) -> NetworkDomain:
        return NetworkDomain(100, "0x" + "11" * 32)

    async def put_bytes(self, data: bytes) -> str:
        kept = self.commits.find(JOB)
        assert kept is not None and kept.sealed == data, "the store heard of a result that is not kept"
        if self.is_away:
            raise NodeAway(url="http://127.0.0.1:9", doing="storing", waited_seconds=0.0, reason="refused")
        self.heard.append(("content", cid_of_bytes(data)))
        return cid_of_bytes(data)

    async def submit(self, operation: Any, key: Any) -> None:
        self.heard.append(("write", operation.value))


def test_a_loss_of_power_between_signing_and_storing_leaves_one_result(tmp_path: Path) -> None:
    async def body() -> None:
        commits = Commits(tmp_path / "commits")
        commits.open(at_ms=0)
        chain: Any = Chain(commits, is_away=True)
        steps = Steps(chain, KEY, commits, Metrics(), lambda: 1_000)
        steps._given[JOB] = Given({"x": 1}, b"s" * 32, BUYER.public_key)
        own = Own("worker", 900, 60_000, False, False, False)
        with pytest.raises(NodeAway):
            await steps.bind(JOB, RECORD, own, Result(DONE, {"0": "first"}))
        commits._journal.abandon()

        again = Commits(tmp_path / "commits")
        again.open(at_ms=2_000)
        kept = again.find(JOB, "900")
        assert kept is not None and kept.sealed
        chain = Chain(again, is_away=False)
        assert await Steps(chain, KEY, again, Metrics(), lambda: 2_000).commit(kept)
        assert chain.heard[0] == ("content", kept.output_cid)
        assert chain.heard[1][1]["output_cid"] == kept.output_cid == cid_of_bytes(kept.sealed)
        await again.close()

    asyncio.run(body())
