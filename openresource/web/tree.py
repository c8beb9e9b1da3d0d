"""The explorer: values, rules, functions and owners at any path, now or at a past height, with proofs to save."""

from __future__ import annotations

import asyncio
import json
from typing import Any, Final

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from openresource.client.chain import At, NodeRefused
from openresource.primitives.errors import InvalidInput, Refusal
from openresource.primitives.paths import FUNCTIONS, OWNERS, RULES, VALUES, format_path, parse_path
from openresource.web.site import Site, tree_link

TREES: Final = (VALUES, RULES, FUNCTIONS, OWNERS)
CHILDREN_PER_PAGE: Final = 100
HEIGHT_DIGITS_MAX: Final = 15
LABELS_MAX: Final = 64


class NothingToProve(Refusal):
    template = "There is nothing at {path} that could be proven."
    way_out = "Read a path that holds a value, at final or at a height."


class Tree:
    """Pages about the tree."""

    def __init__(self, site: Site) -> None:
        self._site = site

    def routes(self) -> list[Route]:
        """All addresses."""
        return [
            Route("/tree", self.node, methods=["GET"]),
            Route("/tree/{path:path}", self.node, methods=["GET"]),
            Route("/proofs/{path:path}", self.proof, methods=["GET"]),
        ]

    async def node(self, request: Request) -> Response:
        labels, tree, at = _where(request)
        path = format_path(labels)
        after = request.query_params.get("after", "")
        params: dict[str, Any] = {"ref": path, "tree": tree, "at": at, "limit": CHILDREN_PER_PAGE}
        page = await self._site.chain.rpc("ore_children", {**params, "after": after} if after else params)
        names = [str(label) for label in page.get("labels") or []]
        branches = page.get("branches") or {}
        glimpses = await asyncio.gather(*(self._glimpse(labels, one, branches, tree, at) for one in names))
        value, trouble = (None, "") if names else await self._value(path, tree, at)
        return self._site.page(
            request,
            "tree.html",
            path=path,
            labels=labels,
            crumbs=[(label, format_path(labels[: number + 1])) for number, label in enumerate(labels)],
            tree=tree,
            at=at,
            height=page.get("height"),
            children=list(zip(names, glimpses, strict=True)),
            branches=branches,
            next=page.get("next"),
            is_first=not after,
            value=value,
            trouble=trouble,
            trees=TREES,
            link=lambda to, **changes: tree_link(
                to, **{"tree": "" if tree == VALUES else tree, "at": "" if at == "final" else at, **changes}
            ),
        )

    async def proof(self, request: Request) -> Response:
        """The paper that proves a value to whoever knows the genesis hash, as a file."""
        labels, tree, at = _where(request)
        path = format_path(labels)
        reading = await self._site.chain.read_at(path, at, tree=tree, proof=True)
        if reading.paper is None:
            raise NothingToProve(path=path)
        name = "-".join(labels[-2:]) or "tree"
        safe = "".join(letter for letter in name if letter.isascii() and (letter.isalnum() or letter in "-_"))
        headers = {"content-disposition": f'attachment; filename="{safe[:60] or "value"}.proof"'}
        body = json.dumps(reading.paper, ensure_ascii=False)
        return Response(body, media_type="application/json", headers=headers)

    async def _glimpse(
        self, labels: list[str], label: str, branches: dict[str, Any], tree: str, at: At
    ) -> Any:
        """A leaf's value beside its label, and a whole entry of a configuration; None for other branches."""
        if branches.get(label) and (tree == VALUES or not label.startswith(".")):
            return None
        return (await self._value(format_path([*labels, label]), tree, at))[0]

    async def _value(self, path: str, tree: str, at: At) -> tuple[Any, str]:
        try:
            return await self._site.chain.read(path, at, tree=tree), ""
        except NodeRefused as refusal:
            return None, refusal.message


def _where(request: Request) -> tuple[list[str], str, At]:
    labels = parse_path(request.path_params.get("path", ""))
    tree = request.query_params.get("tree") or VALUES
    if tree not in TREES:
        raise InvalidInput(what="tree", reason="it is none of values, rules, functions and owners")
    if len(labels) > LABELS_MAX:
        raise InvalidInput(what="path", reason=f"it has more than {LABELS_MAX} labels")
    return labels, tree, _at(request.query_params.get("at") or "final")


def _at(text: str) -> At:
    match text.strip():
        case "final":
            return "final"
        case "pending":
            return "pending"
        case digits if digits.isascii() and digits.isdigit() and len(digits) <= HEIGHT_DIGITS_MAX:
            return int(digits)
    raise InvalidInput(what="height", reason="it is none of pending, final and a block's number")
