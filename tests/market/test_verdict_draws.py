"""Draws: every seat has the same chance, splitting gains nothing, and nobody who is bound can steer."""

from __future__ import annotations

import math
from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from openresource.ledger.beacon import BEACON_BLOCKS, NO_BEACON, beacon_of, beacon_path, next_beacon
from openresource.market.jobs.draws import (
    AUDIT_SAFETY,
    STREAK_TRUSTED,
    Candidate,
    audit_rate_ppm,
    draw_number,
    is_drawn,
    negative_log2,
    ranking,
    seats_of,
)
from openresource.primitives.amounts import PPM
from openresource.primitives.hashing import keccak

JOBS = 4_000


def seed(number: int) -> bytes:
    return keccak(number.to_bytes(8, "big"))


def is_likely(count: int, chance: float, trials: int) -> bool:
    """Within five standard deviations of what a fair draw gives."""
    return abs(count - chance * trials) <= 5 * math.sqrt(trials * chance * (1 - chance)) + 1


def test_every_seat_has_the_same_chance_to_be_first() -> None:
    candidates = [Candidate("small", 1), Candidate("middle", 3), Candidate("large", 6)]
    first = Counter(ranking(seed(number), candidates)[0] for number in range(JOBS))
    for candidate in candidates:
        assert is_likely(first[candidate.provider], candidate.seats / 10, JOBS)


def test_splitting_a_bond_into_many_addresses_gains_nothing() -> None:
    others = [Candidate(f"other{number}", 1) for number in range(6)]
    split = [*others, *(Candidate(f"split{number}", 1) for number in range(4))]
    whole = [*others, Candidate("split", 4)]
    for candidates in (split, whole):
        count = sum(ranking(seed(number), candidates)[0].startswith("split") for number in range(JOBS))
        assert is_likely(count, 0.4, JOBS)


def test_who_has_no_seat_comes_after_all_who_have_one() -> None:
    candidates = [Candidate("none", 0), Candidate("nothing", 0), Candidate("bonded", 1)]
    assert {ranking(seed(number), candidates)[0] for number in range(50)} == {"bonded"}
    assert seats_of(2_999_999, 1_000_000) == 2 and seats_of(5, 0) == 0


@given(
    st.lists(
        st.tuples(st.text("abcd", min_size=1, max_size=6), st.integers(0, 50)),
        unique_by=lambda one: one[0],
        max_size=8,
    ),
    st.randoms(),
)
def test_an_order_is_the_same_whoever_computes_it(pairs: list[tuple[str, int]], random: object) -> None:
    candidates = [Candidate(name, seats) for name, seats in pairs]
    order = ranking(seed(1), candidates)
    random.shuffle(candidates)  # type: ignore[attr-defined]
    assert ranking(seed(1), candidates) == order and sorted(order) == sorted(name for name, _ in pairs)


@given(st.integers(1, 2**256 - 1))
def test_a_logarithm_in_whole_numbers_is_near_the_true_one(number: int) -> None:
    exact = 256 - math.log2(number)
    assert abs(negative_log2(number, 256) / 2**32 - exact) < 1e-6


def test_lots_fall_at_the_rate_and_on_no_kind_of_job_more_often() -> None:
    for rate_ppm in (5_000, 100_000, 500_000):
        for bit in (0, 1):
            numbers = [
                draw_number(f"{number:032x}", seed(number), seed(number ^ 0xFFFF))
                for number in range(JOBS)
                if number & 1 == bit
            ]
            drawn = sum(is_drawn(number, rate_ppm) for number in numbers)
            assert is_likely(drawn, rate_ppm / PPM, len(numbers))


def test_a_proposer_that_tries_blocks_without_the_secret_changes_nothing_on_average() -> None:
    """It takes the block whose lot suits it under a secret that it guesses; the true secret draws all the same."""
    drawn = 0
    for number in range(JOBS):
        guess = seed(number + 10**6)
        blocks = [seed(number * 8 + attempt + 10**7) for attempt in range(8)]
        best = max(blocks, key=lambda block: draw_number("job", guess, block))
        drawn += is_drawn(draw_number("job", seed(number), best), 100_000)
    assert is_likely(drawn, 0.1, JOBS)


def test_a_buyer_chooses_its_secret_before_the_beacon_is_known() -> None:
    """It takes the secret that suits it under a beacon that it guesses."""
    drawn = 0
    for number in range(JOBS):
        guess = seed(number + 10**6)
        secrets = [seed(number * 8 + attempt + 10**7) for attempt in range(8)]
        best = max(secrets, key=lambda secret: draw_number("job", secret, guess))
        drawn += is_drawn(draw_number("job", best, seed(number)), 100_000)
    assert is_likely(drawn, 0.1, JOBS)


def test_rates_never_and_always() -> None:
    assert not is_drawn(0, 0) and is_drawn(2**64 - 1, PPM) and is_drawn(0, 1)


@given(st.integers(0, 10_000), st.integers(1, 10**9), st.integers(0, 10**9), st.integers(0, PPM))
def test_cheating_is_a_loss_at_every_rate_that_a_record_can_have(
    streak: int, price_uain: int, stake_uain: int, lowest_ppm: int
) -> None:
    rate = audit_rate_ppm(streak=streak, price_uain=price_uain, stake_uain=stake_uain, lowest_ppm=lowest_ppm)
    assert lowest_ppm <= rate <= PPM
    if streak < STREAK_TRUSTED:
        assert rate == PPM
    # What is gained where nobody looks, against what is lost where somebody does; at most all of it is looked at.
    gained, lost = (PPM - rate) * price_uain, rate * stake_uain
    assert rate == PPM or lost >= (AUDIT_SAFETY - 1) * gained


def test_the_rate_falls_with_every_result_that_others_verified() -> None:
    rates = [
        audit_rate_ppm(streak=streak, price_uain=700, stake_uain=1_000_000, lowest_ppm=5_000)
        for streak in (0, 9, 10, 50, 200, 10_000)
    ]
    assert rates == [PPM, PPM, 100_000, 20_000, 5_000, 5_000]


def test_the_beacon_of_an_open_block_is_not_known_and_one_of_long_ago_is_forgotten() -> None:
    values: dict[tuple[str, ...], str] = {}
    beacon = NO_BEACON
    for height in range(BEACON_BLOCKS + 10):
        beacon = next_beacon(beacon, "0x" + seed(height).hex())
        values[beacon_path(height)] = "0x" + beacon.hex()

    def read(*labels: str) -> str | None:
        return values.get(labels)

    tip = BEACON_BLOCKS + 9
    assert beacon_of(read, tip, tip + 1) == beacon
    assert beacon_of(read, tip + 1, tip + 1) is None and beacon_of(read, 9, tip + 1) is None
    assert beacon_of(read, 10, tip + 1) is not None
