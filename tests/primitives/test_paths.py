"""Paths and labels read back, and service accounts are told from addresses."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from openresource.primitives.paths import (
    append_path,
    balance_path,
    decode_label,
    encode_label,
    format_path,
    invalid_prefix,
    parse_path,
    radix_label,
    service_account_name,
    valid_label,
    valid_service_name,
)

labels = st.text(min_size=1, max_size=8).map(lambda text: text.replace("/", "|"))


@given(st.lists(labels))
def test_a_path_reads_back(path: list[str]) -> None:
    assert parse_path(format_path(path)) == path
    assert append_path(format_path(path), "/a//b/", "c") == format_path([*path, "a", "b", "c"])


@given(st.text(max_size=20))
def test_any_text_becomes_a_label_and_back(text: str) -> None:
    label = encode_label(text)
    assert decode_label(label) == text
    assert not set(label) & set("/.$*#{}[]")


@given(
    st.lists(labels, max_size=4), st.sampled_from(["", "a b", "a.b", "$", "x" * 151, "é" * 76 + "🚀" * 38])
)
def test_the_first_bad_label_is_named(path: list[str], bad: str) -> None:
    good = [label for label in path if valid_label(label)]
    assert invalid_prefix(good) is None
    assert invalid_prefix([*good, bad, "later"]) == format_path([*good, bad])


def test_lines_within_a_label_count_one_by_one() -> None:
    # As in AI Network's clients: one line that is allowed by itself allows the whole label.
    assert valid_label("$a\n") and valid_label("*\n.x/y") and valid_label("x.\u2028.ab")
    assert not valid_label("a\nb") and not valid_label("$a.b\u2028c")
    assert valid_service_name("1\na") and not valid_service_name("1\n2")


@given(st.text(max_size=6))
def test_a_radix_label_is_hex(label: str) -> None:
    assert set(radix_label(label)) <= set("0123456789abcdef")
    assert radix_label("0x" + radix_label(label)) == radix_label(label)


def test_balances_of_services_and_of_people_lie_apart() -> None:
    name = service_account_name("escrow", "app", "a|b")
    assert balance_path(name) == "/service_accounts/escrow/app/a|b/balance"
    assert balance_path("0x00") == "/accounts/0x00/balance"
    assert balance_path("channels|market|x") == "/accounts/channels|market|x/balance"
    kinds = frozenset(("channels",))
    assert balance_path("channels|market|x", kinds) == "/service_accounts/channels/market/x/balance"
