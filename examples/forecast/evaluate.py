"""Measures forecast on four real series, against repeating the last season, and its anomalies on planted ones."""

import json
import sys
from pathlib import Path

import numpy as np
import statsmodels.api as sm
from river.datasets import AirlinePassengers

sys.path.insert(0, str(Path(__file__).parent))
from service import Series

HORIZON, STARTS = 12, 6


def series() -> dict[str, np.ndarray]:
    """Monthly carbon dioxide on Mauna Loa, sea temperatures, airline passengers; yearly sunspots."""
    carbon = sm.datasets.co2.load_pandas().data.co2.resample("MS").mean().ffill().to_numpy()
    sea = sm.datasets.elnino.load_pandas().data.iloc[:, 1:].to_numpy().ravel()
    return {
        "co2": carbon,
        "sea temperature": sea[np.isfinite(sea)],
        "airline passengers": np.array([value for _, value in AirlinePassengers()], float),
        "sunspots": sm.datasets.sunspots.load_pandas().data.SUNACTIVITY.to_numpy(),
    }


def main() -> None:
    """Print the figures as JSON."""
    service, figures, relative, covered = Series(), {}, [], []
    for name, values in series().items():
        season = 11 if name == "sunspots" else 12
        errors, naive, inside = [], [], []
        for start in range(STARTS):
            end = len(values) - HORIZON - start * 7
            known, truth = values[:end], values[end : end + HORIZON]
            told = service.forecast(known.tolist(), HORIZON, season, 0.9)
            errors.append(np.abs(np.array(told.mean) - truth).mean())
            repeated = np.resize(known[-season:], HORIZON)
            naive.append(np.abs(repeated - truth).mean())
            inside.append(((truth >= told.low) & (truth <= told.high)).mean())
        figures[f"{name}: error / error of repeating"] = round(float(np.mean(errors) / np.mean(naive)), 3)
        relative.append(np.mean(errors) / np.mean(naive))
        covered.append(np.mean(inside))
    hits = found = planted = 0
    chance = np.random.default_rng(0)
    for name, values in series().items():
        for _ in range(5):
            changed = values[-300:].copy()
            places = chance.choice(len(changed), 5, replace=False)
            changed[places] += chance.choice([-1, 1], 5) * 2.5 * values.std()
            told = service.anomalies(changed.tolist(), 11 if name == "sunspots" else 12, threshold=6.0)
            indices = {one.index for one in told.anomalies[:5]}
            hits += len(indices & set(places.tolist()))
            found += len(indices)
            planted += 5
    figures |= {
        "bounds of 90 % held": round(float(np.mean(covered)), 3),
        "planted anomalies found": round(hits / planted, 3),
        "of the first five named, planted": round(hits / found, 3),
    }
    print(
        json.dumps(
            {
                "headline": f"error {np.exp(np.mean(np.log(relative))):.2f} of repeating the last season; bounds of 90 % held in {np.mean(covered):.0%}; {hits / planted:.0%} of planted anomalies found",
                "set": "co2, sea temperatures and sunspots (statsmodels), airline passengers (river): twelve steps ahead from six starts each",
                "figures": figures,
            }
        )
    )


main()
