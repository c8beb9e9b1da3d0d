"""The node's one port: JSON-RPC, the stream of events, content, health and metrics.

Bodies, queries and streams are bounded. Unless the node was told to listen elsewhere it answers only requests that
name this machine, so that a page in a browser cannot reach it under another name; no cross-origin headers are sent.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from openresource.node.connections import Answer, Head, Lane, answer_head, is_json
from openresource.node.content import ContentDiskFull, ContentStore, ContentUnknown, QuotaReached
from openresource.node.engine import Engine
from openresource.node.events import (
    CursorAhead,
    InvalidCursor,
    InvalidPattern,
    TooManyReaders,
    parse_cursor,
    parse_patterns,
)
from openresource.node.methods import AinMethods
from openresource.node.own_methods import OwnMethods
from openresource.node.rpc import Dispatcher, encode
from openresource.primitives.cids import BlockMismatch, BlockTooLarge, InvalidCid, InvalidNode
from openresource.primitives.encoding import JsonTooDeep, JsonTooLarge, NotJson, parse_json
from openresource.primitives.errors import Refusal
from openresource.primitives.limits import BLOCK_BYTES_MAX

RPC_BODY_BYTES_MAX = 8 * 1024 * 1024
QUERY_CHARACTERS_MAX = 16 * 1024
LOCAL_NAMES = ("127.0.0.1", "localhost", "[::1]")
RPC_PATH = "/json-rpc"
JSON_TYPE = "application/json; charset=utf-8"

_UNGATED = frozenset(("ain_getProtocolVersion", "ain_checkProtocolVersion"))
_STATUS_BY_REFUSAL: dict[type[Refusal], int] = {
    InvalidCid: 400,
    BlockMismatch: 400,
    InvalidNode: 400,
    BlockTooLarge: 413,
    ContentUnknown: 404,
    QuotaReached: 507,
    ContentDiskFull: 507,
    InvalidCursor: 400,
    InvalidPattern: 400,
    CursorAhead: 409,
    TooManyReaders: 503,
    NotJson: 400,
    JsonTooDeep: 400,
    JsonTooLarge: 413,
}


class BodyTooLarge(Refusal):
    template = "The body is larger than {bytes_max} bytes."
    way_out = "Send less at once."


class WrongHost(Refusal):
    template = "This node does not answer to the name {host}."
    way_out = "Call it as 127.0.0.1, or start it with --host to let other machines in."


class QueryTooLong(Refusal):
    template = "The query is longer than {characters_max} characters."
    way_out = "Watch fewer paths at once."


class Door:
    """The web application of one engine and one content store."""

    def __init__(
        self, engine: Engine, content: ContentStore, version: str, host_names: Iterable[str] | None
    ) -> None:
        """`host_names` are the names that requests may use; None lets every name through."""
        self._engine = engine
        self._content = content
        self._network_header = {"openresource-genesis": engine.machine.genesis_hash}
        ain_methods = AinMethods(engine)
        self._own_methods = OwnMethods(engine, ain_methods, version)
        waiting = {**ain_methods.methods(), **self._own_methods.methods()}
        self._dispatcher = Dispatcher(
            waiting, _UNGATED, {**ain_methods.immediate(), **self._own_methods.immediate()}
        )
        # With every answer: a client must notice if another network answers at the same address.
        genesis = (b"openresource-genesis", engine.machine.genesis_hash.encode())
        self._lane_head = answer_head(200, [genesis, (b"content-type", JSON_TYPE.encode())])
        self._host_names = None if host_names is None else frozenset(host_names)
        routes = [
            Route(RPC_PATH, self.json_rpc, methods=["POST"]),
            Route("/events", self.events, methods=["GET"]),
            Route("/content/{cid}", self.get_content, methods=["GET", "HEAD"]),
            Route("/content/{cid}", self.put_content, methods=["PUT"]),
            Route("/healthz", self.health, methods=["GET"]),
            Route("/metrics", self.metrics, methods=["GET"]),
            Route("/health_check", self.health_check, methods=["GET"]),
            Route("/last_block_number", self.last_block_number, methods=["GET"]),
            Route("/", self.welcome, methods=["GET"]),
        ]
        handlers: dict[Any, Any] = {Refusal: _refusal_response, HTTPException: _http_error}
        application: ASGIApp = Starlette(routes=routes, exception_handlers=handlers)
        self.application = application if host_names is None else HostCheck(application, host_names)

    def lane(self, head: Head) -> Lane | None:
        """How reads over JSON-RPC are answered at once; nothing else has a lane."""
        if head.verb != "POST" or head.path != RPC_PATH or head.query:
            return None
        if (
            self._host_names is not None
            and named_host(head.headers.get(b"host", b"")) not in self._host_names
        ):
            return None
        return self._read_at_once if is_json(head.headers.get(b"content-type", b"")) else None

    def _read_at_once(self, raw: bytes, caller: str) -> Answer | None:
        try:
            body = parse_json(raw)
        except Refusal:
            return None
        if not self._dispatcher.is_immediate(body):
            return None
        reply = self._dispatcher.version_refusal(body, "") or self._dispatcher.answered(body)
        return self._lane_head, encode(reply.body)

    async def json_rpc(self, request: Request) -> Response:
        query_version = request.query_params.get("protoVer", "")
        content_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        if content_type != "application/json":
            # Other bodies stay unread; forms of foreign pages can send no others.
            if query_version:
                return Response(status_code=415)
            body: Any = {}
        else:
            raw = await _body(request, RPC_BODY_BYTES_MAX)
            body = parse_json(raw, bytes_max=RPC_BODY_BYTES_MAX) if raw else {}
            if not isinstance(body, dict | list):
                raise NotJson(reason="the top is neither an object nor an array")
        reply = await self._dispatcher.reply(body, query_version)
        if reply.body is None:
            return Response(status_code=reply.status)
        return Response(encode(reply.body), reply.status, self._network_header, JSON_TYPE)

    async def events(self, request: Request) -> Response:
        if len(request.url.query) > QUERY_CHARACTERS_MAX:
            raise QueryTooLong(characters_max=QUERY_CHARACTERS_MAX)
        query = request.query_params
        patterns = parse_patterns(query.getlist("path"))
        start = query.get("from") or request.headers.get("last-event-id")
        since = parse_cursor(start) if start else None
        self._engine.hub.refuse_if_impossible(since)
        stream: AsyncIterator[bytes] = self._engine.hub.stream(
            patterns,
            since=since,
            wants_pending=query.get("pending") == "1",
            wants_blocks=query.get("blocks") == "1",
        )
        headers = {"cache-control": "no-store", "x-accel-buffering": "no", **self._network_header}
        return StreamingResponse(stream, media_type="text/event-stream", headers=headers)

    async def get_content(self, request: Request) -> Response:
        cid = request.path_params["cid"]
        headers = {
            "cache-control": "public, max-age=31536000, immutable",
            "x-content-type-options": "nosniff",
        }
        media_type = "application/octet-stream"
        if request.method == "HEAD":
            size = self._content.size_of(cid)
            if size is None:
                raise ContentUnknown(cid=cid)
            return Response(headers={**headers, "content-length": str(size)}, media_type=media_type)
        return Response(await self._content.get(cid), media_type=media_type, headers=headers)

    async def put_content(self, request: Request) -> Response:
        is_new = await self._content.put(request.path_params["cid"], await _body(request, BLOCK_BYTES_MAX))
        return Response(status_code=201 if is_new else 200)

    async def health(self, request: Request) -> Response:
        engine = self._engine
        state = "failed" if engine.failure is not None else "disk_full" if engine.is_disk_full else "ok"
        facts = {"status": state, "height": engine.last_height(), "time_ms": engine.last_block["timestamp"]}
        return Response(encode(facts), 200 if state == "ok" else 503, media_type=JSON_TYPE)

    async def metrics(self, request: Request) -> Response:
        engine = self._engine
        gauges = {
            "height": engine.last_height(),
            "pending_transactions": len(engine.pending_transactions()),
            "event_readers": engine.hub.reader_count(),
            "event_readers_cut": engine.hub.cut_total,
            "events_sent": engine.hub.sent_total,
            "disk_full": int(engine.is_disk_full),
            "content_bytes": self._content.used_bytes,
            "content_blocks": self._content.block_count,
        }
        labelled = {"rpc_requests_total": ("method", self._dispatcher.requests_by_method)}
        return PlainTextResponse(
            engine.metrics.text(gauges, labelled), media_type="text/plain; version=0.0.4"
        )

    async def health_check(self, request: Request) -> Response:
        engine = self._engine
        return PlainTextResponse("true" if engine.failure is None and not engine.is_disk_full else "false")

    async def last_block_number(self, request: Request) -> Response:
        return Response(encode({"code": 0, "result": self._engine.last_height()}), media_type=JSON_TYPE)

    async def welcome(self, request: Request) -> Response:
        facts = self._own_methods.status_facts()
        return PlainTextResponse(
            f"Open Resource node {facts['version']}, network {facts['network']}, chain id {facts['chain_id']}, "
            f"block {facts['height']}.\nJSON-RPC: POST /json-rpc. Events: GET /events. Content: /content/CID.\n"
        )


class HostCheck:
    """Lets requests through only under names that are this node's own."""

    def __init__(self, application: ASGIApp, names: Iterable[str]) -> None:
        self._application = application
        self._names = frozenset(name.lower() for name in names)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            host = _host_name(scope)
            if host not in self._names:
                response = _refusal_body(WrongHost(host=host), 421)
                await response(scope, receive, send)
                return
        await self._application(scope, receive, send)


def _host_name(scope: Scope) -> str:
    for name, value in scope["headers"]:
        if name == b"host":
            return named_host(value)
    return ""


def named_host(value: bytes) -> str:
    """The name in a Host header, without its port."""
    host = value.decode("latin-1").strip().lower()
    return host.partition("]")[0] + "]" if host.startswith("[") else host.partition(":")[0]


async def _body(request: Request, bytes_max: int) -> bytes:
    """The whole body, if it is not too large; what claims to be is not even read."""
    claimed = request.headers.get("content-length", "")
    if claimed.isdigit() and int(claimed) > bytes_max:
        raise BodyTooLarge(bytes_max=bytes_max)
    parts: list[bytes] = []
    size = 0
    try:
        async for part in request.stream():
            size += len(part)
            if size > bytes_max:
                raise BodyTooLarge(bytes_max=bytes_max)
            parts.append(part)
    except ClientDisconnect as error:
        raise NotJson(reason="the body broke off") from error
    return b"".join(parts)


async def _refusal_response(request: Request, error: Exception) -> Response:
    assert isinstance(error, Refusal)
    status = 413 if isinstance(error, BodyTooLarge) else _STATUS_BY_REFUSAL.get(type(error), 400)
    return _refusal_body(error, status)


async def _http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    # A known path with another verb is unknown too, as AI Network's clients see it.
    status = 404 if error.status_code == 405 else error.status_code
    # The whole URL would be read as UTF-8, which a query need not be.
    path = request.scope["path"][:200]
    facts = {
        "code": "not-found",
        "message": f"There is no {request.method} {path}.",
        "remedy": "",
        "facts": {},
    }
    return Response(encode({"error": facts}), status, media_type=JSON_TYPE)


def _refusal_body(refusal: Refusal, status: int) -> Response:
    return Response(encode({"error": refusal.to_json()}), status, media_type=JSON_TYPE)
