"""The machine: blocks are filled, sealed, replayed and dropped; what fails leaves nothing behind."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from openresource import protocol
from openresource.ledger.blocks import (
    BlockDoesNotFollow,
    BlockMismatch,
    BlockRefused,
    MalformedBlock,
    sign_block,
    verify_header_chain,
)
from openresource.ledger.draft import Draft, DueAction, Native, NativeCall
from openresource.ledger.genesis import TOTAL_SUPPLY_UAIN, InvalidGenesis, read_genesis
from openresource.ledger.machine import Machine
from openresource.ledger.proofs import check_proof, proves, state_proof
from openresource.ledger.results import (
    ALREADY_IN_CHAIN,
    FEE_BALANCE,
    NATIVE_THREW,
    OUTSIDE_REPLAY_WINDOW,
    TREE_HEIGHT,
    WRONG_NONCE,
)
from openresource.primitives.amounts import UAIN_PER_AIN
from openresource.primitives.errors import Refusal
from tests.support.chains import CHAIN_ID, GENESIS_MS, Chain, genesis_document, key_of


def signed(block: dict[str, Any]) -> dict[str, Any]:
    return {**block, "signature": sign_block(block, key_of("producer"), CHAIN_ID)}


def test_the_same_document_makes_the_same_first_block() -> None:
    assert Chain("alice").machine.genesis_hash == Chain("alice").machine.genesis_hash
    assert Chain("alice").machine.genesis_hash != Chain("bob").machine.genesis_hash


def test_genesis_accounts_hold_the_whole_supply() -> None:
    assert Chain("alice", "bob").supply_uain() == TOTAL_SUPPLY_UAIN


@pytest.mark.parametrize(
    "change",
    [
        {"network": "moon"},
        {"chain_id": 7},
        {"timestamp_ms": -1},
        {"producer": "0x1"},
        {"accounts": {}},
        {"accounts": {key_of("alice").address: 1}},
        {"parameters": {"resource": {"min_gas_price": [1]}}},
        {"more": 1},
    ],
)
def test_a_wrong_genesis_document_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(InvalidGenesis):
        protocol.network_of(read_genesis({**genesis_document("alice"), **change}))


def test_parameters_of_the_document_are_in_the_state() -> None:
    chain = Chain("alice", resource={"min_gas_price": 7}, market={"fee_ppm": 5})
    assert chain.value("/blockchain_params/resource/min_gas_price") == 7
    assert chain.value("/blockchain_params/market/fee_ppm") == 5
    assert chain.value("/blockchain_params/genesis/network") == "local"


def test_a_transfer_moves_whole_uain() -> None:
    chain = Chain("alice", "bob")
    inserted = chain.pay("alice", "bob", 0.1, "k")
    assert inserted.is_included and not inserted.has_failed
    assert chain.balance(key_of("alice").address) == 1000 * UAIN_PER_AIN - 100_000
    assert chain.balance(key_of("bob").address) == 1000 * UAIN_PER_AIN + 100_000
    assert [change.by for change in inserted.changes] == ["user", "native", "native"]


def test_a_payment_id_pays_once() -> None:
    chain = Chain("alice", "bob")
    assert not chain.pay("alice", "bob", 1, "same").has_failed
    assert chain.pay("alice", "bob", 1, "same").has_failed
    assert chain.balance(key_of("bob").address) == 1001 * UAIN_PER_AIN


@pytest.mark.parametrize("amount", [0, -1, 0.1234567, "1", None, True, {"a": 1}, 10**12])
def test_an_odd_amount_is_not_paid(amount: Any) -> None:
    chain = Chain("alice", "bob")
    assert chain.pay("alice", "bob", amount, "k").has_failed
    assert chain.supply_uain() == TOTAL_SUPPLY_UAIN


def test_a_failed_transaction_leaves_no_trace() -> None:
    chain = Chain("alice", "bob")
    chain.open()
    before = chain.tree.root_hash()
    inserted = chain.pay("alice", "bob", 5000, "k")
    assert inserted.is_included and inserted.has_failed and inserted.changes == ()
    assert chain.tree.root_hash() == before


def test_a_refusal_of_a_native_is_the_result_with_its_facts() -> None:
    chain = Chain("alice", "bob")
    result = chain.pay("alice", "bob", 5000, "k").result
    assert result["code"] == 21001
    assert result["func_results"]["_transfer"]["refusal"]["facts"]["amount_uain"] == 5000 * UAIN_PER_AIN


def test_a_set_is_all_or_nothing() -> None:
    chain = Chain("alice", "bob")
    chain.open()
    before = chain.tree.root_hash()
    source, target = key_of("alice").address, key_of("bob").address
    op_list = [
        {"type": "SET_VALUE", "ref": f"/transfer/{source}/{target}/{key}/value", "value": value}
        for key, value in (("a", 1), ("b", 5000))
    ]
    inserted = chain.run("alice", {"type": "SET", "op_list": op_list})
    assert inserted.has_failed and set(inserted.result["result_list"]) == {"0", "1"}
    assert chain.tree.root_hash() == before


def test_a_set_beyond_a_limit_of_the_tree_keeps_nothing() -> None:
    chain = Chain("alice")
    chain.create_app("alice", "deep")
    before = chain.tree.root_hash()
    op_list = [{"type": "SET_VALUE", "ref": "/apps/deep/" + "/".join("a" * 40), "value": 1}]
    inserted = chain.run("alice", {"type": "SET", "op_list": op_list})
    assert inserted.has_failed and inserted.result["code"] == TREE_HEIGHT
    assert chain.tree.root_hash() == before


def test_fees_of_failed_transactions_stay_paid() -> None:
    chain = Chain("alice", "bob")
    inserted = chain.pay("alice", "bob", 5000, "k", gas_price=3)
    assert inserted.has_failed
    paid = round(inserted.result["gas_cost_total"] * UAIN_PER_AIN)
    assert paid == 3 * inserted.result["gas_amount_charged"] > 0
    assert chain.balance(key_of("alice").address) == 1000 * UAIN_PER_AIN - paid
    assert chain.balance("treasury|market|fees") == paid
    assert chain.supply_uain() == TOTAL_SUPPLY_UAIN


def test_who_cannot_pay_the_fee_pays_what_there_is_and_gets_nothing() -> None:
    chain = Chain("alice", "bob")
    inserted = chain.pay("alice", "bob", 1000, "k", gas_price=3)
    assert inserted.has_failed and inserted.result["code"] == FEE_BALANCE
    assert chain.balance(key_of("bob").address) == 1000 * UAIN_PER_AIN
    assert chain.balance("treasury|market|fees") > 0
    assert chain.supply_uain() == TOTAL_SUPPLY_UAIN


@pytest.mark.parametrize("price", [10**15, 1e300, 2**60])
def test_a_price_without_measure_takes_all_there_is_and_no_more(price: float) -> None:
    chain = Chain("alice", "bob")
    inserted = chain.pay("alice", "bob", 1, "k", gas_price=price)
    assert inserted.has_failed and inserted.result["code"] == FEE_BALANCE
    assert chain.balance(key_of("alice").address) == 0
    assert chain.supply_uain() == TOTAL_SUPPLY_UAIN


def test_a_failed_transaction_uses_up_its_number() -> None:
    chain = Chain("alice", "bob")
    first = chain.transaction("alice", {"type": "SET_VALUE", "ref": "/nowhere", "value": 1}, nonce=0)
    assert chain.machine.insert(first).has_failed
    assert chain.value(f"/accounts/{key_of('alice').address}/nonce") == 1
    later = chain.pay("alice", "bob", 1, "k", nonce=0)
    assert not later.is_included and later.result["code"] == WRONG_NONCE
    assert not chain.pay("alice", "bob", 1, "k", nonce=1).has_failed


def test_an_unordered_transaction_is_valid_only_near_block_time() -> None:
    chain = Chain("alice", "bob")
    chain.open()
    for away_ms in (-300_001, 300_001):
        inserted = chain.pay("alice", "bob", 1, f"far{away_ms}", timestamp=chain.now_ms + away_ms)
        assert not inserted.is_included and inserted.result["code"] == OUTSIDE_REPLAY_WINDOW
    for away_ms in (-300_000, 300_000):
        assert not chain.pay("alice", "bob", 1, f"near{away_ms}", timestamp=chain.now_ms + away_ms).has_failed


def test_a_transaction_enters_the_chain_once() -> None:
    chain = Chain("alice", "bob")
    chain.create_app("alice", "counter")
    once = chain.transaction("alice", {"type": "INC_VALUE", "ref": "/apps/counter/n", "value": 1})
    assert not chain.machine.insert(once).has_failed
    assert chain.machine.insert(once).result["code"] == ALREADY_IN_CHAIN
    for _ in range(3):
        chain.seal()
        chain.open(later_ms=99_000)
        assert chain.machine.insert(once).result["code"] == ALREADY_IN_CHAIN
    chain.seal()
    chain.open(later_ms=700_000)
    assert chain.machine.insert(once).result["code"] == OUTSIDE_REPLAY_WINDOW
    assert chain.value("/apps/counter/n") == 1


def test_after_a_start_from_disk_transactions_are_still_known() -> None:
    chain = Chain("alice", "bob")
    once = chain.transaction("alice", {"type": "SET_VALUE", "ref": "/nowhere", "value": 1})
    chain.machine.insert(once)
    chain.seal()
    again = protocol.resume(
        chain.document,
        chain.tree,
        chain.machine.tip,
        chain.machine.genesis_hash,
        [sealed.block for sealed in chain.sealed],
    )
    again.open_block(chain.now_ms + 1, key_of("producer").address)
    assert again.insert(once).result["code"] == ALREADY_IN_CHAIN


def test_a_dropped_block_never_was() -> None:
    chain = Chain("alice", "bob")
    chain.seal()
    before = chain.tree.root_hash()
    chain.open()
    once = chain.transaction("alice", {"type": "SET_VALUE", "ref": "/nowhere", "value": 1})
    chain.machine.insert(once)
    chain.pay("alice", "bob", 1, "k")
    chain.machine.drop_open_block()
    assert chain.tree.root_hash() == before and not chain.machine.is_open
    chain.open()
    assert chain.machine.insert(once).is_included


def test_a_dry_run_tells_and_keeps_nothing() -> None:
    chain = Chain("alice", "bob")
    transaction = chain.transaction(
        "alice",
        {
            "type": "SET_VALUE",
            "ref": f"/transfer/{key_of('alice').address}/{key_of('bob').address}/k/value",
            "value": 1,
        },
        gas_price=1,
    )
    before = chain.tree.root_hash()
    tried = chain.machine.dry_run(transaction)
    assert not tried.has_failed and tried.result["is_dryrun"] and not tried.is_included
    assert chain.tree.root_hash() == before and chain.machine.open_count == 0
    assert chain.machine.insert(transaction).is_included


def busy_chain() -> Chain:
    chain = Chain("alice", "bob")
    chain.create_app("alice", "app")
    chain.set("alice", "/apps/app/x", {"a": 1, "b": "two"})
    chain.pay("alice", "bob", 1.25, "k1", gas_price=2)
    chain.pay("alice", "bob", 99999, "k2", gas_price=2)
    chain.seal()
    chain.pay("bob", "alice", 2, "k3", nonce=0)
    chain.seal()
    chain.seal()
    return chain


def test_replaying_the_blocks_gives_the_same_state() -> None:
    chain = busy_chain()
    follower = Chain("alice", "bob")
    for sealed in chain.sealed:
        replayed = follower.machine.replay(signed(sealed.block))
        assert replayed.hash == sealed.hash
        assert [item.result for item in replayed.inserted] == [item.result for item in sealed.inserted]
        assert [item.changes for item in replayed.inserted] == [item.changes for item in sealed.inserted]
    assert follower.tree.root_hash() == chain.tree.root_hash()
    assert follower.machine.tip["signature"]


@pytest.mark.parametrize(
    ("change", "refusal"),
    [
        ({"state_proof_hash": "0x" + "1" * 64}, BlockMismatch),
        ({"gas_amount_total": 1}, BlockMismatch),
        ({"gas_cost_total": 1}, BlockMismatch),
        ({"receipts": []}, BlockMismatch),
        ({"transactions": []}, BlockMismatch),
        ({"hash": "0x" + "1" * 64}, BlockMismatch),
        ({"transactions_hash": "0x" + "1" * 64}, BlockMismatch),
        ({"epoch": 9}, BlockMismatch),
        ({"size": 1}, BlockMismatch),
        ({"number": 5}, BlockDoesNotFollow),
        ({"last_hash": "0x" + "1" * 64}, BlockDoesNotFollow),
        ({"timestamp": GENESIS_MS}, BlockDoesNotFollow),
        ({"timestamp": "now"}, MalformedBlock),
        ({"transactions": {}}, MalformedBlock),
        ({"validators": []}, MalformedBlock),
        ({"proposer": key_of("alice").address}, BlockRefused),
    ],
)
def test_a_tampered_block_is_refused_and_changes_nothing(
    change: dict[str, Any], refusal: type[BlockRefused]
) -> None:
    block = busy_chain().sealed[0].block
    follower = Chain("alice", "bob")
    before = follower.tree.root_hash()
    with pytest.raises(refusal):
        follower.machine.replay({**block, **change}, is_trusted=True)
    assert follower.tree.root_hash() == before and follower.machine.height == 0
    assert follower.machine.replay(block, is_trusted=True).hash == block["hash"]


def test_tampered_transactions_are_refused() -> None:
    block = busy_chain().sealed[0].block
    follower = Chain("alice", "bob")
    for position, wire in enumerate(block["transactions"]):
        tampered = copy.deepcopy(block)
        tampered["transactions"][position]["tx_body"]["timestamp"] = wire["tx_body"]["timestamp"] + 1
        with pytest.raises(BlockRefused, match="not valid"):
            follower.machine.replay(signed(tampered))
    doubled = {**block, "transactions": [*block["transactions"], block["transactions"][0]]}
    with pytest.raises(BlockRefused, match="may not enter"):
        follower.machine.replay(signed(doubled))


def test_a_block_needs_its_producers_signature() -> None:
    block = busy_chain().sealed[0].block
    follower = Chain("alice", "bob")
    for signature in (
        None,
        "0x12",
        sign_block(block, key_of("alice"), CHAIN_ID),
        sign_block(block, key_of("producer"), 101),
    ):
        with pytest.raises(BlockRefused):
            follower.machine.replay({**block, "signature": signature})
    follower.machine.replay(signed(block))


def test_headers_make_a_chain_from_the_genesis_hash() -> None:
    chain = busy_chain()
    genesis = Chain("alice", "bob").machine.tip
    headers = [genesis, *[signed(sealed.block) for sealed in chain.sealed]]
    producers = [key_of("producer").address]
    assert verify_header_chain(headers, chain.machine.genesis_hash, CHAIN_ID, producers) == headers[-1]
    with pytest.raises(BlockRefused):
        verify_header_chain(headers, "0x" + "1" * 64, CHAIN_ID, producers)
    with pytest.raises(BlockRefused):
        verify_header_chain([headers[0], headers[2]], chain.machine.genesis_hash, CHAIN_ID, producers)
    with pytest.raises(BlockRefused):
        verify_header_chain(headers, chain.machine.genesis_hash, CHAIN_ID, [key_of("alice").address])


def test_a_balance_is_proved_by_the_hash_in_the_header() -> None:
    chain = busy_chain()
    labels = ["values", "accounts", key_of("bob").address, "balance"]
    proof = state_proof(chain.tree, labels)
    checked = check_proof(proof)
    assert checked.is_verified and checked.hash == chain.machine.tip["state_proof_hash"]
    assert proves(proof, labels, chain.tree.get(labels), chain.machine.tip["state_proof_hash"])


def machine_with(chain: Chain, **fields: Any) -> Machine:
    """The chain's machine with other natives or due actions."""
    from dataclasses import replace

    network = replace(chain.machine.network, **fields)
    return Machine(network, chain.tree, chain.machine.tip, chain.machine.genesis_hash)


def test_an_exception_in_a_native_fails_the_transaction_and_hides_its_insides() -> None:
    def explode(draft: Draft, call: NativeCall) -> None:
        raise KeyError("secret inside")

    chain = Chain("alice", "bob")
    chain.machine = machine_with(chain, natives={"_transfer": Native("_transfer", (), explode)})
    chain.open()
    before = chain.tree.root_hash()
    inserted = chain.pay("alice", "bob", 1, "k")
    assert inserted.has_failed and inserted.result["code"] == NATIVE_THREW
    assert "secret" not in str(inserted.result)
    assert any("secret" in mistake for mistake in chain.machine.mistakes)
    assert chain.tree.root_hash() == before


def test_a_native_cannot_write_beyond_its_prefixes_or_mint() -> None:
    outcomes: list[str] = []

    def trespass(draft: Draft, call: NativeCall) -> None:
        for act in (
            lambda: draft.set(("blockchain_params", "market"), 1),
            lambda: draft.set(("accounts", call.signer, "balance"), 10**9),
            lambda: draft.move(key_of("bob").address, call.signer, 1),
        ):
            with pytest.raises(AssertionError):
                act()
            outcomes.append("stopped")
        draft.set(("tests", "fine"), True)

    chain = Chain("alice", "bob")
    native = Native("_transfer", (("tests",), ("accounts",)), trespass)
    chain.machine = machine_with(chain, natives={"_transfer": native})
    chain.pay("alice", "bob", 1, "k")
    assert outcomes == ["stopped"] * 3 and chain.value("/tests/fine") is True


class _Stop(Refusal):
    template = "Stop."
    result_code = 21050


def test_due_actions_run_in_time_order_at_the_opening_of_a_block() -> None:
    seen: list[tuple[str, int]] = []

    def act(draft: Draft, key: str, at_ms: int) -> None:
        seen.append((key, at_ms))
        draft.set(("tests", key), at_ms)
        if key == "bad":
            raise _Stop()

    def schedule(draft: Draft, call: NativeCall) -> None:
        for key, delay_ms in (("late", 9000), ("bad", 3000), ("soon", 2000), ("soon", 2000)):
            draft.after(call.at + delay_ms, "test", key)

    chain = Chain("alice", "bob")
    chain.machine = machine_with(
        chain,
        natives={"_transfer": Native("_transfer", (), schedule)},
        due_actions={"test": DueAction("test", (("tests",),), act)},
    )
    assert chain.machine.next_due_ms is None
    chain.pay("alice", "bob", 1, "k")
    opened_ms = chain.now_ms
    chain.seal()
    assert chain.machine.next_due_ms == opened_ms + 2000
    chain.open(later_ms=5000)
    assert seen == [("soon", opened_ms + 2000), ("bad", opened_ms + 3000)]
    assert chain.value("/tests") == {"soon": opened_ms + 2000}
    assert [change.by for change in chain.opening_changes] == ["due"]
    assert chain.machine.next_due_ms == opened_ms + 9000


def test_the_due_queue_is_worked_up_to_a_bound() -> None:
    def act(draft: Draft, key: str, at_ms: int) -> None:
        draft.set(("tests", key), True)

    def schedule(draft: Draft, call: NativeCall) -> None:
        for number in range(150):
            draft.after(call.at + 1, "test", str(number))

    chain = Chain("alice", "bob")
    chain.machine = machine_with(
        chain,
        natives={"_transfer": Native("_transfer", (), schedule)},
        due_actions={"test": DueAction("test", (("tests",),), act)},
    )
    chain.pay("alice", "bob", 1, "k")
    chain.seal()
    chain.seal()
    assert len(chain.value("/tests")) == 100
    chain.seal()
    assert len(chain.value("/tests")) == 150 and chain.value("/due") is None
