"""Bonds: money that a provider leaves with the chain as a pledge, and gets back some time after it asked.

The bond is the balance of the provider's account `deposits|market|bond:<address>`. A withdrawal stops counting at once
and is paid after a delay that is never shorter than what was settled before can be doubted and judged. What is locked for
running jobs cannot be withdrawn at all. So a bond is there for as long as anything can be shown against a run, and since
the delay is a number, nobody else can make it longer.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final

from openresource.market.codes import ResultCode
from openresource.market.fields import Fields
from openresource.primitives.amounts import UAIN_MAX, text_from_uain
from openresource.primitives.errors import Refusal

WITHDRAWALS_MAX: Final = 16
# So long an addition is told apart from what was there before: longer than a job is judged.
RECENT_MS: Final = 60 * 60 * 1000
RECENT_MAX: Final = 8
BOND_DELAY_MS_DEFAULT: Final = 24 * 60 * 60 * 1000


class BondOutOfRange(Refusal):
    result_code = ResultCode.BOND_OUT_OF_RANGE
    template = "A bond of {bond_uain} µAIN is not between 1 and {maximum_uain} µAIN."
    way_out = "Bond less."


class BondNotFree(Refusal):
    result_code = ResultCode.BOND_NOT_FREE
    template = "Of the bond of {provider} {free} AIN are free; {amount} AIN cannot be withdrawn{reason}."
    way_out = (
        "Withdraw at most what is free: not what is on its way already, nor what running jobs have locked."
    )


class TooManyWithdrawals(Refusal):
    result_code = ResultCode.TOO_MANY_WITHDRAWALS
    template = "{count} withdrawals of the bond of {provider} are on their way, as many as there may be."
    way_out = "Wait for one of them, or withdraw more at once."


@dataclass(frozen=True, slots=True)
class Withdrawal:
    """Some of a bond on its way back; it answers for runs that were settled before it was asked for."""

    amount_uain: int
    at_ms: int
    asked_at_ms: int = 0


@dataclass(frozen=True, slots=True)
class Bond:
    """A provider's pledge: all that is held, what of it is leaving, by the name of the request, and what jobs have locked.

    `recent` is what was added lately, by the time of it.
    """

    provider: str
    held_uain: int = 0
    leaving: Mapping[str, Withdrawal] | None = None
    locks: Mapping[str, int] = field(default_factory=dict)
    recent: Mapping[int, int] = field(default_factory=dict)

    @property
    def leaving_uain(self) -> int:
        return sum(one.amount_uain for one in (self.leaving or {}).values())

    @property
    def counted_uain(self) -> int:
        """What counts as the bond: held and not leaving."""
        return max(0, self.held_uain - self.leaving_uain)

    @property
    def free_uain(self) -> int:
        """What counts and is not locked for a job."""
        return max(0, self.counted_uain - sum(self.locks.values()))

    def counted_at(self, at_ms: int | None) -> int:
        """What counts without what was added after a time; with it, if no time is given.

        Who is drawn is drawn from the bonds that were there before the draw could be known: else a friend of one side
        would try names until one is drawn, and only then bond it.
        """
        late_uain = 0 if at_ms is None else sum(one for time, one in self.recent.items() if time > at_ms)
        return max(0, self.counted_uain - late_uain)


def with_addition(bond: Bond, amount_uain: int, at_ms: int) -> dict[int, int]:
    """What was added lately, with one more addition; where there are too many, the newest ones become one."""
    recent = {time: one for time, one in bond.recent.items() if time > at_ms - RECENT_MS}
    if at_ms not in recent and len(recent) >= RECENT_MAX:
        amount_uain += recent.pop(max(recent))
    recent[at_ms] = recent.get(at_ms, 0) + amount_uain
    return recent


def check_addition(bond: Bond, amount_uain: int) -> None:
    """Refuses a sum that no account can hold."""
    if not 1 <= bond.held_uain + amount_uain <= UAIN_MAX:
        raise BondOutOfRange(bond_uain=bond.held_uain + amount_uain, maximum_uain=UAIN_MAX)


def delay_ms(own_ms: int, answers_ms: int) -> int:
    """How long a withdrawal takes: what the network says, and never less than a run is answered for."""
    return max(own_ms, answers_ms)


def withdraw(bond: Bond, amount_uain: int, at_ms: int, wait_ms: int) -> Withdrawal:
    """A withdrawal of what is free, to be paid after a while."""
    count = len(bond.leaving or {})
    if count >= WITHDRAWALS_MAX:
        raise TooManyWithdrawals(provider=bond.provider, count=count)
    if amount_uain > bond.free_uain:
        raise BondNotFree(
            provider=bond.provider,
            free=text_from_uain(bond.free_uain),
            amount=text_from_uain(amount_uain),
            reason=_why_not_free(bond),
        )
    return Withdrawal(amount_uain, at_ms + wait_ms, at_ms)


def free_at_ms(withdrawal: Withdrawal, answers_ms: int) -> int:
    """When a withdrawal is paid: later than was said only if runs are answered for longer now than when it was asked for."""
    return max(withdrawal.at_ms, withdrawal.asked_at_ms + answers_ms)


def left_of_leaving(bond: Bond, taken_uain: int) -> dict[str, Withdrawal]:
    """What is on its way out after something was taken from a bond: that pays first, the soonest before all.

    Else what stays, which answers for what its provider runs since, would pay for what was before.
    """
    left = dict(bond.leaving or {})
    for name, one in sorted(left.items(), key=lambda item: (item[1].at_ms, item[0])):
        part_uain = min(taken_uain, one.amount_uain)
        taken_uain -= part_uain
        left[name] = replace(one, amount_uain=one.amount_uain - part_uain)
    return {name: one for name, one in left.items() if one.amount_uain}


def paid_back(bond: Bond, record: str) -> int:
    """What a withdrawal pays when its time has come: never more than is there."""
    found = (bond.leaving or {}).get(record)
    return min(found.amount_uain, bond.held_uain) if found is not None else 0


def read_bond(provider: str, record: Any, held_uain: int) -> Bond:
    """A bond from its record at `/bonds/<provider>/state` and the balance of its account."""
    if record is None:
        return Bond(provider, held_uain)
    fields = Fields(record, "bond")
    entries = fields.take("leaving") or {}
    leaving = {}
    for name, entry in entries.items():
        one = Fields(entry, "withdrawal")
        at_ms = one.integer("at_ms")
        asked_at_ms = one.optional_integer("asked_at_ms", at_ms)
        leaving[str(name)] = Withdrawal(one.amount("amount_uain"), at_ms, asked_at_ms)
    locks = fields.take("locks") or {}
    recent = fields.take("recent") or {}
    return Bond(
        provider,
        held_uain,
        leaving,
        {str(job): int(amount) for job, amount in locks.items()},
        {int(time): int(amount) for time, amount in recent.items()},
    )


def withdrawal_record(withdrawal: Withdrawal) -> dict[str, Any]:
    """What the chain writes at `/bonds/<provider>/state/leaving/<record>`."""
    return {
        "amount_uain": withdrawal.amount_uain,
        "at_ms": withdrawal.at_ms,
        "asked_at_ms": withdrawal.asked_at_ms,
    }


def _why_not_free(bond: Bond) -> str:
    """What the rest of a bond waits for, in words that end a sentence."""
    reasons = []
    if bond.locks:
        count = len(bond.locks)
        jobs = (
            "1 running job until its verdict" if count == 1 else f"{count} running jobs until their verdicts"
        )
        reasons.append(f"{text_from_uain(sum(bond.locks.values()))} AIN are locked for {jobs}")
    if bond.leaving:
        last_ms = max(one.at_ms for one in bond.leaving.values())
        reasons.append(f"{text_from_uain(bond.leaving_uain)} AIN are on their way, the last until {last_ms}")
    return f": {' and '.join(reasons)}" if reasons else ""
