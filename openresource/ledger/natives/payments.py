"""AI Network's payments of apps and its escrow."""

from __future__ import annotations

from typing import Any

from openresource.ledger.calls import FunctionCall
from openresource.ledger.draft import balance_labels
from openresource.ledger.results import FUNCTION_FAILURE, FUNCTION_INTERNAL, FUNCTION_SUCCESS
from openresource.primitives.numbers import is_finite
from openresource.primitives.paths import service_account_name


def pay(call: FunctionCall) -> int:
    """Moves a payment from the signer into the account of app, user and key."""
    amount = _amount(call.value)
    if amount is None:
        return FUNCTION_FAILURE
    return _done(call.transfer(call.context.address, _account(call), amount))


def claim(call: FunctionCall) -> int:
    """Moves a payment out of that account, to a target or into escrow."""
    amount = _amount(call.value)
    if amount is None:
        return FUNCTION_FAILURE
    target: Any = call.value.get("target")
    escrow_key: Any = call.value.get("escrow_key")
    if escrow_key is None:
        return _done(call.transfer(_account(call), target, amount))
    record = str(call.context.block_time)
    return _done(
        call.set_value(
            ["escrow", _account(call), target, str(escrow_key), "hold", record], {"amount": amount}
        )
    )


def hold(call: FunctionCall) -> int:
    """Moves an amount into escrow."""
    amount: Any = call.value.get("amount") if isinstance(call.value, dict) else None
    if not is_finite(amount):
        return FUNCTION_FAILURE
    return _done(call.transfer(call.params["source_account"], _escrow_account(call), amount))


def release(call: FunctionCall) -> int:
    """Divides what is in escrow between target and source."""
    ratio: Any = call.value.get("ratio") if isinstance(call.value, dict) else None
    if not is_finite(ratio) or not 0 <= ratio <= 1:
        return FUNCTION_FAILURE
    escrow = _escrow_account(call)
    balance = call.number(*balance_labels(escrow))
    to_target = balance * ratio
    to_source = balance - to_target
    if to_target > 0 and not call.transfer(escrow, call.params["target_account"], to_target):
        return FUNCTION_INTERNAL
    if to_source > 0 and not call.transfer(escrow, call.params["source_account"], to_source):
        return FUNCTION_INTERNAL
    return FUNCTION_SUCCESS


def _done(is_good: bool) -> int:
    return FUNCTION_SUCCESS if is_good else FUNCTION_INTERNAL


def _amount(record: Any) -> Any:
    amount: Any = record.get("amount") if isinstance(record, dict) else None
    return amount if is_finite(amount) and amount != 0 else None


def _account(call: FunctionCall) -> str:
    key = f"{call.params['user_addr']}|{call.params['payment_key']}"
    return service_account_name("payments", call.params["service_name"], key)


def _escrow_account(call: FunctionCall) -> str:
    parts = (call.params["source_account"], call.params["target_account"], call.params["escrow_key"])
    return service_account_name("escrow", "escrow", ":".join(parts))
