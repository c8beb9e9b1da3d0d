"""Labels, paths, values, numbers and seeded random numbers against AI Network's own."""

from __future__ import annotations

import math
from typing import Any

from openresource.primitives.amounts import gas_cost
from openresource.primitives.encoding import js_json
from openresource.primitives.hashing import is_hash, is_hex_text, message_hash_hex
from openresource.primitives.numbers import (
    count_decimals,
    is_decimal_text,
    is_integer_text,
    number_text,
    start_of_day_ms,
)
from openresource.primitives.paths import (
    balance_path,
    format_path,
    has_reserved_character,
    invalid_prefix,
    is_service_account,
    is_variable,
    matches_allowed_pattern,
    parse_path,
    radix_label,
    service_account_parts,
    valid_label,
    valid_service_name,
)
from openresource.primitives.seeded_random import SeededRandom
from openresource.primitives.values import object_height, object_size, size_of, valid_value
from tests.vectors_support import vectors


@vectors("ain/basic.json", "labels", expected=("valid", "reserved_char", "allowed_pattern", "is_variable"))
def test_label_vectors(case: Any, document: Any) -> None:
    label = case["label"]
    assert valid_label(label, document["label_limit"]) == case["valid"]
    assert has_reserved_character(label) == case["reserved_char"]
    assert matches_allowed_pattern(label) == case["allowed_pattern"]
    assert is_variable(label) == case["is_variable"]


@vectors("ain/basic.json", "paths", expected=("parsed", "formatted", "valid", "invalid_path"))
def test_path_vectors(case: Any, document: Any) -> None:
    labels = parse_path(case["path"])
    assert labels == case["parsed"]
    assert format_path(labels) == case["formatted"]
    invalid = invalid_prefix(labels, document["label_limit"])
    assert (invalid is None) == case["valid"]
    assert (invalid or "") == case["invalid_path"]


@vectors("ain/basic.json", "values", expected=("valid", "invalid_path"))
def test_value_vectors(case: Any, document: Any) -> None:
    invalid = valid_value(case["value"], document["label_limit"])
    assert (invalid is None) == case["valid"]
    assert (invalid or "") == case["invalid_path"]


@vectors("ain/basic.json", "object_height_and_size", expected=("height", "size"))
def test_height_and_size_vectors(case: Any, document: Any) -> None:
    assert object_height(case["value"]) == case["height"]
    assert object_size(case["value"]) == case["size"]


@vectors("ain/basic.json", "sizeof", expected=("bytes",))
def test_weight_vectors(case: Any, document: Any) -> None:
    assert size_of(case["value"]) == case["bytes"]


@vectors(
    "ain/basic.json",
    "service_names",
    expected=("valid_no_block", "valid_block_1", "valid_block_2", "valid_block_null"),
)
def test_service_name_vectors(case: Any, document: Any) -> None:
    # On the local network of these vectors, lower case is demanded from block 2 on.
    name = case["name"]
    assert (
        valid_service_name(name)
        == case["valid_no_block"]
        == case["valid_block_1"]
        == case["valid_block_null"]
    )
    assert valid_service_name(name, lower_case_only=True) == case["valid_block_2"]


@vectors(
    "ain/basic.json",
    "service_accounts",
    expected=("is_serv_acnt", "is_serv_acnt_block_2", "parsed", "balance_path"),
)
def test_service_account_vectors(case: Any, document: Any) -> None:
    name = case["name"]
    assert is_service_account(name) == case["is_serv_acnt"]
    assert is_service_account(name, lower_case_only=True) == case["is_serv_acnt_block_2"]
    parts = service_account_parts(name)
    if parts is None:
        assert None in case["parsed"]
        assert case["parsed"] == ([*name.split("|"), None, None])[:3]
    else:
        assert list(parts) == case["parsed"]
    assert balance_path(name) == case["balance_path"]


@vectors(
    "ain/basic.json",
    "number_text",
    expected=(
        "text",
        "count_decimals",
        "gas_cost_price_1",
        "gas_cost_price_500",
        "gas_cost_price_500_no_floor",
    ),
)
def test_number_text_vectors(case: Any, document: Any) -> None:
    number = case["number"]
    assert number_text(number) == case["text"]
    assert count_decimals(number) == case["count_decimals"]
    assert json_number(gas_cost(1, number)) == case["gas_cost_price_1"]
    assert json_number(gas_cost(500, number)) == case["gas_cost_price_500"]
    assert json_number(gas_cost(500, number, is_floored=False)) == case["gas_cost_price_500_no_floor"]


@vectors("ain/basic.json", "to_string", expected=("text",))
def test_string_conversion_vectors(case: Any, document: Any) -> None:
    value = case["value"]
    assert (value if isinstance(value, str) else js_json(value)) == case["text"]


@vectors("ain/basic.json", "to_hex", expected=("radix_label", "hash"))
def test_radix_label_vectors(case: Any, document: Any) -> None:
    assert radix_label(case["label"]) == case["radix_label"]
    assert message_hash_hex(case["label"]) == case["hash"]


@vectors("ain/basic.json", "is_hash", expected=("valid", "is_hex"))
def test_hash_form_vectors(case: Any, document: Any) -> None:
    assert is_hash(case["value"]) == case["valid"]
    assert is_hex_text(case["value"]) == case["is_hex"]


@vectors("ain/basic.json", "integer_float_strings", expected=("is_integer_string", "is_float_string"))
def test_number_form_vectors(case: Any, document: Any) -> None:
    assert is_integer_text(case["value"]) == case["is_integer_string"]
    assert is_decimal_text(case["value"]) == case["is_float_string"]


@vectors("ain/basic.json", "seedrandom", expected=("values",))
def test_seeded_random_vectors(case: Any, document: Any) -> None:
    source = SeededRandom(case["seed"])
    assert [source.random() for _ in case["values"]] == case["values"]


@vectors("ain/basic.json", "day_timestamp", expected=("day",))
def test_day_vectors(case: Any, document: Any) -> None:
    assert start_of_day_ms(case["timestamp"]) == case["day"]


def json_number(number: float) -> float | None:
    """JSON has no infinity."""
    return number if math.isfinite(number) else None
