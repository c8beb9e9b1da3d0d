"""JSON-RPC as AI Network's clients expect it: the version gate, the envelope, and which method answers.

An answer is an object inside `result`, with the value in `result.result`; refusals of the API are a code and a
message in the same place, and HTTP stays at 200. Only the envelope itself has JSON-RPC errors.
"""

from __future__ import annotations

import functools
import logging
import re
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any

import msgspec

from openresource.primitives.encoding import js_json, utf8
from openresource.primitives.errors import Refusal
from openresource.primitives.numbers import number_text

PROTOCOL_VERSION = "1.6.0"
PROTOCOL_VERSION_MIN = (1, 0, 0)
REQUESTS_PER_ARRAY_MAX = 50

NOT_SPECIFIED = 30101
INVALID_VERSION = 30102
INCOMPATIBLE_VERSION = 30103
# Refusals of our own methods carry their typed form beside the number that this envelope wants.
OWN_REFUSAL = 31000

_VERSION_MESSAGES = {
    NOT_SPECIFIED: "Protocol version not specified.",
    INVALID_VERSION: "Invalid protocol version.",
    INCOMPATIBLE_VERSION: "Incompatible protocol version.",
}
_VERSION = re.compile(r"(?:^|[^0-9])([0-9]{1,16})(?:\.([0-9]{1,16}))?(?:\.([0-9]{1,16}))?(?:$|[^0-9])")

Params = Mapping[str, Any]
Answer = dict[str, Any]
Method = Callable[[Params], Awaitable[Answer]]
# A method that waits for nothing.
Immediate = Callable[[Params], Answer]

_PARAMS = (dict, list, type(None))
_IDENTITIES = (str, int, float, type(None))

_log = logging.getLogger("openresource.node.rpc")
_encoder = msgspec.json.Encoder()


class _Undefined:
    """What JavaScript has where nothing was given."""


UNDEFINED = _Undefined()


@dataclass(frozen=True, slots=True)
class Reply:
    """What goes back over HTTP; no body means an empty one."""

    status: int
    body: Any = None


def answer(value: Any) -> Answer:
    """The ordinary answer."""
    return {"result": value}


def refused(code: int, message: str, value: Any = None) -> Answer:
    """An answer that says no in AI Network's way."""
    return {"result": value, "code": code, "message": message}


def refused_by(refusal: Refusal) -> Answer:
    """An answer that says no in our own way."""
    return {"result": None, "code": OWN_REFUSAL, "message": str(refusal), "refusal": refusal.to_json()}


def encode(body: Any) -> bytes:
    """JSON bytes of an answer, whatever strings the state holds."""
    try:
        return _encoder.encode(body)
    except (UnicodeEncodeError, OverflowError):
        return utf8(js_json(body))


def version_problem(version: Any) -> int:
    """0 if clients of this protocol version are served, else the code of the refusal."""
    if version is UNDEFINED:
        return NOT_SPECIFIED
    parts = _coerced(version)
    if parts is None:
        return INVALID_VERSION
    return 0 if parts >= PROTOCOL_VERSION_MIN else INCOMPATIBLE_VERSION


def check_version(params: Params) -> Answer:
    """The answer of `ain_checkProtocolVersion`."""
    problem = version_problem(params.get("protoVer", UNDEFINED))
    if problem:
        return refused(problem, _VERSION_MESSAGES[problem], False)
    return {"result": True, "code": 0}


class Dispatcher:
    """Finds the method for a request and puts its answer into the envelope."""

    def __init__(
        self,
        methods: Mapping[str, Method],
        ungated: frozenset[str],
        immediate: Mapping[str, Immediate] | None = None,
    ) -> None:
        """`immediate` are further methods, which wait for nothing."""
        self._methods = dict(methods)
        self._immediate = dict(immediate or {})
        self._ungated = ungated
        self.requests_by_method: dict[str, int] = {}

    async def reply(self, body: Any, query_version: str) -> Reply:
        """The reply to a parsed body: an object, or an array of them."""
        return self.version_refusal(body, query_version) or await self.dispatch(body)

    def version_refusal(self, body: Any, query_version: str) -> Reply | None:
        """The reply to a body of another protocol version; None if this one may be answered."""
        problem = self._gate(body, query_version)
        if not problem:
            return None
        message = _VERSION_MESSAGES[problem]
        return Reply(200, {"result": None, "code": problem, "message": message, "protoVer": PROTOCOL_VERSION})

    async def dispatch(self, body: Any) -> Reply:
        """The reply to a parsed body whose version was looked at."""
        if not isinstance(body, list):
            one = await self._reply_to(body)
            return Reply(204) if one is None else Reply(200, one)
        if not 0 < len(body) <= REQUESTS_PER_ARRAY_MAX:
            return Reply(200, _invalid_request())
        replies = [one for one in [await self._reply_to(request) for request in body] if one is not None]
        return Reply(200, replies) if replies else Reply(204)

    def is_immediate(self, body: Any) -> bool:
        """Whether a parsed body is one request that `answered` can answer."""
        return isinstance(body, dict) and body.get("id") is not None and self._immediate_of(body) is not None

    def answered(self, request: dict[str, Any]) -> Reply:
        """The reply to an immediate request whose version was looked at."""
        return Reply(200, self._reply_at_once(request))

    def _immediate_of(self, request: dict[str, Any]) -> Immediate | None:
        name = request.get("method")
        return self._immediate.get(name) if isinstance(name, str) else None

    def _gate(self, body: Any, query_version: str) -> int:
        request = body if isinstance(body, dict) else {}
        method = request.get("method")
        if isinstance(method, str) and method in self._ungated:
            return 0
        if query_version:
            return version_problem(query_version)
        params = request.get("params")
        if params is None or params == "" or params is False or params == 0:
            return version_problem(None)
        return version_problem(params.get("protoVer", UNDEFINED) if isinstance(params, dict) else UNDEFINED)

    async def _reply_to(self, request: Any) -> dict[str, Any] | None:
        if not _is_request(request):
            return _invalid_request()
        name, identity = request["method"], request.get("id")
        if name in self._immediate:
            return self._reply_at_once(request)
        method = self._methods.get(name)
        if method is None:
            return None if identity is None else _error(identity, -32601, "Method not found")
        self._count(name)
        try:
            inner = await method(_params(request))
        except Refusal as refusal:
            inner = refused_by(refusal)
        except Exception:
            return _failed(name, identity)
        return _enveloped(identity, inner)

    def _reply_at_once(self, request: dict[str, Any]) -> dict[str, Any] | None:
        if not _is_request(request):
            return _invalid_request()
        name, identity = request["method"], request.get("id")
        self._count(name)
        try:
            inner = self._immediate[name](_params(request))
        except Refusal as refusal:
            inner = refused_by(refusal)
        except Exception:
            return _failed(name, identity)
        return _enveloped(identity, inner)

    def _count(self, name: str) -> None:
        self.requests_by_method[name] = self.requests_by_method.get(name, 0) + 1


def _is_request(given: Any) -> bool:
    if (
        not isinstance(given, dict)
        or given.get("jsonrpc") != "2.0"
        or not isinstance(given.get("method"), str)
    ):
        return False
    return isinstance(given.get("params"), _PARAMS) and isinstance(given.get("id"), _IDENTITIES)


def _params(request: dict[str, Any]) -> Params:
    params = request.get("params")
    return params if isinstance(params, dict) else {}


def _enveloped(identity: Any, inner: Answer) -> dict[str, Any] | None:
    if identity is None:
        return None
    return {"jsonrpc": "2.0", "id": identity, "result": {**inner, "protoVer": PROTOCOL_VERSION}}


def _failed(name: str, identity: Any) -> dict[str, Any] | None:
    """The reply of a method that broke; called where its exception is handled."""
    _log.exception("method failed", extra={"facts": {"method": name}})
    return None if identity is None else _error(identity, -32603, "Internal error")


def _coerced(version: Any) -> tuple[int, int, int] | None:
    """The first number group with up to three dotted parts, as semantic versions are coerced."""
    if isinstance(version, bool) or not isinstance(version, str | int | float):
        return None
    return _parts(version[:256] if isinstance(version, str) else number_text(version))


@functools.lru_cache(maxsize=64)
def _parts(text: str) -> tuple[int, int, int] | None:
    found = _VERSION.search(text)
    if found is None:
        return None
    major, minor, patch = found.groups()
    return int(major), int(minor or 0), int(patch or 0)


def _invalid_request() -> dict[str, Any]:
    return _error(None, -32600, "Invalid request")


def _error(identity: Any, code: int, message: str) -> dict[str, Any]:
    return {"jsonrpc": "2.0", "id": identity, "error": {"code": code, "message": message}}
