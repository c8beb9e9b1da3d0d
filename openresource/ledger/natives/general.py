"""Natives that anybody may bind to a path: remember the last transaction, erase, fail, set owners."""

from __future__ import annotations

from openresource.ledger.calls import FunctionCall
from openresource.ledger.results import FUNCTION_FAILURE, FUNCTION_SUCCESS


def save_last_tx(call: FunctionCall) -> int:
    """Writes the transaction's hash beside the value, below `.last_tx`."""
    if not call.labels:
        return FUNCTION_SUCCESS
    labels = [*call.labels[:-1], ".last_tx", call.labels[-1]]
    return FUNCTION_SUCCESS if call.set_value(labels, {"tx_hash": call.context.tx_hash}) else FUNCTION_FAILURE


def erase_value(call: FunctionCall) -> int:
    """Replaces what was written."""
    return FUNCTION_SUCCESS if call.set_value(call.labels, "erased") else FUNCTION_FAILURE


def set_owner_config(call: FunctionCall) -> int:
    """Opens functions, owners and rules of the path to everybody, but no owners below it."""
    permissions = {"branch_owner": False, "write_function": True, "write_owner": True, "write_rule": True}
    owners = {".owner": {"owners": {call.context.address: permissions, "*": dict(permissions)}}}
    return FUNCTION_SUCCESS if call.set_owner(call.labels, owners) else FUNCTION_FAILURE


def fail(call: FunctionCall) -> int:
    """Fails."""
    return FUNCTION_FAILURE
