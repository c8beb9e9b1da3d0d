"""How signed transactions come in: the checks at the door in AI Network's order, then execution on the front state."""

from __future__ import annotations

from typing import Any, Final

from openresource.ledger.transactions import (
    ClaimedTransaction,
    InvalidTransactionBody,
    Transaction,
    check_body,
    claimed_transaction,
    signed_transaction,
    trusted_transaction,
)
from openresource.node.ain.chain import SERVING
from openresource.node.ain.parameters import NodeParameters
from openresource.node.ain.served import ServedNode
from openresource.node.listed import DoorRefusal, checked_in_turns
from openresource.node.rpc import Answer, Params, answer, refused
from openresource.primitives.errors import Refusal
from openresource.primitives.hashing import hash_transaction
from openresource.primitives.keys import hash_from_signature
from openresource.primitives.numbers import is_number
from openresource.primitives.values import size_of

TRANSACTION_BYTES_MAX: Final = 100_000
BATCH_LIST_MAX: Final = 50
INVALID_SIGNATURE: Final = 10703
NOT_TAKEN: Final[dict[str, Any]] = {"tx_hash": None, "result": False}

# The codes of one transaction, and of one in a list: size, missing, format, signature.
_SINGLE: Final = (30301, 30302, 30303, 30304)
_LISTED: Final = (30403, 30404, 30405, 30406)


class LateRefusal(Exception):
    """A signature that does not fit, on a node that looks at signatures only when it executes."""

    def __init__(self, tx_hash: str) -> None:
        super().__init__(tx_hash)
        self.tx_hash = tx_hash


_Checked = ClaimedTransaction | Transaction | LateRefusal


class Submission:
    """Takes transactions for one node."""

    def __init__(self, node: ServedNode) -> None:
        self._node = node
        # The limits after the last final block; looking for them costs more than all other checks but the hash.
        self._limits: dict[str, int] = {}
        self._limits_of: tuple[object, int] | None = None

    async def single(self, params: Params) -> Answer:
        """The answer of `ain_sendSignedTransaction`."""
        return await self._one(params, is_dry_run=False)

    async def dry_run(self, params: Params) -> Answer:
        """The answer of `ain_sendSignedTransactionDryrun`."""
        return await self._one(params, is_dry_run=True)

    async def batch(self, params: Params) -> Answer:
        """The answer of `ain_sendSignedTransactionBatch`: one bad element refuses the list before any is executed."""
        listed = params.get("tx_list")
        if not isinstance(listed, list) or not listed:
            return refused(30401, "Invalid batch transaction format.")
        list_max = self._limit("batch_tx_list_size_limit", BATCH_LIST_MAX)
        if len(listed) > list_max:
            return refused(30402, f"Batch transaction list size exceeds its limit: {list_max}.")
        try:
            transactions = await self._all_checked(listed)
        except DoorRefusal as refusal:
            return refused(refusal.code, refusal.message)
        if not self._is_serving():
            return answer(dict(NOT_TAKEN))
        return answer([self._executed(one) for one in transactions])

    def execute(self, transaction: Transaction) -> dict[str, Any]:
        """Execute a transaction that needs no check; the answer names its hash."""
        if not self._is_serving():
            return dict(NOT_TAKEN)
        return self._executed(transaction)

    async def _one(self, params: Params, *, is_dry_run: bool) -> Answer:
        try:
            (transaction,) = await self._signed([self._checked(params, None)], is_listed=False)
        except DoorRefusal as refusal:
            return refused(refusal.code, refusal.message)
        if not self._is_serving():
            return answer(dict(NOT_TAKEN))
        return answer(self._executed(transaction, is_dry_run=is_dry_run))

    def _is_serving(self) -> bool:
        return self._node.chain.node_state == SERVING

    def _executed(
        self, transaction: Transaction | LateRefusal, *, is_dry_run: bool = False
    ) -> dict[str, Any]:
        if isinstance(transaction, LateRefusal):
            message = "[executeTransactionAndAddToPool] Invalid signature"
            result = {"message": message, "code": INVALID_SIGNATURE, "bandwidth_gas_amount": 0}
            return {"tx_hash": transaction.tx_hash, "result": result}
        result = self._node.submit(transaction, is_dry_run=is_dry_run)
        return {"tx_hash": transaction.hash, "result": result}

    async def _all_checked(self, listed: list[Any]) -> list[Transaction | LateRefusal]:
        """The transactions of a list; the first element with anything wrong is the one that is told about."""
        claims, trouble = await checked_in_turns(listed, self._checked)
        found = await self._signed(claims, is_listed=True)
        if trouble is not None:
            raise trouble
        return found

    async def _signed(self, claims: list[_Checked], *, is_listed: bool) -> list[Transaction | LateRefusal]:
        """The same with their signers; refuses the first one that has none."""
        records = [one.record for one in claims if isinstance(one, ClaimedTransaction)]
        signers = iter(await self._node.signers.recover(records))
        found: list[Transaction | LateRefusal] = []
        for index, one in enumerate(claims):
            if not isinstance(one, ClaimedTransaction):
                found.append(one)
                continue
            try:
                found.append(signed_transaction(one, next(signers)))
            except Refusal as refusal:
                found.append(self._late(one.body, one.signature, index if is_listed else None, refusal))
        return found

    def _late(self, body: Any, signature: Any, index: int | None, refusal: Refusal) -> LateRefusal:
        """A signature that does not fit is refused here, or on nodes that look later when it is executed."""
        parameters = self._node.parameters
        if parameters.flag("ENABLE_EARLY_TX_SIG_VERIF") and not parameters.flag("LIGHTWEIGHT"):
            raise DoorRefusal((_SINGLE if index is None else _LISTED)[3], _messages(index)[3]) from refusal
        return LateRefusal(_claimed_hash(body, signature))

    def _checked(self, wire: Any, index: int | None) -> _Checked:
        """Everything about a transaction but whose it is."""
        codes = _SINGLE if index is None else _LISTED
        body = wire.get("tx_body") if isinstance(wire, dict) else None
        signature = wire.get("signature") if isinstance(wire, dict) else None
        if not body or not signature:
            raise DoorRefusal(codes[1], _messages(index)[0])
        bytes_max = self._limit("tx_bytes_limit", TRANSACTION_BYTES_MAX)
        if size_of(body) > bytes_max:
            raise DoorRefusal(codes[0], f"{_messages(index)[1]} its limit: {bytes_max} bytes.")
        try:
            return self._claimed(body, signature)
        except InvalidTransactionBody as refusal:
            raise DoorRefusal(codes[2], _messages(index)[2]) from refusal
        except Refusal as refusal:
            return self._late(body, signature, index, refusal)

    def _claimed(self, body: Any, signature: Any) -> ClaimedTransaction | Transaction:
        parameters = self._node.parameters
        check_price(body, parameters)
        if parameters.flag("ENABLE_TX_SIG_VERIF_WORKAROUND") and isinstance(body, dict) and "address" in body:
            return unsigned_transaction(body)
        return claimed_transaction(body, signature, self._node.chain.network.chain_id)

    def _limit(self, name: str, default: int) -> int:
        chain = self._node.chain
        # Another state of the same height comes where a chain begins with somebody's snapshot.
        of = (chain.final, chain.final_number)
        if self._limits_of is None or self._limits_of[1] != of[1] or self._limits_of[0] is not of[0]:
            self._limits.clear()
            self._limits_of = of
        limit = self._limits.get(name)
        if limit is None:
            found = chain.parameter("resource", name)
            limit = self._limits[name] = int(found) if is_number(found) and found > 0 else default
        return limit


def check_price(body: Any, parameters: NodeParameters) -> None:
    """Refuses a body that pays nothing on a node that lets nothing go for free."""
    if parameters.flag("ENABLE_GAS_FEE_WORKAROUND"):
        return
    price: Any = body.get("gas_price") if isinstance(body, dict) else None
    if not is_number(price) or not price > 0:
        raise InvalidTransactionBody(reason="it pays nothing")


def unsigned_transaction(body: dict[str, Any]) -> Transaction:
    """A transaction that names its address instead of proving it; only development networks take such."""
    check_body(body)
    tx_hash = "0x" + hash_transaction(body).hex()
    return trusted_transaction(
        {"tx_body": body, "signature": "", "hash": tx_hash, "address": body["address"]}
    )


def _messages(index: int | None) -> tuple[str, str, str, str]:
    """What refusals say: missing, size, format, signature."""
    if index is None:
        return (
            "Missing properties.",
            "Transaction size exceeds",
            "Invalid transaction format.",
            "Invalid transaction signature.",
        )
    whose = f"transaction[{index}]."
    return (
        f"Missing properties of {whose}",
        f"Transaction[{index}]'s size exceededs",
        f"Invalid format of {whose}",
        f"Invalid signature of {whose}",
    )


def _claimed_hash(body: Any, signature: Any) -> str:
    try:
        return "0x" + hash_from_signature(signature).hex()
    except (Refusal, TypeError):
        return "0x" + hash_transaction(body).hex()
