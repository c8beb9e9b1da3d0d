"""Result codes of transactions and operations, and when a result counts as failed."""

from __future__ import annotations

from typing import Any, Final

SUCCESS: Final = 0

SET_VALUE_INVALID_VALUE: Final = 10101
SET_VALUE_INVALID_PATH: Final = 10102
SET_VALUE_NOT_WRITABLE: Final = 10103
FUNCTION_FAILED: Final = 10104
SUBTREE_FUNCTION_FAILED: Final = 10105
INC_VALUE_NOT_A_NUMBER: Final = 10201
DEC_VALUE_NOT_A_NUMBER: Final = 10301
SET_FUNCTION_INVALID_VALUE: Final = 10401
SET_FUNCTION_INVALID_PATH: Final = 10402
SET_FUNCTION_INVALID_TREE: Final = 10403
SET_FUNCTION_OWNER_ONLY: Final = 10404
SET_RULE_INVALID_VALUE: Final = 10501
SET_RULE_INVALID_PATH: Final = 10502
SET_RULE_INVALID_TREE: Final = 10503
SET_OWNER_INVALID_VALUE: Final = 10601
SET_OWNER_INVALID_PATH: Final = 10602
SET_OWNER_INVALID_TREE: Final = 10603
ALREADY_RECEIVED: Final = 10701
NO_BODY: Final = 10706
NOT_EXECUTABLE: Final = 10707
NO_OPERATION: Final = 10708
UNKNOWN_OPERATION: Final = 10709
NONCE_NOT_A_NUMBER: Final = 10710
TIMESTAMP_NOT_A_NUMBER: Final = 10711
WRONG_NONCE: Final = 10712
WRONG_TIMESTAMP: Final = 10713
GAS_PRICE: Final = 10714
BILLING_FORM: Final = 10801
BILLING_USER: Final = 10802
BILLING_SEVERAL_APPS: Final = 10803
BILLING_OTHER_APP: Final = 10804
SERVICE_BALANCE: Final = 10805
SERVICE_BUDGET: Final = 10901
APPS_BUDGET: Final = 10902
FREE_TIER_BUDGET: Final = 10905
APP_BUDGET: Final = 10907
FEE_BALANCE: Final = 11001
FEE_FAILED: Final = 11002
TREE_HEIGHT: Final = 11101
TREE_BYTES: Final = 11103
OP_LIST_SIZE: Final = 30005

FUNCTION_SUCCESS: Final = 0
FUNCTION_SKIPPED: Final = 20000
FUNCTION_FAILURE: Final = 20001
FUNCTION_INTERNAL: Final = 20002
INSUFFICIENT_BALANCE: Final = 20101
IN_LOCKUP: Final = 20201
INVALID_LOCKUP: Final = 20202
INVALID_SERVICE_NAME: Final = 20301
CHECKOUT_AMOUNT: Final = 20402
CHECKOUT_RECIPIENT: Final = 20403
BRIDGE_CONFIG: Final = 20404
CHECKIN_SENDER: Final = 20405
CHECKIN_PENDING: Final = 20406
CHECKIN_AMOUNT: Final = 20407
CHECKIN_PROOF: Final = 20408
REWARD_AMOUNT: Final = 20501

# From here on codes are ours: refusals of natives that AI Network does not have.
REFUSED: Final = 21000
OUTSIDE_REPLAY_WINDOW: Final = 21010
ALREADY_IN_CHAIN: Final = 21011
NATIVE_THREW: Final = 21999

# With one of these a transaction never enters a block.
PRECHECK_CODES: Final = frozenset(
    (
        NO_BODY,
        NOT_EXECUTABLE,
        NONCE_NOT_A_NUMBER,
        TIMESTAMP_NOT_A_NUMBER,
        WRONG_NONCE,
        WRONG_TIMESTAMP,
        GAS_PRICE,
        16001,
        BILLING_FORM,
        BILLING_USER,
        BILLING_SEVERAL_APPS,
        BILLING_OTHER_APP,
        SERVICE_BALANCE,
        10806,
        OUTSIDE_REPLAY_WINDOW,
        ALREADY_IN_CHAIN,
    )
)

Result = dict[str, Any]


def function_has_failed(result: Result) -> bool:
    """Whether the result of one function counts as a failure: its own code, or that of a write inside of it."""
    code = result["code"]
    if code != FUNCTION_SUCCESS and code != FUNCTION_SKIPPED:
        return True
    op_results: dict[str, Any] | None = result.get("op_results")
    if op_results is None:
        return False
    return any(has_failed(entry["result"], True) for entry in op_results.values())


def own_function_has_failed(result: Result) -> bool:
    """`function_has_failed` for a result made here, where an operation's code already tells of its functions."""
    code = result["code"]
    if code != FUNCTION_SUCCESS and code != FUNCTION_SKIPPED:
        return True
    op_results: dict[str, Any] | None = result.get("op_results")
    if op_results is not None:
        for entry in op_results.values():
            if entry["result"]["code"] != SUCCESS:
                return True
    return False


def own_has_failed(result: Result, list_ignores_own_code: bool) -> bool:
    """`has_failed` for a result made here."""
    result_list: dict[str, Any] | None = result.get("result_list")
    if result_list is None:
        return bool(result["code"] != SUCCESS)
    if not list_ignores_own_code and result.get("code", SUCCESS) != SUCCESS:
        return True
    return any(entry["code"] != SUCCESS for entry in result_list.values())


def functions_have_failed(func_results: dict[str, Any] | None) -> bool:
    """Whether one of several functions has failed."""
    if func_results is None:
        return False
    return any(function_has_failed(result) for result in func_results.values())


def subtree_functions_have_failed(subtree_results: dict[str, Any] | None) -> bool:
    """Whether a function below the written path has failed."""
    if subtree_results is None:
        return False
    for by_path in subtree_results.values():
        for entry in by_path.values():
            if functions_have_failed(entry.get("func_results")):
                return True
    return False


def operation_has_failed(result: Result) -> bool:
    """Whether the result of one operation counts as a failure."""
    if result.get("code") != SUCCESS:
        return True
    return functions_have_failed(result.get("func_results")) or subtree_functions_have_failed(
        result.get("subtree_func_results")
    )


def has_failed(result: Result | None, list_ignores_own_code: bool) -> bool:
    """Whether the result of a transaction counts as a failure."""
    if result is None:
        return True
    result_list: dict[str, Any] | None = result.get("result_list")
    if isinstance(result_list, dict):
        if not list_ignores_own_code and result.get("code", SUCCESS) != SUCCESS:
            return True
        return any(operation_has_failed(entry) for entry in result_list.values())
    return operation_has_failed(result)


def is_precheck_failure(result: Result) -> bool:
    """Whether a transaction with this result may not enter a block."""
    return result.get("code") in PRECHECK_CODES
