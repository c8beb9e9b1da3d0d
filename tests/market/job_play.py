"""One job on the machine alone, with a ledger in a dictionary: every outcome is booked, every promise kept when its time comes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from openresource.market.jobs import draws, machine
from openresource.market.jobs.comparators import Verification
from openresource.market.jobs.lifecycle import FINAL
from openresource.market.jobs.policies import read_policy
from openresource.market.jobs.terms import JOB, POT, Facts, Job, Offer, Outcome, Settings, Slash, bond_name
from openresource.market.jobs.verdicts import DONE
from openresource.primitives.hashing import keccak

SECRET = keccak(b"secret")
BOND_UAIN = 3_000_000
BUDGET_UAIN = 4_000
RIGHT, WRONG = b"r" * 32, b"w" * 32


class Play:
    """A job, a clock, and everybody's money."""

    def __init__(
        self,
        policy: str,
        providers: tuple[str, ...],
        *,
        exactness: str = "bit_exact",
        settings: Settings | None = None,
        secret_hash: bytes = draws.secret_hash(SECRET),
        bonds: Mapping[str, int] | None = None,
        **terms: Any,
    ) -> None:
        self.settings = settings or Settings()
        self.at = 1_000
        self.providers = providers
        self.balances: dict[str, int] = {"payer": 100_000, "disputer": 1_000_000, POT: 0, JOB: 0}
        self.balances |= {
            bond_name(provider): (bonds or {}).get(provider, BOND_UAIN) for provider in providers
        }
        self.slashes: list[Slash] = []
        self.steps: list[tuple[str, str]] = []
        self._due: list[tuple[int, int, str]] = []
        asked = Job(
            "j" * 32,
            "payer",
            "requester",
            "publisher",
            read_policy(policy, Verification(exactness)),
            BUDGET_UAIN,
            self.at,
            self.at + 600_000,
            secret_hash=secret_hash,
            **terms,
        )
        self.job = asked
        self.balances["payer"] -= BUDGET_UAIN
        self.balances[JOB] += BUDGET_UAIN
        self.total = sum(self.balances.values())
        self.book(machine.request(asked, self.settings))

    def book(self, outcome: Outcome) -> None:
        """Moves the money as the outcome says; nothing is paid that is not there."""
        for move in outcome.moves:
            assert move.amount_uain > 0, move
            self.balances[move.source] = self.balances.get(move.source, 0) - move.amount_uain
            self.balances[move.target] = self.balances.get(move.target, 0) + move.amount_uain
            assert self.balances[move.source] >= 0, move
        self.slashes.extend(outcome.slashes)
        self.job = outcome.job
        for due_ms, name in outcome.due:
            self._due.append((due_ms, len(self._due), name))
        assert self.balances[JOB] == self.job.purse_uain
        assert sum(self.balances.values()) == self.total

    @property
    def facts(self) -> Facts:
        """What the machine may know."""
        taken = {run.provider for run in self.job.executions}
        able = [self.balances[bond_name(one)] for one in self.providers if one not in taken]
        return Facts(
            pot_uain=self.balances[POT],
            bonds={provider: self.balances[bond_name(provider)] for provider in self.providers},
            beacon=keccak(self.at.to_bytes(8, "big")),
            checkers=len(set(self.providers) - taken),
            able_uain=sum(able),
            called_uain=sum(sorted(able, reverse=True)[: self.job.newly_called]),
        )

    def wait(self, milliseconds: int) -> None:
        """Time passes; what is due is done at its time, in order."""
        end = self.at + milliseconds
        while True:
            due = sorted(entry for entry in self._due if entry[0] <= end)
            if not due:
                break
            self._due.remove(due[0])
            self.at = max(self.at, due[0][0])
            if due[0][2] != "fold":
                self.book(machine.on_deadline(self.job, due[0][2], self.settings, self.facts, self.at))
        self.at = end

    def to_the_end(self) -> None:
        """Waits until nothing more is due."""
        for _ in range(100):
            if self.job.status in FINAL and all(name == "fold" for _, _, name in self._due):
                return
            self.wait(600_000)
        raise AssertionError(f"it stays {self.job.status}")

    def lease(self, provider: str, **offer: Any) -> None:
        held = self.balances[bond_name(provider)]
        self.book(
            machine.lease(
                self.job,
                Offer(provider, 500, 200, free_bond_uain=held, bond_uain=held, **offer),
                self.settings,
                self.at,
            )
        )

    def commit(self, provider: str, digest: bytes = RIGHT, status: str = DONE) -> None:
        run = self.job.of(provider)
        lease_at_ms = 0 if run is None else run.lease_at_ms
        salt = keccak(provider.encode())
        bound = machine.commitment(digest, salt, provider, self.job.job, lease_at_ms, status)
        self.book(machine.commit(self.job, provider, bound, "", 7, self.settings, self.at))

    def work(self, provider: str, digest: bytes = RIGHT) -> None:
        self.lease(provider)
        self.commit(provider, digest)

    def tell_secret(self, secret: bytes = SECRET) -> None:
        self.book(machine.reveal_secret(self.job, secret, b"beacon" * 5, self.settings, self.facts, self.at))

    def reveal(self, provider: str, digest: bytes = RIGHT, status: str = DONE) -> None:
        report = {"status": status, "digest": digest, "salt": keccak(provider.encode())}
        self.book(machine.reveal(self.job, provider, report, self.settings, self.facts, self.at))

    def finish(self, provider: str, status: str = DONE) -> None:
        report = {"status": status, "digest": RIGHT}
        self.book(machine.finish(self.job, provider, report, self.settings, self.facts, self.at))

    def dispute(self) -> None:
        bond = machine.dispute_bond_uain(self.job, self.settings, self.at)
        self.book(machine.dispute(self.job, "disputer", bond, self.settings, self.facts, self.at))

    def report(self, provider: str) -> None:
        self.book(
            machine.report_equivocation(self.job, provider, "reporter", self.settings, self.facts, self.at)
        )
