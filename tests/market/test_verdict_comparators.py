"""Comparators: exact arithmetic, the same in both directions, and refusals for what nobody can compute alike."""

from __future__ import annotations

from fractions import Fraction
from time import process_time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from openresource.market.jobs.comparators import (
    EDIT_DISTANCE_MAX,
    Comparator,
    Verification,
    VerificationInvalid,
    edit_distance_within,
    outputs_agree,
    read_comparator,
    read_verification,
    verification_record,
)
from openresource.market.jobs.policies import (
    PolicyInvalid,
    PolicyNotForClass,
    check_policy_fits,
    policy_text,
    read_policy,
)
from openresource.market.manifests import InvalidManifest, Manifest, parse_manifest
from openresource.market.tree_json import tree_value

COMPARATORS = [
    {"name": "allclose", "rtol": "1e-5"},
    {"name": "allclose", "rtol": "0.001", "atol": "0.1"},
    {"name": "cosine", "tau": "0.99"},
    {"name": "prefix", "n": "3"},
    {"name": "edit_distance", "d": "2"},
]
JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=8,
)


@given(st.sampled_from(COMPARATORS), JSON, JSON)
def test_every_comparator_is_symmetric_and_agrees_with_itself(
    record: dict[str, str], left: Any, right: Any
) -> None:
    comparator = read_comparator(record)
    assert outputs_agree(comparator, left, left)
    assert outputs_agree(comparator, left, right) == outputs_agree(comparator, right, left)


@pytest.mark.parametrize(
    ("record", "left", "right", "agree"),
    [
        ({"name": "allclose", "atol": "0.1"}, 0.3, 0.2, True),
        # In doubles 0.3 - 0.2 is less than 0.1; as decimals it is 0.1 exactly.
        ({"name": "allclose", "atol": "0.1"}, 0.30000000000000004, 0.2, False),
        ({"name": "allclose", "rtol": "1e-3"}, [1, {"a": 1000}], [1, {"a": 1001}], True),
        ({"name": "allclose", "rtol": "1e-3"}, [1, 2], [1, 2, 3], False),
        ({"name": "allclose", "rtol": "1"}, "a", "b", False),
        ({"name": "allclose", "rtol": "1"}, True, 1, False),
        ({"name": "cosine", "tau": "0.9"}, [1, 0], [1, 0.1], True),
        ({"name": "cosine", "tau": "0.9"}, [1, 0], [0, 1], False),
        ({"name": "cosine", "tau": "0.9"}, [1, 0], [-1, 0], False),
        ({"name": "cosine", "tau": "0.9"}, [0, 0], [0, 0], True),
        ({"name": "cosine", "tau": "0.9"}, [1, 2], [1, 2, 3], False),
        ({"name": "prefix", "n": "3"}, "hello", "help", True),
        ({"name": "prefix", "n": "4"}, "hello", "help", False),
        ({"name": "edit_distance", "d": "2"}, "kitten", "mitten", True),
        ({"name": "edit_distance", "d": "2"}, "kitten", "sitting", False),
    ],
)
def test_what_agrees(record: dict[str, str], left: Any, right: Any, agree: bool) -> None:
    comparator = read_comparator(record)
    assert outputs_agree(comparator, left, right) is agree
    # As values of the tree, where lists are objects by position.
    assert outputs_agree(comparator, tree_value(left), tree_value(right)) is agree


def distance(left: str, right: str) -> int:
    """The textbook's table, all of it."""
    row = list(range(len(right) + 1))
    for one in left:
        above, row[0] = row[0], row[0] + 1
        for place, other in enumerate(right, 1):
            above, row[place] = row[place], min(row[place] + 1, row[place - 1] + 1, above + (one != other))
    return row[-1]


@given(st.text("abc", max_size=12), st.text("abc", max_size=12), st.integers(1, 6))
def test_the_banded_distance_is_the_whole_tables(left: str, right: str, most: int) -> None:
    assert edit_distance_within(left, right, most) == (distance(left, right) <= most)


@pytest.mark.parametrize(
    "record",
    [{"class": "tolerant", "comparator": record} for record in COMPARATORS] + [{"class": "bit_exact"}],
)
def test_a_verification_is_read_as_it_is_written(record: dict[str, Any]) -> None:
    verification = read_verification(record)
    assert read_verification(verification_record(verification)) == verification


def test_a_fraction_is_kept_exactly() -> None:
    assert read_comparator({"name": "allclose", "rtol": "1e-5"}).rtol == Fraction(1, 100_000)


@pytest.mark.parametrize(
    "record",
    [
        5,
        {"class": "perhaps"},
        {"class": "bit_exact", "comparator": {"name": "allclose", "rtol": "1"}},
        {"class": "tolerant", "comparator": {"name": "near"}},
        {"class": "tolerant", "comparator": {"name": "allclose"}},
        {"class": "tolerant", "comparator": {"name": "allclose", "rtol": 0.1}},
        {"class": "tolerant", "comparator": {"name": "allclose", "rtol": "-1"}},
        {"class": "tolerant", "comparator": {"name": "allclose", "rtol": "1e999"}},
        {"class": "tolerant", "comparator": {"name": "allclose", "tau": "1"}},
        {"class": "tolerant", "comparator": {"name": "cosine", "tau": "1.1"}},
        {"class": "tolerant", "comparator": {"name": "edit_distance", "d": str(EDIT_DISTANCE_MAX + 1)}},
        {"class": "tolerant", "comparator": {"name": "prefix", "n": "0"}},
        {"clas": "tolerant"},
    ],
)
def test_what_is_no_verification_is_refused(record: Any) -> None:
    with pytest.raises(VerificationInvalid):
        read_verification(record)


@pytest.mark.parametrize(
    "text",
    ["one", "quorum:1/1", "quorum:2/3", "quorum:5/9", "audited", "audited:0", "audited:0.25", "audited:1"],
)
def test_a_policy_is_read_as_it_is_written(text: str) -> None:
    assert policy_text(read_policy(text)) == text


@pytest.mark.parametrize(
    "text",
    [
        "",
        "two",
        "quorum",
        "quorum:1/2",
        "quorum:3/2",
        "quorum:0/0",
        "quorum:9/10",
        "audited:",
        "audited:2",
        "audited:0.1234567",
        None,
        5,
    ],
)
def test_what_is_no_policy_is_refused(text: Any) -> None:
    with pytest.raises(PolicyInvalid):
        read_policy(text)


def test_a_comparison_needs_something_to_compare() -> None:
    for verification in (Verification("subjective"), Verification("tolerant")):
        check_policy_fits(read_policy("one", verification))
        for text in ("quorum:2/3", "audited"):
            with pytest.raises(PolicyNotForClass):
                check_policy_fits(read_policy(text, verification))


# -- manifests ---------------------------------------------------------------------------------------------------------

MANIFEST = 'name = "shout"\n{more}\n[run]\nkind = "python"\nentry = "shout:shout"\n'


def manifest_of(more: str) -> Manifest:
    text = MANIFEST.format(more=more if "[verify]" not in more else "")
    return parse_manifest(text + (more if "[verify]" in more else ""))


def test_a_manifest_says_how_its_results_are_compared() -> None:
    assert manifest_of("").verification == Verification("subjective")
    assert manifest_of('exactness = "bit_exact"').verification == Verification("bit_exact")
    assert manifest_of('[verify]\nclass = "class_exact"\n').exactness == "class_exact"
    verify = '[verify]\nclass = "tolerant"\ncomparator = {name = "allclose", rtol = "1e-5"}\n'
    comparator = manifest_of(verify).comparator
    assert comparator == read_comparator({"name": "allclose", "rtol": "1e-5"})


@pytest.mark.parametrize(
    ("more", "field"),
    [
        ('[verify]\nclass = "perhaps"\n', "verify.class"),
        ('[verify]\nclas = "tolerant"\n', "verify.clas"),
        ('[verify]\nclass = "bit_exact"\ncomparator = {name = "prefix", n = "3"}\n', "verify.comparator"),
        (
            '[verify]\nclass = "tolerant"\ncomparator = {name = "allclose", rtol = 0.1}\n',
            "verify.comparator.rtol",
        ),
    ],
)
def test_a_manifest_that_says_it_badly_is_told_where(more: str, field: str) -> None:
    with pytest.raises(InvalidManifest) as refusal:
        manifest_of(more)
    assert refusal.value.field == field and refusal.value.remedy


def test_a_class_is_said_once_or_alike() -> None:
    text = MANIFEST.format(more='exactness = "bit_exact"') + '[verify]\nclass = "class_exact"\n'
    with pytest.raises(InvalidManifest, match="exactness"):
        parse_manifest(text)


def test_comparing_the_largest_outputs_takes_no_time_in_which_a_block_could_be_made() -> None:
    one = "ab" * 4_000 + "ba" * 4_000
    other = one[:-31] + "c" * 31
    numbers = [float(f"{1 + place % 9}e{(-1) ** place * 300}") for place in range(2_400)]
    pairs = (
        (Comparator("edit_distance", d=32), one, other),
        (Comparator("edit_distance", d=32), one, one[1:] + "a"),
        (Comparator("cosine", tau=Fraction(99, 100)), numbers, numbers),
        (Comparator("allclose", rtol=Fraction(1, 100)), numbers, numbers),
    )
    for comparator, left, right in pairs:
        began = process_time()
        assert outputs_agree(comparator, left, right)
        assert process_time() - began < 0.7, comparator


@given(st.text("ab", max_size=12), st.text("ab", max_size=12), st.integers(1, 8))
def test_an_edit_distance_is_that_of_the_whole_table(left: str, right: str, distance: int) -> None:
    before = list(range(len(right) + 1))
    for row, character in enumerate(left, 1):
        now = [row]
        for place, wanted in enumerate(right, 1):
            now.append(min(before[place - 1] + (character != wanted), before[place] + 1, now[-1] + 1))
        before = now
    assert edit_distance_within(left, right, distance) == (before[-1] <= distance)
