"""Questions to the state: values, rules, functions and owners, what matches a path, what would be allowed, proofs.

Reads see the front state unless they ask for the final one. What would answer with too much is refused with the limits
that the node has at that moment.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, Final

from openresource.ledger.matching import match_function_json, match_owner_json, match_rule_json
from openresource.ledger.nodes import Branch
from openresource.ledger.operations import js_text
from openresource.ledger.owners import eval_owner_json
from openresource.ledger.proofs import state_proof
from openresource.ledger.reads import (
    WHOLE,
    ReadOptions,
    TooManyBytes,
    TooManySiblings,
    check_found,
    shown,
    state_info,
)
from openresource.ledger.rule_evaluation import eval_rule_json
from openresource.ledger.state import State
from openresource.ledger.verdicts import Auth, EvalContext
from openresource.ledger.views import View, find
from openresource.node.ain.served import ServedNode
from openresource.node.rpc import Answer, Params, answer, refused
from openresource.node.usage import state_usage
from openresource.primitives.numbers import is_number
from openresource.primitives.paths import (
    FUNCTIONS,
    OWNERS,
    RULES,
    VALUES,
    parse_path,
    valid_label,
    valid_service_name,
)

GET_INVALID_OPERATION: Final = 30001
GET_TOO_MANY_BYTES: Final = 30002
GET_TOO_MANY_SIBLINGS: Final = 30003
GET_TOO_MANY_OPERATIONS: Final = 30004
GET_INVALID_LIST: Final = 30006
LOWER_CASE_NAMES: Final = "allow_lower_case_app_names_only"

_TREES: Final[Mapping[str, str]] = {
    "GET_VALUE": VALUES,
    "GET_RULE": RULES,
    "GET_FUNCTION": FUNCTIONS,
    "GET_OWNER": OWNERS,
}
_TREES_ASKED: Final[Mapping[str, str]] = {
    "MATCH_FUNCTION": FUNCTIONS,
    "MATCH_RULE": RULES,
    "MATCH_OWNER": OWNERS,
    "EVAL_RULE": RULES,
    "EVAL_OWNER": OWNERS,
}

# A read with nothing else in it asks for all there is, as most do.
_PLAIN: Final = frozenset(("type", "ref", "is_final", "is_global", "protoVer"))

# State, labels, parameters, and the way to this chain if the path was a global one.
Question = Callable[[State, list[str], Params, list[str]], Any]


class Queries:
    """Reads on one node."""

    def __init__(self, node: ServedNode) -> None:
        self._node = node
        self._questions: dict[str, Question] = {
            "MATCH_FUNCTION": lambda state, labels, params, shard: match_function_json(state, labels, shard),
            "MATCH_RULE": lambda state, labels, params, shard: match_rule_json(state, labels, shard),
            "MATCH_OWNER": lambda state, labels, params, shard: match_owner_json(state, labels, shard),
            "EVAL_RULE": self._eval_rule,
            "EVAL_OWNER": _eval_owner,
        }

    # Values, rules, functions and owners.

    def get(self, params: Params) -> Answer:
        """The answer of `ain_get`."""
        kind = params.get("type")
        if isinstance(kind, str) and kind in _TREES:
            return self.get_one(kind, params)
        if kind == "GET":
            return self.get_list(params.get("op_list"))
        return refused(GET_INVALID_OPERATION, "Invalid get operation")

    def get_one(self, kind: str, params: Params) -> Answer:
        """One read from one of the four trees."""
        labels = self._local(params)
        if labels is None:
            return answer(None)
        options = WHOLE if params.keys() <= _PLAIN else self._options(params)
        root = self._node.chain.state(is_true(params.get("is_final"))).tree.root
        value = find(root, [_TREES[kind], *labels])
        problem = self._problem(root, value, options)
        if problem is not None:
            return {"result": None, **problem}
        return answer(shown(value, options, self.version() if options.include_version else ""))

    def get_list(self, operations: object) -> Answer:
        """Several reads, matches and evaluations at once; unknown kinds leave no trace in the list."""
        if not isinstance(operations, list) or not operations:
            return refused(GET_INVALID_LIST, "Invalid op_list given")
        most = self._node.parameters.number("GET_OP_LIST_SIZE_LIMIT")
        if len(operations) > most:
            message = (
                "The request exceeds the max op_list size limit of the requested node: "
                f"{len(operations)} > {most}"
            )
            return refused(GET_TOO_MANY_OPERATIONS, message)
        found: list[Any] = []
        for operation in operations:
            params = operation if isinstance(operation, dict) else {}
            kind = params.get("type", "GET_VALUE")
            if isinstance(kind, str) and kind in _TREES:
                found.append(self.get_one(kind, params)["result"])
            elif isinstance(kind, str) and kind in self._questions:
                found.append(self.ask(kind, params))
        return answer(found)

    # Matches and evaluations.

    def ask(self, kind: str, params: Params) -> Any:
        """What matches a path or would be allowed there; None for a path of another chain."""
        labels = self._local(params)
        if labels is None:
            return None
        state = self._node.chain.front
        root = state.tree.root
        problem = self._problem(root, find(root, [_TREES_ASKED[kind], *labels]), WHOLE)
        if problem is not None:
            return problem
        shard = self._shard() if is_true(params.get("is_global")) else []
        return self._questions[kind](state, labels, params, shard)

    def _eval_rule(self, state: State, labels: list[str], params: Params, shard: list[str]) -> Any:
        timestamp = params.get("timestamp")
        context = EvalContext(
            timestamp if is_number(timestamp) and timestamp else self._node.now_ms(),
            _number_or_none(params, "block_number"),
            _number_or_none(params, "block_time"),
            self._node.chain.network.enabled_block(LOWER_CASE_NAMES),
        )
        return eval_rule_json(state, labels, params.get("value"), _auth(params), context)

    # Proofs and counts.

    def proof(self, params: Params) -> Any:
        """The state proof at a full path; None where there is nothing."""
        return state_proof(self._front(), parse_path(params.get("ref")))

    def proof_hash(self, params: Params) -> str | None:
        """The proof hash at a full path; None where there is nothing."""
        return self._front().hash_of(parse_path(params.get("ref")))

    def info(self, params: Params) -> dict[str, Any] | None:
        """The counts at a full path; None where there is nothing."""
        return state_info(self._front(), parse_path(params.get("ref")), self.version())

    def usage(self, params: Params) -> dict[str, Any] | None:
        """What an app uses and may use; None without a name."""
        name = params.get("app_name")
        return state_usage(self._front(), name) if isinstance(name, str) and name else None

    # Apps.

    def validate_app_name(self, params: Params) -> Answer:
        """Whether an app may be called so; the answer is flat."""
        chain = self._node.chain
        name: Any = params.get("app_name")
        shown = js_text(name) if "app_name" in params else "undefined"
        length_max = chain.parameter("resource", "state_label_length_limit")
        is_label = valid_label(name, length_max) if is_number(length_max) else valid_label(name)
        if not is_label:
            return _invalid_name(30601, f"Invalid app name for state label: {shown}")
        lower_case_only = LOWER_CASE_NAMES in chain.network.enabled_at(chain.final_number)
        if not valid_service_name(name, lower_case_only):
            return _invalid_name(30602, f"Invalid app name for service name: {shown}")
        if chain.front.get([VALUES, "manage_app", name, "config"]) is not None:
            return _invalid_name(30603, f"App name already in use: {shown}")
        return {"is_valid": True, "result": True, "code": 0}

    def version(self) -> str:
        """The name of the front state among the versions of the state."""
        return f"NODE:{self._node.chain.final_number}"

    def _front(self) -> View:
        return View(self._node.chain.front.tree.root)

    def _local(self, params: Params) -> list[str] | None:
        """The labels of a path; those of a global one without the way to this chain, None if it leads to another."""
        labels = parse_path(params.get("ref"))
        if not is_true(params.get("is_global")):
            return labels
        shard = self._shard()
        return labels[len(shard) :] if labels[: len(shard)] == shard else None

    def _shard(self) -> list[str]:
        """The way from the root chain to this one."""
        return parse_path(self._node.chain.network.configured("sharding", "sharding_path"))

    def _options(self, params: Params) -> ReadOptions:
        is_partial = is_true(params.get("is_partial"))
        options = ReadOptions(
            is_shallow=is_true(params.get("is_shallow")),
            is_partial=is_partial,
            include_version=is_true(params.get("include_version")),
            include_tree_info=is_true(params.get("include_tree_info")),
            include_proof=is_true(params.get("include_proof")),
            page_children_max=int(self._node.parameters.number("GET_RESP_MAX_SIBLINGS")),
        )
        if is_partial and "last_end_label" in params:
            return replace(options, last_end_label=js_text(params["last_end_label"]))
        return options

    def _problem(self, root: Branch, value: object, options: ReadOptions) -> dict[str, Any] | None:
        """The code and message for an answer that would be too large; None for others."""
        number = self._node.parameters.number
        siblings_max, bytes_max = number("GET_RESP_MAX_SIBLINGS"), number("GET_RESP_BYTES_LIMIT")
        try:
            check_found(root, value, options, siblings_max, bytes_max)
        except TooManySiblings as siblings:
            return {"code": GET_TOO_MANY_SIBLINGS, "message": siblings.message}
        except TooManyBytes as many:
            return {"code": GET_TOO_MANY_BYTES, "message": many.message}
        return None


def is_true(given: object) -> bool:
    """Whether an option is on: true, or that word."""
    return given is True or given == "true"


def _eval_owner(state: State, labels: list[str], params: Params, shard: list[str]) -> Any:
    is_merge = is_true(params.get("is_merge"))
    return eval_owner_json(state, labels, params.get("permission"), _auth(params), is_merge)


def _auth(params: Params) -> Auth:
    address, function_id = params.get("address"), params.get("fid")
    return Auth(
        address if isinstance(address, str) and address else None,
        function_id if isinstance(function_id, str) and function_id else None,
    )


def _number_or_none(params: Params, name: str) -> int | float | None:
    """A number that was given; what is given and none counts as 0."""
    if name not in params:
        return None
    value: Any = params[name]
    return value if is_number(value) else 0


def _invalid_name(code: int, message: str) -> Answer:
    return {"is_valid": False, "result": False, "code": code, "message": message}
