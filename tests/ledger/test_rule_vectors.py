"""The rules of AI Network's genesis, its expression language, and what may be set as a rule, a function or an owner."""

from __future__ import annotations

import functools
import json
import re
from typing import Any

import pytest

from openresource.ledger.config_trees import (
    apply_function_change,
    apply_owner_change,
    apply_rule_change,
    check_function_tree,
    check_owner_tree,
    check_rule_tree,
)
from openresource.ledger.rule_evaluation import eval_state_rule
from openresource.ledger.rules.checks import is_acceptable_rule
from openresource.ledger.rules.globals import GLOBALS
from openresource.ledger.rules.lexer import IDENTIFIER, tokenize
from openresource.ledger.tree import Tree
from openresource.ledger.urls import is_absolute_url, is_valid_url, is_whitelisted
from tests.support.rules import evaluate, state_of
from tests.vectors_support import notices_changes, vectors

NATIVES = frozenset(("_createApp", "_transfer", "_saveLastTx", "_eraseValue", "_fail", "_setOwnerConfig"))
DEFAULT_WHITELIST = [
    "https://*.ainetwork.ai",
    "https://*.ainize.ai",
    "https://*.afan.ai",
    "http://localhost:3000",
]
# What rules may not do here though AI Network's nodes let them: reach code, and change what they were given.
OUT_OF_REACH = re.compile(
    r"constructor|__proto__|prototype|delete\b|\+\+|--|[-+*/%&|^<>?]=|[^=!<>]=[^=>]|class|import"
)


def uses_foreign_name(text: str, variables: list[str]) -> bool:
    """Whether a text uses functions of its own, or a name that nothing is bound to."""
    bound = {"auth", "data", "newData", "currentTime", "blockNumber", "blockTime", "parsedValuePath", "util"}
    follows_dot = False
    for token in tokenize(text):
        if token.value in ("function", "=>"):
            return True
        is_free = token.kind == IDENTIFIER and not follows_dot
        if (
            is_free
            and token.value not in bound
            and token.value not in GLOBALS
            and token.value not in variables
        ):
            return True
        follows_dot = token.value in (".", "?.")
    return False


@functools.lru_cache(maxsize=4)
def _tree(text: str) -> Tree:
    return state_of(json.loads(text))


def tree_of(document: dict[str, Any]) -> Tree:
    return _tree(json.dumps(document["state"]))


@vectors("ain/rules.json", "genesis_eval", expected=("result",), context=("state", "rule_sources"))
def test_genesis_rule_vectors(case: Any, document: Any) -> None:
    rule = document["rule_sources"][case["rule_index"]]
    assert evaluate(tree_of(document), rule["write"], case["context"]) == case["result"]


@vectors("ain/rules.json", "language_eval", expected=("result", "valid_when_set"), context=("state",))
def test_language_vectors(case: Any, document: Any) -> None:
    text = case["expr"]
    can_be_set = is_acceptable_rule(text, list(case["context"]["path_vars"]))
    assert can_be_set == (case["valid_when_set"] is True)
    outcome = evaluate(tree_of(document), text, case["context"])
    if outcome == "denied":
        assert OUT_OF_REACH.search(text), f"{text} was denied"
        assert case["result"] != "syntax_error"
        return
    if not can_be_set and outcome in ("error", "syntax_error") and isinstance(case["result"], bool):
        # A text that nobody can set is never evaluated; the reference's other globals do not exist here.
        assert uses_foreign_name(text, list(case["context"]["path_vars"])), f"{text} gave {outcome}"
        return
    assert outcome == case["result"]


@vectors("ain/rules.json", "rule_string_validity", expected=("valid",))
def test_rule_text_vectors(case: Any, document: Any) -> None:
    assert is_acceptable_rule(case["expr"], case["path_variables"]) == (case["valid"] is True)
    assert case["valid"] in (True, False, "throws")


def _expected(case: Any) -> str | None:
    return None if case["valid"] else case["invalid_path"]


@vectors("ain/rules.json", "rule_trees", expected=("valid", "invalid_path"))
def test_rule_tree_vectors(case: Any, document: Any) -> None:
    found = check_rule_tree(case["tree_path"], case["tree"], case["min_gc_num_siblings_deleted"])
    assert (found is None, found or "") == (case["valid"], case["invalid_path"])


@vectors("ain/rules.json", "function_trees", expected=("valid", "invalid_path"))
def test_function_tree_vectors(case: Any, document: Any) -> None:
    found = check_function_tree(case["tree_path"], case["tree"])
    assert (found is None, found or "") == (case["valid"], case["invalid_path"])


@vectors("ain/rules.json", "owner_trees", expected=("valid", "invalid_path"))
def test_owner_tree_vectors(case: Any, document: Any) -> None:
    found = check_owner_tree(case["tree_path"], case["tree"], NATIVES)
    assert (found is None, found or "") == (case["valid"], case["invalid_path"])


@vectors("ain/rules.json", "apply_change", expected=("is_merge", "config"))
def test_change_vectors(case: Any, document: Any) -> None:
    apply = {"rule": apply_rule_change, "function": apply_function_change, "owner": apply_owner_change}[
        case["kind"]
    ]
    before = json.dumps([case["current"], case["change"]])
    changed = apply(case["current"], case["change"])
    assert changed.is_merge == case["is_merge"]
    assert json.dumps(changed.value) == json.dumps(case["config"])
    assert json.dumps([case["current"], case["change"]]) == before


@vectors("ain/rules.json", "state_rule_eval", expected=("result",))
def test_state_rule_vectors(case: Any, document: Any) -> None:
    assert eval_state_rule(case["state_rule"], case["value"]) == case["result"]


@vectors("ain/basic.json", "urls", expected=("is_valid_url", "is_valid_whitelist_item", "whitelisted"))
def test_url_vectors(case: Any, document: Any) -> None:
    url = case["url"]
    assert is_valid_url(url) == case["is_valid_url"]
    assert is_absolute_url(url) == case["is_valid_whitelist_item"]
    assert is_whitelisted(url, DEFAULT_WHITELIST) == case["whitelisted"]


@pytest.mark.parametrize(
    "test",
    [value for name, value in list(globals().items()) if name.startswith("test_")],
    ids=lambda test: test.__name__,
)
def test_a_changed_expected_value_is_noticed(test: Any) -> None:
    assert notices_changes(test, seed=7, cases_max=12) == []
