"""Whether the rules let a value be written: the write rule, the state rule, and what garbage collection removes."""

from __future__ import annotations

from typing import Any, Final

from openresource.ledger.config_walk import RULE, ConfigMemo, Walk, visible_child, walk
from openresource.ledger.matching import rule_match, rule_match_lists, rule_subtree
from openresource.ledger.nodes import NOTHING, Branch
from openresource.ledger.owners import auth_json, eval_owner_json
from openresource.ledger.rules.compiler import CompiledRule
from openresource.ledger.rules.environment import Environment
from openresource.ledger.rules.errors import RuleExhausted, RuleThrow
from openresource.ledger.rules.lexer import is_identifier_name
from openresource.ledger.rules.meter import Meter
from openresource.ledger.rules.values import (
    NESTING_MAX,
    UNDEFINED,
    StateObject,
    array_items,
    keys_of,
    own_member,
)
from openresource.ledger.state import root_branch
from openresource.ledger.state_reader import StateReader
from openresource.ledger.verdicts import (
    ALLOWED,
    RULE_FALSE,
    RULE_SUBTREE_NOT_EMPTY,
    RULE_SYNTAX,
    RULE_THREW,
    STATE_RULE_FALSE,
    Auth,
    EvalContext,
    Verdict,
)
from openresource.ledger.views import find, in_property_order, plain
from openresource.primitives.encoding import js_json
from openresource.primitives.numbers import is_number, number_text
from openresource.primitives.paths import format_path, parse_path
from openresource.primitives.values import object_height, object_size, size_of

# A refusal quotes the data of a path only if it has at most so many nodes.
DATA_NODES_QUOTED_MAX: Final = 1_000
SUBTREE_PATHS_QUOTED_MAX: Final = 1_000


def eval_write_rule(
    state: StateReader, labels: list[str], new_value: Any, auth: Auth | None, context: EvalContext
) -> Verdict:
    """Whether somebody may write a value at a path below /values; None deletes."""
    return _evaluate(rule_walk(state, labels), state, labels, new_value, auth, context, None)


def rule_walk(state: StateReader, labels: list[str]) -> Walk:
    """The way of a path through the rules, for questions that follow one another."""
    return walk(root_branch(state, "rules"), labels, RULE)


def eval_write_rule_on(
    way: Walk, state: StateReader, labels: list[str], new_value: Any, auth: Auth | None, context: EvalContext
) -> Verdict:
    """`eval_write_rule` with the way at hand."""
    return _evaluate(way, state, labels, new_value, auth, context, None)


def eval_rule_json(
    state: StateReader, labels: list[str], new_value: Any, auth: Auth | None, context: EvalContext
) -> dict[str, Any]:
    """The answer of evalRule."""
    answer = eval_write_rule(state, labels, new_value, auth, context).to_json()
    answer["matched"] = rule_match_lists(rule_match(walk(root_branch(state, "rules"), labels, RULE), labels))
    return answer


def eval_state_rule(rule: Any, value: Any) -> bool:
    """Whether a value has the shape that a state rule asks for."""
    if not isinstance(rule, dict) or not rule:
        return True
    if not _is_within(rule, "max_bytes", size_of(value)):
        return False
    if not isinstance(value, dict):
        return True
    return (
        _is_within(rule, "max_children", len(value))
        and _is_within(rule, "max_height", object_height(value))
        and _is_within(rule, "max_size", object_size(value))
    )


def gc_targets(state: StateReader, labels: list[str]) -> list[list[str]]:
    """Full paths of the siblings that must go after a write at a path below /values, the oldest first."""
    return gc_targets_on(rule_walk(state, labels), state, labels)


def gc_targets_on(way: Walk, state: StateReader, labels: list[str]) -> list[list[str]]:
    """`gc_targets` with the way at hand, which the write must not have changed."""
    memo = way.state_memo
    rule = None if memo is None else memo.state
    if way.state_depth == 0 or not isinstance(rule, dict):
        return []
    most: Any = rule.get("gc_max_siblings")
    count: Any = rule.get("gc_num_siblings_deleted")
    if not is_number(most) or not is_number(count):
        return []
    values = root_branch(state, "values")
    parent = labels[: way.state_depth - 1]
    branch: object = NOTHING if values is None else find(values, parent)
    if not isinstance(branch, Branch) or branch.count <= most:
        return []
    return [["values", *parent, label] for label, _ in branch.children()[: int(count)]]


def _is_within(rule: dict[str, Any], name: str, amount: int) -> bool:
    limit: Any = rule.get(name)
    return not is_number(limit) or bool(amount <= limit)


class RuleEnvironment(Environment):
    """An evaluation over a version of the state."""

    __slots__ = ("_state", "_values")

    def __init__(
        self,
        state: StateReader,
        auth: Auth | None,
        data: object,
        new_data: object,
        context: EvalContext,
        labels: list[str],
        variables: list[str],
    ) -> None:
        super().__init__(auth, data, new_data, context, labels, variables)
        self._state: StateReader = state
        self._values: object = None

    def read(self, root: str, path: object) -> object:
        """What stands at a path below one of the four roots; null if nothing does."""
        labels = parse_path(path)
        self.spend(1 + len(labels))
        value = self._values
        if root != "values":
            value = root_branch(self._state, root)
        elif value is None:
            # Nothing is written while a rule is evaluated.
            value = root_branch(self._state, root)
            self._values = value
        for label in labels:
            if not isinstance(value, Branch):
                return None
            value = value.child(label)
        if isinstance(value, Branch):
            return TreeObject(value, self)
        return None if value is NOTHING else value

    def evaluate_rule(self, arguments: list[object]) -> object:
        """evalRule(path, value, auth, options)."""
        labels = parse_path(arguments[0])
        value = plain_of(arguments[1], self)
        context = _context_of(arguments[3], self.context)
        auth = _auth_of(arguments[2])
        way = rule_walk(self._state, labels)
        verdict = _evaluate(way, self._state, labels, value, auth, context, self)
        answer: dict[str, object] = dict(verdict.to_json())
        answer["matched"] = rule_match_lists(rule_match(way, labels))
        return answer

    def evaluate_owner(self, arguments: list[object]) -> object:
        """evalOwner(path, permission, auth, options)."""
        self.spend(50)
        permission = None if arguments[1] is UNDEFINED else arguments[1]
        is_merge = own_member(arguments[3], "isMerge") is True
        return eval_owner_json(
            self._state, parse_path(arguments[0]), permission, _auth_of(arguments[2]), is_merge
        )


class TreeObject(StateObject):
    """A branch of the state as a rule sees it; looking at it costs steps."""

    __slots__ = ("_meter", "branch")

    def __init__(self, branch: Branch, meter: Meter) -> None:
        self.branch: Branch = branch
        self._meter: Meter = meter

    def get(self, key: str) -> object:
        """The member, or UNDEFINED."""
        self._meter.spend(1)
        value = visible_child(self.branch, key)
        if value is NOTHING:
            return UNDEFINED
        return TreeObject(value, self._meter) if isinstance(value, Branch) else value

    def keys(self) -> list[str]:
        """The labels in JavaScript's order."""
        self._meter.spend(1 + self.branch.count)
        return [label for label, _ in in_property_order(self.branch)]

    def count(self) -> int:
        """How many children there are."""
        return self.branch.count


def plain_of(value: object, meter: Meter, depth: int = 0) -> Any:
    """A rule's value as a plain one that could be written; undefined becomes null."""
    meter.spend(1)
    if value is None or value is UNDEFINED:
        return None
    if isinstance(value, (str, int, float)):
        return value
    if depth > NESTING_MAX:
        raise RuleExhausted("the value is nested too deep")
    items = array_items(value)
    if items is not None:
        return [plain_of(item, meter, depth + 1) for item in items]
    return {key: plain_of(own_member(value, key), meter, depth + 1) for key in keys_of(value)}


def _auth_of(value: object) -> Auth | None:
    """Who asks, as a rule names them to evalRule and evalOwner."""
    if value is None or value is UNDEFINED:
        return None
    address = own_member(value, "addr")
    function_id = own_member(value, "fid")
    items = array_items(own_member(value, "fids"))
    return Auth(
        address if isinstance(address, str) else None,
        function_id if isinstance(function_id, str) else None,
        None if items is None else tuple([item for item in items if isinstance(item, str)]),
    )


def _context_of(options: object, outer: EvalContext) -> EvalContext:
    """The times that evalRule's options name; what they leave out is missing inside."""
    times = [own_member(options, name) for name in ("timestamp", "blockNumber", "blockTime")]
    found: list[float | int | None] = [
        time if isinstance(time, (int, float)) and not isinstance(time, bool) else None for time in times
    ]
    return EvalContext(found[0], found[1], found[2], outer.lower_case_names_from)


def _evaluate(
    way: Walk,
    state: StateReader,
    labels: list[str],
    new_value: Any,
    auth: Auth | None,
    context: EvalContext,
    outer: RuleEnvironment | None,
) -> Verdict:
    subtree = rule_subtree(way, labels)
    if subtree:
        paths = js_json([format_path(below.labels) for below in subtree[:SUBTREE_PATHS_QUOTED_MAX]])
        message = f"Non-empty ({len(subtree)}) subtree rules for value path '{format_path(labels)}'': {paths}"
        return Verdict(RULE_SUBTREE_NOT_EMPTY, message)
    memo = way.write_memo
    if memo is None:
        return _false(state, way, labels, new_value, auth, context)
    rule = memo.write
    if isinstance(rule, str):
        verdict = _write_rule(memo, way, state, labels, new_value, auth, context, outer)
        if verdict is not None:
            return verdict
    elif rule is not True:
        return _false(state, way, labels, new_value, auth, context)
    shape = way.state_memo
    if shape is not None and not eval_state_rule(shape.state, new_value):
        place = format_path(way.target_labels(labels)[: way.state_depth])
        message = (
            f"State rule evaluated false: [{js_json(shape.state)}] at '{place}' for value path "
            f"'{format_path(labels)}' with newValue '{js_json(new_value)}'"
        )
        return Verdict(STATE_RULE_FALSE, message)
    return ALLOWED


def _write_rule(
    memo: ConfigMemo,
    way: Walk,
    state: StateReader,
    labels: list[str],
    new_value: Any,
    auth: Auth | None,
    context: EvalContext,
    outer: RuleEnvironment | None,
) -> Verdict | None:
    """The verdict of a rule that is an expression; None if it holds."""
    compiled: CompiledRule | None = memo.rule()
    if compiled is None or _has_foreign_name(way):
        error = memo.error or "Invalid variable name"
        return Verdict(RULE_SYNTAX, f'Rule syntax error: "{error}" in write rule: [{memo.write}]')
    data: object = None
    new_data: object = new_value
    extra = labels[way.write_depth : way.depth]
    for label in reversed(extra):
        new_data = {label: new_data}
    environment = RuleEnvironment(state, auth, data, new_data, context, labels, way.values)
    if compiled.uses_data:
        environment.data = _wrapped_data(state, labels, extra, environment)
    try:
        if outer is None:
            environment.height_left -= compiled.height
            holds = compiled.holds(environment)
        else:
            holds = _holds_inside(compiled, environment, outer)
    except RuleThrow:
        return Verdict(RULE_THREW, "Internal error: {}")
    return None if holds else _false(state, way, labels, new_value, auth, context)


def _holds_inside(compiled: CompiledRule, environment: RuleEnvironment, outer: RuleEnvironment) -> bool:
    """Evaluates for another rule, which pays the steps."""
    environment.height_left = outer.height_left - compiled.height
    if environment.height_left < 0:
        raise RuleExhausted("evalRule is nested too deep")
    environment.steps = outer.steps
    try:
        return compiled.holds(environment)
    finally:
        outer.steps = environment.steps


def _has_foreign_name(way: Walk) -> bool:
    """Whether a variable on the way, also behind the rule, is no JavaScript name."""
    memo = way.end_memo
    if memo is not None:
        return memo.has_foreign_name
    if not way.names:
        return False
    closest = way.write_memo
    if closest is not None and closest.names == way.names:
        return closest.has_foreign_name
    return any(not is_identifier_name(name) for name in way.names)


def _wrapped_data(state: StateReader, labels: list[str], extra: list[str], meter: Meter) -> object:
    """data: the value before, wrapped along the labels between the rule and the end of the match."""
    value = _value_at(state, labels)
    data: object = (
        TreeObject(value, meter) if isinstance(value, Branch) else (None if value is NOTHING else value)
    )
    for label in reversed(extra):
        data = {label: data}
    return data


def _value_at(state: StateReader, labels: list[str]) -> object:
    values = root_branch(state, "values")
    return NOTHING if values is None else find(values, labels)


def _false(
    state: StateReader, way: Walk, labels: list[str], new_value: Any, auth: Auth | None, context: EvalContext
) -> Verdict:
    memo = way.write_memo
    rule = None if memo is None else memo.write
    shown = "" if rule is None else (rule if isinstance(rule, str) else js_json(rule))
    target = way.target_labels(labels)
    value = _value_at(state, labels)
    if isinstance(value, Branch) and value.size > DATA_NODES_QUOTED_MAX:
        quoted: Any = f"… ({value.size} nodes)"
    else:
        quoted = plain(value)
    new_data: Any = new_value
    for label in reversed(labels[way.write_depth : way.depth]):
        quoted = {label: quoted}
        new_data = {label: new_data}
    time = "null" if context.timestamp is None else number_text(context.timestamp)
    message = (
        f"Write rule evaluated false: [{shown}] at '{format_path(target[: way.write_depth])}' for value path "
        f"'{format_path(labels)}' with path vars '{js_json(way.variables())}', data '{js_json(quoted)}', "
        f"newData '{js_json(new_data)}', auth '{auth_json(auth)}', timestamp '{time}'"
    )
    return Verdict(RULE_FALSE, message)
