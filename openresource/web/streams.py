"""Server-sent events that carry parts of pages."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Final

from starlette.responses import StreamingResponse

EVENTS_TYPE: Final = "text/event-stream"


def event_frame(fragment: str) -> bytes:
    """One event with a piece of a page; line ends inside of it travel as lines of their own."""
    # A carriage return would end a line of the event; in HTML its number means the same.
    lines = fragment.replace("\r\n", "\n").replace("\r", "&#13;").split("\n")
    return "".join(f"data: {line}\n" for line in lines).encode() + b"\n"


def stream_response(frames: AsyncIterator[bytes]) -> StreamingResponse:
    """Frames as they come."""
    headers = {"cache-control": "no-store", "x-accel-buffering": "no"}
    return StreamingResponse(frames, media_type=EVENTS_TYPE, headers=headers)
