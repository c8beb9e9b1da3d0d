"""AI Network's choice of transactions for a block, and of the validator who makes it."""

from __future__ import annotations

from typing import Any

from openresource.ledger.pool import (
    BandwidthBudgets,
    PooledTx,
    in_nonce_order,
    merged,
    waiting_by_account,
    within_budgets,
)
from openresource.ledger.validators import proposer_of
from tests.vectors_support import vectors


@vectors("ain/basic.json", "select_proposer")
def test_proposer_vectors(case: Any, document: Any) -> None:
    assert proposer_of(case["seed"], case["validators"]) == case["proposer"]


@vectors("ain/tx_pool.json", "cases")
def test_pool_vectors(case: Any, document: Any) -> None:
    accounts = [[pooled(wire) for wire in account["txs"]] for account in case["pool"]]
    lists = waiting_by_account(accounts, frozenset(case["excluded_hashes"]))
    sorted_lists = [
        {"address": one[0].address, "hashes": [transaction.hash for transaction in one]} for one in lists
    ]
    assert sorted_lists == [one for one in case["after_filter_and_sort"] if one["hashes"]]

    checked = []
    for one in lists:
        state = case["account_state"][one[0].address]
        checked.append(in_nonce_order(one, state["nonce"], state["timestamp"]))
    assert [hashes(one) for one in checked] == [
        kept
        for account, kept in zip(case["after_filter_and_sort"], case["after_nonce_check"], strict=True)
        if account["hashes"]
    ]

    in_order = merged(checked)
    assert hashes(in_order) == case["merged"]
    assert hashes(within_budgets(in_order, budgets(case))) == case["selected"]


def budgets(case: Any) -> BandwidthBudgets:
    """The budgets of a case."""
    parameters = case["params"]
    return BandwidthBudgets(
        parameters["resource/bandwidth_budget_per_block"],
        parameters["resource/service_bandwidth_budget_ratio"],
        parameters["resource/apps_bandwidth_budget_ratio"],
        parameters["resource/free_bandwidth_budget_ratio"],
        case["app_stakes"],
        case["app_stakes_total"],
    )


def pooled(wire: Any) -> PooledTx:
    """A transaction of the pool."""
    bandwidth = wire["bandwidth"]
    return PooledTx(
        wire["hash"],
        wire["address"],
        wire["nonce"],
        wire["timestamp"],
        wire["gas_price"],
        wire["operation"],
        bandwidth["service"],
        bandwidth.get("app", {}),
    )


def hashes(transactions: list[PooledTx]) -> list[str]:
    """What to compare."""
    return [one.hash for one in transactions]
