"""Continues a series of numbers and finds what does not belong in it: sales, load, prices, sensors."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Annotated

import numpy as np
import pandas as pd
from statsmodels.tools.sm_exceptions import ConvergenceWarning
from statsmodels.tsa.exponential_smoothing.ets import ETSModel
from statsmodels.tsa.seasonal import STL
from statsmodels.tsa.stattools import acf

VALUES_MIN, VALUES_MAX = 8, 5_000
HORIZON_MAX = 500
SEASON_MAX = 400
# The start of a longer season is taken from the first values; to fit each part of it takes minutes.
FITTED_SEASON_MAX = 24
# A season counts if so much of the series repeats itself after it.
SEASON_CORRELATION_MIN = 0.3
# From the median absolute deviation of a normal distribution to its standard deviation.
SIGMAS_PER_MAD = 1.4826
SPREAD_MIN = 0.001

Values = Annotated[
    list[float], "equally spaced in time, oldest first", {"minItems": VALUES_MIN, "maxItems": VALUES_MAX}
]
Season = Annotated[
    int,
    "values after which the series repeats; 1 for none, 0 to find it",
    {"minimum": 0, "maximum": SEASON_MAX},
]


@dataclass
class Forecast:
    """The values to come, each with bounds between which it lies as often as was asked."""

    mean: list[float]
    low: list[float]
    high: list[float]
    season: int
    model: str


@dataclass
class Anomaly:
    """A value that does not belong: its place (from 0), what was expected, and how many deviations it is off."""

    index: int
    value: float
    expected: float
    deviations: float


@dataclass
class Anomalies:
    """All of them, the farthest off first."""

    anomalies: list[Anomaly]
    season: int


class Series:
    """Exponential smoothing with trend and season, and the seasonal decomposition STL."""

    def forecast(
        self,
        values: Values,
        horizon: Annotated[int, {"minimum": 1, "maximum": HORIZON_MAX}] = 12,
        season: Season = 0,
        confidence: Annotated[float, {"minimum": 0.5, "maximum": 0.99}] = 0.9,
    ) -> Forecast:
        """Continue a series."""
        numbers = check(values)
        if not 1 <= horizon <= HORIZON_MAX:
            raise ValueError(f"horizon lies between 1 and {HORIZON_MAX}")
        season = season_of(numbers, season)
        fitted = fit(numbers, season)
        table = fitted.get_prediction(len(numbers), len(numbers) + horizon - 1).summary_frame(1 - confidence)
        return Forecast(
            mean=rounded(table["mean"]),
            low=rounded(table["pi_lower"]),
            high=rounded(table["pi_upper"]),
            season=season,
            model=fitted.model.short_name,
        )

    def anomalies(
        self,
        values: Values,
        season: Season = 0,
        threshold: Annotated[float, "deviations from what was expected", {"minimum": 2.0}] = 5.0,
    ) -> Anomalies:
        """Values that neither trend nor season explains."""
        numbers = check(values)
        season = season_of(numbers, season)
        # Without a season a value is compared with its seven neighbours.
        parts = STL(numbers, period=max(season, 7), robust=True).fit()
        expected = parts.trend + parts.seasonal if season > 1 else parts.trend
        off = numbers - expected
        centre = float(np.median(off))
        # A series without any noise still has some room.
        spread = max(
            SIGMAS_PER_MAD * float(np.median(np.abs(off - centre))), SPREAD_MIN * float(numbers.std()), 1e-12
        )
        deviations = (off - centre) / spread
        found = [
            Anomaly(
                int(at), float(numbers[at]), float(f"{expected[at]:.6g}"), round(float(deviations[at]), 2)
            )
            for at in np.flatnonzero(np.abs(deviations) >= threshold)
        ]
        return Anomalies(sorted(found, key=lambda one: -abs(one.deviations)), season)


def check(values: list[float]) -> np.ndarray:
    """Numbers that can be worked with."""
    numbers = np.asarray(values, float)
    if not VALUES_MIN <= len(numbers) <= VALUES_MAX:
        raise ValueError(f"a series has {VALUES_MIN} to {VALUES_MAX} values, this has {len(numbers)}")
    if not np.isfinite(numbers).all() or np.abs(numbers).max() > 1e15:
        raise ValueError("values are finite numbers below 1e15")
    return numbers


def season_of(numbers: np.ndarray, asked: int) -> int:
    """The season that was named, or the one that explains the series best; 1 if there is none."""
    longest = min(SEASON_MAX, len(numbers) // 3)
    if asked:
        if asked > max(longest, 1):
            raise ValueError(f"a season of {asked} needs {3 * asked} values")
        return asked
    changes = np.diff(numbers)
    if longest < 3 or changes.std() == 0:
        return 1
    correlation = acf(changes, nlags=longest, fft=True)
    peaks = [
        lag
        for lag in range(2, longest)
        if correlation[lag] >= correlation[lag - 1] and correlation[lag] > correlation[lag + 1]
    ]
    best = max(peaks, key=lambda lag: correlation[lag], default=1)
    if best == 1 or correlation[best] < SEASON_CORRELATION_MIN:
        return 1
    # Two years repeat as well as one: the shortest that is nearly as good.
    return min(lag for lag in peaks if correlation[lag] >= 0.9 * correlation[best])


def fit(numbers: np.ndarray, season: int) -> ETSModel:
    """Errors, trend and season by exponential smoothing; a season that grows with the level is multiplied."""
    has_season = season > 1 and len(numbers) >= 2 * season + 2
    grows = has_season and numbers.min() > 0 and swings_grow(numbers, season)
    model = ETSModel(
        pd.Series(numbers),
        error="mul" if grows else "add",
        trend="add",
        damped_trend=True,
        seasonal=("mul" if grows else "add") if has_season else None,
        seasonal_periods=season if has_season else None,
        initialization_method="estimated" if season <= FITTED_SEASON_MAX else "heuristic",
    )
    with warnings.catch_warnings():
        # A fit that stopped early is still the best one found.
        warnings.simplefilter("ignore", ConvergenceWarning)
        return model.fit(disp=False, maxiter=200)


def swings_grow(numbers: np.ndarray, season: int) -> bool:
    """Whether the season's swing follows the level."""
    whole = numbers[len(numbers) % season :].reshape(-1, season)
    swings, levels = np.ptp(whole, axis=1), whole.mean(axis=1)
    if len(whole) < 3 or levels.std() == 0 or swings.std() == 0:
        return False
    return bool(np.corrcoef(swings, levels)[0, 1] > 0.6 and levels.max() > 1.3 * levels.min())


def rounded(column: object) -> list[float]:
    """Seven digits are more than a forecast knows."""
    return [float(f"{number:.7g}") for number in np.asarray(column)]
