"""Envelopes: the gateway's last event is taken out of a stream however it is cut, and nothing of the program's is lost."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from openresource.client.envelopes import (
    AnswerNotReceipted,
    EventSplitter,
    PaymentRefused,
    ProgramFailedThere,
    ProviderBusy,
    receipt_record,
    refusal_of,
    split_events,
    stream_values,
    value_of,
)
from openresource.client.facade import values_of
from openresource.market.placements import Placement
from openresource.primitives.errors import Refusal

PLACEMENT = Placement("0x" + "1" * 40, "echo", "bafy", "0x" + "2" * 40, "PLACED")
RECEIPT = b'event: receipt\ndata: {"id":"0x01"}\n\n'
WORDS = st.sampled_from(["error", "accepts", "extra", "message", "remedy", "code", "nonce"])
# What a program may write to look like a gateway, in pieces of every kind.
PIECES = st.sampled_from(
    [
        b"data: 1\n\n",
        b"event: receipt\n",
        b"event: error\n",
        b"event: ",
        b"data: {}\n",
        b"\n",
        b"x",
        b"\r\n",
        b"",
    ]
)


@given(st.lists(PIECES, max_size=12).map(b"".join), st.lists(st.integers(1, 9), max_size=40))
def test_a_stream_is_given_on_byte_for_byte_however_it_is_cut(body: bytes, sizes: list[int]) -> None:
    splitter, given_on, position = EventSplitter(), b"", 0
    content = body + RECEIPT
    for size in [*sizes, len(content)]:
        given_on += splitter.feed(content[position : position + size])
        position += size
        assert body.startswith(given_on)
    rest, whole, receipt = splitter.end(PLACEMENT)
    assert given_on + rest == whole == body
    assert json.loads(receipt) == {"id": "0x01"}


@given(st.lists(st.integers(), min_size=1, max_size=8))
def test_each_event_is_given_on_as_soon_as_it_is_whole(numbers: list[int]) -> None:
    splitter = EventSplitter()
    for number in numbers:
        event = b"data: %d\n\n" % number
        assert splitter.feed(event) == event


def test_a_stream_without_a_receipt_is_no_answer() -> None:
    with pytest.raises(AnswerNotReceipted):
        split_events(b"data: 1\n\n", PLACEMENT)


def test_a_stream_that_ends_with_an_error_is_the_programs_failure() -> None:
    event = b'data: 1\n\nevent: error\ndata: {"error":{"code":"program-failed","message":"It fell.","remedy":""}}\n\n'
    with pytest.raises(ProgramFailedThere) as refusal:
        split_events(event, PLACEMENT)
    assert (refusal.value.code, refusal.value.message) == ("program-failed", "It fell.")


@given(st.binary(max_size=200), st.sampled_from([400, 402, 404, 409, 422, 429, 500, 502, 503, 504]))
def test_whatever_a_gateway_says_no_with_is_a_refusal(content: bytes, status: int) -> None:
    refusal = refusal_of(status, content, PLACEMENT)
    assert isinstance(refusal, Refusal) and refusal.message
    assert isinstance(refusal, PaymentRefused) == (status == 402)


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(max_size=5),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(WORDS, inner, max_size=4),
        max_leaves=12,
    )
)
def test_a_402_of_any_form_is_read(record: Any) -> None:
    refusal = refusal_of(402, json.dumps(record).encode(), PLACEMENT)
    assert isinstance(refusal, PaymentRefused)
    assert isinstance(refusal.extra, dict) and isinstance(refusal.code, str)


def test_a_provider_that_does_not_have_it_yet_is_one_to_pass_by() -> None:
    content = b'{"error":{"code":"service-not-here","message":"Not here.","remedy":""}}'
    assert isinstance(refusal_of(404, content, PLACEMENT), ProviderBusy)


@given(st.text(max_size=60))
def test_a_receipt_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(AnswerNotReceipted):
        record = receipt_record(text, PLACEMENT)
        assert not isinstance(record, dict)


def test_values_are_read_by_their_type() -> None:
    assert value_of(b'{"a":1}', "application/json") == {"a": 1}
    assert value_of(b"{broken", "application/json") == "{broken"
    assert value_of("gr\u00fcn".encode(), "text/plain") == "gr\u00fcn"
    assert value_of(b"\x00\x01", "image/png") == b"\x00\x01"
    assert value_of(b"data: 1\n\ndata: [DONE]\n\n", "text/event-stream") == [1, "[DONE]"]


def test_events_of_other_servers_are_read_too() -> None:
    stream = b': hello\r\n\r\nevent: token\r\ndata: {"a":\r\ndata: 1}\r\n\r\ndata:two\r\n\r\n'
    assert stream_values(stream.replace(b"event: token\r\n", b"")) == [{"a": 1}, "two"]


@given(st.lists(st.integers(0, 999), max_size=8), st.lists(st.integers(1, 7), max_size=30))
def test_values_come_out_however_the_bytes_arrive(numbers: list[int], sizes: list[int]) -> None:
    content = b"".join(b"data: %d\n\n" % number for number in numbers)

    async def pieces() -> AsyncGenerator[bytes, None]:
        position = 0
        for size in [*sizes, len(content) + 1]:
            if content[position : position + size]:
                yield content[position : position + size]
            position += size

    async def gathered() -> list[Any]:
        return [value async for value in values_of(pieces())]

    assert asyncio.run(gathered()) == numbers


@pytest.mark.parametrize(
    ("body", "value"), [(b"[1,2]", [1, 2]), (b"one\n\ntwo", "one\n\ntwo"), (b'"data: x"', "data: x")]
)
def test_an_answer_at_once_is_the_only_value(body: bytes, value: Any) -> None:
    async def pieces() -> AsyncGenerator[bytes, None]:
        yield body

    async def gathered() -> list[Any]:
        return [found async for found in values_of(pieces())]

    assert asyncio.run(gathered()) == [value]
