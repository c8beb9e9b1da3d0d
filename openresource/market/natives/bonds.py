"""Bonding and withdrawing: money into a provider's pledge, and back to the provider after a delay."""

from __future__ import annotations

from dataclasses import replace

from openresource.ledger.draft import Draft, DueAction, Native, NativeCall
from openresource.market.accounts import BOND_BALANCES, bond_account
from openresource.market.bonds import (
    Bond,
    check_addition,
    delay_ms,
    free_at_ms,
    left_of_leaving,
    paid_back,
    read_bond,
    with_addition,
    withdraw,
    withdrawal_record,
)
from openresource.market.fields import Fields, InvalidRecord, require_key
from openresource.market.natives.parameters import BOND_DELAY_MS, job_settings, parameter
from openresource.market.records import (
    RECORDS,
    ProviderRecord,
    count_claim,
    provider_record,
    read_provider_record,
)
from openresource.primitives.keys import is_checksum_address

BONDS = "bonds"
BOND_RETURNS = "bond_returns"


def bond_of(draft: Draft, provider: str) -> Bond:
    """A provider's bond as the chain has it now."""
    return read_bond(provider, draft.get(BONDS, provider, "state"), draft.balance(bond_account(provider)))


def record_of(draft: Draft, provider: str) -> ProviderRecord:
    """A provider's record as the chain has it now."""
    return read_provider_record(draft.get(RECORDS, provider))


def record_claim(draft: Draft, provider: str, amount_uain: int, at_ms: int) -> None:
    """Counts a claim in the provider's record."""
    before = record_of(draft, provider)
    after = count_claim(before, amount_uain, at_ms)
    if after != before:
        draft.set((RECORDS, provider), provider_record(after))


def add_to_bond(draft: Draft, call: NativeCall) -> None:
    """Moves the signer's money into a provider's bond, whoever signs."""
    provider = _provider(call)
    fields = Fields(call.value, "addition to a bond")
    amount = fields.amount("amount_uain", 1)
    fields.finish()
    bond = bond_of(draft, provider)
    check_addition(bond, amount)
    recent = with_addition(bond, amount, call.at)
    draft.move(call.signer, bond_account(provider), amount)
    draft.set((BONDS, provider, "state", "recent"), {str(time): one for time, one in recent.items()})
    draft.set(call.path, None)


def withdraw_bond(draft: Draft, call: NativeCall) -> None:
    """Takes some of the bond out of what counts, and pays it after the delay."""
    provider = _provider(call)
    fields = Fields(call.value, "withdrawal of a bond")
    amount = fields.amount("amount_uain", 1)
    fields.finish()
    record, bond = call.params["record"], bond_of(draft, provider)
    if record in (bond.leaving or {}):
        raise InvalidRecord(what="withdrawal", member="its key", reason="names one that is on its way")
    wait_ms = delay_ms(parameter(draft, BOND_DELAY_MS), job_settings(draft).answers_ms)
    withdrawal = withdraw(bond, amount, call.at, wait_ms)
    draft.set((BONDS, provider, "state", "leaving", record), withdrawal_record(withdrawal))
    draft.after(withdrawal.at_ms, BOND_RETURNS, f"{provider}/{record}")
    draft.set(call.path, None)


def return_bond(draft: Draft, key: str, at_ms: int) -> None:
    """A withdrawal's time has come, unless the network has made its jobs' windows longer since."""
    provider, _, record = key.partition("/")
    bond = bond_of(draft, provider)
    found = (bond.leaving or {}).get(record)
    if found is None:
        return
    later_ms = free_at_ms(found, job_settings(draft).answers_ms)
    if later_ms > at_ms:
        waits = withdrawal_record(replace(found, at_ms=later_ms))
        draft.set((BONDS, provider, "state", "leaving", record), waits)
        draft.after(later_ms, BOND_RETURNS, key)
        return
    draft.move(bond_account(provider), provider, paid_back(bond, record))
    draft.set((BONDS, provider, "state", "leaving", record), None)


def take_from_leaving(draft: Draft, provider: str, amount_uain: int) -> None:
    """Lets what is on its way out pay what is taken from a bond, as far as it goes; called before the money is moved."""
    bond = bond_of(draft, provider)
    left = left_of_leaving(bond, amount_uain)
    for record, one in (bond.leaving or {}).items():
        if record not in left:
            draft.no_longer(one.at_ms, BOND_RETURNS, f"{provider}/{record}")
            draft.set((BONDS, provider, "state", "leaving", record), None)
        elif left[record] != one:
            draft.set((BONDS, provider, "state", "leaving", record), withdrawal_record(left[record]))


def _provider(call: NativeCall) -> str:
    require_key(call.params["record"], "request")
    provider = call.params["provider"]
    # The tree finds an address in any case, but the bond's money is under its checksum form.
    if not is_checksum_address(provider):
        raise InvalidRecord(
            what="bond", member="its provider", reason="must be an address in its checksum form"
        )
    return provider


_WRITES = ((BONDS,), BOND_BALANCES)
NATIVES = (Native("_addToBond", _WRITES, add_to_bond), Native("_withdrawBond", _WRITES, withdraw_bond))
DUE_ACTIONS = (DueAction(BOND_RETURNS, _WRITES, return_bond),)
FUNCTIONS = {
    "/bonds/$provider/add/$record": "_addToBond",
    "/bonds/$provider/withdraw/$record": "_withdrawBond",
}
_IS_NEW = "data === null && newData !== null && util.checkValuePathLen(parsedValuePath, 4)"
RULES = {
    "/bonds": "false",
    "/bonds/$provider/add/$record": _IS_NEW,
    "/bonds/$provider/withdraw/$record": f"auth.addr === $provider && {_IS_NEW}",
    # Written by claims alone.
    "/records": "false",
}
