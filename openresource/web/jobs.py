"""Jobs: those that the chain tells of, live, and each with every run, the verdict's reasons and the way of its money."""

from __future__ import annotations

import asyncio
import re
import time
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from openresource.client.chain import NodeRefused
from openresource.client.job_stories import JobStory, read_story
from openresource.client.job_views import JobFailed, JobUnknown, Output, OutputUnreadable, view_of
from openresource.market.jobs.requests import asked_job_id
from openresource.web.site import Site

SHOWN_MAX: Final = 50
REQUESTERS_READ_MAX: Final = 100
NAMES_READ_MAX: Final = 400
STORIES_KEPT: Final = 1_000
READS_AT_ONCE: Final = 8
# Between two looks at who has asked for jobs; what happens to one meanwhile comes with the feed.
NAMES_FRESH_SECONDS: Final = 20.0
# Without news of a job from the feed, it is read again after so long.
STORY_FRESH_SECONDS: Final = 1.0

_JOB = re.compile(r"[0-9a-f]{32}")


@dataclass(frozen=True, slots=True)
class _Kept:
    version: int
    read_at: float
    story: JobStory


class JobBook:
    """The jobs of the network as pages show them, each read again only when something happened to it."""

    def __init__(self, site: Site) -> None:
        self._site = site
        self._kept: OrderedDict[str, _Kept] = OrderedDict()
        self._names: list[str] = []
        self._names_at = -NAMES_FRESH_SECONDS
        self._reading = asyncio.Lock()

    async def story(self, job: str) -> JobStory:
        """One job as it is now."""
        if _JOB.fullmatch(job) is None:
            raise JobUnknown(job=job[:64])
        await self._site.feed.begin()
        version = self._version(job)
        kept = self._kept.get(job)
        if kept is not None and self._is_fresh(kept, version):
            return kept.story
        story = await read_story(self._site.chain, job)
        self._kept[job] = _Kept(version, time.monotonic(), story)
        self._kept.move_to_end(job)
        while len(self._kept) > STORIES_KEPT:
            self._kept.popitem(last=False)
        return story

    async def newest(self) -> list[JobStory]:
        """The newest jobs of the network."""
        async with self._reading:
            await self._site.feed.begin()
            if time.monotonic() - self._names_at > NAMES_FRESH_SECONDS:
                self._names = await self._read_names()
                self._names_at = time.monotonic()
            names = list(dict.fromkeys([*reversed(self._site.feed.jobs), *self._names]))[:NAMES_READ_MAX]
            gate = asyncio.Semaphore(READS_AT_ONCE)

            async def one(name: str) -> JobStory | None:
                async with gate:
                    try:
                        return await self.story(name)
                    except JobUnknown:
                        return None  # What was pending did not come to be.

            stories = [story for story in await asyncio.gather(*map(one, names)) if story is not None]
        return sorted(stories, key=lambda story: (-story.requested_at_ms, story.job))[:SHOWN_MAX]

    async def slashes(self) -> dict[str, list[tuple[JobStory, int, str]]]:
        """Proven faults among the newest jobs, by provider: the job, what it cost, and why."""
        found: dict[str, list[tuple[JobStory, int, str]]] = {}
        for story in await self.newest():
            for run in story.runs:
                if run.fault:
                    found.setdefault(run.provider, []).append((story, run.slashed_uain, run.sentence))
        return found

    def _version(self, job: str) -> int:
        return self._site.feed.jobs.get(job, 0)

    def _is_fresh(self, kept: _Kept, version: int) -> bool:
        if kept.version != version or self._site.feed.trouble:
            return False
        # A job that the feed tells of is told of again when it changes.
        return version > 0 or time.monotonic() - kept.read_at < STORY_FRESH_SECONDS

    async def _read_names(self) -> list[str]:
        """Jobs that were asked for and are kept in full; those that a write started are found below /jobs."""
        chain = self._site.chain
        names: list[str] = []
        requesters = 0
        async for requester in chain.children("/job_requests"):
            requesters += 1
            if requesters > REQUESTERS_READ_MAX or len(names) >= NAMES_READ_MAX:
                break
            async for key in chain.children(f"/job_requests/{requester}"):
                names.append(asked_job_id(requester, key))
                if len(names) >= NAMES_READ_MAX:
                    break
        async for job in chain.children("/jobs"):
            if len(names) >= 2 * NAMES_READ_MAX:
                break
            names.append(job)
        return names


class Jobs:
    """Pages about jobs."""

    def __init__(self, site: Site, book: JobBook) -> None:
        self._site = site
        self._book = book

    def routes(self) -> list[Route]:
        """All addresses."""
        return [
            Route("/jobs", self.list, methods=["GET"]),
            Route("/jobs/{job}", self.job, methods=["GET"]),
        ]

    async def list(self, request: Request) -> Response:
        return self._site.page(request, "jobs.html", stories=await self._book.newest())

    async def job(self, request: Request) -> Response:
        story = await self._book.story(request.path_params["job"])
        is_owner = bool(getattr(request.state, "is_owner", False))
        output, trouble = await self.output(story, is_owner=is_owner)
        return self._site.page(request, "job.html", story=story, output=output, output_trouble=trouble)

    async def output(self, story: JobStory, *, is_owner: bool) -> tuple[Output | None, str]:
        """The result: open on the chain for everybody, sealed for the wallet that asked."""
        site = self._site
        try:
            record = await site.chain.read(f"/jobs/{story.job}", story.folded_height or "pending")
        except NodeRefused:
            return None, ""
        if not isinstance(record, Mapping):
            return None, ""
        view = view_of(story.job, record)
        is_ours = is_owner and view.requester == site.address() and not _is_locked(site)
        trouble = ""
        for provider in (*view.winners, *(() if view.is_final else view.early)):
            if "output" not in view.executions[provider] and not is_ours:
                continue
            try:
                return await site.client.jobs.output(view, provider), ""
            except (JobFailed, OutputUnreadable) as refusal:
                trouble = refusal.message
        return None, trouble


def _is_locked(site: Site) -> bool:
    return not site.home.has_wallet() or (
        site.home.is_encrypted() and site.home.passphrase_from_file() is None
    )
