"""A job that a lying provider takes: its result is doubted by an auditor, judged by a referee, and costs it a bond.

The requester may choose the key of its request, and with it the job's name, from which turns are drawn. `up` chooses one
that gives the liar the first turn; for the rest nothing is arranged, and a job that another provider took is followed
by the next one.
"""

import asyncio
import secrets
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final, cast

from openresource.cli.tours import ShownJob
from openresource.client.facade import AsyncClient
from openresource.client.job_stories import JobStory, read_story
from openresource.client.job_views import JobFailed, JobUnknown, JobView, Output, OutputUnreadable
from openresource.client.services import Choice
from openresource.market.jobs.draws import Candidate, lease_seed, ranking
from openresource.market.jobs.requests import asked_job_id
from openresource.primitives.errors import Refusal

ATTEMPTS_MAX: Final = 6
KEYS_TRIED_MAX: Final = 1_000
PLACED_SECONDS: Final = 60.0
JOB_SECONDS: Final = 60.0
LOOK_SECONDS: Final = 0.1


class LiarNotCaught(Refusal):
    template = "The provider that lies had part in none of {attempts} jobs."
    way_out = "Its log says why it took none: {log}"


@dataclass(frozen=True, slots=True)
class Caught:
    """A lie and what became of it."""

    liar: str
    story: JobStory
    # What the requester saw before anybody had checked it.
    provisional: Output | None
    provisional_ms: int
    # What the verdict stands for.
    result: Output | None
    verdict_ms: int
    attempts: int

    def to_json(self) -> dict[str, Any]:
        """The same as JSON."""
        (run,) = (run for run in self.story.runs if run.provider == self.liar)
        return {
            "liar": self.liar,
            "is_caught": True,
            "role": run.role,
            "fault": run.fault,
            "slashed_uain": run.slashed_uain,
            "attempts": self.attempts,
            "provisional": None if self.provisional is None else self.provisional.value,
            "provisional_by": None if self.provisional is None else self.provisional.provider,
            "provisional_ms": self.provisional_ms,
            "result": None if self.result is None else self.result.value,
            "verdict_ms": self.verdict_ms,
            "job": self.story.to_json(),
        }


async def catch_liar(
    client: AsyncClient, choice: Choice, job: ShownJob, liar: str, providers: Sequence[str], log: str
) -> Caught:
    """Asks for jobs until the liar took part in one, and shows what came of it."""
    await _all_placed(client, choice, providers)
    for attempt in range(1, ATTEMPTS_MAX + 1):
        caught = await _asked(client, choice, job, liar, providers, attempt)
        if caught is not None:
            return caught
    raise LiarNotCaught(attempts=ATTEMPTS_MAX, log=log)


async def _asked(
    client: AsyncClient, choice: Choice, job: ShownJob, liar: str, providers: Sequence[str], attempt: int
) -> Caught | None:
    began = time.monotonic()
    handle = await client.jobs.run(
        f"{choice.service}@{choice.program}",
        job.method,
        job.input,
        policy=job.policy,
        deadline_seconds=JOB_SECONDS,
        key=key_for(client.key().address, liar, providers, lambda: secrets.token_hex(16)),
    )
    provisional = await _first(handle)
    provisional_ms = round((time.monotonic() - began) * 1000)
    view = await _settled(handle)
    verdict_ms = round((time.monotonic() - began) * 1000)
    story = await read_story(client.chain, handle.id)
    if not any(run.provider == liar and run.fault for run in story.runs):
        return None
    result = None
    for provider in view.winners:
        try:
            result = await client.jobs.output(view, provider)
            break
        except (JobFailed, OutputUnreadable):
            continue
    return Caught(liar, story, provisional, provisional_ms, result, verdict_ms, attempt)


def key_for(requester: str, first: str, providers: Sequence[str], draw: Callable[[], str]) -> str:
    """A key whose job gives a provider the first turn, all of them having as many seats."""
    candidates = [Candidate(provider, 1) for provider in providers]
    key = draw()
    for _ in range(KEYS_TRIED_MAX):
        if ranking(lease_seed(asked_job_id(requester, key)), candidates)[0] == first:
            return key
        key = draw()
    return key


async def _settled(handle: Any) -> JobView:
    """The job when nothing can change it any more."""
    async for view in handle.events():
        if view.is_final:
            return cast(JobView, view)
    raise JobUnknown(job=handle.id)


async def _first(handle: Any) -> Output | None:
    try:
        output: Output = await handle.provisional()
    except (JobFailed, OutputUnreadable):
        return None
    return None if output.is_final else output


async def _all_placed(client: AsyncClient, choice: Choice, providers: Sequence[str]) -> None:
    """Waits until everybody who is meant to run the program does, so that there is somebody to judge."""
    ends_at = time.monotonic() + PLACED_SECONDS
    while time.monotonic() < ends_at:
        placed = {one.provider for one in await client.directory.placements(choice)}
        if placed >= set(providers):
            return
        await asyncio.sleep(LOOK_SECONDS)
