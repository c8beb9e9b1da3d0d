"""Works on jobs: sees a request, leases it, runs the program on what was written, and returns the result to the chain.

The chain decides who gets a job (the first lease), what it pays and where the result goes; nothing about jobs is kept
here but the place in the stream of events. A job that was leased when this process ended is taken up again while its
lease lasts.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
from collections import OrderedDict
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from openresource.client.chain import (
    BadAnswer,
    Chain,
    Event,
    NodeAway,
    NodeRefused,
    TransactionRefused,
    set_value,
)
from openresource.market.jobs import (
    LEASED,
    REQUESTED,
    check_fits_at,
    execution_record,
    failure_record,
    input_digest,
)
from openresource.market.manifests import Method
from openresource.market.papers import hex_text
from openresource.market.schemas import check_value
from openresource.market.tree_json import json_value, tree_value
from openresource.primitives.encoding import canonical_json_bytes, parse_json
from openresource.primitives.errors import Refusal
from openresource.primitives.keys import PrivateKey
from openresource.primitives.paths import parse_path
from openresource.provider.metrics import Metrics
from openresource.provider.offers import Offer, Offers
from openresource.sandbox.driver import JSON_TYPE, ProgramCall, ProgramFailed, ProgramReply

log = logging.getLogger("openresource.provider.jobs")

JOBS_AT_ONCE = 16
JOBS_WAITING_MAX = 1_000
JOBS_REMEMBERED_MAX = 10_000
SCAN_JOBS_MAX = 1_000
CURSOR_SECONDS = 5.0
LATER_SECONDS = 0.5
RESULT_BYTES_MAX = 64 * 1024
# Time to bring the result to the chain before the lease ends.
FINISH_MS = 2_000
FINISH_SECONDS = 30.0


class ResultTooLarge(Refusal):
    template = "The result has {bytes} bytes; at most {bytes_max} go into the tree."
    way_out = "Return a smaller result, or put it into the content store and return its name."


class InputChanged(Refusal):
    template = "The value at {source} is not the one that the job was made for."
    way_out = "Write every request at a path of its own."


class MethodMissing(Refusal):
    template = "The program has no method {method}."
    way_out = "Name one of its methods in the function entry."


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
        missed: Callable[[str, str, str], None] = lambda publisher, name, program: None,
    ) -> None:
        self._chain = chain
        self._key = key
        self._offers = offers
        self._metrics = metrics
        self._cursor_file = cursor_file
        self._clock_ms = clock_ms
        # Hears of work for a version that is not served here just now.
        self._missed = missed
        self._queue: asyncio.Queue[str] = asyncio.Queue(JOBS_WAITING_MAX)
        self._queued: set[str] = set()
        # Jobs that nobody here can take yet, by publisher, name and program.
        self._later: dict[tuple[str, str, str], list[str]] = {}
        self._later_count = 0
        self._done: OrderedDict[str, None] = OrderedDict()
        self._cursor = ""
        self.is_leaving = False
        self.running = 0

    async def run(self) -> None:
        """Works until cancelled."""
        async with asyncio.TaskGroup() as group:
            for _ in range(JOBS_AT_ONCE):
                group.create_task(self._work())
            group.create_task(self._keep_cursor())
            group.create_task(self._look_later())
            await self._follow()

    def see(self, event: Event) -> None:
        """An event below /jobs: a state that says REQUESTED is work for whoever is first."""
        if event.is_final and event.cursor:
            self._cursor = event.cursor
        labels = event.path.split("/")
        value = event.value
        if (
            len(labels) == 4
            and labels[3] == "state"
            and isinstance(value, dict)
            and value.get("status") == REQUESTED
        ):
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
        if job in self._queued or self.is_leaving:
            return
        try:
            self._queue.put_nowait(job)
        except asyncio.QueueFull:
            # Somebody else may take it; the chain does not lose it.
            self._metrics.count("openresource_jobs_passed_over_total")
            return
        self._queued.add(job)

    def _keep_for_later(self, service: tuple[str, str, str], job: str) -> None:
        if self._later_count < JOBS_WAITING_MAX:
            self._later.setdefault(service, []).append(job)
            self._later_count += 1

    async def _look_later(self) -> None:
        """Jobs that waited for a program to be placed, or for room in its lane."""
        while True:
            await asyncio.sleep(LATER_SECONDS)
            for service in list(self._later):
                offer = self._offers.find(*service)
                if offer is not None and offer.lane.has_room:
                    jobs = self._later.pop(service)
                    self._later_count -= len(jobs)
                    for job in jobs:
                        self._want(job)

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

    async def _work(self) -> None:
        while True:
            job = await self._queue.get()
            self._queued.discard(job)
            self.running += 1
            try:
                await self._try(job)
            except Refusal as refusal:
                log.warning("job %s: %s", job, refusal.message)
            finally:
                self.running -= 1

    async def _try(self, job: str) -> None:
        record = await self._chain.read(f"/jobs/{job}", "pending")
        if not isinstance(record, dict) or self.is_leaving:
            return
        request, state = record.get("request"), record.get("state")
        if not isinstance(request, dict) or not isinstance(state, dict):
            return
        publisher, name, program = (str(request.get(part)) for part in ("publisher", "name", "program"))
        offer = self._offers.find(publisher, name, program)
        if job in self._done or state.get("status") not in (REQUESTED, LEASED):
            return
        if offer is None:
            self._missed(publisher, name, program)
        if offer is None or offer.is_draining or not offer.lane.has_room:
            self._keep_for_later((publisher, name, program), job)
            return
        is_ours = state.get("status") == LEASED and state.get("provider") == self._key.address
        if not is_ours and (state.get("status") != REQUESTED or not self._is_worth_it(offer, request)):
            return
        if not is_ours and not await self._lease(job):
            return
        self._remember(job)
        try:
            lease_until_ms = await self._chain.read(f"/jobs/{job}/state/lease_until_ms", "pending")
            result = await self._execution(offer, request, int(lease_until_ms or 0))
            await self._finish(job, result)
        except BaseException:
            # The lease will run out; then anybody may try again, this provider too.
            self._done.pop(job, None)
            raise

    def _is_worth_it(self, offer: Offer, request: Mapping[str, Any]) -> bool:
        budget_uain, deadline_ms = (
            int(request.get(member) or 0) for member in ("budget_uain", "deadline_ms")
        )
        return budget_uain >= offer.price.total_uain and deadline_ms > self._clock_ms() + FINISH_MS

    async def _lease(self, job: str) -> bool:
        path = f"/jobs/{job}/leases/{self._key.address}"
        try:
            await self._chain.submit(set_value(path, {"at_ms": self._clock_ms()}), self._key)
        except TransactionRefused as refusal:
            log.debug("job %s went to somebody else: %s", job, refusal.message)
            self._metrics.count("openresource_jobs_total", 'outcome="lost"')
            return False
        return True

    async def _execution(self, offer: Offer, request: Mapping[str, Any], until_ms: int) -> dict[str, Any]:
        """Runs the program; every way in which it ends is a record for the chain."""
        usage: dict[str, int] | None = None
        try:
            method = _method_of(offer, request)
            body = await self._input(request, method)
            reply = await self._run(offer, method, body, until_ms)
            usage = {
                "cpu_ms": reply.cpu_ms,
                "wall_ms": reply.wall_ms,
                "bytes_in": len(body),
                "bytes_out": len(reply.body) if isinstance(reply.body, bytes) else 0,
            }
            output = await _output(reply)
            check_fits_at(parse_path(str(request["result_path"])), output)
            record = execution_record(output, usage=usage)
            size = len(canonical_json_bytes(record))
            if size > RESULT_BYTES_MAX:
                raise ResultTooLarge(bytes=size, bytes_max=RESULT_BYTES_MAX)
            return record
        except (NodeAway, BadAnswer):
            raise
        except Refusal as refusal:
            return failure_record(refusal.message, usage=usage)

    async def _run(self, offer: Offer, method: Method, body: bytes, until_ms: int) -> ProgramReply:
        left_seconds = (until_ms - FINISH_MS - self._clock_ms()) / 1000
        place = offer.lane.reserve("jobs")
        await place.enter()
        try:
            return await offer.runner.call(
                ProgramCall(
                    method.name,
                    method.path,
                    body,
                    JSON_TYPE,
                    deadline_seconds=max(0.5, min(left_seconds, offer.limits.call_seconds)),
                )
            )
        finally:
            place.leave()

    async def _input(self, request: Mapping[str, Any], method: Method) -> bytes:
        """What was written at the source, as JSON; a bare value becomes the method's one parameter."""
        source = str(request["source"])
        value = await self._chain.read(source, "pending")
        if hex_text(input_digest(value)) != request.get("input_digest"):
            raise InputChanged(source=source)
        given = json_value(value)
        schema = method.input if isinstance(method.input, Mapping) else None
        if schema is not None and not isinstance(given, dict):
            names = list(schema.get("required", ())) or list(schema.get("properties", {}))
            if len(names) >= 1:
                given = {names[0]: given}
        if schema is not None:
            check_value(schema, given)
        return json.dumps(given).encode()

    async def _finish(self, job: str, record: dict[str, Any]) -> None:
        path = f"/jobs/{job}/executions/{self._key.address}"
        try:
            await self._chain.submit_final(
                set_value(path, record), self._key, deadline_seconds=FINISH_SECONDS
            )
        except TransactionRefused as refusal:
            log.warning("the chain did not take the result of job %s: %s", job, refusal.message)
            self._metrics.count("openresource_jobs_total", 'outcome="refused"')
            return
        self._metrics.count("openresource_jobs_total", f'outcome="{record["status"].lower()}"')

    def _remember(self, job: str) -> None:
        self._done[job] = None
        if len(self._done) > JOBS_REMEMBERED_MAX:
            self._done.popitem(last=False)


def _method_of(offer: Offer, request: Mapping[str, Any]) -> Method:
    wanted = request.get("method")
    if wanted is None:
        if not offer.methods:
            raise MethodMissing(method="")
        return offer.methods[0]
    for method in offer.methods:
        if method.name == wanted:
            return method
    raise MethodMissing(method=wanted)


async def _output(reply: ProgramReply) -> Any:
    """The answer as a value of the tree."""
    body = reply.body
    if not isinstance(body, bytes):
        parts = []
        async for chunk in body:
            parts.append(chunk)
        body = b"[" + b",".join(part.strip() for part in parts if part.strip()) + b"]"
    if reply.status >= 400:
        raise ProgramFailed(reason=body[:300].decode("utf-8", "replace"))
    if reply.content_type.partition(";")[0] != JSON_TYPE and isinstance(reply.body, bytes):
        raise ProgramFailed(reason=f"its answer is {reply.content_type}, and only JSON goes into the tree")
    output = tree_value(parse_json(body))
    if output is None:
        raise ProgramFailed(reason="its answer is empty, and the tree keeps nothing empty")
    return output
