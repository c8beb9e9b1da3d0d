"""Whether a rule's text may be set: a look at its tokens, as AI Network's nodes take it; the text is not parsed."""

from __future__ import annotations

from typing import Final

from openresource.ledger.rules.errors import RuleTokenError
from openresource.ledger.rules.lexer import IDENTIFIER, KEYWORD, PUNCTUATOR, tokenize
from openresource.ledger.rules.text import word_set

_KNOWN: Final = word_set(
    "auth blockNumber blockTime currentTime data evalOwner evalRule getFunction getOwner getRule "
    "getValue lastBlockNumber newData util parsedValuePath Number String Boolean"
)
# Words that count as keywords although a name may be written like them.
_WORDS: Final = frozenset(("let", "static", "yield"))
_REFUSED_SIGNS: Final = frozenset(("=", "=>"))


def is_acceptable_rule(text: str, variables: list[str]) -> bool:
    """Whether a text may be stored as a rule at a path with these variables."""
    try:
        tokens = tokenize(text)
    except RuleTokenError:
        return False
    follows_dot = False
    for token in tokens:
        if token.kind == IDENTIFIER:
            name = token.value
            if not follows_dot and name not in _KNOWN and name not in variables and name not in _WORDS:
                return False
        elif token.kind == KEYWORD:
            if token.value == "function":
                return False
        elif token.kind == PUNCTUATOR and token.value in _REFUSED_SIGNS:
            return False
        follows_dot = token.kind == PUNCTUATOR and token.value == "."
    return True
