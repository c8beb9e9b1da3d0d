"""Allowances: how much a call may spend on calls of other services, how deep those may nest, and whom they may reach.

All calls below one call of a buyer are a tree with one budget. Each call in it has a `Spending`, and what a call below
may cost is set aside in its own and in that of every call above it before it is made, so that however many run at once,
fail or vanish, no part of the tree costs more than it was given.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

from openresource.primitives.amounts import UAIN_MAX, uain_from_text
from openresource.primitives.errors import InvalidInput, Refusal

DEPTH_DEFAULT: Final = 1
DEPTH_MAX: Final = 8
SERVICES_MAX: Final = 16
# Calls of one whole tree; those of one program are bounded by what a receipt lists.
TREE_CALLS_MAX: Final = 256
LINE_SECRET_BYTES: Final = 32
HEADER_BYTES_MAX: Final = 4_400
# In a list of services: whichever the program likes.
ANY_SERVICE: Final = "any"

_SERVICE = re.compile(r"(?:0x[0-9a-fA-F]{40}/)?[a-z0-9][a-z0-9-]{0,62}(?:@[0-9A-Za-z.+-]{1,128})?")
_HEADER = re.compile(rb"([0-9a-f]{64}|-);(0|[1-9][0-9]{0,15});([0-9])(?:;([0-9A-Za-z/@.,+-]+))?")


class NoAllowance(Refusal):
    template = "This call came without an allowance, so it may not call {service}."
    way_out = "Its caller gives one: openresource call … --allow AMOUNT. Jobs and test calls have none."


class AllowanceUsedUp(Refusal):
    template = "{service} costs {required_uain} µAIN; {left_uain} µAIN of the allowance of {budget_uain} µAIN are left."
    way_out = "Do without, or have the caller allow more: openresource call … --allow AMOUNT"


class AllowanceDepthReached(Refusal):
    template = "{service} would be a call below a call {depth} deep, and the allowance reaches no deeper."
    way_out = "Have the caller allow it: openresource call … --depth N, at most {depth_max}."


class CallsInCircle(Refusal):
    template = "{service} is at work above this call already: {chain}."
    way_out = "A service may not call itself by way of others; pass what it needs down instead."


class ServiceNotAllowed(Refusal):
    template = "The caller allowed calls of {allowed}, not of {service}."
    way_out = "Have the caller name it too: openresource call … --allow-service {service}"


class ServiceNotDeclared(Refusal):
    template = "The program declares calls of {declared}, not of {service}."
    way_out = "Its publisher names what it calls in openresource.toml: [calls] services = […]."


class ServiceNotForEveryone(Refusal):
    template = "{service} is not open to everyone, and the caller did not name it."
    way_out = "Who may call it allows that by name: openresource call … --allow-service {service}"


class TooManyInnerCalls(Refusal):
    template = "{calls} calls of other services were made below {what}; at most {calls_max} may be."
    way_out = "Ask for more at once, or split the work over several calls."


@dataclass(frozen=True, slots=True)
class Allowance:
    """What a buyer gives a call: no services named means every one that is open to everyone."""

    budget_uain: int
    depth: int = DEPTH_DEFAULT
    services: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Spending:
    """One call of a tree: what the calls below it have cost, and what those under way may cost."""

    budget_uain: int
    spent_uain: int = 0
    reserved_uain: int = 0

    @property
    def left_uain(self) -> int:
        """What may be set aside for one more call."""
        return self.budget_uain - self.spent_uain - self.reserved_uain


@dataclass(frozen=True, slots=True)
class Link:
    """A call on the way from the buyer down to the one that asks."""

    service: str
    program: str


# From the buyer's own call down to the one that asks.
Way = tuple[Spending, ...]
Chain = tuple[Link, ...]


def checked_allowance(budget_uain: int, depth: int, services: tuple[str, ...] = ()) -> Allowance:
    """An allowance within its bounds."""
    if not 0 <= budget_uain <= UAIN_MAX:
        raise _invalid(f"its budget is not from 0 to {UAIN_MAX} µAIN")
    if not 0 <= depth <= DEPTH_MAX:
        raise _invalid(f"its depth is not from 0 to {DEPTH_MAX}")
    if len(services) > SERVICES_MAX:
        raise _invalid(f"it names more than {SERVICES_MAX} services")
    for service in services:
        if not is_service_text(service):
            raise _invalid(f"{service[:80]!r} is not a service: name, publisher/name, either with @version")
    return Allowance(budget_uain, depth, services)


def allow(amount: str, *, depth: int = DEPTH_DEFAULT, services: Sequence[str] = ()) -> Allowance:
    """An allowance from a text of AIN: what a buyer says in a program."""
    return checked_allowance(uain_from_text(amount), depth, tuple(services))


def is_service_text(text: str) -> bool:
    """Whether a text may say which service is meant."""
    return _SERVICE.fullmatch(text) is not None


def left_uain(way: Way) -> int:
    """What a call may spend now: no more than any call above it has left."""
    return min(spending.left_uain for spending in way)


def reserve(way: Way, price_uain: int, service: str) -> Way:
    """Sets a price aside in every call from the buyer's down to the one that asks."""
    for spending in way:
        if price_uain > spending.left_uain:
            raise AllowanceUsedUp(
                service=service,
                required_uain=price_uain,
                left_uain=left_uain(way),
                budget_uain=spending.budget_uain,
            )
    return tuple(replace(one, reserved_uain=one.reserved_uain + price_uain) for one in way)


def settle(way: Way, reserved_uain: int, cost_uain: int) -> Way:
    """What was set aside is spent as far as it was charged, or may be yet; the rest is free again."""
    assert 0 <= cost_uain <= reserved_uain
    assert all(one.reserved_uain >= reserved_uain for one in way), "only what was set aside is settled"
    return tuple(
        replace(
            one,
            spent_uain=one.spent_uain + cost_uain,
            reserved_uain=one.reserved_uain - reserved_uain,
        )
        for one in way
    )


def check_depth(allowance: Allowance, chain: Chain, service: str) -> None:
    """Refuses a call below the last that the buyer allowed; the buyer's own call is the first of the chain."""
    if len(chain) > allowance.depth:
        raise AllowanceDepthReached(service=service, depth=len(chain), depth_max=DEPTH_MAX)


def check_declared(declared: tuple[str, ...], asked: str, service: str) -> None:
    """Refuses a service that the program's manifest does not name."""
    if not names_service(declared, asked, service):
        raise ServiceNotDeclared(service=service, declared=", ".join(declared) or "no services")


def check_service(
    allowance: Allowance, chain: Chain, asked: str, link: Link, *, is_for_everyone: bool
) -> None:
    """Refuses a service that the buyer did not mean, or that is at work above already.

    A buyer may have rights that a program's publisher lacks, so what is not open to everyone has to be named.
    """
    if any(link.service == one.service or link.program == one.program for one in chain):
        names = " → ".join(one.service for one in (*chain, link))
        raise CallsInCircle(service=link.service, chain=names)
    is_named = names_service(allowance.services, asked, link.service)
    if allowance.services and not is_named:
        raise ServiceNotAllowed(service=link.service, allowed=", ".join(allowance.services))
    if not is_for_everyone and not is_named:
        raise ServiceNotForEveryone(service=link.service)


def names_service(listed: tuple[str, ...], asked: str, service: str) -> bool:
    """Whether a list of texts names a service, found as `asked` and called `publisher/name`."""
    name = service.rpartition("/")[2]
    for text in listed:
        wanted, _, version = text.partition("@")
        if version and text != asked:
            continue
        if wanted == ANY_SERVICE or wanted in (name, service):
            return True
    return False


def check_count(calls: int, calls_max: int, what: str) -> None:
    """Refuses one call too many below a program or below the buyer's call."""
    if calls >= calls_max:
        raise TooManyInnerCalls(calls=calls, calls_max=calls_max, what=what)


@dataclass(frozen=True, slots=True)
class Grant:
    """An allowance as a gateway hears of it: by which line it reaches the caller, and how much is left to whom."""

    line: bytes
    allowance: Allowance


def grant_header(grant: Grant) -> str:
    """The OpenResource-Allowance header; without a line there is nobody to ask, and the program hears why."""
    allowance = grant.allowance
    parts = [grant.line.hex() or "-", str(allowance.budget_uain), str(allowance.depth)]
    if allowance.services:
        parts.append(",".join(allowance.services))
    return ";".join(parts)


def parse_grant(header: bytes) -> Grant:
    """A grant from outside."""
    match = _HEADER.fullmatch(header) if len(header) <= HEADER_BYTES_MAX else None
    if match is None:
        raise InvalidInput(
            what="OpenResource-Allowance header",
            reason="it is not <64 hex digits>;<µAIN>;<depth>[;<service>,…]",
        )
    services = tuple(match[4].decode().split(",", SERVICES_MAX)) if match[4] else ()
    allowance = checked_allowance(int(match[2]), int(match[3]), services)
    return Grant(b"" if match[1] == b"-" else bytes.fromhex(match[1].decode()), allowance)


def _invalid(reason: str) -> InvalidInput:
    return InvalidInput(
        what="allowance",
        reason=reason,
        remedy="Give an amount of AIN, a depth and names of services, such as --allow 0.01 --depth 1.",
    )
