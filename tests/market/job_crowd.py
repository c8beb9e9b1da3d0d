"""A market of jobs without a tree: the real job machine, drawn turns and lots, and a crowd of which some cheat.

One seed is one run. Messages are late, lost or doubled, machines crash and come back, groups are cut off for a while. What
the chain would keep (balances, bonds, locks, records, the pot) is kept here in dictionaries, so that a million jobs are
a matter of minutes and every µAIN can be counted.
"""

from __future__ import annotations

import heapq
import itertools
import random
from collections import Counter, defaultdict, deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

from openresource.market.jobs import draws, machine
from openresource.market.jobs.comparators import BIT_EXACT, Verification
from openresource.market.jobs.lifecycle import ACCEPTED, COMMITTED, DISPUTED, DRAWN, FINAL, LEASED, REQUESTED
from openresource.market.jobs.policies import AUDITED, ONE, read_policy
from openresource.market.jobs.settlement import cover_uain
from openresource.market.jobs.terms import (
    JOB,
    PAYER,
    POT,
    PUBLISHER,
    ROLE_OF_STATUS,
    TREASURY,
    Facts,
    Job,
    Offer,
    Outcome,
    Settings,
)
from openresource.market.jobs.verdicts import AUDITOR, DONE, REFEREE, WORKER, Execution
from openresource.primitives.amounts import PPM, UAIN_PER_AIN
from openresource.primitives.errors import Refusal
from openresource.primitives.hashing import keccak

HONEST = "honest"
LIAR = "liar"
LIAR_10 = "liar-10%"
ACCUSER = "accuser"
COPIER = "copier"
SQUATTER = "squatter"
SLEEPER = "sleeper"
CRASHER = "crasher"
SPLIT = "split"
HONEST_KINDS = (HONEST, SPLIT, CRASHER)
ACCOMPLICES = (LIAR, LIAR_10, ACCUSER)
ACCOMPLICES_MAX = 3
BLOCK_MS = 100
CANDIDATES = 10
GRINDING_TRIES = 16
EXACT = Verification(BIT_EXACT)
# What computing a result costs, of its price: what a cheat saves by not computing it.
COST_PPM = 700_000
SETTLED_KEPT = 4_000


@dataclass
class Machine:
    """One provider with its habits, its bond and what became of it."""

    name: str
    kind: str
    operator: str
    price_uain: int
    bond_uain: int
    speed_ms: int
    locked_uain: int = 0
    streak: int = 0
    faults: int = 0
    balance_uain: int = 0
    spent_uain: int = 0
    slashed_uain: int = 0
    cut_off_until: int = 0
    leases: int = 0
    lies: int = 0
    undetected: int = 0
    jobs_until_caught: list[int] = field(default_factory=list)
    since_caught: int = 0
    first_bond_uain: int = 0


@dataclass
class Draw:
    """One lot: at what rate, whether it fell, and who tried to steer it."""

    rate_ppm: int
    is_drawn: bool
    grinder: str


class World:
    """The crowd, the chain's money, and a heap of what is on its way."""

    def __init__(
        self,
        seed: int,
        crowd: dict[str, int],
        *,
        settings: Settings | None = None,
        price_uain: int = UAIN_PER_AIN // 500,
        bond_uain: int = 6 * UAIN_PER_AIN,
        policies: tuple[str, ...] = ("audited", "audited", "audited", "quorum:2/3", "one"),
        loss: float = 0.01,
        partitions: bool = True,
        bonds: Mapping[str, int] | None = None,
        accomplices: int = ACCOMPLICES_MAX,
        malice: float = 0.002,
    ) -> None:
        self.random = random.Random(seed)
        self.seed = seed
        self.settings = settings or Settings()
        self.policies = policies
        self.loss = loss
        self.partitions = partitions
        self.malice = malice
        self.now = 1_700_000_000_000
        self.heap: list[tuple[int, int, Callable[[], None]]] = []
        self.order = itertools.count()
        self.jobs: dict[str, Job] = {}
        self.accounts: dict[str, int] = defaultdict(int)
        self.machines: dict[str, Machine] = {}
        self.finals: Counter[str] = Counter()
        self.accepted: Counter[str] = Counter()
        self.wrong_accepted: Counter[str] = Counter()
        self.slashes: list[tuple[str, str, str]] = []
        self.draws: list[Draw] = []
        self.grinders: dict[str, str] = {}
        self.secrets: dict[str, bytes] = {}
        self.work_uain: Counter[str] = Counter()
        self.refused: Counter[str] = Counter()
        self.orders: dict[tuple[str, str], tuple[str, ...]] = {}
        self.candidates: dict[str, list[str]] = {}
        self.salts: dict[tuple[str, str], tuple[bytes, bytes]] = {}
        self.started = 0
        self.settled: deque[str] = deque()
        self._people(crowd, price_uain, bond_uain, bonds or {}, accomplices)
        self.accounts["buyers"] = 10**15
        self.supply = self.total()

    def _people(
        self,
        crowd: dict[str, int],
        price_uain: int,
        bond_uain: int,
        bonds: Mapping[str, int],
        accomplices_max: int,
    ) -> None:
        for kind, count in crowd.items():
            for number in range(count):
                name = f"{kind}/{number}"
                bond = bonds.get(kind, bond_uain)
                if kind == SPLIT:
                    # One owner's bond, cut into many addresses.
                    bond = max(UAIN_PER_AIN, bond_uain // count)
                elif kind == CRASHER:
                    bond = 0
                self.machines[name] = Machine(
                    name,
                    kind,
                    operator=kind if kind == SPLIT else name,
                    price_uain=price_uain * self.random.randint(80, 120) // 100,
                    bond_uain=bond,
                    speed_ms=self.random.randint(40, 400),
                    first_bond_uain=bond,
                )
        members = sorted(self.machines)
        accomplices = [name for name in members if self.machines[name].kind in ACCOMPLICES]
        others = [name for name in members if name not in accomplices]
        self.programs = []
        for _ in range(max(1, len(members) // 2)):
            # Who plays together holds less than a third of the seats of a program: more may outvote the rest anywhere.
            fewest = 0 if accomplices_max == ACCOMPLICES_MAX else accomplices_max
            bad = self.random.sample(
                accomplices, min(len(accomplices), self.random.randint(fewest, accomplices_max))
            )
            good = self.random.sample(others, min(len(others), CANDIDATES - len(bad)))
            self.programs.append([*bad, *good])

    # -- money ------------------------------------------------------------------------------------------------------

    def net_uain(self, kind: str) -> int:
        """What a kind has won or lost by its habits, on average: earned, less computing, less what was slashed."""
        crowd = [one for one in self.machines.values() if one.kind == kind]
        return sum(one.balance_uain - one.spent_uain - one.slashed_uain for one in crowd) // max(
            1, len(crowd)
        )

    def steering(self, grinder: str) -> float:
        """How far lots fell off their rates, in standard deviations, where somebody tried to steer them."""
        expected = spread = 0.0
        fallen = 0
        for lot in self.draws:
            if lot.grinder == grinder and 0 < lot.rate_ppm < PPM:
                rate = lot.rate_ppm / PPM
                expected += rate
                spread += rate * (1 - rate)
                fallen += lot.is_drawn
        return (fallen - expected) / spread**0.5 if spread else 0.0

    def total(self) -> int:
        """Every µAIN there is."""
        bonds = sum(one.bond_uain + one.balance_uain for one in self.machines.values())
        return sum(self.accounts.values()) + bonds + sum(job.purse_uain for job in self.jobs.values())

    def _move(self, job: Job, name: str, amount: int) -> None:
        if name in (JOB,):
            return  # A job carries its purse itself.
        if name in (POT, TREASURY, PUBLISHER):
            self.accounts[name] += amount
            assert self.accounts[name] >= 0, f"{name} is overdrawn"
        elif name in (PAYER, job.payer, job.requester):
            self.accounts["buyers"] += amount
        elif name.startswith("bond:"):
            machine_ = self.machines[name[5:]]
            machine_.bond_uain += amount
            machine_.slashed_uain -= amount
            assert machine_.bond_uain >= 0, f"the bond of {name} is overdrawn"
        else:
            self.machines[name].balance_uain += amount

    def apply(self, before: Job, outcome: Outcome) -> None:
        """What a native would write: money, locks, records, due actions."""
        job = outcome.job
        purse = before.purse_uain
        for move in outcome.moves:
            assert move.amount_uain > 0, "an empty move"
            purse += (move.target == JOB) * move.amount_uain - (move.source == JOB) * move.amount_uain
            self._move(before, move.source, -move.amount_uain)
            self._move(before, move.target, move.amount_uain)
        assert purse == job.purse_uain >= 0, "the purse is not what the moves leave"
        for slash in outcome.slashes:
            self.slashes.append((slash.provider, slash.reason, job.job))
        was = {run.provider: run.stake_uain for run in before.executions if run.is_locked}
        held = {run.provider: run.stake_uain for run in job.executions if run.is_locked}
        for name in was.keys() | held.keys():
            self.machines[name].locked_uain += held.get(name, 0) - was.get(name, 0)
            assert self.machines[name].locked_uain >= 0
        for credit in outcome.credits:
            one = self.machines[credit.provider]
            if not credit.is_valid:
                one.streak, one.faults = 0, one.faults + 1
            elif credit.counts_for_streak:
                one.streak += 1
        self.jobs[job.job] = job
        for at_ms, name in outcome.due:
            if name != "fold":
                self.at(at_ms, partial(self._due, job.job, name))
        if job.status != before.status:
            self._entered(before, job)

    # -- time -------------------------------------------------------------------------------------------------------

    def at(self, at_ms: int, work: Callable[[], None]) -> None:
        """Something happens at a time."""
        heapq.heappush(self.heap, (max(at_ms, self.now), next(self.order), work))

    def sent(self, sender: Machine | None, delay_ms: int, work: Callable[[], None]) -> None:
        """A message on its way: later than hoped, twice, or after a cut; a sender tries again what got lost."""
        delay = delay_ms + int(self.random.expovariate(1 / 60))
        if sender is not None and sender.cut_off_until > self.now:
            delay += sender.cut_off_until - self.now
        while self.random.random() < self.loss:
            delay += 1_000
        self.at(self.now + delay, work)
        if self.random.random() < self.loss:
            self.at(self.now + delay + self.random.randint(1, 3_000), work)

    def run(self, jobs: int, *, per_second: float = 3) -> None:
        """Starts so many jobs and goes on until nothing is on its way any more."""
        for number in range(jobs):
            self.at(self.now + int(number * 1_000 / per_second), self._begin)
        if self.partitions:
            span_ms = int(jobs * 1_000 / per_second)
            for _ in range(max(1, jobs // 2_000)):
                self.at(self.now + self.random.randint(0, span_ms), self._cut)
        while self.heap:
            self.now, _, work = heapq.heappop(self.heap)
            work()

    def _cut(self) -> None:
        for name in self.random.sample(sorted(self.machines), max(1, len(self.machines) // 4)):
            self.machines[name].cut_off_until = self.now + self.random.randint(2_000, 90_000)

    def beacon(self, height: int) -> bytes:
        """The chained hash of a block; a proposer that cheats tries some blocks and takes what it hopes is best."""
        return keccak(b"beacon" + self.seed.to_bytes(8, "big") + height.to_bytes(8, "big"))

    # -- a job's way ------------------------------------------------------------------------------------------------

    def _begin(self) -> None:
        self.started += 1
        job_id = f"{self.seed}-{self.started}"
        members = self.random.choice(self.programs)
        policy = read_policy(self.random.choice(self.policies), EXACT)
        price = max(self.machines[name].price_uain for name in members)
        secret = keccak(b"secret" + job_id.encode())
        grinder = self.random.choices(("", "proposer", "buyer"), (6, 2, 2))[0]
        if grinder == "buyer":
            # The best of many secrets against every beacon that the buyer can imagine: none is the one that comes.
            imagined = self.beacon(self.now // BLOCK_MS - 1)
            tried = [keccak(secret + bytes([number])) for number in range(GRINDING_TRIES)]
            secret = max(tried, key=lambda one: draws.draw_number(job_id, one, imagined))
        self.grinders[job_id], self.secrets[job_id] = grinder, secret
        budget = (cover_uain(_unsized(policy), price, 0)) * policy.size
        job = Job(
            job=job_id,
            payer="payer-of-jobs",
            requester="buyer",
            publisher="publisher",
            policy=policy,
            budget_uain=budget,
            requested_at_ms=self.now,
            deadline_ms=self.now + 600_000,
            secret_hash=draws.secret_hash(secret) if policy.kind == AUDITED else b"",
        )
        self.accounts["buyers"] -= budget
        self.candidates[job_id] = members
        started = machine.request(job, self.settings)
        self.jobs[job_id] = started.job
        for at_ms, name in started.due:
            self.at(at_ms, partial(self._due, job_id, name))
        self._call_turns(job_id, WORKER)

    def _call_turns(self, job_id: str, role: str) -> None:
        """Whoever is next in the drawn order tries, one stagger after the other."""
        job = self.jobs[job_id]
        seed = draws.lease_seed(job_id) if role == WORKER else job.seed
        self.orders[job_id, role] = self._drawn(job, seed)
        self._try_turn(job_id, role, 0, self.now)

    def _drawn(self, job: Job, seed: bytes) -> tuple[str, ...]:
        members = [
            draws.Candidate(
                name, draws.seats_of(self.machines[name].bond_uain, self.settings.bond_per_seat_uain)
            )
            for name in self.candidates[job.job]
        ]
        return draws.ranking(seed, members)

    def _try_turn(self, job_id: str, role: str, place: int, from_ms: int) -> None:
        job = self.jobs.get(job_id)
        if job is None:
            return
        order = self.orders[job_id, role]
        if ROLE_OF_STATUS.get(job.status) != role or job.status in FINAL:
            return
        wanted = job.policy.size if role == WORKER else job.checkers_wanted
        live = [run for run in job.of_role(role) if not run.is_over and not run.is_late]
        if len(live) < wanted:
            one = self.machines[order[place % len(order)]]
            turn = from_ms + (place % len(order)) * self.settings.stagger_ms
            if one.cut_off_until <= self.now and self._may_come(job, one, role):
                is_called = role == REFEREE and place < job.newly_called
                self._lease(job_id, one, role, job.turns_from_ms if is_called else min(turn, self.now))
        job = self.jobs[job_id]
        if ROLE_OF_STATUS.get(job.status) == role:
            pause = self.settings.stagger_ms if place + 1 < len(order) else 20_000
            self.at(self.now + pause, lambda: self._try_turn(job_id, role, place + 1, from_ms))

    def _may_come(self, job: Job, one: Machine, role: str) -> bool:
        """Who has nothing to put at stake does not try in vain, and nobody tries twice."""
        is_free = one.bond_uain - one.locked_uain >= self.settings.job_bond_uain
        needs_none = role == WORKER and job.policy.kind in (ONE, AUDITED)
        return (is_free or needs_none) and (job.of(one.name) is None or job.policy.kind == ONE)

    def _lease(self, job_id: str, one: Machine, role: str, turn_at_ms: int) -> None:
        job = self.jobs[job_id]
        offer = Offer(
            provider=one.name,
            ask_uain=one.price_uain,
            royalty_uain=0,
            operator=one.operator,
            free_bond_uain=one.bond_uain - one.locked_uain,
            bond_uain=one.bond_uain,
            others_uain=sum(
                self.machines[name].bond_uain
                for name in self.candidates[job_id]
                if self.machines[name].operator != one.operator
            ),
            streak=one.streak,
            turn_at_ms=turn_at_ms,
        )
        try:
            outcome = machine.lease(job, offer, self.settings, self.now)
        except Refusal as refusal:
            self.refused[refusal.code] += 1
            return
        one.leases += 1
        if role == WORKER:
            one.since_caught += 1
        self.apply(job, outcome)
        run = self.jobs[job_id].of(one.name)
        assert run is not None
        if one.kind == SQUATTER and role == WORKER:
            return
        if one.kind == CRASHER and self.random.random() < 0.5:
            return
        self.sent(one, one.speed_ms + self.random.randint(0, 200), lambda: self._deliver(job_id, one, run))

    def _digest(self, job: Job, one: Machine, run: Execution) -> bytes:
        """The result that a machine gives: right for who computes it, made up by who does not."""
        right = keccak(b"right" + job.job.encode())
        lie = keccak(b"lie" + job.job.encode())
        worker = job.worker
        if run.role == WORKER:
            lies = one.kind == LIAR or (one.kind == LIAR_10 and self.random.random() < 0.1)
            if lies and job.policy.kind != "one":
                one.lies += 1
                return lie
        elif one.kind in ACCOMPLICES:
            helped = worker is not None and self.machines[worker.provider].kind in ACCOMPLICES
            if helped or one.kind == ACCUSER:
                one.lies += 1
                return lie
        one.spent_uain += one.price_uain * COST_PPM // PPM
        self.work_uain[run.role] += one.price_uain
        return right

    def _deliver(self, job_id: str, one: Machine, run: Execution) -> None:
        job = self.jobs.get(job_id)
        if job is None:
            return
        own = job.of(one.name)
        if own is None or own.lease_at_ms != run.lease_at_ms:
            return
        if (job_id, one.name) not in self.salts:
            self.salts[job_id, one.name] = (
                self._digest(job, one, run),
                keccak(f"{job_id}{one.name}".encode()),
            )
        digest, salt = self.salts[job_id, one.name]
        if job.policy.kind == "one":
            report = {"status": DONE, "digest": digest}
            self._step(
                lambda: machine.finish(job, one.name, report, self.settings, self._facts(job), self.now), job
            )
            return
        commitment = machine.commitment_of(job_id, own, digest, salt)
        if one.kind == COPIER:
            # It cannot read what others committed to; it can only repeat their bytes.
            others = [other.commitment for other in job.executions if other.commitment]
            commitment = others[0] if others else keccak(b"guess" + job_id.encode())
        self._step(
            lambda: machine.commit(
                job, one.name, commitment, "", self.now // BLOCK_MS, self.settings, self.now
            ),
            job,
        )

    def _facts(self, job: Job) -> Facts:
        operators = {run.operator or run.provider for run in job.executions if not run.is_over}
        beacon, order = self.beacon(self.now // BLOCK_MS - 1), tuple(self.candidates[job.job])
        if job.status == DISPUTED:
            order = self._drawn(job, draws.referees_seed(job.job, job.secret + beacon))
        able = {
            self.machines[name].operator: self.machines[name].bond_uain
            for name in order
            if self.machines[name].operator not in operators
            and self.machines[name].bond_uain >= self.settings.job_bond_uain
        }
        return Facts(
            pot_uain=self.accounts[POT],
            bonds={name: self.machines[name].bond_uain for name in self.candidates[job.job]},
            beacon=beacon,
            checkers=len(able),
            able_uain=sum(able.values()),
            called_uain=sum(list(able.values())[: job.newly_called]),
        )

    def _step(self, take: Callable[[], Outcome], job: Job) -> None:
        try:
            outcome = take()
        except Refusal as refusal:
            self.refused[refusal.code] += 1
            return
        self.apply(job, outcome)

    def _due(self, job_id: str, name: str) -> None:
        job = self.jobs.get(job_id)
        if job is None:
            return
        outcome = machine.on_deadline(job, name, self.settings, self._facts(job), self.now)
        self.apply(job, outcome)
        if name == "call" and outcome.job.status == DISPUTED:
            self._call_turns(job_id, REFEREE)
        if ROLE_OF_STATUS.get(outcome.job.status) == WORKER and job.status == LEASED and name == "lease":
            self._call_turns(job_id, WORKER)

    def _entered(self, before: Job, job: Job) -> None:
        """What people do when they see a job's new status."""
        job_id = job.job
        if job.status == COMMITTED:
            self.sent(None, 150, lambda: self._secret(job_id))
        elif job.status == DRAWN:
            self._call_turns(job_id, AUDITOR)
        elif job.status == REQUESTED and before.status == LEASED:
            self._call_turns(job_id, WORKER)
        if job.status in ("REVEALING", "JUDGING"):
            for run in job.executions:
                if run.commitment and not run.is_late and not run.revealed_at_ms:
                    one = self.machines[run.provider]
                    if one.kind == SLEEPER and self.random.random() < 0.3:
                        continue
                    self.sent(one, 50, partial(self._reveal, job_id, one))
        if job.status in FINAL and before.status not in FINAL:
            self._settled(job)

    def _secret(self, job_id: str) -> None:
        job = self.jobs.get(job_id)
        if job is None:
            return
        height = job.committed_height
        if self.now // BLOCK_MS <= height:
            self.at((height + 1) * BLOCK_MS, lambda: self._secret(job_id))
            return
        beacon = self.beacon(height)
        if self.grinders[job_id] == "proposer":
            # Who proposes the block takes the best of some blocks for a friend, guessing at a secret it does not know.
            tried = [keccak(beacon + bytes([number])) for number in range(GRINDING_TRIES)]
            guess = keccak(b"a guess at the secret")
            beacon = max(tried, key=lambda one: draws.draw_number(job_id, guess, one))
        facts = self._facts(job)
        secret = self.secrets[job_id]
        if job.status == COMMITTED:
            is_drawn = draws.is_drawn(draws.draw_number(job_id, secret, beacon), job.rate_ppm)
            self.draws.append(Draw(job.rate_ppm, is_drawn, self.grinders[job_id]))
        self._step(lambda: machine.reveal_secret(job, secret, beacon, self.settings, facts, self.now), job)

    def _reveal(self, job_id: str, one: Machine) -> None:
        job = self.jobs.get(job_id)
        if job is None:
            return
        digest, salt = self.salts[job_id, one.name]
        report: dict[str, Any] = {"status": DONE, "digest": digest, "salt": salt}
        self._step(
            lambda: machine.reveal(job, one.name, report, self.settings, self._facts(job), self.now), job
        )

    def _settled(self, job: Job) -> None:
        self.finals[f"{job.policy.kind} {job.status}"] += 1
        assert job.verdict is not None, "a job was settled without a verdict"
        caught = dict(job.verdict.punished)
        for name in caught:
            one = self.machines[name]
            one.jobs_until_caught.append(one.since_caught)
            one.since_caught = 0
            if one.kind not in HONEST_KINDS and one.bond_uain < one.first_bond_uain // 2:
                # A cheat that gives up would prove little: it bonds again, and what that costs is counted.
                self.supply += one.first_bond_uain - one.bond_uain
                one.bond_uain = one.first_bond_uain
        if job.status == ACCEPTED:
            self.accepted[job.policy.kind] += 1
            if job.verdict.digest != keccak(b"right" + job.job.encode()) and job.policy.kind != "one":
                self.wrong_accepted[job.policy.kind] += 1
                for run in job.of_role(WORKER):
                    if run.digest == job.verdict.digest:
                        self.machines[run.provider].undetected += 1
        assert job.purse_uain == 0, "a settled job holds money"
        if job.dispute is None:
            self.settled.append(job.job)
        is_wrong = job.status == ACCEPTED and job.verdict.digest != keccak(b"right" + job.job.encode())
        doubts = self.random.random() < (0.2 if is_wrong else self.malice)
        if job.policy.kind != "one" and job.status == ACCEPTED and job.dispute is None and doubts:
            self.sent(None, 5_000, lambda: self._dispute(job.job))
        while len(self.settled) > SETTLED_KEPT:
            self._forget(self.settled.popleft())

    def _dispute(self, job_id: str) -> None:
        """A buyer who doubts a result, rightly or out of malice."""
        job = self.jobs.get(job_id)
        if job is None or job.status != ACCEPTED:
            return
        bond = self.settings.dispute_bond_uain
        self._step(
            lambda: machine.dispute(job, "buyer", bond, self.settings, self._facts(job), self.now), job
        )

    def _forget(self, job_id: str) -> None:
        """A job that was settled long ago; what still arrives for it finds nothing, as on the chain."""
        job = self.jobs[job_id]
        if job.status not in FINAL:
            self.settled.append(job_id)
            return
        del self.jobs[job_id]
        self.candidates.pop(job_id)
        self.secrets.pop(job_id)
        self.grinders.pop(job_id)
        for name in [run.provider for run in job.executions]:
            self.salts.pop((job_id, name), None)
        for role in (WORKER, AUDITOR, REFEREE):
            self.orders.pop((job_id, role), None)


def _unsized(policy: Any) -> Any:
    return Job("", "", "", "", replace(policy), 0, 0, 0)
