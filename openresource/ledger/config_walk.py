"""Walks along a path through the trees of rules and functions, remembering on their branches what was found there.

A memo hangs on the branch it was made from. Whatever changes below a branch replaces or clears its memo, so a memo is
as good as a fresh look.
"""

from __future__ import annotations

from typing import Any, Final

from openresource.ledger.nodes import NOTHING, Branch, Node, radix_label
from openresource.ledger.rules.compiler import CompiledRule, compile_rule
from openresource.ledger.rules.errors import RuleSyntaxError
from openresource.ledger.rules.lexer import is_identifier_name
from openresource.ledger.views import plain

RULE: Final = ".rule"
FUNCTION: Final = ".function"
OWNER: Final = ".owner"
WRITE: Final = "write"
STATE: Final = "state"

LITERALS_MAX: Final = 32

# Where labels that start with a dollar sign are filed.
_VARIABLES_KEY: Final = "24"


class SubtreeConfig:
    """A config below a matched node; labels are relative to that node."""

    __slots__ = ("config", "labels")

    def __init__(self, labels: list[str], config: Any) -> None:
        self.labels: list[str] = labels
        self.config: Any = config


class ConfigMemo:
    """What one branch of the rules or functions says: its config, its variable child, the configs below it."""

    __slots__ = (
        "compiled",
        "config",
        "error",
        "has_config",
        "has_foreign_name",
        "has_state",
        "has_write",
        "is_compiled",
        "literals",
        "names",
        "state",
        "subtree",
        "variable_child",
        "variable_label",
        "variable_names",
        "write",
    )

    def __init__(self, branch: Branch, kind: str, names: tuple[str, ...]) -> None:
        # The variables on the way from the root to here.
        self.names: tuple[str, ...] = names
        self.has_foreign_name: bool = not all(is_identifier_name(name) for name in names)
        found = branch.child(kind)
        self.has_config: bool = found is not NOTHING
        config: Any = plain(found)
        self.config: Any = config
        # A null that is stored counts as being there.
        self.has_write: bool = isinstance(config, dict) and WRITE in config
        self.write: Any = config[WRITE] if self.has_write else None
        self.has_state: bool = isinstance(config, dict) and STATE in config
        self.state: Any = config[STATE] if self.has_state else None
        self.variable_label: str = ""
        self.variable_child: object = NOTHING
        self.variable_names: tuple[str, ...] = names
        # The children by radix label where they are few: one look into a dict instead of a way through the tree.
        self.literals: dict[str, object] | None = None
        if branch.count <= LITERALS_MAX:
            self.literals = {radix_label(child_label): child for child_label, child in branch.children()}
        variable = first_variable(branch)
        if variable is not None:
            self.variable_label = variable.label
            self.variable_child = variable.value
            self.variable_names = (*names, variable.label)
        self.subtree: list[SubtreeConfig] | None = None
        self.is_compiled: bool = False
        self.compiled: CompiledRule | None = None
        self.error: str = ""

    def rule(self) -> CompiledRule | None:
        """The compiled write rule; None if its text is no rule, and then `error` says why."""
        if not self.is_compiled:
            self.is_compiled = True
            try:
                self.compiled = compile_rule(self.write, list(self.names))
            except RuleSyntaxError as error:
                self.error = str(error)
        return self.compiled


class Walk:
    """How far a path could be matched, and the closest configs on the way."""

    __slots__ = (
        "depth",
        "end",
        "end_memo",
        "names",
        "state_depth",
        "state_memo",
        "values",
        "variable_depths",
        "write_count",
        "write_depth",
        "write_memo",
    )

    def __init__(self) -> None:
        self.depth: int = 0
        # What lies at the end of the way: a branch, a leaf's value, or NOTHING.
        self.end: object = NOTHING
        self.end_memo: ConfigMemo | None = None
        self.names: tuple[str, ...] = ()
        self.values: list[str] = []
        self.variable_depths: list[int] = []
        self.write_memo: ConfigMemo | None = None
        self.write_depth: int = 0
        # How many variables are bound where the write rule stands.
        self.write_count: int = 0
        self.state_memo: ConfigMemo | None = None
        self.state_depth: int = 0

    def target_labels(self, labels: list[str]) -> list[str]:
        """The labels taken in the config's tree."""
        taken = list(labels[: self.depth])
        for position, depth in enumerate(self.variable_depths):
            taken[depth] = self.names[position]
        return taken

    def variables(self) -> dict[str, str]:
        """The bound variables, deepest first."""
        bound: dict[str, str] = {}
        for position in range(len(self.values) - 1, -1, -1):
            bound[self.names[position]] = self.values[position]
        return bound


def walk(root: Branch | None, labels: list[str], kind: str) -> Walk:
    """Follows a value's path: at each node the literal child if there is one, else the variable child."""
    result = Walk()
    if root is None:
        return result
    branch: Branch = root
    memo = memo_of(branch, kind, ())
    depth = 0
    while True:
        if memo.has_write:
            result.write_memo = memo
            result.write_depth = depth
            result.write_count = len(result.values)
        if memo.has_state:
            result.state_memo = memo
            result.state_depth = depth
        result.depth = depth
        if depth == len(labels):
            result.end = branch
            result.end_memo = memo
            return result
        label = labels[depth]
        names = memo.names
        literals = memo.literals
        child = branch.child(label) if literals is None else literals.get(radix_label(label), NOTHING)
        if child is NOTHING:
            child = memo.variable_child
            if child is NOTHING:
                return result
            names = memo.variable_names
            result.names = names
            result.values.append(label)
            result.variable_depths.append(depth)
        depth += 1
        if not isinstance(child, Branch):
            result.depth = depth
            result.end = child if depth == len(labels) else NOTHING
            return result
        branch = child
        memo = memo_of(branch, kind, names)


def memo_of(branch: Branch, kind: str, names: tuple[str, ...]) -> ConfigMemo:
    """What a branch says, remembered on it."""
    memo = branch.memo
    if isinstance(memo, ConfigMemo) and (memo.names is names or memo.names == names):
        return memo
    made = ConfigMemo(branch, kind, names)
    branch.memo = made
    return made


def first_variable(branch: Branch) -> Node | None:
    """The holder of the variable child, the first of them in child order."""
    node: Node = branch
    at = 0
    while at < len(_VARIABLES_KEY):
        kid = node.kids.get(_VARIABLES_KEY[at])
        if kid is None:
            return None
        if not kid.edge.startswith(_VARIABLES_KEY[at:]) and not _VARIABLES_KEY.startswith(kid.edge, at):
            return None
        at += len(kid.edge)
        node = kid.node()
    first: Node | None = None
    waiting: list[Node] = [node]
    while waiting:
        holder = waiting.pop()
        is_variable = holder.value is not NOTHING and holder.label.startswith("$")
        if is_variable and (first is None or holder.serial < first.serial):
            first = holder
        for below in holder.kids.values():
            waiting.append(below.node())
    return first


def subtree_of(branch: Branch, memo: ConfigMemo, kind: str) -> list[SubtreeConfig]:
    """The configs strictly below a branch: parents first, other children before the variable one."""
    found = memo.subtree
    if found is None:
        found = []
        _collect(branch, kind, [], found)
        memo.subtree = found
    return found


def _collect(branch: Branch, kind: str, path: list[str], found: list[SubtreeConfig]) -> None:
    variable = first_variable(branch) if kind != OWNER else None
    variable_label = "" if variable is None else variable.label
    for label, child in branch.children():
        if label != kind and label != variable_label and isinstance(child, Branch):
            _collect_child(child, kind, [*path, label], found)
    if variable is not None:
        below = variable.value
        if isinstance(below, Branch):
            _collect_child(below, kind, [*path, variable_label], found)


def _collect_child(child: Branch, kind: str, path: list[str], found: list[SubtreeConfig]) -> None:
    value = child.child(kind)
    if value is not NOTHING:
        has_write = isinstance(value, Branch) and value.child(WRITE) is not NOTHING
        if kind != RULE or has_write:
            found.append(SubtreeConfig(path, plain(value)))
    _collect(child, kind, path, found)


def visible_child(branch: Branch, label: str) -> object:
    """The child that shows exactly this label; `child` also finds one that is filed in the same place."""
    key = radix_label(label)
    node: Node = branch
    at = 0
    while at < len(key):
        kid = node.kids.get(key[at])
        if kid is None or key[at : at + len(kid.edge)] != kid.edge:
            return NOTHING
        at += len(kid.edge)
        node = kid.node()
    return node.value if node.label == label else NOTHING
