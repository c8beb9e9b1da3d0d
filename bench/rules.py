"""How fast rules are compiled, matched and evaluated; prints microseconds of processor time per item."""

from __future__ import annotations

import argparse
import json
import platform
import time
from collections.abc import Callable

import openresource.ledger.rules.compiler as compiler
from openresource.ledger.rule_evaluation import RuleEnvironment, eval_write_rule
from openresource.ledger.rules.compiler import compile_rule
from openresource.ledger.tree import Tree
from openresource.ledger.verdicts import Auth, EvalContext

ALICE = "0x00ADEc28B6a845a085e03591bE7550dd68673C1C"
BOB = "0x01A0980d2D4e418c7F27e1ef539d01A5b5E93204"
SHORT_RULE = "auth.addr === $user_addr"
TYPED_RULE = (
    "auth.addr === $user_addr && util.isDict(newData) && util.isString(newData.text) && newData.size > 0"
)
# The shape of the rule that guards transfers on AI Network's chains.
_CALLERS = ("_stake", "_unstake", "_pay", "_claim", "_hold", "_release", "_collectFee", "_claimReward")
_CLOSERS = ("_openCheckout", "_closeCheckout", "_closeCheckin")
TRANSFER_RULE = (
    "(auth.addr === $from || "
    + " || ".join(f"auth.fid === '{name}'" for name in _CALLERS + _CLOSERS)
    + ") && !getValue('transfer/' + $from + '/' + $to + '/' + $key)"
    + " && (util.isServAcntName($from, blockNumber) || util.isCksumAddr($from))"
    + " && (util.isServAcntName($to, blockNumber) || util.isCksumAddr($to))"
    + " && $from !== $to && util.isNumber(newData) && newData > 0 && util.countDecimals(newData) <= 6"
    + " && util.getBalance($from, getValue) >= newData"
)
CONTEXT = EvalContext(1_700_000_000_000, 100, 1_700_000_000_000, 2)


def example_state() -> Tree:
    """A small chain with the three rules and two accounts."""
    tree = Tree()
    tree.write(["rules"], {".rule": {"write": False}})
    tree.write(["rules", "apps", "short", "$user_addr"], {".rule": {"write": SHORT_RULE}})
    tree.write(["rules", "apps", "typed", "$user_addr"], {".rule": {"write": TYPED_RULE}})
    tree.write(["rules", "transfer", "$from", "$to", "$key", "value"], {".rule": {"write": TRANSFER_RULE}})
    for address in (ALICE, BOB):
        tree.write(["values", "accounts", address], {"balance": 1_000, "nonce": 1})
    return tree


def microseconds(run: Callable[[], object], seconds: float) -> float:
    """Processor time of one run, from as many runs as fit into some seconds."""
    count = 1
    while True:
        start = time.process_time()
        for _ in range(count):
            run()
        spent = time.process_time() - start
        if spent >= seconds:
            return spent / count * 1e6
        count = max(count * 2, int(count * seconds / max(spent, 1e-6)))


def measure(seconds: float) -> dict[str, float]:
    """Every figure of this bench."""
    tree = example_state()
    variables = ["$from", "$to", "$key"]
    short = compile_rule(SHORT_RULE, ["$user_addr"])
    transfer = compile_rule(TRANSFER_RULE, variables)
    auth = Auth(ALICE)
    short_environment = RuleEnvironment(tree, auth, None, 5, CONTEXT, [], [ALICE])
    transfer_environment = RuleEnvironment(tree, auth, None, 5, CONTEXT, [], [ALICE, BOB, "1"])
    assert short.holds(short_environment) and transfer.holds(transfer_environment)
    transfer_path = ["transfer", ALICE, BOB, "1", "value"]
    assert eval_write_rule(tree, transfer_path, 5, auth, CONTEXT).is_allowed

    def evaluate_transfer() -> bool:
        transfer_environment.steps = 1_000_000
        return transfer.holds(transfer_environment)

    def evaluate_short() -> object:
        return short.closure(short_environment)

    return {
        "compile the short rule": microseconds(lambda: compile_rule(SHORT_RULE, ["$user_addr"]), seconds),
        "compile the transfer rule": microseconds(lambda: compile_rule(TRANSFER_RULE, variables), seconds),
        "evaluate the short rule": microseconds(evaluate_short, seconds),
        "evaluate the transfer rule": microseconds(evaluate_transfer, seconds),
        "match and judge a write, short rule": microseconds(
            lambda: eval_write_rule(tree, ["apps", "short", ALICE], 5, auth, CONTEXT), seconds
        ),
        "match and judge a write, typed rule": microseconds(
            lambda: eval_write_rule(tree, ["apps", "typed", ALICE], {"text": "a", "size": 1}, auth, CONTEXT),
            seconds,
        ),
        "match and judge a transfer": microseconds(
            lambda: eval_write_rule(tree, transfer_path, 5, auth, CONTEXT), seconds
        ),
        "match and judge a refused write": microseconds(
            lambda: eval_write_rule(tree, ["apps", "short", BOB], 5, auth, CONTEXT), seconds
        ),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--seconds", type=float, default=0.5, help="processor time for each figure")
    options = parser.parse_args()
    figures = measure(options.seconds)
    is_compiled = not str(compiler.__file__).endswith(".py")
    if options.json:
        print(
            json.dumps(
                {"python": platform.python_version(), "is_compiled": is_compiled, "microseconds": figures}
            )
        )
        return
    print(f"Python {platform.python_version()}, {'compiled' if is_compiled else 'plain'}")
    for name, figure in figures.items():
        print(f"{name:<40} {figure:9.2f} µs")


if __name__ == "__main__":
    main()
