"""AI Network's chain on one node, without sockets: submitting, blocks by epochs, finality, and what the tracker says."""

from __future__ import annotations

from typing import Any

import pytest

from openresource.ledger.consensus_papers import vote_body
from openresource.ledger.transactions import Transaction, sign_transaction
from openresource.node.ain.archive import MemoryArchive
from openresource.node.ain.chain import SERVING, AinChain, Listener, Snapshot
from openresource.node.ain.pool import PoolLimits
from openresource.primitives.keys import PrivateKey
from tests.support.ain import ain_network
from tests.vectors_support import load_vectors

EPOCH_MS = 1000


class OneNode:
    """A chain of one validator with a clock of its own."""

    def __init__(self, limits: PoolLimits | None = None) -> None:
        accounts = load_vectors("ain/genesis/test_accounts.json")["others"]
        self.keys = [PrivateKey(bytes.fromhex(account["private_key"])) for account in accounts]
        genesis = load_vectors("ain/genesis/1-node.genesis_block.json")
        self.states: list[tuple[str, str | None, str]] = []
        self.final: list[tuple[int, str]] = []
        self.writes: list[tuple[str, list[str], Any, Any]] = []
        self.chain = AinChain(
            ain_network("1-node"),
            genesis,
            MemoryArchive(),
            limits=limits,
            listener=Listener(
                state_changed=lambda wire, before, after: self.states.append((wire["hash"], before, after)),
                block_final=lambda number, block_hash: self.final.append((number, block_hash)),
                user_writes=lambda transaction: self._watch("USER"),
                block_writes=lambda transaction: self._watch("BLOCK"),
            ),
        )
        self.chain.node_state = SERVING
        self.now_ms: int = genesis["timestamp"] + 10 * EPOCH_MS
        self.epoch = 10

    def _watch(self, source: str) -> Any:
        return lambda auth, labels, before, after: self.writes.append((source, list(labels), before, after))

    def next_epoch(self) -> None:
        """One epoch: finality, a block, and the vote for it."""
        self.epoch += 1
        self.now_ms += EPOCH_MS
        chain, key = self.chain, self.keys[0]
        chain.finalise(self.now_ms)
        assert chain.consensus.next_proposer(self.epoch) == key.address
        block, body = chain.make_block(self.epoch, self.now_ms, key.address)
        proposal = sign_transaction(body, key, 0).to_json()
        entry = chain.add_block(block, proposal, self.now_ms)
        stake = entry.block["validators"][key.address]["stake"]
        vote = vote_body(entry.block, key.address, stake, self.now_ms, is_against=False)
        chain.add_vote(sign_transaction(vote, key, 0).to_json(), self.now_ms)

    def transaction(
        self, ref: str, value: Any, *, key: int = 5, nonce: int = -1, gas_price: int = 0
    ) -> Transaction:
        operation = {"type": "SET_VALUE", "ref": ref, "value": value}
        self.now_ms += 1
        body = {"operation": operation, "nonce": nonce, "timestamp": self.now_ms, "gas_price": gas_price}
        return sign_transaction(body, self.keys[key], 0)

    def transfer(self, amount: int, name: int = 1, **options: Any) -> Transaction:
        source, target = self.keys[options.get("key", 5)].address, self.keys[6].address
        return self.transaction(f"/transfer/{source}/{target}/{name}/value", amount, **options)


def balance(state: Any, address: str) -> Any:
    return state.read_value(("accounts", address, "balance"))


def test_a_transfer_is_seen_at_once_and_final_after_three_epochs() -> None:
    node = OneNode()
    target = node.keys[6].address
    node.next_epoch()
    transfer = node.transfer(10)
    result = node.chain.submit(transfer, node.now_ms)
    assert result["code"] == 0
    assert balance(node.chain.front, target) == 1_000_010
    assert balance(node.chain.final, target) == 1_000_000
    info = node.chain.transaction_info(transfer.hash)
    assert info is not None
    assert (info["state"], info["number"], info["is_executed"]) == ("EXECUTED", -1, True)
    node.next_epoch()
    info = node.chain.transaction_info(transfer.hash)
    assert info is not None and info["state"] == "IN_BLOCK"
    node.next_epoch()
    assert balance(node.chain.final, target) == 1_000_000
    node.next_epoch()
    assert balance(node.chain.final, target) == 1_000_010
    info = node.chain.transaction_info(transfer.hash)
    assert info is not None
    assert (info["state"], info["number"], info["index"], info["is_finalized"]) == ("FINALIZED", 2, 0, True)
    assert info["receipt"] == {"code": 0, "gas_amount_charged": 831, "gas_cost_total": 0}
    assert [entry[1:] for entry in node.states if entry[0] == transfer.hash] == [
        (None, "EXECUTED"),
        ("EXECUTED", "IN_BLOCK"),
        ("IN_BLOCK", "FINALIZED"),
    ]
    assert node.final[-1] == (2, node.chain.final_block["hash"])


def test_the_front_state_keeps_what_waits_when_a_block_becomes_final() -> None:
    node = OneNode()
    for _ in range(3):
        node.next_epoch()
    node.chain.submit(node.transfer(10), node.now_ms)
    before = node.chain.final_number
    node.next_epoch()
    assert node.chain.final_number > before
    assert balance(node.chain.front, node.keys[6].address) == 1_000_010
    assert balance(node.chain.final, node.keys[6].address) == 1_000_000


def test_a_transaction_that_its_rule_denies_waits_as_pending_and_ends_reverted() -> None:
    node = OneNode()
    denied = node.transaction("/apps/nobody/owns", 1)
    result = node.chain.submit(denied, node.now_ms)
    assert result["code"] == 12103
    for _ in range(4):
        node.next_epoch()
    info = node.chain.transaction_info(denied.hash)
    assert info is not None
    assert info["state"] == "REVERTED"
    assert info["receipt"]["code"] == 12103
    assert [entry[1:] for entry in node.states if entry[0] == denied.hash] == [
        (None, "PENDING"),
        ("PENDING", "REVERTED"),
        ("REVERTED", "REVERTED"),
    ]


def test_a_wrong_nonce_is_neither_kept_nor_tracked() -> None:
    node = OneNode()
    wrong = node.transfer(10, nonce=7)
    assert node.chain.submit(wrong, node.now_ms)["code"] == 10712
    assert node.chain.transaction_info(wrong.hash) is None
    assert node.chain.pool.size == 0


def test_the_same_transaction_is_received_once() -> None:
    node = OneNode()
    transfer = node.transfer(10)
    assert node.chain.submit(transfer, node.now_ms)["code"] == 0
    assert node.chain.submit(transfer, node.now_ms)["code"] == 10701


def test_a_dry_run_leaves_nothing_behind() -> None:
    node = OneNode()
    transfer = node.transfer(10)
    result = node.chain.submit(transfer, node.now_ms, is_dry_run=True)
    assert result["code"] == 0 and result["is_dryrun"] is True
    assert balance(node.chain.front, node.keys[6].address) == 1_000_000
    assert node.chain.pool.size == 0 and node.writes == []


def test_rooms_of_the_pool_refuse_by_their_own_codes() -> None:
    node = OneNode(PoolLimits(size=6, size_per_account=4, free_ratio=0.5, free_ratio_per_account=0.5))
    codes = [node.chain.submit(node.transfer(1, name), node.now_ms)["code"] for name in range(3)]
    assert codes == [0, 0, 10716]
    codes = [
        node.chain.submit(node.transfer(1, name, gas_price=500), node.now_ms)["code"]
        for name in range(10, 13)
    ]
    assert codes == [0, 0, 10705]
    codes = [node.chain.submit(node.transfer(1, name, key=7), node.now_ms)["code"] for name in range(2)]
    assert codes == [0, 10715]
    codes = [
        node.chain.submit(node.transfer(1, name, key=7, gas_price=500), node.now_ms)["code"]
        for name in range(20, 22)
    ]
    assert codes == [0, 10704]


def test_a_node_that_does_not_serve_takes_nothing() -> None:
    node = OneNode()
    node.chain.node_state = "CHAIN_SYNCING"
    assert node.chain.submit(node.transfer(1), node.now_ms)["code"] == 18001


def test_writes_are_told_when_executed_here_and_again_when_a_block_holds_them() -> None:
    node = OneNode()
    node.chain.submit(node.transfer(10), node.now_ms)
    paths = ["/".join(labels) for source, labels, _, _ in node.writes if source == "USER"]
    source, target = node.keys[5].address, node.keys[6].address
    assert paths == [
        f"accounts/{source}/balance",
        f"accounts/{target}/balance",
        f"transfer/{source}/{target}/1/value",
    ]
    node.next_epoch()
    balances = [
        (before, after)
        for kind, labels, before, after in node.writes
        if kind == "BLOCK" and labels[1:2] == [target]
    ]
    assert balances == [(1_000_000, 1_000_010)]


def test_lists_of_blocks_are_cut_to_a_segment() -> None:
    node = OneNode()
    for _ in range(30):
        node.next_epoch()
    chain = node.chain
    last = chain.final_number
    assert last == 28
    assert [block["number"] for block in chain.blocks(0, None)] == list(range(20))
    assert [block["number"] for block in chain.blocks(25, 100)] == [25, 26, 27, 28]
    assert [block["number"] for block in chain.blocks(last + 1, 0)] == [last]
    assert chain.blocks(7, 3) == []


def test_a_chain_that_begins_at_a_snapshot_still_knows_what_came_before() -> None:
    node = OneNode()
    transfer = node.transfer(10)
    node.chain.submit(transfer, node.now_ms)
    for _ in range(5):
        node.next_epoch()
    before, archive = node.chain, node.chain.archive
    node.chain = AinChain(
        before.network,
        before.genesis,
        archive,
        start=Snapshot(dict(before.final_block), before.final.tree.fork()),
    )
    node.chain.node_state = SERVING
    info = node.chain.transaction_info(transfer.hash)
    assert info is not None
    assert (info["state"], info["is_finalized"], info["receipt"]["code"]) == ("FINALIZED", True, 0)
    assert info["transaction"]["hash"] == transfer.hash
    assert node.chain.submit(transfer, node.now_ms)["code"] == 10701
    assert node.chain.transaction_info("0x" + "0" * 64) is None


def test_a_block_takes_no_more_than_it_is_allowed_and_the_rest_comes_later() -> None:
    node = OneNode(PoolLimits(free_ratio_per_account=1))
    sent = [node.transfer(1, name) for name in range(10)]
    for one in sent:
        assert node.chain.submit(one, node.now_ms)["code"] == 0
    block, _ = node.chain.make_block(11, node.now_ms, node.keys[0].address, lambda count: count == 4)
    assert [wire["hash"] for wire in block["transactions"]] == [one.hash for one in sent[:4]]
    assert node.chain.pool.size == 10
    for _ in range(5):
        node.next_epoch()
    assert balance(node.chain.final, node.keys[6].address) == 1_000_010


def test_a_very_full_pool_is_not_executed_anew_and_nothing_is_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("openresource.node.ain.chain.REPLAYED_MAX", 5)
    node = OneNode(PoolLimits(free_ratio_per_account=1))
    for _ in range(3):
        node.next_epoch()
    for name in range(8):
        node.chain.submit(node.transfer(1, name), node.now_ms)
    for _ in range(6):
        node.next_epoch()
        assert balance(node.chain.front, node.keys[6].address) == 1_000_008
    assert balance(node.chain.final, node.keys[6].address) == 1_000_008
