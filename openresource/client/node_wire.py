"""One node over HTTP: calls that are tried again until a deadline, JSON-RPC answers unwrapped, one stream of events."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec

from openresource.client.answers import BadAnswer, Event, NodeAway, NodeRefused, WrongNetwork, event_of
from openresource.primitives.encoding import canonical_json_bytes, parse_json
from openresource.primitives.errors import Refusal

if TYPE_CHECKING:
    import httpx2

PROTOCOL_VERSION = "1.0.0"
GENESIS_HEADER = "openresource-genesis"
TIMEOUT_SECONDS = 15.0
CONNECT_SECONDS = 3.0
WAIT_SECONDS_PER_CALL = 20.0
ANSWER_BYTES_MAX = 64 * 1024 * 1024
# A proof has a level for every radix node on its way.
ANSWER_DEPTH_MAX = 1_000
EVENT_BYTES_MAX = 4 * 1024 * 1024
REFUSAL_BYTES_MAX = 64 * 1024
# The node sends a heartbeat every ten seconds; a stream that is silent for longer is dead.
SILENCE_SECONDS_MAX = 35.0
RETRY_SECONDS_FIRST = 0.05
RETRY_SECONDS_MAX = 2.0
# A wait that is longer than this is spoken of; the command line shows it.
TELL_SECONDS = 1.0
STATUSES_WORTH_A_RETRY = frozenset((502, 503, 504))

T = TypeVar("T")
_log = logging.getLogger("openresource.client.waiting")


class Wire:
    """The connections to one node; use it within one event loop and close it."""

    def __init__(self, url: str, timeout_seconds: float, genesis_hash: str | None) -> None:
        self.url = url
        # The node names its network with every answer: another one may answer at the same address at any time.
        self.genesis_hash = genesis_hash
        self._timeout_seconds = timeout_seconds
        self._http: httpx2.AsyncClient | None = None
        self._call_number = 0

    async def close(self) -> None:
        """Close the connections."""
        http, self._http = self._http, None
        if http is not None:
            await http.aclose()

    async def call(self, method: str, params: Mapping[str, Any], *, extra_seconds: float = 0.0) -> Any:
        """Call a method; an answer that carries a code is raised as `NodeRefused`."""
        self._call_number += 1
        request = {
            "jsonrpc": "2.0",
            "method": method,
            "params": {**params, "protoVer": PROTOCOL_VERSION},
            "id": self._call_number,
        }
        # A signature covers the canonical text of what the node reads, so numbers must travel exactly.
        raw = await self.request(
            "POST", "/json-rpc", canonical_json_bytes(request), extra_seconds=extra_seconds
        )
        return _value_of(self.url, method, raw)

    async def request(self, verb: str, path: str, body: bytes | None, *, extra_seconds: float = 0.0) -> bytes:
        """Body of the answer; an away node is tried again until the time-out, a refusal is raised."""

        async def once() -> bytes:
            return await self._once(verb, path, body, extra_seconds)

        return await self.within(self._timeout_seconds, once, f"calling {verb} {path.split('/')[1]}")

    async def within(self, seconds: float, attempt: Callable[[], Awaitable[T]], doing: str) -> T:
        """Try again while the node is away, at most for some seconds."""
        deadline = time.monotonic() + seconds
        delay = RETRY_SECONDS_FIRST
        is_told = False
        while True:
            try:
                return await attempt()
            except NodeAway as away:
                left_seconds = deadline - time.monotonic()
                if not is_told and seconds - left_seconds > TELL_SECONDS:
                    is_told = True
                    _log.info(
                        "waiting for the node at %s, at most %.0f s more (%s)",
                        self.url,
                        left_seconds,
                        away.reason,
                    )
                if left_seconds <= delay:
                    raise NodeAway(
                        url=self.url, doing=doing, waited_seconds=round(seconds, 1), reason=away.reason
                    ) from away
            await asyncio.sleep(delay)
            delay = min(delay * 2, RETRY_SECONDS_MAX)

    async def _once(self, verb: str, path: str, body: bytes | None, extra_seconds: float) -> bytes:
        import httpx2

        headers = {}
        if body is not None:
            headers["content-type"] = "application/json" if verb == "POST" else "application/octet-stream"
        seconds = self._timeout_seconds + extra_seconds
        parts: list[bytes] = []
        size = 0
        try:
            async with (
                asyncio.timeout(seconds),
                self._client().stream(verb, self.url + path, content=body, headers=headers) as response,
            ):
                self._check_network(response)
                # Raw, as nothing was asked for in a packed form: a few packed bytes may be gigabytes.
                async for part in response.aiter_raw():
                    size += len(part)
                    if size > ANSWER_BYTES_MAX:
                        raise BadAnswer(url=self.url, reason=f"it is larger than {ANSWER_BYTES_MAX} bytes")
                    parts.append(part)
        except (httpx2.TransportError, TimeoutError) as error:
            raise NodeAway(
                url=self.url, doing="calling", waited_seconds=round(seconds, 1), reason=_reason(error)
            ) from error
        raw = b"".join(parts)
        if response.status_code in STATUSES_WORTH_A_RETRY:
            raise NodeAway(
                url=self.url,
                doing="calling",
                waited_seconds=round(seconds, 1),
                reason=f"it answers {response.status_code}",
            )
        if response.status_code >= 400:
            raise _refusal_of(self.url, response.status_code, raw)
        return raw

    async def events(
        self, patterns: list[str], position: str | None, pending: bool, blocks: bool
    ) -> AsyncGenerator[tuple[str, Event | None], None]:
        """One connection's worth of events; ends when the node cuts it."""
        import httpx2

        query: list[tuple[str, str | int | float | bool | None]] = [("path", pattern) for pattern in patterns]
        if position is not None:
            query.append(("from", position))
        query.extend((name, "1") for name, wanted in (("pending", pending), ("blocks", blocks)) if wanted)
        timeout = httpx2.Timeout(CONNECT_SECONDS, read=SILENCE_SECONDS_MAX)
        stream = self._client().stream("GET", self.url + "/events", params=query, timeout=timeout)
        try:
            async with stream as response:
                if response.status_code in STATUSES_WORTH_A_RETRY:
                    reason = f"it answers {response.status_code}"
                    raise NodeAway(
                        url=self.url, doing="following its events", waited_seconds=0.0, reason=reason
                    )
                if response.status_code >= 400:
                    raise _refusal_of(self.url, response.status_code, await _beginning(response))
                self._check_network(response)
                buffer = b""
                async for part in response.aiter_raw():
                    *frames, buffer = (buffer + part).split(b"\n\n")
                    if len(buffer) > EVENT_BYTES_MAX:
                        raise BadAnswer(
                            url=self.url, reason=f"an event is larger than {EVENT_BYTES_MAX} bytes"
                        )
                    for frame in frames:
                        yield _parsed_frame(self.url, frame)
        except (httpx2.TransportError, TimeoutError) as error:
            raise NodeAway(
                url=self.url, doing="following its events", waited_seconds=0.0, reason=_reason(error)
            ) from error

    def _check_network(self, response: httpx2.Response) -> None:
        found = response.headers.get(GENESIS_HEADER)
        if self.genesis_hash is None:
            self.genesis_hash = found
        elif found is not None and found != self.genesis_hash:
            raise WrongNetwork(url=self.url, expected=self.genesis_hash, found=found)

    def _client(self) -> httpx2.AsyncClient:
        if self._http is None:
            import httpx2

            # The node is named by its address; settings of the environment must not send calls elsewhere.
            self._http = httpx2.AsyncClient(
                timeout=httpx2.Timeout(
                    self._timeout_seconds + WAIT_SECONDS_PER_CALL, connect=CONNECT_SECONDS
                ),
                limits=httpx2.Limits(max_connections=100, max_keepalive_connections=20),
                trust_env=False,
                follow_redirects=False,
                headers={"accept-encoding": "identity"},
            )
        return self._http


def _value_of(url: str, method: str, raw: bytes) -> Any:
    """The value inside an answer, or the refusal that it carries."""
    try:
        body = parse_json(raw, bytes_max=ANSWER_BYTES_MAX, depth_max=ANSWER_DEPTH_MAX)
    except Refusal as refusal:
        raise BadAnswer(url=url, reason=refusal.message) from refusal
    if not isinstance(body, dict):
        raise BadAnswer(url=url, reason="it is not an object")
    error = body.get("error")
    if isinstance(error, dict):
        raise NodeRefused(
            method=method, node_code=error.get("code"), reason=str(error.get("message")), status=200
        )
    inner = body.get("result") if "jsonrpc" in body else body
    if not isinstance(inner, dict):
        raise BadAnswer(url=url, reason="it holds no result")
    if inner.get("code") not in (None, 0):
        typed = inner.get("refusal")
        if isinstance(typed, dict):
            raise NodeRefused(
                method=method,
                node_code=str(typed.get("code")),
                reason=str(inner.get("message")),
                node_facts=typed.get("facts"),
                status=200,
            )
        raise NodeRefused(
            method=method, node_code=inner.get("code"), reason=str(inner.get("message")), status=200
        )
    return inner.get("result")


def _refusal_of(url: str, status: int, raw: bytes) -> Refusal:
    try:
        body = msgspec.json.decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError):
        body = None
    error = body.get("error") if isinstance(body, dict) else None
    if not isinstance(error, dict):
        return NodeRefused(method=url, node_code=status, reason=f"HTTP status {status}", status=status)
    text = " ".join(str(error[part]) for part in ("message", "remedy") if error.get(part))
    return NodeRefused(
        method=url,
        node_code=str(error.get("code")),
        reason=text,
        node_facts=error.get("facts"),
        status=status,
    )


async def _beginning(response: httpx2.Response) -> bytes:
    """As much of a refusal's body as is worth reading."""
    raw = b""
    async for part in response.aiter_raw():
        raw += part
        if len(raw) > REFUSAL_BYTES_MAX:
            break
    return raw


def _parsed_frame(url: str, frame: bytes) -> tuple[str, Event | None]:
    """The cursor and the event of one frame; either may be missing."""
    cursor, data = "", b""
    for line in frame.split(b"\n"):
        name, _, rest = line.partition(b":")
        if name == b"id":
            cursor = rest.strip().decode("ascii", "replace")
        elif name == b"data":
            data = rest.strip()
    if not data:
        return cursor, None
    try:
        return cursor, event_of(parse_json(data, bytes_max=EVENT_BYTES_MAX))
    except Refusal as refusal:
        raise BadAnswer(url=url, reason=refusal.message) from refusal


def _reason(error: BaseException) -> str:
    return str(error) or type(error).__name__
