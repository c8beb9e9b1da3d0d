"""AI Network's staking: coins are locked for a service, and return when the lock-up is over."""

from __future__ import annotations

from typing import Any, Final

from openresource.ledger.calls import FunctionCall
from openresource.ledger.results import (
    FUNCTION_INTERNAL,
    FUNCTION_SUCCESS,
    IN_LOCKUP,
    INVALID_LOCKUP,
)
from openresource.primitives.numbers import is_integer
from openresource.primitives.paths import service_account_name

SUM_FLAG: Final = "staking_balance_total_sum"


def stake(call: FunctionCall) -> int:
    """Moves a stake into the service's account and counts it; the lock-up starts anew."""
    service = call.params["service_name"]
    user = call.params["user_addr"]
    key = call.params["staking_key"]
    lockup: Any = call.get("manage_app", service, "config", "service", "staking", "lockup_duration")
    if lockup is None:
        lockup = 0
    if not is_integer(lockup) or lockup < 0:
        return INVALID_LOCKUP
    expire_labels = ["staking", service, user, key, "expire_at"]
    expire_at = call.context.block_time + lockup
    is_later = expire_at > call.number(*expire_labels)
    if call.value == 0 and is_later:
        call.set_value(expire_labels, expire_at)
        return FUNCTION_SUCCESS
    if not call.transfer(user, service_account_name("staking", service, f"{user}|{key}"), call.value):
        return FUNCTION_INTERNAL
    if is_later:
        call.set_value(expire_labels, expire_at)
    call.add_value(["staking", service, "balance_total"], call.value, 1)
    _count_in_sum(call, 1)
    return FUNCTION_SUCCESS


def unstake(call: FunctionCall) -> int:
    """Moves a stake back to its owner when the lock-up is over."""
    service = call.params["service_name"]
    user = call.params["user_addr"]
    key = call.params["staking_key"]
    if call.number("staking", service, user, key, "expire_at") > call.context.executed_at:
        return IN_LOCKUP
    if not call.transfer(service_account_name("staking", service, f"{user}|{key}"), user, call.value):
        return FUNCTION_INTERNAL
    call.add_value(["staking", service, "balance_total"], call.value, -1)
    _count_in_sum(call, -1)
    return FUNCTION_SUCCESS


def _count_in_sum(call: FunctionCall, sign: int) -> None:
    if not call.context.is_enabled(SUM_FLAG):
        return
    labels = ["staking", "balance_total_sum"]
    if call.has(*labels):
        call.add_value(labels, call.value, sign)
        return
    staking: Any = call.get("staking")
    total: Any = 0
    for service in staking.values():
        balance: Any = service.get("balance_total") if isinstance(service, dict) else None
        total += balance or 0
    call.set_value(labels, total)
