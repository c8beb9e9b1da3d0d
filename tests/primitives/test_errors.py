"""Refusals carry facts, a stable code, a message and the way out."""

from __future__ import annotations

import json
import pickle

import pytest

from openresource.primitives.errors import FACT_CHARACTERS_MAX, InvalidInput, Refusal


class VoucherTooSmall(Refusal):
    template = "The voucher covers {offered} µAIN; {required} µAIN are needed."
    way_out = "Sign a voucher for at least {required} µAIN."


class HTTPDoorClosed(Refusal):
    template = "The door is closed."


class Renamed(VoucherTooSmall):
    code = "old-name"


def test_facts_are_attributes_and_fill_the_sentences() -> None:
    refusal = VoucherTooSmall(offered=7, required=9)
    assert (refusal.offered, refusal.required) == (7, 9)
    assert refusal.message == "The voucher covers 7 µAIN; 9 µAIN are needed."
    assert refusal.remedy == "Sign a voucher for at least 9 µAIN."
    assert str(refusal) == f"{refusal.message} {refusal.remedy}"


def test_the_code_follows_from_the_class_unless_it_is_given() -> None:
    assert VoucherTooSmall.code == VoucherTooSmall(offered=1, required=2).code == "voucher-too-small"
    assert HTTPDoorClosed.code == "http-door-closed"
    assert Renamed.code == "old-name"
    assert Refusal.code == "refusal"
    assert InvalidInput.code == "invalid-input"


def test_a_message_of_its_own_replaces_the_template() -> None:
    refusal = InvalidInput("The port is taken.", remedy="Choose another.", port=80)
    assert refusal.message == "The port is taken."
    assert refusal.remedy == "Choose another."
    assert refusal.port == 80


def test_an_unknown_fact_is_an_attribute_error_and_a_question_mark_in_the_sentence() -> None:
    refusal = VoucherTooSmall(offered=7)
    with pytest.raises(AttributeError):
        _ = refusal.required
    assert "? µAIN are needed" in refusal.message


def test_long_and_odd_facts_stay_bounded_and_plain() -> None:
    refusal = VoucherTooSmall(offered="x" * 10_000, required=b"\x01\xff", more=[1, {"a": None}, b"\0"])
    assert len(refusal.message) < FACT_CHARACTERS_MAX + 100
    assert "01ff" in refusal.message
    assert json.loads(json.dumps(refusal.to_json()))["facts"]["more"] == [1, {"a": None}, "00"]
    assert refusal.to_json()["code"] == "voucher-too-small"


def test_braces_in_facts_stay_braces() -> None:
    assert "{required.__class__}" in VoucherTooSmall(offered="{required.__class__}", required=1).message


def test_a_refusal_travels_between_processes() -> None:
    copy = pickle.loads(pickle.dumps(VoucherTooSmall(offered=7, required=9)))
    assert copy.to_json() == VoucherTooSmall(offered=7, required=9).to_json()
