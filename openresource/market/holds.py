"""Holds: money that a developer sets aside to pay an app's jobs, and gets back when the hold expires."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, Final

from openresource.market.fields import Fields, InvalidRecord
from openresource.primitives.paths import valid_service_name

DEFAULT_HOLD: Final = "default"
# Accounts of jobs stand beside those of holds, under this name in an app's place.
JOB_ACCOUNTS: Final = "job"

_NAME = re.compile("[a-z0-9][a-z0-9_-]{0,31}")


@dataclass(frozen=True, slots=True)
class Hold:
    """Whose a hold is and when it ends; its money is the balance of its account."""

    owner: str
    expires_at_ms: int


def is_hold_name(name: Any) -> bool:
    """Whether a text may name a hold within an app."""
    return isinstance(name, str) and _NAME.fullmatch(name) is not None


def require_hold_name(name: str) -> str:
    """The name of a hold, or a refusal."""
    if not is_hold_name(name):
        raise InvalidRecord(
            what="hold",
            member="its name",
            reason="must be at most 32 lower-case letters, digits, hyphens, underscores",
        )
    return name


def require_app_name(app: str) -> str:
    """The name of an app that may have holds, or a refusal."""
    if app == JOB_ACCOUNTS or not valid_service_name(app, lower_case_only=True):
        raise InvalidRecord(
            what="hold",
            member="its app",
            reason="must be the name of an app, of lower-case letters and digits",
        )
    return app


def fund(hold: Hold | None, payer: str, expires_at_ms: int) -> Hold:
    """The hold after money came in: the first payer owns it, and only the owner lengthens its life."""
    if hold is None:
        return Hold(payer, expires_at_ms)
    if payer != hold.owner:
        return hold
    return Hold(hold.owner, max(hold.expires_at_ms, expires_at_ms))


def has_expired(hold: Hold, at_ms: int) -> bool:
    """Whether a hold's money goes home now."""
    return at_ms >= hold.expires_at_ms


def read_hold(record: Any) -> Hold:
    """A hold from its record."""
    fields = Fields(record, "hold")
    return Hold(fields.address("owner"), fields.integer("expires_at_ms"))


def hold_record(hold: Hold) -> dict[str, Any]:
    """The record at `/holds/<app>/<id>/state`."""
    return {"owner": hold.owner, "expires_at_ms": hold.expires_at_ms}
