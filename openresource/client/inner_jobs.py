"""Jobs that a program asks for: its caller requests them, with a budget from the allowance, and brings the verdict back."""

from __future__ import annotations

import json
from typing import Any

from openresource.client.chain import TransactionRefused
from openresource.client.inner_calls import Charge, InnerCalls, InnerJob, used_up
from openresource.client.job_papers import job_seed
from openresource.client.job_views import JobFailed
from openresource.client.jobs import Jobs, default_budget_uain
from openresource.client.services import Choice, Directory
from openresource.ledger.draft import NetworkDomain
from openresource.primitives.keys import PrivateKey


class InnerJobs:
    """Runs jobs for programs, from one wallet."""

    def __init__(self, jobs: Jobs, directory: Directory, key: PrivateKey, network: NetworkDomain) -> None:
        self._jobs = jobs
        self._directory = directory
        self._key = key
        self._network = network

    async def run(
        self,
        node: InnerCalls,
        choice: Choice,
        method: str,
        inputs: dict[str, Any],
        policy: str,
        *,
        max_price_uain: int | None,
        deadline_seconds: float,
        charge: Charge,
    ) -> InnerJob:
        """A job from its request to its verdict; its whole budget is set aside until it is settled."""
        placements = await self._directory.placements(choice)
        budget_uain = default_budget_uain(choice, placements, policy)
        if budget_uain > node.left_uain or (max_price_uain is not None and budget_uain > max_price_uain):
            raise used_up(choice.service, budget_uain, node)
        with node.set_aside(budget_uain, choice.service, charge):
            # Until its end is known it may cost all of it.
            charge.lost_uain = budget_uain
            try:
                handle = await self._jobs.run(
                    choice.service,
                    method or None,
                    inputs,
                    policy=policy,
                    budget_uain=budget_uain,
                    deadline_seconds=deadline_seconds,
                    choice=choice,
                )
            except TransactionRefused:
                charge.lost_uain = 0
                raise
            try:
                result = await handle.result()
            except JobFailed:
                charge.lost_uain, charge.charged_uain = 0, (await handle.view()).paid_uain
                raise
            charge.lost_uain, charge.charged_uain = 0, result.view.paid_uain
            salt = job_seed(handle.id, self._key, self._network).salt
            body = json.dumps(result.value, ensure_ascii=False).encode()
            return InnerJob(handle.id, salt, body, result.view.paid_uain)
