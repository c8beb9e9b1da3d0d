"""Blocks in AI Network's form: what their header says, how it is hashed, and whether headers make a chain."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from openresource.ledger.transactions import Transaction
from openresource.primitives.encoding import canonical_json
from openresource.primitives.errors import Refusal
from openresource.primitives.hashing import message_hash_hex
from openresource.primitives.keys import PrivateKey, is_checksum_address, sign_message, verify_signature
from openresource.primitives.numbers import is_integer, is_number
from openresource.primitives.values import deep_equal, size_of

HEADER_FIELDS: Final = (
    "last_hash",
    "last_votes_hash",
    "transactions_hash",
    "receipts_hash",
    "evidence_hash",
    "number",
    "epoch",
    "timestamp",
    "state_proof_hash",
    "proposer",
    "validators",
    "gas_amount_total",
    "gas_cost_total",
)
_GIVEN_FIELDS: Final = (
    "last_hash",
    "number",
    "epoch",
    "timestamp",
    "state_proof_hash",
    "proposer",
    "validators",
    "gas_amount_total",
    "gas_cost_total",
)
_BODY_FIELDS: Final = ("last_votes", "evidence", "transactions", "receipts")

Block = Mapping[str, Any]


class BlockRefused(Refusal):
    """A block that does not follow from the chain so far. Its subclasses name the reason."""

    template = "Block {number} is refused: {reason}."
    way_out = "Fetch the block again from another node; if it stays so, that node's chain is not ours."


class MalformedBlock(BlockRefused):
    template = "Block {number} is malformed: {reason}."


class BlockDoesNotFollow(BlockRefused):
    template = "Block {number} does not follow block {tip_number}: {reason}."


class BlockMismatch(BlockRefused):
    template = "Block {number} says {field} is {said}; its own content gives {computed}."


def header_of(block: Block) -> dict[str, Any]:
    """The part of a block that its hash covers."""
    return {field: block[field] for field in HEADER_FIELDS}


def header_hash(header: Mapping[str, Any]) -> str:
    """The hash of a header."""
    return message_hash_hex(canonical_json({field: header[field] for field in HEADER_FIELDS}))


def content_hash(content: Any) -> str:
    """The hash of one of the four lists of a block's body."""
    return message_hash_hex(canonical_json(content))


def transactions_hash(canonical_transactions: Iterable[str]) -> str:
    """The hash of a list of transactions, from the canonical text of each."""
    return message_hash_hex("[" + ",".join(canonical_transactions) + "]")


def hash_and_size(transactions: Sequence[Transaction]) -> tuple[str, int]:
    """Hash and size of a block's transactions from what each knows of itself; nothing if one is not signed."""
    texts: list[str] = []
    size = 0
    for transaction in transactions:
        if not transaction.signature:
            # Its address is whatever somebody wrote.
            return "", -1
        texts.append(transaction.canonical_wire())
        size += transaction.wire_bytes
    return transactions_hash(texts), size


def build_block(
    *,
    last_hash: str,
    last_votes: list[dict[str, Any]],
    evidence: dict[str, Any],
    transactions: list[dict[str, Any]],
    receipts: list[dict[str, Any]],
    number: int,
    epoch: int,
    timestamp: int,
    state_proof_hash: str,
    proposer: str,
    validators: dict[str, Any],
    gas_amount_total: float | int,
    gas_cost_total: float | int,
    hash_of_transactions: str = "",
    bytes_of_transactions: int = -1,
) -> dict[str, Any]:
    """A whole block: bodies, header, hash and size; what is known about the transactions is not computed again."""
    header: dict[str, Any] = {
        "last_hash": last_hash,
        "last_votes_hash": content_hash(last_votes),
        "transactions_hash": hash_of_transactions or content_hash(transactions),
        "receipts_hash": content_hash(receipts),
        "evidence_hash": content_hash(evidence),
        "number": number,
        "epoch": epoch,
        "timestamp": timestamp,
        "state_proof_hash": state_proof_hash,
        "proposer": proposer,
        "validators": validators,
        "gas_amount_total": gas_amount_total,
        "gas_cost_total": gas_cost_total,
    }
    bodies: dict[str, Any] = {
        "last_votes": last_votes,
        "evidence": evidence,
        "transactions": transactions,
        "receipts": receipts,
    }
    if bytes_of_transactions < 0:
        bytes_of_transactions = size_of(transactions)
    others = {"last_votes": last_votes, "evidence": evidence, "transactions": None, "receipts": receipts}
    return {
        **bodies,
        **header,
        "hash": header_hash(header),
        "size": size_of(header) + size_of(others) + bytes_of_transactions,
    }


def parse_block(block: Any) -> dict[str, Any]:
    """A block from outside with its hashes recomputed; what it says about them itself does not count."""
    if not isinstance(block, Mapping):
        raise MalformedBlock(number=None, reason="it is not an object")
    number: Any = block.get("number")
    for name in (*_GIVEN_FIELDS, *_BODY_FIELDS):
        if name not in block:
            raise MalformedBlock(number=number, reason=f"{name} is missing")
    for name in ("number", "epoch", "timestamp"):
        if not is_integer(block[name]):
            raise MalformedBlock(number=number, reason=f"{name} is not an integer")
    for name in ("last_votes", "transactions", "receipts"):
        if not isinstance(block[name], list):
            raise MalformedBlock(number=number, reason=f"{name} is not a list")
    for name in ("evidence", "validators"):
        if not isinstance(block[name], dict):
            raise MalformedBlock(number=number, reason=f"{name} is not an object")
    for name in ("last_hash", "state_proof_hash", "proposer"):
        if not isinstance(block[name], str):
            raise MalformedBlock(number=number, reason=f"{name} is not a text")
    for name in ("gas_amount_total", "gas_cost_total"):
        if not is_number(block[name]):
            raise MalformedBlock(number=number, reason=f"{name} is not a number")
    return build_block(
        last_hash=block["last_hash"],
        last_votes=block["last_votes"],
        evidence=block["evidence"],
        transactions=block["transactions"],
        receipts=block["receipts"],
        number=int(block["number"]),
        epoch=int(block["epoch"]),
        timestamp=int(block["timestamp"]),
        state_proof_hash=block["state_proof_hash"],
        proposer=block["proposer"],
        validators=block["validators"],
        gas_amount_total=block["gas_amount_total"],
        gas_cost_total=block["gas_cost_total"],
    )


def check_same(made: Block, given: Block) -> None:
    """Refuses a block whose content or claims differ from what re-execution made of it."""
    number: Any = given.get("number")
    for name in ("receipts", *HEADER_FIELDS, "hash", "size"):
        if name in given and not deep_equal(made[name], given[name]):
            raise BlockMismatch(number=number, field=name, said=given[name], computed=made[name])


def check_follows(tip: Block, block: Block) -> None:
    """Refuses a header that is not the next one after another."""
    number: Any = block["number"]
    tip_number: Any = tip["number"]
    if number != tip_number + 1:
        raise BlockDoesNotFollow(number=number, tip_number=tip_number, reason="the number is not the next")
    if block["last_hash"] != tip["hash"]:
        raise BlockDoesNotFollow(
            number=number,
            tip_number=tip_number,
            reason=f"it names {block['last_hash']} as its parent, not {tip['hash']}",
        )
    if block["timestamp"] <= tip["timestamp"]:
        raise BlockDoesNotFollow(number=number, tip_number=tip_number, reason="its time is not later")


def sign_block(block: Block, key: PrivateKey, chain_id: int) -> str:
    """The producer's signature over a block's hash, kept beside the header as `signature`."""
    return sign_message(block["hash"], key, chain_id)


def check_block_signature(block: Block, chain_id: int, producers: Iterable[str] | None = None) -> None:
    """Refuses a block (or its header with `signature`) that its proposer did not sign, or that nobody allowed signed."""
    number: Any = block.get("number")
    proposer: Any = block.get("proposer")
    signature: Any = block.get("signature")
    if producers is not None and proposer not in producers:
        raise BlockRefused(number=number, reason=f"{proposer} is not a producer of this chain")
    if not isinstance(signature, str) or not is_checksum_address(proposer):
        raise BlockRefused(number=number, reason="it carries no signature of its producer")
    try:
        is_signed = verify_signature(header_hash(block), signature, proposer, chain_id)
    except BlockRefused:
        raise
    except Refusal as error:
        raise BlockRefused(number=number, reason="its producer's signature is malformed") from error
    if not is_signed:
        raise BlockRefused(number=number, reason="its producer's signature does not fit")


def verify_header_chain(
    headers: Iterable[Block], genesis_hash: str, chain_id: int, producers: Iterable[str] | None = None
) -> Block:
    """Follows headers (each with `hash`, and `signature` after the genesis) from the genesis; returns the last one."""
    allowed = None if producers is None else frozenset(producers)
    tip: Block | None = None
    for header in headers:
        number: Any = header.get("number")
        for name in HEADER_FIELDS:
            if name not in header:
                raise MalformedBlock(number=number, reason=f"{name} is missing")
        computed = header_hash(header)
        if header.get("hash") != computed:
            raise BlockMismatch(number=number, field="hash", said=header.get("hash"), computed=computed)
        if tip is None:
            if computed != genesis_hash:
                raise BlockMismatch(number=number, field="genesis hash", said=computed, computed=genesis_hash)
        else:
            check_follows(tip, header)
            check_block_signature(header, chain_id, allowed)
        tip = header
    if tip is None:
        raise MalformedBlock(number=None, reason="there is no header at all")
    return tip
