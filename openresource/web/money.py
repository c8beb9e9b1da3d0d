"""The wallet's money: where each coin is, when it returns, and what was spent."""

from __future__ import annotations

from typing import Final

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from openresource.client.money import money_of
from openresource.web.security import require_owner
from openresource.web.site import Site

RECEIPTS_SHOWN: Final = 8


class Purse:
    """The page about money."""

    def __init__(self, site: Site) -> None:
        self._site = site

    def routes(self) -> list[Route]:
        """All addresses."""
        return [Route("/money", self.money, methods=["GET"])]

    async def money(self, request: Request) -> Response:
        require_owner(request)
        site = self._site
        if not site.home.has_wallet():
            return site.page(request, "money.html", money=None, receipts=[])
        books = site.client.books
        money = await money_of(site.home, site.chain, books)
        return site.page(request, "money.html", money=money, receipts=books.receipts(RECEIPTS_SHOWN))
