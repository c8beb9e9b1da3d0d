"""Rule expressions: is the text a rule, what does it give, and nothing else comes out."""

from __future__ import annotations

import json
import random
import re
from pathlib import Path
from typing import Any

from openresource.ledger.rule_evaluation import RuleEnvironment, eval_write_rule
from openresource.ledger.rules.checks import is_acceptable_rule
from openresource.ledger.rules.compiler import compile_rule
from openresource.ledger.rules.errors import RuleSyntaxError, RuleThrow
from openresource.ledger.tree import Tree
from openresource.ledger.verdicts import Auth, EvalContext
from tests.fuzz.mutation import STRANGE_VALUES, Mutator

VECTORS = Path(__file__).resolve().parents[1] / "vectors" / "ain" / "rules.json"
ADDRESS = "0x00ADEc28B6a845a085e03591bE7550dd68673C1C"
CONTEXT = EvalContext(1_700_000_000_000, 5, 1_699_999_999_999, 3)
TOKEN = re.compile(r"\s+|[A-Za-z_$][\w$]*|[0-9.]+|'[^']*'|\"[^\"]*\"|[<>=!&|?.+*-]{2,3}|.", re.DOTALL)
WORDS = [
    "auth",
    "newData",
    "data",
    "util",
    "getValue",
    "getRule",
    "evalRule",
    "evalOwner",
    "parsedValuePath",
    "currentTime",
    "$x",
    "Number",
    "String",
    "Boolean",
    "length",
    "slice",
    "split",
    "join",
    "replace",
    "match",
    "test",
    "exec",
    "indexOf",
    "concat",
    "repeat",
    "padStart",
    "padEnd",
    "includes",
    "toString",
    "map",
    "filter",
    "some",
    "every",
    "reduce",
    "sort",
    "reverse",
    "push",
    "typeof",
    "void",
    "new",
    "in",
    "instanceof",
    "delete",
    "null",
    "true",
    "false",
    "this",
    "0",
    "1",
    "-1",
    "1e308",
    "0x10",
    "0b1",
    "1n",
    "1e21",
    "(",
    ")",
    "[",
    "]",
    "{",
    "}",
    ".",
    "?.",
    ",",
    "?",
    ":",
    "??",
    "&&",
    "||",
    "!",
    "~",
    "+",
    "-",
    "*",
    "/",
    "%",
    "**",
    "<<",
    ">>",
    ">>>",
    "<",
    "<=",
    "==",
    "===",
    "!=",
    "!==",
    "&",
    "|",
    "^",
    ";",
    "=",
    "=>",
    "`",
    "${",
    "'",
]
PIECES = (
    *WORDS,
    "'a'",
    "''",
    "/(a+)+$/",
    "/a|b*/g",
    "/[/",
    "\\u0061",
    "\n",
    "\u2028",
    "\ud800",
    "/*",
    "//",
    "...",
)
WRITTEN_MAX = 60


class Target:
    """Reads and evaluates; also as the write rule of a path."""

    def __init__(self, seed: int) -> None:
        self.chance = random.Random(f"rules {seed}")
        self.mutator = Mutator(self.chance)
        vectors = json.loads(VECTORS.read_text())
        texts = [case["expr"] for case in vectors["language_eval"]]
        texts += [case["write"] for case in vectors["rule_sources"] if isinstance(case["write"], str)]
        texts += [case["expr"] for case in vectors["rule_string_validity"]]
        self.corpus = [TOKEN.findall(text) for text in texts]
        self.values = [value for value in STRANGE_VALUES if not isinstance(value, list)]
        self.tree = Tree("ain")
        self.tree.write(
            ["values"],
            {"apps": {"a": {"x": 1, "y": {"z": "text"}}, "list": {str(at): at for at in range(40)}}},
        )
        self.tree.write(["values", "accounts", ADDRESS, "balance"], 5)

    def make(self) -> str:
        """One text."""
        chance = self.chance
        text = "".join(self.mutator.pieces(chance.choice(self.corpus), PIECES, self.corpus))
        if chance.random() < 0.1:
            raw = self.mutator.data(text.encode("utf-8", "surrogatepass"), [b"auth", b"\xed\xa0\x80"])
            text = raw.decode("utf-8", "replace")
        return text

    async def run(self, text: str) -> None:
        """Typed outcomes only."""
        chance = self.chance
        is_acceptable = is_acceptable_rule(text, ["$x"])
        assert isinstance(is_acceptable, bool)
        new_data: Any = chance.choice(self.values)
        try:
            rule = compile_rule(text, ["$x"])
            environment = RuleEnvironment(
                self.tree,
                Auth(ADDRESS),
                chance.choice(self.values),
                new_data,
                CONTEXT,
                ["apps", "a", "x"],
                ["x"],
            )
            assert isinstance(rule.holds(environment), bool)
        except (RuleSyntaxError, RuleThrow):
            pass
        if is_acceptable and chance.random() < 0.2:
            self.tree.write(["rules", "apps", "$x", ".rule", "write"], text)
            label = "a" if chance.random() < 0.8 else "list"
            verdict = eval_write_rule(
                self.tree, ["apps", label, "x"][: chance.choice((2, 3))], new_data, Auth(ADDRESS), CONTEXT
            )
            assert isinstance(verdict.code, int)

    async def start(self) -> None:
        """Nothing to open."""

    async def stop(self) -> None:
        """Nothing to close."""
