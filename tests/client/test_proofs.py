"""A paper proves its value to somebody who knows the genesis hash alone, and to nobody once anything is changed."""

from __future__ import annotations

import asyncio
import copy
import random
from pathlib import Path
from typing import Any

import pytest

from openresource.client.proofs import ProofRefused, parse_paper, verify_state_proof
from openresource.primitives.encoding import canonical_json_bytes
from openresource.primitives.errors import Refusal
from openresource.primitives.keys import generate_key, sign_message
from tests.node.simple_node import ALICE, CHAIN_ID, running_door
from tests.vectors_support import changed

STRANGER = generate_key(b"a stranger who signs blocks......")


@pytest.fixture(scope="module")
def papers(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, list[dict[str, Any]]]:
    """The genesis hash of a chain and papers of a leaf, an object and a past value."""

    async def made() -> tuple[str, list[dict[str, Any]]]:
        async with running_door(tmp_path_factory.mktemp("node")) as (_, chain):
            await chain.write("/apps/x", {"a": 1, "ab": {"c": "text", "0x61": True}}, ALICE)
            await chain.write("/apps/x/a", 2, ALICE)
            found = []
            for path, height in (("/apps/x/a", 2), ("/apps/x/ab", 2), ("/apps/x/a", 1), ("/apps", 2)):
                paper = (await chain.read_at(path, height)).paper
                assert paper is not None
                found.append(parse_paper(canonical_json_bytes(paper)))
            return (await chain.status()).genesis_hash, found

    return asyncio.run(made())


def test_papers_of_leaves_objects_and_past_values_hold(papers: tuple[str, list[dict[str, Any]]]) -> None:
    genesis_hash, found = papers
    proven = [verify_state_proof(paper, genesis_hash) for paper in found]
    assert [one.value for one in proven[:3]] == [2, {"c": "text", "0x61": True}, 1]
    assert [one.height for one in proven] == [2, 2, 1, 2]
    assert proven[0].path == "/values/apps/x/a"


def test_another_genesis_hash_is_not_convinced(papers: tuple[str, list[dict[str, Any]]]) -> None:
    _, found = papers
    for other in ("0x" + "00" * 32, "", "nonsense"):
        with pytest.raises(ProofRefused):
            verify_state_proof(found[0], other)


# What a paper says about itself that nothing hangs on: the ways to name the same network and block.
@pytest.mark.parametrize("member", ["ref", "value", "proof", "block", "hash", "signature", "genesis"])
def test_a_paper_that_was_changed_proves_nothing(
    papers: tuple[str, list[dict[str, Any]]], member: str
) -> None:
    genesis_hash, found = papers
    random_source = random.Random(7)
    for paper in found[:3]:
        for _ in range(30):
            other = copy.deepcopy(paper)
            other[member] = changed(other[member], random_source)
            with pytest.raises(Refusal):
                verify_state_proof(other, genesis_hash)
        missing = {name: value for name, value in paper.items() if name != member}
        if member != "hash":
            with pytest.raises(ProofRefused):
                verify_state_proof(missing, genesis_hash)


def test_a_block_that_a_stranger_signed_proves_nothing(papers: tuple[str, list[dict[str, Any]]]) -> None:
    genesis_hash, found = papers
    paper = copy.deepcopy(found[0])
    paper["signature"] = sign_message(paper["hash"], STRANGER, CHAIN_ID)
    with pytest.raises(ProofRefused, match="signature"):
        verify_state_proof(paper, genesis_hash)


def test_rubbish_is_refused(tmp_path: Path) -> None:
    for raw in (b"", b"[]", b"5", b"{", b'{"proof":' + b"[" * 2_000 + b"]" * 2_000 + b"}"):
        with pytest.raises(Refusal):
            parse_paper(raw)
    with pytest.raises(ProofRefused):
        verify_state_proof({}, "0x" + "00" * 32)
    with pytest.raises(ProofRefused):
        verify_state_proof({"genesis": [], "block": 5}, "0x" + "00" * 32)
