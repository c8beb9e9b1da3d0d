"""What a node counts and measures, in the text that Prometheus reads."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping

_BUCKETS_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)


class Histogram:
    """Durations, by upper bounds."""

    __slots__ = ("_counts", "_sum")

    def __init__(self) -> None:
        self._counts = [0] * (len(_BUCKETS_SECONDS) + 1)
        self._sum = 0.0

    def observe(self, seconds: float) -> None:
        self._counts[bisect_left(_BUCKETS_SECONDS, seconds)] += 1
        self._sum += seconds

    def lines(self, name: str) -> list[str]:
        found = [f"# TYPE {name} histogram"]
        total = 0
        for bound, count in zip(_BUCKETS_SECONDS, self._counts, strict=False):
            total += count
            found.append(f'{name}_bucket{{le="{bound}"}} {total}')
        total += self._counts[-1]
        found.extend(
            (f'{name}_bucket{{le="+Inf"}} {total}', f"{name}_sum {self._sum:.6f}", f"{name}_count {total}")
        )
        return found


class Metrics:
    """Counters, gauges and durations of one node."""

    def __init__(self) -> None:
        self._counters: dict[str, int] = {}
        self._histograms: dict[str, Histogram] = {}

    def count(self, name: str, amount: int = 1) -> None:
        self._counters[name] = self._counters.get(name, 0) + amount

    def observe(self, name: str, seconds: float) -> None:
        found = self._histograms.get(name)
        if found is None:
            found = self._histograms[name] = Histogram()
        found.observe(seconds)

    def text(self, gauges: Mapping[str, float], labelled: Mapping[str, tuple[str, Mapping[str, int]]]) -> str:
        """Everything as text; `labelled` maps a counter to its label's name and the counts by label."""
        lines: list[str] = []
        for name, count in sorted(self._counters.items()):
            lines.extend((f"# TYPE openresource_{name} counter", f"openresource_{name} {count}"))
        for name, value in sorted(gauges.items()):
            lines.extend((f"# TYPE openresource_{name} gauge", f"openresource_{name} {value:g}"))
        for name, (label, counts) in sorted(labelled.items()):
            lines.append(f"# TYPE openresource_{name} counter")
            lines.extend(
                f'openresource_{name}{{{label}="{key}"}} {count}' for key, count in sorted(counts.items())
            )
        for name, histogram in sorted(self._histograms.items()):
            lines.extend(histogram.lines(f"openresource_{name}"))
        return "\n".join(lines) + "\n"
