"""AI Network's consensus on the chain: fees collected and shared, rewards claimed, offenses punished, shards reported."""

from __future__ import annotations

from typing import Any, Final

from openresource.ledger.calls import FunctionCall
from openresource.ledger.results import (
    FUNCTION_FAILURE,
    FUNCTION_INTERNAL,
    FUNCTION_SUCCESS,
    REWARD_AMOUNT,
)
from openresource.primitives.encoding import property_order
from openresource.primitives.numbers import to_double

UNCLAIMED_FEES: Final = "gas_fee|gas_fee|unclaimed"
YEAR_MS: Final = 31_557_600_000


def collect_fee(call: FunctionCall) -> int:
    """Moves a fee from its payer to the unclaimed fees."""
    amount: Any = call.value["amount"]
    return (
        FUNCTION_SUCCESS if call.transfer(call.params["from"], UNCLAIMED_FEES, amount) else FUNCTION_FAILURE
    )


def claim_reward(call: FunctionCall) -> int:
    """Moves a validator's reward out of the unclaimed fees."""
    user = call.params["user_addr"]
    amount: Any = call.value["amount"]
    labels = ["consensus", "rewards", user, "unclaimed"]
    unclaimed = call.number(*labels)
    if unclaimed < amount:
        return REWARD_AMOUNT
    if not call.transfer(UNCLAIMED_FEES, user, amount):
        return FUNCTION_FAILURE
    return FUNCTION_SUCCESS if call.set_value(labels, to_double(unclaimed - amount)) else FUNCTION_INTERNAL


def distribute_fee(call: FunctionCall) -> int:
    """Shares the fees of the block before among those who voted for it, by stake, and adds their reward."""
    number = _js_number(call.params["number"])
    if number <= 1:
        return FUNCTION_SUCCESS
    rounds: Any = call.get("consensus", "number", str(int(number) - 1))
    votes: dict[str, Any] = rounds[rounds["propose"]["block_hash"]]["vote"]
    total: Any = 0
    voters = property_order(votes)
    for voter in voters:
        total += votes[voter]["stake"]
    multiplier = _reward_multiplier(call)
    gas_cost_total: Any = rounds["propose"]["gas_cost_total"]
    shared: Any = 0.0
    for index, voter in enumerate(voters):
        amount: Any = multiplier * votes[voter]["stake"]
        if gas_cost_total > 0:
            share: Any = gas_cost_total * (votes[voter]["stake"] / total)
            if index == len(voters) - 1:
                share = gas_cost_total - shared
            else:
                shared += share
            amount = share + amount
        if amount > 0:
            rewards: Any = call.get("consensus", "rewards", voter) or {}
            call.set_value(
                ["consensus", "rewards", voter],
                {
                    "unclaimed": to_double((rewards.get("unclaimed") or 0) + amount),
                    "cumulative": to_double((rewards.get("cumulative") or 0) + amount),
                },
            )
    return FUNCTION_SUCCESS


def handle_offenses(call: FunctionCall) -> int:
    """Counts offenses and extends the lock-up of the offenders' stakes, twice as long each time."""
    offenses: Any = call.value.get("offenses")
    if not offenses:
        return FUNCTION_SUCCESS
    for offender in property_order(offenses):
        count: Any = 0
        for of_kind in offenses[offender].values():
            count += of_kind
        call.add_value(["consensus", "offense_records", offender], count, 1)
        total = call.number("consensus", "offense_records", offender)
        extension = lockup_extension(
            count, total, call.context.state.parameter("consensus", "stake_lockup_extension")
        )
        if extension > 0:
            labels = ["staking", "consensus", offender, "0", "expire_at"]
            expire_at = max(call.number(*labels), call.context.block_time) + extension
            call.set_value(labels, to_double(expire_at))
    return FUNCTION_SUCCESS


def lockup_extension(new_offenses: Any, offenses: Any, extension_ms: Any) -> Any:
    """How much longer a stake stays locked after new offenses, given how many there are now."""
    total: Any = 0
    number: Any = offenses - new_offenses + 1
    while number <= offenses:
        total += extension_ms * 2 ** (number - 1)
        number += 1
    return to_double(total)


def update_latest_shard_report(call: FunctionCall) -> int:
    """Remembers the highest block that a shard reported."""
    if not isinstance(call.value, str):
        return FUNCTION_SUCCESS
    number = _js_number(call.params["block_number"])
    labels = [*call.labels[:-3], "latest_block_number"]
    latest: Any = call.get(*labels)
    if latest is not None and latest >= number:
        return FUNCTION_SUCCESS
    return FUNCTION_SUCCESS if call.set_value(labels, number) else FUNCTION_FAILURE


def _reward_multiplier(call: FunctionCall) -> Any:
    state = call.context.state
    if state.parameter("reward", "type") != "FIXED":
        return 0
    rate: Any = state.parameter("reward", "annual_rate")
    epoch_ms: Any = state.parameter("genesis", "epoch_ms")
    return max(rate * epoch_ms / YEAR_MS, 0)


def _js_number(text: str) -> Any:
    return to_double(float(text)) if text.strip() else 0
