"""Single operations: the checks of a write in their order, the write, and what it sets off."""

from __future__ import annotations

from typing import Any, Final

from openresource.ledger.calls import PROGRAM, Calls, refusal_result
from openresource.ledger.config_trees import (
    apply_function_change,
    apply_owner_change,
    apply_rule_change,
    check_function_tree,
    check_owner_tree,
    check_rule_tree,
)
from openresource.ledger.context import TxContext
from openresource.ledger.draft import BY_NATIVE, BY_USER, Change
from openresource.ledger.functions import triggers_of
from openresource.ledger.matching import NO_FUNCTIONS, match_function
from openresource.ledger.nodes import NOTHING, Branch
from openresource.ledger.owners import WRITE_FUNCTION, WRITE_OWNER, WRITE_RULE, eval_owner
from openresource.ledger.results import (
    DEC_VALUE_NOT_A_NUMBER,
    INC_VALUE_NOT_A_NUMBER,
    SET_FUNCTION_INVALID_PATH,
    SET_FUNCTION_INVALID_TREE,
    SET_FUNCTION_INVALID_VALUE,
    SET_FUNCTION_OWNER_ONLY,
    SET_OWNER_INVALID_PATH,
    SET_OWNER_INVALID_TREE,
    SET_OWNER_INVALID_VALUE,
    SET_RULE_INVALID_PATH,
    SET_RULE_INVALID_TREE,
    SET_RULE_INVALID_VALUE,
    SET_VALUE_INVALID_PATH,
    SET_VALUE_INVALID_VALUE,
    SET_VALUE_NOT_WRITABLE,
    SUCCESS,
    UNKNOWN_OPERATION,
    Result,
)
from openresource.ledger.rule_evaluation import eval_write_rule_on, gc_targets, gc_targets_on, rule_walk
from openresource.ledger.state import VALUES
from openresource.ledger.transactions import (
    DEC_VALUE,
    INC_VALUE,
    SET_FUNCTION,
    SET_OWNER,
    SET_RULE,
    SET_VALUE,
)
from openresource.ledger.verdicts import Auth, Verdict
from openresource.primitives.errors import Refusal
from openresource.primitives.numbers import is_number, number_text, to_double
from openresource.primitives.paths import (
    ambiguous_prefix,
    format_path,
    invalid_prefix,
    is_ambiguous,
    parse_path,
    valid_label,
)
from openresource.primitives.values import valid_value

SHARD: Final = ".shard"
# The value of an operation that has none; the tree cannot hold it, so every check of values refuses it.
MISSING: Final = object()
FUNCTION: Final = ".function"
VALID_LABELS_KEPT_MAX: Final = 20_000
# Natives that anybody may bind to a path of theirs.
OPEN_NATIVES: Final = frozenset(
    ("_saveLastTx", "_eraseValue", "_fail", "_setOwnerConfig", "_updateLatestShardReport")
)


class Operations:
    """The operations of one chain; natives that write through operations come back in here."""

    def __init__(self) -> None:
        self._calls: Calls = Calls(self)
        # Labels that were found valid under a limit; they recur all the time.
        self._valid_labels: set[str] = set()
        self._valid_labels_limit: int = 0

    def run(self, operation: dict[str, Any], labels: list[str], auth: Auth, context: TxContext) -> Result:
        """One single operation of a transaction, at the labels of its path."""
        kind: Any = operation.get("type", SET_VALUE)
        value: Any = operation.get("value", MISSING)
        is_global = operation.get("is_global") is True
        if kind == SET_VALUE:
            return self.set_value(labels, value, auth, context, is_global)
        if kind == INC_VALUE:
            return self.add_value(labels, value, 1, auth, context, is_global)
        if kind == DEC_VALUE:
            return self.add_value(labels, value, -1, auth, context, is_global)
        if kind == SET_RULE:
            return self.set_rule(labels, value, auth, context, is_global)
        if kind == SET_FUNCTION:
            return self.set_function(labels, value, auth, context, is_global)
        if kind == SET_OWNER:
            return self.set_owner(labels, value, auth, context, is_global)
        return refused(UNKNOWN_OPERATION, f"Invalid operation type: {kind}", context.limits.unit_gas)

    def set_value(
        self, labels: list[str], value: Any, auth: Auth, context: TxContext, is_global: bool = False
    ) -> Result:
        """SET_VALUE: path, value, rules, write, functions, garbage collection."""
        # A write may change the limits; for itself those of before hold.
        limits = context.limits
        unit, limit = limits.unit_gas, limits.label_length_max
        is_strict = context.network.profile.labels_have_one_spelling
        if not self._are_valid(labels, limit, is_strict):
            invalid = invalid_prefix(labels, limit) or ambiguous_prefix(labels)
            return refused(SET_VALUE_INVALID_PATH, f"Invalid value path: {invalid}", unit)
        invalid = None if isinstance(value, str) else valid_value(value, limit)
        if invalid is not None:
            return refused(SET_VALUE_INVALID_VALUE, f"Invalid object for states: {invalid}", unit)
        if is_global:
            local = local_labels(labels, context)
            if local is None:
                return succeeded(unit)
            labels = local
        state = context.state
        way = rule_walk(state, labels)
        verdict = eval_write_rule_on(way, state, labels, value, auth, context.evaluation)
        if verdict.code != SUCCESS:
            return refused(verdict.code, verdict.message, unit)
        if context.network.profile.has_shards:
            closed = closed_path(context, labels)
            if closed is not None:
                if is_global:
                    return succeeded(unit)
                message = f"Non-writable path with shard config: {closed}"
                return refused(SET_VALUE_NOT_WRITABLE, message, unit)
        match = match_function(state, labels) if auth.addr or auth.fid else NO_FUNCTIONS
        observer = context.observer
        previous: Any = state.read_value(labels) if match.has_functions or observer is not None else None
        state.write_value(labels, value)
        context.changes.append(Change(("values", *labels), value, BY_USER if auth.fid is None else BY_NATIVE))
        if not match.has_functions:
            result = succeeded(unit)
            if value is not None and way.state_depth > 0:
                delete_all(gc_targets_on(way, state, labels), context)
            if observer is not None:
                observer(auth, labels, previous, value)
            return result
        config_writes = state.config_writes
        result = self._calls.run_all(triggers_of(match, labels, value, previous), unit, auth, context)
        if value is not None and result["code"] == SUCCESS:
            if state.config_writes != config_writes:
                # A function has changed the rules.
                collect_garbage(labels, context)
            elif way.state_depth > 0:
                delete_all(gc_targets_on(way, state, labels), context)
        if observer is not None and result["code"] == SUCCESS:
            observer(auth, labels, previous, value)
        return result

    def _are_valid(self, labels: list[str], limit: int, is_strict: bool) -> bool:
        known = self._valid_labels
        if limit != self._valid_labels_limit or len(known) > VALID_LABELS_KEPT_MAX:
            known.clear()
            self._valid_labels_limit = limit
        for label in labels:
            if label not in known:
                if not valid_label(label, limit) or (is_strict and is_ambiguous(label)):
                    return False
                known.add(label)
        return True

    def add_value(
        self,
        labels: list[str],
        delta: Any,
        sign: int,
        auth: Auth,
        context: TxContext,
        is_global: bool = False,
    ) -> Result:
        """INC_VALUE and DEC_VALUE: the sum in doubles, written as SET_VALUE writes."""
        local = local_labels(labels, context) if is_global else labels
        current = None if local is None else context.state.read_value(local)
        if not (current is None or is_number(current)) or not is_number(delta):
            code = INC_VALUE_NOT_A_NUMBER if sign > 0 else DEC_VALUE_NOT_A_NUMBER
            return refused(
                code, f"Not a number type: {js_text(current)} or {js_text(delta)}", context.limits.unit_gas
            )
        total: Any = float(current or 0) + sign * float(delta)
        return self.set_value(labels, to_double(total), auth, context, is_global)

    def set_rule(
        self, labels: list[str], value: Any, auth: Auth, context: TxContext, is_global: bool = False
    ) -> Result:
        """SET_RULE: value, path, tree, owners, merge, write."""
        limits = context.limits
        unit, limit = limits.unit_gas, limits.label_length_max
        invalid = valid_value(value, limit)
        if invalid is not None:
            return refused(SET_RULE_INVALID_VALUE, f"Invalid object for states: {invalid}", unit)
        invalid = invalid_prefix(labels, limit)
        if invalid is not None:
            return refused(SET_RULE_INVALID_PATH, f"Invalid rule path: {invalid}", unit)
        invalid = check_rule_tree(labels, value, context.parameter("resource", "min_gc_num_siblings_deleted"))
        if invalid is not None:
            return refused(SET_RULE_INVALID_TREE, f"Invalid rule tree: {invalid}", unit)
        local = local_labels(labels, context) if is_global else labels
        if local is None:
            return succeeded(unit)
        changed = apply_rule_change(context.state.get(["rules", *local]), value)
        verdict = eval_owner(context.state, local, WRITE_RULE, auth, changed.is_merge)
        return self._write_config("rules", local, changed.value, verdict, unit, auth, context)

    def set_function(
        self, labels: list[str], value: Any, auth: Auth, context: TxContext, is_global: bool = False
    ) -> Result:
        """SET_FUNCTION: value, path, tree, who may name which native, owners, merge, write."""
        limits = context.limits
        unit, limit = limits.unit_gas, limits.label_length_max
        invalid = valid_value(value, limit)
        if invalid is not None:
            return refused(SET_FUNCTION_INVALID_VALUE, f"Invalid object for states: {invalid}", unit)
        invalid = invalid_prefix(labels, limit)
        if invalid is not None:
            return refused(SET_FUNCTION_INVALID_PATH, f"Invalid function path: {invalid}", unit)
        invalid = check_function_tree(labels, value, context.network.profile.has_programs)
        if invalid is not None:
            return refused(SET_FUNCTION_INVALID_TREE, f"Invalid function tree: {invalid}", unit)
        owner_only = owner_only_function(value, context)
        if owner_only is not None and not is_chain_admin(auth, context):
            message = f"Trying to write owner-only function: {owner_only}"
            return refused(SET_FUNCTION_OWNER_ONLY, message, unit)
        local = local_labels(labels, context) if is_global else labels
        if local is None:
            return succeeded(unit)
        refusal = check_programs(local, value, auth, context)
        if refusal is not None:
            return refusal
        changed = apply_function_change(context.state.get(["functions", *local]), value)
        verdict = eval_owner(context.state, local, WRITE_FUNCTION, auth, changed.is_merge)
        return self._write_config("functions", local, changed.value, verdict, unit, auth, context)

    def set_owner(
        self, labels: list[str], value: Any, auth: Auth, context: TxContext, is_global: bool = False
    ) -> Result:
        """SET_OWNER: value, path, tree, owners, merge, write."""
        limits = context.limits
        unit, limit = limits.unit_gas, limits.label_length_max
        invalid = valid_value(value, limit)
        if invalid is not None:
            return refused(SET_OWNER_INVALID_VALUE, f"Invalid object for states: {invalid}", unit)
        invalid = invalid_prefix(labels, limit)
        if invalid is not None:
            return refused(SET_OWNER_INVALID_PATH, f"Invalid owner path: {invalid}", unit)
        invalid = check_owner_tree(labels, value, context.network.kernel_natives)
        if invalid is not None:
            return refused(SET_OWNER_INVALID_TREE, f"Invalid owner tree: {invalid}", unit)
        local = local_labels(labels, context) if is_global else labels
        if local is None:
            return succeeded(unit)
        changed = apply_owner_change(context.state.get(["owners", *local]), value)
        verdict = eval_owner(context.state, local, WRITE_OWNER, auth, changed.is_merge)
        return self._write_config("owners", local, changed.value, verdict, unit, auth, context)

    def _write_config(
        self,
        root: str,
        labels: list[str],
        value: Any,
        verdict: Verdict,
        unit: Any,
        auth: Auth,
        context: TxContext,
    ) -> Result:
        if verdict.code != SUCCESS:
            return refused(verdict.code, verdict.message, unit)
        context.state.write([root, *labels], value)
        context.changes.append(Change((root, *labels), value, BY_USER if auth.fid is None else BY_NATIVE))
        return succeeded(unit)


def collect_garbage(labels: list[str], context: TxContext) -> None:
    """Deletes the oldest siblings where a state rule says that there are too many."""
    delete_all(gc_targets(context.state, labels), context)


def delete_all(targets: list[list[str]], context: TxContext) -> None:
    """Deletes what garbage collection found, without rules, functions or gas."""
    for target in targets:
        context.state.write(target, None)


def local_labels(labels: list[str], context: TxContext) -> list[str] | None:
    """A global path on this chain; None if it belongs to another one."""
    shard = parse_path(context.network.configured("sharding", "sharding_path"))
    return labels[len(shard) :] if labels[: len(shard)] == shard else None


def closed_path(context: TxContext, labels: list[str]) -> str | None:
    """The path at which a write meets a subtree that moved to a shard; None if it meets none."""
    node: object = context.state.branch(VALUES)
    depth = 0
    while isinstance(node, Branch):
        is_end = depth == len(labels)
        if (is_end or labels[depth] != SHARD) and is_closed(node):
            return format_path([VALUES, *labels[:depth]])
        if is_end:
            return None
        node = node.child(labels[depth])
        depth += 1
    return None


def is_closed(branch: Branch) -> bool:
    """Whether a subtree has moved to a shard."""
    # Every label that starts with a point is filed under the digit 2; most branches have none of those.
    if "2" not in branch.kids:
        return False
    shard = branch.child(SHARD)
    return isinstance(shard, Branch) and shard.child("sharding_enabled") is True


def is_chain_admin(auth: Auth, context: TxContext) -> bool:
    """Whether the signer administers the chain; before anybody does, the genesis account."""
    admins = context.state.value_node(("manage_app", "consensus", "config", "admin"))
    if admins is NOTHING:
        return auth.addr is not None and auth.addr == context.network.configured("genesis", "genesis_addr")
    return isinstance(admins, Branch) and auth.addr is not None and admins.child(auth.addr) is True


def owner_only_function(tree: Any, context: TxContext) -> str | None:
    """The first native in a tree of functions that only an administrator of the chain may bind to a path."""
    if not isinstance(tree, dict):
        return None
    for label, below in tree.items():
        if label != FUNCTION:
            found = owner_only_function(below, context)
            if found is not None:
                return found
        elif isinstance(below, dict):
            for function_id in below:
                is_native = (
                    function_id in context.network.kernel_natives or function_id in context.network.natives
                )
                if is_native and function_id not in OPEN_NATIVES:
                    return str(function_id)
    return None


def check_programs(labels: list[str], tree: Any, auth: Auth, context: TxContext) -> Result | None:
    """The refusal of the first PROGRAM entry in a tree of functions that may not stand there."""
    hook = context.network.programs
    if hook is None or not isinstance(tree, dict):
        return None
    for label, below in tree.items():
        if label != FUNCTION:
            refusal = check_programs([*labels, label], below, auth, context)
            if refusal is not None:
                return refusal
        elif isinstance(below, dict):
            for entry in below.values():
                if isinstance(entry, dict) and entry.get("function_type") == PROGRAM:
                    try:
                        hook.check(entry, labels, auth.addr or "", context)
                    except Refusal as error:
                        return refusal_result(error, context)
    return None


def succeeded(unit: Any) -> Result:
    """The result of an operation that went well."""
    return {"code": SUCCESS, "bandwidth_gas_amount": unit}


def refused(code: int, message: str, unit: Any) -> Result:
    """The result of an operation that did not happen."""
    if not message:
        return {"code": code, "bandwidth_gas_amount": unit}
    return {"message": message, "code": code, "bandwidth_gas_amount": unit}


def js_text(value: Any) -> str:
    """A value as JavaScript's string conversion shows it."""
    if value is None:
        return "null"
    if value is MISSING:
        return "undefined"
    if isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (int, float)):
        return number_text(value)
    if isinstance(value, list):
        return ",".join("" if item is None else js_text(item) for item in value)
    return "[object Object]"
