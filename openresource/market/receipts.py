"""Call receipts: what a provider signs about one answered call, and the running hash that a buyer acknowledges."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Any, Final

from openresource.ledger.draft import NetworkDomain
from openresource.market.channels import parse_channel_name
from openresource.market.fields import Fields, InvalidRecord
from openresource.market.papers import hex_text, paper_domain, paper_signer, sign_paper
from openresource.market.vouchers import NO_RECEIPTS, channel_hash
from openresource.primitives.encoding import canonical_json_bytes
from openresource.primitives.errors import Refusal
from openresource.primitives.hashing import keccak
from openresource.primitives.keys import PrivateKey
from openresource.primitives.typed_data import signing_digest
from openresource.primitives.values import object_height

RECEIPT_TYPE: Final = (
    "CallReceipt(bytes32 channel,uint64 nonce,bytes32 session,uint64 sequence,uint64 completed,bytes32 program,"
    "bytes32 input,bytes32 output,uint256 price,bytes32 facts)"
)
FACTS_BYTES_MAX: Final = 16 * 1024
FACTS_DEPTH_MAX: Final = 6
CHILDREN_MAX: Final = 64
SALT_BYTES: Final = 32

_RECEIPT_ID: Final = re.compile("0x[0-9a-f]{64}")
_JOB: Final = re.compile("[0-9a-f]{32}")
_RECEIPT_TYPE_HASH: Final = keccak(RECEIPT_TYPE.encode())
_SIGNED_MEMBERS: Final = frozenset(
    ("channel", "nonce", "session", "sequence", "completed", "program", "input", "output", "price_uain")
)
_OUTER_MEMBERS: Final = frozenset(("id", "signature"))


class ReceiptSignedByOther(Refusal):
    template = "The receipt bears the signature of {recovered}; the call was answered by {provider}."
    way_out = "Do not acknowledge it; close the channel and choose another provider."


class ReceiptForOtherCall(Refusal):
    template = "The receipt's {member} is {found}; this call's is {expected}."
    way_out = "Do not acknowledge it; ask for the receipt of this call with its session and sequence number."


class ReceiptPriceTooHigh(Refusal):
    template = "The receipt charges {price_uain} µAIN; {agreed_uain} µAIN were agreed."
    way_out = "Do not acknowledge it; close the channel and choose another provider."


@dataclass(frozen=True, slots=True)
class Usage:
    """What one call used, in standard units."""

    cpu_ms: int = 0
    wall_ms: int = 0
    bytes_in: int = 0
    bytes_out: int = 0
    # Deterministic units of work, where the engine counts them; 0 stands in no receipt.
    fuel: int = 0


@dataclass(frozen=True, slots=True)
class CallReceipt:
    """`completed` is the call's place in the gateway's order of completion under (channel, nonce), from 1."""

    channel: str
    nonce: int
    session: bytes
    sequence: int
    completed: int
    program: str
    input: bytes
    output: bytes
    price_uain: int
    facts: Mapping[str, Any] = field(default_factory=dict)
    signature: bytes = b""


def call_facts(
    *,
    service: str,
    version: str,
    provider: str,
    isolation: str,
    usage: Usage,
    started_at_ms: int,
    finished_at_ms: int,
    salt: bytes,
    method: str = "",
    children: tuple[str, ...] = (),
    inner_uain: int = 0,
    checked: tuple[str, ...] = (),
) -> dict[str, Any]:
    """The members of a receipt that its digest covers through their hash.

    `children` are the ids of the receipts of calls below this one, and `inner_uain` is what all of those cost, which
    the buyer has paid to others: it is no part of the price.
    """
    assert len(salt) == SALT_BYTES and len(children) <= CHILDREN_MAX
    return {
        "service": service,
        "version": version,
        "method": method,
        "provider": provider,
        "isolation": isolation,
        "usage": {
            "cpu_ms": usage.cpu_ms,
            "wall_ms": usage.wall_ms,
            "bytes_in": usage.bytes_in,
            "bytes_out": usage.bytes_out,
            **({"fuel": usage.fuel} if usage.fuel else {}),
        },
        "started_at_ms": started_at_ms,
        "finished_at_ms": finished_at_ms,
        "salt": hex_text(salt),
        "children": list(children),
        **({"inner_uain": inner_uain} if children else {}),
        "checked": list(checked),
    }


def body_digest(salt: bytes, body: bytes) -> bytes:
    """The salted digest of an input or an output: it proves the bytes to those who have them, and tells others nothing."""
    return keccak(salt + body)


def receipt_digest(receipt: CallReceipt, network: NetworkDomain) -> bytes:
    """What the provider signs; 0x and its hex digits are the receipt's id."""
    # The words of the structure one by one: a gateway makes one of these for every call that it sells.
    struct = keccak(
        b"".join(
            (
                _RECEIPT_TYPE_HASH,
                channel_hash(receipt.channel),
                receipt.nonce.to_bytes(32, "big"),
                receipt.session,
                receipt.sequence.to_bytes(32, "big"),
                receipt.completed.to_bytes(32, "big"),
                _program_hash(receipt.program),
                receipt.input,
                receipt.output,
                receipt.price_uain.to_bytes(32, "big"),
                keccak(canonical_json_bytes(dict(receipt.facts))),
            )
        )
    )
    return signing_digest(paper_domain(network), struct)


@lru_cache(maxsize=256)
def _program_hash(program: str) -> bytes:
    return keccak(program.encode())


def sign_receipt(receipt: CallReceipt, key: PrivateKey, network: NetworkDomain) -> CallReceipt:
    """The receipt with its signature."""
    return replace(receipt, signature=sign_paper(receipt_digest(receipt, network), key))


def recover_receipt_signer(receipt: CallReceipt, network: NetworkDomain) -> str:
    """Whose signature the receipt bears on this network."""
    return paper_signer(receipt_digest(receipt, network), receipt.signature)


def next_receipts_hash(receipts: bytes, digest: bytes) -> bytes:
    """The running hash after one more receipt; before the first it is 32 zero bytes."""
    return keccak(receipts + digest)


def receipts_hash(digests: tuple[bytes, ...]) -> bytes:
    """The running hash of receipts in their order of completion."""
    running = NO_RECEIPTS
    for digest in digests:
        running = next_receipts_hash(running, digest)
    return running


def receipt_to_json(receipt: CallReceipt, network: NetworkDomain, digest: bytes = b"") -> dict[str, Any]:
    """The receipt as it travels, with its id; who has the digest already need not have it made again."""
    return {
        "id": hex_text(digest or receipt_digest(receipt, network)),
        "channel": receipt.channel,
        "nonce": receipt.nonce,
        "session": hex_text(receipt.session),
        "sequence": receipt.sequence,
        "completed": receipt.completed,
        "program": receipt.program,
        "input": hex_text(receipt.input),
        "output": hex_text(receipt.output),
        "price_uain": receipt.price_uain,
        **receipt.facts,
        "signature": hex_text(receipt.signature),
    }


def receipt_from_json(value: Any) -> CallReceipt:
    """A receipt from outside; its form is checked, its signature is not, and its id is made anew from its bytes."""
    fields = Fields(value, "receipt")
    facts = {name: item for name, item in value.items() if name not in _SIGNED_MEMBERS | _OUTER_MEMBERS}
    _check_facts(facts)
    channel = fields.take("channel")
    parse_channel_name(channel)
    return CallReceipt(
        channel=channel,
        nonce=fields.integer("nonce"),
        session=fields.digest("session"),
        sequence=fields.integer("sequence"),
        completed=fields.integer("completed", 1),
        program=fields.cid("program"),
        input=fields.digest("input"),
        output=fields.digest("output"),
        price_uain=fields.amount("price_uain"),
        facts=facts,
        signature=fields.signature("signature"),
    )


def receipt_salt(receipt: CallReceipt) -> bytes:
    """The salt of a receipt's digests."""
    return Fields(receipt.facts, "receipt").digest("salt")


def receipt_children(receipt: CallReceipt) -> tuple[str, ...]:
    """The ids of the receipts of calls below a call."""
    children = receipt.facts.get("children", ())
    return tuple(children) if isinstance(children, list | tuple) else ()


def receipt_jobs(receipt: CallReceipt) -> tuple[str, ...]:
    """The jobs that a call's program asked for, by their names on the chain."""
    jobs = receipt.facts.get("jobs", ())
    return tuple(jobs) if isinstance(jobs, list | tuple) else ()


def receipt_inner_uain(receipt: CallReceipt) -> int:
    """What the calls below a call cost, as its receipt says."""
    inner_uain = receipt.facts.get("inner_uain", 0)
    return inner_uain if isinstance(inner_uain, int) else 0


def check_receipt(
    receipt: CallReceipt,
    network: NetworkDomain,
    *,
    provider: str,
    channel: str,
    nonce: int,
    session: bytes,
    sequence: int,
    program: str,
    price_uain: int,
    input_body: bytes | None,
    output_body: bytes | None,
) -> bytes:
    """Refuses a receipt that does not fit the call it claims to be about; gives its digest.

    A body that is not at hand, as of a call whose answer was lost, is None and not compared.
    """
    digest = receipt_digest(receipt, network)
    recovered = paper_signer(digest, receipt.signature)
    if recovered != provider:
        raise ReceiptSignedByOther(recovered=recovered, provider=provider)
    salt = receipt_salt(receipt)
    pairs: tuple[tuple[str, Any, Any], ...] = (
        ("channel", receipt.channel, channel),
        ("nonce", receipt.nonce, nonce),
        ("session", receipt.session, session),
        ("sequence", receipt.sequence, sequence),
        ("program", receipt.program, program),
    )
    bodies = (("input", receipt.input, input_body), ("output", receipt.output, output_body))
    pairs += tuple((name, one, body_digest(salt, body)) for name, one, body in bodies if body is not None)
    for member, found, expected in pairs:
        if found != expected:
            raise ReceiptForOtherCall(member=member, found=found, expected=expected)
    if receipt.price_uain > price_uain:
        raise ReceiptPriceTooHigh(price_uain=receipt.price_uain, agreed_uain=price_uain)
    return digest


def _check_facts(facts: dict[str, Any]) -> None:
    # Depth first: the canonical text is written by recursion.
    if _depth(facts, FACTS_DEPTH_MAX) > FACTS_DEPTH_MAX or object_height(facts) > FACTS_DEPTH_MAX:
        raise InvalidRecord(
            what="receipt", member="one of its facts", reason=f"is nested deeper than {FACTS_DEPTH_MAX}"
        )
    if len(canonical_json_bytes(facts)) > FACTS_BYTES_MAX:
        raise InvalidRecord(
            what="receipt", member="the rest of it", reason=f"is longer than {FACTS_BYTES_MAX} bytes"
        )
    fields = Fields(facts, "receipt")
    for member in ("service", "version", "provider", "isolation"):
        fields.text(member)
    for member in ("started_at_ms", "finished_at_ms"):
        fields.integer(member)
    fields.digest("salt")
    usage = Fields(fields.take("usage"), "receipt's usage")
    for member in ("cpu_ms", "wall_ms", "bytes_in", "bytes_out"):
        usage.integer(member)
    usage.optional_integer("fuel", 0)
    fields.optional_integer("inner_uain", 0)
    _check_children(fields)


def _check_children(fields: Fields) -> None:
    children = fields.take("children")
    if children is None:
        children = []
    if not isinstance(children, list) or len(children) > CHILDREN_MAX:
        raise fields.wrong("children", f"must be a list of at most {CHILDREN_MAX} receipts' ids")
    for child in children:
        if not isinstance(child, str) or _RECEIPT_ID.fullmatch(child) is None:
            raise fields.wrong("children", "must hold ids of receipts: 0x and 64 hex digits")
    if len(set(children)) != len(children):
        raise fields.wrong("children", "must list each receipt once")
    jobs = fields.take("jobs")
    if jobs is not None and not (
        isinstance(jobs, list)
        and len(jobs) <= CHILDREN_MAX
        and all(isinstance(job, str) and _JOB.fullmatch(job) for job in jobs)
    ):
        raise fields.wrong("jobs", f"must be a list of at most {CHILDREN_MAX} jobs: 32 hex digits each")


def _depth(value: Any, depth_max: int) -> int:
    """How deep lists and objects are nested, counted no further than just past a bound."""
    if depth_max < 0 or not isinstance(value, dict | list):
        return 0
    items = value.values() if isinstance(value, dict) else value
    return 1 + max((_depth(item, depth_max - 1) for item in items), default=0)
