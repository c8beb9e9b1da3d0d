"""Checks a paper that proves a value of the chain, trusting nothing but the genesis hash that the user names.

A paper holds the value, the hashes from it up to the state's root, the header of the block that names this root, its
producer's signature, and the genesis header, which names the producer and must have the trusted hash.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from openresource.ledger.blocks import HEADER_FIELDS, check_block_signature, header_hash
from openresource.ledger.proofs import proves
from openresource.primitives.encoding import parse_json
from openresource.primitives.errors import Refusal
from openresource.primitives.hashing import is_hash
from openresource.primitives.limits import CHAIN_ID_MAX
from openresource.primitives.numbers import is_integer
from openresource.primitives.paths import parse_path

PAPER_BYTES_MAX = 64 * 1024 * 1024
# One level a radix node on the way from the root: far more than any JSON from outside is otherwise allowed.
PAPER_DEPTH_MAX = 1_000


class ProofRefused(Refusal):
    template = "The paper proves nothing: {reason}."
    way_out = "Ask another node for the value with its proof, and check the genesis hash that you trust."


@dataclass(frozen=True, slots=True)
class Proven:
    """What a paper proves: this value was at this path after this block of the chain with this genesis."""

    path: str
    value: Any
    height: int
    time_ms: int
    block_hash: str
    producer: str
    genesis_hash: str


def parse_paper(raw: bytes) -> dict[str, Any]:
    """A paper from a file or another node; not checked yet."""
    paper = parse_json(raw, bytes_max=PAPER_BYTES_MAX, depth_max=PAPER_DEPTH_MAX)
    if not isinstance(paper, dict):
        raise ProofRefused(reason="it is not an object")
    return paper


def verify_state_proof(paper: Mapping[str, Any], genesis_hash: str) -> Proven:
    """What the paper proves under a genesis hash that is trusted; raises ProofRefused with the first thing that fails."""
    if not is_hash(genesis_hash):
        raise ProofRefused(reason=f"{genesis_hash} is not a genesis hash (0x and 64 lower-case hex digits)")
    genesis = _header(paper, "genesis")
    found = header_hash(genesis)
    if found != genesis_hash:
        raise ProofRefused(reason=f"it belongs to the network with genesis {found}, not to {genesis_hash}")
    header = _header(paper, "block")
    block_hash = header_hash(header)
    if paper.get("hash", block_hash) != block_hash:
        raise ProofRefused(reason="the block's header does not have the hash that the paper names")
    _check_producer(paper, header, genesis, block_hash, genesis_hash)
    labels = parse_path(paper.get("ref"))
    if "value" not in paper or not proves(
        paper.get("proof"), labels, paper["value"], header["state_proof_hash"]
    ):
        raise ProofRefused(reason="the hashes from the value up do not lead to the state of the block")
    return Proven(
        path="/" + "/".join(labels),
        value=paper["value"],
        height=header["number"],
        time_ms=header["timestamp"],
        block_hash=block_hash,
        producer=header["proposer"],
        genesis_hash=genesis_hash,
    )


def _check_producer(
    paper: Mapping[str, Any],
    header: Mapping[str, Any],
    genesis: Mapping[str, Any],
    block_hash: str,
    genesis_hash: str,
) -> None:
    if block_hash == genesis_hash:
        return
    chain_id = paper.get("chain_id")
    if not isinstance(chain_id, int) or not 0 <= chain_id <= CHAIN_ID_MAX:
        raise ProofRefused(reason="it names no chain id")
    try:
        check_block_signature(
            {**header, "signature": paper.get("signature")}, chain_id, genesis["validators"]
        )
    except Refusal as refusal:
        raise ProofRefused(reason=refusal.message.rstrip(".")) from refusal


def _header(paper: Mapping[str, Any], name: str) -> dict[str, Any]:
    header = paper.get(name)
    if not isinstance(header, dict) or any(field not in header for field in HEADER_FIELDS):
        raise ProofRefused(reason=f"its member {name} is not a block's header")
    if not is_integer(header["number"]) or not is_integer(header["timestamp"]):
        raise ProofRefused(reason=f"number or time of its member {name} is not an integer")
    if not isinstance(header["validators"], dict) or not isinstance(header["state_proof_hash"], str):
        raise ProofRefused(reason=f"its member {name} is not a block's header")
    return header
