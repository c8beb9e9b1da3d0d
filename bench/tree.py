"""What one write into the state costs: the write itself, its hashes and records, and its way to the disk.

Run `python bench/tree.py`; it prints CPU microseconds for plain Python, and for the compiled kernel where one is built.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
from pathlib import Path
from time import process_time

ROOT = Path(__file__).resolve().parent.parent
BLOCK_WRITES = 1_000


def main() -> None:
    """Run both kinds in processes of their own, or one kind in this one."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--blocks", type=int, default=5, help="blocks of 1,000 writes each (default: 5)")
    parser.add_argument(
        "--leaves", type=int, default=20_000, help="leaves for random writes (default: 20000)"
    )
    parser.add_argument("--here", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.here:
        print(json.dumps(measure(arguments.blocks, arguments.leaves)))
        return
    rows = [run(kind, arguments) for kind in ("1", "0")]
    if arguments.json:
        print(json.dumps({row["kind"]: row for row in rows}))
        return
    names = [name for name in rows[0] if name != "kind"]
    print(f"{'µs of CPU per write':<40}" + "".join(f"{row['kind']:>12}" for row in rows))
    for name in names:
        print(f"{name:<40}" + "".join(f"{row[name]:>12.2f}" for row in rows))


def run(plain: str, arguments: argparse.Namespace) -> dict[str, object]:
    """One kind of kernel in a process of its own."""
    command = [sys.executable, __file__, "--here"]
    command += ["--blocks", str(arguments.blocks), "--leaves", str(arguments.leaves)]
    environment = {**os.environ, "OPENRESOURCE_PLAIN": plain, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, check=True, timeout=600)
    row: dict[str, object] = json.loads(done.stdout)
    return row


def measure(blocks: int, leaves: int) -> dict[str, object]:
    """CPU microseconds per write, clustered as one app writes them and scattered over many accounts."""
    from openresource.ledger import tree
    from openresource.node.memory import collect_garbage_seldom

    collect_garbage_seldom()
    row: dict[str, object] = {"kind": "compiled" if not tree.__file__.endswith(".py") else "plain"}
    row.update(_clustered(blocks))
    row.update(_scattered(blocks, leaves))
    return row


def _clustered(blocks: int) -> dict[str, float]:
    random_source = random.Random(7)
    paths = [
        ["values", "apps", "bench_app", "d", str(random_source.randrange(100)), f"x{number % 50}", "y"]
        for number in range(BLOCK_WRITES)
    ]
    with tempfile.TemporaryDirectory() as home:
        return {f"clustered: {name}": value for name, value in _timed(home, [], [paths] * blocks).items()}


def _scattered(blocks: int, leaves: int) -> dict[str, float]:
    random_source = random.Random(11)
    accounts = ["0x" + random_source.randbytes(20).hex() for _ in range(leaves // 2)]
    start = [["values", "accounts", account, leaf] for account in accounts for leaf in ("balance", "nonce")]
    rounds = [
        [["values", "accounts", random_source.choice(accounts), "balance"] for _ in range(BLOCK_WRITES)]
        for _ in range(blocks)
    ]
    with tempfile.TemporaryDirectory() as home:
        return {f"scattered: {name}": value for name, value in _timed(home, start, rounds).items()}


def _timed(home: str, start: list[list[str]], rounds: list[list[list[str]]]) -> dict[str, float]:
    from openresource.ledger.tree import Tree
    from openresource.node.store import BlockBatch, Store

    with Store.open(Path(home)) as store:
        tree = Tree("canonical", store)
        seconds = [0.0, 0.0, 0.0, 0.0]
        records = 0
        for height, paths in enumerate([start, *rounds]):
            begun = process_time()
            for path in paths:
                tree.backup()
                tree.write(path, height)
                tree.drop_backup()
            written = process_time()
            tree.root_hash()
            hashed = process_time()
            changes = tree.collect_changes()
            tree.rebase()
            encoded = process_time()
            store.append(
                BlockBatch(
                    height=height,
                    block_hash=height.to_bytes(32, "big"),
                    block=b"",
                    root_number=tree.root_number,
                    nodes=changes,
                )
            )
            stored = process_time()
            if height > 0:
                for place, (before, after) in enumerate(
                    ((begun, written), (written, hashed), (hashed, encoded), (encoded, stored))
                ):
                    seconds[place] += after - before
                records += len(changes)
    count = sum(len(paths) for paths in rounds)
    names = ("write", "hash", "encode", "store")
    row = {name: spent / count * 1e6 for name, spent in zip(names, seconds, strict=True)}
    row["records per write"] = records / count
    return row


if __name__ == "__main__":
    main()
