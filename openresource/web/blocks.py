"""Blocks and transactions: the newest ones live, each one on a page of its own."""

from __future__ import annotations

from typing import Any, Final

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Route

from openresource.client.chain import BadAnswer
from openresource.primitives.errors import Refusal
from openresource.primitives.hashing import is_hash
from openresource.primitives.keys import checksum_address, is_address
from openresource.web.deeds import Deed, deed_of, main_deed
from openresource.web.site import Site, tree_link

TRANSACTIONS_SHOWN_MAX: Final = 200
OPERATIONS_SHOWN_MAX: Final = 100
HEIGHT_DIGITS_MAX: Final = 15
FIND_CHARACTERS_MAX: Final = 2_000


class BlockUnknown(Refusal):
    template = "There is no block {block}."
    way_out = "The newest ones are listed under Blocks."


class TransactionUnknown(Refusal):
    template = "This node knows no transaction {transaction}."
    way_out = "It may have been lost with a block that was still open; whoever sent it can send it again."


class NothingFound(Refusal):
    template = "Nothing here is called {text}."
    way_out = "Give a block's number, a hash, an address, or a path that begins with a slash."


class Blocks:
    """Pages about blocks and transactions."""

    def __init__(self, site: Site) -> None:
        self._site = site

    def routes(self) -> list[Route]:
        """All addresses."""
        return [
            Route("/blocks", self.newest, methods=["GET"]),
            Route("/blocks/{block}", self.block, methods=["GET"]),
            Route("/transactions/{transaction}", self.transaction, methods=["GET"]),
            Route("/find", self.find, methods=["GET"]),
        ]

    async def newest(self, request: Request) -> Response:
        await self._site.feed.begin()
        return self._site.page(request, "blocks.html")

    async def block(self, request: Request) -> Response:
        name = request.path_params["block"]
        block = await self._block(name)
        if block is None:
            raise BlockUnknown(block=name)
        transactions = block.get("transactions") or []
        receipts = block.get("receipts") or []
        lines = [
            (one, _deed_of_transaction(one), receipts[index] if index < len(receipts) else {})
            for index, one in enumerate(transactions[:TRANSACTIONS_SHOWN_MAX])
        ]
        last = (await self._site.chain.status()).height
        return self._site.page(
            request,
            "block.html",
            block=block,
            lines=lines,
            hidden=len(transactions) - len(lines),
            last=last,
        )

    async def transaction(self, request: Request) -> Response:
        name = request.path_params["transaction"]
        info = await self._site.chain.transaction(name) if is_hash(name) else None
        if info is None:
            raise TransactionUnknown(transaction=name)
        body = info.transaction.get("tx_body") or {}
        operations = _operations(body.get("operation"))
        deeds = [
            (one, deed_of(str(one.get("ref")), one.get("value"), str(one.get("type")))) for one in operations
        ]
        results = _results(info.result, len(operations))
        return self._site.page(
            request,
            "transaction.html",
            info=info,
            body=body,
            title=main_deed([deed for _, deed in deeds]).title,
            deeds=list(zip(deeds, results, strict=False))[:OPERATIONS_SHOWN_MAX],
            hidden=max(0, len(operations) - OPERATIONS_SHOWN_MAX),
        )

    async def find(self, request: Request) -> Response:
        """Go where a number, a hash, an address or a path leads."""
        text = request.query_params.get("q", "").strip()[:FIND_CHARACTERS_MAX]
        if text.startswith("/"):
            return RedirectResponse(tree_link(text), 303)
        if text.isascii() and text.isdigit() and len(text) <= HEIGHT_DIGITS_MAX:
            return RedirectResponse(f"/blocks/{int(text)}", 303)
        if is_address(text):
            return RedirectResponse(f"/accounts/{checksum_address(text)}", 303)
        if is_hash(text):
            if await self._site.chain.transaction(text) is not None:
                return RedirectResponse(f"/transactions/{text}", 303)
            if await self._block(text) is not None:
                return RedirectResponse(f"/blocks/{text}", 303)
        raise NothingFound(text=text)

    async def _block(self, name: str) -> dict[str, Any] | None:
        if name.isascii() and name.isdigit() and len(name) <= HEIGHT_DIGITS_MAX:
            params: dict[str, Any] = {"number": int(name)}
            method = "ain_getBlockByNumber"
        elif is_hash(name):
            params, method = {"hash": name}, "ain_getBlockByHash"
        else:
            return None
        found = await self._site.chain.rpc(method, {**params, "getFullTransactions": True})
        if found is None:
            return None
        if not isinstance(found, dict) or not isinstance(found.get("number"), int):
            raise BadAnswer(url=self._site.node_url, reason="a block is not of the form")
        return found


def _deed_of_transaction(transaction: Any) -> Deed:
    body = transaction.get("tx_body") if isinstance(transaction, dict) else None
    operations = _operations(body.get("operation") if isinstance(body, dict) else None)
    deeds = [deed_of(str(one.get("ref")), one.get("value"), str(one.get("type"))) for one in operations]
    deed = main_deed(deeds)
    more = len(operations) - 1
    return Deed(deed.title + (f" and {more} more" if more > 0 else ""), deed.detail)


def _operations(operation: Any) -> list[dict[str, Any]]:
    """The writes of a transaction, one by one."""
    if not isinstance(operation, dict):
        return []
    if operation.get("type") != "SET":
        return [operation]
    listed = operation.get("op_list")
    return [one for one in listed if isinstance(one, dict)] if isinstance(listed, list) else []


def _results(result: Any, count: int) -> list[dict[str, Any]]:
    """The result of each write, in their order."""
    listed = result.get("result_list") if isinstance(result, dict) else None
    if isinstance(listed, dict):
        found = [listed.get(str(number)) for number in range(count)]
    else:
        found = [result] * count
    return [one if isinstance(one, dict) else {} for one in found]
