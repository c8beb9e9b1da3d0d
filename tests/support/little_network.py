"""Validators without sockets: their messages go through a queue, and the test says when an epoch begins."""

from __future__ import annotations

import copy
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any

from openresource.node.ain.chain import SERVING, AinChain, Snapshot, proposal_of
from openresource.node.ain.rounds import RUNNING, Rounds
from openresource.node.ain.storage import ChainStorage
from openresource.primitives.keys import PrivateKey
from tests.support.ain import ain_network
from tests.vectors_support import load_vectors

EPOCH_MS = 1000
GENESIS = load_vectors("ain/genesis/3-nodes.genesis_block.json")
GENESIS_ALONE = load_vectors("ain/genesis/1-node.genesis_block.json")
KEYS = [
    PrivateKey(bytes.fromhex(account["private_key"]))
    for account in load_vectors("ain/genesis/test_accounts.json")["others"][:4]
]


class Member:
    """One node of the network, with a directory of its own."""

    def __init__(self, network: LittleNetwork, key: PrivateKey, folder: Path) -> None:
        self.network = network
        self.key = key
        self.folder = folder
        self.asked = 0
        self.said: list[tuple[str, Any]] = []
        # What this member does to its messages before they go out.
        self.twist: Callable[[str, Any], Any] = lambda kind, data: data
        self.open()

    def open(self) -> None:
        self.storage = ChainStorage(self.folder / "chain", self.folder / "snapshots")
        found = self.storage.newest_snapshot()
        self.chain = AinChain(
            ain_network(self.network.configuration),
            copy.deepcopy(self.network.genesis),
            self.storage,
            start=None if found is None else Snapshot(*found),
        )
        block = self.storage.block(self.chain.final_number + 1)
        while block is not None:
            following = self.storage.block(block["number"] + 1)
            self.chain.add_block(block, proposal_of(following), self.network.now_ms)
            self.chain.finalise(self.network.now_ms)
            block = following
        self.chain.node_state = SERVING
        self.rounds = Rounds(
            self.chain,
            self.storage,
            self.key,
            self.network.clock_ms,
            self._say,
            self._ask,
            lambda entry: None,
        )
        self.rounds.restore(self.storage.papers())
        self.rounds.state = RUNNING

    def crash(self) -> None:
        """Everything in memory is gone."""
        self.storage.close()

    def _say(self, kind: str, data: Any, sender: str | None) -> None:
        self.said.append((kind, data))
        self.network.deliver(self, self.twist(kind, copy.deepcopy(data)))

    def _ask(self) -> None:
        self.asked += 1


class LittleNetwork:
    """Members that hear one another, unless they are away, and a clock for all of them."""

    def __init__(self, folder: Path, count: int) -> None:
        """One member alone has a network for one; several have that for three."""
        self.configuration, self.genesis = ("1-node", GENESIS_ALONE) if count == 1 else ("3-nodes", GENESIS)
        self.now_ms: int = self.genesis["timestamp"] + 10 * EPOCH_MS
        # How far the clock goes on when somebody looks at it.
        self.look_ms = 0
        self.away: set[str] = set()
        self._queue: deque[tuple[Member, Any]] = deque()
        self.members: list[Member] = []
        for index in range(count):
            self.members.append(Member(self, KEYS[index], folder / str(index)))

    def clock_ms(self) -> int:
        """What the members' clocks say."""
        self.now_ms += self.look_ms
        return self.now_ms

    def deliver(self, sender: Member, data: Any) -> None:
        if data is None or sender.key.address in self.away:
            return
        for member in self.members:
            if member is not sender and member.key.address not in self.away:
                self._queue.append((member, data))

    def epoch(self) -> None:
        self.now_ms += EPOCH_MS - (self.now_ms - self.genesis["timestamp"]) % EPOCH_MS
        for member in self.members:
            if member.key.address not in self.away:
                member.rounds.tick()
        while self._queue:
            member, data = self._queue.popleft()
            member.rounds.take(data, None)

    def close(self) -> None:
        for member in self.members:
            member.storage.close()
