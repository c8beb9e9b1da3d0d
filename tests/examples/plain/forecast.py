"""A year of carbon dioxide on Mauna Loa by statsmodels itself."""

import warnings

import statsmodels.api as sm
from statsmodels.tsa.exponential_smoothing.ets import ETSModel
from timing import told

warnings.simplefilter("ignore")
monthly = sm.datasets.co2.load_pandas().data.co2.resample("MS").mean().ffill()[-120:]


def year() -> dict[str, list[float]]:
    """Twelve months to come, with their bounds."""
    fitted = ETSModel(
        monthly.reset_index(drop=True),
        error="add",
        trend="add",
        damped_trend=True,
        seasonal="add",
        seasonal_periods=12,
    ).fit(disp=False, maxiter=200)
    table = fitted.get_prediction(120, 131).summary_frame(0.1)
    names = {"mean": "mean", "low": "pi_lower", "high": "pi_upper"}
    return {name: table[column].tolist() for name, column in names.items()}


told("forecast", {"values": monthly.tolist(), "horizon": 12, "season": 12}, year)
