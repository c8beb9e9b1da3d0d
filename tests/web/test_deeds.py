"""What writes mean in words; whatever is written, a page has words for it."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from openresource.market.natives import FUNCTIONS
from openresource.primitives.paths import parse_path
from openresource.web.deeds import DETAIL_CHARACTERS_MAX, Deed, deed_of, main_deed

A, B = "0x" + "Aa" * 20, "0x" + "Bb" * 20


@pytest.mark.parametrize(
    ("path", "value", "title", "detail"),
    [
        (f"/transfer/{A}/{B}/k/value", 2.5, "Transfer", "2.5 AIN from 0xAaAaAa…AaAaAa to 0xBbBbBb…BbBbBb"),
        (f"/services/{A}/echo/versions/cid", {"version": "1.2.0"}, "Version published", "echo 1.2.0"),
        (f"/placements/{A}/echo/cid/{B}", {"status": "PLACED"}, "Service placed", "echo by 0xBbBbBb…BbBbBb"),
        (f"/channels/{A}/ff/open", {"deposit_uain": 500, "name": "echo"}, "Channel opened", "0.0005 AIN for echo by 0xAaAaAa…AaAaAa"),
        (f"/channels/{A}/ff/claim/1", {"amount_uain": 7, "send_back": True}, "Provider paid", "0.000007 AIN from ff, the rest sent back"),
        (f"/bonds/{A}/withdraw/1", {"amount_uain": 7}, "Bond withdrawn", "0.000007 AIN, 0xAaAaAa…AaAaAa"),
        (f"/machines/{A}/offer", {"name": "attic", "endpoint": "ssh://h:1"}, "Machine opened", "attic ssh://h:1"),
        (f"/machines/{A}/offer", None, "Machine closed", "0xAaAaAa…AaAaAa"),
        (f"/ssh_keys/{A}/ff", None, "Shell key taken back", "0xAaAaAa…AaAaAa"),
        ("/apps/x/y", None, "Value deleted", "/apps/x/y"),
        ("/apps/x/y", 1, "Value written", "/apps/x/y"),
    ],
)  # fmt: skip
def test_the_market_speaks_plainly(path: str, value: Any, title: str, detail: str) -> None:
    assert deed_of(path, value) == Deed(title, detail)


def test_every_request_path_of_the_market_has_words_of_its_own() -> None:
    for pattern in FUNCTIONS:
        path = "/" + "/".join("x" if label.startswith("$") else label for label in parse_path(pattern))
        assert deed_of(path, {}).title not in ("Value written", "Value deleted"), pattern


def test_rules_functions_and_owners_are_named_as_such() -> None:
    assert deed_of("/apps/x", {}, "SET_RULE").title == "Rule written"
    assert deed_of("/apps/x", {}, "SET_OWNER").title == "Owner entry written"


def test_a_registered_program_is_not_what_a_publication_is_about() -> None:
    program, version = (
        deed_of("/programs/cid", {}),
        deed_of(f"/services/{A}/n/versions/c", {"version": "1.0.0"}),
    )
    assert main_deed([program, version]) == version
    assert main_deed([program]) == program
    assert main_deed([]).title == "Nothing written"


@given(
    st.text(max_size=300), st.none() | st.integers() | st.text() | st.dictionaries(st.text(), st.integers())
)
def test_whatever_is_written_has_words_within_bounds(path: str, value: Any) -> None:
    for one in (path, f"/transfer/{path}/b/c/value", f"/channels/{path}/x/open"):
        deed = deed_of(one, value)
        assert deed.title and len(deed.detail) <= DETAIL_CHARACTERS_MAX
