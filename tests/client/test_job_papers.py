"""What a requester knows of its job is the same each time, different for each job and wallet, and never shown."""

from __future__ import annotations

import os

import pytest

from openresource.client.job_papers import job_seed, key_for_later, sealed_input
from openresource.ledger.draft import NetworkDomain
from openresource.market.jobs.requests import asked_job_id
from openresource.market.sealed_content import NotSealedForUs, open_content, read_job_input, readers_of
from openresource.primitives.keys import generate_key

BUYER, OTHER, PROVIDER, LATE = (generate_key(word * 8) for word in (b"buyr", b"othr", b"prov", b"late"))
NETWORK = NetworkDomain(chain_id=100, genesis_hash="0x" + "ab" * 32)
OTHER_NETWORK = NetworkDomain(chain_id=100, genesis_hash="0x" + "cd" * 32)
JOB = asked_job_id(BUYER.address, "ab" * 16)


def test_the_seed_of_a_job_comes_from_wallet_job_and_network_alone() -> None:
    seed = job_seed(JOB, BUYER, NETWORK)
    assert seed == job_seed(JOB, BUYER, NETWORK)
    others = [
        job_seed(JOB, OTHER, NETWORK),
        job_seed(JOB, BUYER, OTHER_NETWORK),
        job_seed(asked_job_id(BUYER.address, "cd" * 16), BUYER, NETWORK),
    ]
    parts = {part for one in (seed, *others) for part in (one.secret, one.salt, one.content_key)}
    assert len(parts) == 12
    assert seed.secret.hex() not in repr(seed)


def test_an_input_is_read_by_its_executors_and_by_who_is_given_the_key_later() -> None:
    seed = job_seed(JOB, BUYER, NETWORK)
    readers = {PROVIDER.address: PROVIDER.public_key}
    sealed = sealed_input(JOB, {"text": "soup"}, seed, BUYER, readers, os.urandom(64))
    assert readers_of(sealed) == {PROVIDER.address}
    given = read_job_input(open_content(sealed, PROVIDER), JOB)
    assert given.value == {"text": "soup"}
    assert given.salt == seed.salt and given.reply_key == BUYER.public_key
    with pytest.raises(NotSealedForUs):
        open_content(sealed, LATE)
    later = key_for_later(seed, LATE.public_key, os.urandom(48))
    assert read_job_input(open_content(sealed, LATE, later), JOB) == given
