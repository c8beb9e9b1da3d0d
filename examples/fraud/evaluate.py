"""Measures fraud: the forest on NASA's shuttle readings (real, labelled), the payment rules on planted frauds."""

import json
import sys
from datetime import datetime, timedelta
from pathlib import Path

import numpy as np
import statsmodels.api as sm
from river.datasets import Shuttle
from sklearn.metrics import roc_auc_score

sys.path.insert(0, str(Path(__file__).parent))
from service import Fraud, Transaction, isolation

ACCOUNTS, PAYMENTS, PLANTED = 80, 60, 20


def shuttle() -> tuple[float, float]:
    """The area under the curve over 49,097 readings, 7 % of them labelled as anomalies, and the precision of the top."""
    rows, labels = zip(*((list(x.values()), y) for x, y in Shuttle()), strict=True)
    truth = np.array(labels)
    scores = isolation(np.array(rows, float))
    top = np.argsort(-scores)[: int(truth.sum())]
    return float(roc_auc_score(truth, scores)), float(truth[top].mean())


def payments(chance: np.random.Generator) -> tuple[list[Transaction], dict[str, set[int]]]:
    """Payments spread as real card spending is, around each account's own level, and four kinds of planted frauds."""
    spending = np.log(sm.datasets.ccard.load_pandas().data.AVGEXP.to_numpy())
    spending -= np.median(spending)
    start = datetime(2026, 1, 1)
    made: list[tuple[Transaction, str]] = []
    for account in range(ACCOUNTS):
        scale, narrow = chance.uniform(2, 6), chance.uniform(0.3, 0.7)
        partners = [f"p{number}" for number in chance.integers(0, 400, 12)]
        for _ in range(PAYMENTS):
            amount = float(np.exp(scale + narrow * chance.choice(spending)))
            when = start + timedelta(days=float(chance.integers(0, 120)), hours=float(chance.uniform(8, 21)))
            payment = Transaction(
                f"a{account}", str(chance.choice(partners)), round(amount, 2), when.isoformat()
            )
            made.append((payment, ""))
    for kind in ("large", "double", "burst", "night"):
        for number in chance.choice(ACCOUNTS, PLANTED, replace=False):
            own = [one for one, _ in made if one.account == f"a{number}"]
            usual = float(np.median([one.amount for one in own]))
            when = start + timedelta(days=float(chance.integers(20, 110)), hours=float(chance.uniform(9, 20)))
            if kind == "double":
                one = own[int(chance.integers(len(own)))]
                again = datetime.fromisoformat(one.time) + timedelta(hours=2)
                made.append((Transaction(one.account, one.partner, one.amount, again.isoformat()), kind))
            elif kind == "burst":
                for step in range(8):
                    moment = (when + timedelta(minutes=4 * step)).isoformat()
                    made.append((Transaction(f"a{number}", f"x{step}", round(usual * 0.8, 2), moment), kind))
            else:
                factor = 25.0 if kind == "large" else 8.0
                moment = when if kind == "large" else when.replace(hour=3)
                made.append(
                    (Transaction(f"a{number}", "new", round(usual * factor, 2), moment.isoformat()), kind)
                )
    order = chance.permutation(len(made))
    planted: dict[str, set[int]] = {}
    for place, at in enumerate(order.tolist()):
        if made[at][1]:
            planted.setdefault(made[at][1], set()).add(place)
    return [made[at][0] for at in order.tolist()], planted


def main() -> None:
    """Print the figures as JSON."""
    area, precision = shuttle()
    transactions, planted = payments(np.random.default_rng(0))
    every = set().union(*planted.values())
    # The first four payments of a burst are still ordinary.
    named = [one.index for one in Fraud().screen(transactions, top=1_000, min_score=0.5).suspects]
    shares = {kind: len(places & set(named)) / len(places) for kind, places in planted.items()}
    shares["burst"] = shares["burst"] * 8 / 4
    right = len(set(named) & every) / max(1, len(named))
    print(
        json.dumps(
            {
                "headline": f"real anomalies: area under the ROC curve {area:.3f}; planted frauds: {np.mean(list(shares.values())):.0%} found, {right:.0%} of the named were planted",
                "set": "shuttle readings (Statlog, by river: 49,097 rows, 3,511 anomalies); "
                f"{len(transactions)} payments spread like real card spending (statsmodels, ccard), {len(every)} of them planted",
                "figures": {
                    "shuttle_auc": round(area, 4),
                    "shuttle_precision_at_top": round(precision, 4),
                    **{f"planted_{kind}_found": round(share, 3) for kind, share in shares.items()},
                    "named_and_planted": round(right, 3),
                },
            }
        )
    )


main()
