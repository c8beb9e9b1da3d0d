"""When it is this provider's turn at a job: an order that everybody computes alike from who has placed the program and
what they have bonded.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any, Final

from openresource.client.chain import Chain
from openresource.market.jobs.draws import Candidate, lease_seed, ranking, seats_of
from openresource.market.jobs.lifecycle import LEASED, REQUESTED
from openresource.market.jobs.terms import Settings
from openresource.market.placements import PLACED
from openresource.provider.offers import Offer

# Who has placed a program and who has bonded what changes slowly; the chain itself refuses who comes too early.
KEPT_SECONDS: Final = 2.0
PROGRAMS_KEPT_MAX: Final = 256
PARAMETERS_PATH: Final = "/blockchain_params/market"


class Turns:
    """The order in which providers have their turn, as far as this one needs to know it."""

    def __init__(self, chain: Chain, provider: str, clock_ms: Callable[[], int]) -> None:
        self._chain = chain
        self._provider = provider
        self._clock_ms = clock_ms
        self._candidates: dict[tuple[str, str, str], tuple[float, tuple[Candidate, ...]]] = {}
        self._parameters: dict[str, Any] | None = None

    async def wait_ms(self, job: str, record: Mapping[str, Any], offer: Offer) -> int | None:
        """How long until our turn; None if this job is not for us."""
        request, state = record["request"], record["state"]
        executors = request.get("executors")
        if isinstance(executors, Mapping) and self._provider not in executors:
            return None
        if int(request.get("budget_uain") or 0) < offer.price.total_uain:
            return None
        is_work = state.get("status") in (REQUESTED, LEASED)
        if is_work and int(request.get("deadline_ms") or 0) <= self._clock_ms():
            return None
        if is_work:
            seed, from_ms = lease_seed(job), int(request.get("requested_at_ms") or 0)
        else:
            seed = bytes.fromhex(str(state.get("seed", ""))[2:])
            from_ms = int(state.get("turns_from_ms") or 0)
        order = ranking(seed, await self._who(offer))
        place = order.index(self._provider) if self._provider in order else len(order)
        return (
            from_ms
            + place * await self._parameter("job_stagger_ms", Settings().stagger_ms)
            - self._clock_ms()
        )

    async def _who(self, offer: Offer) -> tuple[Candidate, ...]:
        key = (offer.publisher, offer.name, offer.program)
        known = self._candidates.get(key)
        if known is not None and known[0] > time.monotonic():
            return known[1]
        records = await self._chain.read(f"/placements/{'/'.join(key)}", "pending")
        per_seat = await self._parameter("bond_per_seat_uain", Settings().bond_per_seat_uain)
        found = []
        for provider, record in (records or {}).items():
            if isinstance(record, Mapping) and record.get("status") == PLACED:
                bond_uain = await self._chain.balance(f"deposits|market|bond:{provider}", "pending")
                found.append(Candidate(provider, seats_of(bond_uain, per_seat)))
        if len(self._candidates) >= PROGRAMS_KEPT_MAX:
            self._candidates.clear()
        self._candidates[key] = (time.monotonic() + KEPT_SECONDS, tuple(found))
        return tuple(found)

    async def _parameter(self, name: str, default: int) -> int:
        if self._parameters is None:
            found = await self._chain.read(PARAMETERS_PATH)
            self._parameters = found if isinstance(found, dict) else {}
        value = self._parameters.get(name)
        return int(value) if isinstance(value, int | float) else default
