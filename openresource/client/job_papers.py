"""What a requester knows of its own job beside what stands on the chain: secret, salt and content key.

All three come from one signature of the wallet over the job's name, so that a client that was killed, or another one of
the same wallet, goes on where the first one stopped; nothing has to be kept.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from openresource.ledger.draft import NetworkDomain
from openresource.market.papers import paper_digest
from openresource.market.sealed_content import (
    Chance,
    JobInput,
    job_input_bytes,
    seal_content,
    wrapped_text,
)
from openresource.primitives.hashing import keccak
from openresource.primitives.keys import PrivateKey, generate_key

_SEED_TYPE: Final = "JobSeed(bytes32 job)"


@dataclass(frozen=True, slots=True)
class JobSeed:
    """What only the requester of a job can make; it never shows itself."""

    secret: bytes
    salt: bytes
    content_key: bytes

    def __repr__(self) -> str:
        return "JobSeed(…)"


def job_seed(job: str, key: PrivateKey, network: NetworkDomain) -> JobSeed:
    """The seed of a job; the same each time."""
    digest = paper_digest(_SEED_TYPE, {"job": keccak(job.encode())}, network)
    root = keccak(b"openresource job seed" + key.sign_recoverable(digest))
    return JobSeed(*(keccak(root + word) for word in (b"secret", b"salt", b"content")))


def sealed_input(
    job: str, value: Any, seed: JobSeed, key: PrivateKey, readers: Mapping[str, bytes], random: bytes
) -> bytes:
    """A job's input for its executors, given by address and public key; `random` are 16 + 48 bytes for each."""
    assert len(random) >= 16 + 48 * len(readers)
    wraps = tuple(
        (generate_key(random[start : start + 32]), random[start + 32 : start + 48])
        for start in range(16, 16 + 48 * len(readers), 48)
    )
    content = job_input_bytes(JobInput(job, seed.salt, value, key.public_key))
    return seal_content(content, readers, Chance(seed.content_key, random[:16], wraps))


def key_for_later(seed: JobSeed, public_key: bytes, random: bytes) -> str:
    """The input's key for an executor who came after the request; `random` are 48 bytes."""
    return wrapped_text(seed.content_key, public_key, generate_key(random[:32]), random[32:48])
