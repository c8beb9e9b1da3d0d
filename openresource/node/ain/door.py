"""The HTTP port of an AI Network node: JSON-RPC, routes for everybody, routes for developers.

What happens to a request, in this order: its body is read within bounds, pages of other origins are told what they may
do, requests are counted, and then it finds its route. JSON-RPC looks at the version of the protocol before it counts
reads and writes. Refusals of HTTP itself are JSON, with AI Network's status.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from typing import Any, Final
from urllib.parse import parse_qs

from starlette.types import ASGIApp, Receive, Scope, Send

from openresource.node.ain.developer_routes import DeveloperRoutes
from openresource.node.ain.limits import (
    TOO_MANY_REQUESTS,
    Count,
    CrossOrigin,
    RateLimits,
    body_bytes_max,
    is_whitelisted,
)
from openresource.node.ain.methods import AinNodeMethods
from openresource.node.ain.routes import JSON_TYPE, Reply, Route, Routes, text_reply
from openresource.node.ain.served import ServedNode
from openresource.node.connections import Answer, Head, Lane, answer_head, is_json, is_plain
from openresource.node.door import HostCheck, named_host
from openresource.node.rpc import Dispatcher, encode
from openresource.primitives.encoding import parse_json
from openresource.primitives.errors import Refusal

QUERY_BYTES_MAX: Final = 16 * 1024
QUERY_FIELDS_MAX: Final = 64
RPC_PATH: Final = "/json-rpc"
NOT_WHITELISTED: Final = "IP not whitelisted"

_UNGATED: Final = frozenset(("ain_getProtocolVersion", "ain_checkProtocolVersion"))
_log = logging.getLogger("openresource.node.ain.door")

Headers = list[tuple[bytes, bytes]]


class _Refused(Exception):
    """A request that gets no further."""

    def __init__(self, reply: Reply) -> None:
        super().__init__(reply.status)
        self.reply = reply


class AinDoor:
    """The web application of one node."""

    def __init__(self, node: ServedNode, host_names: Iterable[str] | None = None) -> None:
        """`host_names` are the names that requests may use; None lets every name through."""
        self._node = node
        methods = AinNodeMethods(node)
        self._dispatcher = Dispatcher(methods.methods(), _UNGATED, methods.immediate())
        self._limits = RateLimits(node.parameters, node.now_ms)
        self._cross_origin = CrossOrigin(node.parameters.whitelist("CORS_WHITELIST"))
        routes, developers = Routes(node, methods), DeveloperRoutes(node, methods)
        self._open = routes.open_routes()
        self._listed = {**routes.listed_routes(), **developers.routes(), **routes.event_routes()}
        self._body_bytes_max = body_bytes_max(node.parameters.text("REQUEST_BODY_SIZE_LIMIT"))
        application: ASGIApp = self._serve
        self.application = application if host_names is None else HostCheck(application, host_names)
        self._host_names = None if host_names is None else frozenset(host_names)

    def lane(self, head: Head) -> Lane | None:
        """How what waits for nothing is answered at once: methods of JSON-RPC that read, and routes that read."""
        given = head.headers
        if self._host_names is not None and named_host(given.get(b"host", b"")) not in self._host_names:
            return None
        origin = given.get(b"origin", b"")
        if not is_plain(origin):
            return None
        try:
            query = _query(head.query)
        except _Refused:
            return None
        told = self._cross_origin.headers(origin.decode("latin-1"))
        path = _path(head.path)
        if head.verb == "POST" and path == RPC_PATH and _is_json(given):
            return self._rpc_lane(_version_in(query), told)
        if head.verb == "GET" and not _is_json(given):
            return self._route_lane(("GET", path), query, told)
        return None

    def _rpc_lane(self, version: str, told: Headers) -> Lane:
        dispatcher, limits = self._dispatcher, self._limits
        plain = answer_head(200, [*told, (b"content-type", JSON_TYPE)])

        def lane(raw: bytes, caller: str) -> Answer | None:
            try:
                body = parse_json(raw, bytes_max=self._body_bytes_max)
            except Refusal:
                return None
            if not dispatcher.is_immediate(body):
                return None
            refused, count = None, limits.count_request(caller)
            if count is None or not count.is_over:
                refused = dispatcher.version_refusal(body, version)
                if refused is None:
                    count = limits.count_method(caller, body["method"])
            if count is not None and count.is_over:
                return _too_many(told, count)
            reply = refused or dispatcher.answered(body)
            return _with_count(plain, count), encode(reply.body)

        return lane

    def _route_lane(self, asked: tuple[str, str], query: dict[str, Any], told: Headers) -> Lane | None:
        if asked not in self._open and asked not in self._listed:
            return None

        plain = answer_head(200, [*told, (b"content-type", JSON_TYPE)])

        def lane(raw: bytes, caller: str) -> Answer | None:
            count = self._limits.count_request(caller)
            if count is not None and count.is_over:
                return _too_many(told, count)
            try:
                reply = self._found(asked, query, None, caller)
            except Exception:
                reply = _broken(asked[1])
            is_plain_json = reply.status == 200 and reply.content_type == JSON_TYPE
            return _with_count(plain if is_plain_json else _head(told, reply), count), reply.body

        return lane

    async def _serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        given = _headers(scope)
        told: Headers = []
        try:
            content = await self._content(given, receive)
            told = self._cross_origin.headers(given.get(b"origin", b"").decode("latin-1"))
            if scope["method"] == "OPTIONS":
                await _send(send, self._preflight(given), Reply(b"", 204, b""), is_head=False)
                return
            caller = _caller(scope)
            self._count(self._limits.count_request(caller), told)
            reply = await self._reply(scope, given, content, caller, told)
        except _Refused as refused:
            reply = refused.reply
        except Exception:
            reply = _broken(scope["path"])
        await _send(send, told, reply, is_head=scope["method"] == "HEAD")

    async def _reply(
        self, scope: Scope, given: dict[bytes, bytes], content: Any, caller: str, told: Headers
    ) -> Reply:
        verb, path = scope["method"], _path(scope["path"])
        query = _query(scope["query_string"])
        if path == RPC_PATH and verb == "POST":
            return await self._json_rpc(given, content, query, caller, told)
        return self._found(("GET" if verb == "HEAD" else verb, path), query, content, caller)

    def _found(self, asked: tuple[str, str], query: dict[str, Any], content: Any, caller: str) -> Reply:
        route = self._open.get(asked)
        if route is not None:
            return self._routed(route, asked, query, content)
        parameters = self._node.parameters
        if not is_whitelisted(caller, parameters.whitelist("DEV_CLIENT_API_IP_WHITELIST")):
            return text_reply(NOT_WHITELISTED, 403)
        route = self._listed.get(asked)
        if route is None:
            return _problem(404, "not-found", f"There is no {asked[0]} {asked[1][:200]}.")
        return self._routed(route, asked, query, content)

    def _routed(self, route: Route, asked: tuple[str, str], query: dict[str, Any], content: Any) -> Reply:
        begun_ms = self._node.now_ms()
        try:
            reply = route(query, content)
        except Refusal as refusal:
            return Reply(encode({"error": refusal.to_json()}), 400)
        ended_ms = self._node.now_ms()
        kind = "client_api_get" if asked[0] == "GET" else "client_api_set"
        self._node.traffic.add(kind, ended_ms - begun_ms, ended_ms)
        return reply

    async def _json_rpc(
        self, given: dict[bytes, bytes], content: Any, query: dict[str, Any], caller: str, told: Headers
    ) -> Reply:
        version = _version_in(query)
        body = content if isinstance(content, dict | list) else {}
        refused = self._dispatcher.version_refusal(body, version)
        if refused is not None:
            return Reply(encode(refused.body), refused.status)
        method = body.get("method") if isinstance(body, dict) else None
        self._count(self._limits.count_method(caller, method), told)
        if not _is_json(given):
            return Reply(b"", 415, b"")
        reply = await self._dispatcher.dispatch(body)
        if reply.body is None:
            return Reply(b"", reply.status, b"")
        return Reply(encode(reply.body), reply.status)

    async def _content(self, given: dict[bytes, bytes], receive: Receive) -> Any:
        """The parsed body; None for one that is not JSON, which stays unread."""
        if not _is_json(given):
            return None
        claimed = given.get(b"content-length", b"")
        if claimed.isdigit() and int(claimed) > self._body_bytes_max:
            raise _Refused(self._too_large())
        parts: list[bytes] = []
        size = 0
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                raise _Refused(_problem(400, "not-json", "The body broke off."))
            part: bytes = message.get("body", b"")
            size += len(part)
            if size > self._body_bytes_max:
                raise _Refused(self._too_large())
            parts.append(part)
            if not message.get("more_body"):
                break
        if not size:
            return {}
        try:
            content = parse_json(b"".join(parts), bytes_max=self._body_bytes_max)
        except Refusal as refusal:
            raise _Refused(Reply(encode({"error": refusal.to_json()}), 400)) from refusal
        if not isinstance(content, dict | list):
            raise _Refused(_problem(400, "not-json", "The body is neither an object nor an array."))
        return content

    def _too_large(self) -> Reply:
        return _problem(413, "body-too-large", f"The body is larger than {self._body_bytes_max} bytes.")

    def _preflight(self, given: dict[bytes, bytes]) -> Headers:
        wanted = given.get(b"access-control-request-headers", b"").decode("latin-1")
        return self._cross_origin.preflight_headers(given.get(b"origin", b"").decode("latin-1"), wanted)

    def _count(self, count: Count | None, told: Headers) -> None:
        if count is None:
            return
        told[:] = [header for header in told if not header[0].startswith(b"x-ratelimit-")] + count.headers()
        if count.is_over:
            raise _Refused(text_reply(TOO_MANY_REQUESTS, 429))


def _headers(scope: Scope) -> dict[bytes, bytes]:
    found: dict[bytes, bytes] = {}
    for name, value in scope["headers"]:
        found.setdefault(name, value)
    return found


def _caller(scope: Scope) -> str:
    client = scope.get("client")
    return client[0] if client else ""


def _path(path: str) -> str:
    """A path without the slash behind it, in which routes do not differ."""
    return path[:-1] if len(path) > 1 and path.endswith("/") else path


def _is_json(given: dict[bytes, bytes]) -> bool:
    return is_json(given.get(b"content-type", b""))


def _query(raw: bytes) -> dict[str, Any]:
    """The fields of a query; one that is given more than once is a list."""
    if not raw:
        return {}
    if len(raw) > QUERY_BYTES_MAX:
        raise _Refused(_problem(414, "query-too-long", f"The query is longer than {QUERY_BYTES_MAX} bytes."))
    try:
        fields = parse_qs(
            raw.decode("latin-1"), keep_blank_values=True, max_num_fields=QUERY_FIELDS_MAX, errors="replace"
        )
    except ValueError as error:
        many = f"The query has more than {QUERY_FIELDS_MAX} fields."
        raise _Refused(_problem(400, "query-too-long", many)) from error
    return {name: values[0] if len(values) == 1 else values for name, values in fields.items()}


def _version_in(query: dict[str, Any]) -> str:
    version = query.get("protoVer", "")
    # Given more than once it is a list, and no version.
    return version if isinstance(version, str) else "?"


def _broken(path: str) -> Reply:
    """The reply to a request that failed; called where its exception is handled."""
    _log.exception("a request failed", extra={"facts": {"path": path[:200]}})
    return _problem(500, "internal-error", "This request failed here.")


def _head(told: Headers, reply: Reply) -> bytes:
    return answer_head(reply.status, [*told, (b"content-type", reply.content_type)])


def _with_count(head: bytes, count: Count | None) -> bytes:
    """A head that also tells a caller where it stands."""
    if count is None:
        return head
    return b"".join([head, *[b"%b: %b\r\n" % header for header in count.headers()]])


def _too_many(told: Headers, count: Count) -> Answer:
    refused = text_reply(TOO_MANY_REQUESTS, 429)
    return _with_count(_head(told, refused), count), refused.body


def _problem(status: int, code: str, message: str) -> Reply:
    return Reply(
        encode({"error": {"code": code, "message": message, "remedy": "", "facts": {}}}), status, JSON_TYPE
    )


async def _send(send: Send, told: Headers, reply: Reply, *, is_head: bool) -> None:
    headers = list(told)
    if reply.content_type:
        headers.append((b"content-type", reply.content_type))
    if reply.status != 204:
        headers.append((b"content-length", str(len(reply.body)).encode()))
    await send({"type": "http.response.start", "status": reply.status, "headers": headers})
    await send({"type": "http.response.body", "body": b"" if is_head else reply.body})
