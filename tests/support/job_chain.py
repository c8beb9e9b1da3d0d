"""A chain that knows jobs alone: the job machine behind the few calls that providers and requesters make, in memory.

It keeps its own time, which follows the real one, ahead of it where a test says so, and does what is due when it is asked
anything.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Sequence
from dataclasses import replace
from typing import Any

from openresource.client.chain import Event, NodeAway, NodeStatus, Operation, TransactionRefused
from openresource.ledger.beacon import next_beacon
from openresource.ledger.draft import NetworkDomain
from openresource.market.jobs import machine, refusals
from openresource.market.jobs.comparators import Verification, verification_record
from openresource.market.jobs.draws import Candidate, seats_of
from openresource.market.jobs.executions import (
    execution_members,
    read_commitment,
    read_finish,
    read_reveal,
    read_secret,
)
from openresource.market.jobs.policies import policy_text
from openresource.market.jobs.requests import asked_job_id, read_job_request
from openresource.market.jobs.states import state_members
from openresource.market.jobs.terms import PARAMETER_OF, Facts, Job, Offer, Outcome, Settings
from openresource.market.jobs.turns import checker_turn_ms, checkers, worker_turn_ms
from openresource.market.jobs.verdicts import WORKER, verdict_record
from openresource.primitives.cids import file_cid
from openresource.primitives.errors import Refusal
from openresource.primitives.keys import PrivateKey
from tests.provider.support import PROGRAM
from tests.provider.support import PUBLISHER as PUBLISHER_KEY

NETWORK = NetworkDomain(chain_id=100, genesis_hash="0x" + "ab" * 32)
PUBLISHER, NAME = PUBLISHER_KEY.address, "echo"


class JobChain:
    """Jobs on a pure machine; `placed` are providers with their bonds."""

    def __init__(
        self, placed: dict[str, int], settings: Settings | None = None, exactness: str = "bit_exact"
    ):
        self.url = "memory"
        self.placed = placed
        self.settings = settings or Settings()
        self.verification = Verification(exactness)
        self.jobs: dict[str, Job] = {}
        self.requests: dict[str, dict[str, Any]] = {}
        self.keys: dict[str, dict[str, str]] = {}
        self.blobs: dict[str, bytes] = {}
        self.placements: dict[str, Any] = {}
        self.sent: list[tuple[str, Any]] = []
        self.moves: list[Any] = []
        self.slashes: list[Any] = []
        # A test that takes the node away sets this.
        self.is_away = False
        # A test that lets time pass adds to this.
        self.ahead_ms = 0
        self._due: list[tuple[int, str, str]] = []
        self._readers: list[asyncio.Queue[Event]] = []
        self._beacon = b"\0" * 32
        self.height = 1

    def now_ms(self) -> int:
        return time.time_ns() // 1_000_000 + self.ahead_ms

    # What providers and requesters ask.

    async def domain(self) -> NetworkDomain:
        return NETWORK

    async def status(self) -> NodeStatus:
        self._check()
        return NodeStatus(
            **{
                name: {"time_ms": self.now_ms(), "height": self.height, "chain_id": 100}.get(name, "")
                for name in NodeStatus.__dataclass_fields__
            }
        )

    async def read(self, path: str, at: Any = "final", **_: Any) -> Any:
        self._check()
        self.tick()
        value: Any = self._tree()
        for label in path.strip("/").split("/"):
            value = value.get(label) if isinstance(value, dict) else None
        return value

    async def children(self, path: str, at: Any = "final", **_: Any) -> AsyncGenerator[str, None]:
        for label in list(await self.read(path) or {}):
            yield label

    async def balance(self, account: str, at: Any = "final") -> int:
        return self.placed.get(account.rpartition(":")[2], 0)

    async def put_bytes(self, data: bytes) -> str:
        self._check()
        cid = file_cid(data)
        self.blobs[cid] = data
        return cid

    async def get_bytes(self, cid: str, *, bytes_max: int = 0) -> bytes:
        self._check()
        return self.blobs[cid]

    async def submit(self, operation: Operation, key: PrivateKey) -> None:
        self._check()
        self.tick()
        self.sent.append((operation.ref, operation.value))
        try:
            self._write(operation.ref.strip("/").split("/"), operation.value, key.address)
        except Refusal as refusal:
            raise TransactionRefused(result_code=1, reason=refusal.message, tx_hash="") from refusal
        await asyncio.sleep(0)

    async def submit_final(
        self, operation: Operation, key: PrivateKey, *, deadline_seconds: float = 1
    ) -> None:
        await self.submit(operation, key)

    async def events(self, patterns: str | Sequence[str] = (), **_: Any) -> AsyncGenerator[Event, None]:
        queue: asyncio.Queue[Event] = asyncio.Queue()
        self._readers.append(queue)
        try:
            while True:
                try:
                    async with asyncio.timeout(0.02):
                        event = await queue.get()
                except TimeoutError:
                    self.tick()
                    continue
                yield event
        finally:
            self._readers.remove(queue)

    # What happens.

    def tick(self) -> None:
        """Does what is due, and closes a block."""
        now = self.now_ms()
        self.height += 1
        self._beacon = next_beacon(self._beacon, f"0x{self.height:064x}")
        ready = sorted(entry for entry in self._due if entry[0] <= now)
        self._due = [entry for entry in self._due if entry[0] > now]
        for _, job, step in ready:
            if step != "fold":
                self._apply(machine.on_deadline(self.jobs[job], step, self.settings, self._facts(job), now))

    def _check(self) -> None:
        if self.is_away:
            raise NodeAway(url=self.url, doing="asking it", waited_seconds=0.0, reason="it is away")

    def _facts(self, job: str) -> Facts:
        order = checkers(self.jobs[job], self._candidates())
        able = [self.placed[provider] for provider in order]
        return Facts(
            pot_uain=10**9,
            bonds=dict(self.placed),
            beacon=self._beacon,
            checkers=len(order),
            able_uain=sum(able),
            called_uain=sum(able[: self.jobs[job].newly_called]),
        )

    def _write(self, labels: list[str], value: Any, signer: str) -> None:
        now = self.now_ms()
        match labels:
            case ["job_requests", requester, key]:
                job = asked_job_id(requester, key)
                assert signer == requester and job not in self.jobs
                asked = read_job_request(value, job, self.verification)
                self.requests[job] = {**value, "requester": requester, "requested_at_ms": now}
                self._apply(
                    machine.request(
                        Job(
                            job,
                            requester,
                            requester,
                            asked.publisher,
                            asked.policy,
                            asked.budget_uain,
                            now,
                            asked.deadline_ms,
                            secret_hash=asked.secret_hash,
                            executors=asked.executors,
                        ),
                        self.settings,
                    )
                )
            case ["jobs", job, "keys", provider]:
                assert signer == self.jobs[job].requester
                self.keys.setdefault(job, {})[provider] = value
                self._tell(job)
            case ["jobs", job, "leases", provider]:
                offer = Offer(
                    provider,
                    80,
                    20,
                    free_bond_uain=self.placed[provider],
                    bond_uain=self.placed[provider],
                    turn_at_ms=self._turn(job, provider),
                )
                self._apply(machine.lease(self.jobs[job], offer, self.settings, now))
            case ["jobs", job, "commits", provider]:
                commitment, cid = read_commitment(value)
                self._apply(
                    machine.commit(self.jobs[job], provider, commitment, cid, self.height, self.settings, now)
                )
            case ["jobs", job, "reveals", provider]:
                report = read_reveal(value)
                self._apply(
                    machine.reveal(self.jobs[job], provider, report, self.settings, self._facts(job), now)
                )
            case ["jobs", job, "executions", provider]:
                report = read_finish(value)
                self._apply(
                    machine.finish(self.jobs[job], provider, report, self.settings, self._facts(job), now)
                )
            case ["jobs", job, "secret", _]:
                secret = read_secret(value)
                self._apply(
                    machine.reveal_secret(
                        self.jobs[job], secret, self._beacon, self.settings, self._facts(job), now
                    )
                )
            case _:
                raise AssertionError(labels)

    def _turn(self, job: str, provider: str) -> int:
        found = self.jobs[job]
        if machine.role_wanted(found) == WORKER:
            return worker_turn_ms(found, self._candidates(), provider, self.settings)
        turn = checker_turn_ms(found, checkers(found, self._candidates()), provider, self.settings)
        if turn is None:
            raise refusals.SameOperator(job=job, provider=provider, operator=provider)
        return turn

    def _candidates(self) -> list[Candidate]:
        per_seat = self.settings.bond_per_seat_uain
        return [
            Candidate(one, seats_of(bond, per_seat), one, bond_uain=bond) for one, bond in self.placed.items()
        ]

    def _apply(self, outcome: Outcome) -> None:
        job = outcome.job
        before = self.jobs.get(job.job)
        self.jobs[job.job] = job
        self.moves += outcome.moves
        self.slashes += outcome.slashes
        for slash in outcome.slashes:
            self.placed[slash.provider] -= slash.amount_uain
        self._due += [(at_ms, job.job, step) for at_ms, step in outcome.due]
        if before is None or replace(before) != job:
            self._tell(job.job)

    def _tell(self, job: str) -> None:
        record = self._record(job)["state"]
        event = Event("", "VALUE", f"/jobs/{job}/state", record, "", "", self.height, self.now_ms(), False)
        for queue in self._readers:
            queue.put_nowait(event)

    def _record(self, job: str) -> dict[str, Any]:
        found = self.jobs[job]
        record: dict[str, Any] = {
            "request": {
                **self.requests[job],
                "policy": policy_text(found.policy),
                "verify": verification_record(self.verification),
            },
            "state": state_members(found),
            "executions": {run.provider: execution_members(run) for run in found.executions},
        }
        if found.verdict is not None:
            record["verdict"] = verdict_record(found.verdict)
        if job in self.keys:
            record["keys"] = dict(self.keys[job])
        return record

    def _placed(self) -> dict[str, Any]:
        return {provider: {"status": "PLACED"} for provider in self.placed}

    def _tree(self) -> dict[str, Any]:
        return {
            "jobs": {job: self._record(job) for job in self.jobs},
            "placements": self.placements or {PUBLISHER: {NAME: {PROGRAM: self._placed()}}},
            "blockchain_params": {
                "market": {name: getattr(self.settings, member) for member, name in PARAMETER_OF.items()}
            },
        }
