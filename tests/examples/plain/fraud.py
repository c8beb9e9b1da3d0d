"""The strangest of 3,000 shuttle readings by scikit-learn's isolation forest itself."""

import itertools

import numpy as np
from river.datasets import Shuttle
from sklearn.ensemble import IsolationForest
from timing import told

rows = [list(row.values()) for row, _ in itertools.islice(Shuttle(), 3_000)]
table = np.array(rows, float)


def outliers() -> list[dict[str, float]]:
    """The five rows that are set apart most easily."""
    scores = -IsolationForest(n_estimators=100, random_state=0).fit(table).score_samples(table)
    return [{"index": int(at), "score": float(scores[at])} for at in np.argsort(-scores)[:5]]


told("outliers", {"rows": rows, "top": 5}, outliers)
