"""Jobs walked through the machine, and the records that the chain would hold of them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from openresource.market.jobs import machine
from openresource.market.jobs.comparators import BIT_EXACT, Verification, verification_record
from openresource.market.jobs.draws import secret_hash
from openresource.market.jobs.executions import execution_members
from openresource.market.jobs.policies import AUDITED, policy_text, read_policy
from openresource.market.jobs.states import moves_text, state_members
from openresource.market.jobs.terms import Facts, Job, Offer, Outcome, Settings
from openresource.market.jobs.verdicts import DONE, verdict_record
from openresource.primitives.amounts import UAIN_PER_AIN
from openresource.primitives.hashing import keccak
from openresource.primitives.keys import generate_key

NOW_MS = 1_760_000_000_000
ASK_UAIN = 400
ROYALTY_UAIN = 100
SECRET = keccak(b"a buyer's secret")
BEACON = keccak(b"a beacon")
PROGRAM = "bafybeigdyrzt5sfp7udm7hu76uh7y26nf3efuylqabf3oclgtqy55fbzdi"


def address(name: str) -> str:
    return generate_key(name.encode().ljust(32, b".")).address


@dataclass
class Walk:
    """One job on its way; each step is a tenth of a second later than the one before."""

    policy: str = "one"
    job: str = "ab" * 16
    at_ms: int = NOW_MS
    settings: Settings = field(default_factory=Settings)
    current: Job = field(init=False)
    slashes: dict[str, Any] = field(default_factory=dict)
    moves: str = ""

    def __post_init__(self) -> None:
        policy = read_policy(self.policy, Verification(BIT_EXACT))
        asked = Job(
            job=self.job,
            payer=address("buyer"),
            requester=address("buyer"),
            publisher=address("publisher"),
            policy=policy,
            budget_uain=(ASK_UAIN * (2 if policy.kind == AUDITED else 1) + ROYALTY_UAIN) * policy.size,
            requested_at_ms=self.at_ms,
            deadline_ms=self.at_ms + 120_000,
            secret_hash=secret_hash(SECRET) if policy.kind == AUDITED else b"",
        )
        self._take(machine.request(asked, self.settings))

    def lease(self, name: str) -> None:
        offer = Offer(
            address(name), ASK_UAIN, ROYALTY_UAIN, operator=address(name), free_bond_uain=2 * UAIN_PER_AIN
        )
        self._take(machine.lease(self.current, offer, self.settings, self._later()))

    def commit(self, name: str, result: str = "right") -> None:
        run = self.current.of(address(name))
        assert run is not None
        commitment = machine.commitment_of(self.job, run, keccak(result.encode()), keccak(name.encode()))
        self._take(
            machine.commit(self.current, address(name), commitment, "", 7, self.settings, self._later())
        )

    def secret(self, checkers: int = 2) -> None:
        facts = self._facts(checkers)
        self._take(machine.reveal_secret(self.current, SECRET, BEACON, self.settings, facts, self._later()))

    def reveal(self, name: str, result: str = "right", checkers: int = 1) -> None:
        report = {"status": DONE, "digest": keccak(result.encode()), "salt": keccak(name.encode())}
        facts = self._facts(checkers)
        self._take(machine.reveal(self.current, address(name), report, self.settings, facts, self._later()))

    def finish(self, name: str, status: str = DONE, error: str = "") -> None:
        report = {"status": status, "digest": keccak(b"right"), "error": error}
        facts = self._facts(0)
        self._take(machine.finish(self.current, address(name), report, self.settings, facts, self._later()))

    def run(self, name: str, result: str = "right") -> None:
        """A lease and its commitment."""
        self.lease(name)
        self.commit(name, result)

    def wait(self, step: str, milliseconds: int) -> None:
        self.at_ms += milliseconds
        facts = self._facts(0)
        self._take(machine.on_deadline(self.current, step, self.settings, facts, self.at_ms))

    @property
    def record(self) -> dict[str, Any]:
        """What stands at `/jobs/<job>`."""
        job = self.current
        record: dict[str, Any] = {
            "request": {
                "publisher": job.publisher,
                "name": "scrub",
                "program": PROGRAM,
                "method": "scrub",
                "policy": policy_text(job.policy),
                "budget_uain": job.budget_uain,
                "requester": job.requester,
                "requested_at_ms": job.requested_at_ms,
                "deadline_ms": job.deadline_ms,
                "verify": verification_record(job.policy.verification),
            },
            "state": state_members(job),
        }
        if job.executions:
            record["executions"] = {run.provider: execution_members(run) for run in job.executions}
        if job.verdict is not None:
            record["verdict"] = verdict_record(job.verdict)
        if self.moves:
            record["moves"] = self.moves
        if self.slashes:
            record["slashes"] = self.slashes
        return record

    def _facts(self, checkers: int) -> Facts:
        bonds = {run.provider: 2 * UAIN_PER_AIN for run in self.current.executions}
        return Facts(pot_uain=10 * UAIN_PER_AIN, bonds=bonds, beacon=BEACON, checkers=checkers)

    def _later(self) -> int:
        self.at_ms += 100
        return self.at_ms

    def _take(self, outcome: Outcome) -> None:
        self.current = outcome.job
        self.moves += moves_text(outcome.moves)
        for slash in outcome.slashes:
            self.slashes[slash.provider] = {"uain": slash.amount_uain, "reason": slash.reason}


def accepted_from_one() -> Walk:
    walk = Walk()
    walk.lease("ann")
    walk.finish("ann")
    return walk


def quorum_with_a_liar() -> Walk:
    walk = Walk("quorum:2/3")
    for name in ("ann", "bob", "liar"):
        walk.lease(name)
    walk.commit("ann")
    walk.commit("liar", "wrong")
    walk.commit("bob")
    walk.reveal("bob")
    walk.reveal("liar", "wrong")
    walk.reveal("ann")
    return walk


def audited_and_right() -> Walk:
    walk = Walk("audited:1")
    walk.run("ann")
    walk.secret()
    walk.run("bob")
    walk.reveal("ann")
    walk.reveal("bob")
    return walk


def audited_liar() -> Walk:
    """The worker lies, the auditor differs, the referee decides."""
    walk = Walk("audited:1")
    walk.run("liar", "wrong")
    walk.secret()
    walk.run("ann")
    walk.reveal("liar", "wrong")
    walk.reveal("ann")
    walk.wait("call", 100)
    walk.run("bob")
    walk.reveal("bob")
    return walk


def nobody_came() -> Walk:
    walk = Walk()
    walk.wait("deadline", 120_000)
    return walk


def failed_program() -> Walk:
    walk = Walk()
    walk.lease("ann")
    walk.finish("ann", "FAILED", "ValueError: not today")
    return walk
