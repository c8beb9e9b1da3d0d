"""WebSocket frames: messages survive the way through bytes in any pieces, and nothing from outside breaks the parser."""

from __future__ import annotations

import os
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from openresource.node.ain.frames import (
    BINARY,
    CLOSE,
    CONTINUATION,
    PING,
    TEXT,
    FrameParser,
    FrameRefused,
    Message,
    frame,
    masked,
)

MASK = b"\x01\x02\x03\x04"


def parser(bytes_max: int = 100_000) -> FrameParser:
    return FrameParser(bytes_max, is_masked=True)


@given(st.lists(st.text(max_size=300), max_size=5), st.integers(1, 40))
def test_messages_come_through_in_any_pieces(texts: list[str], piece: int) -> None:
    raw = b"".join(frame(TEXT, text.encode(), MASK) for text in texts)
    subject = parser()
    messages: list[Message] = []
    for at in range(0, len(raw), piece):
        messages += subject.feed(raw[at : at + piece])
    assert [message.text for message in messages] == texts


@pytest.mark.parametrize("size", [0, 1, 125, 126, 127, 65_535, 65_536, 70_000])
def test_all_lengths_are_written_and_read(size: int) -> None:
    payload = os.urandom(size)
    assert parser().feed(frame(BINARY, payload, MASK)) == [Message(BINARY, payload)]
    assert FrameParser(100_000, is_masked=False).feed(frame(BINARY, payload)) == [Message(BINARY, payload)]


def test_parts_make_one_message_and_control_frames_come_between() -> None:
    raw = _part(TEXT, "Hä".encode()[:2], is_final=False) + frame(PING, b"!", MASK)
    raw += _part(CONTINUATION, "Hä".encode()[2:], is_final=True)
    assert parser().feed(raw) == [Message(PING, b"!"), Message(TEXT, "Hä".encode())]


@pytest.mark.parametrize(
    ("raw", "close_code"),
    [
        (frame(TEXT, b"x"), 1002),
        (bytes((0xC1, 0x80)) + MASK, 1002),
        (bytes((0x83, 0x80)) + MASK, 1002),
        (bytes((0x89, 0xFE)), 1002),
        (bytes((0x09, 0x80)) + MASK, 1002),
        (bytes((0x80, 0x80)) + MASK, 1002),
        (bytes((0x81, 0xFF)) + (1 << 62).to_bytes(8, "big"), 1009),
        (frame(TEXT, b"\xff", MASK), 1007),
        (frame(CLOSE, b"x" * 126, MASK), 1002),
    ],
)
def test_what_breaks_the_protocol_is_refused(raw: bytes, close_code: int) -> None:
    with pytest.raises(FrameRefused) as refused:
        parser().feed(raw)
    assert refused.value.close_code == close_code


def test_a_message_in_parts_is_bounded_as_a_whole() -> None:
    subject = parser(10)
    subject.feed(_part(TEXT, b"12345", is_final=False))
    with pytest.raises(FrameRefused) as refused:
        subject.feed(_part(CONTINUATION, b"123456", is_final=True))
    assert refused.value.close_code == 1009


def test_random_bytes_are_refused_or_understood_within_bounds() -> None:
    dice = random.Random(6)
    for _ in range(2_000):
        subject = parser(1_000)
        try:
            for _ in range(4):
                for message in subject.feed(dice.randbytes(dice.randrange(60))):
                    assert len(message.payload) <= 1_000
        except FrameRefused as refused:
            assert refused.close_code in (1002, 1007, 1009)


def _part(opcode: int, payload: bytes, *, is_final: bool) -> bytes:
    first = (0x80 if is_final else 0) | opcode
    return bytes((first, 0x80 | len(payload))) + MASK + masked(payload, MASK)


def test_a_first_message_has_a_bound_of_its_own_and_what_follows_it_at_once_the_other() -> None:
    parser = FrameParser(1_000, is_masked=False, first_bytes_max=10)
    assert [len(one.payload) for one in parser.feed(frame(TEXT, b"x" * 10) + frame(TEXT, b"y" * 900))] == [
        10,
        900,
    ]
    with pytest.raises(FrameRefused):
        FrameParser(1_000, is_masked=False, first_bytes_max=10).feed(frame(TEXT, b"x" * 11)[:3])
