"""The steps of a job as this provider takes them: lease, run, bind, reveal; each one a transaction or a run."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from typing import Any, Final

from openresource.client import content
from openresource.client.chain import Chain, TransactionRefused, set_value
from openresource.market.jobs.lifecycle import FAILED
from openresource.market.jobs.machine import commitment
from openresource.market.jobs.policies import ONE
from openresource.market.jobs.verdicts import DONE
from openresource.market.papers import hex_text
from openresource.primitives.errors import Refusal
from openresource.primitives.keys import PrivateKey
from openresource.provider.commits import Commits, Kept
from openresource.provider.duties import Own
from openresource.provider.executions import (
    Given,
    InputNotOpened,
    Result,
    execution_digest,
    fresh_salt,
    given_for,
    plain_text,
    run_for,
    sealed_for,
)
from openresource.provider.lanes import Place
from openresource.provider.metrics import Metrics
from openresource.provider.offers import Offer

log = logging.getLogger("openresource.provider.jobs")

# Time to bring the result to the chain before the lease ends.
FINISH_MS: Final = 2_000
FINISH_SECONDS: Final = 30.0
# The requester's client adds keys for executors who came after the request; so often is looked for ours.
KEY_LOOK_SECONDS: Final = 0.1


class Steps:
    """Takes the steps of jobs, one after the other for each; who calls decides when."""

    def __init__(
        self,
        chain: Chain,
        key: PrivateKey,
        commits: Commits,
        metrics: Metrics,
        clock_ms: Callable[[], int],
    ) -> None:
        self._chain = chain
        self._key = key
        self._commits = commits
        self._metrics = metrics
        self._clock_ms = clock_ms
        self._given: dict[str, Given] = {}

    async def lease(self, job: str) -> bool:
        """Asks for a lease; whether it was given."""
        path = f"/jobs/{job}/leases/{self._key.address}"
        try:
            await self._chain.submit(set_value(path, {"at_ms": self._clock_ms()}), self._key)
        except TransactionRefused as refusal:
            log.debug("job %s goes to somebody else: %s", job, refusal.message)
            self._metrics.count("openresource_jobs_total", 'outcome="lost"')
            return False
        return True

    async def execute(
        self, job: str, record: Mapping[str, Any], offer: Offer, own: Own, place: Place
    ) -> Result | None:
        """Runs the program on the job's input; None where nothing that counts came of it. May be cancelled."""
        try:
            given = await self._opened(job, record, own)
        except InputNotOpened as refusal:
            log.info("%s", refusal.message)
            self._metrics.count("openresource_jobs_total", 'outcome="not_opened"')
            return None
        except Refusal as refusal:
            return Result(FAILED, error=plain_text(refusal.message))
        left_ms = own.lease_until_ms - _finish_ms(own) - self._clock_ms()
        result = await run_for(offer, record["request"], given, place, left_ms / 1000)
        self._given[job] = given
        return result

    async def bind(self, job: str, record: Mapping[str, Any], own: Own, result: Result) -> bool:
        """Brings a result to the chain: at once where one provider is trusted, else as a commitment."""
        given = self._given.pop(job, Given(None, b""))
        if record["request"].get("policy", ONE) == ONE:
            return await self._finish(job, given, result)
        if not result.is_certain:
            log.warning("job %s failed here for this machine's own reasons: %s", job, result.error)
            self._metrics.count("openresource_jobs_total", 'outcome="given_up"')
            return False
        salt = fresh_salt()
        report, sealed = await self._report(job, given, result, own.lease_at_ms)
        digest = bytes.fromhex(report["digest"][2:])
        bound = commitment(digest, salt, self._key.address, job, own.lease_at_ms, result.status)
        kept = Kept(
            job,
            str(own.lease_at_ms),
            digest,
            salt,
            bound,
            {**report, "salt": hex_text(salt)},
            report.get("output_cid", ""),
            self._clock_ms(),
            sealed,
        )
        await self._commits.keep(kept)
        return await self.commit(kept)

    async def commit(self, kept: Kept) -> bool:
        """Sends a commitment that is kept already; the result behind it is there before."""
        if kept.sealed:
            await self._chain.put_bytes(kept.sealed)
        path = f"/jobs/{kept.job}/commits/{self._key.address}"
        members = {"commitment": hex_text(kept.commit)}
        if kept.output_cid:
            members["output_cid"] = kept.output_cid
        if await self._sent(path, members):
            self._metrics.count("openresource_jobs_total", 'outcome="committed"')
            return True
        await self._commits.drop(kept.job)
        return False

    async def reveal(self, job: str, own: Own) -> bool:
        """Opens what was committed to."""
        kept = self._commits.find(job, str(own.lease_at_ms))
        if kept is None:
            log.error("what job %s was committed with is not on this disk; it cannot be revealed", job)
            self._metrics.count("openresource_jobs_total", 'outcome="lost_salt"')
            return False
        path = f"/jobs/{job}/reveals/{self._key.address}"
        if not await self._sent(path, kept.result):
            return False
        self._metrics.count("openresource_jobs_total", f'outcome="{str(kept.result["status"]).lower()}"')
        return True

    async def over(self, job: str) -> None:
        """The job is settled: what was kept for it may go."""
        await self._commits.drop(job)

    async def _opened(self, job: str, record: Mapping[str, Any], own: Own) -> Given:
        """The input; waits for its key while our lease lasts, where the requester has to give it first."""
        while True:
            try:
                return await given_for(
                    self._chain, job, record["request"], self._key, _later_key(record, self._key.address)
                )
            except InputNotOpened:
                if not self._clock_ms() < own.lease_until_ms - _finish_ms(own):
                    raise
            await asyncio.sleep(KEY_LOOK_SECONDS)
            fresh = await self._chain.read(f"/jobs/{job}", "pending")
            record = fresh if isinstance(fresh, dict) and "request" in fresh else record

    async def _finish(self, job: str, given: Given, result: Result) -> bool:
        """The whole result at once."""
        path = f"/jobs/{job}/executions/{self._key.address}"
        report, sealed = await self._report(job, given, result)
        if sealed:
            await self._chain.put_bytes(sealed)
        if await self._sent(path, report, until_final=True):
            self._metrics.count("openresource_jobs_total", f'outcome="{result.status.lower()}"')
            return True
        return False

    async def _report(
        self, job: str, given: Given, result: Result, lease_at_ms: int = 0
    ) -> tuple[dict[str, Any], bytes]:
        """What the chain gets to see of a result, and what is to lie in the content store if it is sealed."""
        sealed = b""
        digest = execution_digest(given.salt, result.status, result.output)
        report: dict[str, Any] = {"status": result.status}
        if result.status == DONE or given.salt:
            report["digest"] = hex_text(digest)
        if result.usage:
            report["usage"] = dict(result.usage)
        if given.reply_key:
            sealed = await sealed_for(
                self._chain, job, self._key, given, result, digest, lease_at_ms=lease_at_ms
            )
            report["output_cid"] = content.cid_of_bytes(sealed)
        elif result.status == DONE:
            report["output"] = result.output
        if result.error and not given.reply_key:
            report["error"] = result.error
        return report, sealed

    async def _sent(self, path: str, value: Mapping[str, Any], *, until_final: bool = False) -> bool:
        """Whether the chain took a write; one that is not waited for is seen to be missing by whoever looks again."""
        operation = set_value(path, dict(value))
        try:
            if until_final:
                await self._chain.submit_final(operation, self._key, deadline_seconds=FINISH_SECONDS)
            else:
                await self._chain.submit(operation, self._key)
        except TransactionRefused as refusal:
            log.warning("the chain did not take %s: %s", path, refusal.message)
            self._metrics.count("openresource_jobs_total", 'outcome="refused"')
            return False
        return True


def _finish_ms(own: Own) -> int:
    """What is kept of a lease to bring its result to the chain."""
    return min(FINISH_MS, (own.lease_until_ms - own.lease_at_ms) // 4)


def _later_key(record: Mapping[str, Any], provider: str) -> str | None:
    keys = record.get("keys")
    found = keys.get(provider) if isinstance(keys, Mapping) else None
    return found if isinstance(found, str) else None
