"""AI Network's questions to the rules: what matches a path, and would this write be allowed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from openresource.ledger.matching import match_function_json, match_owner_json, match_rule_json
from openresource.ledger.nodes import Branch
from openresource.ledger.owners import eval_owner_json
from openresource.ledger.rule_evaluation import eval_rule_json
from openresource.ledger.verdicts import Auth, EvalContext
from openresource.ledger.views import View
from openresource.node.engine import Engine
from openresource.node.rpc import Params
from openresource.primitives.numbers import is_number
from openresource.primitives.paths import parse_path

LOWER_CASE_NAMES = "allow_lower_case_app_names_only"


class ViewReader:
    """A view of the tree as rules read it."""

    def __init__(self, view: View) -> None:
        self._view = view

    def branch(self, root: str) -> Any:
        """The branch of one of the four roots; None if nothing is below it."""
        value = self._view.root.child(root)
        return value if isinstance(value, Branch) else None

    def get(self, labels: Sequence[str]) -> Any:
        """The value at labels, the root first; None if there is none."""
        return self._view.get(list(labels))


class Evaluation:
    """Matches and evaluations over the state as it is pending."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        # By the name in a list of reads; the methods of their own are named alike.
        self.by_type: dict[str, Callable[[Params], Any]] = {
            "MATCH_FUNCTION": lambda params: match_function_json(self._state(), _labels(params)),
            "MATCH_RULE": lambda params: match_rule_json(self._state(), _labels(params)),
            "MATCH_OWNER": lambda params: match_owner_json(self._state(), _labels(params)),
            "EVAL_RULE": self.eval_rule,
            "EVAL_OWNER": self.eval_owner,
        }

    def eval_rule(self, params: Params) -> Any:
        """Would the write rules let somebody write a value; the time of asking is now unless it is named."""
        timestamp = _number(params.get("timestamp"))
        context = EvalContext(
            self._engine.now_ms() if timestamp is None else timestamp,
            _number(params.get("block_number")),
            _number(params.get("block_time")),
            self._engine.machine.network.enabled_block(LOWER_CASE_NAMES),
        )
        return eval_rule_json(self._state(), _labels(params), params.get("value"), _auth(params), context)

    def eval_owner(self, params: Params) -> Any:
        """Has somebody a permission at a path."""
        is_merge = params.get("is_merge") is True or params.get("is_merge") == "true"
        return eval_owner_json(
            self._state(), _labels(params), params.get("permission"), _auth(params), is_merge
        )

    def _state(self) -> ViewReader:
        return ViewReader(self._engine.pending())


def _labels(params: Params) -> list[str]:
    return parse_path(params.get("ref"))


def _auth(params: Params) -> Auth:
    address, function_id = params.get("address"), params.get("fid")
    return Auth(
        address if isinstance(address, str) else None, function_id if isinstance(function_id, str) else None
    )


def _number(value: Any) -> float | int | None:
    return value if is_number(value) else None
