"""Works on jobs: sees a request, leases it in turn, runs the program, binds itself to the result, and reveals it.

The chain decides who works on a job and what it pays. What this provider has bound itself to is kept in `commits.py`
before the chain hears of it, so a process that was killed goes on where it was; everything else is read from the chain.
A run whose lease is lost is stopped: its result would count for nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from openresource.client.chain import (
    BadAnswer,
    Chain,
    Event,
    NodeAway,
    NodeRefused,
    TransactionDropped,
    TransactionNotFinal,
)
from openresource.market.jobs.terms import ROLE_OF_STATUS
from openresource.primitives.errors import Refusal
from openresource.primitives.keys import PrivateKey
from openresource.provider.commits import Commits
from openresource.provider.duties import Duty, duty_of, own_execution
from openresource.provider.executions import Result
from openresource.provider.job_steps import Steps
from openresource.provider.lanes import Place
from openresource.provider.metrics import Metrics
from openresource.provider.offers import Offer, Offers
from openresource.provider.turns import Turns

log = logging.getLogger("openresource.provider.jobs")

# Jobs that this provider is bound to or asks for at once.
JOBS_AT_ONCE: Final = 256
JOBS_WAITING_MAX: Final = 1_000
SCAN_JOBS_MAX: Final = 1_000
CURSOR_SECONDS: Final = 5.0
LATER_SECONDS: Final = 0.5
# What is waited for is looked at again after so long, as a hint may be lost.
LOOK_SECONDS: Final = 2.0
# A job is leased when it would wait no longer than this for a place.
WAIT_SECONDS_MAX: Final = 0.25
# A lease that was refused is asked for again after so long, so many times.
ASK_AGAIN_SECONDS: Final = 0.1
ASKED_MAX: Final = 10
LEFT_SECONDS: Final = 60.0
REFUSED_SECONDS: Final = 5.0


@dataclass(slots=True)
class _Life:
    """One job that is worked on here."""

    job: str
    changed: asyncio.Event = field(default_factory=asyncio.Event)
    task: asyncio.Task[None] | None = None
    asked: int = 0
    # Where its run will take place; promised before the lease, as nobody may lease more than can run soon.
    place: Place | None = None


class Jobs:
    """The jobs of the programs that are served here."""

    def __init__(
        self,
        *,
        chain: Chain,
        key: PrivateKey,
        offers: Offers,
        metrics: Metrics,
        cursor_file: Path,
        clock_ms: Callable[[], int],
        commits: Commits,
        missed: Callable[[str, str, str], None] = lambda publisher, name, program: None,
    ) -> None:
        self._chain = chain
        self._key = key
        self._offers = offers
        self._metrics = metrics
        self._cursor_file = cursor_file
        self._clock_ms = clock_ms
        self._commits = commits
        self._steps = Steps(chain, key, commits, metrics, clock_ms)
        self._turns = Turns(chain, key.address, clock_ms)
        # Hears of work for a version that is not served here just now.
        self._missed = missed
        self._lives: dict[str, _Life] = {}
        # Jobs that nobody here can take yet, by publisher, name and program.
        self._later: dict[tuple[str, str, str], dict[str, None]] = {}
        # Jobs whose lease ended before our run did.
        self._left: set[str] = set()
        self._look = asyncio.Event()
        self._cursor = ""
        self.is_leaving = False
        self.running = 0

    @property
    def is_busy(self) -> bool:
        """Whether something runs, or is still to be revealed; a provider that leaves waits for it."""
        return self.running > 0 or len(self._commits) > 0

    async def run(self) -> None:
        """Works until cancelled."""
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._keep_cursor())
                group.create_task(self._look_later())
                for job in self._commits.jobs:
                    self._want(job)
                await self._follow()
        finally:
            tasks = [life.task for life in self._lives.values() if life.task is not None]
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    def see(self, event: Event) -> None:
        """An event at a job's state: whoever works on it looks again, and a job with room is work for us."""
        if event.is_final and event.cursor:
            self._cursor = event.cursor
        labels = event.path.split("/")
        if len(labels) != 4 or labels[3] != "state":
            return
        life = self._lives.get(labels[2])
        if life is not None:
            life.changed.set()
        elif isinstance(event.value, dict) and event.value.get("status") in ROLE_OF_STATUS:
            self._want(labels[2])

    async def _follow(self) -> None:
        """The stream of events from where the last process stopped; a first start also looks at what waits."""
        since = self._cursor_file.read_text().strip() if self._cursor_file.exists() else None
        if since is None:
            await self._scan()
        else:
            self._cursor = since
        while True:
            try:
                async for event in self._chain.events("/jobs/*/state", since=since, pending=True):
                    self.see(event)
            except NodeRefused as refusal:
                # The cursor belongs to another chain, or lies before what the node keeps.
                log.warning("jobs are followed anew: %s", refusal.message)
                since, self._cursor = None, ""
                await self._scan()

    async def _scan(self) -> None:
        with contextlib.suppress(NodeAway, BadAnswer):
            count = 0
            async for job in self._chain.children("/jobs"):
                self._want(job)
                count += 1
                if count >= SCAN_JOBS_MAX:
                    return

    def _want(self, job: str) -> None:
        if job in self._lives or (self.is_leaving and self._commits.find(job) is None):
            return
        if len(self._lives) >= JOBS_AT_ONCE:
            # Somebody else may take it; the chain does not lose it.
            self._keep_for_later(("", "", ""), job)
            return
        life = self._lives[job] = _Life(job)
        life.task = asyncio.create_task(self._live(life))

    def _keep_for_later(self, service: tuple[str, str, str], job: str) -> None:
        if sum(len(jobs) for jobs in self._later.values()) >= JOBS_WAITING_MAX:
            self._metrics.count("openresource_jobs_passed_over_total")
            return
        self._later.setdefault(service, {})[job] = None

    async def _look_later(self) -> None:
        """Jobs that waited for a program to be placed, or for room in its lane."""
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(LATER_SECONDS):
                    await self._look.wait()
            self._look.clear()
            for service in list(self._later):
                offer = self._offers.find(*service)
                if service[0] and (offer is None or offer.is_draining):
                    continue
                jobs = self._later[service]
                # No more than there is room for; each one that leaves makes us look again.
                room = JOBS_AT_ONCE - len(self._lives)
                if offer is not None:
                    free = max(1, offer.lane.capacity - offer.lane.in_flight)
                    room = min(room, free) if has_place(offer) else 0
                for job in list(jobs)[: max(0, room)]:
                    del jobs[job]
                    self._want(job)
                if not jobs:
                    self._later.pop(service, None)

    async def _keep_cursor(self) -> None:
        kept = ""
        while True:
            await asyncio.sleep(CURSOR_SECONDS)
            if self._cursor != kept:
                kept = self._cursor
                self.keep_cursor()

    def keep_cursor(self) -> None:
        """Writes down how far the events were seen; an older place does no harm."""
        if self._cursor:
            fresh = self._cursor_file.with_suffix(".new")
            fresh.write_text(self._cursor)
            fresh.rename(self._cursor_file)

    # ── One job ──────────────────────────────────────────────────────────────────────────────────────────────

    async def _live(self, life: _Life) -> None:
        """From a request to its end, as far as this provider has to do with it."""
        try:
            while await self._step(life):
                pass
        except (NodeAway, BadAnswer, TransactionNotFinal, TransactionDropped) as refusal:
            log.warning("job %s waits for the node: %s", life.job, refusal.message)
            self._keep_for_later(("", "", ""), life.job)
        except Refusal as refusal:
            log.warning("job %s: %s", life.job, refusal.message)
            self._metrics.count("openresource_jobs_total", 'outcome="given_up"')
            self._return_to(life.job)
        except Exception:
            self._metrics.count("openresource_faults_total", 'part="job"')
            log.exception("job %s", life.job)
            self._return_to(life.job)
        finally:
            if life.place is not None:
                life.place.leave()
            self._lives.pop(life.job, None)
            self._look.set()

    def _return_to(self, job: str) -> None:
        """Something went wrong with a job that we are bound to: it is not let go."""
        if self._commits.find(job) is not None:
            asyncio.get_running_loop().call_later(REFUSED_SECONDS, self._want, job)

    async def _step(self, life: _Life) -> bool:
        """Does what the job asks for now; false when nothing more is expected of us."""
        life.changed.clear()
        job, me = life.job, self._key.address
        record = await self._chain.read(f"/jobs/{job}", "pending")
        if not isinstance(record, dict) or not isinstance(record.get("request"), dict):
            await self._commits.drop(job)
            return False
        match duty_of(record, me, self._clock_ms()):
            case Duty.NONE if self._commits.find(job) is None:
                return False
            case Duty.OVER:
                await self._steps.over(job)
                return False
            case Duty.NONE | Duty.WAIT:
                await self._changed(life)
                return True
            case Duty.REVEAL:
                own = own_execution(record, me)
                if own is None or not await self._steps.reveal(job, own):
                    # It came too late, or cannot be opened; how the job ends is still to be seen.
                    await self._changed(life, REFUSED_SECONDS)
                return True
            case Duty.LEASE:
                return await self._lease(life, record)
            case Duty.WORK:
                return await self._work(life, record)

    async def _changed(self, life: _Life, seconds: float = LOOK_SECONDS) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await life.changed.wait()

    def _offer(self, record: Mapping[str, Any], job: str) -> Offer | None:
        """The program of a job, if it is served here."""
        request = record["request"]
        service = (str(request.get("publisher")), str(request.get("name")), str(request.get("program")))
        offer = self._offers.find(*service)
        if offer is None:
            self._missed(*service)
        if offer is None or offer.is_draining:
            self._keep_for_later(service, job)
            return None
        return offer

    async def _lease(self, life: _Life, record: dict[str, Any]) -> bool:
        if self.is_leaving or life.job in self._left:
            return False
        offer = self._offer(record, life.job)
        if offer is None:
            return False
        if not has_place(offer):
            self._keep_for_later((offer.publisher, offer.name, offer.program), life.job)
            return False
        wait_ms = await self._turns.wait_ms(life.job, record, offer)
        if wait_ms is None or life.asked >= ASKED_MAX:
            return False
        if wait_ms > 0:
            await self._changed(life, min(wait_ms / 1000, LOOK_SECONDS))
            return True
        if not has_place(offer):
            self._keep_for_later((offer.publisher, offer.name, offer.program), life.job)
            return False
        life.asked += 1
        life.place = offer.lane.reserve("jobs")
        if not await self._steps.lease(life.job):
            # Somebody was quicker, or our clock is ahead of the chain's.
            life.place.leave()
            await self._changed(life, ASK_AGAIN_SECONDS)
        return True

    async def _work(self, life: _Life, record: dict[str, Any]) -> bool:
        """Runs the program while watching whether the lease lasts; then binds us to what came of it."""
        offer = self._offer(record, life.job)
        own = own_execution(record, self._key.address)
        if offer is None or own is None:
            return False
        kept = self._commits.find(life.job, str(own.lease_at_ms))
        if kept is not None:
            # The process ended between disk and chain: what was kept counts, not another run.
            return await self._steps.commit(kept)
        place, life.place = life.place or offer.lane.reserve("jobs"), None
        self.running += 1
        try:
            result = await self._watched(life, self._steps.execute(life.job, record, offer, own, place))
            # The next run need not wait until the chain has this one.
            place.leave()
            return result is not None and await self._steps.bind(life.job, record, own, result)
        finally:
            place.leave()
            self.running -= 1

    async def _watched(self, life: _Life, execution: Coroutine[Any, Any, Result | None]) -> Result | None:
        run = asyncio.create_task(execution)
        try:
            while not run.done():
                changing = asyncio.create_task(self._changed(life))
                await asyncio.wait((run, changing), return_when=asyncio.FIRST_COMPLETED)
                changing.cancel()
                if not run.done() and not await self._still_ours(life):
                    log.info("job %s is no longer ours; its run is stopped", life.job)
                    self._metrics.count("openresource_jobs_total", 'outcome="interrupted"')
                    self._leave_to_others(life.job)
                    return None
            return run.result()
        finally:
            if not run.done():
                run.cancel()
                await asyncio.gather(run, return_exceptions=True)

    def _leave_to_others(self, job: str) -> None:
        """Who could not finish a job in its lease does not take it again at once: somebody else may be able to."""
        if len(self._left) < JOBS_WAITING_MAX:
            self._left.add(job)
            asyncio.get_running_loop().call_later(LEFT_SECONDS, self._take_up_again, job)

    def _take_up_again(self, job: str) -> None:
        self._left.discard(job)
        self._want(job)

    async def _still_ours(self, life: _Life) -> bool:
        life.changed.clear()
        try:
            record = await self._chain.read(f"/jobs/{life.job}", "pending")
        except (NodeAway, BadAnswer):
            # The lease's own end is kept by the clock; a node that is away takes nothing from us.
            return True
        is_record = isinstance(record, dict) and isinstance(record.get("request"), dict)
        return is_record and duty_of(record, self._key.address, self._clock_ms()) is Duty.WORK


def has_place(offer: Offer) -> bool:
    """Whether a job that is leased now runs soon; who leases more than it can run keeps others from it."""
    lane = offer.lane
    if lane.in_flight < lane.capacity:
        return True
    # Until a first call has ended, nobody knows how long they take.
    return lane.call_seconds > 0 and lane.expected_wait_seconds("jobs") <= WAIT_SECONDS_MAX
