"""AI Network's chains for tests: a network from the vectors' configuration, and its state after the genesis."""

from __future__ import annotations

from typing import Any

from openresource import protocol
from openresource.ledger.draft import NetworkDomain
from openresource.ledger.execution import Execution, Executor
from openresource.ledger.genesis import write_blank_state
from openresource.ledger.profile import Network
from openresource.ledger.state import State
from openresource.ledger.transactions import trusted_transaction
from openresource.ledger.tree import Tree
from tests.vectors_support import load_vectors


def ain_network(config: str) -> Network:
    """The network of a configuration of the vectors."""
    configs = load_vectors("ain/genesis/configs.json")
    return protocol.ain_network(config, configs[config], load_vectors("ain/genesis/bandages.json"))


class AinChain:
    """A working state of AI Network after its genesis."""

    def __init__(self, config: str) -> None:
        self.network = ain_network(config)
        self.block = load_vectors(f"ain/genesis/{config}.genesis_block.json")
        self.tree = Tree("ain")
        self.state = State(self.tree)
        write_blank_state(self.tree)
        domain = NetworkDomain(self.network.chain_id, self.block["hash"])
        self.executor = Executor(self.network, self.state, domain)
        self.blank_hash = self.tree.root_hash()
        self.hashes: list[str | None] = []
        self.executions: list[Execution] = []
        for wire in self.block["transactions"]:
            time_ms: Any = self.block["timestamp"]
            execution = self.executor.execute(
                trusted_transaction(wire), 0, time_ms, time_ms, skip_fees=True, restore=False
            )
            self.executions.append(execution)
            self.hashes.append(self.tree.root_hash())
