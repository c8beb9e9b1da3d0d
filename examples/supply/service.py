"""Says when to order again and how much, from what was needed so far: the supply chain's daily question."""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass
from typing import Annotated

import numpy as np
from statsmodels.tools.sm_exceptions import ConvergenceWarning
from statsmodels.tsa.holtwinters import ExponentialSmoothing, HoltWintersResults

PERIODS_MIN, PERIODS_MAX = 12, 3_000
LEAD_MAX = 100
# Past starts from which the forecast is tried; each tells by how much the real need was missed.
TRIALS_MIN, TRIALS_MAX = 8, 200
# The start of a longer season is taken from the first periods; to fit each part of it takes minutes.
FITTED_SEASON_MAX = 24


@dataclass
class Plan:
    """What to do now, and the figures behind it; all amounts in units of the demand."""

    order_now: bool
    order_quantity: float
    reorder_point: float
    expected_need: float
    safety_stock: float
    periods_of_cover: float
    tried_on: int
    forecast: list[float]


class Supply:
    """Exponential smoothing; the safety comes from how far it was off before, not from a bell curve."""

    def plan(
        self,
        demand: Annotated[
            list[float],
            "need of each period (day, week, month), oldest first",
            {"minItems": PERIODS_MIN, "maxItems": PERIODS_MAX},
        ],
        lead_periods: Annotated[int, "from order to arrival", {"minimum": 1, "maximum": LEAD_MAX}],
        on_hand: Annotated[float, {"minimum": 0}],
        on_order: Annotated[float, "on its way", {"minimum": 0}] = 0.0,
        service_level: Annotated[
            float, "share of cycles without a shortage", {"minimum": 0.5, "maximum": 0.999}
        ] = 0.95,
        season: Annotated[
            int, "periods after which need repeats; 1 for none", {"minimum": 1, "maximum": 400}
        ] = 1,
        review_periods: Annotated[int, "between two looks at the stock", {"minimum": 1, "maximum": 100}] = 1,
    ) -> Plan:
        """Whether to order now, how much, and at which stock to order next time."""
        need = check(demand, lead_periods, season)
        if on_hand < 0 or on_order < 0 or not 0.5 <= service_level < 1:
            raise ValueError("stocks are not below 0, and a service level lies between 0.5 and 1")
        span = lead_periods + review_periods
        model = fitted(need, season)
        coming = np.clip(model.forecast(span), 0, None)
        missed = misses(need, lead_periods, season, model.params)
        expected = float(coming[:lead_periods].sum())
        safety = max(0.0, quantile_above(missed, service_level))
        stock = on_hand + on_order
        is_short = stock <= expected + safety
        quantity = max(0.0, float(coming.sum()) + safety - stock) if is_short else 0.0
        mean = float(coming.mean())
        return Plan(
            order_now=is_short,
            order_quantity=round(quantity, 2),
            reorder_point=round(expected + safety, 2),
            expected_need=round(expected, 2),
            safety_stock=round(safety, 2),
            periods_of_cover=round(min(9_999.0, stock / mean), 1) if mean > 0 else 9_999.0,
            tried_on=len(missed),
            forecast=[round(float(one), 3) for one in coming],
        )


def check(demand: list[float], lead_periods: int, season: int) -> np.ndarray:
    """Demand that can be worked with."""
    need = np.asarray(demand, float)
    least = max(PERIODS_MIN, 2 * season + lead_periods + TRIALS_MIN)
    if not least <= len(need) <= PERIODS_MAX:
        raise ValueError(
            f"with this season and lead time {least} to {PERIODS_MAX} periods are needed, not {len(need)}"
        )
    if not np.isfinite(need).all() or (need < 0).any() or need.max() > 1e12:
        raise ValueError("demand is not below 0 and finite")
    return need


def fitted(need: np.ndarray, season: int) -> HoltWintersResults:
    """Level, damped trend and season by exponential smoothing."""
    model = ExponentialSmoothing(
        need,
        trend="add",
        damped_trend=True,
        seasonal="add" if season > 1 else None,
        seasonal_periods=season if season > 1 else None,
        initialization_method="estimated" if season <= FITTED_SEASON_MAX else "heuristic",
    )
    with warnings.catch_warnings():
        # A fit that stopped early is still the best one found.
        warnings.simplefilter("ignore", ConvergenceWarning)
        warnings.simplefilter("ignore", RuntimeWarning)
        return model.fit()


def misses(need: np.ndarray, lead_periods: int, season: int, factors: dict) -> np.ndarray:
    """By how much the need of a lead time exceeded its forecast, from many past starts, with today's factors."""
    first = max(2 * season, PERIODS_MIN // 2)
    starts = range(first, len(need) - lead_periods + 1)
    level, trend, seasons = smoothed(need, season, factors)
    damping = factors["damping_trend"]
    ahead = np.arange(1, lead_periods + 1)
    grown = np.cumsum(damping**ahead)
    errors = []
    for start in list(starts)[-TRIALS_MAX:]:
        path = level[start] + trend[start] * grown
        if season > 1:
            path = path + seasons[start + ((ahead - 1) % season)]
        errors.append(need[start : start + lead_periods].sum() - np.clip(path, 0, None).sum())
    return np.array(errors)


def smoothed(need: np.ndarray, season: int, factors: dict) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Level and trend as they were known before each period, and the season's part of each period."""
    alpha, beta = factors["smoothing_level"], factors["smoothing_trend"]
    gamma = factors["smoothing_seasonal"] if season > 1 else 0.0
    damping = factors["damping_trend"]
    level, trend = np.empty(len(need) + 1), np.empty(len(need) + 1)
    seasons = np.zeros(len(need) + season)
    level[0], trend[0] = factors["initial_level"], factors["initial_trend"]
    if season > 1:
        seasons[:season] = factors["initial_seasons"]
    for at, value in enumerate(need):
        was, slope = level[at], damping * trend[at]
        level[at + 1] = alpha * (value - seasons[at]) + (1 - alpha) * (was + slope)
        trend[at + 1] = beta * (level[at + 1] - was) + (1 - beta) * slope
        seasons[at + season] = (
            gamma * (value - was - slope) + (1 - gamma) * seasons[at] if season > 1 else 0.0
        )
    return level, trend, seasons


def quantile_above(missed: np.ndarray, service_level: float) -> float:
    """The miss that is exceeded as rarely as asked, with the cautious rank for a small number of trials."""
    rank = min(len(missed), math.ceil((len(missed) + 1) * service_level))
    return float(np.sort(missed)[rank - 1])
