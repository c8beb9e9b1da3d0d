"""What a gateway passes on is a stranger's: whatever is not of the form is as if it had not been asked."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from openresource.client.inner_asks import BODY_BYTES_MAX, asks_of

RUN = "0123456789abcdef"
GOOD: dict[str, Any] = {
    "number": 1,
    "service": "gist",
    "method": "",
    "body": '{"text": "x"}',
    "max_price_uain": 5,
    "allowance_uain": None,
    "deadline_seconds": 2,
    "policy": "",
}


def told(*asks: Any, run: Any = RUN, ended: Any = False) -> bytes:
    return json.dumps({"run": run, "asks": list(asks), "ended": ended}).encode()


def test_a_request_comes_out_as_its_program_wrote_it() -> None:
    run, (ask,), has_ended = asks_of(told(GOOD))
    assert (run, has_ended) == (RUN, False)
    assert (ask.number, ask.service, ask.method, ask.policy) == (1, "gist", "", "")
    assert (ask.body, ask.input) == (b'{"text": "x"}', {"text": "x"})
    assert (ask.max_price_uain, ask.allowance_uain, ask.deadline_seconds) == (5, None, 2.0)
    assert asks_of(told(ended=True)) == (RUN, [], True)


@pytest.mark.parametrize(
    "change",
    [
        {"number": 0},
        {"number": -1},
        {"number": True},
        {"number": 10**9},
        {"number": "1"},
        {"service": "../etc"},
        {"service": 5},
        {"method": None},
        {"method": "x" * 201},
        {"body": "[1]"},
        {"body": "{"},
        {"body": None},
        {"body": '{"a": "' + "x" * BODY_BYTES_MAX + '"}'},
        {"body": '{"a": ' * 100 + "1" + "}" * 100},
        {"body": '{"a": "\ud800"}'},
        {"max_price_uain": -1},
        {"max_price_uain": 1.5},
        {"allowance_uain": "5"},
        {"allowance_uain": 10**30},
        {"policy": 5},
    ],
)
def test_a_request_of_another_form_is_passed_over(change: dict[str, Any]) -> None:
    _, asks, _ = asks_of(told({**GOOD, **change}, GOOD))
    assert [ask.number for ask in asks] == [1] and len(asks) == 1


@pytest.mark.parametrize(
    "run", ["", "x", "../../../etc/pas", 5, None, "é" * 16, RUN + "0", "a b c d e f g h "]
)
def test_a_run_that_could_not_stand_in_a_path_is_none(run: Any) -> None:
    assert asks_of(told(GOOD, run=run)) == ("", [], False)


@given(st.binary(max_size=300))
def test_any_bytes_are_survived(content: bytes) -> None:
    run, asks, has_ended = asks_of(content)
    assert (run, asks, has_ended) == ("", [], False) or run
