"""AI Network's transactions and genesis blocks, step by step: results, receipts and state hashes."""

from __future__ import annotations

from typing import Any

from openresource.ledger.blocks import parse_block
from openresource.ledger.machine import bandages_after
from openresource.ledger.receipts import receipt_of
from openresource.ledger.results import GAS_PRICE
from openresource.ledger.transactions import invalid_body_reason, is_verified, trusted_transaction
from openresource.primitives.values import deep_equal
from tests.support.ain import AinChain
from tests.vectors_support import WHOLE_FILE, vectors


@vectors("ain/tx/*.json", WHOLE_FILE, count=lambda document: len(document["steps"]))
def test_transaction_vectors(case: Any, document: Any) -> None:
    run_sequence(document)


@vectors("ain/tx_3nodes/*.json", WHOLE_FILE, count=lambda document: len(document["steps"]))
def test_transaction_vectors_of_three_nodes(case: Any, document: Any) -> None:
    run_sequence(document)


@vectors("ain/genesis/*.genesis_block.json", WHOLE_FILE)
def test_genesis_block_vectors(case: Any, document: Any) -> None:
    parsed = parse_block(document)
    for name, said in document.items():
        assert deep_equal(parsed[name], said), name


@vectors("ain/genesis/*-node*.json", WHOLE_FILE)
def test_local_genesis_vectors(case: Any, document: Any) -> None:
    run_genesis(document)


@vectors("ain/genesis/*-prod.json", WHOLE_FILE)
def test_public_genesis_vectors(case: Any, document: Any) -> None:
    run_genesis(document)


@vectors("ain/genesis/base.json", WHOLE_FILE)
def test_base_genesis_vectors(case: Any, document: Any) -> None:
    run_genesis(document)


def run_sequence(document: Any) -> None:
    chain = AinChain(document["config"])
    assert chain.tree.root_hash() == document["start_root_proof_hash"]
    chain.tree.rebase()
    bases = 1
    for index, step in enumerate(document["steps"]):
        place = f"{document['name']} step {index}"
        if step["type"] == "end_block":
            for labels, value in bandages_after(chain.network, step["block_number"]):
                chain.state.write(list(labels), value)
            chain.tree.rebase()
            chain.state.forget()
            bases += 1
            if bases > 2:
                chain.tree.drop_base()
        elif step["type"] == "invalid_tx_body":
            assert invalid_body_reason(step["tx_body"]) is not None, place
        else:
            run_step(chain, step, place)
    final = document["final"]
    info = chain.tree.info([])
    assert info is not None and info.bytes == final["root_info"]["tree_bytes"]
    for path, expected in final["proof_hashes"].items():
        assert chain.tree.hash_of([label for label in path.split("/") if label]) == expected, path


def run_step(chain: AinChain, step: Any, place: str) -> None:
    execution = chain.executor.execute(
        trusted_transaction(step["tx"]),
        step["block_number"],
        step["block_time"],
        step["executed_at"],
        skip_fees=step["skip_fees"],
        restore=step["restore_if_fails"],
        is_dry_run=step.get("dryrun", False),
    )
    result, expected = execution.result, step["result"]
    if expected.get("code") == GAS_PRICE:
        # Its message quotes members that exist only at run time.
        result, expected = {**result, "message": ""}, {**expected, "message": ""}
    assert deep_equal(result, expected), f"{place}: {result}"
    assert deep_equal(receipt_of(execution.result), step["receipt"]), place
    assert execution.has_failed == step["failed"], place
    assert execution.is_precheck_failure == step["precheck_failed"], place
    assert chain.tree.root_hash() == step["root_proof_hash"], place
    for path, value in step.get("values", {}).items():
        labels = ["values", *[label for label in path.split("/") if label]]
        assert deep_equal(chain.tree.get(labels), value), f"{place} {path}"


def run_genesis(document: Any) -> None:
    if "steps" not in document:
        # The pattern also matches the blocks, which have a test of their own.
        return
    config = document["config"]
    chain = AinChain(config)
    assert chain.blank_hash == document["initial_state_proof_hash"]
    for wire, execution, state_hash, step in zip(
        chain.block["transactions"], chain.executions, chain.hashes, document["steps"], strict=True
    ):
        transaction = trusted_transaction(wire)
        assert is_verified(transaction, document["chain_id"]) == step["verified"]
        assert (transaction.hash, transaction.address) == (step["tx_hash"], step["address"])
        assert execution.has_failed == step["failed"]
        assert state_hash == step["root_proof_hash"]
    receipts = [receipt_of(execution.result) for execution in chain.executions]
    assert deep_equal(receipts, document["receipts"])
    for path, expected in document["final"]["proof_hashes"].items():
        assert chain.tree.hash_of([label for label in path.split("/") if label]) == expected, path
    writes = {flag.name: flag.bandages for flag in chain.network.flags}
    for bandage in document["bandages_on_genesis_state"]:
        for labels, value in writes[bandage["flag"]]:
            chain.state.write(list(labels), value)
        assert chain.tree.root_hash() == bandage["root_proof_hash"], bandage["flag"]
