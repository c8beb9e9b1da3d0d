"""Finds the payments that somebody should look at, and says why: odd amounts, doubles, bursts, new partners, odd hours."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated

import numpy as np
from sklearn.ensemble import IsolationForest

TRANSACTIONS_MAX = 20_000
ROWS_MAX, COLUMNS_MAX = 50_000, 100
SEED = 0
# An account tells what is usual for it after so many payments; before that all accounts do.
HISTORY_MIN = 5
SIGMAS_PER_MAD = 1.4826
# Amounts of one account usually lie within a factor of so much (as a logarithm); constant amounts are not suspicious.
SPREAD_MIN = 0.15
ODD_AMOUNT, DOUBLE_DAYS, BURST_SECONDS, BURST_COUNT = 3.5, 3, 3_600, 5
SECONDS_A_DAY = 86_400


@dataclass
class Transaction:
    """A payment: who paid whom, how much, when (ISO 8601)."""

    account: str
    partner: str
    amount: float
    time: str


@dataclass
class Suspect:
    """A payment to look at: its place in the list, from 0 to 1 how unusual it is, and what is unusual."""

    index: int
    score: float
    reasons: list[str]


@dataclass
class Screened:
    """The payments to look at, the most unusual first."""

    suspects: list[Suspect]
    transactions: int
    accounts: int


@dataclass
class Outlier:
    """A row that is unlike the others, from 0 to 1."""

    index: int
    score: float


class Fraud:
    """Robust statistics for each account, and a forest that isolates what is rare."""

    def screen(
        self,
        transactions: Annotated[list[Transaction], {"minItems": 1, "maxItems": TRANSACTIONS_MAX}],
        top: Annotated[int, "at most so many suspects", {"minimum": 1, "maximum": 1_000}] = 20,
        min_score: Annotated[float, {"minimum": 0.0, "maximum": 1.0}] = 0.5,
    ) -> Screened:
        """Look through payments."""
        if not 1 <= len(transactions) <= TRANSACTIONS_MAX:
            raise ValueError(f"send 1 to {TRANSACTIONS_MAX} transactions")
        amounts = np.array([one.amount for one in transactions], float)
        if not np.isfinite(amounts).all() or (amounts <= 0).any() or (amounts > 1e15).any():
            raise ValueError("amounts are above 0")
        seconds = np.array([second_of(one.time) for one in transactions])
        signs = Signs(transactions, amounts, seconds)
        weights, reasons = signs.judge()
        suspects = [
            Suspect(at, round(float(weights[at]), 3), reasons[at])
            for at in np.argsort(-weights, kind="stable")[:top].tolist()
            if reasons[at] and weights[at] >= min_score
        ]
        return Screened(suspects, len(transactions), len(signs.by_account))

    def outliers(
        self,
        rows: Annotated[
            list[list[float]], "numbers only, one row a case", {"minItems": 8, "maxItems": ROWS_MAX}
        ],
        top: Annotated[int, {"minimum": 1, "maximum": 10_000}] = 20,
    ) -> list[Outlier]:
        """Rows of any table that are unlike the rest."""
        table = np.asarray(rows, float) if len({len(row) for row in rows}) == 1 else np.empty(0)
        if table.ndim != 2 or not 1 <= table.shape[1] <= COLUMNS_MAX or not np.isfinite(table).all():
            raise ValueError(f"rows are equally long lists of 1 to {COLUMNS_MAX} finite numbers")
        scores = isolation(table)
        return [Outlier(at, round(float(scores[at]), 4)) for at in np.argsort(-scores)[:top].tolist()]


class Signs:
    """What speaks against each payment."""

    def __init__(self, transactions: list[Transaction], amounts: np.ndarray, seconds: np.ndarray) -> None:
        self.transactions = transactions
        self.amounts = amounts
        self.seconds = seconds
        self.logs = np.log(amounts)
        self.order = np.argsort(seconds, kind="stable").tolist()
        self.by_account: dict[str, list[int]] = defaultdict(list)
        for at in self.order:
            self.by_account[transactions[at].account].append(at)

    def judge(self) -> tuple[np.ndarray, list[list[str]]]:
        """A score from 0 to 1 for each payment, and its reasons in words."""
        count = len(self.amounts)
        deviations, doubles, bursts, news, hours = (np.zeros(count) for _ in range(5))
        for places in self.by_account.values():
            self.odd_amounts(places, deviations)
            self.doubles(places, doubles)
            self.bursts(places, bursts)
            self.new_partners(places, news)
            self.odd_hours(places, hours)
        rare = (
            isolation(np.column_stack([self.logs, deviations, bursts, news, hours]))
            if count >= 8
            else np.zeros(count)
        )
        rare = np.clip((rare - np.median(rare)) / 0.35, 0, 1)
        large = np.clip((deviations - ODD_AMOUNT / 2) / (2 * ODD_AMOUNT), 0, 1)
        burst = np.where(bursts >= BURST_COUNT, np.clip((bursts - BURST_COUNT + 2) / 3, 0, 1), 0.0)
        # Independent hints: each leaves less room for chance.
        chance = (1 - 0.85 * large) * (1 - 0.75 * doubles) * (1 - 0.8 * burst)
        chance *= (1 - 0.25 * news * (large > 0)) * (1 - 0.35 * hours) * (1 - 0.3 * rare)
        reasons = [
            [
                text
                for holds, text in (
                    (
                        deviations[at] >= ODD_AMOUNT,
                        f"amount {deviations[at]:.1f} deviations above this account's usual",
                    ),
                    (doubles[at] > 0, f"same partner and amount within {DOUBLE_DAYS} days"),
                    (bursts[at] >= BURST_COUNT, f"{int(bursts[at])} payments within an hour"),
                    (news[at] > 0 and large[at] > 0, "first payment to this partner"),
                    (hours[at] > 0, "at an hour at which this account never pays"),
                )
                if holds
            ]
            for at in range(count)
        ]
        return 1 - chance, reasons

    def odd_amounts(self, places: list[int], deviations: np.ndarray) -> None:
        """How far each amount is above the account's median, in robust deviations."""
        usual = self.logs[places] if len(places) >= HISTORY_MIN else self.logs
        median = float(np.median(usual))
        spread = max(SPREAD_MIN, SIGMAS_PER_MAD * float(np.median(np.abs(usual - median))))
        deviations[places] = np.clip((self.logs[places] - median) / spread, 0, 99)

    def doubles(self, places: list[int], doubles: np.ndarray) -> None:
        """The second of two payments of one amount to one partner."""
        last: dict[tuple[str, float], float] = {}
        for at in places:
            key = (self.transactions[at].partner, self.amounts[at])
            if key in last and self.seconds[at] - last[key] <= DOUBLE_DAYS * SECONDS_A_DAY:
                doubles[at] = 1
            last[key] = self.seconds[at]

    def bursts(self, places: list[int], bursts: np.ndarray) -> None:
        """How many payments the hour before each has seen."""
        first = 0
        for number, at in enumerate(places):
            while self.seconds[at] - self.seconds[places[first]] > BURST_SECONDS:
                first += 1
            bursts[at] = number - first + 1

    def new_partners(self, places: list[int], news: np.ndarray) -> None:
        """Whether an account with a history pays somebody for the first time."""
        known: set[str] = set()
        for number, at in enumerate(places):
            partner = self.transactions[at].partner
            news[at] = float(number >= HISTORY_MIN and partner not in known)
            known.add(partner)

    def odd_hours(self, places: list[int], hours: np.ndarray) -> None:
        """Whether an account with a long history pays at an hour at which it has paid at no other time."""
        if len(places) < 4 * HISTORY_MIN:
            return
        clock = (self.seconds[places] % SECONDS_A_DAY // 3_600).astype(int)
        counts = np.bincount(clock, minlength=24)
        if (counts > 0).sum() == 1:
            return
        around = counts + np.roll(counts, 1) + np.roll(counts, -1)
        hours[places] = (around[clock] <= 1).astype(float)


def second_of(time: str) -> float:
    """Seconds since 1970; a time without a zone is taken as it stands."""
    try:
        moment = datetime.fromisoformat(time)
    except ValueError:
        raise ValueError(f"{time[:40]} is no time such as 2026-03-01T14:30:00") from None
    base = datetime(1970, 1, 1, tzinfo=moment.tzinfo)
    return (moment - base).total_seconds()


def isolation(table: np.ndarray) -> np.ndarray:
    """From 0 to 1, how few random cuts set a row apart from the rest."""
    forest = IsolationForest(n_estimators=100, random_state=SEED).fit(table)
    return -forest.score_samples(table)
