"""Small texts of strangers that would cost a lot of time to read."""

from __future__ import annotations

from typing import Any

import pytest

from openresource.market.manifests import KEY_DOTS_MAX, InvalidManifest, parse_manifest
from openresource.market.schemas import (
    VALUE_STEPS_MAX,
    InvalidValue,
    ValueTooLarge,
    check_schema,
    check_value,
)


@pytest.mark.parametrize(
    "text",
    [
        ".".join(["a"] * 30_000) + " = 1",
        "x = {" + " . ".join(['"a"'] * 10_000) + " = 1}",
        "[" + ".".join(["'a'"] * 10_000) + "]",
        "a = " + "9" * 60_000,
        "a = " + "[" * 5_000 + "]" * 5_000,
    ],
)
def test_a_manifest_that_would_take_long_to_read_is_refused_at_once(text: str) -> None:
    with pytest.raises(InvalidManifest):
        parse_manifest(text)


def test_long_prose_is_no_bomb() -> None:
    with pytest.raises(InvalidManifest) as refusal:
        parse_manifest(f'summary = "{"So it is. " * KEY_DOTS_MAX}{"." * 5_000}"')
    assert refusal.value.facts["field"] == "run"


@pytest.mark.parametrize(
    "items",
    [
        {"anyOf": [{"type": "string"}] * 900 + [{"type": "integer"}]},
        {"enum": list(range(1_000))},
        {"anyOf": [*[{"anyOf": [{"anyOf": [{"const": 5}] * 9}] * 9}] * 9, {"const": 999}]},
    ],
)
def test_a_schema_that_multiplies_work_is_stopped(items: dict[str, Any]) -> None:
    schema = {"type": "array", "items": items}
    check_schema(schema)
    with pytest.raises(ValueTooLarge):
        check_value(schema, [999] * 50_000)


def test_a_long_list_of_numbers_is_still_checked() -> None:
    schema = {"type": "array", "items": {"type": "number"}}
    numbers: list[Any] = [1.5] * (VALUE_STEPS_MAX // 2)
    check_value(schema, numbers)
    with pytest.raises(InvalidValue) as refusal:
        check_value(schema, [*numbers, "x"])
    assert refusal.value.facts["field"] == f"input[{len(numbers)}]"


def test_a_place_deep_inside_is_named_without_its_long_names() -> None:
    schema = {"additionalProperties": {"items": {"properties": {"a": {"type": "string"}}}}}
    with pytest.raises(InvalidValue) as refusal:
        check_value(schema, {"n" * 1_000: [{}, {"a": 1}]})
    assert refusal.value.facts["field"] == "input." + "n" * 100 + "[1].a"
