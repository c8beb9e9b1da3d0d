"""Which provider a call goes to: of two drawn by chance the one that costs less, counted in money, time and room.

Whoever always takes the best sends everybody to the same place and overloads it; of two drawn by chance the better one
spreads the load. Drawn are those that cost nearly the least, so nobody pays twice for the sake of spreading. The cost
is a product of ratios, and no unit comes into it:

    (price / lowest)^PRICE × ((expected time + 25 ms) / (shortest + 25 ms))^TIME × (1 + calls there / places)^ROOM × 1.05^(steps below best)

A provider that failed costs twice as much for each failure in a row, and after some its circuit breaker opens. What is
not known counts as good as the best known, so that a newcomer is tried; what was measured fades, so that a
provider that was slow an hour ago gets another chance. Chance, time and figures are arguments.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final, Protocol

from openresource.market import breakers
from openresource.market.breakers import FRESH, HALF_OPEN, Breaker, admits, state_of
from openresource.market.placements import ISOLATION_LEVELS

PRICE_WEIGHT: Final = 2.0
TIME_WEIGHT: Final = 1.0
ROOM_WEIGHT: Final = 1.0
LEVEL_FACTOR: Final = 1.05
# Who costs more than so many times the least is not drawn.
NEAR_FACTOR: Final = 1.5
# How quickly news counts: the part that the newest measurement has in the mean.
NEWEST_SHARE: Final = 0.3
# After so long a measured time counts half as much against a provider.
LATENCY_HALF_LIFE_MS: Final = 60_000
# After so long a failure weighs half as much; more failures than these make no difference.
DOUBT_HALF_LIFE_MS: Final = 30_000
FAILURES_COUNTED_MAX: Final = 6
# What a provider said of its load is believed so long.
LOAD_KEPT_MS: Final = 2_000
# Added to every time before they are compared: nobody pays twice as much to save a few milliseconds.
TIME_SLACK_MS: Final = 25.0
# A provider that says that it is full is left alone at least and at most so long.
REST_MS_MIN: Final = 50
REST_MS_MAX: Final = 30_000

CHOSEN: Final = "chosen"
NEXT: Final = "next"
NOT_DRAWN: Final = "not-drawn"
LOST_DRAW: Final = "lost-draw"
TOO_COSTLY: Final = "too-costly"
BREAKER_OPEN: Final = "breaker-open"
RESTING: Final = "resting"
TOO_EXPENSIVE: Final = "too-expensive"


class Chance(Protocol):
    """A source of chance, such as `random.Random(seed)`."""

    def randrange(self, stop: int, /) -> int: ...


@dataclass(frozen=True, slots=True)
class Candidate:
    """What a provider offers, by its own word on the chain."""

    provider: str
    price_uain: int
    capacity: int
    isolation: str = ""
    is_warm: bool = True
    start_ms: int = 0


@dataclass(frozen=True, slots=True)
class Figures:
    """What this client knows of a provider and program; 0 where it knows nothing."""

    latency_ms: float = 0.0
    measured_at_ms: int = 0
    # Calls of this client that are there now.
    in_flight: int = 0
    # What its last answer said of its load, and when.
    said_in_flight: int = 0
    said_wait_ms: int = 0
    said_at_ms: int = 0
    # How many calls of this client it could really take when it said that it was full; 0 while it never did.
    places_seen: int = 0
    rests_until_ms: int = 0
    calls: int = 0
    failures: int = 0
    failed_at_ms: int = 0
    breaker: Breaker = FRESH


UNKNOWN: Final = Figures()


@dataclass(frozen=True, slots=True)
class Considered:
    """One candidate with the figures on which it was judged, and what became of it."""

    provider: str
    verdict: str
    cost: float
    price_uain: int
    latency_ms: float
    expected_ms: float
    in_flight: int
    capacity: int
    wait_ms: int
    isolation: str
    breaker: str
    reason: str

    def to_json(self) -> dict[str, str | int | float]:
        """For whoever asks why."""
        return {
            "provider": self.provider,
            "verdict": self.verdict,
            "reason": self.reason,
            "cost": round(self.cost, 3),
            "price_uain": self.price_uain,
            "latency_ms": round(self.latency_ms, 1),
            "expected_ms": round(self.expected_ms, 1),
            "in_flight": self.in_flight,
            "capacity": self.capacity,
            "wait_ms": self.wait_ms,
            "isolation": self.isolation,
            "breaker": self.breaker,
        }


def choose(
    candidates: Sequence[Candidate],
    figures: Mapping[str, Figures],
    chance: Chance,
    at_ms: int,
    *,
    price_uain_max: int | None = None,
) -> tuple[Considered, ...]:
    """All candidates in the order in which they are to be asked; whoever may not be asked stands at the end."""
    if not candidates:
        return ()
    best = _best(candidates, figures, at_ms)
    judged = [_judged(one, best, figures, at_ms) for one in candidates]
    affordable = [one for one in judged if price_uain_max is None or one.price_uain <= price_uain_max]
    expensive = [one for one in judged if price_uain_max is not None and one.price_uain > price_uain_max]
    # When nobody else is left, one that rests or failed is better than none: it may be well again.
    hindered = sorted(
        (one for one in affordable if one.reason),
        key=lambda one: (one.verdict != RESTING, one.cost, one.provider),
    )
    order = [*_drawn([one for one in affordable if not one.reason], chance), *hindered]
    if order:
        order[0] = replace(order[0], verdict=CHOSEN)
    if len(order) > 1 and not order[1].reason:
        order[1] = replace(order[1], verdict=NEXT)
    return (
        *order,
        *(replace(one, verdict=TOO_EXPENSIVE, reason="costs more than is allowed") for one in expensive),
    )


def askable(considered: Sequence[Considered]) -> list[Considered]:
    """Those who may be asked at all, in order."""
    return [one for one in considered if one.verdict != TOO_EXPENSIVE]


def measured(figures: Figures, latency_ms: float, at_ms: int) -> Figures:
    """An answer came after so long."""
    mean_ms = latency_ms
    if figures.latency_ms and figures.measured_at_ms:
        mean_ms = (1 - NEWEST_SHARE) * figures.latency_ms + NEWEST_SHARE * latency_ms
    return replace(figures, latency_ms=mean_ms, measured_at_ms=at_ms, calls=figures.calls + 1)


def failed(figures: Figures, at_ms: int, *, is_away: bool) -> Figures:
    """No answer came."""
    breaker = breakers.failed(figures.breaker, at_ms, is_away=is_away)
    return replace(figures, failures=figures.failures + 1, failed_at_ms=at_ms, breaker=breaker)


def told_load(figures: Figures, in_flight: int, wait_ms: int, at_ms: int) -> Figures:
    """What an answer said of the provider's load."""
    return replace(figures, said_in_flight=in_flight, said_wait_ms=wait_ms, said_at_ms=at_ms)


def told_full(figures: Figures, rest_ms: int, at_ms: int) -> Figures:
    """It said that it is full: it is left alone for a moment, and what it announced is not believed any more."""
    rest_ms = min(max(rest_ms, REST_MS_MIN), REST_MS_MAX)
    places = max(1, figures.in_flight - 1)
    if figures.places_seen:
        places = min(places, figures.places_seen)
    return replace(figures, rests_until_ms=at_ms + rest_ms, places_seen=places)


def found_room(figures: Figures) -> Figures:
    """It answered while it had as many calls as it was thought to take: perhaps it takes one more."""
    if figures.places_seen and figures.in_flight >= figures.places_seen:
        return replace(figures, places_seen=figures.places_seen + 1)
    return figures


def places_of(candidate: Candidate, figures: Figures) -> int:
    """How many calls at once it is believed to take."""
    announced = max(1, candidate.capacity)
    return min(announced, figures.places_seen) if figures.places_seen else announced


def expected_ms(candidate: Candidate, figures: Figures, at_ms: int, unknown_ms: float) -> float:
    """How long a call would take there, by what was measured and said."""
    latency_ms = figures.latency_ms or unknown_ms
    # What was slow long ago may be quick today: the excess over the quickest fades.
    age_ms = max(0, at_ms - figures.measured_at_ms) if figures.measured_at_ms else 0
    if latency_ms > unknown_ms:
        latency_ms = unknown_ms + (latency_ms - unknown_ms) * 0.5 ** (age_ms / LATENCY_HALF_LIFE_MS)
    wait_ms = figures.said_wait_ms if at_ms - figures.said_at_ms < LOAD_KEPT_MS else 0
    is_cold = (
        not candidate.is_warm
        and not figures.in_flight
        and not (figures.calls and age_ms < LATENCY_HALF_LIFE_MS)
    )
    queued = max(0.0, (figures.in_flight + 1) / places_of(candidate, figures) - 1)
    return latency_ms * (1 + queued) + wait_ms + (candidate.start_ms if is_cold else 0)


def _drawn(judged: Sequence[Considered], chance: Chance) -> list[Considered]:
    """Of two by chance among those that cost nearly the least the cheaper one; then everybody else by cost."""
    if not judged:
        return []
    least = min(one.cost for one in judged)
    near = [one for one in judged if one.cost <= least * NEAR_FACTOR]
    far = [one for one in judged if one.cost > least * NEAR_FACTOR]
    pair = [near.pop(chance.randrange(len(near))) for _ in range(min(2, len(near)))]
    # Between equals the draw decides.
    pair.sort(key=lambda one: one.cost)
    rest = [replace(one, verdict=LOST_DRAW) for one in pair[1:]]
    rest += [replace(one, verdict=NOT_DRAWN) for one in near]
    rest += [replace(one, verdict=TOO_COSTLY) for one in far]
    return [pair[0], *sorted(rest, key=_by_cost)]


def _by_cost(one: Considered) -> tuple[float, str]:
    return one.cost, one.provider


@dataclass(frozen=True, slots=True)
class _Best:
    """What the others are measured by."""

    price_uain: int
    latency_ms: float
    expected_ms: float
    levels: tuple[int, ...]


def _best(candidates: Sequence[Candidate], figures: Mapping[str, Figures], at_ms: int) -> _Best:
    known = [figures.get(one.provider, UNKNOWN) for one in candidates]
    latency_ms = min((one.latency_ms for one in known if one.latency_ms), default=0.0)
    return _Best(
        min(one.price_uain for one in candidates),
        latency_ms,
        min(expected_ms(one, of, at_ms, latency_ms) for one, of in zip(candidates, known, strict=True)),
        tuple({ISOLATION_LEVELS.get(one.isolation, 0) for one in candidates}),
    )


def _judged(candidate: Candidate, best: _Best, figures: Mapping[str, Figures], at_ms: int) -> Considered:
    known = figures.get(candidate.provider, UNKNOWN)
    mine_ms = expected_ms(candidate, known, at_ms, best.latency_ms)
    places = places_of(candidate, known)
    is_said = at_ms - known.said_at_ms < LOAD_KEPT_MS
    there = max(known.in_flight, known.said_in_flight if is_said else 0)
    level = ISOLATION_LEVELS.get(candidate.isolation, 0)
    cost = (
        # One µAIN more on both sides, so that a gift can be compared.
        ((candidate.price_uain + 1) / (best.price_uain + 1)) ** PRICE_WEIGHT
        * ((mine_ms + TIME_SLACK_MS) / (best.expected_ms + TIME_SLACK_MS)) ** TIME_WEIGHT
        * (1 + there / places) ** ROOM_WEIGHT
        * _doubt(known, at_ms)
        * LEVEL_FACTOR ** sum(other > level for other in best.levels)
    )
    verdict, reason = _hindrance(known, at_ms)
    return Considered(
        provider=candidate.provider,
        verdict=verdict,
        cost=cost,
        price_uain=candidate.price_uain,
        latency_ms=known.latency_ms,
        expected_ms=mine_ms,
        in_flight=there,
        capacity=places,
        wait_ms=known.said_wait_ms if is_said else 0,
        isolation=candidate.isolation,
        breaker=state_of(known.breaker, at_ms),
        reason=reason,
    )


def _doubt(figures: Figures, at_ms: int) -> float:
    """Each failure in a row doubles the cost, until an answer or time makes it good."""
    age_ms = max(0, at_ms - figures.failed_at_ms)
    excess = 2.0 ** min(figures.breaker.failures, FAILURES_COUNTED_MAX) - 1
    return 1 + excess * float(0.5 ** (age_ms / DOUBT_HALF_LIFE_MS))


def _hindrance(figures: Figures, at_ms: int) -> tuple[str, str]:
    """What stands against asking a provider now."""
    if not admits(figures.breaker, at_ms):
        if state_of(figures.breaker, at_ms) == HALF_OPEN:
            return BREAKER_OPEN, "another call tries it just now"
        left_ms = figures.breaker.open_until_ms - at_ms
        return BREAKER_OPEN, f"failed {figures.breaker.failures} times in a row; left alone for {left_ms} ms"
    if figures.rests_until_ms > at_ms:
        return RESTING, f"said that it is full; left alone for {figures.rests_until_ms - at_ms} ms"
    return NOT_DRAWN, ""
