"""The expression language against results that a JavaScript engine gave for thousands of random expressions."""

from __future__ import annotations

import math
from typing import Any

from openresource.ledger.rule_evaluation import RuleEnvironment
from openresource.ledger.rules.compiler import compile_rule
from openresource.ledger.rules.errors import RuleSyntaxError, RuleThrow
from openresource.ledger.rules.values import (
    UNDEFINED,
    BigInteger,
    Boxed,
    Function,
    Regex,
    array_items,
    property_keys,
)
from openresource.ledger.verdicts import EvalContext
from openresource.primitives.encoding import js_json
from openresource.primitives.numbers import number_text
from tests.support.rules import auth_of, state_of
from tests.vectors_support import notices_changes, vectors


def written(value: Any) -> str:
    """A value as the vectors write it."""
    if value is UNDEFINED:
        return "u"
    if value is None:
        return "n"
    if isinstance(value, bool):
        return "Btrue" if value else "Bfalse"
    if isinstance(value, int | float):
        return "N-0" if value == 0 and math.copysign(1, value) < 0 else "N" + number_text(value)
    if isinstance(value, str):
        return "S" + js_json(value)
    if isinstance(value, BigInteger):
        return f"I{value.number}"
    if isinstance(value, Function):
        return "F"
    if isinstance(value, Regex):
        return "R"
    if isinstance(value, Boxed):
        return "X" + written(value.primitive)
    items = array_items(value)
    if items is not None:
        return "A[" + ",".join(written(item) for item in items) + "]"
    return "O{" + ",".join(f"{js_json(key)}:{written(value[key])}" for key in property_keys(value)) + "}"


def result_of(text: str, context: dict[str, Any]) -> str:
    try:
        rule = compile_rule(text, ["$x", "$y"])
    except RuleSyntaxError:
        return "syntax_error"
    environment = RuleEnvironment(
        state_of({}),
        auth_of(context["auth"]),
        context["data"],
        context["newData"],
        EvalContext(context["currentTime"], context["blockNumber"], context["blockTime"]),
        context["parsedValuePath"],
        [context["$x"], context["$y"]],
    )
    try:
        return written(rule.closure(environment))
    except RuleThrow:
        return "throws"


@vectors("openresource/expressions.json", "cases", expected=("result",), context=("contexts",))
def test_expression_vectors(case: Any, document: Any) -> None:
    assert result_of(case["expr"], document["contexts"][case["context"]]) == case["result"]


def test_a_changed_result_is_noticed() -> None:
    assert notices_changes(test_expression_vectors, seed=1, cases_max=50) == []
