"""What the rules of a chain's first block mean, each written down by hand beside the place of its text."""

from __future__ import annotations

import re
from typing import Any

from openresource.ledger.tree import Tree
from tests.simulation.rules import Rule, Seen, decimals, is_number

ADDRESS = re.compile("0x[0-9a-fA-F]{40}")
SERVICE_ACCOUNT = re.compile("(billing|escrow|gas_fee|payments|staking)[|][a-z_][a-z0-9_]*[|].*")


def is_admin(seen: Seen, app: str) -> bool:
    """util.isAppAdmin."""
    return bool(seen.value(f"/manage_app/{app}/config/admin/{seen.asker.address}") is True)


def genesis_rules(tree: Tree, is_own: bool) -> dict[str, Rule]:
    """What the texts at some places of the genesis mean."""
    meanings: dict[str, Rule] = {
        "/transfer/$from/$to/$key/value": _own_transfer if is_own else _ain_transfer,
        "/manage_app/$app_name/create/$record_id": _create,
        "/manage_app/$app_name/config/admin": lambda seen: _configures(seen) and _is_admins(seen.new),
        "/manage_app/$app_name/config/billing": lambda seen: _configures(seen) and _is_billing(seen.new),
        "/manage_app/$app_name/config/is_public": lambda seen: (
            _configures(seen) and (seen.new is None or isinstance(seen.new, bool))
        ),
        "/manage_app/$app_name/config/service": lambda seen: _configures(seen) and _is_service(seen.new),
    }
    if not is_own:
        meanings |= {
            "/accounts/$user_addr/balance": lambda seen: seen.asker.native == "_transfer",
            "/service_accounts/$service_type/$service_name/$key/balance": lambda seen: (
                seen.asker.native == "_transfer"
            ),
            "/gas_fee/collect/$block_number/$from/$tx_hash": _collect,
            "/staking/$service_name/balance_total": _by_staking,
            "/staking/balance_total_sum": _by_staking,
            "/staking/$service_name/$user_addr/$staking_key/expire_at": lambda seen: (
                seen.asker.native in ("_stake", "_handleOffenses")
            ),
            "/staking/$service_name/$user_addr/$staking_key/stake/$record_id/value": _stakes,
        }
    known: dict[str, Rule] = {}
    for place, meaning in meanings.items():
        text = tree.get(["rules", *place.split("/")[1:], ".rule", "write"])
        assert isinstance(text, str), place
        known[text] = meaning
    return known


def _own_transfer(seen: Seen) -> bool:
    return (
        seen.asker.address == seen.names["$from"]
        and seen.data is None
        and ADDRESS.fullmatch(seen.names["$to"]) is not None
        and seen.names["$from"] != seen.names["$to"]
        and _is_amount(seen.new)
        and len(seen.labels) == 5
    )


def _ain_transfer(seen: Seen) -> bool:
    source, target = seen.names["$from"], seen.names["$to"]
    record = seen.value(f"transfer/{source}/{target}/{seen.names['$key']}")
    return (
        (seen.asker.address == source or seen.asker.native in ("_stake", "_collectFee"))
        and not (record is not None and record is not False and record != 0 and record != "")
        and all(ADDRESS.fullmatch(name) or SERVICE_ACCOUNT.fullmatch(name) for name in (source, target))
        and source != target
        and _is_amount(seen.new)
        and seen.balance(source) >= seen.new
    )


def _is_amount(value: Any) -> bool:
    return is_number(value) and value > 0 and decimals(value) <= 6


def _collect(seen: Seen) -> bool:
    payer = seen.names["$from"]
    if seen.asker.address != payer:
        parts = payer.split("|")
        users = f"/manage_app/{parts[1]}/config/billing/{parts[2]}/users/{seen.asker.address}"
        if not SERVICE_ACCOUNT.fullmatch(payer) or seen.value(users) is not True:
            return False
    amount = seen.new.get("amount") if isinstance(seen.new, dict) else None
    return seen.data is None and is_number(amount) and amount <= seen.balance(payer)


def _create(seen: Seen) -> bool:
    has_config = seen.value(f"/manage_app/{seen.names['$app_name']}/config") is not None
    return seen.data is None and not has_config and isinstance(seen.new, dict) and len(seen.labels) == 4


def _configures(seen: Seen) -> bool:
    is_allowed = seen.asker.native == "_createApp" or is_admin(seen, seen.names["$app_name"])
    return is_allowed and len(seen.labels) == 4


def _is_admins(value: Any) -> bool:
    return (
        isinstance(value, dict)
        and bool(value)
        and all(ADDRESS.fullmatch(who) and isinstance(is_admin, bool) for who, is_admin in value.items())
    )


def _is_billing(value: Any) -> bool:
    if not isinstance(value, dict) or not value:
        return False
    return all(
        isinstance(one, dict) and list(one) == ["users"] and _is_admins(one["users"])
        for one in value.values()
    )


def _is_service(value: Any) -> bool:
    lockup: Any = value["staking"].get("lockup_duration") if isinstance(value, dict) else None
    return is_number(lockup) and bool(lockup >= 0)


def _by_staking(seen: Seen) -> bool:
    return seen.asker.native in ("_stake", "_unstake")


def _stakes(seen: Seen) -> bool:
    return (
        seen.names["$user_addr"] == seen.asker.address
        and seen.data is None
        and is_number(seen.new)
        and seen.new >= 0
        and (seen.value(f"/accounts/{seen.asker.address}/balance") or 0) >= seen.new
    )
