"""What a transaction costs a node in AI Network's place behind its door: pool, blocks, votes, disk and front state.

Run `python bench/ain_chain.py [--json]`. One validator alone in its network, in this process and with a clock of its own:
each epoch some transactions are submitted and the epoch's rounds are run. Figures are microseconds of CPU for each
transaction, so that other work on the machine hardly matters; signatures are verified before and counted nowhere.
"""

from __future__ import annotations

import argparse
import cProfile
import json
import pstats
import secrets
import statistics
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from time import process_time
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from openresource.ledger.transactions import Transaction, sign_transaction, trusted_transaction  # noqa: E402
from openresource.node.ain.chain import SERVING, AinChain, Snapshot, genesis_state  # noqa: E402
from openresource.node.ain.pool import PoolLimits  # noqa: E402
from openresource.node.ain.rounds import RUNNING, Rounds  # noqa: E402
from openresource.node.ain.settings import AinSettings  # noqa: E402
from openresource.node.ain.storage import ChainStorage  # noqa: E402
from openresource.node.memory import collect_garbage_seldom  # noqa: E402
from openresource.primitives.keys import PrivateKey, generate_key  # noqa: E402

SENDERS = 20
GIFT_AIN = 100
STAKE_AIN = 1
APP = "bench_chain"


class Alone:
    """One node without sockets, and its clock."""

    def __init__(self, folder: Path) -> None:
        accounts = json.loads((ROOT / "tests/vectors/ain/genesis/test_accounts.json").read_text())["others"]
        self.key, self.owner = (PrivateKey(bytes.fromhex(one["private_key"])) for one in accounts[:2])
        environment = {
            "BLOCKCHAIN_CONFIGS_DIR": "1-node",
            "UNSAFE_PRIVATE_KEY": accounts[0]["private_key"],
            "PORT": "9",
        }
        settings = AinSettings.from_environment(environment, folder)
        self.storage = ChainStorage(folder / "chain", folder / "snapshots")
        network = settings.network
        self.chain = AinChain(
            network,
            settings.genesis,
            self.storage,
            limits=PoolLimits(1_000_000, 1_000_000),
            start=Snapshot(settings.genesis, genesis_state(network, settings.genesis)),
        )
        self.chain.node_state = SERVING
        self.epoch_ms = 1000
        self._epoch_begun_ms: int = settings.genesis["timestamp"] + 10 * self.epoch_ms
        self._begun = process_time()
        self.rounds = Rounds(
            self.chain,
            self.storage,
            self.key,
            self.now_ms,
            lambda kind, data, sender: None,
            lambda: None,
            lambda entry: None,
        )
        self.rounds.state = RUNNING
        self.senders = [generate_key(secrets.token_bytes(32)) for _ in range(SENDERS)]
        self._last_ms = self._epoch_begun_ms

    def now_ms(self) -> int:
        """The epoch's beginning and the CPU time since."""
        return self._epoch_begun_ms + int((process_time() - self._begun) * 1000)

    def tick(self) -> None:
        """The next epoch."""
        self._epoch_begun_ms += self.epoch_ms
        self._begun = process_time()
        self.rounds.tick()

    def signed(self, key: PrivateKey, ref: str, value: Any) -> Transaction:
        """A transaction; no two have the same time."""
        self._last_ms += 1
        operation = {"type": "SET_VALUE", "ref": ref, "value": value}
        body = {"operation": operation, "nonce": -1, "timestamp": self._last_ms, "gas_price": 1}
        return sign_transaction(body, key, self.chain.network.chain_id)

    def submit(self, transaction: Transaction) -> None:
        """Executed and in the pool."""
        result = self.chain.submit(transaction, self.now_ms())
        assert result["code"] == 0, result

    def prepare(self) -> None:
        """An app that anybody may write, for which somebody has staked, and senders with money."""
        for _ in range(4):
            self.tick()
        app = {"admin": {self.owner.address: True}, "is_public": True}
        self.submit(self.signed(self.owner, f"/manage_app/{APP}/create/1", app))
        self.submit(
            self.signed(self.owner, f"/staking/{APP}/{self.owner.address}/0/stake/1/value", STAKE_AIN)
        )
        for number, sender in enumerate(self.senders):
            path = f"/transfer/{self.owner.address}/{sender.address}/{number}/value"
            self.submit(self.signed(self.owner, path, GIFT_AIN))
        for _ in range(4):
            self.tick()
        assert self.waiting == 0, self.waiting

    @property
    def waiting(self) -> int:
        """Transactions that are not final, without votes and proposals."""
        accounts = self.chain.pool.accounts
        return sum(len(listed) for address, listed in accounts.items() if address != self.key.address)

    def transaction(self, kind: str, at: int) -> Transaction:
        """One write of the app, or one transfer to the next sender."""
        sender = self.senders[at % SENDERS]
        if kind == "set":
            return self.signed(sender, f"/apps/{APP}/d/{at % 50}/x", at)
        target = self.senders[(at + 1) % SENDERS].address
        return self.signed(sender, f"/transfer/{sender.address}/{target}/{secrets.token_hex(6)}/value", 0.001)


def measure(kind: str, count: int, epochs: int, profiled: Path | None) -> dict[str, float]:
    """A number of transactions in each of some epochs, and then epochs until all are final."""
    with tempfile.TemporaryDirectory() as folder:
        node = Alone(Path(folder))
        node.prepare()
        made = [
            [node.transaction(kind, epoch * count + at) for at in range(count)] for epoch in range(epochs)
        ]
        submitting: list[float] = []
        ticking: list[float] = []
        with profile_into(profiled):
            for transactions in made:
                # As they come in through the door: parsed anew.
                fresh = [trusted_transaction(one.to_json()) for one in transactions]
                begun = process_time()
                for one in fresh:
                    node.submit(one)
                submitting.append(process_time() - begun)
                begun = process_time()
                node.tick()
                ticking.append(process_time() - begun)
            trailing = 0
            begun = process_time()
            while node.waiting:
                node.tick()
                trailing += 1
            after = process_time() - begun
        total = count * epochs
        sizes = [len(block["transactions"]) for block in blocks_of(node)]
        node.storage.close()
        assert sum(sizes) >= total
        return {
            "submit_us": sum(submitting) / total * 1e6,
            "ticks_us": (sum(ticking) + after) / total * 1e6,
            "all_us": (sum(submitting) + sum(ticking) + after) / total * 1e6,
            "longest_tick_ms": max(ticking) * 1e3,
            "median_tick_ms": statistics.median(ticking) * 1e3,
            "epochs_after": trailing,
            "largest_block": max(sizes),
        }


def blocks_of(node: Alone) -> Iterator[dict[str, Any]]:
    """All final blocks."""
    for number in range(1, node.chain.final_number + 1):
        block = node.chain.block(number)
        assert block is not None
        yield block


@contextmanager
def profile_into(path: Path | None) -> Iterator[None]:
    """Writes down where the time goes."""
    if path is None:
        yield
        return
    profile = cProfile.Profile()
    profile.enable()
    try:
        yield
    finally:
        profile.disable()
        pstats.Stats(profile).dump_stats(path)


def main() -> None:
    """Both kinds."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--kind", choices=("set", "transfer"), action="append", default=[])
    parser.add_argument("--count", type=int, default=1_000, help="transactions in each epoch (default: 1000)")
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--profile", type=Path, help="write a profile of the functions to this file")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    arguments = parser.parse_args()
    collect_garbage_seldom()
    rows = {
        kind: measure(kind, arguments.count, arguments.epochs, arguments.profile)
        for kind in arguments.kind or ["set", "transfer"]
    }
    if arguments.json:
        print(json.dumps(rows))
        return
    for kind, row in rows.items():
        print(kind, "; ".join(f"{name} {value:,.1f}" for name, value in row.items()))


if __name__ == "__main__":
    main()
