"""How much of the state an app uses, what it may still use, and how much of its stake it could take back."""

from __future__ import annotations

from typing import Any

from openresource.ledger.nodes import Branch
from openresource.ledger.views import StateInfo, View
from openresource.primitives.paths import FUNCTIONS, OWNERS, RULES, VALUES

_TREES = (VALUES, RULES, FUNCTIONS, OWNERS)
_NOTHING = StateInfo(0, 0, 0, 0, 0, None)


def state_usage(view: View, app: str) -> dict[str, Any]:
    """The answer of `ain_getStateUsage`."""
    used = [view.counts([tree, "apps", app]) or _NOTHING for tree in _TREES]
    used_bytes = sum(one.bytes for one in used)
    stake = _stake(view, app)
    total_stake = _total_stake(view)
    limit_bytes = _parameter(view, "state_tree_bytes_limit")
    apps_budget = limit_bytes * _parameter(view, "apps_state_budget_ratio")
    free_budget = limit_bytes * _parameter(view, "free_state_budget_ratio")
    free_bytes = _free_tier_bytes(view)
    if stake > 0:
        share = stake / total_stake if total_stake else 1
        available_bytes = max(0, apps_budget * share - used_bytes)
    else:
        available_bytes = max(0, free_budget - free_bytes)
    return {
        "usage": {
            "tree_height": sum(one.height for one in used),
            "tree_size": sum(one.size for one in used),
            "tree_bytes": used_bytes,
            "tree_max_siblings": sum(one.siblings for one in used),
        },
        "available": {
            "tree_height": _parameter(view, "state_tree_height_limit"),
            "tree_bytes": available_bytes,
            "tree_size": available_bytes * _parameter(view, "max_state_tree_size_per_byte"),
        },
        "staking": {
            "app": stake,
            "total": total_stake,
            "unstakeable": _unstakeable(stake, total_stake, used_bytes, apps_budget, free_bytes, free_budget),
        },
    }


def _unstakeable(
    stake: float,
    total_stake: float,
    used_bytes: float,
    apps_budget: float,
    free_bytes: float,
    free_budget: float,
) -> float:
    """The largest part of the stake without which the app's share would still hold what it uses."""
    if total_stake == 0:
        return stake
    if stake == 0 or apps_budget <= used_bytes:
        return 0
    part = max(0, (apps_budget * stake - used_bytes * total_stake) / (apps_budget - used_bytes))
    if part < stake:
        return part
    # Without any stake the app would fall into the free tier, which must have room for it.
    return max(stake - 1, 0) if used_bytes + free_bytes > free_budget else stake


def _free_tier_bytes(view: View) -> int:
    apps = view.node([VALUES, "apps"])
    if not isinstance(apps, Branch):
        return 0
    total = 0
    for app, _ in apps.children():
        if _stake(view, app) <= 0:
            total += sum((view.counts([tree, "apps", app]) or _NOTHING).bytes for tree in _TREES)
    return total


def _total_stake(view: View) -> float:
    total = _number(view.node([VALUES, "staking", "balance_total_sum"]))
    if total is not None:
        return total - _stake(view, "consensus")
    staking = view.node([VALUES, "staking"])
    if not isinstance(staking, Branch):
        return 0
    return sum(_stake(view, app) for app, _ in staking.children() if app != "consensus")


def _stake(view: View, app: str) -> float:
    return _number(view.node([VALUES, "staking", app, "balance_total"])) or 0


def _parameter(view: View, name: str) -> float:
    return _number(view.node([VALUES, "blockchain_params", "resource", name])) or 0


def _number(value: object) -> float | None:
    return value if isinstance(value, int | float) and not isinstance(value, bool) else None
