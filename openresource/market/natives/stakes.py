"""Staking and unstaking: money that gives its owner a say, and comes back after a delay."""

from __future__ import annotations

from openresource.ledger.draft import Draft, DueAction, Native, NativeCall
from openresource.market.accounts import BOND_BALANCES, stake_account
from openresource.market.fields import Fields, InvalidRecord, require_key
from openresource.market.natives.parameters import KILL_VOTE_MS, STAKE_DELAY_MS, parameter
from openresource.market.stakes import Stake, paid_out, read_stake, stake_more, stake_record, unstake
from openresource.primitives.keys import is_checksum_address
from openresource.primitives.numbers import is_integer

STAKES = "stakes"
STAKED = "staked"
STAKE_RETURNS = "stake_returns"


def stake_of(draft: Draft, address: str) -> Stake:
    """Somebody's stake as the chain has it now."""
    return read_stake(address, draft.get(STAKES, address, "state"), draft.balance(stake_account(address)))


def all_stake_uain(draft: Draft) -> int:
    """What counts of all stakes together."""
    total = draft.get(STAKED, "total_uain")
    return int(total) if is_integer(total) else 0


def add_to_stake(draft: Draft, call: NativeCall) -> None:
    """Moves the signer's money into its stake."""
    before = stake_of(draft, _owner(call))
    amount = _amount(call, "addition to a stake")
    after = stake_more(before, amount, call.at)
    draft.move(call.signer, stake_account(before.address), amount)
    _store(draft, before, after)
    draft.set(call.path, None)


def withdraw_stake(draft: Draft, call: NativeCall) -> None:
    """Takes some of a stake out of what counts, and pays it after the delay."""
    before, record = stake_of(draft, _owner(call)), call.params["record"]
    amount = _amount(call, "withdrawal of a stake")
    if record in before.leaving:
        raise InvalidRecord(what="withdrawal", member="its key", reason="names one that is on its way")
    # What voted stays at least until that vote is counted.
    delay_ms = max(parameter(draft, STAKE_DELAY_MS), parameter(draft, KILL_VOTE_MS))
    after = unstake(before, record, amount, call.at, delay_ms)
    _store(draft, before, after)
    draft.after(after.leaving[record].at_ms, STAKE_RETURNS, f"{before.address}/{record}")
    draft.set(call.path, None)


def return_stake(draft: Draft, key: str, at_ms: int) -> None:
    """A withdrawal's time has come."""
    address, _, record = key.partition("/")
    before = stake_of(draft, address)
    after, amount = paid_out(before, record)
    if after is before:
        return
    draft.move(stake_account(address), address, amount)
    _store(draft, before, after)


def _store(draft: Draft, before: Stake, after: Stake) -> None:
    # What counts is what is held without what is leaving, whichever of the two has changed.
    draft.set((STAKED, "total_uain"), all_stake_uain(draft) + after.counted_uain - before.counted_uain)
    draft.set((STAKES, after.address, "state"), stake_record(after))


def _amount(call: NativeCall, what: str) -> int:
    fields = Fields(call.value, what)
    amount = fields.amount("amount_uain", 1)
    fields.finish()
    return amount


def _owner(call: NativeCall) -> str:
    require_key(call.params["record"], "request")
    address = call.params["address"]
    # The tree finds an address in any case, but the stake's money is under its checksum form.
    if not is_checksum_address(address):
        raise InvalidRecord(
            what="stake", member="its owner", reason="must be an address in its checksum form"
        )
    return address


_WRITES = ((STAKES,), (STAKED,), BOND_BALANCES)
NATIVES = (Native("_stakeCoins", _WRITES, add_to_stake), Native("_withdrawStake", _WRITES, withdraw_stake))
DUE_ACTIONS = (DueAction(STAKE_RETURNS, _WRITES, return_stake),)
FUNCTIONS = {
    "/stakes/$address/add/$record": "_stakeCoins",
    "/stakes/$address/withdraw/$record": "_withdrawStake",
}
_IS_OWNERS = "auth.addr === $address && data === null && newData !== null && util.checkValuePathLen(parsedValuePath, 4)"
RULES = {
    "/stakes": "false",
    "/stakes/$address/add/$record": _IS_OWNERS,
    "/stakes/$address/withdraw/$record": _IS_OWNERS,
    # The sum of what counts, written by staking alone.
    "/staked": "false",
}
