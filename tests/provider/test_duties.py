"""What a job asks of a provider follows from the chain alone, stage by stage."""

from __future__ import annotations

from typing import Any

import pytest

from openresource.market.jobs.lifecycle import FINAL
from openresource.provider.duties import Duty, duty_of
from tests.provider.support import PROVIDER, STRANGER

ME, OTHER = PROVIDER.address, STRANGER.address
NOW_MS = 1_000_000


def job(status: str, policy: str = "one", **executions: dict[str, Any]) -> dict[str, Any]:
    named = {{"mine": ME, "other": OTHER}[name]: run for name, run in executions.items()}
    return {
        "request": {"policy": policy},
        "state": {"status": status, "checkers_wanted": 1},
        "executions": named,
    }


def run(role: str = "worker", **members: Any) -> dict[str, Any]:
    return {"role": role, "lease_at_ms": NOW_MS - 10, "lease_until_ms": NOW_MS + 1_000, **members}


BOUND = {"commitment": "0x" + "ab" * 32, "committed_at_ms": NOW_MS - 5}
SHOWN = {**BOUND, "revealed_at_ms": NOW_MS - 1}


@pytest.mark.parametrize(
    ("record", "duty"),
    [
        (job("REQUESTED"), Duty.LEASE),
        (job("LEASED", other=run()), Duty.NONE),
        (job("LEASED", "quorum:2/3", other=run()), Duty.LEASE),
        (job("LEASED", "quorum:2/2", other=run(), mine=run(**BOUND)), Duty.WAIT),
        (job("LEASED", mine=run()), Duty.WORK),
        (job("LEASED", mine=run(lease_until_ms=NOW_MS)), Duty.NONE),
        (job("LEASED", "audited", mine=run(is_over=True)), Duty.NONE),
        (job("COMMITTED", "audited", mine=run(**BOUND)), Duty.WAIT),
        (job("COMMITTED", "audited", other=run(**BOUND)), Duty.NONE),
        (job("DRAWN", "audited", mine=run(**BOUND)), Duty.WAIT),
        (job("DRAWN", "audited", other=run(**BOUND)), Duty.LEASE),
        (job("DRAWN", "audited", other=run("auditor")), Duty.NONE),
        (job("DRAWN", "audited", other=run(**BOUND), mine=run("auditor")), Duty.WORK),
        (job("REVEALING", "audited", mine=run(**BOUND)), Duty.REVEAL),
        (job("REVEALING", "audited", mine=run(**SHOWN)), Duty.WAIT),
        (job("DISPUTED", "audited", mine=run(**SHOWN)), Duty.WAIT),
        (job("DISPUTED", "audited", other=run(**SHOWN)), Duty.LEASE),
        (job("JUDGING", "audited", mine=run("referee", **BOUND)), Duty.REVEAL),
        (job("LEASED", "nonsense"), Duty.NONE),
        ({"request": {}, "state": {}}, Duty.NONE),
        ({"request": {"policy": "one"}, "state": {"status": "LEASED", "provider": OTHER}}, Duty.NONE),
        *((job(status, mine=run(**SHOWN)), Duty.OVER) for status in FINAL),
    ],
)
def test_what_a_job_asks_for(record: dict[str, Any], duty: Duty) -> None:
    assert duty_of(record, ME, NOW_MS) is duty
