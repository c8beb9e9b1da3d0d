"""The supply as the sum over every holder: nothing is taken from a counter, so nothing can hide in one."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final, Protocol

from openresource.primitives.amounts import uain_of_number
from openresource.primitives.numbers import is_number
from openresource.primitives.paths import service_account_name

PEOPLE: Final = "accounts"
SERVICES: Final = "service_accounts"


class HoldersReader(Protocol):
    """The state below /values as an audit needs it."""

    def labels(self, *path: str) -> Iterable[str]:
        """The labels below a path; none if there is nothing."""

    def value(self, *path: str) -> Any:
        """The value at a path; None if there is none."""


@dataclass(frozen=True, slots=True)
class Holder:
    """One account with a balance; `kind` is `accounts` for people, else the service account's type."""

    account: str
    kind: str
    amount_uain: int


@dataclass(frozen=True, slots=True)
class Supply:
    """The sum of all balances, and who holds it by kind."""

    total_uain: int
    by_kind: Mapping[str, int]
    holders: int


def walk_holders(reader: HoldersReader) -> Iterator[Holder]:
    """Every account with a balance, people first; a caller with other work takes a few at a time."""
    for address in reader.labels(PEOPLE):
        balance = reader.value(PEOPLE, address, "balance")
        if is_number(balance):
            yield Holder(address, PEOPLE, uain_of_number(balance))
    for kind in reader.labels(SERVICES):
        for service in reader.labels(SERVICES, kind):
            for key in reader.labels(SERVICES, kind, service):
                balance = reader.value(SERVICES, kind, service, key, "balance")
                if is_number(balance):
                    account = service_account_name(kind, service, key)
                    yield Holder(account, kind, uain_of_number(balance))


def audit_supply(holders: Iterable[Holder]) -> Supply:
    """The sum over holders, in whole µAIN."""
    by_kind: dict[str, int] = {}
    count = 0
    for holder in holders:
        by_kind[holder.kind] = by_kind.get(holder.kind, 0) + holder.amount_uain
        count += 1
    return Supply(sum(by_kind.values()), by_kind, count)
