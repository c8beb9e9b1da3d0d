"""Providers that misbehave on purpose do so in jobs alone, in the share that was asked for, and in one way each."""

from __future__ import annotations

import asyncio
import json
import random
from typing import Any

import pytest

from openresource.cli.faults import FaultyRunner, changed
from openresource.sandbox.driver import ProgramCall, ProgramReply


class Echo:
    capacity = 3

    async def call(self, call: ProgramCall) -> ProgramReply:
        return ProgramReply(200, "application/json", call.body)


def job(body: bytes = b'"soup"') -> ProgramCall:
    return ProgramCall("say", "/say", body, ends_with_caller=True)


def body_of(reply: ProgramReply) -> Any:
    assert isinstance(reply.body, bytes)
    return json.loads(reply.body)


@pytest.mark.parametrize(
    "value", [True, 1, 0.5, "soup", "abba", "", [1, 2], [], {"a": "b"}, {}, None, [[["x"]]]]
)
def test_a_lie_is_another_value(value: Any) -> None:
    assert changed(value) != value


def test_a_liar_lies_in_jobs_alone_and_as_often_as_asked() -> None:
    async def body() -> None:
        runner = FaultyRunner(Echo(), "liar", share=0.1, chance=random.Random(7))
        answers = [body_of(await runner.call(job())) for _ in range(1_000)]
        assert 70 <= answers.count("puos") == runner.strikes <= 130
        assert answers.count("soup") == 1_000 - runner.strikes
        always = FaultyRunner(Echo(), "liar")
        assert body_of(await always.call(ProgramCall("say", "/say", b'"soup"'))) == "soup"
        assert body_of(await always.call(job())) == "puos" and always.capacity == 3

    asyncio.run(body())


def test_a_sleeper_answers_nobody_until_it_is_interrupted() -> None:
    async def body() -> None:
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(FaultyRunner(Echo(), "sleeper").call(job()), 0.05)

    asyncio.run(body())
