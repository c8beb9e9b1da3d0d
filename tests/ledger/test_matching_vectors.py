"""Which rules, functions and owners speak for a path, as AI Network's nodes answer."""

from __future__ import annotations

import random
from typing import Any

import pytest

from openresource.ledger.matching import match_function_json, match_owner_json, match_rule_json
from openresource.ledger.owners import WRITE_FUNCTION, WRITE_OWNER, WRITE_RULE, eval_owner
from openresource.ledger.rule_evaluation import eval_write_rule
from openresource.ledger.tree import Tree
from openresource.ledger.verdicts import EvalContext
from openresource.primitives.paths import parse_path
from tests.support.rules import LOWER_CASE_NAMES_FROM, auth_of, state_of
from tests.vectors_support import changed, load_vectors, vector_files, vectors


def exactly(one: Any, other: Any) -> bool:
    """Equal with the same order of keys."""
    if isinstance(one, dict) and isinstance(other, dict):
        return list(one) == list(other) and all(exactly(one[key], other[key]) for key in one)
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(exactly(a, b) for a, b in zip(one, other, strict=True))
    return type(one) is type(other) and one == other


def answers(tree: Tree, query: dict[str, Any]) -> dict[str, Any]:
    labels = parse_path(query["path"])
    auth = auth_of(query["auth"])
    is_merge = query["is_merge"]
    context = EvalContext(query["timestamp"], query["block_number"], None, LOWER_CASE_NAMES_FROM)
    return {
        "match_rule": match_rule_json(tree, labels),
        "match_function": match_function_json(tree, labels),
        "match_owner": match_owner_json(tree, labels),
        "eval_rule": eval_write_rule(tree, labels, query["value"], auth, context).to_json(),
        "eval_owner": eval_owner(tree, labels, query["permission"], auth, is_merge).to_json(),
        "permission_for_rule": eval_owner(tree, labels, WRITE_RULE, auth, is_merge).to_json(),
        "permission_for_function": eval_owner(tree, labels, WRITE_FUNCTION, auth, is_merge).to_json(),
        "permission_for_owner": eval_owner(tree, labels, WRITE_OWNER, auth, is_merge).to_json(),
    }


def _count(document: dict[str, Any]) -> int:
    return sum(len(case["queries"]) for case in document["cases"])


@vectors("ain/matching.json", "cases", count=_count)
def test_matching_vectors(case: Any, document: Any) -> None:
    tree = state_of(case["state"])
    for query in case["queries"]:
        for name, answer in answers(tree, query).items():
            expected = query[name]
            assert exactly(answer, expected), f"{name} of {query['path']}: {answer} instead of {expected}"


def test_a_changed_answer_is_noticed() -> None:
    document = load_vectors("ain/matching.json") if vector_files("ain/matching.json") else {"cases": []}
    source = random.Random(5)
    for case in document["cases"]:
        query = source.choice(case["queries"])
        for name in answers(state_of(case["state"]), query):
            wrong = {**query, name: changed(query[name], source)}
            with pytest.raises(AssertionError):
                test_matching_vectors.vector_check({"state": case["state"], "queries": [wrong]}, document)
