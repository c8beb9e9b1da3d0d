"""All pages in one application.

app = make_app(home, "http://127.0.0.1:8080", token=token)
…
await app.close()

/                              what this is, with live numbers
/services                      search; /services/PUBLISHER/NAME: one service, and a form that calls it
/answers/ONCE  /receipts/ID    what a call gave, and the paper that proves it (for the wallet's owner)
/jobs  /jobs/ID                runs that were asked for on the chain, with their verdicts; /providers: who stands behind them
/blocks  /transactions/HASH    the chain as it happens
/accounts/ADDRESS  /apps/NAME  what is theirs on the chain; an app's events as they happen
/tree/PATH                     the explorer; /proofs/PATH gives a proof as a file
/programs/CID                  votes and reports about a program
/providers/ADDRESS             a provider's reputation; …/registration.json and …/feedback.json as ERC-8004 has them
/money  /earnings              the wallet's coins, and what providers on this machine earn
/live/VIEW                     the stream behind each open page
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Final

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp, Receive, Scope, Send

from openresource.client.homes import Home
from openresource.primitives.errors import Refusal
from openresource.web.accounts import Accounts
from openresource.web.blocks import Blocks
from openresource.web.calls import Defect
from openresource.web.earnings import Earnings
from openresource.web.front import Front
from openresource.web.governance import Governance
from openresource.web.jobs import JobBook, Jobs
from openresource.web.live import Live
from openresource.web.money import Purse
from openresource.web.providers import Providers
from openresource.web.receipts import Receipts
from openresource.web.security import LOOPBACK_NAMES, Guard
from openresource.web.services import Services
from openresource.web.site import FOLDER, Site
from openresource.web.tree import Tree

AWAY_CODES: Final = frozenset(("node-away", "wrong-network", "bad-answer"))
STATUS_BY_CODE: Final = {
    "node-away": 503,
    "wrong-network": 503,
    "bad-answer": 502,
    "no-such-service": 404,
    "no-such-version": 404,
    "no-such-method": 404,
    "service-name-ambiguous": 409,
    "block-unknown": 404,
    "job-unknown": 404,
    "transaction-unknown": 404,
    "receipt-unknown": 404,
    "run-unknown": 404,
    "nothing-found": 404,
    "program-unknown": 404,
    "provider-unknown": 404,
    "account-unknown": 404,
    "app-unknown": 404,
    "program-killed": 410,
    "nothing-to-prove": 404,
    "token-missing": 403,
    "body-too-large": 413,
    "over-spending-limit": 402,
    "price-above-maximum": 402,
    "not-enough-coins": 402,
    "too-many-readers": 503,
    "too-many-watchers": 503,
    "too-many-runs": 503,
    "defect": 500,
}

log = logging.getLogger("openresource.web")


class PageUnknown(Refusal):
    template = "There is no page at {path}."
    way_out = "Begin at the front page."


class VerbNotServed(Refusal):
    template = "{path} does not take {verb}."


class Pages:
    """The application; the guard stands outside of everything, errors included."""

    def __init__(self, site: Site, application: ASGIApp) -> None:
        self.site = site
        self._application = application

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._application(scope, receive, send)

    async def close(self) -> None:
        """End streams and calls, close connections and books."""
        await self.site.close()


def make_app(
    home: Home | Path | str | None,
    node_url: str | None,
    *,
    token: str,
    provider_homes: Sequence[Path | str] = (),
    host_names: Iterable[str] | None = LOOPBACK_NAMES,
) -> Pages:
    """The pages over one home's wallet and one node; close them when they end."""
    site = Site(home, node_url, token=token, provider_homes=provider_homes)
    book = JobBook(site)
    front = Front(site, book)
    rooms = (
        front,
        Services(site),
        Jobs(site, book),
        Providers(site, book),
        Governance(site),
        Receipts(site),
        Blocks(site),
        Accounts(site),
        Tree(site),
        Purse(site),
        Earnings(site),
    )
    routes: list[Route | Mount] = [route for room in rooms for route in room.routes()]
    routes += [
        *Live(site, front, book).routes(),
        Route("/healthz", lambda request: JSONResponse({"status": "ok"})),
        Route("/favicon.ico", lambda request: FileResponse(FOLDER / "static" / "favicon.svg")),
        Mount("/static", StaticFiles(directory=FOLDER / "static")),
        Mount("/vendor", StaticFiles(directory=FOLDER / "vendor")),
    ]

    async def refused(request: Request, error: Exception) -> Response:
        assert isinstance(error, Refusal)
        return _refusal_page(site, request, error)

    async def not_found(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        path = request.url.path
        if error.status_code == 405:
            return _refusal_page(site, request, VerbNotServed(path=path, verb=request.method), 405)
        return _refusal_page(site, request, PageUnknown(path=path), error.status_code)

    async def failed(request: Request, error: Exception) -> Response:
        log.error("a page failed", exc_info=error)
        return _refusal_page(site, request, Defect(kind=type(error).__name__), 500)

    handlers: dict[Any, Any] = {Refusal: refused, HTTPException: not_found, Exception: failed}
    inner = Starlette(routes=routes, exception_handlers=handlers)
    return Pages(site, Guard(inner, token=token, host_names=host_names))


def _refusal_page(site: Site, request: Request, refusal: Refusal, status: int | None = None) -> Response:
    code = status or STATUS_BY_CODE.get(refusal.code, 400)
    return site.page(
        request, "refusal.html", status=code, refusal=refusal, is_away=refusal.code in AWAY_CODES, code=code
    )
