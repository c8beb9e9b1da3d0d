"""Moments and spans as a person reads them."""

import time
from datetime import datetime


def moment_text(at_ms: int) -> str:
    """A moment in this machine's time zone."""
    return f"{datetime.fromtimestamp(at_ms / 1000):%Y-%m-%d %H:%M}"


def until_text(at_ms: int, now_ms: int | None = None) -> str:
    """A moment and how far away it is."""
    left_seconds = (at_ms - (int(time.time() * 1000) if now_ms is None else now_ms)) / 1000
    if left_seconds <= 0:
        return f"{moment_text(at_ms)} (now)"
    return f"{moment_text(at_ms)} (in {span_text(left_seconds)})"


def span_text(seconds: float) -> str:
    """A span in its largest fitting unit."""
    for unit, size in (("days", 86_400), ("hours", 3_600), ("minutes", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} seconds"
