"""Making an app: its rule, its owners and its configuration from one record."""

from __future__ import annotations

from typing import Any, Final

from openresource.ledger.calls import FunctionCall
from openresource.ledger.context import LOWER_CASE_NAMES
from openresource.ledger.results import FUNCTION_FAILURE, FUNCTION_SUCCESS, INVALID_SERVICE_NAME
from openresource.primitives.keys import is_checksum_address
from openresource.primitives.numbers import is_number
from openresource.primitives.paths import valid_service_name
from openresource.primitives.values import deep_equal

_ALL: Final = {"branch_owner": True, "write_function": True, "write_owner": True, "write_rule": True}
_PUBLIC: Final = {"branch_owner": True, "write_function": True, "write_owner": False, "write_rule": True}


def create_app(call: FunctionCall) -> int:
    """Gives an app to its admins: rules and owners below /apps, and its configuration."""
    context = call.context
    app = call.params["app_name"]
    if not valid_service_name(app, context.is_enabled(LOWER_CASE_NAMES)):
        return INVALID_SERVICE_NAME
    value = sanitised_app(call.value)
    if value is None or not deep_equal(value, call.value):
        return FUNCTION_FAILURE
    is_new = not call.has("manage_app", app, "config")
    admins: dict[str, Any] = value["admin"]
    is_public = "is_public" in value
    write: Any = True if is_public else " || ".join(f"auth.addr === '{admin}'" for admin in admins)
    call.set_rule(["apps", app], {".rule": {"write": write}})
    owners: dict[str, Any] = {admin: dict(_ALL) for admin in admins}
    if is_public:
        owners["*"] = dict(_PUBLIC)
    call.set_owner(["apps", app], {".owner": {"owners": owners}})
    for name in ("admin", "is_public", "billing", "service"):
        if name in value and not call.set_value(["manage_app", app, "config", name], value[name]):
            return FUNCTION_FAILURE
    if is_new and context.is_enabled("add_app_creation_gas_amount"):
        amount: Any = context.parameter("resource", "app_creation_gas_amount")
        call.extra_gas = amount if is_number(amount) else 0
    return FUNCTION_SUCCESS


def sanitised_app(value: Any) -> dict[str, Any] | None:
    """The canonical form of an app's record; None if it has no valid admins or no valid flag."""
    if not isinstance(value, dict):
        return None
    admin: Any = value.get("admin")
    if not isinstance(admin, dict):
        return None
    for address, is_admin in admin.items():
        if not is_checksum_address(address) or not isinstance(is_admin, bool):
            return None
    if "is_public" in value and not isinstance(value["is_public"], bool):
        return None
    canonical: dict[str, Any] = {"admin": admin}
    if value.get("is_public") is True:
        canonical["is_public"] = True
    for name in ("billing", "service"):
        if value.get(name):
            canonical[name] = value[name]
    return canonical
