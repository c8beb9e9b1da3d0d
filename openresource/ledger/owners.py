"""Owners: who may change the rules, functions and owners of a path."""

from __future__ import annotations

from typing import Any, Final

from openresource.ledger.matching import OwnerMatch, match_owner
from openresource.ledger.state_reader import StateReader
from openresource.ledger.verdicts import (
    FUNCTION_NOT_OWNED,
    FUNCTION_SUBTREE_OWNED,
    OWNER_NOT_OWNED,
    OWNER_SUBTREE_OWNED,
    PERMISSION_UNKNOWN,
    RULE_NOT_OWNED,
    RULE_SUBTREE_OWNED,
    SUCCESS,
    Auth,
    Verdict,
)
from openresource.primitives.encoding import js_json
from openresource.primitives.paths import format_path

WRITE_RULE: Final = "write_rule"
WRITE_FUNCTION: Final = "write_function"
WRITE_OWNER: Final = "write_owner"
BRANCH_OWNER: Final = "branch_owner"
PERMISSIONS: Final = (BRANCH_OWNER, WRITE_FUNCTION, WRITE_OWNER, WRITE_RULE)
ANYBODY: Final = "*"
FUNCTION_PREFIX: Final = "fid:"

_KINDS: Final = {WRITE_RULE: "rule", WRITE_FUNCTION: "function", WRITE_OWNER: "owner", BRANCH_OWNER: "owner"}
_SUBTREE_CODES: Final = {
    "rule": RULE_SUBTREE_OWNED,
    "function": FUNCTION_SUBTREE_OWNED,
    "owner": OWNER_SUBTREE_OWNED,
}
_DENIED_CODES: Final = {"rule": RULE_NOT_OWNED, "function": FUNCTION_NOT_OWNED, "owner": OWNER_NOT_OWNED}


def eval_owner(
    state: StateReader, labels: list[str], permission: Any, auth: Auth | None, is_merge: bool = False
) -> Verdict:
    """Whether somebody may write a rule, a function or an owner at a path; merging spares the owners below."""
    kind = _KINDS.get(permission) if isinstance(permission, str) else None
    if kind is None:
        shown = "undefined" if permission is None else permission
        message = f"Invalid permission '{shown}' for local path '{format_path(labels)}' with auth '{auth_json(auth)}'"
        return Verdict(PERMISSION_UNKNOWN, message)
    return _judge(match_owner(state, labels, not is_merge), labels, kind, auth)


def eval_owner_json(
    state: StateReader, labels: list[str], permission: Any, auth: Auth | None, is_merge: bool = False
) -> dict[str, Any]:
    """The answer of evalOwner."""
    answer = eval_owner(state, labels, permission, auth, is_merge).to_json()
    if answer["code"] == PERMISSION_UNKNOWN:
        answer["matched"] = None
        return answer
    match = match_owner(state, labels, not is_merge)
    matched: dict[str, Any] = {
        "matchedOwnerPath": match.target_labels,
        "closestOwner": {"path": match.config_labels, "config": match.config},
    }
    if not is_merge:
        matched["subtreeOwners"] = [{"path": below.labels, "config": below.config} for below in match.subtree]
    answer["matched"] = matched
    return answer


def permissions_of(config: Any, auth: Auth | None) -> Any:
    """The permissions that a config gives to somebody; None if it gives none."""
    owners = config.get("owners") if isinstance(config, dict) else None
    if not isinstance(owners, dict) or auth is None:
        return None
    granted: Any = None
    if auth.fid:
        granted = owners.get(FUNCTION_PREFIX + auth.fid)
    elif auth.addr:
        granted = owners.get(auth.addr)
    else:
        return None
    return owners.get(ANYBODY) if granted is None else granted


def auth_json(auth: Auth | None) -> str:
    """Who asks, as messages print it."""
    return "null" if auth is None else js_json(auth.to_json())


def _judge(match: OwnerMatch, labels: list[str], kind: str, auth: Auth | None) -> Verdict:
    path = format_path(labels)
    if match.subtree:
        paths = js_json([format_path(below.labels) for below in match.subtree])
        message = f"Non-empty ({len(match.subtree)}) subtree owners for {kind} path '{path}': {paths}"
        return Verdict(_SUBTREE_CODES[kind], message)
    permission = WRITE_RULE if kind == "rule" else WRITE_FUNCTION
    if kind == "owner":
        is_exact = len(match.config_labels) == len(labels)
        permission = WRITE_OWNER if is_exact else BRANCH_OWNER
    granted = permissions_of(match.config, auth)
    if isinstance(granted, dict) and granted.get(permission) is True:
        return Verdict(SUCCESS)
    message = (
        f"{permission} permission evaluated false: [{js_json(granted)}] at '{format_path(match.config_labels)}' "
        f"for {kind} path '{path}' with permission '{permission}', auth '{auth_json(auth)}'"
    )
    return Verdict(_DENIED_CODES[kind], message)
