"""The stream behind every open page: parts of it that changed, rendered once for all who look at the same thing."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from typing import Final

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Route

from openresource.client.job_stories import JobStory
from openresource.primitives.errors import Refusal
from openresource.web.front import Front
from openresource.web.jobs import JobBook
from openresource.web.site import Site, wants_part
from openresource.web.streams import event_frame, stream_response

VIEWS: Final = frozenset(("head", "front", "blocks", "services", "jobs"))
JOB_CHARACTERS_MAX: Final = 64
QUERY_CHARACTERS_MAX: Final = 200


class Live:
    """Streams for open pages."""

    def __init__(self, site: Site, front: Front, book: JobBook) -> None:
        self._site = site
        self._front = front
        self._book = book
        self._rendered: dict[str, tuple[int, bytes]] = {}

    def routes(self) -> list[Route]:
        """All addresses."""
        return [
            Route("/live/{view}", self.stream, methods=["GET"]),
            Route("/node-state", self.node_state, methods=["GET"]),
        ]

    async def stream(self, request: Request) -> Response:
        view = request.path_params["view"]
        if view == "job":
            job = request.query_params.get("id", "")[:JOB_CHARACTERS_MAX]
            return stream_response(self._job_frames(job))
        view = view if view in VIEWS else "head"
        query = request.query_params.get("q", "")[:QUERY_CHARACTERS_MAX] if view == "services" else ""
        return stream_response(self._frames(view, query))

    async def node_state(self, request: Request) -> Response:
        """Asked by a page that waits for the node: once it is back, the browser loads what it wanted."""
        try:
            await self._site.chain.status()
        except Refusal:
            return Response(status_code=204)
        if wants_part(request):
            return Response(status_code=200, headers={"hx-refresh": "true"})
        return RedirectResponse("/", 303)

    async def _frames(self, view: str, query: str) -> AsyncIterator[bytes]:
        feed = self._site.feed
        market_version = jobs_version = -1
        async for version in feed.changes():
            frame = await self._head(version)
            if view == "jobs" and jobs_version != feed.jobs_version and not feed.trouble:
                known_version = feed.jobs_version
                if rows := await self._job_rows(known_version):
                    jobs_version = known_version
                    frame += rows
            if view in ("front", "blocks"):
                frame += await self._part(view, version)
            if view == "services" and market_version != feed.market_version and not feed.trouble:
                known_version = feed.market_version
                if services := await self._services(query):
                    market_version = known_version
                    frame += services
            yield frame

    async def _job_frames(self, job: str) -> AsyncIterator[bytes]:
        seen: JobStory | None = None
        async for version in self._site.feed.changes():
            frame = await self._head(version)
            if not self._site.feed.trouble:
                with contextlib.suppress(Refusal):  # The head of the page says that the node is away.
                    story = await self._book.story(job)
                    if story != seen:
                        seen = story
                        frame += event_frame(self._site.render("_live_job.html", story=story))
            yield frame

    async def _job_rows(self, version: int) -> bytes:
        known = self._once("jobs", version)
        if known is not None:
            return known
        try:
            stories = await self._book.newest()
        except Refusal:
            return b""
        return self._keep("jobs", version, "_live_jobs.html", stories=stories)

    async def _head(self, version: int) -> bytes:
        return self._once("head", version) or self._keep("head", version, "_live_head.html")

    async def _part(self, view: str, version: int) -> bytes:
        known = self._once(view, version)
        if known is not None:
            return known
        if view == "blocks":
            return self._keep(view, version, "_live_blocks.html")
        if self._site.feed.trouble:
            return b""
        try:
            facts = await self._front.facts()
        except Refusal:
            return b""  # The head of the page says that the node is away.
        return self._keep(view, version, "_live_front.html", **facts)

    async def _services(self, query: str) -> bytes:
        try:
            listings = await self._site.market.listings(query)
        except Refusal:
            return b""
        return event_frame(self._site.render("_live_services.html", listings=listings, query=query))

    def _once(self, name: str, version: int) -> bytes | None:
        known = self._rendered.get(name)
        return known[1] if known is not None and known[0] == version else None

    def _keep(self, name: str, version: int, template: str, **context: object) -> bytes:
        frame = event_frame(self._site.render(template, **context))
        self._rendered[name] = (version, frame)
        return frame
