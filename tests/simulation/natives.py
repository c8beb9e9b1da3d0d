"""The natives that the simulation sets off, over the flat state."""

from __future__ import annotations

import re
from typing import Any

from tests.simulation.execution import UNCLAIMED, Model, Result
from tests.simulation.forms import MICRO, micro
from tests.simulation.rules import Asker, balance_path
from tests.simulation.state import Path

ALL_PERMISSIONS = {"branch_owner": True, "write_function": True, "write_owner": True, "write_rule": True}
ADDRESS = re.compile("0x[0-9a-fA-F]{40}")


class Call:
    """One call, and the writes that it makes."""

    def __init__(
        self, model: Model, asker: Asker, path: Path, value: Any, before: Any, params: dict[str, str]
    ) -> None:
        self.model = model
        self.asker = asker
        self.path = path
        self.value = value
        self.before = before
        self.params = params
        self.op_results: dict[str, Any] = {}
        self.extra_gas = 0

    def write(self, kind: str, path: Path, value: Any) -> bool:
        """An operation as this native; whether that went well."""
        result = self.model.write(kind, path, value, self.asker)
        self.op_results[str(len(self.op_results))] = {"path": "/" + "/".join(path), "result": result}
        return bool(result["code"] == 0)

    def transfer(self, source: str, target: str, amount: Any) -> bool:
        """A transfer keyed by the transaction's time."""
        key = str(self.model.task.body["timestamp"])
        return self.write("SET_VALUE", ("transfer", source, target, key, "value"), amount)


def transfer(call: Call) -> int:
    """_transfer."""
    model, amount = call.model, call.value
    source, target = balance_path(call.params["from"]), balance_path(call.params["to"])
    balance = model.state.get(("values", *source))
    if balance is None or balance < amount:
        return 20101
    is_new = not model.state.exists(("values", *target[:-1]))
    if not call.write("DEC_VALUE", source, amount) or not call.write("INC_VALUE", target, amount):
        return 20002
    if is_new:
        call.extra_gas = model.resource("account_registration_gas_amount")
    return 0


def own_transfer(call: Call) -> Result:
    """Our _transfer: a move in whole µAIN."""
    model = call.model
    if call.value is None:
        return {"code": 0, "bandwidth_gas_amount": 0}
    unit = model.resource("unit_write_gas_amount")
    amount = micro(call.value)
    source, target = balance_path(call.params["from"]), balance_path(call.params["to"])
    if micro(model.number_at(source)) < amount:
        return {"code": 21001, "bandwidth_gas_amount": unit}
    if amount == 0:
        return {"code": 0, "bandwidth_gas_amount": 0}
    model.put(source, (micro(model.number_at(source)) - amount) / MICRO)
    model.put(target, (micro(model.number_at(target)) + amount) / MICRO)
    return {"code": 0, "bandwidth_gas_amount": 2 * unit}


def collect_fee(call: Call) -> int:
    """_collectFee."""
    return 0 if call.transfer(call.params["from"], UNCLAIMED, call.value["amount"]) else 20001


def create_app(call: Call) -> int:
    """_createApp."""
    model, app, value = call.model, call.params["app_name"], call.value
    if not re.fullmatch("[a-z_][a-z0-9_]*", app) or app == "balance_total_sum":
        return 20301
    admins = value.get("admin")
    is_form = isinstance(admins, dict) and all(
        ADDRESS.fullmatch(who) and isinstance(is_admin, bool) for who, is_admin in admins.items()
    )
    known = {"admin", "billing", "service"} | ({"is_public"} if value.get("is_public") is True else set())
    if not is_form or not value.keys() <= known:
        return 20001
    is_new = not model.state.exists(("values", "manage_app", app, "config"))
    is_public = value.get("is_public") is True
    write: Any = True if is_public else " || ".join(f"auth.addr === '{who}'" for who in admins)
    call.write("SET_RULE", ("apps", app), {".rule": {"write": write}})
    owners: dict[str, Any] = {who: dict(ALL_PERMISSIONS) for who in admins}
    if is_public:
        owners["*"] = {**ALL_PERMISSIONS, "write_owner": False}
    call.write("SET_OWNER", ("apps", app), {".owner": {"owners": owners}})
    for name in ("admin", "is_public", "billing", "service"):
        if value.get(name) and not call.write("SET_VALUE", ("manage_app", app, "config", name), value[name]):
            return 20001
    if is_new:
        call.extra_gas = model.resource("app_creation_gas_amount")
    return 0


def save_last_tx(call: Call) -> int:
    """_saveLastTx."""
    path = (*call.path[:-1], ".last_tx", call.path[-1])
    return 0 if call.write("SET_VALUE", path, {"tx_hash": call.model.task.hash}) else 20001


def erase_value(call: Call) -> int:
    """_eraseValue."""
    return 0 if call.write("SET_VALUE", call.path, "erased") else 20001


def set_owner_config(call: Call) -> int:
    """_setOwnerConfig."""
    granted = {**ALL_PERMISSIONS, "branch_owner": False}
    owners = {".owner": {"owners": {call.asker.address: granted, "*": dict(granted)}}}
    return 0 if call.write("SET_OWNER", call.path, owners) else 20001


def stake(call: Call) -> int:
    """_stake."""
    model = call.model
    app, user, key = call.params["service_name"], call.params["user_addr"], call.params["staking_key"]
    lockup = model.number_at(("manage_app", app, "config", "service", "staking", "lockup_duration"))
    expires = ("staking", app, user, key, "expire_at")
    until = model.block.time_ms + lockup
    is_later = until > model.number_at(expires)
    if call.value == 0 and is_later:
        call.write("SET_VALUE", expires, until)
        return 0
    if not call.transfer(user, f"staking|{app}|{user}|{key}", call.value):
        return 20002
    if is_later:
        call.write("SET_VALUE", expires, until)
    call.write("INC_VALUE", ("staking", app, "balance_total"), call.value)
    sum_path = ("staking", "balance_total_sum")
    if model.state.exists(("values", *sum_path)):
        call.write("INC_VALUE", sum_path, call.value)
    else:
        apps = model.state.labels(("values", "staking"))
        call.write("SET_VALUE", sum_path, sum(model.stake(other) for other in apps))
    return 0


NATIVES = {
    "_collectFee": collect_fee,
    "_createApp": create_app,
    "_eraseValue": erase_value,
    "_fail": lambda call: 20001,
    "_saveLastTx": save_last_tx,
    "_setOwnerConfig": set_owner_config,
    "_stake": stake,
    "_transfer": transfer,
}
OWN_NATIVES = {"_transfer": own_transfer}
