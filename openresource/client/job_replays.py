"""A verdict computed anew from the chain alone, for anybody who does not want to believe it."""

from __future__ import annotations

from openresource.client.chain import Chain
from openresource.client.job_views import Explanation, JobUnknown


async def explain(chain: Chain, job: str) -> Explanation:
    """Reads a job's records and resolves them once more."""
    raise JobUnknown(job=job)
