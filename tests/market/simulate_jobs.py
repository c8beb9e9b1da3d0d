"""A million jobs with cheats of every kind: `python -m tests.market.simulate_jobs [--jobs N] [--seed S]`.

Exits with 0 if no honest provider was ever slashed, nobody steered a lot, every kind of cheating lost against honest work,
and not one µAIN came or went.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections import Counter
from concurrent.futures import ProcessPoolExecutor, as_completed
from typing import Any

from tests.market.job_crowd import (
    ACCUSER,
    COPIER,
    CRASHER,
    HONEST,
    HONEST_KINDS,
    LIAR,
    LIAR_10,
    SLEEPER,
    SPLIT,
    SQUATTER,
    World,
)

CROWD = {
    HONEST: 40,
    LIAR: 4,
    LIAR_10: 4,
    ACCUSER: 2,
    COPIER: 2,
    SQUATTER: 2,
    SLEEPER: 2,
    CRASHER: 2,
    SPLIT: 6,
}
CHEATS = (LIAR, LIAR_10, ACCUSER, COPIER, SLEEPER)
GRINDERS = ("", "proposer", "buyer")
JOBS_PER_WORLD = 20_000
# A fair lot is further off than this once in a hundred thousand times.
DEVIATIONS_MAX = 4.5


def simulate(seed: int, jobs: int) -> dict[str, Any]:
    """One world to its end, as figures that add up over worlds."""
    world = World(seed, CROWD)
    world.run(jobs)
    lots = {}
    for grinder in GRINDERS:
        chosen = [one for one in world.draws if one.grinder == grinder and 0 < one.rate_ppm < 1_000_000]
        rates = [one.rate_ppm / 1_000_000 for one in chosen]
        lots[grinder] = (
            sum(one.is_drawn for one in chosen) - sum(rates),
            sum(rate * (1 - rate) for rate in rates),
            len(chosen),
        )
    crowd = world.machines.values()
    return {
        "seed": seed,
        "jobs": world.started,
        "finals": world.finals,
        "wrong_accepted": world.wrong_accepted,
        "slashes": Counter(f"{name.split('/')[0]}: {reason}" for name, reason, _ in world.slashes),
        "honest_slashed": [one for one in world.slashes if world.machines[one[0]].kind in HONEST_KINDS],
        "is_conserved": world.supply == world.total(),
        "locked_uain": sum(one.locked_uain for one in crowd),
        "left_open": sum(1 for job in world.jobs.values() if job.purse_uain),
        "net_uain": {kind: world.net_uain(kind) for kind in CROWD},
        "lies": {kind: sum(one.lies for one in crowd if one.kind == kind) for kind in CROWD},
        "leases": {kind: sum(one.leases for one in crowd if one.kind == kind) for kind in CROWD},
        "work_uain": world.work_uain,
        "lots": lots,
    }


def faults_in(figures: list[dict[str, Any]]) -> list[str]:
    """What must not be, as sentences; empty if all is well."""
    found = []
    for one in figures:
        if one["honest_slashed"]:
            found.append(f"seed {one['seed']}: honest providers were slashed: {one['honest_slashed'][:5]}")
        if not one["is_conserved"]:
            found.append(f"seed {one['seed']}: money came or went")
        if one["locked_uain"] or one["left_open"]:
            found.append(f"seed {one['seed']}: {one['locked_uain']} µAIN of bonds stay locked")
        for kind in CHEATS:
            if one["lies" if kind in (LIAR, LIAR_10, ACCUSER) else "leases"][kind] < 10:
                continue
            if one["net_uain"][kind] >= min(0, one["net_uain"][HONEST]):
                found.append(f"seed {one['seed']}: being a {kind} paid {one['net_uain'][kind]} µAIN")
    for grinder in GRINDERS:
        off = sum(one["lots"][grinder][0] for one in figures)
        spread = sum(one["lots"][grinder][1] for one in figures)
        deviations = off / spread**0.5 if spread else 0.0
        if abs(deviations) > DEVIATIONS_MAX:
            found.append(f"lots of {grinder or 'nobody'} are {deviations:.1f} standard deviations off")
    return found


def summary(figures: list[dict[str, Any]]) -> dict[str, Any]:
    """The figures of all worlds together."""
    totals: dict[str, Any] = {"worlds": len(figures), "jobs": sum(one["jobs"] for one in figures)}
    for name in ("finals", "wrong_accepted", "slashes", "work_uain"):
        totals[name] = dict(sorted(sum((Counter(one[name]) for one in figures), Counter()).items()))
    totals["honest_slashed"] = sum(len(one["honest_slashed"]) for one in figures)
    totals["net_uain_per_provider"] = {
        kind: sum(one["net_uain"][kind] for one in figures) // len(figures) for kind in CROWD
    }
    totals["lots_off_in_standard_deviations"] = {
        grinder or "nobody": round(
            sum(one["lots"][grinder][0] for one in figures)
            / max(1e-9, sum(one["lots"][grinder][1] for one in figures)) ** 0.5,
            2,
        )
        for grinder in GRINDERS
    }
    totals["lots"] = sum(one["lots"][grinder][2] for one in figures for grinder in GRINDERS)
    return totals


def main() -> int:
    """Runs worlds side by side until there were enough jobs."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--jobs", type=int, default=1_000_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    worlds = -(-options.jobs // JOBS_PER_WORLD)
    size = -(-options.jobs // worlds)
    begun = time.monotonic()
    figures: list[dict[str, Any]] = []
    with ProcessPoolExecutor(options.processes) as pool:
        running = [pool.submit(simulate, options.seed + number, size) for number in range(worlds)]
        for done in as_completed(running):
            figures.append(done.result())
            seconds = time.monotonic() - begun
            jobs = sum(one["jobs"] for one in figures)
            print(
                f"{jobs} jobs in {seconds:.0f} s, honest slashed: "
                f"{sum(len(one['honest_slashed']) for one in figures)}",
                file=sys.stderr,
            )
    found = faults_in(figures)
    outcome = {**summary(figures), "seconds": round(time.monotonic() - begun, 1), "faults": found}
    print(json.dumps(outcome, indent=None if options.json else 2, sort_keys=True))
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
