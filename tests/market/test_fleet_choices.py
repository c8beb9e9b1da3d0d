"""The choice of a provider, and the circuit breaker: what holds for all figures, and what a street of providers comes to."""

from __future__ import annotations

import heapq
import random
from collections import Counter
from dataclasses import dataclass, replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from openresource.market import breakers, choices
from openresource.market.breakers import CLOSED, FAILURES_MAX, FRESH, HALF_OPEN, OPEN, OPEN_MS_MAX, Breaker
from openresource.market.choices import (
    BREAKER_OPEN,
    CHOSEN,
    LATENCY_HALF_LIFE_MS,
    NEAR_FACTOR,
    NEXT,
    RESTING,
    TOO_EXPENSIVE,
    Candidate,
    Considered,
    Figures,
    askable,
    choose,
)

NOW = 1_000_000

candidates_of = st.lists(
    st.builds(
        Candidate,
        provider=st.sampled_from([f"0x{number:040x}" for number in range(9)]),
        price_uain=st.integers(0, 10**9),
        capacity=st.integers(0, 1_000),
        isolation=st.sampled_from(["", "confined", "bubblewrap", "unheard-of"]),
        is_warm=st.booleans(),
        start_ms=st.integers(0, 10**6),
    ),
    max_size=9,
    unique_by=lambda one: one.provider,
)
figures_of = st.builds(
    Figures,
    latency_ms=st.floats(0, 10**6),
    measured_at_ms=st.integers(0, NOW),
    in_flight=st.integers(0, 500),
    said_in_flight=st.integers(0, 10**9),
    said_wait_ms=st.integers(0, 10**9),
    said_at_ms=st.integers(0, NOW),
    places_seen=st.integers(0, 500),
    rests_until_ms=st.integers(0, 2 * NOW),
    failures=st.integers(0, 10**6),
    failed_at_ms=st.integers(0, NOW),
    breaker=st.builds(
        Breaker, st.integers(0, 10**6), st.integers(0, 100), st.integers(0, 2 * NOW), st.integers(0, NOW)
    ),
)


@settings(max_examples=60, deadline=None)
@given(
    candidates_of, st.lists(figures_of, min_size=9, max_size=9), st.integers(0, 2**32), st.integers(0, 10**9)
)
def test_everybody_is_considered_once_and_the_first_is_the_best_of_two(
    candidates: list[Candidate], figures: list[Figures], seed: int, most_uain: int
) -> None:
    known = {f"0x{number:040x}": figures[number] for number in range(9) if number % 3}
    found = choose(candidates, known, random.Random(seed), NOW, price_uain_max=most_uain)
    assert sorted(one.provider for one in found) == sorted(one.provider for one in candidates)
    assert found == choose(candidates, known, random.Random(seed), NOW, price_uain_max=most_uain)
    order = askable(found)
    assert all(one.price_uain <= most_uain for one in order)
    assert all(one.price_uain > most_uain for one in found if one.verdict == TOO_EXPENSIVE)
    assert all(one.cost > 0 for one in found)
    well = [one for one in order if not one.reason]
    # Whoever has nothing against it comes before whoever has, and the first costs nearly the least.
    assert order[: len(well)] == well
    if len(well) > 1:
        assert well[0].cost <= NEAR_FACTOR * min(one.cost for one in well)
        assert [one.cost for one in well[1:]] == sorted(one.cost for one in well[1:])
        assert well[0].verdict == CHOSEN and well[1].verdict == NEXT


def candidate(name: str, price_uain: int = 100, **more: int | str | bool) -> Candidate:
    return Candidate(name, price_uain, more.pop("capacity", 8), **more)  # type: ignore[arg-type]


def chosen(candidates: list[Candidate], figures: dict[str, Figures], at_ms: int = NOW) -> Considered:
    return choose(candidates, figures, random.Random(1), at_ms)[0]


def test_of_two_that_nobody_knows_the_cheaper_is_taken() -> None:
    assert chosen([candidate("a", 120), candidate("b", 100)], {}).provider == "b"


def test_between_equals_chance_decides() -> None:
    pair = [candidate("a"), candidate("b")]
    firsts = Counter(choose(pair, {}, random.Random(seed), NOW)[0].provider for seed in range(200))
    assert min(firsts.values()) > 60


def test_twice_the_price_is_paid_only_for_much_less_time() -> None:
    pair = [candidate("cheap", 100), candidate("quick", 200)]
    slow = Figures(latency_ms=150, measured_at_ms=NOW)
    quick = Figures(latency_ms=50, measured_at_ms=NOW)
    assert chosen(pair, {"cheap": slow, "quick": quick}).provider == "cheap"
    slower = replace(slow, latency_ms=600)
    assert chosen(pair, {"cheap": slower, "quick": quick}).provider == "quick"


def test_a_few_milliseconds_are_worth_nothing() -> None:
    pair = [candidate("cheap", 100), candidate("near", 120)]
    figures = {
        "cheap": Figures(latency_ms=6, measured_at_ms=NOW),
        "near": Figures(latency_ms=1, measured_at_ms=NOW),
    }
    assert chosen(pair, figures).provider == "cheap"


def test_who_has_no_room_left_gives_way_to_who_has() -> None:
    pair = [candidate("full"), candidate("free", 110)]
    assert chosen(pair, {"full": Figures(in_flight=8)}).provider == "free"
    said = Figures(said_in_flight=40, said_wait_ms=400, said_at_ms=NOW)
    assert chosen(pair, {"full": said}).provider == "free"
    # What was said a while ago counts no more.
    assert chosen(pair, {"full": replace(said, said_at_ms=NOW - 10_000)}).provider == "full"


def test_a_cold_start_is_counted_and_a_stronger_wall_decides_between_equals() -> None:
    pair = [candidate("cold", is_warm=False, start_ms=4_000), candidate("warm", 110)]
    assert chosen(pair, {}).provider == "warm"
    pair = [candidate("a", isolation="confined"), candidate("b", isolation="bubblewrap")]
    assert chosen(pair, {}).provider == "b"


def test_a_slow_provider_is_tried_again_when_its_figure_is_old() -> None:
    pair = [candidate("slow", 100), candidate("dear", 150)]
    figures = {
        "slow": Figures(latency_ms=900, measured_at_ms=NOW),
        "dear": Figures(latency_ms=50, measured_at_ms=NOW),
    }
    assert chosen(pair, figures).provider == "dear"
    assert chosen(pair, figures, NOW + 6 * LATENCY_HALF_LIFE_MS).provider == "slow"


def test_who_said_that_it_is_full_rests_and_is_not_believed_about_its_places() -> None:
    figures = choices.told_full(Figures(in_flight=3), 400, NOW)
    assert figures.places_seen == 2
    pair = [candidate("full", capacity=1_000), candidate("free", 500)]
    first, second = choose(pair, {"full": figures}, random.Random(1), NOW)
    assert (first.provider, second.verdict, second.capacity) == ("free", RESTING, 2)
    assert "400 ms" in second.reason
    # It is believed to take one more each time when it did.
    assert choices.found_room(replace(figures, in_flight=2)).places_seen == 3
    assert choices.found_room(replace(figures, in_flight=1)).places_seen == 2


def test_when_nobody_else_is_left_who_rests_is_asked_before_who_failed() -> None:
    away = Figures(breaker=breakers.failed(FRESH, NOW, is_away=True))
    full = choices.told_full(Figures(), 400, NOW)
    found = choose(
        [candidate("away"), candidate("full")], {"away": away, "full": full}, random.Random(1), NOW
    )
    assert [(one.provider, one.breaker) for one in found] == [("full", CLOSED), ("away", OPEN)]
    assert found[1].verdict == BREAKER_OPEN and "failed 1 times" in found[1].reason


# ── The breaker ──────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_program_that_fails_opens_the_breaker_after_some_times_and_a_dead_provider_at_once() -> None:
    breaker = FRESH
    for _ in range(FAILURES_MAX - 1):
        breaker = breakers.failed(breaker, NOW, is_away=False)
        assert breakers.admits(breaker, NOW)
    breaker = breakers.failed(breaker, NOW, is_away=False)
    assert breakers.state_of(breaker, NOW) == OPEN and not breakers.admits(breaker, NOW)
    assert breakers.state_of(breakers.failed(FRESH, NOW, is_away=True), NOW) == OPEN


def test_a_half_open_breaker_lets_one_probe_through() -> None:
    breaker = breakers.failed(FRESH, NOW, is_away=True)
    later = breaker.open_until_ms
    assert breakers.state_of(breaker, later) == HALF_OPEN
    probing = breakers.begun(breaker, later)
    assert not breakers.admits(probing, later)
    assert breakers.admits(breakers.given_up(probing), later)
    assert breakers.answered(probing) == FRESH
    again = breakers.failed(probing, later, is_away=False)
    assert again.open_until_ms - later == 2 * (breaker.open_until_ms - NOW)


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["begun", "answered", "failed", "away", "given_up"]), st.integers(0, 90_000)
        )
    )
)
def test_no_breaker_stays_open_for_ever_and_an_answer_closes_it(steps: list[tuple[str, int]]) -> None:
    breaker, at_ms = FRESH, 1
    for step, wait_ms in steps:
        at_ms += wait_ms
        match step:
            case "begun":
                breaker = breakers.begun(breaker, at_ms)
            case "answered":
                breaker = breakers.answered(breaker)
                assert breakers.state_of(breaker, at_ms) == CLOSED
            case "given_up":
                breaker = breakers.given_up(breaker)
            case _:
                breaker = breakers.failed(breaker, at_ms, is_away=step == "away")
        assert breaker.open_until_ms - at_ms <= OPEN_MS_MAX
        assert breakers.admits(breaker, at_ms + OPEN_MS_MAX + breakers.PROBE_MS_MAX)


# ── A street, simulated ──────────────────────────────────────────────────────────────────────────────────────────


@dataclass
class Shop:
    """A simulated provider: places, a time for each call, and what it pretends."""

    candidate: Candidate
    call_ms: float
    places: int
    dies_at_ms: int = 1 << 60
    busy: int = 0

    @property
    def queue_max(self) -> int:
        return self.places * 4


def simulate(
    shops: list[Shop], seed: int, callers: int, until_ms: int
) -> tuple[Counter[str], list[float], int]:
    """Callers in a closed loop; who served, how long calls took, and how many found nobody in two tries."""
    chance = random.Random(seed)
    figures: dict[str, Figures] = {shop.candidate.provider: Figures() for shop in shops}
    by_name = {shop.candidate.provider: shop for shop in shops}
    served: Counter[str] = Counter()
    times: list[float] = []
    lost = 0
    # (time, tie, kind, provider, began)
    events: list[tuple[float, int, str, str, float]] = []
    tie = 0
    for _ in range(callers):
        tie += 1
        heapq.heappush(events, (chance.random() * 20, tie, "call", "", 0.0))
    while events:
        at, _, kind, name, began = heapq.heappop(events)
        at_ms = int(at)
        if at > until_ms:
            break
        tie += 1
        if kind == "done":
            shop = by_name[name]
            shop.busy -= 1
            known = choices.found_room(choices.measured(figures[name], at - began, at_ms))
            known = choices.told_load(known, shop.busy, 0, at_ms)
            figures[name] = replace(known, in_flight=known.in_flight - 1, breaker=FRESH)
            served[name] += 1
            times.append(at - began)
            heapq.heappush(events, (at, tie, "call", "", 0.0))
            continue
        order = askable(choose([shop.candidate for shop in shops], figures, chance, at_ms))[:2]
        for one in order:
            shop = by_name[one.provider]
            known = figures[one.provider]
            if at_ms >= shop.dies_at_ms:
                figures[one.provider] = choices.failed(known, at_ms, is_away=True)
            elif shop.busy >= shop.places + shop.queue_max:
                figures[one.provider] = choices.told_full(
                    replace(known, in_flight=known.in_flight + 1), 50, at_ms
                )
                figures[one.provider] = replace(figures[one.provider], in_flight=known.in_flight)
            else:
                rounds = shop.busy // shop.places + 1
                shop.busy += 1
                figures[one.provider] = replace(known, in_flight=known.in_flight + 1)
                took = shop.call_ms * rounds * (0.8 + 0.4 * chance.random())
                heapq.heappush(events, (at + took, tie, "done", one.provider, at))
                break
        else:
            lost += 1
            heapq.heappush(events, (at + 60, tie, "call", "", 0.0))
    return served, times, lost


@pytest.mark.parametrize("seed", range(3))
def test_equal_providers_share_the_load(seed: int) -> None:
    shops = [Shop(candidate(f"shop-{number}"), 20, 8) for number in range(5)]
    served, times, lost = simulate(shops, seed, 40, 2_000)
    assert lost == 0
    assert max(served.values()) < 1.5 * min(served.values())
    times.sort()
    assert times[int(len(times) * 0.95)] < 20 * 1.2 * 3


@pytest.mark.parametrize("seed", range(3))
def test_a_slow_one_gets_little_a_liar_no_more_than_it_can_and_a_dead_one_nothing(seed: int) -> None:
    shops = [
        Shop(candidate("good-1"), 20, 8),
        Shop(candidate("good-2"), 20, 8),
        Shop(candidate("slow"), 400, 8),
        Shop(candidate("liar", capacity=500), 20, 2),
        Shop(candidate("dying"), 20, 8, dies_at_ms=500),
    ]
    served, times, lost = simulate(shops, seed, 24, 4_000)
    assert lost == 0
    good = min(served["good-1"], served["good-2"])
    assert served["slow"] < good / 8
    assert served["liar"] < good
    assert served["dying"] < good / 2
    times.sort()
    assert times[int(len(times) * 0.95)] < 120


@pytest.mark.parametrize("seed", range(3))
def test_the_cheap_one_is_used_up_to_its_places_and_the_dear_ones_take_the_rest(seed: int) -> None:
    shops = [Shop(candidate("cheap", 100), 20, 4)] + [
        Shop(candidate(f"dear-{number}", 200), 20, 16) for number in range(2)
    ]
    alone, _, _ = simulate(shops, seed, 1, 1_500)
    assert alone["cheap"] == sum(alone.values())
    for shop in shops:
        shop.busy = 0
    many, _, lost = simulate(shops, seed, 40, 1_500)
    assert lost == 0
    assert many["dear-0"] + many["dear-1"] > many["cheap"]
