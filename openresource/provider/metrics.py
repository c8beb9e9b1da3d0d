"""Counts what a provider does, in Prometheus' text format; one increment costs a dictionary access."""

from __future__ import annotations

from bisect import bisect_left

SECONDS_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
# More label values than this are counted under "other": a stranger must not fill the memory with names.
SERIES_MAX = 500

HELP = {
    "openresource_calls_total": "Calls by service and outcome.",
    "openresource_refusals_total": "Refusals by code.",
    "openresource_earned_uain_total": "Sum of receipts in µAIN by service.",
    "openresource_claimed_uain_total": "Sum of final claims in µAIN.",
    "openresource_call_seconds": "Time from a call's admission to its answer, by service.",
    "openresource_instances": "Instances of programs that are there now.",
    "openresource_instances_idle": "Instances that have nothing to do.",
    "openresource_instance_starts_total": "Starts of instances.",
    "openresource_cold_starts_total": "Starts for which a call had to wait.",
    "openresource_idle_stops_total": "Instances that ended because nobody called.",
    "openresource_instances_gave_way_total": "Instances that ended because others needed their memory.",
    "openresource_programs_memory_bytes": "Memory that programs hold of their budget.",
    "openresource_programs_memory_bytes_max": "Memory that all programs may use together.",
    "openresource_calls_running": "Calls that run.",
    "openresource_calls_waiting": "Calls that wait for a place.",
    "openresource_calls_shed_total": "Calls that were sent away for load, before they paid.",
    "openresource_expected_wait_seconds": "The longest wait that one more call would have.",
}


class Metrics:
    """Counters, histograms and, when they are asked for, gauges."""

    def __init__(self) -> None:
        self._counters: dict[tuple[str, str], int] = {}
        self._histograms: dict[tuple[str, str], list[float]] = {}

    def count(self, name: str, labels: str = "", by: int = 1) -> None:
        """Adds to a counter; labels are in Prometheus' form, for instance `code="x"`."""
        key = (name, labels)
        if key not in self._counters and len(self._counters) >= SERIES_MAX:
            key = (name, 'other="true"')
        self._counters[key] = self._counters.get(key, 0) + by

    def observe(self, name: str, labels: str, seconds: float) -> None:
        """Adds a duration to a histogram."""
        key = (name, labels)
        histogram = self._histograms.get(key)
        if histogram is None:
            if len(self._histograms) >= SERIES_MAX:
                return
            # Buckets, one beyond the last, then the sum.
            histogram = self._histograms[key] = [0.0] * (len(SECONDS_BUCKETS) + 2)
        histogram[bisect_left(SECONDS_BUCKETS, seconds)] += 1
        histogram[-1] += seconds

    def value(self, name: str, labels: str = "") -> int:
        """What a counter stands at."""
        return self._counters.get((name, labels), 0)

    def text(self, gauges: dict[str, float]) -> str:
        """Everything in the text format; gauges are read at this moment."""
        lines: list[str] = []
        named: set[str] = set()

        def head(name: str, kind: str) -> None:
            if name not in named:
                named.add(name)
                lines.append(f"# HELP {name} {HELP.get(name, name.replace('_', ' ') + '.')}")
                lines.append(f"# TYPE {name} {kind}")

        for (name, labels), number in sorted(self._counters.items()):
            head(name, "counter")
            lines.append(f"{name}{{{labels}}} {number}" if labels else f"{name} {number}")
        for (name, labels), histogram in sorted(self._histograms.items()):
            head(name, "histogram")
            total = 0.0
            for bound, seen in zip((*SECONDS_BUCKETS, float("inf")), histogram[:-1], strict=True):
                total += seen
                edge = "+Inf" if bound == float("inf") else f"{bound:g}"
                lines.append(f'{name}_bucket{{{labels},le="{edge}"}} {total:g}')
            lines.append(f"{name}_sum{{{labels}}} {histogram[-1]:.6f}")
            lines.append(f"{name}_count{{{labels}}} {total:g}")
        for name, reading in gauges.items():
            head(name, "counter" if name.endswith("_total") else "gauge")
            lines.append(f"{name} {reading:.10g}")
        return "\n".join(lines) + "\n"
