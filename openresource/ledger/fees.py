"""Fees: what a transaction owes for its gas, and the two ways of taking it.

AI Network takes it by an operation in the signer's name before a failed transaction is undone, so that failed ones pay
nothing; ours takes it directly after the undoing, so that it stays paid.
"""

from __future__ import annotations

import json
from typing import Any, Final

from openresource.ledger.context import TxContext
from openresource.ledger.draft import BY_NATIVE, Change, balance_labels
from openresource.ledger.gas import gas_cost
from openresource.ledger.operations import Operations, collect_garbage
from openresource.ledger.prechecks import balance_of, payer_of
from openresource.ledger.receipts import receipt_of, state_receipt
from openresource.ledger.results import FEE_BALANCE, FEE_FAILED, SUCCESS, Result
from openresource.ledger.transactions import Transaction
from openresource.ledger.verdicts import Auth
from openresource.primitives.amounts import UAIN_MAX, UAIN_PER_AIN, ain_number, uain_of_number
from openresource.primitives.numbers import number_text, to_double

SIX_DECIMALS_FLAG: Final = "allow_up_to_6_decimal_transfer_value_only"
NO_RECEIPTS_FLAG: Final = "disable_tx_receipt_recording"
FEES_ACCOUNT: Final = "treasury|market|fees"


class ServiceGas:
    """The gas of services, which is what a transaction pays for; apps pay by their stake."""

    __slots__ = ("bandwidth", "state")

    def __init__(self) -> None:
        self.bandwidth: Any = 0
        self.state: Any = 0


def collect_by_operation(
    operations: Operations,
    transaction: Transaction,
    context: TxContext,
    result: Result,
    gas: ServiceGas,
    failed: bool,
    has_backup: bool,
    is_dry_run: bool,
) -> bool:
    """AI Network's way; returns whether there is still a backup to go back to."""
    state = context.state
    price: Any = transaction.gas_price
    amount: Any = gas.bandwidth + (0 if failed else gas.state)
    unit: Any = context.parameter("resource", "gas_price_unit")
    is_floored = context.is_enabled(SIX_DECIMALS_FLAG)
    cost = gas_cost(price, unit, amount, is_floored)
    if amount <= 0 or price == 0:
        result["gas_amount_charged"] = amount
        result["gas_cost_total"] = cost
        return has_backup
    payer = payer_of(transaction, state)
    balance = balance_of(payer, state)
    if not is_dry_run and balance < cost:
        result["code"] = FEE_BALANCE
        sizes = f"({number_text(balance)} / {number_text(cost)})"
        result["message"] = f"Failed to collect gas fee: balance too low {sizes}"
        if has_backup:
            state.restore()
            context.changes.clear()
            has_backup = False
        amount = min(balance_of(payer, state), gas.bandwidth)
        cost = gas_cost(price, unit, amount, is_floored)
    result["gas_amount_charged"] = amount
    result["gas_cost_total"] = cost
    if is_dry_run or cost <= 0:
        return has_backup
    labels = ["gas_fee", "collect", str(context.block_number), payer, transaction.hash]
    collected = operations.set_value(labels, {"amount": cost}, Auth(transaction.address), context)
    if collected["code"] != SUCCESS:
        result["code"] = FEE_FAILED
        result["message"] = (
            f"Failed to collect gas fee: {json.dumps(collected, indent=2, ensure_ascii=False)}"
        )
    return has_backup


def record_receipt(transaction: Transaction, context: TxContext, result: Result) -> None:
    """Writes the receipt into the state, where the chain still does that."""
    if context.is_enabled(NO_RECEIPTS_FLAG):
        return
    labels = ["receipts", transaction.hash]
    billing: Any = transaction.billing
    receipt = state_receipt(
        transaction.address,
        context.block_number,
        receipt_of(result),
        billing if isinstance(billing, str) else None,
    )
    context.state.write_value(labels, receipt)
    collect_garbage(labels, context)


def fee_due_uain(
    transaction: Transaction, context: TxContext, result: Result, gas: ServiceGas, failed: bool
) -> int:
    """Our way: what is owed in whole µAIN, noted in the result."""
    amount: int = int(gas.bandwidth + (0 if failed else gas.state))
    if not transaction.gas_price:
        result["gas_amount_charged"] = amount
        result["gas_cost_total"] = 0
        return 0
    unit: Any = context.parameter("resource", "gas_price_unit")
    # Nobody holds more than all there is, so a price without measure need not be computed with.
    fee_uain: int = min(int(transaction.gas_price) * amount * round(unit * UAIN_PER_AIN), 2 * UAIN_MAX)
    result["gas_amount_charged"] = amount
    result["gas_cost_total"] = to_double(fee_uain / UAIN_PER_AIN)
    return fee_uain


def can_pay(transaction: Transaction, context: TxContext, fee_uain: int, result: Result) -> bool:
    """Whether the payer's balance after the operations covers the fee; if not, that is the result."""
    if fee_uain == 0:
        return True
    balance_uain = uain_of_number(balance_of(payer_of(transaction, context.state), context.state))
    if balance_uain >= fee_uain:
        return True
    result["code"] = FEE_BALANCE
    result["message"] = f"The fee is {fee_uain} µAIN, but only {balance_uain} µAIN are left to pay it."
    return False


def pay_fee(transaction: Transaction, context: TxContext, fee_uain: int, result: Result) -> None:
    """Moves the fee to the treasury, or as much of it as there is."""
    state = context.state
    payer = payer_of(transaction, state)
    balance_uain = uain_of_number(balance_of(payer, state))
    paid_uain = min(fee_uain, balance_uain)
    result["gas_cost_total"] = ain_number(paid_uain)
    if paid_uain == 0:
        return
    treasury_uain = uain_of_number(balance_of(FEES_ACCOUNT, state))
    for account, amount_uain in (
        (payer, balance_uain - paid_uain),
        (FEES_ACCOUNT, treasury_uain + paid_uain),
    ):
        labels = balance_labels(account)
        number = ain_number(amount_uain)
        state.write_value(labels, number)
        context.changes.append(Change(("values", *labels), number, BY_NATIVE))
