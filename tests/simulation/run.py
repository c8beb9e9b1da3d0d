"""Runs the ledger and its model side by side: `python -m tests.simulation.run --operations 1000000`.

One seed is one run, always the same. A difference is told with everything that is needed to see it again.
With `--results FILE` each world is written down as it ends, and a run that was stopped goes on with the worlds that the
file lacks; after a change of the code begin with another file.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass, field
from pathlib import Path as FilePath
from typing import Any

from openresource.ledger.machine import Inserted
from openresource.ledger.transactions import Transaction, invalid_body_reason
from openresource.ledger.views import find, plain
from openresource.primitives.encoding import canonical_json
from tests.simulation.execution import Block, Model, Outcome, Task
from tests.simulation.state import FlatState, Path
from tests.simulation.world import World
from tests.support.long_results import LongResults

PROFILES = ("ain", "openresource")
OPERATIONS_PER_WORLD = 1_000
STEPS_BETWEEN_LOOKS_AT_ALL = 100
BEACON = "beacon"
ROOTS = ("values", "rules", "functions", "owners")


@dataclass
class Tally:
    """What one or more worlds saw."""

    operations: int = 0
    transactions: int = 0
    blocks: int = 0
    calls: int = 0
    deletions: int = 0
    codes: Counter[int] = field(default_factory=Counter)

    def add(self, other: Tally) -> None:
        """Both together."""
        self.operations += other.operations
        self.transactions += other.transactions
        self.blocks += other.blocks
        self.calls += other.calls
        self.deletions += other.deletions
        self.codes.update(other.codes)


class Difference(AssertionError):
    """The ledger and its model do not agree."""


def run_world(profile: str, seed: int, operations: int = OPERATIONS_PER_WORLD) -> Tally:
    """One world until so many operations were done; raises Difference."""
    return compare(World(profile, seed), operations)


def compare(world: World, operations: int) -> Tally:
    """Runs a world in both; raises Difference."""
    machine = world.machine
    model = Model(world.terms(), flat(world))
    tally = Tally()
    while tally.operations < operations:
        if not machine.is_open:
            # What the opening of a block writes is no transaction's; the model takes it over.
            for change in machine.open_block(world.now_ms, machine.tip["proposer"]):
                model.state.write(change.path, change.value)
            model.state.write(("values", BEACON), world.tree.get(["values", BEACON]))
            model.block = Block(machine.height + 1, max(world.now_ms, machine.tip["timestamp"] + 1))
        task = world.next_task()
        if invalid_body_reason(task.body) is not None:
            # No door lets it in.
            continue
        is_dry_run = world.random.random() < 0.05
        transaction = Transaction(task.body, "0x00", task.hash, task.address, canonical_json(task.body))
        inserted = machine.dry_run(transaction) if is_dry_run else machine.insert(transaction)
        outcome = model.execute(task, is_dry_run=is_dry_run)
        check(world, model, task, inserted, outcome, is_dry_run)
        if not is_dry_run and outcome.enters_block and task.body["nonce"] >= 0:
            stored = model.number_at(("accounts", task.address, "nonce"))
            world.nonces[task.address] = stored
        tally.transactions += 1
        tally.operations += len(model.operations())
        tally.codes.update(codes_of(outcome.result))
        if tally.transactions % STEPS_BETWEEN_LOOKS_AT_ALL == 0:
            check_everything(world, model, task)
        if machine.open_count and world.random.random() < 0.08:
            machine.seal()
            world.now_ms += world.random.choice((1, 1000, 3000))
            tally.blocks += 1
    check_everything(world, model, task)
    tally.calls, tally.deletions = model.calls, model.deletions
    return tally


def check(
    world: World, model: Model, task: Task, inserted: Inserted, outcome: Outcome, is_dry_run: bool
) -> None:
    """Result, values and totals after one transaction."""
    told = without_words(inserted.result)
    expect(world, task, "result", told, without_words(outcome.result))
    expect(world, task, "fate", inserted.has_failed, outcome.has_failed)
    if not is_dry_run:
        expect(world, task, "place", inserted.is_included, outcome.enters_block)
    signer: Path = ("values", "accounts", task.address)
    for path in {*outcome.written, signer, *(change.path for change in inserted.changes)}:
        expect(world, task, "/".join(path), world.tree.get(list(path)), model.state.get(path))
    root = world.tree.root
    totals = (root.size + 1, root.bytes + 160, root.height + 1)
    expect(world, task, "totals", totals, (model.state.size(), model.state.weight(()), model.state.height()))


def check_everything(world: World, model: Model, task: Task) -> None:
    """All that is in the state, in its order."""
    for root in ROOTS:
        place, ours, theirs = first_difference(root, world.tree.get([root]), model.state.get((root,)))
        expect(world, task, place, ours, theirs)


def first_difference(place: str, ledger: Any, model: Any) -> tuple[str, Any, Any]:
    """Where two values differ, in what they hold or in its order."""
    if not isinstance(ledger, dict) or not isinstance(model, dict):
        return place, ledger, model
    if list(ledger) != list(model):
        return f"labels of {place}", list(ledger), list(model)
    for label in ledger:
        found = first_difference(f"{place}/{label}", ledger[label], model[label])
        if found[1] != found[2]:
            return found
    return place, None, None


def expect(world: World, task: Task, what: str, ledger: Any, model: Any) -> None:
    """Both say the same."""
    if ledger != model:
        raise Difference(
            f"seed {world.seed} ({'openresource' if world.is_own else 'ain'}), transaction {world.count}, {what}:\n"
            f"  ledger {ledger}\n  model  {model}\n  by {task.address}: {json.dumps(task.body)}"
        )


def without_words(result: Any) -> Any:
    """A result without its messages, which are for people."""
    if not isinstance(result, dict):
        return result
    return {name: without_words(item) for name, item in result.items() if name not in ("message", "refusal")}


def codes_of(result: Any) -> Iterator[int]:
    """All codes inside of a result."""
    if isinstance(result, dict):
        for name, item in result.items():
            if name == "code":
                yield item
            else:
                yield from codes_of(item)


def flat(world: World) -> FlatState:
    """The state of a chain's beginning for the model."""
    state = FlatState()
    for root in ROOTS:
        value = plain(find(world.tree.root, [root]))
        if value is not None:
            state.write((root,), value)
    return state


def tally_of(kept: dict[str, Any]) -> Tally:
    """A tally from a file, where codes have become texts."""
    codes = Counter({int(code): count for code, count in kept["codes"].items()})
    return Tally(**{**kept, "codes": codes})


def main() -> int:
    """Many worlds on all cores."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--operations", type=int, default=1_000_000)
    parser.add_argument("--seed", type=int, default=1, help="the first seed (default: 1)")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    parser.add_argument(
        "--results", type=FilePath, help="keep what each world saw here, and go on with the rest"
    )
    arguments = parser.parse_args()
    results = LongResults(arguments.results)
    worlds = -(-arguments.operations // OPERATIONS_PER_WORLD)
    total, differences, started, told = Tally(), 0, time.monotonic(), 0.0
    parts = [(PROFILES[index % 2], arguments.seed + index // 2) for index in range(worlds)]
    for part in parts:
        if part in results.found:
            total.add(tally_of(results.found[part]))
    with ProcessPoolExecutor(arguments.workers) as pool:
        runs = {pool.submit(run_world, *part): part for part in parts if part not in results.found}
        for run in as_completed(runs):
            try:
                tally = run.result()
                results.keep(runs[run], vars(tally))
                total.add(tally)
            except Difference as difference:
                differences += 1
                print(difference, flush=True)
            now = time.monotonic()
            if now - told > 10:
                told = now
                print(
                    f"{total.operations:,} of {arguments.operations:,} operations, {differences} differences",
                    flush=True,
                )
    seconds = time.monotonic() - started
    print(
        f"{total.operations:,} operations in {total.transactions:,} transactions and {total.blocks:,} blocks on two "
        f"profiles in {seconds:,.0f} s, {total.calls:,} calls of natives, {total.deletions:,} siblings deleted: "
        f"{differences} differences; {len(total.codes)} different result codes"
    )
    print("codes: " + ", ".join(f"{code} x {count:,}" for code, count in sorted(total.codes.items())))
    return 1 if differences else 0


if __name__ == "__main__":
    sys.exit(main())
