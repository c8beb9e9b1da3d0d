"""Measures medical.cells: ten times five folds over the Wisconsin breast cancer set."""

import json
import sys
from pathlib import Path

import numpy as np
from sklearn.datasets import load_breast_cancer
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import RepeatedStratifiedKFold

sys.path.insert(0, str(Path(__file__).parent))
from service import cell_model


def main() -> None:
    """Print the figures as JSON."""
    data = load_breast_cancer()
    malignant = 1 - data.target
    areas, caught, cleared = [], [], []
    for seen, unseen in RepeatedStratifiedKFold(n_splits=5, n_repeats=10, random_state=0).split(
        data.data, malignant
    ):
        chance = cell_model().fit(data.data[seen], malignant[seen]).predict_proba(data.data[unseen])[:, 1]
        truth = malignant[unseen] == 1
        areas.append(roc_auc_score(truth, chance))
        caught.append((chance[truth] >= 0.5).mean())
        cleared.append((chance[~truth] < 0.5).mean())
    area, spread = float(np.mean(areas)), float(np.std(areas))
    print(
        json.dumps(
            {
                "headline": f"cells: area under the ROC curve {area:.3f}, {np.mean(caught):.1%} of malignant and {np.mean(cleared):.1%} of benign samples right; stain and retina: not measured",
                "set": "Wisconsin breast cancer, 569 samples (scikit-learn), ten times five folds",
                "figures": {
                    "auc": round(area, 4),
                    "auc_deviation": round(spread, 4),
                    "sensitivity": round(float(np.mean(caught)), 4),
                    "specificity": round(float(np.mean(cleared)), 4),
                },
            }
        )
    )


main()
