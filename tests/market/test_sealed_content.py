"""Sealed content opens for its readers, for the job it was made for, or not at all."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from openresource.ledger.draft import NetworkDomain
from openresource.market.placements import (
    Placement,
    TlsKeyNotSignedByProvider,
    provider_public_key,
    sign_tls_key,
)
from openresource.market.sealed_content import (
    MAGIC,
    Chance,
    JobInput,
    JobOutput,
    NotSealedForUs,
    SealedContentInvalid,
    content_key_of,
    job_input_bytes,
    job_output_bytes,
    open_content,
    read_job_input,
    read_job_output,
    seal_content,
    unlock,
    wrapped_text,
)
from openresource.primitives.errors import Refusal
from openresource.primitives.keys import generate_key

READER, OTHER, STRANGER, ONCE = (generate_key(word * 8) for word in (b"read", b"othr", b"strn", b"once"))
JOB, OTHER_JOB = "ab" * 16, "cd" * 16
CHANCE = Chance(bytes(range(32)), bytes(16), ((ONCE, bytes(16)), (ONCE, bytes(range(16)))))
READERS = {READER.address: READER.public_key, OTHER.address: OTHER.public_key}
NETWORK = NetworkDomain(chain_id=100, genesis_hash="0x" + "ab" * 32)


def test_each_reader_opens_it_and_nobody_else_does() -> None:
    sealed = seal_content(b"soup", READERS, CHANCE)
    assert open_content(sealed, READER) == open_content(sealed, OTHER) == b"soup"
    with pytest.raises(NotSealedForUs):
        open_content(sealed, STRANGER)


def test_a_key_that_is_added_later_opens_it() -> None:
    sealed = seal_content(b"soup", READERS, CHANCE)
    content_key = content_key_of(sealed, READER)
    later = wrapped_text(content_key, STRANGER.public_key, ONCE, bytes(16))
    assert open_content(sealed, STRANGER, later) == b"soup"
    assert unlock(sealed, content_key) == b"soup"
    for wrong in ("", "!", "AAAA", wrapped_text(content_key, OTHER.public_key, ONCE, bytes(16))):
        with pytest.raises(SealedContentInvalid):
            open_content(sealed, STRANGER, wrong)


def test_an_input_is_good_for_its_own_job_alone() -> None:
    given_input = JobInput(JOB, b"s" * 32, {"text": ["höre"]}, READER.public_key)
    assert read_job_input(job_input_bytes(given_input), JOB) == given_input
    with pytest.raises(SealedContentInvalid):
        read_job_input(job_input_bytes(given_input), OTHER_JOB)


def test_an_output_is_good_for_its_own_job_and_provider_alone() -> None:
    output = JobOutput(JOB, OTHER.address, "DONE", [1, 2], "", b"d" * 32)
    content = job_output_bytes(output)
    assert read_job_output(content, JOB, OTHER.address) == output
    for job, provider in ((OTHER_JOB, OTHER.address), (JOB, STRANGER.address)):
        with pytest.raises(SealedContentInvalid):
            read_job_output(content, job, provider)


@given(st.binary(max_size=300))
def test_rubbish_is_refused_by_type(rubbish: bytes) -> None:
    for sealed in (rubbish, MAGIC + rubbish, MAGIC + (2).to_bytes(4, "big") + b"{}" + rubbish):
        with pytest.raises(Refusal):
            open_content(sealed, READER)
    with pytest.raises(Refusal):
        read_job_input(rubbish, JOB)


def test_a_placement_tells_the_public_key_of_its_provider() -> None:
    endpoint, tls_key = "https://127.0.0.1:9000", b"t" * 32
    placement = Placement(
        STRANGER.address,
        "shout",
        "bafy",
        READER.address,
        "PLACED",
        endpoint=endpoint,
        tls_key=tls_key,
        tls_signature=sign_tls_key(endpoint, tls_key, READER, NETWORK),
    )
    assert provider_public_key(placement, NETWORK) == READER.public_key
    with pytest.raises(TlsKeyNotSignedByProvider):
        provider_public_key(placement, NetworkDomain(chain_id=101, genesis_hash=NETWORK.genesis_hash))
