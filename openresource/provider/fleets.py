"""The instances of all offers of one provider: how many, for how long, and what the machine holds of them.

The pools do the work (`sandbox/pool.py`), within one budget (`sandbox/budgets.py`). Here is what the operator decides,
and what is told about it: to the chain whether a program is warm, to everybody else the load.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Iterable
from typing import Any, Final

from openresource.provider.joined import Hub
from openresource.provider.offers import Offer
from openresource.provider.policies import Policy, warm_for
from openresource.provider.spread import SpreadPool, SpreadSandbox
from openresource.sandbox.budgets import Budget, machine_budget
from openresource.sandbox.driver import Limits, Release, Sandbox
from openresource.sandbox.pool import ProgramPool

WARM_DEFAULT: Final = 1
IDLE_SECONDS_DEFAULT: Final = 5 * 60.0
# A program that comes and goes is not announced each time: the chain hears of a change at most so often.
WARMTH_SECONDS_MIN: Final = 60.0

Say = Callable[[Offer, bool], Awaitable[None]]


class Fleet:
    """All pools of a provider."""

    def __init__(
        self,
        policy: Policy,
        *,
        size: int = 1,
        warm: int = WARM_DEFAULT,
        idle_seconds: float = IDLE_SECONDS_DEFAULT,
        memory_bytes: int | None = None,
    ) -> None:
        self.budget: Budget = machine_budget(memory_bytes)
        self._policy = policy
        self._size = size
        self._warm = warm
        self._idle_seconds = idle_seconds
        # Where other machines join, if the operator has any.
        self.hub: Hub | None = None
        self._announced_at: dict[str, float] = {}

    def pool(self, sandbox: Sandbox, release: Release, limits: Limits) -> ProgramPool:
        """Instances for one more program, on this machine and on those that have joined."""
        kind = ProgramPool
        if self.hub is not None:
            kind, sandbox = SpreadPool, SpreadSandbox(sandbox, self.hub)
        return kind(
            sandbox,
            release,
            limits,
            size=self._size_everywhere,
            warm=self._warm,
            idle_seconds=self._idle_seconds,
            budget=self.budget,
        )

    async def tend(self, offers: Iterable[Offer], say: Say) -> None:
        """Applies the operator's policy, measures, and has the chain told who became warm or cold."""
        await self.budget.tend()
        now = time.monotonic()
        for offer in offers:
            pool = offer.runner
            if not isinstance(pool, ProgramPool):
                continue
            if self.hub is not None:
                pool.resize(self._size_everywhere)
                offer.lane.capacity = max(1, pool.capacity)
            pool.keep(warm_for(self._policy, offer.service, offer.program, self._warm))
            is_warm = pool.instances > 0
            announced_at = self._announced_at.get(offer.program, 0.0)
            if is_warm != offer.is_warm and now - announced_at > WARMTH_SECONDS_MIN:
                self._announced_at[offer.program] = now
                await say(offer, is_warm)

    @property
    def _size_everywhere(self) -> int:
        """So many instances of a program at most: those of this machine, and as many on each that has joined."""
        return self._size * (1 + (len(self.hub.machines) if self.hub is not None else 0))

    @property
    def machines(self) -> list[dict[str, Any]]:
        """The machines that have joined, and what they do."""
        found = self.hub.machines if self.hub is not None else []
        return [
            {
                "name": one.name,
                "memory_bytes": one.memory_bytes,
                "cpu": one.cpu,
                "instances": len(one.instances),
            }
            for one in found
        ]

    def load(self, offers: Iterable[Offer]) -> dict[str, Any]:
        """The load of each offer, for /healthz."""
        return {
            offer.path: {
                "in_flight": offer.lane.in_flight,
                "capacity": offer.lane.capacity,
                "wait_ms": int(offer.lane.expected_wait_seconds() * 1000),
                "shed": offer.lane.shed,
            }
            for offer in offers
        }

    def gauges(self, offers: Iterable[Offer]) -> dict[str, float]:
        """For /metrics."""
        served = list(offers)
        pools = [offer.runner for offer in served if isinstance(offer.runner, ProgramPool)]
        return {
            "openresource_instances": sum(pool.instances for pool in pools),
            "openresource_instances_idle": sum(pool.idle_instances for pool in pools),
            "openresource_instance_starts_total": sum(pool.starts for pool in pools),
            "openresource_cold_starts_total": sum(pool.cold_starts for pool in pools),
            "openresource_idle_stops_total": sum(pool.idle_stops for pool in pools),
            "openresource_instances_gave_way_total": self.budget.gave_way,
            "openresource_programs_memory_bytes": self.budget.used_bytes,
            "openresource_programs_memory_bytes_max": self.budget.memory_bytes,
            "openresource_machines_joined": len(self.hub.machines) if self.hub is not None else 0,
            "openresource_calls_shed_total": sum(offer.lane.shed for offer in served),
            "openresource_expected_wait_seconds": max(
                (offer.lane.expected_wait_seconds() for offer in served), default=0.0
            ),
        }
