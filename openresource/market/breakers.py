"""A circuit breaker for one provider and program: after failures it is left alone for a while, then tried once.

CLOSED ──failures──▶ OPEN ──time──▶ HALF_OPEN ──answer──▶ CLOSED
                      ▲                 │
                      └─────failure─────┘
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

CLOSED: Final = "CLOSED"
OPEN: Final = "OPEN"
HALF_OPEN: Final = "HALF_OPEN"

# A program may fail on one input and be well; so many failures in a row are the provider's.
FAILURES_MAX: Final = 3
OPEN_MS_FIRST: Final = 1_000
OPEN_MS_MAX: Final = 60_000
# A probe whose end nobody told counts as none after so long.
PROBE_MS_MAX: Final = 60_000


@dataclass(frozen=True, slots=True)
class Breaker:
    """What is remembered; times are 0 where there is none."""

    failures: int = 0
    times_opened: int = 0
    open_until_ms: int = 0
    probing_since_ms: int = 0


FRESH: Final = Breaker()


def state_of(breaker: Breaker, at_ms: int) -> str:
    """Whether calls go there: as they like, not at all, or one to see."""
    if not breaker.times_opened:
        return CLOSED
    return OPEN if at_ms < breaker.open_until_ms else HALF_OPEN


def admits(breaker: Breaker, at_ms: int) -> bool:
    """Whether one more call may go there now; of a half-open one only a single probe at a time."""
    state = state_of(breaker, at_ms)
    is_probing = breaker.probing_since_ms > 0 and at_ms - breaker.probing_since_ms < PROBE_MS_MAX
    return state == CLOSED or (state == HALF_OPEN and not is_probing)


def begun(breaker: Breaker, at_ms: int) -> Breaker:
    """A call goes there; through a half-open breaker it is the probe."""
    if state_of(breaker, at_ms) == HALF_OPEN and admits(breaker, at_ms):
        return replace(breaker, probing_since_ms=max(1, at_ms))
    return breaker


def answered(breaker: Breaker) -> Breaker:
    """An answer came: everything is forgiven."""
    return FRESH


def given_up(breaker: Breaker) -> Breaker:
    """The caller left before the end, which says nothing about the provider."""
    return replace(breaker, probing_since_ms=0)


def failed(breaker: Breaker, at_ms: int, *, is_away: bool) -> Breaker:
    """No answer came; one that is away is left alone at once, a program that fails after some times."""
    failures = breaker.failures + 1
    state = state_of(breaker, at_ms)
    if state == OPEN:
        # Calls that were under way when it opened tell nothing new.
        return replace(breaker, failures=failures)
    if state == CLOSED and not is_away and failures < FAILURES_MAX:
        return replace(breaker, failures=failures)
    open_ms = min(OPEN_MS_FIRST * 2 ** min(breaker.times_opened, 16), OPEN_MS_MAX)
    return Breaker(failures, breaker.times_opened + 1, at_ms + open_ms)
