"""Jobs from the requester's side: ask, watch, read the first result at once and the verdict when it is final.

    handle = await client.jobs.run("shout", text="hello", policy="audited")
    early = await handle.provisional()       # as soon as a provider is bound to it
    result = await handle.result()           # when nothing can change it any more

Input and output travel sealed through the content store; the chain sees digests. While a job waits, whoever asked for
it has two duties: to give the input's key to executors who came later, and to reveal the secret of the draw. A handle
does both in the background; if its process ends, `resume` goes on from the chain and the wallet alone.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import secrets
import time
from collections.abc import AsyncGenerator, Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from openresource.client.calls import fit_inputs
from openresource.client.chain import BadAnswer, Chain, NodeAway, TransactionRefused, set_value
from openresource.client.job_papers import job_seed, key_for_later, sealed_input
from openresource.client.job_replays import explain
from openresource.client.job_views import (
    Explanation,
    JobFailed,
    JobNotInTime,
    JobResult,
    JobUnknown,
    JobView,
    Output,
    OutputUnreadable,
    view_of,
)
from openresource.client.services import Choice, Directory
from openresource.ledger.draft import NetworkDomain
from openresource.market.jobs.draws import secret_hash
from openresource.market.jobs.faults import Report, ResultPaper, report_record
from openresource.market.jobs.machine import disputable_until_ms, dispute_bond_uain
from openresource.market.jobs.refusals import DisputeNotPossible
from openresource.market.jobs.requests import asked_job_id, public_salt, salted_digest
from openresource.market.jobs.states import job_of
from openresource.market.jobs.terms import settings_of
from openresource.market.papers import hex_text
from openresource.market.placements import Placement, provider_public_key, read_placement
from openresource.market.sealed_content import (
    READERS_MAX,
    SEALED_CONTENT_BYTES_MAX,
    JobOutput,
    open_content,
    read_job_output,
    readers_of,
)
from openresource.market.tree_json import json_value, tree_value
from openresource.primitives.errors import Refusal
from openresource.primitives.keys import PrivateKey

log = logging.getLogger("openresource.client.jobs")

PARAMETERS_PATH: Final = "/blockchain_params/market"
JOB_SECONDS: Final = 120.0
# By its deadline somebody must be bound to a job; audits and referees come after it, and are waited for.
VERDICT_SECONDS: Final = 300.0
# What is waited for is looked at again after so long, as a hint may be lost.
LOOK_SECONDS: Final = 1.0
FINAL_LOOK_SECONDS: Final = 0.05
SECRET_WAIT_SECONDS: Final = 0.02
LISTED_MAX: Final = 100
# Of readers whose keys are in the header; those who come later are given theirs on the chain.
READERS_AT_ONCE: Final = 16


class JobHandle:
    """One job of this wallet, from the request to the verdict."""

    def __init__(self, jobs: Jobs, job: str, ends_at: float) -> None:
        self.id = job
        self._jobs = jobs
        self._ends_at = ends_at

    async def view(self) -> JobView:
        """How the job stands now."""
        return await self._jobs.show(self.id)

    async def events(self) -> AsyncGenerator[JobView, None]:
        """The job each time it has changed, until it is settled."""
        seen: tuple[Any, ...] = ()
        with self._jobs.watched(self.id) as changed:
            while True:
                changed.clear()
                try:
                    view = await self.view()
                except NodeAway:
                    # The job goes on without the node that we ask; our own time to wait bounds this.
                    await self._wait(changed)
                    continue
                if view.marks != seen:
                    seen = view.marks
                    yield view
                if view.is_final:
                    return
                await self._wait(changed)

    async def provisional(self) -> Output:
        """The first result that is there, before anybody has checked it; a settled job gives what was accepted."""
        async for view in self.events():
            for provider in view.early:
                with contextlib.suppress(OutputUnreadable):
                    return await self._jobs.output(view, provider)
            if view.is_final:
                break
        return (await self.result()).output

    async def result(self) -> JobResult:
        """The verdict with the output that it accepts; a job without one is refused, with its reason."""
        with self._jobs.watched(self.id) as changed:
            async for view in self.events():
                if view.is_final:
                    break
            # What is settled in the open block counts when the block is decided.
            while True:
                changed.clear()
                with contextlib.suppress(JobUnknown, NodeAway):
                    view = await self._jobs.show(self.id, "final")
                    if view.is_final:
                        return await self._jobs.settled(view)
                await self._wait(changed, FINAL_LOOK_SECONDS)

    async def _wait(self, changed: asyncio.Event, look_seconds: float = LOOK_SECONDS) -> None:
        left_seconds = self._ends_at - time.monotonic()
        if left_seconds <= 0:
            raise JobNotInTime(job=self.id)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(min(look_seconds, left_seconds)):
                await changed.wait()


@dataclass(frozen=True, slots=True)
class DisputeTerms:
    """What a dispute asks of whoever begins it."""

    job: str
    bond_uain: int
    until_ms: int
    referees_max: int
    # So long referees may take to come, to run it and to show what they found.
    judged_ms_max: int


class Jobs:
    """The jobs of one wallet; use it within one event loop and close it."""

    def __init__(
        self,
        chain: Chain,
        directory: Directory,
        key: Callable[[], PrivateKey],
    ) -> None:
        self._chain = chain
        self._directory = directory
        self._key = key
        self._watched: dict[str, list[asyncio.Event]] = {}
        self._follower: asyncio.Task[None] | None = None
        self._tended: dict[str, asyncio.Task[None]] = {}
        # Whose keys stand in the header of an input, by job.
        self._given: dict[str, frozenset[str]] = {}

    async def close(self) -> None:
        """Stops looking; the jobs go on without us."""
        tasks = [*self._tended.values(), *([self._follower] if self._follower else [])]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    # Asking.

    async def run(
        self,
        service: str,
        method: str | None = None,
        inputs: Mapping[str, Any] | None = None,
        *,
        policy: str = "one",
        budget_uain: int | None = None,
        deadline_seconds: float = JOB_SECONDS,
        max_price_uain: int | None = None,
        executors: tuple[str, ...] = (),
        is_public: bool = False,
        key: str = "",
        choice: Choice | None = None,
    ) -> JobHandle:
        """Asks for a run of a service's method; the request is pending when this returns.

        The same `key` is the same job: who is not sure whether a request went out asks again with it. What is public
        lies open in the tree, as a comparison of outputs within a tolerance needs it.
        """
        began = time.monotonic()
        choice = choice or await self._directory.choose(service)
        await self._directory.check_runs(choice.program)
        interface = await self._directory.interface(choice.program)
        chosen = interface.method(method, choice.service)
        value = fit_inputs(chosen, inputs or {})
        key = key or secrets.token_hex(16)
        requester = self._key().address
        job = asked_job_id(requester, key)
        placements = await self._directory.placements(choice)
        if executors:
            placements = [one for one in placements if one.provider in executors]
        network = await self._chain.domain()
        seed = job_seed(job, self._key(), network)
        budget = budget_uain if budget_uain is not None else default_budget_uain(choice, placements, policy)
        status = await self._chain.status()
        request: dict[str, Any] = {
            "publisher": choice.publisher,
            "name": choice.name,
            "program": choice.program,
            "method": chosen.name,
            "policy": policy,
            "budget_uain": budget,
            "deadline_ms": max(status.time_ms, int(time.time() * 1000)) + int(deadline_seconds * 1000),
        }
        if max_price_uain is not None:
            request["max_price_uain"] = max_price_uain
        if executors:
            request["executors"] = dict.fromkeys(executors, True)
        if policy.startswith("audited"):
            request["secret_hash"] = hex_text(secret_hash(seed.secret))
        if is_public:
            request["input"] = tree_value(value)
            request["input_digest"] = hex_text(salted_digest(public_salt(job), request["input"]))
        else:
            request["input_digest"] = hex_text(salted_digest(seed.salt, value))
            readers = _readers(placements, network)
            sealed = sealed_input(job, value, seed, self._key(), readers, os.urandom(16 + 48 * len(readers)))
            request["input_cid"] = await self._chain.put_bytes(sealed)
            self._given[job] = frozenset(readers)
        path = f"/job_requests/{requester}/{key}"
        try:
            await self._chain.submit(set_value(path, request), self._key())
        except TransactionRefused:
            if await self._chain.read(f"/jobs/{job}/request", "pending") is None:
                raise
            log.info("job %s was asked for before", job)
        # Not before the chain knows it: whoever tends a job that is not there would leave it alone for good.
        return self._handle(job, began + deadline_seconds + VERDICT_SECONDS)

    def resume(self, job: str, *, deadline_seconds: float = JOB_SECONDS + VERDICT_SECONDS) -> JobHandle:
        """Goes on with a job of this wallet that another process asked for."""
        return self._handle(job, time.monotonic() + deadline_seconds)

    def _handle(self, job: str, ends_at: float) -> JobHandle:
        handle = JobHandle(self, job, ends_at)
        if job not in self._tended:
            task = asyncio.create_task(self._tend(handle), name=f"job {job}")
            self._tended[job] = task
            task.add_done_callback(lambda _: self._untended(job))
        return handle

    def _untended(self, job: str) -> None:
        self._tended.pop(job, None)
        self._given.pop(job, None)

    # Reading.

    async def show(self, job: str, at: Any = "pending") -> JobView:
        """A job as it stands."""
        record = await self._chain.read(f"/jobs/{job}", at)
        if not isinstance(record, dict):
            raise JobUnknown(job=job)
        return view_of(job, record)

    async def list(self, *, count_max: int = LISTED_MAX) -> list[JobView]:
        """The jobs that this wallet asked for and the chain still tells of, the newest first."""
        requester = self._key().address
        found: list[JobView] = []
        async for key in self._chain.children(f"/job_requests/{requester}"):
            with contextlib.suppress(JobUnknown):
                found.append(await self.show(asked_job_id(requester, key), "final"))
        return sorted(found, key=lambda view: view.requested_at_ms, reverse=True)[:count_max]

    async def explain(self, job: str) -> Explanation:
        """The verdict computed anew from what stands on the chain, and whether it is the one that was written."""
        return await explain(self._chain, job)

    async def output(self, view: JobView, provider: str) -> Output:
        """What a provider answered, opened if it was sealed for this wallet."""
        run = view.executions[provider]
        is_final = view.is_final
        if "output" in run:
            return Output(json_value(run["output"]), provider, str(run.get("digest", "")), is_final)
        cid = run.get("output_cid")
        if not isinstance(cid, str):
            raise OutputUnreadable(job=view.job, provider=provider, reason="it has not said it yet")
        try:
            sealed = await self._chain.get_bytes(cid, bytes_max=SEALED_CONTENT_BYTES_MAX)
            found = read_job_output(open_content(sealed, self._key()), view.job, provider)
        except (NodeAway, BadAnswer):
            raise
        except Refusal as refusal:
            raise OutputUnreadable(job=view.job, provider=provider, reason=refusal.message) from refusal
        revealed = run.get("digest")
        if isinstance(revealed, str) and revealed != hex_text(found.digest):
            await self._report_fault(view, found)
            raise OutputUnreadable(
                job=view.job, provider=provider, reason="it is not the result that the provider revealed"
            )
        if found.error:
            raise JobFailed(job=view.job, status=found.status, reason=found.error)
        return Output(found.value, provider, hex_text(found.digest), is_final)

    async def _report_fault(self, view: JobView, found: JobOutput) -> None:
        """Shows the chain what a provider signed and then denied; its bond pays for it."""
        paper = ResultPaper(view.job, found.lease_at_ms, found.digest, found.signature)
        record = report_record(Report(found.provider, paper))
        path = f"/jobs/{view.job}/faults/{self._key().address}/{secrets.token_hex(16)}"
        try:
            await self._chain.submit(set_value(path, record), self._key())
        except TransactionRefused as refusal:
            log.warning(
                "the chain takes no fault of %s in job %s: %s", found.provider, view.job, refusal.message
            )

    async def dispute_terms(self, job: str) -> DisputeTerms:
        """What it costs to doubt a result now; a refusal says why it cannot be doubted."""
        view = await self.show(job)
        if view.folded is not None or not view.state:
            raise DisputeNotPossible(job=job, reason="its time for disputes is over")
        parameters = await self._chain.read(PARAMETERS_PATH)
        settings = settings_of(parameters if isinstance(parameters, Mapping) else {})
        made = job_of(job, view.record)
        at_ms = (await self._chain.status()).time_ms
        return DisputeTerms(
            job,
            bond_uain=dispute_bond_uain(made, settings, at_ms),
            until_ms=disputable_until_ms(made, settings),
            referees_max=settings.referees,
            judged_ms_max=settings.referee_ms + settings.reveal_ms,
        )

    async def dispute(self, job: str, *, bond_uain: int | None = None, reason: str = "") -> None:
        """Doubts an accepted result of an exact program against a bond: referees run it again, and the loser pays.

        Without a bond it is as much as is needed. `resume` waits for what the referees find, and gives them the input's
        key if this wallet asked for the job.
        """
        if bond_uain is None:
            bond_uain = (await self.dispute_terms(job)).bond_uain
        record: dict[str, Any] = {"bond_uain": bond_uain}
        if reason:
            record["reason"] = reason
        path = f"/jobs/{job}/disputes/{self._key().address}/{secrets.token_hex(16)}"
        await self._chain.submit_final(set_value(path, record), self._key())

    async def settled(self, view: JobView) -> JobResult:
        """A settled job's result, or the reason why there is none."""
        if not view.is_accepted:
            raise JobFailed(job=view.job, status=view.status, reason=view.reason)
        last: Refusal | None = None
        for provider in view.winners:
            try:
                output = await self.output(view, provider)
            except OutputUnreadable as refusal:
                last = refusal
                continue
            return JobResult(output, view)
        raise last or OutputUnreadable(job=view.job, provider="", reason="nobody's output is there any more")

    # Watching.

    @contextlib.contextmanager
    def watched(self, job: str) -> Any:
        """An event that is set whenever something happens to a job."""
        changed = asyncio.Event()
        self._watched.setdefault(job, []).append(changed)
        if self._follower is None or self._follower.done():
            self._follower = asyncio.create_task(self._follow(), name="jobs")
        try:
            yield changed
        finally:
            listeners = self._watched[job]
            listeners.remove(changed)
            if not listeners:
                del self._watched[job]

    async def _follow(self) -> None:
        async for event in self._chain.events("/jobs", pending=True):
            labels = event.path.split("/", 3)
            for changed in self._watched.get(labels[2], ()) if len(labels) > 2 else ():
                changed.set()

    # A requester's duties.

    async def _tend(self, handle: JobHandle) -> None:
        """Gives keys to late executors and reveals the secret, until the job is settled or our time is over."""
        given: set[str] = set()
        try:
            async for view in handle.events():
                if view.wants_secret:
                    await self._tell_secret(view)
                for provider in view.executors_without_key - given:
                    given.add(provider)
                    await self._give_key(view, provider)
        except (JobNotInTime, JobUnknown):
            return
        except Refusal as refusal:
            # The lot falls on a job whose secret is not told, and who has no key lets its lease run out.
            log.warning("job %s is not tended any more: %s", handle.id, refusal.message)

    async def _give_key(self, view: JobView, provider: str) -> None:
        """Adds the input's key for an executor who was not there when the job was asked for."""
        try:
            if view.job not in self._given:
                cid = str(view.request["input_cid"])
                sealed = await self._chain.get_bytes(cid, bytes_max=SEALED_CONTENT_BYTES_MAX)
                self._given[view.job] = readers_of(sealed)
            if provider in self._given[view.job]:
                return
            path = f"/placements/{view.publisher}/{view.name}/{view.program}/{provider}"
            record = await self._chain.read(path, "pending")
            placement = read_placement(view.publisher, view.name, view.program, provider, record)
            network = await self._chain.domain()
            seed = job_seed(view.job, self._key(), network)
            wrapped = key_for_later(seed, provider_public_key(placement, network), os.urandom(48))
            await self._chain.submit(set_value(f"/jobs/{view.job}/keys/{provider}", wrapped), self._key())
        except (NodeAway, BadAnswer):
            raise
        except Refusal as refusal:
            log.warning("%s gets no key to job %s: %s", provider, view.job, refusal.message)

    async def _tell_secret(self, view: JobView) -> None:
        """Reveals the secret once the block of the commitment is decided: before that its beacon is not there."""
        seed = job_seed(view.job, self._key(), await self._chain.domain())
        path = f"/jobs/{view.job}/secret/{self._key().address}"
        wait_seconds = SECRET_WAIT_SECONDS
        while view.wants_secret:
            if (await self._chain.status()).height >= view.committed_height:
                try:
                    await self._chain.submit(set_value(path, {"secret": hex_text(seed.secret)}), self._key())
                    return
                except TransactionRefused as refusal:
                    log.debug("job %s does not take the secret yet: %s", view.job, refusal.message)
            await asyncio.sleep(wait_seconds)
            wait_seconds = min(2 * wait_seconds, LOOK_SECONDS)
            view = await self.show(view.job)


def _readers(placements: list[Placement], network: NetworkDomain) -> dict[str, bytes]:
    """Who may open the input from the first moment: those who run the program now."""
    readers: dict[str, bytes] = {}
    for placement in placements[:READERS_AT_ONCE]:
        with contextlib.suppress(Refusal):
            readers[placement.provider] = provider_public_key(placement, network)
    assert len(readers) <= READERS_MAX
    return readers


def default_budget_uain(choice: Choice, placements: list[Placement], policy: str) -> int:
    """What covers the policy at the dearest of those who run the program now; what is not spent comes back."""
    ask_uain = max((one.ask_uain for one in placements), default=0)
    price_uain = ask_uain + choice.version.royalty_uain
    if policy.startswith("quorum:"):
        size = policy.partition("/")[2]
        return price_uain * (int(size) if size.isdigit() else 1)
    return price_uain + ask_uain if policy.startswith("audited") else price_uain
