"""Machines that open to people: what one offers, who may enter it, and until when.

A machine is named by the address of its wallet. Its owner enters at any time, guests as long as the owner says, tenants
as long as they have paid.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import urlsplit

from openresource.market.codes import ResultCode
from openresource.market.fields import Fields
from openresource.market.hardware import NOTHING_SAID, Hardware, hardware_record, read_hardware, read_word
from openresource.market.placements import (
    ENDPOINT_CHARACTERS_MAX,
    ISOLATION_LEVELS,
    EndpointNotAccepted,
    is_loopback,
)
from openresource.market.placements import LOCAL_CHAIN_ID as LOCAL
from openresource.market.ssh_keys import read_public_key
from openresource.primitives.amounts import split_ppm
from openresource.primitives.errors import Refusal

SCHEME: Final = "ssh"
MINUTE_MS: Final = 60_000
# Nobody rents for longer at once, whatever a machine offers.
MINUTES_MAX: Final = 60 * 24 * 366
MINUTES_MAX_DEFAULT: Final = 60 * 24
GUESTS_MAX: Final = 256
# An owner's right has no end.
NO_END_MS: Final = 0

OWNER: Final = "owner"
GUEST: Final = "guest"
TENANT: Final = "tenant"


class MachineMissing(Refusal):
    result_code = ResultCode.MACHINE_MISSING
    template = "No machine {machine} opens to anybody."
    way_out = "`openresource shell` lists those that do."


class MachineNotForRent(Refusal):
    result_code = ResultCode.MACHINE_NOT_FOR_RENT
    template = "The machine {machine} is not for rent."
    way_out = "Ask its owner {owner} to admit you: openresource shell {machine} --admit ADDRESS."


class RentChanged(Refusal):
    result_code = ResultCode.RENT_CHANGED
    template = "The machine {machine} costs {price_uain} µAIN a minute now; you offered {offered_uain}."
    way_out = "Look at the price again and decide anew; nothing was paid."


class RentalOutOfRange(Refusal):
    result_code = ResultCode.RENTAL_OUT_OF_RANGE
    template = "A rental until {until_ms} is not between {earliest_ms} and {latest_ms}."
    way_out = "Rent for at least a minute and at most {minutes_max} minutes from now."


class TooManyGuests(Refusal):
    result_code = ResultCode.TOO_MANY_GUESTS
    template = "The machine {machine} has {count} guests already, as many as there may be."
    way_out = "Dismiss one first: openresource shell {machine} --dismiss ADDRESS."


@dataclass(frozen=True, slots=True)
class MachineOffer:
    """What a machine's wallet says of it. `price_uain` is for a minute; None means that it is not for rent."""

    machine: str
    owner: str
    endpoint: str
    host_key: str
    isolation: str
    name: str = ""
    price_uain: int | None = None
    minutes_max: int = MINUTES_MAX_DEFAULT
    hardware: Hardware = NOTHING_SAID
    region: str = ""
    at_ms: int = 0

    @property
    def host(self) -> str:
        """The host of the endpoint."""
        return urlsplit(self.endpoint).hostname or ""

    @property
    def port(self) -> int:
        """The port of the endpoint."""
        return urlsplit(self.endpoint).port or 0


@dataclass(frozen=True, slots=True)
class Rent:
    """What a rental costs and until when it lasts."""

    until_ms: int
    cost_uain: int
    fee_uain: int


@dataclass(frozen=True, slots=True)
class Tenancy:
    """A paid right to enter, as the chain keeps it."""

    until_ms: int
    paid_uain: int = 0


@dataclass(frozen=True, slots=True)
class Right:
    """Why somebody may enter, and until when; 0 is without an end."""

    kind: str
    until_ms: int

    def holds_at(self, at_ms: int) -> bool:
        """Whether it is still good."""
        return self.until_ms == NO_END_MS or at_ms < self.until_ms


def right_of(offer: MachineOffer, guest: Any, tenant: Any, address: str, at_ms: int) -> Right | None:
    """The right of an address by the chain's records; the longest if it has several, None if it has none."""
    if address in (offer.owner, offer.machine):
        return Right(OWNER, NO_END_MS)
    found = []
    if guest is not None:
        found.append(Right(GUEST, read_guest(guest)))
    if tenant is not None:
        found.append(Right(TENANT, read_tenancy(tenant).until_ms))
    good = [right for right in found if right.holds_at(at_ms)]
    return max(good, key=lambda right: right.until_ms, default=None)


def rent(
    offer: MachineOffer, before: Tenancy | None, minutes: int, offered_uain: int, at_ms: int, fee_ppm: int
) -> Rent:
    """A rental's cost and end: it begins now, or where the paid time ends."""
    if offer.price_uain is None:
        raise MachineNotForRent(machine=offer.machine, owner=offer.owner)
    if offered_uain != offer.price_uain:
        raise RentChanged(machine=offer.machine, price_uain=offer.price_uain, offered_uain=offered_uain)
    begins_ms = max(at_ms, before.until_ms) if before is not None else at_ms
    until_ms = begins_ms + minutes * MINUTE_MS
    latest_ms = at_ms + offer.minutes_max * MINUTE_MS
    if minutes < 1 or until_ms > latest_ms:
        raise RentalOutOfRange(
            until_ms=until_ms,
            earliest_ms=at_ms + MINUTE_MS,
            latest_ms=latest_ms,
            minutes_max=offer.minutes_max,
        )
    cost_uain = minutes * offer.price_uain
    return Rent(until_ms, cost_uain, split_ppm(cost_uain, fee_ppm)[0])


def read_machine(machine: str, record: Any) -> MachineOffer:
    """A machine's offer from its record at `/machines/<machine>/offer`."""
    fields = Fields(record, "machine")
    offer = MachineOffer(
        machine=machine,
        owner=fields.address("owner"),
        endpoint=fields.text("endpoint", ENDPOINT_CHARACTERS_MAX),
        host_key=read_public_key(fields.text("host_key")).text,
        isolation=fields.choice("isolation", tuple(ISOLATION_LEVELS)),
        name=read_word(fields, "name"),
        price_uain=fields.amount("price_uain") if fields.has("price_uain") else None,
        minutes_max=fields.optional_integer("minutes_max", MINUTES_MAX_DEFAULT, 1, MINUTES_MAX),
        hardware=read_hardware(fields.take("hardware")),
        region=read_word(fields, "region"),
        at_ms=fields.optional_integer("at_ms", 0),
    )
    fields.take("price_uain")
    fields.finish()
    return offer


def machine_record(offer: MachineOffer) -> dict[str, Any]:
    """The record that a machine's wallet writes; the chain stamps its time."""
    members: dict[str, Any] = {
        "owner": offer.owner,
        "endpoint": offer.endpoint,
        "host_key": offer.host_key,
        "isolation": offer.isolation,
        "minutes_max": offer.minutes_max,
    }
    if offer.price_uain is not None:
        members["price_uain"] = offer.price_uain
    if offer.hardware != NOTHING_SAID:
        members["hardware"] = hardware_record(offer.hardware)
    more = {"name": offer.name, "region": offer.region}
    return members | {name: value for name, value in more.items() if value}


def read_guest(record: Any) -> int:
    """Until when a guest may enter, from the record at `/machines/<machine>/guests/<address>`."""
    fields = Fields(record, "guest")
    until_ms = fields.integer("until_ms", 1)
    fields.finish()
    return until_ms


def read_tenancy(record: Any) -> Tenancy:
    """A paid right from the record at `/machines/<machine>/tenants/<address>`."""
    fields = Fields(record, "tenancy")
    return Tenancy(fields.integer("until_ms"), fields.amount("paid_uain"))


def tenancy_record(tenancy: Tenancy) -> dict[str, Any]:
    """What the chain writes at `/machines/<machine>/tenants/<address>`."""
    return {"until_ms": tenancy.until_ms, "paid_uain": tenancy.paid_uain}


def check_machine_endpoint(endpoint: str, chain_id: int) -> None:
    """Refuses what is not ssh://host:port; loopback is for the network local."""
    try:
        parts = urlsplit(endpoint)
        host, port = parts.hostname or "", parts.port or 0
    except ValueError:
        raise EndpointNotAccepted(endpoint=endpoint, reason="it cannot be read") from None
    shown = f"[{host}]" if ":" in host else host
    if not host or not port or endpoint != f"{SCHEME}://{shown}:{port}":
        raise EndpointNotAccepted(
            endpoint=endpoint, reason="a shell's must be exactly ssh://host:port, in lower case"
        )
    if chain_id != LOCAL and is_loopback(host):
        raise EndpointNotAccepted(
            endpoint=endpoint, reason="a loopback host is reachable from one machine only"
        )
