"""How signed transactions come in: the checks at the door, in AI Network's order, then execution.

Who signed is found out by `Signers`, in processes of their own when there is much of it.
"""

from __future__ import annotations

from typing import Any

from openresource.ledger.machine import Inserted
from openresource.ledger.transactions import (
    ClaimedTransaction,
    InvalidTransactionBody,
    Transaction,
    claimed_transaction,
    signed_transaction,
)
from openresource.node.engine import AlreadyReceived, DiskFull, Engine, NodeBusy, NodeStopping
from openresource.node.listed import DoorRefusal, checked_in_turns
from openresource.node.rpc import Answer, Params, answer, refused
from openresource.primitives.errors import Refusal
from openresource.primitives.values import size_of

TRANSACTION_BYTES_MAX = 100_000
BATCH_LIST_MAX = 50

# The codes of one transaction, and of one in a list: size, missing, format, signature.
_SINGLE = (30301, 30302, 30303, 30304)
_LISTED = (30403, 30404, 30405, 30406)


class Submission:
    """Takes transactions for one engine."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        # The limits of the last final block; reading them for every transaction would cost as much as a write.
        self._limits: dict[str, int] = {}
        self._limits_of: object = None

    async def single(self, params: Params) -> Answer:
        """`ain_sendSignedTransaction`."""
        try:
            transaction = await self._single(params)
        except DoorRefusal as refusal:
            return refused(refusal.code, refusal.message)
        return answer(await self._submitted(transaction))

    async def dry_run(self, params: Params) -> Answer:
        """`ain_sendSignedTransactionDryrun`."""
        try:
            transaction = await self._single(params)
        except DoorRefusal as refusal:
            return refused(refusal.code, refusal.message)
        inserted = await self._engine.dry_run(transaction)
        result = (
            {**inserted.result, "is_dryrun": True}
            if "gas_amount_total" in inserted.result
            else inserted.result
        )
        return answer({"tx_hash": transaction.hash, "result": result})

    async def batch(self, params: Params) -> Answer:
        """`ain_sendSignedTransactionBatch`: one bad element refuses the whole list before anything is executed."""
        listed = params.get("tx_list")
        if not isinstance(listed, list) or not listed:
            return refused(30401, "Invalid batch transaction format.")
        list_max = self._limit("batch_tx_list_size_limit", BATCH_LIST_MAX)
        if len(listed) > list_max:
            return refused(30402, f"Batch transaction list size exceeds its limit: {list_max}.")
        try:
            transactions = await self._listed(listed)
        except DoorRefusal as refusal:
            return refused(refusal.code, refusal.message)
        return answer([await self._submitted(transaction) for transaction in transactions])

    async def _single(self, params: Params) -> Transaction:
        claimed = self._checked(params, None)
        (address,) = await self._engine.signers.recover([claimed.record])
        return _signed(claimed, address, None)

    async def _listed(self, listed: list[Any]) -> list[Transaction]:
        """The transactions of a list; the first element with anything wrong is the one that is told about."""
        claims, trouble = await checked_in_turns(listed, self._checked)
        signers = await self._engine.signers.recover([claimed.record for claimed in claims])
        found = [
            _signed(claimed, address, index)
            for index, (claimed, address) in enumerate(zip(claims, signers, strict=True))
        ]
        if trouble is not None:
            raise trouble
        return found

    def _checked(self, wire: Any, index: int | None) -> ClaimedTransaction:
        """Everything about a transaction but whose it is."""
        codes = _SINGLE if index is None else _LISTED
        body = wire.get("tx_body") if isinstance(wire, dict) else None
        signature = wire.get("signature") if isinstance(wire, dict) else None
        if not body or not signature:
            raise DoorRefusal(
                codes[1],
                "Missing properties." if index is None else f"Missing properties of transaction[{index}].",
            )
        bytes_max = self._limit("tx_bytes_limit", TRANSACTION_BYTES_MAX)
        if size_of(body) > bytes_max:
            whose = "Transaction size exceeds" if index is None else f"Transaction[{index}]'s size exceededs"
            raise DoorRefusal(codes[0], f"{whose} its limit: {bytes_max} bytes.")
        try:
            return claimed_transaction(body, signature, self._engine.machine.network.chain_id)
        except InvalidTransactionBody as refusal:
            whose = (
                "Invalid transaction format." if index is None else f"Invalid format of transaction[{index}]."
            )
            raise DoorRefusal(codes[2], whose) from refusal
        except Refusal as refusal:
            raise _signature_refusal(index) from refusal

    async def _submitted(self, transaction: Transaction) -> dict[str, Any]:
        try:
            inserted: Inserted = await self._engine.submit(transaction)
        except (AlreadyReceived, DiskFull, NodeBusy, NodeStopping) as refusal:
            result = {"message": str(refusal), "code": refusal.result_code, "bandwidth_gas_amount": 0}
            return {"tx_hash": transaction.hash, "result": result}
        return {"tx_hash": transaction.hash, "result": inserted.result}

    def _limit(self, name: str, default: int) -> int:
        block = self._engine.last_block
        if self._limits_of is not block:
            self._limits.clear()
            self._limits_of = block
        limit = self._limits.get(name)
        if limit is None:
            found = self._engine.final().get(["values", "blockchain_params", "resource", name])
            limit = int(found) if isinstance(found, int | float) and found > 0 else default
            self._limits[name] = limit
        return limit


def _signed(claimed: ClaimedTransaction, address: str, index: int | None) -> Transaction:
    try:
        return signed_transaction(claimed, address)
    except Refusal as refusal:
        raise _signature_refusal(index) from refusal


def _signature_refusal(index: int | None) -> DoorRefusal:
    if index is None:
        return DoorRefusal(_SINGLE[3], "Invalid transaction signature.")
    return DoorRefusal(_LISTED[3], f"Invalid signature of transaction[{index}].")
