"""Receipts: what this wallet paid for, each with the papers that prove it."""

from __future__ import annotations

from typing import Any, Final

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from openresource.market.receipts import receipt_from_json, recover_receipt_signer
from openresource.primitives.errors import Refusal
from openresource.web.security import require_owner
from openresource.web.site import Site

RECEIPTS_SHOWN_MAX: Final = 100


class ReceiptUnknown(Refusal):
    template = "This home has no receipt {receipt}."
    way_out = "Receipts are kept in the home of the wallet that paid."


class Receipts:
    """Pages about receipts."""

    def __init__(self, site: Site) -> None:
        self._site = site

    def routes(self) -> list[Route]:
        """All addresses."""
        return [
            Route("/receipts", self.list, methods=["GET"]),
            Route("/receipts/{receipt}", self.receipt, methods=["GET"]),
        ]

    async def list(self, request: Request) -> Response:
        require_owner(request)
        receipts = self._site.client.books.receipts(RECEIPTS_SHOWN_MAX)
        return self._site.page(request, "receipts.html", receipts=receipts)

    async def receipt(self, request: Request) -> Response:
        require_owner(request)
        name = request.path_params["receipt"]
        record = self._site.client.books.receipt(name)
        if record is None:
            raise ReceiptUnknown(receipt=name)
        return self._site.page(
            request, "receipt.html", receipt=record, signer=await self._signer(record), run=None
        )

    async def _signer(self, record: dict[str, Any]) -> str:
        """Whose signature the receipt bears, computed again from its bytes; empty if it bears nobody's."""
        try:
            return recover_receipt_signer(receipt_from_json(record), await self._site.chain.domain())
        except Refusal:
            return ""
