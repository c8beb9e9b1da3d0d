"""Trust labels: computed from what the chain saw, and silent about what somebody claims."""

from __future__ import annotations

import pytest

from openresource.market.labels import (
    NOTHING_SEEN,
    Verified,
    count_audited,
    count_comparison,
    count_quorum,
    labels_of,
    read_verified,
    verified_record,
)


def texts(exactness: str, verified: Verified) -> list[str]:
    return [label.text for label in labels_of(exactness, verified)]


@pytest.mark.parametrize(
    ("exactness", "verified", "expected"),
    [
        ("bit_exact", NOTHING_SEEN, ["unaudited"]),
        ("bit_exact", Verified(agreed=3), ["bit-exact"]),
        ("class_exact", Verified(agreed=3), ["unaudited"]),
        ("bit_exact", Verified(audited=200, drawn=11, agreed=11), ["audited at 5.5 %", "bit-exact"]),
        ("bit_exact", Verified(audited=200, drawn=11, agreed=11, faults=1), ["audited at 5.5 %"]),
        ("bit_exact", Verified(audited=200, drawn=11, agreed=11, differed=1), ["audited at 5.5 %"]),
        ("tolerant", Verified(audited=3, drawn=2, agreed=2), ["audited at 66.6 %"]),
        ("tolerant", Verified(audited=10, drawn=10, quorums={2: 5, 3: 1}), ["audited at 100 %", "quorum 3"]),
        ("subjective", Verified(audited=1), ["audited at 0 %"]),
    ],
)
def test_a_label_says_what_happened(exactness: str, verified: Verified, expected: list[str]) -> None:
    assert texts(exactness, verified) == expected


def test_every_label_tells_the_facts_behind_it() -> None:
    seen = Verified(audited=200, drawn=11, agreed=12, quorums={2: 1})
    assert [label.why for label in labels_of("bit_exact", seen)] == [
        "of 200 results under the lot 11 were run again by others",
        "1 result came out alike at 2 providers at once",
        "declared, and 12 comparisons found the same bytes without a fault",
    ]


def test_a_label_does_not_promise_what_could_not_be_enforced() -> None:
    seen = count_comparison(Verified(audited=200, drawn=11, agreed=11), agreed=False, faults=0, differed=True)
    assert [label.why for label in labels_of("bit_exact", seen)] == [
        "of 200 results under the lot 11 were run again by others; 1 differed, and nobody could be held to it"
    ]
    assert read_verified(verified_record(seen)) == seen


def test_what_is_seen_is_counted_and_read_back() -> None:
    seen = count_audited(count_audited(NOTHING_SEEN, is_drawn=False), is_drawn=True)
    seen = count_comparison(count_quorum(seen, 2), agreed=True, faults=0)
    seen = count_comparison(count_quorum(seen, 2), agreed=False, faults=1)
    assert seen == Verified(audited=2, drawn=1, agreed=1, faults=1, quorums={2: 2})
    assert read_verified(verified_record(seen)) == seen
    assert read_verified(None) == NOTHING_SEEN and verified_record(NOTHING_SEEN) == {}
