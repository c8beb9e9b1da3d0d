"""The gateway's door for callers whose programs ask for calls of other services.

    GET  /inner?after=<number>&run=<run>    what the program of a running call asks, as soon as there is something
    POST /inner/<number>                    the answer, with its receipt, or a refusal with OpenResource-Refused: 1

Both bear the secret of the call's allowance as OpenResource-Line, which nobody but its caller and this gateway has.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AbstractContextManager
from typing import Any, Final
from urllib.parse import parse_qs

import msgspec

from openresource.client.envelopes import RECEIPT_BYTES_MAX
from openresource.primitives.encoding import NotBase64Url, base64url_bytes, parse_json
from openresource.primitives.errors import InvalidInput
from openresource.provider.inner_calls import ANSWER_BYTES_MAX, Lines
from openresource.sandbox.driver import JSON_TYPE

LOOK_SECONDS_MAX: Final = 20.0
NUMBER_DIGITS_MAX: Final = 6
RECEIPT_DEPTH_MAX: Final = 16

_SECRET = re.compile(rb"[0-9a-f]{64}")
_JOB = re.compile(rb"([0-9a-f]{32});([0-9a-f]{64})")
_RUN = re.compile(r"[0-9a-f]{16}")
_encoder = msgspec.json.Encoder()

Receive = Callable[[], Awaitable[dict[str, Any]]]
ReadBody = Callable[[Receive, int], Awaitable[bytes]]


class InnerDoor:
    """What callers fetch from the lines of their calls, and what they hand in."""

    def __init__(
        self, lines: Lines, hold_body: Callable[[int], AbstractContextManager[None]], read_body: ReadBody
    ) -> None:
        self._lines = lines
        self._hold_body = hold_body
        self._read_body = read_body

    async def fetch(self, scope: Mapping[str, Any], receive: Receive) -> bytes:
        """What is asked after the number that the caller names, or nothing after a while."""
        headers = dict(scope["headers"])
        asked = parse_qs(scope.get("query_string", b"").decode("latin-1")[:200])
        line = await self._lines.find(_secret(headers), waits=True)
        after = _number(asked.get("after", ["0"])[0])
        if asked.get("run", [""])[0] != line.run:
            # Numbers of another run of the program, which ended with its instance or with its provider.
            after = 0
        gone = asyncio.ensure_future(_until_gone(receive))
        more = asyncio.ensure_future(line.wait_for_more(after))
        try:
            await asyncio.wait((gone, more), timeout=LOOK_SECONDS_MAX, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in (gone, more):
                task.cancel()
            await asyncio.gather(gone, more, return_exceptions=True)
        return _encoder.encode(line.asked_after(after))

    async def hand_in(self, path: str, scope: Mapping[str, Any], receive: Receive) -> bytes:
        """An answer or a refusal for the program that waits."""
        headers = dict(scope["headers"])
        line = await self._lines.find(_secret(headers), waits=False)
        number = _number(path.removeprefix("/inner/"))
        run = headers.get(b"openresource-run", b"").decode("latin-1")
        if _RUN.fullmatch(run) is None or run != line.run:
            raise InvalidInput(what="OpenResource-Run header", reason="it is not the run that asked")
        with self._hold_body(_length(headers)):
            body = await self._read_body(receive, ANSWER_BYTES_MAX)
            if headers.get(b"openresource-refused"):
                line.refused(number, body)
            elif job := headers.get(b"openresource-job"):
                await line.settled(number, body, *_job(job))
            else:
                content_type = headers.get(b"content-type", JSON_TYPE.encode()).decode("latin-1")
                receipt = _receipt(headers.get(b"openresource-receipt", b""))
                await line.answered(number, body, content_type.partition(";")[0].strip().lower(), receipt)
        return b"{}"


def _secret(headers: Mapping[bytes, bytes]) -> bytes:
    secret = headers.get(b"openresource-line", b"")
    if _SECRET.fullmatch(secret) is None:
        raise InvalidInput(what="OpenResource-Line header", reason="it is not 64 hex digits")
    return bytes.fromhex(secret.decode())


def _number(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) <= NUMBER_DIGITS_MAX):
        raise InvalidInput(what="number of an inner call", reason="it is not a whole number")
    return int(text)


def _length(headers: Mapping[bytes, bytes]) -> int:
    """What the body may take, by its head; without one as much as is taken at all."""
    length = headers.get(b"content-length", b"")
    return min(int(length), ANSWER_BYTES_MAX) if length.isdigit() and len(length) < 12 else ANSWER_BYTES_MAX


def _job(header: bytes) -> tuple[str, bytes]:
    match = _JOB.fullmatch(header)
    if match is None:
        raise InvalidInput(what="OpenResource-Job header", reason="it is not <32 hex digits>;<64 hex digits>")
    return match[1].decode(), bytes.fromhex(match[2].decode())


def _receipt(header: bytes) -> dict[str, Any]:
    if not header or len(header) > RECEIPT_BYTES_MAX:
        raise InvalidInput(what="OpenResource-Receipt header", reason="there is none, or it is too long")
    try:
        raw = base64url_bytes(header.decode("latin-1").rstrip("="))
    except NotBase64Url as problem:
        raise InvalidInput(
            what="OpenResource-Receipt header", reason=problem.message.rstrip(".")
        ) from problem
    record = parse_json(raw, bytes_max=RECEIPT_BYTES_MAX, depth_max=RECEIPT_DEPTH_MAX)
    if not isinstance(record, dict):
        raise InvalidInput(what="OpenResource-Receipt header", reason="it is not an object")
    return record


async def _until_gone(receive: Receive) -> None:
    with contextlib.suppress(asyncio.CancelledError):
        while (await receive())["type"] != "http.disconnect":
            pass
