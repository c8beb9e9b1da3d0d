"""Offers: a path finds its method, and what is counted stays bounded."""

from __future__ import annotations

import pytest

from openresource.provider.metrics import SERIES_MAX, Metrics
from openresource.provider.offers import MethodUnknown, Offers, ServiceNotHere, ServiceStarting
from tests.provider.support import PROGRAM, PUBLISHER, make_offer


def test_a_path_finds_its_method_and_says_which_there_are() -> None:
    served = Offers()
    offer = make_offer()
    path = f"/services/{PUBLISHER.address}/echo/{PROGRAM}"
    with pytest.raises(ServiceStarting):
        served.route(path.encode(), path)
    served.put(offer)
    served.has_looked = True
    assert served.route(f"{path}/double".encode(), f"{path}/double")[1].name == "double"
    with pytest.raises(MethodUnknown) as caught:
        served.route(f"{path}/triple".encode(), f"{path}/triple")
    assert "/echo, /double, /count" in caught.value.remedy
    served.remove(offer)
    with pytest.raises(ServiceNotHere):
        served.route(f"{path}/double".encode(), f"{path}/double")


def test_metrics_stay_bounded_whatever_is_counted() -> None:
    metrics = Metrics()
    for number in range(SERIES_MAX * 2):
        metrics.count("openresource_refusals_total", f'code="{number}"')
        metrics.observe("openresource_call_seconds", f'service="{number}"', 0.002)
    text = metrics.text({"openresource_services": 1})
    assert text.count("\n") < SERIES_MAX * 30
    assert 'openresource_refusals_total{other="true"} 500' in text
    assert 'openresource_call_seconds_bucket{service="1",le="0.0025"} 1' in text
    assert 'openresource_call_seconds_bucket{service="1",le="0.001"} 0' in text
    assert text.endswith("openresource_services 1\n")
