"""How a rule can go wrong: its text is no rule, or its evaluation throws."""

from __future__ import annotations


class RuleSyntaxError(Exception):
    """The text cannot be read as a rule."""


class RuleTokenError(RuleSyntaxError):
    """The text cannot even be split into tokens."""


class RuleThrow(Exception):
    """Evaluation stopped with an error, as JavaScript would throw one."""


class RuleDenied(RuleThrow):
    """The rule reached for something that rules may not have: constructors, or a change of what they are given."""


class RuleExhausted(RuleThrow):
    """The rule used up its steps, or tried to build something too large."""
