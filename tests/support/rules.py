"""Helpers for tests of rules: a state made of plain objects, and one evaluation over it."""

from __future__ import annotations

import functools
from typing import Any

from openresource.ledger.rule_evaluation import RuleEnvironment
from openresource.ledger.rules.compiler import compile_rule
from openresource.ledger.rules.errors import RuleDenied, RuleSyntaxError, RuleThrow
from openresource.ledger.tree import Tree
from openresource.ledger.verdicts import Auth, EvalContext

# In the reference's test networks the flag for lower-case names is in force from this block.
LOWER_CASE_NAMES_FROM = 2


def state_of(roots: dict[str, Any]) -> Tree:
    """A tree with these roots, written in the order given."""
    tree = Tree("ain")
    for root, value in roots.items():
        tree.write([root], value)
    return tree


def auth_of(parts: dict[str, Any] | None) -> Auth | None:
    """Who asks, as vectors write it."""
    if parts is None:
        return None
    fids = parts.get("fids")
    return Auth(parts.get("addr"), parts.get("fid"), None if fids is None else tuple(fids))


@functools.lru_cache(maxsize=2_000)
def _compiled(text: str, names: tuple[str, ...]) -> Any:
    return compile_rule(text, list(names))


def evaluate(tree: Tree, text: str, context: dict[str, Any]) -> bool | str:
    """What a rule says: true or false, or how it went wrong."""
    variables: dict[str, str] = context["path_vars"]
    try:
        rule = _compiled(text, tuple(variables))
    except RuleSyntaxError:
        return "syntax_error"
    environment = RuleEnvironment(
        tree,
        auth_of(context["auth"]),
        context["data"],
        context["newData"],
        EvalContext(
            context["timestamp"], context["block_number"], context["block_time"], LOWER_CASE_NAMES_FROM
        ),
        context["path"],
        list(variables.values()),
    )
    try:
        return bool(rule.holds(environment))
    except RuleDenied:
        return "denied"
    except RuleThrow:
        return "error"
