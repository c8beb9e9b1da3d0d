"""Transactions: the form of their body, their hash and signer, and the four members that travel and are stored."""

from __future__ import annotations

from typing import Any, Final

from openresource.primitives.encoding import canonical_json, utf8
from openresource.primitives.errors import Refusal
from openresource.primitives.hashing import keccak
from openresource.primitives.keys import (
    InvalidSignature,
    PrivateKey,
    recover,
    sign_digest,
    signature_record,
    verify_signature,
)
from openresource.primitives.numbers import is_integer, is_number
from openresource.primitives.paths import parse_path
from openresource.primitives.values import size_of

SET: Final = "SET"
SET_VALUE: Final = "SET_VALUE"
SET_RULE: Final = "SET_RULE"
SET_FUNCTION: Final = "SET_FUNCTION"
SET_OWNER: Final = "SET_OWNER"
INC_VALUE: Final = "INC_VALUE"
DEC_VALUE: Final = "DEC_VALUE"
WRITE_TYPES: Final = frozenset((SET_VALUE, SET_RULE, SET_FUNCTION, SET_OWNER, INC_VALUE, DEC_VALUE))

UNORDERED_NONCE: Final = -1
ORDERED_BY_TIME_NONCE: Final = -2

_BODY_FIELDS: Final = frozenset(
    ("nonce", "timestamp", "operation", "gas_price", "billing", "parent_tx_hash", "address")
)
_OPERATION_FIELDS: Final = frozenset(("type", "ref", "value", "is_global"))
_WIRE_NAMES_BYTES: Final = sum(2 * len(name) for name in ("tx_body", "signature", "hash", "address"))
_WIRE_FIELDS: Final = frozenset(("tx_body", "signature", "hash", "address"))


class InvalidTransactionBody(Refusal):
    template = "The transaction's body does not have the form of a transaction: {reason}."
    way_out = "Send nonce (an integer from -2), timestamp (ms) and operation, and no unknown fields."


class InvalidTransactionSignature(Refusal):
    template = "The signature of the transaction does not fit its body and address."
    way_out = "Sign the body with the key of the account, for the chain id of this network."


class Transaction:
    """A transaction that may be executed; `address` is empty if no signer could be recovered."""

    __slots__ = (
        "address",
        "billing",
        "body",
        "bytes",
        "canonical",
        "gas_price",
        "hash",
        "labels",
        "nonce",
        "operation",
        "signature",
        "timestamp",
    )

    def __init__(self, body: dict[str, Any], signature: str, hash: str, address: str, canonical: str) -> None:
        self.body = body
        self.signature = signature
        self.hash = hash
        self.address = address
        self.canonical = canonical
        self.nonce: Any = body.get("nonce")
        self.timestamp: Any = body.get("timestamp")
        self.operation: Any = body.get("operation")
        self.gas_price: Any = body.get("gas_price")
        self.billing: Any = body.get("billing")
        self.bytes: int = size_of(body)
        # The labels of each single operation, in order.
        self.labels: list[list[str]] = [
            parse_path(single.get("ref"))
            for single in operations_of(self.operation)
            if isinstance(single, dict)
        ]

    @property
    def wire_bytes(self) -> int:
        """What the four members count for in the size of a block."""
        return self.bytes + _WIRE_NAMES_BYTES + 2 * (len(self.signature) + len(self.hash) + len(self.address))

    def to_json(self) -> dict[str, Any]:
        """The four members that travel and that blocks store."""
        return {"tx_body": self.body, "signature": self.signature, "hash": self.hash, "address": self.address}

    def canonical_wire(self) -> str:
        """The canonical JSON of those four."""
        return (
            f'{{"address":"{self.address}","hash":"{self.hash}","signature":"{self.signature}",'
            f'"tx_body":{self.canonical}}}'
        )


class ClaimedTransaction:
    """A transaction in the right form, with the hash that its signature carries; whose it is has yet to be found out."""

    __slots__ = ("body", "canonical", "digest", "record", "signature")

    def __init__(self, body: dict[str, Any], signature: str, canonical: str, record: bytes) -> None:
        self.body = body
        self.signature = signature
        self.canonical = canonical
        # Digest, r, s and v (0 or 1): all that recovery needs.
        self.record = record
        self.digest: bytes = record[:32]


def claimed_transaction(body: Any, signature: Any, chain_id: int) -> ClaimedTransaction:
    """A transaction from its parts with its hash recomputed; a signature of something else is refused."""
    check_body(body)
    if not isinstance(signature, str):
        raise InvalidTransactionSignature()
    canonical = canonical_json(body)
    record = signature_record(signature, chain_id)
    if record[:32] != keccak(keccak(utf8(canonical))):
        raise InvalidTransactionSignature()
    return ClaimedTransaction(body, signature, canonical, record)


def signed_transaction(claimed: ClaimedTransaction, address: str) -> Transaction:
    """The transaction of a signer that was recovered from its record; an empty address is no signer."""
    if not address:
        raise InvalidTransactionSignature()
    return Transaction(
        claimed.body, claimed.signature, "0x" + claimed.digest.hex(), address, claimed.canonical
    )


def verified_transaction(body: Any, signature: Any, chain_id: int) -> Transaction:
    """A transaction from its parts with its hash and signer recomputed; a signature that does not fit is refused."""
    claimed = claimed_transaction(body, signature, chain_id)
    try:
        address = recover(claimed.digest, claimed.record[32:])
    except InvalidSignature as refusal:
        raise InvalidTransactionSignature() from refusal
    return signed_transaction(claimed, address)


def sign_transaction(body: dict[str, Any], key: PrivateKey, chain_id: int) -> Transaction:
    """A transaction signed here."""
    check_body(body)
    canonical = canonical_json(body)
    digest = keccak(keccak(utf8(canonical)))
    return Transaction(body, sign_digest(digest, key, chain_id), "0x" + digest.hex(), key.address, canonical)


def transaction_from_json(wire: Any, chain_id: int) -> Transaction:
    """A transaction as it travels or is stored, verified; what it claims to be hashed and signed as must be so."""
    if not isinstance(wire, dict) or not wire.keys() <= _WIRE_FIELDS:
        raise InvalidTransactionBody(reason="it is not an object of tx_body, signature, hash and address")
    transaction = verified_transaction(wire.get("tx_body"), wire.get("signature"), chain_id)
    if wire.get("hash", transaction.hash) != transaction.hash:
        raise InvalidTransactionSignature()
    if wire.get("address", transaction.address) != transaction.address:
        raise InvalidTransactionSignature()
    return transaction


def trusted_transaction(wire: dict[str, Any]) -> Transaction:
    """A transaction that was verified before, for instance by a door or in a block of our own store."""
    return Transaction(
        wire["tx_body"], wire["signature"], wire["hash"], wire["address"], canonical_json(wire["tx_body"])
    )


def is_verified(transaction: Transaction, chain_id: int) -> bool:
    """Whether the signature fits body and address; a malformed one does not."""
    try:
        return verify_signature(transaction.body, transaction.signature, transaction.address, chain_id)
    except Refusal:
        return False


def check_body(body: Any) -> None:
    """Refuses a body that is not exactly in the standard form."""
    reason = invalid_body_reason(body)
    if reason is not None:
        raise InvalidTransactionBody(reason=reason)


def invalid_body_reason(body: Any) -> str | None:
    """What is wrong with a body, or None if it is in the standard form: known fields of the right types, no others."""
    if not isinstance(body, dict):
        return "it is not an object"
    for field in body:
        if field not in _BODY_FIELDS:
            return f"{field[:40]} is not a field of it"
    nonce: Any = body.get("nonce")
    if not is_integer(nonce) or nonce < ORDERED_BY_TIME_NONCE:
        return "nonce is not an integer from -2"
    if not is_number(body.get("timestamp")):
        return "timestamp is not a number"
    if "gas_price" in body:
        gas_price: Any = body["gas_price"]
        if not is_number(gas_price) or not gas_price >= 0:
            return "gas_price is not a number from 0"
    if "billing" in body:
        billing = body["billing"]
        if not isinstance(billing, str) or billing.count("|") != 1:
            return "billing is not app|id"
    for field in ("parent_tx_hash", "address"):
        if field in body and not isinstance(body[field], str):
            return f"{field} is not a text"
    operation = body.get("operation")
    if isinstance(operation, dict) and operation.get("type") == SET:
        return _invalid_list_reason(operation)
    return _invalid_operation_reason(operation)


def operations_of(operation: Any) -> list[Any]:
    """The single operations of a transaction's operation."""
    if isinstance(operation, dict) and operation.get("type") == SET:
        return list(operation["op_list"])
    return [operation]


def _invalid_list_reason(operation: dict[str, Any]) -> str | None:
    for field in operation:
        if field != "type" and field != "op_list":
            return f"{field[:40]} is not a field of a SET"
    op_list = operation.get("op_list")
    if not isinstance(op_list, list) or not op_list:
        return "op_list is not a list with operations"
    for single in op_list:
        reason = _invalid_operation_reason(single)
        if reason is not None:
            return reason
        if single.get("type") == SET:
            return "a SET stands inside of a SET"
    return None


def _invalid_operation_reason(operation: Any) -> str | None:
    if not isinstance(operation, dict):
        return "the operation is not an object"
    for field in operation:
        if field not in _OPERATION_FIELDS:
            return f"{field[:40]} is not a field of an operation"
    kind = operation.get("type", SET_VALUE)
    if not isinstance(kind, str) or not kind:
        return "the operation's type is not a text"
    if kind not in WRITE_TYPES:
        if "ref" in operation or "value" in operation:
            return f"{kind[:40]} is not a type of operation"
    elif "ref" in operation:
        ref = operation["ref"]
        if not isinstance(ref, str) or not ref:
            return "ref is not a path"
    if kind in (INC_VALUE, DEC_VALUE) and "value" in operation and not is_number(operation["value"]):
        return "the value to add is not a number"
    if "is_global" in operation and not isinstance(operation["is_global"], bool):
        return "is_global is not true or false"
    return None
