"""State proofs: the hashes from one state node up to the root, for somebody who trusts the root hash alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from openresource.ledger.building import Claims, build
from openresource.ledger.hashes import hash_text, node_hash, preimage, value_hash
from openresource.ledger.nodes import NOTHING, Branch, Node, radix_label
from openresource.ledger.views import View, is_unwritten
from openresource.primitives.encoding import utf16_order
from openresource.primitives.hashing import message_hash_hex

STATE_HASH: Final = "#state_ph"
RADIX_HASH: Final = "#radix_ph"
STATE: Final = "#state:"
RADIX: Final = "#radix:"


def state_proof(view: View, labels: Sequence[str], is_complete: bool = False) -> dict[str, object] | None:
    """The proof of what lies at a full path; None where there is nothing.

    AI Network leaves out what hangs below the target's own radix node, so its proof of a label that begins another one
    cannot be checked. A complete proof lists these nodes too and can always be checked.
    """
    branches: list[Branch] = []
    value: object = view.root
    for label in labels:
        if not isinstance(value, Branch):
            return None
        branches.append(value)
        value = value.child(label)
        if value is NOTHING:
            return None
    if is_unwritten(view.root, value):
        return {STATE_HASH: None}
    proof: dict[str, object] = {STATE_HASH: hash_text(value_hash(value))}
    for position in range(len(branches) - 1, -1, -1):
        proof = _branch_proof(branches[position], labels[position], proof, is_complete)
    return proof


def _branch_proof(
    branch: Branch, label: str, proof_of_child: dict[str, object], is_complete: bool
) -> dict[str, object]:
    key = radix_label(label)
    path: list[Node] = [branch]
    at = 0
    while at < len(key):
        kid = path[-1].kids[key[at]]
        path.append(kid.node())
        at += len(kid.edge)
    target = path[-1]
    proof: dict[str, object] = {_hash_key(target, branch): hash_text(node_hash(target))}
    proof[STATE + target.label] = proof_of_child
    if is_complete:
        for digit in sorted(target.kids):
            kid = target.kids[digit]
            proof[RADIX + kid.edge] = {RADIX_HASH: hash_text(kid.hash)}
    for position in range(len(path) - 2, -1, -1):
        node = path[position]
        below = path[position + 1]
        entry: dict[str, object] = {_hash_key(node, branch): hash_text(node_hash(node))}
        if node.value is not NOTHING:
            entry[STATE + node.label] = {STATE_HASH: hash_text(value_hash(node.value))}
        for digit in sorted(node.kids):
            kid = node.kids[digit]
            if digit == below.edge[0]:
                entry[RADIX + kid.edge] = proof
            else:
                entry[RADIX + kid.edge] = {RADIX_HASH: hash_text(kid.hash)}
        proof = entry
    return proof


def _hash_key(node: Node, branch: Branch) -> str:
    return STATE_HASH if node is branch else RADIX_HASH


@dataclass(frozen=True)
class ProofResult:
    """What checking a proof gave; the mismatch is the first one met, the deepest first."""

    hash: str | None
    is_verified: bool
    mismatched_path: str | None
    mismatched_hash: str | None
    mismatched_hash_computed: str | None


class _Entry:
    """One object of a proof on its way through the check."""

    __slots__ = ("claimed", "items", "kids", "next", "path", "state")

    def __init__(self, path: str, proof: dict[str, object]) -> None:
        self.path: str = path
        self.items: list[tuple[str, object]] = sorted(proof.items(), key=_item_order)
        self.next: int = 0
        self.claimed: str | None = None
        self.state: str | None = None
        self.kids: list[tuple[str, str]] = []


def check_proof(proof: object) -> ProofResult:
    """Compute the hashes of a proof from below and compare each with what the proof claims."""
    if not isinstance(proof, dict):
        return ProofResult(None, False, None, None, None)
    failed: ProofResult | None = None
    root = _Entry("", proof)
    waiting: list[_Entry] = [root]
    while waiting:
        entry = waiting[-1]
        if entry.next < len(entry.items):
            key, item = entry.items[entry.next]
            entry.next += 1
            if isinstance(item, dict):
                waiting.append(_Entry(entry.path + "/" + key, item))
            else:
                _take(entry, key, item if isinstance(item, str) else None)
            continue
        waiting.pop()
        computed = _computed(entry)
        if failed is None and (computed is None or computed != entry.claimed):
            failed = ProofResult(root.claimed, False, entry.path or "/", entry.claimed, computed)
        if waiting:
            above = waiting[-1]
            _take(above, above.items[above.next - 1][0], entry.claimed, is_object=True)
    if failed is None:
        return ProofResult(root.claimed, True, None, None, None)
    return ProofResult(
        root.claimed, False, failed.mismatched_path, failed.mismatched_hash, failed.mismatched_hash_computed
    )


def proves(proof: object, labels: Sequence[str], value: object, root_hash: str) -> bool:
    """Whether a proof shows that this value, a leaf or a whole object, lies at a full path below a root hash."""
    result = check_proof(proof)
    if not result.is_verified or result.hash != root_hash:
        return False
    at: object = proof
    for label in labels:
        at = _proof_of_child(at, label)
    claimed = at.get(STATE_HASH) if isinstance(at, dict) else None
    return claimed == hash_text(value_hash(build(value, Claims())))


def _proof_of_child(proof: object, label: str) -> object:
    """Follow the radix label edge by edge; edges are inside the hashes, the visible labels are not."""
    key = radix_label(label)
    at = 0
    while at < len(key):
        if not isinstance(proof, dict):
            return None
        below: object = None
        for name, item in proof.items():
            edge = name[len(RADIX) :]
            if name.startswith(RADIX) and edge and key.startswith(edge, at):
                below = item
                at += len(edge)
                break
        if below is None:
            return None
        proof = below
    if not isinstance(proof, dict):
        return None
    states = [item for name, item in proof.items() if name.startswith(STATE)]
    return states[0] if len(states) == 1 else None


def verify_proof(proof: object) -> dict[str, object]:
    """The result of `check_proof` as AI Network's clients know it."""
    result = check_proof(proof)
    return {
        "curProofHash": result.hash,
        "isVerified": result.is_verified,
        "mismatchedPath": result.mismatched_path,
        "mismatchedProofHash": result.mismatched_hash,
        "mismatchedProofHashComputed": result.mismatched_hash_computed,
    }


def _item_order(item: tuple[str, object]) -> bytes:
    return utf16_order(item[0])


def _take(entry: _Entry, key: str, text: str | None, is_object: bool = False) -> None:
    if not is_object and key in (STATE_HASH, RADIX_HASH):
        entry.claimed = text
    elif is_object and key.startswith(STATE):
        entry.state = text
    else:
        entry.kids.append((key[len(RADIX) :], text or ""))


def _computed(entry: _Entry) -> str | None:
    if not entry.kids and entry.state is None:
        return entry.claimed
    return message_hash_hex(preimage(entry.state or "", entry.kids))
