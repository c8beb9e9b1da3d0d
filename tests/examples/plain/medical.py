"""A breast sample by scikit-learn's logistic regression itself."""

from sklearn.datasets import load_breast_cancer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from timing import told

data = load_breast_cancer()
model = make_pipeline(StandardScaler(), LogisticRegression(C=0.3, max_iter=2_000)).fit(
    data.data, data.target == 0
)
sample = data.data[73]
told(
    "cells",
    {"features": sample.tolist()},
    lambda: {"malignant": round(float(model.predict_proba(sample[None])[0, 1]), 4)},
)
