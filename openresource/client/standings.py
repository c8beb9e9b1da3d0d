"""How providers have done for this client: times, load, failures; from these each call's provider is chosen.

The rule is `market/choices.py`, the circuit breakers are `market/breakers.py`. Here are the clock, the chance and the
memory: figures outlive the process in the home's books, so that the next command knows who was slow or away.
"""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, Final

from openresource.client.books import Books, BooksUnusable
from openresource.client.services import Choice
from openresource.market import breakers, choices
from openresource.market.breakers import Breaker
from openresource.market.choices import Candidate, Chance, Considered, Figures
from openresource.market.placements import Placement
from openresource.market.prices import Price

LOAD_HEADER: Final = "openresource-load"
LOAD_CHARACTERS_MAX: Final = 100
SAVE_SECONDS: Final = 2.0
# Older news about a provider says nothing about today.
KEPT_MS: Final = 10 * 60 * 1000
KEPT_MAX: Final = 2_000
RETRY_MS_DEFAULT: Final = 1_000

_log = logging.getLogger("openresource.client.standings")
_LOAD = re.compile(r"(\d{1,9})/(\d{1,9});wait_ms=(\d{1,9})")

Key = tuple[str, str]


class Standings:
    """Figures by provider and program, in memory and now and then on disk."""

    def __init__(
        self,
        books: Books,
        genesis: str,
        chance: Chance,
        *,
        clock_ms: Callable[[], int] = lambda: int(time.time() * 1000),
    ) -> None:
        self._books = books
        self._genesis = genesis
        self._chance = chance
        self._clock_ms = clock_ms
        self._figures: dict[Key, Figures] = {}
        self._changed: set[Key] = set()
        self._saved_at = time.monotonic()
        for provider, program, record in books.standings(genesis, clock_ms() - KEPT_MS):
            self._figures[provider, program] = _figures_of(record)

    def close(self) -> None:
        """Write down what is not yet written."""
        self._save()

    def choose(
        self,
        choice: Choice,
        offers: Sequence[tuple[Placement, Price]],
        *,
        price_uain_max: int | None = None,
    ) -> tuple[Considered, ...]:
        """Whom to ask for one call, in order, with the reasons."""
        candidates = [_candidate(placement, price) for placement, price in offers]
        figures = {
            one.provider: self._figures[one.provider, choice.program]
            for one in candidates
            if (one.provider, choice.program) in self._figures
        }
        return choices.choose(
            candidates, figures, self._chance, self._clock_ms(), price_uain_max=price_uain_max
        )

    def figures(self, provider: str, program: str) -> Figures:
        """What is known of a provider."""
        return self._figures.get((provider, program), choices.UNKNOWN)

    def rest_seconds(self, considered: Sequence[Considered], program: str) -> float:
        """How long until one of those who said that they are full may be asked again."""
        ends = [self.figures(one.provider, program).rests_until_ms for one in considered]
        return max(0, min(ends, default=0) - self._clock_ms()) / 1000

    # What happens to a call

    def begun(self, key: Key) -> None:
        """A call goes there."""
        known = self._known(key)
        breaker = breakers.begun(known.breaker, self._clock_ms())
        self._figures[key] = replace(known, in_flight=known.in_flight + 1, breaker=breaker)

    def left(self, key: Key) -> None:
        """The call is over, however it ended."""
        known = self._known(key)
        self._figures[key] = replace(
            known, in_flight=max(0, known.in_flight - 1), breaker=breakers.given_up(known.breaker)
        )

    def answered(self, key: Key, milliseconds: float) -> None:
        """It answered after so long; a stream when its first byte came."""
        known = choices.found_room(choices.measured(self._known(key), milliseconds, self._clock_ms()))
        self._keep(key, replace(known, breaker=breakers.answered(known.breaker)))

    def failed(self, key: Key, *, is_away: bool) -> None:
        """No answer came."""
        self._keep(key, choices.failed(self._known(key), self._clock_ms(), is_away=is_away))

    def full(self, key: Key, retry_ms: int) -> None:
        """It had no room and said when to come again."""
        self._keep(key, choices.told_full(self._known(key), retry_ms or RETRY_MS_DEFAULT, self._clock_ms()))

    def heard(self, key: Key, load: str | None) -> None:
        """What an answer's head said of the provider's load; a stranger's words, so only what fits counts."""
        if load is None or len(load) > LOAD_CHARACTERS_MAX:
            return
        found = _LOAD.fullmatch(load)
        if found is not None:
            in_flight, _, wait_ms = (int(number) for number in found.groups())
            self._figures[key] = choices.told_load(self._known(key), in_flight, wait_ms, self._clock_ms())

    def _known(self, key: Key) -> Figures:
        return self._figures.get(key, choices.UNKNOWN)

    def _keep(self, key: Key, figures: Figures) -> None:
        if key not in self._figures and len(self._figures) >= KEPT_MAX:
            self._figures = {kept: one for kept, one in self._figures.items() if one.in_flight}
        self._figures[key] = figures
        self._changed.add(key)
        if time.monotonic() - self._saved_at > SAVE_SECONDS:
            self._save()

    def _save(self) -> None:
        self._saved_at = time.monotonic()
        rows = [(*key, _record_of(self._figures[key])) for key in self._changed if key in self._figures]
        self._changed.clear()
        if rows:
            try:
                self._books.save_standings(self._genesis, rows, self._clock_ms())
            except BooksUnusable as problem:
                # Hints are not worth an answer that is here already; what is owed is written elsewhere.
                _log.warning("how providers did is not written down: %s", problem.message)


def _candidate(placement: Placement, price: Price) -> Candidate:
    return Candidate(
        provider=placement.provider,
        price_uain=price.total_uain,
        capacity=placement.capacity,
        isolation=placement.isolation,
        # What an older record does not say counts as warm.
        is_warm=getattr(placement, "warm", None) is not False,
        start_ms=int(getattr(placement, "start_ms", 0) or 0),
    )


def _record_of(figures: Figures) -> dict[str, Any]:
    """What is worth knowing in the next process; calls that are under way are not."""
    breaker = figures.breaker
    return {
        "latency_ms": round(figures.latency_ms, 3),
        "measured_at_ms": figures.measured_at_ms,
        "places_seen": figures.places_seen,
        "rests_until_ms": figures.rests_until_ms,
        "calls": figures.calls,
        "failures": figures.failures,
        "failed_at_ms": figures.failed_at_ms,
        "breaker": [breaker.failures, breaker.times_opened, breaker.open_until_ms],
    }


def _figures_of(record: dict[str, Any]) -> Figures:
    failures, times_opened, open_until_ms = record["breaker"]
    return Figures(
        latency_ms=record["latency_ms"],
        measured_at_ms=record["measured_at_ms"],
        places_seen=record["places_seen"],
        rests_until_ms=record["rests_until_ms"],
        calls=record["calls"],
        failures=record["failures"],
        failed_at_ms=record["failed_at_ms"],
        breaker=Breaker(failures, times_opened, open_until_ms),
    )
