"""The need of airline seats by statsmodels itself."""

import warnings

from river.datasets import AirlinePassengers
from statsmodels.tsa.holtwinters import ExponentialSmoothing
from timing import told

warnings.simplefilter("ignore")
seats = [float(value) for _, value in AirlinePassengers()]


def coming() -> list[float]:
    """Three months."""
    model = ExponentialSmoothing(
        seats,
        trend="add",
        damped_trend=True,
        seasonal="add",
        seasonal_periods=12,
        initialization_method="estimated",
    )
    return [float(value) for value in model.fit().forecast(3)]


told(
    "plan",
    {"demand": seats, "lead_periods": 2, "on_hand": 500.0, "season": 12},
    lambda: {"forecast": coming()},
)
