"""Offering a machine, admitting guests, renting it, and vouching for keys."""

from __future__ import annotations

from openresource.ledger.draft import Draft, DueAction, Native, NativeCall
from openresource.market.accounts import TREASURY
from openresource.market.fields import Fields, InvalidRecord, require_key
from openresource.market.machines import (
    GUESTS_MAX,
    MINUTES_MAX,
    MachineMissing,
    MachineOffer,
    Tenancy,
    TooManyGuests,
    check_machine_endpoint,
    read_guest,
    read_machine,
    read_tenancy,
    rent,
    tenancy_record,
)
from openresource.market.natives.parameters import FEE_PPM, parameter
from openresource.market.ssh_keys import KEYS_MAX, TooManySshKeys, read_ssh_key
from openresource.primitives.keys import is_checksum_address

MACHINES = "machines"
SSH_KEYS = "ssh_keys"
RIGHT_ENDS = "right_ends"


def offer_machine(draft: Draft, call: NativeCall) -> None:
    """Checks what a machine says of itself; a new owner begins without the guests of the last one."""
    machine = _address(call.params["machine"], "machine")
    if call.value is None:
        draft.set((MACHINES, machine, "guests"), None)
        return
    offer = read_machine(machine, call.value)
    check_machine_endpoint(offer.endpoint, call.network.chain_id)
    if isinstance(call.previous, dict) and call.previous.get("owner") != offer.owner:
        draft.set((MACHINES, machine, "guests"), None)
    draft.set((*call.path, "at_ms"), call.at)


def admit_guest(draft: Draft, call: NativeCall) -> None:
    """Lets a guest in until a time; deleting the record shows it out."""
    machine = _address(call.params["machine"], "machine")
    address = _address(call.params["address"], "guest")
    _offer(draft, machine)
    if call.value is None:
        return
    until_ms = read_guest(call.value)
    if until_ms <= call.at:
        raise InvalidRecord(what="guest", member="until_ms", reason="must be a time that has not passed")
    guests = draft.get(MACHINES, machine, "guests") or {}
    # The one that was just written counts.
    if len(guests) > GUESTS_MAX:
        raise TooManyGuests(machine=machine, count=len(guests) - 1)
    draft.after(until_ms, RIGHT_ENDS, f"{machine}/guests/{address}/{until_ms}")


def rent_machine(draft: Draft, call: NativeCall) -> None:
    """Takes the rent, the market's fee for the treasury and the rest for the owner, and lets the tenant in."""
    machine = _address(call.params["machine"], "machine")
    require_key(call.params["record"], "request")
    fields = Fields(call.value, "rental")
    minutes = fields.integer("minutes", 1, MINUTES_MAX)
    offered_uain = fields.amount("price_uain")
    fields.finish()
    offer = _offer(draft, machine)
    path = (MACHINES, machine, "tenants", call.signer)
    record = draft.get(*path)
    before = None if record is None else read_tenancy(record)
    rental = rent(offer, before, minutes, offered_uain, call.at, parameter(draft, FEE_PPM))
    draft.move(call.signer, TREASURY, rental.fee_uain)
    draft.move(call.signer, offer.owner, rental.cost_uain - rental.fee_uain)
    paid_uain = (before.paid_uain if before is not None else 0) + rental.cost_uain
    draft.set(path, tenancy_record(Tenancy(rental.until_ms, paid_uain)))
    draft.after(rental.until_ms, RIGHT_ENDS, f"{machine}/tenants/{call.signer}/{rental.until_ms}")
    draft.set(call.path, None)


def end_right(draft: Draft, key: str, at_ms: int) -> None:
    """Takes away a right that has ended; one that was lengthened has a later entry of its own."""
    machine, kind, address, until_ms = key.split("/")
    record = draft.get(MACHINES, machine, kind, address)
    if isinstance(record, dict) and record.get("until_ms") == int(until_ms):
        draft.set((MACHINES, machine, kind, address), None)


def vouch_for_key(draft: Draft, call: NativeCall) -> None:
    """Checks a key that a wallet vouches for; deleting the record takes the word back."""
    address = _address(call.params["address"], "wallet")
    if call.value is None:
        return
    read_ssh_key(call.params["fingerprint"], call.value)
    keys = draft.get(SSH_KEYS, address) or {}
    if len(keys) > KEYS_MAX:
        raise TooManySshKeys(address=address, count=len(keys) - 1)
    draft.set((*call.path, "at_ms"), call.at)


def _offer(draft: Draft, machine: str) -> MachineOffer:
    record = draft.get(MACHINES, machine, "offer")
    if record is None:
        raise MachineMissing(machine=machine)
    return read_machine(machine, record)


def _address(text: str, what: str) -> str:
    # The tree finds an address in any case; records that belong together use one spelling.
    if not is_checksum_address(text):
        raise InvalidRecord(what=what, member="its address", reason="must be in its checksum form")
    return text


_MACHINES_ONLY = ((MACHINES,),)
NATIVES = (
    Native("_offerMachine", _MACHINES_ONLY, offer_machine),
    Native("_admitGuest", _MACHINES_ONLY, admit_guest),
    Native("_rentMachine", _MACHINES_ONLY, rent_machine),
    Native("_vouchForKey", ((SSH_KEYS,),), vouch_for_key),
)
DUE_ACTIONS = (DueAction(RIGHT_ENDS, _MACHINES_ONLY, end_right),)
FUNCTIONS = {
    "/machines/$machine/offer": "_offerMachine",
    "/machines/$machine/guests/$address": "_admitGuest",
    "/machines/$machine/rentals/$record": "_rentMachine",
    "/ssh_keys/$address/$fingerprint": "_vouchForKey",
}
_IS_OWNERS = "getValue('/machines/' + $machine + '/offer/owner') === auth.addr"
RULES = {
    "/machines": "false",
    "/machines/$machine/offer": "auth.addr === $machine && util.checkValuePathLen(parsedValuePath, 3)",
    "/machines/$machine/guests/$address": f"{_IS_OWNERS} && util.checkValuePathLen(parsedValuePath, 4)",
    "/machines/$machine/rentals/$record": "data === null && newData !== null"
    " && util.checkValuePathLen(parsedValuePath, 4)",
    "/ssh_keys": "false",
    "/ssh_keys/$address/$fingerprint": "auth.addr === $address && util.checkValuePathLen(parsedValuePath, 3)",
}
