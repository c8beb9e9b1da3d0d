"""Transactions over the flat state: operations, natives, gas, limits, fees and undoing, as the protocol words them."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

from tests.simulation import rules
from tests.simulation.forms import MICRO, Forms, is_label, is_storable, labels_of, micro, named_natives
from tests.simulation.rules import Asker, Rule, Seen, balance_path, is_number
from tests.simulation.state import FlatState, Path, in_property_order

Result = dict[str, Any]

WRITE_TYPES = ("SET_VALUE", "INC_VALUE", "DEC_VALUE", "SET_RULE", "SET_FUNCTION", "SET_OWNER")
OPEN_NATIVES = ("_saveLastTx", "_eraseValue", "_fail", "_setOwnerConfig")
TREASURY = "treasury|market|fees"
UNCLAIMED = "gas_fee|gas_fee|unclaimed"


class Failed(Exception):
    """An operation fails with a code."""

    def __init__(self, code: int) -> None:
        super().__init__(code)
        self.code = code


@dataclass
class Terms:
    """What sets one chain apart from another."""

    is_own: bool
    chain_admins: set[str]
    natives: frozenset[str]
    # By the text of a rule, what it means.
    known_rules: dict[str, Rule]
    replay_window_ms: int = 0
    # Those that an owner may name.
    owner_natives: frozenset[str] = frozenset()


@dataclass
class Block:
    """The block that is being filled."""

    number: int
    time_ms: int


@dataclass
class Task:
    """One transaction."""

    hash: str
    address: str
    body: dict[str, Any]


@dataclass
class Outcome:
    """What became of it."""

    result: Result
    enters_block: bool
    has_failed: bool
    written: list[Path] = field(default_factory=list)


class Model:
    """The slow ledger."""

    def __init__(self, terms: Terms, state: FlatState) -> None:
        self.terms = terms
        self.state = state
        self.block = Block(0, 0)
        self.seen_hashes: dict[str, int] = {}
        self.task = Task("", "", {})
        self.written: list[Path] = []
        # How often natives were called and old siblings deleted, so that a run can tell what it has reached.
        self.calls = 0
        self.deletions = 0

    def parameter(self, category: str, name: str) -> Any:
        """A parameter of the chain."""
        return self.state.get(("values", "blockchain_params", category, name))

    def resource(self, name: str) -> Any:
        """A parameter about resources."""
        return self.parameter("resource", name)

    def number_at(self, path: Path) -> Any:
        """A number of the state; 0 if there is none."""
        value = self.state.get(("values", *path))
        return value if is_number(value) else 0

    # -- transactions -----------------------------------------------------------------------------------------------

    def execute(self, task: Task, *, is_dry_run: bool = False) -> Outcome:
        """Does a transaction in the open block."""
        self.task = task
        self.written = []
        refused = self.precheck()
        if refused:
            return Outcome({"code": refused, "bandwidth_gas_amount": 0}, False, True)
        if not is_dry_run:
            self.seen_hashes[task.hash] = self.block.time_ms
        before = self.state.copy()
        result: Result = {}
        bandwidth, state_gas = self.run(result)
        if is_dry_run:
            result["is_dryrun"] = True
        settle = self.settle_own if self.terms.is_own else self.settle_ain
        failed = settle(result, bandwidth, state_gas, before, is_dry_run)
        return Outcome(result, True, failed, self.written)

    def precheck(self) -> int:
        """The code of the first check that fails; 0 if none does."""
        body, task = self.task.body, self.task
        price = body.get("gas_price")
        if price is None:
            if not self.terms.is_own:
                return 10714
        elif price != int(price) or (price != 0 and price < self.resource("min_gas_price")):
            return 10714
        nonce = body["nonce"]
        if nonce >= 0 and nonce != self.number_at(("accounts", task.address, "nonce")):
            return 10712
        if nonce == -2 and body["timestamp"] <= self.number_at(("accounts", task.address, "timestamp")):
            return 10713
        if self.terms.replay_window_ms:
            if task.hash in self.seen_hashes:
                return 21011
            if nonce < 0 and abs(body["timestamp"] - self.block.time_ms) > self.terms.replay_window_ms:
                return 21010
        return self.precheck_billing()

    def precheck_billing(self) -> int:
        """May the signer have the bill sent there?"""
        billing = self.task.body.get("billing")
        if billing is None:
            return 0
        if not self.is_billing_user(billing):
            return 10802
        apps = {
            path[1]
            for path in self.op_paths()
            if len(path) > 1 and path[0] in ("manage_app", "payments", "staking")
        }
        if len(apps) > 1:
            return 10803
        return 10804 if apps and apps != {billing.split("|")[0]} else 0

    def is_billing_user(self, billing: str) -> bool:
        """Whether the signer is among the users of a billing account."""
        app, name = billing.split("|")
        path = ("values", "manage_app", app, "config", "billing", name, "users", self.task.address)
        return bool(self.state.get(path) is True)

    def payer(self) -> str:
        """Who pays."""
        billing = self.task.body.get("billing")
        return f"billing|{billing}" if billing and self.is_billing_user(billing) else self.task.address

    def operations(self) -> list[dict[str, Any]]:
        """The single operations."""
        operation = self.task.body["operation"]
        return list(operation["op_list"]) if operation.get("type") == "SET" else [operation]

    def op_paths(self) -> list[Path]:
        """Where they write."""
        return [labels_of(single.get("ref")) for single in self.operations()]

    def run(self, result: Result) -> tuple[Any, Any]:
        """Operations, gas, limits, budgets, nonce; gives the bandwidth and the state that services have to be paid for."""
        state, task, nonce = self.state, self.task, self.task.body["nonce"]
        apps = list(dict.fromkeys(path[1] for path in self.op_paths() if len(path) > 1 and path[0] == "apps"))
        services, of_apps = self.service_bytes(), [self.app_bytes(app) for app in apps]
        account = ("values", "accounts", task.address)
        was_known = nonce == -1 or state.exists(account)
        singles = self.run_operations(result)
        if singles and not was_known and not state.exists(account):
            singles[0]["bandwidth_gas_amount"] += self.resource("account_registration_gas_amount")
        bandwidth: dict[str, Any] = {"service": 0}
        for path, single in zip(self.op_paths(), singles, strict=False):
            count_gas(bandwidth, path, single)
        total: dict[str, Any] = {"bandwidth": bandwidth, "state": {"service": 0}}
        result["gas_amount_total"] = total
        if self.has_failed(result):
            return bandwidth["service"], 0
        if state.height() > self.resource("state_tree_height_limit"):
            result["code"] = 11101
            return bandwidth["service"], 0
        bytes_max = self.resource("state_tree_bytes_limit")
        if state.weight(()) > bytes_max:
            result["code"] = 11103
            return bandwidth["service"], 0
        coefficient = self.resource("state_gas_coefficient")
        total["state"] = {"service": max(0, self.service_bytes() - services) * coefficient}
        for app, was in zip(apps, of_apps, strict=True):
            more = self.app_bytes(app) - was
            if more > 0:
                total["state"].setdefault("app", {})[app] = more * coefficient
        code = self.budget_code(apps, bytes_max)
        if code:
            result["code"] = code
            return bandwidth["service"], total["state"]["service"]
        self.count_nonce()
        return bandwidth["service"], total["state"]["service"]

    def run_operations(self, result: Result) -> list[Result]:
        """The results of the single operations, put into the result of the transaction."""
        if self.task.body["operation"].get("type") != "SET":
            single = self.run_operation(self.operations()[0])
            result.update(single)
            return [result]
        if len(self.operations()) > self.resource("set_op_list_size_limit"):
            result["result_list"] = None
            result["code"] = 30005
            return []
        singles: list[Result] = []
        for operation in self.operations():
            singles.append(self.run_operation(operation))
            if singles[-1]["code"] != 0:
                break
        result["result_list"] = {str(index): single for index, single in enumerate(singles)}
        return singles

    def run_operation(self, operation: dict[str, Any]) -> Result:
        """One operation in the signer's name."""
        return self.write(
            operation.get("type", "SET_VALUE"),
            labels_of(operation.get("ref")),
            operation.get("value", Missing),
            Asker(self.task.address),
        )

    def count_nonce(self) -> None:
        """What a numbered or ordered transaction leaves at its account."""
        nonce = self.task.body["nonce"]
        if nonce >= 0:
            self.state.write(("values", "accounts", self.task.address, "nonce"), nonce + 1)
        elif nonce == -2:
            self.state.write(
                ("values", "accounts", self.task.address, "timestamp"), self.task.body["timestamp"]
            )

    def has_failed(self, result: Result) -> bool:
        """Whether it failed; AI Network looks into a list and not at what stands above it."""
        entries = result.get("result_list")
        if entries is None:
            return bool(result["code"] != 0)
        if self.terms.is_own and result.get("code", 0) != 0:
            return True
        return any(entry["code"] != 0 for entry in entries.values())

    # -- bytes and budgets ------------------------------------------------------------------------------------------

    def apps_bytes(self) -> int:
        """All apps under the four roots."""
        return sum(self.state.weight((root, "apps")) for root in ("values", "rules", "functions", "owners"))

    def app_bytes(self, app: str) -> int:
        """One app under the four roots."""
        return sum(
            self.state.weight((root, "apps", app)) for root in ("values", "rules", "functions", "owners")
        )

    def service_bytes(self) -> int:
        """Everything else."""
        return self.state.weight(()) - self.apps_bytes()

    def stake(self, app: str) -> Any:
        """What is staked for an app."""
        return self.number_at(("staking", app, "balance_total"))

    def budget_code(self, apps: list[str], bytes_max: Any) -> int:
        """The code of a budget that is used up."""
        if self.service_bytes() > bytes_max * self.resource("service_state_budget_ratio"):
            return 10901
        of_apps = bytes_max * self.resource("apps_state_budget_ratio")
        if self.apps_bytes() > of_apps:
            return 10902
        total = self.number_at(("staking", "balance_total_sum"))
        if not self.state.exists(("values", "staking", "balance_total_sum")):
            total = sum(
                self.stake(app) for app in self.state.labels(("values", "staking")) if app != "consensus"
            )
        else:
            total -= self.stake("consensus")
        for app in apps:
            if self.stake(app) == 0:
                free = [other for other in self.state.labels(("values", "apps")) if not self.stake(other) > 0]
                used = sum(self.app_bytes(other) for other in free)
                if free and used >= bytes_max * self.resource("free_state_budget_ratio"):
                    return 10905
            elif self.app_bytes(app) > of_apps * self.stake(app) / total:
                return 10907
        return 0

    # -- fees -------------------------------------------------------------------------------------------------------

    def settle_ain(
        self, result: Result, bandwidth: Any, state_gas: Any, before: FlatState, is_dry_run: bool
    ) -> bool:
        """AI Network: the fee is an operation, and a failed transaction gets it back."""
        failed = self.has_failed(result)
        can_undo = True
        amount = bandwidth + (0 if failed else state_gas)
        price = self.task.body["gas_price"]
        cost = self.cost(price, amount)
        if amount > 0 and price != 0:
            payer = self.payer()
            if not is_dry_run and self.number_at(balance_path(payer)) < cost:
                result["code"] = 11001
                self.undo(before)
                can_undo = False
                amount = min(self.number_at(balance_path(payer)), bandwidth)
                cost = self.cost(price, amount)
            if not is_dry_run and cost > 0:
                path = ("gas_fee", "collect", str(self.block.number), payer, self.task.hash)
                collected = self.write("SET_VALUE", path, {"amount": cost}, Asker(self.task.address))
                if collected["code"] != 0:
                    result["code"] = 11002
        result["gas_amount_charged"] = amount
        result["gas_cost_total"] = cost
        failed = self.has_failed(result)
        if can_undo and (failed or is_dry_run):
            self.undo(before)
        return failed

    def cost(self, price: Any, amount: Any) -> Any:
        """In AIN, cut after six decimals."""
        return math.floor(price * self.resource("gas_price_unit") * amount * MICRO) / MICRO

    def settle_own(
        self, result: Result, bandwidth: Any, state_gas: Any, before: FlatState, is_dry_run: bool
    ) -> bool:
        """Ours: undo first, then the fee, which stays paid."""
        failed = self.has_failed(result)
        fee = self.own_fee(result, bandwidth, 0 if failed else state_gas)
        if not failed and fee > micro(self.number_at(balance_path(self.payer()))):
            failed = True
            result["code"] = 11001
            fee = self.own_fee(result, bandwidth, 0)
        if failed or is_dry_run:
            self.undo(before)
        if is_dry_run:
            return failed
        payer = balance_path(self.payer())
        has = micro(self.number_at(payer))
        paid = min(fee, has)
        if fee:
            result["gas_cost_total"] = paid / MICRO
        if paid:
            treasury = balance_path(TREASURY)
            self.put(payer, (has - paid) / MICRO)
            self.put(treasury, (micro(self.number_at(treasury)) + paid) / MICRO)
        if failed:
            self.count_nonce()
        return failed

    def own_fee(self, result: Result, bandwidth: Any, state_gas: Any) -> int:
        """In µAIN, noted in the result."""
        amount = int(bandwidth + state_gas)
        fee: int = (
            int(self.task.body.get("gas_price") or 0)
            * amount
            * round(self.resource("gas_price_unit") * MICRO)
        )
        result["gas_amount_charged"] = amount
        result["gas_cost_total"] = fee / MICRO
        return fee

    def undo(self, before: FlatState) -> None:
        """Everything is as it was."""
        self.state = before.copy()
        self.written = []

    def put(self, path: Path, value: Any) -> None:
        """Writes a value without asking anybody."""
        self.state.write(("values", *path), value)
        self.written.append(("values", *path))

    # -- operations -------------------------------------------------------------------------------------------------

    def write(self, kind: str, path: Path, value: Any, asker: Asker) -> Result:
        """One operation; its result."""
        try:
            if kind in ("INC_VALUE", "DEC_VALUE"):
                value = self.sum_of(kind, path, value)
                kind = "SET_VALUE"
            if kind == "SET_VALUE":
                return self.set_value(path, value, asker)
            self.set_config(kind, path, value, asker)
        except Failed as failure:
            return {"code": failure.code, "bandwidth_gas_amount": self.resource("unit_write_gas_amount")}
        return {"code": 0, "bandwidth_gas_amount": self.resource("unit_write_gas_amount")}

    def sum_of(self, kind: str, path: Path, delta: Any) -> Any:
        """What stands at a path and a number together."""
        current = self.state.get(("values", *path))
        if not (current is None or is_number(current)) or not is_number(delta):
            raise Failed(10201 if kind == "INC_VALUE" else 10301)
        return float(current or 0) + (float(delta) if kind == "INC_VALUE" else -float(delta))

    def set_value(self, path: Path, value: Any, asker: Asker) -> Result:
        """SET_VALUE."""
        unit, limit = self.resource("unit_write_gas_amount"), self.resource("state_label_length_limit")
        if not all(is_label(label, limit) for label in path):
            raise Failed(10102)
        if not is_storable(value, limit):
            raise Failed(10101)
        seen = Seen(self.state, asker, None, value, self.task.body["timestamp"], self.block.number, path, {})
        code = rules.write_code(self.state, self.terms.known_rules, path, value, seen)
        if code:
            raise Failed(code)
        before = self.state.get(("values", *path))
        self.put(path, value)
        result: Result = {"code": 0, "bandwidth_gas_amount": unit}
        exact, inner = rules.triggered(self.state, path, value, before)
        if exact is not None:
            func_results = self.call_all(exact, asker)
            if func_results:
                result["func_results"] = func_results
            if any(function_failed(one) for one in func_results.values()):
                own = [one["code"] for one in func_results.values() if one["code"] >= 21000]
                result["code"] = own[0] if own else 10104
        for key, calls in inner:
            by_path = result.setdefault("subtree_func_results", {}).setdefault(key, {})
            for call in calls:
                func_results = self.call_all(call, asker)
                by_path[call[5]] = {"func_results": func_results}
                if any(function_failed(one) for one in func_results.values()) and result["code"] == 0:
                    result["code"] = 10105
        if value is not None and result["code"] == 0:
            for target in rules.too_many(self.state, path):
                self.state.write(target, None)
                self.written.append(target)
                self.deletions += 1
        return result

    def set_config(self, kind: str, path: Path, value: Any, asker: Asker) -> None:
        """SET_RULE, SET_FUNCTION, SET_OWNER."""
        root, config, codes, denied = {
            "SET_FUNCTION": ("functions", ".function", (10401, 10402, 10403), (12401, 12402)),
            "SET_RULE": ("rules", ".rule", (10501, 10502, 10503), (12301, 12302)),
            "SET_OWNER": ("owners", ".owner", (10601, 10602, 10603), (12501, 12502)),
        }.get(kind, ("", "", (0, 0, 0), (0, 0)))
        if not root:
            raise Failed(10709)
        limit = self.resource("state_label_length_limit")
        if not is_storable(value, limit):
            raise Failed(codes[0])
        if not all(is_label(label, limit) for label in path):
            raise Failed(codes[1])
        forms = Forms(self.terms.owner_natives, self.resource("min_gc_num_siblings_deleted"))
        if value is not None and not forms.is_tree(path, value, config):
            raise Failed(codes[2])
        if root == "functions" and asker.address not in self.terms.chain_admins:
            closed = self.terms.natives - set(OPEN_NATIVES)
            if closed.intersection(named_natives(value)):
                raise Failed(10404)
        new, is_merge = rules.changed(self.state.get((root, *path)), value, config)
        permission = {"rules": "write_rule", "functions": "write_function", "owners": "write_owner"}[root]
        code = rules.owner_code(self.state, path, permission, asker, is_merge, denied)
        if code:
            raise Failed(code)
        self.state.write((root, *path), new)
        self.written.append((root, *path))

    # -- natives ----------------------------------------------------------------------------------------------------

    def call_all(self, call: Any, asker: Asker) -> dict[str, Result]:
        """The functions of one config, until one fails."""
        from tests.simulation.natives import NATIVES, OWN_NATIVES, Call

        config, path, value, before, params, _ = call
        results: dict[str, Result] = {}
        for name in in_property_order(tuple(config)):
            entry = config[name]
            if not isinstance(entry, dict) or entry.get("function_type") != "NATIVE":
                continue
            if name not in self.terms.natives or name == asker.native or name in asker.natives:
                continue
            self.calls += 1
            if self.terms.is_own and name in OWN_NATIVES:
                results[name] = OWN_NATIVES[name](Call(self, asker, path, value, before, params))
            else:
                inside = Asker(asker.address, name, (*asker.natives, name))
                running = Call(self, inside, path, value, before, params)
                code = 0 if value is None else NATIVES[name](running)
                results[name] = {"code": code, "bandwidth_gas_amount": running.extra_gas}
                if running.op_results:
                    results[name]["op_results"] = running.op_results
            if function_failed(results[name]):
                break
        return results


class Missing:
    """The value of an operation that has none."""


def function_failed(result: Result) -> bool:
    """Whether a function's result makes its operation fail."""
    if result["code"] not in (0, 20000):
        return True
    return any(entry["result"]["code"] != 0 for entry in result.get("op_results", {}).values())


def count_gas(bandwidth: dict[str, Any], path: Path, result: Result) -> None:
    """Adds what an operation and its functions took, by service and by app."""
    _count(bandwidth, path, result["bandwidth_gas_amount"])
    _count_functions(bandwidth, path, result.get("func_results", {}))
    for by_path in result.get("subtree_func_results", {}).values():
        for value_path, entry in by_path.items():
            _count_functions(bandwidth, (*path, *labels_of(value_path)), entry["func_results"])


def _count_functions(bandwidth: dict[str, Any], path: Path, results: dict[str, Result]) -> None:
    for result in results.values():
        for entry in result.get("op_results", {}).values():
            count_gas(bandwidth, labels_of(entry["path"]), entry["result"])
        _count(bandwidth, path, result["bandwidth_gas_amount"])


def _count(bandwidth: dict[str, Any], path: Path, amount: Any) -> None:
    if path[:1] != ("apps",):
        bandwidth["service"] += amount
    elif len(path) > 1:
        by_app = bandwidth.setdefault("app", {})
        by_app[path[1]] = by_app.get(path[1], 0) + amount
