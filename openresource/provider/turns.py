"""When it is this provider's turn at a job: an order that everybody computes alike from who has placed the program and
what they have bonded.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from openresource.client.chain import Chain
from openresource.market.accounts import bond_account
from openresource.market.bonds import Bond, read_bond
from openresource.market.jobs.draws import Candidate, seats_of
from openresource.market.jobs.policies import ONE
from openresource.market.jobs.settlement import cover_uain
from openresource.market.jobs.states import job_of
from openresource.market.jobs.terms import ROLE_OF_STATUS, Job, Settings, settings_of
from openresource.market.jobs.turns import (
    CANDIDATES_MAX,
    checker_turn_ms,
    checkers,
    order_known_ms,
    worker_turn_ms,
)
from openresource.market.jobs.verdicts import WORKER
from openresource.market.placements import PLACED
from openresource.provider.offers import Offer

# Who has placed a program and who has bonded what changes slowly; the chain itself refuses who comes too early.
KEPT_SECONDS: Final = 2.0
MANY: Final = 10
PROGRAMS_KEPT_MAX: Final = 256
# Of so many placements of a program the bonds are looked at.
PLACEMENTS_READ_MAX: Final = 1_000
PARAMETERS_PATH: Final = "/blockchain_params/market"


@dataclass(frozen=True, slots=True)
class _Placed:
    """Somebody who has a program placed."""

    bond: Bond
    operator: str
    runtime_class: str


class Turns:
    """The order in which providers have their turn, as far as this one needs to know it."""

    def __init__(self, chain: Chain, provider: str, clock_ms: Callable[[], int]) -> None:
        self._chain = chain
        self._provider = provider
        self._clock_ms = clock_ms
        self._candidates: dict[tuple[str, str, str], tuple[float, tuple[_Placed, ...]]] = {}
        self._settings: Settings | None = None

    async def wait_ms(self, job: str, record: Mapping[str, Any], offer: Offer) -> int | None:
        """How long until our turn; None if this job is not for us."""
        found, settings = job_of(job, record), await self.settings()
        role = ROLE_OF_STATUS.get(found.status)
        if role is None or (found.executors and self._provider not in found.executors):
            return None
        if role == WORKER and not self._is_worth_it(found, offer):
            return None
        is_bonded = role != WORKER or found.policy.kind == "quorum"
        if is_bonded and (await self._bond(self._provider)).free_uain < settings.job_bond_uain:
            return None
        if found.pays_up_to_budget and found.policy.kind == ONE:
            return 0
        known_ms, per_seat_uain = order_known_ms(found), settings.bond_per_seat_uain
        candidates = [
            Candidate(
                one.bond.provider,
                seats_of(one.bond.counted_at(known_ms), per_seat_uain),
                one.operator,
                one.runtime_class,
            )
            for one in await self._who(offer)
        ]
        if role == WORKER:
            return worker_turn_ms(found, candidates, self._provider, settings) - self._clock_ms()
        turn_ms = checker_turn_ms(found, checkers(found, candidates), self._provider, settings)
        return None if turn_ms is None else turn_ms - self._clock_ms()

    def _is_worth_it(self, job: Job, offer: Offer) -> bool:
        """Whether the budget covers us and time is left."""
        price = offer.price
        needed_uain = cover_uain(job, price.ask_uain, price.royalty_uain)
        taken_uain = sum(
            cover_uain(job, run.ask_uain, run.royalty_uain) for run in job.of_role(WORKER) if not run.is_over
        )
        if job.max_price_uain is not None and price.total_uain > job.max_price_uain:
            return False
        return job.budget_uain - taken_uain >= needed_uain and job.deadline_ms > self._clock_ms()

    async def settings(self) -> Settings:
        """The chain's parameters for jobs."""
        if self._settings is None:
            found = await self._chain.read(PARAMETERS_PATH)
            self._settings = settings_of(found if isinstance(found, Mapping) else {})
        return self._settings

    async def _who(self, offer: Offer) -> tuple[_Placed, ...]:
        key = (offer.publisher, offer.name, offer.program)
        known = self._candidates.get(key)
        if known is not None and known[0] > time.monotonic():
            return known[1]
        records = await self._chain.read(f"/placements/{'/'.join(key)}", "pending")
        placed = {
            provider: record
            for provider, record in (records or {}).items()
            if isinstance(record, Mapping) and record.get("status") == PLACED
        }
        # Ourselves first: many who announce themselves must not keep us from knowing our own turn.
        names = sorted(placed, key=lambda one: one != self._provider)[:PLACEMENTS_READ_MAX]
        bonds = [await self._pledge(provider) for provider in names]
        found: list[_Placed] = []
        for bond in sorted(bonds, key=lambda one: (-one.counted_uain, one.provider))[:CANDIDATES_MAX]:
            record = placed[bond.provider]
            runtime_class = str(record.get("runtime_class") or record.get("runtime") or "")
            found.append(_Placed(bond, await self._operator(bond.provider), runtime_class))
        if len(self._candidates) >= PROGRAMS_KEPT_MAX:
            self._candidates.clear()
        # Where many have placed it, one more or less moves a turn by little, and asking costs three reads for each.
        kept_seconds = KEPT_SECONDS * max(1.0, len(bonds) / MANY)
        self._candidates[key] = (time.monotonic() + kept_seconds, tuple(found))
        return tuple(found)

    async def _pledge(self, provider: str) -> Bond:
        if not await self._chain.balance(bond_account(provider), "pending"):
            return Bond(provider)
        return await self._bond(provider)

    async def _operator(self, provider: str) -> str:
        owner = await self._chain.read(f"/machines/{provider}/offer/owner", "pending")
        if not isinstance(owner, str) or await self._chain.balance(bond_account(owner), "pending"):
            # As on the chain, nobody who has a bond is taken for the owner of others on their word.
            return provider
        return owner

    async def _bond(self, provider: str) -> Bond:
        record = await self._chain.read(f"/bonds/{provider}/state", "pending")
        return read_bond(provider, record, await self._chain.balance(bond_account(provider), "pending"))
