"""Descriptions of inputs and outputs: what fits, and which field does not."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from openresource.market.schemas import InvalidSchema, InvalidValue, check_schema, check_value

PERSON = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "minLength": 1, "maxLength": 10},
        "age": {"type": "integer", "minimum": 0, "maximum": 150},
        "tags": {"type": "array", "items": {"enum": ["a", "b", 1]}, "maxItems": 2},
        "photo": {"type": "string", "contentEncoding": "base64"},
        "born": {"type": "string", "format": "date"},
        "height": {"anyOf": [{"type": "number", "exclusiveMinimum": 0}, {"type": "null"}]},
    },
    "required": ["name"],
    "additionalProperties": False,
}


@pytest.mark.parametrize(
    "value",
    [
        {"name": "Ann"},
        {"name": "Ann", "age": 3, "tags": ["a", 1], "photo": "AAEC", "born": "2000-01-02", "height": None},
        {"name": "Ann", "age": 3.0, "height": 1.5},
    ],
)
def test_what_fits_passes(value: Any) -> None:
    check_schema(PERSON)
    check_value(PERSON, value)


@pytest.mark.parametrize(
    ("value", "field", "words"),
    [
        ([], "input", "object"),
        ({}, "input.name", "required"),
        ({"name": ""}, "input.name", "at least 1"),
        ({"name": "x" * 11}, "input.name", "at most 10"),
        ({"name": "x", "age": -1}, "input.age", "at least 0"),
        ({"name": "x", "age": True}, "input.age", "integer"),
        ({"name": "x", "age": 1.5}, "input.age", "integer"),
        ({"name": "x", "tags": ["a", "c"]}, "input.tags[1]", "one of"),
        ({"name": "x", "tags": [True]}, "input.tags[0]", "one of"),
        ({"name": "x", "tags": ["a", "a", "a"]}, "input.tags", "at most 2"),
        ({"name": "x", "photo": "!!"}, "input.photo", "base64"),
        ({"name": "x", "photo": "ä"}, "input.photo", "base64"),
        ({"name": "x", "born": "yesterday"}, "input.born", "date"),
        ({"name": "x", "height": 0}, "input.height", "more than 0"),
        ({"name": "x", "height": "tall"}, "input.height", "number"),
        ({"name": "x", "nmae": 1}, "input.nmae", "the names are name"),
    ],
)
def test_what_does_not_fit_is_named(value: Any, field: str, words: str) -> None:
    with pytest.raises(InvalidValue) as refused:
        check_value(PERSON, value)
    assert refused.value.field == field
    assert words in str(refused.value)


@pytest.mark.parametrize(
    ("schema", "field"),
    [
        (3, "schema"),
        ({"type": "text"}, "schema.type"),
        ({"type": ["string", 3]}, "schema.type"),
        ({"pattern": "(a+)+"}, "schema.pattern"),
        ({"$ref": "#/x"}, "schema.$ref"),
        ({"minLength": -1}, "schema.minLength"),
        ({"minimum": "1"}, "schema.minimum"),
        ({"enum": []}, "schema.enum"),
        ({"required": "name"}, "schema.required"),
        ({"properties": []}, "schema.properties"),
        ({"properties": {"a": {"items": {"type": "x"}}}}, "schema.properties.a.items.type"),
        ({"contentEncoding": "base32"}, "schema.contentEncoding"),
        ({"format": 3}, "schema.format"),
        ({"additionalProperties": 3}, "schema.additionalProperties"),
        ({"anyOf": [{"type": "x"}]}, "schema.anyOf[0].type"),
    ],
)
def test_a_description_that_would_not_be_checked_is_refused(schema: Any, field: str) -> None:
    with pytest.raises(InvalidSchema) as refused:
        check_schema(schema)
    assert refused.value.field == field


def test_descriptions_and_values_are_bounded_in_depth() -> None:
    deep: Any = {}
    for _ in range(30):
        deep = {"items": deep}
    with pytest.raises(InvalidSchema):
        check_schema(deep)
    with pytest.raises(InvalidSchema):
        check_schema({"properties": {str(number): {} for number in range(2_000)}})


def test_members_without_a_name_follow_the_rule_for_the_others() -> None:
    schema = {"type": "object", "additionalProperties": {"type": "integer"}}
    check_value(schema, {"a": 1})
    with pytest.raises(InvalidValue, match=r"input\.a"):
        check_value(schema, {"a": "1"})
    check_value({"type": ["string", "null"], "const": None}, None)
    with pytest.raises(InvalidValue):
        check_value({"const": 1}, True)


json_values: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=10,
)


@given(json_values, json_values)
def test_whatever_arrives_the_outcome_is_typed(schema: Any, value: Any) -> None:
    try:
        check_schema(schema)
        check_value(schema, value)
    except (InvalidSchema, InvalidValue) as refused:
        assert refused.message


@given(json_values)
def test_nothing_asked_is_nothing_refused(value: Any) -> None:
    check_value({}, value)
