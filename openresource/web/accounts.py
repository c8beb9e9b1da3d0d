"""Pages of an account and of an app: what is theirs on the chain, in one place, and an app's events as they happen."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any, Final

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from openresource.client.bonds import bond_of
from openresource.client.chain import Event
from openresource.market.records import read_provider_record
from openresource.primitives.errors import Refusal
from openresource.primitives.keys import checksum_address, is_address
from openresource.primitives.paths import FUNCTIONS, OWNERS, RULES, valid_label
from openresource.web.site import Site
from openresource.web.streams import event_frame, stream_response

APPS_SHOWN: Final = 100
SERVICES_SHOWN: Final = 50
CHILDREN_SHOWN: Final = 30
ENTRIES_SHOWN: Final = 60
EVENTS_SHOWN: Final = 20
READERS_MAX: Final = 32
LABELS_READ_MAX: Final = 400
CONFIG_LABELS: Final = {RULES: ".rule", FUNCTIONS: ".function", OWNERS: ".owner"}
CONFIG_DEPTH_MAX: Final = 12


class AccountUnknown(Refusal):
    template = "{account} is not the address of an account."
    way_out = "An address has 0x and 40 hexadecimal digits."


class AppUnknown(Refusal):
    template = "There is no app {app} here."
    way_out = "See /apps for those that there are; `openresource app create NAME` makes one."


class TooManyWatchers(Refusal):
    template = "{watchers} pages follow apps already, which is the limit."
    way_out = "Close one that is not needed."


class Accounts:
    """Pages about accounts and apps."""

    def __init__(self, site: Site) -> None:
        self._site = site
        self._watchers = 0

    def routes(self) -> list[Route]:
        """All addresses."""
        return [
            Route("/accounts/{address}", self.account, methods=["GET"]),
            Route("/apps", self.apps, methods=["GET"]),
            Route("/apps/{app}", self.app, methods=["GET"]),
            Route("/live/app/{app}", self.stream, methods=["GET"]),
        ]

    async def account(self, request: Request) -> Response:
        text = request.path_params["address"]
        if not is_address(text):
            raise AccountUnknown(account=text)
        address = checksum_address(text)
        chain = self._site.chain
        balance, pending, state, record, bond, services = await asyncio.gather(
            chain.balance(address),
            chain.balance(address, "pending"),
            chain.read(f"/accounts/{address}"),
            chain.read(f"/records/{address}"),
            bond_of(chain, address),
            self._labels(f"/services/{address}", SERVICES_SHOWN),
        )
        return self._site.page(
            request,
            "account.html",
            address=address,
            balance_uain=balance,
            pending_uain=pending,
            state=state if isinstance(state, dict) else {},
            record=read_provider_record(record),
            bond=bond,
            services=services,
        )

    async def apps(self, request: Request) -> Response:
        names = await self._labels("/manage_app", APPS_SHOWN)
        return self._site.page(request, "apps.html", names=names)

    async def app(self, request: Request) -> Response:
        app = request.path_params["app"]
        chain = self._site.chain
        if not valid_label(app):
            raise AppUnknown(app=app)
        config = await chain.read(f"/manage_app/{app}/config")
        place = f"/apps/{app}"
        configured, children = await asyncio.gather(
            asyncio.gather(*(self._entries(place, tree) for tree in CONFIG_LABELS)),
            self._labels(place, CHILDREN_SHOWN),
        )
        if config is None and not children and not any(configured):
            raise AppUnknown(app=app)
        return self._site.page(
            request,
            "app.html",
            app=app,
            config=config if isinstance(config, dict) else {},
            configured=list(zip(CONFIG_LABELS, configured, strict=True)),
            children=children,
        )

    async def stream(self, request: Request) -> Response:
        app = request.path_params["app"]
        if not valid_label(app):
            raise AppUnknown(app=app)
        if self._watchers >= READERS_MAX:
            raise TooManyWatchers(watchers=self._watchers)
        return stream_response(self._frames(app))

    async def _frames(self, app: str) -> AsyncIterator[bytes]:
        """Each write below the app, the newest first; a pending one becomes final in its place."""
        self._watchers += 1
        lines: dict[tuple[str, str], Event] = {}
        try:
            since = await self._next_height()
            # The page learns at once that it is being told, and from now on nothing escapes it.
            yield self._drawn(lines)
            stream = self._site.chain.events(f"/apps/{app}", since=since, pending=True)
            async with aclosing(stream) as events:
                async for event in events:
                    if event.kind == "block":
                        continue
                    key = (event.tx_hash, event.path)
                    lines.pop(key, None)
                    lines[key] = event
                    while len(lines) > EVENTS_SHOWN:
                        lines.pop(next(iter(lines)))
                    yield self._drawn(lines)
        finally:
            self._watchers -= 1

    async def _next_height(self) -> int | None:
        """The block that comes next; unknown where the node is away, and then what comes first counts."""
        try:
            return (await self._site.chain.status()).height + 1
        except Refusal:
            return None

    def _drawn(self, lines: dict[tuple[str, str], Event]) -> bytes:
        events = list(reversed(lines.values()))
        head = event_frame(self._site.render("_live_head.html"))
        return head + event_frame(self._site.render("_live_app.html", events=events))

    async def _labels(self, path: str, count: int) -> list[str]:
        found = []
        async with aclosing(self._site.chain.children(path)) as labels:  # type: ignore[type-var]
            async for label in labels:
                found.append(label)
                if len(found) >= count:
                    break
        return found

    async def _entries(self, place: str, tree: str) -> list[tuple[str, Any]]:
        """The rules, functions or owners of an app: each path with what is set there."""
        found: list[tuple[str, Any]] = []
        try:
            whole = await self._site.chain.read(place, tree=tree)
        except Refusal:
            # Larger than one answer: the tree shows it piece by piece.
            return found
        waiting: list[tuple[str, Any]] = [(place, whole)]
        looked = 0
        while waiting and len(found) < ENTRIES_SHOWN and looked < LABELS_READ_MAX:
            path, value = waiting.pop(0)
            for label, item in value.items() if isinstance(value, dict) else ():
                looked += 1
                if label == CONFIG_LABELS[tree]:
                    found.append((path, item))
                elif path.count("/") < CONFIG_DEPTH_MAX:
                    waiting.append((f"{path}/{label}", item))
        return found
