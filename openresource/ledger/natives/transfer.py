"""Transfers: AI Network's, through operations with rules, and ours, a move within one draft."""

from __future__ import annotations

from typing import Any

from openresource.ledger.calls import FunctionCall
from openresource.ledger.draft import Draft, NativeCall, balance_labels
from openresource.ledger.results import FUNCTION_INTERNAL, FUNCTION_SUCCESS, INSUFFICIENT_BALANCE
from openresource.primitives.amounts import uain_of_number
from openresource.primitives.numbers import is_number


def transfer(call: FunctionCall) -> int:
    """AI Network's transfer: less here, more there, and gas for an account that is new."""
    source = call.params["from"]
    target = call.params["to"]
    amount: Any = call.value
    source_labels = list(balance_labels(source))
    target_labels = list(balance_labels(target))
    balance: Any = call.context.state.read_value(source_labels)
    if balance is None or balance < amount:
        return INSUFFICIENT_BALANCE
    known = (
        target_labels[:-1]
        if call.context.is_enabled("extend_account_registration_gas_amount")
        else target_labels
    )
    is_new = not call.has(*known)
    if not call.add_value(source_labels, amount, -1) or not call.add_value(target_labels, amount, 1):
        return FUNCTION_INTERNAL
    if is_new:
        registration: Any = call.context.parameter("resource", "account_registration_gas_amount")
        call.extra_gas = registration if is_number(registration) else 0
    return FUNCTION_SUCCESS


def move_transfer(draft: Draft, call: NativeCall) -> None:
    """Our transfer: whole µAIN from the signer to another account; deleting the record moves nothing."""
    if call.value is not None:
        draft.move(call.params["from"], call.params["to"], uain_of_number(call.value))
