"""Runs the targets: `python -m tests.fuzz.run --inputs 1000000 [--target rules]`; one seed is one run.

With `--results FILE` each part of a run is written down as it ends, and a run that was stopped goes on with the parts
that the file lacks; after a change of the code begin with another file.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import gc
import logging
import os
import resource
import shutil
import sys
import time
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from openresource.node.memory import collect_garbage_seldom
from tests.fuzz import frames, json_rpc, rules
from tests.support.long_results import LongResults

INPUT_SECONDS_MAX = 2.0
# On top of what the process had before.
MEMORY_BYTES_MAX = 704 * 1024 * 1024
INPUTS_PER_RUN = 25_000
FAILURES_KEPT_MAX = 20

TARGETS: dict[str, Any] = {
    "rules": rules.Target,
    "json-rpc": json_rpc.OwnDoorTarget,
    "ain-json-rpc": json_rpc.AinDoorTarget,
    "websocket": frames.Target,
}


@dataclass
class Found:
    """What some inputs of one target brought about."""

    target: str
    inputs: int = 0
    failures: list[str] = field(default_factory=list)
    slowest_seconds: float = 0.0
    memory_bytes: int = 0

    def add(self, other: Found) -> None:
        """Both together."""
        self.inputs += other.inputs
        self.failures += other.failures[: FAILURES_KEPT_MAX - len(self.failures)]
        self.slowest_seconds = max(self.slowest_seconds, other.slowest_seconds)
        self.memory_bytes = max(self.memory_bytes, other.memory_bytes)


def run_inputs(target: str, seed: int, inputs: int) -> Found:
    """So many inputs of one target."""
    return asyncio.run(_run_inputs(target, seed, inputs))


async def _run_inputs(name: str, seed: int, inputs: int) -> Found:
    was_disabled = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        return await _run_silent(name, seed, inputs)
    finally:
        logging.disable(was_disabled)


async def _run_silent(name: str, seed: int, inputs: int) -> Found:
    found = Found(name)
    memory_before = _fresh_peak_bytes()
    target = TARGETS[name](seed)
    await target.start()
    try:
        for number in range(inputs):
            made = target.make()
            started = time.process_time()
            try:
                await target.run(made)
            except Exception as error:
                found.failures.append(
                    f"{name}, seed {seed}, input {number}: {type(error).__name__}: {error}\n  {made!r}"[:4000]
                )
                if len(found.failures) >= FAILURES_KEPT_MAX:
                    break
            seconds = time.process_time() - started
            found.slowest_seconds = max(found.slowest_seconds, seconds)
            if seconds > INPUT_SECONDS_MAX:
                found.failures.append(
                    f"{name}, seed {seed}, input {number}: {seconds:.1f} s\n  {made!r}"[:4000]
                )
            found.inputs += 1
            if number % 16 == 0:
                await asyncio.sleep(0)
    finally:
        await target.stop()
        folder = getattr(target, "folder", None)
        if folder is not None:
            shutil.rmtree(folder, ignore_errors=True)
    found.memory_bytes = _peak_bytes() - memory_before
    if found.memory_bytes > MEMORY_BYTES_MAX:
        found.failures.append(f"{name}, seed {seed}: {found.memory_bytes:,} bytes of memory")
    gc.collect()
    return found


def _peak_bytes() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def _fresh_peak_bytes() -> int:
    """What the process has now, from where its peak is counted anew; where that cannot be, the peak that it had."""
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")
    return _peak_bytes()


def main() -> int:
    """All targets, or one, on all cores."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--inputs", type=int, default=1_000_000, help="for each target (default: 1,000,000)")
    parser.add_argument("--target", choices=sorted(TARGETS), action="append")
    parser.add_argument("--seed", type=int, default=1, help="the first seed (default: 1)")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    parser.add_argument(
        "--results", type=Path, help="keep what each part found here, and go on with the rest"
    )
    arguments = parser.parse_args()
    results = LongResults(arguments.results)
    totals = {name: Found(name) for name in arguments.target or TARGETS}
    started, told = time.monotonic(), 0.0
    inputs = min(INPUTS_PER_RUN, arguments.inputs)
    parts = [
        (name, arguments.seed + index, inputs)
        for index in range(-(-arguments.inputs // INPUTS_PER_RUN))
        for name in totals
    ]
    for part in parts:
        if part in results.found:
            totals[part[0]].add(Found(**results.found[part]))
    with ProcessPoolExecutor(arguments.workers, initializer=collect_garbage_seldom) as pool:
        runs = {pool.submit(run_inputs, *part): part for part in parts if part not in results.found}
        for run in as_completed(runs):
            found = run.result()
            results.keep(runs[run], asdict(found))
            for failure in found.failures:
                print(failure, flush=True)
            totals[found.target].add(found)
            if time.monotonic() - told > 10:
                told = time.monotonic()
                print(
                    "; ".join(
                        f"{name} {one.inputs:,} inputs, {len(one.failures)} failures"
                        for name, one in totals.items()
                    ),
                    flush=True,
                )
    for name, one in totals.items():
        print(
            f"{name}: {one.inputs:,} inputs, {len(one.failures)} failures, slowest {one.slowest_seconds * 1000:.0f} ms, "
            f"{one.memory_bytes / 2**20:.0f} MB"
        )
    print(f"{time.monotonic() - started:,.0f} s")
    return 1 if any(one.failures for one in totals.values()) else 0


if __name__ == "__main__":
    sys.exit(main())
