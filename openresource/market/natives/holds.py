"""Funding a hold, and giving its money back when it expires."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from openresource.ledger.draft import Draft, DueAction, Native, NativeCall
from openresource.market.accounts import HOLD_BALANCES, hold_account
from openresource.market.codes import ResultCode
from openresource.market.fields import Fields
from openresource.market.holds import (
    fund,
    has_expired,
    hold_record,
    read_hold,
    require_app_name,
    require_hold_name,
)
from openresource.market.natives.parameters import HOLD_LIFETIME_MS_MAX, parameter
from openresource.primitives.amounts import UAIN_MAX
from openresource.primitives.errors import Refusal

# The value at labels below /values.
Reader = Callable[[tuple[str, ...]], Any]

HOLDS = "holds"
HOLD_EXPIRES = "hold_expires"


class HoldOutOfRange(Refusal):
    result_code = ResultCode.HOLD_OUT_OF_RANGE
    template = "The hold's {member} is {offered}; it must be between {minimum} and {maximum}."
    way_out = "Choose a value within these bounds."


class NotAnAppAdmin(Refusal):
    result_code = ResultCode.NOT_AN_APP_ADMIN
    template = "Only an admin of the app {app} may {deed}; {address} is none."
    way_out = "Ask an admin of the app, whose addresses are at /manage_app/{app}/config/admin."


def check_app_admin(reader: Reader, app: str, address: str, deed: str) -> None:
    """Refuses who is no admin of an app: its holds are spent by its entries and go back to who began them."""
    if reader(("manage_app", app, "config", "admin", address)) is not True:
        raise NotAnAppAdmin(app=app, deed=deed, address=address)


def fund_hold(draft: Draft, call: NativeCall) -> None:
    """Puts the signer's money into an app's hold, which ends by itself."""
    app, name = require_app_name(call.params["app"]), require_hold_name(call.params["id"])
    fields = Fields(call.value, "funding of a hold")
    amount = fields.amount("amount_uain", 1)
    expires_at_ms = fields.integer("expires_at_ms")
    fields.finish()
    latest = call.at + parameter(draft, HOLD_LIFETIME_MS_MAX)
    if not call.at < expires_at_ms <= latest:
        raise HoldOutOfRange(member="expiry", offered=expires_at_ms, minimum=call.at + 1, maximum=latest)
    account = hold_account(app, name)
    held = draft.balance(account)
    if held + amount > UAIN_MAX:
        raise HoldOutOfRange(member="balance", offered=held + amount, minimum=1, maximum=UAIN_MAX)
    record = draft.get(HOLDS, app, name, "state")
    before = None if record is None else read_hold(record)
    if before is None:
        # Whoever begins a hold owns what others add to it.
        check_app_admin(lambda labels: draft.get(*labels), app, call.signer, "begin a hold")
    after = fund(before, call.signer, expires_at_ms)
    draft.move(call.signer, account, amount)
    draft.set((HOLDS, app, name, "state"), hold_record(after))
    if before is None or after.expires_at_ms != before.expires_at_ms:
        draft.after(after.expires_at_ms, HOLD_EXPIRES, f"{app}/{name}")
    draft.set(call.path, None)


def expire_hold(draft: Draft, key: str, at_ms: int) -> None:
    """Returns an expired hold's money; one that was lengthened has a later entry of its own."""
    app, name = key.split("/", 1)
    record = draft.get(HOLDS, app, name, "state")
    if record is None:
        return
    hold = read_hold(record)
    if not has_expired(hold, at_ms):
        return
    account = hold_account(app, name)
    draft.move(account, hold.owner, draft.balance(account))
    draft.set((HOLDS, app, name, "state"), None)


_WRITES = ((HOLDS,), HOLD_BALANCES)
NATIVES = (Native("_fundHold", _WRITES, fund_hold),)
DUE_ACTIONS = (DueAction(HOLD_EXPIRES, _WRITES, expire_hold),)
FUNCTIONS = {"/holds/$app/$id/fund/$record": "_fundHold"}
RULES = {
    "/holds": "false",
    "/holds/$app/$id/fund/$record": "data === null && newData !== null"
    " && util.checkValuePathLen(parsedValuePath, 5)",
}
