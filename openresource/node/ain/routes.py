"""AI Network's HTTP routes beside JSON-RPC: what anybody may ask, and what developers on the list may.

Answers are `{code, result}` with HTTP 200; code 40001 says that there is nothing where something was asked for.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from openresource.node.ain.methods import AinNodeMethods
from openresource.node.ain.protocol_versions import CONSENSUS_PROTOCOL_VERSION, DATA_PROTOCOL_VERSION
from openresource.node.ain.served import ServedNode
from openresource.node.ain.status import Status
from openresource.node.rpc import PROTOCOL_VERSION, encode
from openresource.primitives.numbers import is_integer_text

SUCCESS: Final = 0
FAILURE: Final = 40001
BLOCKS_SHOWN_MAX: Final = 20
JSON_TYPE: Final = b"application/json; charset=utf-8"
TEXT_TYPE: Final = b"text/plain; charset=utf-8"

Query = Mapping[str, Any]
Body = Any


@dataclass(frozen=True, slots=True)
class Reply:
    """What goes back over HTTP."""

    body: bytes
    status: int = 200
    content_type: bytes = JSON_TYPE


Route = Callable[[Query, Body], Reply]


def json_reply(value: Any, status: int = 200) -> Reply:
    """A reply with a JSON body."""
    return Reply(encode(value), status)


def text_reply(text: str, status: int = 200) -> Reply:
    """A reply with a plain text."""
    return Reply(text.encode(), status, TEXT_TYPE)


def result(value: Any) -> Reply:
    """An answer that always succeeds."""
    return json_reply({"code": SUCCESS, "result": value})


def found(value: Any) -> Reply:
    """An answer that fails if there is nothing."""
    return json_reply({"code": FAILURE if value is None else SUCCESS, "result": value})


class Routes:
    """The reading routes of one node."""

    def __init__(self, node: ServedNode, methods: AinNodeMethods) -> None:
        self._node = node
        self._methods = methods
        self._status = Status(node)

    def open_routes(self) -> dict[tuple[str, str], Route]:
        """By verb and path: what everybody may ask."""
        return {
            ("GET", "/"): self._welcome,
            ("GET", "/health_check"): lambda query, body: _word(self._status.is_healthy()),
            ("GET", "/metrics"): lambda query, body: text_reply(self._status.metrics()),
            ("GET", "/last_block_number"): lambda query, body: result(self._node.chain.final_number),
        }

    def listed_routes(self) -> dict[tuple[str, str], Route]:
        """By verb and path: what callers on the list of developers may ask."""
        queries, status, chain = self._methods.queries, self._status, self._node.chain
        gets: dict[str, Route] = {
            "/get_state_proof": lambda query, body: found(queries.proof(query)),
            "/get_proof_hash": lambda query, body: found(queries.proof_hash(query)),
            "/get_state_info": lambda query, body: found(queries.info(query)),
            "/get_state_usage": lambda query, body: found(queries.usage(query)),
            "/status": lambda query, body: result(status.everything()),
            "/node_status": lambda query, body: result(status.node()),
            "/connection_status": lambda query, body: result(self._node.network_status()["connectionStatus"]),
            "/client_status": lambda query, body: result(status.client()),
            "/protocol_versions": lambda query, body: result(status.protocol()),
            "/state_versions": lambda query, body: result(status.versions()),
            "/get_config": lambda query, body: result(status.config()),
            "/get_sharding": lambda query, body: found(status.sharding()),
            "/get_consensus_status": lambda query, body: result(self._node.consensus_status()),
            "/get_raw_consensus_status": lambda query, body: result(self._node.raw_consensus_status()),
            "/get_network_id": lambda query, body: result(chain.parameter("genesis", "network_id")),
            "/get_chain_id": lambda query, body: result(chain.parameter("genesis", "chain_id")),
            "/get_address": lambda query, body: result(self._methods.address()),
            "/blocks": lambda query, body: result(self._last_blocks()),
            "/last_block": lambda query, body: result(chain.final_block),
            "/get_block_by_hash": lambda query, body: self._block("hash", query),
            "/get_block_by_number": lambda query, body: self._block("number", query),
            "/get_block_info_by_number": lambda query, body: self._block_info(query),
            "/get_transaction": lambda query, body: result(chain.transaction_info(query.get("hash"))),
            "/tx_pool": lambda query, body: result(chain.pending_transactions()),
            "/tx_tracker": lambda query, body: result(chain.pool.tracker),
            # Kept by AI Network's node as routes without a result.
            "/committed_nonce_tracker": lambda query, body: json_reply({"code": SUCCESS}),
            "/pending_nonce_tracker": lambda query, body: json_reply({"code": SUCCESS}),
            "/tx_pool_size_util": lambda query, body: result(
                self._methods.pool_utilization(query.get("address"))
            ),
            "/get_nonce": lambda query, body: result(self._methods.account_number(query, "nonce")),
            "/get_timestamp": lambda query, body: result(self._methods.account_number(query, "timestamp")),
            "/validate_app_name": lambda query, body: result(queries.validate_app_name(query)),
        }
        for tree in ("value", "function", "rule", "owner"):
            gets[f"/get_{tree}"] = self._getting(f"GET_{tree.upper()}")
        for tree in ("function", "rule", "owner"):
            gets[f"/match_{tree}"] = self._asking(f"MATCH_{tree.upper()}")
        routes = {("GET", path): route for path, route in gets.items()}
        routes["POST", "/eval_rule"] = self._asking_in_body("EVAL_RULE")
        routes["POST", "/eval_owner"] = self._asking_in_body("EVAL_OWNER")
        routes["POST", "/get"] = lambda query, body: _with_code(
            queries.get_list(_object(body).get("op_list"))
        )
        return routes

    def event_routes(self) -> dict[tuple[str, str], Route]:
        """By verb and path: what a load balancer asks a node with an event handler."""
        events = self._node.events
        if events is None:
            return {}
        return {("GET", "/eh_load_balancer_health_check"): lambda query, body: _word(events.has_room())}

    def _welcome(self, query: Query, body: Body) -> Reply:
        guide = self._node.parameters.text("BLOCKCHAIN_GUIDE_URL")
        return text_reply(
            "[Welcome to AIN Blockchain Node]\n\n"
            f"- CURRENT_PROTOCOL_VERSION: {PROTOCOL_VERSION}\n"
            f"- DATA_PROTOCOL_VERSION: {DATA_PROTOCOL_VERSION}\n"
            f"- CONSENSUS_PROTOCOL_VERSION: {CONSENSUS_PROTOCOL_VERSION}\n\n"
            f"Developers Guide: {guide}"
        )

    def _getting(self, kind: str) -> Route:
        return lambda query, body: _with_code(self._methods.queries.get_one(kind, query))

    def _asking(self, kind: str) -> Route:
        return lambda query, body: found(self._methods.queries.ask(kind, query))

    def _asking_in_body(self, kind: str) -> Route:
        return lambda query, body: found(self._methods.queries.ask(kind, _object(body)))

    def _last_blocks(self) -> list[dict[str, Any]]:
        behind = self._node.chain.final_number + 1
        return self._node.chain.blocks(max(0, behind - BLOCKS_SHOWN_MAX), behind, BLOCKS_SHOWN_MAX)

    def _block(self, key: str, query: Query) -> Reply:
        given = query.get(key)
        block = self._methods.find_block(key, given)
        if block is None:
            # An unknown block has no result at all; a question without one has null.
            is_asked = bool(given) and (key == "hash" or is_integer_text(str(given)))
            return json_reply({"code": SUCCESS} if is_asked else {"code": SUCCESS, "result": None})
        return result(block)

    def _block_info(self, query: Query) -> Reply:
        given = query.get("number")
        if not isinstance(given, str) or len(given) > 16 or not is_integer_text(given):
            return result(None)
        finalised_at = self._node.chain.finalised_at(int(given))
        return (
            json_reply({"code": SUCCESS}) if finalised_at is None else result({"finalized_at": finalised_at})
        )


def _with_code(answered: dict[str, Any]) -> Reply:
    return json_reply({"code": SUCCESS, **answered})


def _word(value: bool) -> Reply:
    return text_reply("true" if value else "false")


def _object(body: Body) -> dict[str, Any]:
    return body if isinstance(body, dict) else {}
