"""A provider's work on jobs against the job machine in memory: every policy, loss of power, loss of a lease, late keys."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from openresource.client.chain import TransactionRefused, set_value
from openresource.client.job_replays import explained
from openresource.client.job_views import JobFailed, OutputUnreadable
from openresource.client.jobs import Jobs as AskedJobs
from openresource.client.services import Choice, Interface
from openresource.client.services import Method as ClientMethod
from openresource.market.jobs.faults import check_report, read_report
from openresource.market.jobs.lifecycle import ACCEPTED
from openresource.market.jobs.terms import Settings
from openresource.market.placements import Placement, sign_tls_key
from openresource.primitives.keys import PrivateKey
from openresource.provider.commits import Commits
from openresource.provider.jobs import Jobs
from openresource.provider.metrics import Metrics
from openresource.provider.offers import Offer, Offers
from openresource.sandbox.driver import ProgramCall, ProgramReply
from tests.provider.market import until
from tests.provider.support import PUBLISHER, key_of, make_offer
from tests.support.job_chain import NETWORK, JobChain

BOND_UAIN = 5_000_000
BUYER = key_of("buyer")
ENDPOINT = "https://127.0.0.1:9000"
# Turns come quickly, and nobody is late, however slow the machine is.
PATIENT = Settings(lease_ms=60_000, gather_ms=60_000, secret_ms=60_000, stagger_ms=50)
# Leave time for another lease within a job's two minutes.
TWO_LEASES = Settings(lease_ms=30_000, secret_ms=60_000, stagger_ms=50)

Program = Callable[[ProgramCall], Awaitable[ProgramReply]]


def run(test: Callable[[], Awaitable[None]], seconds: float = 120) -> None:
    asyncio.run(asyncio.wait_for(test(), seconds))


async def shout(call: ProgramCall) -> ProgramReply:
    text = json.loads(call.body)["text"]
    return ProgramReply(200, "application/json", json.dumps(text.upper()).encode(), cpu_ms=1, wall_ms=2)


async def lie(call: ProgramCall) -> ProgramReply:
    return ProgramReply(200, "application/json", b'"A LIE"')


@dataclass
class Worker:
    """One provider's jobs; it can lose its power and come back."""

    key: PrivateKey
    folder: Path
    chain: Any
    program: Program
    offers: Offers = field(default_factory=Offers)
    metrics: Metrics = field(default_factory=Metrics)
    jobs: Jobs | None = None
    commits: Commits | None = None
    task: asyncio.Task[None] | None = None

    def start(self) -> None:
        offer: Offer = make_offer(self.program)
        self.offers.put(offer)
        self.folder.mkdir(exist_ok=True)
        self.commits = Commits(self.folder / "commits")
        self.commits.open(at_ms=self.chain.now_ms())
        self.jobs = Jobs(
            chain=self.chain,
            key=self.key,
            offers=self.offers,
            metrics=self.metrics,
            cursor_file=self.folder / "cursor",
            clock_ms=self.chain.now_ms,
            commits=self.commits,
        )
        self.task = asyncio.create_task(self.jobs.run())

    async def lose_power(self) -> None:
        """Nothing is said, written or closed any more."""
        assert self.task is not None and self.commits is not None
        self.commits._journal.abandon()
        await self._end()

    async def stop(self) -> None:
        await self._end()
        if self.commits is not None:
            await self.commits.close()

    async def _end(self) -> None:
        task, self.task = self.task, None
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


class Street:
    """What the requester finds: one service, run by everybody who is placed."""

    def __init__(self, keys: dict[str, PrivateKey]) -> None:
        offer = make_offer()
        self.choice = Choice(PUBLISHER.address, "echo", offer.version)
        self.known = [placement_of(key, offer.program) for key in keys.values()]

    async def choose(self, service: str) -> Choice:
        return self.choice

    async def check_runs(self, program: str) -> None:
        """Nothing was stopped by a vote here."""

    async def interface(self, program: str) -> Interface:
        return Interface((ClientMethod("echo", "/echo", "", {}, {}, False, None),))

    async def placements(self, choice: Choice) -> list[Placement]:
        return self.known


def placement_of(key: PrivateKey, program: str) -> Placement:
    signature = sign_tls_key(ENDPOINT, b"t" * 32, key, NETWORK)
    return Placement(
        PUBLISHER.address,
        "echo",
        program,
        key.address,
        "PLACED",
        endpoint=ENDPOINT,
        tls_key=b"t" * 32,
        tls_signature=signature,
        capacity=8,
        ask_uain=80,
        isolation="bubblewrap",
    )


@dataclass
class Stage:
    chain: JobChain
    workers: dict[str, Worker]
    street: Street
    buyer: AskedJobs

    def name_of(self, address: str) -> str:
        return next(name for name, worker in self.workers.items() if worker.key.address == address)


@contextlib.asynccontextmanager
async def stage(
    folder: Path, *, settings: Settings = PATIENT, bond_uain: int = BOND_UAIN, **programs: Program
) -> AsyncIterator[Stage]:
    keys = {name: key_of(name) for name in programs}
    chain = JobChain({key.address: bond_uain for key in keys.values()}, settings)
    workers = {name: Worker(keys[name], folder / name, chain, program) for name, program in programs.items()}
    street = Street(keys)
    made: Any = chain
    found: Any = street
    buyer = AskedJobs(made, found, lambda: BUYER)
    for worker in workers.values():
        worker.start()
    try:
        yield Stage(chain, workers, street, buyer)
    except BaseException:
        # Who reads a failure wants to know where everybody stood.
        for job in chain.jobs:
            print(json.dumps(chain._record(job), indent=1))
        raise
    finally:
        await buyer.close()
        for worker in workers.values():
            await worker.stop()


def test_a_job_of_one_provider_is_asked_run_and_answered_sealed(tmp_path: Path) -> None:
    async def body() -> None:
        async with stage(tmp_path, ann=shout) as here:
            handle = await here.buyer.run("echo", inputs={"text": "secret soup"})
            result = await handle.result()
            assert result.value == "SECRET SOUP" and result.output.is_final
            assert b"ecret soup" not in json.dumps(here.chain._tree()).encode()
            assert not any(b"SECRET" in blob for blob in here.chain.blobs.values())

    run(body)


def test_an_audited_job_shows_its_first_result_at_once_and_a_verdict_when_it_is_final(tmp_path: Path) -> None:
    async def body() -> None:
        async with stage(tmp_path, ann=shout, ben=shout, cat=shout) as here:
            handle = await here.buyer.run("echo", inputs={"text": "soup"}, policy="audited:1")
            early = await handle.provisional()
            assert early.value == "SOUP" and not early.is_final
            result = await handle.result()
            roles = sorted(run["role"] for run in result.view.executions.values())
            assert result.value == "SOUP" and roles == ["auditor", "worker"]
            job = here.chain.jobs[handle.id]
            assert job.is_drawn and not job.kept_secret
            await settled_everywhere(here)

    run(body)


def test_a_job_that_is_not_drawn_settles_with_its_reveal(tmp_path: Path) -> None:
    async def body() -> None:
        async with stage(tmp_path, ann=shout, ben=shout) as here:
            result = await (
                await here.buyer.run("echo", inputs={"text": "soup"}, policy="audited:0")
            ).result()
            assert result.value == "SOUP" and len(result.view.executions) == 1

    run(body)


def test_a_quorum_outvotes_a_liar(tmp_path: Path) -> None:
    async def body() -> None:
        async with stage(tmp_path, ann=shout, ben=shout, liar=lie) as here:
            handle = await here.buyer.run("echo", inputs={"text": "soup"}, policy="quorum:2/3")
            result = await handle.result()
            assert result.value == "SOUP"
            liar = here.workers["liar"].key.address
            assert result.view.verdict is not None and result.view.verdict["reasons"][liar] == "differs"

    run(body)


def test_a_liar_is_refuted_by_referees_and_slashed_and_nobody_is_answered_with_a_lie(tmp_path: Path) -> None:
    async def body() -> None:
        async with stage(tmp_path, ann=shout, ben=shout, cat=shout, liar=lie) as here:
            liar = here.workers["liar"].key.address
            for number in range(60):
                handle = await here.buyer.run("echo", inputs={"text": f"soup {number}"}, policy="audited:1")
                try:
                    assert (await handle.result()).value == f"SOUP {number}"
                except JobFailed as refusal:
                    assert refusal.status == "REFUTED"
                if here.chain.slashes:
                    assert {slash.provider for slash in here.chain.slashes} == {liar}
                    return
            raise AssertionError("the liar never had its turn")

    run(body)


def test_after_a_loss_of_power_what_was_kept_is_committed_and_revealed_not_a_second_run(
    tmp_path: Path,
) -> None:
    answers = iter(range(100))

    async def fickle(call: ProgramCall) -> ProgramReply:
        return ProgramReply(200, "application/json", str(next(answers)).encode())

    async def body() -> None:
        async with stage(tmp_path, ann=fickle) as here:
            ann = here.workers["ann"]
            assert ann.commits is not None
            written = asyncio.Event()
            keep = ann.commits.keep

            async def keep_and_lose_the_node(kept: Any) -> None:
                await keep(kept)
                here.chain.is_away = True
                written.set()

            ann.commits.keep = keep_and_lose_the_node  # type: ignore[method-assign]
            handle = await here.buyer.run("echo", inputs={"text": "x"}, policy="audited:0")
            await written.wait()
            await ann.lose_power()
            here.chain.is_away = False
            assert next(answers) == 1
            ann.start()
            result = await here.buyer.resume(handle.id).result()
            assert result.value == 0, "it ran a second time"
            await settled_everywhere(here)

    run(body)


def test_a_run_whose_lease_is_lost_is_stopped_and_another_provider_finishes_the_job(tmp_path: Path) -> None:
    asked: list[str] = []
    stopped: list[str] = []

    def sleeper(name: str) -> Program:
        async def sleep(call: ProgramCall) -> ProgramReply:
            assert call.ends_with_caller
            asked.append(name)
            if len(asked) == 1:
                try:
                    await asyncio.sleep(3_600)
                finally:
                    stopped.append(name)
            return await shout(call)

        return sleep

    async def body() -> None:
        async with stage(tmp_path, settings=TWO_LEASES, ann=sleeper("ann"), ben=sleeper("ben")) as here:
            handle = await here.buyer.run("echo", inputs={"text": "soup"}, policy="audited:0")
            await until(lambda: asked)
            here.chain.ahead_ms += TWO_LEASES.lease_ms
            result = await handle.result()
            await until(lambda: stopped)
            winner = here.name_of(result.view.winners[0])
            assert result.value == "SOUP" and winner not in stopped
            lost = here.workers[stopped[0]].key.address
            assert result.view.executions[lost]["is_over"]

    run(body)


def test_an_executor_who_came_after_the_request_is_given_the_key(tmp_path: Path) -> None:
    async def body() -> None:
        async with stage(tmp_path, ann=shout) as here:
            placements, here.street.known = here.street.known, []
            record = {
                "status": "PLACED",
                "endpoint": ENDPOINT,
                "tls_key": "0x" + placements[0].tls_key.hex(),
                "tls_signature": "0x" + placements[0].tls_signature.hex(),
                "capacity": 8,
                "ask_uain": 80,
                "isolation": "bubblewrap",
            }
            program = here.street.choice.program
            here.chain.placements = {PUBLISHER.address: {"echo": {program: {placements[0].provider: record}}}}
            handle = await here.buyer.run("echo", inputs={"text": "late"}, budget_uain=1_000)
            assert (await handle.result()).value == "LATE"
            assert list(here.chain.keys[handle.id]) == [placements[0].provider]

    run(body)


def test_what_this_machine_alone_cannot_do_is_never_bound_to(tmp_path: Path) -> None:
    from openresource.sandbox.driver import OutOfMemory

    async def weak(call: ProgramCall) -> ProgramReply:
        raise OutOfMemory(memory_bytes=1, stderr="")

    async def body() -> None:
        async with stage(tmp_path, settings=TWO_LEASES, ann=weak, ben=shout) as here:
            given_up = here.workers["ann"].metrics
            # Each has the first turn in every second job.
            for _ in range(60):
                handle = await here.buyer.run("echo", inputs={"text": "soup"}, policy="audited:0")
                ending = asyncio.create_task(handle.result())
                async with asyncio.timeout(60):
                    while not (
                        ending.done() or given_up.value("openresource_jobs_total", 'outcome="given_up"')
                    ):
                        await asyncio.sleep(0.005)
                if not ending.done():
                    here.chain.ahead_ms += TWO_LEASES.lease_ms
                result = await ending
                assert result.value == "SOUP" and here.name_of(result.view.winners[0]) == "ben"
                if len(result.view.executions) == 2:
                    return
            raise AssertionError("ann never had her turn")

    run(body)


def test_anybody_computes_the_verdict_anew_and_sees_one_that_was_written_wrongly(tmp_path: Path) -> None:
    async def body() -> None:
        async with stage(tmp_path, ann=shout, ben=shout, liar=lie) as here:
            handle = await here.buyer.run("echo", inputs={"text": "soup"}, policy="quorum:2/3")
            await handle.result()
            record = here.chain._record(handle.id)
            told = explained(handle.id, record, 7)
            assert told.matches and told.height == 7
            assert any("quorum of 2 of 3" in line for line in told.lines)
            assert any("not the one that the verdict accepts" in line for line in told.lines)
            liar = here.workers["liar"].key.address
            for wrong in (
                {**record["verdict"], "winners": {liar: True}},
                {**record["verdict"], "digest": record["executions"][liar]["digest"]},
                {**record["verdict"], "status": "UNRESOLVED"},
            ):
                assert not explained(handle.id, {**record, "verdict": wrong}, 7).matches

    run(body)


def test_who_copies_a_commitment_cannot_open_it_and_pays(tmp_path: Path) -> None:
    async def body() -> None:
        async with stage(tmp_path, ann=shout, ben=shout, copier=shout) as here:
            copier = here.workers["copier"].key
            await here.workers["copier"].stop()
            handle = await here.buyer.run("echo", inputs={"text": "soup"}, policy="quorum:2/3")
            path = f"/jobs/{handle.id}"

            async def write(place: str, value: Any) -> None:
                await here.chain.submit(set_value(f"{path}/{place}/{copier.address}", value), copier)

            async def seen(member: str) -> dict[str, Any]:
                """The record of somebody else who has come so far."""
                async with asyncio.timeout(60):
                    while True:
                        runs = here.chain._record(handle.id)["executions"]
                        for provider, record in runs.items():
                            if provider != copier.address and member in record:
                                return dict(record)
                        await asyncio.sleep(0.005)

            def is_revealed_by(count: int) -> bool:
                runs = here.chain._record(handle.id)["executions"].values()
                return sum("revealed_at_ms" in run for run in runs) == count

            while True:
                with contextlib.suppress(TransactionRefused):
                    # Not before its turn, like everybody.
                    await write("leases", {})
                    break
                await asyncio.sleep(0.01)
            await write("commits", {"commitment": (await seen("commitment"))["commitment"]})
            shown = await seen("revealed_at_ms")
            copied = {name: shown[name] for name in ("status", "digest", "salt")}
            with pytest.raises(TransactionRefused, match="do not open"):
                await write("reveals", copied)
            await until(lambda: is_revealed_by(2))
            here.chain.ahead_ms += PATIENT.reveal_ms
            result = await handle.result()
            assert result.value == "SOUP" and copier.address not in result.view.winners
            assert dict(result.view.verdict or {})["punished"] == {copier.address: "no_reveal"}
            assert [slash.provider for slash in here.chain.slashes] == [copier.address]

    run(body)


def test_an_early_result_that_is_denied_later_is_shown_to_the_chain(tmp_path: Path) -> None:
    async def body() -> None:
        async with stage(tmp_path, ann=shout) as here:
            ann = here.workers["ann"]
            handle = await here.buyer.run("echo", inputs={"text": "soup"}, policy="audited:0")
            view = (await handle.result()).view
            run_of = {**view.executions[ann.key.address], "digest": "0x" + "ab" * 32}
            denied = replace(view, executions={ann.key.address: run_of})
            shown: list[tuple[str, Any]] = []

            async def submit(operation: Any, key: PrivateKey) -> None:
                shown.append((operation.ref, operation.value))

            here.chain.submit = submit  # type: ignore[method-assign]
            with pytest.raises(OutputUnreadable):
                await here.buyer.output(denied, ann.key.address)
            (path, record), *rest = shown
            assert not rest and path.startswith(f"/jobs/{handle.id}/faults/{BUYER.address}/")
            report = read_report(record, handle.id)
            lease_at_ms = view.executions[ann.key.address]["lease_at_ms"]
            check_report(report, b"\xab" * 32, lease_at_ms, NETWORK)

    run(body)


async def settled_everywhere(here: Stage) -> None:
    """Nobody keeps anything for jobs that are over."""
    async with asyncio.timeout(60):
        while any(len(worker.commits or ()) for worker in here.workers.values()):
            await asyncio.sleep(0.02)
    assert all(job.status == ACCEPTED for job in here.chain.jobs.values())
