"""The context of one transaction's execution: who, when, in which block, and what it has changed so far."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final

from openresource.ledger.draft import Change, NetworkDomain
from openresource.ledger.functions import Trigger
from openresource.ledger.profile import Network
from openresource.ledger.rule_evaluation import eval_write_rule
from openresource.ledger.state import Limits, State
from openresource.ledger.verdicts import SUCCESS, Auth, EvalContext

# Who wrote, the labels below /values, what stood there, what stands there now.
WriteObserver = Callable[[Auth, list[str], Any, Any], None]
# The entry of a REST function, what it is told, who wrote, and the context: the node calls it, nobody waits for it.
RestCaller = Callable[[dict[str, Any], Trigger, Auth, Any], None]

LOWER_CASE_NAMES: Final = "allow_lower_case_app_names_only"


class BlockContext:
    """What all transactions of a block have in common."""

    __slots__ = ("block_number", "block_time", "domain", "enabled", "lower_case_from", "network", "state")

    def __init__(
        self, network: Network, state: State, domain: NetworkDomain, block_number: int, block_time: int
    ) -> None:
        self.network: Network = network
        self.state: State = state
        self.domain: NetworkDomain = domain
        self.block_number: int = block_number
        self.block_time: int = block_time
        self.enabled: frozenset[str] = network.enabled_at(block_number)
        self.lower_case_from: int | None = network.enabled_block(LOWER_CASE_NAMES)


class TxContext:
    """What every write inside a transaction needs to know."""

    __slots__ = (
        "address",
        "block_number",
        "block_time",
        "changes",
        "domain",
        "enabled",
        "evaluation",
        "executed_at",
        "mistakes",
        "network",
        "nonce",
        "observer",
        "rest",
        "state",
        "timestamp",
        "tx_hash",
    )

    def __init__(
        self,
        block: BlockContext,
        address: str,
        nonce: Any,
        timestamp: Any,
        tx_hash: str,
        executed_at: int,
    ) -> None:
        self.network: Network = block.network
        self.state: State = block.state
        self.domain: NetworkDomain = block.domain
        self.enabled: frozenset[str] = block.enabled
        self.address: str = address
        self.nonce: Any = nonce
        self.timestamp: Any = timestamp
        self.tx_hash: str = tx_hash
        self.block_number: int = block.block_number
        self.block_time: int = block.block_time
        self.executed_at: int = executed_at
        # Is told of every value that is written, with what stood there before; None where nobody looks.
        self.observer: WriteObserver | None = None
        # Calls REST functions; None on nodes and in executions that do not.
        self.rest: RestCaller | None = None
        self.changes: list[Change] = []
        # What went wrong inside of natives, for the node's log; never part of a result.
        self.mistakes: list[str] = []
        self.evaluation: EvalContext = EvalContext(
            timestamp, block.block_number, block.block_time, block.lower_case_from
        )

    def parameter(self, category: str, name: str) -> Any:
        """A parameter in force: the state's, or the network's own before the state has any."""
        if self.block_number > 0:
            return self.state.parameter(category, name)
        return self.network.configured(category, name)

    def is_enabled(self, flag: str) -> bool:
        """Whether a change of the protocol is in force in this block."""
        return flag in self.enabled

    @property
    def limits(self) -> Limits:
        """The limits in force; a write may change them for the next one."""
        if self.block_number > 0:
            return self.state.limits
        return Limits(self._configured_resource)

    def _configured_resource(self, name: str) -> Any:
        return self.network.configured("resource", name)

    # -- the state as natives with a draft see it --------------------------------------------------------------------

    def read_value(self, labels: Sequence[str]) -> Any:
        """The value at labels below /values; None if there is none."""
        return self.state.read_value(labels)

    def write_value(self, labels: Sequence[str], value: Any) -> None:
        """Writes below /values without any check; None deletes."""
        self.state.write_value(labels, value)

    def rule_allows(self, labels: Sequence[str], value: Any, signer: str) -> bool:
        """Whether the write rules would let a signer write a value there now."""
        return eval_write_rule(self.state, list(labels), value, Auth(signer), self.evaluation).code == SUCCESS
