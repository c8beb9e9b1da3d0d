"""AI Network's token bridge: check-ins from another chain and check-outs to it."""

from __future__ import annotations

from typing import Any, Final

from openresource.ledger.calls import FunctionCall
from openresource.ledger.draft import balance_labels
from openresource.ledger.results import (
    BRIDGE_CONFIG,
    CHECKIN_AMOUNT,
    CHECKIN_PENDING,
    CHECKIN_PROOF,
    CHECKIN_SENDER,
    CHECKOUT_AMOUNT,
    CHECKOUT_RECIPIENT,
    FUNCTION_FAILURE,
    FUNCTION_INTERNAL,
    FUNCTION_SUCCESS,
)
from openresource.primitives.encoding import canonical_json, utf8
from openresource.primitives.errors import Refusal
from openresource.primitives.hashing import keccak
from openresource.primitives.keys import is_checksum_address, recover
from openresource.primitives.paths import format_path

_CONFIG: Final = (
    "token_pool",
    "min_checkout_per_request",
    "max_checkout_per_request",
    "max_checkout_per_day",
    "token_exchange_rate",
    "token_exchange_scheme",
)
_DAY_MS: Final = 86_400_000
_ETH: Final = "ETH"


def open_checkin(call: FunctionCall) -> int:
    """Registers a check-in if the sender proved to own the coins on the other chain."""
    config = _config(call)
    if config is None:
        return BRIDGE_CONFIG
    sender: Any = call.value["sender"]
    if call.params["network_name"] != _ETH or not is_checksum_address(sender):
        return CHECKIN_SENDER
    if not is_proven(call.context.nonce, call.context.timestamp, call.labels, call.value):
        return CHECKIN_PROOF
    amount: Any = call.value["amount"]
    pool: str = config["token_pool"]
    of_sender, of_pool = _checkin_pending(call, sender, pool)
    if call.number(*of_sender) > 0:
        return CHECKIN_PENDING
    if amount + call.number(*of_pool) > call.number(*balance_labels(pool)):
        return CHECKIN_AMOUNT
    if not call.add_value(of_sender, amount) or not call.add_value(of_pool, amount):
        return FUNCTION_INTERNAL
    return FUNCTION_SUCCESS


def cancel_checkin(call: FunctionCall) -> int:
    """Takes a check-in off the books when its owner deletes the request."""
    if call.value is not None or call.auth.fids is None or len(call.auth.fids) != 1:
        return FUNCTION_SUCCESS
    config: Any = _config(call)
    amount: Any = call.previous["amount"]
    of_sender, of_pool = _checkin_pending(call, call.previous["sender"], config["token_pool"])
    if not call.add_value(of_sender, amount, -1) or not call.add_value(of_pool, amount, -1):
        return FUNCTION_INTERNAL
    return FUNCTION_SUCCESS


def close_checkin(call: FunctionCall) -> int:
    """Pays out a check-in that the pool has confirmed, and closes the request."""
    config: Any = _config(call)
    request: Any = call.value["request"]
    amount: Any = request["amount"]
    user = call.params["user_addr"]
    pool: str = config["token_pool"]
    if call.value["response"]["status"] is True:
        complete = ["checkin", "stats", "complete"]
        if not call.add_value([*complete, user], amount) or not call.add_value([*complete, "total"], amount):
            return FUNCTION_INTERNAL
        if not call.transfer(pool, user, amount):
            return FUNCTION_FAILURE
    if not call.set_value(["checkin", "requests", *_place(call), user, call.params["checkin_id"]], None):
        return FUNCTION_FAILURE
    of_sender, of_pool = _checkin_pending(call, request["sender"], pool)
    if not call.add_value(of_sender, amount, -1) or not call.add_value(of_pool, amount, -1):
        return FUNCTION_INTERNAL
    return FUNCTION_SUCCESS


def open_checkout(call: FunctionCall) -> int:
    """Takes coins for a check-out, within the limits of one request and of one day."""
    amount: Any = call.value["amount"]
    user = call.params["user_addr"]
    pending = ["checkout", "stats", "pending"]
    if not call.add_value([*pending, user], amount) or not call.add_value([*pending, "total"], amount):
        return FUNCTION_INTERNAL
    config = _config(call)
    if config is None:
        return BRIDGE_CONFIG
    if call.params["network_name"] != _ETH or not is_checksum_address(call.value["recipient"]):
        return CHECKOUT_RECIPIENT
    if amount < config["min_checkout_per_request"] or amount > config["max_checkout_per_request"]:
        return CHECKOUT_AMOUNT
    today = call.number("checkout", "stats", "complete", str(day_of(call.context.block_time)))
    if call.number(*pending, "total") + today > config["max_checkout_per_day"]:
        return CHECKOUT_AMOUNT
    fee: Any = amount * config["checkout_fee_rate"]
    return FUNCTION_SUCCESS if call.transfer(user, config["token_pool"], amount + fee) else FUNCTION_FAILURE


def close_checkout(call: FunctionCall) -> int:
    """Counts a check-out that was paid on the other chain, or refunds it, and closes the request."""
    config: Any = _config(call)
    request: Any = call.value["request"]
    amount: Any = request["amount"]
    user = call.params["user_addr"]
    record = call.params["checkout_id"]
    pool: str = config["token_pool"]
    if call.value["response"]["status"] is True:
        complete = ["checkout", "stats", "complete"]
        day = str(day_of(call.context.block_time))
        if not call.add_value([*complete, day], amount) or not call.add_value([*complete, "total"], amount):
            return FUNCTION_INTERNAL
    else:
        if not call.transfer(pool, user, amount + amount * request["fee_rate"]):
            return FUNCTION_FAILURE
        timestamp = format_path([call.context.timestamp])[1:]
        refund = format_path(["transfer", pool, user, timestamp])
        if not call.set_value(["checkout", "refunds", *_place(call), user, record], refund):
            return FUNCTION_FAILURE
    if not call.set_value(["checkout", "requests", *_place(call), user, record], None):
        return FUNCTION_FAILURE
    pending = ["checkout", "stats", "pending"]
    if not call.add_value([*pending, user], amount, -1) or not call.add_value(
        [*pending, "total"], amount, -1
    ):
        return FUNCTION_INTERNAL
    return FUNCTION_SUCCESS


def is_proven(nonce: Any, timestamp: Any, labels: list[str], request: dict[str, Any]) -> bool:
    """Whether the sender of a check-in signed it with the key of the other chain."""
    sender: Any = request["sender"]
    text = canonical_json(
        {
            "ref": format_path(labels),
            "amount": request["amount"],
            "sender": sender,
            "timestamp": timestamp,
            "nonce": nonce,
        }
    )
    proof: Any = request["sender_proof"]
    if not isinstance(proof, str):
        return False
    try:
        signer = recover(checkin_digest(text), bytes.fromhex(proof.removeprefix("0x")))
    except (Refusal, ValueError):
        return False
    return bool(signer == sender)


def checkin_digest(text: str) -> bytes:
    """The digest under a sender's proof: the hash of a personal message, taken as a personal message again."""
    message = utf8(text)
    inner = keccak(b"\x19Ethereum Signed Message:\n" + str(len(message)).encode() + message)
    return keccak(b"\x19Ethereum Signed Message:\n32" + inner)


def day_of(time_ms: Any) -> int:
    """The start of a day of Greenwich."""
    return int(time_ms // _DAY_MS * _DAY_MS)


def _place(call: FunctionCall) -> tuple[str, str, str]:
    return call.params["network_name"], call.params["chain_id"], call.params["token_id"]


def _config(call: FunctionCall) -> dict[str, Any] | None:
    config: Any = call.get("blockchain_params", "token", "bridge", *_place(call))
    if not isinstance(config, dict):
        return None
    for name in _CONFIG:
        if config.get(name) is None:
            return None
    return config


def _checkin_pending(call: FunctionCall, sender: str, pool: str) -> tuple[list[str], list[str]]:
    pending = ["checkin", "stats", "pending"]
    return [*pending, *_place(call), sender], [*pending, "token_pool", pool]
