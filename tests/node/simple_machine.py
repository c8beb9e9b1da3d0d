"""A small machine for tests of the engine: writes values and nothing else, in the real tree."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from openresource.ledger.blocks import build_block
from openresource.ledger.draft import Change
from openresource.ledger.machine import Inserted, SealedBlock
from openresource.ledger.profile import Network
from openresource.ledger.transactions import Transaction
from openresource.ledger.tree import Tree
from openresource.primitives.paths import parse_path

REFUSED_NONCE = 99
FAILING_VALUE = "fail"


class SimpleMachine:
    """SET_VALUE and SET of values; one nonce is refused, one value fails, entries of /due are removed when due."""

    def __init__(self, network: Network, tree: Tree, tip: Mapping[str, Any], genesis_hash: str) -> None:
        self.network = network
        self.genesis_hash = genesis_hash
        self.mistakes: list[str] = []
        self._tree = tree
        self._tip = tip
        self._at_ms: int | None = None
        self._inserted: list[Inserted] = []
        self._opening: tuple[Change, ...] = ()

    @property
    def tip(self) -> Mapping[str, Any]:
        return self._tip

    @property
    def height(self) -> int:
        return int(self._tip["number"])

    @property
    def is_open(self) -> bool:
        return self._at_ms is not None

    @property
    def open_count(self) -> int:
        return len(self._inserted)

    @property
    def next_due_ms(self) -> int | None:
        due = self._tree.get(["values", "due"])
        return int(min(due)[:15]) if isinstance(due, dict) else None

    def open_block(self, at_ms: int, proposer: str, validators: Any = None) -> tuple[Change, ...]:
        assert self._at_ms is None
        due = self._tree.get(["values", "due"])
        self._tree.backup()
        self._at_ms = max(at_ms, self._tip["timestamp"] + 1)
        self._proposer = proposer
        changes = []
        for label in sorted(due) if isinstance(due, dict) else ():
            if int(label[:15]) <= self._at_ms:
                self._tree.write(["values", "due", label], None)
                changes.append(Change(("values", "due", label), None, "due"))
        self._opening = tuple(changes)
        return self._opening

    def insert(self, transaction: Transaction) -> Inserted:
        if transaction.nonce == REFUSED_NONCE:
            return Inserted(transaction, {"code": 10712, "message": "Invalid nonce"}, (), False, True, -1)
        operation = transaction.operation
        operations = operation.get("op_list", [operation])
        position = len(self._inserted)
        if any(one["value"] == FAILING_VALUE for one in operations):
            inserted = Inserted(transaction, {"code": 12103, "message": "no"}, (), True, True, position)
        else:
            changes = []
            for one in operations:
                labels = ["values", *parse_path(one["ref"])]
                self._tree.write(labels, one["value"])
                changes.append(Change(tuple(labels), one["value"], "user"))
            inserted = Inserted(transaction, {"code": 0}, tuple(changes), True, False, position)
        self._inserted.append(inserted)
        return inserted

    def dry_run(self, transaction: Transaction) -> Inserted:
        return Inserted(transaction, {"code": 0, "gas_amount_total": {}}, (), True, False, -1)

    def seal(self) -> SealedBlock:
        assert self._at_ms is not None
        self._tree.drop_backup()
        root = self._tree.root_hash()
        block = build_block(
            last_hash=self._tip["hash"],
            last_votes=[],
            evidence={},
            transactions=[one.transaction.to_json() for one in self._inserted],
            receipts=[{"code": one.result["code"]} for one in self._inserted],
            number=self.height + 1,
            epoch=0,
            timestamp=self._at_ms,
            state_proof_hash=root or "",
            proposer=self._proposer,
            validators={self._proposer: {"stake": 1, "proposal_right": True}},
            gas_amount_total=0,
            gas_cost_total=0,
        )
        sealed = SealedBlock(
            block, block["number"], self._at_ms, block["hash"], self._opening, tuple(self._inserted)
        )
        self._tip, self._at_ms, self._inserted, self._opening = block, None, [], ()
        return sealed

    def drop_open_block(self) -> None:
        self._tree.restore()
        self._at_ms, self._inserted, self._opening = None, [], ()

    def recall(self, blocks: Iterable[Mapping[str, Any]]) -> None:
        pass


def first_block(proposer: str) -> dict[str, Any]:
    """The block that a chain of this machine begins with."""
    return build_block(
        last_hash="",
        last_votes=[],
        evidence={},
        transactions=[],
        receipts=[],
        number=0,
        epoch=0,
        timestamp=1_000,
        state_proof_hash="",
        proposer=proposer,
        validators={proposer: {"stake": 1, "proposal_right": True}},
        gas_amount_total=0,
        gas_cost_total=0,
    )
