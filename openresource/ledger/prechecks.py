"""Checks before a transaction is executed: one that fails here changes nothing, costs nothing and enters no block."""

from __future__ import annotations

from typing import Any, Final

from openresource.ledger.context import TxContext
from openresource.ledger.draft import balance_labels
from openresource.ledger.gas import has_service_operation
from openresource.ledger.results import (
    ALREADY_IN_CHAIN,
    BILLING_FORM,
    BILLING_OTHER_APP,
    BILLING_SEVERAL_APPS,
    BILLING_USER,
    GAS_PRICE,
    NONCE_NOT_A_NUMBER,
    OUTSIDE_REPLAY_WINDOW,
    SERVICE_BALANCE,
    TIMESTAMP_NOT_A_NUMBER,
    WRONG_NONCE,
    WRONG_TIMESTAMP,
    Result,
)
from openresource.ledger.state import State
from openresource.ledger.transactions import ORDERED_BY_TIME_NONCE, Transaction
from openresource.primitives.encoding import js_json
from openresource.primitives.numbers import is_integer, is_number, number_text

_APP_DEPENDENT: Final = frozenset(("manage_app", "payments", "staking"))


def precheck(
    transaction: Transaction, context: TxContext, recent: dict[str, int], is_charged: bool
) -> Result | None:
    """The result of the first check that fails, or None if the transaction may be executed."""
    refusal = _check_gas_price(transaction, context)
    if refusal is None:
        refusal = _check_nonce(transaction, context)
    if refusal is None and context.network.profile.replay_window_ms > 0:
        refusal = _check_replay(transaction, context, recent)
    if refusal is None and is_charged and context.block_number != 0:
        refusal = _check_billing(transaction, context)
        if refusal is None:
            refusal = _check_balance(transaction, context)
    return refusal


def payer_of(transaction: Transaction, state: State) -> str:
    """The account that pays for a transaction: a billing account that the signer may use, else the signer."""
    billing: Any = transaction.billing
    if isinstance(billing, str) and billing and is_billing_user(billing, transaction.address, state):
        return f"billing|{billing}"
    return transaction.address


def is_billing_user(billing: str, address: str, state: State) -> bool:
    """Whether an address may let a billing account pay."""
    app, _, identifier = billing.partition("|")
    labels = ("manage_app", app, "config", "billing", identifier, "users", address)
    return state.value_node(labels) is True


def balance_of(account: str, state: State) -> float | int:
    """The balance of an account as the tree has it; 0 if there is none."""
    balance = state.value_node(balance_labels(account))
    return balance if isinstance(balance, (int, float)) and not isinstance(balance, bool) else 0


def _check_gas_price(transaction: Transaction, context: TxContext) -> Result | None:
    price: Any = transaction.gas_price
    if price is None and context.network.profile.gas_price_may_be_absent:
        return None
    if is_integer(price) and price >= 0:
        if price == 0:
            return None
        if price >= context.limits.gas_price_min:
            return None
    return _refused(GAS_PRICE, f"[precheckTransaction] Invalid gas_price: {js_json(transaction.to_json())}")


def _check_nonce(transaction: Transaction, context: TxContext) -> Result | None:
    nonce: Any = transaction.nonce
    timestamp: Any = transaction.timestamp
    if not is_number(nonce):
        return _refused(NONCE_NOT_A_NUMBER, f"Invalid nonce: {js_json(nonce)}")
    if not is_number(timestamp):
        return _refused(TIMESTAMP_NOT_A_NUMBER, f"Invalid timestamp: {js_json(timestamp)}")
    if nonce >= 0:
        expected = _number_of(context.state.value_node(("accounts", transaction.address, "nonce")))
        if nonce != expected:
            return _refused(WRONG_NONCE, f"Invalid nonce: {number_text(nonce)} !== {number_text(expected)}")
    elif nonce == ORDERED_BY_TIME_NONCE:
        last = _number_of(context.state.value_node(("accounts", transaction.address, "timestamp")))
        if timestamp <= last:
            message = f"Invalid timestamp: {number_text(timestamp)} <= {number_text(last)}"
            return _refused(WRONG_TIMESTAMP, message)
    return None


def _check_replay(transaction: Transaction, context: TxContext, recent: dict[str, int]) -> Result | None:
    if transaction.hash in recent:
        return _refused(ALREADY_IN_CHAIN, f"The transaction {transaction.hash} is already in a block.")
    window_ms = context.network.profile.replay_window_ms
    distance: Any = transaction.timestamp - context.block_time
    if transaction.nonce < 0 and not -window_ms <= distance <= window_ms:
        return _refused(
            OUTSIDE_REPLAY_WINDOW,
            f"The timestamp is {number_text(distance)} ms away from block time; without a numbered nonce at most "
            f"{window_ms} ms are allowed. Sign it again with the time of now.",
        )
    return None


def _check_billing(transaction: Transaction, context: TxContext) -> Result | None:
    billing: Any = transaction.billing
    if not isinstance(billing, str):
        return None
    parts = billing.split("|")
    if len(parts) != 2:
        return _refused(BILLING_FORM, "[precheckTxBillingParams] Invalid billing param")
    if not is_billing_user(billing, transaction.address, context.state):
        message = "[precheckTxBillingParams] User doesn't have permission to the billing account"
        return _refused(BILLING_USER, message)
    apps = _apps_depended_on(transaction.labels)
    if len(apps) > 1:
        message = "[precheckTxBillingParams] Multiple app-dependent service operations for a billing account"
        return _refused(BILLING_SEVERAL_APPS, message)
    if apps and apps[0] != parts[0]:
        return _refused(BILLING_OTHER_APP, "[precheckTxBillingParams] Invalid billing account")
    return None


def _check_balance(transaction: Transaction, context: TxContext) -> Result | None:
    minimum: Any = context.limits.service_balance_min
    if minimum <= 0 or not has_service_operation(transaction.labels):
        return None
    billing: Any = transaction.billing
    payer = f"billing|{billing}" if isinstance(billing, str) and billing else transaction.address
    balance = balance_of(payer, context.state)
    if balance < minimum:
        message = (
            f"[precheckBalanceAndStakes] Balance too low ({number_text(balance)} < {number_text(minimum)})"
        )
        return _refused(SERVICE_BALANCE, message)
    return None


def _apps_depended_on(labels: list[list[str]]) -> list[str]:
    apps: list[str] = []
    for single in labels:
        if len(single) > 1 and single[0] in _APP_DEPENDENT and single[1] not in apps:
            apps.append(single[1])
    return apps


def _number_of(value: object) -> float | int:
    return value if isinstance(value, (int, float)) and not isinstance(value, bool) else 0


def _refused(code: int, message: str) -> Result:
    return {"message": message, "code": code, "bandwidth_gas_amount": 0}
