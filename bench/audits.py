"""What auditing costs, how soon it finds a cheat, and what cheating brings: at the market's own settings and around them.

    python bench/audits.py [--jobs N] [--json]

1. The cost of audits as a share of all work, in a market of honest providers from their first job on.
2. Calls until a provider that always lies, or in one call of ten, is caught: a new one, and one that has a record.
3. What a lie brings on average, over audit rates and over prices, when everything that is not computed is gained.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from openresource.market.jobs import draws  # noqa: E402
from openresource.market.jobs.terms import Settings  # noqa: E402
from openresource.primitives.amounts import PPM, UAIN_PER_AIN  # noqa: E402
from openresource.primitives.hashing import keccak  # noqa: E402
from tests.market.job_crowd import HONEST, World  # noqa: E402

TRIALS = 2_000
CALLS_MAX = 100_000
PRICES_AIN = ("0.0001", "0.001", "0.01", "0.1", "1")
RATES_PPM = (1_000, 5_000, 10_000, 50_000, 200_000, PPM)
RECORDS = (0, 10, 100, 1_000)


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--jobs", type=int, default=30_000)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    figures = {
        "cost": cost_of_audits(options.jobs),
        "caught": [caught(streak, lies) for streak in RECORDS for lies in (1.0, 0.1)],
        "profit_by_rate": [profit(price, rate) for price in ("0.002", "0.1") for rate in RATES_PPM],
        "profit_at_default": [profit(price, None) for price in PRICES_AIN],
    }
    print(json.dumps(figures) if options.json else as_text(figures))


def cost_of_audits(jobs: int) -> dict[str, Any]:
    """Audits beside work in a market of honest providers: over all jobs, and over those after the first third."""
    shares = {}
    for price in ("0.0001", "0.002", "0.01"):
        world = World(
            7, {HONEST: 20}, policies=("audited",), price_uain=_uain(price), loss=0.0, partitions=False
        )
        world.run(jobs // 3)
        early = dict(world.work_uain)
        world.run(jobs - jobs // 3)
        late = {role: world.work_uain[role] - early.get(role, 0) for role in world.work_uain}
        shares[price] = {
            "all": round(_share(world.work_uain), 4),
            "after_a_third": round(_share(late), 4),
            "mean_streak": round(statistics.mean(one.streak for one in world.machines.values())),
        }
    return {"providers": 20, "jobs": jobs, "share_of_work_by_price_ain": shares}


def caught(streak: int, lies: float) -> dict[str, Any]:
    """Calls until the lot falls on a lie, for a provider with a record at the beginning."""
    settings = Settings()
    chance = random.Random(f"{streak}/{lies}")
    calls_until: list[int] = []
    for trial in range(TRIALS):
        verified = streak
        for call in range(1, CALLS_MAX + 1):
            rate = draws.audit_rate_ppm(
                streak=verified,
                price_uain=UAIN_PER_AIN // 500,
                stake_uain=settings.job_bond_uain,
                lowest_ppm=settings.audit_ppm_min,
            )
            number = draws.draw_number(f"{trial}/{call}", keccak(chance.randbytes(8)), b"beacon")
            is_lie = chance.random() < lies
            if draws.is_drawn(number, rate):
                if is_lie:
                    calls_until.append(call)
                    break
                verified += 1
        else:
            calls_until.append(CALLS_MAX)
    in_order = sorted(calls_until)
    return {
        "record": streak,
        "lies": lies,
        "mean_calls": round(statistics.mean(calls_until), 1),
        "median_calls": statistics.median(calls_until),
        "p95_calls": in_order[int(0.95 * len(in_order))],
        "within_10_calls": round(sum(one <= 10 for one in calls_until) / TRIALS, 3),
    }


def profit(price_ain: str, rate_ppm: int | None) -> dict[str, Any]:
    """What one lie brings on average: the whole price where nothing is computed, less what is lost when it is found."""
    settings = Settings()
    price = _uain(price_ain)
    rate = rate_ppm
    if rate is None:
        rate = draws.audit_rate_ppm(
            streak=10**9,
            price_uain=price,
            stake_uain=settings.job_bond_uain,
            lowest_ppm=settings.audit_ppm_min,
        )
    brings = ((PPM - rate) * price - rate * settings.job_bond_uain) / PPM
    return {
        "price_ain": price_ain,
        "audit_rate": rate / PPM,
        "lie_brings_ain": round(brings / UAIN_PER_AIN, 8),
        "of_the_price": round(brings / price, 3),
    }


def _share(work: Any) -> float:
    checks = work.get("auditor", 0) + work.get("referee", 0)
    return float(checks / (checks + work["worker"]))


def _uain(text: str) -> int:
    return int(float(text) * UAIN_PER_AIN)


def as_text(figures: dict[str, Any]) -> str:
    """The figures as tables for people."""
    lines = [
        f"Cost of audits, {figures['cost']['providers']} honest providers, {figures['cost']['jobs']} jobs:"
    ]
    for price, one in figures["cost"]["share_of_work_by_price_ain"].items():
        lines.append(
            f"  price {price:>7} AIN: {one['all']:.1%} of all work, {one['after_a_third']:.1%} after the first third"
            f" (mean record {one['mean_streak']})"
        )
    lines.append("Calls until a lie is caught:")
    for one in figures["caught"]:
        lines.append(
            f"  record {one['record']:>5}, lies {one['lies']:>4.0%}: median {one['median_calls']:>6}, mean {one['mean_calls']:>7},"
            f" p95 {one['p95_calls']:>6}, within 10 calls {one['within_10_calls']:.0%}"
        )
    for title, name in (
        ("by rate", "profit_by_rate"),
        ("at the default rate of a long record", "profit_at_default"),
    ):
        lines.append(f"What a lie brings, {title}:")
        for one in figures[name]:
            lines.append(
                f"  price {one['price_ain']:>7} AIN, audited {one['audit_rate']:>8.2%}: {one['lie_brings_ain']:+.6f} AIN"
                f" ({one['of_the_price']:+.2f} × the price)"
            )
    return "\n".join(lines)


if __name__ == "__main__":
    main()
