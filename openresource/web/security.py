"""The guard in front of all pages: which names, origins and tokens may do what, and what a browser may load.

A page of the web must neither read nor spend here: requests under foreign names are refused (DNS rebinding), posts
need an Origin that is ours, and whatever spends or shows private books needs the token as a strict cookie.
"""

from __future__ import annotations

import hmac
from collections.abc import Iterable
from typing import Final
from urllib.parse import quote, urlencode

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from openresource.primitives.errors import Refusal

LOOPBACK_NAMES: Final = frozenset(("127.0.0.1", "localhost", "[::1]"))
COOKIE_SECONDS: Final = 30 * 24 * 60 * 60
TOKEN_PARAMETER: Final = "token"
SAFE_VERBS: Final = frozenset(("GET", "HEAD"))
URL_CHARACTERS_MAX: Final = 8_000

POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; font-src 'self'; "
    "img-src 'self' data:; media-src data:; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
HEADERS: Final = {
    "content-security-policy": POLICY,
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    # Not "no-referrer": browsers then send posts with the Origin "null", which would be refused.
    "referrer-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), geolocation=(), microphone=(), payment=()",
}


class ForeignHost(Refusal):
    template = "These pages do not answer to the name {host}."
    way_out = "Use the address that was printed when they started."


class ForeignOrigin(Refusal):
    template = "Pages of {origin} may not act here."
    way_out = "Open these pages by their own address and use the form there."


class TokenMissing(Refusal):
    template = "This part belongs to the wallet's owner."
    way_out = "Open the link with the token that was printed when these pages started."


class AddressTooLong(Refusal):
    template = "The address has more than {characters_max} characters."


class Guard:
    """Refuses what may not come in, and adds the headers that tell browsers what a page may do."""

    def __init__(
        self, application: ASGIApp, *, token: str, host_names: Iterable[str] | None = LOOPBACK_NAMES
    ) -> None:
        """`host_names` None lets every name through, for pages that are served to other machines on purpose."""
        self._application = application
        self._token = token
        self._names = None if host_names is None else frozenset(name.lower() for name in host_names)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._application(scope, receive, send)
            return

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers[name] = value
                if not headers.get("cache-control"):
                    headers["cache-control"] = "no-store"
            await send(message)

        request = Request(scope)
        refusal = self._refusal(scope["method"], Headers(scope=scope))
        if len(scope["path"]) + len(scope["query_string"]) > URL_CHARACTERS_MAX:
            refusal = AddressTooLong(characters_max=URL_CHARACTERS_MAX)
        if refusal is not None:
            answer = Response(f"{refusal.message}\n{refusal.remedy}\n", 421, media_type="text/plain")
            if not isinstance(refusal, ForeignHost):
                answer.status_code = 403
            await answer(scope, receive, send_with_headers)
            return
        if scope["method"] == "GET" and TOKEN_PARAMETER in request.query_params:
            await self._let_in(request)(scope, receive, send_with_headers)
            return
        scope.setdefault("state", {})["is_owner"] = self._is_owner(request)
        await self._application(scope, receive, send_with_headers)

    def _refusal(self, verb: str, headers: Headers) -> Refusal | None:
        host = headers.get("host", "")
        name = host_name(host)
        if self._names is not None and name not in self._names:
            return ForeignHost(host=name)
        if verb not in SAFE_VERBS:
            origin = headers.get("origin", "")
            if origin not in (f"http://{host}", f"https://{host}"):
                return ForeignOrigin(origin=origin or "an unknown site")
        return None

    def _let_in(self, request: Request) -> Response:
        """Keep the right token as a cookie and take it out of the address; a wrong one only disappears."""
        given = request.query_params.get(TOKEN_PARAMETER, "")
        rest = [
            (name, value) for name, value in request.query_params.multi_items() if name != TOKEN_PARAMETER
        ]
        # A path that begins with two slashes would name another host.
        path = quote("/" + request.scope["path"].lstrip("/"))
        answer = RedirectResponse(path + ("?" + urlencode(rest) if rest else ""), 303)
        if hmac.compare_digest(given.encode(), self._token.encode()):
            answer.set_cookie(
                cookie_name(request.scope),
                self._token,
                max_age=COOKIE_SECONDS,
                httponly=True,
                samesite="strict",
                path="/",
            )
        return answer

    def _is_owner(self, request: Request) -> bool:
        given = request.cookies.get(cookie_name(request.scope), "")
        return hmac.compare_digest(given.encode(), self._token.encode())


def require_owner(request: Request) -> None:
    """Refuse a browser that does not have the token."""
    if not is_owner(request):
        raise TokenMissing()


def is_owner(request: Request) -> bool:
    """Whether this browser came with the token."""
    return bool(getattr(request.state, "is_owner", False))


def cookie_name(scope: Scope) -> str:
    """Cookies are shared between ports, so two sets of pages on one machine need two names."""
    server = scope.get("server") or ("", 0)
    return f"openresource_pages_{server[1] or 0}"


def host_name(host: str) -> str:
    """The name in a Host header, without its port."""
    host = host.strip().lower()
    if not host.startswith("["):
        return host.partition(":")[0]
    name, bracket, _ = host.partition("]")
    return name + bracket
