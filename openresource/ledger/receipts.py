"""Receipts: the part of a result that a block stores and that all nodes must agree on."""

from __future__ import annotations

from typing import Any


def receipt_of(result: dict[str, Any]) -> dict[str, Any]:
    """The receipt of a transaction's result."""
    receipt: dict[str, Any] = {}
    if "code" in result:
        receipt["code"] = result["code"]
    if "gas_amount_charged" in result:
        receipt["gas_amount_charged"] = result["gas_amount_charged"]
    if "gas_cost_total" in result:
        receipt["gas_cost_total"] = result["gas_cost_total"]
    result_list: dict[str, Any] | None = result.get("result_list")
    if result_list is not None:
        receipt["result_list"] = {index: {"code": single["code"]} for index, single in result_list.items()}
    return receipt


def state_receipt(
    address: str, block_number: int, receipt: dict[str, Any], billing: str | None
) -> dict[str, Any]:
    """The receipt as AI Network's state kept it until receipts left the state."""
    stored: dict[str, Any] = {"address": address, "block_number": block_number, "exec_result": receipt}
    if billing:
        stored["billing"] = billing
    return stored
