"""Functions that a write sets off: natives of the kernel, natives with a draft, programs, and REST entries."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from openresource.ledger.context import TxContext
from openresource.ledger.draft import Change, Draft, Native, NativeCall
from openresource.ledger.functions import Trigger, Triggers, triggered_functions
from openresource.ledger.nodes import NOTHING
from openresource.ledger.results import (
    FUNCTION_FAILED,
    FUNCTION_SKIPPED,
    FUNCTION_SUCCESS,
    NATIVE_THREW,
    REFUSED,
    SUBTREE_FUNCTION_FAILED,
    SUCCESS,
    Result,
    own_function_has_failed,
)
from openresource.ledger.state import APPS
from openresource.ledger.urls import is_whitelisted
from openresource.ledger.verdicts import Auth
from openresource.primitives.encoding import property_order
from openresource.primitives.errors import Refusal
from openresource.primitives.paths import format_path

if TYPE_CHECKING:
    from openresource.ledger.operations import Operations

NATIVE: Final = "NATIVE"
REST: Final = "REST"
PROGRAM: Final = "PROGRAM"


# All other natives of the kernel do nothing when a value is deleted.
ACTS_ON_DELETION: Final = frozenset(("_cancelCheckin",))


class FunctionCall:
    """A running native of the kernel: what it was called with, and the writes that it makes through operations."""

    __slots__ = (
        "_operations",
        "auth",
        "context",
        "extra_gas",
        "labels",
        "op_results",
        "params",
        "previous",
        "value",
    )

    def __init__(
        self,
        operations: Operations,
        context: TxContext,
        auth: Auth,
        labels: list[str],
        value: Any,
        previous: Any,
        params: dict[str, str],
    ) -> None:
        self._operations: Operations = operations
        self.context: TxContext = context
        self.auth: Auth = auth
        self.labels: list[str] = labels
        self.value: Any = value
        self.previous: Any = previous
        self.params: dict[str, str] = params
        self.op_results: dict[str, Any] = {}
        self.extra_gas: Any = 0

    def get(self, *labels: str) -> Any:
        """A value of the working state."""
        return self.context.state.read_value(labels)

    def number(self, *labels: str) -> float | int:
        """A number of the working state; 0 if there is none."""
        value = self.context.state.read_value(labels)
        return value if isinstance(value, (int, float)) and not isinstance(value, bool) else 0

    def has(self, *labels: str) -> bool:
        """Whether there is anything at labels."""
        found = self.context.state.value_node(labels)
        return not (found is NOTHING or found is None)

    def set_value(self, labels: list[str], value: Any) -> bool:
        """Writes as this function; whether that went well."""
        return self._record(labels, self._operations.set_value(labels, value, self.auth, self.context))

    def add_value(self, labels: list[str], delta: Any, sign: int = 1) -> bool:
        """Adds to a number as this function; whether that went well."""
        return self._record(labels, self._operations.add_value(labels, delta, sign, self.auth, self.context))

    def set_rule(self, labels: list[str], value: Any) -> bool:
        """Writes a rule as this function; whether that went well."""
        return self._record(labels, self._operations.set_rule(labels, value, self.auth, self.context))

    def set_owner(self, labels: list[str], value: Any) -> bool:
        """Writes an owner as this function; whether that went well."""
        return self._record(labels, self._operations.set_owner(labels, value, self.auth, self.context))

    def transfer(self, source: str, target: str, amount: Any) -> bool:
        """Asks for a transfer, keyed by the transaction's time; whether that went well."""
        key = format_path([self.context.timestamp])[1:]
        return self.set_value(["transfer", source, target, key, "value"], amount)

    def _record(self, labels: list[str], result: Result) -> bool:
        self.op_results[str(len(self.op_results))] = {"path": format_path(labels), "result": result}
        return bool(result["code"] == SUCCESS)


class Calls:
    """Calls what a write triggered, in order, and gathers the results."""

    def __init__(self, operations: Operations) -> None:
        self._operations: Operations = operations

    def run_all(self, triggers: Triggers, unit: Any, auth: Auth, context: TxContext) -> Result:
        """Everything that a write sets off; the result of the operation that wrote, which costs `unit` of gas."""
        func_results: dict[str, Any] = {}
        subtree_results: dict[str, Any] = {}
        if triggers.exact is not None:
            func_results = self.run_config(triggers.exact, auth, context)
        for subtree in triggers.subtrees:
            by_path: dict[str, Any] = {}
            subtree_results[subtree.key] = by_path
            for trigger in subtree.triggers:
                by_path[trigger.value_path] = {"func_results": self.run_config(trigger, auth, context)}
        return outcome(func_results, subtree_results, unit)

    def run_config(self, trigger: Trigger, auth: Auth, context: TxContext) -> dict[str, Any]:
        """The functions of one config, in JavaScript's order of keys; a failure keeps the rest from running."""
        results: dict[str, Any] = {}
        config = trigger.config
        for function_id in property_order(config):
            entry: Any = config[function_id]
            kind: Any = entry.get("function_type") if isinstance(entry, dict) else None
            result: Result | None = None
            if kind == NATIVE:
                name: Any = entry.get("function_id")
                if auth.fid == name or (auth.fids is not None and name in auth.fids):
                    continue
                if name in context.network.natives:
                    native = context.network.natives[name]
                    result = self._run_draft(native, trigger, context)
                elif name in context.network.kernel_natives:
                    result = self._run_kernel(name, trigger, auth, context)
                    if result is None:
                        break
            elif kind == REST:
                result = rest_result(entry, context)
                if result is not None and context.rest is not None:
                    context.rest(entry, trigger, auth, context)
                    result["code"] = FUNCTION_SUCCESS
            elif kind == PROGRAM and context.network.profile.has_programs:
                result = self._run_program(entry, trigger, context)
            if result is not None:
                results[function_id] = result
                if own_function_has_failed(result):
                    break
        return results

    def _run_kernel(
        self,
        name: str,
        trigger: Trigger,
        auth: Auth,
        context: TxContext,
    ) -> Result | None:
        """A native of the kernel; None if it threw and this chain swallows that."""
        fids = (*(auth.fids or ()), name)
        call = FunctionCall(
            self._operations,
            context,
            Auth(auth.addr, name, fids),
            trigger.labels,
            trigger.value,
            trigger.previous,
            trigger.params,
        )
        code = FUNCTION_SUCCESS
        if trigger.value is not None or name in ACTS_ON_DELETION:
            try:
                code = context.network.kernel_natives[name](call)
            except Exception as error:
                # Whatever went wrong went wrong on every node: it is an outcome, not a reason to stop.
                if context.network.profile.native_exceptions_are_swallowed:
                    return None
                return exception_result(name, error, context)
        result: Result = {}
        if call.op_results:
            result["op_results"] = call.op_results
        result["code"] = code
        result["bandwidth_gas_amount"] = call.extra_gas
        return result

    def _run_draft(
        self,
        native: Native,
        trigger: Trigger,
        context: TxContext,
    ) -> Result:
        """A native of our profile; a refusal or an exception is its failure."""
        first = len(context.changes)
        draft = Draft(context, native.writes, context.address, context.changes)
        call = native_call(trigger, context)
        try:
            native.run(draft, call)
        except Refusal as refusal:
            return refusal_result(refusal, context)
        except Exception as error:
            return exception_result(native.name, error, context)
        written = context.changes[first:]
        if context.network.programs is not None:
            for change in written:
                if change.value is not None and change.path[1] == APPS:
                    failure = self.run_programs(change, context)
                    if failure is not None:
                        return failure
        return {"code": FUNCTION_SUCCESS, "bandwidth_gas_amount": context.limits.unit_gas * len(written)}

    def run_programs(self, change: Change, context: TxContext) -> Result | None:
        """Starts the programs whose entries stand where a native wrote; the result of the one that failed, if any."""
        labels = list(change.path[1:])
        for trigger in triggered_functions(context.state, labels, change.value, None):
            for function_id in property_order(trigger.config):
                entry: Any = trigger.config[function_id]
                if isinstance(entry, dict) and entry.get("function_type") == PROGRAM:
                    result = self._run_program(entry, trigger, context)
                    if result is not None and own_function_has_failed(result):
                        return result
        return None

    def _run_program(
        self,
        entry: dict[str, Any],
        trigger: Trigger,
        context: TxContext,
    ) -> Result | None:
        """Asks for a run of the program that an entry names; nothing to do if the value was deleted."""
        hook = context.network.programs
        if hook is None or trigger.value is None:
            return None
        first = len(context.changes)
        draft = Draft(context, hook.writes, context.address, context.changes)
        try:
            hook.run(draft, entry, native_call(trigger, context))
        except Refusal as refusal:
            return refusal_result(refusal, context)
        except Exception as error:
            return exception_result(PROGRAM, error, context)
        written = len(context.changes) - first
        return {"code": FUNCTION_SUCCESS, "bandwidth_gas_amount": context.limits.unit_gas * written}


def outcome(func_results: dict[str, Any], subtree_results: dict[str, Any], unit: Any) -> Result:
    """The result of a write whose functions have run: the first failure decides."""
    result: Result = {}
    if own_functions_have_failed(func_results):
        failed = first_refusal(func_results)
        result["message"] = "Triggered function call failed" if failed is None else failed["message"]
        code = FUNCTION_FAILED if failed is None else failed["code"]
    elif own_subtrees_have_failed(subtree_results):
        result["message"] = "Triggered subtree function call failed"
        code = SUBTREE_FUNCTION_FAILED
    else:
        code = SUCCESS
    if func_results:
        result["func_results"] = func_results
    if subtree_results:
        result["subtree_func_results"] = subtree_results
    result["code"] = code
    result["bandwidth_gas_amount"] = unit
    return result


def own_functions_have_failed(func_results: dict[str, Any]) -> bool:
    """Whether one of the functions of a config has failed."""
    return any(own_function_has_failed(result) for result in func_results.values())


def own_subtrees_have_failed(subtree_results: dict[str, Any]) -> bool:
    """Whether one of the functions below the written path has failed."""
    for by_path in subtree_results.values():
        for entry in by_path.values():
            if own_functions_have_failed(entry["func_results"]):
                return True
    return False


def first_refusal(func_results: dict[str, Any]) -> Result | None:
    """The function that refused by a code of ours, which says more than that something failed."""
    for result in func_results.values():
        if result["code"] >= REFUSED:
            return dict(result)
    return None


def rest_result(entry: dict[str, Any], context: TxContext) -> Result | None:
    """The result of a REST entry, the same on nodes that make the call and on those that do not."""
    url: Any = entry.get("function_url")
    if not isinstance(url, str) or not url:
        return None
    whitelist: Any = context.state.read_value(("developers", "rest_functions", "url_whitelist"))
    if not isinstance(whitelist, dict):
        return None
    items: list[Any] = []
    for by_key in whitelist.values():
        if isinstance(by_key, dict):
            items.extend(by_key.values())
    if not is_whitelisted(url, items):
        return None
    gas: Any = context.parameter("resource", "rest_function_call_gas_amount")
    return {"code": FUNCTION_SKIPPED, "bandwidth_gas_amount": gas}


def native_call(trigger: Trigger, context: TxContext) -> NativeCall:
    """What a native of our profile is told."""
    return NativeCall(
        trigger.value,
        trigger.previous,
        trigger.params,
        tuple(trigger.labels),
        context.address,
        context.block_time,
        context.block_number,
        context.tx_hash,
        context.timestamp,
        context.domain,
    )


def refusal_result(refusal: Refusal, context: TxContext) -> Result:
    """The result of a function that refused, with the refusal as clients rebuild it."""
    code: Any = getattr(refusal, "result_code", REFUSED)
    return {
        "message": str(refusal),
        "refusal": refusal.to_json(),
        "code": code if isinstance(code, int) and code >= REFUSED else REFUSED,
        "bandwidth_gas_amount": context.limits.unit_gas,
    }


def exception_result(name: str, error: Exception, context: TxContext) -> Result:
    """The result of a function that threw: our mistake, told without its insides."""
    context.mistakes.append(f"{name}: {type(error).__name__}: {error}")
    return {
        "message": f"{name} failed inside; this is a mistake of the network's software, not of the transaction.",
        "code": NATIVE_THREW,
        "bandwidth_gas_amount": context.limits.unit_gas,
    }
