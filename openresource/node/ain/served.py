"""What the door of an AI Network node needs of the node behind it; the engine is one, tests may be others."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from openresource.ledger.transactions import Transaction
from openresource.node.ain.chain import AinChain
from openresource.node.ain.parameters import NodeParameters
from openresource.node.ain.traffic import Traffic
from openresource.node.signers import Signers
from openresource.primitives.keys import PrivateKey

Facts = dict[str, Any]


class EventHandlerFacts(Protocol):
    """What the event handler tells about itself."""

    def network_info(self) -> Facts:
        """Its url, and how many channels and filters there are and may be."""
        ...

    def filter_info(self) -> Facts:
        """Every filter by its id."""
        ...

    def channel_info(self) -> Facts:
        """Every channel by its id."""
        ...

    def status(self) -> Facts:
        """All of it, as the status of a node shows it."""
        ...

    def has_room(self) -> bool:
        """Whether one more channel and one more filter would be taken."""
        ...


class ServedNode(Protocol):
    """A running node."""

    @property
    def chain(self) -> AinChain: ...

    @property
    def parameters(self) -> NodeParameters: ...

    @property
    def timer_flags(self) -> Mapping[str, Any]:
        """The network's file of the blocks from which changes of the protocol are in force."""
        ...

    @property
    def traffic(self) -> Traffic: ...

    @property
    def signers(self) -> Signers:
        """Who finds out whose signatures are."""
        ...

    @property
    def key(self) -> PrivateKey | None:
        """The key of the node's account; None before one is injected."""
        ...

    @property
    def events(self) -> EventHandlerFacts | None:
        """The event handler; None on a node without one."""
        ...

    def now_ms(self) -> int:
        """The wall clock."""
        ...

    def submit(self, transaction: Transaction, *, is_dry_run: bool = False) -> Facts:
        """Execute a verified transaction, and pass it on to the peers unless it fails or is only tried."""
        ...

    def consensus_status(self) -> Facts:
        """As `net_consensusStatus` answers."""
        ...

    def raw_consensus_status(self) -> Facts:
        """As `net_rawConsensusStatus` answers."""
        ...

    def broadcast_consensus(self, message: Any) -> None:
        """Send a message of the consensus to the peers as it is; this node itself does not take it."""
        ...

    def network_status(self) -> Facts:
        """`{urls, connectionStatus}` as `p2p_getPeerCandidateInfo` shows them."""
        ...

    def peer_urls(self) -> dict[str, str]:
        """The JSON-RPC url of every peer that this node has connected to, by address."""
        ...

    def inject(self, key: PrivateKey) -> bool:
        """Take a key as that of the node's account and begin; False if there is one."""
        ...
