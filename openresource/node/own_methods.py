"""Our own JSON-RPC methods: status, reads at any level with proofs, pages of children, waiting, and the supply audit."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

from openresource.ledger.blocks import header_of
from openresource.ledger.nodes import Branch
from openresource.ledger.proofs import state_proof
from openresource.ledger.reads import ReadOptions, check_found, shown
from openresource.ledger.views import View
from openresource.market.supply import PEOPLE, Holder, audit_supply, walk_holders
from openresource.node.engine import Engine
from openresource.node.methods import AinMethods
from openresource.node.rpc import Answer, Immediate, Method, Params, answer
from openresource.primitives.errors import InvalidInput, Refusal
from openresource.primitives.hashing import is_hash
from openresource.primitives.numbers import is_integer
from openresource.primitives.paths import FUNCTIONS, OWNERS, RULES, VALUES, format_path, parse_path

CHILDREN_PER_PAGE_MAX = 1_000
WAIT_MS_MAX = 30_000
HOLDERS_PER_TURN = 500
_TREES = frozenset((VALUES, RULES, FUNCTIONS, OWNERS))


class UnknownHeight(Refusal):
    template = "There is no block {height}; the last one is {last_height}."
    way_out = "Ask for an earlier height, or wait."


class NoProofOfPending(Refusal):
    template = "What is pending is in no block yet, so nothing proves it."
    way_out = "Read at final, or at a height."


class OwnMethods:
    """Our methods over one engine."""

    def __init__(self, engine: Engine, ain_methods: AinMethods, version: str) -> None:
        self._engine = engine
        self._ain_methods = ain_methods
        self._version = version

    def methods(self) -> dict[str, Method]:
        """Those that may wait, by their names on the wire."""
        return {"ore_waitTransaction": self.wait_transaction, "ore_supply": self.supply}

    def immediate(self) -> dict[str, Immediate]:
        """All others."""
        return {"ore_status": self.status, "ore_read": self.read, "ore_children": self.children}

    def status_facts(self) -> dict[str, Any]:
        """What this node is and where its chain stands."""
        engine = self._engine
        network = engine.machine.network
        return {
            "network": network.name,
            "chain_id": network.chain_id,
            "genesis_hash": engine.machine.genesis_hash,
            "profile": network.profile.name,
            "height": engine.last_height(),
            "time_ms": engine.last_block["timestamp"],
            "version": self._version,
            "producer": engine.producer_address,
            "last_hash": engine.last_block["hash"],
            "pending": len(engine.pending_transactions()),
            "readers": engine.hub.reader_count(),
            "disk_full": engine.is_disk_full,
        }

    def status(self, params: Params) -> Answer:
        """Network, chain id, genesis hash, profile, height and time of the last final block, producer, version."""
        return answer(self.status_facts())

    def read(self, params: Params) -> Answer:
        """`{value, height, at}` of a path: `at` is pending, final (as if left out) or a height; with `proof` also its paper."""
        view, height, at = self._view(params)
        labels = [_tree(params), *parse_path(params.get("ref"))]
        options = ReadOptions(is_shallow=params.get("shallow") is True)
        node = view.node(labels)
        check_found(view.root, node, options)
        found = {"value": shown(node, options), "height": height, "at": at}
        if params.get("proof") is True:
            if at == "pending":
                raise NoProofOfPending()
            found["proof"] = self._paper(view, labels, height, found["value"])
        return answer(found)

    def _paper(self, view: View, labels: list[str], height: int, value: Any) -> dict[str, Any] | None:
        """Everything that somebody needs who knows the genesis hash alone."""
        proof = state_proof(view, labels, is_complete=True)
        if proof is None:
            return None
        block = (
            self._engine.last_block if height == self._engine.last_height() else self._engine.block(height)
        )
        genesis = self._engine.block(0)
        assert block is not None and genesis is not None
        return {
            "ref": format_path(labels),
            "value": value,
            "proof": proof,
            "block": header_of(block),
            "hash": block["hash"],
            "signature": block.get("signature"),
            "genesis": header_of(genesis),
            "genesis_hash": self._engine.machine.genesis_hash,
            "chain_id": self._engine.machine.network.chain_id,
        }

    def children(self, params: Params) -> Answer:
        """`{labels, branches, height, next}`: labels below a path, at most 1,000; `next` goes into `after` for more."""
        view, height, _ = self._view(params)
        limit = params.get("limit", CHILDREN_PER_PAGE_MAX)
        after = params.get("after", "")
        if not is_integer(limit) or not 0 < limit <= CHILDREN_PER_PAGE_MAX:
            raise InvalidInput(what="limit", reason=f"it is not an integer from 1 to {CHILDREN_PER_PAGE_MAX}")
        if not isinstance(after, str):
            raise InvalidInput(what="after", reason="it is not the next of a page before")
        node = view.node([_tree(params), *parse_path(params.get("ref"))])
        labels: list[str] = []
        branches: dict[str, bool] = {}
        key = None
        following = None
        if isinstance(node, Branch):
            for radix, holder in node.children_in_radix_order(after):
                if len(labels) == limit:
                    following = key
                    break
                key = radix
                labels.append(holder.label)
                branches[holder.label] = isinstance(holder.value, Branch)
        found = {"labels": labels, "branches": branches, "height": height}
        return answer(found if following is None else {**found, "next": following})

    async def wait_transaction(self, params: Params) -> Answer:
        """Waits until a transaction is final, at most 30 s, then answers like `ain_getTransactionByHash`."""
        tx_hash = params.get("hash")
        timeout_ms = params.get("timeout_ms", 0)
        if not is_hash(tx_hash):
            raise InvalidInput(what="hash", reason="it is not 0x and 64 lower-case hex digits")
        if not is_integer(timeout_ms) or not 0 <= timeout_ms <= WAIT_MS_MAX:
            raise InvalidInput(what="timeout_ms", reason=f"it is not an integer from 0 to {WAIT_MS_MAX}")
        assert isinstance(tx_hash, str)
        await self._engine.wait_final(tx_hash, timeout_ms / 1000)
        return answer(self._ain_methods.transaction_info(tx_hash))

    async def supply(self, params: Params) -> Answer:
        """The sum over every holder of a final state, found by walking them all; nothing is taken from a counter."""
        view, height, at = self._view(params)
        if at == "pending":
            raise InvalidInput(
                what="at", reason="the audit reads a state that stays as it is: final or a height"
            )
        holders: list[Holder] = []
        for holder in walk_holders(_Holders(view)):
            holders.append(holder)
            if len(holders) % HOLDERS_PER_TURN == 0:
                await asyncio.sleep(0)
        supply = audit_supply(holders)
        by_kind = dict(supply.by_kind)
        accounts_uain = by_kind.pop(PEOPLE, 0)
        return answer(
            {
                "total_uain": supply.total_uain,
                "accounts_uain": accounts_uain,
                "service_accounts_uain": by_kind,
                "holders": supply.holders,
                "height": height,
                "at": at,
            }
        )

    def _view(self, params: Mapping[str, Any]) -> tuple[View, int, str]:
        engine = self._engine
        at = params.get("at", "final")
        if at == "final":
            return engine.final(), engine.last_height(), "final"
        if at == "pending":
            return engine.pending(), engine.last_height() + 1, "pending"
        if not is_integer(at):
            raise InvalidInput(what="at", reason="it is none of pending, final and a height")
        view = engine.view_at(int(at))
        if view is None:
            raise UnknownHeight(height=int(at), last_height=engine.last_height())
        return view, int(at), "height"


def _tree(params: Params) -> str:
    tree = params.get("tree", VALUES)
    if tree not in _TREES:
        raise InvalidInput(what="tree", reason="it is none of values, rules, functions and owners")
    return str(tree)


class _Holders:
    """The accounts of a view, for the audit."""

    def __init__(self, view: View) -> None:
        self._view = view

    def labels(self, *path: str) -> list[str]:
        node = self._view.node([VALUES, *path])
        return [label for label, _ in node.children()] if isinstance(node, Branch) else []

    def value(self, *path: str) -> Any:
        return self._view.get([VALUES, *path])
