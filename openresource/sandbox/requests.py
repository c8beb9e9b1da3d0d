"""From a call to an HTTP request for the program's own server, and from its answer to an output.

Four sorts of methods: declared ones (a POST of the input, or a GET with the input as query), those of the program's
OpenAPI document, the generic `request`, and whatever else is asked for by path, as it is.
"""

from __future__ import annotations

import base64
import binascii
import json
import re
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import quote, urlencode

from openresource.market.generic_methods import REQUEST, is_generic
from openresource.market.manifests import Manifest
from openresource.sandbox.driver import JSON_TYPE, ProgramCall, ProgramRefused
from openresource.sandbox.openapi import BYTES_BODY, FORM_BODY, JSON_BODY, PARTS_BODY, Route

VERBS: Final = ("GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS")
QUERY_VERBS: Final = ("GET", "DELETE")
HEADERS_MAX: Final = 64
# What belongs to one connection, which is ours.
OWN_HEADERS: Final = frozenset(
    ("host", "content-length", "transfer-encoding", "connection", "keep-alive", "upgrade", "te", "trailer", "expect",
     "proxy-authorization", "proxy-connection", "openresource-call")
)  # fmt: skip
_HEADER_NAME = re.compile(r"[A-Za-z0-9!#$%&'*+.^_|~-]{1,100}")
_HEADER_VALUE = re.compile(r"[\t\x20-\x7e\x80-\xff]{0,4000}")
_PATH = re.compile(r"/[^\x00-\x20\x7f]{0,8000}")
_PATH_SAFE: Final = "/%:@!$&'()*+,;=~-._?[]{}|"


@dataclass(frozen=True, slots=True)
class Outgoing:
    """One request; `wraps` when its answer is told with status and headers."""

    verb: str
    target: str
    headers: tuple[tuple[str, str], ...]
    body: bytes
    wraps: bool = False


class Requests:
    """How the calls of one program become requests."""

    def __init__(self, manifest: Manifest) -> None:
        self._verbs = {method.name: method.verb for method in manifest.methods if method.verb != "POST"}
        self._has_generic = any(
            is_generic(method) and method.name == REQUEST.name for method in manifest.methods
        )
        self._routes: dict[str, Route] = {}
        # Where to ask the program for its own document: only where it declared nothing.
        self.document_path = manifest.run.openapi if self._has_generic else ""

    def learn(self, routes: Mapping[str, Route]) -> None:
        """The methods of the program's own document."""
        self._routes = dict(routes)

    def outgoing(self, call: ProgramCall) -> Outgoing:
        """The request of a call; an input that does not fit is refused."""
        if self._has_generic and call.method == REQUEST.name:
            return _generic(_members(call))
        if call.method in self._routes:
            return _routed(self._routes[call.method], _members(call))
        verb = self._verbs.get(call.method, call.http_method)
        if call.method in self._verbs and verb in QUERY_VERBS:
            return Outgoing(verb, call.path + _query(_members(call)), (), b"")
        return Outgoing(verb, call.path, (("Content-Type", call.content_type),), call.body)


def wrapped(status: int, headers: Mapping[bytes, bytes], body: bytes) -> bytes:
    """An answer as a value: status, headers, and the body as JSON, as a text, or as base64."""
    kind = headers.get(b"content-type", b"").decode("latin-1").partition(";")[0].strip().lower()
    told: dict[str, Any] = {
        "status": status,
        "headers": {name.decode("latin-1"): value.decode("latin-1") for name, value in headers.items()},
    }
    if kind == JSON_TYPE or kind.endswith("+json"):
        try:
            told["body"] = json.loads(body, parse_constant=_no_number)
            return json.dumps(told, ensure_ascii=False).encode("utf-8", "replace")
        except (ValueError, RecursionError):
            told.pop("body", None)
    try:
        text = body.decode("utf-8")
        is_text = "\0" not in text
    except UnicodeDecodeError:
        text, is_text = "", False
    if is_text:
        told["body"] = text
    else:
        told["body"], told["encoding"] = base64.b64encode(body).decode(), "base64"
    return json.dumps(told, ensure_ascii=False).encode()


def _generic(members: Mapping[str, Any]) -> Outgoing:
    verb = members.get("method", "GET")
    path = members.get("path", "/")
    if verb not in VERBS:
        raise _refused(f"method is {str(verb)[:40]}, but it is one of {', '.join(VERBS)}")
    if not isinstance(path, str) or _PATH.fullmatch(path) is None:
        raise _refused("path begins with / and has no spaces")
    target = quote(path, safe=_PATH_SAFE)
    query = members.get("query", {})
    if not isinstance(query, dict):
        raise _refused("query is an object")
    if query:
        target += ("&" if "?" in target else "?") + _query(query)[1:]
    headers = _headers(members.get("headers", {}))
    names = {name.lower() for name, _ in headers}
    body = members.get("body")
    if members.get("encoding") == "base64":
        content, kind = _bytes(body, "body"), BYTES_BODY
    elif body is None and "body" not in members:
        return Outgoing(verb, target, tuple(headers), b"", wraps=True)
    elif isinstance(body, str):
        content, kind = body.encode(), "text/plain; charset=utf-8"
    else:
        content, kind = json.dumps(body, ensure_ascii=False).encode(), JSON_BODY
    if "content-type" not in names:
        headers.append(("Content-Type", kind))
    return Outgoing(verb, target, tuple(headers), content, wraps=True)


def _routed(route: Route, members: Mapping[str, Any]) -> Outgoing:
    target = route.path
    for name in route.in_path:
        if name not in members:
            raise _refused(f"{name} is missing: it is part of the path")
        text = _text(members[name])
        if text in ("", ".", ".."):
            raise _refused(f"{name} is {text!r}, which no path can hold")
        target = target.replace("{" + name + "}", quote(text, safe=""))
    target = quote(target, safe=_PATH_SAFE) + _query(
        {name: members[name] for name in route.in_query if members.get(name) is not None}
    )
    if route.whole_body:
        if route.whole_body not in members:
            return Outgoing(route.verb, target, (), b"")
        value = members[route.whole_body]
        content = _bytes(value, route.whole_body) if route.binary else json.dumps(value).encode()
        return Outgoing(route.verb, target, (("Content-Type", route.body_type),), content)
    if not route.in_body:
        return Outgoing(route.verb, target, (), b"")
    inside = {name: members[name] for name in route.in_body if name in members}
    if route.body_type == FORM_BODY:
        return Outgoing(route.verb, target, (("Content-Type", FORM_BODY),), _query(inside)[1:].encode())
    if route.body_type == PARTS_BODY:
        return _parts(route, target, inside)
    content = json.dumps(inside, ensure_ascii=False).encode()
    return Outgoing(route.verb, target, (("Content-Type", JSON_BODY),), content)


def _parts(route: Route, target: str, inside: Mapping[str, Any]) -> Outgoing:
    boundary = secrets.token_hex(16)
    content = b""
    for name, value in inside.items():
        is_file = name in route.binary
        shown = re.sub(r'[\r\n"]', "_", name)
        file = f'; filename="{shown}"\r\nContent-Type: {BYTES_BODY}' if is_file else ""
        head = f'--{boundary}\r\nContent-Disposition: form-data; name="{shown}"{file}\r\n\r\n'
        content += head.encode() + (_bytes(value, name) if is_file else _text(value).encode()) + b"\r\n"
    content += f"--{boundary}--\r\n".encode()
    return Outgoing(route.verb, target, (("Content-Type", f"{PARTS_BODY}; boundary={boundary}"),), content)


def _members(call: ProgramCall) -> dict[str, Any]:
    try:
        value = json.loads(call.body or b"{}")
    except (ValueError, RecursionError) as problem:
        raise _refused(f"the input is not JSON ({problem})") from None
    if not isinstance(value, dict):
        raise _refused("the input is an object")
    return value


def _headers(value: object) -> list[tuple[str, str]]:
    if not isinstance(value, dict) or len(value) > HEADERS_MAX:
        raise _refused(f"headers is an object of at most {HEADERS_MAX} texts")
    found = []
    for name, text in value.items():
        if name.lower() in OWN_HEADERS or _HEADER_NAME.fullmatch(name) is None:
            raise _refused(f"the header {name[:60]!r} cannot be given")
        if not isinstance(text, str) or _HEADER_VALUE.fullmatch(text) is None:
            raise _refused(f"the header {name} is no text that HTTP allows")
        found.append((name, text))
    return found


def _query(members: Mapping[str, Any]) -> str:
    pairs = []
    for name, value in members.items():
        for one in value if isinstance(value, list) else [value]:
            pairs.append((name, _text(one)))
    return "?" + urlencode(pairs) if pairs else ""


def _text(value: object) -> str:
    if isinstance(value, str):
        return value
    return json.dumps(value, ensure_ascii=False)


def _bytes(value: object, name: str) -> bytes:
    try:
        return base64.b64decode(value, validate=True) if isinstance(value, str) else _never(name)
    except (binascii.Error, ValueError):
        raise _refused(f"{name} is not base64") from None


def _never(name: str) -> bytes:
    raise _refused(f"{name} is a text of base64")


def _no_number(text: str) -> None:
    raise ValueError(text)


def _refused(reason: str) -> ProgramRefused:
    return ProgramRefused(reason=reason, status=400)
