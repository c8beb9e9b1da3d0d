"""Where each coin of an owner is, what it waits for, and when it returns: a view over records of the chain."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from openresource.market.bonds import Bond
from openresource.market.channels import channel_name, read_channel
from openresource.market.holds import has_expired, read_hold
from openresource.market.jobs import (
    COMMITTED,
    DISPUTED,
    DRAWN,
    JUDGING,
    LEASED,
    REQUESTED,
    REVEALING,
    read_job_state,
)
from openresource.market.kills import OPEN, Ballot
from openresource.market.stakes import Stake

WALLET: Final = "wallet"
CHANNEL: Final = "channel"
HOLD: Final = "hold"
JOB: Final = "job"
BOND: Final = "bond"
STAKE: Final = "stake"
VOTE: Final = "vote"


@dataclass(frozen=True, slots=True)
class ChannelFunds:
    """A channel of the owner: its identifier, its record and the balance of its account."""

    channel_id: str
    record: Mapping[str, Any]
    balance_uain: int


@dataclass(frozen=True, slots=True)
class HoldFunds:
    """A hold of the owner: app, name, record and the balance of its account."""

    app: str
    name: str
    record: Mapping[str, Any]
    balance_uain: int


@dataclass(frozen=True, slots=True)
class JobFunds:
    """A job whose budget the owner pays: its name, its two records and the balance of its account."""

    job: str
    request: Mapping[str, Any]
    record: Mapping[str, Any]
    balance_uain: int


@dataclass(frozen=True, slots=True)
class Coins:
    """Some of an owner's money in one place. `returns_at_ms` is 0 where no time is set: it is here, or must be asked for."""

    place: str
    name: str
    amount_uain: int
    returns_at_ms: int
    # Whether it comes back without anybody doing anything.
    returns_by_itself: bool
    how: str
    # At most this much of it may be spent before it returns.
    promised_uain: int = 0


def where_coins_are(
    owner: str,
    wallet_uain: int,
    *,
    at_ms: int,
    channels: Iterable[ChannelFunds] = (),
    holds: Iterable[HoldFunds] = (),
    jobs: Iterable[JobFunds] = (),
    bond: Bond | None = None,
    stake: Stake | None = None,
    ballots: Iterable[Ballot] = (),
    signed_uain: Mapping[str, int] | None = None,
) -> tuple[Coins, ...]:
    """All places with money of an owner, soonest return first; `signed_uain` is what it has signed by channel name."""
    signed = signed_uain or {}
    away = [
        *(_in_channel(owner, funds, at_ms, signed) for funds in channels if funds.balance_uain > 0),
        *(_in_hold(funds, at_ms) for funds in holds if funds.balance_uain > 0),
        *(_in_job(funds) for funds in jobs if funds.balance_uain > 0),
        *(_in_bond(bond) if bond is not None else ()),
        *(_in_stake(stake) if stake is not None else ()),
        *(_in_vote(ballot) for ballot in ballots if ballot.status == OPEN and ballot.proposer == owner),
    ]
    away.sort(key=lambda coins: (not coins.returns_at_ms, coins.returns_at_ms, coins.place, coins.name))
    return (Coins(WALLET, owner, wallet_uain, 0, True, "free to spend"), *away)


def total_uain(places: Iterable[Coins]) -> int:
    """All of an owner's money, wherever it is."""
    return sum(coins.amount_uain for coins in places)


def _in_channel(owner: str, funds: ChannelFunds, at_ms: int, signed: Mapping[str, int]) -> Coins:
    channel, terms = read_channel(owner, dict(funds.record), funds.balance_uain)
    name = channel_name(owner, funds.channel_id)
    is_over = at_ms >= channel.expires_at_ms
    if is_over:
        how = f"close it now: openresource channel close {funds.channel_id}"
    else:
        how = f"at once if {terms.name}'s provider settles (openresource channel close {funds.channel_id})"
    return Coins(
        place=CHANNEL,
        name=name,
        amount_uain=funds.balance_uain,
        returns_at_ms=channel.expires_at_ms,
        returns_by_itself=False,
        how=how,
        promised_uain=min(signed.get(name, 0), funds.balance_uain),
    )


def _in_hold(funds: HoldFunds, at_ms: int) -> Coins:
    hold = read_hold(dict(funds.record))
    how = "with the next block" if has_expired(hold, at_ms) else "when the hold expires"
    return Coins(
        place=HOLD,
        name=f"{funds.app}/{funds.name}",
        amount_uain=funds.balance_uain,
        returns_at_ms=hold.expires_at_ms,
        returns_by_itself=True,
        how=how,
        promised_uain=funds.balance_uain,
    )


def _in_bond(bond: Bond) -> Iterable[Coins]:
    locked_uain = bond.counted_uain - bond.free_uain
    if locked_uain:
        yield Coins(
            place=BOND,
            name=bond.provider,
            amount_uain=locked_uain,
            returns_at_ms=0,
            returns_by_itself=False,
            how=f"locked until the verdicts of running jobs: {len(bond.locks)}",
            promised_uain=locked_uain,
        )
    if bond.free_uain:
        yield Coins(
            place=BOND,
            name=bond.provider,
            amount_uain=bond.free_uain,
            returns_at_ms=0,
            returns_by_itself=False,
            how="some time after you ask: openresource bond withdraw AMOUNT",
        )
    rest_uain = bond.held_uain - bond.counted_uain
    for name, one in sorted((bond.leaving or {}).items(), key=lambda item: item[1].at_ms):
        amount = min(one.amount_uain, rest_uain)
        rest_uain -= amount
        if amount:
            yield Coins(BOND, name, amount, one.at_ms, True, "its withdrawal is on its way")


def _in_stake(stake: Stake) -> Iterable[Coins]:
    if stake.counted_uain:
        yield Coins(
            place=STAKE,
            name=stake.address,
            amount_uain=stake.counted_uain,
            returns_at_ms=0,
            returns_by_itself=False,
            how="some time after you ask: openresource stake withdraw AMOUNT",
        )
    for name, one in sorted(stake.leaving.items(), key=lambda item: item[1].at_ms):
        yield Coins(STAKE, name, one.amount_uain, one.at_ms, True, "its withdrawal is on its way")


def _in_vote(ballot: Ballot) -> Coins:
    return Coins(
        place=VOTE,
        name=f"{ballot.program}/{ballot.key}",
        amount_uain=ballot.deposit_uain,
        returns_at_ms=ballot.closes_at_ms,
        returns_by_itself=True,
        how="when the vote closes, unless hardly anybody agrees",
    )


def _in_job(funds: JobFunds) -> Coins:
    state = read_job_state(dict(funds.record))
    waits = {
        REQUESTED: "waits for a provider",
        LEASED: f"{state.provider or 'somebody'} works on it",
        COMMITTED: "waits for its requester's secret",
        DRAWN: "is audited",
        REVEALING: "waits for results to be revealed",
        DISPUTED: "is judged by referees",
        JUDGING: "is judged by referees",
    }
    return Coins(
        place=JOB,
        name=funds.job,
        amount_uain=funds.balance_uain,
        returns_at_ms=int(funds.request.get("deadline_ms", 0)),
        returns_by_itself=True,
        how=f"{waits.get(state.status, state.status)}; what is left goes back when it is settled",
        promised_uain=funds.balance_uain,
    )
