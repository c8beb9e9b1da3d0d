"""Streamed answers: values as they are made, a receipt at the end, and what a stream costs that breaks off."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from openresource.client.calls import (
    Exchange,
    ProgramFailedThere,
)
from openresource.sandbox.driver import ProgramFailed
from tests.client.street import (
    PRICE_UAIN,
    Chunks,
    Street,
    channel_names,
    purse_of,
    streaming,
    until,
)

pytestmark = pytest.mark.journey


def test_a_streams_values_come_as_they_are_made_and_its_receipt_is_not_one_of_them(on_a_street: Any) -> None:
    async def story(street: Street) -> None:
        service = await street.publish()
        chunks = Chunks()
        shop = await street.open(service, streaming(chunks))
        async with await street.buyer() as buyer:
            exchange = Exchange()
            values = buyer.stream(service.name, "count", exchange=exchange, to=3)
            for number in range(3):
                chunks.put(json.dumps({"n": number}).encode() + b"\n")
                assert await anext(values) == {"n": number}
            assert exchange.answer is None
            chunks.put(None)
            with pytest.raises(StopAsyncIteration):
                await anext(values)
            answer = exchange.answer
            assert answer is not None and answer.value == [{"n": 0}, {"n": 1}, {"n": 2}]
            assert b"receipt" not in answer.body
            assert shop.spent_uain == buyer.books.spent_uain(0) == PRICE_UAIN

    on_a_street(story)


def test_a_stream_of_bytes_gets_its_receipt_under_its_number(on_a_street: Any) -> None:
    async def story(street: Street) -> None:
        service = await street.publish()
        chunks = Chunks()
        shop = await street.open(service, streaming(chunks, "audio/ogg"))
        async with await street.buyer() as buyer:
            calls = await buyer.calls()
            plan = await calls.plan(service.name, "count", {})
            chunks.put(b"event: receipt\n", b"\x00\x01", None)
            answer = await calls.call(plan)
            assert (answer.value, answer.content_type) == (b"event: receipt\n\x00\x01", "audio/ogg")
            assert shop.spent_uain == buyer.books.spent_uain(0) == PRICE_UAIN

    on_a_street(story)


def test_a_stream_that_is_cancelled_costs_its_price_after_the_first_byte_and_nothing_before(
    on_a_street: Any,
) -> None:
    async def story(street: Street) -> None:
        service = await street.publish()
        chunks = Chunks()
        shop = await street.open(service, streaming(chunks))
        async with await street.buyer() as buyer:
            values = buyer.stream(service.name, "count")
            waiting = asyncio.ensure_future(anext(values))
            await until(lambda: len(shop.runner.calls) == 1)
            waiting.cancel()
            await asyncio.gather(waiting, return_exceptions=True)
            await values.aclose()
            await until(lambda: chunks.is_closed and not shop.tabs[0].in_flight)
            assert shop.spent_uain == 0
            assert (await buyer.call(service.name, text="a")).value == "A"
            assert buyer.books.spent_uain(0) == shop.spent_uain == PRICE_UAIN

            values = buyer.stream(service.name, "count")
            chunks.put(b"1\n")
            assert await anext(values) == 1
            await values.aclose()
            await shop.has_earned(2 * PRICE_UAIN)
            # The receipt was on its way when we left; it is counted before the next call.
            assert (await buyer.call(service.name, text="b")).value == "B"
            purse = await purse_of(buyer)
            assert (purse.earned_uain, purse.acknowledged, purse.inherited_uain) == (300, 3, 0)
            assert buyer.books.spent_uain(0) == shop.spent_uain == 3 * PRICE_UAIN

    on_a_street(story)


@pytest.mark.parametrize("kind", ["application/x-ndjson", "audio/ogg"])
def test_a_stream_whose_program_fails_costs_nothing(on_a_street: Any, kind: str) -> None:
    async def story(street: Street) -> None:
        service = await street.publish()

        class Failing(Chunks):
            async def __anext__(self) -> bytes:
                if self.is_closed:
                    raise ProgramFailed(reason="it fell over")
                self.is_closed = True
                return b"1\n"

        shop = await street.open(service, lambda call: streaming(Failing(), kind)(call))
        async with await street.buyer() as buyer:
            calls = await buyer.calls()
            pieces = calls.stream(await calls.plan(service.name, "count", {}), Exchange())
            assert b"1" in await anext(pieces)
            with pytest.raises(ProgramFailedThere):
                while True:
                    assert not (await anext(pieces)).strip()
            assert len(await channel_names(buyer, with_closed=False)) == 1
            assert shop.spent_uain == 0
            assert (await buyer.call(service.name, text="a")).value == "A"
            assert buyer.books.spent_uain(0) == shop.spent_uain == PRICE_UAIN

    on_a_street(story)
