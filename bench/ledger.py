"""How many transactions per second one core executes, and where the time goes.

Run `python bench/ledger.py [--json]`. Both profiles, writes of a value and transfers, plain Python and the compiled
kernel (where one is built), each in a process of its own. Figures are CPU time, so a busy machine slows them down;
`recovery` (one signature) is the yardstick: about 57 µs on the quiet machine of the reference figures.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from time import process_time
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
BLOCK_TRANSACTIONS = 1_000
# AI Network's node 1.6.0 in process, one core of a quiet two-core machine.
REFERENCE_PER_SECOND = {"set": 1_890, "transfer": 430}
RECOVERY_QUIET_US = 57.0
PROFILES = ("openresource", "ain")
KINDS = ("set", "transfer")


def main() -> None:
    """Run both kernels in processes of their own, or one in this process."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument(
        "--blocks", type=int, default=3, help="blocks of 1,000 transactions each (default: 3)"
    )
    parser.add_argument("--here", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.here:
        print(json.dumps(measure(arguments.blocks)))
        return
    runs = [run(plain, arguments.blocks) for plain in ("1", "0")]
    if runs[1]["kernel"] == "plain":
        # Nothing is compiled for these sources.
        runs.pop()
    if arguments.json:
        print(json.dumps({one["kernel"]: one for one in runs}))
        return
    for one in runs:
        show(one)


def run(plain: str, blocks: int) -> dict[str, Any]:
    """One kernel in a process of its own."""
    environment = {**os.environ, "OPENRESOURCE_PLAIN": plain, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, __file__, "--here", "--blocks", str(blocks)]
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, check=True, timeout=900)
    row: dict[str, Any] = json.loads(done.stdout)
    return row


def show(one: dict[str, Any]) -> None:
    """One kernel's figures as a table."""
    print(f"\n{one['kernel']} kernel; recovering one signature costs {one['recovery_us']:.0f} µs now")
    header = "decode  recover  execute (rules, tree)   seal  store |  per s  ratio | stored  verified too"
    print(f"{'µs of CPU per transaction':<24}{header}")
    for name, row in one["rows"].items():
        us = row["us"]
        print(
            f"{name:<24}{us['decode']:6.1f}  {us['recover']:7.1f}  {us['execute']:7.1f} "
            f"({us['rules']:5.1f}, {us['tree']:5.1f})  {us['seal']:5.1f}  {us['store']:5.1f} | "
            f"{row['per_second']:6,.0f}  {row['ratio']:4.1f}x | {row['per_second_stored']:6,.0f}  "
            f"{row['per_second_all']:6,.0f}"
        )


def measure(blocks: int) -> dict[str, Any]:
    """All rows with the kernel that this process has."""
    from openresource.ledger import tree
    from openresource.node.memory import collect_garbage_seldom

    collect_garbage_seldom()
    rows = {f"{profile} {kind}": row(profile, kind, blocks) for profile in PROFILES for kind in KINDS}
    return {
        "kernel": "plain" if tree.__file__.endswith(".py") else "compiled",
        "recovery_us": min(one["us"]["recover"] for one in rows.values()),
        "rows": rows,
    }


def row(profile: str, kind: str, blocks: int) -> dict[str, Any]:
    """One profile and one kind of transaction."""
    with tempfile.TemporaryDirectory() as home:
        us = timed(profile, kind, blocks, Path(home))
    executed = us["execute"] + us["seal"]
    stored = executed + us["store"]
    per_second = 1e6 / executed
    return {
        "us": us,
        "per_second": per_second,
        "per_second_stored": 1e6 / stored,
        "per_second_all": 1e6 / (stored + us["decode"] + us["recover"]),
        "reference_per_second": REFERENCE_PER_SECOND[kind],
        "ratio": per_second / REFERENCE_PER_SECOND[kind],
        # What the ratio would be at the speed of the machine that the reference figures come from.
        "ratio_quiet": per_second / REFERENCE_PER_SECOND[kind] * max(1.0, us["recover"] / RECOVERY_QUIET_US),
        "share_of_all": {
            name: us[name] / (stored + us["decode"] + us["recover"])
            for name in ("decode", "recover", "execute", "rules", "tree", "seal", "store")
        },
    }


def timed(profile: str, kind: str, blocks: int, home: Path) -> dict[str, float]:
    """CPU microseconds per transaction, step by step."""
    from openresource.ledger.rule_evaluation import eval_write_rule
    from openresource.ledger.verdicts import Auth, EvalContext
    from openresource.node.store import BlockBatch, Store
    from openresource.primitives.encoding import canonical_json_bytes, parse_json
    from openresource.primitives.keys import recover_address

    spent = dict.fromkeys(("decode", "recover", "execute", "seal", "store", "rules", "tree"), 0.0)
    with Store.open(home) as store:
        bench = BENCHES[profile](store)
        machine = bench.machine

        def keep(block: Any) -> None:
            nodes = bench.tree.collect_changes()
            store.append(
                BlockBatch(
                    height=block["number"],
                    block_hash=bytes.fromhex(block["hash"][2:]),
                    block=canonical_json_bytes(block),
                    nodes=nodes,
                    root_number=bench.tree.root_number,
                    transactions=[(bytes.fromhex(wire["hash"][2:]), b"") for wire in block["transactions"]],
                )
            )

        keep(machine.tip)
        bench.prepare(keep)
        changes: list[Any] = []
        for block in range(blocks):
            wires = [
                bench.wire(kind, block * BLOCK_TRANSACTIONS + number) for number in range(BLOCK_TRANSACTIONS)
            ]
            raw = [canonical_json_bytes(wire) for wire in wires]
            start = process_time()
            transactions = [bench.transaction(parse_json(one)) for one in raw]
            verified = process_time()
            for one in transactions:
                recover_address(bytes.fromhex(one.hash[2:]), one.signature, machine.network.chain_id)
            recovered = process_time()
            spent["recover"] += recovered - verified
            spent["decode"] += (verified - start) - (recovered - verified)
            bench.open()
            start = process_time()
            inserted = [machine.insert(one) for one in transactions]
            executed = process_time()
            sealed = machine.seal()
            ended = process_time()
            keep(sealed.block)
            spent["execute"] += executed - start
            spent["seal"] += ended - executed
            spent["store"] += process_time() - ended
            assert not any(one.has_failed for one in inserted), inserted[0].result
            changes = [one.changes for one in inserted]
        # The parts of an execution, alone: the rule of the write, and the same writes into the tree.
        bench.open()
        auth, context = Auth(bench.address), EvalContext(1, 10, 1, 2)
        state = machine._state
        start = process_time()
        for index, one in enumerate(transactions):
            labels = [*one.labels[0][:-2], f"again{index}", one.labels[0][-1]]
            eval_write_rule(state, labels, one.operation["value"], auth, context)
        spent["rules"] = (process_time() - start) * blocks
        start = process_time()
        for of_one in changes:
            bench.tree.backup()
            for change in of_one:
                bench.tree.write(change.path, change.value)
            bench.tree.drop_backup()
        spent["tree"] = (process_time() - start) * blocks
    return {name: seconds / (blocks * BLOCK_TRANSACTIONS) * 1e6 for name, seconds in spent.items()}


class OwnBench:
    """A chain of our profile with an app and two accounts."""

    gas_price = 0

    def __init__(self, store: Any) -> None:
        from openresource import protocol
        from openresource.ledger.genesis import TOTAL_SUPPLY_UAIN
        from openresource.ledger.tree import Tree

        self.now_ms = 1_800_000_000_000
        self.key, self.target = _key(b"bench"), _key(b"target").address
        self.address = self.key.address
        self.tree = Tree("canonical", store)
        document = {
            "network": "local",
            "chain_id": 100,
            "timestamp_ms": self.now_ms,
            "producer": self.address,
            "accounts": {self.address: TOTAL_SUPPLY_UAIN},
        }
        self.machine = protocol.begin(document, self.tree)

    def open(self) -> None:
        """The next block."""
        self.now_ms += 1_000
        self.machine.open_block(self.now_ms, self.address)

    def prepare(self, keep: Callable[[Any], None]) -> None:
        """An app, and a payment so that the second account is there."""
        self.open()
        app = {"admin": {self.address: True}}
        operations = (
            {"type": "SET_VALUE", "ref": "/manage_app/bench_app/create/1", "value": app},
            self.operation("transfer", -1),
        )
        for number, operation in enumerate(operations):
            inserted = self.machine.insert(self.transaction(self._signed(operation, number)))
            assert not inserted.has_failed, inserted.result
        keep(self.machine.seal().block)

    def operation(self, kind: str, number: int) -> dict[str, Any]:
        """The reference's own bench writes one path; each transfer has a key of its own."""
        if kind == "set":
            return {"type": "SET_VALUE", "ref": "/apps/bench_app/d/r/x/y", "value": number}
        path = f"/transfer/{self.address}/{self.target}/{number}/value"
        return {"type": "SET_VALUE", "ref": path, "value": 0.001}

    def wire(self, kind: str, number: int) -> dict[str, Any]:
        """A signed transaction as it travels."""
        return self._signed(self.operation(kind, number), number)

    def transaction(self, wire: dict[str, Any]) -> Any:
        """What a door makes of it."""
        from openresource.ledger.transactions import verified_transaction

        return verified_transaction(wire["tx_body"], wire["signature"], self.machine.network.chain_id)

    def _signed(self, operation: dict[str, Any], number: int) -> dict[str, Any]:
        from openresource.ledger.transactions import sign_transaction

        body = {
            "operation": operation,
            "nonce": -1,
            "timestamp": self.now_ms + number % BLOCK_TRANSACTIONS,
            "gas_price": self.gas_price,
        }
        return sign_transaction(body, self.key, self.machine.network.chain_id).to_json()


class AinBench(OwnBench):
    """AI Network's chain of one node after its genesis, with the changes of its protocol in force."""

    gas_price = 1

    def __init__(self, store: Any) -> None:
        from openresource import protocol
        from openresource.ledger.draft import NetworkDomain
        from openresource.ledger.execution import Executor
        from openresource.ledger.genesis import write_blank_state
        from openresource.ledger.machine import Machine
        from openresource.ledger.state import State
        from openresource.ledger.transactions import trusted_transaction
        from openresource.ledger.tree import Tree
        from openresource.primitives.keys import private_key_from_hex

        folder = ROOT / "tests" / "vectors" / "ain" / "genesis"
        config = json.loads((folder / "configs.json").read_text())["1-node"]
        bandages = json.loads((folder / "bandages.json").read_text())
        block = json.loads((folder / "1-node.genesis_block.json").read_text())
        accounts = json.loads((folder / "test_accounts.json").read_text())["others"]
        network = protocol.ain_network("1-node", config, bandages)
        self.now_ms = 1_700_000_000_000
        self.key = private_key_from_hex(accounts[1]["private_key"])
        self.address, self.target = self.key.address, accounts[2]["address"]
        self.tree = Tree("ain", store)
        write_blank_state(self.tree)
        domain = NetworkDomain(network.chain_id, block["hash"])
        executor = Executor(network, State(self.tree), domain)
        for wire in block["transactions"]:
            time_ms = block["timestamp"]
            executor.execute(trusted_transaction(wire), 0, time_ms, time_ms, skip_fees=True, restore=False)
        self.machine = Machine(network, self.tree, block, block["hash"])

    def prepare(self, keep: Callable[[Any], None]) -> None:
        """The first block turns the changes of the protocol on."""
        super().prepare(keep)
        self.open()
        keep(self.machine.seal().block)


BENCHES: dict[str, Callable[[Any], Any]] = {"openresource": OwnBench, "ain": AinBench}


def _key(name: bytes) -> Any:
    from openresource.primitives.hashing import keccak
    from openresource.primitives.keys import PrivateKey

    return PrivateKey(keccak(name))


if __name__ == "__main__":
    main()
