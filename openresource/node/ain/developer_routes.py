"""Routes with which developers let the node write in the name of its own account.

The node signs what it is told and executes it as if it had come in signed. Nothing asks who calls but the list of
addresses, so they belong on networks of one's own.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from openresource.ledger.results import has_failed
from openresource.ledger.transactions import Transaction, sign_transaction
from openresource.node.ain.methods import AinNodeMethods
from openresource.node.ain.routes import FAILURE, SUCCESS, Body, Query, Reply, Route, json_reply, result
from openresource.node.ain.served import ServedNode
from openresource.node.ain.submission import NOT_TAKEN, check_price, unsigned_transaction
from openresource.primitives.errors import Refusal

BATCH_MAX: Final = 1_000
_KINDS: Final[Mapping[str, str]] = {
    "/set_value": "SET_VALUE",
    "/inc_value": "INC_VALUE",
    "/dec_value": "DEC_VALUE",
    "/set_function": "SET_FUNCTION",
    "/set_rule": "SET_RULE",
    "/set_owner": "SET_OWNER",
}
_BODY_FIELDS: Final = ("address", "nonce", "timestamp", "gas_price", "billing")


class DeveloperRoutes:
    """The writing routes of one node."""

    def __init__(self, node: ServedNode, methods: AinNodeMethods) -> None:
        self._node = node
        self._methods = methods

    def routes(self) -> dict[tuple[str, str], Route]:
        """By verb and path; none if the node does not offer them."""
        if not self._node.parameters.flag("ENABLE_DEV_CLIENT_SET_API"):
            return {}
        routes: dict[tuple[str, str], Route] = {
            ("POST", path): self._setting(kind) for path, kind in _KINDS.items()
        }
        routes["POST", "/set"] = self._set
        routes["POST", "/batch"] = self._batch
        routes["POST", "/sign_transaction"] = self._sign
        routes["POST", "/broadcast_consensus_msg"] = self._broadcast
        return routes

    def _setting(self, kind: str) -> Route:
        def route(query: Query, body: Body) -> Reply:
            if not isinstance(body, dict):
                return _not_taken()
            operation = {name: body[name] for name in ("ref", "value", "is_global") if name in body}
            return self._one({"operation": {"type": kind, **operation}, **_named(body)})

        return route

    def _set(self, query: Query, body: Body) -> Reply:
        if not isinstance(body, dict):
            return _not_taken()
        operation = {"type": "SET", **{name: body[name] for name in ("op_list",) if name in body}}
        return self._one({"operation": operation, **_named(body)})

    def _batch(self, query: Query, body: Body) -> Reply:
        listed = body.get("tx_list") if isinstance(body, dict) else None
        if not isinstance(listed, list) or len(listed) > BATCH_MAX:
            return _not_taken()
        transactions = [self._signed(one) for one in listed]
        return result([self._executed(one) for one in transactions if one is not None])

    def _sign(self, query: Query, body: Body) -> Reply:
        transaction = self._signed(body)
        if transaction is None:
            return result(None)
        extra = {"created_at": self._node.now_ms(), "executed_at": None}
        return result({**transaction.to_json(), "extra": extra})

    def _broadcast(self, query: Query, body: Body) -> Reply:
        """Peers check the message as they check any other, so it can say nothing in another's name."""
        self._node.broadcast_consensus(body if isinstance(body, dict) else {})
        return result(True)

    def _one(self, body: dict[str, Any]) -> Reply:
        transaction = self._signed(body)
        answered = dict(NOT_TAKEN) if transaction is None else self._executed(transaction)
        outcome = answered["result"]
        is_good = isinstance(outcome, dict) and not has_failed(outcome, True)
        return json_reply({"code": SUCCESS if is_good else FAILURE, "result": answered})

    def _executed(self, transaction: Transaction) -> dict[str, Any]:
        return self._methods.submission.execute(transaction)

    def _signed(self, body: Any) -> Transaction | None:
        """A transaction by the node's account; None for a body that has not the form of one."""
        key = self._node.key
        if key is None or not isinstance(body, dict):
            return None
        filled = dict(body)
        if "nonce" not in filled:
            own = {"address": key.address, "from": "pending"}
            filled["nonce"] = self._methods.account_number(own, "nonce")
        filled.setdefault("timestamp", self._node.now_ms())
        filled.setdefault("gas_price", 0)
        try:
            check_price(filled, self._node.parameters)
            if filled.get("address"):
                # Without the switch for development nobody's name is taken for a signature.
                allowed = self._node.parameters.flag("ENABLE_TX_SIG_VERIF_WORKAROUND")
                return unsigned_transaction(filled) if allowed else None
            return sign_transaction(filled, key, self._node.chain.network.chain_id)
        except Refusal:
            return None


def _not_taken() -> Reply:
    """What is no JSON object, such as a form of a web page, writes nothing."""
    return json_reply({"code": FAILURE, "result": dict(NOT_TAKEN)})


def _named(given: Mapping[str, Any]) -> dict[str, Any]:
    return {name: given[name] for name in _BODY_FIELDS if name in given}
