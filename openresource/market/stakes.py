"""Stakes: money that lies with the chain and gives its owner a say, and the weight it has in one vote.

A stake is the balance of `deposits|market|stake:<address>`; what is being withdrawn counts no more. A vote is weighed by
what was staked before it began and has been staked ever since, so that no coin can vote twice: one that leaves an
address after the beginning cannot count at another. The chain keeps the steps of each stake for as long as the longest
vote lasts.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final

from openresource.market.bonds import Withdrawal
from openresource.market.codes import ResultCode
from openresource.market.fields import Fields
from openresource.primitives.amounts import UAIN_MAX, text_from_uain
from openresource.primitives.errors import Refusal

LEAVING_MAX: Final = 16
STEPS_MAX: Final = 64
STAKE_DELAY_MS_DEFAULT: Final = 7 * 24 * 60 * 60 * 1000
# No vote is longer, so that steps before need not be kept.
VOTE_MS_MAX: Final = 30 * 24 * 60 * 60 * 1000


class StakeOutOfRange(Refusal):
    result_code = ResultCode.STAKE_OUT_OF_RANGE
    template = "A stake of {stake_uain} µAIN is not between 1 and {maximum_uain} µAIN."
    way_out = "Stake less."


class StakeNotFree(Refusal):
    result_code = ResultCode.STAKE_NOT_FREE
    template = "Of the stake of {address} {free} AIN are free; {amount} AIN cannot be withdrawn."
    way_out = "Withdraw at most what is free; what was asked for before is on its way already."


class StakeChangedTooOften(Refusal):
    result_code = ResultCode.STAKE_CHANGED_TOO_OFTEN
    template = "The stake of {address} has {count} {what}, as many as there may be."
    way_out = "Wait for the oldest of them to end, or change more at once."


@dataclass(frozen=True, slots=True)
class Stake:
    """What somebody has staked: all that is held, what of it is leaving, and what counted from when on."""

    address: str
    held_uain: int = 0
    leaving: Mapping[str, Withdrawal] = field(default_factory=dict)
    steps: Mapping[int, int] = field(default_factory=dict)

    @property
    def counted_uain(self) -> int:
        """What counts as the stake: held and not leaving."""
        return max(0, self.held_uain - sum(one.amount_uain for one in self.leaving.values()))


def weight_uain(stake: Stake, began_at_ms: int) -> int:
    """The weight in a vote: what was staked before it began and has been staked ever since."""
    before = [at_ms for at_ms in stake.steps if at_ms < began_at_ms]
    if not before:
        return 0
    since = max(before)
    lowest = min(amount for at_ms, amount in stake.steps.items() if at_ms >= since)
    return min(lowest, stake.counted_uain)


def stake_more(stake: Stake, amount_uain: int, at_ms: int) -> Stake:
    """The stake after money was added."""
    if not 1 <= stake.held_uain + amount_uain <= UAIN_MAX:
        raise StakeOutOfRange(stake_uain=stake.held_uain + amount_uain, maximum_uain=UAIN_MAX)
    return _step(replace(stake, held_uain=stake.held_uain + amount_uain), at_ms)


def unstake(stake: Stake, record: str, amount_uain: int, at_ms: int, delay_ms: int) -> Stake:
    """The stake after a withdrawal was asked for: it counts no more at once, and is paid after the delay."""
    if len(stake.leaving) >= LEAVING_MAX:
        raise StakeChangedTooOften(
            address=stake.address, count=len(stake.leaving), what="withdrawals on their way"
        )
    if amount_uain > stake.counted_uain:
        raise StakeNotFree(
            address=stake.address,
            free=text_from_uain(stake.counted_uain),
            amount=text_from_uain(amount_uain),
        )
    leaving = {**stake.leaving, record: Withdrawal(amount_uain, at_ms + delay_ms)}
    return _step(replace(stake, leaving=leaving), at_ms)


def paid_out(stake: Stake, record: str) -> tuple[Stake, int]:
    """The stake after a withdrawal's time has come, and what is paid; what counts does not change by it."""
    found = stake.leaving.get(record)
    if found is None:
        return stake, 0
    amount_uain = min(found.amount_uain, stake.held_uain)
    leaving = {name: one for name, one in stake.leaving.items() if name != record}
    return replace(stake, held_uain=stake.held_uain - amount_uain, leaving=leaving), amount_uain


def read_stake(address: str, record: Any, held_uain: int) -> Stake:
    """A stake from its record at `/stakes/<address>/state` and the balance of its account."""
    if record is None:
        return Stake(address, held_uain)
    fields = Fields(record, "stake")
    leaving = {}
    for name, entry in (fields.take("leaving") or {}).items():
        one = Fields(entry, "withdrawal")
        leaving[str(name)] = Withdrawal(one.amount("amount_uain"), one.integer("at_ms"))
    steps = {int(at_ms): int(amount) for at_ms, amount in (fields.take("steps") or {}).items()}
    return Stake(address, held_uain, leaving, steps)


def stake_record(stake: Stake) -> dict[str, Any]:
    """What the chain writes at `/stakes/<address>/state`."""
    members: dict[str, Any] = {"amount_uain": stake.counted_uain}
    if stake.leaving:
        members["leaving"] = {
            name: {"amount_uain": one.amount_uain, "at_ms": one.at_ms} for name, one in stake.leaving.items()
        }
    if stake.steps:
        members["steps"] = {str(at_ms): amount for at_ms, amount in stake.steps.items()}
    return members


def _step(stake: Stake, at_ms: int) -> Stake:
    """Writes down what counts from now on, and forgets what no vote can ask for any more."""
    steps = {**stake.steps, at_ms: stake.counted_uain}
    old = [one for one in steps if one <= at_ms - VOTE_MS_MAX]
    first = max(old) if old else 0
    steps = {one: amount for one, amount in steps.items() if one >= first}
    if len(steps) > STEPS_MAX:
        raise StakeChangedTooOften(address=stake.address, count=STEPS_MAX, what="changes within 30 days")
    return replace(stake, steps=steps)
