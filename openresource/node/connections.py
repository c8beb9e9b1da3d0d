"""One HTTP connection: bounds on what a stranger may make it hold, and answers that need no waiting given at once.

Most requests are reads of a few values. A door names a lane for them: a function from the body to the whole answer,
called when the request is there. Everything else, and whatever a lane declines, goes through the web application.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

from uvicorn.config import Config
from uvicorn.protocols.http.httptools_impl import HEADER_VALUE_RE, STATUS_LINE, HttpToolsProtocol
from uvicorn.server import ServerState

HEAD_BYTES_MAX: Final = 32 * 1024
# The time for a request to arrive whole; answers and streams may take longer.
ARRIVAL_SECONDS_MAX: Final = 60.0
# AI Network's clients count on connections that stay open for ten minutes.
KEEP_ALIVE_SECONDS: Final = 620
CONNECTIONS_MAX: Final = 4_000
# Larger bodies carry transactions, which wait.
LANE_BODY_BYTES_MAX: Final = 16 * 1024
# Who sends many requests in one go has the others wait for so long at most.
TURN_SECONDS_MAX: Final = 0.002
KNOWN_HEADS_MAX: Final = 512
KNOWN_HEAD_BYTES_MAX: Final = 2 * 1024

_log = logging.getLogger("openresource.node.connections")
_HEAD_END: Final = b"\r\n\r\n"
# A request that was understood here may lead somewhere else if one of these is said.
_LEADING_ELSEWHERE: Final = frozenset((b"transfer-encoding", b"upgrade", b"expect", b"trailer"))
_SAID_ONCE: Final = frozenset((b"content-length", b"content-type", b"host", b"origin"))

Headers = Iterable[tuple[bytes, bytes]]


@dataclass(frozen=True, slots=True)
class Head:
    """What a request says before its body: one of each header that decides where it goes."""

    verb: str
    path: str
    query: bytes
    headers: dict[bytes, bytes]


# The head up to what is the same in all answers, made by `answer_head`, and the body.
Answer = tuple[bytes, bytes]
# From the body and the caller's address to the answer; None leaves the request to the application, untouched.
Lane = Callable[[bytes, str], Answer | None]
# None for requests that the application answers.
Lanes = Callable[[Head], Lane | None]


class _KnownHead(NamedTuple):
    lane: Lane
    body_bytes: int


class Connection(HttpToolsProtocol):
    """uvicorn's protocol, which closes on heads that are too long and arrivals that take too long, with lanes."""

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
        *,
        lanes: Lanes | None,
        heads: dict[bytes, _KnownHead],
    ) -> None:
        """`heads` are those that led to a lane, shared by all connections of a server."""
        super().__init__(config, server_state, app_state, _loop)
        self._lanes = lanes
        self._heads = heads
        self._caller = ""
        self._arrival: asyncio.TimerHandle | None = None
        self._is_arriving = False
        self._head_bytes = 0
        self._last_heard_seconds = 0.0
        # Of the request that arrives, if a lane may answer it.
        self._lane: Lane | None = None
        self._lane_body = b""
        # What came last, if a request began with it; and how many lanes answered what came last, since when.
        self._chunk = b""
        self._answers_in_turn = 0
        self._turn_ends_seconds = 0.0
        # uvicorn's headers of all answers, with the time, and the end of a head made of them.
        self._common: list[tuple[bytes, bytes]] | None = None
        self._head_end = b""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._caller = self.client[0] if self.client else ""
        self._heard()

    def data_received(self, data: bytes) -> None:
        if self._answered_as_before(data):
            return
        # uvicorn would end the timer with every request; lanes are too quick for that.
        resting, self.timeout_keep_alive_task = self.timeout_keep_alive_task, None
        self._chunk = b"" if self._is_arriving else data
        self._answers_in_turn = 0
        super().data_received(data)
        self._chunk = b""
        if resting is not None:
            if self.timeout_keep_alive_task is None and self._is_resting():
                self.timeout_keep_alive_task = resting
            else:
                resting.cancel()
        if self._is_arriving:
            if self._arrival is None:
                self._arrival = self.loop.call_later(ARRIVAL_SECONDS_MAX, self.transport.close)
        elif self._arrival is not None:
            self._forget_arrival()

    def connection_lost(self, exc: Exception | None) -> None:
        self._forget_arrival()
        self._unset_keepalive_if_required()
        self._lane = None
        super().connection_lost(exc)

    def timeout_keep_alive_handler(self) -> None:
        """Closes a connection that has been silent for long; one that lanes kept busy waits on."""
        self.timeout_keep_alive_task = None
        left_seconds = self._last_heard_seconds + KEEP_ALIVE_SECONDS - self.loop.time()
        if left_seconds <= 0:
            super().timeout_keep_alive_handler()
        elif not self.transport.is_closing():
            self.timeout_keep_alive_task = self.loop.call_later(left_seconds, self.timeout_keep_alive_handler)

    # What the parser finds.

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._is_arriving = True
        self._head_bytes = 0
        # The time is that of this request, not what the one before it has left.
        self._forget_arrival()

    def on_url(self, url: bytes) -> None:
        self._grow(len(url))
        super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        self._grow(len(name) + len(value))
        super().on_header(name, value)

    def on_headers_complete(self) -> None:
        self._lane = None if self._lanes is None else self._lane_for_this(self._lanes)
        self._lane_body = b""
        if self._lane is None:
            super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        if self._lane is None:
            super().on_body(body)
        else:
            self._lane_body += body

    def on_message_complete(self) -> None:
        self._is_arriving = False
        lane, self._lane = self._lane, None
        if lane is not None:
            body = self._lane_body
            answer = self._asked(lane, body)
            if answer is not None:
                self._answer(answer)
                self._learn(lane, len(body))
                return
            super().on_headers_complete()
            if body:
                super().on_body(body)
        super().on_message_complete()

    # Lanes.

    def _lane_for_this(self, lanes: Lanes) -> Lane | None:
        """The lane for the request whose head is there, if it may be answered at once."""
        if not self._is_resting(is_arriving=True) or not self._has_turn():
            return None
        most = self.limit_concurrency
        if most is not None and (len(self.connections) >= most or len(self.tasks) >= most):
            return None
        parser = self.parser
        if parser.get_http_version() != "1.1" or not parser.should_keep_alive() or parser.should_upgrade():
            return None
        given: dict[bytes, bytes] = {}
        for name, value in self.headers:
            if name in _LEADING_ELSEWHERE or (name in given and name in _SAID_ONCE):
                return None
            given.setdefault(name, value)
        claimed = given.get(b"content-length", b"0")
        if not claimed.isdigit() or len(claimed) > 6 or int(claimed) > LANE_BODY_BYTES_MAX:
            return None
        path, _, query = self.url.partition(b"?")
        if path[:1] != b"/" or path[:2] == b"//" or b"%" in path or b"#" in self.url or not path.isascii():
            return None
        return lanes(Head(parser.get_method().decode("ascii"), path.decode("ascii"), query, given))

    def _asked(self, lane: Lane, body: bytes) -> Answer | None:
        try:
            return lane(body, self._caller)
        except Exception:
            # The application meets it again and has an answer for it.
            _log.exception("a lane failed")
            return None

    def _answered_as_before(self, data: bytes) -> bool:
        """Whether this was one whole request behind a head that has led to a lane before, and is answered."""
        end = data.find(_HEAD_END, 0, KNOWN_HEAD_BYTES_MAX) + len(_HEAD_END)
        known = self._heads.get(data[:end])
        # The parser is between two requests, so it would understand these bytes as it did before.
        if known is None or len(data) - end != known.body_bytes or not self._is_resting():
            return False
        answer = self._asked(known.lane, data[end:])
        if answer is None:
            return False
        self._answer(answer)
        return True

    def _learn(self, lane: Lane, body_bytes: int) -> None:
        """Remembers the head of a request that came in one piece, alone."""
        chunk = self._chunk
        end = chunk.find(_HEAD_END, 0, KNOWN_HEAD_BYTES_MAX) + len(_HEAD_END)
        if end < len(_HEAD_END) or len(chunk) - end != body_bytes:
            return
        if len(self._heads) >= KNOWN_HEADS_MAX:
            self._heads.clear()
        self._heads[chunk[:end]] = _KnownHead(lane, body_bytes)

    def _answer(self, answer: Answer) -> None:
        common = self.server_state.default_headers
        if common is not self._common:
            lines = [b"%b: %b\r\n" % header for header in common]
            self._common, self._head_end = common, b"".join([*lines, b"content-length: "])
        head, body = answer
        self.transport.write(b"%b%b%d\r\n\r\n%b" % (head, self._head_end, len(body), body))
        self._answers_in_turn += 1
        self._heard()

    def _heard(self) -> None:
        self._last_heard_seconds = self.loop.time()
        if self.timeout_keep_alive_task is None:
            self.timeout_keep_alive_task = self.loop.call_later(
                KEEP_ALIVE_SECONDS, self.timeout_keep_alive_handler
            )

    def _is_resting(self, *, is_arriving: bool = False) -> bool:
        """Whether nothing is under way here, but for the request that arrives if it may."""
        return (
            self._is_arriving is is_arriving
            and (self.cycle is None or self.cycle.response_complete)
            and not self.flow.write_paused
            and not self.transport.is_closing()
        )

    def _has_turn(self) -> bool:
        """Whether one more of the requests that came together may be answered before others have their turn."""
        if not self._answers_in_turn:
            return True
        if self._answers_in_turn == 1:
            self._turn_ends_seconds = time.perf_counter() + TURN_SECONDS_MAX
        return time.perf_counter() < self._turn_ends_seconds

    def _grow(self, size: int) -> None:
        self._head_bytes += size
        if self._head_bytes > HEAD_BYTES_MAX:
            self.transport.close()

    def _forget_arrival(self) -> None:
        if self._arrival is not None:
            self._arrival.cancel()
            self._arrival = None


def answer_head(status: int, headers: Headers) -> bytes:
    """The beginning of an answer's head; the time and the size of the body are added when it is sent."""
    parts = [STATUS_LINE[status]]
    for name, value in headers:
        assert is_plain(value), "no header of an answer has control characters"
        parts += (name, b": ", value, b"\r\n")
    return b"".join(parts)


def is_plain(value: bytes) -> bool:
    """Whether a header's value may be sent back as it came."""
    return HEADER_VALUE_RE.search(value) is None


def is_json(content_type: bytes) -> bool:
    """Whether a header says that the body is JSON."""
    return content_type.partition(b";")[0].strip().lower() == b"application/json"
