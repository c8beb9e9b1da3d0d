"""What all pages share: the home whose wallet pays, the chain as it is read here, and how a template becomes an answer."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote, urlencode

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from starlette.requests import Request
from starlette.responses import HTMLResponse

from openresource import __version__
from openresource.client.chain import Chain
from openresource.client.facade import AsyncClient
from openresource.client.homes import Home
from openresource.client.job_stories import MOVE_WORDS, holder_words
from openresource.client.services import Directory
from openresource.market.placements import placement_words
from openresource.market.predicates import run_if_words
from openresource.primitives.amounts import text_from_uain
from openresource.primitives.paths import parse_path
from openresource.web import shown
from openresource.web.calls import Runs
from openresource.web.feed import Feed
from openresource.web.listings import Market

FOLDER: Final = Path(__file__).parent
# A person waits at a page: better to say soon that the node is away, and to come back by itself.
READ_SECONDS: Final = 4.0


class Site:
    """One set of pages over one home and one node."""

    def __init__(
        self,
        home: Home | Path | str | None,
        node_url: str | None,
        *,
        token: str,
        provider_homes: Sequence[Path | str] = (),
    ) -> None:
        self.home = home if isinstance(home, Home) else Home(home)
        self.node_url = self.home.node_url(node_url)
        self.token = token
        self.provider_homes = tuple(Home(folder) for folder in provider_homes)
        config = self.home.config()
        genesis = config.get("genesis_hash") if node_url is None else None
        self.chain = Chain(
            self.node_url,
            timeout_seconds=READ_SECONDS,
            genesis_hash=genesis if isinstance(genesis, str) else None,
        )
        self.client = AsyncClient(self.home, node_url)
        self.feed = Feed(self.chain)
        self.market = Market(Directory(self.chain), self.feed)
        self.runs = Runs(self.client)
        self._templates = environment()

    async def close(self) -> None:
        """End streams and calls, close connections and books."""
        await self.feed.close()
        await self.runs.close()
        await self.client.close()
        await self.chain.close()

    def address(self) -> str:
        """The wallet's address; empty if there is no wallet."""
        return self.home.address() if self.home.has_wallet() else ""

    def render(self, template: str, **context: Any) -> str:
        """A template with what every template needs."""
        return self._templates.get_template(template).render(
            site=self, feed=self.feed, version=__version__, now_ms=int(time.time() * 1000), **context
        )

    def page(self, request: Request, template: str, *, status: int = 200, **context: Any) -> HTMLResponse:
        """A whole page."""
        owner = bool(getattr(request.state, "is_owner", False))
        here = request.url.path + ("?" + request.url.query if request.url.query else "")
        return HTMLResponse(self.render(template, is_owner=owner, here=here, **context), status)


def environment() -> Environment:
    """Templates whose every value is escaped."""
    made = Environment(
        loader=FileSystemLoader(FOLDER / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters.update(
        ain=shown.ain,
        count=shown.count,
        short=shown.short,
        moment=shown.moment,
        iso=shown.iso,
        size=shown.size,
        percent=shown.percent,
        span=shown.span,
        shape=shown.shape_of,
        raw=shown.raw_json,
        tree_link=tree_link,
        plain_ain=text_from_uain,
        placement_words=placement_words,
        run_if_words=run_if_words,
        holder_words=holder_words,
        move_words=lambda why: MOVE_WORDS.get(why, why),
    )
    return made


def tree_link(path: str, **query: Any) -> str:
    """The address of a path's page in the explorer."""
    labels = "/".join(quote(label, safe="") for label in parse_path(path))
    chosen = {name: value for name, value in query.items() if value not in ("", None)}
    return f"/tree/{labels}" + ("?" + urlencode(chosen) if chosen else "")


def wants_part(request: Request) -> bool:
    """Whether the browser replaces a part of a page that it shows already."""
    return request.headers.get("hx-request") == "true"
