"""What a node says, as typed data: its status, readings, transactions, events, and its ways to say no."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from openresource.primitives.errors import Refusal


class NodeAway(Refusal):
    template = "The node at {url} is away ({doing}; waited {waited_seconds} s): {reason}."
    way_out = "Start it with «openresource node start» or «openresource up», or name another with --node."


class WrongNetwork(Refusal):
    template = "The node at {url} serves another network: genesis {found}, expected {expected}."
    way_out = "Name a node of your network with --node, or use another home."


class NodeRefused(Refusal):
    template = "The node refused {method}: {reason}"


class BadAnswer(Refusal):
    template = "The answer of {url} cannot be used: {reason}."
    way_out = "Check that the address belongs to a node of this network."


class TransactionRefused(Refusal):
    template = "The chain refused the transaction with code {result_code}: {reason}"


class TransactionDropped(Refusal):
    template = "The node does not know the transaction {tx_hash}."
    way_out = "It was lost with a block that was still open; send it again."


class TransactionNotFinal(Refusal):
    template = "The transaction {tx_hash} is {state} after {waited_seconds} s, not final."
    way_out = "Wait longer, or look at the node's state with «openresource node status»."


@dataclass(frozen=True, slots=True)
class Operation:
    """One write of a transaction."""

    type: str
    ref: str
    value: Any

    def to_json(self) -> dict[str, Any]:
        return {"type": self.type, "ref": self.ref, "value": self.value}


@dataclass(frozen=True, slots=True)
class NodeStatus:
    """What a node says about itself and its network."""

    network: str
    chain_id: int
    genesis_hash: str
    profile: str
    height: int
    time_ms: int
    version: str
    more: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Reading:
    """A value, where it was read, and the paper that proves it if one was asked for."""

    value: Any
    height: int
    at: str
    paper: dict[str, Any] | None


@dataclass(frozen=True, slots=True)
class Submitted:
    """A transaction that was executed in the open block."""

    tx_hash: str
    result: Any


@dataclass(frozen=True, slots=True)
class TransactionInfo:
    """What a node knows about a transaction."""

    tx_hash: str
    state: str
    height: int
    index: int
    is_final: bool
    result: Any
    transaction: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Event:
    """One thing that happened on the chain."""

    cursor: str
    kind: str
    path: str
    value: Any
    by: str
    tx_hash: str
    height: int
    time_ms: int
    is_final: bool


def status_of(found: Any) -> NodeStatus:
    """A node's status from its answer."""
    if not isinstance(found, dict):
        raise BadAnswer(url="the node", reason="its status is not an object")
    texts = {name: found.get(name) for name in ("network", "genesis_hash", "profile", "version")}
    numbers = {name: found.get(name) for name in ("chain_id", "height", "time_ms")}
    for name, text in texts.items():
        if not isinstance(text, str):
            raise BadAnswer(url="the node", reason=f"its status has no text {name}")
    for name, number in numbers.items():
        if not isinstance(number, int):
            raise BadAnswer(url="the node", reason=f"its status has no number {name}")
    more = {name: value for name, value in found.items() if name not in texts and name not in numbers}
    return NodeStatus(**texts, **numbers, more=more)  # type: ignore[arg-type]


def info_of(tx_hash: str, found: Any) -> TransactionInfo | None:
    """What is known about a transaction, from the answer; None if nothing is."""
    if not isinstance(found, dict):
        return None
    transaction = found.get("transaction")
    receipt = found.get("receipt")
    result = found.get("exec_result", receipt)
    return TransactionInfo(
        tx_hash=tx_hash,
        state=str(found.get("state")),
        height=_integer(found.get("number")),
        index=_integer(found.get("index")),
        is_final=found.get("is_finalized") is True,
        result=result,
        transaction=transaction if isinstance(transaction, dict) else {},
    )


def event_of(found: Any) -> Event:
    """An event from the stream."""
    if not isinstance(found, dict):
        raise BadAnswer(url="the node", reason="an event is not an object")
    return Event(
        cursor=str(found.get("cursor")),
        kind=str(found.get("kind")),
        path=str(found.get("path")),
        value=found.get("value"),
        by=str(found.get("by")),
        tx_hash=str(found.get("tx_hash")),
        height=_integer(found.get("height")),
        time_ms=_integer(found.get("time_ms")),
        is_final=found.get("final") is True,
    )


def failed_code(result: Any) -> tuple[int, str]:
    """Code and message of an execution that failed; 0 if it succeeded.

    Functions that failed inside are reported by the code of their operation, so operations are all there is to see.
    """
    if not isinstance(result, dict):
        return -1, "the node is not serving"
    listed = result.get("result_list")
    if isinstance(listed, Mapping):
        for one in listed.values():
            code, message = _own_code(one)
            if code != 0:
                return code, message
    return _own_code(result)


def _own_code(result: Any) -> tuple[int, str]:
    if not isinstance(result, Mapping):
        return 0, ""
    code = result.get("code", 0)
    if code in (0, None):
        return 0, ""
    message = str(result.get("message", ""))
    for functions in ("func_results", "subtree_func_results"):
        inner = result.get(functions)
        if isinstance(inner, Mapping):
            for one in inner.values():
                inner_code, inner_message = _own_code(one)
                # The native's own refusal says more than "a triggered function failed".
                if inner_code >= 21000:
                    return inner_code, inner_message or message
    return _integer(code), message


def _integer(value: Any) -> int:
    return value if isinstance(value, int) and not isinstance(value, bool) else -1
