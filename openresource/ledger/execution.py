"""Execution of one transaction: pre-checks, operations, gas, limits, budgets, nonce, fee, receipt, and undoing."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from openresource.ledger.context import BlockContext, RestCaller, TxContext, WriteObserver
from openresource.ledger.draft import Change, NetworkDomain
from openresource.ledger.fees import (
    ServiceGas,
    can_pay,
    collect_by_operation,
    fee_due_uain,
    pay_fee,
    record_receipt,
)
from openresource.ledger.gas import GasTally, app_names, bandwidth_gas
from openresource.ledger.operations import Operations
from openresource.ledger.prechecks import precheck
from openresource.ledger.profile import Network
from openresource.ledger.results import (
    APP_BUDGET,
    APPS_BUDGET,
    FREE_TIER_BUDGET,
    NO_OPERATION,
    OP_LIST_SIZE,
    SERVICE_BUDGET,
    SUCCESS,
    TREE_BYTES,
    TREE_HEIGHT,
    Result,
    own_has_failed,
)
from openresource.ledger.state import Limits, State, Usage
from openresource.ledger.transactions import ORDERED_BY_TIME_NONCE, SET, UNORDERED_NONCE, Transaction
from openresource.ledger.verdicts import Auth
from openresource.primitives.numbers import is_number, number_text

# Called before a transaction runs; what it returns is told of the writes.
TxObserver = Callable[[Transaction], WriteObserver]
TxRestCaller = Callable[[Transaction], RestCaller]

REGISTRATION_FLAG: Final = "extend_account_registration_gas_amount"
_STAKING_HELP: Final = "For more information see https://docs.ainetwork.ai/ain-blockchain/staking"


class Execution:
    """What became of one transaction."""

    __slots__ = ("changes", "has_failed", "is_precheck_failure", "mistakes", "result")

    def __init__(self, result: Result, has_failed: bool, is_precheck_failure: bool) -> None:
        self.result: Result = result
        self.has_failed: bool = has_failed
        self.is_precheck_failure: bool = is_precheck_failure
        self.changes: list[Change] = []
        self.mistakes: list[str] = []


class Executor:
    """Executes transactions on one working state."""

    __slots__ = ("_block", "_operations", "domain", "network", "observer", "recent", "rest", "state")

    def __init__(self, network: Network, state: State, domain: NetworkDomain) -> None:
        self.network: Network = network
        self.state: State = state
        self.domain: NetworkDomain = domain
        self._operations: Operations = Operations()
        self._block: BlockContext | None = None
        # Is told of the writes of each transaction as they happen, also of one that fails in the end.
        self.observer: TxObserver | None = None
        # Calls the REST functions that a transaction sets off.
        self.rest: TxRestCaller | None = None
        # Hashes of transactions that may not come again, with the time of their block.
        self.recent: dict[str, int] = {}

    def execute(
        self,
        transaction: Transaction,
        block_number: int,
        block_time: int,
        executed_at: int,
        *,
        skip_fees: bool = False,
        restore: bool = True,
        is_dry_run: bool = False,
    ) -> Execution:
        """Executes a transaction; with `restore` a failed one leaves nothing behind but what it has to pay."""
        profile = self.network.profile
        state = self.state
        context = TxContext(
            self._block_context(block_number, block_time),
            transaction.address,
            transaction.nonce,
            transaction.timestamp,
            transaction.hash,
            executed_at if profile.unstake_reads_wall_clock else block_time,
        )
        observer = self.observer
        if observer is not None and not is_dry_run:
            context.observer = observer(transaction)
        rest = self.rest
        if rest is not None and not is_dry_run:
            context.rest = rest(transaction)
        refusal = precheck(transaction, context, self.recent, not skip_fees)
        if refusal is not None:
            return Execution(refusal, True, True)
        has_backup = restore or is_dry_run
        if has_backup:
            state.backup()
        result: Result = {
            "gas_amount_total": {"bandwidth": {"service": 0}, "state": {"service": 0}},
            "gas_cost_total": 0,
        }
        gas = self._run_operation(transaction, context, result)
        if is_dry_run:
            result["is_dryrun"] = True
        if profile.failed_pay_nothing:
            failed = self._settle_by_operation(
                transaction, context, result, gas, has_backup, skip_fees, is_dry_run
            )
        else:
            failed = self._settle_directly(
                transaction, context, result, gas, has_backup, skip_fees, is_dry_run
            )
        execution = Execution(result, failed, False)
        execution.mistakes = context.mistakes
        if not is_dry_run:
            execution.changes = context.changes
        return execution

    def _block_context(self, block_number: int, block_time: int) -> BlockContext:
        block = self._block
        if block is None or block.block_number != block_number or block.block_time != block_time:
            block = BlockContext(self.network, self.state, self.domain, block_number, block_time)
            self._block = block
        return block

    def _settle_by_operation(
        self,
        transaction: Transaction,
        context: TxContext,
        result: Result,
        gas: ServiceGas,
        has_backup: bool,
        skip_fees: bool,
        is_dry_run: bool,
    ) -> bool:
        """AI Network's end of a transaction: fee and receipt first, then undo; returns whether it failed."""
        ignores_own_code = self.network.profile.list_ignores_own_code
        if not skip_fees:
            failed = own_has_failed(result, ignores_own_code)
            has_backup = collect_by_operation(
                self._operations, transaction, context, result, gas, failed, has_backup, is_dry_run
            )
            record_receipt(transaction, context, result)
        failed = own_has_failed(result, ignores_own_code)
        if has_backup and (is_dry_run or failed):
            self.state.restore()
            context.changes.clear()
        elif has_backup:
            self.state.drop_backup()
        return failed

    def _settle_directly(
        self,
        transaction: Transaction,
        context: TxContext,
        result: Result,
        gas: ServiceGas,
        has_backup: bool,
        skip_fees: bool,
        is_dry_run: bool,
    ) -> bool:
        """Our end of a transaction: undo first if it failed, then the fee, which stays paid; returns whether it failed."""
        state = self.state
        failed = own_has_failed(result, self.network.profile.list_ignores_own_code)
        fee_uain = 0
        if not skip_fees:
            fee_uain = fee_due_uain(transaction, context, result, gas, failed)
            if not failed and not can_pay(transaction, context, fee_uain, result):
                failed = True
                fee_uain = fee_due_uain(transaction, context, result, gas, failed)
        if has_backup and (is_dry_run or failed):
            state.restore()
            context.changes.clear()
        elif has_backup:
            state.drop_backup()
        if not is_dry_run:
            if fee_uain > 0:
                pay_fee(transaction, context, fee_uain, result)
            if failed:
                # It stands in a block; with an old nonce it could be put into another one and pay again.
                self._update_nonce(transaction)
        return failed

    def _run_operation(self, transaction: Transaction, context: TxContext, result: Result) -> ServiceGas:
        """Runs the operation and fills the result; returns the gas that services have to be paid for."""
        state = self.state
        operation: Any = transaction.operation
        gas = ServiceGas()
        if not isinstance(operation, dict):
            result["message"] = "Missing operation"
            result["code"] = NO_OPERATION
            result["bandwidth_gas_amount"] = 0
            return gas
        apps = app_names(transaction.labels)
        before = state.usage(apps)
        counts_registration = transaction.nonce != UNORDERED_NONCE and context.is_enabled(REGISTRATION_FLAG)
        was_registered = not counts_registration or self._is_registered(transaction.address)

        self._run_singles(transaction, Auth(transaction.address), context, result)
        if not was_registered and not self._is_registered(transaction.address):
            _add_registration_gas(result, context)

        bandwidth = bandwidth_gas(transaction.labels, result)
        total: dict[str, Any] = result["gas_amount_total"]
        total["bandwidth"] = bandwidth.to_json()
        gas.bandwidth = bandwidth.service
        if own_has_failed(result, self.network.profile.list_ignores_own_code):
            return gas
        limits = context.limits
        if not _check_tree_limits(state, limits, result):
            return gas

        after = state.usage(apps)
        state_gas = GasTally()
        state_gas.service = max(0, after.service_bytes - before.service_bytes) * limits.state_gas_coefficient
        for index, app in enumerate(apps):
            used = (after.app_bytes[index] - before.app_bytes[index]) * limits.state_gas_coefficient
            if used > 0:
                state_gas.app[app] = used
        total["state"] = state_gas.to_json()
        gas.state = state_gas.service
        if not _check_budgets(state, limits, result, apps, after):
            return gas
        self._update_nonce(transaction)
        return gas

    def _run_singles(self, transaction: Transaction, auth: Auth, context: TxContext, result: Result) -> None:
        operation: dict[str, Any] = transaction.operation
        if operation.get("type") != SET:
            result.update(self._operations.run(operation, transaction.labels[0], auth, context))
            return
        op_list: list[Any] = operation["op_list"]
        limit: Any = context.limits.op_list_max
        if context.block_number > 0 and len(op_list) > limit:
            result["result_list"] = None
            result["code"] = OP_LIST_SIZE
            result["message"] = (
                f"The transaction exceeds the max op_list size limit: {len(op_list)} > {number_text(limit)}"
            )
            return
        result_list: dict[str, Any] = {}
        result["result_list"] = result_list
        for index, single in enumerate(op_list):
            single_result = self._operations.run(single, transaction.labels[index], auth, context)
            result_list[str(index)] = single_result
            if single_result["code"] != SUCCESS:
                return

    def _update_nonce(self, transaction: Transaction) -> None:
        if transaction.nonce >= 0:
            self.state.write_value(("accounts", transaction.address, "nonce"), transaction.nonce + 1)
        elif transaction.nonce == ORDERED_BY_TIME_NONCE:
            self.state.write_value(("accounts", transaction.address, "timestamp"), transaction.timestamp)

    def _is_registered(self, address: str) -> bool:
        return self.state.has_value(("accounts", address))


def _add_registration_gas(result: Result, context: TxContext) -> None:
    """The first write of an account that stays unknown costs as much as making one."""
    first: dict[str, Any] | None = result
    if "result_list" in result:
        result_list: dict[str, Any] | None = result["result_list"]
        first = None if result_list is None else result_list.get("0")
    if first is not None:
        amount: Any = context.parameter("resource", "account_registration_gas_amount")
        first["bandwidth_gas_amount"] += amount if is_number(amount) else 0


def _check_tree_limits(state: State, limits: Limits, result: Result) -> bool:
    height = state.tree_height()
    if height > limits.tree_height_max:
        result["code"] = TREE_HEIGHT
        result["message"] = f"Out of tree height limit ({height} > {number_text(limits.tree_height_max)})"
        return False
    size = state.tree_bytes()
    if size > limits.tree_bytes_max:
        result["code"] = TREE_BYTES
        result["message"] = f"Out of tree bytes limit ({size} > {number_text(limits.tree_bytes_max)})"
        return False
    return True


def _check_budgets(state: State, limits: Limits, result: Result, apps: list[str], usage: Usage) -> bool:
    if usage.service_bytes > limits.service_budget:
        sizes = f"({usage.service_bytes} > {number_text(limits.service_budget)})"
        result["code"] = SERVICE_BUDGET
        result["message"] = f"Exceeded state budget limit for services {sizes}"
        return False
    if usage.apps_bytes > limits.apps_budget:
        sizes = f"({usage.apps_bytes} > {number_text(limits.apps_budget)})"
        result["code"] = APPS_BUDGET
        result["message"] = f"Exceeded state budget limit for apps {sizes}"
        return False
    for index, app in enumerate(apps):
        stake = state.app_stake(app)
        if stake == 0:
            # All apps together are an upper bound of those without a stake, and need no walk.
            free_tier = state.free_tier_bytes() if usage.apps_bytes >= limits.free_budget else None
            if free_tier is not None and free_tier >= limits.free_budget:
                sizes = f"({free_tier} > {number_text(limits.free_budget)})"
                result["code"] = FREE_TIER_BUDGET
                result["message"] = f"Exceeded state budget limit for free tier {sizes}.\n{_STAKING_HELP}"
                return False
        else:
            app_budget: Any = limits.apps_budget * stake / state.app_stakes_total()
            if usage.app_bytes[index] > app_budget:
                sizes = f"({usage.app_bytes[index]} > {number_text(app_budget)})"
                result["code"] = APP_BUDGET
                result["message"] = f"Exceeded state budget limit for app {app} {sizes}.\n{_STAKING_HELP}"
                return False
    return True
